"""Find how far to move: exact line searches and their parts."""

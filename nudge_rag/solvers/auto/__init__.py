"""The solver that tries the others and keeps what is best on held-out pairs."""

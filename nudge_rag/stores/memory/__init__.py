"""Stores in the memory of this process, those of the frameworks included."""

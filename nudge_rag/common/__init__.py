"""Helpers that every package uses; they import nothing but errors."""

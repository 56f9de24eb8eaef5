"""Readable results."""

"""Tuning that follows the store and its feedback: a change costs what the change is worth."""

"""The record of writes to a store, and undoing them: one file per verb."""

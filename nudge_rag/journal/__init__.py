"""What was written to a store, and undoing it: one file per verb."""

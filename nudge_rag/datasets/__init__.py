"""Public labelled data for demonstrations, from installed packages alone."""

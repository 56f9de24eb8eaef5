"""What users tell us: labelled pairs of queries and nodes, and the files that hold them."""

"""A linear map that is shared by all queries: labels reach the nodes that nobody labelled."""

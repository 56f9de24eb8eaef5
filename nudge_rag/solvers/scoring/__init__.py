"""Score vectors of the covered nodes on judged queries."""

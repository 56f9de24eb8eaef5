"""How good a ranking is: metrics, their means over queries, and paired comparisons."""

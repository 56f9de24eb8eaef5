"""The contrastive solver: cross-entropy over the covered nodes."""

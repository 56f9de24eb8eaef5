"""The main job on real data, offline: what ``nudge-rag demo`` runs."""

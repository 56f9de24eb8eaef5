"""Keys of stores: strings that tell them apart, fit for the name of a folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

__all__ = ["path_key", "store_key"]


def path_key(name: str, path: Path) -> str:
    """A folder name that tells stores on disk apart by their place."""
    resolved = path.resolve()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", resolved.stem).strip("-")[:40]
    return f"{name}-{slug}-{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"


def store_key(name: str, place: str) -> str:
    """A store's key, fit for the name of a folder: the database's name, and a hash of the place of the vectors.

    Example:
        >>> store_key("duckdb", "/data/x.duckdb docs embedding")
        'duckdb-7bd9092ae33ff3c3'
    """
    return f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"

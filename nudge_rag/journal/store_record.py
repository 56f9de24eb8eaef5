"""The record of a store, and the mark of a folder that holds its history: JSON in blobs, with checksums.

``store.json`` names the store, in whatever holds its history; ``elsewhere.json`` in a store's own storage names the
folder that holds it instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nudge_rag.common.archive import encode_manifest, parse_manifest
from nudge_rag.errors import CorruptArchiveError
from nudge_rag.journal.versions import writing_to
from nudge_rag.stores.history import BlobStorage

__all__ = ["ELSEWHERE", "NEWEST", "ORIGIN", "PUSHES", "STORE", "read_json", "write_json"]

STORE, ELSEWHERE = "store.json", "elsewhere.json"
# In the record of a store: what it was copied from.
ORIGIN = "origin"
# In the record of a store: the name of the version that was recorded last.
NEWEST = "newest"
# In the record of a store whose nodes' table counts pushes too: how many were recorded in all.
PUSHES = "pushes"


def read_json(storage: BlobStorage, name: str) -> dict[str, Any] | None:
    """Read the content of a blob with a checksum, None if there is none.

    Raises:
        CorruptArchiveError: the record is damaged.
    """
    try:
        with writing_to(storage, "read"):
            content = storage.read(name)
    except KeyError:
        return None
    parsed = parse_manifest(f"{storage.location}/{name}", content)
    if not isinstance(parsed.get("turns", []), list):
        raise CorruptArchiveError(f"{storage.location}/{name}: turns are no list")
    return parsed


def write_json(storage: BlobStorage, name: str, content: Mapping[str, Any]) -> None:
    """Write a blob with a checksum.

    Raises:
        JournalError: the journal cannot be written to.
    """
    with writing_to(storage, "written to"):
        storage.write(name, encode_manifest(json.loads(json.dumps(dict(content)))))

"""What is remembered of the copy of a version, in a blob of the history."""

from __future__ import annotations

from nudge_rag.journal.versions import writing_to
from nudge_rag.stores.history import BlobStorage

__all__ = ["LabelNotes"]


class LabelNotes:
    """The blob ``copies/<label>``.

    Args:
        storage: of the history.
        label: of the copy.
    """

    def __init__(self, storage: BlobStorage, label: str) -> None:
        self._storage, self._name = storage, f"copies/{label}"

    def read(self) -> bytes | None:
        """Read what was noted; None if nothing was."""
        try:
            with writing_to(self._storage, "read"):
                return self._storage.read(self._name)
        except KeyError:
            return None

    def write(self, content: bytes) -> None:
        """Note ``content``, in place of what was there."""
        with writing_to(self._storage, "written to"):
            self._storage.write(self._name, content)

    def forget(self) -> None:
        """Remove the note, if there is one."""
        with writing_to(self._storage, "written to"):
            if self._name in self._storage.names("copies/"):
                self._storage.delete(self._name)

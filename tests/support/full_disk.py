"""A disk that fills up."""

from __future__ import annotations

import nudge_rag.common.files


def fills_up(monkeypatch, writes):
    """From now on the journal takes so many writes and no more; how many are left, below 0 once one has failed."""
    write, left = nudge_rag.common.files.write_synced, [writes]

    def full(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(nudge_rag.common.files, "write_synced", full)
    return left

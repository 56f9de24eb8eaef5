"""A folder that cannot be listed is an error: taken for an empty one, nudges would be taken for originals."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from nudge_rag import live_version, rollback, status, tune, versions
from nudge_rag.errors import JournalAccessError, JournalError
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore
from nudge_rag.stores.storages import FolderStorage

NOBODY = 65534
PAIRS = LabeledPairs.from_pairs((f"query {n}", "a") for n in range(20))


def tuned(store, folder):
    return tune(store, PAIRS, lambda texts: np.tile([0.6, 0.8], (len(texts), 1)), solver="nudge-n", versions=folder)


CALLS = {"status": status, "versions": versions, "live_version": live_version, "rollback": rollback, "tune": tuned}


@pytest.fixture
def pushed():
    """A store and its history, in a folder that every user may reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="nudge-rag-"))
    folder.chmod(0o755)
    store = MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0]}, key="docs")
    push_vectors(store, ["a"], np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]]), versions=folder)
    yield store, folder
    for path in [folder / "docs", folder / "docs" / "0001"]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def as_somebody_else():
    """Another user, for whom rights count; only root can change into one, and rights count for all others."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="rights of folders are another matter there")
@pytest.mark.parametrize("closed", ["docs", "docs/0001"])
@pytest.mark.parametrize("call", CALLS)
def test_a_history_that_may_not_be_read_is_not_an_empty_one(pushed, closed, call):
    store, folder = pushed
    (folder / closed).chmod(0o000)
    with as_somebody_else(), pytest.raises(JournalAccessError, match=r"the journal cannot be .*Permission denied"):
        CALLS[call](store, folder)
    (folder / closed).chmod(0o755)
    assert status(store, folder).version == "0001"


def test_a_file_in_the_place_of_the_folder_is_not_an_empty_one(tmp_path):
    (tmp_path / "docs").write_text("something else")
    store = MappingStore({"a": [1.0, 0.0]}, key="docs")
    with pytest.raises(JournalError, match=r"the journal cannot be read .*in the folder .*docs"):
        status(store, tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="not every user may make links there")
def test_a_folder_that_is_not_there_is_an_empty_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert FolderStorage(tmp_path / "nothing").names() == FolderStorage(tmp_path / "link").names() == []

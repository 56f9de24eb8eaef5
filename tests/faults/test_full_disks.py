"""A disk that is full, and files, folders and tables that may not be written to: clear errors, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psycopg
import pytest

from nudge_rag import reapply, rollback, status, versions
from nudge_rag.errors import StoreError
from nudge_rag.journal.push import PushError, push_vectors
from tests.support.killed_worker import COLLECTION, nudged, open_store
from tests.support.killing import fill, is_whole, losses, quietly

KINDS = ["simple", "faiss", "lancedb", "chroma"]
NOBODY = 65534
NO_SPACE = {"full": "disk full", "limited": "file larger than the limit of the process"}
FORBIDDEN = "no right to write"
IDS = [f"n{i}" for i in range(200)]
# More than the limits below, and no more: LlamaIndex reads the text of each number again at every opening.
ORIGINALS = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
FIRST, SECOND = nudged(ORIGINALS, 1), nudged(ORIGINALS, 2)


class Setting:
    """A store with a push, its journal, and another process that tries something."""

    def __init__(self, kind, place, root, scratch, killer):
        self.kind, self.root, self.scratch, self.killer = kind, root, scratch, killer
        self.address = fill(kind, place, None, IDS, ORIGINALS)
        self.attempts = 0
        push_vectors(self.store, IDS, ORIGINALS, FIRST, versions=root)
        np.savez(scratch / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)

    @property
    def store(self):
        return open_store(self.kind, self.address)

    def attempt(self, action, **options):
        """Its error: the names of its classes, and what it says."""
        report = self.scratch / "report.json"
        report.unlink(missing_ok=True)
        job = {"address": self.address, "vectors": self.scratch / "vectors.npz", "root": self.root, "number": 2}
        assert self.killer.run(self.kind, action=action, report=report, **job, **options) == 0
        assert report.stat().st_size, f"{action} went through"
        self.attempts += 1
        said = json.loads(report.read_text())
        return said["kinds"], said["message"]

    def assert_recovers(self, record_property, fault):
        """With space again: nothing is lost, the push before is whole, another one works, and all can be undone."""
        lost = losses(self.store, IDS, ORIGINALS, FIRST, SECOND)
        quietly(reapply, self.store, self.root)
        assert is_whole(self.store, IDS, FIRST, SECOND)
        assert push_vectors(self.store, IDS, ORIGINALS, SECOND, versions=self.root).written == len(IDS)
        assert is_whole(self.store, IDS, SECOND)
        assert rollback(self.store, self.root).exact
        record(record_property, fault, self.kind, self.attempts, lost + losses(self.store, IDS, ORIGINALS))


def record(record_property, fault, kind, times, lost):
    for name, value in {"fault": fault, "store": kind, "times": times, "lost": lost}.items():
        record_property(name, value)
    assert lost == 0


@pytest.fixture(params=["full", "limited"])
def how(request):
    """A disk that is full, or a limit on the size of files, which needs no rights."""
    return request.param


@pytest.fixture
def disk(how, request, tmp_path):
    """Where space will run out; the small disk skips, and says why, where it cannot be mounted."""
    if how == "full":
        return request.getfixturevalue("small_disk")
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_space_for_the_journal(kind, how, tmp_path, disk, killer, record_property):
    setting = Setting(kind, tmp_path, disk / "v", tmp_path, killer)
    ballast = disk / "ballast"
    options = {"limited": "journal", "bytes": 1000} if how == "limited" else {"ballast": ballast}
    kinds, message = setting.attempt("push", **options)
    assert "OSError" in kinds
    assert ("No space left on device" if how == "full" else "File too large") in message
    assert is_whole(setting.store, IDS, FIRST)
    assert [version.state for version in versions(setting.store, setting.root)] == ["committed"]
    assert len(status(setting.store, setting.root).nudged) == len(IDS)
    if how == "full":
        # The store has space: the originals are back, and only the journal does not know it yet.
        kinds, message = setting.attempt("rollback", **options)
        assert "No space left on device" in message
        assert losses(setting.store, IDS, ORIGINALS) == 0
        ballast.unlink()
    setting.assert_recovers(record_property, NO_SPACE[how])


@pytest.mark.parametrize("kind", KINDS)
def test_no_space_for_the_store(kind, how, tmp_path, disk, killer, record_property):
    setting = Setting(kind, disk, tmp_path / "v", tmp_path, killer)
    ballast = disk / "ballast"
    options = {"limited": "store", "bytes": 4096} if how == "limited" else {"ballast": ballast}
    kinds, message = setting.attempt("push", **options)
    ballast.unlink(missing_ok=True)
    assert "PushError" in kinds
    assert "failed while vectors were written (" in message
    assert is_whole(setting.store, IDS, FIRST)
    assert [version.state for version in versions(setting.store, setting.root)] == ["committed", "rolled back"]
    kinds, message = setting.attempt("rollback", **options)
    ballast.unlink(missing_ok=True)
    assert "PushError" in kinds
    assert "failed while vectors were restored" in message
    assert is_whole(setting.store, IDS, FIRST)
    setting.assert_recovers(record_property, NO_SPACE[how])


@pytest.fixture
def open_folder():
    """A folder that every user may reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="nudge-rag-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def forbid(place):
    """Make a folder or file, and all in it, read-only; the user who then meets it, where this one is root."""
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return {"uid": NOBODY} if os.geteuid() == 0 else {}


def allow(place):
    for path in [place, *place.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)


@pytest.mark.parametrize("kind", KINDS)
def test_a_journal_that_may_not_be_written_to(kind, open_folder, tmp_path, killer, record_property):
    (open_folder / "store").mkdir()
    setting = Setting(kind, open_folder / "store", open_folder / "v", open_folder, killer)
    allow(open_folder)
    user = forbid(open_folder / "v")
    for action in ("push", "rollback", "recover"):
        kinds, message = setting.attempt(action, **user)
        assert "PermissionError" in kinds, message
        assert str(open_folder / "v") in message
        assert is_whole(setting.store, IDS, FIRST)
    allow(open_folder / "v")
    setting.assert_recovers(record_property, FORBIDDEN)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_may_not_be_written_to(kind, open_folder, killer, record_property):
    (open_folder / "store").mkdir()
    setting = Setting(kind, open_folder / "store", open_folder / "v", open_folder, killer)
    allow(open_folder)
    user = forbid(open_folder / "store")
    for action in ("push", "rollback"):
        kinds, message = setting.attempt(action, **user)
        assert "PushError" in kinds or (kind == "chroma" and "readonly database" in message), message
        allow(open_folder / "store")
        assert is_whole(setting.store, IDS, FIRST)
        forbid(open_folder / "store")
    assert {version.state for version in versions(setting.store, setting.root)} <= {"committed", "rolled back"}
    allow(open_folder / "store")
    setting.assert_recovers(record_property, FORBIDDEN)


@pytest.mark.parametrize("kind", ["simple", "faiss"])
def test_a_read_only_file_in_a_folder_that_may_be_written_to(kind, open_folder, killer, record_property):
    """Putting another file in its place would work, and is not what read-only means."""
    (open_folder / "store").mkdir()
    setting = Setting(kind, open_folder / "store", open_folder / "v", open_folder, killer)
    allow(open_folder)
    file = Path(setting.address)
    user = forbid(file)
    content = file.read_bytes()
    kinds, message = setting.attempt("push", **user)
    assert "PushError" in kinds
    assert "the vectors that were there before are back" in message
    assert file.read_bytes() == content
    assert sorted(path.name for path in file.parent.iterdir() if "tmp" in path.name) == []
    allow(open_folder)
    setting.assert_recovers(record_property, FORBIDDEN)
    assert file.stat().st_mode & 0o777 == 0o666, "a push keeps the mode of the file"


def test_a_table_that_a_role_may_not_update(tmp_path, servers, record_property):
    address, root = fill("postgres", tmp_path, servers, IDS, ORIGINALS), tmp_path / "v"
    owner = open_store("postgres", address)
    push_vectors(owner, IDS, ORIGINALS, FIRST, versions=root)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP OWNED BY reader" if has_role(connection) else "CREATE ROLE reader LOGIN")
        connection.execute(f"GRANT SELECT ON {COLLECTION} TO reader")
        reader = open_store("postgres", address.replace("//postgres", "//reader"))
        assert reader.key == owner.key
        with pytest.raises(StoreError, match=r"the table nudge_rag_history .*the role has no right to"):
            push_vectors(reader, IDS, ORIGINALS, SECOND, versions=root)
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON nudge_rag_history TO reader")
        with pytest.raises(PushError, match="the vectors that were there before are back") as caught:
            push_vectors(reader, IDS, ORIGINALS, SECOND, versions=root)
        assert isinstance(caught.value.__cause__, psycopg.errors.InsufficientPrivilege)
        with pytest.raises(PushError, match=r"failed while vectors were restored.*permission denied"):
            rollback(reader, root)
        assert is_whole(owner, IDS, FIRST)
        assert [version.state for version in versions(reader, root)] == ["committed", "rolled back"]
        connection.execute(f"GRANT UPDATE ON {COLLECTION} TO reader")
    assert push_vectors(reader, IDS, ORIGINALS, SECOND, versions=root).written == len(IDS)
    assert rollback(reader, root).exact
    record(record_property, FORBIDDEN, "postgres", 2, losses(owner, IDS, ORIGINALS))


def has_role(connection):
    return connection.execute("SELECT FROM pg_roles WHERE rolname = 'reader'").fetchone() is not None

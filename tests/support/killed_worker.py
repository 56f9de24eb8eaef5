"""Processes that push or roll back and are killed: run by tests through `Killer`, not by pytest.

    python killed_worker.py KIND SOCKET

A server imports what a kind of store needs, opens nothing, and listens on a socket. For whoever connects it forks a
process that forks one child per job. The child kills itself at its n-th step, or is killed after some time.
"""

from __future__ import annotations

import errno
import functools
import importlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import numpy as np

import nudge_rag.common.files
import nudge_rag.common.lock
import nudge_rag.journal.blocks
from nudge_rag import drop_copies, reapply, rollback, switch, versions
from nudge_rag.errors import NudgeError
from nudge_rag.journal.manifest import IN_PLACE, SIDE_BY_SIDE
from nudge_rag.journal.packed_map import NODE_MAP, pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import ChromaStore, FaissStore, LanceStore, ParquetStore, PgVectorStore, SimpleStore, leases
from nudge_rag.stores.lance import large_blobs
from tests.support import databases

COLLECTION = "killed"
OF_THE_PROCESS = (
    (nudge_rag.common.files, "write_synced"),
    (nudge_rag.common.files, "put_in_place"),
    (Path, "unlink"),
)
OF_A_HISTORY = ("write", "delete", "put", "remove", "drop")
# Of large blobs of LanceDB, which have tables of their own.
OF_LARGE_BLOBS = ("store", "remove", "sweep")
# How vectors are written: at once, or where they are what is expected.
WRITES = ("replace", "replace_vectors_if")


def import_for(kind: str) -> None:
    if kind == "simple":
        import llama_index.core.vector_stores  # noqa: F401
    elif kind == "faiss":
        import faiss  # noqa: F401
    elif kind == "lancedb":
        import lancedb  # noqa: F401
    elif kind == "parquet":
        import pyarrow.dataset
        import pyarrow.parquet  # noqa: F401
    elif kind.startswith("chroma"):
        for module in ("chromadb.api.fastapi", "chromadb.api.rust", "h2.connection", "httpcore", "tqdm.auto"):
            importlib.import_module(module)
    elif kind == "postgres":
        import psycopg  # noqa: F401
    else:
        databases.import_for(kind)


def open_store(kind: str, address: str) -> Any:
    if kind == "simple":
        return SimpleStore.open(address)
    if kind == "faiss":
        return FaissStore.open(address, Path(address).with_name("ids.json"))
    if kind == "lancedb":
        return LanceStore.open(address, "nodes")
    if kind == "parquet":
        return ParquetStore(address)
    if kind == "chroma":
        from chromadb.api.shared_system_client import SharedSystemClient

        SharedSystemClient.clear_system_cache()  # what another process has written is seen by a new client only
        return ChromaStore.open(address, COLLECTION)
    if kind == "chroma-server":
        import chromadb

        from nudge_rag.stores.chroma.copies import recovered

        client = chromadb.HttpClient(host="127.0.0.1", port=int(address))
        return ChromaStore(recovered(client, COLLECTION))
    if kind == "postgres":
        return PgVectorStore(address, COLLECTION)
    return databases.open_store(kind, address)


class Steps:
    """Dies before, between and after the parts of every write to the store and to the journal."""

    def __init__(self, left: int, pause: float = 0.0) -> None:
        self.left, self.pause = left, pause
        self.counted = 0

    def step(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a lease is renewed whenever its time has come
        self.counted += 1
        time.sleep(self.pause)
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def instrument(self, store: Any, set_attribute: Callable[[Any, str, Any], None] = setattr) -> Any:
        """Count the steps of this store and the journal; what the whole process shares goes through `set_attribute`."""
        for owner, name in OF_THE_PROCESS:
            set_attribute(owner, name, self.around(getattr(owner, name)))
        for name in ("switch", "drop_copy"):
            if hasattr(store, name):
                setattr(store, name, self.around(getattr(store, name)))
        if isinstance(store, ChromaStore):
            store._copies._rename = self.around(store._copies._rename)  # a switch has several
        for name in ("derive_copy", "catch_up_and_switch"):
            if hasattr(store, name):
                setattr(store, name, self.around(getattr(store, name)))
        if hasattr(store, "map_to_copy"):
            map_to_copy = self.around(store.map_to_copy)
            store.map_to_copy = lambda *given: self.in_parts(without_steps(map_to_copy(*given)))
        if hasattr(store, "create_copy"):
            create = self.around(store.create_copy)
            store.create_copy = lambda label: self.in_parts(without_steps(create(label)))
        return self.in_parts(store)

    def instrument_history(self, store: Any) -> None:
        """Count the steps of a history that the store holds itself: each blob, and each record of one."""
        offer = store.history

        def history() -> Any:
            storage = offer()
            if not hasattr(storage, "is_counted"):
                storage.is_counted = True
                counted = [(storage, name) for name in OF_A_HISTORY if hasattr(storage, name)]
                if isinstance(store, LanceStore):
                    counted += [(storage._large, name) for name in OF_LARGE_BLOBS]
                for part, name in counted:
                    setattr(part, name, self.around(getattr(part, name)))
            return storage

        store.history = history

    def around(self, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.step()
            found = method(*arguments, **options)
            self.step()
            return found

        return call

    def in_parts(self, store: Any) -> Any:
        for name in WRITES:
            if hasattr(store, name):
                setattr(store, name, self.in_three(getattr(store, name)))
        return store

    def in_three(self, write: Any) -> Any:
        """Three writes of a third of the nodes each, with a step between them."""

        def write_in_parts(ids: Any, *rows: Any) -> list[str]:
            left: list[str] = []
            self.step()
            for part in np.array_split(np.arange(len(ids)), 3):
                left += write([ids[at] for at in part], *(np.asarray(each)[part] for each in rows)) or []
                self.step()
            return left

        return write_in_parts


def without_steps(copy: Any) -> Any:
    """A copy that was made from a store with steps, whose own writes are meant."""
    for name in WRITES:
        vars(copy).pop(name, None)
    return copy


def nudged(originals: np.ndarray, number: int) -> np.ndarray:
    """The vectors of the nudge of that number, known to whoever checks."""
    return (originals + np.random.default_rng([7, number]).normal(size=originals.shape)).astype(np.float32)


def map_of_nodes(dimension: int) -> QueryAdapter:
    """A map of all nodes, known to whoever checks."""
    change = np.random.default_rng([7, dimension]).normal(size=(dimension, dimension)) * 0.3
    return QueryAdapter(change.astype(np.float32))


def push_map(store: Any, root: Path, ids: list[str], originals: np.ndarray, mode: str) -> None:
    """Push a map of all nodes, and a vector of its own for the first one."""
    own = nudged(originals, 3)[:1]
    details = {NODE_MAP: pack_adapter(map_of_nodes(originals.shape[1]))}
    push_vectors(store, ids[:1], originals[:1], own, versions=root, details=details, mode=mode)


def loop(store: Any, root: Path | None, ids: list[str], originals: np.ndarray, seed: int, ready: int) -> None:
    """Push and roll back, as chance has it, until killed."""
    rng = np.random.default_rng(seed)
    os.write(ready, b".")
    while True:
        chance, number = rng.random(), int(rng.integers(1_000_000))
        if chance < 0.6:
            chosen = np.sort(rng.permutation(len(ids))[: len(ids) if chance < 0.3 else len(ids) // 2])
            vectors = nudged(originals, number)[chosen]
            push_vectors(
                store, [ids[at] for at in chosen], originals[chosen], vectors, versions=root, details={"number": number}
            )
        elif chance < 0.8:
            rollback(store, root)
        else:
            live = [version.name for version in versions(store, root) if version.state == "committed"]
            if live:
                rollback(store, root, version=live[-1])


def race(store: Any, ids: list[str], originals: np.ndarray, seed: int, rounds: int) -> dict[str, int]:
    """Push and undo as chance has it, beside others that do the same; how often each went through, or was refused."""
    rng, done = np.random.default_rng(seed), Counter[str]()
    actions = ["push", "push", "rollback", "rollback one", "reapply"]
    if hasattr(store, "create_copy") and store.capabilities.side_by_side:
        actions += ["push-beside", "switch", "drop"]
    for _ in range(rounds):
        action = str(rng.choice(actions))
        number = int(rng.integers(1_000_000))
        try:
            done[action if race_once(store, ids, originals, action, number, rng) else "nothing to do"] += 1
        except (NudgeError, ValueError) as error:  # another was faster, or there is no way back to that version
            done[f"refused: {type(error).__name__}"] += 1
    return dict(done)


def race_once(
    store: Any, ids: list[str], originals: np.ndarray, action: str, number: int, rng: np.random.Generator
) -> bool:
    """Whether anything was done."""
    if action.startswith("push"):
        chosen = np.sort(rng.permutation(len(ids))[: int(rng.integers(1, len(ids) + 1))])
        mode = IN_PLACE if action == "push" else SIDE_BY_SIDE
        names, moved = [ids[at] for at in chosen], nudged(originals, number)[chosen]
        return push_vectors(
            store, names, originals[chosen], moved, details={"number": number}, mode=mode, versions=None
        ).pushed
    if action == "rollback":
        return rollback(store).version is not None
    if action == "reapply":
        return bool(reapply(store))
    if action == "drop":
        return bool(drop_copies(store))
    recorded = versions(store)
    if action == "switch":
        waits = [one for one in recorded if one.is_beside and one.state == "committed"]
        return bool(waits) and bool(switch(store, accept_gap=not store.capabilities.atomic_switch))
    live = [one.name for one in recorded if one.state == "committed" and not one.is_beside]
    return bool(live) and rollback(store, version=live[-1]).version is not None


def restrict(job: dict[str, Any], store: Any) -> Any:
    """Take rights or space from this process: its user's, that of writing files beyond a size, or all of a disk."""
    if "uid" in job:
        os.setgroups([])
        os.setgid(job["uid"])
        os.setuid(job["uid"])
        return open_store(job["kind"], job["address"])
    if "ballast" in job:
        fill_disk(Path(job["ballast"]))
    elif job.get("limited") == "journal":
        limit_files(job["bytes"])
    elif job.get("limited") == "store":

        def limited(write: Any) -> Any:
            def write_limited(*given: Any) -> Any:
                hard = limit_files(job["bytes"])
                try:
                    return write(*given)
                finally:
                    limit_files(hard)

            return write_limited

        for name in WRITES:
            if hasattr(store, name):
                setattr(store, name, limited(getattr(store, name)))
    return store


def fill_disk(ballast: Path) -> None:
    """Take all space that is left where this file is."""
    size = 1 << 20
    with ballast.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def limit_files(size: int) -> int:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    return hard


def work(job: dict[str, Any], ready: int) -> None:
    arrays = np.load(job["vectors"])
    ids, originals = arrays["ids"].tolist(), arrays["originals"]
    root = None if job["root"] is None else Path(job["root"])
    if "cwd" in job:
        os.chdir(job["cwd"])
    store = restrict(job, open_store(job["kind"], job["address"]))
    nudge_rag.common.lock.SECONDS_TO_WAIT = job.get("patience", nudge_rag.common.lock.SECONDS_TO_WAIT)
    leases.SECONDS_TO_SETTLE = job.get("settle", leases.SECONDS_TO_SETTLE)
    large_blobs.BYTES_OF_A_ROW = job.get("bytes_of_a_row", large_blobs.BYTES_OF_A_ROW)
    if job["action"] == "loop":
        loop(store, root, ids, originals, job["seed"], ready)
        return
    if job["action"] == "race":
        done = race(store, ids, originals, job["seed"], job["rounds"])
        Path(job["counted"]).write_text(json.dumps(done))
        return
    steps = Steps(job["steps"], job.get("pause", 0.0)) if "steps" in job else None
    if steps is not None:
        if root is None:
            steps.instrument_history(store)
        store = steps.instrument(store)
    else:
        os.write(ready, b".")
    action = job["action"]
    nudge_rag.journal.blocks.NUMBERS_PER_BLOCK = job.get("numbers", nudge_rag.journal.blocks.NUMBERS_PER_BLOCK)
    if action in ("map", "map-beside"):
        push_map(store, root, ids, originals, IN_PLACE if action == "map" else SIDE_BY_SIDE)
    elif action in ("push", "push-beside"):
        number, mode = job["number"], IN_PLACE if action == "push" else SIDE_BY_SIDE
        moved, details = nudged(originals, number), {"number": number}
        push_vectors(store, ids, originals, moved, versions=root, details=details, mode=mode)
    else:
        calls = {"rollback": rollback, "drop": drop_copies, "recover": reapply}
        calls["switch"] = functools.partial(switch, accept_gap=True)
        calls[action](store, root)
    if steps is not None and not steps.counted and not steps.pause:  # beside another process nothing may be left to do
        # Moving a function would let a killer inject nothing, and every test pass.
        raise AssertionError(f"no step of {action} was counted")
    if steps is not None and "counted" in job:
        Path(job["counted"]).write_text(str(steps.counted))


def fork(job: dict[str, Any]) -> int:
    """Run a job in a child; the signal that ended it, 0 for none, -1 for an error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            report = os.open(job["report"], os.O_WRONLY | os.O_CREAT) if "report" in job else -1
            warnings.simplefilter("ignore")
            work(job, writer)
        except BaseException as error:
            if "report" not in job:
                traceback.print_exc()
                os._exit(1)
            kinds = [kind.__name__ for kind in type(error).__mro__]
            os.write(report, json.dumps({"kinds": kinds, "message": str(error)}).encode())
        os._exit(0)
    os.close(writer)
    if "seconds" in job:
        os.read(reader, 1)  # nothing where the child died before it was ready
        time.sleep(job["seconds"])
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(reader)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def serve(connection: Connection) -> None:
    """Run the jobs of one client, one after another, and tell of errors where the client does."""
    os.dup2(recv_handle(connection), 2)
    connection.send("ready")
    with suppress(EOFError):
        while True:
            connection.send(fork(connection.recv()))


def main() -> None:
    """Serve clients until the last has gone."""
    kind, address = sys.argv[1:]
    listener, servants = socket.socket(socket.AF_UNIX), set[int]()
    try:
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:  # another process had one started at the same time
            return
        raise
    listener.listen(16)  # clients wait while this imports
    warnings.simplefilter("ignore")
    import_for(kind)
    np.random.default_rng(0)  # which imports more, that another user may not read
    listener.settimeout(1.0)
    is_first = True
    while is_first or servants:
        is_first = False
        with suppress(TimeoutError):
            client = listener.accept()[0]
            servant = os.fork()
            if servant == 0:
                listener.close()
                client.setblocking(True)
                serve(Connection(client.detach()))
                os._exit(0)
            servants.add(servant)
            client.close()
        while servants and (ended := os.waitpid(-1, os.WNOHANG)[0]):
            servants.discard(ended)
    Path(address).unlink()


if __name__ == "__main__":
    main()

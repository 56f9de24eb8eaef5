"""What the tests with SIGKILL share: stores made anew, processes to kill, and what may be in a store afterwards."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import nudge_rag
from nudge_rag.journal.versions import Version
from nudge_rag.stores import EmbeddingStore
from tests.support import databases
from tests.support.killed_worker import COLLECTION, nudged

if TYPE_CHECKING:  # which imports the frameworks
    from tests.support.builders.common import Servers

KINDS = ["simple", "faiss", "lancedb", "parquet", "chroma", "postgres"]
WORKER = Path(__file__).with_name("killed_worker.py")
ROOT = Path(__file__).parents[2]
SECONDS_TO_START = 120.0
numbers = itertools.count()


def switch(store: EmbeddingStore, root: Path) -> nudge_rag.SwitchReceipt:
    """Switch, with the gap where the store has one."""
    return nudge_rag.switch(store, root, accept_gap=not store.capabilities.atomic_switch)


def fill(kind: str, folder: Path, servers: Servers | None, ids: list[str], vectors: np.ndarray) -> str:
    """A store with these nodes; its address."""
    rows = vectors.tolist()
    if kind in databases.DATABASES:
        return databases.fill(kind, folder, servers, ids, rows)
    if kind == "simple":
        from llama_index.core.schema import TextNode
        from llama_index.core.vector_stores import SimpleVectorStore

        vector_store = SimpleVectorStore()
        vector_store.add([TextNode(id_=node, embedding=row) for node, row in zip(ids, rows, strict=True)])
        vector_store.persist(str(folder / "vectors.json"))
        return str(folder / "vectors.json")
    if kind == "faiss":
        import faiss

        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(folder / "index.faiss"))
        (folder / "ids.json").write_text(json.dumps(ids))
        return str(folder / "index.faiss")
    if kind == "lancedb":
        import lancedb

        table = [{"id": node, "vector": row} for node, row in zip(ids, rows, strict=True)]
        lancedb.connect(str(folder / "lance")).create_table("nodes", table)
        return str(folder / "lance")
    if kind == "parquet":
        import pyarrow.parquet

        place = folder / "nodes"
        place.mkdir()
        table = pyarrow.table({"id": ids, "embedding": pyarrow.array(rows, pyarrow.list_(pyarrow.float32()))})
        half = len(ids) // 2
        for number, part in enumerate((table.slice(0, half), table.slice(half))):
            pyarrow.parquet.write_table(part, place / f"part-{number}.parquet")
        return str(place)
    assert servers is not None or kind == "chroma"
    if kind.startswith("chroma"):
        import chromadb
    if kind == "chroma":
        fill_chroma(chromadb.PersistentClient(path=str(folder / "chroma")), ids, rows)
        return str(folder / "chroma")
    assert servers is not None
    if kind == "chroma-server":
        port = servers.address("chroma")
        fill_chroma(chromadb.HttpClient(host="127.0.0.1", port=port), ids, rows)
        return str(port)
    fill_postgres(servers.address("postgres"), ids, rows)
    return str(servers.address("postgres"))


def fill_chroma(client: Any, ids: list[str], rows: list[Any]) -> None:
    if COLLECTION in [collection.name for collection in client.list_collections()]:
        client.delete_collection(COLLECTION)
    client.create_collection(COLLECTION, embedding_function=None).add(ids=ids, embeddings=rows)


def fill_postgres(uri: str, ids: list[str], rows: list[Any]) -> None:
    import psycopg

    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {COLLECTION}")
        connection.execute(f"CREATE TABLE {COLLECTION} (id text, embedding vector({len(rows[0])}))")
        for node, row in zip(ids, rows, strict=True):
            connection.execute(f"INSERT INTO {COLLECTION} VALUES (%s, %s)", [node, str(row)])


class Killer:
    """Runs processes that are to be killed: forks of a server that has imported what a kind of store needs.

    Imports are most of what such a process would cost, so all processes of one run of pytest share the servers, each of
    which ends with its last client; a connection has one job at a time.
    """

    idle: ClassVar[dict[tuple[Path, str], list[Connection]]] = defaultdict(list)

    def __init__(self, worker: Path = WORKER) -> None:
        self.worker = worker

    def run(self, kind: str, **job: Any) -> int:
        """Run a job to its end; the signal that ended it, 0 for none, negative for an error."""
        waiting = self.idle[self.worker, kind]
        try:
            connection = waiting.pop()
        except IndexError:
            connection = self._connect(kind)
        connection.send({"kind": kind, **{name: _plain(value) for name, value in job.items()}})
        ended_by = int(connection.recv())
        waiting.append(connection)
        return ended_by

    def _connect(self, kind: str) -> Connection:
        """To the server of this run, which is started if it is not there."""
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))[:12]
        address = str(Path(tempfile.gettempdir()) / f"nudge-rag-{run}-{self.worker.stem}-{kind}")
        server, deadline = None, time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline:
            with suppress(OSError, EOFError):  # it is not there yet, or was about to end
                connection = Client(address, "AF_UNIX")
                send_handle(connection, 2, None)
                connection.recv()
                return connection
            if server is None or server.poll() == 0:
                server = self._start(kind, address)
            elif server.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self.worker.name} {kind} does not answer")

    def _start(self, kind: str, address: str) -> subprocess.Popen[bytes]:
        # Otherwise pyarrow starts a thread, which a fork would not have.
        environment = {**os.environ, "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        command = [sys.executable, str(self.worker), kind, address]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, env=environment, cwd=ROOT)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def losses(store: EmbeddingStore, ids: list[str], *known: np.ndarray) -> int:
    """How many nodes hold a vector that is none of the known ones."""
    dtype = store.capabilities.dtype
    sets = [{row.astype(dtype).tobytes() for row in rows} for rows in zip(*known, strict=True)]
    return sum(row.tobytes() not in allowed for row, allowed in zip(store.read(ids), sets, strict=True))


def is_whole(store: EmbeddingStore, ids: list[str], *known: np.ndarray) -> bool:
    """Whether all nodes hold the vectors of one and the same of the known ones."""
    found = store.read(ids)
    return any(found.tobytes() == one.astype(found.dtype).tobytes() for one in known)


def at_all(ids: list[str], originals: np.ndarray, version: Version) -> np.ndarray:
    """The vectors of all nodes once a version is there, which is what its number says."""
    whole, wanted = originals.copy(), nudged(originals, version.manifest["details"]["number"])
    at = {node: row for row, node in enumerate(ids)}
    # Of a version that is thinned nothing is left: it was live, and then everything was rolled back.
    for node, vector in zip(version.ids, version.after, strict=True):
        whole[at[node]] = vector
        assert vector.astype(np.float32).tobytes() in (wanted[at[node]].tobytes(), originals[at[node]].tobytes())
    return whole


def quietly(action: Any, *arguments: Any, **options: Any) -> Any:
    """Call it without the warnings that tell of what had died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action(*arguments, **options)

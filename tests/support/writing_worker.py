"""A process that writes to a store steadily, by the database's own client: adds, changes and deletes nodes.

    python writing_worker.py KIND ADDRESS LOG RATE SEED

Every write that the database has confirmed is a line of the log: the node's id, and its new vector or null. It
stops when its standard input ends, and prints how many writes the database refused, which are not in the log.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np

NODES, OWN, DIMENSION = 300, 100, 8
TABLE = "written"
TRIES = 5


def node_id(kind: str, number: int) -> str:
    """The id of a node, of the kind that the database takes."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"n{number}")) if kind == "qdrant" else f"n{number}"


class Writer:
    """Writes nodes ``OWN`` and above; those below are nobody's but the pusher's."""

    def __init__(self, put: Callable[[str, list[float]], Any], delete: Callable[[str], Any]) -> None:
        self.put, self.delete = put, delete
        self.there, self.next, self.refused = list(range(OWN, NODES)), NODES, 0

    def write(self, kind: str, rng: np.random.Generator) -> tuple[str, list[float] | None] | None:
        """One write: the id and the new vector, None for a deleted node; nothing if the database refused it."""
        chance, vector = rng.random(), rng.normal(size=DIMENSION).astype(np.float32).tolist()
        at = int(rng.integers(len(self.there)))
        if chance < 0.2:
            self.next += 1
            self.there.append(self.next)
            at = len(self.there) - 1
        name = node_id(kind, self.there[at])
        is_deleted = chance > 0.85 and len(self.there) > 50
        for _ in range(TRIES):
            try:
                if is_deleted:
                    self.delete(name)
                else:
                    self.put(name, vector)
            except Exception as error:
                self.refused += 1
                reason = error
                time.sleep(0.05)
            else:
                if is_deleted:
                    self.there.pop(at)
                return name, None if is_deleted else vector
        raise reason


def opened(kind: str, address: str) -> Writer:
    """A writer over the database's client."""
    if kind == "postgres":
        import psycopg

        connection = psycopg.connect(address, autocommit=True)
        insert = (
            f"INSERT INTO {TABLE} (id, embedding, text) VALUES (%s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding"
        )
        return Writer(
            lambda name, vector: connection.execute(insert, [name, str(vector), name]),
            lambda name: connection.execute(f"DELETE FROM {TABLE} WHERE id = %s", [name]),
        )
    if kind == "lancedb":
        import lancedb

        table = lancedb.connect(address).open_table(TABLE)

        def upsert(name: str, vector: list[float]) -> None:
            rows = [{"id": name, "vector": vector, "text": name}]
            table.checkout_latest()
            if table.version % 100 == 0:
                table.optimize()  # as LanceDB advises: every write makes a file
            table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

        return Writer(upsert, lambda name: table.delete(f"id = '{name}'"))
    if kind == "chroma-server":
        import chromadb

        client = chromadb.HttpClient(host="127.0.0.1", port=int(address))
        held: list[Any] = []

        def collection() -> Any:
            if not held:
                held.append(client.get_collection(TABLE, embedding_function=None))
            return held[0]

        def with_handle(call: Callable[[Any], Any]) -> None:
            # As applications do: one handle for good, another only if its collection is no longer there.
            try:
                call(collection())
            except chromadb.errors.NotFoundError:
                held.clear()
                raise

        return Writer(
            lambda name, vector: with_handle(lambda one: one.upsert(ids=[name], embeddings=[vector], documents=[name])),
            lambda name: with_handle(lambda one: one.delete(ids=[name])),
        )
    if kind == "simple":
        from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
        from llama_index.core.vector_stores import SimpleVectorStore

        def changed(change: Callable[[Any], Any]) -> None:
            # As applications do: the whole file is read, changed, and written again in place.
            vector_store = SimpleVectorStore.from_persist_path(address)
            change(vector_store)
            vector_store.persist(address)

        def node(name: str, vector: list[float]) -> TextNode:
            source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)}
            return TextNode(id_=name, text=name, embedding=vector, relationships=source)

        return Writer(
            lambda name, vector: changed(lambda store: store.add([node(name, vector)])),
            lambda name: changed(lambda store: store.delete(name)),
        )
    # Qdrant's local mode belongs to one process, which carries out what this one sends.
    host, port = address.split(":")
    connection = Client((host, int(port)), authkey=b"written")

    def send(*request: Any) -> None:
        connection.send(request)
        failed = connection.recv()
        if failed:
            raise RuntimeError(failed)

    return Writer(lambda name, vector: send("put", name, vector), lambda name: send("delete", name))


def main(kind: str, address: str, log: str, rate: float, seed: int) -> None:
    """Write until standard input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    writer, rng = opened(kind, address), np.random.default_rng(seed)
    with Path(log).open("w") as lines:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        due = time.monotonic()
        while not ended.is_set():
            written = writer.write(kind, rng)
            lines.write(json.dumps(written) + "\n")
            due = max(due + 1 / rate, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
    sys.stdout.write(f"{writer.refused}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))

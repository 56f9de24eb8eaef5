"""Pushes, switches and rollbacks while another process adds, changes and deletes nodes: none of its writes is lost.

Three rounds of each, so that the tests stay quick; NUDGE_RAG_ROUNDS for more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from multiprocessing.connection import Listener
from pathlib import Path

import chromadb
import lancedb
import numpy as np
import psycopg
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from qdrant_client import QdrantClient, models

from nudge_rag import PushError, drop_copies, rollback, switch
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.manifest import IN_PLACE, SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import ChromaStore, LanceStore, PgVectorStore, QdrantStore, SimpleStore
from nudge_rag.stores.access import read_present
from tests.support import writing_worker
from tests.support.writing_worker import DIMENSION, NODES, OWN, TABLE, node_id

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("NUDGE_RAG_ROUNDS", "3"))
RATE = 30.0
RATE_OF_FILES = 2.0  # by those who write all of it
MOVED = 150  # of which the writer writes to those from OWN on
KINDS = ["postgres", "lancedb", "qdrant", "chroma-server"]
# They have no conditional writes: a push or rollback in place looks again just before it writes.
REREAD = ["chroma-server", "qdrant"]
VECTORS = np.random.default_rng(0).normal(size=(NODES, DIMENSION)).astype(np.float32)


class OneAtATime:
    """A client of Qdrant's local mode, which knows no concurrent calls, for several threads."""

    def __init__(self, client):
        self.client, self.lock = client, threading.RLock()

    def __getattr__(self, name):
        found = getattr(self.client, name)
        if not callable(found):
            return found

        def call(*given, **options):
            with self.lock:
                return found(*given, **options)

        return call


class Served:
    """Writes of another process to a client that only this one can have."""

    def __init__(self, client):
        self.client, self.listener = client, Listener(("127.0.0.1", 0), authkey=b"written")
        self.address = "{}:{}".format(*self.listener.address)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with self.listener.accept() as connection:
            while True:
                try:
                    action, name, *vector = connection.recv()
                except EOFError:
                    return
                try:
                    if action == "put":
                        point = models.PointStruct(id=name, vector=vector[0], payload={"text": name})
                        self.client.upsert(TABLE, [point])
                    else:
                        self.client.delete(TABLE, models.PointIdsList(points=[name]))
                except Exception as error:
                    connection.send(repr(error))
                else:
                    connection.send("")


def filled(kind, folder, servers):
    """A store with the nodes, what opens it anew, and the address that the writer is given."""
    ids, rows = [node_id(kind, number) for number in range(NODES)], VECTORS.tolist()
    if kind == "postgres":
        uri = servers.address("postgres")
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
            connection.execute(f"CREATE TABLE {TABLE} (id text PRIMARY KEY, embedding vector({DIMENSION}), text text)")
            for name, row in zip(ids, rows, strict=True):
                connection.execute(f"INSERT INTO {TABLE} VALUES (%s, %s, %s)", [name, str(row), name])
        return PgVectorStore(uri, TABLE), uri
    if kind == "simple":
        vector_store, path = SimpleVectorStore(), folder.with_suffix(".json")
        source = {name: {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)} for name in ids}
        vector_store.add(
            [TextNode(id_=name, embedding=row, relationships=source[name]) for name, row in zip(ids, rows, strict=True)]
        )
        vector_store.persist(str(path))
        return SimpleStore.open(path), str(path)
    if kind == "lancedb":
        table = [{"id": name, "vector": row, "text": name} for name, row in zip(ids, rows, strict=True)]
        lancedb.connect(str(folder)).create_table(TABLE, table)
        return LanceStore.open(folder, TABLE), str(folder)
    if kind == "qdrant":
        client = OneAtATime(QdrantClient(":memory:"))
        size = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT)
        client.create_collection("first", vectors_config=size)
        made = models.CreateAlias(collection_name="first", alias_name=TABLE)
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
        points = [
            models.PointStruct(id=name, vector=row, payload={"text": name}) for name, row in zip(ids, rows, strict=True)
        ]
        client.upsert(TABLE, points)
        return QdrantStore(client, TABLE), Served(client).address
    port = servers.address("chroma")
    client = chromadb.HttpClient(host="127.0.0.1", port=port)
    for collection in client.list_collections():
        client.delete_collection(collection.name)
    collection = client.create_collection(TABLE, embedding_function=None)
    collection.add(ids=ids, embeddings=rows, documents=ids)
    return ChromaStore(client.get_collection(TABLE, embedding_function=None)), str(port)


@contextmanager
def written_to(kind, address, folder, rate=RATE):
    """While another process writes; gives what the database must hold in the end, once it has ended."""
    log, truth = folder / "written.jsonl", {node_id(kind, number): row for number, row in enumerate(VECTORS)}
    command = [sys.executable, str(Path(writing_worker.__file__)), kind, address, str(log), str(rate), "0"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout.readline() == "ready\n"
        yield truth
    finally:
        worker.communicate("")
    assert worker.returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) > ROUNDS
    for name, vector in lines:
        truth[name] = None if vector is None else np.float32(vector)


def push_once(store, ids, seed, mode, left_alone=False):
    present, _ = read_present(store, ids)
    names = list(present)
    originals = original_vectors(store, names, np.stack(list(present.values())))
    moved = store.as_stored(originals + np.random.default_rng([1, seed]).normal(size=originals.shape))
    receipt = push_vectors(store, names, originals, moved, mode=mode)
    assert receipt.pushed or left_alone
    return dict(zip(names, moved, strict=True))


def losses(store, truth, but=()):
    """How many nodes, but for some, are not as they were written last: another vector, deleted, or there again."""
    # Files hold the numbers of float32 in decimal.
    held = {name: np.float32(row) for names, rows in store.scan() for name, row in zip(names, rows, strict=True)}
    judged = (held.keys() | truth.keys()) - set(but)
    return sum(
        name not in truth
        or (name in held if truth[name] is None else name not in held or held[name].tobytes() != truth[name].tobytes())
        for name in judged
    )


def overwritten(store, truth, ids, folder, writes):
    """How many writes may be lost to so many in place: those of the milliseconds between a look and the write.

    None of a node that the push does not move is lost, and a node of which one was holds what it held before.
    """
    assert losses(store, truth, but=ids) == 0
    before = {node: {row.tobytes()} for node, row in zip(ids, VECTORS, strict=False)}
    for line in (folder / "written.jsonl").read_text().splitlines():
        name, vector = json.loads(line)
        if vector is not None:
            before.setdefault(name, set()).add(np.float32(vector).tobytes())
    held = {name: row.tobytes() for names, rows in store.scan() for name, row in zip(names, rows, strict=True)}
    assert all(held[name] in before[name] for name in held.keys() & set(ids))
    return writes


def record(record_property, fault, kind, lost):
    for name, value in {"fault": fault, "store": kind, "times": ROUNDS, "lost": lost}.items():
        record_property(name, value)
    assert lost == 0


@pytest.fixture(autouse=True)
def quiet():
    """Nodes that are left alone are warned of, and there are some in every round."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_side_by_side_catches_up_with_a_steady_writer(kind, tmp_path, servers, record_property):
    store, address = filled(kind, tmp_path / "store", servers)
    ids = [node_id(kind, number) for number in range(MOVED)]
    own, caught_up = ids[:OWN], 0
    with written_to(kind, address, tmp_path) as truth:
        for round_ in range(ROUNDS):
            moved = push_once(store, ids, round_, SIDE_BY_SIDE)
            time.sleep(0.2)
            caught_up += switch(store, accept_gap=kind == "chroma-server").caught_up
            assert store.read(own).tobytes() == np.stack([moved[name] for name in own]).tobytes()
            time.sleep(0.1)
            if round_ % 2:
                # A writer who goes on by the handle of a collection that is live no longer stops it.
                with suppress(PushError):
                    drop_copies(store)
            assert rollback(store).exact
            assert store.read(own).tobytes() == VECTORS[:OWN].tobytes()
    drop_copies(store)
    assert caught_up > 0
    lost = losses(store, truth)
    if kind in REREAD and lost:
        # Once a copy that was live is dropped, a rollback is one in place.
        assert lost <= overwritten(store, truth, ids, tmp_path, ROUNDS // 2)
        lost = 0
    record(record_property, "side-by-side push, switch and rollback beside a steady writer", kind, lost)


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_in_place_leaves_the_writes_of_others_alone(kind, tmp_path, servers, record_property):
    store, address = filled(kind, tmp_path / "store", servers)
    ids = [node_id(kind, number) for number in range(MOVED)]
    with written_to(kind, address, tmp_path) as truth:
        for round_ in range(ROUNDS):
            moved = push_once(store, ids, round_, IN_PLACE)
            assert store.read(ids[:OWN]).tobytes() == np.stack([moved[name] for name in ids[:OWN]]).tobytes()
            rollback(store)
            time.sleep(0.1)
    rollback(store)
    lost = losses(store, truth)
    if kind in REREAD:
        assert lost <= overwritten(store, truth, ids, tmp_path, 2 * ROUNDS)
        return
    record(record_property, "push in place and rollback beside a steady writer", kind, lost)


def test_a_push_beside_a_writer_of_the_whole_file_leaves_his_writes_alone(tmp_path, record_property):
    """The writer knows no lock: what he has read before a push or rollback he writes over it, which undoes that."""
    store, address = filled("simple", tmp_path / "store", None)
    ids, refused, nudges = [node_id("simple", number) for number in range(MOVED)], 0, set()
    with written_to("simple", address, tmp_path, RATE_OF_FILES) as truth:
        for round_ in range(ROUNDS):
            try:
                pushed = push_once(store, ids, round_, IN_PLACE, left_alone=True)
            except PushError as error:
                assert "the vectors that were there before are back" in str(error)
                refused += 1
            else:
                nudges |= {(name, np.float32(row).tobytes()) for name, row in pushed.items()}
            # Between a push and its undoing he writes once at least, however fast the machine is.
            time.sleep(1 / RATE_OF_FILES)
            try:
                rollback(store)
            except PushError as error:  # on a busy machine he may be faster for ten seconds
                assert "call rollback() when the store works again" in str(error)
                refused += 1
            time.sleep(1 / RATE_OF_FILES)
    rollback(store)
    store = SimpleStore.open(address)  # what the file holds in the end: the store that was open has read it before
    held = {name: np.float32(row) for names, rows in store.scan() for name, row in zip(names, rows, strict=True)}
    # Nudges that he had read, and has written again after they were rolled back.
    his = {name for name, row in held.items() if (name, row.tobytes()) in nudges}
    assert his <= set(ids)
    record_property("refused", refused)
    record(record_property, "push in place and rollback beside a steady writer", "simple", losses(store, truth, his))

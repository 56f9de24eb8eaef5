"""Vectors of a push that was rolled back come back, as each kind of store brings them back: they are known and undone.

A process reads a whole file, sleeps through the rollback, and saves what it has in memory. A table of LanceDB is
restored to an older version of itself.
"""

from __future__ import annotations

import faiss
import lancedb
import numpy as np
import pytest
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import embedding_store
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from nudge_rag import LabeledPairs, reapply, rollback, status, tune
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import InMemoryStore, LanceStore, SimpleStore
from tests.support.builders.common import LangChainEmbeddings

IDS = [f"n{row}" for row in range(8)]
ROWS = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
MOVED = ROWS[:5] + np.float32(0.5)


class SimpleFile:
    """A SimpleVectorStore, persisted."""

    def __init__(self, folder):
        self.path = folder / "vectors.json"
        made = SimpleVectorStore()
        made.add([TextNode(id_=node, embedding=row.tolist()) for node, row in zip(IDS, ROWS, strict=True)])
        made.persist(str(self.path))

    def connect(self):
        return SimpleStore.open(self.path)

    def remember(self):
        self.asleep = SimpleVectorStore.from_persist_path(str(self.path))

    def bring_back(self):
        self.asleep.persist(str(self.path))


class InMemoryFile(SimpleFile):
    """An InMemoryVectorStore, dumped."""

    def __init__(self, folder):
        self.path, made = folder / "vectors.json", InMemoryVectorStore(LangChainEmbeddings())
        made.add_documents([Document(id=node, page_content=node) for node in IDS])
        for node, row in zip(IDS, ROWS, strict=True):
            made.store[node]["vector"] = row.tolist()
        made.dump(str(self.path))

    def connect(self):
        return InMemoryStore.open(self.path)

    def remember(self):
        self.asleep = InMemoryVectorStore.load(str(self.path), LangChainEmbeddings())

    def bring_back(self):
        self.asleep.dump(str(self.path))


class FaissFolder(SimpleFile):
    """LangChain's FAISS, saved to a folder."""

    def __init__(self, folder):
        self.folder = folder
        made = FAISS(LangChainEmbeddings(), faiss.IndexFlatIP(8), InMemoryDocstore(), {})
        made.add_embeddings(list(zip(IDS, ROWS.tolist(), strict=True)), ids=IDS)
        made.save_local(str(folder))

    def load(self):
        return FAISS.load_local(str(self.folder), LangChainEmbeddings(), allow_dangerous_deserialization=True)

    def connect(self):
        return embedding_store(self.load(), persist_path=self.folder / "index.faiss")

    def remember(self):
        self.asleep = self.load()

    def bring_back(self):
        self.asleep.save_local(str(self.folder))


class LanceTable(SimpleFile):
    """A table of LanceDB, which keeps its older versions."""

    def __init__(self, folder):
        rows = [{"id": node, "vector": row.tolist()} for node, row in zip(IDS, ROWS, strict=True)]
        self.database = lancedb.connect(str(folder))
        self.database.create_table("nodes", rows)

    def connect(self):
        return LanceStore(self.database.open_table("nodes"))

    def remember(self):
        self.version = self.database.open_table("nodes").version

    def bring_back(self):
        self.database.open_table("nodes").restore(self.version)


@pytest.fixture(params=[SimpleFile, InMemoryFile, FaissFolder, LanceTable], ids=lambda kind: kind.__name__)
def kept(request, tmp_path):
    return request.param(tmp_path)


def push(kept, ids, vectors):
    store = kept.connect()
    originals = original_vectors(store, ids, store.read(ids))
    return push_vectors(store, ids, originals, store.as_stored(vectors))


def test_what_comes_back_after_a_rollback_is_told_and_undone_bit_for_bit(kept):
    before = kept.connect().read(IDS)
    push(kept, IDS[:5], MOVED)
    nudged = kept.connect().read(IDS)
    kept.remember()
    rollback(kept.connect())
    kept.bring_back()
    assert kept.connect().read(IDS).tobytes() == nudged.tobytes() != before.tobytes()
    found = status(kept.connect())
    assert (found.version, set(found.returned), found.returned_from) == (None, set(IDS[:5]), ("0001",))
    assert "5 node(s) hold vectors of version 0001 although it was rolled back" in str(found)
    receipt = rollback(kept.connect())
    assert (receipt.restored, receipt.version, receipt.exact) == (5, "0001", True)
    assert kept.connect().read(IDS).tobytes() == before.tobytes()
    assert status(kept.connect()).returned == ()


def test_what_came_back_is_no_original_for_tune_and_push(kept):
    before = kept.connect().read(IDS)
    push(kept, IDS[:5], MOVED)
    kept.remember()
    rollback(kept.connect())
    kept.bring_back()
    pairs = [(f"question {number} about {node}", node) for node in IDS[:3] for number in range(8)]
    # Another node is nearer to each query, until its answer has moved.
    vectors = {query: 0.9 * ROWS[int(node[1:])] + ROWS[int(node[1:]) + 3] for query, node in pairs}
    nudge = tune(
        kept.connect(),
        LabeledPairs.from_pairs(pairs),
        lambda texts: [vectors[text] for text in texts],
        solver="nudge-n",
    )
    row_of = {node: row for row, node in enumerate(IDS)}
    assert nudge.originals.tobytes() == before[[row_of[node] for node in nudge.ids]].tobytes()
    assert nudge.push(force=True).written == 5, "two have their originals back"
    after = kept.connect().read(IDS)
    for node in set(IDS) - set(nudge.ids):
        assert after[row_of[node]].tobytes() == before[row_of[node]].tobytes()
    rollback(kept.connect())
    assert kept.connect().read(IDS).tobytes() == before.tobytes()


def test_what_an_earlier_version_had_written_comes_back_under_a_live_one(kept):
    before = kept.connect().read(IDS)
    push(kept, IDS[:5], MOVED)
    kept.remember()
    rollback(kept.connect())
    push(kept, IDS[2:7], ROWS[2:7] - np.float32(0.5))
    live = kept.connect().read(IDS)
    kept.bring_back()
    found = status(kept.connect())
    assert (found.version, set(found.returned), found.returned_from) == ("0002", set(IDS[:5]), ("0001",))
    assert (set(found.lost), found.changed) == ({"n5", "n6"}, ())
    assert set(reapply(kept.connect())) == set(IDS[:7])
    assert kept.connect().read(IDS).tobytes() == live.tobytes()
    kept.bring_back()
    assert rollback(kept.connect()).exact
    assert kept.connect().read(IDS).tobytes() == before.tobytes()

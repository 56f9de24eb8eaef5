"""Names of collections, and ids, that are SQL or filters: refused or taken as they are; the next collection stays."""

from __future__ import annotations

from types import SimpleNamespace

import chromadb
import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from qdrant_client import QdrantClient, models

from nudge_rag.stores import ChromaStore, MilvusStore, QdrantStore
from tests.faults.test_hostile_names import IDS, NAMES, ORIGINALS, push_and_roll_back, record
from tests.support.killing import losses

FILTERS = ['n0" or id != "', "n0' || id != '", 'n0"]}, {"$or": [{}]', "*"]
QDRANT_IDS = [f"00000000-0000-0000-0000-00000000000{at}" for at in range(len(IDS))]


def chroma(folder):
    client = chromadb.PersistentClient(path=str(folder / "chroma"))

    def make(name, ids):
        vectors = np.resize(ORIGINALS, (len(ids), 4))
        client.create_collection(name).add(ids=ids, embeddings=vectors, documents=["text"] * len(ids))

    return SimpleNamespace(
        make=make,
        opened=lambda name: ChromaStore.open(folder / "chroma", name),
        names=lambda: sorted(one.name for one in client.list_collections()),
        refusal=(chromadb.errors.NotFoundError, chromadb.errors.InvalidArgumentError),
        ids=IDS,
        close=lambda: None,
    )


def qdrant(folder):
    client = QdrantClient(path=str(folder / "qdrant"))

    def make(name, ids):
        client.create_collection(name, vectors_config=models.VectorParams(size=4, distance=models.Distance.EUCLID))
        rows = zip(ids, np.resize(ORIGINALS, (len(ids), 4)).tolist(), strict=True)
        client.upsert(name, [models.PointStruct(id=node, vector=row) for node, row in rows])

    return SimpleNamespace(
        make=make,
        opened=lambda name: QdrantStore(client, name),
        names=lambda: sorted(one.name for one in client.get_collections().collections),
        refusal=ValueError,
        ids=QDRANT_IDS,
        close=client.close,
    )


def milvus(folder):
    client = MilvusClient(str(folder / "milvus.db"))

    def make(name, ids):
        schema, index = client.create_schema(), client.prepare_index_params()
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=100)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        client.create_collection(name, schema=schema, index_params=index)
        rows = zip(ids, np.resize(ORIGINALS, (len(ids), 4)).tolist(), strict=True)
        client.insert(name, [{"id": node, "vector": row} for node, row in rows])

    return SimpleNamespace(
        make=make,
        opened=lambda name: MilvusStore(client, name),
        names=lambda: sorted(client.list_collections()),
        refusal=(ValueError, MilvusException),
        ids=IDS,
        close=client.close,
    )


@pytest.fixture(params=[chroma, qdrant, milvus], ids=["chroma", "qdrant", "milvus"])
def database(request, tmp_path):
    made = request.param(tmp_path)
    made.make("yyy", made.ids)
    made.kind = request.param.__name__
    yield made
    made.close()


def lost_of_y(database):
    y = database.opened("yyy")
    return len(IDS) - y.count() + losses(y, database.ids, ORIGINALS)


def test_names_of_collections_that_are_not_there_are_refused(database, record_property):
    for name in NAMES:
        with pytest.raises(database.refusal):
            database.opened(name)
    assert database.names() == ["yyy"]
    record(record_property, database.kind, len(NAMES), lost_of_y(database), times=len(NAMES))


def test_ids_are_taken_as_they_are(database, tmp_path, record_property):
    database.make("xxx", database.ids)
    store = database.opened("xxx")
    if database.kind == "qdrant":
        for node in [*IDS, *FILTERS]:
            with pytest.raises(ValueError, match=r"not in qdrant .whose ids are UUIDs or integers"):
                store.replace([node], ORIGINALS[:1])
        assert store.matching([*IDS, *FILTERS], None) == set()
    else:
        push_and_roll_back(store, tmp_path / "v")
        assert store.matching(FILTERS, None) == set()
        for node in FILTERS:
            with pytest.raises(ValueError, match=r"1 id\(s\) are not in"):
                store.replace([node], ORIGINALS[:1])
    assert store.read(database.ids).tobytes() == ORIGINALS.tobytes()
    record(record_property, database.kind, 0, lost_of_y(database), times=len(IDS))

"""What is particular to Pinecone, on a double of its REST API."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.stores import PineconeStore, StoreError
from nudge_rag.stores.pinecone.filters import passes
from nudge_rag.stores.urls import open_store
from tests.support.doubles.pinecone import Pinecone
from tests.support.doubles.registry import why

pinecone = pytest.importorskip("pinecone", reason=why("pinecone"))
pytestmark = pytest.mark.usefixtures("quiet")

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture
def double():
    made = Pinecone("cosine", 4)
    for at, row in enumerate(VECTORS):
        made.records[str(at)] = {"id": str(at), "values": row.tolist(), "metadata": {"at": at}}
    yield made
    made.terminate()


def index_of(double):
    return pinecone.Pinecone(api_key="none").Index(host=double.url)


def test_waits_until_a_write_is_visible_and_no_longer(double, monkeypatch):
    store = PineconeStore(index_of(double), patience=0.3)
    store.replace(["0"], VECTORS[1:2])
    assert store.read(["0"]).tobytes() == VECTORS[1:2].tobytes()
    monkeypatch.setattr(double, "settle", lambda: None)
    with pytest.raises(StoreError, match=r"does not show what was written after 0\.3 seconds"):
        store.replace(["0"], VECTORS[2:3])


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("cosine", {"similarity": "dot"}, "metric is 'cosine', similarity is 'dot'"),
        ("manhattan", {}, "metric is 'manhattan', similarity is None"),
        (None, {}, "metric is None, similarity is None: give the index's own"),
    ],
)
def test_refuses_another_metric(double, metric, options, message):
    double.metric = metric
    with pytest.raises(ValueError, match=message):
        PineconeStore(index_of(double), **options)


def test_takes_the_similarity_where_the_server_says_none(double):
    double.metric = None
    assert PineconeStore(index_of(double), similarity="l2").capabilities.similarity == "l2"


@pytest.mark.parametrize("options", [{}, {"node_id_of": lambda record: record}])
def test_nothing_is_written_when_one_id_or_vector_is_refused(double, options):
    store = PineconeStore(index_of(double), **options)
    for ids, rows, message in [
        (["0", "gone"], VECTORS[:2], "1 id.* not in pinecone: 'gone'"),
        (["0", "1"], VECTORS[:2, :3], "dimension 3, the store has 4"),
        (["0", "1"], VECTORS[:2] * [[1], [0]], "the vector for '1' is zero, which has no cosine"),
    ]:
        with pytest.raises(ValueError, match=message):
            store.replace(ids, rows)
    assert ("POST", "/vectors/update") not in double.requests
    with pytest.raises(ValueError, match="at most 10000 nodes"):
        store.search(VECTORS, 10_001)


def test_two_records_of_one_node_are_refused(double):
    store = PineconeStore(index_of(double), node_id_of=lambda record: "one")
    with pytest.raises(ValueError, match="id 'one' is more than once"):
        list(store.scan())


async def test_refuses_an_asynchronous_index():
    index = pinecone.Pinecone(api_key="none").IndexAsyncio(host="http://127.0.0.1:9")
    with pytest.raises(TypeError, match="a synchronous pinecone Index, got _IndexAsyncio"):
        PineconeStore(index)
    await index.close()


def test_url(double):
    store = open_store(f"pinecone://{double.url[7:]}?api_key=none&ssl=false")
    assert isinstance(store, PineconeStore)
    assert store.count() == 6
    assert store.read(["3"]).tobytes() == VECTORS[3:4].tobytes()


@pytest.mark.parametrize(
    ("where", "passed"),
    [
        ({"n": 3}, True),
        ({"n": {"$eq": 4}}, False),
        ({"n": {"$ne": 4}}, True),
        ({"lost": {"$ne": 4}}, True),
        ({"n": {"$gt": 2, "$lte": 3}}, True),
        ({"n": {"$lt": 3}}, False),
        ({"n": {"$gte": 3.5}}, False),
        ({"n": {"$in": [1, 3]}}, True),
        ({"n": {"$nin": [1, 3]}}, False),
        ({"tags": "b"}, True),
        ({"tags": {"$nin": ["b"]}}, False),
        ({"yes": True}, True),
        ({"yes": 1}, False),
        ({"yes": {"$gt": 0}}, False),
        ({"lost": {"$exists": False}, "n": {"$exists": True}}, True),
        ({"$or": [{"n": 4}, {"tags": "a"}]}, True),
        ({"$and": [{"n": 3}, {"tags": "c"}]}, False),
    ],
)
def test_filters_by_hand(where, passed):
    assert passes({"n": 3, "tags": ["a", "b"], "yes": True}, where) is passed
    with pytest.raises(ValueError, match=r"'\$regex' is no operator"):
        passes({"n": 3}, {"n": {"$regex": "x"}})

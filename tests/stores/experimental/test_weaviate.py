"""What is particular to Weaviate, on a double of its client's collections, whose calls are bound to the real ones."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.stores import UnknownIdError, WeaviateStore
from nudge_rag.stores.urls import open_store
from tests.support.doubles.registry import why

weaviate = pytest.importorskip("weaviate", reason=why("weaviate"))
pytestmark = pytest.mark.usefixtures("quiet")

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
NODES = [f"00000000-0000-0000-0000-00000000000{digit}" for digit in "abcdef"]


def collection(distance="dot", vector_name="text"):
    from tests.support.doubles.weaviate import Weaviate

    made = Weaviate("Docs", distance, vector_name)
    made.objects = {node: ({"at": at}, VECTORS[at]) for at, node in enumerate(NODES)}
    return made


def test_ids_are_uuids_in_any_spelling():
    from weaviate.classes.query import Filter

    store = WeaviateStore(collection())
    node = NODES[0].upper()
    assert store.read([node]).tobytes() == VECTORS[:1].tobytes()
    assert store.matching([node, "nope"], Filter.by_property("at").equal(0)) == {node}
    assert store.matching([node, NODES[0]], None) == {node, NODES[0]}
    store.replace([node], VECTORS[1:2])
    assert store.read(NODES[:1]).tobytes() == VECTORS[1:2].tobytes()


@pytest.mark.parametrize(
    ("ids", "rows", "error", "message"),
    [
        ([NODES[0], "nope"], VECTORS[:2], UnknownIdError, "'nope'"),
        ([NODES[0], NODES[1].replace("0", "1")], VECTORS[:2], UnknownIdError, "whose ids are UUIDs"),
        (NODES[:2], VECTORS[:2, :3], ValueError, "dimension 3, the store has 4"),
        (
            [NODES[0], NODES[0].upper()],
            VECTORS[:2],
            ValueError,
            f"is the UUID {NODES[0]}, which is given already",
        ),
    ],
)
def test_nothing_is_written_when_one_id_or_vector_is_refused(ids, rows, error, message):
    double = collection("cosine")
    store = WeaviateStore(double)
    with pytest.raises(error, match=message):
        store.replace(ids, rows)
    assert double.updates == 0
    store.replace(NODES[:2], VECTORS[:2])
    assert double.updates == 2


def test_vector_names():
    assert WeaviateStore(collection()).vector_name == "text"
    assert WeaviateStore(collection(), vector_name="text").vector_name == "text"
    assert WeaviateStore(collection(vector_name=None)).vector_name is None
    with pytest.raises(ValueError, match="vector_name must be one of 'text', got 'image'"):
        WeaviateStore(collection(), vector_name="image")
    with pytest.raises(ValueError, match="one unnamed vector, not 'text'"):
        WeaviateStore(collection(vector_name=None), vector_name="text")


def test_refuses_what_it_cannot_move():
    with pytest.raises(ValueError, match="'manhattan' is not one of cosine, dot, l2-squared"):
        WeaviateStore(collection("manhattan"))
    empty = collection()
    empty.objects = {}
    with pytest.raises(ValueError, match="collection 'Docs' is empty"):
        WeaviateStore(empty)
    with pytest.raises(TypeError, match="a synchronous weaviate collection, got CollectionAsync"):
        WeaviateStore(weaviate.use_async_with_local().collections.get("Docs"))
    with pytest.raises(ValueError, match="at most 10000 nodes"):
        WeaviateStore(collection()).search(VECTORS, 10_001)


def test_the_double_takes_no_call_that_the_client_would_not():
    double = collection()
    with pytest.raises(TypeError, match="unexpected keyword argument 'vectors'"):
        double.data.update(uuid=NODES[0], vectors=[1.0])
    with pytest.raises(TypeError, match="missing a required argument: 'near_vector'"):
        double.query.near_vector(limit=3)


@pytest.mark.parametrize(
    ("options", "connection"),
    [
        ("", {"http_port": 8080, "http_secure": False, "grpc_port": 50051, "grpc_secure": False}),
        ("&ssl=true&grpc_port=443", {"http_port": 8080, "http_secure": True, "grpc_port": 443, "grpc_secure": True}),
    ],
)
def test_url(monkeypatch, options, connection):
    from tests.support.doubles.weaviate import client_of, function_bound

    asked = {}

    def connect(**given):
        asked.update(given)
        return client_of(collection(), weaviate.WeaviateClient)

    monkeypatch.setattr(weaviate, "connect_to_custom", function_bound(weaviate.connect_to_custom, connect))
    store = open_store(f"weaviate://db.example?collection=Docs&vector=text&api_key=k{options}")
    assert isinstance(store, WeaviateStore)
    assert store.count() == 6
    key = asked.pop("auth_credentials")
    assert key == weaviate.auth.AuthApiKey("k")
    assert asked == {"http_host": "db.example", "grpc_host": "db.example", **connection}

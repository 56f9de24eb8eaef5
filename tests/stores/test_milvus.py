"""What is particular to Milvus: ids in expressions, fields that an upsert must keep, collections that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient, DataType, MilvusClient

from nudge_rag.stores import MilvusStore, UnknownIdError
from nudge_rag.stores.milvus.store import _merges

IDS = ["a'b", 'a"b', "a\\b", '" or id != "x', "é\n\t", "%s {x}", "\x00\x0b", "] or true"]
VECTORS = np.random.default_rng(0).normal(size=(len(IDS), 4)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


@pytest.fixture
def client(tmp_path):
    client = MilvusClient(str(tmp_path / "milvus.db"))
    yield client
    client.close()


def make(client, *, ids=IDS, integers=False, metric="COSINE", kind="FLAT", fields=(), partitions=(), **options):
    """A collection of VECTORS under ``ids``; every row has one of ``partitions``, in turn."""
    schema = client.create_schema(enable_dynamic_field=True, **options)
    if integers:
        schema.add_field("id", DataType.INT64, is_primary=True)
    else:
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=100)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    index = client.prepare_index_params()
    index.add_index("vector", index_type=kind, metric_type=metric)
    for name, dtype, extra in fields:
        schema.add_field(name, dtype, **extra)
        if dtype.name.endswith("VECTOR"):
            index.add_index(
                name, index_type="SPARSE_INVERTED_INDEX" if "dim" not in extra else "FLAT", metric_type="IP"
            )
    client.create_collection("docs", schema=schema, index_params=index)
    for name in partitions:
        client.create_partition("docs", name)
    values = zip(ids, VECTORS, strict=True)
    rows = [{"id": node, "vector": row.tolist(), "number": at} for at, (node, row) in enumerate(values)]
    for row in rows:
        # Every other row leaves its nullable fields out.
        given = [name for name, _, extra in fields if row["number"] % 2 or not extra.get("nullable")]
        row.update({name: VALUES[name] for name in given})
        partition = partitions[row["number"] % len(partitions)] if partitions else ""
        client.insert("docs", [row], partition_name=partition)
    return client


VALUES = {
    "colour": "red",
    "tags": ["a", "b"],
    "deep": {"list": [1, None, {"x": "é"}], "flag": True},
    "small": 0.1,
    "other": [0.1, 0.2, 0.3],
    "sparse": {3: 0.5, 70: 0.25},
}


FIELDS = [
    ("colour", DataType.VARCHAR, {"max_length": 9, "nullable": True}),
    ("tags", DataType.ARRAY, {"element_type": DataType.VARCHAR, "max_capacity": 4, "max_length": 9}),
    ("deep", DataType.JSON, {"nullable": True}),
    ("small", DataType.FLOAT, {"nullable": True}),
    ("other", DataType.FLOAT_VECTOR, {"dim": 3}),
    ("sparse", DataType.SPARSE_FLOAT_VECTOR, {}),
]


def everything(client, **options):
    rows = client.query("docs", filter="", limit=100, output_fields=["*"], **options)
    return {row["id"]: {key: value for key, value in row.items() if key not in ("id", "vector")} for row in rows}


def test_ids_in_expressions_are_quoted(client):
    store = MilvusStore(make(client), "docs")
    assert store.read(IDS[::-1]).tobytes() == VECTORS[::-1].tobytes()
    for node in IDS:
        assert store.matching([node], None) == {node}
        with pytest.raises(UnknownIdError):
            store.read([node + '"'])
    assert store.matching([*IDS, '"', "\\", 'x", "a\'b'], None) == set(IDS)
    assert store.matching(IDS[:4], "number < 2 or number > 2") == {IDS[0], IDS[1], IDS[3]}
    for size in (1, 3, 100):
        assert sorted(node for ids, _ in store.scan(size) for node in ids) == sorted(IDS)
    assert store.search(VECTORS[:1], 9).ids[0] == [IDS[at] for at in np.argsort(-(UNIT @ UNIT[0]))]
    store.replace(IDS[3:4], VECTORS[3:4] * -2)
    assert store.read(IDS[3:5]).tobytes() == np.stack([VECTORS[3] * -2, VECTORS[4]]).tobytes()
    assert store.count() == len(IDS)


def test_integer_ids(client):
    ids = [0, 7, -7, 2**63 - 1, -(2**63), 10, 11, 12]
    store = MilvusStore(make(client, ids=ids, integers=True), "docs")
    names = [str(node) for node in ids]
    assert store.read(names).tobytes() == VECTORS.tobytes()
    assert sorted(node for part, _ in store.scan(3) for node in part) == sorted(names)
    assert set(store.search(VECTORS[:1], 9).ids[0]) == set(names)
    strangers = ["007", "-0", "+7", "7.0", "", "x", str(2**63), "7 or id > 0", "1_0", "٧"]
    assert store.matching([*names, *strangers], None) == set(names)
    for stranger in strangers:
        with pytest.raises(UnknownIdError):
            store.replace(["7", stranger], VECTORS[:2])
    store.replace(["7", "-7"], VECTORS[:2])
    assert store.read(names[:4]).tobytes() == VECTORS[[0, 0, 1, 3]].tobytes()


@pytest.mark.parametrize("merge", [True, False])
def test_a_replaced_vector_leaves_every_other_field_and_the_partition(client, merge):
    store = MilvusStore(
        make(client, fields=FIELDS, partitions=["first", "second"]), "docs", vector_field="vector", merge=merge
    )
    before = everything(client)
    parts = {name: everything(client, partition_names=[name]).keys() for name in ("first", "second", "_default")}
    assert {name: len(part) for name, part in parts.items()} == {"first": 4, "second": 4, "_default": 0}
    assert (before[IDS[1]]["colour"], before[IDS[0]]["colour"]) == ("red", None)
    store.replace(IDS[:5], VECTORS[:5] + 1)
    assert everything(client) == before
    assert {name: everything(client, partition_names=[name]).keys() for name in parts} == parts
    assert store.read(IDS).tobytes() == np.concatenate([VECTORS[:5] + 1, VECTORS[5:]]).tobytes()


def test_another_client_reads_what_was_written(client, tmp_path):
    store = MilvusStore(make(client), "docs")
    other = MilvusStore.open(tmp_path / "milvus.db", "docs")
    store.replace(IDS[:1], VECTORS[1:2])
    assert other.read(IDS[:1]).tobytes() == VECTORS[1:2].tobytes()
    assert other.key == store.key


def test_a_history_that_has_answered_is_loaded_again_and_noticed_to_be_dropped(client):
    make(client)
    history = MilvusStore(client, "docs").history()
    assert list(history.names("")) == []
    history.write("0001/manifest.json", b"content")
    assert history.read("0001/manifest.json") == b"content"
    (collection,) = [name for name in client.list_collections() if name != "docs"]
    client.release_collection(collection)
    assert history.read("0001/manifest.json") == b"content"
    client.drop_collection(collection)
    assert list(history.names("")) == []
    with pytest.raises(KeyError):
        history.read("0001/manifest.json")
    history.write("0001/manifest.json", b"again")
    assert history.read("0001/manifest.json") == b"again"


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"collection": "gone"}, "there is no Milvus collection 'gone'"),
        ({}, {"vector_field": "gone"}, "no field 'gone', it has id, vector"),
        ({}, {"vector_field": "id"}, "field 'id' must be a FLOAT_VECTOR, it is a VARCHAR"),
        (
            {"fields": FIELDS[4:]},
            {},
            r"vector \(FLOAT_VECTOR\), other \(FLOAT_VECTOR\), sparse \(SPARSE_FLOAT_VECTOR\)",
        ),
        ({"fields": FIELDS[5:]}, {"vector_field": "sparse"}, "must be a FLOAT_VECTOR, it is a SPARSE_FLOAT_VECTOR"),
    ],
)
def test_collections_that_do_not_fit(client, options, arguments, message):
    make(client, **options)
    with pytest.raises(ValueError, match=message):
        MilvusStore(client, **{"collection": "docs", **arguments})


def test_a_collection_without_an_index(client):
    make(client).release_collection("docs")
    client.drop_index("docs", "vector")
    with pytest.raises(ValueError, match="field 'vector' of 'docs' has no index: create one with a metric"):
        MilvusStore(client, "docs")


def test_ids_that_milvus_makes_are_not_replaced(client):
    client.create_collection("made", dimension=4, auto_id=True, metric_type="L2")
    client.insert("made", [{"vector": row.tolist()} for row in VECTORS])
    store = MilvusStore(client, "made")
    nodes = [node for part, _ in store.scan() for node in part]
    before = store.read(nodes)
    with pytest.raises(ValueError, match="'made' has auto_id: Milvus would give each node that it replaces a new id"):
        store.replace(nodes[:1], VECTORS[:1] + 1)
    assert store.read(nodes).tobytes() == before.tobytes()


async def test_other_clients(client):
    with pytest.raises(TypeError, match=r"expected a pymilvus.MilvusClient, got str"):
        MilvusStore("http://localhost", "docs")
    with pytest.raises(TypeError, match="expected a synchronous MilvusClient, got AsyncMilvusClient"):
        MilvusStore(AsyncMilvusClient.__new__(AsyncMilvusClient), "docs")


def test_more_nodes_than_one_answer_holds(client):
    client.create_collection("many", dimension=2, metric_type="IP")
    numbers = np.arange(16_390)
    rows = [{"id": int(at), "vector": [float(at), 1.0]} for at in numbers]
    for first in range(0, len(rows), 5_000):
        client.insert("many", rows[first : first + 5_000])
    store = MilvusStore(client, "many")
    batches = list(store.scan(100_000))
    assert [node for part, _ in batches for node in part] == [str(at) for at in numbers]
    assert np.concatenate([vectors for _, vectors in batches])[:, 0].tolist() == numbers.tolist()
    with pytest.raises(ValueError, match="finds at most 16384 of the 16390 nodes per query, k is 16385"):
        store.search(np.ones((1, 2)), 16_385)


@pytest.mark.parametrize(
    ("version", "merges"),
    [
        ("v2.6.2", True),
        ("2.6.17-dev", True),
        ("3.0.0", True),
        ("milvus_lite-3.2.2", True),
        ("v2.6.1", False),
        ("v2.5.14", False),
        ("milvus-lite 2.5.1", False),
        ("unknown", False),
    ],
)
def test_only_versions_that_have_partial_updates_are_sent_any(version, merges):
    assert _merges(version) is merges

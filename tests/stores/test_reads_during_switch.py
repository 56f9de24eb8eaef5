"""A switch between two requests of one call: whoever reads by an alias gets one version whole, and writes to one."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient

import nudge_rag.stores.milvus.store
import nudge_rag.stores.qdrant.store
from nudge_rag.stores import MilvusStore, QdrantStore
from tests.support import qdrant_killed_worker

IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"n{i}")) for i in range(12)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
MOVED = ORIGINALS[::-1] + 1
WRITTEN = ORIGINALS + 2
PER_CALL = 5
# What a call sends to the collection that it works on, rather than asking about aliases.
REQUESTS = {
    "qdrant": ("query_batch_points", "retrieve", "scroll", "update_vectors"),
    "milvus": ("query", "search", "upsert"),
}


class Switching:
    """A client; once it has made a number of requests, somebody else switches before each that follows."""

    def __init__(self, client, names):
        self.client, self.names = client, names
        self.switch, self.left, self.requests = None, 0, 0

    def __getattr__(self, name):
        method = getattr(self.client, name)
        if name not in self.names:
            return method

        def request(*arguments, **options):
            self.requests += 1
            if self.switch is not None and self.requests > self.left:
                self.switch()
            return method(*arguments, **options)

        return request


def qdrant(folder):
    client = QdrantClient(":memory:")
    qdrant_killed_worker.fill(client, IDS, ORIGINALS)
    return client, lambda client: QdrantStore(client, qdrant_killed_worker.ALIAS)


def milvus(folder):
    client = MilvusClient(str(folder / "milvus.db"))
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    schema = client.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=50)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("docs", schema=schema, index_params=index)
    client.insert("docs", [{"id": node, "vector": row.tolist()} for node, row in zip(IDS, ORIGINALS, strict=True)])
    client.create_alias("docs", "live")
    return client, lambda client: MilvusStore(client, "live")


@pytest.fixture(params=[qdrant, milvus], ids=["qdrant", "milvus"])
def pair(request, tmp_path, monkeypatch):
    """A store whose client may switch, and one that does it; every request is of a few nodes or queries."""
    for module in (nudge_rag.stores.qdrant.store, nudge_rag.stores.milvus.store):
        monkeypatch.setattr(module, "IDS_PER_CALL", PER_CALL)
        monkeypatch.setattr(module, "QUERIES_PER_CALL", PER_CALL)
    client, opened = request.param(tmp_path)
    plain = opened(client)
    plain.create_copy("a").replace(IDS, MOVED)
    switching = Switching(client, REQUESTS[request.param.__name__])
    yield opened(switching), plain
    client.close()


def scanned(store):
    pages = list(store.scan(PER_CALL))
    assert [len(ids) for ids, _ in pages] == [5, 5, 2]
    found = {node: row for ids, rows in pages for node, row in zip(ids, rows, strict=True)}
    return b"".join(found[node].tobytes() for node in IDS)


def searched(store):
    found = store.search(ORIGINALS, 3)
    return found.ids, np.round(np.concatenate(found.scores), 4).tolist()


READS = {
    "read": lambda store: store.read(IDS).tobytes(),
    "scan": scanned,
    "search": searched,
}


def requests_of(store, action):
    before = store.client.requests
    action(store)
    return store.client.requests - before


def switch_before(store, plain, n):
    """Requests of ``store`` are preceded by a switch from now on, but for the first n."""
    store.client.requests, store.client.left, store.client.switch = 0, n, lambda: plain.switch("a")


@pytest.mark.parametrize("name", READS)
def test_what_is_read_is_of_one_version(name, pair):
    store, plain = pair
    read = READS[name]
    known = [read(plain), read(plain.open_copy("a"))]
    assert known[0] != known[1]
    n_requests = requests_of(store, read)
    assert n_requests >= 3
    for n in range(1, n_requests):
        live = read(plain)
        switch_before(store, plain, n)
        assert read(store) == live
        store.client.switch = None


def test_what_matches_is_of_one_version(pair):
    """The other version holds none of the nodes any more."""
    store, plain = pair
    if plain.name == "qdrant":
        plain.client.delete(plain._copies.alias("a"), IDS)
        switch = swap_aliases
    else:
        plain.client.delete(plain.open_copy("a").collection, ids=IDS)
        switch = point_alias
    n_requests = requests_of(store, lambda store: store.matching(IDS, None))
    assert n_requests == 3
    for n in (1, 2):
        store.client.requests, store.client.left, store.client.switch = 0, n, lambda: switch(plain)
        assert store.matching(IDS, None) == set(IDS)
        store.client.switch = None
        if plain.count() == 0:
            switch(plain)


def swap_aliases(plain):
    """A switch by somebody who does not look whether the versions are of the same nodes."""
    from qdrant_client import models

    collections = {one.alias_name: one.collection_name for one in plain.client.get_aliases().aliases}
    live, other = plain.collection, plain._copies._prefix + "a"
    deleted = [models.DeleteAlias(alias_name=name) for name in (live, other)]
    made = [
        models.CreateAlias(collection_name=collections[to], alias_name=name)
        for name, to in ((live, other), (other, live))
    ]
    plain.client.update_collection_aliases(
        [models.DeleteAliasOperation(delete_alias=one) for one in deleted]
        + [models.CreateAliasOperation(create_alias=one) for one in made]
    )


def point_alias(plain):
    live = plain.client.describe_alias("live")["collection_name"]
    (other,) = (name for name in plain.client.list_collections() if name != live)
    plain.client.alter_alias(other, "live")


def test_what_is_written_is_in_one_version(pair):
    store, plain = pair
    n_requests = requests_of(store, lambda store: store.replace(IDS, ORIGINALS))
    assert n_requests >= 6
    for n in range(1, n_requests):
        live, other = plain, plain.open_copy("a")
        live.replace(IDS, ORIGINALS)
        other.replace(IDS, MOVED)
        switch_before(store, plain, n)
        store.replace(IDS, WRITTEN)
        store.client.switch = None
        contents = [one.read(IDS).tobytes() for one in (plain, plain.open_copy("a"))]
        switched = (n_requests - n) % 2
        assert contents[switched] == WRITTEN.tobytes()
        assert contents[1 - switched] == MOVED.tobytes()

"""What is particular to Redis: metrics, hostile ids, alien keys, changes meanwhile, slow searches, URLs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

redis = pytest.importorskip("redis")

from nudge_rag import open_store  # noqa: E402
from nudge_rag.stores import RedisStore, StoreError, UnknownIdError  # noqa: E402
from tests.support.builders.registry import STARTERS  # noqa: E402

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IDS = ["a'b", "a b*?[", "%s", "a\\b\r\nDEL x", "{é}", ":"]
numbers = itertools.count()


@pytest.fixture
def port(servers):
    starter = next((name for name in STARTERS if name.startswith("redis")), None)
    if starter is None:
        pytest.skip("there is no Redis server here: its packages are in the environments of the redis jobs")
    return servers.address(starter)


class Place:
    """An index of its own with six nodes."""

    def __init__(self, port, *, on="HASH", kind="FLOAT32", metric="L2", algorithm="FLAT", prefix=None, field="v"):
        self.client = redis.Redis("127.0.0.1", port)
        self.port, self.index = port, f"odd index; {next(numbers)}"
        self.prefix = f"{self.index}:" if prefix is None else prefix
        path = ("$.v", "AS", "v") if on == "JSON" else (field,)
        vectors = (*path, "VECTOR", algorithm, 6, "TYPE", kind, "DIM", 4, "DISTANCE_METRIC", metric)
        schema = ("text", "TAG", *vectors) if on == "HASH" else vectors
        self.client.execute_command("FT.CREATE", self.index, "ON", on, "PREFIX", 1, self.prefix, "SCHEMA", *schema)
        self.dtype = {"FLOAT32": "f4", "FLOAT64": "f8", "FLOAT16": "f2"}[kind]
        if on == "HASH":
            for node, row in zip(IDS, VECTORS, strict=True):
                self.add(node, row, field)

    def add(self, node, row, field="v"):
        self.client.hset(self.prefix + node, mapping={field: row.astype(self.dtype).tobytes(), "text": "kept"})

    def store(self, **options):
        return RedisStore(self.client, self.index, **options)


@pytest.mark.parametrize("kind", ["FLOAT32", "FLOAT64"])
@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
@pytest.mark.parametrize("algorithm", ["FLAT", "HNSW"])
def test_metrics_types_and_algorithms(port, kind, metric, algorithm):
    store = Place(port, kind=kind, metric=metric, algorithm=algorithm).store()
    assert store.capabilities.exact_search == (algorithm == "FLAT")
    moved = np.random.default_rng(1).normal(size=(6, 4)) * 10.0 ** np.arange(-6, 6, 2)[:, None]
    store.replace(IDS, moved)
    assert store.read(IDS).tobytes() == store.as_stored(moved).tobytes()
    store.replace(IDS, VECTORS)
    query = np.random.default_rng(2).normal(size=(1, 4))
    norms = np.linalg.norm(VECTORS, axis=1) * np.linalg.norm(query)
    scores = {
        "COSINE": VECTORS @ query[0] / norms,
        "IP": VECTORS @ query[0],
        "L2": -((VECTORS - query) ** 2).sum(axis=1),
    }[metric]
    found = store.search(query, 2_000_000, where="@text:{kept}")
    assert found.ids == [[IDS[at] for at in np.argsort(-scores)]]
    np.testing.assert_allclose(found.scores[0], np.sort(scores)[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", ["odd:{*}?' ", "", "ü:"])
def test_prefixes_and_ids_of_any_form(port, prefix):
    place = Place(port, prefix=prefix + f"{next(numbers)}|")
    store = place.store()
    assert store.count() == 6
    assert store.read(IDS[::-1]).tobytes() == VECTORS[::-1].tobytes()
    assert store.matching([*IDS, "gone", "*", "a"], "@text:{kept}") == set(IDS)
    store.replace(IDS[:2], -VECTORS[:2])
    assert store.read(IDS).tobytes() == np.concatenate([-VECTORS[:2], VECTORS[2:]]).tobytes()
    assert sorted(node for ids, _ in store.scan(4) for node in ids) == sorted(IDS)
    assert {place.client.hget(place.prefix + node, "text") for node in IDS} == {b"kept"}


def test_bytes_that_are_no_text_are_ids_too(port):
    place = Place(port)
    place.client.hset(place.prefix.encode() + b"\xff", mapping={"v": VECTORS[0].tobytes()})
    store = place.store()
    (odd,) = {node for ids, _ in store.scan() for node in ids} - set(IDS)
    store.replace([odd], VECTORS[1:2])
    assert store.read([odd]).tobytes() == VECTORS[1].tobytes()
    assert store.matching([odd], None) == {odd}


def test_keys_that_are_not_in_the_index_are_no_nodes(port):
    place = Place(port)
    for node, row in {"bare": {"text": "x"}, "short": {"v": b"abc"}}.items():
        place.client.hset(place.prefix + node, mapping=row)
    place.client.set(place.prefix + "string", "x")
    store = place.store()
    assert store.count() == 6
    assert store.matching([*IDS, "bare", "short", "string"], None) == set(IDS)
    assert sorted(node for ids, _ in store.scan(2) for node in ids) == sorted(IDS)
    for node in ("bare", "short", "string"):
        with pytest.raises(UnknownIdError, match=f"'{node}'"):
            store.replace([IDS[0], node], VECTORS[:2] + 1)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_an_index_that_holds_more_than_the_prefix_says_so(port):
    place = Place(port)
    place.client.hset(place.prefix + "other/x", mapping={"v": VECTORS[0].tobytes()})
    store = place.store(prefix=place.prefix + "other/")
    assert store.read(["x"]).tobytes() == VECTORS[0].tobytes()
    for action in (store.count, lambda: list(store.scan()), lambda: store.search(VECTORS, 5)):
        with pytest.raises(StoreError, match=r"also holds .* whose name does not begin with"):
            action()


def test_a_change_at_the_same_time_is_not_overwritten(port, monkeypatch):
    place = Place(port)
    store, read = place.store(), RedisStore.read

    def read_while_another_deletes(self, ids):
        rows = read(self, ids)
        place.client.delete(place.prefix + IDS[3])
        return rows

    monkeypatch.setattr(RedisStore, "read", read_while_another_deletes)
    with pytest.raises(StoreError, match="changed by someone else during the write; nothing was written"):
        store.replace(IDS, VECTORS + 1)
    monkeypatch.undo()
    left = [*IDS[:3], *IDS[4:]]
    assert store.read(left).tobytes() == np.delete(VECTORS, 3, axis=0).tobytes()
    assert not place.client.exists(place.prefix + IDS[3]), "the node that is gone is not made again"


def test_a_client_that_decodes_is_no_trouble(port):
    place = Place(port)
    client = redis.Redis("127.0.0.1", port, decode_responses=True)
    store = RedisStore(client, place.index)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    assert store.key == place.store().key


def test_searches_that_take_longer_than_the_servers_limit_are_complete(port):
    place = Place(port)
    rows = np.random.default_rng(4).normal(size=(3000, 4)).astype(np.float32)
    for at, row in enumerate(rows):
        place.add(f"n{at}", row)
    place.client.execute_command("FT.CONFIG", "SET", "TIMEOUT", 1)
    try:
        store = place.store()
        assert store.count() == 3006
        assert len(store.search(rows[:1], 3006).ids[0]) == 3006
        assert len(store.matching([f"n{at}" for at in range(3000)], "@text:{kept}")) == 3000
    finally:
        place.client.execute_command("FT.CONFIG", "SET", "TIMEOUT", 500)


def test_a_zero_vector_has_similarity_zero(port):
    store = Place(port, metric="COSINE").store()
    store.replace(IDS[:1], np.zeros((1, 4)))
    found = store.search(VECTORS[1:2], 6)
    assert dict(zip(found.ids[0], found.scores[0], strict=True))[IDS[0]] == 0
    assert (np.diff(found.scores[0]) <= 0).all()


def test_bad_places(port):
    place = Place(port)
    with pytest.raises(ValueError, match="there is no Redis index 'lost'"):
        RedisStore(place.client, "lost")
    with pytest.raises(ValueError, match=r"vector_field must be one of the index .*, which has 'v', got 'text'"):
        place.store(vector_field="text")
    with pytest.raises(ValueError, match="is over JSON: only hashes are supported"):
        Place(port, on="JSON").store()
    with pytest.raises(ValueError, match="must hold FLOAT32 or FLOAT64, it is FLOAT16"):
        Place(port, kind="FLOAT16").store()
    with pytest.raises(ValueError, match=r"'v\] \$q' cannot be the name of a field of vectors"):
        Place(port, field="v] $q").store()
    with pytest.raises(TypeError, match=r"expected a redis.Redis client, got str"):
        RedisStore("redis://127.0.0.1", place.index)


def test_a_url_opens_an_index(port):
    place = Place(port)
    name = place.index.replace(" ", "%20").replace(";", "%3B")
    url = f"redis://127.0.0.1:{port}/0?index={name}&vector=v"
    store = open_store(url)
    store.replace(IDS[:1], VECTORS[:1] * 2)
    assert open_store(f"{url}&socket_timeout=5").read(IDS[:1]).tobytes() == (VECTORS[:1] * 2).tobytes()
    assert (store.key, store.capabilities.similarity) == (place.store().key, "l2")
    assert open_store(f"{url}&prefix={name}:a'").read(["b"]).tobytes() == (VECTORS[:1] * 2).tobytes()
    for bad, message in [(url.replace("index=", "name="), "misses index"), (f"{url}x", "vector_field must be one of")]:
        with pytest.raises(ValueError, match=message):
            open_store(bad)

"""What is particular to Elasticsearch and OpenSearch, on doubles of their REST APIs."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.stores import ElasticsearchStore, OpenSearchStore, StoreError
from nudge_rag.stores.urls import open_store
from tests.support.doubles.http import Refused
from tests.support.doubles.registry import why

elasticsearch = pytest.importorskip("elasticsearch", reason=why("elasticsearch"))
opensearchpy = pytest.importorskip("opensearchpy", reason=why("opensearch"))
pytestmark = pytest.mark.usefixtures("quiet")

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def make_index(double, kind, mapping, settings=None):
    double.answer(
        "PUT", "/docs", {}, {"mappings": {"properties": {"v": mapping}}, "settings": {"index": settings or {}}}
    )
    lines = []
    for at, row in enumerate(VECTORS):
        lines += [{"index": {"_index": "docs", "_id": str(at)}}, {"v": row.tolist()}]
    double.answer("POST", "/_bulk", {}, lines)
    return kind(double.url)


def elastic_index(servers, **mapping):
    double = servers.address("elasticsearch")
    given = {"type": "dense_vector", "dims": 4, "index": True, "similarity": "cosine", **mapping}
    return make_index(double, elasticsearch.Elasticsearch, given), double


def opensearch_index(servers, settings=None, **mapping):
    double = servers.address("opensearch")
    given = {"type": "knn_vector", "dimension": 4, **mapping}
    return make_index(double, opensearchpy.OpenSearch, given, {"knn": "true", **(settings or {})}), double


@pytest.mark.parametrize(
    ("mapping", "options", "message"),
    [
        ({"type": "keyword"}, {}, r"one of the dense_vector fields \(none\), got None"),
        ({}, {"vector_field": "w"}, r"one of the dense_vector fields \(v\), got 'w'"),
        ({"element_type": "byte"}, {}, "must be float, they are byte"),
        ({"index": False}, {}, "'v' is not indexed, similarity must be given so; it is None"),
        ({}, {"similarity": "dot"}, "'v' ranks by cosine, similarity must be given so; it is 'dot'"),
    ],
)
def test_elasticsearch_refuses_fields_that_it_cannot_move(servers, mapping, options, message):
    double = servers.address("elasticsearch")
    given = {"type": "dense_vector", "dims": 4, "index": True, "similarity": "cosine", **mapping}
    double.answer("PUT", "/docs", {}, {"mappings": {"properties": {"v": given}}})
    with pytest.raises(ValueError, match=message):
        ElasticsearchStore(elasticsearch.Elasticsearch(double.url), "docs", **options)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"type": "keyword"}, r"one of the knn_vector fields \(none\)"),
        ({"data_type": "byte"}, "must be float"),
        ({"model_id": "m"}, "made by a trained model"),
        (
            {"method": {"name": "hnsw", "space_type": "hamming"}},
            "'hamming' is not one of cosinesimil, innerproduct, l2",
        ),
    ],
)
def test_opensearch_refuses_fields_that_it_cannot_move(servers, mapping, message):
    double = servers.address("opensearch")
    double.answer(
        "PUT", "/docs", {}, {"mappings": {"properties": {"v": {"type": "knn_vector", "dimension": 4, **mapping}}}}
    )
    with pytest.raises(ValueError, match=message):
        OpenSearchStore(opensearchpy.OpenSearch(double.url), "docs")


def test_opensearch_refuses_cosine_scores_of_old_versions(servers, monkeypatch):
    client, double = opensearch_index(servers, method={"name": "hnsw", "space_type": "cosinesimil"})
    monkeypatch.setattr(type(double), "version", "2.18.0")
    with pytest.raises(ValueError, match=r"supported since OpenSearch 2\.19, this is 2\.18\.0"):
        OpenSearchStore(client, "docs")
    monkeypatch.setattr(type(double), "version", "2.19.1")
    assert OpenSearchStore(client, "docs").capabilities.similarity == "cosine"


@pytest.mark.parametrize("settings", [{"knn.space_type": "innerproduct"}, {"knn": "false"}])
def test_opensearch_finds_the_space_where_older_indexes_keep_it(servers, settings):
    client, _ = opensearch_index(servers, settings)
    store = OpenSearchStore(client, "docs")
    assert store.capabilities.similarity == ("dot" if "knn.space_type" in settings else "l2")
    assert store.capabilities.exact_search == ("knn" in settings)


def test_elasticsearch_unit_vectors_are_written_as_such(servers):
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    double = servers.address("elasticsearch")
    mapping = {"type": "dense_vector", "dims": 4, "index": True, "similarity": "dot_product"}
    double.answer("PUT", "/unit", {}, {"mappings": {"properties": {"v": mapping}}})
    lines = [[{"index": {"_index": "unit", "_id": str(at)}}, {"v": row.tolist()}] for at, row in enumerate(unit)]
    double.answer("POST", "/_bulk", {}, [line for pair in lines for line in pair])
    store = ElasticsearchStore(elasticsearch.Elasticsearch(double.url), "unit")
    assert (store.capabilities.similarity, store.capabilities.keeps_norms) == ("cosine", False)
    store.replace(["0"], 3 * VECTORS[1:2])
    np.testing.assert_allclose(store.read(["0"]), unit[1:2], atol=1e-6)
    found = store.search(5 * unit[1:2], 2)
    assert sorted(found.ids[0]) == ["0", "1"]
    np.testing.assert_allclose(found.scores[0], [1, 1], atol=1e-6)


@pytest.mark.parametrize("open_", [elastic_index, opensearch_index])
def test_a_search_engine_that_fails_is_an_error(servers, monkeypatch, open_):
    client, double = open_(servers)
    store = (ElasticsearchStore if open_ is elastic_index else OpenSearchStore)(client, "docs")
    with pytest.raises(ValueError, match="at most 10000 nodes, k is 10001"):
        store.search(VECTORS, 10_001)
    with pytest.raises(TypeError, match="a query clause or a list of them, got 'even'"):
        store.search(VECTORS, 1, where=["even"])
    with monkeypatch.context() as full:
        full.setattr(double, "accepted", refuse)
        with pytest.raises(StoreError, match=r"refused 2 of 2 updates: '0'.*disk is full"):
            store.replace(["0", "1"], VECTORS[:2] + 1)
    whole = double.response
    monkeypatch.setattr(double, "response", lambda hits, total: {**whole(hits, total), "_shards": {"failed": 1}})
    for action in (store.count, lambda: store.read(["0"]), lambda: store.search(VECTORS, 1)):
        with pytest.raises(StoreError, match="answered in part"):
            action()


def refuse(mapping, vector):
    raise Refused(507, "disk is full")


@pytest.mark.parametrize("kind", [ElasticsearchStore, OpenSearchStore])
def test_nothing_is_written_when_one_id_or_vector_is_refused(servers, kind):
    if kind is ElasticsearchStore:
        client, double = elastic_index(servers)
    else:
        client, double = opensearch_index(servers, method={"name": "hnsw", "space_type": "cosinesimil"})
    store = kind(client, "docs")
    double.requests.clear()
    for ids, rows, message in [
        (["0", "gone"], VECTORS[:2], "1 id.* not in .*search: 'gone'"),
        (["0", "1"], VECTORS[:2, :3], "dimension 3, the store has 4"),
        (["0", "1"], VECTORS[:2] * [[1], [0]], "the vector for '1' is zero, which has no cosine"),
    ]:
        with pytest.raises(ValueError, match=message):
            store.replace(ids, rows)
    assert {path for _, path in double.requests} == {"/docs/_search"}


def test_an_id_that_is_twice_is_an_error(servers, monkeypatch):
    client, double = elastic_index(servers)
    store = ElasticsearchStore(client, "docs")
    whole = double.response
    monkeypatch.setattr(double, "response", lambda hits, total: whole([*hits, *hits], total))
    with pytest.raises(ValueError, match="id '0' is more than once in elasticsearch"):
        store.replace(["0"], VECTORS[:1])


def test_an_asynchronous_client_is_used_where_it_can_be(servers):
    with pytest.raises(TypeError, match="a synchronous OpenSearch client, got AsyncOpenSearch"):
        OpenSearchStore(opensearchpy.AsyncOpenSearch("http://127.0.0.1:9"), "docs")
    _, double = elastic_index(servers)
    store = ElasticsearchStore(elasticsearch.AsyncElasticsearch(double.url), "docs")
    assert type(store.client) is elasticsearch.Elasticsearch
    assert store.count() == 6


def test_an_alias_stands_for_one_index(servers, monkeypatch):
    client, double = elastic_index(servers)
    known = double.answer("GET", "/docs", {}, None)
    monkeypatch.setattr(double, "answer", lambda *asked: {**known, "other": known["docs"]})
    with pytest.raises(ValueError, match=r"'docs' stands for 2 indexes \(docs, other\): name one of them"):
        ElasticsearchStore(client, "docs")


def test_urls(servers):
    elastic, opensearch = elastic_index(servers)[1], opensearch_index(servers)[1]
    for url, kind in [
        (f"elasticsearch://{elastic.url[7:]}?index=docs&vector=v", ElasticsearchStore),
        (f"opensearch://{opensearch.url[7:]}?index=docs&user=admin&password=x", OpenSearchStore),
    ]:
        store = open_store(url)
        assert isinstance(store, kind)
        assert store.count() == 6
        np.testing.assert_allclose(store.read(["3"]), VECTORS[3:4], atol=1e-6)

"""LlamaIndex: tune, push, overlay and rollback through an index; the retriever against the framework's own."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import itertools
import pickle

import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore
from llama_index.retrievers.nudge import NudgeEmbedding, NudgeRetriever, embedding_store, texts_of, tune

import nudge_rag
from nudge_rag.stores import SimpleStore
from tests.support.builders.registry import here
from tests.support.nudges import overlapping

numbers = itertools.count()

EVEN = MetadataFilters(
    filters=[
        MetadataFilter(key="parity", value="even"),
        MetadataFilter(key="number", value=30, operator="<"),
    ]
)


def make_vector_store(kind, world, folder, servers):
    if kind == "simple":
        return SimpleVectorStore()
    if kind.startswith("qdrant"):
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        client = QdrantClient(":memory:")
        parameters = models.VectorParams(size=16, distance=kind.partition("-")[2])
        client.create_collection("world", vectors_config={"text-dense": parameters})
        return QdrantVectorStore("world", client=client)
    if kind.startswith("faiss"):
        import faiss
        from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

        if kind == "faiss":
            return FaissVectorStore(faiss.IndexFlatIP(16))
        return FaissMapVectorStore(faiss.IndexIDMap2(faiss.IndexFlatL2(16)))
    if kind == "lancedb":
        import lancedb
        from llama_index.vector_stores.lancedb import LanceDBVectorStore

        return LanceDBVectorStore(connection=lancedb.connect(str(folder / "lance")), table_name="world")
    if kind.startswith("milvus"):
        from llama_index.vector_stores.milvus import MilvusVectorStore

    if kind == "milvus":
        return MilvusVectorStore(str(folder / "milvus.db"), dim=16, use_async_client=False)
    if kind == "milvus-server":
        cosine = {"similarity_metric": "cosine", "use_async_client": False}
        return MilvusVectorStore(servers.address("milvus"), collection_name=f"index{next(numbers)}", dim=16, **cosine)
    if kind == "postgres":
        from llama_index.vector_stores.postgres import PGVectorStore

        from tests.support.builders.postgres import with_driver

        uri = servers.address("postgres")
        return PGVectorStore(
            connection_string=with_driver(uri, "psycopg2"),
            async_connection_string=with_driver(uri, "asyncpg"),
            table_name=f"world{next(numbers)}",
            embed_dim=16,
        )
    if kind == "duckdb":
        from tests.support.builders.duckdb import llama_index_store

        return llama_index_store(folder, table_name="world", embed_dim=16)
    if kind == "redis-llama-index":
        from tests.support.builders.redis_llama_index import vector_store_on
        from tests.support.redis_server import storable

        world.rows = [(node, text, storable(metadata)) for node, text, metadata in world.rows]
        return vector_store_on(servers.address("redis_llama_index"), 16)
    if not kind.startswith("chroma"):
        raise ValueError(kind)
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.PersistentClient(path=str(folder / "chroma"))
    space = {"hnsw": {"space": kind.partition("-")[2] or "l2", "ef_search": 500}}
    return ChromaVectorStore(chroma_collection=client.create_collection("world", configuration=space))


def make_index(kind, world, folder, servers=None):
    vector_store = make_vector_store(kind, world, folder, servers)
    nodes = [TextNode(id_=node, text=text, metadata=metadata) for node, text, metadata in world.rows]
    for at, node in enumerate(nodes):
        node.excluded_embed_metadata_keys = ["number", "even", "parity"]
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{at % 5}")
    context = StorageContext.from_defaults(vector_store=vector_store)
    return VectorStoreIndex(nodes, storage_context=context, embed_model=world.llama_index)


# Each kind with the file of builders that needs the same packages.
KINDS = {
    "simple": "simple",
    "chroma": "chroma",
    "chroma-cosine": "chroma",
    "chroma-ip": "chroma",
    "qdrant-Cosine": "qdrant",
    "qdrant-Dot": "qdrant",
    "lancedb": "lance",
    "postgres": "postgres",
    "faiss": "faiss",
    "faiss-map": "faiss",
    "milvus": "milvus",
    "milvus-server": "milvus",
    "duckdb": "duckdb",
    "redis-llama-index": "redis-llama-index",
}


@pytest.fixture(params=here(KINDS))
def index(request, world, tmp_path, servers):
    request.node.user_properties.append(("store", KINDS[request.param]))
    return make_index(request.param, world, tmp_path, servers)


def ids(found):
    return [node.node_id for node in found]


def test_ranks_as_the_frameworks_own_retriever(index, world):
    # The FAISS integration has no filters of its own; ours are compared with the overlay and with metadata below.
    own_filters = type(index.vector_store).__name__[:5] != "Faiss"
    for options in ({}, {"filters": EVEN}) if own_filters else ({},):
        ours = NudgeRetriever(index, similarity_top_k=6, **options)
        own = VectorIndexRetriever(index, similarity_top_k=6, **options)
        for query in world.queries:
            found, expected = ours.retrieve(query), own.retrieve(query)
            assert ids(found) == ids(expected)
            assert [one.node.get_content() for one in found] == [one.node.get_content() for one in expected]
            assert [one.node.metadata for one in found] == [one.node.metadata for one in expected]


def test_scores_are_the_stores_own_similarity_on_request(index, world):
    found = NudgeRetriever(index, similarity_top_k=3, scores="store").retrieve(world.queries[0])
    query = np.array(world.vector(world.queries[0]))
    nodes = np.array([world.vector(one.node.get_content()) for one in found])
    similarity = embedding_store(index).capabilities.similarity
    expected = {
        "cosine": nodes @ query / np.linalg.norm(query),
        "dot": nodes @ query,
        "l2": -((nodes - query) ** 2).sum(axis=1),
    }[similarity]
    np.testing.assert_allclose([one.score for one in found], expected, atol=1e-5)


def test_an_overlay_over_what_is_live_shows_what_its_push_gives(index, world):
    first, second = overlapping(embedding_store(index))
    first.push()
    plain, overlay = NudgeRetriever(index, 9), NudgeRetriever(index, 9, overlay=second)
    live = [ids(plain.retrieve(query)) for query in world.queries]
    served = [ids(overlay.retrieve(query)) for query in world.queries]
    second.push()
    assert [ids(plain.retrieve(query)) for query in world.queries] == served != live
    assert [ids(overlay.retrieve(query)) for query in world.queries] == served


def test_tune_overlay_push_and_rollback(index, world, tmp_path):
    store = embedding_store(index)
    before = {node: vector for part, rows in store.scan() for node, vector in zip(part, rows, strict=True)}
    nudge = tune(index, world.pairs, versions=tmp_path / "versions", solver="nudge-n")
    assert nudge.improves
    assert "covered" in str(nudge)
    options = {"similarity_top_k": 7}
    overlay, plain = NudgeRetriever(index, overlay=nudge, **options), NudgeRetriever(index, **options)
    filtered = NudgeRetriever(index, overlay=nudge, filters=EVEN, **options)
    untouched = [ids(plain.retrieve(query)) for query in world.queries]
    served = [(overlay.retrieve(query), filtered.retrieve(query)) for query in world.queries]
    assert [ids(found) for found, _ in served] != untouched
    assert [ids(plain.retrieve(query)) for query in world.queries] == untouched, "an overlay writes nothing"
    assert nudge.push().pushed
    topics = {node: hashlib.sha256(text.encode()).hexdigest()[:16] for node, text, _ in world.rows}
    (version,) = nudge_rag.versions(store, tmp_path / "versions")
    assert version.text_hashes == {node: topics[node] for node in nudge.ids}
    assert nudge_rag.status(store, tmp_path / "versions", texts=texts_of(index)).edited == ()
    pushed_filtered = NudgeRetriever(index, filters=EVEN, **options)
    for query, (found, kept) in zip(world.queries, served, strict=True):
        for expected, actual in ((plain.retrieve(query), found), (pushed_filtered.retrieve(query), kept)):
            assert ids(actual) == ids(expected)
            np.testing.assert_allclose([o.score for o in actual], [o.score for o in expected], atol=1e-5)
            assert [one.node.metadata for one in actual] == [one.node.metadata for one in expected]
    assert all(
        one.node.metadata["parity"] == "even" and one.node.metadata["number"] < 30 for _, kept in served for one in kept
    )
    assert nudge_rag.rollback(store, tmp_path / "versions").exact
    after = {node: vector for part, rows in store.scan() for node, vector in zip(part, rows, strict=True)}
    assert after.keys() == before.keys()
    assert all(np.abs(after[node] - before[node]).max() <= store.capabilities.rounding for node in before)
    assert [ids(plain.retrieve(query)) for query in world.queries] == untouched


def test_a_node_whose_text_was_edited_is_reported(world, tmp_path):
    index = make_index("simple", world, tmp_path)
    assert tune(index, world.pairs, versions=tmp_path / "v").push().pushed
    index.docstore.add_documents([TextNode(id_=world.node_id(3), text="topic 3, edited")])
    found = nudge_rag.status(embedding_store(index), tmp_path / "v", texts=texts_of(index))
    assert found.edited == (world.node_id(3),)
    assert texts_of(index.vector_store) is None  # a bare SimpleVectorStore knows no texts


def test_node_and_document_ids_restrict_the_search(index, world):
    chosen = [world.node_id(i) for i in range(0, 60, 7)]
    assert set(ids(NudgeRetriever(index, node_ids=chosen, similarity_top_k=50).retrieve("question 1 about 7"))) == set(
        chosen
    )
    found = NudgeRetriever(index, doc_ids=["doc-2"], similarity_top_k=50).retrieve("question 1 about 7")
    assert set(ids(found)) == {world.node_id(i) for i in range(2, 60, 5)}


async def test_async_gives_the_same_and_does_not_block(index, world):
    retriever = NudgeRetriever(index, similarity_top_k=4)
    together = await asyncio.gather(*(retriever.aretrieve(query) for query in world.queries[:8]))
    assert [ids(found) for found in together] == [ids(retriever.retrieve(query)) for query in world.queries[:8]]


def test_query_engine(index, world):
    retriever = NudgeRetriever(index, similarity_top_k=2)
    response = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(world.queries[0])
    assert ids(response.source_nodes) == ids(retriever.retrieve(world.queries[0]))
    assert response.source_nodes[0].node.get_content() in str(response)


class Collector(BaseEventHandler):
    seen: list[str] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Collector"

    def handle(self, event, **kwargs):
        self.seen.append(type(event).__name__)


def events_of(retriever, query):
    collector = Collector(seen=[])
    root = get_dispatcher()
    root.add_event_handler(collector)
    try:
        retriever.retrieve(query)
    finally:
        root.event_handlers.remove(collector)
    return collector.seen


def test_events_and_callbacks_are_the_frameworks_own(index, world):
    own = events_of(VectorIndexRetriever(index), world.queries[0])
    assert "RetrievalEndEvent" in own
    assert events_of(NudgeRetriever(index), world.queries[0]) == own
    counts = []
    for kind in (VectorIndexRetriever, NudgeRetriever):
        debug = LlamaDebugHandler(print_trace_on_end=False)
        kind(index, callback_manager=CallbackManager([debug])).retrieve(world.queries[0])
        counts.append(len(debug.get_event_pairs(CBEventType.RETRIEVE)))
    assert counts == [1, 1]


def test_embedded_queries_and_top_k_setter(index, world):
    retriever = NudgeRetriever(index)
    retriever.similarity_top_k = 5
    bundle = QueryBundle("anything", embedding=world.vector("topic 9"))
    assert (len(retriever.retrieve(bundle)), ids(retriever.retrieve(bundle))[0]) == (5, world.node_id(9))


def test_other_stores_and_options_are_refused(index, world):
    with pytest.raises(TypeError, match=r"takes no option filter, top_k; it takes .*filters, .*similarity_top_k"):
        NudgeRetriever(index, top_k=3, filter=EVEN)
    with pytest.raises(ValueError, match=r"takes no vector_store_kwargs made_up; it takes (none|.*)"):
        NudgeRetriever(index, vector_store_kwargs={"made_up": 1})
    with pytest.raises(ValueError, match="scores must be 'framework' or 'store', got 'own'"):
        NudgeRetriever(index, scores="own")
    with pytest.raises(TypeError, match=r"int is not supported; supported are SimpleVectorStore.*EmbeddingStore"):
        embedding_store(3)
    assert embedding_store(embedding_store(index)).key == embedding_store(index).key


def test_persisted_index_is_pushed_and_rolled_back_across_loads(world, tmp_path):
    folder = tmp_path / "storage"
    make_index("simple", world, tmp_path).storage_context.persist(str(folder))
    path = folder / "default__vector_store.json"
    before = path.read_bytes()

    def load():
        return load_index_from_storage(
            StorageContext.from_defaults(persist_dir=str(folder)), embed_model=world.llama_index
        )

    nudge = tune(load(), world.pairs, persist_path=path, versions=tmp_path / "versions")
    nudge.push()
    pushed, overlay = NudgeRetriever(load()), NudgeRetriever(load(), overlay=nudge)
    assert ids(pushed.retrieve(world.queries[0])) == ids(overlay.retrieve(world.queries[0]))
    assert path.read_bytes() != before
    nudge_rag.rollback(SimpleStore.open(path), tmp_path / "versions")
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="keeps its own data"):
        embedding_store(embedding_store(load()), persist_path=path)


def test_a_bare_vector_store_takes_the_model_it_is_given(world, tmp_path):
    index = make_index("simple", world, tmp_path)
    whole = tune(index, world.pairs, versions=tmp_path / "a", solver="nudge-n")
    bare = tune(
        index.vector_store, world.pairs, embed_model=world.llama_index, versions=tmp_path / "b", solver="nudge-n"
    )
    assert bare.vectors.tobytes() == whole.vectors.tobytes()
    with pytest.raises(ValueError, match="Is it the model that the store was built with"):
        tune(index, world.pairs, embed_model=MockEmbedding(4), versions=tmp_path / "c")


HOSTILE = "odd' OR '1'='1"


@pytest.mark.parametrize(
    "kind", here({kind: KINDS[kind] for kind in ("qdrant-Dot", "lancedb", "postgres", "milvus", "duckdb")})
)
def test_filters_cannot_smuggle_conditions_in(kind, world, tmp_path, servers):
    index = make_index(kind, world, tmp_path, servers)
    for operator, value in [("==", HOSTILE), ("in", [HOSTILE]), ("text_match", HOSTILE)]:
        filters = MetadataFilters(filters=[MetadataFilter(key="parity", value=value, operator=operator)])
        assert NudgeRetriever(index, filters=filters).retrieve(world.queries[0]) == []
    for filters, expected in [
        ({"key": "number", "value": 57, "operator": ">"}, {58, 59}),
        ({"key": "number", "value": [3, 4], "operator": "in"}, {3, 4}),
        ({"key": "parity", "value": "even", "operator": "!="}, set(range(1, 60, 2))),
    ]:
        chosen = MetadataFilters(filters=[MetadataFilter(**filters)])
        found = NudgeRetriever(index, filters=chosen, similarity_top_k=60).retrieve(world.queries[0])
        assert {one.node.metadata["number"] for one in found} == expected
    either = MetadataFilters(
        condition="or",
        filters=[
            MetadataFilter(key="number", value=7),
            MetadataFilters(filters=[MetadataFilter(key="number", value=9), MetadataFilter(key="parity", value="odd")]),
        ],
    )
    found = NudgeRetriever(index, filters=either, similarity_top_k=60).retrieve(world.queries[0])
    assert {one.node.metadata["number"] for one in found} == {7, 9}
    if kind in ("postgres", "duckdb"):
        lists = MetadataFilters(filters=[MetadataFilter(key="parity", value=["a", HOSTILE], operator="any")])
        assert NudgeRetriever(index, filters=lists).retrieve(world.queries[0]) == []


def test_milvus_filters_on_keys_of_any_name_and_on_lists(world, tmp_path):
    pytest.importorskip("llama_index.vector_stores.milvus")
    vector_store = make_vector_store("milvus", world, tmp_path, None)
    keys = {"a key": "x", "like": "y", 'q"] or true': "z\\", "tags": ["a", "b"]}
    nodes = [
        TextNode(id_=f'node "{at}"', text=f"topic {at}", metadata={key: value for key, value in keys.items() if at % 2})
        for at in range(8)
    ]
    for node in nodes:
        node.excluded_embed_metadata_keys = list(keys)
    context = StorageContext.from_defaults(vector_store=vector_store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=world.llama_index)
    odd = {f'node "{at}"' for at in range(1, 8, 2)}

    def found(key, value, operator):
        chosen = MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])
        return set(ids(NudgeRetriever(index, filters=chosen, similarity_top_k=60).retrieve("topic 1")))

    for key, value in list(keys.items())[:3]:
        assert found(key, value, "==") == found(key, [value, "other"], "in") == odd
        assert found(key, value + '" or true', "==") == found(key, [], "in") == set()
    assert found("tags", "a", "contains") == found("tags", ["a", "c"], "any") == found("tags", ["b", "a"], "all") == odd
    assert found("tags", ["a", "c"], "all") == found("like", "%", "text_match") == set()
    assert found("tags", None, "is_empty") == {node.node_id for node in nodes} - odd
    with pytest.raises(ValueError, match="operator 'text_match_insensitive' is not supported for Milvus on key 'like'"):
        found("like", "y", "text_match_insensitive")
    options = {"vector_store_kwargs": {"string_expr": "exists tags"}, "node_ids": ['node "2"', 'node "3"']}
    assert ids(NudgeRetriever(index, **options).retrieve("topic 1")) == ['node "3"']


def test_duckdb_keys_of_any_form(world, tmp_path):
    pytest.importorskip("duckdb")
    index = make_index("duckdb", world, tmp_path)
    odd = {"a/b~c": "it's", "$.d": 1, 'e"f': 1.5, "number": "seven"}
    index.insert_nodes([TextNode(id_="x", text="topic 3", metadata=odd, excluded_embed_metadata_keys=list(odd))])

    def found(key, value):
        filters = MetadataFilters(filters=[MetadataFilter(key=key, value=value)])
        return ids(NudgeRetriever(index, filters=filters, similarity_top_k=60).retrieve("topic 3"))

    assert [found(key, value) for key, value in odd.items()] == [["x"]] * 4
    assert found("number", 7) == [world.node_id(7)], "a text in the same key is no number, and no error"
    assert found("x'y", "z") == found("parity') IS NOT NULL OR ('1", "odd") == []


def test_redis_filters(world, tmp_path, servers):
    pytest.importorskip("llama_index.vector_stores.redis")
    index = make_index("redis-llama-index", world, tmp_path, servers)

    def numbers_found(**options):
        found = NudgeRetriever(index, similarity_top_k=60, **options).retrieve("topic 3")
        return {one.node.metadata["number"] for one in found}

    def by(**filter_):
        return numbers_found(filters=MetadataFilters(filters=[MetadataFilter(**filter_)]))

    for value in (HOSTILE, "odd} | @parity:{even", "*", "odd\\} | *"):
        assert by(key="parity", value=value) == set()
        assert numbers_found(doc_ids=[value]) == numbers_found(node_ids=[value]) == set()
    assert by(key="number", value=57, operator=">") == {58, 59}
    assert by(key="parity", value="even", operator="!=") == set(range(1, 60, 2))
    assert by(key="parity", value=["even", "odd"], operator="in") == set(range(60))
    assert numbers_found(node_ids=[]) == numbers_found(doc_ids=[]) == set(range(60)), "as as_retriever() gives them"
    assert numbers_found(vector_store_kwargs={"where": "@number:[7 9]"}, doc_ids=["doc-3"]) == {8}
    nested = [MetadataFilter(key="number", value=9), MetadataFilter(key="parity", value="odd")]
    either = MetadataFilters(
        condition="or", filters=[MetadataFilter(key="number", value=8), MetadataFilters(filters=nested)]
    )
    assert numbers_found(filters=either) == {8, 9}
    assert by(key="colour", value="red") == set(), "as the integration's own search says of what is not indexed"
    assert numbers_found(filters=MetadataFilters(condition="not", filters=nested)) == set(range(0, 60, 2))
    with pytest.raises(ValueError, match=r"FilterOperator.ANY not supported for parity"):
        by(key="parity", value=["odd"], operator="any")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity_top_k": "3"}, "similarity_top_k must be an integer, got '3'"),
        ({"filters": {"parity": "even"}}, "filters must be a MetadataFilters, got dict"),
        ({"embed_model": "local"}, "embed_model must be a BaseEmbedding, got str"),
        ({"overlay": "nudge"}, "overlay must be a Nudge, got str"),
        ({"interleave": 1}, "interleave must be a Nudge, got int"),
        ({"node_ids": "abc"}, "node_ids must be a list of ids, got str"),
        ({"doc_ids": "abc"}, "doc_ids must be a list of ids, got str"),
    ],
)
def test_options_of_another_type_are_told(options, message, world, tmp_path):
    with pytest.raises(TypeError, match=message):
        NudgeRetriever(make_index("simple", world, tmp_path), **options)


@pytest.mark.parametrize(
    "kind", here({kind: KINDS[kind] for kind in ("simple", "chroma", "duckdb", "faiss", "milvus")})
)
def test_a_number_that_numpy_counted_is_a_number(kind, world, tmp_path, servers):
    index = make_index(kind, world, tmp_path, servers)
    nudge = tune(index, world.pairs, solver="nudge-n")
    for overlay in (None, nudge):
        found = NudgeRetriever(index, np.int64(3), overlay=overlay).retrieve(world.queries[1])
        assert ids(found) == ids(NudgeRetriever(index, 3, overlay=overlay).retrieve(world.queries[1]))


@pytest.mark.parametrize("kind", here({kind: KINDS[kind] for kind in ("simple", "faiss", "faiss-map")}))
def test_nudges_and_retrievers_with_one_are_pickled_with_their_store(kind, world, tmp_path, servers):
    index = make_index(kind, world, tmp_path, servers)
    nudge = tune(index, world.pairs, solver="nudge-n")
    again = pickle.loads(pickle.dumps(nudge))
    assert again.store.read(list(nudge.ids)).tobytes() == nudge.store.read(list(nudge.ids)).tobytes()
    assert (again.ids, str(again)) == (nudge.ids, str(nudge))
    retriever = NudgeRetriever(index, 5, overlay=nudge)
    expected = ids(retriever.retrieve(world.queries[1]))
    for copied in (pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever)):
        assert ids(copied.retrieve(world.queries[1])) == expected


@pytest.mark.parametrize("maps_documents", [False, True])
def test_embedding_models_that_look_up_what_is_live_are_copied(maps_documents, world, tmp_path):
    index = make_index("simple", world, tmp_path)
    model = NudgeEmbedding(world.llama_index, index, map_documents=maps_documents)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.model_copy()):
        assert copied.get_query_embedding("question 1 about 2") == world.vector("question 1 about 2")
        assert copied.get_text_embedding("topic 2") == world.vector("topic 2")

"""LangChain: tune, push, overlay and rollback through a vector store; the retriever in chains and standard tests."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import NudgeRetriever, embedding_store, texts_of, tune
from langchain_nudge.databases import chroma
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

import nudge_rag
from nudge_rag.stores import InMemoryStore
from tests.support.builders.registry import here
from tests.support.nudges import overlapping

numbers = itertools.count()


def make_vectorstore(kind, world, folder, servers):
    if kind == "in-memory":
        return InMemoryVectorStore(world.langchain)
    if kind.startswith("qdrant"):
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        client = QdrantClient(":memory:")
        distance = models.Distance(kind.partition("-")[2])
        client.create_collection("world", vectors_config=models.VectorParams(size=16, distance=distance))
        return QdrantVectorStore(client, "world", world.langchain, validate_collection_config=False)
    if kind == "faiss":
        import faiss
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS

        return FAISS(world.langchain, faiss.IndexFlatL2(16), InMemoryDocstore(), {})
    if kind == "lancedb":
        return make_lance(world, folder)
    if kind.startswith("postgres"):
        return make_postgres(kind, world, servers)
    if kind == "duckdb":
        return make_duckdb(world)
    if kind.startswith("milvus"):
        return make_milvus(kind, world, folder, servers)
    if kind == "redis-langchain":
        from tests.support.builders.redis_langchain import vectorstore_on
        from tests.support.redis_server import storable

        world.rows = [(node, text, storable(metadata)) for node, text, metadata in world.rows]
        return vectorstore_on(servers.address("redis_langchain"), world.langchain, 16)
    if kind == "sqlite-vec":
        return make_sqlite_vec(world, folder)
    if kind.startswith("chroma"):
        from langchain_chroma import Chroma

        space = {"hnsw": {"space": kind.partition("-")[2] or "l2", "ef_search": 500}}
        return Chroma("world", world.langchain, persist_directory=str(folder), collection_configuration=space)
    raise ValueError(kind)


def make_lance(world, folder):
    import lancedb
    from langchain_community.vectorstores import LanceDB

    class WithIds(LanceDB):
        """add_documents passes no ids on (langchain-community 0.4)."""

        def add_documents(self, documents, **kwargs):
            return self.add_texts(*zip(*((d.page_content, d.metadata, d.id) for d in documents), strict=True))

    return WithIds(lancedb.connect(str(folder / "lance")), world.langchain, table_name="world", mode="append")


def make_duckdb(world):
    import duckdb
    from langchain_community.vectorstores import DuckDB

    from tests.support.builders.duckdb import add_documents

    class WithIds(DuckDB):
        def add_documents(self, documents, **kwargs):
            return add_documents(self, documents)

    return WithIds(connection=duckdb.connect(), embedding=world.langchain, table_name="world")


def make_sqlite_vec(world, folder):
    from langchain_community.vectorstores import SQLiteVec

    from tests.support.builders.sqlite_vec import connect

    class OfSixteen(SQLiteVec):
        def get_dimensionality(self):  # otherwise by embedding a text that this world does not know
            return 16

    world.number_by(lambda number: str(number + 1))  # it gives the rows' numbers as ids, and takes none
    return OfSixteen("world", connect(folder / "world.db"), world.langchain)


def make_milvus(kind, world, folder, servers):
    from langchain_milvus import Milvus

    class WithIds(Milvus):
        """add_documents passes no ids on (langchain-milvus 0.3)."""

        def add_documents(self, documents, **kwargs):
            return super().add_documents(documents, ids=[document.id for document in documents])

    if kind == "milvus":
        flat = {"index_type": "FLAT", "metric_type": "COSINE"}
        arguments = {"connection_args": {"uri": str(folder / "milvus.db")}, "index_params": flat, "drop_old": True}
        return WithIds(world.langchain, **arguments)
    arguments = {"connection_args": {"uri": servers.address("milvus")}, "enable_dynamic_field": True}
    return WithIds(world.langchain, f"world{next(numbers)}", **arguments)


def make_postgres(kind, world, servers):
    from langchain_postgres import Column, PGEngine, PGVector, PGVectorStore

    from tests.support.builders.postgres import new_database, with_driver

    if kind == "postgres":
        # Ids are global in a database, across collections: every test has a database of its own.
        return PGVector(world.langchain, connection=with_driver(new_database(servers), "psycopg"))
    engine = PGEngine.from_connection_string(with_driver(servers.address("postgres"), "psycopg"))
    name = f"world{next(numbers)}"
    columns = [Column("even", "boolean"), Column("parity", "text")]
    engine.init_vectorstore_table(name, 16, metadata_columns=columns)
    names = [column.name for column in columns]
    return PGVectorStore.create_sync(engine, world.langchain, name, metadata_columns=names)


def make_store(kind, world, folder, servers=None):
    store = make_vectorstore(kind, world, folder, servers)
    store.add_documents([Document(id=n, page_content=text, metadata=metadata) for n, text, metadata in world.rows])
    return store


# Each kind with the file of builders that needs the same packages.
KINDS = {
    "in-memory": "in-memory",
    "chroma": "chroma",
    "chroma-cosine": "chroma",
    "chroma-ip": "chroma",
    "qdrant-Cosine": "qdrant",
    "qdrant-Dot": "qdrant",
    "lancedb": "lance",
    "postgres": "postgres",
    "postgres-v2": "postgres",
    "faiss": "faiss",
    "milvus": "milvus",
    "milvus-server": "milvus",
    "duckdb": "duckdb",
    "sqlite-vec": "sqlite-vec",
    "redis-langchain": "redis-langchain",
}


@pytest.fixture(params=here(KINDS))
def store(request, world, tmp_path, servers):
    request.node.user_properties.append(("store", KINDS[request.param]))
    return make_store(request.param, world, tmp_path, servers)


def is_a(store, name):
    return any(base.__name__ == name for base in type(store).__mro__)


def even(store):
    if isinstance(store, InMemoryVectorStore):
        return lambda document: document.metadata["even"]
    if is_a(store, "QdrantVectorStore"):
        from qdrant_client import models

        match = models.MatchValue(value=True)
        return models.Filter(must=[models.FieldCondition(key="metadata.even", match=match)])
    if is_a(store, "RedisVectorStore"):
        from redisvl.query.filter import Num

        return Num("even") == 1
    if is_a(store, "Milvus"):
        return "even == true"
    return "metadata.even = true" if is_a(store, "LanceDB") else {"even": True}


def own_filtered(store, query, k):
    if is_a(store, "DuckDB") or is_a(store, "SQLiteVec"):
        # They take no filter, without saying so.
        return [found for found in store.similarity_search(query, k=60) if found.metadata["even"]][:k]
    # LanceDB filters after the search unless it is told to filter before.
    options = {"prefilter": True} if is_a(store, "LanceDB") else {}
    options["expr" if is_a(store, "Milvus") else "filter"] = even(store)
    return store.similarity_search(query, k=k, **options)


def content(documents):
    """Documents without what the integrations themselves give or leave out: ids, and ids in the metadata."""
    return [(one.page_content, {k: v for k, v in one.metadata.items() if k[0] != "_"}) for one in documents]


def assert_same(found, expected):
    """The same documents; a score that DuckDB puts into the metadata is one of float32, an overlay's of float64."""
    key = "_similarity_score"
    for one, other in zip(found, expected, strict=True):
        score = one.metadata.get(key)
        assert score == pytest.approx(other.metadata.get(key), abs=1e-6)
        assert one.model_copy(update={"metadata": {**one.metadata, key: score}}) == other.model_copy(
            update={"metadata": {**other.metadata, key: score}}
        )


def ids(documents):
    return [document.id for document in documents]


def test_ranks_as_the_frameworks_own_retriever(store, world):
    ours, own = NudgeRetriever(vectorstore=store, k=6), store.as_retriever(search_kwargs={"k": 6})
    kept = NudgeRetriever(vectorstore=store, k=6, filter=even(store))
    for query in world.queries:
        assert content(ours.invoke(query)) == content(own.invoke(query))
        assert content(kept.invoke(query)) == content(own_filtered(store, query, 6))
        assert all(ids(ours.invoke(query)))


def test_k_and_filter_at_call_and_scores(store, world):
    retriever = NudgeRetriever(vectorstore=store, score_key="score")
    assert len(retriever.invoke(world.queries[0])) == 4
    found = retriever.invoke(world.queries[0], k=9, filter=even(store))
    assert len(found) == 9
    assert all(document.metadata["even"] for document in found)
    scores = [document.metadata["score"] for document in found]
    assert scores == sorted(scores, reverse=True)
    assert "score" not in NudgeRetriever(vectorstore=store).invoke(world.queries[0])[0].metadata
    assert ids(NudgeRetriever(vectorstore=store, k=9, filter=even(store)).invoke(world.queries[0])) == ids(found)


def test_an_overlay_over_what_is_live_shows_what_its_push_gives(store, world):
    first, second = overlapping(embedding_store(store))
    first.push()
    plain, overlay = NudgeRetriever(vectorstore=store, k=9), NudgeRetriever(vectorstore=store, k=9, overlay=second)
    live = [ids(plain.invoke(query)) for query in world.queries]
    served = [ids(overlay.invoke(query)) for query in world.queries]
    second.push()
    assert [ids(plain.invoke(query)) for query in world.queries] == served != live
    assert [ids(overlay.invoke(query)) for query in world.queries] == served


def test_tune_overlay_push_and_rollback(store, world, tmp_path):
    adapter = embedding_store(store)
    before = {node: row for part, rows in adapter.scan() for node, row in zip(part, rows, strict=True)}
    nudge = tune(store, world.pairs, versions=tmp_path / "versions", solver="nudge-n")
    assert nudge.improves
    plain, overlay = NudgeRetriever(vectorstore=store, k=7), NudgeRetriever(vectorstore=store, k=7, overlay=nudge)
    untouched = [ids(plain.invoke(query)) for query in world.queries]
    served = [(overlay.invoke(query), overlay.invoke(query, filter=even(store))) for query in world.queries]
    assert [ids(found) for found, _ in served] != untouched
    assert [ids(plain.invoke(query)) for query in world.queries] == untouched, "an overlay writes nothing"
    assert nudge.push().pushed
    topics = {node: hashlib.sha256(text.encode()).hexdigest()[:16] for node, text, _ in world.rows}
    (version,) = nudge_rag.versions(adapter, tmp_path / "versions")
    assert version.text_hashes == {node: topics[node] for node in nudge.ids}
    assert nudge_rag.status(adapter, tmp_path / "versions", texts=texts_of(store)).edited == ()
    for query, (found, kept) in zip(world.queries, served, strict=True):
        assert_same(plain.invoke(query), found)
        assert_same(plain.invoke(query, filter=even(store)), kept)
        assert content(store.similarity_search(query, k=7)) == content(found)
    assert nudge_rag.rollback(adapter, tmp_path / "versions").exact
    after = {node: row for part, rows in adapter.scan() for node, row in zip(part, rows, strict=True)}
    assert after.keys() == before.keys()
    assert all(np.abs(after[node] - before[node]).max() <= adapter.capabilities.rounding for node in before)
    assert [ids(plain.invoke(query)) for query in world.queries] == untouched


def test_a_node_whose_text_was_edited_is_reported(world, tmp_path):
    store = make_store("in-memory", world, tmp_path)
    assert tune(store, world.pairs, versions=tmp_path / "v").push().pushed
    store.store[world.node_id(3)]["text"] = "topic 3, edited"
    found = nudge_rag.status(embedding_store(store), tmp_path / "v", texts=texts_of(store))
    assert found.edited == (world.node_id(3),)
    assert str(found).endswith("0 missing, 1 edited")


def test_texts_that_cannot_be_read_do_not_stop_a_tuning(world, tmp_path, monkeypatch):
    store = make_store("chroma", world, tmp_path)
    monkeypatch.setattr(chroma.ChromaDatabase, "fetch_documents", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match=r"texts cannot be read, .* \(ZeroDivisionError: division by zero\)"):
        assert tune(store, world.pairs, versions=tmp_path / "v", solver="nudge-n").text_hashes == {}


async def test_async_and_batch_give_the_same(store, world):
    retriever = NudgeRetriever(vectorstore=store, k=3)
    one_by_one = [retriever.invoke(query) for query in world.queries[:6]]
    assert retriever.batch(world.queries[:6]) == one_by_one
    assert await retriever.abatch(world.queries[:6]) == one_by_one
    assert await retriever.ainvoke(world.queries[0], k=2) == one_by_one[0][:2]


def test_in_a_chain(store, world):
    def join(documents):
        return " | ".join(document.page_content for document in documents)

    retriever = NudgeRetriever(vectorstore=store, k=2)
    prompt = ChatPromptTemplate.from_template("{context} :: {question}")
    question = {"context": retriever | join, "question": RunnablePassthrough()}
    asked = (question | prompt).invoke(world.queries[0]).to_string()
    assert asked == f"Human: {join(retriever.invoke(world.queries[0]))} :: {world.queries[0]}"
    chain = question | prompt | FakeListChatModel(responses=["an answer"]) | StrOutputParser()
    assert chain.invoke(world.queries[0]) == "an answer"


def test_bad_arguments(store):
    for k in (0, -3):
        with pytest.raises(ValidationError, match="greater than 0"):
            NudgeRetriever(vectorstore=store, k=k)
        with pytest.raises(ValueError, match="k must be a positive integer"):
            NudgeRetriever(vectorstore=store).invoke("question 1 about 1", k=k)
    with pytest.raises(TypeError, match=r"str is not supported; supported are InMemoryVectorStore.*EmbeddingStore"):
        embedding_store("a store")


@pytest.mark.parametrize(
    "kind", here({kind: KINDS[kind] for kind in ("lancedb", "postgres", "postgres-v2", "duckdb", "sqlite-vec")})
)
def test_filters_cannot_smuggle_conditions_in(kind, world, tmp_path, servers):
    retriever = NudgeRetriever(vectorstore=make_store(kind, world, tmp_path, servers), k=60)
    key = "metadata.parity" if kind == "lancedb" else "parity"
    assert retriever.invoke(world.queries[0], filter={key: "odd' OR '1'='1"}) == []
    assert len(retriever.invoke(world.queries[0], filter={key: "odd"})) == 30
    if kind == "lancedb":
        with pytest.raises(ValueError, match="is not the name of a column"):
            retriever.invoke(world.queries[0], filter={"1 = 1 OR parity": "odd"})
        with pytest.raises(TypeError, match="an SQL condition or a dictionary, got list"):
            retriever.invoke(world.queries[0], filter=["odd"])


JSON_CONDITIONS = {
    "duckdb": "(metadata::JSON->>'number')::INTEGER > 57",
    "sqlite-vec": "json_extract(metadata, '$.number') > 57",
}


@pytest.mark.parametrize("kind", here({kind: kind for kind in JSON_CONDITIONS}))
def test_filters_on_json_metadata(kind, world, tmp_path):
    retriever = NudgeRetriever(vectorstore=make_store(kind, world, tmp_path), k=60)

    def numbers_found(given):
        return {found.metadata["number"] for found in retriever.invoke("topic 1", filter=given)}

    assert numbers_found({"number": 7}) == numbers_found({"number": 7.0, "even": False}) == {7}
    assert numbers_found({"gone": 7}) == numbers_found({"number": "seven"}) == set()
    assert numbers_found(JSON_CONDITIONS[kind]) == {58, 59}
    for key in ("parity') IS NOT NULL OR ('1", "$.parity", "a/b~c", "number'", 'number"'):
        assert numbers_found({key: "odd"}) == set()
    for bad, message in [
        (["odd"], "an SQL condition or a dictionary, got list"),
        ({"even": None}, "got None for 'even'"),
    ]:
        with pytest.raises(TypeError, match=message):
            numbers_found(bad)
    odd = {"a/b~c": "it's", "$.d": 1, 'e"f': True}
    retriever.vectorstore.add_documents([Document(id="x", page_content="topic 3", metadata={**odd, "number": 99})])
    assert [numbers_found({key: value}) for key, value in odd.items()] == [{99}] * 3


def test_redis_filters(world, tmp_path, servers):
    filters = pytest.importorskip("redisvl.query.filter")
    pytest.importorskip("langchain_redis")
    retriever = NudgeRetriever(vectorstore=make_store("redis-langchain", world, tmp_path, servers), k=60)

    def numbers_found(given):
        return {found.metadata["number"] for found in retriever.invoke("topic 1", filter=given)}

    for value in ("odd' OR '1'='1", "odd} | @parity:{even", "*"):
        assert numbers_found(filters.Tag("parity") == value) == set()
    assert numbers_found((filters.Tag("parity") == "odd") & (filters.Num("number") < 4)) == {1, 3}
    assert numbers_found("@number:[58 inf]") == {58, 59}
    assert numbers_found("@number:[1 1] | @number:[3 3]") == {1, 3}, "an OR stays within this index"
    assert numbers_found(filters.FilterExpression("*")) == numbers_found(None) == set(range(60))
    with pytest.raises(TypeError, match="a query or a redisvl filter, got dict"):
        numbers_found({"parity": "odd"})


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_redis_chooses_diverse_documents_as_the_framework_does(metric, world, servers):
    pytest.importorskip("langchain_redis")
    from tests.support.builders.redis_langchain import vectorstore_on

    store = vectorstore_on(servers.address("redis_langchain"), world.langchain, 16, distance_metric=metric)
    store.add_documents([Document(id=node, page_content=text) for node, text, _ in world.rows])
    # The last question is a node's text: as near to the others as the query, where rounding chooses.
    for question, options in itertools.product(
        (*world.queries[:4], "topic 12"), ({"k": 4, "fetch_k": 12}, {"k": 6, "fetch_k": 30, "lambda_mult": 0.8})
    ):
        own = store.as_retriever(search_type="mmr", search_kwargs=options).invoke(question)
        found = NudgeRetriever(vectorstore=store, search_type="mmr", search_kwargs=options).invoke(question)
        assert [one.page_content for one in found] == [one.page_content for one in own]


def test_redis_indexes_that_share_their_keys(world, servers):
    pytest.importorskip("langchain_redis")
    from tests.support.builders.redis_langchain import vectorstore_on

    port = servers.address("redis_langchain")
    first, second = (vectorstore_on(port, world.langchain, 16, key_prefix="shared") for _ in range(2))
    first.add_texts(["topic 1"], ids=["a"])
    second.add_texts(["topic 2"], ids=["b"])
    stores = [embedding_store(first), embedding_store(second)]
    assert [store.count() for store in stores] == [1, 1]
    assert [store.search(np.ones((1, 16)), 5).ids for store in stores] == [[["a"]], [["b"]]]
    with pytest.raises(nudge_rag.stores.UnknownIdError, match="'b'"):
        stores[0].replace(["b"], np.ones((1, 16)))


def test_in_memory_filters_are_functions(world, tmp_path):
    with pytest.raises(TypeError, match="a function of a Document, got dict"):
        NudgeRetriever(vectorstore=make_store("in-memory", world, tmp_path)).invoke("topic 1", filter={"even": True})


def test_a_store_without_embeddings_needs_some(world, tmp_path):
    from langchain_chroma import Chroma

    bare = Chroma("bare", persist_directory=str(tmp_path), collection_configuration={"hnsw": {"space": "cosine"}})
    with pytest.raises(ValueError, match="pass embeddings="):
        tune(bare, world.pairs)
    with pytest.raises(ValueError, match="pass query_embeddings="):
        NudgeRetriever(vectorstore=bare)


def test_dumped_store_is_pushed_and_rolled_back_across_loads(world, tmp_path):
    path = tmp_path / "dump.json"
    make_store("in-memory", world, tmp_path).dump(str(path))
    before = path.read_bytes()
    loaded = InMemoryVectorStore.load(str(path), world.langchain)
    nudge = tune(loaded, world.pairs, persist_path=path, versions=tmp_path / "versions", solver="nudge-n")
    nudge.push()
    again = NudgeRetriever(vectorstore=InMemoryVectorStore.load(str(path), world.langchain))
    assert again.invoke(world.queries[0]) == NudgeRetriever(vectorstore=loaded, overlay=nudge).invoke(world.queries[0])
    assert path.read_bytes() != before
    nudge_rag.rollback(InMemoryStore.open(path), tmp_path / "versions")
    assert path.read_bytes() == before


def test_a_store_made_from_scratch_can_be_tuned_with_given_embeddings(world, tmp_path):
    store = make_store("in-memory", world, tmp_path)
    whole = tune(store, world.pairs, versions=tmp_path / "a", solver="nudge-n")
    given = tune(store, world.pairs, embeddings=world.langchain, versions=tmp_path / "b", solver="nudge-n")
    assert np.array_equal(whole.vectors, given.vectors)


def test_milvus_filters_are_expressions(world, tmp_path):
    pytest.importorskip("langchain_milvus")
    with pytest.raises(TypeError, match="filter for Milvus is an expression, such as 'year > 2020', got dict"):
        NudgeRetriever(vectorstore=make_store("milvus", world, tmp_path)).invoke("topic 1", filter={"even": True})


def test_milvus_ids_that_it_makes_and_a_metadata_field(world, tmp_path):
    milvus = pytest.importorskip("langchain_milvus")
    options = {"auto_id": True, "metadata_field": "meta", "connection_args": {"uri": str(tmp_path / "milvus.db")}}
    store = milvus.Milvus(world.langchain, **options)
    store.add_documents([Document(page_content=text, metadata=metadata) for _, text, metadata in world.rows])
    found = NudgeRetriever(vectorstore=store, k=3, filter='meta["even"] == true').invoke("topic 4")
    assert [one.page_content for one in found] == [
        one.page_content for one in store.similarity_search("topic 4", k=3, expr='meta["even"] == true')
    ]
    assert all(one.id.isdigit() and one.metadata["even"] for one in found)


def standard_store(kind, folder):
    embeddings = DeterministicFakeEmbedding(size=8)
    store = InMemoryVectorStore(embeddings)
    if kind == "chroma":
        from langchain_chroma import Chroma

        store = Chroma("standard", embeddings, persist_directory=folder)
    store.add_documents([Document(page_content=f"text {i}", id=str(i)) for i in range(10)])
    return store


class StandardTests(RetrieversIntegrationTests):
    kind = "in-memory"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = str(tmp_path)

    @property
    def retriever_constructor(self):
        return NudgeRetriever

    @property
    def retriever_constructor_params(self):
        return {"vectorstore": standard_store(self.kind, self.folder)}

    @property
    def retriever_query_example(self):
        return "text 3"


class TestStandardInMemory(StandardTests):
    pass


class TestStandardChroma(StandardTests):
    kind = "chroma"


del StandardTests, RetrieversIntegrationTests

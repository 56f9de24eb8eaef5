"""Both frameworks' retrievers over the databases that cannot be run here."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_nudge import NudgeRetriever as LangChainRetriever
from llama_index.core import VectorStoreIndex
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever
from llama_index.retrievers.nudge.filters.lucene import clause_of

from nudge_rag.common.similarity import score_matrix
from tests.support.builders.common import LlamaIndexEmbedding, vectors_of
from tests.support.doubles.registry import only

pytestmark = pytest.mark.usefixtures("quiet")

QUERY = "a question"


def best(built, k, keep=lambda node: True):
    """Node ids and scores by brute force over the vectors that the store holds."""
    ids = [node for node in built.vectors if keep(node)]
    rows = built.store.read(ids).astype(np.float64)
    (scores,) = score_matrix(np.array(vectors_of([QUERY])), rows, built.store.capabilities.similarity)
    ranked = sorted(zip(ids, scores.tolist(), strict=True), key=lambda pair: -pair[1])[:k]
    return [node for node, _ in ranked], [score for _, score in ranked]


LLAMA_INDEX = [
    "elasticsearch-llama-index-l2",
    "opensearch-llama-index-l2",
    "pinecone-llama-index-cosine",
    "weaviate-llama-index-cosine",
]
LANGCHAIN = [
    "elasticsearch-langchain-dot",
    "opensearch-langchain-dot",
    "pinecone-langchain-dot",
    "weaviate-langchain-dot",
]


def llama_index_retriever(built, **options):
    index = VectorStoreIndex.from_vector_store(built.framework, embed_model=LlamaIndexEmbedding())
    return LlamaIndexRetriever(index, similarity_top_k=5, **options)


@pytest.mark.parametrize("name", only(LLAMA_INDEX))
async def test_llama_index_retriever_gives_the_nodes_and_true_scores(build, name):
    built = build(name, 60)
    retriever = llama_index_retriever(built)
    ids, scores = best(built, 5)
    for found in (retriever.retrieve(QUERY), await retriever.aretrieve(QUERY)):
        assert [one.node.node_id for one in found] == ids
        np.testing.assert_allclose([one.score for one in found], scores, atol=1e-5)
        assert all(one.node.get_content() == f"text of {int(one.node.metadata['number'])}" for one in found)


@pytest.mark.parametrize("name", only(LLAMA_INDEX))
def test_llama_index_retriever_with_filters(build, name):
    built = build(name, 60)
    small = {built.naming(number) for number in range(30)}
    filters = MetadataFilters(filters=[MetadataFilter(key="number", value=30, operator="<")])
    found = llama_index_retriever(built, filters=filters).retrieve(QUERY)
    assert [one.node.node_id for one in found] == best(built, 5, lambda node: node in small)[0]
    wanted = list(built.vectors)[:10]
    chosen = llama_index_retriever(built, node_ids=wanted)
    if name.startswith("pinecone"):
        with pytest.raises(ValueError, match="no filter by node id"):
            chosen.retrieve(QUERY)
    else:
        assert [one.node.node_id for one in chosen.retrieve(QUERY)] == best(built, 5, lambda node: node in wanted)[0]


@pytest.mark.parametrize("name", only(LANGCHAIN))
async def test_langchain_retriever_gives_the_documents_and_true_scores(build, name):
    built = build(name, 60)
    retriever = LangChainRetriever(vectorstore=built.framework, k=5, score_key="score")
    ids, scores = best(built, 5)
    for found in (retriever.invoke(QUERY), await retriever.ainvoke(QUERY)):
        assert [one.id for one in found] == ids
        np.testing.assert_allclose([one.metadata["score"] for one in found], scores, atol=1e-5)
        assert all(one.page_content == f"text of {int(one.metadata['number'])}" for one in found)
    found = LangChainRetriever(vectorstore=built.framework, k=5, filter=built.even).invoke(QUERY)
    assert [one.id for one in found] == best(built, 5, built.is_even)[0]


@pytest.mark.parametrize("name", only(["elasticsearch-llama-index-l2"]))
@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        ([("number", 30, FilterOperator.GT)], lambda n: n > 30),
        ([("number", 30, FilterOperator.GTE)], lambda n: n >= 30),
        ([("number", 30, FilterOperator.LTE)], lambda n: n <= 30),
        ([("number", [1, 2, 3], FilterOperator.IN)], lambda n: n in (1, 2, 3)),
        ([("number", [1, 2, 3], FilterOperator.NIN)], lambda n: n not in (1, 2, 3)),
        ([("number", 7, FilterOperator.NE)], lambda n: n != 7),
        ([("nothing", None, FilterOperator.IS_EMPTY)], lambda n: True),
        ([("number", 3, FilterOperator.GT), ("number", 9, FilterOperator.LT)], lambda n: 3 < n < 9),
    ],
)
def test_elasticsearch_filters_of_llama_index(build, name, filters, keep):
    built = build(name, 60)
    index = VectorStoreIndex.from_vector_store(built.framework, embed_model=LlamaIndexEmbedding())
    parts = [MetadataFilter(key=key, value=value, operator=operator) for key, value, operator in filters]
    kept = {built.naming(number) for number in range(60) if keep(number)}
    given = MetadataFilters(filters=parts)
    found = LlamaIndexRetriever(index, similarity_top_k=60, filters=given).retrieve(QUERY)
    assert {one.node.node_id for one in found} == kept
    negated = MetadataFilters(filters=[given], condition=FilterCondition.NOT)
    found = LlamaIndexRetriever(index, similarity_top_k=60, filters=negated).retrieve(QUERY)
    assert {one.node.node_id for one in found} == set(built.vectors) - kept


@pytest.mark.parametrize(
    ("given", "clause"),
    [
        (("a", "b", FilterOperator.EQ), {"term": {"metadata.a.keyword": "b"}}),
        (("doc_id", "b", FilterOperator.EQ), {"term": {"metadata.doc_id": "b"}}),
        (("a", ["b"], FilterOperator.ANY), {"terms": {"metadata.a.keyword": ["b"]}}),
    ],
)
def test_elasticsearch_strings_are_compared_whole(given, clause):
    key, value, operator = given
    one = MetadataFilter(key=key, value=value, operator=operator)
    either = MetadataFilters(filters=[one, one], condition=FilterCondition.OR)
    assert clause_of(either) == {"bool": {"should": [clause, clause]}}
    with pytest.raises(ValueError, match="'text_match' is not supported"):
        clause_of(MetadataFilters(filters=[MetadataFilter(key="a", value="b", operator=FilterOperator.TEXT_MATCH)]))

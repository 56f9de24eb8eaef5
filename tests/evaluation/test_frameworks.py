"""Retrievers and query engines of LlamaIndex and LangChain, ir-measures, and SciPy as an oracle."""

from __future__ import annotations

import shutil
from importlib.metadata import version

import ir_measures
import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import CustomQueryEngine, RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import TextNode

from nudge_rag import LabeledPairs
from nudge_rag.evaluation import bootstrap_interval, evaluate_retrievers, randomization_p_value

TEXTS = {f"n{number}": f"text {number}" for number in range(6)}
# Fake embeddings are equal for equal texts, so the node of that text ranks first.
PAIRS = LabeledPairs.from_pairs((text, node) for node, text in TEXTS.items())


class TextEmbedding(MockEmbedding):
    def _get_text_embedding(self, text):
        return DeterministicFakeEmbedding(size=16).embed_query(text)

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


@pytest.fixture(scope="module")
def index():
    nodes = [TextNode(id_=node, text=text) for node, text in TEXTS.items()]
    return VectorStoreIndex(nodes, embed_model=TextEmbedding(embed_dim=16))


@pytest.fixture(scope="module")
def vectorstore():
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents([Document(id=node, page_content=text) for node, text in TEXTS.items()])
    return store


class Reversed(BaseNodePostprocessor):
    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes[::-1]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_every_kind_of_retriever_finds_the_text_itself(index, vectorstore, concurrency):
    retrievers = {
        "LlamaIndex": index.as_retriever(similarity_top_k=3),
        "LangChain": vectorstore.as_retriever(search_kwargs={"k": 3}),
        "runnable": RunnableLambda(lambda text: vectorstore.similarity_search_with_score(text, k=3)),
        "ids": lambda text: [document.id for document in vectorstore.similarity_search(text, k=3)],
    }
    found = evaluate_retrievers(retrievers, PAIRS, ["Recall@1", "MRR@10"], concurrency=concurrency)
    assert not found.failures
    for name in retrievers:
        assert found.mean(name, "Recall@1") == 1.0, name
    assert found.overlap["LangChain"] == 1.0


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_query_engine_is_asked_behind_its_postprocessors_and_without_its_language_model(index, concurrency):
    class NoLLM(MockLLM):
        def complete(self, *args, **kwargs):
            raise AssertionError("the language model was asked")

    engine = RetrieverQueryEngine(
        index.as_retriever(similarity_top_k=3),
        response_synthesizer=get_response_synthesizer(llm=NoLLM()),
        node_postprocessors=[Reversed()],
    )
    found = evaluate_retrievers({"engine": engine}, PAIRS, ["MRR@10"], concurrency=concurrency)
    assert found.mean("engine", "MRR@10") == pytest.approx(1 / 3)


def test_a_query_engine_that_cannot_retrieve_alone_gives_its_source_nodes(index):
    class Whole(CustomQueryEngine):
        def custom_query(self, query_str):
            from llama_index.core.base.response.schema import Response

            return Response("answer", source_nodes=index.as_retriever(similarity_top_k=2).retrieve(query_str))

    assert evaluate_retrievers({"whole": Whole()}, PAIRS, ["MRR@10"]).mean("whole", "MRR@10") == 1.0


def test_a_document_without_an_id_needs_node_id():
    def search(text):
        return [Document(page_content=text, metadata={"key": "n0"})]

    with pytest.raises(ValueError, match=r"node id of a Document .* got None: pass node_id="):
        evaluate_retrievers({"x": search}, PAIRS)
    found = evaluate_retrievers({"x": search}, PAIRS, ["Recall@1"], node_id=lambda document: document.metadata["key"])
    assert found.mean("x", "Recall@1") == pytest.approx(1 / 6)


def random_rankings(rng, nodes, pairs):
    return {query: [str(n) for n in rng.permutation(nodes)[: rng.integers(0, 30)]] for query in pairs.queries}


@pytest.mark.parametrize("seed", range(5))
def test_values_are_those_of_ir_measures_and_of_our_own_metrics(seed):
    rng = np.random.default_rng(seed)
    nodes = [f"n{number}" for number in range(40)]
    pairs = LabeledPairs.from_pairs(
        (f"query {q}", str(node), float(rng.integers(-1, 4))) for q in range(30) for node in rng.choice(nodes, 6, False)
    )
    rankings = random_rankings(rng, nodes, pairs)
    by_text = {pairs.queries[query]: ranking for query, ranking in rankings.items()}
    found = evaluate_retrievers({"x": by_text.__getitem__}, pairs, ["nDCG@10", "Recall@5", "MRR@10", "AP@10", "P@5"])
    assert set(found.sources.values()) == {f"ir-measures {version('ir-measures')}"}
    qrels = {query: {n: max(int(g), 0) for n, g in grades.items()} for query, grades in pairs.qrels.items()}
    run = {query: {node: -float(rank) for rank, node in enumerate(ranking)} for query, ranking in rankings.items()}
    measures = [ir_measures.parse_measure(name) for name in ("nDCG@10", "R@5", "RR@10", "AP@10", "P@5")]
    expected = ir_measures.calc_aggregate(measures, qrels, {query: scores for query, scores in run.items() if scores})
    for measure, name in zip(measures, found.metrics, strict=True):
        assert found.mean("x", name) == pytest.approx(expected[measure], abs=1e-9), name


@pytest.mark.parametrize("measure", ["nDCG@10", "AP@10", "ERR@10", "Judged@10"])
def test_ids_of_any_form_have_the_values_of_plain_ones(measure):
    """Files and folders give ids with spaces; some measures run programs that read files."""
    plain = [f"n{row}" for row in range(6)]
    odd = ["my file.txt", "a\tb", "line\nbreak", "\u6f22 \u5b57", "nul\x00", '#quoted "one"']
    if measure == "ERR@10" and shutil.which("perl") is None:
        pytest.skip("ir-measures runs perl for ERR")
    values = []
    for names in (plain, odd):
        pairs = LabeledPairs({names[row]: f"question {row}" for row in range(6)}, {n: {n: 1} for n in names})
        answers = {f"question {row}": [names[(row + step) % 6] for step in (1, 0, 3)] for row in range(6)}
        found = evaluate_retrievers({"x": answers.__getitem__}, pairs, [measure])
        values.append(list(found.per_query("x", measure).values()))
    assert values[0] == values[1]
    assert all(value > 0 for value in values[0])


def test_the_interval_and_the_p_value_agree_with_scipy():
    import scipy.stats

    rng = np.random.default_rng(3)
    old, new = rng.random(80), rng.random(80) + 0.05
    low, high = bootstrap_interval(old, new, rounds=20_000)
    theirs = scipy.stats.bootstrap(
        (old, new), lambda a, b, axis: (b - a).mean(axis=axis), paired=True, method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (low, high) == (pytest.approx(theirs.low, abs=0.004), pytest.approx(theirs.high, abs=0.004))
    test = scipy.stats.permutation_test(
        (old, new), lambda a, b, axis: (b - a).mean(axis=axis), permutation_type="samples", n_resamples=20_000,
        vectorized=True, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert randomization_p_value(old, new, rounds=20_000) == pytest.approx(test.pvalue, abs=0.02)


def test_data_frames():
    found = evaluate_retrievers({"a": lambda text: ["n0"], "b": lambda text: ["n1"]}, PAIRS, ["MRR@10"])
    rows = found.to_dataframe()
    assert rows.loc[rows.system == "a", "mean"].item() == pytest.approx(1 / 6)
    values = found.to_dataframe(per_query=True)
    assert values.groupby("system").value.mean().to_dict() == pytest.approx({"a": 1 / 6, "b": 1 / 6})
    with pytest.raises(ValueError, match="no measure of nudge-rag or ir-measures"):
        evaluate_retrievers({"a": lambda text: ["n0"]}, PAIRS, ["nonsense"])

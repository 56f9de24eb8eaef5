"""Our metrics inside LlamaIndex's RetrieverEvaluator and LangSmith's evaluate, run locally."""

from __future__ import annotations

import math

import pytest
from langchain_core.documents import Document
from langchain_nudge.evaluation import langsmith_evaluator
from langsmith import evaluate
from langsmith.schemas import Example
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge.evaluation import retrieval_metric


def test_in_llama_index():
    nodes = [TextNode(id_=f"n{number}", text=f"text {number}") for number in range(3)]
    retriever = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4)).as_retriever(similarity_top_k=3)
    ids = [found.node.node_id for found in retriever.retrieve("query")]
    metrics = [retrieval_metric("MRR@10"), retrieval_metric("nDCG@10"), retrieval_metric("AP@10")]
    result = RetrieverEvaluator(metrics=metrics, retriever=retriever).evaluate("query", expected_ids=[ids[1]])
    assert result.metric_vals_dict["MRR@10"] == 0.5
    assert result.metric_vals_dict["nDCG@10"] == pytest.approx(1 / math.log2(3))
    assert result.metric_vals_dict["AP@10"] == 0.5


def test_in_llama_index_nothing_retrieved_is_0_and_repeats_count_once():
    metric = retrieval_metric("nDCG@2")
    assert metric.compute(expected_ids=["a"], retrieved_ids=[]).score == 0
    assert metric.compute(expected_ids=["a", "b", "c"], retrieved_ids=["a", "a", "b"]).score == 1
    with pytest.raises(ValueError, match="at least one node id"):
        metric.compute(expected_ids=[], retrieved_ids=["a"])
    with pytest.raises(ValueError, match="no measure"):
        retrieval_metric("nonsense")


def test_in_langsmith(monkeypatch):
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("LANGSMITH_API_KEY", "none")
    from datetime import UTC, datetime
    from uuid import uuid4

    answers = {"leave": [["exit"], ["exit", "bill"]], "pay": [["bill"], ["exit", "bill"]]}
    examples = [
        Example(
            id=uuid4(), dataset_id=uuid4(), created_at=datetime.now(UTC), inputs={"question": question},
            outputs={"node_ids": wanted},
        )
        for question, (wanted, _) in answers.items()
    ]  # fmt: skip

    def target(inputs: dict) -> dict:
        return {"output": [Document(id=node, page_content=node) for node in answers[inputs["question"]][1]]}

    results = evaluate(target, data=examples, evaluators=[langsmith_evaluator("MRR@10")], upload_results=False)
    scores = {row["example"].inputs["question"]: row["evaluation_results"]["results"][0] for row in results}
    assert {question: result.score for question, result in scores.items()} == {"leave": 1.0, "pay": 0.5}
    assert {result.key for result in scores.values()} == {"MRR@10"}


def test_langsmith_errors_name_the_key():
    judge = langsmith_evaluator("MRR@10", documents="docs")
    with pytest.raises(ValueError, match="output has no 'docs', it has answer"):
        judge({"answer": "x"}, {"node_ids": ["a"]})
    with pytest.raises(ValueError, match="example's output has no 'node_ids'"):
        judge({"docs": ["a"]}, {})
    assert judge({"docs": ["b", "a"]}, {"node_ids": {"a": 2, "b": 0}})["score"] == 0.5
    assert judge({"docs": ["doc", "o"]}, {"node_ids": "doc"})["score"] == 1.0, "an id, and not its letters"

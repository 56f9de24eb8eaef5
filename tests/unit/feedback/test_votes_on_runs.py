"""A vote on any run of a trace counts for the retrieval that users saw there, in every tool."""

from __future__ import annotations

import time

import pytest

from nudge_rag.feedback.log import Feedback, FeedbackLog
from nudge_rag.feedback.readers.langfuse import from_langfuse
from nudge_rag.feedback.readers.langsmith import from_langsmith
from nudge_rag.feedback.readers.spans import from_spans

# A trace of two retrievals, each in a chain with a model's run; the first one asks an inner retriever.
TREE = {
    "root": None,
    "A": "root",
    "ret A": "A",
    "inner": "ret A",
    "llm A": "A",
    "B": "root",
    "ret B": "B",
    "llm B": "B",
}
# What a vote on each run is about.
MEANT = {
    "root": ["ret A", "ret B"], "A": ["ret A"], "ret A": ["ret A"], "inner": ["ret A"], "llm A": ["ret A"],
    "B": ["ret B"], "ret B": ["ret B"], "llm B": ["ret B"], "not exported": ["ret A", "ret B"],
}  # fmt: skip


def document(node):
    return {"id": node, "metadata": {}, "page_content": "text", "type": "Document"}


def run(run_id, kind, parent=None, trace="t1", **fields):
    return {"id": run_id, "run_type": kind, "parent_run_id": parent, "trace_id": trace, **fields}


def is_retriever(run_id):
    return run_id == "inner" or run_id.startswith("ret")


@pytest.mark.parametrize("tool", ["LangSmith", "LangSmith's retrievers alone", "Langfuse", "spans"])
def test_a_vote_on_any_run_is_about_the_retrievals_that_it_rests_on(tool):
    def read(about):
        if tool == "Langfuse":
            rows = [
                {
                    "id": name,
                    "trace_id": "t",
                    "parent_observation_id": parent or "",
                    "type": "RETRIEVER" if is_retriever(name) else "SPAN",
                    "input": name,
                    "output": [document(f"node of {name}")],
                }
                for name, parent in TREE.items()
            ]
            score = {"name": "thumb", "trace_id": "t", "observation_id": about, "value": 1, "data_type": "BOOLEAN"}
            return from_langfuse(rows, [score], names=["thumb"])
        if tool == "spans":
            rows = [
                {
                    "span_id": name,
                    "trace_id": "t",
                    "parent_id": parent,
                    "attributes": {
                        "openinference.span.kind": "RETRIEVER" if is_retriever(name) else "CHAIN",
                        "input.value": name,
                        "retrieval.documents.0.document.id": f"node of {name}",
                    },
                }
                for name, parent in TREE.items()
            ]
            return from_spans(rows, [{"span_id": about, "annotator_kind": "HUMAN", "result": {"score": 1}}])
        # LangSmith's ids are UUIDs; "alone": of what is not a retriever only the order tells.
        uuid = {name: f"{place:036d}" for place, name in enumerate(TREE)}
        rows = []
        for name, parent in TREE.items():
            above = [name]
            while TREE[above[0]] is not None:
                above.insert(0, TREE[above[0]])
            order = ".".join(f"20260102T030405000000Z{uuid[run_id]}" for run_id in above)
            kind = "retriever" if is_retriever(name) else "chain"
            fields = {"inputs": {"query": name}, "outputs": [document(f"node of {name}")], "dotted_order": order}
            if kind == "retriever" or tool == "LangSmith":
                rows.append(run(uuid[name], kind, uuid.get(parent), uuid["root"], **fields))
        vote = {"run_id": uuid.get(about, "f" * 36), "trace_id": uuid["root"], "key": "user_score", "score": 1}
        log = from_langsmith(rows, [vote])
        name_of = {value: name for name, value in uuid.items()}
        return FeedbackLog((), tuple(Feedback(name_of[e.query_id], e.node_id, e.action) for e in log.feedback))

    for about, meant in MEANT.items():
        if tool == "LangSmith's retrievers alone" and about.startswith("llm"):
            meant = ["ret A", "ret B"]  # nothing tells which chain a run that was not exported is in
        if tool == "spans" and about == "not exported":
            meant = []  # an annotation names no trace
        assert [event.query_id for event in read(about).feedback] == meant, about


def test_votes_on_inner_runs_label_what_users_saw():
    tree = [
        run("root", "chain"),
        run("r", "retriever", "root", "root", inputs={"query": "pay"}, outputs=[document("a")]),
        run("llm", "llm", "root", "root"),
    ]
    given = [{"run_id": "llm", "key": "user_score", "score": 1}]
    pairs = from_langsmith(tree, given).to_pairs(credit="all")
    assert (pairs.queries, pairs.qrels) == ({"q0": "pay"}, {"q0": {"a": 1.0}})


def test_many_votes_on_many_traces_take_time_in_proportion():
    def seconds(n_traces):
        runs = [
            entry
            for number in range(n_traces)
            for entry in (
                run(f"t{number}", "chain", None, f"t{number}"),
                run(f"r{number}", "retriever", f"t{number}", f"t{number}", inputs={"query": "q"}, outputs=["text"]),
            )
        ]
        given = [{"run_id": f"t{number}", "key": "user_score", "score": 1} for number in range(n_traces)]
        begin = time.process_time()
        assert len(from_langsmith(runs, given).feedback) == n_traces
        return time.process_time() - begin

    few = min(seconds(500) for _ in range(3))
    assert min(seconds(4000) for _ in range(2)) < 30 * few  # eight times as many; squared it would be 64

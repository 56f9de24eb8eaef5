"""Readers of traces and data sets, each on a fixture made by hand to the published schema."""

from __future__ import annotations

import csv
import json
import warnings

import pytest

from nudge_rag import LabeledPairs
from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.readers.judged import from_mteb, from_nudge_dataset, from_trec, from_trec_run
from nudge_rag.feedback.readers.langfuse import from_langfuse
from nudge_rag.feedback.readers.langsmith import from_examples, from_langsmith
from nudge_rag.feedback.readers.spans import from_spans, from_trulens
from nudge_rag.feedback.readers.texts import from_hugging_face, from_llama_index, from_ragas
from nudge_rag.feedback.resolve import TextResolver

NODES = {
    "pay": "How to pay the monthly invoice by card",
    "leave": "How to leave the contract before its end",
    "twin1": "The same boiler plate in two places",
    "twin2": "The same boiler plate in two places",
}


def plain(pairs):
    return {pairs.queries[query]: dict(grades) for query, grades in pairs.qrels.items()}


def document(node, text="text"):
    return {"id": node, "metadata": {"source": "a.md"}, "page_content": text, "type": "Document"}


def run(run_id, kind, parent=None, trace="t1", **fields):
    return {"id": run_id, "run_type": kind, "parent_run_id": parent, "trace_id": trace, **fields}


RUNS = [
    run("t1", "chain", inputs={"question": "cancel"}, outputs={"answer": "…"}),
    run(
        "r1",
        "retriever",
        "t1",
        inputs={"query": "cancel"},
        outputs={"documents": [document("a"), document("b")]},
        start_time="2026-01-02T03:04:05",
        extra={"metadata": {"user_id": "ann", "thread_id": "s"}},
    ),
    run("r1a", "retriever", "r1", inputs={"query": "cancel"}, outputs={"documents": [document("inner")]}),
    # query_v2 writes types in capitals, a bulk export inputs and outputs as JSON, @traceable a list under "output".
    run("r2", "RETRIEVER", trace="t2", inputs='{"query": "pay"}', outputs=json.dumps({"output": [document("c")]})),
    run("r3", "retriever", trace="t3", inputs={"query": "broken"}, outputs=None, error="Timeout"),
]
GIVEN = [
    {"run_id": "t1", "key": "user_score", "score": 1, "feedback_source": {"type": "api", "user_id": "ann"}},
    {"run_id": "r1", "key": "nudge_node", "score": 0, "extra": {"node_id": "b"}, "created_at": "2026-01-02T03:05:00"},
    {"run_id": None, "trace_id": "t2", "key": "user_score", "score": None, "correction": {"node_ids": ["d"]}},
    {"run_id": "r1", "key": "user_score", "score": 1, "feedback_source": {"type": "model"}},
    {"run_id": "r1", "key": "latency", "score": 1},
]


def test_langsmith():
    log = from_langsmith(RUNS, GIVEN)
    assert [(r.query_id, r.query, [node.node_id for node in r.shown]) for r in log.retrievals] == [
        ("r1", "cancel", ["a", "b"]),
        ("r2", "pay", ["c"]),
    ]
    assert (log.retrievals[0].user, log.retrievals[0].session, log.retrievals[0].time) == ("ann", "s", 1767323045.0)
    assert [(e.query_id, e.node_id, e.action, e.user) for e in log.feedback] == [
        ("r1", None, "thumbs_up", "ann"),
        ("r1", "b", "thumbs_down", None),
        ("r2", "d", "thumbs_up", None),
    ]
    assert plain(log.to_pairs()) == {"cancel": {"b": -1}, "pay": {"d": 1}}
    assert plain(log.to_pairs(credit="top1")) == {"cancel": {"a": 1, "b": -1}, "pay": {"d": 1}}
    assert plain(log.to_pairs(credit="all")) == {"cancel": {"a": 1, "b": 0}, "pay": {"d": 1}}


def test_langsmith_statistics_count_if_there_are_no_rows():
    stats = {"user_score": {"n": 4, "avg": 0.75}, "latency": {"n": 9, "avg": 1}}
    log = from_langsmith([{**RUNS[3], "feedback_stats": json.dumps(stats)}])
    assert [event.action for event in log.feedback] == ["thumbs_up"] * 3 + ["thumbs_down"]


def test_langsmith_bad_rows(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [RUNS[1], {"run_type": "retriever"}, "no run"]))
    with pytest.raises(TypeError, match=r"runs.jsonl, line 2: id of a run must be a string, got None"):
        from_langsmith(path)
    with pytest.warns(UserWarning, match="2 of 3 rows were skipped"):
        log = from_langsmith(path, errors="skip")
    assert len(log.retrievals) == 1
    assert {(row.source, row.line) for row in log.report.skipped} == {(str(path), 2), (str(path), 3)}


def test_examples_with_keys_of_ones_own():
    rows = [
        {"inputs": {"q": "cancel"}, "outputs": {"ids": ["a", 7]}},
        {"inputs": '{"q": "pay"}', "outputs": {"ids": {"b": 2}}},
    ]
    expected = {"cancel": {"a": 1, "7": 1}, "pay": {"b": 2}}
    assert plain(from_examples(rows, query="inputs.q", nodes="outputs.ids")) == expected
    with pytest.raises(ValueError, match=r"examples, line 0: nothing at 'outputs.node_ids'"):
        from_examples(rows, query="inputs.q")


def test_langfuse_in_both_spellings():
    observations = [
        {
            "id": "o1",
            "trace_id": "t1",
            "type": "RETRIEVER",
            "parent_observation_id": "",
            "input": "cancel",
            "output": json.dumps([document("a"), document("b")]),
            "user_id": "ann",
            "start_time": "2026-01-02T03:04:05Z",
        },
        {
            "id": "o2",
            "traceId": "t2",
            "type": "RETRIEVER",
            "parentObservationId": None,
            "input": '{"query": "pay"}',
            "output": None,
            "metadata": {
                "attributes": {
                    "retrieval.documents.1.document.id": "d",
                    "retrieval.documents.0.document.id": "c",
                    "retrieval.documents.0.document.score": 0.5,
                }
            },
        },
        {"id": "o3", "traceId": "t2", "type": "GENERATION", "input": "x", "output": "y"},
    ]
    scores = [
        {
            "name": "thumb",
            "source": "ANNOTATION",
            "trace_id": "t1",
            "observation_id": "o1",
            "value": 0,
            "data_type": "BOOLEAN",
            "metadata": {"node_id": "b"},
        },
        {"name": "thumb", "source": "API", "subject": {"kind": "trace", "id": "t2"}, "value": 1, "dataType": "NUMERIC"},
        {
            "name": "thumb",
            "source": "API",
            "trace_id": "t2",
            "value": 0,
            "string_value": "helpful",
            "data_type": "CATEGORICAL",
            "author_user_id": "bob",
        },
        {"name": "thumb", "source": "EVAL", "trace_id": "t1", "value": 1, "data_type": "NUMERIC"},
        {"name": "cost", "source": "API", "trace_id": "t1", "value": 1, "data_type": "NUMERIC"},
    ]
    log = from_langfuse(observations, scores, names=["thumb"])
    assert [(r.query_id, r.query, r.shown, r.user) for r in log.retrievals] == [
        ("o1", "cancel", (ShownNode("a"), ShownNode("b")), "ann"),
        ("o2", "pay", (ShownNode("c", 0.5), ShownNode("d")), None),
    ]
    assert [(e.query_id, e.node_id, e.action, e.user) for e in log.feedback] == [
        ("o1", "b", "thumbs_down", None),
        ("o2", None, "thumbs_up", None),
        ("o2", None, "thumbs_up", "bob"),
    ]


FLAT = {
    "openinference.span.kind": "RETRIEVER",
    "input.value": "cancel",
    "user.id": "ann",
    "retrieval.documents.0.document.id": "a",
    "retrieval.documents.0.document.score": 0.75,
    "retrieval.documents.1.document.id": "b",
}
NESTED = {
    "openinference": {"span": {"kind": "RETRIEVER"}},
    "input": {"value": "cancel"},
    "user": {"id": "ann"},
    "retrieval": {"documents": [{"document": {"id": "a", "score": 0.75}}, {"document": {"id": "b"}}]},
}
SPANS = {
    "flat": {"context": {"span_id": "s", "trace_id": "t"}, "parent_id": None, "attributes": FLAT},
    "nested": {"context": {"span_id": "s", "trace_id": "t"}, "parent_id": None, "attributes": NESTED},
    "data frame": {
        "context.span_id": "s",
        "context.trace_id": "t",
        "parent_id": None,
        "span_kind": "RETRIEVER",
        "attributes.input.value": "cancel",
        "attributes.user.id": "ann",
        "attributes.llm.model": float("nan"),
        "attributes.retrieval.documents": [{"document.id": "a", "document.score": 0.75}, {"document.id": "b"}],
    },
    "OTLP": {
        "spanId": "s",
        "traceId": "t",
        "parentSpanId": "",
        "attributes": [
            {"key": key, "value": {"doubleValue" if isinstance(value, float) else "stringValue": value}}
            for key, value in FLAT.items()
        ],
    },
}


@pytest.mark.parametrize("shape", SPANS)
def test_openinference_spans_in_every_shape(shape):
    log = from_spans([SPANS[shape]])
    expected = Retrieval("s", "cancel", (ShownNode("a", 0.75), ShownNode("b")), user="ann")
    assert log == FeedbackLog((expected,))


def note(position, **fields):
    row = {"span_id": "s", "document_position": position, "annotator_kind": "HUMAN", "name": "relevance"}
    return {key: value for key, value in {**row, **fields}.items() if value is not None}


def test_annotations_of_documents_and_of_spans():
    notes = [
        note(0, result={"label": "irrelevant"}),
        note(1, result={"score": 1.0}),
        note(None, result={"label": "thumbs_up"}, user_id="ann"),
        note(0, result={"score": 1.0}, annotator_kind="LLM"),
        note(0, result={"score": 1.0}, span_id="elsewhere"),
    ]
    log = from_spans([SPANS["flat"]], notes)
    assert log.feedback == (
        Feedback("s", "a", "thumbs_down"),
        Feedback("s", "b", "thumbs_up"),
        Feedback("s", None, "thumbs_up", user="ann"),
    )
    with pytest.raises(ValueError, match="annotations, line 0: document_position 2 of a span with 2 documents"):
        from_spans([SPANS["flat"]], [note(2, result={"score": 1})])
    with pytest.raises(ValueError, match="label 'so-so' is neither a thumb up nor down"):
        from_spans([SPANS["flat"]], [note(1, result={"label": "so-so"})])


def test_spans_without_ids_are_resolved_by_text_and_rerankers_decide_what_was_shown():
    """LangChain's spans: positions of annotations are those that the retriever found, not those that were shown."""
    texts = [NODES["leave"], NODES["twin1"], NODES["pay"].upper()]
    found = {f"retrieval.documents.{n}.document.content": text for n, text in enumerate(texts)}
    kept = {f"reranker.output_documents.{n}.document.content": text for n, text in enumerate(texts[::-1])}
    spans = [
        {
            "context": {"span_id": "s", "trace_id": "t"},
            "parent_id": "root",
            "attributes": {"openinference.span.kind": "RETRIEVER", "input.value": "cancel", **found},
        },
        {
            "context": {"span_id": "z", "trace_id": "t"},
            "parent_id": "root",
            "attributes": {"openinference.span.kind": "RERANKER", "reranker.query": "cancel", **kept},
        },
    ]
    log = from_spans(spans, [note(0, result={"score": 1}), note(1, result={"score": 1}), note(2, result={"score": 0})])
    resolved, resolution = TextResolver(NODES).resolve(log)
    assert [node.node_id for node in resolved.retrievals[0].shown] == ["pay", None, "leave"]
    assert plain(resolved.to_pairs()) == {"cancel": {"leave": 1, "pay": -1}}
    assert plain(log.to_pairs()) == {}
    assert (resolution.exact, resolution.normalised, [len(n) for _, n in resolution.ambiguous]) == (1, 1, [2])


def test_a_vote_on_a_retrieval_within_another_one_is_about_what_users_saw():
    def span(span_id, parent, query, *documents):
        kind = {"openinference.span.kind": "RETRIEVER", "input.value": query}
        attributes = {**kind, "retrieval.documents": [{"document.id": node} for node in documents]}
        return {"span_id": span_id, "trace_id": "t", "parent_id": parent, "attributes": attributes}

    step = {"span_id": "step", "trace_id": "t", "parent_id": "outer", "attributes": {}}
    spans = [span("outer", None, "pay", "a", "b"), step, span("inner", "step", "pay by card", "b", "c")]
    note = {"span_id": "inner", "document_position": 0, "annotator_kind": "HUMAN", "result": {"label": "relevant"}}
    log = from_spans(spans, [note])
    assert [retrieval.query_id for retrieval in log.retrievals] == ["outer"]
    assert plain(log.to_pairs()) == {"pay": {"b": 1.0}}
    by_text = [
        {
            "span_id": name,
            "parent_id": parent,
            "attributes.openinference.span.kind": "RETRIEVER",
            "attributes.input.value": "q",
            "attributes.retrieval.documents": [{"document.content": text} for text in texts],
        }
        for name, parent, texts in (("outer", None, [NODES["leave"], NODES["pay"]]), ("inner", "outer", [NODES["pay"]]))
    ]
    resolved, _ = TextResolver(NODES).resolve(from_spans(by_text, [note]))
    assert plain(resolved.to_pairs()) == {"q": {"pay": 1.0}}


class HubDataset:
    """Hugging Face's ``Dataset`` by its shape: rows are what the format makes of them, dictionaries without one."""

    features = ()

    def __init__(self, rows, form=tuple):
        self.rows, self.form = rows, form

    def with_format(self, form):
        return HubDataset(self.rows, dict if form is None else tuple)

    def __iter__(self):
        return map(self.form, self.rows)


def test_data_sets_of_hugging_face_whatever_their_format():
    rows = HubDataset([{"anchor": "pay?", "positive": NODES["pay"], "negative": NODES["leave"]}])
    assert plain(from_hugging_face(rows, NODES)) == {"pay?": {"pay": 1, "leave": -1}}
    table = HubDataset([{"query": "pay?", "node_id": "pay"}])
    assert plain(LabeledPairs.from_dataframe(table)) == {"pay?": {"pay": 1.0}}
    for parts in ({"train": rows}, {"train": rows, "test": rows}):
        with pytest.raises(ValueError, match=r"a data set of the parts 'train'.*: pass one, such as \['train'\]"):
            from_hugging_face(parts, NODES)


def test_opentelemetry_spans():
    attributes = {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.retrieval.query.text": "cancel",
        "gen_ai.retrieval.documents": json.dumps([{"id": "a", "score": 0.5}, {"content": "text"}]),
    }
    spans = [
        {"span_id": "outer", "trace_id": "t", "attributes": attributes},
        {"span_id": "between", "trace_id": "t", "parent_span_id": "outer", "attributes": {}},
        {"span_id": "inner", "trace_id": "t", "parent_span_id": "between", "attributes": attributes},
    ]
    expected = Retrieval("outer", "cancel", (ShownNode("a", 0.5), ShownNode(None, text="text")))
    assert from_spans(spans).retrievals == (expected,)


def test_trulens():
    def event(span, record, query, contexts):
        attributes = {
            "ai.observability.span_type": "retrieval",
            "ai.observability.record_id": record,
            "ai.observability.retrieval.query_text": query,
            "ai.observability.retrieval.retrieved_contexts": contexts,
        }
        return {
            "record_attributes": json.dumps(attributes),
            "trace": {"span_id": span, "trace_id": "t", "parent_id": ""},
        }

    events = [event("s1", "r1", "cancel", [NODES["leave"]]), event("s2", "r2", "pay", [NODES["pay"]])]
    records = [{"record_id": "r1", "thumb": 1.0, "Groundedness": 0.1}, {"record_id": "r2", "thumb": 0.0}]
    log = from_trulens(events, records, feedback=["thumb"])
    assert [(event.query_id, event.action) for event in log.feedback] == [("s1", "thumbs_up"), ("s2", "thumbs_down")]
    resolved, _ = TextResolver(NODES).resolve(log)
    assert plain(resolved.to_pairs(credit="top1")) == {"cancel": {"leave": 1}, "pay": {"pay": -1}}


def test_ragas(tmp_path):
    rows = [
        {"user_input": "cancel", "reference_context_ids": ["leave", 7], "reference_contexts": ["ignored"]},
        {
            "eval_sample": {"user_input": "pay", "reference_contexts": [NODES["pay"][4:30]]},
            "synthesizer_name": "single",
        },
        {"user_input": "two", "reference_contexts": [NODES["twin1"], "nowhere to be found in any node"]},
    ]
    with pytest.warns(UserWarning, match=r"2 nodes have the text: 'twin1', 'twin2' .*no node has the text"):
        pairs = from_ragas(rows, NODES)
    assert plain(pairs) == {"cancel": {"leave": 1, "7": 1}, "pay": {"pay": 1}}
    assert {pairs.queries[query] for query in pairs.synthetic} == {"pay"}
    assert [row.line for row in pairs.report.skipped] == [2, 2]
    with (tmp_path / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["user_input", "reference_contexts"], ["cancel", str([NODES["leave"]])]])
    assert plain(from_ragas(tmp_path / "samples.csv", NODES)) == {"cancel": {"leave": 1}}
    with pytest.raises(ValueError, match="names answers by their texts: pass texts="):
        from_ragas(rows[1:2])
    with pytest.raises(ValueError, match="row 0: neither reference_context_ids nor reference_contexts"):
        from_ragas([{"user_input": "x"}])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"anchor": "q", "positive": "pay", "negative_1": "leave"}, {"pay": 1, "leave": -1}),
        ({"sentence1": "q", "sentence2": "pay", "score": 0.5}, {"pay": 0.5}),
        ({"a": "q", "b": "pay", "c": "leave"}, {"pay": 1, "leave": -1}),
        ({"a": "q", "b": "pay", "c": 0}, {"pay": 0}),
        ({"query": "q", "docs": ["pay", "leave"], "labels": [2, 0]}, {"pay": 2, "leave": 0}),
        ({"id": 3, "question": "q", "answer": "pay"}, {"pay": 1}),
    ],
)
def test_hugging_face_pairs_and_triplets(row, expected):
    texts = {
        key: [NODES.get(text, text) for text in value] if isinstance(value, list) else NODES.get(value, value)
        for key, value in row.items()
    }
    assert plain(from_hugging_face([texts], NODES)) == {"q": expected}


def test_llama_index_by_shape(tmp_path):
    content = {
        "examples": [
            {"query": "cancel", "query_by": {"type": "human"}, "reference_contexts": [NODES["leave"]]},
            {"query": "pay", "query_by": {"model_name": "m", "type": "ai"}, "reference_contexts": [NODES["pay"]]},
        ]
    }
    (tmp_path / "rag.json").write_text(json.dumps(content))
    for dataset in (content, tmp_path / "rag.json"):
        pairs = from_llama_index(dataset, NODES)
        assert plain(pairs) == {"cancel": {"leave": 1}, "pay": {"pay": 1}}
        assert {pairs.queries[query] for query in pairs.synthetic} == {"pay"}
    assert plain(from_llama_index({"queries": {"q": "x"}, "relevant_docs": {"q": ["d"]}})) == {"x": {"d": 1}}


def test_trec(tmp_path):
    (tmp_path / "qrels").write_text("1 0 d1 2\n1 0 d2 -2\n\n2\t0\td1\t0\n")
    (tmp_path / "topics.tsv").write_text("\ufeff1\tcancel\n2\tpay\tnow\n")
    expected = {"cancel": {"d1": 2, "d2": -2}, "pay\tnow": {"d1": 0}}
    assert plain(from_trec(tmp_path / "qrels", tmp_path / "topics.tsv")) == expected
    (tmp_path / "run").write_text("1 Q0 d2 1 0.5 bm25\n1 Q0 d1 2 0.75 bm25\n3 Q0 d1 1 1 bm25\n")
    with pytest.warns(UserWarning, match="run, line 3: query '3' has no text"):
        log = from_trec_run(tmp_path / "run", {"1": "cancel"}, errors="skip")
    assert [(r.query, [n.node_id for n in r.shown], r.version) for r in log.retrievals] == [
        ("cancel", ["d1", "d2"], "bm25")
    ]
    (tmp_path / "qrels").write_text("1 0 d1\n")
    with pytest.raises(ValueError, match="qrels, line 1: expected 4 fields between white space, got 3"):
        from_trec(tmp_path / "qrels", {"1": "x"})


def test_mteb(tmp_path):
    (tmp_path / "queries.jsonl").write_text('{"id": 1, "text": "cancel"}\n{"_id": "2", "text": "pay"}\n')
    qrels = [{"query-id": 1, "corpus-id": 7, "score": 2}, {"query-id": "2", "corpus-id": "d", "score": 0}]
    assert plain(from_mteb(tmp_path / "queries.jsonl", qrels)) == {"cancel": {"7": 2}, "pay": {"d": 0}}
    with pytest.raises(ValueError, match="MTEB qrels, row 0: query '3' has no text"):
        from_mteb(tmp_path / "queries.jsonl", [{"query-id": 3, "corpus-id": 7, "score": 2}])


def test_nudge_authors_data_sets(tmp_path):
    tables = {
        "data_records/train": [{"record_id": n, "doc_id": f"d{n}", "passage_id": "0", "text": "t"} for n in range(3)],
        **{f"qs/{part}": [{"q_id": 0, "input": f"question of {part}"}] for part in ("train", "dev", "test")},
        **{
            f"qs_rel/{part}": [{"q_id": 0, "record_id": n, "rel": n + 1}]
            for n, part in enumerate(("train", "dev", "test"))
        },
    }
    for name, rows in tables.items():
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = from_nudge_dataset(tmp_path)
    assert [dict(part.queries) for part in split] == [{f"{p}-0": f"question of {p}"} for p in ("train", "dev", "test")]
    assert [plain(part) for part in split] == [
        {f"question of {part}": {str(n): n + 1}} for n, part in enumerate(("train", "dev", "test"))
    ]
    assert from_nudge_dataset(tmp_path, node_id="doc_id").val.node_ids == ("d1",)
    with pytest.raises(ValueError, match="expected a folder or one of nfcorpus, scifact"):
        from_nudge_dataset("msmarco")


def test_bad_rows_of_a_data_set_of_nudges_authors(tmp_path):
    tables = {
        "data_records": [{"record_id": 0, "doc_id": "d0"}, {"doc_id": "d1"}],
        "qs": [{"q_id": 0, "input": "pay"}, {"q_id": 1}, {"input": "leave"}],
        "qs_rel": [{"q_id": 0, "record_id": 0, "rel": 2}, {"q_id": 0}, {"q_id": 0, "record_id": 1, "rel": "x"}],
    }
    for name, rows in tables.items():
        (tmp_path / name).mkdir()
        for part in ("train", "dev", "test"):
            (tmp_path / name / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TypeError, match=r"qs.train.jsonl, row 2: text of query 'train-1' must be a string"):
        from_nudge_dataset(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one a table and part
        split = from_nudge_dataset(tmp_path, errors="skip")
        by_document = from_nudge_dataset(tmp_path, node_id="doc_id", errors="skip")
    assert [plain(part) for part in split] == [{"pay": {"0": 2.0}}] * 3
    assert [(row.source, row.line) for row in split.val.report.skipped] == [
        (str(tmp_path / "qs" / "dev.jsonl"), 2),
        (str(tmp_path / "qs" / "dev.jsonl"), 3),
        (str(tmp_path / "qs_rel" / "dev.jsonl"), 2),
        (str(tmp_path / "qs_rel" / "dev.jsonl"), 3),
    ]
    assert plain(by_document.test) == {"pay": {"d0": 2.0}}


def test_texts_are_never_guessed():
    resolver = TextResolver(NODES)
    assert resolver.find("monthly invoice by card") == "pay"
    assert resolver.find("Q: How to  leave the Contract before its end (page 3)") == "leave"
    assert resolver.find("boiler plate in two places") is None
    assert resolver.find("How to") is None
    assert resolver.find(NODES["pay"] + " or: " + NODES["leave"]) is None
    resolution = resolver.resolution
    assert (resolution.exact, resolution.normalised, resolution.contained) == (0, 0, 2)
    assert [set(nodes) for _, nodes in resolution.ambiguous] == [{"twin1", "twin2"}, {"pay", "leave"}]
    assert resolution.missing == ("How to",)


def test_one_voice_a_user_and_citations():
    shown = tuple(ShownNode(node) for node in "abc")
    retrievals = tuple(Retrieval(f"r{n}", "cancel", shown, user=f"u{n // 2}") for n in range(4))
    feedback = [Feedback(r.query_id, "a", "thumbs_up") for r in retrievals]
    feedback += [Feedback("r0", "b", "cite"), Feedback("r0", None, "thumbs_up"), Feedback("r1", None, "thumbs_down")]
    feedback += [Feedback("r2", "c", "click"), Feedback("gone", "c", "thumbs_up")]
    log = FeedbackLog(retrievals, tuple(feedback))
    # Two users like a; b is cited, and the answer that cites it is liked; clicks do not count.
    assert plain(log.to_pairs()) == {"cancel": {"a": 2, "b": 2}}
    assert log + log == log
    assert isinstance(log.to_pairs(), LabeledPairs)

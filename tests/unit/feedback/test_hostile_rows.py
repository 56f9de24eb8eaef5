"""Rows as broken as they come: whatever a field holds, a reader names the row or skips it, and reads the others."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from nudge_rag import feedback
from nudge_rag.feedback.impressions import collect_impressions
from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.readers.judged import from_mteb
from nudge_rag.feedback.readers.langfuse import from_langfuse
from nudge_rag.feedback.readers.langsmith import from_examples, from_langsmith
from nudge_rag.feedback.readers.spans import from_spans, from_trulens
from nudge_rag.feedback.readers.texts import from_hugging_face, from_llama_index, from_ragas
from nudge_rag.feedback.ubi import from_ubi, parse_time, to_ubi

HOSTILE = [
    None,
    "",
    -1,
    10**400,
    float("inf"),
    float("nan"),
    True,
    [],
    [None],
    {"values": None},
    [{"key": "a"}],
    "x" * 20_000,
    "\ud800",
    "{",
    b"bytes",
    np.array([1, 2]),
    {"user_score": {"n": 10**12, "avg": 1}},
]
TEXTS = {"a": "how to pay the invoice", "b": "leave"}
RUN = {
    "id": "r",
    "trace_id": "t",
    "parent_run_id": None,
    "run_type": "retriever",
    "start_time": "2026-01-02T03:04:05",
    "inputs": {"query": "pay"},
    "outputs": {"documents": [{"id": "a", "page_content": "x", "metadata": {}}]},
    "extra": {"metadata": {"user_id": "u"}},
    "feedback_stats": {"user_score": {"n": 2, "avg": 0.5}},
}
VOTE = {"run_id": "r", "key": "user_score", "score": 1, "correction": {"node_ids": ["a"]}, "extra": {"node_id": "a"}}
OBSERVATION = {"id": "o", "trace_id": "t", "type": "RETRIEVER", "input": "pay", "output": [{"id": "a"}]}
SCORE = {
    "trace_id": "t",
    "observation_id": "o",
    "name": "thumb",
    "value": 1,
    "subject": {},
    "metadata": {"node_id": "a"},
}
SPAN = {
    "context": {"span_id": "s", "trace_id": "t"},
    "start_time": "2026-01-02T03:04:05Z",
    "attributes": {
        "openinference.span.kind": "RETRIEVER",
        "input.value": "pay",
        "retrieval.documents": [{"document.id": "a", "document.score": 0.4}],
    },
}
OTLP = {
    "spanId": "s2",
    "startTimeUnixNano": "1700000000000000000",
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "retrieval"}},
        {"key": "gen_ai.retrieval.query.text", "value": {"stringValue": "pay"}},
        {"key": "gen_ai.retrieval.documents", "value": {"stringValue": '[{"id": "a"}]'}},
    ],
}
NOTE = {"span_id": "s", "document_position": 0, "annotator_kind": "HUMAN", "result": {"label": "relevant", "score": 1}}
EVENT = {
    "trace": {"span_id": "s"},
    "record_attributes": {
        "ai.observability.span_type": "retrieval",
        "ai.observability.record_id": "r",
        "ai.observability.retrieval.query_text": "pay",
        "ai.observability.retrieval.retrieved_contexts": ["x"],
    },
}
SAMPLE = {"user_input": "pay?", "reference_contexts": [TEXTS["a"]], "reference_context_ids": ["a", 2]}
TRIPLET = {"anchor": "pay?", "positive": TEXTS["a"], "negative": "leave", "score": 1.0}
QUERY = {
    "query_id": "q",
    "user_query": "pay",
    "timestamp": "2026-01-02T03:04:05Z",
    "query_response_hit_ids": ["a", "b"],
    "client_id": "u",
    "query_attributes": {"nudge": {"scores": [1, 2], "version": "v", "teams": ["A", "B"]}},
}
CLICK = {
    "action_name": "click",
    "query_id": "q",
    "timestamp": 1700000000000,
    "event_attributes": {"object": {"object_id": "a"}, "position": {"ordinal": 1}},
}
EXAMPLE = {"inputs": {"question": "pay"}, "outputs": {"node_ids": ["a"]}}
# Name: good rows of each argument, and the reader.
READERS = {
    "langsmith": (([RUN], [VOTE]), from_langsmith),
    "langsmith statistics": (([RUN],), from_langsmith),
    "langfuse": (([OBSERVATION], [SCORE]), lambda *rows, **how: from_langfuse(*rows, names=["thumb"], **how)),
    "spans": (([SPAN], [NOTE]), from_spans),
    "otlp": (([{"resourceSpans": [{"scopeSpans": [{"spans": [OTLP]}]}]}],), from_spans),
    "trulens": (
        ([EVENT], [{"record_id": "r", "t": 1}]),
        lambda *rows, **how: from_trulens(*rows, feedback=["t"], **how),
    ),
    "ragas": (([SAMPLE],), lambda rows, **how: from_ragas(rows, TEXTS, **how)),
    "hugging face": (([TRIPLET],), lambda rows, **how: from_hugging_face(rows, TEXTS, **how)),
    "ubi": (([QUERY], [CLICK]), from_ubi),
    "mteb": (([{"_id": "1", "text": "pay"}], [{"query-id": 1, "corpus-id": "d", "score": 2}]), from_mteb),
    "examples": (([EXAMPLE],), from_examples),
}


def places(value, path=()):
    """Every place within a row, the row itself left out."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    result = dict(value) if isinstance(value, dict) else list(value)
    result[path[0]] = changed(value[path[0]], path[1:], new)
    return result


@pytest.mark.filterwarnings("ignore:.*rows were skipped")
@pytest.mark.parametrize("name", READERS)
def test_whatever_a_field_holds_the_reader_goes_on(name, tmp_path):
    arguments, read = READERS[name]
    n_read = 0
    for at, rows in enumerate(arguments):
        good = copy.deepcopy(rows[0])
        for path in places(good):
            for bad in HOSTILE:
                given = [list(each) for each in arguments]
                given[at] = [changed(good, path, bad)]
                found = read(*given, errors="skip")
                if isinstance(found, FeedbackLog):
                    found.to_pairs(credit="all")
                    # What was read can be written.
                    to_ubi(found, tmp_path)
                n_read += 1
                try:
                    read(*given)
                except Exception as error:  # the row is named, by an error that the reader documents
                    assert type(error) in (TypeError, ValueError), (path, bad)
                    assert " 0: " in str(error), (path, bad)
    assert n_read >= len(HOSTILE)


@pytest.mark.parametrize("moment", ["inf", float("inf"), float("-inf"), float("nan"), 10**400, "nan", -1e300])
def test_a_time_that_no_calendar_has_is_refused(moment):
    with pytest.raises(ValueError, match="time must be"):
        parse_time(moment)


def test_data_frames_keep_ids_in_their_index_and_arrays_in_their_cells(tmp_path):
    pandas = pytest.importorskip("pandas")
    documents = [{"document.id": "d1", "document.score": 0.5}, {"document.id": "d2", "document.score": 0.4}]
    spans = pandas.DataFrame(
        {
            "context.span_id": ["s", "other"],
            "span_kind": ["RETRIEVER", "LLM"],
            "attributes.input.value": ["pay", None],
            "attributes.retrieval.documents": [np.array(documents, dtype=object), None],
        }
    ).set_index("context.span_id")
    notes = pandas.DataFrame(
        {"span_id": ["s"], "document_position": [1.0], "annotator_kind": ["HUMAN"], "result.label": ["relevant"]}
    )
    in_file = tmp_path / "notes.csv"
    notes.to_csv(in_file, index=False)
    for given in (notes, notes.set_index(["span_id", "document_position"]), in_file):
        assert dict(from_spans(spans, given).to_pairs().qrels["q0"]) == {"d2": 1.0}
    samples = pandas.DataFrame({"user_input": ["pay?"], "reference_context_ids": [np.array([1, 2])]})
    assert dict(from_ragas(samples).qrels["q0"]) == {"1": 1.0, "2": 1.0}


def test_files_of_an_otlp_exporter(tmp_path):
    wrapped = {"resourceSpans": [{"scopeSpans": [{"spans": [OTLP, {**OTLP, "spanId": "s3"}]}]}]}
    lines, whole = tmp_path / "spans.jsonl", tmp_path / "spans.json"
    lines.write_text(json.dumps(wrapped) + "\n")
    whole.write_text(json.dumps(wrapped))
    for given in (lines, whole, [wrapped]):
        found = from_spans(given).retrievals
        assert [(one.query_id, one.query, one.shown) for one in found] == [
            ("s2", "pay", (ShownNode("a"),)),
            ("s3", "pay", (ShownNode("a"),)),
        ]


def test_an_export_split_over_folders(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for day in (1, 2):
        folder = tmp_path / "runs" / "year=2026" / f"day={day}"
        folder.mkdir(parents=True)
        row = {"id": f"r{day}", "run_type": "retriever", "inputs": '{"query": "pay"}', "feedback_stats": None}
        parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "part-0.parquet")
    assert [one.query_id for one in from_langsmith(tmp_path / "runs").retrievals] == ["r1", "r2"]
    (tmp_path / "runs" / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"broken.parquet: not Parquet"):
        from_langsmith(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no file that ends with .jsonl"):
        from_langsmith(tmp_path / "empty")


def test_rows_of_a_csv_file_with_too_few_or_too_many_cells(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text('id,run_type,inputs\nr1,retriever\nr2,retriever,{"query": "a, b"}\nr3,retriever,pay\n')
    with pytest.warns(UserWarning, match="2 of 3 rows were skipped"):
        log = from_langsmith(path, errors="skip")
    assert [(row.line, row.reason) for row in log.report.skipped] == [
        (2, "expected 3 columns, got 2"),
        (3, "expected 3 columns, got 4"),
    ]
    assert [one.query for one in log.retrievals] == ["pay"]


def test_bad_events_of_trulens_are_named_by_file_and_line(tmp_path):
    path = tmp_path / "events.jsonl"
    broken = changed(EVENT, ("record_attributes", "ai.observability.retrieval.query_text"), "")
    path.write_text("\n" + json.dumps(EVENT) + "\n" + json.dumps(broken) + "\n")
    with pytest.raises(ValueError, match=r"events.jsonl, line 3: no text of a query"):
        from_trulens(path)
    with pytest.raises(TypeError, match="TruLens records, line 0: record_id"):
        from_trulens([EVENT], [{"thumb": 1}], feedback=["thumb"])


def test_ubi_in_cells_and_in_hits_of_a_search(tmp_path):
    queries, events = tmp_path / "queries.csv", tmp_path / "events.csv"
    queries.write_text('query_id,user_query,query_response_hit_ids\nq,pay,"[""a"", ""b""]"\n')
    events.write_text(
        'action_name,query_id,event_attributes\nthumbs_up,q,"{""object"": {""object_id"": ""b""}, ""position"": {}}"\n'
    )
    hits = [{"_index": "ubi_queries", "_source": {"query_id": "q", "user_query": "pay"}}]
    done = {"action_name": "thumbs_up", "query_id": "q", "event_attributes": {"object": {"object_id": "b"}}}
    log = from_ubi(queries, events)
    assert [node.node_id for node in log.retrievals[0].shown] == ["a", "b"]
    for found in (log, from_ubi(hits, [{"_source": done}])):
        assert dict(found.to_pairs().qrels["q0"]) == {"b": 1.0}


def test_two_texts_of_one_query_id_are_reported():
    rows = [QUERY, {**QUERY, "user_query": "leave"}]
    with pytest.raises(ValueError, match=r"UBI queries, line 1: query_id 'q' has two texts"):
        from_ubi(rows)
    with pytest.warns(UserWarning, match="1 of 2 rows were skipped"):
        assert [one.query for one in from_ubi(rows, errors="skip").retrievals] == ["pay"]


def test_a_data_set_cannot_make_the_reader_open_files(tmp_path):
    secret, hostile = tmp_path / "secret.jsonl", tmp_path / "dataset.json"
    secret.write_text(json.dumps({"query": "secret", "reference_contexts": [TEXTS["a"]]}))
    hostile.write_text(json.dumps({"examples": str(secret)}))
    with pytest.raises(TypeError, match="examples must be a list, got str"):
        from_llama_index(hostile, TEXTS)


def test_votes_that_a_tool_only_counted_stay_when_logs_are_joined():
    vote = Feedback("r", "a", "thumbs_up")
    log = FeedbackLog((Retrieval("r", "pay", (ShownNode("a"),)),), (vote, vote, vote))
    assert dict((log + FeedbackLog()).to_pairs().qrels["q0"]) == {"a": 3.0}
    assert (log + log).feedback == log.feedback
    with pytest.warns(UserWarning, match="1 of 2 rows were skipped"):
        skipped = from_ubi([QUERY, {}], errors="skip")
    assert (log + skipped).report == skipped.report


def test_a_node_id_that_looks_like_a_place_is_a_node():
    log = FeedbackLog((Retrieval("r", "pay", (ShownNode("#1"),)),), (Feedback("r", "#1", "thumbs_up"),))
    assert dict(log.to_pairs().qrels["q0"]) == {"#1": 1.0}
    by_text = FeedbackLog((Retrieval("r", "pay", (ShownNode(None, text="x"),)),), (Feedback("r", "#1", "thumbs_up"),))
    assert by_text.to_pairs().n_queries == 0


def test_one_user_has_one_voice_however_the_query_is_spelt():
    spellings = ["cancel", "Cancel ", "CANCEL?", "cancel"]
    retrievals = tuple(Retrieval(f"r{at}", text, (ShownNode("a"),), user="u") for at, text in enumerate(spellings))
    votes = tuple(Feedback(f"r{at}", "a", "thumbs_up") for at in range(4)) * 250
    assert dict(FeedbackLog(retrievals, votes).to_pairs().qrels["q0"]) == {"a": 1.0}
    nameless = tuple(replace(retrieval, user=None, session="s") for retrieval in retrievals)
    assert dict(FeedbackLog(nameless, votes).to_pairs().qrels["q0"]) == {"a": 1.0}


def test_a_node_that_is_listed_twice_is_seen_and_clicked_once():
    twice, once = ("a", "b", "a", "c"), ("a", "b", "c")

    def impressions(nodes):
        shown = tuple(ShownNode(node) for node in nodes)
        log = FeedbackLog((Retrieval("r", "pay", shown),), (Feedback("r", "a", "click"),))
        found = collect_impressions(log)
        return [(found.pairs[pair][1], bool(click)) for pair, click in zip(found.pair, found.clicked, strict=True)]

    assert impressions(twice) == impressions(once) == [("a", True), ("b", False), ("c", False)]


def test_thumbs_written_as_signs_and_corrections_in_words():
    observation = {"id": "o", "trace_id": "t", "type": "RETRIEVER", "input": "pay", "output": [{"id": "a"}]}
    score = {"observation_id": "o", "name": "thumb", "dataType": "CATEGORICAL", "metadata": {"node_id": "a"}}
    scores = [
        {**score, "stringValue": "\N{THUMBS DOWN SIGN}"},
        {**score, "stringValue": "\N{THUMBS UP SIGN}"},
        {**score, "dataType": "CORRECTION", "value": "the invoice is paid by card"},
    ]
    log = from_langfuse([observation], scores, names=["thumb"])
    assert [event.action for event in log.feedback] == ["thumbs_down", "thumbs_up"]


def test_a_data_set_of_several_parts_is_no_table():
    parts = {"train": [TRIPLET, TRIPLET], "test": [TRIPLET]}
    with pytest.raises(
        ValueError, match="one length, got 'train': 2, 'test': 1; of a data set of several parts pass one"
    ):
        from_hugging_face(parts, TEXTS)


MALFORMED = {
    "empty": b"",
    "NUL": b"\x00\x00",
    "half": b'{"id": "r", ',
    "counts": b"[1, 2, 3]\n",
    "deep": b"[" * 100_000,
    "words": b"hello world\n",
    "null": b"null\n",
    "UTF-16": "{}\n".encode("utf-16"),
    "Latin-1": '{"id": "\u00e9"}\n'.encode("latin-1"),
    "no fields": b"{}\n",
    "a number of 5,000 digits": b'{"id": ' + b"9" * 5000 + b"}\n",
    "not a number": b'{"id": NaN}\n',
    "blank lines": b"\r\n\r\n",
    "a key twice": b'{"id": "a", "id": "b"}\n',
}
TEXTS = {"a": "How to pay the monthly invoice by card"}
OF_FILES = {
    "from_langsmith": lambda file: feedback.from_langsmith(file, file),
    "from_langfuse": lambda file: feedback.from_langfuse(file, file, names=["thumb"]),
    "from_spans": lambda file: feedback.from_spans(file, file),
    "from_trulens": lambda file: feedback.from_trulens(file, file, feedback=["thumb"]),
    "from_ubi": lambda file: feedback.from_ubi(file, file),
    "from_ragas": lambda file: feedback.from_ragas(file, TEXTS),
    "from_hugging_face": lambda file: feedback.from_hugging_face(file, TEXTS),
    "from_llama_index": lambda file: feedback.from_llama_index(file, TEXTS),
    "from_mteb": lambda file: feedback.from_mteb(file, file),
    "from_trec": lambda file: feedback.from_trec(file, file),
    "from_trec_run": lambda file: feedback.from_trec_run(file, file),
    "from_examples": lambda file: feedback.from_examples(file),
    "from_jsonl": lambda file: feedback.LabeledPairs.from_jsonl(file),
    "from_csv": lambda file: feedback.LabeledPairs.from_csv(file),
    "from_finetune_dataset": lambda file: feedback.LabeledPairs.from_finetune_dataset(file),
}


@pytest.mark.parametrize("reader", OF_FILES)
def test_a_malformed_file_is_named_whatever_its_ending(reader, tmp_path):
    read = 0
    for (name, content), ending in itertools.product(MALFORMED.items(), (".jsonl", ".json", ".csv", ".txt")):
        file = tmp_path / f"{name}{ending}"
        file.write_bytes(content)
        try:
            OF_FILES[reader](file)
            read += 1
        except (ValueError, TypeError) as error:
            assert file.name in str(error), error
    assert read < len(MALFORMED) * 4 / 2  # such as the empty ones

"""Every reader of files takes their encoding, and names it if it is another one."""

from __future__ import annotations

import json

import pytest

from nudge_rag import LabeledPairs
from nudge_rag.feedback.readers.judged import from_mteb, from_trec, from_trec_run
from nudge_rag.feedback.readers.langfuse import from_langfuse
from nudge_rag.feedback.readers.langsmith import from_examples, from_langsmith
from nudge_rag.feedback.readers.spans import from_spans, from_trulens
from nudge_rag.feedback.readers.texts import from_hugging_face, from_llama_index, from_ragas
from nudge_rag.feedback.ubi import from_ubi

TEXTS = {"a": "How to pay the monthly invoice by card"}
QUESTION = "Wo zahle ich die Gebühr für März"


def document(node):
    return {"id": node, "metadata": {}, "page_content": "text", "type": "Document"}


def run(run_id, kind, parent=None, trace="t1", **fields):
    return {"id": run_id, "run_type": kind, "parent_run_id": parent, "trace_id": trace, **fields}


def read_in(folder, reader, encoding):
    """Write what a reader takes in an encoding, and read it."""
    folder.mkdir(exist_ok=True)

    def file(name, *rows):
        text = "".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_bytes(text.encode("cp1252"))
        return folder / name

    shown = {"outputs": [document("a")]}
    span = {"openinference.span.kind": "RETRIEVER", "input.value": QUESTION, "retrieval.documents.0.document.id": "a"}
    label = {"queries": {"q": QUESTION}, "relevant_docs": {"q": ["a"]}}
    qrels = {"query-id": "q", "corpus-id": "a", "score": 1}
    options = {"encoding": encoding}
    calls = {
        "from_langsmith": lambda: from_langsmith(
            file("runs.jsonl", run("r", "retriever", inputs={"query": QUESTION}, **shown)), **options
        ),
        "from_langfuse": lambda: from_langfuse(
            file("seen.jsonl", {"id": "r", "type": "RETRIEVER", "input": QUESTION, "output": [document("a")]}),
            names=["thumb"],
            **options,
        ),
        "from_spans": lambda: from_spans(file("spans.jsonl", {"span_id": "s", "attributes": span}), **options),
        "from_trulens": lambda: from_trulens(file("spans.jsonl", {"span_id": "s", "attributes": span}), **options),
        "from_ubi": lambda: from_ubi(file("ubi.jsonl", {"query_id": "r", "user_query": QUESTION}), **options),
        "from_examples": lambda: from_examples(
            file("examples.csv", "inputs,nodes\n", f"{QUESTION},a\n"), query="inputs", nodes="nodes", **options
        ),
        "from_ragas": lambda: from_ragas(
            file("samples.jsonl", {"user_input": QUESTION, "reference_context_ids": ["a"]}), **options
        ),
        "from_hugging_face": lambda: from_hugging_face(
            file("pairs.jsonl", {"anchor": QUESTION, "positive": TEXTS["a"]}), TEXTS, **options
        ),
        "from_llama_index": lambda: from_llama_index(file("set.json", label), **options),
        "from_mteb": lambda: from_mteb(
            file("queries.jsonl", {"_id": "q", "text": QUESTION}), file("qrels.jsonl", qrels), **options
        ),
        "from_trec": lambda: from_trec(
            file("qrels.txt", "q 0 a 1\n"), file("topics.tsv", f"q\t{QUESTION}\n"), **options
        ),
        "from_trec_run": lambda: from_trec_run(
            file("run.txt", "q Q0 a 1 0.5 tag\n"), file("topics.tsv", f"q\t{QUESTION}\n"), **options
        ),
    }
    return calls[reader]()


@pytest.mark.parametrize(
    "reader",
    [
        "from_langsmith",
        "from_langfuse",
        "from_spans",
        "from_trulens",
        "from_ubi",
        "from_examples",
        "from_ragas",
        "from_hugging_face",
        "from_llama_index",
        "from_mteb",
        "from_trec",
        "from_trec_run",
    ],
)
def test_every_reader_takes_an_encoding(tmp_path, reader):
    found = read_in(tmp_path, reader, "cp1252")
    texts = found.queries.values() if isinstance(found, LabeledPairs) else [one.query for one in found.retrievals]
    assert list(texts) == [QUESTION]
    with pytest.raises(ValueError, match=r"pass encoding=, such as 'cp1252'"):
        read_in(tmp_path, reader, None)
    with pytest.raises(ValueError, match="cannot be read as no such encoding"):
        read_in(tmp_path, reader, "no such encoding")

"""Data sets that name answers by text: Ragas, Hugging Face pairs and triplets, LlamaIndex."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nudge_rag.common.text import preview
from nudge_rag.feedback.files import read_text
from nudge_rag.feedback.formats import REJECTED
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.feedback.readers.common import pick
from nudge_rag.feedback.reading import ROW_ERRORS, Errors, RowLog, checked_id, checked_text
from nudge_rag.feedback.records import Records, loaded, numbered_records
from nudge_rag.feedback.resolve import TextResolver
from nudge_rag.feedback.rows import gather_rows

__all__ = ["Texts", "from_hugging_face", "from_llama_index", "from_ragas", "read_texts"]

Texts = Mapping[str, str | None] | TextResolver
"""Node ids to their texts, or a resolver of them."""

QUERY_NAMES = ("anchor", "query", "question", "sentence1", "input")
POSITIVE_NAMES = ("positive", "answer", "sentence2", "document", "passage", "context", "text")
ID_NAMES, TEXT_NAMES = ("_id", "id", "node_id"), ("text", "page_content", "content")
GRADE_NAMES = ("score", "label", "grade", "labels")

# Query, texts or node ids with their grades, whether the latter are ids, whether it is synthetic.
Answers = tuple[Any, Iterable[tuple[Any, float]], bool, bool]


def from_ragas(
    samples: Records, texts: Texts | None = None, *, errors: Errors = "raise", encoding: str | None = None
) -> LabeledPairs:
    """Read samples or a testset of Ragas: ``reference_context_ids``, or ``reference_contexts`` by their texts.

    Samples of a testset (``synthesizer_name``) are synthetic.

    Args:
        samples: rows, or their file; lists in CSV cells are parsed.
        texts: node ids to texts, for samples without ids.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Returns:
        The labels; ``report`` lists texts that fit no node, or several, which are never guessed.

    Raises:
        ValueError: a bad row, with file and line; samples without ids and no ``texts``.

    Example:
        >>> sample = {"user_input": "How do I pay?", "reference_contexts": ["how to  pay"], "synthesizer_name": "s"}
        >>> pairs = from_ragas([sample], {"a": "How to pay", "b": "How to leave"})
        >>> dict(pairs.qrels["q0"]), pairs.synthetic
        ({'a': 1.0}, frozenset({'q0'}))
    """

    def answers(row: Mapping[str, Any]) -> Answers:
        inner = loaded(row.get("eval_sample"))
        sample = inner if isinstance(inner, Mapping) else row
        ids, contexts = (loaded(pick(sample, f"reference_context{end}")) for end in ("_ids", "s"))
        found = _listed(ids) or _listed(contexts)
        if not found:
            raise ValueError("neither reference_context_ids nor reference_contexts")
        synthetic = pick(row, "synthesizer_name") is not None
        return sample.get("user_input"), [(answer, 1.0) for answer in found], bool(_listed(ids)), synthetic

    return _read("Ragas samples", samples, answers, texts, errors, encoding)


def from_hugging_face(
    rows: Records,
    texts: Texts,
    *,
    columns: Mapping[str, str] | None = None,
    errors: Errors = "raise",
    encoding: str | None = None,
) -> LabeledPairs:
    """Read pairs, triplets or scored pairs in the manner of sentence-transformers.

    Columns are known by name (``anchor``, ``query``, ``question``, ``sentence1``; ``positive``, ``answer``,
    ``sentence2``; ``score``, ``label``; ``negative``, ``negative_1``) or else by order: query, positive, then a number
    (its grade) or negatives (rejected, grade -1). A cell may hold a list of documents, and ``labels`` one of grades.

    Args:
        rows: a data set, table, rows, or their file.
        texts: node ids to texts.
        columns: "query", "positive" and optionally "grade" to the names of their columns.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Returns:
        The labels; ``report`` lists texts that fit no node, or several, which are never guessed.

    Raises:
        ValueError: a bad row, with file and line.

    Example:
        >>> rows = [{"anchor": "pay?", "positive": "How to pay", "negative": "How to leave"}]
        >>> dict(from_hugging_face(rows, {"a": "How to pay", "b": "How to leave"}).qrels["q0"])
        {'a': 1.0, 'b': -1.0}
    """

    def answers(row: Mapping[str, Any]) -> Answers:
        named = columns or {}
        query = named.get("query") or next((name for name in QUERY_NAMES if name in row), next(iter(row)))
        others = [name for name in row if name != query]
        if not others:
            raise ValueError(f"expected a query and a document, got the columns {list(row)}")
        positive = named.get("positive") or next((name for name in POSITIVE_NAMES if name in others), others[0])
        rest = [name for name in others if name != positive]
        # By order, a number after the texts is a grade and every further text a negative; by name, what is called so.
        by_order = positive not in POSITIVE_NAMES and not named
        numeric = [name for name in rest if by_order and isinstance(row[name], int | float)]
        grade = named.get("grade") or next((name for name in GRADE_NAMES if name in rest), next(iter(numeric), None))
        documents = _listed(loaded(row.get(positive)))
        given = loaded(row.get(grade)) if grade is not None else 1.0
        grades = list(given) if isinstance(given, list | tuple) else [given] * len(documents)
        if len(grades) != len(documents):
            raise ValueError(f"{len(documents)} documents and {len(grades)} labels")
        found = list(zip(documents, grades, strict=True))
        for name in rest:
            if name != grade and (name.startswith("negative") or by_order):
                found += [(text, REJECTED) for text in _listed(loaded(row[name]))]
        return row[query], found, False, False

    return _read("rows", rows, answers, texts, errors, encoding)


def from_llama_index(
    dataset: Any, texts: Texts | None = None, *, errors: Errors = "raise", encoding: str | None = None
) -> LabeledPairs:
    """Read LlamaIndex's ``EmbeddingQAFinetuneDataset`` or ``LabelledRagDataset``, recognised by its shape.

    Args:
        dataset: the object, its mapping, or its JSON file.
        texts: node ids to texts, for a ``LabelledRagDataset``, which has no ids. Its examples by a model are synthetic.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        TypeError: it is neither.
        ValueError: a bad row, named.
    """
    content = dataset
    if isinstance(dataset, str | Path):
        content = loaded(read_text(Path(dataset), encoding))
    examples = content.get("examples") if isinstance(content, Mapping) else getattr(content, "examples", None)
    if examples is None:
        return LabeledPairs.from_finetune_dataset(dataset, errors=errors, encoding=encoding)
    if isinstance(examples, str | Path | Mapping) or not isinstance(examples, Iterable):
        where = f"{dataset}: " if isinstance(dataset, str | Path) else ""
        raise TypeError(f"{where}examples must be a list, got {type(examples).__name__}")

    def answers(row: Mapping[str, Any]) -> Answers:
        contexts = _listed(row.get("reference_contexts"))
        if not contexts:
            raise ValueError("no reference_contexts")
        by = row.get("query_by")
        kind = by.get("type") if isinstance(by, Mapping) else getattr(by, "type", None)
        return (
            row.get("query", ""),
            [(text, 1.0) for text in contexts],
            False,
            str(getattr(kind, "value", kind)) == "ai",
        )

    return _read(
        str(dataset) if isinstance(dataset, str | Path) else "LabelledRagDataset", examples, answers, texts, errors
    )


def read_texts(records: Records, *, errors: Errors = "raise", encoding: str | None = None) -> dict[str, str]:
    """Read node ids (``_id``, ``id``, ``node_id``) and texts (``text``, ``page_content``, ``content``), as of a corpus.

    Args:
        records: rows, or their JSONL, JSON, CSV or Parquet file.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line; two texts of one id.

    Example:
        >>> read_texts([{"_id": 7, "text": "How to pay"}])
        {'7': 'How to pay'}
    """
    log = RowLog(str(records) if isinstance(records, str | Path) else "texts", errors, "row")
    texts: dict[str, str] = {}
    for source, line, row in numbered_records(records, log, "texts", encoding):
        try:
            node = checked_id(pick(row, *ID_NAMES), "node id")
            text = checked_text(pick(row, *TEXT_NAMES), f"text of node {node!r}")
            if texts.setdefault(node, text) != text:
                raise ValueError(f"node {node!r} has two texts; the first one counts if errors are skipped")
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    log.report()
    return texts


def _read(
    name: str,
    records: Records,
    answers: Callable[[Mapping[str, Any]], Answers],
    texts: Texts | None,
    errors: Errors,
    encoding: str | None = None,
) -> LabeledPairs:
    log = RowLog(str(records) if isinstance(records, str | Path) else name, errors, "row")
    resolver = texts if isinstance(texts, TextResolver) or texts is None else TextResolver(texts)
    rows = list(_resolved(numbered_records(records, log, name, encoding), answers, resolver, log))
    n_rows = log.n_rows
    labels = gather_rows(rows, log)
    log.n_rows = n_rows
    return LabeledPairs(labels.queries, labels.qrels, labels.synthetic, log.report())


def _resolved(
    records: Iterator[tuple[str, int, Mapping[str, Any]]],
    answers: Callable[[Mapping[str, Any]], Answers],
    resolver: TextResolver | None,
    log: RowLog,
) -> Iterator[tuple[int, dict[str, Any]]]:
    for source, line, row in records:
        try:
            query, found, are_ids, synthetic = answers(row)
        except (*ROW_ERRORS, StopIteration) as error:
            log.bad(line, str(error) or "no columns", ValueError, source)
            continue
        for answer, grade in found:
            node = answer
            if not are_ids:
                if resolver is None:
                    raise ValueError(f"{source} names answers by their texts: pass texts=, node ids to their texts")
                nodes = resolver.candidates(str(answer))
                if len(nodes) != 1:
                    what = f"{len(nodes)} nodes have the text: {preview(nodes)}" if nodes else "no node has the text"
                    log.note(line, f"{what} ({str(answer)[:60]!r})", source)
                    continue
                node = nodes[0]
            yield line, {"query": query, "node_id": node, "grade": grade, "synthetic": synthetic}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | int | Mapping):
        return [value]
    return list(value)

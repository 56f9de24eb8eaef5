"""Generated questions, if there are no users yet: asked by a language model, kept if they find their node."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.feedback.reading import Errors, ReadReport, RowLog
from nudge_rag.feedback.rows import normalise

if TYPE_CHECKING:
    from nudge_rag.common.embedding import EmbedQueries
    from nudge_rag.stores.base import EmbeddingStore

__all__ = ["PROMPT", "GeneratedQuestions", "generate_questions"]

Model: TypeAlias = Any
"""A function of a prompt, a LlamaIndex LLM (``complete``), or a LangChain model (``invoke``)."""

PROMPT = (
    "Below is a passage. Write {k} different questions that a user who has not read it might ask and that it answers. "
    "Use the user's own words rather than the passage's. Write one question a line and nothing else.\n\n{text}\n"
)
LIST_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):]|Q\d*[:.)])\s*", re.IGNORECASE)
WORD = re.compile(r"\w+")
ALIKE = 0.8
FEWEST_WORDS = 2


@dataclass(frozen=True)
class GeneratedQuestions:
    """Questions that a language model asked, and what became of them.

    Attributes:
        pairs: the questions kept, all of them synthetic: `LabeledPairs.split` trains on them and never judges by them.
        n_generated: questions that the model wrote.
        not_retrieved: questions that another node's text answers better; left out.
        duplicates: questions that are nearly another one; left out.
        report: nodes that were skipped because the model failed.
    """

    pairs: LabeledPairs
    n_generated: int
    not_retrieved: int
    duplicates: int
    report: ReadReport

    def __str__(self) -> str:
        return (
            f"{len(self.pairs)} of {self.n_generated} generated questions kept; {self.not_retrieved} find another node "
            f"first, {self.duplicates} are nearly the same as another one; {len(self.report.skipped)} nodes skipped"
        )


def generate_questions(
    texts: Mapping[str, str | None],
    model: Model,
    store: EmbeddingStore,
    embed_queries: EmbedQueries,
    *,
    k: int = 2,
    within: int = 1,
    prompt: str = PROMPT,
    errors: Errors = "raise",
) -> GeneratedQuestions:
    r"""Let a language model ask ``k`` questions about each node, and keep those that find it.

    A question is kept if the node is among the first ``within`` that the store finds for it: a question that another
    node's text answers better would teach what is wrong. Of questions that share 80 % of their words the first is kept.

    Args:
        texts: node id to its text; nodes without one are left out.
        model: a function of a prompt, a LlamaIndex LLM or a LangChain model.
        store: the vector store, with the vectors of the texts.
        embed_queries: texts to (m, d) query embeddings.
        k: questions a node.
        within: ranks among which the node has to be.
        prompt: with ``{k}`` and ``{text}``.
        errors: what a model that fails does: ``"raise"``, or ``"skip"`` the node.

    Raises:
        TypeError: a model of another kind.
        ValueError: ``k`` or ``within`` below 1; no question was kept; the model failed, with the node.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"exit": [1.0, 0.0], "enter": [0.0, 1.0]})
        >>> words = {"Where is the way out?": [0.9, 0.1], "How do I get in?": [0.8, 0.2]}
        >>> def model(prompt):
        ...     return "1. Where is the way out?\n2. How do I get in?"
        >>> texts = {"exit": "Leave by the left door."}
        >>> made = generate_questions(texts, model, store, lambda asked: [words[text] for text in asked])
        >>> print(made)
        2 of 2 generated questions kept; 0 find another node first, 0 are nearly the same as another one; 0 nodes
        skipped
        >>> sorted(made.pairs.synthetic)
        ['q0', 'q1']
    """
    if k < 1 or within < 1:
        raise ValueError(f"k and within must be at least 1, got {k} and {within}")
    ask = _asker(model)
    log = RowLog("questions", errors, "node")
    asked: list[tuple[str, str]] = []
    for node, text in texts.items():
        if text is None or not text.strip():
            continue
        log.n_rows += 1
        try:
            answer = ask(prompt.replace("{k}", str(k)).replace("{text}", text))
            asked += [(question, node) for question in parse_questions(answer)[:k]]
        except Exception as error:
            log.bad(None, f"node {node!r}: the model failed ({type(error).__name__}: {error})")
    different = _without_duplicates(asked)
    if different:
        queries = np.asarray(embed_queries([question for question, _ in different]))
        found = store.search(queries, within).ids
    else:
        found = []
    kept = [pair for pair, nodes in zip(different, found, strict=True) if pair[1] in nodes]
    if not kept:
        raise ValueError(f"no question was kept of {len(asked)} that the model wrote for {log.n_rows} nodes")
    pairs = LabeledPairs.from_pairs(kept)
    return GeneratedQuestions(
        LabeledPairs(pairs.queries, pairs.qrels, frozenset(pairs.queries)),
        len(asked),
        len(different) - len(kept),
        len(asked) - len(different),
        log.report(),
    )


def parse_questions(answer: str) -> list[str]:
    r"""Return the questions of a model's answer: its lines without numbers and bullets.

    Example:
        >>> parse_questions("Here you are:\n1. How do I pay?\n- Where is my invoice?\n\n")
        ['How do I pay?', 'Where is my invoice?']
    """
    lines = [LIST_MARK.sub("", line).strip().strip('"') for line in answer.splitlines()]
    return [line for line in lines if len(WORD.findall(line)) >= FEWEST_WORDS and not line.endswith(":")]


def _asker(model: Model) -> Callable[[str], str]:
    """Return a function from prompt to text, whichever framework's interface the model has."""
    if callable(getattr(model, "complete", None)):
        return lambda prompt: str(model.complete(prompt).text)
    if callable(getattr(model, "invoke", None)):
        return lambda prompt: _content(model.invoke(prompt))
    if callable(model):
        return lambda prompt: str(model(prompt))
    raise TypeError(f"model must be a function, a LlamaIndex LLM or a LangChain model, got {type(model).__name__}")


def _content(answer: Any) -> str:
    """The text of a LangChain message, whose content may be a list of blocks."""
    content = getattr(answer, "content", answer)
    if isinstance(content, list):
        return "".join(block if isinstance(block, str) else str(block.get("text", "")) for block in content)
    return str(content)


def _without_duplicates(asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keep the first of questions that share most of their words."""
    kept: list[tuple[str, str]] = []
    words_of: list[frozenset[str]] = []
    rows_with: dict[str, list[int]] = {}
    for question, node in asked:
        words = frozenset(WORD.findall(normalise(question)))
        # Questions that share that many words share one of any few of them: the rarest are looked up.
        rare = sorted(words, key=lambda word: len(rows_with.get(word, ())))[
            : max(1, round(len(words) * (1 - ALIKE)) + 1)
        ]
        candidates = {row for word in rare for row in rows_with.get(word, ())}
        if any(len(words & words_of[row]) >= ALIKE * len(words | words_of[row]) for row in candidates):
            continue
        for word in words:
            rows_with.setdefault(word, []).append(len(kept))
        kept.append((question, node))
        words_of.append(words)
    return kept

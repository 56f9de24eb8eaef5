"""What was shown to users and what they made of it, whatever tool recorded it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.feedback.reading import ReadReport, RowLog
from nudge_rag.feedback.rows import gather_rows, normalise

__all__ = ["EXPLICIT_ACTIONS", "Credit", "Feedback", "FeedbackLog", "Retrieval", "ShownNode"]

Credit = Literal["cited", "all", "top1", "none"]
EXPLICIT_ACTIONS: Mapping[str, float] = {"thumbs_up": 1.0, "thumbs_down": -1.0, "cite": 1.0}
# A node that was recorded without an id, by its place.
PLACE = re.compile(r"#\d+")


@dataclass(frozen=True, slots=True)
class ShownNode:
    """One place of a ranking that a user, or a model, was shown.

    Attributes:
        node_id: the node; None if the tool recorded its text alone.
        score: as the retriever gave it, None if unknown.
        text: text of a node without an id.
        team: of an interleaved ranking, the ranking that the node was taken from.
    """

    node_id: str | None
    score: float | None = None
    text: str | None = None
    team: str | None = None


@dataclass(frozen=True, slots=True)
class Retrieval:
    """One query and the nodes shown for it, best first.

    Attributes:
        query_id: unique to this retrieval; the same question asked twice has two.
        query: its text; None if it was redacted.
        shown: the nodes in the order shown; the first one has rank 1.
        time: seconds since 1970 (UTC), None if unknown.
        version: the nudge that was live, or the name of another ranker.
        user: who asked.
        session: the conversation.
    """

    query_id: str
    query: str | None
    shown: tuple[ShownNode, ...] = ()
    time: float | None = None
    version: str | None = None
    user: str | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thing that a user did.

    Attributes:
        query_id: the retrieval that it is about.
        node_id: the node that it is about; None if it is about the whole answer.
        action: such as "click", "cite", "thumbs_up", "thumbs_down", "copy".
        value: a number that came with it, None without one.
        time: seconds since 1970 (UTC), None if unknown.
        user: who did it.
    """

    query_id: str
    node_id: str | None
    action: str
    value: float | None = None
    time: float | None = None
    user: str | None = None


@dataclass(frozen=True)
class FeedbackLog:
    """Retrievals and the feedback on them.

    Attributes:
        retrievals: in order of time as far as it is known.
        feedback: likewise.
        report: what the reader skipped.

    Example:
        >>> shown = Retrieval("r1", "reset my password", (ShownNode("doc-7"), ShownNode("doc-9")), user="ann")
        >>> log = FeedbackLog((shown,), (Feedback("r1", "doc-9", "thumbs_up"), Feedback("r1", "doc-7", "thumbs_down")))
        >>> dict(log.to_pairs().qrels["q0"])
        {'doc-9': 1.0, 'doc-7': -1.0}
    """

    retrievals: tuple[Retrieval, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    report: ReadReport = field(default=ReadReport(), repr=False, compare=False)

    def __add__(self, other: FeedbackLog) -> FeedbackLog:
        """Both logs, one behind the other; a retrieval or an event that both hold counts once."""
        if not isinstance(other, FeedbackLog):
            return NotImplemented
        retrievals = {retrieval.query_id: retrieval for retrieval in (*self.retrievals, *other.retrievals)}
        # Votes that a tool only counted are equal: each log has as many of them as were given.
        feedback = (Counter(self.feedback) | Counter(other.feedback)).elements()
        return FeedbackLog(tuple(retrievals.values()), tuple(feedback), self.report + other.report)

    def map_nodes(self, node_of: Callable[[ShownNode], str | None]) -> FeedbackLog:
        """Give the nodes shown other ids, such as those that their texts were resolved to.

        Feedback follows: what was about the node's old id, or about its place ``"#<rank>"``, is about the new one.
        """
        retrievals = []
        renamed: dict[tuple[str, str], str | None] = {}
        for retrieval in self.retrievals:
            nodes = [node_of(node) for node in retrieval.shown]
            for rank, (node, node_id) in enumerate(zip(retrieval.shown, nodes, strict=True), start=1):
                renamed[retrieval.query_id, node.node_id or f"#{rank}"] = node_id
            shown = tuple(replace(node, node_id=new) for node, new in zip(retrieval.shown, nodes, strict=True))
            retrievals.append(replace(retrieval, shown=shown))
        feedback = []
        for event in self.feedback:
            key = (event.query_id, event.node_id or "")
            if key not in renamed:
                feedback.append(event)
            elif renamed[key] is not None:
                feedback.append(replace(event, node_id=renamed[key]))
        return FeedbackLog(tuple(retrievals), tuple(feedback), self.report)

    def to_pairs(self, actions: Mapping[str, float] = EXPLICIT_ACTIONS, *, credit: Credit = "cited") -> LabeledPairs:
        """Count what users said of nodes: the grade of a pair is the sum over its feedback.

        A user counts once for each query, node and action, however the query is spelt (case, spacing, closing
        punctuation). The session stands for a user who is not known; without either every event counts. Clicks are left
        out, because a node is clicked for its rank as well: `nudge_rag.feedback.click_grades` corrects for that.

        Args:
            actions: what one event of each action adds.
            credit: the nodes that feedback on a whole answer is about. ``"cited"``: a positive one is about those that
                the answer cited, a negative one about none. ``"all"`` or ``"top1"`` of the nodes shown; ``"none"``.

        Returns:
            The labels; retrievals whose text was redacted away and nodes without an id give none.
        """
        by_id = {retrieval.query_id: retrieval for retrieval in self.retrievals}
        cited: dict[str, list[str]] = {}
        for event in self.feedback:
            if event.action == "cite" and event.node_id is not None:
                cited.setdefault(event.query_id, []).append(event.node_id)
        voices: set[tuple[str, str, str, str]] = set()
        rows = []
        for event in self.feedback:
            retrieval = by_id.get(event.query_id)
            if retrieval is None or retrieval.query is None or event.action not in actions:
                continue
            grade, query = actions[event.action], normalise(retrieval.query)
            shown = {node.node_id for node in retrieval.shown}
            for node_id in _credited(event, retrieval, grade, credit, cited.get(event.query_id, [])):
                user = event.user or retrieval.user or retrieval.session
                voice = (query, node_id, event.action, user or "")
                is_place = node_id not in shown and PLACE.fullmatch(node_id) is not None
                if is_place or (user is not None and voice in voices):
                    continue
                voices.add(voice)
                rows.append((None, {"query": retrieval.query, "node_id": node_id, "grade": grade}))
        labels = gather_rows(rows, RowLog("feedback"))
        return LabeledPairs(labels.queries, labels.qrels, report=self.report)


def _credited(
    event: Feedback, retrieval: Retrieval, grade: float, credit: Credit, cited: Iterable[str]
) -> Iterable[str]:
    """The nodes that an event is about."""
    if event.node_id is not None:
        return [event.node_id]
    if credit == "cited":
        return dict.fromkeys(cited) if grade > 0 else []
    shown = [node.node_id for node in retrieval.shown if node.node_id is not None]
    return shown if credit == "all" else shown[:1] if credit == "top1" else []

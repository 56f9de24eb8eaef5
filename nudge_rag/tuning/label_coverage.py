"""How far labels reach: labels a node, the share of questions without any, and what more labels would be worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import MissingPackageError
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.stores.access import reading, require_store
from nudge_rag.tuning.spelling import spell_pairs

if TYPE_CHECKING:
    from nudge_rag.common.embedding import EmbedQueries
    from nudge_rag.stores.base import EmbeddingStore

__all__ = ["LabelCoverage", "LearningPoint", "coverage"]

SolverName: TypeAlias = Literal["auto", "nudge-n", "nudge-m", "nudge-contrastive"]

FRACTIONS = (0.125, 0.25, 0.5, 1.0)
FEWEST_QUERIES = 8


@dataclass(frozen=True)
class LearningPoint:
    """What tuning on some of the training queries gains on the held-out ones.

    Attributes:
        n_queries: training queries.
        before: the metric with the vectors as they are.
        after: the metric with the nudge.
    """

    n_queries: int
    before: float
    after: float


@dataclass(frozen=True)
class LabelCoverage:
    """How far labels reach.

    Attributes:
        n_nodes: nodes in the store.
        n_labelled: nodes with a label (a grade above 0).
        n_labels: labels.
        nodes_with: number of labels to the number of nodes that have so many.
        unknown: labelled node ids that the store does not hold.
        uncovered: estimated share of tomorrow's questions whose answer has no label: labels that are their node's only
            one, by all labels (Good and Turing).
        metric: what the curve measures.
        curve: the learning curve by subsampling; empty without ``embed_queries``.
        limit: the metric that the curve approaches, None without a curve.
        worthwhile: about how many more labelled queries are worth collecting: until twice as many gain less than
            ``worth``; None without a curve.
        worth: the gain below which a doubling is not worth it.
        no_curve: why there is no curve although ``embed_queries`` was given, such as too few queries; else None.
    """

    n_nodes: int
    n_labelled: int
    n_labels: int
    nodes_with: Mapping[int, int]
    unknown: tuple[str, ...]
    uncovered: float
    metric: str
    curve: tuple[LearningPoint, ...] = ()
    limit: float | None = None
    worthwhile: int | None = None
    worth: float = 0.005
    no_curve: str | None = None

    def expected(self, n_queries: int) -> float:
        """Return the metric to expect of so many training queries: limit - slope / sqrt(n), fitted to the curve.

        Raises:
            ValueError: there is no curve.
        """
        if self.limit is None:
            raise ValueError(f"there is no learning curve: {self.no_curve or 'pass embed_queries to coverage()'}")
        limit, slope = _fit_curve(self.curve)
        return limit - slope / math.sqrt(n_queries)

    def plot(self, axes: Any = None) -> Any:
        """Draw the learning curve and what it promises for four times as many labels; return the axes.

        Raises:
            ValueError: there is no curve.
            ImportError: Matplotlib is not installed.
        """
        last = self.curve[-1].n_queries if self.curve else 1
        grid = np.geomspace(self.curve[0].n_queries if self.curve else 1, 4 * last, 50)
        promised = [self.expected(int(n)) for n in grid]
        if axes is None:
            try:
                from matplotlib.figure import Figure
            except ImportError as error:
                raise MissingPackageError("LabelCoverage.plot", "nudge-rag[plot]") from error
            axes = Figure(figsize=(6, 4)).subplots()
        axes.plot([point.n_queries for point in self.curve], [point.after for point in self.curve], "o", label="tuned")
        axes.plot(grid, promised, "--", label="expected")
        axes.axhline(self.curve[-1].before, color="grey", label="untuned")
        axes.set(xscale="log", xlabel="labelled training queries", ylabel=self.metric)
        axes.legend()
        return axes

    def __str__(self) -> str:
        shown = ", ".join(f"{labels}: {nodes}" for labels, nodes in sorted(self.nodes_with.items())[:5])
        lines = [
            f"{self.n_labelled} of {self.n_nodes} nodes have a label, {self.n_labels} labels in all "
            f"(labels a node: nodes; {shown}{', ...' if len(self.nodes_with) > 5 else ''})",
            f"about {100 * self.uncovered:.0f} % of the questions to come have an answer without a label",
        ]
        if self.unknown:
            lines.append(f"{len(self.unknown)} labelled nodes are not in the store, such as {self.unknown[0]!r}")
        if self.curve:
            points = ", ".join(f"{point.n_queries}: {point.after:.3f}" for point in self.curve)
            lines.append(f"{self.metric} by training queries: untuned {self.curve[-1].before:.3f}; {points}")
        if self.no_curve is not None:
            lines.append(f"no learning curve: {self.no_curve}")
        if self.worthwhile is not None:
            lines.append(
                f"collect about {self.worthwhile} more: beyond, twice as many gain less than {self.worth:g}"
                if self.worthwhile
                else f"more labels of this kind gain little: twice as many less than {self.worth:g}"
            )
        return "\n".join(lines)


def coverage(
    pairs: LabeledPairs | Split,
    store: EmbeddingStore,
    embed_queries: EmbedQueries | None = None,
    *,
    metric: str = "nDCG@10",
    worth: float = 0.005,
    solver: SolverName = "nudge-n",
    seed: int = 0,
) -> LabelCoverage:
    """Tell how far labels reach and, with ``embed_queries``, what more of them would be worth.

    The learning curve tunes on an eighth, a quarter, half and all of the training queries, in memory, and measures on
    the same held-out ones; limit - slope / sqrt(n) is fitted to it by least squares. Twice n gain
    slope (1 - sqrt(1/2)) / sqrt(n).

    Args:
        pairs: the labels; divided 0.7/0.1/0.2 if they are no `Split`.
        store: the vector store.
        embed_queries: texts to (m, d) query embeddings; without it there is no curve.
        metric: of the curve.
        worth: the gain below which a doubling is not worth it.
        solver: of the curve; "nudge-n" is quick.
        seed: of the split and of the samples.

    Returns:
        What was found; without 8 training queries, or queries to validate and to measure on, there is no curve, and
        ``no_curve`` says so.

    Raises:
        TypeError: no store, or no pairs.
        ValueError: a metric or solver that does not exist, a solver that the store's similarity cannot score, a
            ``worth`` that is not above 0; and as `nudge_rag.tune`.
        nudge_rag.StoreError: the store failed while it was read.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"exit": [1.0, 0.0], "enter": [0.0, 1.0]})
        >>> pairs = LabeledPairs.from_pairs([("how do I leave", "exit"), ("leave", "exit"), ("go in", "enter")])
        >>> print(coverage(pairs, store))
        2 of 2 nodes have a label, 3 labels in all (labels a node: nodes; 1: 1, 2: 1)
        about 33 % of the questions to come have an answer without a label
    """
    _check_arguments(pairs, store, metric, worth, solver)
    pairs = spell_pairs(pairs, store)
    parts = [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)
    labels = Counter(
        node for part in parts for grades in part.qrels.values() for node, grade in grades.items() if grade > 0
    )
    with reading(store, "nodes with labels were looked for"):
        present, n_nodes = store.matching(list(labels), None), store.count()
    nodes_with = Counter(labels.values())
    total = sum(labels.values())
    curve: tuple[LearningPoint, ...] = ()
    limit: float | None = None
    worthwhile: int | None = None
    no_curve: str | None = None
    if embed_queries is not None:
        split = pairs.split(seed=seed) if isinstance(pairs, LabeledPairs) else pairs
        no_curve = _missing_for_curve(split, present)
        if no_curve is None:
            curve = _learning_curve(split, store, embed_queries, present, metric, solver, seed)
    if curve:
        limit, slope = _fit_curve(curve)
        # slope (1 - sqrt(1/2)) / sqrt(n) = worth
        enough = (max(slope, 0.0) * (1 - math.sqrt(0.5)) / worth) ** 2
        worthwhile = max(0, math.ceil(enough) - curve[-1].n_queries)
    return LabelCoverage(
        n_nodes=n_nodes,
        n_labelled=len(present),
        n_labels=total,
        nodes_with=dict(nodes_with),
        unknown=tuple(node for node in labels if node not in present),
        uncovered=nodes_with[1] / total if total else 1.0,
        metric=metric,
        curve=curve,
        limit=limit,
        worthwhile=worthwhile,
        worth=worth,
        no_curve=no_curve,
    )


def _check_arguments(
    pairs: LabeledPairs | Split, store: EmbeddingStore, metric: str, worth: float, solver: SolverName
) -> None:
    """Refuse what would be noticed by a learning curve alone, or by none."""
    from nudge_rag.evaluation.metrics import parse_metric
    from nudge_rag.solvers.registry import resolve_solver

    require_store(store)
    if not isinstance(pairs, LabeledPairs | Split):
        raise TypeError(f"pairs must be LabeledPairs or a Split of them, got {type(pairs).__name__}")
    resolve_solver(solver, store.name, store.capabilities.similarity, parse_metric(metric))
    if not worth > 0:
        raise ValueError(f"worth must be above 0, got {worth!r}")


def _missing_for_curve(split: Split, known: Collection[str]) -> str | None:
    """Say what a learning curve lacks: queries with an answer in the store, to learn from, validate and measure on."""
    for part, fewest, purpose in zip(
        split, (FEWEST_QUERIES, 1, 1), ("training queries", "validation query", "test query"), strict=True
    ):
        answered = len(_answered(part, known))
        if answered < fewest:
            return f"it needs at least {fewest} {purpose} with an answer in the store, there are {answered}"
    return None


def _answered(part: LabeledPairs, known: Collection[str]) -> list[str]:
    return [
        query
        for query, grades in part.qrels.items()
        if any(grade > 0 and node in known for node, grade in grades.items())
    ]


def _learning_curve(
    split: Split,
    store: EmbeddingStore,
    embed_queries: EmbedQueries,
    known: Collection[str],
    metric: str,
    solver: SolverName,
    seed: int,
) -> tuple[LearningPoint, ...]:
    from nudge_rag.tuning.tune import tune

    queries = _answered(split.train, known)
    embed = _Remembered(embed_queries)
    order = np.random.default_rng(seed).permutation(len(queries))
    points = []
    for fraction in FRACTIONS:
        # Smaller samples are parts of the larger ones, so that the curve does not jump with the draw.
        chosen = [queries[row] for row in order[: round(fraction * len(queries))]]
        part = Split(split.train.subset(chosen), split.val, split.test)
        nudge = tune(store, part, embed, solver=solver, metrics=(metric,), seed=seed)
        if nudge.comparison is None:
            raise ValueError("there are no held-out pairs to measure a learning curve on")
        row = nudge.comparison.row(metric)
        points.append(LearningPoint(len(chosen), row.before or 0.0, row.after or 0.0))
    return tuple(points)


class _Remembered:
    """Embeds each text once."""

    def __init__(self, embed: EmbedQueries) -> None:
        self._embed = embed
        self._vectors: dict[str, FloatArray] = {}

    def __call__(self, texts: list[str]) -> FloatArray:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors |= dict(zip(new, np.asarray(self._embed(new)), strict=True))
        return np.stack([self._vectors[text] for text in texts])


def _fit_curve(curve: Sequence[LearningPoint]) -> tuple[float, float]:
    """Limit and slope of limit - slope / sqrt(n), by least squares."""
    roots = np.array([[1.0, -1 / math.sqrt(point.n_queries)] for point in curve])
    limit, slope = np.linalg.lstsq(roots, np.array([point.after for point in curve]), rcond=None)[0]
    return float(limit), float(slope)

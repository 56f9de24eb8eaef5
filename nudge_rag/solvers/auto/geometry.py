"""Where queries are searched from and nodes are found: as they are, or with all queries or all nodes mapped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.solvers.auto.held_out_nodes import HeldOutNodes
from nudge_rag.solvers.auto.lowered import query_vectors_of
from nudge_rag.solvers.contrastive.offset import common_direction
from nudge_rag.solvers.labels import LabelsLike, prepare_labels
from nudge_rag.solvers.linear_map.adapter import MappedBlocks, QueryAdapter, map_labels, without_scores
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["Chooser", "Geometry", "map_space"]


class Chooser(Protocol):
    """What the trials ask of the solver that chooses."""

    metric: Metric
    similarity: Similarity
    tolerance: float | None
    uncovered_share: float | None


@dataclass(frozen=True)
class Geometry:
    """The labels, the nodes, and the folds that tell what happens to nodes without labels.

    Attributes:
        chooser: metric and similarity.
        train: labels to learn from.
        val: labels to measure on.
        held: the same labels in folds of nodes.
        nodes: (n, d) node embeddings.
        rows: increasing rows of the nodes that may move.
        background: more nodes that only compete.
        prefix: what names of settings begin with: empty, or which map queries or nodes have passed.
    """

    chooser: Chooser
    train: LabelsLike
    val: LabelsLike
    held: HeldOutNodes
    nodes: FloatArray
    rows: IntArray
    background: Any
    prefix: str = ""

    @cached_property
    def scorer(self) -> ValidationScorer:
        """Ranks the nodes for the validation queries."""
        n_nodes, dimension = self.nodes.shape
        judged = prepare_labels(self.val, "validation", n_nodes=n_nodes, dimension=dimension, dtype=self.nodes.dtype)
        metric, similarity = self.chooser.metric, self.chooser.similarity
        return ValidationScorer(judged, self.nodes, self.rows, self.background, metric, similarity)

    @cached_property
    def directions(self) -> tuple[Float64Array, list[Float64Array]]:
        """What lowers the scores of moved nodes: the common direction of the training queries, and of each fold's."""
        of_folds = [common_direction(vectors) for vectors in self.held.training_vectors]
        return common_direction(query_vectors_of(self.train)), of_folds

    @property
    def before(self) -> Float64Array:
        """(m,) the metric of each validation query if no node moves."""
        return self.scorer.per_query(self.nodes[self.rows])

    def with_mapped_queries(self, adapter: QueryAdapter) -> Geometry:
        """The same nodes, searched from mapped queries; those of the folds stay as they are."""
        return replace(self, train=map_labels(self.train, adapter), val=map_labels(self.val, adapter), prefix="map")

    def with_mapped_nodes(self, adapter: QueryAdapter) -> Geometry:
        """The same queries among mapped nodes; those of the folds stay as they are."""
        nodes, background = map_space(self.nodes, self.background, adapter)
        return replace(
            self,
            train=without_scores(self.train),
            val=without_scores(self.val),
            nodes=nodes,
            background=background,
            prefix="node map",
        )

    def map_with(self, adapter: QueryAdapter, *, of_nodes: bool) -> Geometry:
        """All queries mapped, or all nodes; those of the folds stay as they are."""
        return self.with_mapped_nodes(adapter) if of_nodes else self.with_mapped_queries(adapter)

    def with_held(self, held: HeldOutNodes) -> Geometry:
        """The same with other folds, such as mapped ones."""
        return replace(self, held=held)


def map_space(nodes: FloatArray, background: Any, adapter: QueryAdapter) -> tuple[FloatArray, Any]:
    """All nodes mapped, and those that only compete, a block at a time."""
    return adapter.apply_to_nodes(nodes), None if background is None else MappedBlocks(background, adapter)

"""What a solver declares about the labels that it wants."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SolverNeeds"]


@dataclass(frozen=True)
class SolverNeeds:
    """What `tune` has to prepare for a solver.

    Attributes:
        depth: how many of the best unlabelled nodes of each validation query the solver looks at.
        train_depth: how many of the best unlabelled nodes of each training query it looks at; 0 for none.
        learns_from_validation: whether it moves the nodes of validation labels too.
        training_queries: whether it needs the training queries themselves, not only their sums (`QuerySums`).
        competitor_vectors: whether it needs the vectors of the unlabelled nodes that compete, not only their scores.
        competitor_sample: how many of the nodes that compete most it is to be given the vectors of besides, as
            ``competitor_vectors`` of its ``fit``.

    Example:
        >>> SolverNeeds(depth=10).train_depth
        0
    """

    depth: int = 1
    train_depth: int = 0
    learns_from_validation: bool = False
    training_queries: bool = False
    competitor_vectors: bool = False
    competitor_sample: int = 0

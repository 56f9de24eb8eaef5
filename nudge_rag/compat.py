"""nudge-ft's classes and calling convention on our solvers.

Change ``from nudge import NUDGEN`` to ``from nudge_rag.compat import NUDGEN``.

With unit-length inputs the result is nudge-ft 0.1.2's if that is right: same grid of gammas, same top-k validation
accuracy, same rule for ties. If nudge-ft goes wrong, these classes differ:

- a training query equal to its node moves nothing, instead of giving NaN;
- a validation query without answers is left out with a warning, instead of turning gamma to 0 for the whole corpus;
- negative and out-of-range answer indices, zero, NaN and infinite vectors raise a ValueError, with the row;
- an answer listed twice counts once, and a query counts once however long its embedding is;
- empty training or validation sets raise a ValueError (a fixed ``gamma`` needs no validation set);
- ``nontrain_embeddings`` may hold fewer rows than ``val_k``, or any number that leaves a small last batch;
- the best gamma at the end of the grid is warned about (only `nudge_rag.solvers.NudgeN` extends it);
- gammas of equal accuracy are equal: in nudge-ft rounding in a float32 mean decides between them when val_k > 1;
- nodes moved by the same queries are recognised as such in NUDGE-M, rather than by a slope of rounding noise;
- numpy only: no torch, no dense |validation| x |corpus| matrix, nothing printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import FloatArray, as_matrix, normalize_rows
from nudge_rag.common.caller import warn_caller
from nudge_rag.solvers import LabeledQueries, NudgeM, NudgeN

__all__ = ["NUDGEM", "NUDGEN", "QueriesAnswersDict"]


class QueriesAnswersDict(TypedDict):
    """Query embeddings ``q_embs`` (m, d) and, for each, the rows of its answers ``q_ans_indx``."""

    q_embs: ArrayLike
    q_ans_indx: Sequence[Sequence[int]]


class NUDGEN:
    """NUDGE-N with nudge-ft's interface. ``device`` is accepted and ignored: the work is done by numpy.

    Example:
        >>> import numpy as np
        >>> train = {"q_embs": np.array([[0.65, 0.76]]), "q_ans_indx": [[0]]}
        >>> NUDGEN().finetune_embeddings(np.eye(2), train, train).round(2)
        array([[0.98, 0.2 ],
               [0.  , 1.  ]])
    """

    def __init__(self, device: object = None) -> None:
        _ignore_device(device)

    def finetune_embeddings(
        self,
        embeddings: ArrayLike,
        train_set: QueriesAnswersDict,
        val_set: QueriesAnswersDict,
        nontrain_embeddings: ArrayLike | None = None,
        val_batch_size: int = 256,
        val_k: int = 1,
        gamma: float | Sequence[float] | None = None,
    ) -> FloatArray:
        """Fine-tune embeddings; they come back at unit length, (n, d), in the dtype of ``embeddings``.

        Args:
            embeddings: (n, d) node embeddings; normalised first.
            train_set: training queries and their answers.
            val_set: validation queries and their answers.
            nontrain_embeddings: more nodes that only compete in validation.
            val_batch_size: accepted for compatibility; blocks are sized by memory here.
            val_k: validation accuracy is hits in the top ``val_k`` / min(val_k, answers).
            gamma: a fixed step, or several to choose from (0 is always among them); default the grid 0, 0.02 ... 0.48.

        Raises:
            TypeError: as `nudge_rag.solvers.NudgeN.fit`.
            ValueError: as `nudge_rag.solvers.NudgeN.fit`.
        """
        _check_batch_size(val_batch_size)
        steps: dict[str, Any] = {"gamma": gamma} if gamma is None or np.ndim(gamma) == 0 else {"gammas": gamma}
        solver = NudgeN(metric=f"CappedRecall@{val_k}", extend=False, **steps)
        return _finetune(solver, embeddings, train_set, val_set, nontrain_embeddings)


class NUDGEM:
    """NUDGE-M with nudge-ft's interface; the result is not unit length and is scored by dot product."""

    def __init__(self, device: object = None) -> None:
        _ignore_device(device)

    def finetune_embeddings(
        self,
        embeddings: ArrayLike,
        train_set: QueriesAnswersDict,
        val_set: QueriesAnswersDict,
        nontrain_embeddings: ArrayLike | None = None,
        val_batch_size: int = 256,
        gamma: float | None = None,
        *,
        val_k: int = 1,
    ) -> FloatArray:
        """Fine-tune embeddings, (n, d); arguments are those of `NUDGEN.finetune_embeddings`.

        ``gamma`` stands before ``val_k``, as nudge-ft's NUDGE-M has no ``val_k``: its intervals are those of the first
        place, so 1 is the only value.
        """
        _check_batch_size(val_batch_size)
        if val_k != 1:
            raise ValueError(f"NUDGE-M chooses gamma by the first place alone: val_k must be 1, got {val_k!r}")
        return _finetune(NudgeM(gamma=gamma, point="edge"), embeddings, train_set, val_set, nontrain_embeddings)


def _finetune(
    solver: NudgeN | NudgeM,
    embeddings: ArrayLike,
    train_set: QueriesAnswersDict,
    val_set: QueriesAnswersDict,
    nontrain_embeddings: ArrayLike | None,
) -> FloatArray:
    nodes = normalize_rows(as_matrix(embeddings, "embeddings"), "embeddings")
    others = None
    if nontrain_embeddings is not None and len(np.asarray(nontrain_embeddings)):
        others = normalize_rows(as_matrix(nontrain_embeddings, "nontrain_embeddings"), "nontrain_embeddings")
    sets = [_labels(given, name) for given, name in ((train_set, "train_set"), (val_set, "val_set"))]
    fit = solver.fit(nodes, *sets, background=others)
    # They are nobody else's: no copy.
    nodes[fit.rows] = fit.vectors
    return nodes


def _labels(given: QueriesAnswersDict, name: str) -> LabeledQueries:
    missing = {"q_embs", "q_ans_indx"} - set(given)
    if missing:
        raise ValueError(f"{name} must have the keys 'q_embs' and 'q_ans_indx', it has {sorted(given)}")
    return LabeledQueries(given["q_embs"], given["q_ans_indx"])


def _check_batch_size(val_batch_size: int) -> None:
    if val_batch_size < 1:
        raise ValueError(f"val_batch_size must be at least 1, got {val_batch_size!r}")


def _ignore_device(device: object) -> None:
    if device is not None and "cpu" not in str(device):
        warn_caller(f"device {device!s} is ignored: nudge_rag.compat works on the CPU")

"""``solver="auto"``: the solver, the step and the map that tomorrow's queries are expected to gain most by."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import FloatArray, as_matrix
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.progress import track
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.solvers.auto.geometry import map_space
from nudge_rag.solvers.auto.lowered import FixedSolver
from nudge_rag.solvers.auto.selection import TriedSetting, choose_setting
from nudge_rag.solvers.auto.trials import SolverTrials
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.devices import is_foreign
from nudge_rag.solvers.labels import LabeledQueries, LabelsLike, join_labels
from nudge_rag.solvers.linear_map.adapter import map_labels, without_scores
from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["REACHES", "AutoSolver", "Reach"]

logger = logging.getLogger(__name__)

Reach: TypeAlias = Literal["labelled", "queries", "nodes"]
REACHES: tuple[Reach, ...] = ("labelled", "queries", "nodes")
# Of nodes that compete, the vectors that estimates of other reaches look at.
MOST_COMPETITORS = 10_000
# Why there is no setting with a map although one was asked for.
NO_MAP = "no map that was learned helps queries about nodes whose labels were held out"


class AutoSolver:
    """Fit the solvers, estimate what each does to three groups of queries, and choose by tomorrow's expected metric.

    Of each solver several settings are tried: steps or strengths, each with scores of moved nodes lowered by several
    offsets, and `NudgeContrastive` with and without negatives that nobody labelled. For each, three changes of
    ``metric`` are estimated: that of covered queries on the validation part, that of uncovered queries (of rarely asked
    nodes) and that of new nodes by `HeldOutNodes`. Expected is

        (1 - p) * covered + p_rare * uncovered + (p - p_rare) * new nodes,

    with p the share of tomorrow's queries whose answers have no label and p_rare that by Good and Turing
    (`share_of_uncovered`), at most p. The setting with the largest expected gain is taken; of those that noise cannot
    tell from it, the one that harms least. 0.85 times the gain is enough if no group loses significantly then, and 0.7
    times as much if NUDGE-N would not gain more (`choose_setting`). Nothing moves if no setting is expected to gain.
    The final solution learns from training and validation labels together. Every setting tried is in ``tried`` of the
    result, and a rough estimate of every reach that was not asked for in ``other_reaches``.

    Args:
        metric: what is measured.
        similarity: how the store ranks.
        tolerance: the loss of ``metric`` that uncovered queries and those of new nodes may suffer, such as 0.01; None:
            as above. With ``math.inf`` the expected gain alone decides.
        reach: whom labels may help. ``"labelled"``: labelled nodes move, queries stay as they are. ``"queries"``: a
            linear map of all queries too (`LinearMap`), with or without nudges on top, if that is expected to gain
            more; then the result has an ``adapter`` that every query must pass. ``"nodes"``: the same map of all nodes
            instead, v' = |v| (I + B^T) v / |(I + B^T) v|; then the result has a ``node_map``, and its vectors are
            those of mapped nodes with nudges on top.
        uncovered_share: p, if it is known; None: p_rare, but at least a fifth, since labels know nothing of documents
            that are to come.

    Raises:
        TypeError: a tolerance or a share that is no number.
        ValueError: a negative tolerance, an unknown reach, a share outside 0 to 1.

    Example:
        >>> import numpy as np
        >>> queries = np.array([[0.65, 0.76, 0.0], [0.65, 0.7, 0.0]])
        >>> fit = AutoSolver().fit(np.eye(3), (queries, [[0], [0]]), (queries, [[0], [0]]))
        >>> fit.improved, fit.solver, [setting.solver for setting in fit.tried if setting.chosen]
        (True, 'nudge-n', ['nudge-n'])
    """

    name = "auto"

    def __init__(
        self,
        *,
        metric: str | Metric = "nDCG@10",
        similarity: Similarity = "cosine",
        tolerance: float | None = None,
        reach: Reach = "labelled",
        uncovered_share: float | None = None,
    ) -> None:
        _check_number("tolerance", tolerance)
        _check_number("uncovered_share", uncovered_share)
        if tolerance is not None and not tolerance >= 0:
            raise ValueError(f"tolerance (uncovered_tolerance of tune) must be None or at least 0, got {tolerance!r}")
        if reach not in REACHES:
            raise ValueError(f"reach must be one of {', '.join(map(repr, REACHES))}, got {reach!r}")
        if uncovered_share is not None and not 0 <= uncovered_share <= 1:
            raise ValueError(f"uncovered_share must be None or between 0 and 1, got {uncovered_share!r}")
        self.metric = parse_metric(metric)
        self.similarity: Similarity = similarity
        self.tolerance = tolerance
        self.reach: Reach = reach
        self.uncovered_share = uncovered_share
        self._contrastive = NudgeContrastive(metric=self.metric, similarity=similarity)

    @property
    def needs(self) -> SolverNeeds:
        """As deep for training as for validation queries, since the final solution learns from both."""
        depth = self._contrastive.needs.depth
        return SolverNeeds(
            depth=depth,
            train_depth=depth,
            learns_from_validation=True,
            training_queries=True,
            competitor_vectors=self.reach != "labelled",
            competitor_sample=MOST_COMPETITORS if self.reach == "labelled" else 0,
        )

    def fit(
        self,
        embeddings: ArrayLike,
        train: LabelsLike,
        val: LabelsLike | None = None,
        *,
        background: FloatArray | Iterable[FloatArray] | None = None,
        competitor_vectors: FloatArray | None = None,
    ) -> NudgeFit:
        """Choose, and solve for the covered rows of ``embeddings``. Arguments and errors as `NudgeN.fit`.

        With a map, scores that the labels bring along would be of what it has not moved: give the nodes that compete as
        ``background``. If the labels bring scores along, reaches that were not asked for are estimated from
        ``competitor_vectors`` (b, d) alone, which are those of the nodes that compete most; without them they are not.

        Raises:
            TypeError: embeddings of another array library than numpy.
            ValueError: no training or no validation query with an answer.
        """
        if is_foreign(embeddings):
            raise TypeError("AutoSolver needs numpy arrays: use NudgeN or NudgeM")
        nodes = as_matrix(embeddings, "embeddings")
        if background is not None and not isinstance(background, np.ndarray):
            background = list(background)  # gone over many times
        if val is None:
            raise ValueError("validation queries are needed to choose a solver")
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            fit = self._chosen(nodes, train, val, background, competitor_vectors)
        for message in dict.fromkeys(str(warning.message) for warning in raised):
            # Of queries without answers those of the two parts tell, not those of their folds.
            if "labelled queries have no answers" not in message:
                warn_caller(message)
        return fit

    def _chosen(
        self, nodes: FloatArray, train: LabelsLike, val: LabelsLike, background: Any, vectors: FloatArray | None
    ) -> NudgeFit:
        trials = SolverTrials(self, nodes, train, val, background)
        tried = [*track(trials.without_map(), "trying settings")]
        unmapped = tuple(tried)
        left_out: tuple[Candidate, ...] = ()
        if self.reach != "labelled":
            with_map = [*track(trials.with_map(of_nodes=self.reach == "nodes"), "trying settings with a map")]
            tried += with_map
            left_out = () if with_map else (Candidate("node map" if self.reach == "nodes" else "map", note=NO_MAP),)
        others = self._estimate_other_reaches(trials, unmapped, train, val, vectors)
        chosen = choose_setting(tried, self.tolerance)
        best = tried[0] if chosen is None else chosen
        adapter = trials.final_adapter() if chosen is not None and chosen.has_map else None
        del trials  # with its folds
        both: LabeledQueries = join_labels(train, val)
        of_nodes = adapter is not None and self.reach == "nodes"
        if adapter is not None and of_nodes:
            both = without_scores(both)
            nodes, background = map_space(nodes, background, adapter)
        elif adapter is not None:
            both = map_labels(both, adapter)
        final = best.final if chosen is not None and best.final is not None else None
        whole = _solve(final or NudgeN(gamma=0.0, similarity=self.similarity), nodes, both, background)
        return replace(
            best.fit,
            rows=whole.rows,
            vectors=whole.vectors,
            gamma=best.candidate.gamma if chosen is not None else 0.0,
            improved=chosen is not None,
            descents=best.fit.descents + whole.descents,
            tried=(*(replace(one.candidate, chosen=one is chosen) for one in tried), *left_out),
            originals=nodes,
            adapter=None if of_nodes else adapter,
            node_map=adapter if of_nodes else None,
            other_reaches=tuple(others),
        )

    def _estimate_other_reaches(
        self,
        trials: SolverTrials,
        unmapped: Sequence[TriedSetting],
        train: LabelsLike,
        val: LabelsLike,
        vectors: FloatArray | None,
    ) -> list[Candidate]:
        """Rough records of the reaches that are not tried; none if nothing tells what competes with mapped nodes."""
        brings_scores = any(_brings_scores(part) for part in (train, val))
        if brings_scores and vectors is None:
            return []
        best = choose_setting(unmapped, self.tolerance)
        gain = 0.0 if best is None else best.candidate.expected or 0.0
        others = [reach for reach in REACHES[1:] if reach != self.reach]
        estimates = trials.other_reaches(others, gain, vectors if brings_scores else None)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                # They would be taken for warnings of the result.
                warnings.simplefilter("ignore")
                return [*track(estimates, "estimating other reaches")]
        except Exception as error:  # rough figures are no reason to lose the result
            logger.warning("what other reaches would give is not estimated: %s: %s", type(error).__name__, error)
            return []


def _solve(solver: FixedSolver, nodes: FloatArray, labels: LabeledQueries, background: Any) -> NudgeFit:
    with warnings.catch_warnings():
        # Of queries without answers the training and the validation part have told.
        warnings.filterwarnings("ignore", message=".* queries have no answers")
        return solver.fit(nodes, labels, background=background)


def _brings_scores(part: LabelsLike) -> bool:
    """Whether labels bring scores of nodes along that compete; a store whose nodes are all labelled has none."""
    competitors = part.competitors if isinstance(part, LabeledQueries) else None
    return competitors is not None and bool((np.asarray(competitors) > -np.inf).any())


def _check_number(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | np.number)):
        raise TypeError(f"{name} must be None or a number such as 0.01, got {value!r}")

"""How likely a rank is looked at: the examination curve of the position-based click model.

P(click | query, node, rank k) = theta_k * gamma(query, node), with theta_1 = 1 by convention. A pair that was shown at
several ranks tells the ratio of their thetas: each push of a nudge, and each rollback, shows the same pairs at other
ranks (intervention harvesting: Agarwal, Zaitsev, Wang, Li, Najork, Joachims, WSDM 2019, arXiv 1812.05161).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.feedback.impressions import Impressions, collect_impressions
from nudge_rag.feedback.log import FeedbackLog

__all__ = ["ExaminationCurve", "fit_examination"]

LOWEST_THETA = 0.05
FEWEST_CLICKS = 30.0
ROUNDS, CLOSE_ENOUGH = 500, 1e-6
RESAMPLES, INTERVAL = 100, (0.025, 0.975)
TINY = 1e-12


@dataclass(frozen=True)
class ExaminationCurve:
    """The chance that a rank is looked at, relative to the first.

    Attributes:
        theta: of ranks 1, 2, ...; the first is 1. Ranks beyond follow the last one as 1/rank does.
        method: "swaps", "interventions", "em" or "assumed".
        n_pairs: pairs that were seen at several ranks, by which it was estimated.
        interval: lower and upper ends of the 95 % intervals (bootstrap over pairs); None if it was assumed.
    """

    theta: tuple[float, ...]
    method: str
    n_pairs: int = 0
    interval: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __str__(self) -> str:
        shown = ", ".join(f"{value:.2f}" for value in self.theta[:5])
        if self.method == "assumed":
            return f"position bias: assumed 1/rank ({shown}, ...)"
        words = {"swaps": "randomised ranks", "interventions": "versions", "em": "several ranks (EM)"}
        return f"position bias: estimated from {self.n_pairs} pairs seen by {words[self.method]} ({shown}, ...)"

    def at(self, ranks: np.ndarray) -> FloatArray:
        """Return theta of each rank, the first is 0; at least 0.05, so that no click counts for more than 20."""
        theta = np.array(self.theta)
        last = len(theta) - 1
        beyond = theta[last] * (last + 1) / (np.maximum(ranks, last) + 1)
        at: FloatArray = np.where(ranks <= last, theta[np.minimum(ranks, last)], beyond)
        return np.maximum(at, LOWEST_THETA)


def fit_examination(
    log: FeedbackLog | Impressions, *, randomised: Collection[str] = (), method: str = "auto", seed: int = 0
) -> ExaminationCurve:
    """Estimate the examination curve from clicks, by the best means that the log allows.

    1. ``"swaps"``: retrievals of the versions in ``randomised``, whose order was random: theta_k = CTR_k / CTR_1.
    2. ``"interventions"``: pairs that several versions showed at several ranks: the maximum of the Poisson likelihood
       of clicks_pk with mean impressions_pk * theta_k * gamma_p.
    3. ``"em"``: pairs at several ranks for whatever reason, by EM of the position-based model (Chuklin, Markov,
       de Rijke 2015).
    4. ``"assumed"``: theta_k = 1/k.

    The second and third need ranks that are connected by pairs seen at both; ranks that are not connected with the
    first one follow the last that is, as 1/rank does. Without 30 clicks on such pairs, the next means is taken.

    Args:
        log: what was shown and clicked.
        randomised: versions that showed nodes in random order.
        method: one of the four, or "auto" for the first that the log allows.
        seed: of the bootstrap.

    Raises:
        ValueError: an unknown method, or one that the log does not allow.
    """
    impressions = log if isinstance(log, Impressions) else collect_impressions(log)
    means = {"swaps": _swapped, "interventions": _across_versions, "em": _everywhere}
    if method not in (*means, "auto", "assumed"):
        raise ValueError(f'method must be "auto", "swaps", "interventions", "em" or "assumed", got {method!r}')
    n_ranks = int(impressions.rank.max(initial=0)) + 1
    for name in means if method == "auto" else [method] if method in means else []:
        shown, clicks = means[name](impressions, n_ranks, randomised)
        theta = _estimate(name, shown, clicks)
        if theta is not None:
            return ExaminationCurve(tuple(theta), name, len(shown), _interval(name, shown, clicks, len(theta), seed))
        if method == name:
            raise ValueError(
                f"the log does not allow method {name!r}: it needs {FEWEST_CLICKS:.0f} clicks on pairs seen at several "
                f"ranks, the first among them; there are {clicks.sum():.0f}"
            )
    return ExaminationCurve(tuple(1.0 / np.arange(1, n_ranks + 1)), "assumed")


def _swapped(impressions: Impressions, n_ranks: int, randomised: Collection[str]) -> tuple[FloatArray, FloatArray]:
    chosen = [number for number, version in enumerate(impressions.versions) if version in randomised]
    return impressions.table(np.isin(impressions.version, chosen), n_ranks)


def _across_versions(
    impressions: Impressions, n_ranks: int, randomised: Collection[str]
) -> tuple[FloatArray, FloatArray]:
    """Pairs that different versions showed at different ranks."""
    first = np.full(len(impressions.pairs), -1)
    version = first.copy()
    moved = np.zeros(len(first), dtype=bool)
    # The first impression of each pair: assignment in reverse keeps it.
    first[impressions.pair[::-1]] = impressions.rank[::-1]
    version[impressions.pair[::-1]] = impressions.version[::-1]
    other = (first[impressions.pair] != impressions.rank) & (version[impressions.pair] != impressions.version)
    moved[impressions.pair[other]] = True
    return _several_ranks(*impressions.table(moved[impressions.pair], n_ranks))


def _everywhere(impressions: Impressions, n_ranks: int, randomised: Collection[str]) -> tuple[FloatArray, FloatArray]:
    return _several_ranks(*impressions.table(np.ones(len(impressions.pair), dtype=bool), n_ranks))


def _several_ranks(shown: FloatArray, clicks: FloatArray) -> tuple[FloatArray, FloatArray]:
    several = (shown > 0).sum(axis=1) > 1
    return shown[several], clicks[several]


def _estimate(name: str, shown: FloatArray, clicks: FloatArray) -> FloatArray | None:
    """Theta of the ranks connected with the first; None if there are too few clicks."""
    if clicks.sum() < FEWEST_CLICKS:
        return None
    if name == "swaps":
        rates = clicks.sum(axis=0) / np.maximum(shown.sum(axis=0), TINY)
        seen = _leading(shown.sum(axis=0) > 0)
        return rates[:seen] / rates[0] if seen > 1 and rates[0] > 0 else None
    ranks = _leading(_connected_with_first(shown, clicks))
    if ranks < 2:
        return None
    fit = _fit_poisson if name == "interventions" else _fit_em
    return fit(shown[:, :ranks], clicks[:, :ranks])


def _connected_with_first(shown: FloatArray, clicks: FloatArray) -> np.ndarray:
    """Ranks that are linked to the first by pairs seen at both that were clicked at all."""
    seen = (shown > 0) & (clicks.sum(axis=1, keepdims=True) > 0)
    reached = np.zeros(shown.shape[1], dtype=bool)
    reached[0] = True
    while True:
        pairs = seen[:, reached].any(axis=1)
        wider = seen[pairs].any(axis=0)
        if (wider <= reached).all():
            return reached
        reached |= wider


def _leading(flags: np.ndarray) -> int:
    """How many are true before the first that is not."""
    return int(flags.argmin()) if not flags.all() else len(flags)


def _fit_poisson(shown: FloatArray, clicks: FloatArray) -> FloatArray:
    """Alternate the two closed forms: gamma_p = clicks_p / expected examinations, and theta_k likewise."""
    theta: FloatArray = 1.0 / np.arange(1, shown.shape[1] + 1)
    of_pair, of_rank = clicks.sum(axis=1), clicks.sum(axis=0)
    for _ in range(ROUNDS):
        gamma = of_pair / np.maximum(shown @ theta, TINY)
        updated = of_rank / np.maximum(gamma @ shown, TINY)
        updated /= max(updated[0], TINY)
        moved = np.abs(updated - theta).max()
        theta = updated
        if moved < CLOSE_ENOUGH:
            break
    return theta


def _fit_em(shown: FloatArray, clicks: FloatArray) -> FloatArray:
    """EM of the position-based model: what was not clicked was either not looked at or not attractive."""
    theta: FloatArray = 1.0 / np.arange(1, shown.shape[1] + 1)
    gamma = np.full((len(shown), 1), 0.5)
    passed = shown - clicks
    for _ in range(ROUNDS):
        neither = np.maximum(1.0 - theta * gamma, TINY)
        attractive = (clicks + passed * (1.0 - theta) * gamma / neither).sum(axis=1, keepdims=True)
        looked_at = (clicks + passed * (1.0 - gamma) * theta / neither).sum(axis=0)
        updated = looked_at / np.maximum(shown.sum(axis=0), TINY)
        gamma = attractive / np.maximum(shown.sum(axis=1, keepdims=True), TINY)
        moved = np.abs(updated - theta).max()
        theta = updated
        if moved < CLOSE_ENOUGH:
            break
    relative: FloatArray = theta / max(float(theta[0]), TINY)
    return relative


def _interval(
    name: str, shown: FloatArray, clicks: FloatArray, n_ranks: int, seed: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """95 % intervals by drawing pairs again."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(shown), len(shown))
        theta = _estimate(name, shown[rows], clicks[rows])
        if theta is not None and len(theta) >= n_ranks:
            drawn.append(theta[:n_ranks])
    if not drawn:
        return (0.0,) * n_ranks, (float("inf"),) * n_ranks
    low, high = np.quantile(np.array(drawn), INTERVAL, axis=0)
    return tuple(low), tuple(high)

"""Groups of queries that are alike, each with the nodes that its softmax runs over: its nearest ones and a sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.solvers.labels import PreparedLabels, RejectedPairs

__all__ = ["QueryGroups", "are_worth_it", "group_queries", "is_cheaper_in_groups", "reorder_queries", "select_columns"]

# Queries of a group, at most: enough for matrix products at full speed, and no more, since each brings nodes of its own
# that all of them look at. Fewer queries than FEWEST_QUERIES look at all nodes.
GROUP_SIZE, FEWEST_QUERIES = 160, 257
# Nodes that a group's queries are nearest to, and nodes drawn from all others, each of which stands for many: such
# shares of all nodes, within these bounds.
NEAREST_SHARE, NEAREST = 1 / 8, (64, 160)
SAMPLED_SHARE, SAMPLED = 1 / 14, (40, 96)
# The nearest nodes are sought among so many times as many, which are near the means of parts of the group. Parts of so
# many queries are enough for so many nodes; they grow with the nodes, up to the group, since all parts are multiplied
# with all nodes: then a group's columns hold at most a hundredth less of its softmax.
PRESELECTED, PART_SIZE, NODES_OF_PARTS = 4, 32, 5_000
# Means are multiplied with all nodes for so many scores at once, and at least so many means: fewer are too few for full
# speed, since each product reads all nodes.
SCORES_AT_ONCE, FEWEST_MEANS = 8_000_000, 16
# A softmax in groups pays as soon as it runs over less than this share of the nodes, labels not counted.
WORTHWHILE = 0.5
# Of so many scores one tells how large the largest are.
SAMPLED_SCORES = 32
# How near a node is: its share in the softmax at this temperature.
TAU = 0.05
POWER_STEPS = 4
# The direction of many queries is that of so many of them; so many are read at once to be sorted along it.
ROWS_OF_A_DIRECTION, ROWS_AT_ONCE = 1_024, 4_096


@dataclass(frozen=True)
class QueryGroups:
    """Consecutive queries in groups, with the columns of nodes that each group's softmax runs over.

    Attributes:
        bounds: (g + 1,) group k are the queries ``bounds[k]`` to ``bounds[k + 1]``.
        columns: of each group, increasing columns: its labels, its nearest nodes, and a sample of all others.
        log_counts: of each group, the logarithm of how many nodes each of its columns stands for.
    """

    bounds: IntArray
    columns: tuple[IntArray, ...]
    log_counts: tuple[FloatArray, ...]

    def __iter__(self) -> Iterator[tuple[slice, IntArray, FloatArray]]:
        """Yield each group's queries, columns and counts."""
        for group, (columns, log_counts) in enumerate(zip(self.columns, self.log_counts, strict=True)):
            yield slice(int(self.bounds[group]), int(self.bounds[group + 1])), columns, log_counts


def is_cheaper_in_groups(n_queries: int, n_nodes: int) -> bool:
    """Whether a softmax over all nodes costs more than one over each group's, labels not counted.

    Example:
        >>> is_cheaper_in_groups(20_000, 5_000), is_cheaper_in_groups(20_000, 200)
        (True, False)
    """
    return n_queries >= FEWEST_QUERIES and WORTHWHILE * n_nodes > sum(_sizes(n_nodes))


def are_worth_it(bounds: IntArray, query_of_pair: IntArray, columns: IntArray, n_nodes: int) -> bool:
    """Whether groups, each of which looks at all its labels' nodes too, look at few enough of all nodes.

    Example:
        >>> everybody, nobody = np.repeat(np.arange(4), 1_000), np.arange(0)
        >>> bounds, columns = np.array([0, 2, 4]), np.tile(np.arange(1_000), 4)
        >>> are_worth_it(bounds, everybody, columns, 1_000), are_worth_it(bounds, nobody, nobody, 1_000)
        (False, True)
    """
    n_groups = len(bounds) - 1
    group_of_pair = np.searchsorted(bounds, query_of_pair, side="right") - 1
    labels = len(np.unique(group_of_pair * n_nodes + columns)) / n_groups
    return bool(WORTHWHILE * n_nodes > sum(_sizes(n_nodes)) + labels)


def _sizes(n_nodes: int) -> tuple[int, int]:
    """How many nearest and how many sampled nodes a group's softmax runs over."""
    nearest = min(max(round(NEAREST_SHARE * n_nodes), NEAREST[0]), NEAREST[1])
    return nearest, min(max(round(SAMPLED_SHARE * n_nodes), SAMPLED[0]), SAMPLED[1])


def group_queries(queries: FloatArray) -> tuple[IntArray, IntArray]:
    """Divide queries (m, d) along their main direction, and each part again, down to small groups.

    They are as few as can be, and their sizes differ by one at most: a query costs the same however many there are.

    Returns:
        The order of the queries, and the bounds of the groups in it.

    Example:
        >>> order, bounds = group_queries(np.eye(4, 2, dtype=np.float32))
        >>> sorted(order.tolist()), bounds.tolist()
        ([0, 1, 2, 3], [0, 4])
    """
    order, n_groups = np.arange(len(queries)), max(1, -(-len(queries) // GROUP_SIZE))
    bounds = np.arange(n_groups + 1) * len(queries) // n_groups
    parts = [(0, n_groups)]
    while parts:
        halves = []
        for first, last in parts:
            if last - first < 2:
                continue
            middle = (first + last) // 2
            _divide(queries, order[bounds[first] : bounds[last]], int(bounds[middle] - bounds[first]))
            halves += [(first, middle), (middle, last)]
        parts = halves
    return order, bounds


def _divide(queries: FloatArray, part: IntArray, count: int) -> None:
    """Put those ``count`` of the queries ``part`` first, in place, that lie lowest along their main direction."""
    direction = _main_direction(queries[part[:: -(-len(part) // ROWS_OF_A_DIRECTION)]])
    along = np.concatenate(
        [queries[part[first : first + ROWS_AT_ONCE]] @ direction for first in range(0, len(part), ROWS_AT_ONCE)]
    )
    part[:] = part[np.argsort(along, kind="stable")]


def _main_direction(rows: FloatArray) -> FloatArray:
    """The direction in which rows differ most, by power iteration; zeros if they do not differ."""
    centred = rows - rows.mean(axis=0)
    direction = centred[int(np.argmax((centred**2).sum(axis=1)))]
    for _ in range(POWER_STEPS):
        direction = centred.T @ (centred @ direction)
        length = np.linalg.norm(direction)
        if not length > 0:
            return np.zeros_like(direction)
        direction = direction / length
    return np.asarray(direction)


def reorder_queries(labels: PreparedLabels, order: IntArray) -> PreparedLabels:
    """Return the same labels with their queries in another order."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    pairs = np.lexsort((labels.node_of_pair, place[labels.query_of_pair]))
    rejected = labels.rejected
    rejections = np.lexsort((rejected.node_of_pair, place[rejected.query_of_pair]))
    return replace(
        labels,
        vectors=labels.vectors[order],
        query_of_pair=place[labels.query_of_pair][pairs],
        node_of_pair=labels.node_of_pair[pairs],
        grades=labels.grades[pairs],
        competitors=None if labels.competitors is None else labels.competitors[order],
        rejected=RejectedPairs(
            place[rejected.query_of_pair][rejections], rejected.node_of_pair[rejections], rejected.weights[rejections]
        ),
    )


def select_columns(
    queries: FloatArray,
    bounds: IntArray,
    nodes: FloatArray,
    pairs: tuple[IntArray, IntArray],
    rejected: tuple[IntArray, IntArray],
    seed: int = 0,
) -> QueryGroups:
    """Find the nodes that each group's queries are nearest to, and draw a sample of the others.

    Args:
        queries: (m, d) grouped queries, as they are scored.
        bounds: of the groups.
        nodes: (c, d) in the queries' precision, where they are now.
        pairs: (queries, columns) of the labels, by query; their nodes always take part.
        rejected: the same of rejections.
        seed: of the sample.
    """
    rng, (n_nearest, n_sampled) = np.random.default_rng(seed), _sizes(len(nodes))
    columns_of_groups, log_counts = [], []
    wanted = len(nodes) if len(nodes) <= n_nearest else PRESELECTED * n_nearest
    for (first, last), near in zip(
        itertools.pairwise(bounds), _near_means(queries, bounds, nodes, wanted), strict=True
    ):
        known = [columns[slice(*np.searchsorted(rows, [first, last]))] for rows, columns in (pairs, rejected)]
        kept = np.union1d(np.concatenate(known), _nearest(queries[first:last], nodes, near, n_nearest))
        n_others = len(nodes) - len(kept)
        drawn = _beside(kept, np.sort(rng.choice(n_others, size=min(n_sampled, n_others), replace=False)))
        columns = np.concatenate([kept, drawn])
        counts = np.zeros(len(columns), dtype=queries.dtype)
        if len(drawn):
            counts[len(kept) :] = np.log(n_others / len(drawn))
        increasing = np.argsort(columns)
        columns_of_groups.append(columns[increasing])
        log_counts.append(counts[increasing])
    return QueryGroups(bounds, tuple(columns_of_groups), tuple(log_counts))


def _beside(kept: IntArray, places: IntArray) -> IntArray:
    """The numbers at ``places`` of all that are not among the increasing ``kept``: no list is made of these.

    Example:
        >>> _beside(np.array([0, 3]), np.array([0, 1, 2])).tolist()
        [1, 2, 4]
    """
    return np.asarray(places + np.searchsorted(kept - np.arange(len(kept)), places, side="right"))


def _near_means(queries: FloatArray, bounds: IntArray, nodes: FloatArray, wanted: int) -> Iterator[IntArray]:
    """Of each group the increasing columns of the ``wanted`` nodes that are nearest to the mean of a part of it."""
    groups = list(itertools.pairwise(bounds))
    if wanted >= len(nodes):
        yield from itertools.repeat(np.arange(len(nodes)), len(groups))
        return
    part_size = _part_size(len(nodes))
    parts_of_group = -(-int(np.diff(bounds).max()) // part_size)
    at_once = max(1, max(FEWEST_MEANS, SCORES_AT_ONCE // len(nodes)) // parts_of_group)
    for number in range(0, len(groups), at_once):
        means = [_means_of_parts(queries[first:last], part_size) for first, last in groups[number : number + at_once]]
        near = np.concatenate(means) @ nodes.T
        for scores in np.split(near, np.cumsum([len(each) for each in means[:-1]])):
            yield _largest(scores.max(axis=0), wanted)


def _largest(scores: FloatArray, count: int) -> IntArray:
    """Return the increasing places of the ``count`` largest of ``scores``, found among those above a guess.

    The guess is the score that about twice as many exceed, by every 32nd; if fewer do, all are sorted in.

    Example:
        >>> _largest(np.array([0.2, 0.9, 0.1, 0.7]), 2).tolist()
        [1, 3]
    """
    sample = scores[::SAMPLED_SCORES]
    rank = len(sample) - 1 - 2 * count // SAMPLED_SCORES
    above = np.flatnonzero(scores >= np.partition(sample, rank)[rank]) if rank > 0 else np.arange(len(scores))
    if len(above) < count:
        above = np.arange(len(scores))
    return np.sort(above[np.argpartition(-scores[above], count - 1)[:count]])


def _part_size(n_nodes: int) -> int:
    """How many queries of a group have one mean.

    Example:
        >>> _part_size(3_000), _part_size(10_000), _part_size(1_000_000)
        (32, 64, 160)
    """
    return min(max(PART_SIZE, PART_SIZE * n_nodes // NODES_OF_PARTS), GROUP_SIZE)


def _means_of_parts(group: FloatArray, size: int) -> FloatArray:
    """Directions of the means of every ``size`` consecutive queries."""
    means = np.add.reduceat(group, np.arange(0, len(group), size), axis=0)
    return np.asarray(means / (np.linalg.norm(means, axis=1, keepdims=True) + np.finfo(means.dtype).tiny))


def _nearest(group: FloatArray, nodes: FloatArray, near: IntArray, count: int) -> IntArray:
    """Of the columns ``near`` the ``count`` with the largest shares in the softmax of the group's queries."""
    if len(near) <= count:
        return near
    scores: Float64Array = group @ nodes[near].T
    shares = np.exp((scores - scores.max(axis=1, keepdims=True)) / TAU)
    mass = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0)
    return np.asarray(near[np.argpartition(-mass, count - 1)[:count]])

"""Nodes without training queries never move: all that matters of them is each validation query's best few scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray, IntArray, as_matrix, row_norms, unit_rows
from nudge_rag.common.blas_threads import count_threads, map_in_threads
from nudge_rag.common.similarity import Similarity
from nudge_rag.solvers.devices import check_rows, is_foreign, namespace, on_device, to_numpy, top
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.scoring.blocks import covered_columns

__all__ = ["FixedScores", "fixed_scores", "query_vectors"]

# A block of scores is 16 MB of float32: products with fewer nodes take longer a node.
SCORES_PER_BLOCK, QUERIES_PER_BLOCK = 4_000_000, 2_048
# An accelerator is kept busy by larger blocks: near 256 MB of float32.
SCORES_ON_DEVICE = 64_000_000
# Rows this close to unit length, as models return them in float32, need no second pass over their scores.
ALREADY_UNIT = 1e-6
# Scores are packed before they are sorted in if no row has more than such a share of them.
SPARSE = 0.5


@dataclass(frozen=True)
class FixedScores:
    """Scores that no step size changes.

    Attributes:
        best: (m, depth) the best scores of uncovered nodes for each validation query, in no order; -inf if there
            are fewer nodes than depth.
        answer: (p,) score of each validation pair whose node is uncovered; NaN if the node is covered.
    """

    best: FloatArray
    answer: FloatArray


def query_vectors(labels: PreparedLabels, similarity: Similarity) -> FloatArray:
    """Validation queries as they are scored: unit length, except for l2, where the length matters."""
    return labels.vectors if similarity == "l2" else unit_rows(labels.vectors)


def fixed_scores(
    val: PreparedLabels,
    embeddings: Any,
    covered: IntArray,
    background: FloatArray | Iterable[FloatArray] | None,
    *,
    depth: int,
    similarity: Similarity,
) -> FixedScores:
    """One blocked pass over all nodes; never holds more than a block of scores a thread. Checks every row on the way.

    Args:
        val: validation labels.
        embeddings: (n, d), only read, a block at a time.
        covered: increasing rows to leave out.
        background: more nodes that only compete: an array (b, d) or blocks of one.
        depth: how many best scores to keep per query.
        similarity: how the store ranks.

    Raises:
        ValueError: a zero, NaN or infinite row, with its number; competitors that are less than ``depth`` deep.
    """
    if is_foreign(embeddings):
        return _fixed_scores_on_device(val, embeddings, covered, background, depth, similarity)
    queries = query_vectors(val, similarity)
    best = _best_competitors(val, depth, similarity).astype(embeddings.dtype)
    answer = np.full(len(val.node_of_pair), np.nan, dtype=embeddings.dtype)
    still_pairs = np.flatnonzero(~np.isin(val.node_of_pair, covered))
    step = max(1, SCORES_PER_BLOCK // max(1, min(len(queries), QUERIES_PER_BLOCK)))

    def look(nodes: range) -> FloatArray:
        found = np.full_like(best, -np.inf) if nodes.start else best
        for rows, block, norms in _shown_blocks(embeddings, covered, nodes):
            for part, scores in _score_blocks(queries, block, norms, similarity):
                _read_answers(answer, scores, val, still_pairs, part, rows)
                found[part] = _merge_best(found[part], scores)
        return found

    n_threads = count_threads(queries.size * len(embeddings))
    for found in map_in_threads(look, _parts(range(0, len(embeddings), step), n_threads), n_threads)[1:]:
        best = _merge_best(best, found)
    for first, block in _background_blocks(background, step, embeddings):
        norms = row_norms(block, "background embeddings", first_row=first)
        for part, scores in _score_blocks(queries, block, norms, similarity):
            best[part] = _merge_best(best[part], scores)
    return FixedScores(best, answer)


def _parts(starts: range, n_parts: int) -> list[range]:
    """Share the first rows of all blocks out to parts of about as many blocks, none of them empty.

    Example:
        >>> _parts(range(0, 50, 10), 2)
        [range(0, 20, 10), range(20, 50, 10)]
    """
    bounds = [len(starts) * number // n_parts for number in range(n_parts + 1)]
    return [starts[first:last] for first, last in itertools.pairwise(bounds) if last > first]


def _shown_blocks(
    embeddings: Any, covered: IntArray, starts: range
) -> Iterator[tuple[IntArray, FloatArray, FloatArray]]:
    """Rows that are not ``covered``, with their embeddings and norms, in blocks about as long as from start to start.

    Every row is checked. If most are covered, what is left of many blocks goes together: a block costs time of its
    own. A block is valid until the next one.
    """
    step = starts.step
    kept = np.empty((step, embeddings.shape[1]), dtype=embeddings.dtype)
    waiting: list[tuple[IntArray, FloatArray, FloatArray]] = []
    for first in starts:
        block = np.asarray(embeddings[first : first + step])
        norms = row_norms(block, "embeddings", first_row=first)
        hidden = covered[np.searchsorted(covered, first) : np.searchsorted(covered, first + len(block))] - first
        rows: IntArray = np.arange(first, first + len(block), dtype=np.int64)
        if len(hidden):
            shown = np.delete(rows, hidden)
            # Memory that is new to the process takes longer to get than to fill.
            place = None if waiting or 2 * len(shown) < step else kept[: len(shown)]
            left = block.take(shown - first, axis=0, out=place, mode="clip")
            waiting.append((shown, left, norms[shown - first]))
        else:
            waiting.append((rows, block, norms))
        if 2 * sum(len(part) for part, _, _ in waiting) >= step:
            yield _joined(waiting)
            waiting = []
    if any(len(part) for part, _, _ in waiting):
        yield _joined(waiting)


def _joined(parts: Sequence[tuple[IntArray, FloatArray, FloatArray]]) -> tuple[IntArray, FloatArray, FloatArray]:
    if len(parts) == 1:
        return parts[0]
    rows, blocks, norms = (np.concatenate(each) for each in zip(*parts, strict=True))
    return rows, blocks, norms


def _fixed_scores_on_device(
    val: PreparedLabels, embeddings: Any, covered: IntArray, background: Any, depth: int, similarity: Similarity
) -> FixedScores:
    """The same for embeddings of another array library, on their device; only the results come to the host."""
    dtype = val.vectors.dtype
    queries = on_device(query_vectors(val, similarity), embeddings)
    xp = namespace(embeddings)
    best = on_device(_best_competitors(val, depth, similarity).astype(dtype), embeddings)
    answer = np.full(len(val.node_of_pair), np.nan, dtype=dtype)
    step = max(1, SCORES_ON_DEVICE // max(1, val.n_queries))
    for first in range(0, embeddings.shape[0], step):
        scores = _device_scores(queries, embeddings[first : first + step, :], similarity, "embeddings", first)
        width = scores.shape[1]
        here = np.flatnonzero((val.node_of_pair >= first) & (val.node_of_pair < first + width))
        flat = on_device(val.query_of_pair[here] * width + val.node_of_pair[here] - first, embeddings)
        answer[here] = to_numpy(xp.take(xp.reshape(scores, (-1,)), flat))
        hidden = np.zeros(width, dtype=bool)
        hidden[covered[np.searchsorted(covered, first) : np.searchsorted(covered, first + width)] - first] = True
        worst = on_device(np.array(-np.inf, dtype=dtype), embeddings)
        scores = xp.where(on_device(hidden, embeddings)[None, :], worst, scores)
        best = top(xp.concat([best, top(scores, depth)], axis=1), depth)
    for first, block in _background_blocks(background, step, val.vectors):
        scores = _device_scores(queries, on_device(block, embeddings), similarity, "background embeddings", first)
        best = top(xp.concat([best, top(scores, depth)], axis=1), depth)
    answer[np.isin(val.node_of_pair, covered)] = np.nan
    return FixedScores(np.asarray(to_numpy(best)), answer)


def _device_scores(queries: Any, block: Any, similarity: Similarity, name: str, first_row: int) -> Any:
    norms = check_rows(block, name, first_row)
    scores = queries @ block.T
    if similarity == "cosine":
        return scores / norms[None, :]
    return scores - (norms * norms / 2)[None, :] if similarity == "l2" else scores


def _best_competitors(val: PreparedLabels, depth: int, similarity: Similarity) -> FloatArray:
    """What the labels bring along of nodes that are not among the embeddings, as scores of this module: (m, depth)."""
    if val.competitors is None:
        return np.full((val.n_queries, depth), -np.inf)
    if val.competitors.shape[1] < depth:
        raise ValueError(f"competitors must be at least {depth} deep for this metric, got {val.competitors.shape[1]}")
    cut = val.competitors.shape[1] - depth
    best = np.partition(val.competitors, cut, axis=1)[:, cut:]
    if similarity == "l2":
        # Here a score is q.v - |v|^2 / 2, that is (|q|^2 - |q - v|^2) / 2.
        return np.asarray((best + (val.vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True)) / 2)
    return np.asarray(best)


def _score_blocks(
    queries: FloatArray, block: FloatArray, norms: FloatArray, similarity: Similarity
) -> Iterator[tuple[slice, FloatArray]]:
    unit = bool((np.abs(norms - 1) < ALREADY_UNIT).all())
    for first in range(0, len(queries), QUERIES_PER_BLOCK):
        part = slice(first, min(first + QUERIES_PER_BLOCK, len(queries)))
        scores = queries[part] @ block.T
        if similarity == "cosine" and not unit:
            scores *= (1 / norms).astype(scores.dtype)
        elif similarity == "l2":
            scores -= (norms**2 / 2).astype(scores.dtype)
        yield part, scores


def _read_answers(
    answer: FloatArray, scores: FloatArray, val: PreparedLabels, pairs: IntArray, part: slice, rows: IntArray
) -> None:
    """Answers are read from the block that ranks them, so that a node never outranks itself by a rounding error.

    ``pairs`` are those whose node stays in place, in order.
    """
    pairs = pairs[slice(*np.searchsorted(val.query_of_pair[pairs], [part.start, part.stop]))]
    columns = covered_columns(val.node_of_pair[pairs], rows)
    here = columns >= 0
    answer[pairs[here]] = scores[val.query_of_pair[pairs[here]] - part.start, columns[here]]


def _merge_best(best: FloatArray, scores: FloatArray) -> FloatArray:
    """The best of each row of ``best`` (m, depth) and ``scores`` (m, n) together, (m, depth) in no order."""
    depth = best.shape[1]
    if depth == 1:
        return np.asarray(np.maximum(best, scores.max(axis=1, keepdims=True)))
    # Once a few blocks are behind, hardly any score beats the worst of the best: only those are looked at.
    above = scores > best.min(axis=1, keepdims=True)
    counts = np.count_nonzero(above, axis=1)
    most = int(counts.max(initial=0))
    if not most:
        return best
    if most < SPARSE * scores.shape[1]:
        scores = _packed(scores, above, counts, most)
    together = np.concatenate([best, scores], axis=1)
    return np.asarray(np.partition(together, together.shape[1] - depth, axis=1)[:, -depth:])


def _packed(scores: FloatArray, kept: BoolArray, counts: IntArray, most: int) -> FloatArray:
    """The ``kept`` scores alone, (m, most): ``counts`` in each row, then -inf."""
    rows = np.repeat(np.arange(len(scores)), counts)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    packed = np.full((len(scores), most), -np.inf, dtype=scores.dtype)
    packed[rows, places] = scores[kept]
    return packed


def _background_blocks(
    background: FloatArray | Iterable[FloatArray] | None, step: int, embeddings: FloatArray
) -> Iterator[tuple[int, FloatArray]]:
    if background is None:
        return
    first = 0
    given: Any
    for given in [background] if isinstance(background, np.ndarray) or is_foreign(background) else background:
        part = as_matrix(to_numpy(given) if is_foreign(given) else given, "background embeddings")
        if part.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"background embeddings have dimension {part.shape[1]}, the nodes have {embeddings.shape[1]}"
            )
        for start in range(0, len(part), step):
            block = np.asarray(part[start : start + step], dtype=embeddings.dtype)
            yield first, block
            first += len(block)

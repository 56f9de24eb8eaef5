"""A sieve's bounds are no less than the products; an overlay that looks through it answers as a store would."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.stores import MappingStore, OverlayStore
from nudge_rag.stores import overlay as overlays
from nudge_rag.stores.sieve import LARGEST_ROTATED, Sieve


def nodes(kind, count, dimension, seed=0):
    """Vectors all over the space, or of a few directions mostly, of equal and unequal lengths."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dimension))
    if kind != "isotropic":
        rows = rows * np.linspace(1, 0.05, dimension) + 0.5
    if kind == "lengths":
        rows *= np.exp(rng.normal(size=(count, 1)))
    return rows.astype(np.float32)


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e17])
@pytest.mark.parametrize("dimension", [1, 2, 7, 64, LARGEST_ROTATED + 1])
@pytest.mark.parametrize("kind", ["isotropic", "directions", "lengths"])
def test_no_product_is_above_its_bound(kind, dimension, scale):
    vectors = nodes(kind, 60, dimension) * np.float32(scale)
    assert np.isfinite(vectors).all()
    sieve = Sieve(vectors)
    for query in (vectors[3], *nodes(kind, 5, dimension, seed=1), np.zeros(dimension, dtype=np.float32)):
        exact = vectors.astype(np.float64) @ query.astype(np.float64)
        slack = 1e-5 * np.linalg.norm(vectors.astype(np.float64), axis=1) * np.linalg.norm(query.astype(np.float64))
        assert (sieve.bound(query) >= exact - slack).all()


def test_lengths_whose_squares_leave_the_range_of_float32():
    sieve = Sieve(nodes("isotropic", 9, 512) * np.float32(1e19))
    assert sieve.bound(np.zeros(512, dtype=np.float32)).tolist() == [0] * 9


def test_vectors_without_numbers_or_rows():
    assert Sieve(np.zeros((3, 4), dtype=np.float32)).bound(np.ones(4, dtype=np.float32)).tolist() == [0, 0, 0]
    assert len(Sieve(np.zeros((0, 4), dtype=np.float32)).bound(np.ones(4, dtype=np.float32))) == 0


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("kind", ["isotropic", "directions", "lengths"])
def test_an_overlay_of_many_nodes_answers_as_a_store_with_their_vectors(kind, similarity, monkeypatch):
    dimension, numbers = 96, 100_000
    monkeypatch.setattr(overlays, "NUMBERS_WORTH_A_SIEVE", numbers)
    count = numbers // dimension + 500
    rng = np.random.default_rng(2)
    before = nodes(kind, count, dimension).astype(np.float64)
    after = before.copy()
    moved = rng.permutation(count)[: numbers // dimension + 1]
    after[moved] += 0.3 * rng.normal(size=(len(moved), dimension))
    names = [f"n{row}" for row in range(count)]
    store = MappingStore(dict(zip(names, before.tolist(), strict=True)), similarity=similarity)
    written = MappingStore(dict(zip(names, after.tolist(), strict=True)), similarity=similarity)
    overlay = OverlayStore(store, [names[row] for row in moved], after[moved])
    assert overlay._sieve is not None
    # A moved node itself, one that is not, and others, one by one and all at once.
    queries = np.concatenate([after[moved[:2]], before[:2], nodes(kind, 4, dimension)])
    together, wanted = overlay.search(queries, 12), written.search(queries, 12)
    for row, query in enumerate(queries):
        alone = overlay.search(query[None, :], 12)
        assert alone.ids[0] == wanted.ids[row] == together.ids[row]
        np.testing.assert_allclose(alone.scores[0], wanted.scores[row], rtol=1e-9, atol=1e-9)

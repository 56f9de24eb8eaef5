"""The adapter that the guide shows keeps the contract, by the test that the guide shows; it is pushed to and undone."""

from __future__ import annotations

import numpy as np

from nudge_rag import LabeledPairs, rollback, tune
from nudge_rag.stores.testing import StoreContract
from tests.docs.test_pages import blocks

NAMES: dict[str, object] = {"__name__": "__page__"}
for _, code in blocks("guide/stores.md"):
    exec(code, NAMES)


class TestShelfStore(NAMES["TestShelfStore"]):  # type: ignore[name-defined,misc]
    """All of the contract's tests but that of filters, which the shelf takes none of."""

    def test_it_is_the_contract(self, filtered, reopen, delete):
        assert isinstance(self, StoreContract)
        assert filtered is None
        assert callable(reopen)
        assert callable(delete)

    def test_it_is_pushed_to_and_found_and_undone_from_another_folder(self, store, reopen, tmp_path, monkeypatch):
        ids, vectors = next(store.scan())
        pairs = LabeledPairs.from_pairs((f"{node_id} {n}", node_id) for node_id in ids for n in range(8))
        of, shift = dict(zip(ids, vectors, strict=True)), np.random.default_rng(0).normal(size=vectors.shape[1])

        def embed(texts):
            return np.array([of[text.rpartition(" ")[0]] + shift for text in texts])

        nudge = tune(store, pairs, embed, solver="nudge-n")
        assert nudge.push(force=True).written == len(nudge.ids) > 0
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        undone = rollback(reopen())
        assert undone.exact
        assert undone.restored == len(nudge.ids)
        assert (reopen().read(ids) == vectors).all()

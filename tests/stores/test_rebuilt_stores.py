"""A table or collection that is dropped and built anew from the same texts: labels and nudges find their nodes."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs, reapply, rollback, status
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.text_hashes import hash_text
from nudge_rag.tuning.label_matching import match_labels
from tests.support.databases import TABLE, close_store
from tests.support.killed_worker import open_store
from tests.support.killing import fill
from tests.support.kinds import KINDS

OLD, NEW = ["1", "2", "3", "4"], ["11", "12", "13", "14"]
ORIGINALS = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
NUDGED = ORIGINALS + np.float32(1)


def texts(ids):
    return [f"text {int(node) % 10}" for node in ids]


def drop_collection(store):
    store.collection._client.delete_collection(store.collection.name)


def drop_table(store):
    for table in (TABLE, f"{TABLE}_vec"):
        store.connection.execute(f"DROP TABLE IF EXISTS {table}")


DROPS = {"chroma": drop_collection, "duckdb": drop_table, "sqlite-vec": drop_table, "postgres": None}


@pytest.mark.parametrize("ids", [NEW, OLD], ids=["new ids", "old ids"])
@pytest.mark.parametrize("kind", [kind for kind in DROPS if kind in KINDS])
def test_a_store_that_was_dropped_and_built_anew(kind, ids, servers, tmp_path):
    address = fill(kind, tmp_path, servers, OLD, ORIGINALS)
    store = open_store(kind, address)
    details = {"text_hashes": dict(zip(OLD, map(hash_text, texts(OLD)), strict=True))}
    assert push_vectors(store, OLD, ORIGINALS, NUDGED, details=details).pushed
    if DROPS[kind] is not None:  # `fill` drops a table of PostgreSQL itself
        DROPS[kind](store)
    if kind in ("duckdb", "sqlite-vec"):
        close_store(kind, store)
    fill(kind, tmp_path, servers, ids, ORIGINALS)
    store = open_store(kind, address)
    assert status(store).version is None
    pairs = LabeledPairs.from_pairs([("how", OLD[0]), ("what", OLD[3])])
    if ids == NEW:
        with pytest.warns(UserWarning, match="were found by text: '1' is now '11', '4' is now '14'"):
            assert match_labels(store, pairs, None, None, texts=texts, documents=None).node_ids == ("11", "14")
    assert reapply(store) == ()
    with pytest.warns(UserWarning, match="version 0001 of a store that is gone is pushed to this one, which holds 4"):
        assert set(reapply(store, texts=texts)) == set(ids)
    assert store.read(ids).tobytes() == NUDGED.tobytes()
    assert rollback(store).restored == 4
    assert store.read(ids).tobytes() == ORIGINALS.tobytes()
    assert reapply(store, texts=texts) == ()

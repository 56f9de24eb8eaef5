"""Ids that no database could hold are ids that it has not: never an error of its client, and nothing is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nudge_rag import LabeledPairs, reapply, rollback, tune
from nudge_rag.errors import UnknownIdError
from nudge_rag.journal.push import push_vectors
from tests.stores.test_contract import everything
from tests.support.builders.registry import BUILDERS

STORES = [
    "chroma-langchain",
    "chroma-server-llama-index",
    "duckdb-llama-index",
    "faiss-langchain-flat-ip",
    "in-memory",
    "lancedb-langchain",
    "milvus-llama-index",
    "parquet",
    "parquet-integer-ids",
    "postgres-langchain",
    "postgres-llama-index",
    "qdrant-langchain-cosine",
    "redis-langchain",
    "redis-llama-index",
    "simple",
    "sqlite-vec-langchain",
]
PUSHED = [
    "duckdb-langchain",
    "lancedb-llama-index",
    "postgres-langchain",
    "redis-langchain",
    "redis-llama-index",
    "simple-persisted",
]
# Whatever Python takes for text; NUL, single surrogates, what looks like SQL, and ids too long for a column.
SIGNS = st.text(
    st.characters(exclude_characters="0123456789") | st.sampled_from("\0\x1f\ud800\udfff\uffff'\"\\%{}`\n"), max_size=6
)
IDS = SIGNS | st.sampled_from(["", " ", "x" * 70_000, "\U0001f600", "a" * 300 + "\0"])


@pytest.mark.parametrize("name", [name for name in STORES if name in BUILDERS])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(strange=st.lists(IDS, min_size=1, max_size=4, unique=True))
@example(strange=["\0", "\ud800", "x\udfffy", ""])
def test_they_are_not_found_and_nothing_is_written(build_once, name, strange):
    built = build_once(name, 60)
    store, known = built.store, [*next(iter(built.store.scan(2)))[0]][:1]
    rows, vectors = np.ones((len(strange), store.dimension)), store.read(known)
    assert store.matching([*strange, *known], None) == set(known)
    with pytest.raises(UnknownIdError) as told:
        store.read([*known, *strange])
    assert set(told.value.ids) == set(strange)
    with pytest.raises(UnknownIdError):
        store.replace([*known, *strange], np.concatenate([vectors + 1, rows]))
    expected, wanted = np.concatenate([rows, vectors - 1]), np.ones((len(strange) + 1, store.dimension))
    assert store.replace_vectors_if([*strange, *known], expected, wanted) == [*strange, *known]
    assert store.read(known).tobytes() == vectors.tobytes()


@pytest.mark.parametrize("name", [name for name in PUSHED if name in BUILDERS])
def test_labels_with_such_ids_are_unknown_and_pushes_leave_them_out(build, name):
    store = build(name, 60).store
    known, before = sorted(everything(store))[:3], everything(store)
    pairs = [(f"{word} {at}", node) for at, node in enumerate([*known, "\0", "a\0b"]) for word in "abcdefgh"]

    def embed(texts):
        return [before[known[int(text.split()[1]) % 3]] for text in texts]

    with pytest.warns(UserWarning, match=r"2 .*'\\x00'"):
        nudge = tune(store, LabeledPairs.from_pairs(pairs), embed)
    assert set(nudge.ids) <= set(known)
    with pytest.raises(ValueError, match="node_id holds bytes that are not of the file's encoding"):
        LabeledPairs.from_pairs([("query", "\ud800")])
    strange = ["\0", "\ud800"]
    ids, originals = [*known, *strange], np.concatenate([store.read(known), np.ones((2, store.dimension))])
    with pytest.warns(UserWarning, match=r"2 node\(s\) are no longer in the store"):
        receipt = push_vectors(store, ids, originals, originals[::-1] * 2)
    assert set(receipt.missing) == set(strange)
    assert receipt.written == 3
    assert reapply(store) == ()
    assert rollback(store).restored == 3
    assert everything(store).keys() == before.keys()

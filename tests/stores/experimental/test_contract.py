"""The contract suite of all stores, over doubles.

It shows that the adapter asks its real client for what the database's documentation offers, and makes the right thing
of the documented answer; not that the database gives it.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.stores import test_contract as contract
from tests.stores.test_catalog_table import test_an_opened_store_is_as_its_record_says  # noqa: F401
from tests.stores.test_contract import (  # noqa: F401
    everything,
    test_bad_questions,
    test_bad_writes_change_nothing,
    test_changes_are_seen_when_the_store_is_opened_again,
    test_is_an_embedding_store,
    test_overlay_ranks_as_the_store_does_once_written,
    test_read_answers_in_the_order_asked,
    test_replace_changes_vectors_and_nothing_else,
    test_scan_covers_everything_once,
    test_search_agrees_with_brute_force,
    test_search_with_a_filter,
    test_tune_push_and_rollback_from_a_new_process_bit_for_bit,
    test_tuning_by_search_and_by_scan_gives_the_same_nudge,
    test_vectors_are_those_that_the_framework_stored,
    test_what_was_read_can_be_put_back_bit_for_bit,
)
from tests.support.doubles.registry import every, only

pytestmark = pytest.mark.usefixtures("quiet")

PAGED = [
    "elasticsearch-llama-index-l2",
    "opensearch-langchain-dot",
    "pinecone-llama-index-cosine",
    "weaviate-langchain-dot",
]


@pytest.mark.parametrize("name", only(PAGED))
def test_more_nodes_than_go_into_one_call(build, name):
    built = build(name, 1200)
    stored = everything(built.store)
    assert set(stored) == set(built.vectors)
    nodes = list(stored)[::-1]
    assert built.same(built.store.read(nodes), [stored[node] for node in nodes])
    built.store.replace(nodes[:700], -built.store.read(nodes[:700]))
    np.testing.assert_allclose(built.store.read(nodes[:700]), [-stored[node] for node in nodes[:700]], rtol=1e-5)
    assert built.same(built.store.read(nodes[700:]), [stored[node] for node in nodes[700:]])
    assert built.store.matching(nodes, built.even) == {node for node in nodes if built.is_even(node)}


class TestContract(contract.TestContract):
    """The adapters over doubles keep the contract that we ask of others'."""

    @pytest.fixture(params=every())
    def made(self, request, build, build_once):
        return contract.made_for(request, build, build_once)

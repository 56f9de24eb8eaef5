"""The contract suite of all stores, over doubles.

It shows that the adapter asks its real client for what the database's documentation offers, and makes the right thing
of the documented answer; not that the database gives it.
"""

from tests.doubles import clients

clients.require()

from tests.stores.test_contract import (  # noqa: E402, F401
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
from tests.stores.test_table import test_an_opened_store_is_as_its_record_says  # noqa: E402, F401

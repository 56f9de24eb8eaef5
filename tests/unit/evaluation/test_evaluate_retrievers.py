"""Evaluating functions as retrievers, on numpy alone; expected values by hand."""

from __future__ import annotations

import asyncio
import json
import math
import threading

import numpy as np
import pytest

import nudge_rag
from nudge_rag import LabeledPairs
from nudge_rag.evaluation import adjust_p_values, aevaluate_retrievers, evaluate_retrievers, slice_by_node

PAIRS = LabeledPairs.from_pairs([("leave", "exit"), ("pay", "bill"), ("enter", "door"), ("eat", "menu")])
ANSWERS = {"leave": ["exit"], "pay": ["exit", "bill"], "enter": ["door"], "eat": ["exit", "door"]}


def good(text):
    return ANSWERS[text]


def bad(text):
    return ["exit"]


def test_means_wins_ties_losses_and_overlap_by_hand():
    found = evaluate_retrievers({"bad": bad, "good": good}, PAIRS, ["MRR@10", "Recall@1"])
    # leave: 1 and 1; pay: 0 and 1/2; enter: 0 and 1; eat: 0 and 0.
    assert found.mean("bad", "MRR@10") == pytest.approx(1 / 4)
    assert found.mean("good", "MRR@10") == pytest.approx((1 + 1 / 2 + 1) / 4)
    row = found.row("good", "MRR@10")
    assert (row.wins, row.ties, row.losses, row.n_queries) == (2, 2, 0, 4)
    assert row.difference == pytest.approx(1.5 / 4)
    # Jaccard: {exit}/{exit} 1; 1/2; 0; 1/2.
    assert found.overlap == {"good": pytest.approx((1 + 1 / 2 + 0 + 1 / 2) / 4)}
    assert found.per_query("good", "MRR@10") == {"q0": 1.0, "q1": 0.5, "q2": 1.0, "q3": 0.0}


def test_p_value_and_holm_by_hand():
    found = evaluate_retrievers({"bad": bad, "good": good}, PAIRS, ["MRR@10", "Recall@1"])
    # MRR differences 1/2 and 1: of four sign flips, two have a sum as large. Recall@1: one difference, both flips.
    assert found.row("good", "MRR@10").p_value == 0.5
    assert found.row("good", "Recall@1").p_value == 1.0
    assert found.row("good", "MRR@10").adjusted_p_value == 1.0
    assert found.row("bad", "MRR@10").p_value is None


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, made to increase.
    np.testing.assert_allclose(adjust_p_values([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(adjust_p_values([0.9, 0.8]), [1.0, 1.0])
    assert adjust_p_values([]).shape == (0,)
    with pytest.raises(ValueError, match="between 0 and 1"):
        adjust_p_values([1.2])


def test_baseline_by_name_changes_the_sign():
    found = evaluate_retrievers({"bad": bad, "good": good}, PAIRS, ["MRR@10"], baseline="good")
    assert found.row("bad", "MRR@10").difference == pytest.approx(-1.5 / 4)
    assert found.changes("bad", "MRR@10") == [("q2", -1.0), ("q1", -0.5)]
    assert found.row("good", "MRR@10").difference is None


def test_covered_uncovered_and_new():
    found = evaluate_retrievers(
        {"good": good},
        PAIRS,
        ["MRR@10"],
        trained_on=LabeledPairs.from_pairs([("quit", "exit"), ("quit", "bill", -1)]),
        new_nodes=["door", "exit"],
    )
    # exit is trained (and new, but trained goes first); door is new; bill was rejected only, menu never seen.
    assert found.groups == ("all", "covered", "uncovered", "new")
    assert found.mean("good", "MRR@10", "covered") == 1.0
    assert found.mean("good", "MRR@10", "new") == 1.0
    assert found.mean("good", "MRR@10", "uncovered") == pytest.approx((0.5 + 0) / 2)
    alone = evaluate_retrievers({"good": good}, PAIRS, ["MRR@10"], new_nodes=["door"])
    assert alone.groups == ("all", "new", "not new")
    assert alone.row("good", "MRR@10", "not new").n_queries == 3


def test_slices_by_a_field():
    metadata = {"exit": {"lang": "en"}, "bill": {"lang": "de"}, "door": {"lang": "de"}, "menu": {}}
    found = evaluate_retrievers({"good": good}, PAIRS, ["MRR@10"], slices=slice_by_node(PAIRS, metadata, "lang"))
    assert found.groups == ("all", "lang=de", "lang=en")
    assert found.mean("good", "MRR@10", "lang=de") == pytest.approx(0.75)
    with pytest.raises(ValueError, match="name none of the 4 queries"):
        evaluate_retrievers({"good": good}, PAIRS, slices={"lang": {"exit": "en"}})
    with pytest.raises(ValueError, match="25 values; slices are for at most 20"):
        many = LabeledPairs.from_pairs((f"query {n}", "exit") for n in range(25))
        evaluate_retrievers({"bad": bad}, many, slices={"own": {query: query for query in many.queries}})


def fails_on_pay(text):
    if text == "pay":
        raise TimeoutError("no answer\nin 3 s")
    return good(text)


def test_a_failed_query_is_reported_and_left_out_for_all():
    with pytest.warns(UserWarning, match=r"bad failed on 1 of 4 queries, such as 'q1' \(TimeoutError: no answer\)"):
        found = evaluate_retrievers({"good": good, "bad": fails_on_pay}, PAIRS, ["MRR@10"])
    assert found.failures == {"bad": {"q1": "TimeoutError: no answer"}}
    assert found.excluded == ("q1",)
    assert found.mean("good", "MRR@10") == found.mean("bad", "MRR@10") == pytest.approx(2 / 3)
    assert "FAILED: bad on 1 of 4 queries" in str(found)
    assert found.to_dict()["failures"] == {"bad": {"q1": "TimeoutError: no answer"}}


def test_a_failed_query_as_zero_or_as_an_error():
    with pytest.warns(UserWarning, match="they count as 0"):
        found = evaluate_retrievers({"good": good, "bad": fails_on_pay}, PAIRS, ["MRR@10"], on_failure="zero")
    assert found.mean("bad", "MRR@10") == pytest.approx(2 / 4)
    assert found.excluded == ()
    assert "FAILED" in str(found)
    with pytest.raises(RuntimeError, match="bad failed on 1 of 4"):
        evaluate_retrievers({"good": good, "bad": fails_on_pay}, PAIRS, on_failure="raise")


def test_every_query_failed():
    def down(text):
        raise ConnectionError("refused")

    for on_failure in ("exclude", "zero"):
        with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"every one failed .*ConnectionError: refused"):
            evaluate_retrievers({"down": down}, PAIRS, on_failure=on_failure)


def test_duplicates_are_removed_and_reported():
    with pytest.warns(UserWarning, match="twice returned a node twice in 4 of 4 queries; 8 repeats were removed"):
        found = evaluate_retrievers({"twice": lambda text: ["exit", "exit", "exit", "bill"]}, PAIRS, ["Recall@2"])
    # Without the repeats bill is second: leave and pay are found.
    assert found.mean("twice", "Recall@2") == 0.5
    assert found.duplicates == {"twice": dict.fromkeys(PAIRS.queries, 2)}


def test_chunks_count_as_their_parents():
    chunks = {"leave": ["exit#1", "exit#2", "bill#1"]}
    with pytest.warns(UserWarning, match="1 of 4 queries"):
        found = evaluate_retrievers(
            {"chunks": lambda text: chunks.get(text, [])},
            PAIRS,
            ["Recall@1"],
            node_id=lambda chunk: chunk.split("#")[0],
        )
    assert found.mean("chunks", "Recall@1") == 0.25


@pytest.mark.parametrize("limit", [1, 3])
def test_coroutines_are_awaited_up_to_the_limit(limit):
    running, most = 0, 0

    async def search(text):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return good(text)

    found = evaluate_retrievers({"slow": search}, PAIRS, ["MRR@10"], concurrency=limit)
    assert most == limit
    assert found.mean("slow", "MRR@10") == pytest.approx(2.5 / 4)


def test_functions_run_in_threads_up_to_the_limit():
    barrier = threading.Barrier(4)

    def search(text):
        barrier.wait(timeout=5)  # broken, and an error, unless four run at once
        return good(text)

    found = evaluate_retrievers({"threads": search}, PAIRS, ["MRR@10"], concurrency=4)
    assert not found.failures
    assert list(found.rankings["threads"]) == list(PAIRS.queries)


async def test_inside_a_running_loop():
    async def search(text):
        await asyncio.sleep(0)
        return good(text)

    assert evaluate_retrievers({"a": search}, PAIRS, ["MRR@10"]).mean("a", "MRR@10") == pytest.approx(2.5 / 4)
    found = await aevaluate_retrievers({"a": search, "b": bad}, PAIRS, ["MRR@10"])
    assert found.mean("b", "MRR@10") == 0.25


def test_queries_are_asked_side_by_side():
    """All four wait for one another: asked one after the other they would never meet."""
    together = threading.Barrier(4, timeout=60)

    def search(text):
        together.wait()
        return good(text)

    found = evaluate_retrievers({"slow": search}, PAIRS, ["MRR@10"], concurrency=4)
    assert not found.failures


@pytest.mark.parametrize(
    ("retrievers", "options", "error", "message"),
    [
        ({}, {}, ValueError, "retrievers must be a mapping of names"),
        ([good], {}, ValueError, "retrievers must be a mapping of names"),
        ({"x": 3}, {}, TypeError, "retriever 'x' must be a LlamaIndex or LangChain retriever"),
        ({"x": good}, {"baseline": "y"}, ValueError, "baseline must be one of 'x', got 'y'"),
        ({"x": good}, {"metrics": []}, ValueError, "metrics must be a list"),
        ({"x": good}, {"metrics": "MRR@10"}, ValueError, "metrics must be a list"),
        ({"x": good}, {"metrics": ["MRR@10", "MRR@10"]}, ValueError, "named twice"),
        ({"x": good}, {"on_failure": "ignore"}, ValueError, "on_failure must be"),
        ({"x": good}, {"concurrency": 0}, ValueError, "concurrency must be a positive integer, got 0"),
        ({"x": good}, {"trained_on": "exit"}, TypeError, "collections of node ids, got a string"),
        ({"x": lambda text: "exit"}, {}, TypeError, "must return a list of node ids"),
        ({"x": lambda text: None}, {}, TypeError, "got NoneType"),
        ({"x": lambda text: [3]}, {}, TypeError, "int has no node id: pass node_id="),
        ({"x": lambda text: [""]}, {}, ValueError, "non-empty string, got ''"),
        ({"x": lambda text: ["exit", None]}, {}, TypeError, "NoneType has no node id"),
        ({"x": lambda text: {"exit", "bill"}}, {}, TypeError, "a set has no order"),
        ({"x": lambda text: {"exit": math.nan}}, {}, ValueError, "score of node 'exit' must be a number, got nan"),
        ({"x": lambda text: {"exit": "1"}}, {}, ValueError, "score of node 'exit' must be a number, got '1'"),
        ({"x": lambda text: {"exit": None}}, {}, ValueError, "score of node 'exit' must be a number, got None"),
        ({5: good}, {}, ValueError, "retrievers are named by text that is not empty, got 5"),
        ({" ": good}, {}, ValueError, "retrievers are named by text that is not empty, got ' '"),
        ({"x": good}, {"slices": ["language"]}, TypeError, "slices must map a field's name to {query id: value}"),
        ({"x": good}, {"slices": {"language": "en"}}, TypeError, "slices must map a field's name to {query id: value}"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_bad_arguments(retrievers, options, error, message, concurrency):
    with pytest.raises(error, match=message):
        evaluate_retrievers(retrievers, PAIRS, **{"concurrency": concurrency, **options})


@pytest.mark.parametrize("concurrency", [1, 4])
def test_answers_may_come_item_by_item_and_be_awaited(concurrency):
    """A source that fails on the way has failed on that query; what is to be awaited is, whoever made it."""

    async def awaited(text):
        return good(text)

    def dropped(text):
        yield good(text)[0]
        if text == "pay":
            raise ConnectionError("dropped")

    retrievers = {"later": lambda text: awaited(text), "items": lambda text: iter(good(text)), "dropped": dropped}
    with pytest.warns(
        UserWarning, match=r"dropped failed on 1 of 4 queries, such as 'q1' \(ConnectionError: dropped\)"
    ):
        found = evaluate_retrievers(retrievers, PAIRS, ["MRR@10"], concurrency=concurrency)
    assert list(found.failures) == ["dropped"]
    assert found.rankings["later"] == found.rankings["items"] == {q: good(PAIRS.queries[q]) for q in ("q0", "q2", "q3")}


def test_what_was_answered_before_something_is_to_be_awaited_is_not_asked_again():
    asked = []

    async def awaited(text):
        asked.append(text)
        return good(text)

    def mixed(text):
        if text in ("enter", "eat"):
            return awaited(text)
        asked.append(text)
        return good(text)

    found = evaluate_retrievers({"mixed": mixed}, PAIRS, ["MRR@10"])
    assert asked == ["leave", "pay", "enter", "eat"]
    assert found.rankings["mixed"] == {query: good(text) for query, text in PAIRS.queries.items()}


def test_warnings_hold_no_control_characters():
    def fails(text):
        raise ConnectionError("\x1b[2J")

    with pytest.warns(UserWarning) as caught, pytest.raises(ValueError, match="no query is left"):
        evaluate_retrievers({"a\u202eb": fails}, PAIRS)
    assert not {"\x1b", "\u202e"} & set("".join(str(one.message) for one in caught))


def test_scores_decide_the_order_of_a_mapping():
    found = evaluate_retrievers({"scores": lambda text: {"bill": 0.2, "exit": 0.9}}, PAIRS, ["MRR@10"])
    assert found.rankings["scores"]["q0"] == ["exit", "bill"]


def test_evaluate_serves_both():
    assert nudge_rag.evaluate({"good": good}, PAIRS, ["MRR@10"]).mean("good", "MRR@10") == pytest.approx(2.5 / 4)
    assert nudge_rag.evaluate(PAIRS.qrels, {"q0": ["exit"]}, ["MRR@10"]).mean("MRR@10") == 0.25
    with pytest.raises(TypeError, match="takes these three"):
        nudge_rag.evaluate(PAIRS.qrels, {"q0": ["exit"]}, ["MRR@10"], baseline="good")


def test_json_says_its_schema_and_holds_every_query(tmp_path):
    found = evaluate_retrievers({"bad": bad, "good": good}, PAIRS, ["MRR@10"])
    document = json.loads(found.to_json(tmp_path / "found.json"))
    assert json.loads((tmp_path / "found.json").read_text()) == document
    assert document["schema"] == "nudge-rag/evaluation/1"
    assert document["per_query"]["q1"] == {"bad": {"MRR@10": 0.0}, "good": {"MRR@10": 0.5}}
    assert "per_query" not in found.to_dict(per_query=False)


def test_the_table_fits_80_columns_and_shows_hostile_names_escaped():
    names = {"untuned\x1b[2J": bad, "a retriever with a very long name of its own": good}
    found = evaluate_retrievers(
        names, PAIRS, ["nDCG@10", "CappedRecall@100"], trained_on=["exit"], slices={"x\u202e": {"q0": "\n"}}
    )
    text = str(found)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.splitlines()[1].startswith("a retriever with a very long … is not told apart from it: +0.")
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_markdown_and_latex_escape_names():
    found = evaluate_retrievers({"a|b": bad, "c_d & <e>": good}, PAIRS, ["MRR@10"])
    markdown = found.to_markdown().splitlines()
    assert markdown[2] == "| all (4) | MRR@10 | a\\|b | 0.250 |  |  |  |  |"
    assert "c_d & &lt;e&gt;" in markdown[3]
    latex = found.to_latex()
    assert r"all (4) & MRR@10 & c\_d \& <e> & 0.625 & +0.375 &" in latex
    assert latex.count(r"\\") == 3


def test_fractional_grades_and_rejections():
    pairs = LabeledPairs.from_pairs([("leave", "exit", 0.5), ("leave", "bill", -1.0)])
    found = evaluate_retrievers({"x": lambda text: ["bill", "exit"]}, pairs, ["nDCG@10"])
    assert found.sources == {"nDCG@10": "nudge-rag"}
    assert found.mean("x", "nDCG@10") == pytest.approx(1 / np.log2(3))

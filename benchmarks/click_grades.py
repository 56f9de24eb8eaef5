"""Clicks on ATT&CK's ranking, simulated, and what tuning on them gains: raw counts beside corrected grades.

    python -m benchmarks.click_grades                    # every case; writes a section of benchmarks/README.md
    python -m benchmarks.click_grades --users 8 --noise 0.3    # prints one case

Users ask the training and validation sentences and are shown the best ten techniques, half of them by the embeddings
and half by a nudge of an earlier night (2,000 labels), so that two versions show the same pairs at other ranks. They
look at rank k with chance 1/k**eta, click a technique that answers with chance 0.8 and another one with ``--noise``.
Labels are made from the log and judged by the true answers of the test part. "Not corrected" are the rules of
`click_grades` with every rank taken to be looked at alike; "the true curve" corrects by 1/k**eta itself.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.data_sets import METRIC, Data, Tuned, load, measure
from benchmarks.report import machine, write_section
from nudge_rag import LabeledPairs
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.evaluation.significance import bootstrap_interval
from nudge_rag.feedback import (
    ExaminationCurve,
    Feedback,
    FeedbackLog,
    Retrieval,
    ShownNode,
    click_grades,
    fit_examination,
)
from nudge_rag.solvers import NudgeContrastive, NudgeN

DEPTH, LABELS_OF_THE_EARLIER_NIGHT = 10, 2_000
SOLVERS = {"nudge-n": NudgeN, "nudge-contrastive": NudgeContrastive}
CLICK_ON_ANSWER = 0.8
CASES = [(users, noise) for users in (8, 20) for noise in (0.1, 0.2, 0.4)]


def simulate(data: Data, n_users: int, theta: np.ndarray, noise: float, seed: int = 0) -> FeedbackLog:
    """Return a log of clicks of the position-based model over two rankers."""
    rng = np.random.default_rng(seed)
    asked = data.split.train + data.split.val
    early = data.split.train.subset(list(data.split.train.queries)[:LABELS_OF_THE_EARLIER_NIGHT])
    nudged = NudgeN().fit(data.nodes, data.labels(early), data.labels(data.split.val)).embeddings()
    queries = data.embed(list(asked.queries.values()))
    retrievals, feedback = [], []
    for version, vectors in (("0", data.nodes), ("1", nudged)):
        best, _ = rank_nodes(queries, vectors, DEPTH, "cosine")
        for (query, text), rows in zip(asked.queries.items(), best, strict=True):
            nodes = [data.ids[row] for row in rows]
            grades = asked.qrels[query]
            chance = theta * [CLICK_ON_ANSWER if grades.get(n, 0) > 0 else noise for n in nodes]
            shown = tuple(map(ShownNode, nodes))
            for user in range(n_users // 2):
                key = f"{version}-{query}-{user}"
                retrievals.append(Retrieval(key, text, shown, version=version, user=key))
                feedback += [Feedback(key, nodes[at], "click") for at in np.flatnonzero(rng.random(DEPTH) < chance)]
    return FeedbackLog(tuple(retrievals), tuple(feedback))


def raw_counts(log: FeedbackLog) -> LabeledPairs:
    """Every clicked pair, graded by its number of clicks."""
    text = {retrieval.query_id: retrieval.query or "" for retrieval in log.retrievals}
    return LabeledPairs.from_pairs((text[event.query_id], event.node_id or "", 1) for event in log.feedback)


def run_case(data: Data, n_users: int, noise: float, eta: float, solver: str) -> list[str]:
    """Tune on each kind of labels; return the rows of the table."""
    theta = 1 / np.arange(1, DEPTH + 1) ** eta
    log = simulate(data, n_users, theta, noise)
    fitted, ranks = fit_examination(log), np.arange(DEPTH)
    flat, true = ExaminationCurve((1.0,) * DEPTH, "assumed"), ExaminationCurve(tuple(theta), "assumed")
    error = np.abs(fitted.at(ranks) - true.at(ranks)).max()
    print(
        f"{len(log.retrievals)} retrievals, {len(log.feedback)} clicks; {fitted}; largest error {error:.3f}", flush=True
    )
    kinds = {
        "raw click counts": raw_counts(log),
        "not corrected": click_grades(log, curve=flat, min_examinations=0).pairs,
        "corrected": click_grades(log, curve=fitted).pairs,
        "by the true curve": click_grades(log, curve=true).pairs,
        "true answers": data.split.train + data.split.val,
    }
    results = {name: _tune_on(data, pairs, solver) for name, pairs in kinds.items()}
    reference, queries = results["not corrected"], list(data.test.queries)
    rows = []
    for name, pairs in kinds.items():
        low, high = bootstrap_interval(reference.of(METRIC, queries), results[name].of(METRIC, queries))
        against = "" if name == "not corrected" else f"{100 * low:+.1f} to {100 * high:+.1f}"
        right = share_right(pairs, data.split.train)
        rows.append(
            f"| {n_users} | {noise:g} | {error:.3f} | {name} | {len(pairs):,} | {100 * right:.0f} % | "
            f"{100 * results[name].mean(METRIC):.1f} | {against} |"
        )
        print(rows[-1], flush=True)
    return rows


def _tune_on(data: Data, pairs: LabeledPairs, solver: str) -> Evaluation:
    """Learn from the training sentences, choose by the validation sentences, measure on the test part."""
    train = set(data.split.train.queries.values())
    learn = pairs.subset(query for query, text in pairs.queries.items() if text in train)
    choose = pairs.subset(query for query, text in pairs.queries.items() if text not in train)
    tuned = SOLVERS[solver]().fit(data.nodes, data.labels(learn), data.labels(choose)).embeddings()
    return measure(data, Tuned(tuned, 0.0), data.test)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--solver", default="nudge-n", choices=SOLVERS)
    given = parser.parse_args()
    data = load("attack")
    cases = CASES if given.users is None else [(given.users, given.noise)]
    rows = [row for users, noise in cases for row in run_case(data, users, noise, given.eta, given.solver)]
    if given.users is not None:
        return
    before = 100 * measure(data, Tuned(data.nodes, 0.0), data.test).mean(METRIC)
    lines = [
        "`python -m benchmarks.click_grades`: simulated clicks on MITRE ATT&CK by two versions that show the same",
        f"pairs at other ranks, and what NUDGE-N makes of them; {METRIC} (times 100) on the true answers of the test",
        f"part, untuned {before:.1f}. Users look at rank k with chance 1/k, click an answer with chance 0.8 and",
        'another node with that of "noise"; "error" is the largest one of the estimated curve. "Best one right": of',
        "the queries with labels, those whose best-graded node answers them. The interval is that of the difference",
        "to the grades that are not corrected.",
        machine("numpy"),
        "",
        f"| users | noise | error | labels | how many | best one right | {METRIC} | against not corrected |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("clicks", "Grades from clicks", lines)


def share_right(pairs: LabeledPairs, truth: LabeledPairs) -> float:
    """Return the share of the queries' best-graded nodes that answer them."""
    query_of = {text: query for query, text in pairs.queries.items()}
    found = []
    for query, text in truth.queries.items():
        if text in query_of:
            grades = pairs.qrels[query_of[text]]
            found.append(truth.qrels[query].get(max(grades, key=lambda node: grades[node]), 0) > 0)
    return float(np.mean(found))


if __name__ == "__main__":
    main()

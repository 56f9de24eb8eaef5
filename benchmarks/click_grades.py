"""Clicks on ATT&CK's ranking, simulated, and what tuning on them gains: raw counts beside corrected grades.

    python -m benchmarks.click_grades [--users 8] [--solver nudge-n]

Users ask the training and validation sentences and are shown the best ten techniques, half of them by the embeddings
and half by a nudge of an earlier night (2,000 labels). They look at rank k with chance 1/k**eta, click a technique that
answers with chance 0.8 and another one with 0.1. Labels are made from the log and judged by the true answers of the
test part.

With 8 users, NUDGE-N and eta 1, nDCG@10 goes from 0.462 to 0.509 on raw click counts, to 0.617 on corrected grades
and to 0.718 on the true answers; with 20 users to 0.462, 0.639 and 0.718. The curve is found within 0.02. Most of it
is the rule that only a query's best pairs are labels: by the same rules, with every rank taken to be looked at alike,
it is 0.622 and 0.644, which these simulated users do not tell apart from the corrected grades.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from benchmarks.data_sets import METRIC, Data, Tuned, load, measure
from nudge_rag import LabeledPairs
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.feedback import ExaminationCurve, Feedback, FeedbackLog, Retrieval, ShownNode, click_grades
from nudge_rag.solvers import NudgeContrastive, NudgeN

DEPTH, LABELS_OF_THE_EARLIER_NIGHT = 10, 2_000
SOLVERS = {"nudge-n": NudgeN, "nudge-contrastive": NudgeContrastive}
CLICK_ON_ANSWER, CLICK_ON_ANOTHER = 0.8, 0.1


def simulate(data: Data, n_users: int, eta: float, seed: int = 0) -> FeedbackLog:
    """Return a log of clicks of the position-based model over two rankers."""
    rng = np.random.default_rng(seed)
    asked = data.split.train + data.split.val
    theta = 1 / np.arange(1, DEPTH + 1) ** eta
    early = data.split.train.subset(list(data.split.train.queries)[:LABELS_OF_THE_EARLIER_NIGHT])
    nudged = NudgeN().fit(data.nodes, data.labels(early), data.labels(data.split.val)).embeddings()
    queries = data.embed(list(asked.queries.values()))
    retrievals, feedback = [], []
    for version, vectors in (("0", data.nodes), ("1", nudged)):
        best, _ = rank_nodes(queries, vectors, DEPTH, "cosine")
        for (query, text), rows in zip(asked.queries.items(), best, strict=True):
            nodes = [data.ids[row] for row in rows]
            grades = asked.qrels[query]
            chance = theta * [CLICK_ON_ANSWER if grades.get(n, 0) > 0 else CLICK_ON_ANOTHER for n in nodes]
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


def rates(log: FeedbackLog) -> LabeledPairs:
    """The same rules as `click_grades`, with every rank looked at alike."""
    flat = ExaminationCurve((1.0,) * DEPTH, "assumed")
    return click_grades(log, curve=flat, min_examinations=0).pairs


def corrected(log: FeedbackLog) -> LabeledPairs:
    grades = click_grades(log)
    print(grades)
    return grades.pairs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--solver", default="nudge-n", choices=SOLVERS)
    given = parser.parse_args()
    data = load("attack")
    log = simulate(data, given.users, given.eta)
    print(f"{len(log.retrievals)} retrievals, {len(log.feedback)} clicks")
    before = measure(data, Tuned(data.nodes, 0.0), data.test).mean(METRIC)
    train = set(data.split.train.queries.values())
    makers: dict[str, Callable[[FeedbackLog], LabeledPairs]] = {
        "raw click counts": raw_counts,
        "click rates, not corrected": rates,
        "corrected grades": corrected,
        "true answers": lambda log: data.split.train + data.split.val,
    }
    for name, make in makers.items():
        begin = time.perf_counter()
        pairs = make(log)
        learn = pairs.subset(query for query, text in pairs.queries.items() if text in train)
        choose = pairs.subset(query for query, text in pairs.queries.items() if text not in train)
        solver = SOLVERS[given.solver]()
        tuned = solver.fit(data.nodes, data.labels(learn), data.labels(choose)).embeddings()
        after = measure(data, Tuned(tuned, 0.0), data.test).mean(METRIC)
        print(
            f"{name}: {len(pairs)} labels, {share_right(pairs, data.split.train):.3f} of the queries' best ones right; "
            f"{METRIC} {before:.4f} -> {after:.4f} ({time.perf_counter() - begin:.0f} s)"
        )


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

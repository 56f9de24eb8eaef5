"""Interleaving on MITRE ATT&CK with simulated users: are equal rankings told to be equal, and is the nudge found?

    python -m benchmarks.interleaving              # writes a section of benchmarks/README.md
    python -m benchmarks.interleaving --runs 20    # prints fewer runs

Test sentences are asked and answered by team drafts of two rankings of ten. Users are the navigational and the
informational one of Hofmann, Whiteson and de Rijke (TOIS 2013), who read downwards and may stop after a click, and a
position-based one, who looks at rank k with chance 1/k. The equal rankings are the embeddings' own and one that swaps
neighbours that are both answers, or both not; the better one is NUDGE-N's of all training labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.data_sets import Data, load
from benchmarks.report import machine, write_section
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.feedback import Feedback, FeedbackLog, Retrieval, ShownNode, TeamDraft, compare_teams
from nudge_rag.feedback.interleaving import NEW
from nudge_rag.solvers import NudgeN

DEPTH, QUERIES = 10, (50, 100, 200)
# Chances to click an answer and another node, and to stop after either.
READERS = {"navigational": (0.95, 0.05, 0.9, 0.2), "informational": (0.9, 0.4, 0.5, 0.1)}
GLANCES = (0.8, 0.1)

User = Callable[[Sequence[bool], np.random.Generator], list[int]]


def read_down(click: float, click_other: float, stop: float, stop_other: float) -> User:
    """Return a user who reads the ranks in order and may stop after a click."""

    def clicks(answers: Sequence[bool], rng: np.random.Generator) -> list[int]:
        found = []
        for rank, is_answer in enumerate(answers):
            if rng.random() < (click if is_answer else click_other):
                found.append(rank)
                if rng.random() < (stop if is_answer else stop_other):
                    break
        return found

    return clicks


def glance(answers: Sequence[bool], rng: np.random.Generator) -> list[int]:
    """Click by the position-based model with theta_k = 1/k."""
    chance = np.where(answers, *GLANCES) / np.arange(1, len(answers) + 1)
    return np.flatnonzero(rng.random(len(answers)) < chance).tolist()


def swap_alike(ranking: Sequence[str], answers: set[str]) -> list[str]:
    """Swap each two neighbours that are both answers, or both not: as good, and another order."""
    swapped, rank = list(ranking), 0
    while rank + 1 < len(swapped):
        if (swapped[rank] in answers) == (swapped[rank + 1] in answers):
            swapped[rank : rank + 2] = swapped[rank + 1], swapped[rank]
            rank += 1
        rank += 1
    return swapped


def run_once(
    rankings: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]],
    answers: Sequence[set[str]],
    user: User,
    seed: int,
) -> FeedbackLog:
    """Serve as many queries as there are at most, drawn without replacement, to one user each."""
    rng, draft = np.random.default_rng(seed), TeamDraft(seed)
    retrievals, feedback = [], []
    for number in rng.permutation(len(answers))[: max(QUERIES)]:
        drafted = draft.draft(rankings[0][number], rankings[1][number], DEPTH)
        key = f"r{len(retrievals)}"
        shown = tuple(ShownNode(node, team=team) for node, team in zip(drafted.ids, drafted.teams, strict=True))
        retrievals.append(Retrieval(key, f"query {number}", shown))
        clicked = user([node in answers[number] for node in drafted.ids], rng)
        feedback += [Feedback(key, drafted.ids[rank], "click") for rank in clicked]
    return FeedbackLog(tuple(retrievals), tuple(feedback))


def first_queries(log: FeedbackLog, n_queries: int) -> FeedbackLog:
    kept = log.retrievals[:n_queries]
    ids = {retrieval.query_id for retrieval in kept}
    return FeedbackLog(kept, tuple(event for event in log.feedback if event.query_id in ids))


def rank_test(data: Data, vectors: np.ndarray) -> list[list[str]]:
    best, _ = rank_nodes(data.embed(list(data.test.queries.values())), vectors, DEPTH, "cosine")
    return [[data.ids[row] for row in rows] for rows in best]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int)
    given = parser.parse_args()
    runs = given.runs or 100
    data = load("attack")
    answers = [{node for node, grade in grades.items() if grade > 0} for grades in data.test.qrels.values()]
    nudged = NudgeN().fit(data.nodes, data.labels(data.split.train), data.labels(data.split.val)).embeddings()
    live, new = rank_test(data, data.nodes), rank_test(data, nudged)
    alike = [swap_alike(ranking, right) for ranking, right in zip(live, answers, strict=True)]
    users: dict[str, User] = {name: read_down(*chances) for name, chances in READERS.items()}
    users["position-based"] = glance
    rows = []
    for name, user in users.items():
        equal = [compare_teams(run_once((live, alike), answers, user, seed)) for seed in range(runs)]
        told = sum(result.low <= 0.5 <= result.high for result in equal)
        share = np.mean([result.share for result in equal])
        logs = [run_once((live, new), answers, user, seed) for seed in range(runs)]
        found = [sum(compare_teams(first_queries(log, n)).winner == NEW for log in logs) for n in QUERIES]
        rows.append(f"| {name} | {told} | {share:.3f} | {' | '.join(map(str, found))} |")
        print(rows[-1], flush=True)
    if given.runs is not None:
        return
    lines = [
        f"`python -m benchmarks.interleaving`: {runs} runs each of {max(QUERIES)} test sentences of MITRE ATT&CK,",
        "asked by simulated users. Equal rankings: in how many runs 0.5 lies within the 95 % interval, and the mean",
        "share of wins. The nudge: in how many runs it is found to be better after so many queries.",
        machine("numpy"),
        "",
        f"| user | equal: 0.5 within | share | {' | '.join(f'found by {n}' for n in QUERIES)} |",
        f"|---|---|---|{'---|' * len(QUERIES)}",
        *rows,
    ]
    write_section("interleaving", "Interleaving", lines)


if __name__ == "__main__":
    main()

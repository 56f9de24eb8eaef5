"""Does a nudge still help behind BM25? nDCG@10 of vector search alone and fused with BM25 by rank, untuned and nudged.

    NUDGE_RAG_DATA=... python benchmarks/fusion.py                     # writes a section of benchmarks/README.md
    NUDGE_RAG_DATA=... python benchmarks/fusion.py scifact attack:300  # prints these sets' rows

Fusion is by reciprocal ranks (Cormack, Clarke, Büttcher, SIGIR 2009): a node scores sum 1 / (60 + rank) over both lists
of 100. BM25 is Okapi's with k1 = 1.2 and b = 0.75, over lower-case words. The sets are those of data_sets.py.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from data_sets import METRIC, Data, load
from report import machine, write_section

from nudge_rag import evaluate
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.evaluation.significance import bootstrap_interval
from nudge_rag.solvers import AutoSolver

SETS = ("scifact", "stackfaq", "attack:300")
K1, B, RANK_CONSTANT, DEPTH = 1.2, 0.75, 60, 100
WORD = re.compile(r"\w+")


class Bm25:
    """Okapi's BM25 over some texts.

    A word w scores idf(w) f (k1 + 1) / (f + k1 (1 - b + b length / mean length)) in a text that holds it f times, with
    idf(w) = log(1 + (n - n_w + 0.5) / (n_w + 0.5)).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(WORD.findall(text.lower())) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        self._norms = K1 * (1 - B + B * lengths / lengths.mean())
        postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, count in enumerate(counts):
            for word, times in count.items():
                postings[word].append((row, times))
        self._postings = {word: np.array(found).T for word, found in postings.items()}

    def scores(self, query: str) -> np.ndarray:
        """Of every text, in their order."""
        total = np.zeros(len(self._norms))
        for word in WORD.findall(query.lower()):
            if word in self._postings:
                rows, times = self._postings[word]
                idf = np.log1p((len(total) - len(rows) + 0.5) / (len(rows) + 0.5))
                total[rows] += idf * times * (K1 + 1) / (times + self._norms[rows])
        return total


def fuse(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Rows of two rankings by the sum of their reciprocal ranks, best first; of equals, the lower row first.

    Example:
        >>> fuse([4, 7], [7, 5])
        [7, 4, 5]
    """
    scores: dict[int, float] = defaultdict(float)
    for ranking in (first, second):
        for rank, row in enumerate(ranking, 1):
            scores[int(row)] += 1 / (RANK_CONSTANT + rank)
    return sorted(scores, key=lambda row: (-scores[row], row))


def evaluate_rows(data: Data, rankings: Sequence[Sequence[int]]) -> Evaluation:
    run = {query: [data.ids[row] for row in rows[:10]] for query, rows in zip(data.test.queries, rankings, strict=True)}
    return evaluate(data.test.qrels, run, [METRIC])


def rows_of(name: str) -> list[str]:
    """Table rows of one set."""
    data = load(name)
    texts = list(data.test.queries.values())
    queries, bm25 = data.embed(texts), Bm25(data.texts)
    words = [np.argsort(-bm25.scores(text), kind="stable")[:DEPTH] for text in texts]
    results = {"BM25": evaluate_rows(data, words)}
    train, val = data.labels(data.split.train), data.labels(data.split.val)
    for method in ("untuned", "nudged", "nudged, reach queries"):
        nodes, asked = data.nodes, queries
        if method != "untuned":
            reach = "labelled" if method == "nudged" else "queries"
            fit = AutoSolver(metric=METRIC, reach=reach).fit(data.nodes, train, val)
            nodes, asked = fit.embeddings(), queries if fit.adapter is None else fit.adapter(queries)
        ranked, _ = rank_nodes(asked, nodes, DEPTH, "cosine")
        results[f"vectors, {method}"] = evaluate_rows(data, ranked.tolist())
        results[f"both, {method}"] = evaluate_rows(data, [fuse(*pair) for pair in zip(ranked, words, strict=True)])
    lines = []
    for method, result in results.items():
        base = results.get(f"{method.split(',')[0]}, untuned", result)
        before, after = base.of(METRIC, list(data.test.qrels)), result.of(METRIC, list(data.test.qrels))
        interval = ""
        if (before != after).any():
            low, high = bootstrap_interval(before, after)
            interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        lines.append(f"| {name} | {method} | {100 * after.mean():.1f} | {interval} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Nudged against untuned vectors behind a fusion with BM25.")
    parser.add_argument(
        "sets", nargs="*", metavar="set", help=f"default {', '.join(SETS)}; NAME, NAME:withheld, NAME:COUNT"
    )
    names = parser.parse_args().sets
    lines = ["| set | search | nDCG@10 | against untuned |", "|---|---|---|---|"]
    print("\n".join(lines))
    lines += [line for name in names or SETS for line in rows_of(name)]
    if not names:
        text = [
            "nDCG@10 (times 100) of all test queries, by vectors, by BM25, and by both fused by reciprocal ranks; the",
            "interval is that of the difference to the same search with untuned vectors. A nudge helps behind the",
            "fusion too if the rows of both rise; it is worth fusing at all if they lie above those of the vectors.",
            machine("numpy"),
            "",
        ]
        write_section("fusion", "Behind BM25", text + lines)


if __name__ == "__main__":
    main()

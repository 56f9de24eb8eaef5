"""The story of the demo: index, tune, push, retrieve, roll back, and prove that the store is as it was."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nudge_rag.common.progress import track
from nudge_rag.demo.application import Application
from nudge_rag.demo.attack import Attack, load_attack
from nudge_rag.demo.encoder import CachedEncoder
from nudge_rag.demo.frameworks import build_application
from nudge_rag.evaluation.evaluate import Evaluation, evaluate
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.tuning.nudge import Nudge

__all__ = ["DEFAULT_PAIRS", "Outcome", "run_demo"]

DEFAULT_PAIRS = 5_000
METRICS = ("nDCG@10", "Recall@1", "Recall@10")
DEPTH = 10
TEXT_WIDTH = 96

Say = Callable[[str], None]
Rankings = dict[str, list[str]]


@dataclass(frozen=True)
class Outcome:
    """What the demo measured; ``to_dict`` is what ``--json`` writes."""

    framework: str
    store: str
    nudge: Nudge
    split: Split
    before: Evaluation
    after: Evaluation
    rolled_back_exactly: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {
            "framework": self.framework,
            "store": self.store,
            "solver": self.nudge.solver,
            "before": self.before.means(),
            "after": self.after.means(),
            "gamma": self.nudge.gamma,
            "queries": {name: part.n_queries for name, part in zip(Split._fields, self.split, strict=True)},
            "rolled_back_exactly": self.rolled_back_exactly,
        }


def run_demo(
    framework: str, store: str, n_pairs: int | None, say: Say, *, seed: int = 0, solver: str = "auto"
) -> Outcome:
    """Run the whole demo in a temporary folder.

    Args:
        framework: ``llama-index`` or ``langchain``.
        store: ``chroma``, ``simple`` or ``in-memory``.
        n_pairs: how many labelled sentences; None for all.
        say: takes each line of the story.
        seed: of the sample and of the split.
        solver: as `nudge_rag.tune`.
    """
    attack = load_attack()
    pairs = attack.pairs if n_pairs is None else attack.sample(n_pairs, seed=seed)
    say(f"MITRE ATT&CK: {len(attack.nodes)} techniques, {pairs.n_queries} labelled sentences; {framework}, {store}")
    encoder = CachedEncoder()
    # Embedded here rather than one by one through the framework, for one progress bar and full batches.
    encoder.encode(list(attack.nodes.values()), "embedding techniques")
    encoder.encode(list(pairs.queries.values()), "embedding sentences")
    # Chroma keeps its files open until the process ends, which some systems do not let be deleted.
    with tempfile.TemporaryDirectory(prefix="nudge-rag-demo-", ignore_cleanup_errors=True) as folder:
        application = build_application(framework, store, attack, encoder, Path(folder))
        split = pairs.split(seed=seed)
        return _tune_and_undo(application, attack, split, solver, framework, store, say)


def _tune_and_undo(
    application: Application, attack: Attack, split: Split, solver: str, framework: str, store: str, say: Say
) -> Outcome:
    fingerprint = _fingerprint(application)
    rankings_before = _retrieve(application, split.test, "retrieving, before")
    nudge = application.tune(split, solver)
    say(f"\n{nudge}\n")
    receipt = nudge.push(force=True)
    say(f"pushed {receipt.written} vectors; their originals are saved")
    rankings_after = _retrieve(application, split.test, "retrieving, after")
    before, after = (evaluate(split.test.qrels, run, METRICS) for run in (rankings_before, rankings_after))
    say("through NudgeRetriever: " + ", ".join(f"{m} {before.mean(m):.3f} -> {after.mean(m):.3f}" for m in METRICS))
    _show_examples(attack, split.test, rankings_before, rankings_after, say)
    nudge.rollback()
    exact = _fingerprint(application) == fingerprint
    say(
        f"\nrolled back: vectors, texts and metadata are {'as they were, bit for bit' if exact else 'NOT as they were'}"
    )
    return Outcome(framework, store, nudge, split, before, after, exact)


def _retrieve(application: Application, pairs: LabeledPairs, what: str) -> Rankings:
    return {
        query: application.search(text, DEPTH)
        for query, text in track(pairs.queries.items(), what, total=pairs.n_queries)
    }


def _fingerprint(application: Application) -> str:
    """Compute a checksum of every id, vector, text and metadata in the store."""
    contents = application.contents()
    digest = hashlib.sha256()
    entries = sorted(
        (node_id, vector.tobytes())
        for ids, vectors in application.store.scan()
        for node_id, vector in zip(ids, vectors, strict=True)
    )
    for node_id, vector in entries:
        for part in (node_id.encode(), vector, contents[node_id].encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _show_examples(attack: Attack, test: LabeledPairs, before: Rankings, after: Rankings, say: Say) -> None:
    """Show three queries whose answer moved up to the top, and one whose answer moved down."""
    moves = {query: (_rank(before[query], test, query), _rank(after[query], test, query)) for query in test.queries}
    better = sorted((q for q, (old, new) in moves.items() if new < old), key=lambda q: (moves[q][1], -moves[q][0]))
    worse = sorted((q for q, (old, new) in moves.items() if new > old), key=lambda q: (moves[q][0], -moves[q][1]))
    for title, chosen in (("better", better[:3]), ("worse", worse[:1])):
        for query in chosen:
            say(f"\n{title}: {_shortened(test.queries[query])}")
            wanted = next(node for node in test.qrels[query])
            say(f"  wanted  {_named(attack, wanted)}: {_place(moves[query][0])} -> {_place(moves[query][1])}")
            say(f"  first   {_named(attack, before[query][0])} -> {_named(attack, after[query][0])}")


def _rank(ranking: list[str], test: LabeledPairs, query: str) -> int:
    """Return the place of the best answer, from 1; one past the depth if none was found."""
    return next((place for place, node in enumerate(ranking, start=1) if node in test.qrels[query]), DEPTH + 1)


def _place(rank: int) -> str:
    return f"place {rank}" if rank <= DEPTH else f"not in the top {DEPTH}"


def _named(attack: Attack, node: str) -> str:
    return f"{attack.names[node]} ({node})"


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 3] + "..."

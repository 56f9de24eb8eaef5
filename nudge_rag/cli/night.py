"""One night: labels, tune, gate, push, report; a night that was killed goes on at its next step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nudge_rag.cli.evaluating import compare_stores, name_states
from nudge_rag.cli.judging import load_judge
from nudge_rag.cli.night_config import NightConfig
from nudge_rag.cli.night_folder import (
    STEPS,
    Night,
    last_labels,
    log_event,
    new_name,
    read_state,
    remove_old,
    write_state,
)
from nudge_rag.cli.resources import load_model, load_pairs, open_lasting_store, open_named_store
from nudge_rag.cli.secrets import mask_secrets, secrets_of
from nudge_rag.cli.texts import load_documents, load_texts

if TYPE_CHECKING:
    from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
    from nudge_rag.feedback.pairs import LabeledPairs, Split
    from nudge_rag.stores.base import EmbeddingStore
    from nudge_rag.tuning.nudge import Nudge
    from nudge_rag.tuning.options import SolverName

__all__ = ["STEPS", "Night", "run_night", "split_by_text"]

EVALUATION = "evaluation.html"
# A night that failed so often is given up, so that one bad file does not stop every night after it.
MOST_ATTEMPTS = 3


def run_night(config: NightConfig, now: datetime | None = None) -> Night:
    """Go on with the night that was interrupted, or begin one, and run it to its end.

    The caller holds the lock of ``config.folder``. Every step writes its results before the state says that it is done,
    and gives the same result if it is run again; a push that died is finished or undone by the library first.
    """
    night = read_state(config.folder)
    if night is None or night.next_step() is None or night.attempts >= MOST_ATTEMPTS:
        if night is not None and night.next_step() is not None:
            log_event(config.folder, night, "given up", {"attempts": night.attempts})
        night = Night(new_name(config.folder, now or datetime.now(UTC)), [], 0, {})
    night.attempts += 1
    write_state(config.folder, night)
    log_event(config.folder, night, "begin" if night.attempts == 1 else "go on", {"next": night.next_step()})
    work = config.folder / night.name
    work.mkdir(parents=True, exist_ok=True)
    run: dict[str, Callable[[NightConfig, Night, Path], dict[str, Any]]] = {
        "labels": _gather_labels, "tune": _tune, "gate": _gate, "push": _push, "report": _report,
    }  # fmt: skip
    while (step := night.next_step()) is not None:
        try:
            facts = run[step](config, night, work)
        except Exception as error:
            told = mask_secrets(f"{type(error).__name__}: {error}", secrets_of([config.store]))
            log_event(config.folder, night, "failed", {"step": step, "error": " ".join(told.split())})
            raise
        night.facts |= facts
        night.done.append(step)
        write_state(config.folder, night)
        log_event(config.folder, night, step, facts)
    log_event(config.folder, night, "end", {"pushed": night.facts.get("pushed", False)})
    remove_old(config.folder, night, config.keep)
    return night


def split_by_text(pairs: LabeledPairs, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> Split:
    """Divide queries by a hash of their text: a query is in the same part every night.

    Else a query that last night was trained on could be a test tonight, and what is live would look better than it is.
    """
    from nudge_rag.feedback.pairs import Split

    edges = np.cumsum(fractions)
    parts: list[list[str]] = [[], [], []]
    for query, text in pairs.queries.items():
        digest = hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        parts[min(int(np.searchsorted(edges, place, side="right")), 2)].append(query)
    return Split(*(pairs.subset(part) for part in parts))


def _gather_labels(config: NightConfig, night: Night, work: Path) -> dict[str, Any]:
    """Read every file of pairs and the recorder, once: what arrives later is for the next night."""
    from nudge_rag.feedback.recorder import Recorder

    paths = config.pair_files()
    parts = [load_pairs([str(path)], config.format, "skip") for path in paths]
    if config.recorder is not None:
        recorder = Recorder(config.recorder)
        try:
            recorded = recorder.log().to_pairs()
        finally:
            recorder.close()
        parts += [recorded] if recorded.n_queries else []
    if not parts:
        return {"over": "there are no labels", "pushed": False}
    pairs = parts[0]
    for part in parts[1:]:
        pairs = pairs + part
    pairs.to_jsonl(work / "labels.jsonl")
    digest = hashlib.sha256((work / "labels.jsonl").read_bytes()).hexdigest()
    facts = {"queries": pairs.n_queries, "pairs": len(pairs), "files": [str(path) for path in paths], "labels": digest}
    if digest == last_labels(config.folder) and _is_in_place(config):
        facts |= {"over": "no label is new, and the nudge is in place", "pushed": False}
    return facts


def _is_in_place(config: NightConfig) -> bool:
    from nudge_rag import status

    found = status(open_named_store(config.store), **config.where())
    # Nodes that are missing may be there under new ids, which texts tell.
    is_away = found.missing and load_texts(config.texts, config.store, config.root) is not None
    return found.version is not None and not (found.lost or found.changed or found.returned or is_away)


def _tune(config: NightConfig, night: Night, work: Path) -> dict[str, Any]:
    """Tune from the originals, and save the nudge and the pairs that it is judged on."""
    from nudge_rag.tuning.tune import tune

    split = split_by_text(load_pairs([str(work / "labels.jsonl")]))
    texts = load_texts(config.texts, config.store, config.root)
    documents = load_documents(config.documents, config.store)
    if not all(part.n_queries for part in split):
        return {"over": "there are too few labels to hold some out", "pushed": False}
    nudge = tune(
        open_lasting_store(config.store),
        split,
        load_model(config.model),
        solver=cast("SolverName", config.solver),  # tune names what it does not know
        metrics=config.metrics,
        model=config.model_name,
        texts=texts,
        documents=documents,
        judge=load_judge(config.judge, config.store, config.model, config.versions),
        **config.where(),
    )
    if nudge.split is not None and (texts is not None or documents is not None):
        split = nudge.split  # labels of nodes that have other ids now go to these
    if nudge.judgement is not None and nudge.judgement.evaluation is not None:
        # A saved nudge knows queries by hashes of their texts, so the page is written now.
        nudge.judgement.evaluation.report(work / EVALUATION, title=f"Gate of {night.name}")
    nudge.save(work / "nudge")
    split.test.to_jsonl(work / "test.jsonl")
    split.train.to_jsonl(work / "train.jsonl")
    facts: dict[str, Any] = {"improves": nudge.improves, "gamma": nudge.gamma, "summary": nudge.summary}
    if nudge.gamma == 0:
        facts |= {"over": "no step helps", "pushed": False}
    return facts


def _gate(config: NightConfig, night: Night, work: Path) -> dict[str, Any]:
    """Compare with what is live, on pairs that neither was trained on; a judge has done so already."""
    judgement = _load_nudge(config, work, open_named_store(config.store)).judgement
    if judgement is not None:
        metric, reference, change = judgement.metric, judgement.baseline, judgement.after - judgement.before
        means = {reference: judgement.before, "new": judgement.after}
    else:
        found = _compare(config, work)
        metric, reference = found.metrics[0], found.systems[-2]
        change = found.row("nudged", metric).difference or 0.0
        means = {system: found.mean(system, metric) for system in found.systems}
        found.report(work / EVALUATION, title=f"Gate of {night.name}")  # and evaluation.json beside it
    facts = {"metric": metric, "compared_with": reference, "change": change, "means": means}
    if change < config.at_least:
        facts |= {"over": f"the gate is closed: {change:+.4f} is less than {config.at_least:+.4f}", "pushed": False}
    return facts


def _compare(config: NightConfig, work: Path) -> RetrieverComparison:
    store = open_named_store(config.store)
    nudge = _load_nudge(config, work, store)
    states = name_states(store, config.where(), nudge)
    pairs, train = load_pairs([str(work / "test.jsonl")]), load_pairs([str(work / "train.jsonl")])
    baseline = list(states)[-2]
    return compare_stores(states, pairs, load_model(config.model), config.metrics, trained_on=train, baseline=baseline)


def _load_nudge(config: NightConfig, work: Path, store: EmbeddingStore) -> Nudge:
    from nudge_rag.tuning.nudge import Nudge

    return Nudge.load(work / "nudge", store, **config.where())


def _push(config: NightConfig, night: Night, work: Path) -> dict[str, Any]:
    """Push, unless the push of this night was done and only its record in the state is missing."""
    from nudge_rag import switch

    store = open_named_store(config.store)
    nudge = _load_nudge(config, work, store)
    already = _pushed_version(config, store, nudge)
    if already is not None:
        return {"pushed": True, "version": already, "again": True}
    receipt = nudge.push(mode=config.mode, force=config.force)
    facts: dict[str, Any] = {
        "pushed": receipt.pushed,
        "version": receipt.version,
        "written": receipt.written,
        "left_alone": len(receipt.changed_since) + len(receipt.missing),
    }
    if not receipt.pushed:
        facts["over"] = receipt.reason
    if receipt.pushed and config.mode == "side-by-side" and config.switch:
        facts["live"] = switch(store, **config.where()).version
    return facts


def _pushed_version(config: NightConfig, store: EmbeddingStore, nudge: Nudge) -> str | None:
    from nudge_rag import status, versions

    if config.mode != "in-place":
        return None
    found = status(store, **config.where())
    live = next((version for version in versions(store, **config.where()) if version.name == found.version), None)
    if live is None or found.state != "committed":
        return None
    written = dict(zip(live.ids, live.after, strict=True))
    wanted = store.as_stored(nudge.vectors)
    same = all(
        node in written and written[node].tobytes() == vector.tobytes()
        for node, vector in zip(nudge.ids, wanted, strict=True)
    )
    return live.name if same else None


def _report(config: NightConfig, night: Night, work: Path) -> dict[str, Any]:
    """Write the page of the night."""
    store = open_named_store(config.store)
    labels = load_pairs([str(work / "labels.jsonl")])
    page = _load_nudge(config, work, store).report(work / "report.html", title=f"Nudge of {night.name}", pairs=labels)
    return {"report": str(page)}

"""``tune``, ``push`` and ``eval``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nudge_rag.cli.judging import load_judge
from nudge_rag.cli.outcome import DONE, NO, PARTLY, Outcome, UsageError
from nudge_rag.cli.resources import (
    add_format,
    add_report,
    add_store,
    add_yes,
    check_report_file,
    confirm,
    journal_of,
    load_model,
    load_pairs,
    open_lasting_store,
    open_named_store,
)
from nudge_rag.cli.texts import add_documents, add_texts, load_documents, load_texts

if TYPE_CHECKING:
    from nudge_rag.tuning.nudge import Nudge

__all__ = ["add_commands", "describe_nudge", "push_nudge"]

# What of `Nudge.to_dict` the command line tells; the rest is in the report and in what ``--output`` saves.
TOLD = ("improves", "solver", "gamma", "nodes", "summary", "comparison", "judgement", "tried", "other_reaches")


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers of the group."""
    _add_tune(commands, common)
    _add_push(commands, common)
    _add_evaluate(commands, common)


def _add_tune(commands: Any, common: argparse.ArgumentParser) -> None:
    tune = commands.add_parser("tune", help="find a nudge for labelled pairs, and judge it", parents=[common])
    add_store(tune)
    tune.add_argument("pairs", metavar="PAIRS", nargs="+", help="files of labelled pairs, or BEIR folders")
    tune.add_argument("--model", required=True, metavar="MODEL", help="sentence-transformers folder or module:object")
    tune.add_argument(
        "--judge",
        metavar="JUDGE",
        help="module:function from a store to your own retriever, whose answers decide instead of plain search",
    )
    tune.add_argument("-o", "--output", metavar="FOLDER", help="save the nudge, for push and report")
    tune.add_argument("--save-texts", action="store_true", help="save texts of held-out queries and answers too")
    tune.add_argument("--solver", default="auto", help="auto (default), nudge-n, nudge-m or nudge-contrastive")
    tune.add_argument(
        "--reach",
        choices=("labelled", "queries", "nodes"),
        default="labelled",
        help="queries: also learn a map that every query must pass, which helps nodes without labels; nodes: map nodes",
    )
    tune.add_argument(
        "--metrics", default=None, metavar="NAMES", help="such as nDCG@10,Recall@5; the first one decides"
    )
    tune.add_argument("--split", default="0.7,0.1,0.2", metavar="T,V,T", help="train, validation and test fractions")
    tune.add_argument("--seed", type=int, default=0, help="of the split")
    tune.add_argument("--model-name", metavar="NAME", help="name of the embedding model, for the record")
    add_texts(tune)
    add_documents(tune)
    add_format(tune)
    add_report(tune)
    tune.add_argument("--push", action="store_true", help="push if it improves")
    tune.add_argument("--side-by-side", action="store_true", help="push to a copy, which switch makes live")
    tune.add_argument("--force", action="store_true", help="push also what does not improve")
    add_yes(tune)
    tune.set_defaults(run=_tune)


def _add_push(commands: Any, common: argparse.ArgumentParser) -> None:
    push = commands.add_parser("push", help="write a saved nudge to its store", parents=[common])
    add_store(push)
    push.add_argument("nudge", metavar="NUDGE", help="folder that tune --output wrote")
    push.add_argument("--side-by-side", action="store_true", help="push to a copy, which switch makes live")
    push.add_argument("--force", action="store_true", help="push also what does not improve")
    add_yes(push)
    push.set_defaults(run=_push)


def _add_evaluate(commands: Any, common: argparse.ArgumentParser) -> None:
    evaluate = commands.add_parser("eval", help="compare untuned, live and nudged on labelled pairs", parents=[common])
    add_store(evaluate)
    evaluate.add_argument("pairs", metavar="PAIRS", nargs="+", help="pairs that the nudge was not tuned on")
    evaluate.add_argument(
        "--model", required=True, metavar="MODEL", help="sentence-transformers folder or module:object"
    )
    evaluate.add_argument("--nudge", metavar="NUDGE", help="also the store as it would be with this saved nudge")
    evaluate.add_argument("--metrics", default=None, metavar="NAMES", help="such as nDCG@10,Recall@10")
    evaluate.add_argument("--trained-on", nargs="+", metavar="PAIRS", help="training pairs: show covered queries apart")
    add_format(evaluate)
    add_report(evaluate)
    evaluate.add_argument(
        "--fail-under",
        metavar="METRIC:CHANGE",
        help="end with 1 if the last retriever does not change by at least this, such as nDCG@10:+0.01",
    )
    evaluate.set_defaults(run=_evaluate)


def split_names(names: str | None, default: tuple[str, ...]) -> list[str]:
    """Return the names in a list with commas."""
    return list(default) if names is None else [name.strip() for name in names.split(",") if name.strip()]


def parse_fractions(text: str, option: str = "--split") -> tuple[float, float, float]:
    """Return three numbers separated by commas."""
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} must be three numbers such as 0.7,0.1,0.2, got {text!r}") from None
    return train, val, test


def _tune(arguments: argparse.Namespace) -> Outcome:
    """Tune, and with ``--push`` push what improves."""
    from nudge_rag.tuning.options import DEFAULT_METRICS
    from nudge_rag.tuning.tune import tune

    check_report_file(arguments.report)
    store = open_lasting_store(arguments.store) if arguments.push else open_named_store(arguments.store)
    nudge = tune(
        store,
        load_pairs(arguments.pairs, arguments.format, encoding=arguments.encoding),
        load_model(arguments.model),
        solver=arguments.solver,
        reach=arguments.reach,
        metrics=split_names(arguments.metrics, DEFAULT_METRICS),
        split=parse_fractions(arguments.split),
        seed=arguments.seed,
        model=arguments.model_name,
        texts=load_texts(arguments.texts, arguments.store),
        documents=load_documents(arguments.documents, arguments.store),
        judge=load_judge(arguments.judge, arguments.store, arguments.model, arguments.versions),
        **journal_of(arguments),
    )
    lines, result = [str(nudge)], describe_nudge(nudge)
    if arguments.output:
        nudge.save(arguments.output, texts=arguments.save_texts)
        lines.append(f"saved to {arguments.output}")
        result["saved"] = str(arguments.output)
    if arguments.report:
        nudge.report(arguments.report)
        lines.append(f"report written to {arguments.report}")
        result["report"] = str(arguments.report)
    if not arguments.push:
        return Outcome("\n\n".join(lines), result, DONE if nudge.improves else NO)
    pushed = push_nudge(nudge, arguments)
    return Outcome("\n\n".join([*lines, pushed.text]), {**result, **pushed.result}, pushed.code)


def describe_nudge(nudge: Nudge) -> dict[str, Any]:
    """Return a nudge as plain values, without its vectors."""
    told = nudge.to_dict()
    return {name: told[name] for name in TOLD}


def _push(arguments: argparse.Namespace) -> Outcome:
    """Push a saved nudge."""
    open_lasting_store(arguments.store)
    return push_nudge(load_nudge(arguments), arguments)


def load_nudge(arguments: argparse.Namespace) -> Nudge:
    """Return the saved nudge that the arguments name."""
    from nudge_rag.tuning.nudge import Nudge

    if not Path(arguments.nudge).is_dir():
        raise UsageError(f"there is no folder {arguments.nudge}: tune --output writes one")
    return Nudge.load(arguments.nudge, open_named_store(arguments.store), **journal_of(arguments))


def push_nudge(nudge: Nudge, arguments: argparse.Namespace) -> Outcome:
    """Push ``nudge`` as the arguments say."""
    mode = "side-by-side" if arguments.side_by_side else "in-place"
    if arguments.dry_run:
        return _try_push(nudge, mode, arguments.force)
    if not confirm(arguments, f"Write {len(nudge.ids):,} vectors to {nudge.store.name}, {mode}?"):
        return Outcome("Nothing was pushed.", {"pushed": False, "reason": "not confirmed"}, NO)
    receipt = nudge.push(mode=mode, force=arguments.force)
    left = [*receipt.changed_since, *receipt.missing]
    result = {
        "pushed": receipt.pushed,
        "written": receipt.written,
        "version": receipt.version,
        "reason": receipt.reason,
        "changed_since": list(receipt.changed_since),
        "missing": list(receipt.missing),
    }
    return Outcome(str(receipt), result, NO if not receipt.pushed else PARTLY if left else DONE)


def _try_push(nudge: Nudge, mode: str, force: bool) -> Outcome:
    """Say what a push would do; nothing is written."""
    refusal = nudge.refusal(force=force)
    result = {"would_push": refusal is None, "nodes": len(nudge.ids), "reason": refusal}
    if refusal is None:
        return Outcome(f"{len(nudge.ids):,} vectors would be written ({mode}).", result)
    return Outcome(f"Nothing would be pushed: {refusal}.", result, NO)


def _evaluate(arguments: argparse.Namespace) -> Outcome:
    """Compare the store as it is with its originals, and with a saved nudge."""
    from nudge_rag.cli.evaluating import compare_states, passes_gate
    from nudge_rag.evaluation.retrievers import DEFAULT_MEASURES

    check_report_file(arguments.report)
    metrics = split_names(arguments.metrics, DEFAULT_MEASURES)
    found = compare_states(arguments, metrics)
    lines, result = [str(found)], found.to_dict()
    if arguments.report:
        found.report(arguments.report)
        lines.append(f"report written to {arguments.report}")
        result["report"] = str(arguments.report)
    code = PARTLY if found.failures else DONE
    if arguments.fail_under:
        passed, sentence = passes_gate(found, arguments.fail_under)
        lines.append(sentence)
        result["gate"] = {"passed": passed, "text": sentence}
        code = code if passed else NO
    return Outcome("\n\n".join(lines), result, code)

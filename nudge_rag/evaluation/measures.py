"""Values of measures, per query: from ir-measures if it is installed, else from our own metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.evaluation.metrics import FAMILIES, Metric, parse_metric
from nudge_rag.evaluation.runs import evaluate_run

__all__ = ["cutoff_of", "measure_rankings", "resolve_measures"]

# Ours and theirs: the same measure under two names. CappedRecall is of nudge-ft; ir-measures does not have it.
IR_MEASURES_NAMES = {"nDCG": "nDCG", "Recall": "R", "MRR": "RR", "Success": "Success"}


def resolve_measures(names: Sequence[str | Metric]) -> list[Metric | str]:
    """Return our metrics as `Metric`, and the names of measures that ir-measures alone has.

    Raises:
        ValueError: no measure, one named twice, or one that nobody knows.
        ImportError: a measure that needs ir-measures, which is not installed.

    Example:
        >>> resolve_measures(["nDCG@10", "Recall@5"])
        [nDCG@10, Recall@5]
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"metrics must be a list of names such as ['nDCG@10'], got {names!r}")
    measures = [_resolve_measure(name) for name in names]
    if len(set(measures)) != len(measures):
        raise ValueError(f"a metric is named twice: {', '.join(str(measure) for measure in measures)}")
    return measures


def _resolve_measure(name: str | Metric) -> Metric | str:
    if isinstance(name, Metric) or not isinstance(name, str) or name.partition("@")[0] in FAMILIES:
        return parse_metric(name)
    ir_measures = _import_ir_measures()
    if ir_measures is None:
        raise ImportError(
            f"{name!r} is none of our metrics ({', '.join(FAMILIES)}, each with @k); other measures need ir-measures: "
            "pip install 'nudge-rag[evaluation]'"
        )
    try:
        return str(ir_measures.parse_measure(name))
    except (ValueError, NameError, SyntaxError) as error:
        raise ValueError(f"{name!r} is no measure of nudge-rag or ir-measures ({error})") from error


def cutoff_of(measures: Sequence[Metric | str], default: int = 10) -> int:
    """Return the largest k among the measures."""
    cutoffs = [measure.k for measure in measures if isinstance(measure, Metric)]
    for measure in measures:
        _, at, k = str(measure).rpartition("@")
        if at and k.isdigit():
            cutoffs.append(int(k))
    return max(cutoffs, default=default)


def measure_rankings(
    qrels: Mapping[str, Mapping[str, float]], rankings: Mapping[str, Sequence[str]], measures: Sequence[Metric | str]
) -> tuple[dict[str, Float64Array], dict[str, str]]:
    """Return the values of every measure, (len(qrels),), and by what each was computed.

    A query without a ranking is 0. ir-measures takes integer grades only: with other grades, or if it is not installed,
    our own metrics give the values.

    Args:
        qrels: query id to {node id: grade}.
        rankings: query id to node ids, best first.
        measures: of `resolve_measures`.

    Raises:
        ValueError: a measure of ir-measures alone, and grades that are not integers.
    """
    ir_measures = _import_ir_measures()
    whole = all(float(grade).is_integer() for grades in qrels.values() for grade in grades.values())
    theirs = [m for m in measures if ir_measures is not None and whole and _ir_name(m) is not None]
    ours = [m for m in measures if m not in theirs]
    unknown = [m for m in ours if not isinstance(m, Metric)]
    if unknown:
        raise ValueError(f"{', '.join(map(str, unknown))} of ir-measures needs whole grades; these labels have others")
    values: dict[str, Float64Array] = {}
    sources: dict[str, str] = {}
    if ours:
        evaluation = evaluate_run(qrels, rankings, [m for m in ours if isinstance(m, Metric)])
        values |= {str(metric): found for metric, found in evaluation.values.items()}
        sources |= {str(metric): "nudge-rag" for metric in evaluation.values}
    if theirs:
        values |= _by_ir_measures(ir_measures, qrels, rankings, theirs)
        sources |= {str(measure): f"ir-measures {_version()}" for measure in theirs}
    return {str(m): values[str(m)] for m in measures}, {str(m): sources[str(m)] for m in measures}


def _ir_name(measure: Metric | str) -> str | None:
    if isinstance(measure, str):
        return measure
    name = IR_MEASURES_NAMES.get(measure.family)
    return None if name is None else f"{name}@{measure.k}"


def _by_ir_measures(
    ir_measures: Any,
    qrels: Mapping[str, Mapping[str, float]],
    rankings: Mapping[str, Sequence[str]],
    measures: Sequence[Metric | str],
) -> dict[str, Float64Array]:
    parsed = {ir_measures.parse_measure(_ir_name(measure)): str(measure) for measure in measures}
    # Some of its measures run programs that read files, in which an id with a space is two: ids are numbers here.
    row_of = {query: row for row, query in enumerate(qrels)}
    number_of: defaultdict[str, str] = defaultdict(lambda: str(len(number_of)))
    # A rejection (a grade below 0) counts as not relevant, as in our own metrics.
    whole = {
        str(row_of[query]): {number_of[node]: max(int(grade), 0) for node, grade in grades.items()}
        for query, grades in qrels.items()
    }
    # trec_eval breaks ties by id: strictly decreasing scores keep the retriever's own order.
    run = {
        str(row_of[query]): {number_of[node]: float(len(ranking) - rank) for rank, node in enumerate(ranking)}
        for query, ranking in rankings.items()
        if ranking and query in row_of
    }
    values = {name: np.zeros(len(qrels)) for name in parsed.values()}
    for result in ir_measures.iter_calc(list(parsed), whole, run):
        values[parsed[result.measure]][int(result.query_id)] = result.value
    return values


def _import_ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError:
        return None
    return ir_measures


def _version() -> str:
    from importlib.metadata import version

    return version("ir-measures")

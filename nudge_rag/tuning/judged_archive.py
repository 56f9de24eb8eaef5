"""The judge's evaluation in a saved nudge: numbers, rankings, and hashes of the queries' texts or these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from nudge_rag.common.archive import is_number
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
from nudge_rag.evaluation.runs import Evaluation, evaluate_run
from nudge_rag.evaluation.system_row import SystemRow
from nudge_rag.journal.text_hashes import hash_text
from nudge_rag.tuning.held_out import HeldOutQueries
from nudge_rag.tuning.judge import LIVE, NEW, ORIGINALS

__all__ = ["JUDGED", "pack_evaluation", "unpack_evaluation"]

# Of an archive: the array of rankings, and what the manifest says of them.
JUDGED = "judged"
STATES = (ORIGINALS, LIVE, NEW)
NAMES = ("group", "metric", "system")
# What a row has if it is compared with the baseline's, all of it or nothing.
COMPARED = ("difference", "low", "high", "p_value", "adjusted_p_value", "wins", "ties", "losses")


def pack_evaluation(evaluation: RetrieverComparison, *, texts: bool) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return what an archive holds of the judge's evaluation: plain values, and the rankings.

    Ids of queries and messages of errors may hold texts: of an error its type is kept, of a query left out a hash.

    Args:
        evaluation: of a `Judgement`.
        texts: whether the texts of queries are saved; else their hashes are.
    """
    systems = {
        system: Evaluation(evaluation.query_ids, {}, evaluation.rankings[system]) for system in evaluation.systems
    }
    ranked = HeldOutQueries(evaluation.pairs, systems, evaluation.metrics[0], evaluation.depth)
    plain, places = ranked.pack({} if texts else None)
    return {
        **plain,
        "baseline": evaluation.baseline,
        "metrics": list(evaluation.metrics),
        "sources": dict(evaluation.sources),
        "rows": [asdict(row) for row in evaluation.rows],
        "overlap": dict(evaluation.overlap),
        "failures": {
            system: [error.partition(":")[0] for error in found.values()]
            for system, found in evaluation.failures.items()
        },
        "duplicates": {system: list(found.values()) for system, found in evaluation.duplicates.items()},
        "excluded": [hash_text(query) for query in evaluation.excluded],
    }, places


def unpack_evaluation(plain: Mapping[str, Any], places: np.ndarray[Any, Any]) -> RetrieverComparison:
    """Return what `pack_evaluation` made.

    Raises:
        KeyError: something is missing.
        TypeError: a value of another type.
        ValueError: values that do not fit together.
    """
    ranked = HeldOutQueries.unpack(plain, places, STATES)
    metrics, systems, baseline = plain["metrics"], ranked.systems, plain["baseline"]
    if not isinstance(metrics, list) or metrics[:1] != [ranked.metric] or baseline not in systems:
        raise ValueError(f"metrics {metrics!r:.100} and the baseline {baseline!r:.100} do not fit the rankings")
    parsed = {str(parse_metric(name)): parse_metric(name) for name in metrics}
    values = {}
    for system, rankings in ranked.rankings.items():
        found = evaluate_run(ranked.pairs.qrels, rankings, list(parsed.values()))
        values[system] = {name: found.values[metric] for name, metric in parsed.items()}
    return RetrieverComparison(
        systems=systems,
        baseline=baseline,
        metrics=tuple(parsed),
        pairs=ranked.pairs,
        values=values,
        rows=_parse_rows(plain["rows"], systems, tuple(parsed)),
        sources={name: _checked(_known(plain["sources"], parsed)[name], str) for name in parsed},
        rankings=ranked.rankings,
        failures=_numbered(plain["failures"], systems, str),
        duplicates=_numbered(plain["duplicates"], systems, int),
        overlap={
            system: float(_checked(overlap, int, float))
            for system, overlap in _known(plain["overlap"], systems).items()
        },
        depth=ranked.depth,
        excluded=tuple(_checked(query, str) for query in _checked(plain["excluded"], list)),
    )


def _parse_rows(rows: Any, systems: tuple[str, ...], metrics: tuple[str, ...]) -> tuple[SystemRow, ...]:
    """The rows; every system and metric has one for all queries, which tables begin with."""
    parsed = tuple(_parse_row(row) for row in _checked(rows, list))
    named = {(row.group, row.system, row.metric) for row in parsed}
    wanted = {("all", system, metric) for system in systems for metric in metrics}
    if len(named) != len(parsed) or not wanted <= named:
        raise ValueError("the rows are not one a group, system and metric")
    if any(row.system not in systems or row.metric not in metrics for row in parsed):
        raise ValueError("a row is of a system or metric that was not judged")
    return parsed


def _parse_row(plain: Any) -> SystemRow:
    row = SystemRow(**plain)
    for name in NAMES:
        _checked(getattr(row, name), str)
    _checked(row.n_queries, int)
    compared = [getattr(row, name) for name in COMPARED]
    if row.mean is not None:
        _checked(row.mean, int, float)
    if any(value is not None for value in compared):
        for value in (row.mean, *compared):
            _checked(value, int, float)
    return row


def _known(plain: Any, names: Any) -> dict[str, Any]:
    found: dict[str, Any] = _checked(plain, dict)
    if not set(found) <= set(names):
        raise ValueError(f"{', '.join(sorted(set(found) - set(names)))!r:.100} was not judged")
    return found


def _numbered(plain: Any, systems: tuple[str, ...], kind: type) -> dict[str, dict[str, Any]]:
    """What is told of some queries of a system, by numbers instead of their ids."""
    return {
        system: {f"query {row}": _checked(value, kind) for row, value in enumerate(_checked(values, list))}
        for system, values in _known(plain, systems).items()
        if values
    }


def _checked(value: Any, *kinds: type) -> Any:
    fits = isinstance(value, kinds) and (is_number(value) or not {int, float} & set(kinds))
    if not fits or (kinds == (int,) and value < 0):
        raise TypeError(f"{value!r:.100} is no {' or '.join(kind.__name__ for kind in kinds)}")
    return value

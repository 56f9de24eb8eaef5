"""Interleaving finds ATT&CK's nudge within 200 queries."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.data_sets import load
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.feedback.interleaving import NEW, TeamDraft
from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.recorder import Recorder
from nudge_rag.solvers import NudgeN

DEPTH = 10
# The navigational user of Hofmann, Whiteson and de Rijke (2013): chances to click, and to stop after a click.
CLICKS, STOPS = {True: 0.95, False: 0.05}, {True: 0.9, False: 0.2}


@pytest.fixture(scope="module")
def attack():
    data = load("attack")
    nudged = NudgeN().fit(data.nodes, data.labels(data.split.train), data.labels(data.split.val)).embeddings()
    return data, nudged


@pytest.mark.parametrize("seed", range(5))
def test_200_queries_are_enough(attack, tmp_path, seed):
    data, nudged = attack
    rng = np.random.default_rng(seed)
    asked = rng.choice(list(data.test.queries), 200, replace=False)
    queries = data.embed([data.test.queries[query] for query in asked])
    rankings = [rank_nodes(queries, vectors, DEPTH, "cosine")[0] for vectors in (data.nodes, nudged)]
    recorder, draft = Recorder(tmp_path / "feedback.sqlite3"), TeamDraft(seed=seed)
    for query, live, new in zip(asked, *rankings, strict=True):
        drafted = draft.draft([data.ids[row] for row in live], [data.ids[row] for row in new], DEPTH)
        shown = [ShownNode(node, team=team) for node, team in zip(drafted.ids, drafted.teams, strict=True)]
        recorder.record(data.test.queries[query], shown, query_id=query)
        for node in drafted.ids:
            answers = data.test.qrels[query].get(node, 0) > 0
            if rng.random() < CLICKS[answers]:
                recorder.feedback(query, node, "click")
                if rng.random() < STOPS[answers]:
                    break
    result = recorder.compare()
    recorder.close()
    assert (result.winner, result.n_queries, result.more_queries) == (NEW, 200, 0), str(result)

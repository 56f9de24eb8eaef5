"""Read node ids from what a retriever, a query engine or a function returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from nudge_rag.evaluation.runs import order_by_score

__all__ = ["NodeIdOf", "rank_answer"]

NodeIdOf = Callable[[Any], str]


def rank_answer(answer: Any, node_id: NodeIdOf | None = None) -> tuple[list[str], int]:
    """Return the node ids of an answer, best first, and how many repeats were removed.

    Args:
        answer: node ids, LlamaIndex nodes (with or without a score), LangChain documents, a query engine's response,
            pairs of one of these and a score, or a mapping of node ids to scores (larger is better).
        node_id: takes one item of the answer and returns the id that the labels use, such as a parent's.

    Raises:
        TypeError: an item that has no node id; a set, which has no order.
        ValueError: an item whose id is empty or None; a score that is no number.

    Example:
        >>> rank_answer(["a", "b", "a"])
        (['a', 'b'], 1)
        >>> rank_answer({"a": 0.1, "b": 0.7})
        (['b', 'a'], 0)
    """
    items = _items_of(answer)
    ids = [_id_of(item) if node_id is None else _checked_id(node_id(item), item) for item in items]
    distinct = list(dict.fromkeys(ids))
    return distinct, len(ids) - len(distinct)


def _items_of(answer: Any) -> Sequence[Any]:
    sources = getattr(answer, "source_nodes", None)  # LlamaIndex's Response
    if sources is not None:
        return list(sources)
    if isinstance(answer, Mapping):
        return order_by_score(answer)
    if isinstance(answer, Set):
        raise TypeError(f"a {type(answer).__name__} has no order: a retriever must return a list, best first")
    if isinstance(answer, str | bytes) or not hasattr(answer, "__iter__"):
        raise TypeError(
            "a retriever must return a list of node ids, nodes or documents, or a response with source_nodes, "
            f"got {type(answer).__name__}"
        )
    return list(answer)


def _id_of(item: Any) -> str:
    if isinstance(item, str):
        return _checked_id(item, item)
    if isinstance(item, tuple) and len(item) == 2:  # similarity_search_with_score
        return _id_of(item[0])
    node = getattr(item, "node", item)  # NodeWithScore
    for name in ("node_id", "id_", "id"):
        if hasattr(node, name):
            return _checked_id(getattr(node, name), item)
    raise TypeError(f"{type(item).__name__} has no node id: pass node_id=, a function that returns it")


def _checked_id(found: object, item: object) -> str:
    if not isinstance(found, str) or not found:
        raise ValueError(
            f"the node id of a {type(item).__name__} must be a non-empty string, got {found!r}: pass node_id=, a "
            "function that returns it"
        )
    return found

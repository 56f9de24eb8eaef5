"""Generated questions learn and never judge, because they do not show what users ask."""

from __future__ import annotations

from nudge_rag.feedback.pairs import LabeledPairs, Split

__all__ = ["refuse_generated"]


def refuse_generated(pairs: LabeledPairs | Split) -> None:
    """Refuse a division by hand that has generated questions among the queries that choose or measure.

    Raises:
        ValueError: the val or test part has synthetic queries.

    Example:
        >>> made = LabeledPairs({"q": "leave"}, {"q": {"exit": 1.0}}, synthetic=frozenset(["q"]))
        >>> asked = LabeledPairs.from_pairs([("pay", "bill")])
        >>> refuse_generated(Split(made, asked, asked))
        >>> refuse_generated(Split(asked, made, asked))
        Traceback (most recent call last):
            ...
        ValueError: the val part has 1 generated question, such as 'leave', and none may judge: move it to train, or \
pass all pairs and let tune divide them
    """
    if not isinstance(pairs, Split):
        return
    for name in ("val", "test"):
        part: LabeledPairs = getattr(pairs, name)
        if part.synthetic:
            example = part.queries[min(part.synthetic)]
            one = len(part.synthetic) == 1
            raise ValueError(
                f"the {name} part has {len(part.synthetic)} generated question{'' if one else 's'}, such as "
                f"{example!r:.80}, and none may judge: move {'it' if one else 'them'} to train, or pass all pairs and "
                f"let tune divide them"
            )

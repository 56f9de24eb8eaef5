"""What votes look like: words for up and down, and columns that hold votes or grades under a name that nobody reads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

__all__ = ["DOWN", "UP", "VoteColumns"]

UP = {"relevant", "thumbs_up", "thumbs up", "up", "positive", "good", "correct", "yes", "true", "like", "helpful"}
UP |= {"\N{THUMBS UP SIGN}"}
DOWN = {"irrelevant", "not relevant", "not_relevant", "unrelated", "thumbs_down", "thumbs down", "down", "negative"}
DOWN |= {"bad", "incorrect", "no", "false", "dislike", "unhelpful", "\N{THUMBS DOWN SIGN}"}

OTHER_VOTES = {"y", "n", "right", "wrong", "liked", "disliked", "upvote", "downvote", "upvoted", "downvoted", "ok"}
OTHER_VOTES |= {"not helpful", "not_helpful", "accept", "accepted", "reject", "rejected"}
OTHER_VOTES |= {
    f"{thumb}{gap}{way}" for thumb in ("thumb", "thumbs") for gap in ("", " ", "_", "-") for way in ("up", "down")
}
VOTES = UP | DOWN | OTHER_VOTES
GAPS = {"", "-", "?", "n/a", "na", "nan", "none", "null", "neutral", "unknown"}
# Names under which numbers are grades, or counts that a grade is made of; not if a time or an id is named so.
GRADE_NAMES = {
    "grade",
    "graded",
    "score",
    "rating",
    "rated",
    "star",
    "relevance",
    "relevant",
    "rel",
    "label",
    "judgement",
}
GRADE_NAMES |= {"judgment", "thumb", "vote", "feedback", "like", "liked", "click", "clicked", "citation", "cited"}
GRADE_NAMES |= {"helpful", "useful", "correct", "positive", "reward", "upvote", "downvote"}
NO_GRADES = {"at", "time", "timestamp", "date", "day", "id", "by"}
SKIN_TONES = dict.fromkeys(range(127995, 128000)) | {0xFE0F: None}
# A column of more different values is no vote.
LARGEST_SCALE = 20


class VoteColumns:
    """Looks for votes or grades in the columns that nobody reads, of rows that have no grade.

    Without a grade a row is an answer: a thumb down under another name would count as one.

    Args:
        known: the columns that are read.

    Example:
        >>> columns = VoteColumns(["query", "node_id", "grade"])
        >>> columns.look({"query": "cancel", "node_id": "n", "thumb": "down", "day": "monday"})
        >>> columns.find()
        {'thumb': ['down']}
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._known = tuple(known)
        self._values: dict[str, dict[str, Any]] = {}

    def look(self, row: Mapping[str, Any]) -> None:
        """Note what a row without a grade has in columns that nobody reads."""
        if "grade" in row:
            return
        for name in row.keys() - set(self._known):
            seen = self._values.setdefault(name, {})
            if len(seen) <= LARGEST_SCALE:
                seen.setdefault(_spelled(row[name]), row[name])

    def find(self) -> dict[str, list[Any]]:
        """Return the columns that hold votes or grades, with a few of their values."""
        found = {}
        for name, seen in sorted(self._values.items()):
            values = {value: shown for value, shown in seen.items() if value not in GAPS}
            if values and _are_votes(name, values):
                found[name] = list(values.values())[:3]
        return found

    def refuse(self, source: str) -> None:
        """Refuse votes that would be lost.

        Raises:
            ValueError: a column holds votes or grades, and nobody reads it; by name, with the names that are read.
        """
        for name, values in self.find().items():
            shown = ", ".join(f"{value!r:.40}" for value in values)
            raise ValueError(
                f"{source}: column {name!r} looks like votes or grades ({shown}), and is none of the columns that are "
                f"read: {', '.join(self._known)}. Without a grade every row would be an answer: name the column"
                " grade and write numbers (1 for up, -1 for down), or leave it out"
            )


def _are_votes(name: str, values: Mapping[str, Any]) -> bool:
    if values.keys() <= VOTES:
        return True
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        return False
    # -1 is a vote wherever it stands; 0 and 1 are many things.
    is_sign = {-1.0, 0.0, 1.0}.issuperset(numbers) and (-1.0 in numbers or "+1" in values)
    return is_sign or _is_grade_name(name)


def _is_grade_name(name: str) -> bool:
    words = [word.casefold() for word in re.findall(r"[A-Z]*[^\W\d_A-Z]+|[A-Z]+", name)]
    return (
        bool(words)
        and words[-1] not in NO_GRADES
        and any({word, word.removesuffix("s")} & GRADE_NAMES for word in words)
    )


def _spelled(value: Any) -> str:
    """A value as it is compared: a boolean as its word, a number without needless zeros."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return f"{float(value):g}" if math.isfinite(float(value)) else ""
    return "" if value is None else " ".join(str(value).translate(SKIN_TONES).casefold().split())


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None

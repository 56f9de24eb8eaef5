"""Ids in other spellings: a UUID and an integer have several, and databases give one of them back."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable

__all__ = ["find_spellings", "other_spellings"]

# What spreadsheets and data frames make of integers: "+7", "007", "7.0".
INTEGER = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?")
HEX_DIGITS = 32


def other_spellings(name: str) -> list[str]:
    """Spell an id in the other ways that mean the same UUID, integer or text, the usual one first.

    Example:
        >>> other_spellings("007"), other_spellings(" exit"), other_spellings("exit")
        (['7'], ['exit'], [])
    """
    text = name.strip()
    integer = INTEGER.fullmatch(text)
    forms = [text]
    if integer is not None:
        sign = "-" if integer[1] == "-" and integer[2] != "0" else ""
        forms = [sign + integer[2], text]
    elif len(text) >= HEX_DIGITS:
        try:
            number = uuid.UUID(text.lower())
        except ValueError:
            pass
        else:
            plain = [str(number), number.hex]
            forms = [*plain, *(form.upper() for form in plain), number.urn, f"{{{number}}}", text]
    return [form for form in dict.fromkeys(forms) if form not in ("", name)]


def find_spellings(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Map those of ``names`` that are not ``known`` to the known id that is another spelling of theirs.

    Example:
        >>> find_spellings(["007", "exit", "gone"], {"7", "exit"})
        {'007': '7'}
    """
    found = {}
    for name in names:
        if name not in known:
            form = next((form for form in other_spellings(name) if form in known), None)
            if form is not None:
                found[name] = form
    return found

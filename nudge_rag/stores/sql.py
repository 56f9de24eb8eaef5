"""Names and texts in SQL."""

from __future__ import annotations

__all__ = ["sql_name", "sql_text"]


def sql_name(name: str) -> str:
    """A table's or column's name in SQL, quoted.

    Example:
        >>> print(sql_name('the "best" nodes'))
        "the ""best"" nodes"
    """
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def sql_text(text: str) -> str:
    """A string's literal in standard SQL, quoted.

    Example:
        >>> print(sql_text("the node's text"))
        'the node''s text'
    """
    doubled = text.replace("'", "''")
    return f"'{doubled}'"

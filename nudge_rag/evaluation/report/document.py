"""What a report holds, before it is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Document", "Example", "Figure", "Section", "Table"]


@dataclass(frozen=True)
class Table:
    """Rows of texts below a header; the first cell of a row names it.

    Attributes:
        caption: what the numbers are.
        header: names of the columns.
        rows: cells, as many a row as the header has.
        numbers: places of the columns that are set to the right.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A drawing, with its text alternative and its numbers.

    Attributes:
        name: of the figure, unique in a document; letters and hyphens.
        title: what is shown.
        description: what is to be seen, for those who cannot see it.
        svg: the drawing, made by `figures`.
        table: the numbers, unless a table of the section holds them.
    """

    name: str
    title: str
    description: str
    svg: str
    table: Table | None = None


@dataclass(frozen=True)
class Example:
    """A query whose answer moved.

    Attributes:
        query: its text.
        lines: what happened to it.
    """

    query: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: heading.
        paragraphs: sentences.
        figures: drawings.
        tables: tables.
        examples: queries, shown in a fold.
        examples_title: what the fold is called.
    """

    title: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    examples: Sequence[Example] = ()
    examples_title: str = ""


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: of the page.
        decision: the answer in a sentence or two.
        good: whether it is a yes.
        sections: its parts.
        footer: how it was made.
    """

    title: str
    decision: str
    good: bool
    sections: Sequence[Section] = ()
    footer: Sequence[str] = field(default=())

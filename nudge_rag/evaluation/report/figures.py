"""Drawings as SVG that follow the page's colours: matplotlib, without scripts, dates or random ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

from nudge_rag.common.text import printable, shorten
from nudge_rag.errors import MissingPackageError

__all__ = ["draw_bars", "draw_intervals", "draw_lines"]

# Drawn in these, and replaced by what the page says: its text colour, and the colours of the two series.
INK, FIRST, SECOND = "#010203", "#0a72b1", "#d45e0a"
COLOURS = {INK: "currentColor", FIRST: "var(--first)", SECOND: "var(--second)"}
# About as wide as a phone's page, so that letters keep their size there.
WIDTH, ROW = 4.6, 0.34


def draw_lines(
    name: str, x: Sequence[float], y: Sequence[float], *, labels: tuple[str, str], mark: float | None, log: bool = False
) -> str:
    """Return a line chart; ``mark`` is a place on the x-axis that is pointed out."""

    def draw(axes: Any) -> None:
        axes.plot(x, y, color=FIRST, marker="o", markersize=3, linewidth=1.5)
        if mark is not None:
            axes.axvline(mark, color=SECOND, linestyle="--", linewidth=1.2)
        if log:
            axes.set_xscale("symlog", linthresh=min([value for value in x if value > 0], default=1.0))
            axes.set_xlim(left=0)
        axes.set_xlabel(labels[0], parse_math=False)
        axes.set_ylabel(labels[1], parse_math=False)

    return _draw(name, draw, height=2.6)


def draw_bars(name: str, bins: Sequence[str], counts: Sequence[float], *, labels: tuple[str, str]) -> str:
    """Return a bar chart."""

    def draw(axes: Any) -> None:
        axes.bar(range(len(counts)), counts, color=FIRST, width=0.85)
        axes.set_xticks(range(len(bins)), [shorten(printable(text), 12) for text in bins], parse_math=False)
        axes.tick_params(axis="x", labelrotation=45 if len(bins) > 6 else 0)
        axes.set_xlabel(labels[0], parse_math=False)
        axes.set_ylabel(labels[1], parse_math=False)

    return _draw(name, draw, height=2.6)


def draw_intervals(name: str, names: Sequence[str], rows: Sequence[tuple[float, float, float]], *, label: str) -> str:
    """Return one interval a row around its value, beside a line at 0; rows are (low, value, high)."""

    def draw(axes: Any) -> None:
        places = list(range(len(rows)))[::-1]
        for place, (low, value, high) in zip(places, rows, strict=True):
            colour = SECOND if high < 0 else FIRST
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot([value], [place], color=colour, marker="s" if high < 0 else "o", markersize=5)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, [shorten(printable(text), 26) for text in names], parse_math=False)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(label, parse_math=False)

    return _draw(name, draw, height=0.8 + ROW * len(rows))


def _draw(name: str, draw: Callable[[Any], None], height: float) -> str:
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("a report", "nudge-rag[report]") from error
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(settings):  # type: ignore[arg-type]  # its stub takes names of settings as literals
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        target = StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(target.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """Keep the element alone, scalable, with ids of its own and the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The element's size in points would keep it from shrinking on a phone.
    opening, _, rest = svg.partition(">")
    opening = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    opening = re.sub(r" xmlns:\w+=\"[^\"]*\"", "", opening)
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    for drawn, shown in COLOURS.items():
        rest = rest.replace(drawn, shown)
    return f'{opening} aria-hidden="true">{rest}'.strip()

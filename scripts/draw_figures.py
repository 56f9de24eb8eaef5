"""Draw the figures of the documentation: python scripts/draw_figures.py docs/guide [--check].

The figures are computed from the solvers themselves; the same versions of numpy and Matplotlib draw the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.solvers import LabeledQueries, NudgeN

# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"


def draw_sphere(axes: Any) -> None:
    """A node on the unit circle, its queries, their sum, and where NUDGE-N takes it for three step sizes."""
    node, queries = _on_circle(20.0), [_on_circle(angle) for angle in (88.0, 102.0, 116.0)]
    aim = np.sum(queries, axis=0)
    arc = np.radians(np.linspace(0, 130, 200))
    axes.plot(np.cos(arc), np.sin(arc), color=GREY, linewidth=0.8)
    for query in queries:
        axes.plot(*query, marker="s", color=ORANGE, markersize=5)
    axes.annotate("queries $q_i$", queries[2], (-6, 10), textcoords="offset points", ha="right", color=ORANGE)
    unit = aim / np.linalg.norm(aim)
    axes.annotate("", 0.97 * unit, (0, 0), arrowprops={"arrowstyle": "->", "color": ORANGE})
    axes.annotate("$g_j$", 0.55 * unit, (6, 0), textcoords="offset points", color=ORANGE)
    axes.plot(*node, marker="o", color=BLUE, markersize=7)
    axes.annotate("$d_j$", node, (8, -2), textcoords="offset points", color=BLUE)
    for gamma in (0.1, 0.4, 1.0):
        moved = _moved(node, queries, gamma)
        axes.plot(*moved, marker="o", color=GREEN, markersize=6)
        axes.annotate(f"$\\gamma$ = {gamma:g}", moved, (8, 3), textcoords="offset points", color=GREEN)
    axes.set_aspect("equal")
    axes.set(xlim=(-0.75, 1.5), ylim=(-0.05, 1.2))
    axes.axis("off")


def draw_step(axes: Any) -> None:
    """Validation and held-out accuracy by step size: too short gains little, too long makes nodes stand in the way."""
    rng = np.random.default_rng(0)
    nodes = _unit(rng.normal(size=(400, 24)))
    shift = rng.normal(size=nodes.shape)
    parts = []
    for count in (800, 1000, 4000):
        answers = rng.integers(0, len(nodes), count)
        noise = rng.normal(size=(count, 24))
        parts.append((_unit(nodes[answers] + 0.4 * shift[answers] + 0.8 * noise), answers))
    train, val = (LabeledQueries(queries, [[row] for row in rows]) for queries, rows in parts[:2])
    fit = NudgeN(metric="nDCG@10").fit(nodes, train, val)
    gammas, values = fit.curve.gammas, fit.curve.values
    shown = np.unique(np.linspace(0, len(gammas) - 1, 25).round().astype(int))
    held_out = [_ndcg(_at(nodes, train, val, float(gammas[at])), parts[2]) for at in shown]
    axes.plot(gammas, values, color=BLUE, label="validation queries")
    axes.plot(gammas[shown], held_out, color=ORANGE, linestyle="--", marker="s", markersize=3, label="held-out queries")
    axes.axvline(fit.gamma, color=GREY, linestyle=":", label=f"chosen: {fit.gamma:.2g}")
    axes.set(xlabel="step size $\\gamma$", ylabel="nDCG@10")
    axes.legend(frameon=False)


FIGURES: dict[str, Callable[[Any], None]] = {"sphere": draw_sphere, "step": draw_step}


def draw(name: str) -> bytes:
    """Return a figure as SVG, legible on light and on dark pages."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": name,
        "svg.fonttype": "path",
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "font.size": 10,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(5, 3.1), layout="constrained")
        FIGURES[name](figure.subplots())
        content = BytesIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return content.getvalue()


def main() -> int:
    """Draw all figures, or check that they are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a figure is missing")
    given = parser.parse_args()
    missing = [name for name in FIGURES if not (given.folder / f"{name}.svg").exists()]
    if given.check:
        if missing:
            sys.stderr.write(f"missing in {given.folder}: {', '.join(missing)}; run without --check\n")
        return int(bool(missing))
    for name in FIGURES:
        (given.folder / f"{name}.svg").write_bytes(draw(name))
    return 0


def _on_circle(degrees: float) -> np.ndarray[Any, Any]:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _unit(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    unit: np.ndarray[Any, Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _moved(node: np.ndarray[Any, Any], queries: list[np.ndarray[Any, Any]], gamma: float) -> np.ndarray[Any, Any]:
    """The equation of NUDGE-N in the plane."""
    aim = np.sum(queries, axis=0)
    angle = np.arccos(node @ aim / np.linalg.norm(aim))
    turn = min(np.arccos(1 - gamma / 2), angle)
    start = np.degrees(np.arctan2(node[1], node[0]))
    return _on_circle(float(start + np.degrees(turn)))


def _at(nodes: Any, train: LabeledQueries, val: LabeledQueries, gamma: float) -> np.ndarray[Any, Any]:
    """The nodes moved by one step size."""
    moved: np.ndarray[Any, Any] = NudgeN(gamma=gamma).fit(nodes, train, val).embeddings()
    return moved


def _ndcg(vectors: np.ndarray[Any, Any], part: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> float:
    """nDCG@10 of queries with one answer each: 1 / log2(1 + rank)."""
    queries, answers = part
    scores = queries @ vectors.T
    ranks = (scores > scores[np.arange(len(answers)), answers][:, None]).sum(axis=1) + 1
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0).mean())


if __name__ == "__main__":
    sys.exit(main())

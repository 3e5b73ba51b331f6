"""How costs grow with the number of passages, as one picture, from what scale.py measured.

    python examples/benchmarks/curves.py             # results/scale.json → results/scale.png

Both axes are logarithmic, so that a cost in proportion to the number of passages is a line as steep as the grey one,
and a flatter line grows more slowly. The upper row has what searches by vectors, in its hybrid mode where there is
one, the lower row what searches by keywords alone. Of a library with several settings the fastest is drawn of those
with a recall@10 of at least 0.95. A hollow point is a library whose building was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from common import options
from matplotlib.axes import Axes

# Okabe and Ito's colours, which can be told apart with any colour vision; ours is the same in both rows.
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
ROWS = {
    "by vectors, hybrid where there is one": {
        "semsearch": (BLUE, "o"),
        "txtai": (ORANGE, "s"),
        "LanceDB": (GREEN, "^"),
        "Chroma": (PINK, "D"),
        "sentence-transformers": (SKY, "v"),
        "Haystack": (RED, "P"),
    },
    "by keywords": {
        "semsearch, keyword leg": (BLUE, "o"),
        "bm25s": (ORANGE, "s"),
        "bm25s, numba": (GREEN, "^"),
        "rank-bm25": (PINK, "D"),
        "tantivy": (SKY, "v"),
        "SQLite FTS5": (RED, "P"),
    },
}
SPACE = 0.055  # of the height of a panel between two labels
ENOUGH = 0.95
NOTE = (
    "In brackets: recall@10 of the dense part against exact search, at the most passages.   Dashed: a cost in "
    "proportion to the number of passages.   Hollow: building was cut off there."
)


def main() -> None:
    parser = options(__doc__)
    args = parser.parse_args()
    source = args.results / "scale.json"
    if not source.is_file():
        raise SystemExit(f"There is no {source}. Make it: python examples/benchmarks/scale.py --work DIR")
    draw(json.loads(source.read_text(encoding="utf-8"))["results"], args.results / "scale.png")


def chosen_row(result: dict[str, Any]) -> dict[str, Any] | None:
    """The row of a result that is drawn."""
    rows = result.get("rows", [])
    modes = [row["mode"] for row in rows]
    mode = next((mode for mode in ("hybrid", "dense", "lexical") if mode in modes), None)
    rows = [row for row in rows if row["mode"] == mode]
    good = [row for row in rows if row.get("recall@10", 1) >= ENOUGH]
    if good:
        return min(good, key=lambda row: float(row["median_ms"]))
    return max(rows, key=lambda row: float(row["recall@10"]), default=None)


def query_ms(result: dict[str, Any]) -> float | None:
    row = chosen_row(result)
    return row and row["median_ms"]


def build_seconds(result: dict[str, Any]) -> float | None:
    return result.get("build", {}).get("seconds")


def added_ms(result: dict[str, Any]) -> float | None:
    return result.get("added", {}).get("median_ms")


PANELS: tuple[tuple[str, Callable[[dict[str, Any]], float | None]], ...] = (
    ("One query, ms (median)", query_ms),
    ("Building, s", build_seconds),
    ("One document more, ms (median)", added_ms),
)


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(len(ROWS), len(PANELS), figsize=(16, 9.5), sharex=True)
    for (title, styles), line in zip(ROWS.items(), axes, strict=True):
        for (cost, value), panel in zip(PANELS, line, strict=True):
            draw_panel(panel, results, styles, value)
            panel.set_title(cost, loc="left", fontsize=11)
        line[0].set_ylabel(f"Search {title}", fontsize=11, fontweight="bold", labelpad=10)
    for panel in axes[-1]:
        panel.set_xlabel("passages")
    figure.text(0.01, 0.008, NOTE, fontsize=9, color="#555555")
    figure.tight_layout(w_pad=2, h_pad=2, rect=(0, 0.025, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_panel(
    panel: Axes,
    results: Sequence[dict[str, Any]],
    styles: dict[str, tuple[str, str]],
    value: Callable[[dict[str, Any]], float | None],
) -> None:
    ends: list[tuple[float, float, str, str]] = []
    for name, (colour, marker) in styles.items():
        own = [result for result in results if result["name"] == name and value(result)]
        if not own:
            continue
        own.sort(key=lambda result: int(result["passages"]))
        sizes = [reached(result) for result in own]
        values = [float(value(result) or 0) for result in own]
        ours = name.startswith("semsearch")
        panel.plot(sizes, values, color=colour, linewidth=3 if ours else 1.6, zorder=3 if ours else 2)
        for size, each, result in zip(sizes, values, own, strict=True):
            face = "white" if "cut_off" in result else colour
            panel.plot(size, each, marker, color=colour, markerfacecolor=face, markersize=7 if ours else 6, zorder=4)
        ends.append((sizes[-1], values[-1], name + recall_of(own[-1], value), colour))
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(7e3, 1.3e6)
    panel.set_xticks([10_000, 100_000, 1_000_000], ["10,000", "100,000", "1,000,000"])
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.minorticks_off()
    guide(panel)
    label(panel, ends)


def reached(result: dict[str, Any]) -> int:
    """How many passages are in it: fewer than wanted where building was cut off."""
    return int(result.get("build", {}).get("passages", result["passages"]))


def recall_of(result: dict[str, Any], value: Callable[[dict[str, Any]], float | None]) -> str:
    row = chosen_row(result) or {}
    return f" ({row['recall@10']:.2f})" if value is query_ms and "recall@10" in row else ""


def guide(panel: Axes) -> None:
    """A line of slope 1 through the lower left, behind all others."""
    low, high = panel.get_ylim()
    start = low * (high / low) ** 0.04
    panel.plot([1e4, 1e6], [start, start * 100], color="#bbbbbb", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    panel.set_ylim(low, max(high, start * 100))


def label(panel: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """The name of each line at its end, in its colour, moved up where two would lie on each other."""
    places = panel.transAxes.inverted()
    heights = [(places.transform(panel.transData.transform((x, y)))[1], x, y, text, c) for x, y, text, c in ends]
    heights.sort()
    spread: list[float] = []
    for height, *_ in heights:
        spread.append(max(height, spread[-1] + SPACE if spread else 0.0))
    top = 1.0
    for place in reversed(range(len(spread))):  # and down again where that went over the top
        spread[place] = min(spread[place], top)
        top = spread[place] - SPACE
    for place, (_, x, y, text, colour) in zip(spread, heights, strict=True):
        panel.annotate(
            text,
            xy=(x, y),
            xytext=(1.03, place),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=9.5,
            fontweight="bold" if text.startswith("semsearch") else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 5, "alpha": 0.6},
        )


if __name__ == "__main__":
    main()

"""Pictures: a map of an index, what a query shares with a passage, how sure answers are, how systems compare.

    index.plot(color="suffix", query="late fees")       # or index.plot(): clusters, each with its own words
    index.search("late fees")[0].plot()                 # query tokens against passage tokens
    compare(...).plot("comparison.png")
    plots.risk_coverage(evaluate(answerer, questions)); plots.calibration(evaluate(answerer, questions))

Each function draws on the axes that it is given as `ax`, or on a new figure, and returns them; save one with
`axes.figure.savefig("map.png")`. A notebook shows what is returned last in a cell. Nothing is shown in a window, and no
setting of matplotlib's is changed; a style in use (`matplotlib.style.context("dark_background")`) holds. Colours are
Okabe and Ito's, which can be told apart with any colour vision, and shapes differ, too.

All raise MissingExtraError if matplotlib is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.drawing import (
    GREY,
    MARKERS,
    PALETTE,
    label_ends,
    legend,
    new_axes,
    new_figure,
    shown,
    ticks,
    write,
)
from semsearch.errors import InputError
from semsearch.indexmap import index_map
from semsearch.metrics import calibration_error, risk_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from semsearch.comparing import Comparison
    from semsearch.evaluation import Evaluation

__all__ = [
    "attention",
    "calibration",
    "comparison",
    "comparison_figure",
    "growth",
    "index_map",
    "risk_coverage",
    "token_similarity",
]

Judged: TypeAlias = "Evaluation | Sequence[Evaluation] | Mapping[str, tuple[Sequence[float], Sequence[float]]]"

COLOURS = len(PALETTE)


# -- tokens ------------------------------------------------------------------------------------------------------------


def token_similarity(
    query: Sequence[str],
    passage: Sequence[str],
    cosines: NDArray[np.floating],
    *,
    most: int = 40,
    ax: Axes | None = None,
) -> Axes:
    """A heat map of query tokens (q) against passage tokens (t): their cosine similarities (q, t).

    A dot marks the passage's token that is nearest to each token of the query. Of more than `most` passage tokens the
    stretch of so many is drawn that is most like the query: with the largest sum of the best similarity of each token.
    Similarities below 0 are drawn as 0. Raises InputError where there is no token on a side.
    """
    table = np.asarray(cosines, np.float64)
    if not query or not passage or table.shape != (len(query), len(passage)):
        raise InputError(
            f"{len(query)} query tokens, {len(passage)} passage tokens and similarities of the shape {table.shape} "
            "make no picture. Give at least one token on each side, and a row for each of the query."
        )
    start, end = _stretch(table.max(axis=0), most)
    table = table[:, start:end]
    axes = new_axes(_grid_size(query, passage[start:end])) if ax is None else ax
    image = axes.imshow(np.maximum(table, 0), cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    nearest = table.argmax(axis=1)
    light = table[np.arange(len(query)), nearest] > 0.5
    axes.scatter(nearest, range(len(query)), s=14, c=np.where(light, "black", "white"), zorder=3)
    ticks(axes.xaxis, passage[start:end], rotation=90)
    ticks(axes.yaxis, query)
    stretch = "" if end - start == len(passage) else f", tokens {start + 1} to {end} of {len(passage)}"
    axes.set_xlabel(f"passage{stretch}")
    axes.set_ylabel("query")
    _bar(axes, image, "cosine similarity")
    return axes


def _stretch(values: NDArray[np.float64], most: int) -> tuple[int, int]:
    """Where the `most` neighbours with the largest sum begin and end."""
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InputError(f"most={most!r} is the number of tokens to draw and at least 1.")
    if len(values) <= most:
        return 0, len(values)
    sums = np.convolve(values, np.ones(most), mode="valid")
    start = int(sums.argmax())
    return start, start + most


def _grid_size(rows: Sequence[str], columns: Sequence[str]) -> tuple[float, float]:
    """The inches of cells with their labels, and of a colour bar on the right."""
    beside, below = (0.07 * max(len(shown(name, 24)) for name in names) for names in (rows, columns))
    return 0.22 * len(columns) + beside + 1.6, 0.22 * len(rows) + below + 1.0


def _bar(axes: Axes, image: Any, label: str, **how: Any) -> None:
    """A colour bar as high as the axes, about a sixth of an inch wide."""
    high = 0.22 * image.get_array().shape[0]
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.1, pad=0.015, aspect=max(5, high / 0.16), **how)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def attention(
    reader: Any,
    question: str,
    passage: str,
    *,
    layer: int = -1,
    head: int | None = None,
    most: int = 30,
    ax: Axes | None = None,
) -> Axes:
    """What an extractive reader attends to: from each token of question and passage (rows) to each other (columns).

    `reader` is a reader of transformers: a `TransformersReader`, its name or folder, or an `Answerer` with one. The one
    that ships is compiled and does not tell. `layer` and `head` count from 0, negative ones from the end; None is the
    mean of all heads. Of a passage of more than `most` tokens the stretch is drawn that question and marks attend to
    most. Much attention goes to the marks, which mean little (Clark et al. 2019): the colours end at what the other
    columns have at most.

    Raises InputError for a reader that cannot tell, and for a layer or head that there is not.
    """
    known = _reader(reader).attention(question, passage)
    layers, heads = known.weights.shape[:2]
    weights = known.weights[_place("layer", layer, layers)]
    table = weights.mean(axis=0) if head is None else weights[_place("head", head, heads)]
    text = np.flatnonzero(known.part == 1)
    start, end = _stretch(table[known.part != 1][:, text].sum(axis=0).astype(np.float64), most)
    kept = np.sort(np.concatenate([np.flatnonzero(known.part != 1), text[start:end]]))
    table, part = table[np.ix_(kept, kept)], known.part[kept]
    top = float(table[:, part != -1].max())
    names = [known.tokens[place] for place in kept]
    axes = new_axes(_grid_size(names, names)) if ax is None else ax
    image = axes.imshow(table, cmap="cividis", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    ticks(axes.xaxis, names, rotation=90)
    ticks(axes.yaxis, names)
    edge = int(np.flatnonzero(part == 1)[0]) - 0.5
    for line in (axes.axvline, axes.axhline):
        line(edge, color="white", linewidth=1.5)
    which = "mean of its heads" if head is None else f"head {_place('head', head, heads)}"
    write(axes.title, f"layer {_place('layer', layer, layers)}, {which}")
    axes.set_xlabel("to the token (question, then passage)")
    axes.set_ylabel("attention from the token")
    _bar(axes, image, "share of the row's attention", extend="max" if table.max() > top else "neither")
    return axes


def _place(name: str, given: int, count: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not -count <= given < count:
        raise InputError(f"There is no {name} {given!r}: the reader has {count}, 0 to {count - 1}.")
    return given % count


def _reader(given: Any) -> Any:
    """A reader that tells its attention."""
    from semsearch.extraction import TransformersReader

    if isinstance(given, (str, PurePath)):
        return TransformersReader(str(given))
    reader = getattr(given, "reader", given)
    if not callable(getattr(reader, "attention", None)):
        name = getattr(reader, "name", type(reader).__name__)
        raise InputError(
            f"The reader {name!r} does not give its attention: a compiled one has answers only. Pass one of "
            "transformers, by its name or its folder; examples/pictures.py makes one of the reader that ships."
        )
    return reader


# -- how sure ----------------------------------------------------------------------------------------------------------


def risk_coverage(judged: Judged, *, ax: Axes | None = None) -> Axes:
    """How often answers are wrong if only the surest share of the questions is answered.

    `judged` is what `evaluate` gave for an answerer, several of them, or a mapping of names to (probabilities, whether
    right). A curve that lies lower is better; its area is the mean risk. Raises InputError where nothing is judged.
    """
    axes = new_axes((6.4, 4.4)) if ax is None else ax
    parts = []
    for number, (name, (stated, right)) in enumerate(_judged(judged).items()):
        coverage, risk, area = risk_curve(stated, right)
        colour, marker = PALETTE[number % COLOURS], MARKERS[number % COLOURS]
        every = max(1, len(risk) // 12)
        (line,) = axes.plot(
            100 * coverage, 100 * risk, color=colour, marker=marker, markevery=every, markersize=5, label=""
        )
        parts.append((line, f"{shown(name, 34)}: area {area:.3f}, {len(stated):,} questions"))
    axes.set_xlabel("coverage: questions answered, the surest first (%)")
    axes.set_ylabel("risk: wrong ones among the answers (%)")
    axes.set_xlim(0, 101)
    axes.set_ylim(bottom=0)
    axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
    legend(axes, parts, beside=False)
    return axes


def calibration(judged: Judged, *, bins: int = 10, ax: Axes | None = None) -> Axes:
    """Whether a stated probability of 70% means right in 70 of 100 cases: a reliability diagram.

    `judged` as in `risk_coverage`. Answers are sorted by their probability and put into `bins` of equal size; a point
    is the mean probability of a bin against the share of right answers in it, with its 95% interval (Wilson 1927). On
    the dashed line probabilities are true; points below it were too sure. `ece` is `metrics.calibration_error`.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InputError(f"bins={bins!r}: at least 1 is needed.")
    axes = new_axes((5.6, 5.2)) if ax is None else ax
    axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, zorder=1)
    parts = []
    for number, (name, (stated, right)) in enumerate(_judged(judged).items()):
        order = np.argsort(stated, kind="stable")
        split = np.array_split(order, min(bins, len(order)))
        means = np.array([np.mean(np.asarray(stated)[part]) for part in split])
        shares = np.array([np.mean(np.asarray(right, np.float64)[part]) for part in split])
        ends = np.array([_wilson(share, len(part)) for share, part in zip(shares, split, strict=True)])
        colour, marker = PALETTE[number % COLOURS], MARKERS[number % COLOURS]
        bars = np.abs(ends.T - shares) * 100
        points = axes.errorbar(
            *(100 * means, 100 * shares, bars), color=colour, marker=marker, markersize=5, elinewidth=1, label=""
        )
        ece = calibration_error(stated, right)
        parts.append((points, f"{shown(name, 30)}: ece {ece:.3f}, {len(stated):,} questions"))
    axes.set_xlabel("stated probability (%)")
    axes.set_ylabel("answers that are right (%)")
    axes.set_xlim(-2, 102)
    axes.set_ylim(-2, 102)
    axes.set_aspect("equal")
    axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
    legend(axes, parts, beside=False)
    return axes


def _wilson(share: float, count: int) -> tuple[float, float]:
    """The ends of the 95% interval of a share that was seen in so many cases (Wilson 1927)."""
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def _judged(given: Judged) -> dict[str, tuple[list[float], list[float]]]:
    """Probabilities and outcomes by name."""
    if isinstance(given, Mapping):
        pairs = {str(name): (list(stated), [float(each) for each in right]) for name, (stated, right) in given.items()}
    else:
        evaluations: list[Any] = list(given) if isinstance(given, Sequence) else [given]
        pairs = {}
        for each in evaluations:
            values = list(each.stated.values())
            name = each.name if each.name not in pairs else f"{each.name} ({len(pairs) + 1})"
            pairs[name] = [p for p, _ in values], [float(right) for _, right in values]
    if not pairs:
        raise InputError("There is nothing to draw. Give what evaluate() says of an answerer, or several of such.")
    for name, (stated, right) in pairs.items():
        if not stated or len(stated) != len(right):
            raise InputError(
                f"{name!r} has {len(stated)} probabilities and {len(right)} outcomes to draw. Give what evaluate() "
                "says of an answerer on questions with known answers, or as many of the ones as of the others."
            )
    return pairs


# -- systems -----------------------------------------------------------------------------------------------------------


def comparison(compared: Comparison, *, ax: Axes | None = None) -> Axes:
    """The quality of the systems of a comparison, the best on top, with 95% intervals.

    A point is the mean of the comparison's metric, its bar the interval of the difference to the best system: one that
    reaches the dashed line cannot be told from the best. The recommended system has another colour and shape.
    """
    rows = _rows(compared)
    axes = new_axes((7.5, 1.3 + 0.34 * len(rows))) if ax is None else ax
    differences = {difference.system: difference for difference in compared.differences}
    best = next(e.metrics[compared.metric] for e in rows if e.name == compared.best)
    axes.axvline(best, linestyle="--", linewidth=1, color=GREY)
    for place, e in enumerate(rows):
        colour, marker = _style(compared, e.name)
        if e.name in differences:
            ends = (best + differences[e.name].low, best + differences[e.name].high)
            axes.hlines(place, *ends, color=colour, linewidth=2.5, alpha=0.5)
        axes.plot(e.metrics[compared.metric], place, marker, color=colour, markersize=7)
    ticks(axes.yaxis, [e.name for e in rows], 60, size=9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{compared.metric}, with the 95% interval of the difference to the best")
    axes.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def comparison_figure(compared: Comparison) -> Figure:
    """Quality beside cost: `comparison`, and the median time of a question, on a logarithmic scale."""
    rows = _rows(compared)
    figure = new_figure((9.5, 1.5 + 0.34 * len(rows)))
    quality, cost = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    comparison(compared, ax=quality)
    values = [max(e.median_ms, 1e-3) for e in rows]
    cost.barh(range(len(rows)), values, color=[_style(compared, e.name)[0] for e in rows], height=0.55)
    cost.set_xscale("log")
    cost.set_xlim(min(values) / 3, max(values) * 4)
    cost.set_xlabel("median time of a question (ms)")
    cost.xaxis.set_major_formatter("{x:,g}")
    cost.tick_params(axis="y", length=0)
    for place, value in enumerate(values):
        cost.annotate(f"{value:.3g}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    title = f"{compared.dataset}, {compared.evaluations[0].questions:,} questions: take {compared.recommended}"
    write(figure.suptitle("", fontsize=11), title, 100)
    return figure


def _rows(compared: Comparison) -> list[Evaluation]:
    return sorted(compared.evaluations, key=lambda e: (e.metrics[compared.metric], e.name == compared.best))


def _style(compared: Comparison, name: str) -> tuple[str, str]:
    return (PALETTE[5], "D") if name == compared.recommended else (PALETTE[0], "o")


def growth(
    curves: Mapping[str, Mapping[float, float]], *, x: str = "passages", y: str = "ms", ax: Axes | None = None
) -> Axes:
    """How costs grow: for each name a mapping of size to cost, both above 0, on logarithmic axes.

    The dashed line is a cost in proportion to the size: a flatter curve grows more slowly. `x` and `y` say what is
    counted and in which unit. Each curve has its name at its end. Raises InputError for a curve without points, and for
    a size or cost that is not above 0.
    """
    axes = new_axes((8, 4.8)) if ax is None else ax
    for name, curve in curves.items():
        if not curve or min(*curve, *curve.values()) <= 0:
            raise InputError(
                f"The curve {name!r} has no place on logarithmic axes: {dict(curve)!r}. Give values above 0."
            )
    if not curves:
        raise InputError("There is no curve to draw: curves={} maps names to {size: cost}.")
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = []
    for number, (name, curve) in enumerate(curves.items()):
        sizes = sorted(curve)
        colour = PALETTE[number % COLOURS]
        axes.plot(sizes, [curve[size] for size in sizes], color=colour, marker=MARKERS[number % COLOURS], markersize=6)
        ends.append((sizes[-1], curve[sizes[-1]], name, colour))
    ends += _guide(axes, curves)
    _sizes(axes, sorted({size for curve in curves.values() for size in curve}))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
    label_ends(axes, ends)
    return axes


def _guide(axes: Axes, curves: Mapping[str, Mapping[float, float]]) -> list[tuple[float, float, str, str]]:
    """A line of slope 1 below all curves; its end, for a label."""
    sizes = [size for curve in curves.values() for size in curve]
    first, last = min(sizes), max(sizes)
    if first == last:
        return []
    start = 0.6 * min(cost * first / size for curve in curves.values() for size, cost in curve.items())
    end = start * last / first
    axes.plot([first, last], [start, end], color=GREY, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    return [(last, end, "in proportion", GREY)]


def _sizes(axes: Axes, sizes: Sequence[float]) -> None:
    """Numbers as they are written, at the sizes themselves where these are few and apart."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    if len(sizes) <= 6 and all(later >= 1.6 * size for size, later in pairwise(sizes)):
        axes.set_xticks(sizes, [f"{size:,g}" for size in sizes])
        axes.minorticks_off()

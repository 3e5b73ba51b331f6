"""What the pictures have in common: figures without pyplot, colours, and text of documents that cannot do harm.

matplotlib reads "$...$" as a formula and warns of letters that its font lacks. Text of documents is drawn as it is,
with other installed fonts for what the first one lacks, and a box for what none has.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from semsearch.display import clean, shorten
from semsearch.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

__all__ = [
    "GREY",
    "MARKERS",
    "OTHER_MARKERS",
    "has_letters",
    "PALETTE",
    "label_ends",
    "legend",
    "new_axes",
    "new_figure",
    "number_points",
    "shown",
    "text_colour",
    "ticks",
    "write",
]

# Okabe and Ito, "Color Universal Design" (2008), without black and yellow, which a dark or a light page swallows.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P")
OTHER_MARKERS = ("<", ">", "p", "h", "X", "d")  # for more groups than colours, hollow
GREY = "#8a8a8a"
BOX = "□"

# Families that have what DejaVu Sans lacks; those that are installed are tried in this order.
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "Hiragino Sans", "PingFang SC"),
    *("Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "FreeSans", "STIXGeneral"),
)

# -- figures -----------------------------------------------------------------------------------------------------------


def new_axes(size: tuple[float, float]) -> Axes:
    """Axes on a figure of their own (inches), which a notebook shows; pyplot does not know it."""
    return new_figure(size).add_subplot(axes_class=_picture_axes())


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure of its own (inches), which a notebook shows; pyplot does not know it."""
    try:
        from matplotlib.figure import Figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("A picture", "matplotlib", "plot") from error
    figure: Figure = _picture()(figsize=size, layout="constrained")
    return figure


@cache
def _picture() -> Any:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            return _png(self)

    return Picture


@cache
def _picture_axes() -> Any:
    from matplotlib.axes import Axes

    class PictureAxes(Axes):
        """Axes that a notebook shows without pyplot: the whole of their figure."""

        def _repr_png_(self) -> bytes:
            return _png(figure_of(self))

    return PictureAxes


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def figure_of(axes: Axes) -> Figure:
    """The figure that holds the axes, not one within it."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes that were taken from their figure cannot be drawn on
    return figure


def text_colour() -> Any:
    """That of the style in use."""
    from matplotlib import rcParams

    return rcParams["text.color"]


# -- text --------------------------------------------------------------------------------------------------------------


def shown(text: str, width: int = 60) -> str:
    """On one line of at most `width` columns, harmless."""
    return shorten(clean(text), width)


def write(artist: Text, text: str, width: int = 120) -> None:
    """Let a text of matplotlib show words that may come from a document."""
    drawable, families = _drawable(shown(text, width))
    artist.set_parse_math(False)
    artist.set_fontfamily(families)
    artist.set_text(drawable)


def ticks(axis: Axis, labels: Sequence[str], width: int = 24, *, rotation: float = 0, size: float = 8) -> None:
    """A tick with its label at 0, 1, 2, ..."""
    whole = "".join(labels)
    _, families = _drawable(clean(whole))
    texts = [_drawable(shown(label, width))[0] for label in labels]
    axis.set_ticks(range(len(labels)), texts, rotation=rotation, fontsize=size, parse_math=False, fontfamily=families)


def legend(axes: Axes, parts: Sequence[tuple[Any, str]], *, beside: bool = True) -> None:
    """A legend for (artist, text), beside the axes or within them."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "borderaxespad": 0} if beside else {"loc": "best"}
    # A text that begins with "_" would be left out: the texts are written afterwards.
    box = axes.legend([artist for artist, _ in parts], [" "] * len(parts), fontsize=8.5, frameon=not beside, **place)
    for text, (_, words) in zip(box.get_texts(), parts, strict=True):
        write(text, words, 60)


def _drawable(text: str) -> tuple[str, list[str]]:
    """The text with a box for each letter that no font has, and the font families that it takes."""
    from matplotlib import rcParams

    families = list(rcParams["font.family"])
    known = _letters(_default_font(tuple(families)))
    missing = set(text) - known.keys()
    for family, path in _installed().items():
        if not missing:
            break
        found = missing & _letters(path).keys()
        if found:
            families.append(family)
            missing -= found
    if missing:
        box = BOX if BOX in known else "?"
        text = "".join(_replaced(letter, box) if letter in missing else letter for letter in text)
    return text, families


def has_letters(text: str) -> bool:
    """Whether the installed fonts have what the text needs."""
    return BOX not in _drawable(clean(text))[0]


def _replaced(letter: str, box: str) -> str:
    """A mark that joins or changes a letter goes without a trace."""
    return "" if unicodedata.category(letter) in ("Cf", "Mn", "Me") else box


@cache
def _default_font(families: tuple[str, ...]) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family=list(families))))


@cache
def _installed() -> dict[str, str]:
    """The families of `FALLBACKS` that are installed, with a file of each."""
    from matplotlib.font_manager import fontManager

    files = {entry.name: entry.fname for entry in reversed(fontManager.ttflist)}
    return {family: files[family] for family in FALLBACKS if family in files}


@cache
def _letters(path: str) -> dict[str, int]:
    from matplotlib.font_manager import get_font

    return {chr(code): glyph for code, glyph in get_font(path).get_charmap().items()}


# -- labels that keep out of each other's way --------------------------------------------------------------------------


def number_points(axes: Axes, places: Iterable[Sequence[float]], labels: Sequence[str]) -> None:
    """A short label beside each point, where it lies on no other label and no other point; a line if it is far off."""
    figure = figure_of(axes)
    figure.draw_without_rendering()  # the layout decides where the points are
    points = [tuple(axes.transData.transform(place)) for place in places]
    scale = figure.dpi / 72
    taken = [(x, y, 6 * scale, 6 * scale) for x, y in points]  # centre, half width, half height
    for (x, y), label in zip(points, labels, strict=True):
        wide, high = (3.2 * len(label) + 1) * scale, 5 * scale
        spot = next(
            ((dx, dy) for dx, dy in _around() if not _overlaps((x + dx * scale, y + dy * scale, wide, high), taken)),
            (0.0, 60.0),
        )
        taken.append((x + spot[0] * scale, y + spot[1] * scale, wide, high))
        far = max(map(abs, spot)) > 13
        axes.annotate(
            label,
            tuple(axes.transData.inverted().transform((x, y)).tolist()),
            spot,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            zorder=5,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": text_colour()} if far else None,
        )


def _around() -> Iterable[tuple[float, float]]:
    """Places around a point, in typographic points, the nearest first."""
    directions = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.3), (1.3, 0), (0, -1.3), (-1.3, 0))
    return ((distance * dx, distance * dy) for distance in (10, 16, 24, 34, 46) for dx, dy in directions)


_Box = tuple[float, float, float, float]


def _overlaps(box: _Box, others: Iterable[_Box]) -> bool:
    x, y, wide, high = box
    return any(abs(x - a) < wide + w and abs(y - b) < high + h for a, b, w, h in others)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """The name of each curve (x, y, name, colour) beside its end in its colour, apart from the others."""
    figure = figure_of(axes)
    figure.draw_without_rendering()
    places = axes.transAxes.inverted()
    heights = [float(places.transform(axes.transData.transform((x, y)))[1]) for x, y, *_ in ends]
    room = 13 * figure.dpi / 72 / axes.get_window_extent().height  # of a line of text, as a share of the axes
    for place, (x, y, name, colour) in zip(_spread(heights, room), ends, strict=True):
        label = axes.annotate(
            "",
            xy=(x, y),
            xytext=(1.02, place),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 4, "alpha": 0.6},
        )
        write(label, name, 40)


def _spread(heights: Sequence[float], room: float) -> list[float]:
    """Heights (0 to 1) as they are, moved up and then down where two are nearer than `room`."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for before, place in zip([None, *order], order, strict=False):
        if before is not None:
            moved[place] = max(moved[place], moved[before] + room)
    top = 1.0
    for place in reversed(order):
        moved[place] = min(moved[place], top)
        top = moved[place] - room
    return moved

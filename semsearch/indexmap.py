"""A map of an index: its passages in two dimensions, by metadata or in clusters, and where a query and its hits lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semsearch.drawing import (
    GREY,
    MARKERS,
    OTHER_MARKERS,
    PALETTE,
    has_letters,
    legend,
    new_axes,
    number_points,
    shown,
    text_colour,
    write,
)
from semsearch.errors import InputError
from semsearch.projection import Plane, clusters, distinctive_words, principal_plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from semsearch.filters import Where
    from semsearch.index import Index
    from semsearch.records import Hit, Passage

__all__ = ["index_map"]

GROUPS = 12  # metadata values that are told apart: six colours, full and hollow; the others share a grey
CLUSTERS = 8  # at most
FEW = 8  # a number with more different values than that is drawn as a scale


class _Group(NamedTuple):
    name: str
    members: NDArray[np.intp]  # places of points
    rest: bool = False


def index_map(
    index: Index,
    color: str | None = None,
    query: str | None = None,
    *,
    k: int = 5,
    where: Where | None = None,
    sample: int = 2000,
    ax: Axes | None = None,
) -> Axes:
    """A map of an index: its passages where the first two principal components of their vectors put them.

    Near each other on the map is a hint only: two directions hold a part of the differences, and the axes say how much.
    `color` is a metadata key (dotted as in filters; "document_id" for the document), or None for clusters, which are
    named by the words that tell them from the others. Numbers of many values get a scale, all else a colour each, the
    most frequent ones. With a `query`, its place is a star and its `k` hits are ringed and numbered. `where` draws a
    part of the index only, and of more than `sample` passages a random sample (always the same).

    Raises InputError for fewer than three passages with vectors, and for a key that none of them has.
    """
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 3:
        raise InputError(f"sample={sample!r}: a map needs at least 3 passages.")
    hits: Sequence[Hit] = [] if query is None else index.search(query, k=k, where=where)
    with index.holdings() as holdings:
        chosen, total = holdings.sample(where, sample)
        wanted = [*dict.fromkeys([*map(int, chosen), *(hit.passage.id for hit in hits)])]
        stored = holdings.stored_at(wanted)
        vectors = {int(id): stored.vectors[row] for id, row in zip(stored.ids, stored.rows, strict=True)}
        language = holdings.language
        passages = holdings.known(list(vectors))
    known = [id for id in wanted if id in passages]
    if len(known) < 3:
        part = "" if where is None else " that match the filter"
        raise InputError(
            f"{index.location} has {len(known)} passages with vectors{part}; a map needs at least 3. Add more."
        )
    rows = np.stack([vectors[id] for id in known])
    drawn = min(len(known), len(chosen))
    plane = principal_plane(rows[:drawn])  # of the sample alone: a query does not move the map
    places = plane.project(rows)
    axes = new_axes((9, 5.6)) if ax is None else ax
    parts = _colour(axes, places[:drawn], [passages[id] for id in known[:drawn]], rows[:drawn], color, language)
    if query is not None:
        star = plane.project(index.encode_queries([query]))[0]
        parts += _draw_hits(axes, star, query, places, {id: place for place, id in enumerate(known)}, hits)
    _frame(axes, plane, drawn, total)
    if parts:
        legend(axes, parts)
    if hits:
        rings = [places[known.index(hit.passage.id)] for hit in hits if hit.passage.id in vectors]
        number_points(axes, rings, [str(hit.rank) for hit in hits if hit.passage.id in vectors])
    return axes


def _frame(axes: Axes, plane: Plane, drawn: int, total: int) -> None:
    of = "" if drawn == total else f" of {total:,}"
    write(axes.title, f"{drawn:,}{of} passages")
    axes.set_xlabel(f"first principal component ({plane.shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({plane.shares[1]:.0%})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _colour(
    axes: Axes,
    places: NDArray[Any],
    passages: Sequence[Passage],
    vectors: NDArray[Any],
    color: str | None,
    language: str | None,
) -> list[tuple[Any, str]]:
    """Draw the points; what goes into the legend: (artist, text)."""
    if color is None:
        groups = _clustered(passages, vectors, language)
    else:
        values = [_value(passage, color) for passage in passages]
        if all(value is None for value in values):
            keys = sorted({str(key) for passage in passages[:200] for key in passage.metadata})
            raise InputError(
                f"No passage has the metadata {color!r} to colour by. There is {', '.join(keys) or 'none'}."
            )
        if _is_scale(values):
            _scale(axes, places, values, color)
            return []
        groups = _by_value(values)
    parts = []
    for number, group in enumerate(groups):
        points = axes.scatter(*_xy(places[group.members]), s=_size(places), label="", zorder=2, **_style(number, group))
        parts.append((points, f"{group.name} ({len(group.members):,})"))
    return parts


def _xy(places: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return places[:, 0], places[:, 1]


def _size(places: NDArray[Any]) -> int:
    return 30 if len(places) <= 500 else 14


def _style(number: int, group: _Group) -> dict[str, Any]:
    if group.rest:
        return {"c": GREY, "marker": ".", "alpha": 0.6, "linewidths": 0}
    colour = PALETTE[number % len(PALETTE)]
    if number < len(PALETTE):
        return {"c": colour, "marker": MARKERS[number], "alpha": 0.8, "linewidths": 0}
    return {"facecolors": "none", "edgecolors": colour, "marker": OTHER_MARKERS[number % len(PALETTE)]}


def _value(passage: Passage, key: str) -> Any:
    """The value of a metadata key, dotted as in filters."""
    value: Any = passage.metadata.get(key)
    if value is None and key == "document_id":
        return passage.document_id
    if value is None:
        value = passage.metadata
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_scale(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)
    return numbers and len(set(known)) > FEW


def _scale(axes: Axes, places: NDArray[Any], values: Sequence[Any], name: str) -> None:
    known = np.array([value is not None and math.isfinite(value) for value in values])
    numbers = np.array([float(value) for value, there in zip(values, known, strict=True) if there])
    if not known.all():
        axes.scatter(*_xy(places[~known]), s=_size(places), c=GREY, marker=".", zorder=1)
    points = axes.scatter(
        *_xy(places[known]), s=_size(places), c=numbers, cmap="viridis", edgecolors=GREY, linewidths=0.4, zorder=2
    )
    bar = axes.figure.colorbar(points, ax=axes, shrink=0.8)
    write(bar.ax.yaxis.label, name, 40)


def _by_value(values: Sequence[Any]) -> list[_Group]:
    names = ["none" if value is None else str(value) for value in values]
    counted = Counter(names).most_common()
    kept = [name for name, _ in counted[: GROUPS if len(counted) <= GROUPS else GROUPS - 1]]
    groups = [_Group(name, np.flatnonzero([each == name for each in names])) for name in kept]
    rest = np.flatnonzero([each not in kept for each in names])
    return [*groups, _Group(f"{len(counted) - len(kept)} other values", rest, True)] if len(rest) else groups


def _clustered(passages: Sequence[Passage], vectors: NDArray[Any], language: str | None) -> list[_Group]:
    """Clusters named by their own words, or by their most frequent document where no font has the letters."""
    from semsearch.analysis import FUNCTION_WORDS, get_analyzer

    members = clusters(vectors, max(2, min(CLUSTERS, round(math.sqrt(len(passages) / 2)))))
    words, empty = get_analyzer("none"), set(FUNCTION_WORDS.get(language or "", "").split())
    found = [np.flatnonzero(members == number).tolist() for number in range(int(members.max()) + 1)]
    texts = [
        [[word for word in words(passages[at].text) if _telling(word) and word not in empty] for at in group]
        for group in found
    ]
    names = [", ".join(own) for own in distinctive_words(texts)]
    documents = [Counter(_file(passages[at]) for at in group).most_common(1)[0][0] for group in found]
    return [
        _Group(name if name and has_letters(name) else f"in {document}", np.array(group))
        for name, document, group in zip(names, documents, found, strict=True)
    ]


def _telling(word: str) -> bool:
    """Not a number, and not so short that it says nothing."""
    return len(word) > (2 if word.isascii() else 1) and not word[0].isdigit()


def _file(passage: Passage) -> str:
    return PurePath(passage.document_id).name or passage.document_id


def _draw_hits(
    axes: Axes,
    star: NDArray[Any],
    query: str,
    places: NDArray[Any],
    where: Mapping[int, int],
    hits: Sequence[Hit],
) -> list[tuple[Any, str]]:
    colour = text_colour()
    ringed = [places[where[hit.passage.id]] for hit in hits if hit.passage.id in where]
    if ringed:
        axes.scatter(*_xy(np.array(ringed)), s=90, facecolors="none", edgecolors=colour, linewidths=1.3, zorder=3)
    mark = axes.scatter(
        *_xy(star[None]), s=190, marker="*", c=colour, edgecolors=axes.get_facecolor(), linewidths=0.8, zorder=4
    )
    ring = axes.scatter([], [], s=45, facecolors="none", edgecolors=colour, linewidths=1.1)
    parts = [(mark, f"“{shown(query, 34)}”")]
    for hit in hits:
        page = "" if hit.passage.page is None else f", p. {hit.passage.page}"
        parts.append((ring, f"hit {hit.rank}: {shown(_file(hit.passage), 30)}{page}"))
    return parts

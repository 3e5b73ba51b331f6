"""PPTX as Markdown-like text: a page for each slide, its title as `#` heading, lists, `| a | b |` tables, notes.

The parts are read here rather than by python-pptx, which gives up on a damaged picture and does not know diagrams,
formulas and content for newer versions. See `formats` for the contract of the functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from semsearch.archives import Package, Relation, office
from semsearch.formats import MAX_CHARACTERS, Extracted, UnreadableError
from semsearch.markup import MAX_SPAN, Blocks, repeated, spread, table

__all__ = ["pages_text", "pptx"]

MAX_SLIDES = 20_000
PAGE_BREAK = "\n\f\n"  # a heading is only found at the start of a line

_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_MATH_TEXT = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"

_TITLES = ("title", "ctrTitle")
_BODIES = ("body", "obj", "")  # their paragraphs have bullets unless they say otherwise
_FURNITURE = ("dt", "ftr", "hdr", "sldNum", "sldImg")


def pptx(data: bytes) -> Extracted:
    """PPTX: of each slide the title, then texts, tables, charts and diagrams as they lie on one another, then notes.

    `pages` is the number of slides; a slide without a title is headed by its number where others have one. Comments,
    dates and footers are left out. A cell that spans columns or rows stands in each of them.
    """
    package = office(data)
    main = next((each.target for each in package.relations("").values() if each.kind == "officeDocument"), "")
    root = package.xml(main)
    if root.tag != _P + "presentation":
        raise UnreadableError("no presentation, but another kind of office file")
    related = package.relations(main)
    parts = [related.get(slide.get(_R + "id")) for slide in root.iterfind(f"{_P}sldIdLst/{_P}sldId")]
    if len(parts) > MAX_SLIDES:
        raise UnreadableError(f"{len(parts):,} slides; at most {MAX_SLIDES:,} are read")
    slides = (_slide(package, part.target) if part is not None else ("", "") for part in parts)
    text, first = pages_text(slides)
    return Extracted(text, _core_title(package) or first, {"pages": len(parts)})


def pages_text(slides: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The text of slides from the title and the text of each, and the first title.

    A slide without a title is headed by its number where others have one, lest it counts as a part of the one before.
    """
    kept: list[tuple[str, str]] = []
    room = MAX_CHARACTERS
    for title, body in slides:
        kept.append((title, body))
        room -= len(title) + len(body)
        if room < 0:
            raise UnreadableError(f"more than {MAX_CHARACTERS:,} characters of text")
    first = next((title for title, _ in kept if title), "")
    pages = []
    for number, (title, body) in enumerate(kept, 1):
        name = title or (f"Slide {number}" if first and body else "")
        pages.append("\n\n".join(filter(None, [f"# {name}" if name else "", body])))
    if not any(pages):
        raise UnreadableError("no text: its slides are images, or there are none (OCR would be needed)")
    return PAGE_BREAK.join(pages), first


def _core_title(package: Package) -> str:
    """The title among the core properties, unless it is the program's own."""
    for relation in package.relations("").values():
        if relation.kind == "core-properties" and relation.target in package:
            title = " ".join((package.xml(relation.target).findtext(_TITLE) or "").split())
            return "" if title.lower().startswith("powerpoint") else title
    return ""


def _slide(package: Package, name: str) -> tuple[str, str]:
    """Title and text of a slide."""
    body = _Body(package, package.relations(name))
    shapes = list(_shapes(package.xml(name).find(f"{_P}cSld/{_P}spTree")))
    titles = []
    for shape in shapes:
        if _placeholder(shape) in _TITLES:
            titles.extend(_lines(shape))
        else:
            body.add(shape)
    body.add_notes()
    return " ".join(" ".join(titles).split()), body.text()


class _Body:
    """The text of a slide below its title."""

    def __init__(self, package: Package, relations: dict[str, Relation]) -> None:
        self._package = package
        self._relations = relations
        self._blocks = Blocks()

    def text(self) -> str:
        return self._blocks.text()

    def add(self, shape: Any) -> None:
        if shape.tag == _P + "graphicFrame":
            self._add_graphic(shape)
        elif (kind := _placeholder(shape)) not in _FURNITURE and (body := shape.find(_P + "txBody")) is not None:
            self._add_paragraphs(body, bullets=kind in _BODIES)

    def _add_paragraphs(self, body: Any, bullets: bool) -> None:
        paragraphs = [(paragraph, text) for paragraph in body.iterchildren(_A + "p") if (text := _text(paragraph))]
        bullets = bullets and len(paragraphs) > 1
        counts = [0] * 10
        for paragraph, text in paragraphs:
            properties = paragraph.find(_A + "pPr")
            depth = _number(properties, "lvl", 0, 8)
            numbered = properties is not None and properties.find(_A + "buAutoNum") is not None
            counts[depth + 1 :] = [0] * (9 - depth)
            counts[depth] = counts[depth] + 1 if numbered else 0
            if numbered:
                first = _number(properties.find(_A + "buAutoNum"), "startAt", 1, 32_767)
                self._blocks.item(text, depth, f"{first + counts[depth] - 1}. ")
            elif _has_bullet(properties, bullets):
                self._blocks.item(text, depth, "- ")
            else:
                self._blocks.paragraph(text)

    def _add_graphic(self, frame: Any) -> None:
        for element in frame.iter(_A + "tbl", _C + "chart", _DIAGRAM + "relIds"):
            if element.tag == _A + "tbl":
                self._blocks.add(table(spread(_rows(element))))
                continue
            part = self._relations.get(element.get(_R + ("id" if element.tag == _C + "chart" else "dm")))
            if part is None or part.target not in self._package:
                continue
            root = self._package.xml(part.target)
            if element.tag == _C + "chart":
                self._add_chart(root)
            else:
                for point in root.iter(_DIAGRAM + "t"):
                    self._blocks.item(" ".join(_text(each) for each in point.iterchildren(_A + "p")), 0, "- ")

    def _add_chart(self, root: Any) -> None:
        """The title of a chart, and a table of its categories and series."""
        title = root.find(f"{_C}chart/{_C}title")
        if title is not None:
            self._blocks.paragraph(" ".join(_text(each) for each in title.iter(_A + "p")))
        columns = [_points(series) for series in root.iter(_C + "ser")]
        names = dict.fromkeys(name for categories, _, _ in columns for name in categories.items())
        rows = ([name, *(values.get(place, "") for _, _, values in columns)] for place, name in names)
        head = ["", *(label for _, label, _ in columns)]
        self._blocks.add(table([head, *rows]) if columns else "")

    def add_notes(self) -> None:
        for relation in self._relations.values():
            if relation.kind == "notesSlide" and relation.target in self._package:
                tree = self._package.xml(relation.target).find(f"{_P}cSld/{_P}spTree")
                notes = [line for shape in _shapes(tree) if _placeholder(shape) == "body" for line in _lines(shape)]
                if notes:
                    self._blocks.paragraph("\n".join(["Notes:", *notes]))


def _shapes(tree: Any) -> Iterator[Any]:
    """The shapes in a slide's tree, those in groups as well."""
    for element in () if tree is None else tree:
        if element.tag in (_P + "sp", _P + "graphicFrame"):
            yield element
        elif element.tag != _FALLBACK:  # groups, and choices between versions
            yield from _shapes(element)


def _placeholder(shape: Any) -> str | None:
    """The kind of placeholder a shape is ("" for one that takes anything), None for others."""
    found = shape.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
    return None if found is None else found.get("type", "")


def _lines(shape: Any) -> list[str]:
    return [text for paragraph in shape.iterfind(f"{_P}txBody/{_A}p") if (text := _text(paragraph))]


def _text(paragraph: Any) -> str:
    pieces = []
    for element in paragraph.iter(_A + "t", _A + "br", _MATH_TEXT):
        pieces.append("\n" if element.tag == _A + "br" else element.text or "")
    return "".join(pieces).replace("_x000B_", "\n").strip()


def _has_bullet(properties: Any, inherited: bool) -> bool:
    if properties is None:
        return inherited
    if properties.find(_A + "buNone") is not None:
        return False
    return inherited or properties.find(_A + "buChar") is not None or properties.find(_A + "buBlip") is not None


def _rows(grid: Any) -> Iterator[list[tuple[str, int, int]]]:
    for row in grid.iterchildren(_A + "tr"):
        yield [
            (
                " ".join(_text(each) for each in cell.iter(_A + "p")),
                _number(cell, "gridSpan", 1, MAX_SPAN),
                _number(cell, "rowSpan", 1, MAX_SPAN),
            )
            for cell in row.iterchildren(_A + "tc")
            if cell.get("hMerge") not in ("1", "true") and cell.get("vMerge") not in ("1", "true")
        ]


def _points(series: Any) -> tuple[dict[str, str], str, dict[str, str]]:
    """Of a series in a chart: categories by place, its name, values by place."""

    def cached(*kinds: str) -> dict[str, str]:
        points = (point for kind in kinds for each in series.iterchildren(_C + kind) for point in each.iter(_C + "pt"))
        return {point.get("idx", ""): repeated(point.findtext(_C + "v") or "") for point in points}

    return cached("cat", "xVal"), " ".join(cached("tx").values()), cached("val", "yVal")


def _number(element: Any, name: str, default: int, most: int) -> int:
    value = element.get(name, "") if element is not None else ""
    return max(default, min(int(value), most)) if value.isdecimal() and len(value) < 9 else default

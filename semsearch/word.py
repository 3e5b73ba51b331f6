"""DOCX as Markdown-like text: `#` headings, lists, `| a | b |` tables, in document order.

python-docx opens the package; the tree is read here, since its paragraphs leave out content controls, text boxes,
formulas, notes and tracked insertions. See `formats` for the contract of the functions.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from semsearch.archives import transitional
from semsearch.formats import Extracted, fenced, joined
from semsearch.markup import MAX_SPAN, escaped, repeated, table

__all__ = ["docx"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_TEXT = frozenset((_W + "t", _M + "t"))
_SPACES = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "-"}
# Properties, deleted or moved-away text, and the second copy that Word writes of a drawing for old readers.
_UNSEEN = frozenset(
    (
        *(_W + name for name in ("pPr", "rPr", "sdtPr", "del", "moveFrom", "sectPr", "footnoteReference")),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    )
)


def docx(data: bytes) -> Extracted:
    """DOCX: headings, paragraphs, lists, tables, text boxes, formulas and notes; the title is the core property.

    Headers, footers, comments and deleted text are left out. A cell that spans
    columns or rows stands in each of them.
    """
    import docx as python_docx

    document = python_docx.Document(io.BytesIO(transitional(data)))
    writer = _WordText(document)
    text = joined(writer.blocks(document.element.body), "") + writer.code()
    notes = joined(writer.notes(), "\n\n")
    title = (document.core_properties.title or "").strip()
    return Extracted(f"{text}\n\n{notes}" if notes else text, title or writer.first_heading)


@dataclass(frozen=True, slots=True)
class _Style:
    """What a paragraph style says, its own or inherited: heading level (0: none), list number and level, code."""

    heading: int = 0
    number: str | None = None
    depth: int = 0
    code: bool = False


class _WordText:
    """The text of a Word document, block by block."""

    def __init__(self, document: Any) -> None:
        self.first_heading = ""
        self._part = document.part
        self._styles = _styles(document.styles.element)
        self._ordered = self._numberings()
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 10)
        self._after_item = False
        self._begun = False
        self._code: list[str] = []  # lines of the paragraphs before, which are code

    def blocks(self, container: Any) -> Iterator[str]:
        """Paragraphs and tables, each with the line breaks before it."""
        for element in container:
            if element.tag == _W + "p":
                yield from self._paragraph(element)
            elif element.tag == _W + "tbl":
                yield self._placed(table(self._rows(element)), False)
            elif element.tag not in _UNSEEN:  # content controls and the like
                yield from self.blocks(element)

    def notes(self) -> Iterator[str]:
        """Footnotes and endnotes, a paragraph each."""
        for kind in ("footnotes", "endnotes"):
            for note in self._related(kind):
                if note.get(_W + "type") is None:  # the others are separators
                    yield from filter(None, [" ".join(_inline_text(note, []).split())])

    def _paragraph(self, paragraph: Any) -> Iterator[str]:
        boxes: list[Any] = []
        line = _inline_text(paragraph, boxes)
        text = line.strip()
        style = self._style_of(paragraph)
        if style.code:
            self._code.append(line.rstrip())
        elif text and style.heading:
            heading = " ".join(text.split())
            self.first_heading = self.first_heading or heading
            yield self._placed(f"{'#' * min(style.heading, 6)} {heading}", False)
        elif text and style.number:
            indent = "  " * style.depth
            marker = self._marker(style.number, style.depth)
            yield self._placed(indent + marker + text.replace("\n", f"\n{indent}  "), True)
        elif text:
            lines = text.split("\n")
            yield self._placed("\n".join(map(escaped, lines)), False)
        for box in boxes:
            yield from self.blocks(box)

    def _placed(self, block: str, item: bool) -> str:
        """The block with the line breaks before it, after the code that waited for its end."""
        code = self.code()
        if not block:
            return code
        parting = "" if not self._begun else "\n" if item and self._after_item else "\n\n"
        self._begun, self._after_item = True, item
        return code + parting + block

    def code(self) -> str:
        """The code paragraphs that have not been given out, as one fenced block."""
        lines, self._code = self._code, []
        if not any(lines):
            return ""
        parting = "\n\n" if self._begun else ""
        self._begun, self._after_item = True, False
        return parting + fenced("\n".join(lines).strip("\n"), "")

    def _rows(self, grid: Any) -> Iterator[list[str]]:
        above: list[str] = []
        for row in grid.iterchildren(_W + "tr", _W + "sdt"):
            line: list[str] = []
            for cell in row.iter(_W + "tc"):
                if _nearest(cell, _W + "tbl") is grid:
                    text, columns = self._cell(cell), 1
                    if (properties := cell.find(_W + "tcPr")) is not None:
                        columns = min(int(_value(properties, "gridSpan") or 1), MAX_SPAN)
                        merged = properties.find(_W + "vMerge")
                        if merged is not None and merged.get(_W + "val") != "restart" and len(line) < len(above):
                            text = repeated(above[len(line)])
                    line.extend((text, *[repeated(text)] * (columns - 1)))
            yield line
            above = line

    def _cell(self, cell: Any) -> str:
        boxes: list[Any] = []
        text = _inline_text(cell, boxes)
        return " ".join([text, *(_inline_text(box, []) for box in boxes)])

    def _style_of(self, paragraph: Any) -> _Style:
        properties = paragraph.find(_W + "pPr")
        if properties is None:
            return _Style()
        own = _value(properties, "pStyle") or ""
        return _refined(properties, self._styles.get(own, _Style()))

    def _marker(self, number: str, depth: int) -> str:
        start = self._ordered.get((number, depth))
        if start is None:
            return "- "
        counts = self._counts[number]
        counts[depth] += 1
        counts[depth + 1 :] = [0] * (9 - depth)
        return f"{start + counts[depth] - 1}. "

    def _numberings(self) -> dict[tuple[str, int], int]:
        """The first number of each level of each ordered list, by (number id, level); bullets are not in it."""
        kinds: dict[str | None, dict[int, int]] = {}
        found: dict[tuple[str, int], int] = {}
        for element in self._related("numbering"):
            if element.tag == _W + "abstractNum":
                kinds[element.get(_W + "abstractNumId")] = {
                    int(level.get(_W + "ilvl")): int(_value(level, "start") or 1)
                    for level in element.iterchildren(_W + "lvl")
                    if _value(level, "numFmt") not in ("bullet", "none")
                }
            elif element.tag == _W + "num":
                levels = kinds.get(_value(element, "abstractNumId"), {})
                found.update({(element.get(_W + "numId"), depth): start for depth, start in levels.items()})
        return found

    def _related(self, kind: str) -> Any:
        """The root of a part that belongs to the document (its elements can be iterated), or an empty list."""
        from docx.oxml import parse_xml

        for relation in self._part.rels.values():
            if not relation.is_external and relation.reltype.endswith("/" + kind):
                return parse_xml(relation.target_part.blob)
        return []


def _inline_text(element: Any, boxes: list[Any]) -> str:
    """The text below an element, paragraphs parted by line breaks; text boxes are put into `boxes` instead."""
    pieces: list[str] = []
    for child in element:
        if child.tag in _TEXT:
            pieces.append(child.text or "")
        elif child.tag in _SPACES:
            pieces.append(_SPACES[child.tag])
        elif child.tag == _W + "txbxContent":
            boxes.append(child)
        elif child.tag not in _UNSEEN:
            pieces.append(_inline_text(child, boxes))
            if child.tag == _W + "p":
                pieces.append("\n")
    return "".join(pieces)


def _styles(root: Any) -> dict[str, _Style]:
    """Paragraph styles by id."""
    elements = {element.get(_W + "styleId"): element for element in root.iterchildren(_W + "style")}
    found: dict[str, _Style] = {}
    for name, element in elements.items():
        chain = []
        while element is not None and element not in chain:
            chain.append(element)
            element = elements.get(_value(element, "basedOn"))
        style = _Style()
        for ancestor in reversed(chain):
            style = _named(_value(ancestor, "name") or "", style)
            properties = ancestor.find(_W + "pPr")
            style = style if properties is None else _refined(properties, style)
        found[name] = style
    return found


def _named(name: str, style: _Style) -> _Style:
    """What the name of a style says; Word's own are English in every language's files, publishers have others."""
    name = name.lower().replace(" ", "").replace("_", "").replace("-", "")
    if level := re.fullmatch(r"head(?:ing)?([1-9a-e])", name):  # A-heads stand below the title of the chapter
        heading = int(level[1]) if level[1].isdecimal() else ord(level[1]) - ord("a") + 2
        return replace(style, heading=heading)
    if re.fullmatch(r"(?:book|part|chapter|appendix|frontmatter|document)?title", name):
        return replace(style, heading=1)
    if re.fullmatch(r"(?:source|box|note)?code(?:wide|annotated|block|text)?|(?:html)?preformatted(?:text)?", name):
        return replace(style, code=True)
    return style


def _refined(properties: Any, style: _Style) -> _Style:
    """The style, with what paragraph properties say about outline level and numbering."""
    outline = _value(properties, "outlineLvl")
    heading = style.heading if outline is None else int(outline) + 1 if int(outline) < 9 else 0
    numbering = properties.find(_W + "numPr")
    if numbering is None:
        return replace(style, heading=heading)
    number = _value(numbering, "numId") or style.number
    depth = min(int(_value(numbering, "ilvl") or style.depth), 8)
    return replace(style, heading=heading, number=None if number == "0" else number, depth=depth)


def _value(element: Any, name: str) -> str | None:
    child = element.find(_W + name)
    return None if child is None else child.get(_W + "val")


def _nearest(element: Any, tag: str) -> Any:
    return next(element.iterancestors(tag), None)

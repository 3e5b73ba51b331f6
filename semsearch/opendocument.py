"""ODT, ODP and ODS (LibreOffice) as text: headings, lists, tables, notes; a page for each slide, a line for each row.

The text conventions are those of `word`, `slides` and `sheets`. See `formats` for the contract of the functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from semsearch.archives import Package
from semsearch.formats import Extracted, UnreadableError, fenced
from semsearch.markup import MAX_SPAN, Blocks, Cell, repeated, spread, table
from semsearch.sheets import MAX_CELLS, MAX_ROWS, sheets_text
from semsearch.slides import MAX_SLIDES, pages_text

__all__ = ["odp", "ods", "odt"]

MAX_SPACES = 100  # that one element stands for
MAX_COLUMNS = 16_384  # of a sheet, without empty ones at its end; LibreOffice has no more

_OASIS = "{urn:oasis:names:tc:opendocument:xmlns:%s:1.0}"
_OFFICE, _TEXT, _TABLE, _DRAW, _STYLE, _SLIDES = (
    _OASIS % name for name in ("office", "text", "table", "drawing", "style", "presentation")
)
_ENCRYPTED = _OASIS % "manifest" + "encryption-data"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_UNSEEN = frozenset(
    (
        *(_OFFICE + name for name in ("annotation", "annotation-end", "forms", "event-listeners", "binary-data")),
        *(_TEXT + name for name in ("tracked-changes", "table-of-content", "sequence-decls", "ruby-text")),
        *(_TEXT + name for name in ("variable-decls", "user-field-decls", "note-citation")),
        *(_DRAW + name for name in ("object", "object-ole", "image")),
    )
)
_SAID_OF_PICTURES = tuple(_OASIS % "svg-compatible" + name for name in ("title", "desc"))
_FURNITURE = ("header", "footer", "date-time", "page-number")


def odt(data: bytes) -> Extracted:
    """ODT: headings, paragraphs, lists, tables, text boxes and notes; the title is that of the document's properties.

    Headers, footers, comments, deleted text and the table of contents are left out. A cell that spans columns or rows
    stands in each of them.
    """
    document = _Document(data, "text")
    document.walk(document.body)
    document.end_code()
    for note in document.notes:
        document.blocks.paragraph(note)
    return Extracted(document.blocks.text(), document.title or document.blocks.first_heading)


def odp(data: bytes) -> Extracted:
    """ODP: of each slide the title, then texts and tables in the order in which they lie, then notes.

    `pages` is the number of slides; a slide without a title is headed by its number where others have one.
    """
    document = _Document(data, "presentation")
    slides = list(document.body.iterchildren(_DRAW + "page"))
    if len(slides) > MAX_SLIDES:
        raise UnreadableError(f"{len(slides):,} slides; at most {MAX_SLIDES:,} are read")
    text, first = pages_text(map(document.slide, slides))
    return Extracted(text, document.title or first, {"pages": len(slides)})


def ods(data: bytes) -> Extracted:
    """ODS: a heading for each sheet, a line for each row; dates are written as in ISO 8601.

    >>> ods(data).text  # doctest: +SKIP
    '## Fees\\n\\nitem: book; fee: 0.10'
    """
    document = _Document(data, "spreadsheet")
    left = [MAX_ROWS, MAX_CELLS]
    tables = document.body.iterchildren(_TABLE + "table")
    return Extracted(
        sheets_text((each.get(_TABLE + "name") or "", _sheet_rows(document, each, left)) for each in tables),
        document.title,
    )


@dataclass(frozen=True, slots=True)
class _Style:
    """What a paragraph style says, its own or inherited: whether it is a title, whether it is code."""

    title: bool = False
    code: bool = False


class _Document:
    """The content of an OpenDocument package, and the text that is made of it."""

    def __init__(self, data: bytes, kind: str) -> None:
        package = Package(data)
        if "META-INF/manifest.xml" in package:
            manifest = package.xml("META-INF/manifest.xml")
            if (
                next(manifest.iter(_ENCRYPTED, "{http://openoffice.org/2001/manifest}encryption-data"), None)
                is not None
            ):
                raise UnreadableError("encrypted: a password is needed to open it")
        root = package.xml("content.xml")
        self.body = root.find(f"{_OFFICE}body/{_OFFICE}{kind}")
        if self.body is None:
            raise UnreadableError(f"no OpenDocument {kind}, but another kind of file")
        self.title = ""
        if "meta.xml" in package:
            self.title = " ".join((package.xml("meta.xml").findtext(f".//{_TITLE}") or "").split())
        self.blocks = Blocks()
        self.notes: list[str] = []
        self._styles: dict[str, _Style] = {}
        self._ordered: set[tuple[str, int]] = set()  # (list style, level from 0) of lists with numbers
        self._numbers: dict[tuple[str, int], int] = {}  # of such lists, the number of the last item so far
        if "styles.xml" in package:
            self._read_styles(package.xml("styles.xml"))
        self._read_styles(root)
        self._code: list[str] = []  # lines of the paragraphs before, which are code

    def _read_styles(self, root: Any) -> None:
        parents = {}
        for style in root.iter(_STYLE + "style"):
            if style.get(_STYLE + "family") == "paragraph":
                parents[style.get(_STYLE + "name")] = style.get(_STYLE + "parent-style-name")
        for name in parents:
            self._styles[name] = self._resolved(name, parents)
        for style in root.iter(_TEXT + "list-style"):
            for level in style.iterchildren(_TEXT + "list-level-style-number"):
                depth = level.get(_TEXT + "level") or "1"
                if level.get(_STYLE + "num-format") and depth.isdecimal() and len(depth) < 3:
                    self._ordered.add((style.get(_STYLE + "name") or "", int(depth) - 1))

    def _resolved(self, name: str, parents: dict[str, str]) -> _Style:
        each: str | None = name
        for _ in range(20):  # a style that is based on itself must not hang
            if each in ("Title", "Preformatted_20_Text"):
                return _Style(title=each == "Title", code=each != "Title")
            if each is None:
                break
            if each in self._styles and each not in parents:  # of styles.xml
                return self._styles[each]
            each = parents.get(each)
        return _Style()

    # -- blocks --

    def walk(self, container: Any) -> None:
        """Add the paragraphs, lists and tables below an element."""
        for element in container:
            if element.tag in (_TEXT + "p", _TEXT + "h"):
                self._add_paragraph(element)
            elif element.tag == _TEXT + "list":
                self.end_code()
                self._add_list(element, 0, "")
            elif element.tag == _TABLE + "table":
                self.end_code()
                self.blocks.add(table(spread(self._cells(element))))
            elif element.tag not in _UNSEEN:  # sections, frames and the like
                self.walk(element)

    def _add_paragraph(self, element: Any) -> None:
        boxes: list[Any] = []
        style = self._styles.get(element.get(_TEXT + "style-name") or "", _Style())
        text = self.inline(element, boxes)
        if style.code and element.tag == _TEXT + "p":
            self._code.append(text)
        else:
            self.end_code()
            if element.tag == _TEXT + "h":
                level = element.get(_TEXT + "outline-level") or "1"
                self.blocks.heading(text, int(level) if level.isdecimal() and len(level) < 3 else 1)
            elif style.title:
                self.blocks.heading(text, 1)
            else:
                self.blocks.paragraph(text)
        for box in boxes:
            self.walk(box)

    def end_code(self) -> None:
        """Add the paragraphs of code that wait for their end."""
        lines, self._code = self._code, []
        if any(lines):
            self.blocks.add(fenced("\n".join(lines).strip("\n"), ""))

    def _add_list(self, element: Any, depth: int, style: str) -> None:
        style = element.get(_TEXT + "style-name") or style
        place = (style, depth)
        number = self._numbers.get(place, 0) if element.get(_TEXT + "continue-numbering") == "true" else 0
        for item in element.iterchildren(_TEXT + "list-item", _TEXT + "list-header"):
            marker = "- "
            if place in self._ordered:
                number += item.tag == _TEXT + "list-item"
                marker = f"{number}. "
            for child in item:
                if child.tag == _TEXT + "list":
                    self._add_list(child, depth + 1, style)
                elif child.tag == _TEXT + "h":
                    self._add_paragraph(child)
                else:
                    boxes: list[Any] = []
                    self.blocks.item(self.inline(child, boxes), depth, marker)
                    marker = "  "
                    for box in boxes:
                        self.walk(box)
        self._numbers[place] = number

    def _cells(self, grid: Any) -> Iterator[list[Cell]]:
        for row in _rows_of(grid):
            line: list[Cell] = []
            for cell in row.iterchildren(_TABLE + "table-cell"):  # covered cells are those that others span
                text = self.cell_text(cell)
                spans = (_number(cell, "number-columns-spanned"), _number(cell, "number-rows-spanned"))
                line.append((text, *spans))
                line.extend([(repeated(text), *spans)] * (_number(cell, "number-columns-repeated") - 1))
            while line and not line[-1][0]:  # a row may be filled up to the last column there is
                line.pop()
            yield line

    def cell_text(self, cell: Any) -> str:
        boxes: list[Any] = []
        text = self.inline(cell, boxes)
        return " ".join([text, *(self.inline(box, []) for box in boxes)]).strip()

    # -- text in a line --

    def inline(self, element: Any, boxes: list[Any]) -> str:
        """The text below an element, paragraphs parted by line breaks; text boxes are put into `boxes` instead."""
        pieces: list[str] = []
        self._collect(element, boxes, pieces)
        return "".join(pieces).strip("\n")

    def _collect(self, element: Any, boxes: list[Any], pieces: list[str]) -> None:
        pieces.append(_collapsed(element.text))
        for child in element:
            if child.tag == _TEXT + "s":
                count = child.get(_TEXT + "c") or "1"
                pieces.append(" " * min(int(count) if count.isdecimal() and len(count) < 9 else 1, MAX_SPACES))
            elif child.tag in (_TEXT + "tab", _TEXT + "line-break"):
                pieces.append("\t" if child.tag == _TEXT + "tab" else "\n")
            elif child.tag == _TEXT + "note":
                note = child.find(_TEXT + "note-body")
                self.notes.extend(filter(None, [" ".join(self.inline(note, []).split()) if note is not None else ""]))
            elif child.tag == _DRAW + "text-box":
                boxes.append(child)
            elif child.tag in _SAID_OF_PICTURES:
                pieces.append(f" {_collapsed(child.text)} ")  # apart from the words around it
            elif child.tag not in _UNSEEN:
                self._collect(child, boxes, pieces)
                if child.tag in (_TEXT + "p", _TEXT + "h"):
                    pieces.append("\n")
            pieces.append(_collapsed(child.tail))

    # -- slides --

    def slide(self, page: Any) -> tuple[str, str]:
        """Title and text of a slide."""
        title, self.blocks = "", Blocks()
        notes = ""
        for shape in page:
            kind = shape.get(_SLIDES + "class")
            if shape.tag == _SLIDES + "notes":
                notes = "\n".join(
                    self.inline(each, []) for box in shape.iter(_DRAW + "text-box") for each in box.iter(_TEXT + "p")
                ).strip()
            elif kind == "title" and not title:
                title = " ".join(" ".join(self.inline(box, []) for box in shape).split())
            elif kind not in _FURNITURE and shape.tag not in _UNSEEN:
                self.walk(shape if shape.tag != _TABLE + "table" else [shape])
        self.end_code()
        if notes:
            self.blocks.paragraph(f"Notes:\n{notes}")
        return title, self.blocks.text()


def _collapsed(text: str | None) -> str:
    """White space in the file is one space; more is written as elements."""
    return re.sub(r"[ \t\r\n]+", " ", text) if text else ""


def _rows_of(grid: Any) -> Iterator[Any]:
    for element in grid:
        if element.tag == _TABLE + "table-row":
            yield element
        elif element.tag in (_TABLE + name for name in ("table-rows", "table-header-rows", "table-row-group")):
            yield from _rows_of(element)


def _number(element: Any, name: str, most: int = MAX_SPAN) -> int:
    value = element.get(_TABLE + name) or ""
    return max(1, min(int(value), most)) if value.isdecimal() and len(value) < 9 else 1


def _sheet_rows(document: _Document, sheet: Any, left: list[int]) -> Iterator[list[str]]:
    for row in _rows_of(sheet):
        line: list[str] = []
        empty = 0  # cells since the last one with a value; a row may be filled up to the last column there is
        for cell in row.iterchildren(_TABLE + "table-cell", _TABLE + "covered-table-cell"):
            day = cell.get(_OFFICE + "date-value")
            text = day.replace("T", " ").removesuffix(" 00:00:00") if day else document.cell_text(cell)
            times = _number(cell, "number-columns-repeated", MAX_COLUMNS)
            if not text:
                empty += times
                continue
            if len(line) + empty + times > MAX_COLUMNS:
                raise UnreadableError(f"a row of more than {MAX_COLUMNS:,} columns")
            line.extend([""] * empty)
            line.append(text)
            line.extend([repeated(text)] * (times - 1))
            empty = 0
        copies = _number(row, "number-rows-repeated") if line else 1
        left[0] -= copies
        left[1] -= copies * len(line)
        if min(left) < 0:
            raise UnreadableError(f"more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells")
        yield from [line] * copies

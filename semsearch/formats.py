"""One function per format: what a file holds in, an `Extracted` out.

HTML is in `markup`, DOCX in `word`, PPTX in `slides`, XLSX in `sheets`, ODT, ODP and ODS in `opendocument`, EPUB in
`epub`, e-mail in `mail`.

Text formats get the decoded file and keep it character by character, so that offsets into `Extracted.text` are offsets
into the file: `plain`, `markdown`, `restructuredtext`, `asciidoc`. Others become Markdown-like text (`#` headings, `- `
lists, fenced code, `| a | b |` tables): `notebook` and all of other modules; or lines that read well and carry their
own context: `csv_rows`, `json_lines`, `json_values`, and the rows of sheets. There is a form feed between the pages of
a PDF and between slides.

A function raises `UnreadableError` with a reason a user can act on. Any other exception means a damaged file; whoever
calls turns both into `LoadError`. Nothing here opens a path, fetches anything or runs code of a document.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Extracted",
    "UnreadableError",
    "asciidoc",
    "csv_rows",
    "json_lines",
    "json_values",
    "markdown",
    "notebook",
    "pdf",
    "plain",
    "restructuredtext",
]

MAX_PAGES = 20_000  # of a PDF
MAX_CHARACTERS = 200_000_000  # of extracted text
MAX_OUTPUT = 1_000  # characters kept of one output of a notebook cell; a longer one ends in "…"
TITLE_LINES = 200  # a title is looked for in this many first lines


class UnreadableError(ValueError):
    """A file has no text that can be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a format gives: the text, a title ("" if there is none), and metadata of this format (`pages`)."""

    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


# ---- text formats: kept verbatim -------------------------------------------------------------------------------------


def plain(text: str) -> Extracted:
    """Plain text and source code.

    >>> plain("a\\r\\nb").text
    'a\\r\\nb'
    """
    return Extracted(text)


def markdown(text: str) -> Extracted:
    """Markdown; the title is `title:` of the front matter, or else the first heading.

    >>> markdown("Hello\\n=====\\n").title
    'Hello'
    """
    lines = first_lines(text)
    title, end = _front_matter(lines)
    return Extracted(text, title or markdown_title(lines[end:]))


def restructuredtext(text: str) -> Extracted:
    """reStructuredText; the title is the first section title, or else `Title:` of a PEP-like header.

    >>> restructuredtext("=====\\nHello\\n=====\\n").title
    'Hello'
    """
    lines = first_lines(text)
    for line in lines:
        if field_ := re.fullmatch(r":?Title: *(\S.*)", line):
            return Extracted(text, field_[1].strip())
        if not line.strip():
            break
    for above, line in itertools.pairwise(lines):
        adorned = re.fullmatch(r"([!-/:-@\[-`{-~])\1{2,}\s*", line)
        if adorned and re.search(r"\w", above) and len(line.rstrip()) >= len(above.strip()):
            return Extracted(text, above.strip())
    return Extracted(text)


def asciidoc(text: str) -> Extracted:
    """AsciiDoc; the title is the first `= Title`, `== Section`, or title underlined with `===`.

    >>> asciidoc("= Hello\\n").title
    'Hello'
    """
    lines = first_lines(text)
    for line, below in itertools.pairwise([*lines, ""]):
        if heading := re.fullmatch(r"(?:={1,6}|#{1,6})\s+(\S.*)", line):
            return Extracted(text, heading[1].strip())
        underlined = re.fullmatch(r"(=+|-+|~+)\s*", below)
        if underlined and re.search(r"\w", line) and abs(len(below.rstrip()) - len(line.rstrip())) <= 2:
            return Extracted(text, line.strip())
    return Extracted(text)


def first_lines(text: str) -> list[str]:
    """The lines at the beginning of a text in which a title is looked for."""
    return text[: 200 * TITLE_LINES].splitlines()[:TITLE_LINES]


def _front_matter(lines: list[str]) -> tuple[str, int]:
    """The title in the front matter (YAML or TOML), and the number of lines that the front matter takes."""
    if not lines or lines[0].strip() not in ("---", "+++"):
        return "", 0
    title = ""
    for number, line in enumerate(lines[1:], start=1):
        if line.strip() == lines[0].strip():
            return title, number + 1
        if entry := re.fullmatch(r"title\s*[:=]\s*(\S.*)", line, re.IGNORECASE):
            title = entry[1].strip().strip("\"'")
    return "", 0


def markdown_title(lines: list[str]) -> str:
    """The first ATX or setext heading outside of fenced code; "" if there is none."""
    fence = ""
    for line, below in itertools.pairwise([*lines, ""]):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark:
            fence = mark[1]
        elif heading := _heading(line):
            return heading
        elif re.fullmatch(r" {0,3}(=+|-{3,})\s*", below) and re.match(r" {0,3}\w", line):
            return line.strip()
    return ""


def _heading(line: str) -> str:
    """The text of an ATX heading, "" for any other line. By hand: a regular expression took cubic time."""
    body = line.lstrip(" ")
    level = len(body) - len(body.lstrip("#"))
    if len(line) - len(body) > 3 or not 1 <= level <= 6 or not body[level : level + 1].isspace():
        return ""
    text = body[level:].strip()
    bare = text.rstrip("#")
    return bare.rstrip() if not bare or bare[-1].isspace() else text


# ---- tables and records ----------------------------------------------------------------------------------------------


def csv_rows(text: str) -> Extracted:
    """CSV and TSV: a line per row, each value with its column's name; the delimiter is found out.

    A first row with an empty, repeated or numeric cell is no header; the values then stand alone. A header without
    rows is a line itself. Text that is no CSV is kept as it is.

    >>> csv_rows("name,fee\\nbook,0.10\\n").text
    'name: book; fee: 0.10'
    """
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        return Extracted(joined(_row_lines(rows), "\n"))
    except csv.Error:
        return Extracted(text)


def _delimiter(text: str) -> str:
    """The delimiter that cuts the first lines into the most columns, most evenly."""
    lines = text[:20_000].splitlines()[:20]

    def evenness(delimiter: str) -> tuple[float, int]:
        counts = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        columns, rows = counts.most_common(1)[0] if counts else (1, 0)
        return (rows / counts.total(), columns) if columns > 1 else (0.0, 0)

    return max(",;\t|", key=evenness)


def _row_lines(rows: Iterable[list[str]]) -> Iterator[str]:
    rows = ([" ".join(cell.split()) for cell in row] for row in rows)
    first = next(rows, [])
    named = (
        all(first) and len(set(first)) == len(first) and not any(re.fullmatch(r"[\d.,%+-]+", cell) for cell in first)
    )
    header = first if named else []
    said = False
    for row in rows if named else itertools.chain([first], rows):
        cells = [
            f"{name}: {value}" if name else value
            for name, value in itertools.zip_longest(header, row, fillvalue="")
            if value
        ]
        if cells:
            said = True
            yield "; ".join(cells)
    if header and not said:
        yield "; ".join(header)


def json_values(text: str) -> Extracted:
    """JSON: a line `path: value` for each value, records of a list apart; numbers as they are written.

    Flat lines rather than pretty-printed text: each line names what its value is, however deep it lies, so a passage
    cut anywhere still reads well, and no tokens go into braces and quotes. Text that is no JSON (with comments, say)
    is kept as it is.

    >>> json_values('{"loan": {"days": 21, "fees": ["late", "lost"]}}').text
    'loan.days: 21\\nloan.fees: late, lost'
    """
    try:
        value = _parse_json(text)
    except ValueError:
        return Extracted(text)
    if isinstance(value, list) and any(isinstance(record, dict) for record in value):
        return Extracted(joined((joined(_value_lines(record), "\n") for record in value), "\n\n"))
    return Extracted(joined(_value_lines(value), "\n"))


def json_lines(text: str) -> Extracted:
    """JSON lines: a paragraph of `path: value` lines for each record; a line that is no JSON is kept as it is.

    >>> json_lines('{"a": 1}\\n{"a": 2}\\n').text
    'a: 1\\n\\na: 2'
    """

    def record(line: str) -> str:
        try:
            return joined(_value_lines(_parse_json(line)), "\n")
        except ValueError:
            return line.strip()

    return Extracted(joined((record(line) for line in text.split("\n") if line.strip()), "\n\n"))


def _parse_json(text: str) -> Any:
    return json.loads(text, parse_int=str, parse_float=str)


def _value_lines(value: Any) -> Iterator[str]:
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((f"{path}.{key}" if path else key, each) for key, each in reversed(value.items()))
        elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
            waiting.extend((f"{path}[{number}]", value[number]) for number in reversed(range(len(value))))
        else:
            shown = ", ".join(map(_scalar, value)) if isinstance(value, list) else _scalar(value)
            yield f"{path}: {shown}" if path else shown


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def joined(parts: Iterable[str], separator: str) -> str:
    """The parts in one string; long column names or paths times many rows must not fill the memory."""
    kept: list[str] = []
    size = 0
    for part in parts:
        size += len(part) + len(separator)
        if size > MAX_CHARACTERS:
            raise UnreadableError(f"more than {MAX_CHARACTERS:,} characters of text")
        kept.append(part)
    return separator.join(kept)


# ---- notebooks -------------------------------------------------------------------------------------------------------


def notebook(text: str) -> Extracted:
    """A Jupyter notebook (nbformat 3 and 4): Markdown cells, code cells fenced, the first characters of text outputs.

    >>> notebook('{"cells": [{"cell_type": "markdown", "source": ["# Hi"]}]}').title
    'Hi'
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UnreadableError(f"not a notebook: {error}") from None
    if not isinstance(content, dict):
        raise UnreadableError("not a notebook: its JSON is no object")
    sheets = content.get("worksheets") or [content]
    cells = [cell for sheet in sheets for cell in sheet.get("cells") or []]
    metadata = content.get("metadata") or {}
    language = str((metadata.get("language_info") or metadata.get("kernelspec") or {}).get("name", ""))
    language = "python" if language.startswith("python") else language
    blocks = [block for cell in cells for block in _cell_blocks(cell, language)]
    text = joined(blocks, "\n\n")
    return Extracted(text, str(metadata.get("title") or "") or markdown_title(first_lines(text)))


def _cell_blocks(cell: Mapping[str, Any], language: str) -> Iterator[str]:
    source = _text_of(cell.get("source", cell.get("input", "")))
    if not source.strip():
        return
    if cell.get("cell_type") == "heading":
        yield f"{'#' * min(6, max(1, int(cell.get('level', 1))))} {source}"
    elif cell.get("cell_type") != "code":
        yield source
    else:
        yield fenced(source, language)
        for output in cell.get("outputs") or []:
            shown = _text_of(output.get("text") or (output.get("data") or {}).get("text/plain") or "").strip("\n")
            if shown.strip():
                yield fenced(shown if len(shown) <= MAX_OUTPUT else shown[:MAX_OUTPUT] + "…", "")


def _text_of(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


def fenced(code: str, language: str) -> str:
    """Code as a fenced block of Markdown, with a fence longer than any run of backticks in it."""
    longest = max(map(len, re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"


# ---- PDF -------------------------------------------------------------------------------------------------------------

_pdfium_lock = threading.Lock()  # pdfium is not thread-safe


def _renew_lock() -> None:
    global _pdfium_lock
    _pdfium_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)

# Control characters are glyphs that a font does not explain; the hyphen \x02 has been seen to by then.
_PDF_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xAD, 0xFFFE, 0xFFFF)),
    0xFB00: "ff",
    0xFB01: "fi",
    0xFB02: "fl",
    0xFB03: "ffi",
    0xFB04: "ffl",
    0xFB05: "st",
    0xFB06: "st",
}


def pdf(data: bytes) -> Extracted:
    """PDF: the text of each page in the order it is stored, a form feed between pages; `pages` is their number.

    pdfium reads it; where it cannot, pypdf tries. Words hyphenated at a line's end are joined. An encrypted file that
    needs a password and a file of images only are `UnreadableError`.
    """
    import pypdfium2

    try:
        pages, title = _pdfium_pages(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise UnreadableError("encrypted: a password is needed to open it") from None
        if "security" in str(error).lower():
            raise UnreadableError("encrypted in a way that is not supported") from None
        pages, title = _pypdf_pages(data, str(error))
    if not any(map(str.strip, pages)):
        raise UnreadableError("no text layer: its pages are images (OCR would be needed)")
    title = "" if title.lower() in ("untitled", "anonymous") else title.removeprefix("Microsoft Word - ")
    return Extracted("\f".join(_tidied(pages)), title, {"pages": len(pages)})


def _pdfium_pages(data: bytes) -> tuple[list[str], str]:
    import pypdfium2

    with _pdfium_lock, closing(pypdfium2.PdfDocument(data)) as document:
        _check_pages(len(document))
        pages = []
        for number in range(len(document)):
            with closing(document[number]) as page, closing(page.get_textpage()) as text_page:
                pages.append(text_page.get_text_bounded().replace("\r\n", "\n"))
        return pages, document.get_metadata_value("Title").strip()


def _pypdf_pages(data: bytes, reason: str) -> tuple[list[str], str]:
    import pypdf
    from pypdf.errors import PyPdfError

    with _silent("pypdf"):
        try:
            reader = pypdf.PdfReader(io.BytesIO(data))
            if reader.is_encrypted:
                raise UnreadableError("encrypted: a password is needed to open it")
            _check_pages(len(reader.pages))
            pages = [page.extract_text().strip("\n") for page in reader.pages]
            title = str(reader.metadata.title or "") if reader.metadata else ""
        except (PyPdfError, OSError) as error:
            raise UnreadableError(
                f"damaged or no PDF ({reason.rstrip('.')}; {type(error).__name__}: {error})"
            ) from None
    if not pages:
        raise UnreadableError(f"damaged or no PDF ({reason.rstrip('.')})")
    return pages, title.strip()


def _check_pages(count: int) -> None:
    if count > MAX_PAGES:
        raise UnreadableError(f"{count:,} pages; at most {MAX_PAGES:,} are read")


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """No log record of this library reaches the user: what matters is in the reason."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _tidied(pages: list[str]) -> Iterator[str]:
    """Join words that were cut at a line's end (pdfium marks the hyphen as \\x02), and drop unexplained glyphs.

    A hyphen stays where the document has the same compound within a line.
    """
    cuts = any("\x02" in page for page in pages)
    compounds = {compound for page in pages for compound in re.findall(r"\w+-\w+", page)} if cuts else set()

    def join(cut: re.Match[str]) -> str:
        hyphenated = f"{cut[1]}-{cut[2]}"
        return hyphenated if hyphenated in compounds else cut[1] + cut[2]

    for page in pages:
        joined_up = re.sub(r"(\w+)\x02\s*(\w+)", join, page) if cuts else page
        yield joined_up.translate(_PDF_CHARACTERS)

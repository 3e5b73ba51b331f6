"""XLSX as text: a `##` heading for each sheet, under it a line for each row, each value with its column's name.

Rows read as those of CSV do (`formats.csv_rows`): a passage cut anywhere still says what its values are. See `formats`
for the contract of the functions; `opendocument` uses `sheet_lines` for ODS.
"""

from __future__ import annotations

import datetime as dt
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from semsearch.archives import transitional
from semsearch.formats import Extracted, UnreadableError, joined

__all__ = ["sheet_lines", "sheets_text", "xlsx"]

MAX_ROWS = 5_000_000  # of all sheets, empty ones as well
MAX_CELLS = 50_000_000  # of all sheets, empty ones as well

_NUMBERS = re.compile(r"[\d.,:%+\-/]+")


def xlsx(data: bytes) -> Extracted:
    """XLSX: the values of each sheet, those of formulas as they were last computed; the title is the core property.

    Empty cells and rows are left out, dates are written as in ISO 8601. Charts, comments and the reach of merged cells
    are left out.
    """
    import openpyxl

    package = transitional(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what openpyxl leaves out
        book = openpyxl.load_workbook(io.BytesIO(package), read_only=True, data_only=True, keep_links=False)
        try:
            text = sheets_text(_sheets(book))
            title = " ".join((book.properties.title or "").split())
        finally:
            book.close()
    return Extracted(text, title)


def _sheets(book: Any) -> Iterator[tuple[str, Iterator[list[str]]]]:
    left = [MAX_ROWS, MAX_CELLS]
    for sheet in book.worksheets:
        if hasattr(sheet, "reset_dimensions"):
            sheet.reset_dimensions()  # what a file says of its own size is not believed
            yield sheet.title, _rows(sheet, left)


def _rows(sheet: Any, left: list[int]) -> Iterator[list[str]]:
    for row in sheet.iter_rows():
        left[0] -= 1
        left[1] -= len(row)
        if min(left) < 0:
            raise UnreadableError(f"more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells")
        yield [_shown(cell) for cell in row]


def _shown(cell: Any) -> str:
    """A value as a reader would have it."""
    value = cell.value
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, dt.datetime):
        day = value.date().isoformat()
        return day if value.time() == dt.time() else f"{day} {value.time().isoformat('auto')}"
    if isinstance(value, int | float):
        percent = "%" in (cell.number_format or "")
        return f"{value * 100:.12g}%" if percent else f"{value:.15g}" if isinstance(value, float) else str(value)
    return str(value)


def sheets_text(sheets: Iterable[tuple[str, Iterable[Sequence[str]]]]) -> str:
    """The text of sheets, each a name and its rows of cells; UnreadableError if no cell has a value."""
    text = joined(_sheet_parts(sheets), "\n\n")
    if not text:
        raise UnreadableError("no values: its sheets are empty, or its formulas were never computed")
    return text


def _sheet_parts(sheets: Iterable[tuple[str, Iterable[Sequence[str]]]]) -> Iterator[str]:
    for name, rows in sheets:
        if lines := joined(sheet_lines(rows), "\n"):
            yield f"## {' '.join(name.split())}\n\n{lines}"


def sheet_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A line for each row that is not empty; an empty row parts tables, of which one blank line is left.

    The first row of a table that has two cells or more is its header if all of them differ and none is a number. Rows
    above it, such as a caption, stand alone; so do values in a column without a name.

    >>> list(sheet_lines([["Fees"], ["item", "fee"], ["book", "0.10"], ["map", ""]]))
    ['Fees', 'item: book; fee: 0.10', 'item: map']
    """
    names: dict[int, str] = {}
    begun = said = gap = False  # whether the table has had its header, a line came (below it), a table has ended
    for row in rows:
        cells = {place: text for place, cell in enumerate(row) if cell and (text := " ".join(cell.split()))}
        if not cells:
            if names and not said:
                yield "; ".join(names.values())
            gap = gap or begun or said
            names, begun, said = {}, False, False
            continue
        if gap:
            yield ""
            gap = False
        if not begun and len(cells) > 1:
            begun = True
            if _is_header(cells):
                names, said = cells, False
                continue
        said = True
        yield "; ".join(
            f"{names[place].rstrip(': ')}: {text}" if place in names else text for place, text in cells.items()
        )
    if names and not said:
        yield "; ".join(names.values())


def _is_header(cells: dict[int, str]) -> bool:
    return len(set(cells.values())) == len(cells) and not any(map(_NUMBERS.fullmatch, cells.values()))

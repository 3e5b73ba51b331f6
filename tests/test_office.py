"""PPTX, XLSX, OpenDocument and EPUB: exact texts of small files, and packages that mean harm."""

from __future__ import annotations

import datetime as dt
import io
import re
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import openpyxl
import pptx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from semsearch import archives, epub, formats, opendocument, sheets, slides
from semsearch.chunking import chunk
from semsearch.errors import LoadError
from semsearch.loading import load_file


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def reason(path: Path) -> str:
    """Why a file is not read, which is said at once."""
    start = time.perf_counter()
    with pytest.raises(LoadError) as caught:
        load_file(path)
    assert time.perf_counter() - start < 20
    return caught.value.reason


def zipped(parts: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as package:
        for name, content in parts.items():
            package.writestr(name, content)
    return buffer.getvalue()


def replaced(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The package with one part changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        parts = {part.filename: package.read(part) for part in package.infolist()}
    return zipped({**parts, name: change(parts[name])})


# ---- PPTX ------------------------------------------------------------------------------------------------------------


def pptx_bytes(deck: pptx.presentation.Presentation) -> bytes:
    buffer = io.BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


@pytest.fixture
def deck() -> pptx.presentation.Presentation:
    deck = pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Late\vfees"
    body = first.placeholders[1].text_frame
    body.text = "adults"
    for text, level in (("ten cents", 1), ("children", 0)):
        paragraph = body.add_paragraph()
        paragraph.text, paragraph.level = text, level
    first.notes_slide.notes_text_frame.text = "Say it slowly.\nThen stop."
    second = deck.slides.add_slide(deck.slide_layouts[6])
    grid = second.shapes.add_table(2, 3, 0, 0, Inches(4), Inches(1)).table
    for row, cells in enumerate((("a", "", "c"), ("1", "x|y", ""))):
        for column, text in enumerate(cells):
            grid.cell(row, column).text = text
    grid.cell(0, 0).merge(grid.cell(0, 1))
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "grouped"
    inner = group.shapes.add_group_shape().shapes.add_textbox(0, 0, Inches(1), Inches(1))
    inner.text_frame.text = "# deeper"
    return deck


FIRST = "# Late fees\n\n- adults\n  - ten cents\n- children\n\nNotes:\nSay it slowly.\nThen stop."
SECOND = "# Slide 2\n\n| a | a | c |\n| --- | --- | --- |\n| 1 | x\\|y |  |\n\ngrouped\n\n\\# deeper"


def test_pptx(tmp_path: Path, deck: pptx.presentation.Presentation) -> None:
    document = load_file(write(tmp_path / "a.PPTX", pptx_bytes(deck)))
    assert document.text == f"{FIRST}\n\f\n{SECOND}"
    assert document.title == "Late fees"
    assert document.metadata["pages"] == 2
    deck.core_properties.title = "Rules"
    assert slides.pptx(pptx_bytes(deck)).title == "Rules"


def test_a_slide_is_a_page_and_its_title_a_heading(tmp_path: Path, deck: pptx.presentation.Presentation) -> None:
    document = load_file(write(tmp_path / "a.pptx", pptx_bytes(deck)))
    found = chunk(document, count_tokens=lambda texts: [len(text.split()) for text in texts], max_tokens=200)
    assert [(each.page, each.heading) for each in found] == [(1, "Late fees"), (2, "Slide 2")]


def test_pptx_charts_and_numbered_lists() -> None:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    data = CategoryChartData()
    data.categories = ["2019", "2020"]
    data.add_series("fresh", (120, 135.5))
    data.add_series("salt", (80, None))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(3), Inches(3), data)
    frame = slide.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame
    for text in ("one", "two", "plain"):
        paragraph = frame.paragraphs[0] if not frame.text else frame.add_paragraph()
        paragraph.text = text
        if text != "plain":
            kind = paragraph._p.get_or_add_pPr()
            kind.append(pptx.oxml.parse_xml(f'<a:buAutoNum xmlns:a="{slides._A[1:-1]}" type="arabicPeriod"/>'))
    assert slides.pptx(pptx_bytes(deck)).text == (
        "|  | fresh | salt |\n| --- | --- | --- |\n| 2019 | 120 | 80 |\n| 2020 | 135.5 |  |\n\n1. one\n2. two\n\nplain"
    )


def test_pptx_strict(deck: pptx.presentation.Presentation) -> None:
    data = pptx_bytes(deck)
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        parts = {part.filename: package.read(part) for part in package.infolist()}
    for ours, theirs in archives.STRICT:
        parts = {name: content.replace(theirs, ours) for name, content in parts.items()}
    assert slides.pptx(zipped(parts)).text == slides.pptx(data).text


def test_pptx_without_text(tmp_path: Path) -> None:
    deck = pptx.Presentation()
    assert reason(write(tmp_path / "a.pptx", pptx_bytes(deck))).startswith("no text: its slides are images")


# ---- XLSX ------------------------------------------------------------------------------------------------------------


def xlsx_bytes(**tables: Iterable[Iterable[object]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in tables.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def test_xlsx(tmp_path: Path) -> None:
    data = xlsx_bytes(
        Fees=[
            ["All fees of 2024"],
            ["item", "fee", "since", "free"],
            ["book", 0.1, dt.date(2024, 2, 29), True],
            ["map", 2.0, dt.datetime(2024, 3, 1, 9, 30), None],
            [],
            [],
            [None, "no", "header"],
            [None, 1, 2],
        ],
        Empty=[],
        Last=[["only", "a header"]],
        Form=[["Loan form"], ["Borrower", "Return date"], [], ["Title"], ["a", "b"], ["c"]],
    )
    document = load_file(write(tmp_path / "a.xlsx", data))
    assert document.text == (
        "## Fees\n\nAll fees of 2024\n"
        "item: book; fee: 0.1; since: 2024-02-29; free: TRUE\n"
        "item: map; fee: 2; since: 2024-03-01 09:30:00\n"
        "\n"
        "no: 1; header: 2\n\n"
        "## Last\n\nonly; a header\n\n"
        "## Form\n\nLoan form\nBorrower; Return date\n\nTitle\na: c"
    )
    assert document.title == ""


def test_xlsx_values_as_a_reader_has_them() -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for number, (value, kind) in enumerate(
        [(0.1 + 0.2, "General"), (0.255, "0.0%"), (12345678901234, "0"), (dt.time(8, 5), "hh:mm"), ("#N/A", "General")],
        start=1,
    ):
        sheet.cell(number, 1, value).number_format = kind
    sheet.cell(9, 1, "=1+1")
    book.properties.title = "Values"
    buffer = io.BytesIO()
    book.save(buffer)
    # A formula that nothing has computed has no value yet.
    assert sheets.xlsx(buffer.getvalue()) == formats.Extracted(
        "## Sheet\n\n0.3\n25.5%\n12345678901234\n08:05:00\n#N/A", "Values"
    )
    computed = replaced(
        buffer.getvalue(),
        "xl/worksheets/sheet1.xml",
        lambda part: re.sub(rb"(?<=</f>)<v.*?(?=</c>)", b"<v>2</v>", part),
    )
    assert sheets.xlsx(computed).text.endswith("#N/A\n\n2")


def test_xlsx_strict() -> None:
    data = xlsx_bytes(A=[["x", "y"], [1, 2]])
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        parts = {part.filename: package.read(part) for part in package.infolist()}
    for ours, theirs in archives.STRICT:
        parts = {name: content.replace(theirs, ours) for name, content in parts.items()}
    assert sheets.xlsx(zipped(parts)).text == "## A\n\nx: 1; y: 2"


def test_a_hundred_thousand_empty_rows_are_left_out(tmp_path: Path) -> None:
    data = xlsx_bytes(A=[["x", "y"], [1, 2]])
    empty = b"".join(b'<row r="%d"><c r="A%d" s="0"/></row>' % (row, row) for row in range(3, 100_003))
    data = replaced(
        data, "xl/worksheets/sheet1.xml", lambda part: part.replace(b"</sheetData>", empty + b"</sheetData>")
    )
    assert load_file(write(tmp_path / "a.xlsx", data)).text == "## A\n\nx: 1; y: 2"


def test_xlsx_with_rows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MAX_ROWS", 100_000)
    far = b'<row r="999999999999"><c r="A999999999999"><v>1</v></c></row></sheetData>'
    data = replaced(xlsx_bytes(A=[["x"]]), "xl/worksheets/sheet1.xml", lambda part: part.replace(b"</sheetData>", far))
    assert reason(write(tmp_path / "a.xlsx", data)) == "more than 100,000 rows or 50,000,000 cells"
    monkeypatch.setattr(sheets, "MAX_CELLS", 16_000)
    wide = xlsx_bytes(A=[[None] * 16_000 + [1], [2]])
    assert reason(write(tmp_path / "b.xlsx", wide)) == "more than 100,000 rows or 16,000 cells"


def test_sheets_without_values(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "a.xlsx", xlsx_bytes(A=[]))).startswith("no values: its sheets are empty")


# ---- OpenDocument ----------------------------------------------------------------------------------------------------

SPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{space}:1.0"'
    for name, space in (
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("draw", "drawing"),
        ("style", "style"),
        ("presentation", "presentation"),
        ("svg", "svg-compatible"),
    )
)


def open_document(kind: str, body: str, styles: str = "", title: str = "", **more: str) -> bytes:
    content = (
        f"<office:document-content {SPACES}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    dc = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
    meta = f"<office:meta {SPACES} {dc}><dc:title>{title}</dc:title></office:meta>"
    return zipped(
        {"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content, "meta.xml": meta, **more}
    )


def test_odt(tmp_path: Path) -> None:
    styles = """
        <style:style style:name="P1" style:family="paragraph" style:parent-style-name="Title"/>
        <style:style style:name="P2" style:family="paragraph" style:parent-style-name="Preformatted_20_Text"/>
        <text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>
        <text:list-level-style-bullet text:level="2"/></text:list-style>"""
    body = """<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>
        <text:p text:style-name="P1">The Rules</text:p>
        <text:h text:outline-level="2">Late
        fees<text:s text:c="2"/>now</text:h>
        <text:p># no heading<text:tab/>a<text:line-break/>b<office:annotation><text:p>hm</text:p></office:annotation>
        <text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>A note.</text:p></text:note-body>
        </text:note></text:p>
        <text:list text:style-name="L1"><text:list-item><text:p>one</text:p><text:list><text:list-item>
        <text:p>deep</text:p></text:list-item></text:list></text:list-item>
        <text:list-item><text:p>two</text:p><text:p>more</text:p></text:list-item></text:list>
        <text:p text:style-name="P2">if a:</text:p><text:p text:style-name="P2"><text:s text:c="4"/>b</text:p>
        <table:table><table:table-header-rows><table:table-row>
        <table:table-cell table:number-columns-spanned="2"><text:p>a</text:p></table:table-cell>
        <table:covered-table-cell/><table:table-cell><text:p>b|c</text:p></table:table-cell>
        </table:table-row></table:table-header-rows><table:table-row>
        <table:table-cell table:number-columns-repeated="3"><text:p>1</text:p></table:table-cell></table:table-row>
        </table:table>
        <text:section><text:p>x<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame></text:p>
        </text:section>"""
    document = load_file(write(tmp_path / "a.odt", open_document("text", body, styles)))
    assert document.text == (
        "# The Rules\n\n## Late fees now\n\n\\# no heading\ta\nb\n\n1. one\n  - deep\n2. two\n  more\n\n"
        "```\nif a:\n    b\n```\n\n| a | a | b\\|c |\n| --- | --- | --- |\n| 1 | 1 | 1 |\n\nx\n\nboxed\n\nA note."
    )
    assert document.title == "The Rules"
    assert opendocument.odt(open_document("text", body, styles, "Core")).title == "Core"


def test_odt_lists_that_go_on() -> None:
    styles = """<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>
        <text:list-level-style-number text:level="2" style:num-format="1"/></text:list-style>"""

    def numbered(inside: str, more: str = "") -> str:
        return f'<text:list text:style-name="L1"{more}><text:list-item>{inside}</text:list-item></text:list>'

    on = ' text:continue-numbering="true"'
    box = f"<draw:text-box>{numbered('<text:p>boxed</text:p>')}</draw:text-box>"
    body = (
        numbered("<text:p>one</text:p>" + numbered("<text:p>deep</text:p>") + numbered("<text:p>deeper</text:p>", on))
        + "<text:p>between</text:p>"
        + numbered(f"<text:p>two{box}</text:p>", on)
        + numbered("<text:p>three</text:p>", on)
        + numbered("<text:p>anew</text:p>")
    )
    text = "1. one\n  1. deep\n  2. deeper\n\nbetween\n\n2. two\n1. boxed\n3. three\n1. anew"
    assert opendocument.odt(open_document("text", body, styles)).text == text
    assert opendocument.odt(open_document("text", numbered("<text:p>x</text:p>", on), styles)).text == "1. x"


def test_odt_parts_what_is_said_of_a_picture_from_the_words_around_it() -> None:
    frame = "<draw:frame><draw:image/><svg:title>icon</svg:title><svg:desc>a printer</svg:desc></draw:frame>"
    for body in (f"<text:p>Press{frame}now.</text:p>", f"<text:p>Press {frame} now.</text:p>"):
        text = opendocument.odt(open_document("text", body)).text
        assert text.split() == ["Press", "icon", "a", "printer", "now."]
    assert opendocument.odt(open_document("text", f"<text:p>{frame}</text:p>")).text == "icon  a printer"


def test_odp(tmp_path: Path) -> None:
    body = """<draw:page><draw:frame presentation:class="title"><draw:text-box><text:p>Fees</text:p></draw:text-box>
        </draw:frame><draw:frame><draw:text-box><text:list><text:list-item><text:p>adults</text:p></text:list-item>
        </text:list></draw:text-box></draw:frame><draw:frame presentation:class="footer"><draw:text-box>
        <text:p>Foot</text:p></draw:text-box></draw:frame><presentation:notes><draw:frame><draw:text-box>
        <text:p>Slowly.</text:p></draw:text-box></draw:frame></presentation:notes></draw:page>
        <draw:page><draw:custom-shape><text:p>in a shape</text:p></draw:custom-shape></draw:page>"""
    document = load_file(write(tmp_path / "a.odp", open_document("presentation", body)))
    assert document.text == "# Fees\n\n- adults\n\nNotes:\nSlowly.\n\f\n# Slide 2\n\nin a shape"
    assert (document.title, document.metadata["pages"]) == ("Fees", 2)


def test_ods(tmp_path: Path) -> None:
    body = """<table:table table:name="Fees"><table:table-row><table:table-cell><text:p>item</text:p></table:table-cell>
        <table:table-cell><text:p>since</text:p></table:table-cell></table:table-row>
        <table:table-row table:number-rows-repeated="2"><table:table-cell><text:p>book</text:p></table:table-cell>
        <table:table-cell office:date-value="2024-02-29T00:00:00"><text:p>29.2.24</text:p></table:table-cell>
        <table:table-cell table:number-columns-repeated="16000"/></table:table-row>
        <table:table-row table:number-rows-repeated="1048000"><table:table-cell table:number-columns-repeated="16384"/>
        </table:table-row></table:table>"""
    document = load_file(write(tmp_path / "a.ods", open_document("spreadsheet", body)))
    assert document.text == "## Fees\n\nitem: book; since: 2024-02-29\nitem: book; since: 2024-02-29"


def test_ods_values_far_to_the_right_keep_their_column(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(*cells: tuple[str, int]) -> str:
        inside = "".join(
            f'<table:table-cell table:number-columns-repeated="{times}"><text:p>{text}</text:p></table:table-cell>'
            for text, times in cells
        )
        return f"<table:table-row>{inside}</table:table-row>"

    def read(*rows: str) -> str:
        body = f'<table:table table:name="S">{"".join(rows)}</table:table>'
        return opendocument.ods(open_document("spreadsheet", body)).text

    names = row(*((f"q{number}", 1) for number in range(203)))
    assert read(names, row(("x", 1), ("", 200), ("y", 1))) == "## S\n\nq0: x; q201: y"
    same = read(names, row(("z", 202), ("y", 1), ("", 16_384)))
    assert same.startswith("## S\n\nq0: z; q1: z;")
    assert same.endswith("q201: z; q202: y")
    for wide in ([("", 16_384)], [("x", 2), ("x", 16_382)], [("x", 1), ("", 9_000), ("", 9_000)]):
        with pytest.raises(formats.UnreadableError, match="a row of more than 16,384 columns"):
            read(row(*wide, ("y", 1)))
    monkeypatch.setattr(opendocument, "MAX_CELLS", 100_000)
    with pytest.raises(formats.UnreadableError, match="rows or 100,000 cells"):
        read(*[row(("", 16_383), ("y", 1))] * 7)


def test_open_documents_that_are_encrypted_or_of_another_kind(tmp_path: Path) -> None:
    manifest = (
        '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><m:file-entry>'
        "<m:encryption-data/></m:file-entry></m:manifest>"
    )
    data = open_document("text", "", **{"META-INF/manifest.xml": manifest})
    assert reason(write(tmp_path / "a.odt", data)) == "encrypted: a password is needed to open it"
    data = open_document("text", "<text:p>a</text:p>")
    assert reason(write(tmp_path / "a.ods", data)) == "no OpenDocument spreadsheet, but another kind of file"


# ---- EPUB ------------------------------------------------------------------------------------------------------------


def epub_bytes(spine: str = "abc", **more: str) -> bytes:
    """A book of the chapters a to c, of which the last one has no heading but the table of contents has."""
    items = "".join(
        f'<item id="{name}" href="text/{name}%20x.xhtml" media-type="application/xhtml+xml"/>' for name in "abc"
    )
    chapters = "".join(f'<itemref idref="{name}"/>' for name in spine)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>The\n Book</dc:title></metadata><manifest>{items}"
        '<item id="toc" href="toc.ncx" media-type="application/x-dtbncx+xml"/></manifest>'
        f"<spine>{chapters}</spine></package>"
    )
    toc = (
        '<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">'
        '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Part C</text></navLabel>'
        '<content src="text/c%20x.xhtml#top"/></navPoint></navMap></ncx>'
    )
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OPS/book.opf"/></rootfiles></container>',
            "OPS/book.opf": package,
            "OPS/toc.ncx": toc,
            "OPS/text/a x.xhtml": page.format("<h1>Part A</h1><p>one<a id='x'/> two&#160;three</p>"),
            "OPS/text/b x.xhtml": page.format("<script src='x'/><h2>Part B</h2><p>b</p>"),
            "OPS/text/c x.xhtml": page.format("<p>c</p>"),
            **more,
        }
    )


def test_epub(tmp_path: Path) -> None:
    document = load_file(write(tmp_path / "a.epub", epub_bytes("bacb")))
    assert document.text == "## Part B\n\nb\n\n# Part A\n\none two three\n\n# Part C\n\nc"
    assert document.title == "The Book"


def test_epub_under_management_of_rights(tmp_path: Path) -> None:
    encryption = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><e:EncryptedData '
        'xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptionMethod Algorithm="{}"/></e:EncryptedData>'
        "</encryption>"
    )
    fonts = encryption.format("http://www.idpf.org/2008/embedding")
    assert epub.epub(epub_bytes(**{"META-INF/encryption.xml": fonts})).title == "The Book"
    chapters = encryption.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")
    data = epub_bytes(**{"META-INF/encryption.xml": chapters})
    assert reason(write(tmp_path / "a.epub", data)) == "encrypted: the book is under digital rights management"


# ---- packages that mean harm -----------------------------------------------------------------------------------------

PACKAGES = (".pptx", ".xlsx", ".docx", ".odt", ".odp", ".ods", ".epub")


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return zipped({"content.xml": bytes(200_000_000), "x": bytes(200_000_000)})


@pytest.fixture(scope="module")
def confetti() -> bytes:
    return zipped(dict.fromkeys(map(str, range(10_001)), ""))


@pytest.mark.parametrize("suffix", PACKAGES)
def test_packages_that_mean_harm(tmp_path: Path, suffix: str, bomb: bytes, confetti: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    assert "not a zip file" in reason(write(path, b"no zip"))
    assert "password" in reason(write(path, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)))
    assert "would unpack to 400,000,000 bytes in 2 parts" in reason(write(path, bomb))
    assert "in 10,001 parts" in reason(write(path, confetti))
    assert "more than 10,000 parts" in reason(write(path, b"PK\x01\x02" * 30_000))
    assert "method" in reason(write(path, zipped({"content.xml": b"a"}, zipfile.ZIP_BZIP2)))
    assert reason(write(path, zipped({"x.png": b"a"}))).startswith("damaged")
    locked = bytearray(zipped({"content.xml": b"a"}))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    assert "password" in reason(write(path, bytes(locked)))


def test_a_part_that_is_larger_than_it_says(tmp_path: Path) -> None:
    """The declared size is the most that is unpacked."""
    data = bytearray(open_document("text", f"<text:p>{'a' * 50_000}</text:p>"))
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    assert "damaged" in reason(write(tmp_path / "a.odt", bytes(data)))


ENTITIES = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY it SYSTEM "file:///etc/hostname">]>'


def small(suffix: str) -> bytes:
    if suffix == ".pptx":
        deck = pptx.Presentation()
        deck.slides.add_slide(deck.slide_layouts[1]).shapes.title.text = "word"
        return pptx_bytes(deck)
    if suffix == ".xlsx":
        return xlsx_bytes(A=[["word"]])
    return open_document("text", "<text:p>word</text:p>") if suffix == ".odt" else epub_bytes()


SMALL = {suffix: small(suffix) for suffix in (".pptx", ".xlsx", ".odt", ".epub")}
MAIN = {
    ".pptx": "ppt/slides/slide1.xml",
    ".xlsx": "xl/worksheets/sheet1.xml",
    ".odt": "content.xml",
    ".epub": "OPS/book.opf",
}


def after_declaration(part: bytes, more: bytes) -> bytes:
    end = part.find(b"?>") + 2 if part.startswith(b"<?xml") else 0
    return part[:end] + more + part[end:]


@pytest.mark.parametrize("suffix", SMALL)
def test_entities_are_refused(tmp_path: Path, suffix: str) -> None:
    data = replaced(SMALL[suffix], MAIN[suffix], lambda part: after_declaration(part, ENTITIES.encode()))
    found = reason(write(tmp_path / f"a{suffix}", data))
    assert "begins with a document type" in found or "declares entities" in found
    long = b"<!-- " + b"x" * 5_000 + b" -->" + ENTITIES.encode()
    data = replaced(SMALL[suffix], MAIN[suffix], lambda part: after_declaration(part, long))
    assert reason(write(tmp_path / f"b{suffix}", data)).startswith("damaged or hostile")


@pytest.mark.parametrize("suffix", SMALL)
def test_nesting_without_end(tmp_path: Path, suffix: str) -> None:
    deep = b"<a>" * 100_000
    data = replaced(SMALL[suffix], MAIN[suffix], lambda part: part[: part.rindex(b"</")] + deep)
    assert "damaged" in reason(write(tmp_path / f"a{suffix}", data))


def test_parts_that_refer_to_one_another_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part may be asked for again and again; what is read in all has a limit."""
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1_000_000)
    deck = pptx.Presentation()
    for _ in range(2):
        deck.slides.add_slide(deck.slide_layouts[1]).shapes.title.text = "word"
    data = pptx_bytes(deck)

    def many(part: bytes) -> bytes:
        start, end = part.index(b"<p:sldId "), part.index(b"</p:sldIdLst>")
        return part[:end] + part[start:end] * 500 + part[end:]

    found = reason(write(tmp_path / "a.pptx", replaced(data, "ppt/presentation.xml", many)))
    assert found == "damaged or hostile: its parts refer to one another without end"


def test_cells_that_span_all_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little makes much: the text has a limit while it grows."""
    monkeypatch.setattr("semsearch.formats.MAX_CHARACTERS", 1_000_000)
    cell = f'<table:table-cell table:number-columns-repeated="100"><text:p>{"x" * 200}</text:p></table:table-cell>'
    body = f"<table:table><table:table-row>{cell * 100}</table:table-row></table:table>"
    assert reason(write(tmp_path / "a.odt", open_document("text", body))) == "more than 1,000,000 characters of text"


def test_the_wrong_kind_behind_the_suffix(tmp_path: Path) -> None:
    for suffix in (".pptx", ".xlsx", ".docx", ".odt", ".odp", ".ods", ".epub"):
        for other, data in SMALL.items():
            if suffix != other:
                assert reason(write(tmp_path / f"a{suffix}", data))


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_give_text_or_a_reason(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(SMALL)))
    content = bytearray(SMALL[suffix])
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    try:
        outcome = str(load_file(write(tmp_path / f"a{suffix}", bytes(content))).metadata["size"])
    except LoadError as error:
        outcome = error.reason
    assert outcome
    assert "Warning" not in outcome


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_parts_give_text_or_a_reason(tmp_path: Path, data: st.DataObject) -> None:
    """Damage within a part, which the checksums of the package would otherwise keep from its reader."""
    suffix = data.draw(st.sampled_from(sorted(SMALL)))

    def damage(part: bytes) -> bytes:
        content = bytearray(part)
        for _ in range(data.draw(st.integers(1, 5))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=3))
        return bytes(content)

    path = write(tmp_path / f"a{suffix}", replaced(SMALL[suffix], MAIN[suffix], damage))
    try:
        outcome = str(load_file(path).metadata["size"])
    except LoadError as error:
        outcome = error.reason
    assert outcome
    assert "Warning" not in outcome

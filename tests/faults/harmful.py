"""Files for the class `files`: good ones of every format, and ones that are made to do harm."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from functools import cache
from pathlib import Path

from semsearch.loading import LOADERS

__all__ = ["Files", "hostile", "seeds", "unzipped", "zipped"]

DEEP = 50_000

Files = list[tuple[str, bytes]]  # a suffix and what the file holds

# -- good files --------------------------------------------------------------------------------------------------------


@cache
def seeds() -> dict[str, list[bytes]]:
    """Good files by suffix: the examples', and small ones of the other formats."""
    found: dict[str, list[bytes]] = {}
    for path in sorted((Path(__file__).parents[2] / "examples" / "documents").rglob("*")):
        if path.is_file():
            found.setdefault(path.suffix, []).append(path.read_bytes())
    made = {
        ".pptx": _pptx(),
        ".xlsx": _xlsx(),
        ".epub": _epub(),
        ".odt": _odf("text", _ODT),
        ".ods": _odf("spreadsheet", _ODS),
    }
    made |= {
        ".odp": _odf("presentation", _ODP),
        ".eml": _EML,
        ".mbox": b"From a Mon\n" + _EML + b"\nFrom b Tue\n" + _EML,
    }
    made |= {
        ".tsv": b"a\tb\n1\t2\n",
        ".xhtml": _XHTML.encode(),
        ".text": "héllo wörld\n".encode("utf-16"),
        "": b"plain\n",
    }
    for suffix, data in made.items():
        found.setdefault(suffix, []).append(data)
    for suffix in sorted(LOADERS):
        if suffix.endswith(".gz") and suffix[:-3] in found:
            found[suffix] = [gzip.compress(found[suffix[:-3]][0], mtime=0)]
    return {suffix: found[suffix] for suffix in sorted(found) if suffix in LOADERS}


def zipped(parts: dict[str, bytes], level: int = 6) -> bytes:
    """A zip file of these parts, always the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as package:
        for name, data in parts.items():
            package.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    """The parts of a zip file by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        return {name: package.read(name) for name in package.namelist()}


def _pptx() -> bytes:
    import pptx

    deck = pptx.Presentation()
    for number in range(2):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Late fees {number}"
        slide.placeholders[1].text = "Ten cents a day\nTwenty for films"
        slide.shapes.add_table(2, 2, 0, 0, 9_000, 9_000).table.cell(0, 0).text = "cell"
        slide.notes_slide.notes_text_frame.text = "a note"
    buffer = io.BytesIO()
    deck.save(buffer)
    return zipped(unzipped(buffer.getvalue()))


def _xlsx() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["name", "fee"], ["book", 0.1], ["film", "=B2*2"], [None, True]):
        book.active.append(row)
    book.active.merge_cells("A1:B1")
    book.create_sheet("second").append(["text", 1])
    buffer = io.BytesIO()
    book.save(buffer)
    return zipped(unzipped(buffer.getvalue()))


_EML = b"""From: a@example.org
Subject: =?utf-8?q?Late_fe=C3=A9s?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b1"

--b1
Content-Type: multipart/alternative; boundary="b2"

--b2
Content-Type: text/plain; charset="iso-8859-1"
Content-Transfer-Encoding: quoted-printable

Ten c=E9nts a day.
--b2
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

PHA+VGVuIGNlbnRzIDxiPmEgZGF5PC9iPi48L3A+
--b2--
--b1
Content-Type: message/rfc822

Subject: inner

inner text
--b1
Content-Type: application/pdf; name="=?utf-8?b?csO8bGVz?=.pdf"
Content-Disposition: attachment

x
--b1--
"""
_XHTML = (
    '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>Fees</title></head><body>'
    '<h1>Late fees</h1><p>Ten cents.</p><table><tr><td colspan="2">a</td></tr></table><pre>x</pre></body></html>'
)
_ODT = (
    '<text:h text:outline-level="1">Fees</text:h><text:p>Ten<text:s text:c="3"/>cents</text:p>'
    "<text:list><text:list-item><text:p>a</text:p></text:list-item></text:list>"
)
_ROW = (
    '<table:table-row table:number-rows-repeated="2"><table:table-cell table:number-columns-repeated="3">'
    "<text:p>a</text:p></table:table-cell></table:table-row>"
)
_ODS = f'<table:table table:name="t">{_ROW}</table:table>'
_ODP = (
    '<draw:page draw:name="p"><draw:frame><draw:text-box><text:p>Fees</text:p></draw:text-box></draw:frame></draw:page>'
)


def _odf(kind: str, body: str, prolog: str = "") -> bytes:
    names = ("office", "text", "table", "draw")
    spaces = " ".join(
        f'xmlns:{each}="urn:oasis:names:tc:opendocument:xmlns:{"drawing" if each == "draw" else each}:1.0"'
        for each in names
    )
    whole = f"<office:body><office:{kind}>{body}</office:{kind}></office:body>"
    root = f"<office:document-content {spaces}>{whole}</office:document-content>"
    mime = f"application/vnd.oasis.opendocument.{kind}"
    return zipped({"mimetype": mime.encode(), "content.xml": f'<?xml version="1.0"?>{prolog}{root}'.encode()})


def _epub(chapter: str = _XHTML, spine: int = 2, prolog: str = "") -> bytes:
    space = "urn:oasis:names:tc:opendocument:xmlns:container"
    container = f'<container xmlns="{space}"><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>'
    opf = (
        f'{prolog}<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title>Fees"
        '</dc:title></metadata><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
        "<spine>" + '<itemref idref="a"/>' * spine + "</spine></package>"
    )
    parts = {"mimetype": b"application/epub+zip", "META-INF/container.xml": container.encode(), "b.opf": opf.encode()}
    return zipped({**parts, "a.xhtml": chapter.encode("utf-8", "replace")})


# -- files made to do harm ---------------------------------------------------------------------------------------------


def hostile(outside: str, address: str) -> Files:
    """Bombs, nesting and entities; `outside` is the path of a file that must not be read, `address` a server's."""
    return [*_nested(), *_entities(outside, address), *_zip_bombs(), *_counts(), *_pdfs(), *_texts()]


def _word(body: str, prolog: str = "") -> bytes:
    parts = unzipped(seeds()[".docx"][0])
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    document = f'<?xml version="1.0"?>{prolog}<w:document xmlns:w="{space}"><w:body>{body}</w:body></w:document>'
    return zipped({**parts, "word/document.xml": document.encode()})


def _nested() -> Files:
    def deep(opening: str, closing: str, count: int = DEEP) -> bytes:
        return (opening * count + "x" + closing * count).encode()

    notebook = b'{"cells": ' + deep("[", "]") + b"}"
    cells = deep("<w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>", 5_000).decode()
    lists = deep("<text:list><text:list-item>", "</text:list-item></text:list>", 5_000).decode()
    parts = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(2_000))
    inner = b"Content-Type: message/rfc822\n\n" * 5_000
    html = [
        deep(f"<{tag}>", f"</{tag}>")
        for tag in ("div", "b", "table><tr><td", "ul><li", "blockquote", "a href=x", "svg", "h1")
    ]
    return [
        *((".html", data) for data in html),
        *(
            (".html", deep("<div>", "")),
            (".html", deep("<table>", "")),
            (".html", deep("", "</div>")),
            (".html", deep("<p><b><i>", "")),
        ),
        *(
            (".html", b"<" * 500_000),
            (".html", b"<!--" * 200_000),
            (".html", b"<a " + b"x=" * 300_000),
            (".html", b"&" * 500_000),
        ),
        *(
            (".xhtml", deep("<div>", "</div>")),
            (".json", deep("[", "]")),
            (".json", deep('{"a":', "}")),
            (".json", b"[" * DEEP),
        ),
        *((".jsonl", deep('{"a":', "}") + b"\n" + b'{"a": 1}\n'), (".ipynb", notebook), (".ipynb", deep("[", "]"))),
        *((".docx", _word(cells)), (".odt", _odf("text", lists)), (".epub", _epub(deep("<div>", "</div>").decode()))),
        *((".eml", parts), (".eml", inner), (".eml", b"Subject: " + b"=?utf-8?q?a?= " * 50_000 + b"\n\nx")),
        *(
            (".eml", b"To: " + b"(" * 50_000 + b"\n\nx"),
            (".md", deep("> ", "")),
            (".md", b"[" * DEEP),
            (".rst", b"=\n" * DEEP),
        ),
        *(
            (".csv", b'"' * 300_000),
            (".json.gz", gzip.compress(deep("[", "]"))),
            (".html.gz", gzip.compress(deep("<div>", ""))),
        ),
    ]


def _entities(outside: str, address: str) -> Files:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    long = "x" * 100_000
    prologs = [
        (f'<!DOCTYPE w [<!ENTITY l0 "lol">{laughs}<!ENTITY e "&l9;">]>', "&e;"),
        (f'<!DOCTYPE w [<!ENTITY e "{long}">]>', "&e;" * 50_000),
        (f'<!DOCTYPE w [<!ENTITY e SYSTEM "file://{outside}">]>', "&e;"),
        (f'<!DOCTYPE w [<!ENTITY e SYSTEM "{address}/e">]>', "&e;"),
        (f'<!DOCTYPE w SYSTEM "{address}/d">', "x"),
        (f'<!DOCTYPE w [<!ENTITY % p SYSTEM "{address}/p"> %p;]>', "x"),
        ('<!DOCTYPE w [<!ENTITY e "&e;">]>', "&e;"),
        (
            f'<?xml-stylesheet href="{address}/s"?>',
            f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file://{outside}" parse="text"/>',
        ),
    ]
    found: Files = []
    for prolog, use in prologs:
        found.append((".docx", _word(f"<w:p><w:r><w:t>{use}</w:t></w:r></w:p>", prolog)))
        found.append((".odt", _odf("text", f"<text:p>{use}</text:p>", prolog)))
        found += [
            (suffix, f"{prolog}<html><body><p>{use}</p></body></html>".encode()) for suffix in (".xhtml", ".html")
        ]
        found.append((".epub", _epub(f"{prolog}<html><body><p>{use}</p></body></html>", 1, prolog)))
        for suffix, part in ((".pptx", "ppt/slides/slide1.xml"), (".xlsx", "xl/sharedStrings.xml")):
            parts = unzipped(seeds()[suffix][0])
            parts[part] = re.sub(rb"^(<\?xml.*?\?>)?", prolog.encode(), parts.get(part, b"<x/>"), count=1)
            found.append((suffix, zipped(parts)))
    return found


def _zip_bombs() -> Files:
    zeros = bytes(40_000_000)
    found: Files = []
    for suffix, part in (
        (".docx", "word/document.xml"),
        (".pptx", "ppt/slides/slide1.xml"),
        (".xlsx", "xl/worksheets/sheet1.xml"),
        (".odt", "content.xml"),
        (".epub", "a.xhtml"),
    ):
        parts = unzipped(seeds()[suffix][0])
        found.append((suffix, zipped({**parts, part: zeros}, 1)))
        found.append((suffix, zipped({**parts, part: b"<a>" * 3_000_000}, 1)))
        found.append((suffix, zipped({**parts, **{f"{n}": b"" for n in range(20_000)}})))
        found.append((suffix, _lying(zipped({**parts, part: zeros[:9_000_000]}, 1))))
    wide = zipped({**unzipped(seeds()[".docx"][0]), **{f"x{n}": zeros[:9_000_000] for n in range(40)}}, 1)
    inner = zipped({"a.zip": zipped({"b.zip": zipped({"c": zeros}, 1)})})
    found += [(suffix, inner) for suffix in (".docx", ".epub", ".odt", ".xlsx")]
    bomb = gzip.compress(bytes(120_000_000), 1)
    found += [(suffix, bomb) for suffix in (".txt.gz", ".json.gz", ".html.gz", ".csv.gz") if suffix in LOADERS]
    return [
        *found,
        (".docx", wide),
        (".txt.gz", gzip.compress(gzip.compress(b"x"))),
        (".txt.gz", bomb[:1000]),
        (".txt.gz", bomb * 2),
    ]


def _lying(data: bytes) -> bytes:
    """A zip file whose directory says that each part unpacks to ten bytes."""
    changed = bytearray(data)
    for match in re.finditer(rb"PK\x01\x02", data):
        changed[match.start() + 24 : match.start() + 28] = (10).to_bytes(4, "little")
    return bytes(changed)


def _counts() -> Files:
    """Small files that say that they are large."""
    repeat = _ROW.replace('"2"', '"1048576"').replace('"3"', '"16384"')
    sheet = '<c r="XFD1048576" t="inlineStr"><is><t>a</t></is></c>'
    parts = unzipped(seeds()[".xlsx"][0])
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    rows = "".join(f'<row r="{n}">{sheet.replace("1048576", str(n))}</row>' for n in range(1, 1000))
    merged = '<mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells>'
    far = f'<worksheet {space}><dimension ref="A1:XFD1048576"/><sheetData>{rows}</sheetData>{merged}</worksheet>'
    span = '<w:tc><w:tcPr><w:gridSpan w:val="999999999"/></w:tcPr><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc>'
    cells = "<td colspan=1000 rowspan=65000>a</td>" * 500
    return [
        (".ods", _odf("spreadsheet", f"<table:table>{repeat * 3}</table:table>")),
        (".odt", _odf("text", '<text:p>a<text:s text:c="2000000000"/>b</text:p>')),
        (".xlsx", zipped({**parts, "xl/worksheets/sheet1.xml": far.encode()})),
        (".docx", _word(f"<w:tbl><w:tr>{span * 50}</w:tr></w:tbl>")),
        (".html", f"<table>{f'<tr>{cells}</tr>' * 20}</table>".encode()),
        *((".html", b"<ol start=99999999999999999999><li>a</ol>"), (".epub", _epub(spine=100_000))),
        *((".csv", b"," * 300_000 + b"\n" + b"1\n" * 50_000), (".json", b"1" * 500_000)),
        (".csv", (",".join("c" * 5_000 for _ in range(20)) + "\n").encode() + b"1,1,1\n" * 40_000),
        (".json", b"[" + b"1e999999999," * 9_999 + b"1]"),
        (".ipynb", b'{"cells": [{"cell_type": "heading", "level": 99999999999, "source": "a"}]}'),
        *((".eml", b"--b\n" * 200_000), (".mbox", b"From a\n" * 200_000)),
        (".eml", b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 50_000),
    ]


def pdf(objects: list[str]) -> bytes:
    """A PDF of these objects, the first of which is the catalog."""
    data, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\n"
    )
    return data + f"{end}startxref\n{len(data)}\n%%EOF\n".encode()


def _pdfs() -> Files:
    catalog, font = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>",
    )
    page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Resources << /Font {font} >> /Contents 4 0 R >>"
    pages = "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    shown = "BT /F 1 Tf (text) Tj ET\n"

    def stream(content: str, more: str = "") -> str:
        return f"<< /Length {len(content)} {more}>>\nstream\n{content}\nendstream"

    form = stream(
        "/X Do\n" * 10, "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >> "
    )
    using = page.replace("/Contents", "/XObject << /X 5 0 R >> /Contents").replace(
        "/Font", "/XObject << /X 5 0 R >> /Font"
    )
    found = [
        [catalog, pages, page, stream(shown * 20_000)],
        [catalog, pages.replace("[3", "[2 0 R 2"), page, stream(shown)],
        [catalog, pages.replace("/Count 1", "/Count 2000000000"), page, stream(shown)],
        [catalog, f"<< /Type /Pages /Kids [{'3 0 R ' * 30_000}] /Count 30000 >>", page, stream(shown)],
        [catalog, f"<< /Type /Pages /Kids [{'3 0 R ' * 3_000}] /Count 3000 >>", page, stream(shown * 100)],
        [catalog, pages, using, stream("/X Do"), form],
        [catalog, pages, page, stream("[" * DEEP)],
        [catalog, pages, page, stream("q " * 300_000 + shown)],
        [catalog, pages, page, f"{'<< /A ' * DEEP}1{' >>' * DEEP}"],
        [catalog, pages, page, stream(shown).replace("/Length", "/Length 99999999999 /X")],
        [catalog, pages, page, stream("x" * 99, f"/Filter [{'/FlateDecode ' * 5_000}] ")],
        [
            catalog,
            pages.replace("/Count", "/Parent 2 0 R /Count"),
            page.replace("/Parent 2", "/Parent 3"),
            stream(shown),
        ],
    ]
    return [(".pdf", pdf(objects)) for objects in found]


def _texts() -> Files:
    return [
        *((".txt", b"\0" * 1_000_000), (".txt", bytes(range(256)) * 2_000)),
        *((".txt", b"\xff\xfe" + b"\xd8\xd8" * 100_000), ("", b"\x7fELF" * 9), (".txt", b"\xef\xbb\xbf" * 100_000)),
        *((".txt", b"a" * 1_000_000), (".md", b"---\n" * 100_000), (".md", b"title: " + b"a" * 500_000)),
        *((".html", b"<meta charset=utf-7>+ADw-script+AD4-"), (".html", b"<meta charset=" + b"x" * 9_999 + b">")),
        *((".py", b"# -*- coding: zip -*-\n"), (".rst", (b"a" * 60 + b"\n") * 9_000), (".adoc", b"====\n" * 60_000)),
        *((".csv", b"\0,\0\n" * 9_000), (".tsv", b"\t" * 300_000)),
    ]

"""Files and folders become documents, or a reason: formats, encodings, walking, and input that means harm."""

from __future__ import annotations

import fnmatch
import importlib.util
import io
import json
import logging
import os
import pickle
import random
import re
import socket
import tarfile
import time
import zipfile
from pathlib import Path
from types import ModuleType

import docx
import pypdf
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from semsearch import archives, decoding, formats, loading, markup, word
from semsearch.errors import InputError, LoadError
from semsearch.loading import LOADERS, FileEntry, load, load_file, walk


def write(path: Path, content: str | bytes | bytearray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reason(path: Path) -> str:
    with pytest.raises(LoadError) as caught:
        load_file(path)
    assert caught.value.path == str(path.absolute())
    return caught.value.reason


def pdf_bytes(pages: list[str], title: str = "") -> bytes:
    """A minimal PDF: a line of Helvetica for each line of a page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in pages:
        shown = "".join(f"({line}) Tj 0 -20 Td " for line in page.split("\n")) if page else ""
        stream = f"BT /F1 12 Tf 72 700 Td {shown}ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            b"/Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    objects.append(b"<< /Title (%s) >>" % title.encode())
    body = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start, size = len(body), len(objects) + 1
    body += b"xref\n0 %d\n0000000000 65535 f \n%strailer\n" % (size, table)
    body += b"<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, size - 1, start)
    return bytes(body)


def docx_bytes(document: docx.document.Document) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


# ---- one file --------------------------------------------------------------------------------------------------------


def test_a_text_file_is_kept_to_the_letter(tmp_path: Path) -> None:
    path = write(tmp_path / "A.TXT", b"one\r\ntwo\rthree\n\n")
    os.utime(path, ns=(0, 1_600_000_000_250_000_000))
    document = load_file(path)
    assert document.text == "one\r\ntwo\rthree\n\n"
    assert (document.id, document.title, document.source) == ("A.TXT", "", str(path))
    assert document.metadata == {"suffix": ".txt", "size": 16, "modified": 1_600_000_000.25}
    assert load_file(path, id="x/y").id == "x/y"


def test_source_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.md", "# A")
    monkeypatch.chdir(tmp_path)
    assert load_file("a.md").source == str(tmp_path / "a.md")


@pytest.mark.parametrize("name", ["LICENSE", "a.py", "a.rs", "a.toml", "a.log", "a.md", "a.rst", "a.adoc", "a.tex"])
@pytest.mark.parametrize("content", ["", "\ttabs \x0c and\r\n ends \n", "\ufeff# BOM\n", "日本 🎉 עברית\n"])
def test_verbatim_formats(tmp_path: Path, name: str, content: str) -> None:
    assert load_file(write(tmp_path / name, content)).text == content.removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("a.md", "intro\n\n# The *title* #\n\n## B", "The *title*"),
        ("a.md", "Title\n=====\n", "Title"),
        ("a.md", "```\n# no heading\n```\n## Yes\n", "Yes"),
        ("a.md", "---\nlayout: x\ntitle: 'From front matter'\n---\n# Other\n", "From front matter"),
        ("a.md", "---\ndate: 2020\n---\n\n# After front matter\n", "After front matter"),
        ("a.md", "#hashtag\n####### seven\n", ""),
        ("a.rst", ".. _label:\n\n*****\nTitle\n*****\n\nA\n=\n", "Title"),
        ("a.rst", "Under\n-----\n", "Under"),
        ("a.rst", "PEP: 8\nTitle: Style Guide\n\nIntro\n=====\n", "Style Guide"),
        ("a.rst", "too long a line\n===\n", ""),
        ("a.adoc", "// comment\n= Title\n\n== B\n", "Title"),
        ("a.adoc", "Title\n-----\n", "Title"),
        ("a.html", "<title> T\n <b>x </title><h1>H</h1>", "T <b>x"),
        ("a.html", "<svg><title>no</title></svg><h2>H <i>i</i></h2>", "H i"),
        ("a.py", "# no title\n", ""),
    ],
)
def test_titles(tmp_path: Path, name: str, content: str, title: str) -> None:
    assert load_file(write(tmp_path / name, content)).title == title


@pytest.mark.parametrize("name", ["a.svg", "a.png", "a.exe", "a.tar.gz", "a.PNG"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    suffix = "".join(Path(name).suffixes).lower()
    assert reason(write(tmp_path / name, "text")).startswith(f"no loader for {suffix}; supported: text, Markdown,")


def test_a_new_format_is_a_function_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shouting(data: bytes) -> formats.Extracted:
        return formats.Extracted(data.decode().upper(), "T", {"loud": True})

    monkeypatch.setitem(LOADERS, ".loud", shouting)
    document = load_file(write(tmp_path / "a.loud", "hey"))
    assert (document.text, document.title, document.metadata["loud"]) == ("HEY", "T", True)


def test_documents_and_errors_survive_pickling(tmp_path: Path) -> None:
    document = pickle.loads(pickle.dumps(load_file))(write(tmp_path / "a.md", "# A"))  # noqa: S301
    assert pickle.loads(pickle.dumps(document)) == document  # noqa: S301
    with pytest.raises(LoadError) as caught:
        load_file(tmp_path / "none.md")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (copy.path, copy.reason) == (str(tmp_path / "none.md"), "No such file or directory")


# ---- what may not be opened ------------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    target = write(tmp_path / "target.txt", "secret")
    (tmp_path / "link.txt").symlink_to(target)
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    assert reason(tmp_path / "link.txt") == "a symbolic link, which is not followed"
    assert reason(tmp_path / "zero.txt") == "a symbolic link, which is not followed"
    assert reason(tmp_path / "fifo.txt") == "not a regular file"
    assert reason(tmp_path / "folder.txt") == "Is a directory"
    assert reason(tmp_path / "gone.txt") == "No such file or directory"
    assert reason(Path("/dev/zero")) == "not a regular file"
    with pytest.raises(LoadError, match="null"):
        load_file("a\0.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x")
    path.chmod(0)
    assert reason(path) == "Permission denied"


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(100_000_001)  # sparse: takes no room
    assert reason(path) == "too large: 100,000,001 bytes; at most 100,000,000 are read"


# ---- folders ---------------------------------------------------------------------------------------------------------


def names(root: Path, pattern: str | list[str] | None = None) -> list[str]:
    return [entry.id if isinstance(entry, FileEntry) else entry.reason for entry in walk(root, pattern)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.md",
        "a/x.md",
        "a/y.txt",
        "a-b/z.md",
        "a/.hidden",
        ".git/c.md",
        "node_modules/n.md",
        "a/__pycache__/p.py",
    ):
        write(tmp_path / "tree" / name, "# T")
    return tmp_path / "tree"


def test_walk_is_sorted_and_skips(tree: Path) -> None:
    os.mkfifo(tree / "fifo.md")
    (tree / "out.md").symlink_to("/etc/hostname")
    (tree / "loop").symlink_to(tree)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tree / "socket.md"))
    assert names(tree) == ["a-b/z.md", "a/x.md", "a/y.txt", "b.md"]
    assert names(tree) == sorted(names(tree))


def test_walk_tells_what_stat_tells(tree: Path) -> None:
    entry = next(entry for entry in walk(tree) if isinstance(entry, FileEntry) and entry.id == "b.md")
    status = (tree / "b.md").stat()
    assert entry == FileEntry(str(tree / "b.md"), "b.md", 3, status.st_mtime_ns, status.st_ino)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.md", ["a-b/z.md", "a/x.md", "b.md"]),
        ("/*.md", ["b.md"]),
        ("a/*", ["a/x.md", "a/y.txt"]),
        ("a/", ["a/x.md", "a/y.txt"]),
        ("**/[!x-y].md", ["a-b/z.md", "b.md"]),
        ("a?b/**", ["a-b/z.md"]),
        (["*.txt", "b.*"], ["a/y.txt", "b.md"]),
        ("*.MD", []),
        ("a.*md", []),
        ("a[!x]b/*", ["a-b/z.md"]),
    ],
)
def test_patterns(tree: Path, pattern: str | list[str], found: list[str]) -> None:
    assert names(tree, pattern) == found


@pytest.mark.parametrize("pattern", ["", [], ["*.md", ""], "/"])
def test_empty_pattern(tree: Path, pattern: str | list[str]) -> None:
    with pytest.raises(InputError, match="names no file"):
        names(tree, pattern)


@given(st.text(st.sampled_from("ab/*?[]!^-\\.{}()|+&~"), min_size=1).filter(lambda pattern: pattern.strip("/")))
@settings(max_examples=300, deadline=None)
def test_any_pattern_is_a_glob_or_refused(pattern: str) -> None:
    try:
        loading._matcher(pattern)
    except InputError:
        assert re.search(r"\[.*-.*\]", pattern)  # a range that runs backwards


@given(st.text(st.sampled_from("ab*?.(|+]"), min_size=1), st.text(st.sampled_from("ab.(|+]"), min_size=1))
@example("??**", "]")
@settings(max_examples=300, deadline=None)
def test_names_match_as_fnmatch_has_it(pattern: str, name: str) -> None:
    match = loading._matcher(pattern)
    assert match is not None
    assert bool(match(f"folder/{name}")) == fnmatch.fnmatchcase(name, pattern)


def test_a_folder_that_cannot_be_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error stands in its place, the rest goes on; a root that is not there raises."""
    scandir = os.scandir

    def failing(path: str) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)  # file modes do not bind root, whom the suite may run as
    found = list(walk(tree))
    assert [entry.id for entry in found if isinstance(entry, FileEntry)] == ["a-b/z.md", "b.md"]
    assert isinstance(found[1], LoadError)
    assert (found[1].path, found[1].reason) == (str(tree / "a"), "the folder cannot be listed: Permission denied")
    with pytest.raises(LoadError, match="cannot be listed: No such file"):
        list(walk(tree / "none"))


def test_very_deep_folders(tmp_path: Path) -> None:
    """1,010 levels are past Python's recursion limit; the walk needs none."""
    folders = [tmp_path / ("d/" * depth) for depth in range(1, 1011)]
    try:
        for folder in folders:
            folder.mkdir()
        write(folders[-1] / "x.md", "# deep")
        assert names(tmp_path) == ["d/" * 1010 + "x.md"]
    finally:
        (folders[-1] / "x.md").unlink(missing_ok=True)
        for folder in reversed(folders):
            folder.rmdir()


def test_load_skips_what_it_cannot_read(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tree / "broken.pdf", "no pdf")
    write(tree / "pixel.png", "")
    with caplog.at_level(logging.WARNING):
        assert [document.id for document in load(tree)] == ["a-b/z.md", "a/x.md", "a/y.txt", "b.md"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "broken.pdf: damaged or no PDF" in caplog.text
    assert "pixel.png: no loader for .png" in caplog.text


def test_load_of_one_file_and_of_nothing(tree: Path) -> None:
    assert [(document.id, document.text) for document in load(tree / "b.md")] == [("b.md", "# T")]
    with pytest.raises(LoadError, match="No such file"):
        list(load(tree / "none.md"))
    (tree.parent / "link").symlink_to(tree)
    assert len(list(load(tree.parent / "link"))) == 4  # a link that is asked for is followed
    assert list(load(write(tree.parent / "empty" / ".keep", "").parent)) == []


# ---- encodings -------------------------------------------------------------------------------------------------------

GERMAN = (
    "Größere Bäume wüchsen für Äpfel schöner, hieß es früher überall; das heißt natürlich nicht, dass es stimmt.\r\n"
    * 3
)
RUSSIAN = "Библиотека открыта каждый день, кроме понедельника, с девяти часов утра до восьми часов вечера.\n" * 3
JAPANESE = "図書館は月曜日を除いて毎日、朝の九時から夜の八時まで開いています。本は三週間借りることができます。\n" * 3
CHINESE = "图书馆除星期一外每天上午九点至晚上八点开放。读者可以借书三个星期,逾期将按日收取费用。\n" * 3
KOREAN = (
    "도서관은 월요일을 제외하고 매일 아침 아홉 시부터 저녁 여덟 시까지 열려 있습니다. 책은 삼 주 동안 빌릴 수 있다.\n"
    * 3
)
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy. Šašek těžce řekl, že knihovna je zavřená.\n" * 3
GREEK = "Η βιβλιοθήκη είναι ανοιχτή κάθε μέρα εκτός Δευτέρας, από τις εννέα το πρωί έως τις οκτώ το βράδυ.\n" * 3


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((text, codec) for text in (GERMAN, RUSSIAN, JAPANESE) for codec in ("utf-8-sig", "utf-16", "utf-32")),
        *((GERMAN, codec) for codec in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")),
        *((RUSSIAN, codec) for codec in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")),
        (GERMAN, "cp1252"), (GERMAN, "iso8859_1"), (GERMAN, "mac_roman"), ("élève à côté\n", "cp1252"),
        (RUSSIAN, "cp1251"), (RUSSIAN, "koi8_r"), (RUSSIAN, "cp866"),
        (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp"), (JAPANESE, "iso2022_jp"),
        (CHINESE, "gb2312"), (CHINESE, "gb18030"), (KOREAN, "euc_kr"), (KOREAN, "iso2022_kr"),
        (CZECH, "cp1250"), (CZECH, "iso8859_2"), (GREEK, "cp1253"),
    ],
)  # fmt: skip
def test_encodings(text: str, encoding: str) -> None:
    assert decoding.decode(text.encode(encoding))[0] == text


def test_the_encoding_is_in_the_metadata_unless_it_is_utf8(tmp_path: Path) -> None:
    assert load_file(write(tmp_path / "a.txt", RUSSIAN.encode("koi8_r"))).metadata["encoding"] == "koi8_r"
    assert "encoding" not in load_file(write(tmp_path / "b.txt", RUSSIAN)).metadata


def test_a_declared_encoding_is_believed() -> None:
    page = '<meta charset="windows-1251"><p>да</p>'
    assert decoding.decode(page.encode("cp1251")) == (page, "cp1251")
    source = "# -*- coding: latin-1 -*-\nname = 'ÿþ'\n"
    assert decoding.decode(source.encode("latin-1"))[0] == source
    sjis = '<?xml encoding="x-sjis"?>表'
    assert decoding.decode(sjis.encode("cp932")) == (sjis, "cp932")
    lying = '<meta charset="no-such-code"><p>größer, schöner, früher</p>'
    assert decoding.decode(lying.encode("cp1252"))[0] == lying


@pytest.mark.parametrize(
    "name",
    ["utf-16", "utf-16le", "utf-32", "utf-7", "cp037", "punycode", "idna", "unicode_escape", "raw-unicode-escape"],
)
def test_an_encoding_in_which_nobody_could_read_its_name_is_not_believed(name: str) -> None:
    note = f'<?xml version="1.0" encoding="{name}"?><note>Für säumige Bücher: höhere Gebühren im Café</note>'
    for text in (note, note + " "):  # of an even and an odd length
        assert decoding.decode(text.encode("cp1252")) == (text, "cp1252")
    noise = bytes(random.Random(1).choices(range(128, 256), k=20_000))
    start = time.perf_counter()
    with pytest.raises(formats.UnreadableError, match="unknown encoding"):
        decoding.decode(f"# coding: {name}\n".encode() + noise + b"-" + b"a" * 100_000)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("iso-2022-jp", "料金"), ("shift_jis", "料金"), ("euc-jp", "料金"), ("gb18030", "罚款"), ("big5", "罰款")),
        *(("euc-kr", "요금"), ("johab", "요금"), ("cp864", "ﺵﻉ"), ("koi8-r", "сбор"), ("utf-8", "Gebühr")),
    ],
)
def test_an_encoding_that_leaves_ascii_as_it_is_is_believed(name: str, text: str) -> None:
    assert decoding.decode(f"coding: {name}\n{text}".encode(name))[0] == f"coding: {name}\n{text}"


def test_the_bytes_that_decide_may_lie_far_in() -> None:
    text = "plain line\n" * 100_000 + CZECH
    assert decoding.decode(text.encode("iso8859_2")) == (text, "iso8859_2")


def test_one_damaged_character_does_not_lose_a_file() -> None:
    text, encoding = decoding.decode(RUSSIAN.encode() + b"\xd0\n")
    assert (text, encoding) == (RUSSIAN + "\ufffd\n", "utf-8")


def test_nul_in_text_is_kept_and_binary_is_refused(tmp_path: Path) -> None:
    text = "a line with a NUL \0 in it, " + "and much more text " * 10
    assert load_file(write(tmp_path / "a.txt", text)).text == text
    rng = random.Random(7)
    assert reason(write(tmp_path / "LICENSE", text)) == "binary"
    assert reason(write(tmp_path / "b.txt", rng.randbytes(5000))) == "binary"
    assert reason(write(tmp_path / "c.txt", bytes(5000))) == "binary"
    assert reason(write(tmp_path / "d.md", b"\xff\xfeabc")) == (
        "unknown encoding: its byte order mark says utf-16-le, its bytes do not"
    )
    assert reason(write(tmp_path / "e.txt", bytes(rng.randrange(128, 256) for _ in range(5000)))).startswith(
        "unknown encoding"
    )


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_text_or_a_reason(data: bytes) -> None:
    try:
        text, encoding = decoding.decode(data)
    except formats.UnreadableError as error:
        text, encoding = str(error), ""
    if encoding:
        assert "\ufffd" in text or text == data.decode(encoding).removeprefix("\ufeff")
    else:
        assert text.startswith(("binary", "unknown encoding"))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"])))
def test_any_utf8_text_comes_back(text: str) -> None:
    assert decoding.decode(text.encode())[0] == text.removeprefix("\ufeff")


# ---- HTML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<h1>A <i>b</i>\n c</h1><p>one\n two</p><p>three", "# A b c\n\none two\n\nthree"),
        ("<h3>Sec<a class=headerlink href=#x>¶</a></h3>x", "### Sec\n\nx"),
        ("<h1><p>In a block</p></h1><p>x", "# In a block\n\nx"),
        ("a<br>b<br>\n<br>c", "a\nb\nc"),
        ("a<script>x()</script><style>p{}</style><nav>menu</nav><noscript>js</noscript><template>t</template>b", "ab"),
        ("a<!-- no -->b<svg><text>s</text></svg>&amp;&#x41;&nbsp;c", "ab&A c"),
        ("<ul><li>one<ul><li>deep</ul><li>two</ul>after", "- one\n  - deep\n- two\n\nafter"),
        ("<ol><li>one<li><p>two</p><p>more</p><li>three</ol>", "1. one\n2. two\n\n  more\n\n3. three"),
        ("<pre><code class='language-rust'>fn a() {\n    b\n}\n</code></pre>", "```rust\nfn a() {\n    b\n}\n```"),
        ("<pre>a\n```\nb</pre>", "````\na\n```\nb\n````"),
        ("<pre>a<ul><pre>b</pre></ul>c</pre>d", "```\nabc\n```\n\nd"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2 | 3</table>", "| a | b |\n| --- | --- |\n| 1 | 2 \\| 3 |"),
        (
            "<table><caption>C</caption><tr><th colspan=2>a<tr><td rowspan=2>r<td>1<tr><td>2</table>",
            "C\n\n| a | a |\n| --- | --- |\n| r | 1 |\n| r | 2 |",
        ),
        (
            "<table><tr><td>a<td rowspan=2>b<tr><tr><td>c<td>d</table>",
            "| a | b |\n| --- | --- |\n|  | b |\n| c | d |",
        ),
        ("<table><tr><td><h2>Layout</h2><p>text</table>", "## Layout\n\ntext"),
        ("<table><tr><td>a<ul><li>b<li>c</ul></table>", "| a - b - c |\n| --- |"),
        ("<dl><dt>term<dd>meaning<dt>t2<dd>m2</dl>", "term\nmeaning\n\nt2\nm2"),
        ("<p># no heading</p><p>```</p><p>a<br>===", "\\# no heading\n\n\\```\n\na\n\\==="),
        ("<p>hy\xadphen<img alt='a chart'></p>", "hyphena chart"),
        ("", ""),
        ("<frameset>", ""),
    ],
)  # fmt: skip
def test_html(source: str, text: str) -> None:
    assert markup.html(source).text == text


def test_html_as_deep_as_it_likes() -> None:
    """Below the limit depth costs no stack; above it is a reason, since the parser's time grows with the square."""
    assert markup.html("<div>" * 9_000 + "x").text == "x"
    lists = markup.html("<ul><li>a" * 3_000).text
    assert lists.count("- a") == 3_000
    assert len(lists) < 150_000  # the indentation is bounded
    for tag in ("div", "b", "ul><li", "table><tr><td"):
        with pytest.raises(formats.UnreadableError, match="nested"):
            markup.html(f"<{tag}>" * 50_000 + "x")
    assert markup.html("<p>x<br>" * 20_000).text.count("x") == 20_000  # many, but not nested


@pytest.mark.parametrize(
    "source",
    [
        "a<svg viewBox='0 0 1 1'>" + "<circle cx='1'/>" * 10_001 + "</svg>b",
        "a<svg/><SVG>" + "<g><path d='M0'/></g>" * 10_001 + "</SVG>b",
        "a<script>" + "for(i=0;i<n;i++)f(i);" * 10_001 + "</SCRIPT>b",
        "a<style>/*" + "<b>" * 10_001 + "*/</style >b",
        "a<!-->" + "<!--<b>-->" * 10_001 + "b",
    ],
)
def test_html_that_only_looks_nested(source: str) -> None:
    assert markup.html(source).text == "ab"


@pytest.mark.parametrize(
    "source",
    ["<svg>", "<svg></svg><div/>", "<!--><div>", "<script>f(a<b)</script><div>", "<svg><circle/></svg><b>", "<a/ "],
)
def test_html_that_is_nested_behind_what_only_looks_so(source: str) -> None:
    with pytest.raises(formats.UnreadableError, match="nested"):
        markup.html(source * 50_000)


@pytest.mark.parametrize("piece", ["<script", "<script>", "<style ", "<!--", "<!-", "<textarea></"])
def test_html_of_what_never_ends_takes_no_time(piece: str) -> None:
    start = time.perf_counter()
    markup.html(piece * 200_000)
    assert time.perf_counter() - start < 10


@given(st.lists(st.sampled_from([
    "<h1>", "</h1>", "<p>", "</p>", "<ul>", "</ul>", "<ol>", "<li>", "</li>", "<pre>", "</pre>", "<table>", "</table>",
    "<tr>", "<td>", "</td>", "<caption>", "<br>", "<dl>", "<dt>", "<dd>", "<b>", "</b>", "<a ", ">", "<", "text", " ",
]), max_size=40))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_html_tag_soup_loses_no_text(pieces: list[str]) -> None:
    source = "".join(pieces)
    from selectolax.lexbor import LexborHTMLParser

    body = LexborHTMLParser(source).body
    assert markup.html(source).text.count("text") == (0 if body is None else body.text().count("text"))


# ---- PDF -------------------------------------------------------------------------------------------------------------


def test_pdf_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes(["Late fees\nare ten cents.", "", "Second"], "Rules"))
    document = load_file(path)
    assert document.text == "Late fees\nare ten cents.\f\fSecond"
    assert document.title == "Rules"
    assert document.metadata["pages"] == 3


def test_pdf_without_text_and_without_sense(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "a.pdf", pdf_bytes(["", ""]))).startswith("no text layer")
    assert reason(write(tmp_path / "b.pdf", "no pdf at all")).startswith("damaged or no PDF")
    assert reason(write(tmp_path / "c.pdf", b"")).startswith("damaged or no PDF")


def test_pdf_with_a_password(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_bytes(["secret"])))
    writer.encrypt("swordfish", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    assert reason(tmp_path / "a.pdf") == "encrypted: a password is needed to open it"
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_bytes(["readable"])))
    writer.encrypt("", owner_password="swordfish", algorithm="RC4-128")
    writer.write(tmp_path / "b.pdf")
    assert load_file(tmp_path / "b.pdf").text == "readable"  # no password is needed to read it


def test_pypdf_reads_what_pdfium_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdfium2

    def failing(data: bytes) -> tuple[list[str], str]:
        raise pypdfium2.PdfiumError("Failed to load page.")

    monkeypatch.setattr(formats, "_pdfium_pages", failing)
    extracted = formats.pdf(pdf_bytes(["One", "Two"], "T"))
    assert (extracted.text, extracted.title, extracted.metadata) == ("One\fTwo", "T", {"pages": 2})


def test_pdf_of_too_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_PAGES", 2)
    with pytest.raises(formats.UnreadableError, match="3 pages; at most 2 are read"):
        formats.pdf(pdf_bytes(["a", "b", "c"]))


def test_pdf_hyphens_and_ligatures() -> None:
    pages = ["an exam\x02\nple of a self\x02\nlocking nut", "a self-locking ﬁ\x01nish\xad\x0c."]
    assert list(formats._tidied(pages)) == ["an example of a self-locking nut", "a self-locking finish."]


# ---- DOCX ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def office() -> docx.document.Document:
    document = docx.Document()
    document.add_heading("The Rules", 0)
    document.add_heading("Fees", 1)
    document.add_paragraph("Late fees are\tten cents.\nA day.")
    document.add_paragraph("adults", style="List Bullet")
    document.add_paragraph("children", style="List Bullet")
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    table = document.add_table(2, 3)
    for row, cells in enumerate((("a", "b", "c"), ("1", "x|y", ""))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    document.add_paragraph("# no heading")
    return document


def test_docx(tmp_path: Path, office: docx.document.Document) -> None:
    path = write(tmp_path / "a.docx", docx_bytes(office))
    document = load_file(path)
    assert document.text == (
        "# The Rules\n\n# Fees\n\nLate fees are\tten cents.\nA day.\n\n- adults\n- children\n1. first\n2. second\n\n"
        "| a b | a b | c |\n| --- | --- | --- |\n| 1 | x\\|y |  |\n\n\\# no heading"
    )
    assert document.title == "The Rules"
    office.core_properties.title = "Core title"
    assert word.docx(docx_bytes(office)).title == "Core title"


def test_docx_text_that_python_docx_leaves_out() -> None:
    document = docx.Document()
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    deleted = "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
    box = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
    for xml in (
        f"<w:sdt {space}><w:sdtContent><w:p><w:r><w:t>in a control</w:t></w:r></w:p></w:sdtContent></w:sdt>",
        f"<w:p {space}><w:ins><w:r><w:t>added</w:t></w:r></w:ins>{deleted}</w:p>",
        f"<w:p {space}><w:r><w:t>around</w:t>{box}</w:r></w:p>",
    ):
        document.element.body.insert(-1, docx.oxml.parse_xml(xml))
    assert word.docx(docx_bytes(document)).text == "in a control\n\nadded\n\naround\n\nboxed"


def test_docx_styles_of_publishers() -> None:
    document = docx.Document()
    for name in ("ChapterTitle", "HeadA", "CodeWide"):
        document.styles.add_style(name, docx.enum.style.WD_STYLE_TYPE.PARAGRAPH)
    for style, text in (
        ("ChapterTitle", "C"),
        ("HeadA", "A"),
        ("CodeWide", "fn a() {"),
        ("CodeWide", "    b"),
        (None, "end"),
    ):
        document.add_paragraph(text, style=style)
    assert word.docx(docx_bytes(document)).text == "# C\n\n## A\n\n```\nfn a() {\n    b\n```\n\nend"


def test_docx_strict(office: docx.document.Document) -> None:
    """The strict variant has the same text, though python-docx alone cannot open it."""
    data = docx_bytes(office)
    strict = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as package, zipfile.ZipFile(strict, "w") as target:
        for part in package.infolist():
            content = package.read(part)
            for ours, theirs in archives.STRICT:
                content = content.replace(theirs, ours)
            target.writestr(part.filename, content)
    with pytest.raises(KeyError):
        docx.Document(io.BytesIO(strict.getvalue()))
    assert word.docx(strict.getvalue()).text == word.docx(data).text


def test_docx_that_means_harm(tmp_path: Path, office: docx.document.Document) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("_rels/.rels", "")
        for number in range(4):
            package.writestr(f"word/{number}.xml", bytes(80_000_000))
    assert reason(write(tmp_path / "bomb.docx", bomb.getvalue())).startswith(
        "would unpack to 320,000,000 bytes in 5 parts"
    )
    assert reason(write(tmp_path / "no.docx", "no zip")).startswith("damaged: not a zip file")
    assert "password" in reason(write(tmp_path / "ole.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)))


@pytest.mark.parametrize(
    "before",
    [
        b"<!DOCTYPE a [<!ENTITY x 'y'>]>",
        b"<!DOCTYPE a [<!ENTITY x '?><w'>]>",  # the end of an instruction, but not of the one before it
        b"<!-- --><!DOCTYPE a [<!ENTITY x '--><w'>]>",
        b"<?a?>" * 18 + b"<!DOCTYPE a>",
    ],
)
def test_docx_with_a_document_type_is_refused(tmp_path: Path, office: docx.document.Document, before: bytes) -> None:
    """No office file has one; entities, which it would declare, can reach for other files and fill the memory."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(docx_bytes(office))) as package, zipfile.ZipFile(changed, "w") as target:
        for part in package.infolist():
            content = package.read(part)
            if part.filename == "word/document.xml":
                content = content.replace(b"<w:document", before + b"<w:document", 1)
            target.writestr(part.filename, content)
    start = time.perf_counter()
    assert reason(write(tmp_path / "a.docx", changed.getvalue())) == (
        "damaged or hostile: word/document.xml begins with a document type, or is no XML"
    )
    assert time.perf_counter() - start < 1


# ---- notebooks, tables, JSON -----------------------------------------------------------------------------------------


def test_notebook(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": "print('hi')\n",
            "outputs": [
                {"output_type": "stream", "text": ["hi\n"]},
                {"data": {"text/plain": "x" * 1001, "image/png": "…"}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
        {"cell_type": "raw", "source": "raw"},
    ]
    content = {"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4}
    document = load_file(write(tmp_path / "a.ipynb", json.dumps(content)))
    assert document.text == (
        f"# Title\ntext\n\n```python\nprint('hi')\n```\n\n```\nhi\n```\n\n```\n{'x' * 1000}…\n```\n\nraw"
    )
    assert document.title == "Title"
    old = {
        "worksheets": [
            {"cells": [{"cell_type": "heading", "level": 2, "source": "Old"}, {"cell_type": "code", "input": "1"}]}
        ]
    }
    assert formats.notebook(json.dumps(old)).text == "## Old\n\n```\n1\n```"
    assert reason(write(tmp_path / "b.ipynb", "[1]")) == "not a notebook: its JSON is no object"
    assert reason(write(tmp_path / "c.ipynb", "{")).startswith("not a notebook")
    assert reason(write(tmp_path / "d.ipynb", '{"cells": 1}')).startswith("damaged, or no .ipynb file")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("name,fee\nbook,0.10\n\"a, b\",\n", "name: book; fee: 0.10\nname: a, b"),
        ("name;fee\nbook;0,10\nfilm;1,50\n", "name: book; fee: 0,10\nname: film; fee: 1,50"),
        ("name\tfee\nbook\t1\n", "name: book; fee: 1"),
        ("a|b\n1|2\n", "a: 1; b: 2"),
        ("1,2\n3,4\n", "1; 2\n3; 4"),
        ("a,b\n1,2,3\n\n4\n", "a: 1; b: 2; 3\na: 4"),
        ("one\ntwo\n", "one: two"),
        ("Alice Smith,room 12,late fees\n,,\n", "Alice Smith; room 12; late fees"),  # a header without rows
        ("The library is closed on Monday.\n", "The library is closed on Monday."),
        ('a,b\n"two\nlines",x\n', "a: two lines; b: x"),
        ("", ""),
        ("a,b\n1," + "x" * 200_000, "a,b\n1," + "x" * 200_000),  # beyond what the csv module reads: kept as it is
    ],
)  # fmt: skip
def test_csv(source: str, text: str) -> None:
    assert formats.csv_rows(source).text == text


def test_csv_whose_header_would_fill_the_memory() -> None:
    with pytest.raises(formats.UnreadableError, match="more than 200,000,000 characters"):
        formats.csv_rows(f"{'a' * 100_000},b\n" + "1,2\n" * 3_000)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('{"a": {"b": [1, 2.50, true, null]}, "c": "x"}', "a.b: 1, 2.50, true, null\nc: x"),
        ('[{"a": 1, "b": {"c": 2}}, {"a": 3}]', "a: 1\nb.c: 2\n\na: 3"),
        ('{"a": [{"b": 1}, [2, 3]]}', "a[0].b: 1\na[1]: 2, 3"),
        ('"text"', "text"),
        ('{"a": "\\ud800"}', "a: \ud800"),
        ('{"n": 123456789012345678901234567890, "f": NaN}', "n: 123456789012345678901234567890\nf: NaN"),
        ('{"a": 1} // comment', '{"a": 1} // comment'),
        ("{}", ""),
    ],
)
def test_json(source: str, text: str) -> None:
    assert formats.json_values(source).text == text


def test_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": 1, "t": "x"}\n\nno json\n{"id": 2}\n')
    assert load_file(path).text == "id: 1\nt: x\n\nno json\n\nid: 2"


def test_json_nested_too_deeply(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "a.json", "[" * 100_000)) == "damaged or hostile: nested too deeply"


# ---- whatever the bytes ----------------------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_exception_but_load_error(tmp_path: Path, data: st.DataObject) -> None:
    """Mutated files give a document or a reason; third-party warnings would fail this test as errors do."""
    seeds = [
        pdf_bytes(["Some text", "more"]),
        SMALL_DOCX,
        b"<ul><li><pre>a</pre><table><tr><td>b",
        b'{"cells": [{"source": "x"}]}',
    ]
    content = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = write(
        tmp_path / f"a{data.draw(st.sampled_from(['.pdf', '.docx', '.html', '.ipynb', '.json', '.csv', '.md', '']))}",
        content,
    )
    try:
        outcome = str(load_file(path).metadata["size"])
    except LoadError as error:
        outcome = error.reason
    assert outcome
    assert "Warning" not in outcome


def _small_docx() -> bytes:
    document = docx.Document()
    document.add_heading("H", 1)
    document.add_paragraph("p")
    return docx_bytes(document)


SMALL_DOCX = _small_docx()


# ---- real files ------------------------------------------------------------------------------------------------------

FORMATS = Path(__file__).parents[1].joinpath("../shared/data/folders/formats.tar.gz")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not FORMATS.exists():
        pytest.skip("../shared/data/folders/formats.tar.gz is not there")
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(FORMATS) as archive:
        archive.extractall(folder, filter="data")
    return folder / "formats"


def benchmark() -> ModuleType:
    """examples/benchmarks/formats.py, which says how texts are compared."""
    path = Path(__file__).parents[1] / "examples/benchmarks/formats.py"
    spec = importlib.util.spec_from_file_location("formats_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("suffix", "least"), [(".pdf", 10), (".docx", 25), (".html", 25), (".pptx", 8)])
def test_words_of_docling(real: Path, suffix: str, least: int) -> None:
    """The words of the published ground truth come out, F1 0.9 on average."""
    compare = benchmark()
    pairs = list(compare.truths(real / "docling/tests/data", suffix))
    scores = [compare.agreement(load_file(path).text, truth).f1 for path, truth in pairs]
    assert len(scores) >= least
    assert sum(scores) / len(scores) >= 0.9


def test_how_words_are_compared() -> None:
    compare = benchmark()
    # 3 words in common (the, fee, 10), of 4 and 5
    score = compare.agreement("# The fee_10 is", "the **Fee** the [10](http://a.b) or\\!<!-- image -->")
    assert score == pytest.approx((6 / 9, 3 / 4, 3 / 5))
    assert compare.agreement("", "<!-- image -->").f1 == 1
    assert compare.agreement("", "a").f1 == 0


def test_encodings_of_chardet(real: Path) -> None:
    """Of the files in known encodings, 99 of 100 decode to the right text."""
    compare = benchmark()
    outcomes = [
        compare.same_text(compare.by_us(data), wanted)
        for data, wanted in compare.encoded_files(real / "encodings/tests")
    ]
    assert len(outcomes) > 400
    assert sum(outcomes) / len(outcomes) >= 0.99

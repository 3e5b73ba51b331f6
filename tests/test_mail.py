"""E-mail, mailboxes and compressed text: exact texts of small files, and files that mean harm."""

from __future__ import annotations

import gzip
import time
import zlib
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semsearch import mail
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


# ---- e-mail ----------------------------------------------------------------------------------------------------------


def message(subject: str = "Späte Gebühren") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = subject
    mail["From"] = "Ada <ada@example.org>"
    mail["To"] = "bob@example.org, eve@example.org"
    mail["Date"] = "Mon, 01 Jan 2024 10:00:00 +0000"
    mail.set_content("Zehn Cent.\n\n# Größe\n> quoted\n-- \nAda\n")
    return mail


BODY = "From: Ada <ada@example.org>\nTo: bob@example.org, eve@example.org\nDate: Mon, 01 Jan 2024 10:00:00 +0000\n\n"
PLAIN = "Zehn Cent.\n\n\\# Größe\n> quoted\n\\-- \nAda"


def test_eml(tmp_path: Path) -> None:
    document = load_file(write(tmp_path / "a.eml", bytes(message())))
    assert document.text == f"# Späte Gebühren\n\n{BODY}{PLAIN}"
    assert document.title == "Späte Gebühren"


def test_eml_of_several_parts(tmp_path: Path) -> None:
    mail_ = message()
    mail_.add_alternative("<h1>Never seen</h1>", subtype="html")
    inner = EmailMessage()
    inner["Subject"], inner["From"] = "Inner", "eve@example.org"
    inner.set_content("<h1>Heading</h1><p>Text&amp;more</p><script>x()</script>", subtype="html")
    mail_.add_attachment(inner)
    mail_.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="gebühr.pdf")
    mail_.add_attachment("a text file", filename="notes.txt")
    document = load_file(write(tmp_path / "a.eml", bytes(mail_)))
    assert document.text == (
        f"# Späte Gebühren\n\n{BODY}{PLAIN}\n\nAttachments: gebühr.pdf, notes.txt\n\n"
        "## Inner\n\nFrom: eve@example.org\n\n### Heading\n\nText&more"
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"Subject: caf\xc3\xa9\n\nraw \xe2\x82\xac", "# café\n\nraw €"),
        (b"Subject: =?no-such?q?a?=\nFrom: a\n\nx", "# =?no-such?q?a?=\n\nFrom: a\n\nx"),
        (b"From: a\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n\xc4\xc1\r\n", "From: a\n\nда"),
        (b"From: a\nContent-Type: text/plain; charset=no-such\n\nplain", "From: a\n\nplain"),
        (b"From: a\nContent-Transfer-Encoding: base64\n\nSGk=", "From: a\n\nHi"),
        (b"From: a\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\n \n--b\nContent-Type: text/html\n\n<p>h",
         "From: a\n\nh"),
        (b"From: a\nContent-Type: multipart/mixed\n\nno boundary", "From: a\n\nno boundary"),
        (b"From: a\nContent-Type: multipart/mixed; boundary=b\n\n--c\n\nanother", "From: a\n\n--c\n\nanother"),
        (b"From: a\nContent-Type: text/markdown\n\nTen cents.", "From: a\n\nTen cents."),
        (b"\xef\xbb\xbfFrom: a\nContent-Type: image/png\n\nx", "From: a"),
        (b"From: a\nContent-Type: application/pdf; name=b.pdf\n\nx", "From: a\n\nAttachments: b.pdf"),
    ],
)  # fmt: skip
def test_eml_as_it_is_found(source: bytes, text: str) -> None:
    assert mail.eml(source).text == text


def test_attachments_of_the_version_that_is_not_taken() -> None:
    """Apple Mail puts what is attached into the richer version; the pictures of its page are no attachments."""
    source = b"""From: a
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/plain

plain
--b
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: multipart/related; boundary=d

--d
Content-Type: text/html

<p>rich
--d
Content-Type: image/png; name=logo.png

x
--d
Content-Disposition: attachment; filename=y.pdf

x
--d--
--c
Content-Type: application/pdf
Content-Disposition: inline; filename=x.pdf

x
--c
Content-Type: message/rfc822

Subject: Inner

within
--c--
--b--
"""
    assert mail.eml(source).text == "From: a\n\nplain\n\nAttachments: y.pdf, x.pdf\n\n## Inner\n\nwithin"


def test_mbox(tmp_path: Path) -> None:
    first = b"From ada@example.org Mon Jan  1 10:00:00 2024\n" + bytes(message("One"))
    second = b"\nFrom bob Tue Jan  2 10:00:00 2024\nSubject: Two\n\nHello.\n\n>From here\nFrom there 2024 on\n"
    document = load_file(write(tmp_path / "a.mbox", first + second))
    assert document.text == f"# One\n\n{BODY}{PLAIN}\n\n# Two\n\nHello.\n\nFrom here\nFrom there 2024 on"
    assert reason(write(tmp_path / "b.mbox", bytes(message()))).startswith("no mailbox")


def test_a_line_that_begins_with_from_parts_no_message() -> None:
    for line in ("From January 2024 on, fees are charged.\n", "From 2024 on\nhttps://example.org\n"):
        source = f"From a 2024\nSubject: One\n\nHello.\n\n{line}\nFrom b 2024\n>From b 2024\nSubject: Two\n\nOther.\n"
        assert mail.mbox(source.encode()).text == f"# One\n\nHello.\n\n{line}\n# Two\n\nOther."
    windows = b"From a 2024\r\nSubject: One\r\n\r\nx\r\n\r\nFrom 2024 on\r\n\r\nFrom b 2024\r\nSubject: Two\r\n\r\ny"
    assert mail.mbox(windows).text == "# One\n\nx\n\nFrom 2024 on\n\n# Two\n\ny"


def test_a_message_that_is_not_read_costs_no_other(tmp_path: Path) -> None:
    deep = "".join(f"Content-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n" for depth in range(5_000))
    odd = {
        "no e-mail: it does not begin with headers such as From and Subject": "X-Odd: y\n\nz\n",
        "damaged or hostile: nested too deeply": f"From: a\n{deep}",
        "damaged or hostile: a header of more than 10,000 bytes": f"From: a\nContent-Type: {'x' * 10_000}\n\n",
        "damaged or hostile: more than 10,000 elements nested in one another": "From: a\nContent-Type: text/html\n\n"
        + "<b>" * 10_001,
    }
    for why, source in odd.items():
        data = f"From a 2024\n{source}\n\nFrom b 2024\nSubject: Two\n\nOther.\n".encode()
        assert mail.mbox(data).text == f"[A message that is not read: {why}]\n\n# Two\n\nOther."
        assert reason(write(tmp_path / "a.mbox", f"From a 2024\n{source}".encode())) == why


def test_a_mailbox_of_one_long_line_is_refused_at_once(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "a.mbox", b"From " + b"1" * 1_000_000)).startswith("no mailbox")


def test_messages_that_mean_harm(tmp_path: Path) -> None:
    nested = "".join(f"Content-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n" for depth in range(5_000))
    assert "nested too deeply" in reason(write(tmp_path / "a.eml", b"From: a\n" + nested.encode()))
    many = nested + "\nx" * 1_000_000
    assert "too many" in reason(write(tmp_path / "b.eml", b"From: a\n" + many.encode()))
    header = b'From: a\nContent-Type: text/plain; name="' + b';"' * 1_000_000 + b"\n\nx"
    assert "a header of more than" in reason(write(tmp_path / "c.eml", header))
    parts = b"From: a\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 200_000
    assert "too many parts" in reason(write(tmp_path / "d.eml", parts))
    assert load_file(write(tmp_path / "e.eml", b"From: " + b"(" * 5_000_000 + b"\n\nx")).text.endswith("\n\nx")
    assert "no e-mail" in reason(write(tmp_path / "f.eml", b"# A note\n\nwith text"))
    assert "no e-mail" in reason(write(tmp_path / "g.eml", b"\x89PNG\r\n\x1a\n" + bytes(1000)))


# ---- gzip ------------------------------------------------------------------------------------------------------------


def test_compressed_text(tmp_path: Path) -> None:
    document = load_file(write(tmp_path / "A.md.GZ", gzip.compress(b"# One\n") + gzip.compress(b"two\n")))
    assert (document.text, document.title, document.metadata["suffix"]) == ("# One\ntwo\n", "One", ".md")
    assert document.metadata["size"] == (tmp_path / "A.md.GZ").stat().st_size
    document = load_file(write(tmp_path / "a.csv.gz", gzip.compress("tag;n\nä;1\nü;2\n".encode("cp1252"))))
    assert document.text == "tag: ä; n: 1\ntag: ü; n: 2"
    assert document.metadata["encoding"] == "cp1252"
    assert load_file(write(tmp_path / "README.gz", gzip.compress(b"hi"))).text == "hi"
    assert reason(write(tmp_path / "a.tar.gz", gzip.compress(b"x"))).startswith("no loader for .tar.gz")
    assert reason(write(tmp_path / "a.pdf.gz", gzip.compress(b"x"))).startswith("no loader for .pdf.gz")


def test_gzip_that_means_harm(tmp_path: Path) -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(squeeze.compress(bytes(1_000_000)) for _ in range(101)) + squeeze.flush()
    assert reason(write(tmp_path / "a.txt.gz", bomb)) == "would unpack to more than 100,000,000 bytes"
    data = gzip.compress(b"some text " * 100)
    assert reason(write(tmp_path / "b.txt.gz", data[:-10])) == "damaged: the gzip file ends too early"
    assert reason(write(tmp_path / "c.txt.gz", b"text")).startswith("damaged or no gzip file")
    assert reason(write(tmp_path / "d.txt.gz", data[:15] + b"\xff" * 20)).startswith("damaged")
    inner = gzip.compress(bytes(range(256)) * 10)
    assert reason(write(tmp_path / "e.txt.gz", inner)) == "binary"


# ---- whatever the bytes ----------------------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_give_text_or_a_reason(tmp_path: Path, data: st.DataObject) -> None:
    several = message()
    several.add_alternative("<p>html", subtype="html")
    several.add_attachment(b"x", maintype="application", subtype="pdf", filename="gebühr.pdf")
    seeds = {".eml": bytes(several), ".mbox": b"From a 2024\n" + bytes(several), ".txt.gz": gzip.compress(b"text " * 9)}
    suffix = data.draw(st.sampled_from(sorted(seeds)))
    content = bytearray(seeds[suffix])
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    try:
        outcome = str(load_file(write(tmp_path / f"a{suffix}", bytes(content))).metadata["size"])
    except LoadError as error:
        outcome = error.reason
    assert outcome
    assert "Warning" not in outcome

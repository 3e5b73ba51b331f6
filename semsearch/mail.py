"""E-mail as Markdown-like text: a heading with the subject, lines for sender, receivers and date, then the body.

Of a body in several versions the plain one is taken, HTML otherwise; attachments are named, not opened, those of the
other versions as well; a message that is attached follows under a heading of its own. See `formats` for the contract
of the functions.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from semsearch.decoding import decode
from semsearch.formats import Extracted, UnreadableError, joined
from semsearch.markup import escaped, html

if TYPE_CHECKING:
    from email.message import Message

__all__ = ["eml", "mbox"]

MAX_MESSAGES = 100_000  # of a mailbox
MAX_PARTS = 100_000  # of a message, with other lines that begin with two hyphens
MAX_WORK = 100_000_000  # lines times parts that may hold others: what parsing takes
MAX_HEADER = 10_000  # characters of a header

_SHOWN = ("From", "To", "Cc", "Date")
_KNOWN = ("Subject", "Received", "Message-ID", "Return-Path", *_SHOWN)
_HOLDERS = re.compile(rb"multipart/|message/", re.IGNORECASE)
_STRUCTURE = re.compile(
    rb"(?:\A|[\r\n])content-(?:type|disposition)[ \t]*:[^\r\n]*(?:(?:\r\n|\r|\n)[ \t][^\r\n]*)*", re.IGNORECASE
)
_FROM_LINE = re.compile(  # a header follows, or else it is a line of the message before
    rb"(?:\A|(?:(?<=\n\n)|(?<=\n\r\n))(?=[^\r\n]*\r?\n(?:>From |[!-9;-~]+:(?!//))))"
    rb"From (?=[^\r\n]*\d{4})[^\r\n]*\r?\n"
)


def eml(data: bytes) -> Extracted:
    """An e-mail; the title is its subject.

    >>> eml(b"Subject: Hi\\nFrom: a@example.org\\n\\nHello.\\n").text
    '# Hi\\n\\nFrom: a@example.org\\n\\nHello.'
    """
    message = _parsed(data.removeprefix(b"\xef\xbb\xbf"))
    return Extracted(joined(_blocks(message, 1), "\n\n"), _header(message, "Subject"))


def mbox(data: bytes) -> Extracted:
    """A mailbox: its messages one after another, each under its subject; for one that cannot be read, the reason.

    >>> mbox(b"From a Mon Jan  1 00:00:00 2024\\nSubject: Hi\\n\\nHello.\\n>From me\\n").text
    '# Hi\\n\\nHello.\\nFrom me'
    """
    starts = list(itertools.islice(_FROM_LINE.finditer(data), MAX_MESSAGES + 1))
    if not starts or starts[0].start():
        raise UnreadableError('no mailbox: it does not begin with a line "From …"')
    if len(starts) > MAX_MESSAGES:
        raise UnreadableError(f"more than {MAX_MESSAGES:,} messages")
    ends = [*(start.start() for start in starts[1:]), len(data)]
    messages = (data[start.end() : end] for start, end in zip(starts, ends, strict=True))
    unread: list[str] = []
    text = joined(filter(None, (_of_mailbox(each, unread) for each in messages)), "\n\n")
    if len(unread) == len(starts):
        raise UnreadableError(unread[0])
    return Extracted(text)


def _of_mailbox(data: bytes, unread: list[str]) -> str:
    """The text of a message, or a line with the reason why it has none, which is put into `unread`."""
    try:
        return joined(_blocks(_parsed(re.sub(rb"^>(?=>*From )", b"", data, flags=re.MULTILINE)), 1), "\n\n")
    except UnreadableError as error:
        unread.append(str(error))
    except RecursionError:
        unread.append("damaged or hostile: nested too deeply")
    return f"[A message that is not read: {unread[-1]}]"


def _parsed(data: bytes) -> Message[str, str]:
    from email import message_from_bytes

    _refuse_hostile(data)
    message = message_from_bytes(data)
    if not any(message.get(name) for name in _KNOWN):
        raise UnreadableError("no e-mail: it does not begin with headers such as From and Subject")
    return message


def _refuse_hostile(data: bytes) -> None:
    """The parser asks each part that holds others about each line, and takes time in the square of some headers."""
    lines = data.count(b"\n") + data.count(b"\r")
    holders = sum(1 for _ in _HOLDERS.finditer(data))
    if data.count(b"\n--") + data.count(b"\r--") > MAX_PARTS or holders * lines > MAX_WORK:
        raise UnreadableError("damaged or hostile: too many parts, or too many in one another")
    if any(len(header[0]) > MAX_HEADER for header in _STRUCTURE.finditer(data)):
        raise UnreadableError(f"damaged or hostile: a header of more than {MAX_HEADER:,} bytes")


def _blocks(message: Message[str, str], level: int) -> Iterator[str]:
    """The blocks of a message: heading, headers, bodies, names of attachments, attached messages."""
    if subject := _header(message, "Subject"):
        yield f"{'#' * min(level, 6)} {subject}"
    lines = [f"{name}: {value}" for name in _SHOWN if (value := _header(message, name))]
    if lines:
        yield "\n".join(lines)
    attached: list[str] = []
    inner: list[Message[str, str]] = []
    yield from _bodies(message, level, attached, inner)
    if attached:
        yield f"Attachments: {', '.join(attached)}"
    for each in inner:
        yield from _blocks(each, level + 1)


def _bodies(
    part: Message[str, str], level: int, attached: list[str], inner: list[Message[str, str]], *, taken: bool = True
) -> Iterator[str]:
    """The texts of a part, none of a version that is not taken; what is attached is put into `attached` and `inner`."""
    kind = part.get_content_type()
    if kind == "message/rfc822" and part.is_multipart():
        inner.extend(each for each in part.get_payload() if not isinstance(each, str))
    elif part.is_multipart():
        children = [each for each in part.get_payload() if not isinstance(each, str)]
        best = _best(children) if kind == "multipart/alternative" and children else None
        if kind == "multipart/related" and not taken:  # the other parts are pictures of a page that is not shown
            children = [each for each in children if each.is_multipart() or _is_attachment(each)]
        for child in children:
            yield from _bodies(child, level, attached, inner, taken=taken and best in (None, child))
    elif (name := _file_name(part)) or _is_attachment(part):
        attached.append(name or kind)
    elif taken and kind.startswith(("text/", "multipart/")):  # a part without a boundary is one text
        yield from filter(None, [_text(part, kind, level)])


def _is_attachment(part: Message[str, str]) -> bool:
    return part.get_content_disposition() == "attachment"


def _best(children: list[Message[str, str]]) -> Message[str, str]:
    """Of versions of one text the plain one if it says anything, or else the last, which is the richest."""
    for child in children:
        if child.get_content_type() == "text/plain" and _decoded(child).strip():
            return child
    return children[-1]


def _text(part: Message[str, str], kind: str, level: int) -> str:
    text = _decoded(part)
    if kind == "text/html":
        return html(text, below=level).text
    lines = text.replace("\r\n", "\n").rstrip().strip("\n").split("\n")
    return "\n".join(escaped(line) for line in lines)


def _decoded(part: Message[str, str]) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    try:
        return data.decode(part.get_content_charset() or "utf-8").replace("\0", "")
    except (LookupError, ValueError):
        try:
            return decode(data)[0]
        except UnreadableError:
            return data.decode("utf-8", errors="replace")


def _file_name(part: Message[str, str]) -> str:
    return " ".join(_words(part.get_filename() or "").split())[:200]


def _header(message: Message[str, str], name: str) -> str:
    """A header in one line; bytes beyond ASCII, which it should not have, are taken for what they look like."""
    found = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    data = found[:MAX_HEADER].encode("utf-8", "surrogateescape")
    try:
        value = decode(data)[0] if data else ""
    except UnreadableError:
        value = data.decode("utf-8", errors="replace")
    return " ".join(_words(value).split())


def _words(value: str) -> str:
    """A header's value with its encoded words (RFC 2047) decoded."""
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    value = value[:MAX_HEADER]
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value.encode("utf-8", "replace").decode()

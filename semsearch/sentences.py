"""Where the sentences of a text begin and end.

    [text[start:end] for start, end in sentences(text)]

The rules are for the scripts that end a sentence with . ! ? … or 。！？, and know abbreviations, initials, list numbers
and blank lines. Time is linear in the text.
"""

from __future__ import annotations

import re

__all__ = ["sentences"]

# Each branch is anchored so that a long run of one character is scanned once: time is linear in the text.
_END = re.compile(
    r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?=\s|$)"""
    r"""|[。！？｡]++[」』”’）]*+"""
    r"""|\n(?=[ \t\r\f]*+(?:\n|[-*+•]\s|[#|>]|\d{1,3}[.)]\s))"""
)
_BEFORE_STOP = re.compile(r"(?:^|(?<=[\s(\[\"'“‘]))[\w.]+$")
_SHORT = (
    "al approx art ca cf ch co corp dept dr ed e.g eds eq est fig figs gen gov i.e inc jr lt ltd mr mrs ms mt nos p pp "
    "prof rev sen sec sr st u.k u.s univ viz vol vs"
)
_ABBREVIATIONS = frozenset(_SHORT.split())
_LIST_NUMBER = re.compile(r"(?:^|\n)[ \t]*\d{1,3}$")


def sentences(text: str) -> list[tuple[int, int]]:
    """The spans (start, end) of the sentences of `text`, in order, without white space at their ends.

    Everything but white space is in exactly one. A blank line, and a line break before a list item, heading or table
    row, ends a sentence too; other line breaks do not.

    >>> [("It is 3.5 km. Dr. Ada knows."[a:b]) for a, b in sentences("It is 3.5 km. Dr. Ada knows.")]
    ['It is 3.5 km.', 'Dr. Ada knows.']
    """
    spans, start = [], 0
    for match in _END.finditer(text):
        if match[0][0] == "." and not _ends_sentence(text, match.start(), match.end()):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [span for span in (_strip(text, a, b) for a, b in spans) if span[0] < span[1]]


def _ends_sentence(text: str, stop: int, end: int) -> bool:
    """Whether the full stop at `stop` ends a sentence: not that of an abbreviation, an initial or a list's number."""
    following = text[end : end + 40].lstrip()[:1]
    if following.islower():
        return False
    before = text[max(0, stop - 20) : stop]
    if _LIST_NUMBER.search(before if stop > 20 else "\n" + before):
        return False
    match = _BEFORE_STOP.search(before)
    word = match[0] if match else ""
    if word.lower() == "no":
        return not following.isdigit()
    return not (word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I"))


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))

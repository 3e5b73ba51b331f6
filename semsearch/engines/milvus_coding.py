"""How texts, ids, keywords and JSON values are spelled for Milvus, which holds strings of at most 65,535 bytes."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from semsearch.engines.expressions import spelled
from semsearch.errors import InputError

__all__ = [
    "PIECE_BYTES",
    "Stowed",
    "digest_key",
    "digest_of",
    "document_key",
    "dumped",
    "encoded",
    "escaped",
    "hashed",
    "loaded",
    "passage_id",
    "piece_key",
    "state_key",
    "state_pk",
    "stowed",
    "term_of",
    "terms_of",
    "unescaped",
]

PIECE_BYTES = 60_000
STATE_NAME = 200  # characters
TERMS_BYTES = 65_000

_ODD = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a(....)", re.DOTALL)
_PLAIN_TERM = re.compile(r"[a-wyz0-9][a-z0-9]{0,39}")


def escaped(text: str) -> str:
    """Text that UTF-8 has a form for, without NUL: a lone surrogate and the like become SUB and four digits."""
    return _ODD.sub(lambda match: f"\x1a{ord(match[0]):04x}", text)


def unescaped(text: str) -> str:
    """The text that `escaped` was given."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "\x1a" in text else text


def dumped(value: Any) -> str:
    """A JSON value as a string that Milvus can hold, apart from its length."""
    return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False))


def loaded(text: str) -> Any:
    """The JSON value that `dumped` was given."""
    return json.loads(unescaped(text))


def pieces(text: str) -> Iterator[str]:
    """Text in pieces of at most PIECE_BYTES bytes, cut between characters."""
    whole = text.encode()
    start = 0
    while start < len(whole):
        end = min(start + PIECE_BYTES, len(whole))
        while end < len(whole) and whole[end] & 0xC0 == 0x80:
            end -= 1
        yield whole[start:end].decode()
        start = end


def document_key(id: str) -> str:
    """32 hexadecimal digits, spread evenly, that stand for a document's id."""
    return hashed(b"document", encoded(id))


def state_key(name: str) -> str:
    """The same for the name of a state."""
    return hashed(b"state", encoded(name))


def encoded(text: str) -> bytes:
    """Any string as bytes."""
    return text.encode("utf-8", "surrogatepass")


def hashed(*parts: bytes) -> str:
    """32 hexadecimal digits that stand for these parts in this order."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:32]


def passage_id(key: str, version: str, ordinal: int, salt: int = 0) -> int:
    """The id of a passage: 63 bits of a hash. Another `salt` gives another one, where two would be the same."""
    number = int.from_bytes(sha256(f"{key}/{version}/{ordinal}/{salt}".encode()).digest()[:8], "big") >> 1
    return number or passage_id(key, version, ordinal, salt + 1_000_000)


def term_of(term: str) -> str:
    """A keyword as letters and digits that every tokenizer leaves whole; what is none of a-z0-9 becomes a hash."""
    return term if _PLAIN_TERM.fullmatch(term) else "x" + sha256(encoded(term)).hexdigest()[:16]


def terms_of(terms: Iterable[str]) -> str:
    """Keywords as one string for the engine's BM25; at most TERMS_BYTES long, which a passage stays far below."""
    text = " ".join(map(term_of, terms))
    return text if len(text) <= TERMS_BYTES else text[: text.rindex(" ", 0, TERMS_BYTES)]


class Stowed(NamedTuple):
    """A string in a row: its beginning, and what came after it, in pieces for rows of their own."""

    inline: str
    rest: list[str]


def stowed(text: str) -> Stowed:
    """A text, first made such that Milvus can hold it, as the row and its pieces."""
    parts = list(pieces(escaped(text)))
    return Stowed(parts[0] if parts else "", parts[1:])


def piece_key(key: str, version: str, number: int) -> str:
    """The primary key of a piece."""
    return f"p{key}/{version}/{number:08d}"


def state_pk(name: str) -> str:
    """The primary key of a state; those of names that begin alike begin alike. Raises InputError for a long name."""
    if len(name) > STATE_NAME:
        raise InputError(f"The name of a state has at most {STATE_NAME} characters, not {len(name)}: {name!r:.60}...")
    return f"s{spelled(encoded(name))}"


def digest_key(digest: bytes) -> str:
    """A digest as Milvus can hold it."""
    return b64encode(digest, b"-_").decode()


def digest_of(key: str) -> bytes:
    """The digest that `digest_key` was given."""
    return b64decode(key, b"-_")

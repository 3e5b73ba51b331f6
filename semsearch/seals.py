"""Seals: a short hash of a row, stored beside it.

SQLite notices damage to its own structure, but not a changed byte inside a text, a number or a vector. A row that
belongs to the truth carries the hash of its content and is compared with it whenever it is read.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from semsearch.errors import CorruptIndexError

__all__ = ["check_seal", "seal"]


def seal(*values: Any) -> bytes:
    """8 bytes of BLAKE2b over values as SQLite stores them: None, integers, strings and bytes, each with its kind."""
    hashed = blake2b(digest_size=8)
    for value in values:
        if isinstance(value, str):
            kind, data = b"s", value.encode("utf-8", "surrogatepass")
        elif isinstance(value, bytes):
            kind, data = b"b", value
        else:
            kind, data = b"n", repr(value).encode()
        hashed.update(b"%s%d:" % (kind, len(data)))
        hashed.update(data)
    return hashed.digest()


def check_seal(stored: object, what: str, *values: Any) -> None:
    """Raise CorruptIndexError if `stored` is not the seal of the values."""
    if seal(*values) != stored:
        raise CorruptIndexError(
            f"The database is damaged: {what} is not what was stored. Restore a backup, or index the documents again."
        )

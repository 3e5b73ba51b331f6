"""Documents as rows of two collections, and back.

Milvus holds strings of at most 65,535 bytes, so what is longer lies in pieces, in rows of their own. A document's head
is the row that counts: it names the version that holds, and whoever meets a passage of another version passes over it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from semsearch.engines.expressions import Column, Fields
from semsearch.engines.milvus_coding import (
    PIECE_BYTES,
    digest_key,
    digest_of,
    document_key,
    dumped,
    encoded,
    escaped,
    hashed,
    loaded,
    passage_id,
    piece_key,
    state_key,
    state_pk,
    stowed,
    terms_of,
    unescaped,
)
from semsearch.engines.protocol import Entry, Part
from semsearch.errors import CorruptIndexError, InputError, unstorable
from semsearch.records import Document, Passage

__all__ = [
    "HEAD",
    "INTENT",
    "META",
    "PIECE",
    "STATE",
    "Description",
    "Head",
    "Stored",
    "StoredState",
    "owner_name",
    "part_of",
    "passage_of",
]

MOST_TOKENS = 4096  # elements that an array may have
RANGES_BYTES = 65_000

HEAD, PIECE, STATE, INTENT, META = range(5)  # kinds of rows in the collection of documents


@dataclass(frozen=True, slots=True)
class Head:
    """What the row of a document says: which version holds, and what belongs to it."""

    key: str
    version: str
    content: str
    described: int
    pieces: int
    passages: int
    salts: Mapping[str, int]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Head:
        """Read a row, of which there are at least the columns COLUMNS."""
        return cls(
            row["pk"][1:],
            row["version"],
            row["content"],
            row["described"],
            row["pieces"],
            row["passages"],
            loaded(row["salts"] or "{}"),
        )

    COLUMNS = ("pk", "version", "content", "described", "pieces", "passages", "salts")

    def ids(self) -> list[int]:
        """The ids of its passages, in the order of the text."""
        salts = self.salts
        return [passage_id(self.key, self.version, n, salts.get(str(n), 0)) for n in range(self.passages)]

    def piece_keys(self) -> list[str]:
        """The keys of its pieces: first those of the description, then those of the text."""
        return [piece_key(self.key, self.version, n) for n in range(self.described + self.pieces)]


class Stored:
    """An entry on its way in, as rows. `head` is what it replaces; with the same content, its version is kept.

    Raises InputError for a document that Milvus cannot hold.
    """

    def __init__(self, entry: Entry, head: Head | None, columns: Mapping[str, Column], token_keys: bool) -> None:
        document = entry.document
        self.entry = entry
        self.key = document_key(document.id)
        description, self.headings = _description(document, entry.parts)
        self.content = hashed(
            encoded(description), encoded(document.text), *(piece for part in entry.parts for piece in _of_part(part))
        )
        self.description, self.text = stowed(description), stowed(document.text)
        self.salts: dict[str, int] = {}
        if head is not None and head.content == self.content:
            self.version, self.salts = head.version, dict(head.salts)
        else:
            self.version = hashed(self.content.encode(), (head.version if head else "").encode())
        own = {"id": document.id, "title": document.title, "source": document.source}
        self.fields = _checked(Fields.of({**own, **document.metadata}, columns, token_keys=token_keys), document.id)

    def ids(self) -> list[int]:
        """The ids of its passages, in the order of the text."""
        salts, numbers = self.salts, range(len(self.entry.parts))
        return [passage_id(self.key, self.version, n, salts.get(str(n), 0)) for n in numbers]

    def evade(self, taken: dict[int, tuple[str, str, int]]) -> bool:
        """Take another salt for each passage whose id is another's (document, version, ordinal); whether there was one.

        The ids that are kept are entered into `taken`.
        """
        clashing = False
        for number, id in enumerate(self.ids()):
            own = (self.key, self.version, number)
            if taken.setdefault(id, own) != own:
                self.salts[str(number)] = self.salts.get(str(number), 0) + 1
                clashing = True
        return clashing

    def passage_rows(self, dimension: int, text: bool) -> Iterator[dict[str, Any]]:
        """The rows of its passages; with the keywords if `text`."""
        searchable = {"tokens": self.fields.tokens, "ranges": self.fields.ranges, **self.fields.columns}
        for number, (id, part) in enumerate(zip(self.ids(), self.entry.parts, strict=True)):
            slice = escaped(self.entry.document.text[part.start : part.end])
            yield {
                "id": id,
                "vector": np.zeros(dimension, np.float32) if part.vector is None else part.vector.astype(np.float32),
                "embedded": part.vector is not None,
                "document": self.key,
                "version": self.version,
                "ordinal": number,
                "first": part.start,
                "past": part.end,
                "page": part.page or 0,
                "heading": "" if str(number) in self.headings else escaped(part.heading),
                "digest": digest_key(part.digest),
                "text": slice if len(slice.encode()) <= PIECE_BYTES else "",
                **({"terms": terms_of(part.terms)} if text else {}),
                **searchable,
            }

    def piece_rows(self) -> Iterator[dict[str, Any]]:
        """The rows of its pieces."""
        for number, piece in enumerate((*self.description.rest, *self.text.rest)):
            yield {"pk": piece_key(self.key, self.version, number), "kind": PIECE, "text": piece}

    def head_row(self) -> dict[str, Any]:
        """The row that makes all of it count."""
        file = self.entry.file
        return {
            "pk": f"d{self.key}",
            "kind": HEAD,
            "version": self.version,
            "content": self.content,
            "name": escaped(self.entry.document.id),
            "description": self.description.inline,
            "described": len(self.description.rest),
            "text": self.text.inline,
            "pieces": len(self.text.rest),
            "passages": len(self.entry.parts),
            "salts": dumped(self.salts),
            "root": -1 if file is None else int(file.get("root", -1)),
            "file": ""
            if file is None
            else _fitting(dumped(dict(file)), f"What is noted of the file of {self.entry.document.id!r:.200}"),
            "tokens": self.fields.tokens,
            "ranges": self.fields.ranges,
            **self.fields.columns,
        }


class StoredState:
    """A JSON value on its way in under its name, as rows."""

    COLUMNS = ("pk", "content", "version", "pieces")
    ROW = (*COLUMNS, "name", "text")

    def __init__(self, name: str, value: Any) -> None:
        self.pk = state_pk(name)
        self.key = state_key(name)
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"The state {name!r:.200} cannot be stored as JSON: {error}.") from None
        self._name = name
        self._version = hashed(encoded(text))
        self._text = stowed(text)

    def piece_keys(self) -> list[str]:
        """The keys of its pieces."""
        return [piece_key(self.key, self._version, number) for number in range(len(self._text.rest))]

    def piece_rows(self) -> Iterator[dict[str, Any]]:
        """The rows of its pieces."""
        for key, piece in zip(self.piece_keys(), self._text.rest, strict=True):
            yield {"pk": key, "kind": PIECE, "text": piece}

    def row(self) -> dict[str, Any]:
        """The row that makes it count."""
        return {
            "pk": self.pk,
            "kind": STATE,
            "name": escaped(self._name),
            "content": self.key,
            "version": self._version,
            "text": self._text.inline,
            "pieces": len(self._text.rest),
        }

    @staticmethod
    def pieces_of(row: Mapping[str, Any]) -> list[str]:
        """The keys of the pieces of a row."""
        return [piece_key(row["content"], row["version"], number) for number in range(row["pieces"])]

    @classmethod
    def read(cls, row: Mapping[str, Any], pieces: Mapping[str, str]) -> tuple[str, Any]:
        """The name and the value of a row. Raises CorruptIndexError."""
        name = unescaped(row["name"])
        try:
            return name, loaded("".join((row["text"], *(pieces[key] for key in cls.pieces_of(row)))))
        except ValueError as error:
            raise CorruptIndexError(f"The state {name!r} cannot be read: {error}.") from error


def _description(document: Document, parts: Sequence[Part]) -> tuple[str, dict[str, str]]:
    """All of a document but its text, as JSON, with headings that are too long for a row; and these by ordinal."""
    headings = {
        str(number): part.heading
        for number, part in enumerate(parts)
        if len(escaped(part.heading).encode()) > PIECE_BYTES
    }
    _fitting(escaped(document.id), f"The id {document.id!r:.60}...")
    value = {"id": document.id, "title": document.title, "source": document.source, "metadata": dict(document.metadata)}
    try:
        return json.dumps({**value, "headings": headings}, ensure_ascii=False, allow_nan=False), headings
    except (TypeError, ValueError, RecursionError) as error:
        raise unstorable(document.id, error) from None


def _fitting(text: str, what: str) -> str:
    if len(text.encode()) > PIECE_BYTES:
        raise InputError(
            f"{what} has more than {PIECE_BYTES:,} bytes, which Milvus cannot hold in one row. Shorten it."
        )
    return text


def _checked(fields: Fields, id: str) -> Fields:
    size = len(json.dumps(fields.ranges))
    if len(fields.tokens) > MOST_TOKENS or size > RANGES_BYTES:
        raise InputError(
            f"The metadata of document {id!r:.200} has {len(fields.tokens):,} distinct names and values, too many for "
            f"filters in Milvus, where about {MOST_TOKENS:,} can be. Leave out long lists, or put them into the text."
        )
    return fields


def _of_part(part: Part) -> Iterator[bytes]:
    yield f"{part.start} {part.end} {part.page}".encode()
    yield encoded(part.heading)
    yield part.digest
    yield encoded("\0".join(part.terms))
    yield b"" if part.vector is None else part.vector.astype("<f4").tobytes()


class Description(NamedTuple):
    """What a document is, apart from its text; `headings` are those that have no room with their passages."""

    document: Document
    headings: Mapping[str, str]

    @classmethod
    def of(cls, inline: str, rest: Sequence[str], text: str = "") -> Description:
        """Put the strings of a head and its pieces together, with the document's text. Raises CorruptIndexError."""
        try:
            value = loaded("".join((inline, *rest)))
            document = Document(value["id"], text, value["title"], value["source"], value["metadata"])
            return cls(document, value["headings"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptIndexError(
                f"What Milvus holds of a document makes no sense ({type(error).__name__}: {error}). Index it again."
            ) from error


def part_of(row: Mapping[str, Any], description: Description) -> Part:
    """A passage's row as a Part without keywords."""
    heading = description.headings.get(str(row["ordinal"]))
    return Part(
        row["first"],
        row["past"],
        row["page"] or None,
        unescaped(row["heading"]) if heading is None else heading,
        digest_of(row["digest"]),
        (),
        np.asarray(row["vector"], np.float32) if row["embedded"] else None,
    )


def passage_of(row: Mapping[str, Any], description: Description, text: str) -> Passage:
    """A passage's row as a Passage; `text` is its slice of the document."""
    document = description.document
    heading = description.headings.get(str(row["ordinal"])) or unescaped(row["heading"])
    place = {"title": document.title, "source": document.source, "heading": heading}
    metadata = {**{name: value for name, value in place.items() if value}, **document.metadata}
    return Passage(row["id"], document.id, text, row["first"], row["past"], row["page"] or None, metadata)


def owner_name(row: Mapping[str, Any]) -> str:
    """The id of the document of a head's row."""
    return unescaped(row["name"])

"""An inspection of the database: everything in it against everything else, as a stream of rows.

What is wrong in the truth (texts, offsets, vectors, history) is told, never guessed at. What follows from it (the table
behind `where` filters, SQLite's own indexes, vectors that nothing uses) can be made again. An inspection takes the
memory of the largest document, however large the index is.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.chunking import embedded_text
from semsearch.errors import ClosedIndexError, IndexLockedError, StorageError
from semsearch.filters import fields, pack, unpack
from semsearch.seals import seal
from semsearch.tables import SCHEMA, View, digest

__all__ = ["Findings", "inspect"]

MOST = 1000  # problems that are listed one by one
LENGTH_ERROR = 1e-2  # of a unit vector

# What each column may hold: SQLite would take anything anywhere. "text blob" is a string, see `filters.pack`.
COLUMNS = {
    "meta": {"name": "text", "value": "text"},
    "commits": {"generation": "integer", "token": "text"},
    "documents": {
        "key": "integer",
        "id": "text blob",
        "title": "text blob",
        "source": "text blob",
        "metadata": "text",
        "text": "text blob",
    },
    "fields": {"name": "text blob", "kind": "text", "document": "integer"},
    "vectors": {"key": "integer", "digest": "blob", "vector": "blob"},
    "passages": {
        "id": "integer",
        "document": "integer",
        "start": "integer",
        "end": "integer",
        "page": "integer null",
        "heading": "text blob",
        "vector": "integer null",
    },
    "removals": {"passage": "integer", "generation": "integer"},
    "roots": {"key": "integer", "path": "text blob", "prefix": "text blob"},
    "files": {
        "root": "integer",
        "path": "text blob",
        "size": "integer",
        "mtime_ns": "integer",
        "inode": "integer",
        "digest": "text",
        "document": "integer null",
        "reason": "text blob null",
        "release": "text",
    },
}
# The tables whose rows carry a seal: what names a row, and what is sealed.
SEALED = {
    "meta": ("name", "name, value"),
    "documents": ("key", "id, text, title, source, metadata"),
    "vectors": ("key", "digest, vector"),
    "passages": ("id", 'document, start, "end", page, heading, vector'),
}
# Facts about the history: each query counts what must not be.
FACTS = {
    "commits are missing from the history": (
        "SELECT coalesce(max(generation) - min(generation) + 1 - count(*), 0) FROM commits"
    ),
    "removals are of a commit that is not in the history": (
        "SELECT count(*) FROM removals WHERE generation NOT IN (SELECT generation FROM commits)"
    ),
    "passages are there and noted as removed": "SELECT count(*) FROM removals JOIN passages ON passages.id = passage",
    "passages have an id that was not given out": (
        "SELECT count(*) FROM (SELECT id FROM passages UNION ALL SELECT passage FROM removals) "
        "WHERE id > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'passages')"
    ),
    "documents have a key that was not given out": (
        "SELECT count(*) FROM documents "
        "WHERE key > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'documents')"
    ),
    "files have neither a document nor a reason": (
        "SELECT count(*) FROM files WHERE document IS NULL AND reason IS NULL"
    ),
}
# Indexes of SQLite's that can be built again: whether the table or the index is damaged, a look at the table tells. Not
# so for the ids of documents, the roots and the removals.
REBUILT = {"passages_document", "passages_vector", "fields_document", "files_document", "sqlite_autoindex_vectors_1"}
OF_AN_INDEX = re.compile(r"(?:row \d+ missing from index|wrong # of entries in index) (\w+)")


@dataclass
class Findings:
    """What an inspection of the database found; see `inspect`."""

    documents: int = 0
    passages: int = 0
    problems: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    indexes: set[str] = field(default_factory=set)  # SQLite's own, to be built again
    fields: list[int] = field(default_factory=list)  # keys of documents whose filter fields are to be written again
    unused_vectors: int = 0
    unlisted: int = 0
    cache: list[str] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)

    @property
    def repairable(self) -> list[str]:
        """What can be made again: nothing while the database itself is damaged."""
        return (
            []
            if self.problems
            else [*self.derived, *self.cache, *(f"{path.name} is left over" for path in self.leftovers)]
        )

    def wrong(self, what: str) -> None:
        """Note a problem of the truth."""
        if len(self.problems) < MOST:
            self.problems.append(what)
        else:
            self.unlisted += 1

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Note it where something cannot be read at all."""
        try:
            yield
        except (ClosedIndexError, IndexLockedError):
            raise
        except (StorageError, sqlite3.Error, ValueError, TypeError, KeyError, IndexError) as error:
            self.wrong(f"{what} cannot be read: {error}")


def inspect(view: View) -> Findings:
    """Look at everything in the database; what cannot be read any more is a finding, not an exception."""
    found = Findings()
    database = _Database(view.connection)
    with found.reading("the database"):
        database.integrity(found)
    if found.problems or found.indexes:
        with found.reading("the database"):
            found.documents, found.passages = database.counts()
        return found  # what a damaged tree gives out is not worth a look
    with found.reading("the tables"):
        database.columns(found)
    if found.problems:
        return found
    with found.reading("the database"):
        found.documents, found.passages = database.counts()
        database.facts(found)
    with found.reading("the table meta"):
        database.meta_facts(found)
    with found.reading("the documents"):
        database.all_documents(found)
    with found.reading("the table files"):
        database.all_files(found)
    if not found.problems:
        with found.reading("the database"):
            database.all_seals(found)
    if found.fields:
        found.derived.append(f"the filter fields of {len(found.fields):,} documents are not those of their metadata")
    if found.unused_vectors:
        found.derived.append(f"{found.unused_vectors:,} vectors are not used by any passage")
    if found.unlisted:
        found.problems.append(f"... and {found.unlisted:,} more")
    return found


class _UnreadableError(Exception):
    """A string that is not as `pack` made it."""


class _Database(View):
    """The queries of an inspection, one method for each thing that is looked at."""

    def integrity(self, found: Findings) -> None:
        """SQLite's own checks, and its references."""
        rows = [str(row) for (row,) in self._rows("PRAGMA integrity_check").fetchall()]
        for line in "\n".join(rows).removeprefix("*** in database main ***\n").splitlines():
            match = OF_AN_INDEX.fullmatch(line)
            if match and match[1] in REBUILT:
                found.indexes.add(match[1])
            elif line != "ok":
                found.wrong(line)
        if found.problems:
            found.indexes.clear()
            return
        found.derived += [f"SQLite's index {name} does not fit its table" for name in sorted(found.indexes)]
        for table, row, parent, _ in self._rows("PRAGMA foreign_key_check").fetchall():
            found.wrong(f"row {row} of {table} refers to a missing row of {parent}")
        if (encoding := self._rows("PRAGMA encoding").fetchone()[0]) != "UTF-8":
            found.wrong(f"the encoding of the database is {encoding}, not UTF-8")

    def columns(self, found: Findings) -> None:
        """That every table and index is there, and that the columns hold what they should."""
        there = {str(name) for (name,) in self._rows("SELECT name FROM sqlite_schema")}
        for kind, name in re.findall(r"CREATE (TABLE|INDEX) (\w+)", SCHEMA):
            if name not in there:
                found.wrong(f"the {kind.lower()} {name} is missing")
        for table, columns in COLUMNS.items():
            if table in there:
                tests = [f'(typeof("{name}") NOT IN ({_quoted(kinds)}))' for name, kinds in columns.items()]
                rows = self._rows(f"SELECT {', '.join(f'total({test})' for test in tests)} FROM {table}").fetchone()
                for name, count in zip(columns, rows, strict=True):
                    if count:
                        found.wrong(f"{int(count):,} values of {table}.{name} are not {columns[name]}")

    def facts(self, found: Findings) -> None:
        """That counts and history fit together."""
        for what, sql in FACTS.items():
            (count,) = self._rows(sql).fetchone()
            if count:
                found.wrong(f"{count:,} {what}")
        unused = "SELECT count(*) FROM vectors WHERE NOT EXISTS (SELECT 1 FROM passages WHERE vector = vectors.key)"
        (found.unused_vectors,) = self._rows(unused).fetchone()

    def meta_facts(self, found: Findings) -> None:
        """That the table meta is complete."""
        kinds: dict[str, Callable[[Any], bool]] = {
            "uuid": lambda value: isinstance(value, str) and bool(value),
            "created": lambda value: isinstance(value, (int, float)),
        }
        if self.generation():
            kinds["language"] = lambda value: isinstance(value, str) and bool(value)
            kinds["encoder"] = _is_fingerprint
            kinds["encoder_spec"] = lambda value: value is None or isinstance(value, str)
        for name, fits in kinds.items():
            with found.reading(f"{name} in the table meta"):
                if not fits(value := self.meta(name)):
                    found.wrong(f"{name} in the table meta is {value!r:.80}")

    def all_documents(self, found: Findings) -> None:
        """Every document with all that belongs to it."""
        stored = self.meta("encoder")
        dimension = int(stored["dimension"]) if _is_fingerprint(stored) else 0
        names = ("id", "title", "source", "metadata", "text")
        columns = ", ".join(f"typeof({name}), CAST({name} AS BLOB)" for name in names)
        for key, *values in self._rows(f"SELECT key, {columns} FROM documents ORDER BY key"):
            strings = {}
            for name, kind, raw in zip(names, values[::2], values[1::2], strict=True):
                try:
                    strings[name] = _string(kind, raw)
                except _UnreadableError as error:
                    found.wrong(f"the {name} of document {key} cannot be decoded: {error}")
            if len(strings) == len(names):
                document = _Document(int(key), **strings)
                metadata = document.parsed(found)
                if metadata is not None and self._fields_differ(document, metadata):
                    found.fields.append(document.key)
                self._passages(document, metadata, dimension, found)

    def _fields_differ(self, document: _Document, metadata: dict[str, Any]) -> bool:
        own = {"id": document.id, "title": document.title, "source": document.source}
        try:
            rows = self._rows("SELECT name, kind, value FROM fields WHERE document = ?", (document.key,)).fetchall()
        except StorageError:  # a name or value that is not UTF-8
            return True
        return set(rows) != set(fields({**own, **metadata}))

    def _passages(self, document: _Document, metadata: dict[str, Any] | None, dimension: int, found: Findings) -> None:
        rows = self._rows(
            'SELECT p.id, p.start, p."end", p.page, typeof(p.heading), CAST(p.heading AS BLOB), v.digest, v.vector '
            "FROM passages p LEFT JOIN vectors v ON v.key = p.vector WHERE p.document = ? ORDER BY p.id",
            (document.key,),
        )
        place = _Place(document, None if metadata is None else "pages" in metadata)
        for id, start, end, page, kind, raw, key, vector in rows:
            if not 0 <= start < end <= len(document.text):
                where = f"{document.id!r}, which has {len(document.text)} characters"
                found.wrong(f"passage {id} has the offsets {start}:{end} in {where}")
                continue
            place.take(id, start, end, page, found)
            try:
                heading = _string(kind, raw)
            except _UnreadableError as error:
                found.wrong(f"the heading of passage {id} cannot be decoded: {error}")
                continue
            if vector is not None:
                embedded = embedded_text(document.title, heading, document.text[start:end])
                _check_vector(id, vector, dimension, digest(embedded) == key, found)
        place.finish(found)

    def all_seals(self, found: Findings) -> None:
        """Every row that carries the hash of its content; for a database in which all else is well."""
        for table, (name, columns) in SEALED.items():
            for what, stored, *row in self._rows(f"SELECT {name}, seal, {columns} FROM {table}"):
                if seal(*row) != stored:
                    found.wrong(f"row {what} of {table} is not what was stored")

    def all_files(self, found: Findings) -> None:
        """That each synced file's document has the id that the file gives it."""
        prefixes = {root.key: root.prefix for root in self.roots()}
        rows = self._rows(
            "SELECT f.root, typeof(f.path), CAST(f.path AS BLOB), typeof(d.id), CAST(d.id AS BLOB), "
            "typeof(f.reason), CAST(f.reason AS BLOB) FROM files f LEFT JOIN documents d ON d.key = f.document"
        )
        for root, *values in rows:
            try:
                path, id, _ = (_string(kind, raw) for kind, raw in zip(values[::2], values[1::2], strict=True))
            except _UnreadableError as error:
                found.wrong(f"a file of root {root} has a path or reason that cannot be decoded: {error}")
                continue
            if values[2] != "null" and id != prefixes[root] + path:
                found.wrong(f"the file {path!r} of root {root} belongs to the document {id!r}")


@dataclass(frozen=True, slots=True)
class _Document:
    """A document's row, decoded; `metadata` is JSON."""

    key: int
    id: str
    title: str
    source: str
    metadata: str
    text: str

    def parsed(self, found: Findings) -> dict[str, Any] | None:
        """The metadata, None where it is not what it should be."""
        try:
            value = json.loads(self.metadata, parse_constant=_refused)
        except (ValueError, RecursionError):
            found.wrong(f"the metadata of document {self.id!r} is not JSON")
            return None
        if not isinstance(value, dict):
            found.wrong(f"the metadata of document {self.id!r} is not a JSON object")
            return None
        return value


@dataclass(slots=True)
class _Place:
    """Where the passages of a document got to: they are in order, cover all but white space, and know their page."""

    document: _Document
    paged: bool | None  # None: not known, as the metadata is damaged
    position: int = 0
    page: int = 1

    def take(self, id: int, start: int, end: int, page: int | None, found: Findings) -> None:
        text, name = self.document.text, self.document.id
        if start < self.position:
            found.wrong(f"passage {id} of {name!r} overlaps the one before it, or comes before it")
            return
        if text[self.position : start].strip():
            found.wrong(f"text of {name!r} between the characters {self.position} and {start} is in no passage")
        self.page += text.count("\f", self.position, start)
        right = self.page if self.paged else None
        if self.paged is not None and page != right:
            found.wrong(f"passage {id} of {name!r} is on page {right}, not {page}")
        crossed = text.count("\f", start, end)
        if self.paged and crossed:
            found.wrong(f"passage {id} of {name!r} goes over the end of page {right}")
        self.page += crossed
        self.position = end

    def finish(self, found: Findings) -> None:
        if self.document.text[self.position :].strip():
            found.wrong(f"text of {self.document.id!r} after character {self.position} is in no passage")


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _quoted(kinds: str) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds.split())


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("dimension"), int)


def _string(kind: str, raw: bytes | None) -> str:
    """The string that `pack` stored; raises _UnreadableError where the bytes are not those that it would store."""
    if raw is None:
        return ""
    try:
        text = unpack(raw)
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"{error.reason} at byte {error.start}") from None
    if isinstance(pack(text), str) != (kind == "text"):
        raise _UnreadableError(f"stored as {kind}")
    return text


def _check_vector(id: int, raw: bytes, dimension: int, is_of_the_text: bool, found: Findings) -> None:
    if len(raw) != 4 * dimension:
        found.wrong(f"the vector of passage {id} has {len(raw) / 4:g} components, not {dimension}")
        return
    with np.errstate(invalid="ignore"):  # a signalling NaN
        vector = np.frombuffer(raw, "<f4").astype(np.float64)
    if not abs(float(np.sqrt(vector @ vector)) - 1.0) < LENGTH_ERROR:  # also where it is not finite
        found.wrong(f"the vector of passage {id} is not of unit length")
    if not is_of_the_text:
        found.wrong(f"the vector of passage {id} is that of another text than the passage's")

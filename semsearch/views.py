"""What the database holds, read: `View` is one connection's sight of it, of one generation inside a transaction.

A passage is a pair of offsets into its document's text, never a copy of it, so the two cannot get out of step. What is
written, and how, is in `semsearch.tables`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import numpy as np

from semsearch.errors import CorruptIndexError
from semsearch.filters import Atom, Condition, Where, compile_where, pack, unpack
from semsearch.records import Document, Passage
from semsearch.seals import check_seal

__all__ = ["DOCUMENT", "FileRow", "FileState", "NewPassage", "Root", "StoredPassage", "View", "digest"]


class NewPassage(NamedTuple):
    """A passage to be stored; `digest` is that of the embedded text, `vector` float32 or None if it has none.

    `terms` are its keywords, for who ranks by them; they are not in the database.
    """

    start: int
    end: int
    page: int | None
    heading: str
    digest: bytes
    vector: np.ndarray | None
    terms: Sequence[str] = ()


class StoredPassage(NamedTuple):
    """A passage as the search legs need it; `vector` is (dimension,) float32 or None."""

    id: int
    title: str
    heading: str
    text: str
    vector: np.ndarray | None


FileState = tuple[str, int, int, int]  # path relative to the root, size, mtime_ns, inode


class Root(NamedTuple):
    """A folder that was synced; the ids of its documents are `prefix` + path relative to `path`."""

    key: int
    path: str
    prefix: str


@dataclass(frozen=True, slots=True)
class FileRow:
    """What is known of a synced file. `document` is None and `reason` says why if it could not be read."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    digest: str
    document: int | None
    reason: str | None
    release: str

    def of(self, document: int) -> FileRow:
        """The same file with the document that was read from it."""
        return replace(self, document=document, reason=None)


def digest(text: str) -> bytes:
    """The key under which the vector of an embedded text is shared (16 bytes of SHA-256)."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


@contextmanager
def _sound() -> Iterator[None]:
    """What a row cannot be, it is where the database is damaged in a way that SQLite does not see."""
    try:
        yield
    except (TypeError, ValueError, AssertionError, OverflowError) as error:
        raise CorruptIndexError(
            f"The database is damaged: a row makes no sense ({error}). Restore a backup, or index the documents again."
        ) from error


class View:
    """One connection's sight of the database; inside a transaction, of one generation."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection that is looked through, for what is no query of ours."""
        return self._connection

    @property
    def is_outdated(self) -> bool:
        """Whether the file changed under a connection that reads without locks: see `Store.reading`."""
        return bool(getattr(self._connection, "is_outdated", False))

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    @_sound()
    def meta(self, name: str) -> Any:
        """A value of the table meta, None if there is none."""
        row = self._rows("SELECT value, seal FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        check_seal(row[1], f"{name} in the table meta", name, row[0])
        return _parsed(row[0])

    @_sound()
    def metas(self) -> dict[str, Any]:
        """All values of the table meta by name."""
        return {name: self.meta(name) for (name,) in self._rows("SELECT name FROM meta ORDER BY name").fetchall()}

    @_sound()
    def generation(self) -> int:
        """The number of the last commit."""
        return int(self._rows("SELECT max(generation) FROM commits").fetchone()[0] or 0)

    @_sound()
    def token(self, generation: int) -> str | None:
        """The random mark of a commit, None if that commit is not in this database's history (any more)."""
        row = self._rows("SELECT token FROM commits WHERE generation = ?", (generation,)).fetchone()
        return None if row is None else str(row[0])

    def counts(self, where: Where | Condition | None = None) -> tuple[int, int]:
        """How many documents and passages there are, or match."""
        matching, parameters = ("", []) if where is None else compile_where(where)
        counted = [
            f"SELECT count(*) FROM {table}" + (f" WHERE {key} IN ({matching})" if matching else "")
            for table, key in (("documents", "key"), ("passages", "document"))
        ]
        (documents,), (passages,) = (self._rows(sql, parameters).fetchone() for sql in counted)
        return int(documents), int(passages)

    def has_passages(self) -> bool:
        """Whether there is any passage."""
        return self._rows("SELECT 1 FROM passages LIMIT 1").fetchone() is not None

    @_sound()
    def last_passage(self) -> int:
        """The highest passage id that was ever given out."""
        row = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").fetchone()
        return 0 if row is None else int(row[0])

    @_sound()
    def document(self, id: str) -> Document | None:
        """The document with that id."""
        row = self._rows(f"SELECT {DOCUMENT} FROM documents WHERE id = ?", (pack(id),)).fetchone()
        return None if row is None else _document(*row)

    def key(self, id: str) -> int | None:
        """The internal key of a document."""
        row = self._rows("SELECT key FROM documents WHERE id = ?", (pack(id),)).fetchone()
        return None if row is None else int(row[0])

    def has_prefix(self, prefix: str) -> bool:
        """Whether any document's id starts with `prefix`."""
        start = prefix.encode("utf-8", "surrogatepass")  # as bytes: an id is text or bytes, see `filters.pack`
        sql = "SELECT 1 FROM documents WHERE substr(CAST(id AS BLOB), 1, ?) = ? LIMIT 1"
        return self._rows(sql, (len(start), start)).fetchone() is not None

    @_sound()
    def documents(self, after: int, limit: int, where: Where | Condition | None = None) -> list[tuple[int, Document]]:
        """Up to `limit` documents (that match) with a key above `after`, in order of their keys."""
        matching, parameters = ("", []) if where is None else compile_where(where)
        among = f"AND key IN ({matching})" if matching else ""
        sql = f"SELECT key, {DOCUMENT} FROM documents WHERE key > ? {among} ORDER BY key LIMIT ?"
        return [(int(key), _document(*rest)) for key, *rest in self._rows(sql, (after, *parameters, limit))]

    def matching(self, where: Where | Condition) -> np.ndarray:
        """The ids of the passages whose document matches, (n,) int64, ascending."""
        sql, parameters = compile_where(where)
        rows = self._rows(f"SELECT id FROM passages WHERE document IN ({sql}) ORDER BY id", parameters)
        return np.fromiter((row[0] for row in rows), np.int64)

    @_sound()
    def owners(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all passages, (n,) int64 ascending, and the key of each one's document, (n,) int64."""
        rows = self._rows("SELECT id, document FROM passages ORDER BY id")
        pairs = np.fromiter((number for row in rows for number in row), np.int64).reshape(-1, 2)
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def owners_of(self, passages: Sequence[int]) -> dict[int, int]:
        """The key of the document of each of these passages that there is."""
        found: dict[int, int] = {}
        for part, places in _parts(passages):
            found.update(self._rows(f"SELECT id, document FROM passages WHERE id IN ({places})", part))
        return found

    def vector_rows(self, among: Literal["id", "document"] = "id", keys: Sequence[int] | None = None) -> np.ndarray:
        """The id, the document's key and the vector's key of each passage that has a vector, (n, 3) int64 by id.

        Of all passages, or of those whose id, or whose document's key, is among `keys`.
        """
        sql = "SELECT id, document, vector FROM passages WHERE vector IS NOT NULL"
        listed: list[tuple[int, int, int]] = []
        if keys is None:
            listed = self._rows(f"{sql} ORDER BY id").fetchall()
        for part, places in _parts(keys or ()):
            listed += self._rows(f"{sql} AND {among} IN ({places})", part)
        return np.array(sorted(listed), np.int64).reshape(-1, 3)

    def values(self, name: str) -> dict[str, int]:
        """How many documents have each string as a value of that metadata name."""
        sql = "SELECT value, count(*) FROM fields WHERE name = ? AND kind = 's' GROUP BY value"
        return {unpack(value): int(count) for value, count in self._rows(sql, (pack(name),))}

    def field_rows(self) -> Iterator[tuple[str | bytes, str, Atom, int]]:
        """All metadata as rows (name, kind, value, document key), in this order."""
        cursor = self._rows("SELECT name, kind, value, document FROM fields ORDER BY name, kind, value, document")
        while rows := cursor.fetchmany(10_000):  # row by row, the translation of errors would take a third of the time
            yield from rows

    def changed_fields(
        self, generation: int, last_passage: int
    ) -> Iterator[tuple[list[int], list[tuple[str | bytes, str, Atom]]]]:
        """The passages and the metadata of each document that is newer than a passage or was described anew since."""
        keys = self._rows(
            "SELECT document FROM passages WHERE id > ? UNION "
            "SELECT -passage FROM removals WHERE generation > ? AND passage < 0",
            (last_passage, generation),
        ).fetchall()
        for key in keys:
            passages = [row[0] for row in self._rows("SELECT id FROM passages WHERE document = ?", key)]
            rows = self._rows("SELECT name, kind, value FROM fields WHERE document = ?", key)
            yield passages, rows.fetchall()

    @_sound()
    def ids(self) -> np.ndarray:
        """The ids of all passages, (n,) int64, ascending."""
        return np.fromiter((row[0] for row in self._rows("SELECT id FROM passages ORDER BY id")), np.int64)

    def owned(self, document: int) -> list[int]:
        """The ids of a document's passages, in the order of the text."""
        return [row[0] for row in self._rows("SELECT id FROM passages WHERE document = ? ORDER BY id", (document,))]

    @_sound()
    def parts(self, document: int) -> list[NewPassage]:
        """A document's passages as they were stored; the digest of one without a vector is b""."""
        rows = self._rows(
            'SELECT p.id, p.document, p.start, p."end", p.page, p.heading, p.vector, p.seal, '
            "v.digest, v.vector, v.seal FROM passages p LEFT JOIN vectors v ON v.key = p.vector "
            "WHERE p.document = ? ORDER BY p.id",
            (document,),
        )
        parts = []
        for id, key, start, end, page, heading, shared, stored, digest, vector, vector_seal in rows:
            check_seal(stored, f"passage {id}", key, start, end, page, heading, shared)
            if shared is not None:
                check_seal(vector_seal, f"the vector of passage {id}", digest, vector)
            row = None if shared is None else np.frombuffer(vector, "<f4")
            parts.append(NewPassage(start, end, page, unpack(heading), digest or b"", row))
        return parts

    @_sound()
    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids; those that are gone are not in the result."""
        found: list[tuple[Any, ...]] = []
        for part, places in _parts([int(each) for each in ids]):
            found += self._rows(
                f'SELECT id, document, start, "end", page, heading, vector, seal FROM passages WHERE id IN ({places})',
                part,
            )
        result: dict[int, Passage] = {}
        document_key, document = None, None
        for id, key, start, end, page, heading, vector, stored in sorted(found, key=lambda row: row[1]):
            check_seal(stored, f"passage {id}", key, start, end, page, heading, vector)
            if key != document_key:
                document_key, document = key, self._document(key)
            assert document is not None
            text = document.text[start:end]
            metadata = _of_passage(document, unpack(heading))
            result[id] = Passage(id, document.id, text, start, end, page, metadata)
        return result

    def stored_passages(self, after: int = 0) -> Iterator[StoredPassage]:
        """The passages with an id above `after`, in order, as the search legs need them."""
        with _sound():
            rows = self._rows(
                'SELECT p.id, p.document, p.start, p."end", p.page, p.heading, p.vector, p.seal, '
                "v.digest, v.vector, v.seal FROM passages p "
                "LEFT JOIN vectors v ON v.key = p.vector WHERE p.id > ? ORDER BY p.id",
                (after,),
            )
            document_key, title, text = None, "", ""
            for id, key, start, end, page, heading, shared, stored, digest, vector, vector_seal in rows:
                check_seal(stored, f"passage {id}", key, start, end, page, heading, shared)
                if shared is not None:
                    check_seal(vector_seal, f"the vector of passage {id}", digest, vector)
                if key != document_key:
                    document = self._document(key)
                    document_key, title, text = key, document.title, document.text
                row = None if vector is None else np.frombuffer(vector, "<f4")
                yield StoredPassage(id, title, unpack(heading), text[start:end], row)

    def _document(self, key: int) -> Document:
        row = self._rows(f"SELECT {DOCUMENT} FROM documents WHERE key = ?", (key,)).fetchone()
        return _document(*row)

    def vectors_by_passage(self) -> Iterator[tuple[int, bytes]]:
        """The id and the vector (float32, little-endian) of each passage that has one, by ascending id."""
        yield from self._rows("SELECT p.id, v.vector FROM passages p JOIN vectors v ON v.key = p.vector ORDER BY p.id")

    @_sound()
    def removed_since(self, generation: int) -> np.ndarray:
        """The ids of the passages removed after that generation, (n,) int64."""
        sql = "SELECT passage FROM removals WHERE generation > ? AND passage > 0 ORDER BY passage"
        rows = self._rows(sql, (generation,))
        return np.fromiter((row[0] for row in rows), np.int64)

    @_sound()
    def changes_since(self, generation: int) -> int:
        """How many passages were removed and documents described anew after that generation."""
        return int(self._rows("SELECT count(*) FROM removals WHERE generation > ?", (generation,)).fetchone()[0])

    def vectors(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors already known for these digests, each (dimension,) float32."""
        return self._vectors("v.digest", "vectors v", digests)

    def vectors_at(self, keys: Sequence[int]) -> dict[int, np.ndarray]:
        """The vectors with these keys, each (dimension,) float32."""
        return self._vectors("v.key", "vectors v", keys)

    def vectors_of(self, passages: Sequence[int]) -> dict[int, np.ndarray]:
        """The vectors of these passages by their ids, each (dimension,) float32."""
        return self._vectors("p.id", "passages p JOIN vectors v ON v.key = p.vector", passages)

    @_sound()
    def _vectors(self, column: str, table: str, values: Sequence[Any]) -> dict[Any, np.ndarray]:
        known: dict[Any, np.ndarray] = {}
        for part, places in _parts(values):
            sql = f"SELECT {column}, v.digest, v.vector, v.seal FROM {table} WHERE {column} IN ({places})"
            for value, digest, vector, stored in self._rows(sql, part):
                check_seal(stored, "a vector", digest, vector)
                known[value] = np.frombuffer(vector, "<f4")
        return known

    @_sound()
    def roots(self) -> list[Root]:
        """The folders that were synced, in the order they came."""
        rows = self._rows("SELECT key, path, prefix FROM roots ORDER BY key")
        return [Root(int(key), unpack(path), unpack(prefix)) for key, path, prefix in rows]

    @_sound()
    def file_states(self, root: int) -> set[FileState]:
        """How the files of a root were when they were read, without those that could not be."""
        sql = "SELECT path, size, mtime_ns, inode FROM files WHERE root = ? AND reason IS NULL"
        states = set(self._rows(sql, (root,)))
        packed = [state for state in states if not isinstance(state[0], str)]
        return states.difference(packed).union((unpack(path), *rest) for path, *rest in packed) if packed else states

    @_sound()
    def failed_files(self, root: int) -> dict[str, FileRow]:
        """The files of a root that could not be read, by their path relative to it."""
        rows = self._rows(f"SELECT {_FILE} FROM files WHERE root = ? AND reason IS NOT NULL", (root,))
        return {row.path: row for row in map(_file, rows)}

    @_sound()
    def document_files(self, root: int) -> list[tuple[str, FileRow]]:
        """The files of a root that a document was made of, with its id."""
        documents = "documents ON documents.key = files.document"
        rows = self._rows(f"SELECT documents.id, {_FILE} FROM files JOIN {documents} WHERE root = ?", (root,))
        return [(unpack(id), _file(tuple(rest))) for id, *rest in rows]

    @_sound()
    def lone_files(self) -> list[tuple[int, FileRow]]:
        """The files that no document was made of, with their roots."""
        rows = self._rows(f"SELECT root, {_FILE} FROM files WHERE document IS NULL ORDER BY root, path")
        return [(int(root), _file(tuple(rest))) for root, *rest in rows]

    @_sound()
    def file_of(self, document: int) -> tuple[int, FileRow] | None:
        """The file that a document was made of, with its root."""
        row = self._rows(f"SELECT root, {_FILE} FROM files WHERE document = ?", (document,)).fetchone()
        return None if row is None else (int(row[0]), _file(row[1:]))

    @_sound()
    def file(self, root: int, path: str) -> FileRow | None:
        """What is known of a file of a root."""
        row = self._rows(f"SELECT {_FILE} FROM files WHERE root = ? AND path = ?", (root, pack(path))).fetchone()
        return None if row is None else _file(row)


def _parts(values: Sequence[Any]) -> Iterator[tuple[Sequence[Any], str]]:
    """The values in blocks that a statement can hold, with the places for each block."""
    for first in range(0, len(values), 500):
        part = values[first : first + 500]
        yield part, ", ".join("?" * len(part))


def _of_passage(document: Document, heading: str) -> Mapping[str, Any]:
    """The document's metadata, with what else tells a reader where a passage is from."""
    place = {"title": document.title, "source": document.source, "heading": heading}
    return {**{name: value for name, value in place.items() if value}, **document.metadata}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise CorruptIndexError(
            f"The database is damaged: {text!r:.60} is not JSON. Restore a backup, or index the documents again."
        ) from error


_FILE = "path, size, mtime_ns, inode, digest, document, reason, release"


def _file(row: tuple[Any, ...]) -> FileRow:
    path, size, mtime_ns, inode, digest, document, reason, release = row
    return FileRow(unpack(path), size, mtime_ns, inode, digest, document, reason and unpack(reason), release)


DOCUMENT = "id, text, title, source, metadata, seal"


def _document(
    id: str | bytes, text: str | bytes, title: str | bytes, source: str | bytes, metadata: str, stored: bytes
) -> Document:
    check_seal(stored, f"document {id!r}", id, text, title, source, metadata)
    return Document(unpack(id), unpack(text), unpack(title), unpack(source), _parsed(metadata))

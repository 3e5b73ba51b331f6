"""The rows of the database: `View` reads them, `Writer` changes them inside a commit.

A passage is a pair of offsets into its document's text, never a copy of it, so the two cannot get out of step. Vectors
belong to the text that was embedded and are shared by every passage with that text. A commit is one transaction and
raises the generation; the passages that it removed are remembered, so that whoever holds generation g can catch up. So
are, as negative numbers among the removals, the documents whose metadata changed and whose passages did not.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from semsearch.errors import CorruptIndexError, InputError
from semsearch.filters import Atom, Where, compile_where, fields, pack, unpack
from semsearch.records import Document, Passage
from semsearch.seals import check_seal, seal

__all__ = ["SCHEMA", "FileRow", "FileState", "NewPassage", "Root", "StoredPassage", "View", "Writer", "digest"]

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB) WITHOUT ROWID;
CREATE TABLE commits (generation INTEGER PRIMARY KEY, token TEXT NOT NULL);
CREATE TABLE documents (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    source TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text TEXT NOT NULL,
    seal BLOB
);
CREATE TABLE fields (
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    value NOT NULL,
    document INTEGER NOT NULL REFERENCES documents (key),
    PRIMARY KEY (name, kind, value, document)
) WITHOUT ROWID;
CREATE INDEX fields_document ON fields (document);
CREATE TABLE vectors (key INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, vector BLOB NOT NULL, seal BLOB);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (key),
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    page INTEGER,
    heading TEXT NOT NULL,
    vector INTEGER REFERENCES vectors (key),
    seal BLOB
);
CREATE INDEX passages_document ON passages (document);
CREATE INDEX passages_vector ON passages (vector);
CREATE TABLE removals (passage INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE INDEX removals_generation ON removals (generation);
CREATE TABLE roots (key INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, prefix TEXT NOT NULL UNIQUE);
CREATE TABLE files (
    root INTEGER NOT NULL REFERENCES roots (key),
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    digest TEXT NOT NULL,
    document INTEGER REFERENCES documents (key),
    reason TEXT,
    release TEXT NOT NULL,
    PRIMARY KEY (root, path)
) WITHOUT ROWID;
CREATE INDEX files_document ON files (document);
"""


class NewPassage(NamedTuple):
    """A passage to be stored; `digest` is that of the embedded text, `vector` float32 or None if it has none."""

    start: int
    end: int
    page: int | None
    heading: str
    digest: bytes
    vector: np.ndarray | None


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
    def generation(self) -> int:
        """The number of the last commit."""
        return int(self._rows("SELECT max(generation) FROM commits").fetchone()[0] or 0)

    @_sound()
    def token(self, generation: int) -> str | None:
        """The random mark of a commit, None if that commit is not in this database's history (any more)."""
        row = self._rows("SELECT token FROM commits WHERE generation = ?", (generation,)).fetchone()
        return None if row is None else str(row[0])

    def counts(self) -> tuple[int, int]:
        """How many documents and passages there are."""
        (documents,) = self._rows("SELECT count(*) FROM documents").fetchone()
        (passages,) = self._rows("SELECT count(*) FROM passages").fetchone()
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
        row = self._rows(f"SELECT {_DOCUMENT} FROM documents WHERE id = ?", (pack(id),)).fetchone()
        return None if row is None else _document(*row)

    def key(self, id: str) -> int | None:
        """The internal key of a document."""
        row = self._rows("SELECT key FROM documents WHERE id = ?", (pack(id),)).fetchone()
        return None if row is None else int(row[0])

    def has_prefix(self, prefix: str) -> bool:
        """Whether any document's id starts with `prefix`."""
        sql = "SELECT 1 FROM documents WHERE substr(id, 1, ?) = ? LIMIT 1"
        return self._rows(sql, (len(prefix), pack(prefix))).fetchone() is not None

    @_sound()
    def documents(self, after: int, limit: int, where: Where | None = None) -> list[tuple[int, Document]]:
        """Up to `limit` documents (that match) with a key above `after`, in order of their keys."""
        matching, parameters = ("", []) if where is None else compile_where(where)
        among = f"AND key IN ({matching})" if matching else ""
        sql = f"SELECT key, {_DOCUMENT} FROM documents WHERE key > ? {among} ORDER BY key LIMIT ?"
        return [(int(key), _document(*rest)) for key, *rest in self._rows(sql, (after, *parameters, limit))]

    def matching(self, where: Where) -> np.ndarray:
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

    @_sound()
    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids; those that are gone are not in the result."""
        found: list[tuple[Any, ...]] = []
        for first in range(0, len(ids), 500):
            part = [int(each) for each in ids[first : first + 500]]
            places = ", ".join("?" * len(part))
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
        row = self._rows(f"SELECT {_DOCUMENT} FROM documents WHERE key = ?", (key,)).fetchone()
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
        for first in range(0, len(values), 500):
            part = values[first : first + 500]
            places = ", ".join("?" * len(part))
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
    def file(self, root: int, path: str) -> FileRow | None:
        """What is known of a file of a root."""
        row = self._rows(f"SELECT {_FILE} FROM files WHERE root = ? AND path = ?", (root, pack(path))).fetchone()
        return None if row is None else _file(row)


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


_DOCUMENT = "id, text, title, source, metadata, seal"


def _document(
    id: str | bytes, text: str | bytes, title: str | bytes, source: str | bytes, metadata: str, stored: bytes
) -> Document:
    check_seal(stored, f"document {id!r}", id, text, title, source, metadata)
    return Document(unpack(id), unpack(text), unpack(title), unpack(source), _parsed(metadata))


class Writer(View):
    """The one connection that may write, held under the lock."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._generation = 0
        self._orphans: set[int] = set()
        self.removed: list[int] = []

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What the block writes, whole and durable when it ends; nothing of it if it raises."""
        self._rows("BEGIN")
        try:
            yield
            self._rows("COMMIT")
        except BaseException:
            self._connection.rollback()  # no error where SQLite has done so itself
            raise

    @contextmanager
    def commit(self) -> Iterator[int]:
        """One transaction, durable when the block ends; yields the generation that it makes."""
        self._orphans.clear()
        self.removed.clear()
        with self._transaction():
            self._generation = self.generation() + 1
            self._rows("INSERT INTO commits VALUES (?, ?)", (self._generation, secrets.token_hex(8)))
            yield self._generation
            self._drop_orphans()

    def set_meta(self, name: str, value: Any) -> None:
        """Store a JSON value in the table meta."""
        put_meta(self._connection, name, value)

    def put(self, document: Document, passages: Sequence[NewPassage]) -> tuple[int, list[int]]:
        """Store a document in place of the one with its id; returns its key and the ids of its passages."""
        key = self.key(document.id)
        row = _sealed(document)
        if key is None:
            sql = f"INSERT INTO documents ({_DOCUMENT}) VALUES (?, ?, ?, ?, ?, ?)"
            key = self._rows(sql, row).lastrowid
            assert key is not None
        else:
            self._remove_passages(key)
            self._rows(f"UPDATE documents SET ({_DOCUMENT}) = (?, ?, ?, ?, ?, ?) WHERE key = ?", (*row, key))
        self._put_fields(key, document)
        return key, [self._put_passage(key, passage) for passage in passages]

    def describe(self, key: int, document: Document) -> None:
        """Change a document's id, source and metadata, where its text, title and passages stay as they are."""
        row = (*_sealed(document), key)
        self._rows(f"UPDATE documents SET ({_DOCUMENT}) = (?, ?, ?, ?, ?, ?) WHERE key = ?", row)
        self._put_fields(key, document)
        self._note_description(key)

    def _note_description(self, key: int) -> None:
        """Remember, among the removals, that a document's metadata changed and its passages did not."""
        self._rows("INSERT OR REPLACE INTO removals VALUES (?, ?)", (-key, self._generation))

    def remove(self, keys: Iterable[int]) -> None:
        """Remove documents with all that belongs to them."""
        for key in keys:
            self._remove_passages(key)
            self._rows("DELETE FROM fields WHERE document = ?", (key,))
            self._rows("DELETE FROM files WHERE document = ?", (key,))
            self._rows("DELETE FROM documents WHERE key = ?", (key,))

    def _put_fields(self, key: int, document: Document) -> None:
        self._rows("DELETE FROM fields WHERE document = ?", (key,))
        own = {"id": document.id, "title": document.title, "source": document.source}
        rows = [(*row, key) for row in fields({**own, **document.metadata})]
        self._connection.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)", rows)

    def _put_passage(self, key: int, passage: NewPassage) -> int:
        vector = None if passage.vector is None else self._put_vector(passage.digest, passage.vector)
        row = (key, passage.start, passage.end, passage.page, pack(passage.heading), vector)
        cursor = self._rows(
            'INSERT INTO passages (document, start, "end", page, heading, vector, seal) VALUES (?, ?, ?, ?, ?, ?, ?)',
            (*row, seal(*row)),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _put_vector(self, digest: bytes, vector: np.ndarray) -> int:
        row = self._rows("SELECT key FROM vectors WHERE digest = ?", (digest,)).fetchone()
        if row is not None:
            return int(row[0])
        values = (digest, vector.astype("<f4").tobytes())
        sql = "INSERT INTO vectors (digest, vector, seal) VALUES (?, ?, ?)"
        key = self._rows(sql, (*values, seal(*values))).lastrowid
        assert key is not None
        return key

    def _remove_passages(self, key: int) -> None:
        rows = self._rows("SELECT id, vector FROM passages WHERE document = ?", (key,)).fetchall()
        self.removed += [row[0] for row in rows]
        self._orphans.update(row[1] for row in rows if row[1] is not None)
        removals = [(row[0], self._generation) for row in rows]
        self._connection.executemany("INSERT INTO removals VALUES (?, ?)", removals)
        self._rows("DELETE FROM passages WHERE document = ?", (key,))

    def _drop_orphans(self) -> None:
        sql = "DELETE FROM vectors WHERE key = ? AND NOT EXISTS (SELECT 1 FROM passages WHERE vector = vectors.key)"
        self._connection.executemany(sql, [(key,) for key in sorted(self._orphans)])

    def add_root(self, path: str, prefix: str) -> Root:
        """Remember a folder that is synced."""
        key = self._rows("INSERT INTO roots (path, prefix) VALUES (?, ?)", (pack(path), pack(prefix))).lastrowid
        assert key is not None
        return Root(key, path, prefix)

    def put_file(self, root: int, row: FileRow) -> None:
        """Remember what is known of a file."""
        reason = None if row.reason is None else pack(row.reason)
        values = (
            root,
            pack(row.path),
            row.size,
            row.mtime_ns,
            row.inode,
            row.digest,
            row.document,
            reason,
            row.release,
        )
        self._rows("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def forget_file(self, root: int, path: str) -> None:
        """Forget a file of a root; its document is not touched."""
        self._rows("DELETE FROM files WHERE root = ? AND path = ?", (root, pack(path)))

    def disown(self, key: int) -> None:
        """Make a document independent of the file it came from."""
        self._rows("DELETE FROM files WHERE document = ?", (key,))

    def forget_history(self, generation: int) -> None:
        """Drop what is only needed to catch up from before `generation`."""
        with self._transaction():
            self._rows("DELETE FROM removals WHERE generation <= ?", (generation,))
            self._rows("DELETE FROM commits WHERE generation < ?", (generation,))

    def rebuild_fields(self, keys: Iterable[int]) -> None:
        """Write again what `where` filters of these documents look at."""
        with self.commit():
            for key in keys:
                self._put_fields(key, self._document(key))
                self._note_description(key)

    def drop_unused_vectors(self) -> None:
        """Delete the vectors of texts that no passage has."""
        with self._transaction():
            self._rows("DELETE FROM vectors WHERE NOT EXISTS (SELECT 1 FROM passages WHERE vector = vectors.key)")

    def reindex(self, name: str) -> None:
        """Build one of SQLite's own indexes again from its table."""
        self._rows(f'REINDEX "{name}"')

    def compact(self) -> None:
        """Give freed room back to the file system and refresh SQLite's statistics."""
        from sqlite_utils import Database  # here only: where pandas is installed, it is imported along, for a second

        database = Database(self._connection, execute_plugins=False)
        database.vacuum()
        database.analyze()
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def put_meta(connection: sqlite3.Connection, name: str, value: Any) -> None:
    """Store a JSON value in the table meta, with its seal."""
    text = json.dumps(value, sort_keys=True)
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, text, seal(name, text)))


def _sealed(document: Document) -> tuple[Any, ...]:
    strings = map(pack, (document.id, document.text, document.title, document.source))
    row = (*strings, dump_metadata(document))
    return (*row, seal(*row))


def dump_metadata(document: Document) -> str:
    """Metadata as JSON; raises InputError where JSON has no form for it."""
    try:
        return json.dumps(dict(document.metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"The metadata of document {document.id!r} cannot be stored as JSON: {error}. "
            "Use strings, finite numbers, booleans, None, and lists and mappings of these."
        ) from None

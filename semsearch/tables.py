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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from semsearch.errors import unstorable
from semsearch.filters import fields, pack
from semsearch.records import Document
from semsearch.seals import seal
from semsearch.views import DOCUMENT, FileRow, FileState, NewPassage, Root, StoredPassage, View, digest

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


class Writer(View):
    """The one connection that may write, held under the lock."""

    ahead: int = 1  # how many documents it is worth to look up at once

    def expect(self, ids: Sequence[str]) -> None:
        """Prepare to be asked for these documents: nothing to do."""

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

    def forget_meta(self, name: str) -> None:
        """Drop a value from the table meta."""
        self._rows("DELETE FROM meta WHERE name = ?", (name,))

    def put(self, document: Document, passages: Sequence[NewPassage]) -> tuple[int, list[int]]:
        """Store a document in place of the one with its id; returns its key and the ids of its passages."""
        key = self.key(document.id)
        row = _sealed(document)
        if key is None:
            sql = f"INSERT INTO documents ({DOCUMENT}) VALUES (?, ?, ?, ?, ?, ?)"
            key = self._rows(sql, row).lastrowid
            assert key is not None
        else:
            self._remove_passages(key)
            self._rows(f"UPDATE documents SET ({DOCUMENT}) = (?, ?, ?, ?, ?, ?) WHERE key = ?", (*row, key))
        self._put_fields(key, document)
        return key, [self._put_passage(key, passage) for passage in passages]

    def describe(self, key: int, document: Document) -> None:
        """Change a document's id, source and metadata, where its text, title and passages stay as they are."""
        row = (*_sealed(document), key)
        self._rows(f"UPDATE documents SET ({DOCUMENT}) = (?, ?, ?, ?, ?, ?) WHERE key = ?", row)
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

    def put_root(self, root: Root) -> None:
        """Remember a folder under a key that it has elsewhere."""
        sql = "INSERT INTO roots VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET path = ?2, prefix = ?3"
        self._rows(sql, (root.key, pack(root.path), pack(root.prefix)))

    def forget_root(self, key: int) -> None:
        """Forget a folder and what is known of its files; their documents are not touched."""
        self._rows("DELETE FROM files WHERE root = ?", (key,))
        self._rows("DELETE FROM roots WHERE key = ?", (key,))

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


_plain = json.JSONEncoder(ensure_ascii=False).encode


def dump_metadata(document: Document) -> str:
    """Metadata as JSON; raises InputError where JSON has no form for it, or one that would be read as less."""
    try:
        metadata = dict(document.metadata)
        text = json.dumps(metadata, allow_nan=False)
        if _plain(json.loads(text)) != _plain(metadata):
            raise ValueError(
                "JSON makes one key of two such as 1 and '1', and one character of two lone surrogates such as "
                "'\\ud83d\\ude00'"
            )
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise unstorable(document.id, error) from None

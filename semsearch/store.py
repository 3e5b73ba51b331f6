"""SQLite: documents, passages, vectors, metadata and what is known of synced files. The only source of truth.

Only the holder of the writer lock opens the database for writing, and so only he checkpoints. Everybody else reads
through `mode=ro` connections, which see one whole generation at a time.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from semsearch.errors import (
    ClosedIndexError,
    CorruptIndexError,
    IndexFormatError,
    IndexLockedError,
    IndexNotFoundError,
    InputError,
    ReadOnlyIndexError,
    SemsearchError,
    StorageError,
    StorageFullError,
)
from semsearch.locking import flushed, writer_lock
from semsearch.tables import SCHEMA, View, Writer

__all__ = ["FORMAT", "Store", "translated"]

FORMAT = 1  # in PRAGMA user_version
APPLICATION_ID = 0x53454D53  # "SEMS": tells our database from any other file called index.db


@contextmanager
def translated(location: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into the errors of semsearch."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translation(error, location) from error
    except OSError as error:
        if isinstance(error, SemsearchError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(location) from error
        raise StorageError(f"{location} could not be used: {error.strerror or error}.") from error


def _full(location: Path) -> StorageFullError:
    return StorageFullError(
        f"No room left to write {location}. What was committed is intact; free some room and try again."
    )


def _translation(error: sqlite3.Error, location: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", None) or 0
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _no_room(location)):
        return _full(location)
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptIndexError(
            f"The database of {location} is damaged ({error}). Restore it from a backup, or delete the folder and "
            "index the documents again."
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return IndexLockedError(str(location), None, None, 0.0)
    if primary == sqlite3.SQLITE_READONLY:
        return ReadOnlyIndexError(f"{location} cannot be written ({error}).")
    if primary == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return InputError(f"A text is too big for the database, which takes 1,000,000,000 bytes each ({error}).")
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return ClosedIndexError(f"The index {location} was closed. Open it again.")
    return StorageError(f"The database of {location} could not be used: {error} (SQLite code {code}).")


def _no_room(location: Path) -> bool:
    with suppress(OSError):
        state = os.statvfs(location)
        return state.f_bavail * state.f_frsize < 1 << 16
    return False


class Store:
    """The database of one index folder; opened for reading, and for writing in `writing` blocks only."""

    def __init__(self, folder: Path, *, read_only: bool, create: bool, timeout: float) -> None:
        self.folder = folder
        self.path = folder / "index.db"
        self.read_only = read_only
        self.timeout = timeout
        self._reader: sqlite3.Connection | None = None
        self._closed = False
        self._wrote = False
        with translated(folder):
            if not self._exists():
                if read_only or not create:
                    raise IndexNotFoundError(
                        f"There is no index at {folder}. Check the path, or create it: "
                        f"semsearch.Index({str(folder)!r})."
                    )
                self._create()
            self._check_format()

    def _exists(self) -> bool:
        # A process that was killed while it created the index leaves an empty database: that is no index yet.
        try:
            return self.path.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _create(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file. An index is a folder: choose another location.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with writer_lock(self.folder / "lock", self.timeout):
            if self._exists():  # another process was faster
                return
            # Made under another name and renamed when it is complete: nobody ever sees half a database.
            draft = self.folder / "index.db.new"
            draft.unlink(missing_ok=True)
            connection = sqlite3.connect(draft)
            try:
                _create_schema(connection)
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            draft.replace(self.path)
            flushed(self.folder)

    def _connect(self, mode: str) -> sqlite3.Connection:
        location = quote(os.fsencode(self.path.absolute()))
        connection = sqlite3.connect(
            f"file:{location}?{mode_query(mode)}", uri=True, timeout=self.timeout, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if mode != "ro":
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _check_format(self) -> None:
        connection = self._reading()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise IndexFormatError(
                f"{self.path} is a SQLite database, but not one of semsearch. Choose another folder."
            )
        if version > FORMAT:
            raise IndexFormatError(
                f"{self.folder} has format {version}; this release knows formats up to {FORMAT}. "
                "Upgrade semsearch: pip install --upgrade semsearch. Nothing was changed."
            )

    def _reading(self) -> sqlite3.Connection:
        if self._closed:
            raise ClosedIndexError(f"The index {self.folder} was closed. Open it again.")
        if self._reader is None:
            self._reader = self._connect("immutable" if self._on_read_only_media() else "ro")
        return self._reader

    def _on_read_only_media(self) -> bool:
        # immutable=1 makes SQLite skip locks and the WAL: only where nobody can write and no WAL waits to be read.
        wal = self.path.with_name("index.db-wal")
        return not os.access(self.folder, os.W_OK) and not (wal.exists() and wal.stat().st_size > 0)

    @contextmanager
    def reading(self) -> Iterator[View]:
        """A View of one generation, the last one at the time the block starts; a block inside another sees the same.

        The caller holds the index's mutex.
        """
        with translated(self.folder):
            connection = self._reading()
            if connection.in_transaction:
                yield View(connection)
                return
            connection.execute("BEGIN")
            try:
                yield View(connection)
            finally:
                connection.rollback()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """The Writer, under the lock: IndexLockedError if that is not free within the time-out."""
        from sqlite_utils import Database

        self._reading()  # raises for a closed index
        if self.read_only:
            raise ReadOnlyIndexError(f"{self.folder} was opened with read_only=True. Open it without to change it.")
        if not os.access(self.folder, os.W_OK):
            raise ReadOnlyIndexError(f"{self.folder} cannot be written by this user, or lies on read-only media.")
        with translated(self.folder), writer_lock(self.folder / "lock", self.timeout):
            connection = self._connect("rw")
            self._wrote = True
            try:
                yield Writer(Database(connection, execute_plugins=False))
            finally:
                connection.close()

    def abandon(self) -> None:
        """Forget the connection without closing it: in a forked child it belongs to the parent."""
        if self._reader is not None:
            _abandoned.append(self._reader)
            self._reader = None

    def close(self) -> None:
        """Close the connection; a second call does nothing. After writing, index.db is left complete on its own."""
        if self._closed:
            return
        self._closed = True
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._wrote:
            # The log of recent commits moves into index.db, unless somebody else writes: then he will see to it.
            with suppress(IndexLockedError, OSError, sqlite3.Error), writer_lock(self.folder / "lock", 0.0):
                connection = self._connect("rw")
                try:
                    connection.execute("PRAGMA busy_timeout = 0")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    connection.close()


_abandoned: list[sqlite3.Connection] = []


def mode_query(mode: str) -> str:
    """The part of SQLite's URI that says how to open."""
    return "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"


def _create_schema(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.strip().split(";\n"):
        connection.execute(statement)
    facts = {"uuid": secrets.token_hex(16), "created": time.time()}
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)", [(name, json.dumps(value)) for name, value in facts.items()]
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")

"""SQLite: documents, passages, vectors, metadata and what is known of synced files. The only source of truth.

Only the holder of the writer lock opens the database for writing, and so only he checkpoints. Everybody else reads
through `mode=ro` connections, which see one whole generation at a time; `Store._is_still` says when that cannot be.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from semsearch.errors import (
    ClosedIndexError,
    CorruptIndexError,
    FilterError,
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
from semsearch.tables import SCHEMA, View, Writer, put_meta

__all__ = ["FORMAT", "MIGRATIONS", "Store", "translated"]

FORMAT = 1  # in PRAGMA user_version
# The step from each earlier format to the next. All run in one transaction together with their record, so that a step
# never commits (`executescript` would); references are checked at the end. A step that changes passages or vectors
# also adds a row to the table commits, so that caches and open readers notice.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}
# Seconds that SQLite may wait for its own locks whatever the time-out is: it takes them for moments only, when somebody
# closes the index or goes on after a crash. Reading needs no lock of ours and must not fail for one of these.
SETTLING = 5.0
# For whoever writes: pages that are kept in memory (KiB), and after how many pages of the WAL these go to the database.
# An index by digests grows everywhere at once, so pages are wanted again and again: 300,000 short documents in 146
# instead of 154 s of processor time and 179 instead of 191 s, with a sixth less written, than by what SQLite would do.
CACHE_KIB, CHECKPOINT_PAGES = 65_536, 4096
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


def _translation(error: sqlite3.Error | UnicodeDecodeError, location: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", None) or 0
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _no_room(location)):
        return _full(location)
    if "parser stack overflow" in str(error):
        return FilterError("The filter is nested too deeply. Write it with fewer levels of $and, $or and $not.")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or _is_no_text(error) or _is_no_schema(error):
        return CorruptIndexError(
            f"The database of {location} is damaged ({error}). Restore it from a backup, or delete the folder and "
            "index the documents again."
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return IndexLockedError(str(location), None, None, 0.0)
    if primary == sqlite3.SQLITE_CANTOPEN and _is_log_out_of_reach(location):
        return StorageError(
            f"{location} cannot be written by this user, and so its last commits, in index.db-wal, cannot be read. "
            "Open it once where it can be written, or copy the folder to a place that can be."
        )
    if primary == sqlite3.SQLITE_READONLY:
        return ReadOnlyIndexError(f"{location} cannot be written ({error}).")
    if primary == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return InputError(f"A text is too big for the database, which takes 1,000,000,000 bytes each ({error}).")
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return ClosedIndexError(f"The index {location} was closed. Open it again.")
    return StorageError(f"The database of {location} could not be used: {error} (SQLite code {code}).")


def _is_no_text(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError) or "Could not decode" in str(error)


def _is_no_schema(error: Exception) -> bool:
    # Our statements fit our schema: where they do not, the schema is what was damaged.
    return str(error).startswith(("no such column", "no such table", "unsupported file format"))


def _is_log_out_of_reach(location: Path) -> bool:
    # To read the log SQLite needs its index, index.db-shm, or has to make it.
    return _has_content(location / "index.db-wal") and not os.access(location, os.W_OK)


def _no_room(location: Path) -> bool:
    with suppress(OSError):
        state = os.statvfs(location)
        return state.f_bavail * state.f_frsize < 1 << 16
    return False


Method = TypeVar("Method", bound=Callable[..., Any])


def _translating(method: Method) -> Method:
    """The method of a connection or cursor, raising the errors of semsearch."""

    @wraps(method)
    def call(self: Any, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a message of SQLite may quote what is damaged
            raise _translation(error, getattr(self, "connection", self).location) from error

    return call  # type: ignore[return-value]


class _Cursor(sqlite3.Cursor):
    execute = _translating(sqlite3.Cursor.execute)
    executemany = _translating(sqlite3.Cursor.executemany)
    fetchone = _translating(sqlite3.Cursor.fetchone)
    fetchmany = _translating(sqlite3.Cursor.fetchmany)
    fetchall = _translating(sqlite3.Cursor.fetchall)
    __next__ = _translating(sqlite3.Cursor.__next__)


class _Connection(sqlite3.Connection):
    """A connection whose statements raise the errors of semsearch.

    So a `with` block around it needs no translation, which would take the errors of a user's own database, read by the
    iterator that he gave to `add`, for errors of the index.
    """

    location: Path
    stamp: tuple[int, ...] | None = None  # of index.db, where it was opened as a file that nobody changes

    @property
    def is_outdated(self) -> bool:
        """Whether somebody changed that file all the same: what is read then may be of two states at once."""
        return self.stamp is not None and self.stamp != _stamp(self.location)

    def refuse_outdated(self) -> None:
        """Raise StorageError for what was read while the file changed."""
        if self.is_outdated:
            raise StorageError(f"{self.location} was changed by another user while it was read. Do the same once more.")

    def backup(self, *arguments: Any, **options: Any) -> None:
        """As ever, but no copy of two states at once."""
        super().backup(*arguments, **options)
        self.refuse_outdated()

    @_translating
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().execute(sql, parameters)
        return cursor

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().executemany(sql, parameters)
        return cursor


class Store:
    """The database of one index folder; opened for reading, and for writing in `writing` blocks only."""

    def __init__(self, folder: Path, *, read_only: bool, create: bool, timeout: float) -> None:
        self.folder = folder
        self.path: Path = folder / "index.db"
        self.read_only = read_only
        self.timeout = timeout
        self._reader: _Connection | None = None
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
            self._settle_format()

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
            # A creation that was killed leaves neither: here was an index that lost its database.
            left = [name for name in ("cache/CURRENT.json", "index.db-wal") if _has_content(self.folder / name)]
            if left:
                raise CorruptIndexError(
                    f"{self.folder} has {left[0]}, but its database index.db is missing or empty. Restore it from a "
                    "backup, or delete the folder and index the documents again."
                )
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

    def _connect(self, mode: str) -> _Connection:
        location = quote(os.fsencode(self.path.absolute()))
        connection = sqlite3.connect(
            f"file:{location}?{mode_query(mode)}",
            uri=True,
            timeout=max(self.timeout, SETTLING),
            check_same_thread=False,
            factory=_Connection,
        )
        connection.location = self.folder
        connection.execute("PRAGMA foreign_keys = ON")
        if mode == "rw":
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return connection

    # -- formats -----------------------------------------------------------------------------------------------------

    def _settle_format(self) -> None:
        """Refuse what is not ours, or of a later format, before a byte changes; bring an earlier format up to ours."""
        # An ordinary connection would put files beside index.db. This one can be wrong, in the middle of a checkpoint.
        with suppress(CorruptIndexError, sqlite3.Error):
            connection = self._connect("immutable")
            try:
                self._format_of(connection)
            finally:
                connection.close()
        version = self._format_of(self._reading())
        if version < FORMAT:
            self._migrate(version)

    def _format_of(self, connection: sqlite3.Connection) -> int:
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
        return int(version)

    def _migrate(self, version: int) -> None:
        missing = [step for step in range(version, FORMAT) if step not in MIGRATIONS]
        if missing:
            raise IndexFormatError(
                f"{self.folder} has format {version}, which this release cannot bring up to {FORMAT}. "
                "Index the documents again into another folder. Nothing was changed."
            )
        if self.read_only or not os.access(self.folder, os.W_OK):
            raise IndexFormatError(
                f"{self.folder} has format {version}; this release reads format {FORMAT}. Open it once for writing "
                f"to bring it up to date: semsearch.Index({str(self.folder)!r}). Nothing was changed."
            )
        with writer_lock(self.folder / "lock", self.timeout):
            connection = self._connect("rw")
            self._wrote = True
            try:
                connection.execute("PRAGMA foreign_keys = OFF")  # a step may build a table anew
                connection.execute("BEGIN IMMEDIATE")
                if (version := self._format_of(connection)) < FORMAT:  # another process may have been faster
                    _migrate(connection, version)
                connection.execute("COMMIT")
            finally:
                connection.close()

    def _same_format(self, connection: sqlite3.Connection) -> None:
        """A later release may have changed the format since this index was opened."""
        if self._format_of(connection) != FORMAT:
            raise IndexFormatError(f"{self.folder} was replaced by an index of another format. Open it again.")

    # -- connections -------------------------------------------------------------------------------------------------

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedIndexError(f"The index {self.folder} was closed. Open it again.")

    def _reading(self) -> _Connection:
        self._refuse_closed()
        if self._reader is not None and self._is_left_behind(self._reader):
            self._reader.close()
            self._reader = None
        if self._reader is None:
            self._reader = self._connect_to_read()
        return self._reader

    def _connect_to_read(self) -> _Connection:
        stamp = _stamp(self.folder)  # before anything is looked at: what changes from here on is noticed
        if not self._is_still():
            return self._connect("ro")
        connection = self._connect("immutable")
        connection.stamp = stamp
        return connection

    def _is_left_behind(self, reader: _Connection) -> bool:
        if reader.stamp is None or reader.in_transaction:
            return False
        return reader.is_outdated or not self._is_still()

    def _is_still(self) -> bool:
        """Whether the database is to be read as a file that nobody changes, without locks and log (immutable=1).

        That is so on read-only media; but a user who cannot write the folder needs it too, as long as nobody writes:
        SQLite reads with locks only where both files beside the database are there or can be made. For him the file
        does change, when the log moves into it: its stamp is compared before and after each reading.
        """
        if os.access(self.folder, os.W_OK):
            return False
        log, shared = (self.path.with_name(f"index.db-{name}") for name in ("wal", "shm"))
        return not _has_content(log) and not (log.exists() and shared.exists())

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
        try:
            with self._generation(connection) as view:
                yield view
        finally:
            connection.rollback()

    @contextmanager
    def apart(self) -> Iterator[View]:
        """A View of one generation on a connection of its own: a long reading holds nobody up, and needs no mutex."""
        self._refuse_closed()
        with translated(self.folder):
            connection = self._connect_to_read()
        try:
            with self._generation(connection) as view:
                yield view
        finally:
            connection.close()

    @contextmanager
    def _generation(self, connection: _Connection) -> Iterator[View]:
        try:
            connection.execute("BEGIN")
            self._same_format(connection)
            yield View(connection)
        except Exception:  # which may come of two states at once
            connection.refuse_outdated()
            raise
        connection.refuse_outdated()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """The Writer, under the lock: IndexLockedError if that is not free within the time-out."""
        self._refuse_closed()
        if self.read_only:
            raise ReadOnlyIndexError(f"{self.folder} was opened with read_only=True. Open it without to change it.")
        if not os.access(self.folder, os.W_OK):
            raise ReadOnlyIndexError(f"{self.folder} cannot be written by this user, or lies on read-only media.")
        with ExitStack() as held:
            # What the block itself raises, a user's iterator in it for one, is no error of the index.
            with translated(self.folder):
                held.enter_context(writer_lock(self.folder / "lock", self.timeout))
                connection = self._connect("rw")
                held.callback(connection.close)
            self._same_format(connection)
            self._wrote = True
            yield Writer(connection)

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
            with suppress(StorageError, OSError, sqlite3.Error), writer_lock(self.folder / "lock", 0.0):
                connection = self._connect("rw")
                try:
                    connection.execute("PRAGMA busy_timeout = 0")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    connection.close()


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Run the steps from `version` on, inside the caller's transaction, and record them."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'migrations'").fetchone()
    record = json.loads(row[0]) if row else []
    for step in range(version, FORMAT):
        MIGRATIONS[step](connection)
        record.append({"from": step, "to": step + 1, "time": time.time()})
    if connection.execute("PRAGMA foreign_key_check").fetchone():
        raise CorruptIndexError(
            f"The database cannot be brought to format {FORMAT}: it has references to rows that are missing. "
            "Nothing was changed. Restore it from a backup."
        )
    put_meta(connection, "migrations", record)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _has_content(path: Path) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.stat().st_size > 0
    return False


def _stamp(folder: Path) -> tuple[int, ...]:
    """What is another number when index.db was written or replaced; () where it is gone."""
    with suppress(OSError):
        found = (folder / "index.db").stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return ()


_abandoned: list[sqlite3.Connection] = []


def mode_query(mode: str) -> str:
    """The part of SQLite's URI that says how to open."""
    return "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"


def _create_schema(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.strip().split(";\n"):
        connection.execute(statement)
    put_meta(connection, "uuid", secrets.token_hex(16))
    put_meta(connection, "created", time.time())
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")

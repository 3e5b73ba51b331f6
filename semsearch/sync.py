"""A folder → an index: what is new is added, what changed is updated, what is gone is removed, the rest is not read.

A file whose size, modification time and inode are as they were is not opened. One that differs is hashed: the same
content means that nothing is embedded, and the same content under another name is a rename. Deletions are looked for
inside the synced folder only, and only names that are really gone from the disk count: a file that is there but cannot
be read, or that the pattern leaves out, keeps its place in the index.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from semsearch.errors import InputError, LoadError
from semsearch.ingest import AddReport, Batch, FileNote
from semsearch.items import expanded
from semsearch.loading import FileEntry, walk
from semsearch.parsing import AHEAD, Parser, ParserUnavailableError
from semsearch.records import Document
from semsearch.tables import FileRow, Root, Writer

__all__ = ["SyncReport", "sync_folder"]

HASHED_BYTES = 1 << 30  # larger files are not hashed; the loaders refuse them by their size
RACY_NS = 20_000_000  # a file written this shortly before it was read may change again without a new time stamp


class SyncReport(AddReport):
    """What `Index.sync` did, counted in documents; `failures` lists (path, reason) of files that could not be read."""

    __slots__ = ()


class _IdTakenError(LoadError):
    """Another document has the id that the file's would get."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A file's content as it was seen: the time stamp that stands for it, and its digest, or why there is none."""

    settled: int
    digest: str
    failure: LoadError | None = None


@dataclass
class _Sync:
    batch: Batch
    writer: Writer
    parser: Parser
    release: str
    roots: list[Root]
    known: dict[int, dict[str, FileRow]]
    seen: set[tuple[int, str]] = field(default_factory=set)
    failures: list[tuple[str, str]] = field(default_factory=list)
    removed: int = 0
    by_digest: dict[str, list[tuple[int, FileRow]]] = field(default_factory=dict)
    looks: dict[Path, _Look] = field(default_factory=dict)

    # -- one file ------------------------------------------------------------------------------------------------

    def place(self, path: Path) -> tuple[Root, str]:
        """The root that a file belongs to (the deepest one) and its path relative to it."""
        for root in self.roots:
            if path.is_relative_to(root.path):
                return root, path.relative_to(root.path).as_posix()
        raise AssertionError(path)

    def is_unchanged(self, entry: FileEntry) -> bool:
        """Whether the file is as it was; counts it if so."""
        root, path = self.place(entry.path)
        row = self.known[root.key].get(path)
        self.seen.add((root.key, path))
        if row is None or (row.size, row.mtime_ns, row.inode) != (entry.size, entry.mtime_ns, entry.inode):
            return False
        if row.reason is not None:
            if row.release != self.release:  # another release may read what this one could not
                return False
            self.failures.append((str(entry.path), row.reason))
            return row.document is None or self._count_unchanged()
        return self._count_unchanged()

    def _count_unchanged(self) -> bool:
        self.batch.unchanged += 1
        return True

    def expect(self, entry: FileEntry) -> None:
        """Have a file parsed that `take` will soon be called for, if it is likely to need it.

        Its digest is taken now: what is parsed must never be older than what the digest stands for.
        """
        if entry.path in self.looks:
            return
        look = self.looks[entry.path] = _look(entry)
        root, path = self.place(entry.path)
        row = self.known[root.key].get(path)
        if look.failure is None and look.digest not in self.by_digest and (row is None or row.digest != look.digest):
            self.parser.expect(entry.path)

    def take(self, entry: FileEntry) -> None:
        """Read a new or changed file; a failure is noted with its reason."""
        root, path = self.place(entry.path)
        row = self.known[root.key].get(path)
        look = self.looks.pop(entry.path, None) or _look(entry)
        settled, digest = look.settled, look.digest
        try:
            if look.failure is not None:
                raise look.failure
            fresh = FileRow(path, entry.size, settled, entry.inode, digest, None, None, self.release)
            if row is not None and row.document is not None and row.digest == digest and row.reason is None:
                self._touch(root, row, replace(fresh, document=row.document), entry)
            elif row is None and (moved := self._moved_from(root, path, digest)) is not None:
                self._rename(moved, root, fresh, entry)
            else:
                self._load(root, row, fresh, entry)
        except LoadError as error:
            # A verdict on the content is remembered with it; what may pass by itself is tried again every time.
            passing = isinstance(error, _IdTakenError | ParserUnavailableError)
            tried = settled if digest and not passing else -1
            document = None if row is None else row.document
            failed = FileRow(path, entry.size, tried, entry.inode, digest, document, error.reason, self.release)
            self.failures.append((str(entry.path), error.reason))
            self.batch.remember(FileNote(root.key, failed))

    def _load(self, root: Root, row: FileRow | None, fresh: FileRow, entry: FileEntry) -> None:
        id = root.prefix + fresh.path
        if (row is None or row.document is None) and self.writer.key(id) is not None:
            raise _IdTakenError(
                str(entry.path), f"the id {id!r} is taken by a document that was not synced from this file"
            )
        self.batch.put(self.parser.load(entry.path, id=id), FileNote(root.key, fresh))

    def _touch(self, root: Root, row: FileRow, fresh: FileRow, entry: FileEntry) -> None:
        """The content is as it was, only the time stamp or the inode changed."""
        stored = self.writer.document(root.prefix + row.path)
        assert stored is not None
        self.batch.describe(stored.id, _described(stored, stored.id, entry), FileNote(root.key, fresh))
        self.batch.updated -= 1  # nothing that a user would call an update
        self.batch.unchanged += 1

    def _moved_from(self, root: Root, path: str, digest: str) -> tuple[Root, FileRow] | None:
        """A file with this content that is gone from where it was, if the name's suffix did not change."""
        for key, row in self.by_digest.get(digest, ()):
            origin = next(each for each in self.roots if each.key == key)
            gone = (key, row.path) not in self.seen and _is_gone(Path(origin.path, row.path))
            free = self.writer.key(root.prefix + path) is None
            if gone and free and Path(path).suffix.lower() == Path(row.path).suffix.lower():
                return origin, row
        return None

    def _rename(self, moved: tuple[Root, FileRow], root: Root, fresh: FileRow, entry: FileEntry) -> None:
        origin, row = moved
        stored = self.writer.document(origin.prefix + row.path)
        assert stored is not None
        self.known[origin.key].pop(row.path)
        self.by_digest[row.digest].remove((origin.key, row))
        document = _described(stored, root.prefix + fresh.path, entry)
        self.batch.describe(stored.id, document, FileNote(root.key, fresh), moved_from=(origin.key, row.path))

    # -- what is gone --------------------------------------------------------------------------------------------

    def remove_gone(self, folder: Path) -> None:
        """Remove the documents of files inside `folder` that are no longer on the disk."""
        keys: list[int] = []
        rows: list[tuple[int, str]] = []
        for root in self.roots:
            for path, row in self.known[root.key].items():
                location = Path(root.path, path)
                if (root.key, path) in self.seen or not location.is_relative_to(folder) or not _is_gone(location):
                    continue
                rows.append((root.key, path))
                if row.document is not None:
                    keys.append(row.document)
        for first in range(0, len(rows), 1000):
            self._remove(keys[first : first + 1000], rows[first : first + 1000])

    def _remove(self, keys: Sequence[int], rows: Sequence[tuple[int, str]]) -> None:
        with self.batch.mutex, self.batch.legs.commit(self.writer):
            self.writer.remove(keys)
            for root, path in rows:
                self.writer.forget_file(root, path)
        self.removed += len(keys)


def sync_folder(
    batch: Batch,
    folder: Path,
    pattern: str | Sequence[str] | None,
    progress: Callable[[Sequence[FileEntry]], Iterator[FileEntry]],
    release: str,
) -> SyncReport:
    """Bring the index up to the state of `folder`; `progress` wraps the files that have to be read."""
    writer = batch.writer
    root = _root_for(batch, folder)
    roots = sorted(writer.roots(), key=lambda each: len(each.path), reverse=True)
    inside = [each for each in roots if each.key == root.key or Path(each.path).is_relative_to(root.path)]
    known = {each.key: writer.files(each.key) for each in inside}
    with Parser() as parser:
        work = _Sync(batch, writer, parser, release, roots, known)
        changed = _changed(work, folder, pattern)
        for number, entry in enumerate(progress(changed)):
            for coming in changed[number : number + AHEAD]:
                work.expect(coming)
            work.take(entry)
        batch.commit()
    work.remove_gone(folder)
    return SyncReport(
        batch.added,
        batch.updated,
        work.removed,
        batch.unchanged,
        len(work.failures),
        tuple(work.failures),
        tuple(batch.notes),
    )


def _changed(work: _Sync, folder: Path, pattern: str | Sequence[str] | None) -> list[FileEntry]:
    """The files that have to be read; notes which are seen, and which contents are known under another name."""
    for each in work.roots:
        work.known.setdefault(each.key, {})
    changed: list[FileEntry] = []
    indexes: dict[Path, bool] = {}
    for entry in walk(folder, pattern):
        if isinstance(entry, LoadError):
            work.failures.append((entry.path, entry.reason))
        elif _is_in_index(entry.path.parent, folder, indexes):
            continue
        elif not work.is_unchanged(entry):
            changed.append(entry)
    for key, rows in work.known.items():
        for row in rows.values():
            if row.document is not None and row.reason is None and row.digest and (key, row.path) not in work.seen:
                work.by_digest.setdefault(row.digest, []).append((key, row))
    return changed


def _root_for(batch: Batch, folder: Path) -> Root:
    """The known root that contains the folder, or a new one with a prefix of its own."""
    writer = batch.writer
    holders = [root for root in writer.roots() if folder.is_relative_to(root.path)]
    if holders:
        return max(holders, key=lambda root: len(root.path))
    with batch.mutex, batch.legs.commit(writer):
        return writer.add_root(str(folder), _free_prefix(writer, folder.name or "root"))


def _is_index(folder: Path) -> bool:
    return (folder / "index.db").is_file() and (folder / "lock").is_file()


def _is_in_index(folder: Path, top: Path, known: dict[Path, bool]) -> bool:
    """Whether a folder is an index of ours or lies in one: opening its database here would drop SQLite's locks."""
    if folder not in known:
        known[folder] = _is_index(folder) or (folder != top and _is_in_index(folder.parent, top, known))
    return known[folder]


def _free_prefix(writer: Writer, name: str) -> str:
    """ "" for the first root of an empty index; else the folder's name, with a number if it is taken."""
    taken = {root.prefix for root in writer.roots()}
    if not taken and not writer.counts()[0]:
        return ""
    number = 1
    while (prefix := f"{name}/" if number == 1 else f"{name}-{number}/") in taken or writer.has_prefix(prefix):
        number += 1
    return prefix


def _described(stored: Document, id: str, entry: FileEntry) -> Document:
    metadata = {**stored.metadata, "size": entry.size, "modified": entry.mtime_ns / 1e9}
    return replace(stored, id=id, source=str(entry.path), metadata=metadata)


def _is_gone(path: Path) -> bool:
    """Whether there is no regular file of that name any more; what cannot be looked at does not count as gone."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _look(entry: FileEntry) -> _Look:
    now = time.time_ns()
    settled = entry.mtime_ns if now - entry.mtime_ns > RACY_NS else -1
    try:
        return _Look(settled, _digest(entry))
    except LoadError as error:
        return _Look(settled, "", error)


def _digest(entry: FileEntry) -> str:
    """SHA-256 of the content, "" for a file that is too big to hash; never follows a link, never waits on a FIFO."""
    if entry.size > HASHED_BYTES:
        return ""
    try:
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LoadError(str(entry.path), "not a regular file any more")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LoadError(str(entry.path), error.strerror or str(error)) from None


def resolved_folder(folder: str | os.PathLike[str]) -> Path:
    """The absolute path of a folder to sync; raises InputError where there is none."""
    path = expanded(folder).resolve()
    if any(map(_is_index, (path, *path.parents))):
        raise InputError(f"{str(folder)!r} is an index, or lies in one. sync takes the folder with the documents.")
    if not path.exists():
        raise InputError(f"There is no folder {str(folder)!r} (looked for {path}). Nothing was changed.")
    if not path.is_dir():
        raise InputError(
            f"{str(folder)!r} is a file. sync takes a folder; for one file use index.add(semsearch.load(path))."
        )
    return path

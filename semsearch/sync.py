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
from semsearch.ingest import AddReport, Batch, FileNote, UnfitError
from semsearch.items import expanded
from semsearch.loading import FileEntry, suffix_of, walk
from semsearch.parsing import AHEAD, Parser, ParserUnavailableError
from semsearch.records import Document
from semsearch.tables import FileRow, FileState, Root
from semsearch.writers import AnyWriter

__all__ = ["SyncReport", "is_index", "sync_folder"]

HASHED_BYTES = 1 << 30  # larger files are not hashed; the loaders refuse them by their size
RACY_NS = 20_000_000  # a file written this shortly before it was read may change again without a new time stamp


class SyncReport(AddReport):
    """What `Index.sync` did, counted in documents; `failures` lists (path, reason) of files that could not be read."""

    __slots__ = ()


class _NotTakenError(LoadError):
    """The file can be read, but its document cannot be taken in: another has its id, or it does not fit the index."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A file's content as it was seen: the time stamp that stands for it, and its digest, or why there is none."""

    settled: int
    digest: str
    failure: LoadError | None = None


@dataclass
class _Sync:
    """A folder on its way in.

    `states` and `failed` hold what is known of the files of the roots that reach into the folder. Looking for changes
    takes out of `states` what is as it was; `unmet` are then the files, by root, that it did not meet.
    """

    batch: Batch
    writer: AnyWriter
    parser: Parser
    release: str
    roots: list[Root]
    folder: Path
    states: dict[int, set[FileState]] = field(default_factory=dict)
    failed: dict[int, dict[str, FileRow]] = field(default_factory=dict)
    unmet: dict[int, set[str]] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    removed: int = 0
    by_digest: dict[str, list[tuple[int, FileRow]]] = field(default_factory=dict)
    looks: dict[Path, _Look] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for root in self.roots:
            self.states[root.key] = self.writer.file_states(root.key)
            self.failed[root.key] = self.writer.failed_files(root.key)
        # Names as `walk` gives them, relative to the folder, become names relative to a root by their beginnings.
        holder = self.roots[-1]
        inner = [(f"{_relative(root.path, self.folder)}/", root) for root in self.roots if _is_below(root, self.folder)]
        beginning = _relative(self.folder, holder.path)
        self._inner = inner
        self._holder = holder
        self._beginning = "" if beginning == "." else f"{beginning}/"

    # -- what changed --------------------------------------------------------------------------------------------

    def place(self, id: str) -> tuple[Root, str]:
        """The root that a file of the folder belongs to (the deepest one) and its path relative to it."""
        for beginning, root in self._inner:
            if id.startswith(beginning):
                return root, id[len(beginning) :]
        return self._holder, self._beginning + id

    def changed(self, pattern: str | Sequence[str] | None) -> list[FileEntry]:
        """The files that have to be read; notes which are not met, and which contents are known under another name."""
        changed: list[FileEntry] = []
        indexes: dict[str, bool] = {}
        for entry in walk(self.folder, pattern):
            if isinstance(entry, LoadError):
                self.failures.append((entry.path, entry.reason))
                continue
            parent = entry.id[: entry.id.rfind("/") + 1]
            if not self._is_in_index(parent, indexes) and not self.is_unchanged(entry):
                changed.append(entry)
        for root in self.roots:
            self.unmet[root.key] = {state[0] for state in self.states[root.key]} | self.failed[root.key].keys()
        for entry in changed:
            root, path = self.place(entry.id)
            self.unmet[root.key].discard(path)
        if changed:
            self._note_digests()
        return changed

    def is_unchanged(self, entry: FileEntry) -> bool:
        """Whether the file is as it was; counts it if so."""
        root, path = self.place(entry.id)
        state = (path, entry.size, entry.mtime_ns, entry.inode)
        states = self.states[root.key]
        if state in states:
            states.remove(state)
            self.batch.unchanged += 1
            return True
        row = self.failed[root.key].get(path)
        # Another release may read what this one could not.
        if row is None or (row.path, row.size, row.mtime_ns, row.inode) != state or row.release != self.release:
            return False
        del self.failed[root.key][path]
        self.failures.append((str(entry.path), row.reason or ""))
        if row.document is not None:
            self.batch.unchanged += 1
        return True

    def _is_in_index(self, inner: str, known: dict[str, bool]) -> bool:
        """Whether a folder is an index of ours or lies in one: opening its database here would drop SQLite's locks."""

        def looked_at(inner: str) -> bool:
            # One quick look at each folder; a Path alone would take longer.
            suspect = os.access(f"{self.folder}/{inner}index.db", os.F_OK)
            return suspect and is_index(Path(self.folder, inner))

        return is_in_index(inner, known, looked_at)

    def _note_digests(self) -> None:
        for key, paths in self.unmet.items():
            for path in sorted(paths - self.failed[key].keys()):
                row = self.writer.file(key, path)
                if row is not None and row.document is not None and row.digest:
                    self.by_digest.setdefault(row.digest, []).append((key, row))

    # -- one file ------------------------------------------------------------------------------------------------

    def expect(self, entry: FileEntry) -> None:
        """Have a file parsed that `take` will soon be called for, if it is likely to need it.

        Its digest is taken now: what is parsed must never be older than what the digest stands for.
        """
        if entry.path in self.looks:
            return
        look = self.looks[entry.path] = _look(entry)
        root, path = self.place(entry.id)
        row = self.writer.file(root.key, path)
        if look.failure is None and look.digest not in self.by_digest and (row is None or row.digest != look.digest):
            self.parser.expect(entry.path)

    def take(self, entry: FileEntry) -> None:
        """Read a new or changed file; a failure is noted with its reason."""
        root, path = self.place(entry.id)
        row = self.writer.file(root.key, path)
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
            passing = isinstance(error, _NotTakenError | ParserUnavailableError)
            tried = settled if digest and not passing else -1
            document = None if row is None else row.document
            failed = FileRow(path, entry.size, tried, entry.inode, digest, document, error.reason, self.release)
            self.failures.append((str(entry.path), error.reason))
            self.batch.remember(FileNote(root.key, failed))

    def _load(self, root: Root, row: FileRow | None, fresh: FileRow, entry: FileEntry) -> None:
        id = root.prefix + fresh.path
        if (row is None or row.document is None) and not self._is_free(id):
            raise _NotTakenError(
                str(entry.path), f"the id {id!r} is taken by a document that was not synced from this file"
            )
        document = self.parser.load(entry.path, id=id)
        try:
            self.batch.put(document, FileNote(root.key, fresh))
        except UnfitError as error:
            raise _NotTakenError(str(entry.path), str(error)) from None

    def _is_free(self, id: str) -> bool:
        """Whether no document has the id, or is about to get it."""
        return not self.batch.is_pending(id) and self.writer.key(id) is None

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
            gone = _is_gone(Path(origin.path, row.path))
            free = self._is_free(root.prefix + path)
            if gone and free and suffix_of(Path(path)) == suffix_of(Path(row.path)):
                return origin, row
        return None

    def _rename(self, moved: tuple[Root, FileRow], root: Root, fresh: FileRow, entry: FileEntry) -> None:
        origin, row = moved
        stored = self.writer.document(origin.prefix + row.path)
        assert stored is not None
        self.unmet[origin.key].discard(row.path)
        self.by_digest[row.digest].remove((origin.key, row))
        document = _described(stored, root.prefix + fresh.path, entry)
        self.batch.describe(stored.id, document, FileNote(root.key, fresh), moved_from=(origin.key, row.path))

    # -- what is gone --------------------------------------------------------------------------------------------

    def remove_gone(self) -> None:
        """Remove the documents of files inside the folder that are no longer on the disk."""
        keys: list[int] = []
        rows: list[tuple[int, str]] = []
        for root in self.roots:
            for path in sorted(self.unmet[root.key]):
                location = Path(root.path, path)
                if not location.is_relative_to(self.folder) or not _is_gone(location):
                    continue
                rows.append((root.key, path))
                row = self.writer.file(root.key, path)
                if row is not None and row.document is not None:
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
    with Parser() as parser:
        work = _Sync(batch, writer, parser, release, inside, folder)
        changed = work.changed(pattern)
        for number, entry in enumerate(progress(changed)):
            for coming in changed[number : number + AHEAD]:
                work.expect(coming)
            work.take(entry)
        batch.commit()
    work.remove_gone()
    return SyncReport(
        batch.added,
        batch.updated,
        work.removed,
        batch.unchanged,
        len(work.failures),
        tuple(work.failures),
        tuple(batch.notes),
    )


def _root_for(batch: Batch, folder: Path) -> Root:
    """The known root that contains the folder, or a new one with a prefix of its own."""
    writer = batch.writer
    holders = [root for root in writer.roots() if folder.is_relative_to(root.path)]
    if holders:
        return max(holders, key=lambda root: len(root.path))
    with batch.mutex, batch.legs.commit(writer):
        return writer.add_root(str(folder), _free_prefix(writer, folder.name or "root"))


def is_index(folder: Path) -> bool:
    """Whether a folder is an index: it has a database and a lock."""
    return (folder / "index.db").is_file() and (folder / "lock").is_file()


def is_in_index(inner: str, known: dict[str, bool], look: Callable[[str], bool]) -> bool:
    """Whether a folder inside another one ("" or with a slash at its end) is an index, as `look` tells, or lies in one.

    What was found is noted in `known`. A loop, since folders may be nested deeper than calls.
    """
    unknown = []
    while inner not in known:
        unknown.append(inner)
        if not inner:
            break
        inner = inner[: inner.rfind("/", 0, -1) + 1]
    found = known.get(inner, False)
    for each in reversed(unknown):  # from the outside in
        found = known[each] = found or look(each)
    return found


def _relative(path: str | Path, folder: str | Path) -> str:
    return Path(path).relative_to(folder).as_posix()


def _is_below(root: Root, folder: Path) -> bool:
    return Path(root.path) != folder and Path(root.path).is_relative_to(folder)


def _free_prefix(writer: AnyWriter, name: str) -> str:
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
    if any(map(is_index, (path, *path.parents))):
        raise InputError(f"{str(folder)!r} is an index, or lies in one. sync takes the folder with the documents.")
    if not path.exists():
        raise InputError(f"There is no folder {str(folder)!r} (looked for {path}). Nothing was changed.")
    if not path.is_dir():
        raise InputError(
            f"{str(folder)!r} is a file. sync takes a folder; for one file use index.add(semsearch.load(path))."
        )
    return path

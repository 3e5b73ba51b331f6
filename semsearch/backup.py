"""A copy of an index while it is in use, by SQLite's own backup.

SQLite copies the pages of one generation: a reader's snapshot, which a writer neither disturbs nor waits for. (The
other way, VACUUM INTO, gives a smaller file, but as one statement that cannot show its progress, and it takes more
time and room.) The copy gets its name when it is complete, checked and on the disk.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from semsearch.errors import CorruptIndexError, InputError
from semsearch.items import Progress
from semsearch.locking import flushed, writer_lock
from semsearch.store import translated
from semsearch.tables import View

__all__ = ["BackupReport", "back_up"]

PAGES = 2048  # copied at a time: 8 MB
DRAFT = "index.db.new"
OURS = {"lock", DRAFT}  # what an interrupted backup may have left in the target


@dataclass(frozen=True, slots=True)
class BackupReport:
    """Where the copy is, its size in bytes, and what it holds."""

    path: str
    size: int
    documents: int
    passages: int

    def __str__(self) -> str:
        return f"{self.path}: {self.documents:,} documents, {self.passages:,} passages, {self.size:,} bytes"


def back_up(view: View, source: Path, target: Path, progress: Progress = None) -> BackupReport:
    """Copy what `view` sees of the index in `source` into the folder `target`; see `Index.backup`."""
    if target.resolve().is_relative_to(source.resolve()):
        raise InputError(
            f"{target} lies in the index {source} itself. Choose a folder outside it, on another disk if any."
        )
    with translated(target):
        _refuse(target)
    with translated(target), _folder(target), writer_lock(target / "lock", 0.0):
        _refuse(target)  # another process may have been faster
        try:
            _copy(view.connection, target / DRAFT, progress)
            _verify(target / DRAFT, source)
            flushed(target / DRAFT)
            (target / DRAFT).replace(target / "index.db")
            flushed(target)
        except BaseException:
            for name in (DRAFT, "index.db", "lock"):
                (target / name).unlink(missing_ok=True)
            raise
    documents, passages = view.counts()
    return BackupReport(str(target), (target / "index.db").stat().st_size, documents, passages)


def _refuse(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file. A backup is a folder: choose another path.")
    names = {path.name for path in target.iterdir()} - OURS if target.exists() else set()
    if names:
        kind = "holds an index already" if "index.db" in names else f"is not empty ({min(names)!r} is there)"
        raise InputError(f"{target} {kind}. A backup never overwrites: choose a new folder.")


@contextmanager
def _folder(target: Path) -> Iterator[None]:
    """Make the folder and those above it; where the block fails, those that were made are removed again."""
    made = [path for path in (target, *target.parents) if not path.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in made:
            flushed(path.parent)
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


def _copy(connection: sqlite3.Connection, draft: Path, progress: Progress) -> None:
    draft.unlink(missing_ok=True)
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    with closing(sqlite3.connect(draft)) as copy, _watched(progress, size) as watch:
        copy.execute("PRAGMA journal_mode = OFF")  # nothing to go back to: what is not finished is deleted
        copy.execute("PRAGMA synchronous = OFF")  # once, at the end
        connection.backup(copy, pages=PAGES, progress=watch)


def _verify(draft: Path, source: Path) -> None:
    """Raise CorruptIndexError where the copy, and so the index, is damaged."""
    with translated(source), closing(sqlite3.connect(f"{draft.as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
        found = str(copy.execute("PRAGMA quick_check(1)").fetchone()[0]).splitlines()[-1]
    if found != "ok":
        raise CorruptIndexError(
            f"The database of {source} is damaged ({found}), so no backup was made. Restore it from an earlier one, or "
            "delete the folder and index the documents again."
        )


@contextmanager
def _watched(progress: Progress, size: int) -> Iterator[Callable[[int, int, int], None]]:
    """What SQLite calls after each step, with its status and the remaining and total numbers of pages."""
    if callable(progress):
        yield lambda _, remaining, total: progress((total - remaining) * size, total * size)
    elif progress or (progress is None and sys.stderr.isatty()):
        from tqdm import tqdm

        with tqdm(unit="B", unit_scale=True) as bar:

            def show(_: int, remaining: int, total: int) -> None:
                bar.total = total * size
                bar.update((total - remaining) * size - bar.n)

            yield show
    else:
        yield lambda _, remaining, total: None

"""Watching a folder: it is looked at again and again, and the index follows when something changed.

A look is a walk with `stat`, which opens no file. What changed is taken up when two looks in a row saw the same, so
that a file is not read while it is being written; a folder that never comes to rest is taken up after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from semsearch.errors import IndexMismatchError, InputError, LoadError, ReadOnlyIndexError, SemsearchError
from semsearch.loading import walk
from semsearch.sync import is_in_index, is_index

__all__ = ["look", "watch"]

RESTLESS = 10  # looks after which a folder that changes all the time is taken up
HOPELESS = (InputError, IndexMismatchError, ReadOnlyIndexError)  # from the first sync: the next would fail as well
SHARE = 4  # a pause is at least this many times as long as the look before it: a huge folder is looked at less often

T = TypeVar("T")
Seen = frozenset[tuple[str, int, int, int]]


def look(folder: Path, pattern: str | Sequence[str] | None = None) -> Seen:
    """What would be synced: name, size in bytes, time of change in nanoseconds and inode of each file.

    Indexes inside the folder are left out, since each sync changes them. Raises LoadError if the folder is not there.
    """
    indexes: dict[str, bool] = {}
    seen = set()
    for entry in walk(folder, pattern):
        if isinstance(entry, LoadError):
            seen.add((entry.path, 0, 0, 0))
        elif not is_in_index(entry.id[: entry.id.rfind("/") + 1], indexes, lambda inner: is_index(folder / inner)):
            seen.add((entry.id, entry.size, entry.mtime_ns, entry.inode))
    return frozenset(seen)


def watch(
    folder: Path,
    pattern: str | Sequence[str] | None,
    sync: Callable[[], T],
    synced: Callable[[T], None],
    failed: Callable[[SemsearchError], None],
    *,
    every: float = 2.0,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Call `sync` now, and again each time the folder changed and came to rest, until Ctrl-C.

    `synced` gets what it returned. `every` is the number of seconds between two looks, at least. An error goes to
    `failed`, once if it stays the same, and the work is tried again at the next look: a folder that is not there for a
    while loses nothing. What no later try can change is raised: InputError for the pattern, and, until a sync was done,
    InputError, IndexMismatchError and ReadOnlyIndexError of `sync`. Ctrl-C returns, but one that comes during a sync is
    raised as KeyboardInterrupt.
    """
    watching = _Watching(folder, pattern, sync, synced, failed)
    try:
        while True:
            started = time.monotonic()
            if watching.is_due():
                watching.take_up()
                started = time.monotonic()
            pause(max(every, SHARE * (time.monotonic() - started)))
    except KeyboardInterrupt:
        if watching.busy:
            raise


@dataclass
class _Watching(Generic[T]):
    folder: Path
    pattern: str | Sequence[str] | None
    sync: Callable[[], T]
    synced: Callable[[T], None]
    failed: Callable[[SemsearchError], None]
    done: Seen | None = None  # what the folder held when it was last synced
    before: Seen | None = None  # and at the last look
    restless: int = RESTLESS  # the first time there is nothing to wait for
    told: str = ""
    busy: bool = False

    def is_due(self) -> bool:
        """Look at the folder: whether it changed and came to rest."""
        try:
            seen = look(self.folder, self.pattern)
        except InputError:
            raise
        except SemsearchError as error:
            self._tell(error)
            return False
        due = seen != self.done and (seen == self.before or self.restless >= RESTLESS)
        self.restless = 0 if due or seen == self.done else self.restless + 1
        self.before = seen
        if seen == self.done:
            self.told = ""
        return due

    def take_up(self) -> None:
        """Sync what the last look saw; an error is told, and the next look tries again."""
        self.busy = True
        try:
            report = self.sync()
        except SemsearchError as error:
            self.busy = False
            if self.done is None and isinstance(error, HOPELESS):
                raise
            self._tell(error)
        else:
            self.busy = False
            self.done, self.told = self.before, ""
            self.synced(report)

    def _tell(self, error: SemsearchError) -> None:
        if str(error) != self.told:
            self.told = str(error)
            self.failed(error)

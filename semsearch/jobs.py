"""Syncs in the background, one at a time, of folders that were allowed when the server was started."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semsearch.errors import InputError, SemsearchError
from semsearch.items import expanded

if TYPE_CHECKING:
    from semsearch.index import Index
    from semsearch.sync import SyncReport

__all__ = ["Job", "Jobs", "RunningError", "named_roots"]

State = Literal["running", "done", "failed", "cancelled"]


class RunningError(SemsearchError):
    """A sync is running already."""


class _CancelledError(Exception):
    """Somebody wants the sync to stop; what was committed is kept."""


@dataclass
class Job:
    """A sync, running or done. `report` or `error` say how it ended."""

    id: int
    root: str
    folder: Path
    state: State = "running"
    done: int = 0
    total: int = 0
    report: SyncReport | None = None
    error: Exception | None = None
    begun: float = field(default_factory=time.monotonic)
    ended: float | None = None
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def seconds(self) -> float:
        """How long it took, or takes until now."""
        return (self.ended or time.monotonic()) - self.begun

    def watch(self, done: int, total: int) -> None:
        """The progress of a sync; raises where it is to stop."""
        self.done, self.total = done, total
        if self.cancelled.is_set():
            raise _CancelledError


class Jobs:
    """Starts syncs of an index and remembers the last `KEPT`."""

    KEPT = 20

    def __init__(self, index: Index, roots: dict[str, Path], unexpected: Callable[[Exception], None]) -> None:
        self.roots = roots
        self._index = index
        self._unexpected = unexpected  # told of errors that are not ours
        self._mutex = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._last = 0
        self._thread: threading.Thread | None = None

    def start(self, root: str) -> Job:
        """Start a sync; raises InputError for a folder that is not allowed, RunningError while another one runs."""
        if root not in self.roots:
            allowed = ", ".join(map(repr, self.roots)) or "none"
            raise InputError(f"The folder {root[:80]!r} may not be synced. Allowed: {allowed}.")
        with self._mutex:
            running = self._running()
            if running is not None:
                raise RunningError(f"A sync of {running.root!r} is running, number {running.id}. Wait, or cancel it.")
            self._last += 1
            job = self._jobs[self._last] = Job(self._last, root, self.roots[root])
            for old in sorted(self._jobs)[: -self.KEPT]:
                del self._jobs[old]
            self._thread = threading.Thread(target=self._run, args=(job,), name=f"sync-{job.id}", daemon=True)
            self._thread.start()
            return job

    def get(self, id: int) -> Job | None:
        """The job with that number, if it is remembered."""
        with self._mutex:
            return self._jobs.get(id)

    def all(self) -> list[Job]:
        """The jobs that are remembered, the last one first."""
        with self._mutex:
            return [self._jobs[id] for id in sorted(self._jobs, reverse=True)]

    def running(self) -> Job | None:
        """The job that runs now."""
        with self._mutex:
            return self._running()

    def close(self, timeout: float) -> None:
        """Stop what runs after the file that it is at, and wait for that at most `timeout` seconds."""
        job = self.running()
        if job is not None and self._thread is not None:
            job.cancelled.set()
            self._thread.join(timeout)

    def _running(self) -> Job | None:
        return next((job for job in self._jobs.values() if job.state == "running"), None)

    def _run(self, job: Job) -> None:
        state: State = "failed"
        try:
            job.report = self._index.sync(job.folder, progress=job.watch)
            state = "done"
        except _CancelledError:
            state = "cancelled"
        except SemsearchError as error:
            job.error = error
        except Exception as error:
            job.error = error
            self._unexpected(error)
        finally:
            job.ended = time.monotonic()
            job.state = state


def named_roots(roots: Iterable[str | PathLike[str]]) -> dict[str, Path]:
    """The folders by name, with a number where two have the same one; raises InputError for what is no folder."""
    named: dict[str, Path] = {}
    for root in roots:
        path = expanded(root).resolve()
        if not path.is_dir():
            raise InputError(f"There is no folder {str(root)!r} to sync (looked for {path}).")
        name, number = path.name or "root", 1
        while name in named:
            number += 1
            name = f"{path.name or 'root'}-{number}"
        named[name] = path
    return named

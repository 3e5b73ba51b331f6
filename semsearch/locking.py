"""The advisory lock of the one writer, and what it takes to have its files on the disk.

The lock file holds the owner's pid and host as JSON, for the message that a second writer gets. `flock` belongs to the
open file, so two indexes of one process exclude each other as two processes do, and the kernel frees it when its
owner dies, however it dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semsearch.errors import IndexLockedError

__all__ = ["flushed", "writer_lock"]

GRACE = 0.2  # seconds until an owner that has just taken the lock must have written who it is

_held: set[int] = set()  # file descriptors of locks held by this process, closed in a forked child


def _forget_locks() -> None:
    # A child shares the parent's open file and would keep the lock alive after the parent. Closing does not unlock it.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def writer_lock(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock file at `path` for the block; IndexLockedError if it is not free within `timeout` seconds."""
    owner = os.getpid()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, path, timeout)
        _held.add(descriptor)
        _sign(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        if os.getpid() == owner:  # a child that was forked inside the block owns nothing, and has closed it
            if descriptor in _held:
                _held.discard(descriptor)
                _sign(descriptor, "")
            os.close(descriptor)


def _sign(descriptor: int, owner: str) -> None:
    # Only for the message that a second writer gets: a disk that does not take it must not keep the lock, or refuse it.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner.encode(), 0)


def _acquire(descriptor: int, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            late = time.monotonic() - deadline
            if late >= 0:
                pid, host = _owner(descriptor)
                if pid is not None or late >= GRACE:
                    raise IndexLockedError(str(path.parent), pid, host, timeout) from None
        time.sleep(min(pause, max(0.001, deadline - time.monotonic())))
        pause = min(pause * 2, 0.1)


def _owner(descriptor: int) -> tuple[int | None, str | None]:
    try:
        written = json.loads(os.pread(descriptor, 4096, 0))
        return int(written["pid"]), str(written["host"])
    except (ValueError, KeyError, TypeError):
        return None, None


def flushed(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Indexes and forks: nobody reads or writes while the process forks, and a child's indexes leave the parent's alone."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol

__all__ = ["forget", "watch"]

FORK_PATIENCE = 10.0  # seconds that a fork waits for a thread that reads or writes


class _Forking(Protocol):
    _mutex: Any

    def _forked(self) -> None:
        """Let go, in a forked child, of what belongs to the parent."""


_open: weakref.WeakSet[_Forking] = weakref.WeakSet()
_frozen = threading.local()


def watch(index: _Forking) -> None:
    """Look after an open index at each fork from now on."""
    _open.add(index)


def forget(index: _Forking) -> None:
    """No longer: it was closed."""
    _open.discard(index)


def _before_fork() -> None:
    # A thread inside SQLite may hold one of its global locks, which would stay taken in the child for ever.
    _frozen.indexes = [index for index in list(_open) if index._mutex.acquire(timeout=FORK_PATIENCE)]


def _after_fork_in_parent() -> None:
    for index in _frozen.__dict__.pop("indexes", []):
        index._mutex.release()


def _after_fork() -> None:
    _frozen.__dict__.pop("indexes", None)
    for index in list(_open):
        index._forked()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)

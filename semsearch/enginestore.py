"""An engine as a store: `EngineStore` opens it, and `EngineView` reads it by the names that a database's `View` has.

Documents go by numbers here, too, so that syncing and ingestion need not know the difference: a number is given to an
id when it is first asked for, and holds for one reading or writing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from semsearch.engines.protocol import Engine, Specification
from semsearch.errors import ClosedIndexError, IndexLockedError, IndexNotFoundError, ReadOnlyIndexError, StorageError
from semsearch.records import Document

__all__ = ["EngineStore", "EngineView"]

FRESH = 2.0  # seconds for which what is known of meta is taken to be so, where another process writes


class EngineStore:
    """An engine that was opened, or will be made by the first write. Its methods may be called from any thread.

    `reopen` gives the engine anew in a forked child, where its connections belong to the parent; None where it cannot.
    """

    def __init__(
        self, engine: Engine, *, read_only: bool, create: bool, timeout: float, reopen: Callable[[], Engine] | None
    ) -> None:
        self.location = engine.location
        self._engine: Engine | None = engine
        self._reopen = reopen
        self._read_only = read_only
        self._timeout = timeout
        self._closed = False
        self._lock = threading.Lock()  # of the one who writes
        self._bound: Specification | None = None
        self._meta: dict[str, Any] = {}
        self._looked = -FRESH  # when, by the monotonic clock
        try:
            self._bound = engine.open(None, create=False)
        except BaseException as error:
            if read_only or not create or not isinstance(error, IndexNotFoundError):
                engine.close()
                raise

    @property
    def engine(self) -> Engine:
        """The engine; raises ClosedIndexError after `close`."""
        if self._closed:
            raise ClosedIndexError(f"The index {self.location} was closed. Open it again.")
        if self._engine is None:
            if self._reopen is None:
                raise StorageError(f"{self.location} was opened before this process was forked. Open it in the child.")
            self._engine = self._reopen()
            if self._bound is not None:
                self._engine.open(None, create=False)
        return self._engine

    def bound(self) -> Specification | None:
        """What the index is bound to; None while nobody has written to it."""
        engine = self.engine
        if self._bound is None and time.monotonic() >= self._looked + FRESH:
            self._looked = time.monotonic()
            try:
                self._bound = engine.open(None, create=False)
            except IndexNotFoundError:
                return None
            self.forget()
        return self._bound

    def bind(self, specification: Specification) -> Specification:
        """Make the collection. Raises IndexMismatchError where another process has just made it with other models."""
        self._bound = self.engine.open(specification, create=True)
        self.forget()
        return self._bound

    def meta(self, name: str) -> Any:
        """A value that the index remembers under that name, None if there is none."""
        bound = self.bound()
        if bound is None:
            return None
        if name == "encoder":
            return dict(bound.encoder)
        if time.monotonic() >= self._looked + FRESH:
            self._meta = self.engine.read_state("meta/")
            self._looked = time.monotonic()
        return self._meta.get(f"meta/{name}")

    def forget(self) -> None:
        """Look anew at what is remembered the next time that somebody asks."""
        self._looked = -FRESH

    @contextmanager
    def reading(self) -> Iterator[EngineView]:
        """What the engine holds."""
        _ = self.engine
        yield EngineView(self)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one thread of this process write at a time. Raises IndexLockedError, ReadOnlyIndexError."""
        _ = self.engine
        if self._read_only:
            raise ReadOnlyIndexError(f"{self.location} was opened with read_only=True. Open it without to change it.")
        if not self._lock.acquire(timeout=self._timeout):
            raise IndexLockedError(self.location, None, None, self._timeout)
        try:
            self.forget()
            yield
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """Leave the engine to the parent of this process."""
        _abandoned.append(self._engine)
        self._engine, self._lock = None, threading.Lock()

    def close(self) -> None:
        """Let go of the engine; a second call does nothing."""
        if not self._closed and self._engine is not None:
            self._engine.close()
        self._closed = True


_abandoned: list[Engine | None] = []  # so that nothing is closed under the parent


class EngineView:
    """What an engine holds; before anything was written, nothing."""

    def __init__(self, store: EngineStore) -> None:
        self._store = store
        self._engine = store.engine
        self._ids: list[str] = []
        self._numbers: dict[str, int] = {}

    @property
    def engine(self) -> Engine:
        """The engine that is looked at."""
        return self._engine

    @property
    def bound(self) -> Specification | None:
        """What the index is bound to; None while nobody has written to it."""
        return self._store.bound()

    def number(self, id: str) -> int:
        """The number that stands for a document's id."""
        if id not in self._numbers:
            self._numbers[id] = len(self._ids)
            self._ids.append(id)
        return self._numbers[id]

    def id_of(self, number: int) -> str:
        """The id that a number stands for."""
        return self._ids[number]

    def meta(self, name: str) -> Any:
        """A value that the index remembers under that name, None if there is none."""
        return self._store.meta(name)

    def generation(self) -> int:
        """A number that rises with every commit; 0 before the first."""
        return int(self.meta("generation") or 0)

    def counts(self) -> tuple[int, int]:
        """How many documents and passages there are."""
        return (0, 0) if self.bound is None else self._engine.count()

    def document(self, id: str) -> Document | None:
        """The document with that id."""
        return self.documents([id]).get(id)

    def documents(self, ids: Sequence[str]) -> Mapping[str, Document]:
        """The documents with these ids that there are."""
        if self.bound is None:
            return {}
        return {id: entry.document for id, entry in self._engine.get(ids).items()}

    def key(self, id: str) -> int | None:
        """The number of a document, None if there is none with that id."""
        return None if self.document(id) is None else self.number(id)

    def vectors(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors already known for these digests, each (dimension,) float32."""
        return self._engine.vectors(digests)

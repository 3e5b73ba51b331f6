"""`EngineIndex`: an `Index` that lives in an engine past this machine, with the same methods."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from semsearch.analysis import Analyzer, get_analyzer
from semsearch.binding import settled_encoder
from semsearch.detection import TEXTS, detect
from semsearch.encoding import Encoder, fingerprint, get_encoder
from semsearch.engines import open_engine
from semsearch.engines.protocol import Engine, Specification
from semsearch.enginesnapshot import EngineSnapshot
from semsearch.enginestore import EngineStore
from semsearch.enginewriter import EngineLegs, EngineWriter
from semsearch.errors import ClosedIndexError, EngineUnavailableError, IndexMismatchError, InputError
from semsearch.filters import Where, parse
from semsearch.forking import forget, watch
from semsearch.index import Index, check_timeout, checked_id, checked_ids
from semsearch.ingest import Batch
from semsearch.items import label
from semsearch.records import Document

if TYPE_CHECKING:
    from semsearch.backup import BackupReport
    from semsearch.health import CheckReport
    from semsearch.items import Progress
    from semsearch.reading import Answerer
    from semsearch.tuning import Choice

__all__ = ["EngineIndex"]

BLOCK = 64  # documents that are asked for at a time


class EngineIndex(Index):
    """A searchable collection of documents in an engine past this machine; `Index(location)` gives it.

    What is here is as in `Index`, but for what only a folder has: `path`, `backup`, and a choice of `lexical`, `recall`
    and `storage`, which are the engine's. A search sees the index as it is, not a whole generation of it; documents
    are never seen by halves. Any number of processes may read and write.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        *,
        encoder: str | Encoder | None = None,
        analyzer: str | Analyzer | None = None,
        lexical: str | None = None,
        recall: float = 0.99,
        storage: str = "float32",
        read_only: bool = False,
        create: bool = True,
        timeout: float = 5.0,
    ) -> None:
        for name, value, usual in (
            ("lexical", lexical, None),
            ("recall", recall, 0.99),
            ("storage", storage, "float32"),
        ):
            if value != usual:
                raise InputError(f"{name}={value!r} is for an index in a folder; an engine goes by its own settings.")
        check_timeout(timeout)
        reopen = partial(open_engine, str(location))
        store = partial(EngineStore, read_only=read_only, create=create, timeout=timeout, reopen=reopen)
        self._begin(store(reopen()), encoder, analyzer)

    @classmethod
    def _over(
        cls,
        engine: Engine,
        *,
        encoder: str | Encoder | None = None,
        analyzer: str | Analyzer | None = None,
        read_only: bool = False,
        create: bool = True,
        timeout: float = 5.0,
    ) -> EngineIndex:
        """An index over an engine that is not opened yet, and closed with the index."""
        index: EngineIndex = object.__new__(cls)
        store = EngineStore(engine, read_only=read_only, create=create, timeout=timeout, reopen=None)
        index._begin(store, encoder, analyzer)
        return index

    def _begin(self, store: EngineStore, encoder: str | Encoder | None, analyzer: str | Analyzer | None) -> None:
        self._store: EngineStore = store  # type: ignore[assignment]
        self.location = store.location
        self.label = label(store.location)
        self._encoder_given, self._analyzer_given = encoder, analyzer
        self._encoder: Encoder | None = None
        self._answerer: Answerer | None = None
        self._mutex = threading.RLock()
        watch(self)
        try:
            with self._store.reading() as view:
                self._analyzer = self._settled_analyzer(view)  # type: ignore[arg-type]
                self._check_rules(store.bound())
                if encoder is not None:
                    self._encoder = self._settled_encoder(view)
        except BaseException:
            self.close()
            raise

    @property
    def ranks_keywords(self) -> bool:  # type: ignore[override]
        """Whether the engine ranks by keyword, too."""
        return self._store.bound() is None or self._store.engine.capabilities.text

    # -- models ------------------------------------------------------------------------------------------------------

    def _settled_encoder(self, view: Any) -> Encoder:
        spec = view.meta("encoder_spec")
        if view.meta("language") is None:  # whoever made the collection did not come to say how to find the encoder
            given = get_encoder(self._encoder_given)
            return settled_encoder(self.location, given, view.meta("encoder"), spec)
        return settled_encoder(self.location, self._encoder_given, view.meta("encoder"), spec)

    def _rules(self) -> dict[str, Any]:
        """What keywords depend on beside the language, which may still be told from texts that are to come."""
        return {name: value for name, value in self._analyzer.fingerprint().items() if name != "language"}

    def _check_rules(self, bound: Specification | None) -> None:
        if bound is not None and dict(bound.analyzer) != self._rules():
            raise IndexMismatchError(
                f"The keywords of {self.location} were made by the rules {dict(bound.analyzer)!r}, which this release "
                f"has as {self._rules()!r}. Copy it with this release: semsearch copy {self.location} NEW."
            )

    def _settle(self, writer: EngineWriter, encoder: Encoder) -> None:  # type: ignore[override]
        """Bind a new index to its models; another process may have done so first."""
        own = fingerprint(encoder)
        bound = self._store.bound() or self._store.bind(Specification(int(encoder.dimension), own, self._rules()))
        self._check_rules(bound)
        self._follow(writer)
        self._check_models(writer, {**bound.encoder})  # type: ignore[arg-type]
        if writer.meta("language") is None:
            with writer.commit():
                self._remember_models(writer, encoder)
        writer.analyze = self._analyzer

    def _follow(self, view: Any) -> None:
        """Take over the language that another process told from the texts since this one opened the index."""
        language = view.meta("language")
        if self._analyzer_given is None and language not in (None, self._analyzer.language):
            self._analyzer = get_analyzer(language)

    def _choose_language(  # type: ignore[override]
        self, writer: EngineWriter, texts: Iterable[str]
    ) -> tuple[Analyzer, EngineLegs, dict[str, Any]]:
        """By the texts that are there, few or it would be settled, and the first that come; and what to remember."""
        there = (entry.document.text for _, entry in writer.engine.scan("", TEXTS))
        found = detect(chain(there, texts))
        analyzer = self._analyzer
        language = found.instead_of(analyzer.language)
        if language != analyzer.language:
            # Until this is committed, a search of another thread goes on with the language that is.
            self._analyzer = analyzer = get_analyzer(language)
            writer.analyze_again(analyzer)
        return analyzer, EngineLegs(), {"language": language, "language_settled": found.settled}

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _write(self) -> Iterator[EngineWriter]:
        with self._store.lock():
            yield EngineWriter(self._store)

    @contextmanager
    def _writing(self) -> Iterator[Batch]:
        encoder = self.encoder  # loading a model takes a while: before the lock
        with self._write() as writer:
            self._settle(writer, encoder)
            batch = Batch(writer, encoder, self._analyzer, EngineLegs(), self._mutex)
            if self._is_undecided(writer):  # type: ignore[arg-type]
                batch.choose = partial(self._choose_language, writer)
            try:
                yield batch
            except BaseException:
                self._store.forget()
                raise

    def remove(self, ids: str | Iterable[str]) -> int:
        """Remove documents by id; returns how many were there."""
        wanted = checked_ids(ids)
        removed = 0
        with self._write() as writer:
            for first in range(0, len(wanted), BLOCK):
                there = writer.documents(wanted[first : first + BLOCK])
                if there:
                    with self._mutex, writer.commit():
                        writer.remove([writer.number(id) for id in there])
                removed += len(there)
        return removed

    def optimize(self) -> None:
        """Have the engine give back room. Never needed for right results."""
        with self._write() as writer:
            if writer.bound is not None:
                writer.engine.compact()

    def learn(self, choice: Choice) -> None:
        """Store how hybrid search joins its legs from now on: what `Retriever.tune` does with its choice."""
        with self._write() as writer:
            self._settle(writer, self.encoder)
            with writer.commit():
                writer.set_meta("fusion", choice.to_dict())

    # -- reading -----------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[EngineSnapshot]:
        """The index as it is, to search in."""
        with self._store.reading() as view:
            self._follow(view)
            encoder = view.meta("encoder")
            if encoder is not None:
                self._check_models(view, encoder)  # type: ignore[arg-type]
            yield EngineSnapshot(view, self._analyzer)

    @contextmanager
    def holdings(self) -> Iterator[EngineSnapshot]:
        """The same."""
        with self.snapshot() as snapshot:
            yield snapshot

    def get(self, id: str) -> Document | None:
        """The document with that id, None if there is none."""
        checked_id(id)
        with self._store.reading() as view:
            return view.document(id)

    def documents(self, where: Where | None = None) -> Iterator[Document]:
        """All documents, or those that match, in the engine's order, in constant memory."""
        condition = None if where is None else parse(where)
        mark = ""
        while True:
            with self._store.reading() as view:
                batch = [] if view.bound is None else view.engine.scan(mark, BLOCK, condition)
            if not batch:
                return
            for mark, entry in batch:  # noqa: B007
                yield entry.document

    def info(self) -> dict[str, Any]:
        """What the index holds and what it was made with, as `Index.info`; `generation` rises with every commit."""
        from semsearch.tuning import Choice, learned

        with self._store.reading() as view:
            documents, passages = view.counts()
            stored = view.meta("fusion")
            by_rank = stored is None and not self._store.engine.capabilities.scores
            return {
                "path": self.location,
                "documents": documents,
                "passages": passages,
                "generation": view.generation(),
                "encoder": view.meta("encoder"),
                "language": view.meta("language"),
                "fusion": (Choice("rrf", 0.5) if by_rank else learned(stored)).to_dict()
                | {"learned": stored is not None},
            }

    def __len__(self) -> int:
        """The number of passages."""
        with self._store.reading() as view:
            return view.counts()[1]

    def check(self, repair: bool = False) -> CheckReport:
        """Whether what the engine holds is in order: counts, offsets, vectors. The whole index is read.

        `repair=True` removes what interrupted writes have left. What is wrong in a document is only told: index it
        again.
        """
        from semsearch.enginecheck import check

        with self._store.reading() as view:
            report = check(view)
        if not repair or not (report.cache or report.leftovers):
            return report
        done = (*report.cache, *report.leftovers)
        self.optimize()
        with self._store.reading() as view:
            return check(view, repaired=done)

    def backup(self, path: str | os.PathLike[str], *, progress: Progress = None) -> BackupReport:
        """Raises InputError: `semsearch copy` makes a folder of an index in an engine."""
        raise InputError(
            f"{self.location} is not in a folder that could be copied as it is. Copy its documents and vectors into "
            f"one: semsearch copy {self.location} {os.fspath(path)}"
        )

    # -- life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the index; using it afterwards raises ClosedIndexError. A second call does nothing."""
        self._store.close()
        self._answerer = None
        self._retrievers.clear()
        forget(self)

    def __repr__(self) -> str:
        try:
            with self._store.reading() as view:
                documents, passages = view.counts()
                stored = view.meta("encoder")
        except ClosedIndexError:
            return f"<Index {self.location!r}, closed>"
        except EngineUnavailableError:
            return f"<Index {self.location!r}, away>"
        made = f", {stored['name']}" if stored else ""
        return f"<Index {self.location!r}: {documents} documents, {passages} passages{made}>"

    def _forked(self) -> None:
        self._mutex = threading.RLock()  # another thread of the parent may have held it
        self._store.abandon()

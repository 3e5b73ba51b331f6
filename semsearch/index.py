"""`Index`: what documents go into and passages come out of, one folder on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial, wraps
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

import semsearch
from semsearch.analysis import Analyzer, get_analyzer
from semsearch.binding import check_same, settled_analyzer, settled_encoder
from semsearch.corpus import Corpus
from semsearch.detection import TEXTS, detect
from semsearch.encoding import Encoder, fingerprint, spec_of
from semsearch.errors import ClosedIndexError, IndexMismatchError, InputError, ModelError
from semsearch.filters import Where, shown
from semsearch.forking import forget, watch
from semsearch.holdings import Holdings
from semsearch.ingest import AddReport, Batch, checked_vectors
from semsearch.items import Item, Progress, expanded, short, to_document, watched
from semsearch.legs import Legs, legs_of
from semsearch.lexical import get_lexical
from semsearch.records import Answer, Document
from semsearch.snapshots import Snapshot
from semsearch.store import Store
from semsearch.tables import View, Writer
from semsearch.vectors import check_storage
from semsearch.writers import AnyWriter

if TYPE_CHECKING:
    from semsearch.backup import BackupReport
    from semsearch.health import CheckReport
    from semsearch.inspection import Findings
    from semsearch.reading import Answerer
    from semsearch.retrieval import Hits, Retriever
    from semsearch.sync import SyncReport
    from semsearch.tuning import Choice

__all__ = ["AddReport", "BackupReport", "CheckReport", "Index", "Item", "Progress", "Snapshot", "SyncReport"]

_REPORTS = {"BackupReport": "backup", "CheckReport": "health", "SyncReport": "sync"}


def __getattr__(name: str) -> Any:
    """A report's class, from its module: those that no search needs are loaded when they are first used (PEP 562)."""
    if name not in _REPORTS:
        raise AttributeError(f"module 'semsearch.index' has no attribute {name!r}")
    return getattr(import_module(f"semsearch.{_REPORTS[name]}"), name)


class Index(Corpus):
    """A searchable collection of documents: one folder on disk, or in an engine past this machine.

    with semsearch.Index("indexes/handbook") as index:
        index.sync("~/handbook")
        for hit in index.search("late fees"):
            print(hit.score, hit.passage.document_id, hit.passage.text)

    Parameters
    ----------
    location : the folder; `~` is the home folder. It is created if it is not there, unless `create=False`. Or where in
        an engine: "milvus://host:19530/handbook", "milvus:///path/file.db"; see docs/past-one-machine.md.
    encoder : None for the one that the index was made with (all-MiniLM-L6-v2 for a new index, which ships with the
        package), a name or path that sentence-transformers knows, a folder made by `compile_encoder`, or an object with
        the `Encoder` protocol. Another one than the index was made with raises IndexMismatchError.
    analyzer : how text becomes keywords: a Snowball language ("english", "german", ...), "none" for no stemming, or an
        Analyzer; None for the one the index was made with. A new index takes the language of its first texts, and
        decides again as long as they are too few to tell; "none" where they are mixed.
    lexical : the BM25 variant: "lucene" (default), "okapi", "l", "plus", or "rank_bm25" for the rank-bm25 package.
        It is a matter of each opening, not of the index.
    recall : the share of the ten nearest passages that the dense leg should find. Search is exact up to a size, and
        always for 1.0; beyond, an approximate index proposes candidates, with what it takes measured on the vectors.
    storage : how vectors are kept for searching: "float32", "float16", "int8", or "pq", where beyond that size only
        codes are kept and candidates are scored from the database. The database itself always has float32. It is a
        matter of each opening, but the cache serves the storage it was written with: `optimize` writes it anew.
    read_only : open for searching only; works on read-only media, where it creates no file.
    timeout : seconds to wait for another process that is writing.

    Any number of processes and threads may read while one writes. Each write takes the writer lock for its duration.
    """

    ranks_keywords: bool = True  # whether keywords count in a search, beside meaning

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
        if not isinstance(recall, (int, float)) or not 0 < recall <= 1:
            raise InputError(f"recall is a share between 0 and 1, not {recall!r}.")
        self._recall, self._storage = float(recall), check_storage(storage)
        check_timeout(timeout)
        get_lexical(lexical)  # raises for a name that is not known
        self.path: Path = _folder(location)
        self.location, self.label = str(self.path), self.path.name  # for showing
        self._lexical_name = lexical
        self._encoder_given = encoder
        self._analyzer_given = analyzer
        self._encoder: Encoder | None = None
        self._mutex = threading.RLock()
        self._legs: Legs | None = None
        self._is_ahead = False  # whether the analyzer is of a language that is told and not yet committed
        self._answerer: Answerer | None = None
        self._store = Store(self.path, read_only=read_only, create=create, timeout=timeout)
        watch(self)
        try:
            with self._store.reading() as view:
                self._analyzer = self._settled_analyzer(view)
                if encoder is not None:
                    self._encoder = self._settled_encoder(view)
        except BaseException:
            self.close()
            raise

    if not TYPE_CHECKING:  # where types are checked, as in help(Index), the signature is that of __init__

        @wraps(__init__, assigned=(), updated=())
        def __new__(cls, location, *arguments, **options):
            """An index in a folder, or in an engine past this machine."""
            if cls is Index and "://" in str(location):
                from semsearch.engines import is_location

                if is_location(str(location)):
                    cls = import_module("semsearch.engineindex").EngineIndex
            return object.__new__(cls)

    # -- models ------------------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder:
        """The encoder in use, loaded when it is first needed."""
        if self._encoder is None:
            with self._mutex, self._store.reading() as view:
                self._encoder = self._settled_encoder(view)
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        """Use another object with the same fingerprint, such as one that encodes on several machines."""
        check_same(self.location, fingerprint(self.encoder), fingerprint(encoder))
        self._encoder = encoder
        self._retrievers.clear()  # a reranker may use the other one

    @property
    def analyzer(self) -> Analyzer:
        """What turns text into keywords."""
        return self._analyzer

    def _settled_encoder(self, view: View) -> Encoder:
        return settled_encoder(self.location, self._encoder_given, view.meta("encoder"), view.meta("encoder_spec"))

    def _settled_analyzer(self, view: View) -> Analyzer:
        return settled_analyzer(self.location, self._analyzer_given, view.meta("language"))

    @cached_property
    def _retrievers(self) -> dict[str, Retriever]:
        """Those that searched, by mode: a learned reranker is loaded once, and what is said once is."""
        return {}

    # -- writing -----------------------------------------------------------------------------------------------------

    def sync(
        self, folder: str | os.PathLike[str], *, pattern: str | Sequence[str] | None = None, progress: Progress = None
    ) -> SyncReport:
        """Bring the index up to the state of a folder, and say what was done.

        Only files whose size, modification time or inode changed are read, and only text that is new is embedded. A
        renamed file keeps its passages. Files that cannot be read are reported with a reason and stop nothing.
        Deletions are looked for inside `folder` only. What was done before an interruption is kept: call it again to
        go on.

        `pattern` limits the files, as "*.md" or ["docs/**/*.md", "*.txt"]; `progress` is True or False for a bar on
        the terminal, None for a bar when a person is watching, or a function of (done, total).
        """
        from semsearch.sync import resolved_folder, sync_folder

        path = resolved_folder(folder)
        with self._writing() as batch:
            return sync_folder(batch, path, pattern, partial(watched, progress=progress), semsearch.__version__)

    def add(self, items: Iterable[Item] | Item, *, progress: Progress = None) -> AddReport:
        """Add documents; one with the id of an earlier one replaces it. All is durable when this returns.

        An item is a Document, a mapping with `id`, `text` and, if wanted, `title`, `source`, `metadata`, a pair
        (id, text), or a string, whose id is made from its content. Any iterable will do: it is read once, in batches.
        An item that cannot be used raises InputError; the batches before it are committed.
        """
        if isinstance(items, tuple) and len(items) == 2 and all(isinstance(each, str) for each in items):
            raise InputError(f"{short(items)} may be one pair (id, text) or two texts. Pass a list: [(id, text)].")
        single = isinstance(items, (str, Mapping, Document))
        if not single and not isinstance(items, Iterable):
            raise InputError(
                f"Cannot add {short(items)}. Pass a Document, a mapping, a string, or an iterable of such."
            )
        documents = map(to_document, [items] if single else items)  # type: ignore[arg-type]
        with self._writing() as batch:
            for document in batch.ahead(watched(documents, progress=progress)):
                batch.put(document)
            batch.commit()
            return AddReport(
                added=batch.added, updated=batch.updated, unchanged=batch.unchanged, notes=tuple(batch.notes)
            )

    def remove(self, ids: str | Iterable[str]) -> int:
        """Remove documents by id; returns how many were there."""
        wanted = checked_ids(ids)
        with self._store.writing() as writer, self._mutex:
            keys = [key for key in map(writer.key, wanted) if key is not None]
            if keys:
                legs = self._legs_for(writer)
                with legs.commit(writer):
                    writer.remove(keys)
                if legs.is_stale(writer):
                    self._publish(writer, legs)
            return len(keys)

    def optimize(self) -> None:
        """Compact the database and write the cache afresh. Never needed for right results."""
        with self._store.writing() as writer, self._mutex:
            if writer.meta("encoder") is not None:
                self._publish(writer, self._legs_for(writer))
            writer.compact()

    @contextmanager
    def _writing(self) -> Iterator[Batch]:
        encoder = self.encoder  # loading a model takes a while: before the lock
        with self._store.writing() as writer:
            self._settle(writer, encoder)
            with self._mutex:
                legs = _begun(self._legs_for(writer), writer)
            batch = Batch(writer, encoder, self._analyzer, legs, self._mutex)
            if self._is_undecided(writer):
                batch.choose = partial(self._choose_language, writer)
            try:
                yield batch
            except BaseException:
                with self._mutex:
                    self._is_ahead = False  # a choice that was not committed is none
                    self._follow(writer)
                raise
            with self._mutex:
                legs = self._legs_for(writer)
                if legs.is_stale(writer):
                    self._publish(writer, legs)

    def _is_undecided(self, view: View) -> bool:
        """Whether the language is still to be told from the texts; an index of an earlier release has one for good."""
        return self._analyzer_given is None and view.meta("language_settled") is False

    def _choose_language(self, writer: Writer, texts: Iterable[str]) -> tuple[Analyzer, Legs, dict[str, Any]]:
        """By the texts that are there, few or it would be settled, and the first that come; and what to remember."""
        found = detect(chain((document.text for _, document in writer.documents(0, TEXTS)), texts))
        language = found.instead_of(self._analyzer.language)  # a new index begins with English
        with self._mutex:
            if language != self._analyzer.language:
                self._analyzer, self._legs, self._is_ahead = get_analyzer(language), None, True
            legs = _begun(self._legs_for(writer), writer)
            return self._analyzer, legs, {"language": language, "language_settled": found.settled}

    def _follow(self, view: View) -> None:
        """Take over the language that another process told from the texts since this one opened the index."""
        language = view.meta("language")
        if language == self._analyzer.language:
            self._is_ahead = False
        elif language is not None and not self._is_ahead:
            self._legs = None  # an analyzer that was given does not fit any more, which is told when they are made
            if self._analyzer_given is None:
                self._analyzer = get_analyzer(language)

    def _settle(self, writer: Writer, encoder: Encoder) -> None:
        """Bind a new index to its models; another process may have done so first."""
        own = fingerprint(encoder)
        if writer.meta("encoder") is None:
            with writer.commit():
                writer.set_meta("encoder", own)
                self._remember_models(writer, encoder)
        else:
            with self._mutex:
                self._follow(writer)
            self._check_models(writer, writer.meta("encoder"))

    def _remember_models(self, writer: AnyWriter, encoder: Encoder) -> None:
        """How to find the encoder again, and the language as far as it is told."""
        writer.set_meta("encoder_spec", spec_of(self._encoder_given or encoder.name))
        writer.set_meta("language", self._analyzer.language)
        writer.set_meta("language_settled", self._analyzer_given is not None)

    def _check_models(self, view: View, stored: Mapping[str, Any]) -> None:
        """An index that was opened while it was new may have been bound to other models by another process since."""
        own = None if self._encoder is None else fingerprint(self._encoder)
        other = self._analyzer_given is not None and view.meta("language") not in (None, self._analyzer.language)
        if own not in (None, stored) or other:
            raise IndexMismatchError(
                f"{self.location} was meanwhile bound to {stored['name']} and the analyzer for "
                f"{view.meta('language')!r} by another process. Close it and open it again, without encoder= and "
                "analyzer=."
            )

    def _publish(self, writer: Writer, legs: Legs) -> None:
        generation = legs.publish(writer)
        if generation >= 0:
            writer.forget_history(generation)

    # -- reading -----------------------------------------------------------------------------------------------------

    @contextmanager
    def holdings(self) -> Iterator[Holdings]:
        """What one whole generation holds, to be read at length: nobody is held up meanwhile."""
        with self._store.apart() as view:
            yield Holdings(view)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """One whole generation to search in, the last one at the time the block starts."""
        with self._mutex, self._store.reading() as view:
            yield Snapshot(view, self._legs_for(view), self._analyzer)

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        """The (n, dimension) float32 unit vectors of queries; raises ModelError where the encoder gives none."""
        vectors = checked_vectors(self.encoder, list(queries), "query")
        for query, vector in zip(queries, vectors, strict=True):
            if not vector.any():
                raise ModelError(
                    f"The encoder {self.encoder.name!r} gave no usable vector (zero or not finite) for the query "
                    f"{query[:80]!r}. Search with mode='lexical'."
                )
        return vectors

    def _legs_for(self, view: View) -> Legs:
        self._follow(view)
        if self._legs is None:
            encoder = view.meta("encoder")
            if encoder is not None:
                self._check_models(view, encoder)
            legs = legs_of(
                view,
                self.path / "cache",
                self._analyzer,
                lexical=self._lexical_name,
                recall=self._recall,
                storage=self._storage,
            )
            if encoder is None:  # nothing was written yet: do not keep what does not know its dimension
                return legs
            self._legs = legs
        return self._legs

    @overload
    def search(self, query: str, k: int = 10, *, where: Where | None = None, mode: str = "hybrid") -> Hits: ...  # type: ignore[overload-overlap]
    @overload
    def search(
        self, query: Sequence[str], k: int = 10, *, where: Where | None = None, mode: str = "hybrid"
    ) -> list[Hits]: ...
    def search(
        self, query: str | Sequence[str], k: int = 10, *, where: Where | None = None, mode: str = "hybrid"
    ) -> Hits | list[Hits]:
        """The k best passages for a query; `Retriever` has the parts in the open."""
        retriever = self._retrievers.get(mode) if isinstance(mode, str) else None
        if retriever is None:
            from semsearch.retrieval import Retriever

            retriever = self._retrievers[mode] = Retriever(self, mode=mode)
        return retriever.search(query, k=k, where=where)

    @overload
    def ask(self, question: str, k: int = 20, *, where: Where | None = None) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def ask(self, question: Sequence[str], k: int = 20, *, where: Where | None = None) -> list[Answer]: ...
    def ask(self, question: str | Sequence[str], k: int = 20, *, where: Where | None = None) -> Answer | list[Answer]:
        """The answer to a question, a span of a document with a probability; `Answerer` has the parts in the open."""
        if self._answerer is None:
            from semsearch.reading import Answerer
            from semsearch.retrieval import Retriever

            self._answerer = Answerer(Retriever(self))
        return self._answerer.answer(question, k=k, where=where)

    def get(self, id: str) -> Document | None:
        """The document with that id, None if there is none."""
        checked_id(id)
        with self._mutex, self._store.reading() as view:
            return view.document(id)

    def documents(self, where: Where | None = None) -> Iterator[Document]:
        """All documents, or those that match, in the order they first came, in constant memory."""
        last = 0
        while True:
            with self._mutex, self._store.reading() as view:
                rows = view.documents(last, 64, where)
            if not rows:
                return
            for last, document in rows:  # noqa: B007
                yield document

    def learn(self, choice: Choice) -> None:
        """Store how hybrid search joins its legs from now on: what `Retriever.tune` does with its choice."""
        with self._store.writing() as writer, self._mutex, writer.commit():
            writer.set_meta("fusion", choice.to_dict())

    def info(self) -> dict[str, Any]:
        """What the index holds and what it was made with, JSON values: sizes, encoder, language, fusion.

        `fusion` is how hybrid search joins its legs: its name, the share of the dense leg, and whether it was learned.
        """
        from semsearch.tuning import learned

        with self._mutex, self._store.reading() as view:
            documents, passages = view.counts()
            stored = view.meta("fusion")
            return {
                "path": self.location,
                "documents": documents,
                "passages": passages,
                "generation": view.generation(),
                "encoder": view.meta("encoder"),
                "language": view.meta("language"),
                "fusion": learned(stored).to_dict() | {"learned": stored is not None},
            }

    def __len__(self) -> int:
        """The number of passages."""
        with self._mutex, self._store.reading() as view:
            return view.counts()[1]

    def check(self, repair: bool = False) -> CheckReport:
        """Whether database, texts, offsets, vectors, filters and caches are in order; see `CheckReport`.

        The whole index is read, while searches and another process's writing go on. `repair=True` holds the writer lock
        and makes again what is derived where it is wrong; what is wrong in the database itself is only told, since
        nothing could be more than a guess at it. Raises ReadOnlyIndexError for the repair of an index that cannot be
        written.

        >>> index.check().ok  # doctest: +SKIP
        True
        """
        from semsearch import health

        if not repair:
            return health.report(self._inspected(self._store.apart))
        done: list[str] = []
        with self._store.writing() as writer:
            found = self._inspected(lambda: nullcontext(writer), alone=True)
            for _ in range(2):  # with an index of SQLite's damaged, the rest is only looked at in the second round
                if not found.repairable:
                    break
                done += found.repairable
                health.repair(writer, found)
                if found.cache:
                    self._publish_afresh(writer)
                found = self._inspected(lambda: nullcontext(writer), alone=True)
        return health.report(found, done)

    def _inspected(self, reading: Callable[[], AbstractContextManager[View]], *, alone: bool = False) -> Findings:
        from semsearch import health
        from semsearch.inspection import inspect

        with reading() as view:
            found = inspect(view)
        if not found.problems and not found.indexes:
            found.cache = health.cache_problems(partial(self._legs_to_check, reading), self.path / "cache")
        found.leftovers = health.leftovers(self.path, alone=alone)
        return found

    @contextmanager
    def _legs_to_check(
        self, reading: Callable[[], AbstractContextManager[View]]
    ) -> Iterator[tuple[View, Iterator[Legs]]]:
        """A View; then the legs in memory if there are any, and in their place those that a new opening would have."""
        with self._mutex, reading() as view:

            def each() -> Iterator[Legs]:
                if self._legs is not None:
                    yield self._legs
                self._legs = None  # before the others are read: there is no need for room for both
                yield self._legs_for(view)

            self._follow(view)  # before the legs in memory are looked at
            yield view, each()

    def _publish_afresh(self, writer: Writer) -> None:
        with self._mutex:
            (self.path / "cache" / "CURRENT.json").unlink(missing_ok=True)
            self._legs = None
            if writer.meta("encoder") is not None:
                self._publish(writer, self._legs_for(writer))

    def backup(self, path: str | os.PathLike[str], *, progress: Progress = None) -> BackupReport:
        """Copy the index into a new folder, while searches and another process's writing go on.

        The copy is one whole generation, the last one at the time of the call, and an index like any other: open it
        with `semsearch.Index(path)`. It holds the database alone; caches are derived and made again when they are
        needed. The folder must not exist, or be empty; what was not finished is never taken for an index.

        `progress` is True or False for a bar on the terminal, None for a bar when a person is watching, or a function
        of (done, total) in bytes. Raises InputError for a folder that cannot be the target, StorageFullError if there
        is no room there, CorruptIndexError if the index is damaged; then nothing is left behind.

        >>> index.backup("/media/backup/handbook")  # doctest: +SKIP
        BackupReport(path='/media/backup/handbook', size=1982464, documents=12, passages=96)
        """
        from semsearch.backup import back_up

        with self._store.apart() as view:
            return back_up(view, self.path, expanded(path), progress)

    # -- life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the index; using it afterwards raises ClosedIndexError. A second call does nothing."""
        with self._mutex:
            self._store.close()
            self._legs = None
            self._answerer = None
            self._retrievers.clear()
        forget(self)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            with self._mutex, self._store.reading() as view:
                documents, passages = view.counts()
                stored = view.meta("encoder")
        except ClosedIndexError:
            return f"<Index {self.location!r}, closed>"
        made = f", {stored['name']}" if stored else ""
        return f"<Index {self.location!r}: {documents} documents, {passages} passages{made}>"

    def _forked(self) -> None:
        self._mutex = threading.RLock()  # another thread of the parent may have held it
        self._store.abandon()


def _begun(legs: Legs, writer: Writer) -> Legs:
    """The legs; those of an index that never had a passage begin empty."""
    if not writer.last_passage():
        legs.start_empty(writer.generation())
    return legs


def checked_id(id: Any) -> str:
    """An id as it was given; raises InputError for what is none."""
    if not isinstance(id, str):
        raise InputError(f"An id is a string, not {shown(id)}.")
    return id


def checked_ids(ids: Any) -> list[str]:
    """One id or several, each once, in their order; raises InputError for what is none."""
    several = ids if isinstance(ids, Iterable) and not isinstance(ids, str) else [ids]
    return list(dict.fromkeys(map(checked_id, several)))


def check_timeout(timeout: Any) -> None:
    """Raises InputError for what is no number of seconds."""
    if not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise InputError(f"timeout is a number of seconds, not {timeout!r}.")


def _folder(location: str | os.PathLike[str]) -> Path:
    if "://" in str(location) or str(location).startswith("milvus:/"):  # a Path has one slash less
        raise InputError(
            f"{str(location)!r} is neither the path of a folder nor, as a string, of the form milvus://host:port/name."
        )
    return expanded(location)

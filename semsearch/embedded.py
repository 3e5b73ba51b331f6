"""An index in a folder as an engine: the same passages and rankings as `Index` has, by the protocol of engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.analysis import get_analyzer
from semsearch.chunking import embedded_text
from semsearch.engines.protocol import Capabilities, Entry, Part, Ranking, Specification
from semsearch.entries import failed_name, file_of, row_of
from semsearch.errors import ClosedIndexError, IndexMismatchError, IndexNotFoundError, InputError
from semsearch.filters import Condition
from semsearch.legs import AddedPassage, Legs, legs_of
from semsearch.records import Document, Passage
from semsearch.snapshots import Snapshot
from semsearch.store import Store
from semsearch.tables import FileRow, NewPassage, Root, View, Writer, digest, dump_metadata

__all__ = ["EmbeddedEngine"]

# In the table meta, and no state of ours: what the database is, and what a Specification says.
OWN = ("uuid", "created", "migrations", "encoder", "bound")
OTHER = "state/"  # before names of states that have no table


class EmbeddedEngine:
    """An index in a folder, by the protocol of engines: see `semsearch.engines.protocol.Engine`.

    Keywords of passages are taken as they come; where the cache is built anew they are made of the texts again, by the
    analyzer for the state "meta/language". `recall` is as for `Index`: with 1.0 the dense rankings are those of exact
    search. The state "root/N" has to be written before files with that root, and "failed/N/…" holds such a file.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, timeout: float = 5.0, recall: float = 1.0) -> None:
        self.location = str(folder)
        self.capabilities = Capabilities(text=True, exact=recall == 1, scores=True, generations=False)
        self._folder = folder
        self._options: dict[str, Any] = {"read_only": read_only, "timeout": timeout}
        self._recall = recall
        self._mutex = threading.RLock()
        self._opened: Store | None = None
        self._specification: Specification | None = None
        self._legs: tuple[str, Legs] | None = None  # with the language that they were made for

    # -- opening -----------------------------------------------------------------------------------------------------

    def open(self, specification: Specification | None, *, create: bool) -> Specification:
        """See `Engine.open`; what an index has no room for, such as `shards`, is not kept."""
        if self._opened is None:
            self._opened = Store(self._folder, create=create and specification is not None, **self._options)
        with self._mutex, self._store.reading() as view:
            encoder, bound = view.meta("encoder"), view.meta("bound")
        if encoder is None:
            if specification is None or not create:
                raise IndexNotFoundError(f"The index {self.location} is empty. Index something first.")
            encoder = {**specification.encoder, "dimension": specification.dimension}
            bound = {"encoder": dict(specification.encoder), "analyzer": dict(specification.analyzer)}
            with self._writing() as writer, writer.commit():
                writer.set_meta("encoder", encoder)
                writer.set_meta("bound", bound)
        stored = Specification(int(encoder["dimension"]), **(bound or {"encoder": encoder, "analyzer": _rules()}))
        self._specification = _checked(self.location, stored, specification)
        return self._specification

    @property
    def _store(self) -> Store:
        if self._opened is None:
            raise ClosedIndexError(f"The index {self.location} is not open. Open it first.")
        return self._opened

    def close(self) -> None:
        """Let go of the folder; a second call does nothing."""
        with self._mutex:
            if self._opened is not None:
                self._opened.close()
            self._legs = None

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        with self._store.writing() as writer, self._mutex:
            yield writer

    @contextmanager
    def _commit(self) -> Iterator[tuple[Writer, list[AddedPassage]]]:
        """One transaction that the search legs follow."""
        with self._writing() as writer:
            legs = self._legs_for(writer)
            with legs.commit(writer) as added:
                yield writer, added
            if legs.is_stale(writer):
                self._publish(writer, legs)

    def _publish(self, writer: Writer, legs: Legs) -> None:
        generation = legs.publish(writer)
        if generation >= 0:
            writer.forget_history(generation)

    def upsert(self, entries: Sequence[Entry]) -> None:
        """See `Engine.upsert`; all of them in one transaction."""
        with self._commit() as (writer, added):
            for entry in entries:
                key, passages = _put(writer, entry)
                added += passages
                writer.disown(key)
                if entry.file is not None:
                    writer.put_file(*_file_row(writer, entry.file, key))

    def delete(self, ids: Sequence[str]) -> None:
        """See `Engine.delete`."""
        with self._commit() as (writer, _):
            writer.remove([key for key in map(writer.key, ids) if key is not None])

    def write_state(self, values: Mapping[str, Any]) -> None:
        """See `Engine.write_state`."""
        with self._commit() as (writer, _):
            for name, value in values.items():
                _write_value(writer, name, value)

    def flush(self) -> None:
        """Nothing to do: every write is on the disk when it returns."""

    def refresh(self) -> None:
        """Nothing to do: every reading is of the last commit."""

    def compact(self) -> None:
        """See `Engine.compact`; writes the cache anew as well."""
        with self._writing() as writer:
            self._publish(writer, self._legs_for(writer))
            writer.compact()

    # -- reading -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[View]:
        with self._mutex, self._store.reading() as view:
            yield view

    def get(self, ids: Sequence[str], *, parts: bool = False) -> dict[str, Entry]:
        """See `Engine.get`."""
        found: dict[str, Entry] = {}
        with self._reading() as view:
            for id in ids:
                key, document = view.key(id), view.document(id)
                if key is not None and document is not None:
                    found[id] = _entry(view, key, document, parts)
        return found

    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """See `Engine.passages`."""
        with self._reading() as view:
            return view.passages(ids)

    def owned(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """See `Engine.owned`."""
        with self._reading() as view:
            keys = {id: view.key(id) for id in ids}
            return {id: view.owned(key) for id, key in keys.items() if key is not None}

    def vectors(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """See `Engine.vectors`."""
        with self._reading() as view:
            return view.vectors(digests)

    def vectors_of(self, ids: Sequence[int]) -> dict[int, np.ndarray]:
        """See `Engine.vectors_of`."""
        with self._reading() as view:
            return view.vectors_of([int(id) for id in ids])

    def dense(self, vectors: np.ndarray, k: int, where: Condition | None = None) -> list[Ranking]:
        """See `Engine.dense`."""
        with self._searching() as (view, snapshot):
            return [list(each) for each in snapshot.dense(vectors, k, self._allowed(view, where))]

    def text(self, queries: Sequence[Sequence[str]], k: int, where: Condition | None = None) -> list[Ranking]:
        """See `Engine.text`; the rankings are `fusion.Scores`, which know the best score that there could be."""
        with self._searching() as (view, snapshot):
            found: list[Any] = snapshot.by_terms(queries, k, self._allowed(view, where))
            return found

    def matching(self, where: Condition, limit: int) -> list[int]:
        """See `Engine.matching`."""
        with self._reading() as view:
            ids: list[int] = self._legs_for(view).matching(view, where)[:limit].tolist()
            return ids

    def count(self, where: Condition | None = None) -> tuple[int, int]:
        """See `Engine.count`."""
        with self._reading() as view:
            return view.counts(where)

    def scan(
        self, after: str = "", limit: int = 64, where: Condition | None = None, *, parts: bool = False
    ) -> list[tuple[str, Entry]]:
        """See `Engine.scan`; in the order in which the documents first came."""
        with self._reading() as view:
            found = view.documents(int(after or 0), limit, where)
            return [(str(key), _entry(view, key, document, parts)) for key, document in found]

    def files(self, root: int) -> list[tuple[str, Mapping[str, Any]]]:
        """See `Engine.files`."""
        with self._reading() as view:
            return [(id, file_of(root, row)) for id, row in view.document_files(root)]

    def read_state(self, prefix: str = "") -> dict[str, Any]:
        """See `Engine.read_state`."""
        with self._reading() as view:
            values = {f"root/{root.key}": {"path": root.path, "prefix": root.prefix} for root in view.roots()}
            values |= {failed_name(root, row.path): file_of(root, row) for root, row in view.lone_files()}
            for name, value in view.metas().items():
                if name not in OWN and value is not None:
                    values[name[len(OTHER) :] if name.startswith(OTHER) else f"meta/{name}"] = value
        return {name: value for name, value in sorted(values.items()) if name.startswith(prefix)}

    def version(self) -> str | None:
        """See `Engine.version`: which database, and its last commit."""
        with self._reading() as view:
            generation = view.generation()
            return f"{view.meta('uuid')}/{generation}/{view.token(generation)}"

    @contextmanager
    def _searching(self) -> Iterator[tuple[View, Snapshot]]:
        with self._reading() as view:
            yield view, Snapshot(view, self._legs_for(view), get_analyzer(self._language(view)))

    def _allowed(self, view: View, where: Condition | None) -> np.ndarray | None:
        return None if where is None else self._legs_for(view).matching(view, where)

    def _language(self, view: View) -> str:
        bound = {} if self._specification is None else self._specification.analyzer
        return str(view.meta("language") or bound.get("language") or "none")

    def _legs_for(self, view: View) -> Legs:
        language = self._language(view)
        if self._legs is None or self._legs[0] != language:
            options: dict[str, Any] = {"lexical": None, "recall": self._recall, "storage": "float32"}
            legs = legs_of(view, self._folder / "cache", get_analyzer(language), **options)
            self._legs = language, legs
            if not view.last_passage():
                legs.start_empty(view.generation())
        return self._legs[1]


# -- binding -----------------------------------------------------------------------------------------------------------


def _rules() -> dict[str, Any]:
    """The analyzer's rules whatever the language: what an index that `Index` made is bound to."""
    return {name: value for name, value in get_analyzer("none").fingerprint().items() if name != "language"}


def _checked(location: str, stored: Specification, asked: Specification | None) -> Specification:
    if asked is None:
        return stored
    for what, made, opened in (
        ("encoder", {**stored.encoder, "dimension": stored.dimension}, {**asked.encoder, "dimension": asked.dimension}),
        ("analyzer", dict(stored.analyzer), dict(asked.analyzer)),
    ):
        if made != opened:
            raise IndexMismatchError(
                f"{location} was made with the {what} {made!r}, opened with {opened!r}. Open it with its own."
            )
    return stored


# -- entries -----------------------------------------------------------------------------------------------------------


def _put(writer: Writer, entry: Entry) -> tuple[int, list[AddedPassage]]:
    """Store a document; its key, and the passages that are new. What is there already keeps its passages."""
    document = entry.document
    key, stored = writer.key(document.id), writer.document(document.id)
    if key is not None and stored is not None and _same_text(writer, key, stored, entry):
        if stored.source != document.source or dump_metadata(stored) != dump_metadata(document):
            writer.describe(key, document)
        return key, []
    rows = [NewPassage(part.start, part.end, part.page, part.heading, part.digest, part.vector) for part in entry.parts]
    key, ids = writer.put(document, rows)
    added = [AddedPassage(id, part.terms, part.vector) for id, part in zip(ids, entry.parts, strict=True)]
    return key, added


def _same_text(view: View, key: int, stored: Document, entry: Entry) -> bool:
    if (stored.text, stored.title) != (entry.document.text, entry.document.title):
        return False
    return [_place(part) for part in _parts(view, key, stored)] == [_place(part) for part in entry.parts]


def _place(part: Part) -> tuple[Any, ...]:
    return part.start, part.end, part.page, part.heading, part.digest, part.vector is None


def _entry(view: View, key: int, document: Document, parts: bool) -> Entry:
    file = view.file_of(key)
    return Entry(document, _parts(view, key, document) if parts else (), None if file is None else file_of(*file))


def _parts(view: View, key: int, document: Document) -> list[Part]:
    parts = []
    for row in view.parts(key):
        text = embedded_text(document.title, row.heading, document.text[row.start : row.end])
        parts.append(Part(row.start, row.end, row.page, row.heading, row.digest or digest(text), (), row.vector))
    return parts


# -- files and states --------------------------------------------------------------------------------------------------


def _file_row(writer: Writer, file: Mapping[str, Any], document: int | None) -> tuple[int, FileRow]:
    root = int(file["root"])
    if root not in [each.key for each in writer.roots()]:
        raise InputError(f"The file {file['path']!r} has the root {root}, which is not known. Write its state first.")
    return root, row_of(file, document)


def _write_value(writer: Writer, name: str, value: Any) -> None:
    """Store a state where an index has it: a folder, a file that could not be read, a value of the table meta."""
    kind, _, rest = name.partition("/")
    if kind == "root" and rest.isdigit():
        if value is None:
            writer.forget_root(int(rest))
        else:
            writer.put_root(Root(int(rest), value["path"], value["prefix"]))
        return
    if kind == "failed":
        for root, row in writer.lone_files():
            if failed_name(root, row.path) == name:
                writer.forget_file(root, row.path)
        if value is not None:
            writer.put_file(*_file_row(writer, value, None))
        return
    stored = rest if kind == "meta" and rest and rest not in OWN else OTHER + name
    if value is None:
        writer.forget_meta(stored)
    else:
        writer.set_meta(stored, value)

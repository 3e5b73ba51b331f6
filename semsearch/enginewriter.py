"""Changes of an index in an engine: gathered in a commit, and written in an order in which nothing is ever lost.

An engine has no transactions, but each of its documents changes whole. So a commit that is cut off has done some of its
documents and not the others, and whoever syncs or adds again goes on: first what the index remembers (so that keywords
are of its language), then documents, under their new names before the old ones go, then deletions, then files that
could not be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePath
from typing import Any

from semsearch.engines.protocol import Entry, Part
from semsearch.enginestore import EngineStore, EngineView
from semsearch.entries import failed_name, file_of, row_of, with_terms
from semsearch.filters import Compared, Joined, pack
from semsearch.records import Document
from semsearch.views import FileRow, FileState, NewPassage, Root

__all__ = ["EngineLegs", "EngineWriter"]

BLOCK = 16  # documents that are read and written again at a time


@dataclass(slots=True)
class _Change:
    """What becomes of a document that has the id `id` now. None is as it was; a file is only that if it is `kept`."""

    id: str
    document: Document | None = None
    parts: Sequence[Part] | None = None
    file: Mapping[str, Any] | None = None
    kept: bool = True

    def ids(self) -> set[str]:
        """The ids that it has before and after."""
        return {self.id} if self.document is None else {self.id, self.document.id}

    def whole(self) -> Entry | None:
        """The document after the change, where nothing has to be read for it."""
        if self.document is None or self.parts is None or self.kept:
            return None
        return Entry(self.document, self.parts, self.file)

    def set_file(self, file: Mapping[str, Any] | None) -> None:
        self.file, self.kept = file, False

    def over(self, stored: Entry) -> Entry:
        """The document after the change."""
        return Entry(
            self.document or stored.document,
            stored.parts if self.parts is None else self.parts,
            stored.file if self.kept else self.file,
        )


@dataclass(slots=True)
class _Commit:
    """What a commit will change."""

    metas: dict[str, Any] = field(default_factory=dict)
    documents: dict[int, _Change] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)


class EngineLegs:
    """In the place of search legs: an engine ranks by itself."""

    @contextmanager
    def commit(self, writer: EngineWriter) -> Iterator[list[Any]]:
        """One commit of the writer."""
        with writer.commit():
            yield []


class EngineWriter(EngineView):
    """The one of this process that changes an index in an engine; others may do so at the same time.

    `analyze` makes the keywords of a passage that is written again. Every question is a journey: what can be foreseen
    is asked at once.
    """

    ahead: int = 64

    def __init__(self, store: EngineStore) -> None:
        super().__init__(store)
        self.analyze: Callable[[str], Sequence[str]] = str.split
        self._commit = _Commit()
        self._seen: dict[str, Document | None] = {}  # documents that were looked up since the last commit
        self._expected: set[str] = set()
        self._files: dict[int, dict[str, tuple[str | None, Mapping[str, Any]]]] = {}  # by root and path, with the id
        self._every: set[str] | None = None  # the ids of all documents, where they are known
        self._asked = False  # whether they are was looked at

    # -- reading -----------------------------------------------------------------------------------------------------

    def document(self, id: str) -> Document | None:
        """The document with that id."""
        if id not in self._seen:
            self._seen[id] = super().document(id) if self._may_have(id) else None
        return self._seen[id]

    def expect(self, ids: Sequence[str]) -> None:
        """Look up documents that will be asked for one by one."""
        self._expected = set(ids)
        found = self.documents([id for id in self._expected if self._may_have(id)])
        self._seen = {id: found.get(id) for id in self._expected}

    def _may_have(self, id: str) -> bool:
        """Spares a question for each new document, where all documents are known to be those of synced files."""
        if not self._asked:
            known = {owner for files in self._files.values() for owner, _ in files.values() if owner is not None}
            self._asked, self._every = True, known if len(known) == self.counts()[0] else None
        return self._every is None or id in self._every

    def has_prefix(self, prefix: str) -> bool:
        """Whether any document's id starts with `prefix`, which ends with an ASCII character."""
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        ids = Joined("AND", (Compared("id", "s", ">=", pack(prefix)), Compared("id", "s", "<", pack(after))))
        return self._engine.count(ids)[0] > 0

    def roots(self) -> list[Root]:
        """The folders that were synced."""
        values = self._engine.read_state("root/")
        return [Root(int(name.partition("/")[2]), each["path"], each["prefix"]) for name, each in values.items()]

    def _files_of(self, root: int) -> dict[str, tuple[str | None, Mapping[str, Any]]]:
        if root not in self._files:
            lone = self._engine.read_state(f"failed/{root}/").values()
            files: dict[str, tuple[str | None, Mapping[str, Any]]] = {each["path"]: (None, each) for each in lone}
            # A document's file is right where both are there: the other one was to be forgotten.
            files |= {file["path"]: (id, file) for id, file in self._engine.files(root)}
            self._files[root] = files
        return self._files[root]

    def file_states(self, root: int) -> set[FileState]:
        """How the files of a root were when they were read, without those that could not be."""
        rows = (file for _, file in self._files_of(root).values() if file["reason"] is None)
        return {(file["path"], file["size"], file["mtime_ns"], file["inode"]) for file in rows}

    def failed_files(self, root: int) -> dict[str, FileRow]:
        """The files of a root that could not be read, by their path relative to it."""
        files = self._files_of(root).items()
        return {path: self._row(id, file) for path, (id, file) in files if file["reason"] is not None}

    def file(self, root: int, path: str) -> FileRow | None:
        """What is known of a file of a root."""
        known = self._files_of(root).get(path)
        return None if known is None else self._row(*known)

    def _row(self, id: str | None, file: Mapping[str, Any]) -> FileRow:
        return row_of(file, None if id is None else self.number(id))

    # -- changing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def commit(self) -> Iterator[int]:
        """What the block changes, durable when it ends; yields the generation that it makes."""
        self._commit = _Commit()
        generation = max(self.generation() + 1, time.time_ns() // 1_000_000)
        try:
            yield generation
            self._write(generation)
        finally:
            changed = {id for each in self._commit.documents.values() for id in each.ids()}.union(self._commit.removed)
            self._seen = {id: self._seen[id] for id in self._expected - changed if id in self._seen}
            self._commit = _Commit()
            self._store.forget()

    def set_meta(self, name: str, value: Any) -> None:
        """Have a JSON value remembered."""
        self._commit.metas[f"meta/{name}"] = value

    def put(self, document: Document, passages: Sequence[NewPassage]) -> tuple[int, list[int]]:
        """Store a document in place of the one with its id; returns its number, and 0 for each passage."""
        number = self.number(document.id)
        parts = [
            Part(each.start, each.end, each.page, each.heading, each.digest, each.terms, each.vector)
            for each in passages
        ]
        self._commit.documents[number] = _Change(document.id, document, parts, None, kept=False)
        return number, [0] * len(parts)

    def describe(self, key: int, document: Document) -> None:
        """Change a document's id, source and metadata, where its text, title and passages stay as they are."""
        self._change(key).document = document

    def remove(self, keys: Sequence[int]) -> None:
        """Remove documents with all that belongs to them."""
        for key in keys:
            self._commit.documents.pop(key, None)
            self._commit.removed.append(self.id_of(key))

    def disown(self, key: int) -> None:
        """Make a document independent of the file it came from."""
        self._change(key).set_file(None)

    def add_root(self, path: str, prefix: str) -> Root:
        """Remember a folder that is synced, at once; another process may have done so, or take the prefix meanwhile.

        A root's key comes from its path, so that two processes agree on it. Whoever sees his prefix taken changes to
        one that comes from the path as well.
        """
        # Below 2**53: exact where JSON knows floats only.
        key = int.from_bytes(sha256(path.encode("utf-8", "surrogatepass")).digest()[:6], "big") + 1
        for wanted in (prefix, f"{PurePath(path).name or 'root'}-{key:x}/"):
            self._engine.refresh()
            known = {root.key: root for root in self.roots()}
            if key in known and known[key].prefix not in [root.prefix for root in known.values() if root.key != key]:
                return known[key]
            self._engine.write_state({f"root/{key}": {"path": path, "prefix": wanted}})
        return Root(key, path, wanted)

    def put_file(self, root: int, row: FileRow) -> None:
        """Remember what is known of a file."""
        file, files = file_of(root, row), self._files_of(root)
        failed = failed_name(root, row.path)
        if row.document is None:
            self._commit.states[failed] = file
            files[row.path] = None, file
            return
        change = self._change(row.document)
        change.set_file(file)
        if row.path in files and files[row.path][0] is None:
            self._commit.states[failed] = None
        files[row.path] = (change.document.id if change.document else change.id), file

    def forget_file(self, root: int, path: str) -> None:
        """Forget a file of a root; its document is not touched."""
        files = self._files_of(root)
        if path not in files:
            return
        id, _ = files.pop(path)
        if id is None:
            self._commit.states[failed_name(root, path)] = None
        elif id not in self._commit.removed:
            self._change(self.number(id)).set_file(None)

    def _change(self, key: int) -> _Change:
        return self._commit.documents.setdefault(key, _Change(self.id_of(key)))

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, generation: int) -> None:
        commit = self._commit
        if commit.metas:
            self._engine.write_state(commit.metas)
        changes = list(commit.documents.values())
        whole = [entry for each in changes if (entry := each.whole()) is not None]
        if whole:
            self._engine.upsert(whole)
        written = {entry.document.id for entry in whole}
        others = [each for each in changes if each.whole() is None]
        for first in range(0, len(others), BLOCK):
            written |= self._write_again(others[first : first + BLOCK])
        renamed = [each.id for each in changes if each.document is not None and each.document.id != each.id]
        gone = [id for id in (*renamed, *commit.removed) if id not in written]
        if gone:
            self._engine.delete(gone)
        self._engine.write_state({**commit.states, "meta/generation": generation})
        if self._every is not None:
            self._every = (self._every | written).difference(gone)

    def _write_again(self, changes: Sequence[_Change]) -> set[str]:
        """Write documents of which something stays as it was; the ids of those that were there."""
        stored = self._engine.get([each.id for each in changes], parts=True)
        entries = [with_terms(each.over(stored[each.id]), self.analyze) for each in changes if each.id in stored]
        if entries:
            self._engine.upsert(entries)
        return {entry.document.id for entry in entries}

    def analyze_again(self, analyze: Callable[[str], Sequence[str]]) -> None:
        """Write the keywords of all documents anew, by another analyzer."""
        self.analyze = analyze
        mark = ""
        while batch := self._engine.scan(mark, BLOCK, parts=True):
            mark = batch[-1][0]
            self._engine.upsert([with_terms(entry, analyze) for _, entry in batch])

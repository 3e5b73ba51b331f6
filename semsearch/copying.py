"""An index at another location: every document with its passages and vectors, and nothing is encoded again.

    semsearch.copying.copy("indexes/handbook", "milvus://host:19530/handbook")     # out
    semsearch.copying.copy("milvus://host:19530/handbook", "backup/handbook")      # and back

The target becomes what the source is. A document whose digest (text, description, passages, vectors, file) is the same
on both sides is left alone; the others are written, and those that the source does not have are removed. So a second
copy brings the target up to date, and one that was killed can be called again. How far a copy came is remembered in
the target. It is believed as long as the source says that nothing was written to it since; from a source that cannot
tell, everything is compared again.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from semsearch.analysis import Analyzer, get_analyzer
from semsearch.entries import with_terms
from semsearch.errors import CorruptIndexError, IndexMismatchError, InputError
from semsearch.items import Progress, counted, expanded

if TYPE_CHECKING:
    from semsearch.engines.protocol import Engine, Entry

__all__ = ["CopyReport", "copy", "in_batches", "opened"]

READ = 64  # documents
# What is written at a time, whichever comes first: each write takes a dozen messages, whatever its size.
BATCH_PASSAGES = 512
BATCH_CHARACTERS = 8_000_000
RECORD = "copy"  # the name of the target's state that says what it is a copy of, and how far it is
LANGUAGE = "meta/language"
CARRIED = ("root/", "failed/", "shard/", "meta/fusion", "meta/encoder_spec", LANGUAGE)  # with "meta/language_settled"
SHOWN = 10  # ids in a message


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What `copy` did, counted in documents, and what the target holds now.

    `checked` is how many of the documents were read back from the target and compared with what was read from the
    source. The other numbers are of this call, where an earlier one was interrupted.
    """

    source: str
    target: str
    documents: int
    passages: int
    added: int
    updated: int
    removed: int
    unchanged: int
    checked: int

    def __str__(self) -> str:
        done = ", ".join(f"{name} {getattr(self, name):,}" for name in ("added", "updated", "removed", "unchanged"))
        return (
            f"{done}\n{self.target}: {self.documents:,} documents, {self.passages:,} passages, {self.checked:,} checked"
        )


def copy(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, progress: Progress = None, sample: int = 64
) -> CopyReport:
    """Make the index at `target` what the one at `source` is; returns when all is durable and was verified.

    Either is a folder or the location of an engine. Documents, passages, vectors, what was learned and what is known of
    synced files go along: a sync on the copy finds everything unchanged. Nothing is encoded. An interrupted copy goes
    on when it is called again.

    `progress` is True or False for a bar on the terminal, None for a bar when a person is watching, or a function of
    (done, total) in documents. `sample` is how many documents are read back at the end, with texts and vectors.

    Raises InputError for a target that is the source, or holds documents that did not come from it;
    IndexMismatchError for one that was made with another encoder or analyzer; IndexNotFoundError where the source is
    not there; CorruptIndexError, with the ids, where the target does not hold what was written.

    >>> copy("indexes/handbook", "milvus://localhost:19530/handbook")  # doctest: +SKIP
    CopyReport(source='indexes/handbook', target='milvus://localhost:19530/handbook', documents=24, ...)
    """
    if not isinstance(sample, int) or sample < 0:
        raise InputError(f"sample is a number of documents, at least 0, not {sample!r}.")
    with closing(opened(source)) as origin:
        given = origin.open(None, create=False)
        analyzer = get_analyzer(origin.read_state(LANGUAGE).get(LANGUAGE))
        with closing(opened(target)) as copied:
            if origin.location == copied.location:
                raise InputError(f"{origin.location} cannot be copied to itself. Choose another target.")
            rules = {name: value for name, value in analyzer.fingerprint().items() if name != "language"}
            made = copied.open(replace(given, analyzer=rules), create=True)
            if made.encoder != given.encoder:
                raise IndexMismatchError(
                    f"{copied.location} was made with the encoder {made.encoder.get('name')!r}, {origin.location} with "
                    f"{given.encoder.get('name')!r}. Choose another target."
                )
            with counted(progress, origin.count()[0], "document") as step:
                return _Copy(origin, copied, analyzer, _record(origin, copied, analyzer), sample, step).run()


def opened(location: str | os.PathLike[str]) -> Engine:
    """The engine at a location, a folder's too; `open` and `close` are the caller's."""
    from semsearch.engines import is_location, open_engine

    if is_location(location):
        return open_engine(os.fspath(location))
    from semsearch.embedded import EmbeddedEngine

    return EmbeddedEngine(expanded(location).resolve())


def in_batches(marked: Iterable[tuple[str, Entry]]) -> Iterator[list[tuple[str, Entry]]]:
    """The entries, with their marks, as many at a time as are well written at once."""
    some: list[tuple[str, Entry]] = []
    passages = characters = 0
    for each in marked:
        some.append(each)
        passages += len(each[1].parts) + 1
        characters += len(each[1].document.text)
        if passages >= BATCH_PASSAGES or characters >= BATCH_CHARACTERS:
            yield some
            some, passages, characters = [], 0, 0
    if some:
        yield some


@dataclass
class _Record:
    """What the target knows of the copy; `sample` has the ids that are verified at the end, with their digests."""

    source: str
    version: str | None
    salt: str
    language: str
    mark: str = ""
    documents: int = 0
    passages: int = 0
    sample: dict[str, str] = field(default_factory=dict)
    done: bool = False


def _record(origin: Engine, copied: Engine, analyzer: Analyzer) -> _Record:
    """The record of an interrupted copy that can go on, or a new one; raises for a target that is no copy."""
    stored = copied.read_state(RECORD).get(RECORD)
    language = copied.read_state(LANGUAGE).get(LANGUAGE)
    if stored is None and language not in (None, analyzer.language):
        raise IndexMismatchError(
            f"{copied.location} was made with the analyzer for {language!r}, {origin.location} with that for "
            f"{analyzer.language!r}. Choose another target."
        )
    if stored is None and copied.count()[0]:
        raise InputError(
            f"{copied.location} holds documents that were not copied from {origin.location}; a copy would replace "
            "them. Choose a new target."
        )
    if stored is not None and stored["source"] != origin.location:
        raise InputError(
            f"{copied.location} is a copy of {stored['source']}, not of {origin.location}. Choose a new target."
        )
    version = origin.version()
    started = _Record(origin.location, version, secrets.token_hex(8), analyzer.language)
    if stored is None or stored["done"] or version is None:
        return started
    return _Record(**stored) if (version, analyzer.language) == (stored["version"], stored["language"]) else started


@dataclass
class _Copy:
    """A copy on its way."""

    origin: Engine
    target: Engine
    analyzer: Analyzer
    record: _Record
    size: int
    step: Callable[[int], None]
    anew: bool = False  # the target's keywords are of another language
    unmet: int = 0  # documents of the target that may still be met, and so have to be asked for
    added: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0

    def run(self) -> CopyReport:
        language = self.target.read_state(LANGUAGE).get(LANGUAGE)
        # From more texts the source may have told its language since the last copy.
        self.anew = language not in (None, self.record.language)
        self._save()
        self._carry(("root/",))  # before the files that name them
        if not self.anew:
            self._carry((LANGUAGE,))
        self.step(self.record.documents)
        self.unmet = self.target.count()[0] - self.record.documents
        for batch in in_batches(self._read()):
            self._put([entry for _, entry in batch])
            self.record.mark = batch[-1][0]
            self._save()
            self.step(self.record.documents)
        if self.target.count()[0] > self.record.documents:
            self._remove_gone()
        self._carry(CARRIED)
        self.record.done = True
        self._save()
        self.target.flush()
        self.target.refresh()  # what was removed may be seen for a moment longer
        documents, passages = self._verified()
        locations = self.origin.location, self.target.location
        numbers = self.added, self.updated, self.removed, self.unchanged
        return CopyReport(*locations, documents, passages, *numbers, len(self.record.sample))

    def _save(self) -> None:
        self.target.write_state({RECORD: asdict(self.record)})

    def _read(self) -> Iterator[tuple[str, Entry]]:
        mark = self.record.mark
        while batch := self.origin.scan(mark, READ, parts=True):
            mark = batch[-1][0]
            yield from batch

    def _put(self, entries: list[Entry]) -> None:
        digests = {entry.document.id: _digest(entry) for entry in entries}
        met = self.target.get(list(digests), parts=True) if self.unmet > 0 else {}
        self.unmet -= len(met)
        there = {id: _digest(entry) for id, entry in met.items()}
        changed = [each for each in entries if self.anew or there.get(each.document.id) != digests[each.document.id]]
        if changed:
            self.target.upsert([with_terms(entry, self.analyzer) for entry in changed])
        updated = sum(entry.document.id in there for entry in changed)
        self.added += len(changed) - updated
        self.updated += updated
        self.unchanged += len(entries) - len(changed)
        self.record.documents += len(entries)
        self.record.passages += sum(len(entry.parts) for entry in entries)
        self._sample(digests)

    def _sample(self, digests: Mapping[str, str]) -> None:
        """Keep those whose salted hash is least: a fair sample of all, whatever the order and the interruptions."""
        every = {**self.record.sample, **digests}
        ordered = sorted(
            every, key=lambda id: sha256(f"{self.record.salt}{id}".encode("utf-8", "surrogatepass")).digest()
        )
        self.record.sample = {id: every[id] for id in ordered[: self.size]}

    def _remove_gone(self) -> None:
        mark = ""
        while batch := self.target.scan(mark, READ):
            mark = batch[-1][0]
            ids = [entry.document.id for _, entry in batch]
            there = self.origin.get(ids)
            gone = [id for id in ids if id not in there]
            if gone:
                self.target.delete(gone)
                self.removed += len(gone)

    def _carry(self, names: tuple[str, ...]) -> None:
        """Give the target the source's values by these beginnings of names, and no others."""
        for name in names:
            wanted, there = self.origin.read_state(name), self.target.read_state(name)
            changes = {key: wanted.get(key) for key in {*wanted, *there} if wanted.get(key) != there.get(key)}
            for some in _portions(changes):
                self.target.write_state(some)

    def _verified(self) -> tuple[int, int]:
        found = self.target.count()
        # What was removed from the source while it was read may be in neither of the two numbers.
        if found not in ((self.record.documents, self.record.passages), self.origin.count()):
            raise CorruptIndexError(
                f"{self.target.location} has {found[0]:,} documents and {found[1]:,} passages after "
                f"{self.record.documents:,} and {self.record.passages:,} were copied to it. Copy again, while nobody "
                "writes to either."
            )
        there = self.target.get(list(self.record.sample), parts=True)
        wrong = [id for id, digest in self.record.sample.items() if id not in there or _digest(there[id]) != digest]
        if wrong:
            listed = ", ".join(map(repr, wrong[:SHOWN])) + (", …" if len(wrong) > SHOWN else "")
            raise CorruptIndexError(
                f"{len(wrong)} of {len(self.record.sample)} documents that were read back from {self.target.location} "
                f"are not what was copied: {listed}. Copy again; what differs is written anew."
            )
        return found


def _digest(entry: Entry) -> str:
    """Stands for all that is copied of a document."""
    document = entry.document
    file = None if entry.file is None else dict(entry.file)
    values = [document.id, document.text, document.title, document.source, dict(document.metadata), file]
    every = sha256(json.dumps(values, sort_keys=True).encode())
    for part in entry.parts:
        every.update(json.dumps([part.start, part.end, part.page, part.heading, part.digest.hex()]).encode())
        every.update(b"-" if part.vector is None else part.vector.astype("<f4").tobytes())
    return every.hexdigest()


def _portions(values: Mapping[str, Any], size: int = 500) -> Iterator[dict[str, Any]]:
    names = list(values)
    for first in range(0, len(names), size):
        yield {name: values[name] for name in names[first : first + size]}

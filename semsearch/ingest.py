"""Documents → passages → vectors and tokens → one commit a batch.

Only what changed is chunked, and only text that no passage had before is embedded. A batch is one transaction: a
process that dies loses at most the batch that was not yet committed.

Files are parsed ahead, in a process of their own; chunking, keywords and writing wait for the encoder, and it for them.
Over 200 documents (6,840 passages) they took a twentieth of the encoder's processor time, so doing them at the same
time could gain no more than 5% on two cores, for a second thread and batches that are neither here nor there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from semsearch.chunking import Chunk, chunk, embedded_text
from semsearch.errors import EncoderError, InputError
from semsearch.legs import AddedPassage
from semsearch.records import Document
from semsearch.tables import FileRow, NewPassage, digest, dump_metadata
from semsearch.writers import AnyLegs, AnyWriter

if TYPE_CHECKING:
    from semsearch.encoding import Encoder

__all__ = ["AddReport", "Batch", "FileNote", "UnfitError", "checked_vectors", "chunked", "fitted", "passage_budget"]

BATCH_PASSAGES = 512  # a few seconds of encoding on two cores: what a killed process loses at most
BATCH_CHARACTERS = 8_000_000
AHEAD_CHARACTERS = 1_000_000  # of documents that are looked up at once
TARGET_TOKENS = 200  # of a passage with its title and headings, where the encoder takes as many


@dataclass(frozen=True, slots=True)
class AddReport:
    """What `Index.add` did, counted in documents. `failures` lists (id, reason) of those that are not in the index.

    `notes` lists (id, remark) of documents that are in it with a reservation, such as passages that can only be found
    by keyword because the encoder gave no usable vector.
    """

    added: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        from semsearch.display import report_text

        return report_text(self)

    def _repr_html_(self) -> str:
        from semsearch.html import report_html

        names = ("added", "updated", "removed", "unchanged", "failed")
        numbers = [(name, f"{getattr(self, name):,}") for name in names]
        return report_html(type(self).__name__, numbers, {"failures": self.failures, "notes": self.notes})


class UnfitError(InputError):
    """A document that cannot be indexed as it is; those around it can."""


@dataclass(frozen=True, slots=True)
class FileNote:
    """The file a document comes from: its root, and what to remember of it."""

    root: int
    row: FileRow


@dataclass(slots=True)
class _Pending:
    """A document on its way in; `key` is set where the stored one keeps its text and only its description changes."""

    document: Document
    file: FileNote | None
    key: int | None = None
    moved_from: tuple[int, str] | None = None  # the file's root and path before it was renamed
    chunks: Sequence[Chunk] = ()
    texts: Sequence[str] = ()
    digests: Sequence[bytes] = ()
    is_new: bool = False


_Chosen: TypeAlias = "tuple[Callable[[str], list[str]], AnyLegs, dict[str, Any]]"  # analyzer, legs, what to remember


@dataclass(slots=True)
class Batch:
    """Documents on their way in. `put` takes one, `commit` writes those that wait; the caller holds the writer lock."""

    writer: AnyWriter
    encoder: Encoder
    analyze: Callable[[str], list[str]]
    legs: AnyLegs
    mutex: Any
    choose: Callable[[Iterable[str]], _Chosen] | None = None  # the analyzer, by the first texts
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    notes: list[tuple[str, str]] = field(default_factory=list)
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _files: list[FileNote] = field(default_factory=list)
    _passages: int = 0
    _characters: int = 0

    def ahead(self, documents: Iterator[Document]) -> Iterator[Document]:
        """The same documents, and those that have their ids are looked up several at a time where that is faster."""
        if self.writer.ahead == 1:
            yield from documents
            return
        block: list[Document] = []
        characters = 0
        for document in chain(documents, (None,)):
            if document is not None:
                block.append(document)
                characters += len(document.text)
            if document is None or len(block) >= self.writer.ahead or characters >= AHEAD_CHARACTERS:
                self.writer.expect([each.id for each in block])
                yield from block
                block, characters = [], 0

    def put(self, document: Document, file: FileNote | None = None) -> None:
        """Take a document in; commits when enough are waiting. Raises UnfitError before anything of it is taken."""
        try:
            metadata = dump_metadata(document)
        except InputError as error:
            raise UnfitError(str(error)) from None
        if self.is_pending(document.id):
            self.commit()
        stored = self.writer.document(document.id)
        if (
            stored is not None
            and stored.text == document.text
            and stored.title == document.title
            and _same_chunker(stored, document)
        ):
            if file is None and stored.source == document.source and dump_metadata(stored) == metadata:
                self.unchanged += 1
            else:
                self.describe(stored.id, document, file)
            return
        short, chunks, texts = fitted(document, self.encoder)
        if short is not document:
            self.put(short, file)  # with that title it may be as it is stored
            self.notes.append((short.id, f"the title was cut to {short.title!r}: it left no room for text"))
            return
        self._take(
            _Pending(document, file, None, None, chunks, texts, [digest(text) for text in texts], stored is None)
        )

    def describe(
        self, id: str, document: Document, file: FileNote | None, moved_from: tuple[int, str] | None = None
    ) -> None:
        """Give the stored document `id` the id, source and metadata of `document`; its text and passages stay."""
        if self.is_pending(document.id):
            self.commit()
        self._take(_Pending(document, file, self.writer.key(id), moved_from))

    def is_pending(self, id: str) -> bool:
        """Whether a document that waits for the next commit has that id."""
        return id in self._pending

    def _take(self, pending: _Pending) -> None:
        self._pending[pending.document.id] = pending
        self._passages += len(pending.chunks)
        self._characters += len(pending.document.text)
        if (
            self._passages >= BATCH_PASSAGES
            or self._characters >= BATCH_CHARACTERS
            or len(self._pending) >= BATCH_PASSAGES
        ):
            self.commit()

    def remember(self, file: FileNote) -> None:
        """Note what is known of a file whose document does not change, with the next commit."""
        self._files.append(file)
        if len(self._files) >= 4 * BATCH_PASSAGES:
            self.commit()

    def commit(self) -> None:
        """Encode and write what is waiting, in one transaction."""
        if not self._pending and not self._files:
            return
        pending = list(self._pending.values())
        remember: dict[str, Any] = {}
        if self.choose is not None and pending:
            self.analyze, self.legs, remember = self.choose(text for each in pending for text in each.texts)
            self.choose = None
        vectors = self._vectors(pending)
        tokens = {id: [self.analyze(text) for text in each.texts] for id, each in self._pending.items()}
        added = 0
        with self.mutex, self.legs.commit(self.writer) as entering:
            for name, value in remember.items():
                self.writer.set_meta(name, value)
            for each in pending:
                added += each.is_new
                entering += self._write(each, vectors, tokens[each.document.id])
            for file in self._files:
                self.writer.put_file(file.root, file.row)
        self.added += added
        self.updated += len(pending) - added
        self._pending.clear()
        self._files.clear()
        self._passages = self._characters = 0

    def _write(self, each: _Pending, vectors: dict[bytes, np.ndarray], tokens: list[list[str]]) -> list[AddedPassage]:
        if each.key is not None:
            if each.moved_from is not None:
                self.writer.forget_file(*each.moved_from)
            self.writer.describe(each.key, each.document)
            self._link(each.key, each.file)
            return []
        rows = [
            NewPassage(part.start, part.end, part.page, part.heading, key, vectors.get(key), words)
            for part, key, words in zip(each.chunks, each.digests, tokens, strict=True)
        ]
        key, ids = self.writer.put(each.document, rows)
        self._link(key, each.file)
        keyword_only = sum(row.vector is None for row in rows)
        if keyword_only:
            remark = f"{keyword_only} of {len(rows)} passages: keyword search only, the encoder gave no usable vector"
            self.notes.append((each.document.id, remark))
        return [AddedPassage(id, words, row.vector) for id, words, row in zip(ids, tokens, rows, strict=True)]

    def _link(self, key: int, file: FileNote | None) -> None:
        if file is None:
            self.writer.disown(key)
        else:
            self.writer.put_file(file.root, file.row.of(key))

    def _vectors(self, pending: list[_Pending]) -> dict[bytes, np.ndarray]:
        """The vector of each distinct text, from the database if it is there; no entry for one without a usable one."""
        texts = {key: text for each in pending for key, text in zip(each.digests, each.texts, strict=True)}
        vectors = self.writer.vectors(list(texts))
        missing = [key for key in texts if key not in vectors]
        if missing:
            rows = checked_vectors(self.encoder, [texts[key] for key in missing], "passage")
            vectors.update((key, row) for key, row in zip(missing, rows, strict=True) if row.any())
        return vectors


def _same_chunker(stored: Document, document: Document) -> bool:
    """Passages depend on the suffix (which headings to look for) and on whether there are pages."""
    return stored.metadata.get("suffix") == document.metadata.get("suffix") and ("pages" in stored.metadata) == (
        "pages" in document.metadata
    )


def chunked(document: Document, encoder: Encoder) -> tuple[list[Chunk], list[str]]:
    """The passages of a document for an encoder, and what is embedded and looked up of each."""
    chunks = chunk(document, count_tokens=_counter(encoder), max_tokens=passage_budget(encoder))
    texts = [embedded_text(document.title, each.heading, document.text[each.start : each.end]) for each in chunks]
    return chunks, texts


def fitted(document: Document, encoder: Encoder) -> tuple[Document, list[Chunk], list[str]]:
    """The document and what `chunked` makes of it; a title that leaves no room for text is cut to its beginning.

    Raises UnfitError where there is no room without a title either.
    """
    try:
        return document, *chunked(document, encoder)
    except InputError as error:
        if not document.title:
            raise UnfitError(f"The document {document.id!r:.200} cannot be cut into passages: {error}") from None
    return fitted(replace(document, title=_beginning(document.title, encoder)), encoder)


def _beginning(title: str, encoder: Encoder) -> str:
    """The first half of a title, or of that half again, until it takes no more than half of a passage."""
    count_tokens, budget = _counter(encoder), passage_budget(encoder)
    while title:
        half = title[: len(title) // 2]
        title = half.rpartition(" ")[0] or half
        if 2 * count_tokens([embedded_text(title, "", "")])[0] <= budget:
            break
    return title


def _counter(encoder: Encoder) -> Callable[[Sequence[str]], list[int]]:
    return getattr(encoder, "count_tokens", None) or _estimated_tokens


def _estimated_tokens(texts: Sequence[str]) -> list[int]:
    """A guess on the safe side for encoders that do not count: three characters a token, and two special ones."""
    return [len(text) // 3 + 3 for text in texts]


def passage_budget(encoder: Encoder) -> int:
    """How many tokens a passage may have with its title and headings."""
    limit = getattr(encoder, "max_tokens", None)
    return TARGET_TOKENS if limit is None else min(TARGET_TOKENS, int(limit))


def checked_vectors(encoder: Encoder, texts: Sequence[str], kind: str) -> np.ndarray:
    """The encoder's vectors, (n, dimension) float32 of unit length; rows that are not finite or zero come back zero.

    Raises EncoderError if the shape is not what the encoder promised.
    """
    rows = np.asarray(encoder.encode(texts, kind=kind))  # type: ignore[arg-type]
    if rows.shape != (len(texts), encoder.dimension):
        raise EncoderError(
            f"The encoder {encoder.name!r} returned an array of shape {rows.shape} for {len(texts)} texts; "
            f"with its dimension of {encoder.dimension} it should be {(len(texts), encoder.dimension)}."
        )
    rows = rows.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
    usable = np.isfinite(norms) & (norms > 1e-12)
    rows[~usable] = 0.0
    norms[~usable] = 1.0
    if np.abs(norms - 1.0).max(initial=0.0) > 1e-3:
        rows = (rows / norms[:, None]).astype(np.float32)
    return rows

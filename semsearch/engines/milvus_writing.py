"""Writing to Milvus so that nobody sees half a document, whenever the writer or the server dies.

A document's new passages and pieces come first, under keys that depend on its content, then its head, which makes them
count; what the version before had is deleted last. A delete takes the head first. So whatever is interrupted leaves
rows that belong to no version that holds: readers pass over them, the same write repeated puts the same rows in place,
and `compact` removes them.

Who writes says so beforehand in a row of its own (an intent), with the documents it is about; a count looks there for
passages that do not count. `compact` takes the intents away before it removes anything, and a writer whose intent is
gone when it is done writes again: so nothing is lost that it had not yet made count.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np

from semsearch.engines.milvus_coding import document_key, state_pk
from semsearch.engines.milvus_connection import Connection, RefusedError
from semsearch.engines.milvus_layout import Layout, blank
from semsearch.engines.milvus_reading import BLOCK, KEYS, LARGE_BLOCK, PASSAGE_KEYS, Reader, Row, across, joined
from semsearch.engines.milvus_rows import INTENT, PIECE, Head, Stored, StoredState
from semsearch.engines.protocol import Entry
from semsearch.errors import EngineUnavailableError

__all__ = ["Writer"]

BATCH_ROWS = 1_000
BATCH_BYTES = 3 << 20  # a server takes messages of up to 64 MiB, Milvus Lite of less
ROUNDS = 5  # to write again after somebody else has compacted meanwhile, and to find free ids
STRONG, SESSION = "Strong", "Session"

T = TypeVar("T")


class Writer:
    """Writes the collections of a layout through a connection, one call after the other."""

    def __init__(self, connection: Connection, layout: Layout, reader: Reader) -> None:
        self._connection = connection
        self._layout = layout
        self._reader = reader
        self._blank = blank(layout)
        self._intent = f"i{secrets.token_hex(16)}"
        self._announced_once = False
        self._deleted: set[str] = set()  # collections that rows were deleted from since `_settle`
        self._lock = threading.Lock()

    # -- documents ---------------------------------------------------------------------------------------------------

    def upsert(self, entries: Sequence[Entry]) -> None:
        """Store documents in place of those with their ids; the last one holds where an id comes twice."""
        distinct = list({entry.document.id: entry for entry in entries}.values())
        with self._lock:
            for group in _groups(distinct, BLOCK):
                keys = [document_key(entry.document.id) for entry in group]
                self._undisturbed(keys, partial(self._put, keys, group))
            self._settle()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents by id."""
        with self._lock:
            for group in _groups(list(dict.fromkeys(map(document_key, ids))), BLOCK):
                self._undisturbed(group, self._drop)
            self._settle()

    def _undisturbed(self, keys: Sequence[str], work: Callable[[Mapping[str, Head], bool], None]) -> None:
        """Announce a write, do it with the heads that there are, and do it again if somebody compacted meanwhile."""
        for again in range(ROUNDS):
            heads = self._heads(keys)  # before the intent is written: a server makes whoever reads after a write wait
            self._announce(keys)
            work(heads, again > 0)
            if self._reader.rows(self._layout.documents, f'pk == "{self._intent}"', ("pk",), level=SESSION):
                self._announce([])
                return
        raise EngineUnavailableError(
            f"{self._connection.location} is being compacted all the time, so nothing can be written. Try again later."
        )

    def _announce(self, keys: Sequence[str]) -> None:
        self._announced_once = True
        self._upsert(self._layout.documents, [{"pk": self._intent, "kind": INTENT, "text": "".join(keys)}])

    def _put(self, keys: Sequence[str], entries: Sequence[Entry], old: Mapping[str, Head], again: bool) -> None:
        """Write entries; of what is stored already only the head, since the file may be another one, unless `again`."""
        layout = self._layout
        stored, fresh = [], []
        for key, entry in zip(keys, entries, strict=True):
            head = old.get(key)
            each = Stored(entry, head, layout.columns, layout.token_keys)
            stored.append(each)
            if again or head is None or head.version != each.version:
                fresh.append(each)
        self._give_ids(fresh)
        dimension = layout.specification.dimension
        self._upsert(layout.passages, (row for each in fresh for row in each.passage_rows(dimension, layout.text)))
        self._upsert(layout.documents, (row for each in fresh for row in each.piece_rows()))
        self._upsert(layout.documents, (each.head_row() for each in stored))
        held = {each.version for each in fresh}
        self._erase([head for each in fresh if (head := old.get(each.key)) and head.version not in held])

    def _give_ids(self, fresh: Sequence[Stored]) -> None:
        """Have ids that are free, or the same passages' already: another salt where another passage is in the way."""
        taken: dict[int, tuple[str, str, int]] = {}
        clashing: Sequence[Stored] = fresh
        columns = ("id", "document", "version", "ordinal")
        while clashing:
            wanted = [id for each in clashing for id in each.ids() if id not in taken]
            rows = self._reader.among(self._layout.passages, "id", wanted, columns, level=SESSION)
            taken |= {row["id"]: (row["document"], row["version"], row["ordinal"]) for row in rows}
            clashing = [each for each in clashing if each.evade(taken)]

    def _drop(self, old: Mapping[str, Head], again: bool) -> None:
        self._delete(self._layout.documents, [f"d{key}" for key in old])
        self._erase(list(old.values()))

    def _heads(self, keys: Sequence[str]) -> dict[str, Head]:
        return {key: Head.of(row) for key, row in self._reader.heads(keys, level=SESSION).items()}

    def _erase(self, heads: Sequence[Head]) -> None:
        self._delete(self._layout.passages, [id for head in heads for id in head.ids()])
        self._delete(self._layout.documents, [key for head in heads for key in head.piece_keys()])

    # -- state -------------------------------------------------------------------------------------------------------

    def write_state(self, values: Mapping[str, Any]) -> None:
        """Store JSON values by name; None forgets the name."""
        fresh = [StoredState(name, value) for name, value in values.items() if value is not None]
        gone = [state_pk(name) for name, value in values.items() if value is None]
        long = [each.key for each in fresh if each.piece_keys()]
        with self._lock:
            if long:
                self._undisturbed(long, lambda heads, again: self._put_state(fresh, gone))
            else:
                self._put_state(fresh, gone)
            self._settle()

    def _put_state(self, fresh: Sequence[StoredState], gone: Sequence[str]) -> None:
        documents = self._layout.documents
        names = [each.pk for each in fresh] + list(gone)
        old = list(self._reader.among(documents, "pk", names, StoredState.COLUMNS, level=SESSION))
        self._upsert(documents, (row for each in fresh for row in each.piece_rows()))
        self._upsert(documents, (each.row() for each in fresh))
        self._delete(documents, [row["pk"] for row in old if row["pk"] in set(gone)])
        kept = {key for each in fresh for key in each.piece_keys()}
        self._delete(documents, [key for row in old for key in StoredState.pieces_of(row) if key not in kept])

    # -- what does not count -----------------------------------------------------------------------------------------

    def stray(self, expression: str | bool) -> int:
        """How many passages (that match) belong to writes under way, or interrupted, and do not count."""
        total = 0
        for group in _groups(sorted(self._announced(None)), LARGE_BLOCK):
            bounds = f"document in {json.dumps(group)}"
            for rows in self._passages(joined(bounds, expression)):
                total += len(self._without_head(rows, None))
        return total

    def compact(self) -> None:
        """Remove what interrupted writes have left, and have the server give back the room."""
        documents = self._layout.documents
        with self._lock:
            intents = self._reader.rows(documents, f"kind == {INTENT}", ("pk",), level=STRONG)
            self._delete(documents, [row["pk"] for row in intents])
            for rows in self._passages("", level=STRONG):
                stray = self._left_behind(rows, self._without_head)
                self._delete(self._layout.passages, [row["id"] for row in stray])
            for rows in self._pieces():
                stray = self._left_behind(rows, self._without_owner)
                self._delete(documents, [row["pk"] for row in stray])
            self._settle()
        for name in (self._layout.passages, documents):
            with suppress(RefusedError):  # the core of milvus-lite 2 does so by itself
                self._connection.call("compact", name)

    def flush(self) -> None:
        """Have the server write what is in its log into segments."""
        for name in (self._layout.passages, self._layout.documents):
            self._connection.call("flush", name)

    def _announced(self, level: str | None) -> set[str]:
        rows = self._reader.rows(self._layout.documents, f"kind == {INTENT}", ("text",), level=level)
        text = "".join(row["text"] for row in rows)
        return {text[first : first + 32] for first in range(0, len(text), 32)}

    def _passages(self, expression: str, level: str | None = None) -> Iterator[list[Row]]:
        columns = ("id", "document", "version")

        def fetch(low: int, high: int) -> list[Row]:
            bounds = f"id >= {low}" if high >= PASSAGE_KEYS else f"id >= {low} and id < {high}"
            return self._reader.rows(self._layout.passages, joined(bounds, expression), columns, level=level)

        return across(fetch, PASSAGE_KEYS)

    def _pieces(self) -> Iterator[list[Row]]:
        def fetch(low: int, high: int) -> list[Row]:
            below = "q" if high >= KEYS else f"p{high:015x}"
            bounds = f'kind == {PIECE} and pk >= "p{low:015x}" and pk < "{below}"'
            rows = self._reader.rows(self._layout.documents, bounds, ("pk",), level=STRONG)
            parts = [(row["pk"], *row["pk"][1:].split("/")) for row in rows]
            return [{"pk": pk, "document": key, "version": version} for pk, key, version, _ in parts]

        return across(fetch, KEYS)

    def _without_head(self, rows: Sequence[Row], level: str | None = STRONG) -> list[Row]:
        heads = self._reader.heads({row["document"] for row in rows}, level=level)
        return [row for row in rows if row["version"] != heads.get(row["document"], {}).get("version")]

    def _without_owner(self, rows: Sequence[Row]) -> list[Row]:
        """Pieces of no version that holds, of a document or of a state."""
        rows = self._without_head(rows)
        if not rows:
            return []
        owners = {row["document"] for row in rows}
        states = self._reader.among(self._layout.documents, "content", owners, ("content", "version"), level=STRONG)
        held = {(row["content"], row["version"]) for row in states}
        return [row for row in rows if (row["document"], row["version"]) not in held]

    def _left_behind(self, rows: Sequence[Row], stray: Callable[[Sequence[Row]], list[Row]]) -> list[Row]:
        """The rows that do not count and that nobody is about to make count.

        The intents are read before the heads are read again: whoever has withdrawn his has written his heads by then.
        """
        suspects = stray(rows)
        if not suspects:
            return []
        announced = self._announced(STRONG)
        return [row for row in stray(suspects) if row["document"] not in announced]

    def close(self) -> None:
        """Take the own intent away, which says nothing between writes."""
        if self._announced_once:
            self._connection.call_once("delete", self._layout.documents, ids=[self._intent])

    # -- rows --------------------------------------------------------------------------------------------------------

    def _upsert(self, collection: str, rows: Iterable[Mapping[str, Any]]) -> None:
        base = self._blank if collection == self._layout.documents else {}
        for batch in _batches({**base, **row} for row in rows):
            self._connection.call("upsert", collection, batch)

    def _delete(self, collection: str, keys: Sequence[int] | Sequence[str]) -> None:
        for group in _groups(keys, BATCH_ROWS):
            self._connection.call("delete", collection, ids=list(group))
        if keys:
            self._deleted.add(collection)

    def _settle(self) -> None:
        """Wait until deletes are seen: release 2.3 does not tell their time, so a session would not wait for them."""
        deleted, self._deleted = self._deleted, set()
        if self._connection.is_server:
            for collection in deleted:
                nothing = "id == 0" if collection == self._layout.passages else 'pk == "0"'
                self._reader.rows(collection, nothing, ("version",), limit=1, level=STRONG)


def _groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches that a server takes as one message."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(_size, row.values()))
        if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(value: Any) -> int:
    """About how many bytes a value takes in a message."""
    if isinstance(value, str):
        return len(value) if value.isascii() else 3 * len(value)
    if isinstance(value, np.ndarray):
        return value.nbytes
    return 64 * len(value) if isinstance(value, (list, dict)) else 8

"""An index in Milvus: a server, a cluster, or a Milvus Lite file; see `semsearch.engines.location`.

Two collections hold it, as `milvus_layout` says. Dense search, BM25 and filters run there. Whatever kind of Milvus it
is, the same code serves it; what the kinds differ in is learned when the index is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semsearch.engines.location import Location
from semsearch.engines.milvus_coding import document_key, state_pk, terms_of
from semsearch.engines.milvus_connection import Connection
from semsearch.engines.milvus_layout import open_layout
from semsearch.engines.milvus_reading import Reader, joined
from semsearch.engines.milvus_rows import HEAD
from semsearch.engines.milvus_writing import Writer
from semsearch.engines.protocol import Capabilities, Entry, Ranking, Specification
from semsearch.errors import ClosedIndexError, InputError
from semsearch.filters import Condition
from semsearch.records import Passage

__all__ = ["MilvusEngine"]


class MilvusEngine:
    """The engine of a `milvus://` location; meets `semsearch.engines.protocol.Engine`."""

    def __init__(self, location: Location) -> None:
        self.location = str(location)
        self.capabilities = Capabilities(text=False, exact=True, scores=False, generations=False)
        self._location = location
        self._connection: Connection | None = None
        self._opened: tuple[Reader, Writer] | None = None

    def open(self, specification: Specification | None, *, create: bool) -> Specification:
        """Open the collections, or make them; returns what they are bound to."""
        if self._connection is None:
            self._connection = Connection(self._location)
        layout = open_layout(self._connection, specification, create=create)
        reader = Reader(self._connection, layout)
        self._layout = layout
        self._opened = reader, Writer(self._connection, layout, reader)
        self.capabilities = Capabilities(
            text=layout.text, exact=layout.index == "FLAT", scores=False, generations=False
        )
        return layout.specification

    @property
    def _reader(self) -> Reader:
        return self._both()[0]

    @property
    def _writer(self) -> Writer:
        return self._both()[1]

    def _both(self) -> tuple[Reader, Writer]:
        if self._opened is None:
            raise ClosedIndexError(f"{self.location} is not open (any more). Open it again.")
        return self._opened

    def upsert(self, entries: Sequence[Entry]) -> None:
        """Store documents with their passages in place of those with their ids."""
        self._writer.upsert(entries)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents by id, with their passages; one that is not there is no error."""
        self._writer.delete(ids)

    def get(self, ids: Sequence[str], *, parts: bool = False) -> dict[str, Entry]:
        """The documents with these ids; with their passages and vectors if `parts`, else without any."""
        found = self._reader.entries(map(document_key, ids), parts=parts)
        return {entry.document.id: entry for entry in found.values()}

    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids; those that are gone are not in the result."""
        return self._reader.passages(ids)

    def owned(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """The passage ids of each of these documents, in the order of the text; those that are gone are left out."""
        return self._reader.owned(ids)

    def vectors(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors that are known for these digests, each (dimension,) float32."""
        return self._reader.vectors(digests)

    def vectors_of(self, ids: Sequence[int]) -> dict[int, np.ndarray]:
        """The vectors of these passages, each (dimension,) float32; none for one that has no vector."""
        return self._reader.vectors_of(ids)

    def dense(self, vectors: np.ndarray, k: int, where: Condition | None = None) -> list[Ranking]:
        """For each of the (q, dimension) unit vectors, the k passages of the greatest inner product."""
        return self._reader.ranked("vector", "IP", list(np.asarray(vectors, np.float32)), k, where)

    def text(self, queries: Sequence[Sequence[str]], k: int, where: Condition | None = None) -> list[Ranking]:
        """For each query, a sequence of the analyzer's terms, the k best passages by BM25; only passages that match."""
        reader = self._reader
        if not self.capabilities.text:
            raise InputError(f"{self.location} has no keyword search, which Milvus has since 2.5. Search by meaning.")
        asked = {number: terms_of(terms) for number, terms in enumerate(queries) if terms}
        found = reader.ranked("sparse", "BM25", list(asked.values()), k, where)
        by_number = dict(zip(asked, found, strict=True))
        return [by_number.get(number, []) for number in range(len(queries))]

    def matching(self, where: Condition, limit: int) -> list[int]:
        """The ids of at most `limit` passages that a filter lets through, ascending."""
        return self._reader.matching(where, limit)

    def count(self, where: Condition | None = None) -> tuple[int, int]:
        """How many documents and passages there are, or match."""
        reader = self._reader
        expression = reader.compiled(where)
        if expression is False:
            return 0, 0
        documents = reader.count(self._layout.documents, joined(f"kind == {HEAD}", expression))
        passages = reader.count(self._layout.passages, joined(expression))
        return documents, max(0, passages - self._writer.stray(expression))

    def scan(
        self, after: str = "", limit: int = 64, where: Condition | None = None, *, parts: bool = False
    ) -> list[tuple[str, Entry]]:
        """Up to `limit` documents that come after a mark, each with its own mark; [] after the last one."""
        reader = self._reader
        while keys := reader.keys_after(after, limit, where):
            entries = reader.entries(keys, parts=parts)
            if entries:
                return [(key, entries[key]) for key in keys if key in entries]
            after = keys[-1]  # all of them were removed meanwhile
        return []

    def files(self, root: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The id and the `file` of each document whose file's `root` is that number."""
        return self._reader.files(root)

    def read_state(self, prefix: str = "") -> dict[str, Any]:
        """The JSON values whose names begin so."""
        return self._reader.states(state_pk(prefix))

    def write_state(self, values: Mapping[str, Any]) -> None:
        """Store JSON values by name (at most 200 characters); None forgets the name."""
        self._writer.write_state(values)

    def version(self) -> str | None:
        """None: Milvus has no mark that changes with every write."""
        return None

    def flush(self) -> None:
        """Have everything that was written in sealed segments; it was in the server's log before."""
        self._writer.flush()

    def refresh(self) -> None:
        """Read from now on what others have written until now."""
        self._reader.refresh()

    def compact(self) -> None:
        """Give back the room of what was deleted, and remove what an interrupted write has left."""
        self._writer.compact()

    def close(self) -> None:
        """Let go of the engine; a second call does nothing."""
        connection, self._connection = self._connection, None
        opened, self._opened = self._opened, None
        if connection is None:
            return
        if opened is not None and not connection.is_foreign:
            opened[1].close()
        connection.close()

"""What an engine does, so that an index can live in it.

An engine keeps documents with their passages, ranks passages by vector and by keyword, and remembers a few JSON values.
Loading, chunking, encoding, fusion, reranking and reading stay on this side, so that rankings do not depend on the
engine. Every engine passes the same tests: tests/engines/test_conformance.py.

A write is durable, and seen by the one who wrote, when the call returns. A document is replaced whole: whoever reads
sees it as it was or as it is, never a mixture; several documents of one call may become visible one after the other.
Every write can be repeated: the second time it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from semsearch.filters import Condition
from semsearch.records import Document, Passage

__all__ = ["Capabilities", "Consistency", "Engine", "Entry", "FieldType", "Part", "Ranking", "Specification"]

Ranking = list[tuple[int, float]]  # (passage id, score), best first
FieldType = Literal["str", "int", "float", "bool"]
Consistency = Literal["strong", "session", "bounded", "eventually"]


@dataclass(frozen=True, slots=True)
class Specification:
    """What a collection is made for, and stays bound to.

    `encoder` and `analyzer` are fingerprints, JSON values: another one is refused. `fields` are metadata keys that
    become typed columns with an index, since filters on other keys are slower. The rest is for engines that have it:
    `shards` spread a collection's writing, `replicas` its reading, and `consistency` says how fresh a reading is.
    """

    dimension: int
    encoder: Mapping[str, Any]
    analyzer: Mapping[str, Any]
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    shards: int = 1
    replicas: int = 1
    consistency: Consistency = "session"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    `text`: it ranks by keyword (BM25). `exact`: dense rankings are those of exact search. `scores`: the scores of its
    keyword rankings are BM25 over the whole collection, so that they can be compared between queries and engines.
    `generations`: a reading of several calls sees one state of the whole index.
    """

    text: bool
    exact: bool
    scores: bool
    generations: bool


class Part(NamedTuple):
    """A passage of an entry: offsets into the document's text, `page` from 1 or None, `heading` the path of headings.

    `digest` is that of the embedded text (16 bytes); passages with the same one share a vector. `terms` are the
    analyzer's keywords, of an entry that is written; empty in one that is read. `vector` is (dimension,) float32 of
    unit length, None for a passage that is found by keyword only.
    """

    start: int
    end: int
    page: int | None
    heading: str
    digest: bytes
    terms: Sequence[str]
    vector: np.ndarray | None


class Entry(NamedTuple):
    """A document with its passages, and what is known of the file that it comes from (JSON values)."""

    document: Document
    parts: Sequence[Part]
    file: Mapping[str, Any] | None = None


class Engine(Protocol):
    """Documents and passages in one collection. Passage ids are positive and below 2**63.

    Every method may be called from several threads at once, `open` and `close` from one.

    Errors are those of `semsearch.errors`: EngineUnavailableError when the engine is away or does not answer in time,
    after a few tries; CorruptIndexError for what cannot be read back; FilterError for a filter it cannot evaluate.
    """

    location: str
    capabilities: Capabilities

    def open(self, specification: Specification | None, *, create: bool) -> Specification:
        """Open the collection, or make it; returns what it is bound to.

        Raises IndexNotFoundError where there is none and `create` is False (or there is no specification), and
        IndexMismatchError for another encoder or analyzer than it was made with.
        """

    def upsert(self, entries: Sequence[Entry]) -> None:
        """Store documents with their passages in place of those with their ids."""

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents by id, with their passages; one that is not there is no error."""

    def get(self, ids: Sequence[str], *, parts: bool = False) -> dict[str, Entry]:
        """The documents with these ids; with their passages and vectors if `parts`, else without any."""

    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids; those that are gone are not in the result."""

    def owned(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """The passage ids of each document, in the order of the text; those that are gone are not in the result."""

    def vectors(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors that are known for these digests, each (dimension,) float32."""

    def vectors_of(self, ids: Sequence[int]) -> dict[int, np.ndarray]:
        """The vectors of these passages, each (dimension,) float32; none for one that has no vector."""

    def dense(self, vectors: np.ndarray, k: int, where: Condition | None = None) -> list[Ranking]:
        """For each of the (q, dimension) unit vectors, the k passages of the greatest inner product.

        If k passages that match `where` have a vector, k come back.
        """

    def text(self, queries: Sequence[Sequence[str]], k: int, where: Condition | None = None) -> list[Ranking]:
        """For each query, a sequence of the analyzer's terms, the k best passages by BM25; only passages that match.

        Raises InputError where `capabilities.text` is False.
        """

    def matching(self, where: Condition, limit: int) -> list[int]:
        """The ids of at most `limit` passages that a filter lets through, ascending."""

    def count(self, where: Condition | None = None) -> tuple[int, int]:
        """How many documents and passages there are, or match."""

    def scan(
        self, after: str = "", limit: int = 64, where: Condition | None = None, *, parts: bool = False
    ) -> list[tuple[str, Entry]]:
        """Up to `limit` documents that come after a mark, each with its own mark; [] after the last one.

        The order is the engine's, and stays the same. A document that is written or removed meanwhile may or may not
        be met; every other one is met once.
        """

    def files(self, root: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The id and the `file` of each document whose file's `root` is that number."""

    def read_state(self, prefix: str = "") -> dict[str, Any]:
        """The JSON values whose names begin so."""

    def write_state(self, values: Mapping[str, Any]) -> None:
        """Store JSON values by name (at most 200 characters); None forgets the name."""

    def version(self) -> str | None:
        """A mark that is another one after anything was written by anybody; None where the engine has no such mark."""

    def flush(self) -> None:
        """Have everything that was written on the engine's disk, where that is not so already."""

    def refresh(self) -> None:
        """Read from now on what others have written until now."""

    def compact(self) -> None:
        """Give back the room of what was deleted, and remove what an interrupted write has left."""

    def close(self) -> None:
        """Let go of the engine; a second call does nothing."""

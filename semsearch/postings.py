"""Postings in arrays: segments that are never changed, their merging, and their files. `lexical` computes BM25 on them.

An index is one large base segment, which may be a memory-mapped file, and a few small ones for what was added since. An
addition costs what it adds; small segments are merged when they grow alike (O'Neil et al., "The Log-Structured
Merge-Tree", 1996). A removal marks, and a merge leaves the marked ones out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import StorageError

__all__ = ["Segment", "State", "Vocabulary", "build", "compact", "encode", "merge_alike", "numbering", "read", "write"]

Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]

FORMAT = "1"  # of the files


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Terms in the order of their UTF-8 bytes: term i is `blob[offsets[i]:offsets[i + 1]]`. Opening reads nothing."""

    blob: NDArray[np.uint8]
    offsets: Int64

    @classmethod
    def of(cls, terms: Sequence[bytes]) -> Self:
        lengths = np.fromiter(map(len, terms), dtype=np.int64, count=len(terms))
        return cls(np.frombuffer(b"".join(terms), dtype=np.uint8), _starts(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def terms(self) -> list[bytes]:
        blob, offsets = self.blob.tobytes(), self.offsets.tolist()
        return [blob[start:end] for start, end in pairwise(offsets)]

    def find(self, term: str) -> int:
        """The row of a term, or -1."""
        wanted = encode(term)
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.blob[self.offsets.item(middle) : self.offsets.item(middle + 1)].tobytes() < wanted:
                low = middle + 1
            else:
                high = middle
        if low < len(self) and self.blob[self.offsets.item(low) : self.offsets.item(low + 1)].tobytes() == wanted:
            return low
        return -1


@dataclass(frozen=True)
class Segment:
    """Some passages and their postings; never changed, only replaced.

    Row r's postings are `docs[indptr[r]:indptr[r + 1]]` (positions in `ids`, ascending) and `tf` beside it. `ids`
    ascend. `terms` has the number of each row's term (empty in the base segment, whose rows are its vocabulary's).
    `dead` marks removed positions, `tokens` is the sum of the living ones' `lengths`.
    """

    terms: Int64
    indptr: Int64
    docs: Int32
    tf: Int32
    ids: Int64
    lengths: Int32
    tokens: int
    dead: Bool | None = None
    dead_count: int = 0

    @property
    def live(self) -> int:
        return len(self.ids) - self.dead_count

    def postings(self, row: int) -> tuple[Int32, Int32]:
        start, end = self.indptr.item(row), self.indptr.item(row + 1)
        return self.docs[start:end], self.tf[start:end]

    def frequency(self, row: int) -> int:
        """How many living passages have the term."""
        docs, _ = self.postings(row)
        return len(docs) if self.dead is None else len(docs) - int(np.count_nonzero(self.dead[docs]))

    @cached_property
    def frequencies(self) -> Int64:
        """`frequency` of every row."""
        return np.diff(self.indptr if self.dead is None else self.survivors()[0])

    def survivors(self) -> tuple[Int64, Int32, Int32]:
        """indptr, docs and tf of the living passages, which are renumbered without gaps."""
        if self.dead is None:
            return self.indptr, self.docs, self.tf
        keep = ~self.dead[self.docs]
        renumbered = (np.cumsum(~self.dead) - 1).astype(np.int32)
        return _starts(keep)[self.indptr], renumbered[self.docs[keep]], self.tf[keep]

    def positions(self, ids: Int64) -> Int32:
        """Where the living ones among sorted ids are, ascending."""
        at = np.searchsorted(self.ids, ids)
        at = (
            at[(at < len(self.ids)) & (self.ids[np.minimum(at, len(self.ids) - 1)] == ids)] if len(self.ids) else at[:0]
        )
        return (at if self.dead is None else at[~self.dead[at]]).astype(np.int32)

    def without(self, positions: Int32) -> Segment:
        dead = np.zeros(len(self.ids), dtype=np.bool_) if self.dead is None else self.dead.copy()
        dead[positions] = True
        tokens = self.tokens - int(self.lengths[positions].sum(dtype=np.int64))
        return replace(self, dead=dead, dead_count=self.dead_count + len(positions), tokens=tokens)


@dataclass(frozen=True)
class State:
    """One consistent view of an index. A change makes another, so a search beside it sees the old or the new one.

    `numbers` (term → number in the fresh segments) and `links` (that number → base row or -1, for okapi only) grow in
    place, which no older view sees.
    """

    vocabulary: Vocabulary
    base: Segment
    fresh: tuple[Segment, ...] = ()
    numbers: defaultdict[str, int] = field(default_factory=lambda: numbering())
    links: list[int] = field(default_factory=list)

    @classmethod
    def empty(cls) -> Self:
        none, few = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
        return cls(Vocabulary.of([]), Segment(none, np.zeros(1, dtype=np.int64), few, few, none, few, 0))

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (self.base, *self.fresh)

    @cached_property
    def live(self) -> int:
        return sum(segment.live for segment in self.segments)

    @cached_property
    def mean_length(self) -> float:
        return sum(segment.tokens for segment in self.segments) / self.live if self.live else 0.0

    @cached_property
    def ids(self) -> Int64:
        alive = [s.ids if s.dead is None else s.ids[~s.dead] for s in self.segments]
        return np.sort(np.concatenate(alive))

    def rows(self, term: str) -> list[int]:
        """The term's row in each segment, -1 where it has none."""
        number = self.numbers.get(term, -1)
        return [self.vocabulary.find(term), *(_row(segment.terms, number) for segment in self.fresh)]

    @cached_property
    def mean_idf(self) -> float:
        """The mean of okapi's idf over the vocabulary of the living passages."""
        fresh = np.zeros(len(self.links), dtype=np.int64)
        for segment in self.fresh:
            fresh[segment.terms] += segment.frequencies
        links = np.array(self.links, dtype=np.int64)
        base = self.base.frequencies.copy()
        base[links[links >= 0]] += fresh[links >= 0]
        values, counts = np.unique(np.concatenate([base, fresh[links < 0]]), return_counts=True)
        values, counts = values[values > 0], counts[values > 0]
        return float((np.log(self.live - values + 0.5) - np.log(values + 0.5)) @ counts / counts.sum())


def build(ids: Int64, documents: Sequence[Sequence[str]], numbers: defaultdict[str, int]) -> Segment:
    """A segment of passages in the order of their ids; new terms are numbered."""
    lengths = np.fromiter(map(len, documents), dtype=np.int32, count=len(documents))
    terms = np.fromiter(map(numbers.__getitem__, chain.from_iterable(documents)), dtype=np.int64)
    keys = np.sort((terms << 32) | np.repeat(np.arange(len(documents), dtype=np.int64), lengths))
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    tf = np.diff(first, append=len(keys)).astype(np.int32)
    rows, starts = np.unique(keys[first] >> 32, return_index=True)
    docs = (keys[first] & 0xFFFFFFFF).astype(np.int32)
    return Segment(rows, np.append(starts, len(docs)).astype(np.int64), docs, tf, ids, lengths, len(keys))


def merge_alike(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Merge the newest segments while one is at least half as large as the one before: at most log2(n) are left."""
    while len(segments) > 1 and 2 * segments[-1].live >= segments[-2].live:
        pair = segments[-2:]
        terms = np.union1d(pair[0].terms, pair[1].terms)
        merged, kept = _merge(pair, [np.searchsorted(terms, segment.terms) for segment in pair], len(terms))
        segments = (*segments[:-2], replace(merged, terms=terms[kept]))
    return segments


def compact(state: State) -> State:
    """Everything in one base segment, nothing dead."""
    if not state.fresh and state.base.dead is None:
        return state
    base = state.vocabulary.terms()
    fresh = [encode(term) for term in state.numbers]
    terms = list(dict.fromkeys(sorted(base + fresh)))
    place = {term: row for row, term in enumerate(terms)}
    of_base = np.fromiter((place[term] for term in base), dtype=np.int64, count=len(base))
    of_fresh = np.fromiter((place[term] for term in fresh), dtype=np.int64, count=len(fresh))
    rows = [of_base, *(of_fresh[segment.terms] for segment in state.fresh)]
    merged, kept = _merge(state.segments, rows, len(terms))
    return State(Vocabulary.of([term for term, keep in zip(terms, kept.tolist(), strict=True) if keep]), merged)


def _merge(segments: Sequence[Segment], rows: Sequence[Int64], size: int) -> tuple[Segment, Bool]:
    """The living passages of some segments as one, and which of the `size` rows have a posting: the others are dropped.

    `rows[i]` says which row each row of segment i becomes.
    """
    parts = [segment.survivors() for segment in segments]
    ids, lengths = _living(segments)
    order = np.argsort(ids, kind="stable")
    position = np.empty(len(ids), dtype=np.int32)
    position[order] = np.arange(len(ids), dtype=np.int32)

    counts = np.zeros(size, dtype=np.int64)
    for (indptr, _, _), row in zip(parts, rows, strict=True):
        counts[row] += np.diff(indptr)
    starts = _starts(counts)
    docs, tf = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.int32)
    cursor, offset = starts[:-1].copy(), 0
    for segment, (indptr, part_docs, part_tf), row in zip(segments, parts, rows, strict=True):
        count = np.diff(indptr)
        target = np.repeat(cursor[row] - indptr[:-1], count) + np.arange(len(part_docs))
        docs[target] = position[offset : offset + segment.live][part_docs]
        tf[target] = part_tf
        cursor[row] += count
        offset += segment.live
    if np.any(np.diff(ids) < 0):  # not so where ids only ever grow
        sorting = np.lexsort((docs, np.repeat(np.arange(size), counts)))
        docs, tf = docs[sorting], tf[sorting]
    kept = counts > 0
    tokens = sum(segment.tokens for segment in segments)
    indptr = _starts(counts[kept])
    merged = Segment(np.zeros(0, dtype=np.int64), indptr, docs, tf, ids[order], lengths[order], tokens)
    return merged, kept


def _living(segments: Sequence[Segment]) -> tuple[Int64, Int32]:
    """Ids and lengths of the passages that were not removed."""
    keeps = [slice(None) if segment.dead is None else ~segment.dead for segment in segments]
    ids = np.concatenate([segment.ids[keep] for segment, keep in zip(segments, keeps, strict=True)])
    return ids, np.concatenate([segment.lengths[keep] for segment, keep in zip(segments, keeps, strict=True)])


def numbering() -> defaultdict[str, int]:
    """A dict that gives each new key the next number."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    return numbers


def _row(terms: Int64, number: int) -> int:
    at = int(np.searchsorted(terms, number))
    return at if at < len(terms) and terms[at] == number else -1


def _starts(counts: NDArray[Any]) -> Int64:
    """0 and the running sums of counts."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def encode(term: str) -> bytes:
    return term.encode("utf-8", "surrogatepass")


def write(directory: Path, stem: str, arrays: Mapping[str, NDArray[Any]]) -> list[Path]:
    paths = []
    for name, array in arrays.items():
        path = Path(directory) / f"{stem}-lexical.{name}.npy"
        np.save(path, array, allow_pickle=False)
        paths.append(path)
    return paths


def read(directory: Path, stem: str, names: Sequence[str], *, settings: int) -> dict[str, NDArray[Any]]:
    """The named arrays, memory-mapped; StorageError unless the settings are `settings` strings of this format."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        path = Path(directory) / f"{stem}-lexical.{name}.npy"
        try:
            # A plain view: numpy.memmap itself is slow to index.
            arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise StorageError(f"{path} cannot be opened ({error}). Delete the cache and build it again.") from error
        if name == "settings" and (arrays[name].shape != (settings,) or arrays[name][0] != FORMAT):
            raise StorageError(
                f"{path} is not of format {FORMAT}, or of another kind of index. Delete the cache and build it again."
            )
    return arrays

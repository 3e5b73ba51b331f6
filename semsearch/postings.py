"""Postings in arrays: segments that are never changed, their merging, and their files. `lexical` computes BM25 on them.

An index is one large base segment, which may lie in memory-mapped files, and a few small ones for what was added since.
An addition costs what it adds; small segments are merged when they grow alike (O'Neil et al., "The Log-Structured
Merge-Tree", 1996). A removal marks, and a merge leaves the marked ones out.

What BM25 makes of a posting depends on how often the term is there and on how long the passage is. Few such pairs are
different (17,346 in 15,558,989 postings of 1,154,476 short passages): a posting has the number of its pair, a "kind",
and whatever is computed of kinds is computed once for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, compress, islice
from operator import ne
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.blocks import Checked, open_array
from semsearch.errors import InputError, StorageError
from semsearch.vocabulary import Files, Vocabulary, encode, numbering, numbers_of, starts

__all__ = ["Codes", "Segment", "State", "build", "compact", "merge_alike", "opened", "write"]

Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]

FORMAT = "2"  # of the files
# Passages in one sorting. Adding 1,154,476 token lists (which take 0.45 GB): processor time and peak memory by block:
# 16,384: 5.85 s, 0.83 GB; 65,536: 5.89 s, 0.81 GB; all at once: 6.42 s, 1.36 GB.
BLOCK = 65536
NARROW = 1 << 16  # kinds of postings that two bytes can number


@dataclass(frozen=True)
class Segment:
    """Some passages and their postings; never changed, only replaced.

    Row r's postings are `docs[indptr[r]:indptr[r + 1]]` (positions in `ids`, ascending) and `codes` beside it, places
    in `kinds`: how often the term is there << 32 | the passage's length, ascending. `ids` ascend. `terms` has the
    number of each row's term (empty in the base segment, whose rows are its vocabulary's). `dead` marks removed
    positions, `tokens` is the sum of the living ones' `lengths`. `files` verify what is read of arrays on disk, `idle`
    are arrays to sum in, `tops` remember what no posting of a row is worth more than, and at which mean length.
    """

    terms: Int64
    indptr: Int64
    docs: Int32
    codes: Codes
    kinds: Int64
    ids: Int64
    lengths: Int32
    tokens: int
    dead: Bool | None = None
    dead_count: int = 0
    files: Files = field(default_factory=dict)
    idle: list[NDArray[np.float64]] = field(default_factory=list)
    tops: dict[tuple[Any, int], tuple[float, float]] = field(default_factory=dict)

    @property
    def live(self) -> int:
        return len(self.ids) - self.dead_count

    def span(self, row: int) -> tuple[int, int]:
        """Where a row's postings start and end."""
        self._verify("indptr", row, row + 2)
        return self.indptr.item(row), self.indptr.item(row + 1)

    def documents(self, start: int, end: int) -> Int32:
        """The positions of a span of postings."""
        self._verify("docs", start, end)
        return self.docs[start:end]

    def postings(self, start: int, end: int) -> tuple[Int32, Codes]:
        """Positions and kinds of a span of postings."""
        self._verify("codes", start, end)
        return self.documents(start, end), self.codes[start:end]

    def codes_at(self, rows: Int64) -> Codes:
        """The kinds of some postings."""
        if self.files:
            self.files["codes"].check_at(rows)
        return self.codes[rows]

    def named(self, positions: Int64) -> Int64:
        """The ids at some positions."""
        if self.files:
            self.files["ids"].check_at(positions)
        ids: Int64 = self.ids[positions]
        return ids

    def frequency(self, row: int) -> int:
        """How many living passages have the term."""
        start, end = self.span(row)
        if self.dead is None or start == end:
            return end - start
        if row not in self._counted:
            docs = self.documents(start, end)
            if 16 * self.dead_count < end - start:  # a search takes 16 times as long as reading one mark
                at = np.minimum(np.searchsorted(docs, self._removed), end - start - 1)
                gone = np.count_nonzero(docs[at] == self._removed)
            else:
                gone = np.count_nonzero(self.dead[docs])
            self._counted[row] = end - start - int(gone)
        return self._counted[row]

    @cached_property
    def _counted(self) -> dict[int, int]:
        return {}

    @cached_property
    def _removed(self) -> Int32:
        return np.flatnonzero(self.dead).astype(np.int32) if self.dead is not None else np.zeros(0, dtype=np.int32)

    @cached_property
    def frequencies(self) -> Int64:
        """`frequency` of every row."""
        self.verify()
        counts = np.diff(self.indptr)
        if self.dead is None:
            return counts
        rows = np.searchsorted(self.indptr, np.flatnonzero(self.dead[self.docs]), side="right") - 1
        return counts - np.bincount(rows, minlength=len(counts))

    def survivors(self) -> tuple[Int64, Int32, Codes]:
        """indptr, docs and codes of the living passages, which are renumbered without gaps."""
        self.verify()
        if self.dead is None:
            return self.indptr, self.docs, self.codes
        keep = ~self.dead[self.docs]
        renumbered = (np.cumsum(~self.dead) - 1).astype(np.int32)
        return starts(keep)[self.indptr], renumbered[self.docs[keep]], self.codes[keep]

    def positions(self, ids: Int64) -> Int32:
        """Where the living ones among sorted ids are, ascending."""
        if not len(self.ids) or not len(ids) or ids[0] > self.named(np.array([len(self.ids) - 1]))[0]:
            return np.zeros(0, dtype=np.int32)  # ids only ever grow: a new one is looked for nowhere
        self._verify("ids", 0, len(self.ids))
        if len(ids) * 16 > len(self.ids):
            return np.flatnonzero(self.marked(ids)).astype(np.int32)
        at = np.searchsorted(self.ids, ids)
        found: Int32 = at[self.ids[np.minimum(at, len(self.ids) - 1)] == ids].astype(np.int32)
        return found if self.dead is None else found[~self.dead[found]]

    def marked(self, ids: Int64) -> Bool:
        """Which positions have a living one of some sorted ids: faster than `positions` where they are many."""
        self._verify("ids", 0, len(self.ids))
        marks = _among(self.ids, ids)
        return marks if self.dead is None else marks & ~self.dead

    def verify(self) -> None:
        """Verify all that lies on disk."""
        for file in self.files.values():
            file.check_all()

    def _verify(self, name: str, start: int, end: int) -> None:
        if self.files:
            self.files[name].check(start, end)

    def without(self, positions: Int32) -> Segment:
        """The same segment with the passages at these positions marked as dead."""
        dead = np.zeros(len(self.ids), dtype=np.bool_) if self.dead is None else self.dead.copy()
        dead[positions] = True
        if self.files:
            self.files["lengths"].check_at(positions.astype(np.int64))
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
        """The state of an index without passages."""
        none, few = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
        return cls(
            Vocabulary.of([]),
            Segment(none, np.zeros(1, dtype=np.int64), few, few.astype(np.uint16), none, none, few, 0),
        )

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (self.base, *self.fresh)

    @cached_property
    def live(self) -> int:
        return sum(segment.live for segment in self.segments)

    @cached_property
    def mean_length(self) -> float:
        tokens = sum(segment.tokens for segment in self.segments)
        return tokens / self.live if tokens else 1.0  # nothing is divided by nothing

    @cached_property
    def ids(self) -> Int64:
        alive = [s.ids if s.dead is None else s.ids[~s.dead] for s in self.segments]
        return np.sort(np.concatenate(alive))

    def rows(self, terms: Sequence[str]) -> list[list[int]]:
        """The rows of some terms, segment by segment; -1 where a segment does not have the term."""
        numbers = np.array([self.numbers.get(term, -1) for term in terms], dtype=np.int64)
        rows = [[self.vocabulary.find(term) for term in terms]]
        return rows + [_rows(segment.terms, numbers) for segment in self.fresh]

    @cached_property
    def mean_idf(self) -> float:
        """The mean of okapi's idf over the vocabulary of the living passages."""
        fresh = np.zeros(len(self.links), dtype=np.int64)
        for segment in self.fresh:
            fresh[segment.terms] += segment.frequencies
        links = np.array(self.links, dtype=np.int64)
        base = self.base.frequencies.copy()
        base[links[links >= 0]] += fresh[links >= 0]
        counts = np.bincount(np.concatenate([base, fresh[links < 0]]))
        values = np.flatnonzero(counts[1:]) + 1
        counts = counts[values]
        return float((np.log(self.live - values + 0.5) - np.log(values + 0.5)) @ counts / counts.sum())


def build(ids: Int64, documents: Iterable[Sequence[str]], numbers: defaultdict[str, int]) -> Segment:
    """A segment of passages in the order of their ids; new terms are numbered. Blocks of them are read in turn.

    Raises InputError if there are not as many token lists as ids.
    """
    rest, segments, given = iter(documents), [], 0
    for start in range(0, len(ids), BLOCK):
        block = list(islice(rest, min(BLOCK, len(ids) - start)))
        given += len(block)
        segments.append(_sorted(ids[start : start + len(block)], block, numbers))
    given += sum(1 for _ in rest)
    if given != len(ids):
        raise InputError(f"{len(ids)} ids came with {given} token lists; there must be one for each id.")
    return _joined(segments) if segments else _sorted(ids, (), numbers)


def _sorted(ids: Int64, documents: Sequence[Sequence[str]], numbers: defaultdict[str, int]) -> Segment:
    lengths = np.fromiter(map(len, documents), dtype=np.int32, count=len(documents))
    terms = numbers_of(documents, numbers)
    keys = np.sort((terms << 32) | np.repeat(np.arange(len(documents), dtype=np.int64), lengths))
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    times = np.diff(first, append=len(keys))
    docs, terms = (keys[first] & 0xFFFFFFFF).astype(np.int32), keys[first] >> 32
    begins = np.flatnonzero(np.diff(terms, prepend=-1))
    kinds, codes = _kinds(times, lengths[docs])
    indptr = np.append(begins, len(docs)).astype(np.int64)
    return Segment(terms[begins], indptr, docs, codes, kinds, ids, lengths, len(keys))


def _kinds(times: Int64, lengths: Int32) -> tuple[Int64, Codes]:
    """The pairs that there are, as in `Segment.kinds`, and each posting's place among them."""
    high, wide = (int(times.max()) + 1, int(lengths.max()) + 1) if len(times) else (0, 0)
    if high * wide > 8 * len(times):
        kinds, codes = np.unique((times << 32) | lengths, return_inverse=True)
        return kinds, _smallest(codes, len(kinds))
    pairs = times * wide + lengths  # so few that a table of all of them is faster than sorting
    there = np.zeros(high * wide, dtype=np.bool_)
    there[pairs] = True
    kinds = np.flatnonzero(there)
    return (kinds // wide << 32) | kinds % wide, _smallest(np.cumsum(there) - 1, len(kinds))[pairs]


def _smallest(codes: NDArray[Any], count: int) -> Codes:
    return codes.astype(np.uint16) if count <= NARROW else codes.astype(np.uint32)


def merge_alike(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Merge the newest segments while one is at least half as large as the one before: at most log2(n) are left."""
    first, size = len(segments) - 1, segments[-1].live
    while first > 0 and 2 * size >= segments[first - 1].live:
        first -= 1
        size += segments[first].live
    return (*segments[:first], _joined(segments[first:]))


def _joined(segments: Sequence[Segment]) -> Segment:
    if len(segments) == 1:
        return segments[0]
    terms = np.unique(np.concatenate([segment.terms for segment in segments]))
    merged, kept = _merge(segments, [np.searchsorted(terms, segment.terms) for segment in segments], len(terms))
    return replace(merged, terms=terms[kept])


def compact(state: State) -> State:
    """Everything in one base segment, nothing dead."""
    if not state.fresh and state.base.dead is None:
        return state
    base = state.vocabulary.terms()
    fresh = [encode(term) for term in state.numbers]
    both = base + fresh
    order = sorted(range(len(both)), key=both.__getitem__)  # nearly free for the part that is in order already
    terms = [both[i] for i in order]
    new = np.fromiter(chain([True], map(ne, terms, terms[1:])), dtype=np.bool_, count=len(terms))
    place = np.empty(len(both), dtype=np.int64)
    place[order] = np.cumsum(new) - 1
    of_base, of_fresh = place[: len(base)], place[len(base) :]
    rows = [of_base, *(of_fresh[segment.terms] for segment in state.fresh)]
    merged, kept = _merge(state.segments, rows, int(np.count_nonzero(new)))
    new[new] = kept
    return State(Vocabulary.of(list(compress(terms, new.tolist()))), merged)


def _merge(segments: Sequence[Segment], rows: Sequence[Int64], size: int) -> tuple[Segment, Bool]:
    """The living passages of some segments as one, and which of the `size` rows have a posting: the others are dropped.

    `rows[i]` says which row each row of segment i becomes.
    """
    parts = [segment.survivors() for segment in segments]
    ids, lengths = _living(segments)
    order = np.argsort(ids, kind="stable")
    position = np.empty(len(ids), dtype=np.int32)
    position[order] = np.arange(len(ids), dtype=np.int32)

    kinds = np.unique(np.concatenate([segment.kinds for segment in segments]))
    counts = np.zeros(size, dtype=np.int64)
    for (indptr, _, _), row in zip(parts, rows, strict=True):
        counts[row] += np.diff(indptr)
    cursor, offset = starts(counts)[:-1], 0
    docs, codes = np.empty(counts.sum(), dtype=np.int32), _smallest(np.empty(counts.sum(), dtype=np.uint16), len(kinds))
    for segment, (indptr, part_docs, part_codes), row in zip(segments, parts, rows, strict=True):
        count = np.diff(indptr)
        target = np.repeat(cursor[row] - indptr[:-1], count)
        target += np.arange(len(part_docs))
        docs[target] = position[offset : offset + segment.live][part_docs]
        codes[target] = _smallest(np.searchsorted(kinds, segment.kinds), len(kinds))[part_codes]
        cursor[row] += count
        offset += segment.live
    if np.any(np.diff(ids) < 0):  # not so where ids only ever grow
        sorting = np.argsort((np.repeat(np.arange(size), counts) << 32) | docs)
        docs, codes = docs[sorting], codes[sorting]
    kept = counts > 0
    tokens = sum(segment.tokens for segment in segments)
    indptr = starts(counts[kept])
    none = np.zeros(0, dtype=np.int64)
    return Segment(none, indptr, docs, codes, kinds, ids[order], lengths[order], tokens), kept


def _living(segments: Sequence[Segment]) -> tuple[Int64, Int32]:
    """Ids and lengths of the passages that were not removed."""
    keeps = [slice(None) if segment.dead is None else ~segment.dead for segment in segments]
    ids = np.concatenate([segment.ids[keep] for segment, keep in zip(segments, keeps, strict=True)])
    return ids, np.concatenate([segment.lengths[keep] for segment, keep in zip(segments, keeps, strict=True)])


def _rows(terms: Int64, numbers: Int64) -> list[int]:
    """Where numbers are in ascending terms, -1 where they are not."""
    at = np.minimum(np.searchsorted(terms, numbers), len(terms) - 1)
    return np.where(terms[at] == numbers, at, -1).tolist() if len(terms) else [-1] * len(numbers)


def _among(ids: Int64, wanted: Int64) -> Bool:
    """Which of ascending ids are among sorted wanted ones."""
    first, last = ids[0].item(), ids[-1].item()
    wanted = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, last, side="right")]
    if last - first >= 8 * len(ids):  # so many gaps that a table of all numbers is larger than it is fast
        return np.isin(ids, wanted)
    table = np.zeros(last - first + 1, dtype=np.bool_)
    table[wanted - first] = True
    return table if len(table) == len(ids) else table[ids - first]


def write(directory: Path, stem: str, arrays: Mapping[str, NDArray[Any]]) -> list[Path]:
    """Write each array into `{stem}-lexical.{name}.npy`, and return the paths."""
    paths = []
    for name, array in arrays.items():
        path = Path(directory) / f"{stem}-lexical.{name}.npy"
        np.save(path, array, allow_pickle=False)
        paths.append(path)
    return paths


def opened(
    directory: Path, stem: str, names: Sequence[str], facts: Mapping[str, Mapping[str, Any]] | None, *, settings: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Checked]]:
    """The named arrays, memory-mapped, and what verifies them, by name ({} without facts).

    Raises StorageError unless the settings are `settings` strings of this format, DamagedCacheError (which is one)
    where a file is not what the facts say.
    """
    arrays: dict[str, NDArray[Any]] = {}
    files: dict[str, Checked] = {}
    for name in names:
        path = Path(directory) / f"{stem}-lexical.{name}.npy"
        if facts is None:
            arrays[name] = _mapped(path)
        else:
            files[name] = open_array(path, facts.get(path.name, {}))
            arrays[name] = files[name].array
        if name == "settings" and (arrays[name].shape != (settings,) or arrays[name][0] != FORMAT):
            raise StorageError(
                f"{path} is not of format {FORMAT}, or of another kind of index. Delete the cache and build it again."
            )
    return arrays, files


def _mapped(path: Path) -> NDArray[Any]:
    try:
        # A plain view: numpy.memmap itself is slow to index.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise StorageError(f"{path} cannot be opened ({error}). Delete the cache and build it again.") from error

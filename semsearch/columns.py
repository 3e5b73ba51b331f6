"""Metadata in columns: which passages a filter lets through, in time that hardly depends on how many they are.

Every metadata value is a term, every document that has it a posting: terms are ordered by (name, kind, value), and the
values of a kind as SQLite orders them. So equality, a range and existence are each one slice of an array of document
numbers; conditions are joined as masks over the documents. This is the bit-sliced column index of analytical databases
in its plainest form (O'Neil and Quass, "Improved Query Performance with Variant Indexes", 1997).

Like the search legs, it has one large base, which may be memory-mapped and is never changed, documents that came since
in memory, and marks for passages that went.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.blocks import Checked, DamagedCacheError, open_array
from semsearch.filters import Among, Atom, Compared, Condition, Has, Not

__all__ = ["Columns", "FieldRow"]

Int64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]
FieldRow: TypeAlias = tuple[str | bytes, str, Atom]  # name, kind, value, as `filters.fields` gives them
# A place between terms: before those that equal `term`, or after them.
Bound: TypeAlias = tuple[bytes, bool]

# The arrays of a base lie one after the other in a file for each type: every file costs a wait for the disk. In the
# file of the first type, the lengths of all arrays come before.
FILES: dict[str, tuple[str, ...]] = {
    "int64": ("name_ends", "firsts", "value_ends", "starts", "passages"),
    "int32": ("documents", "owners"),
    "uint8": ("names", "values"),
}
NAMES = tuple(name for names in FILES.values() for name in names)
KINDS = "bnsz"
MANY = 1 << 62  # more than there are documents


class Columns:
    """The metadata of documents by passage id.

    >>> from semsearch.filters import parse
    >>> columns = Columns().fill([1, 2], [7, 8], [("year", "n", 2019, 7), ("year", "n", 2021, 8)])
    >>> columns.matching(parse({"year": {"$gte": 2020}})).tolist()
    [2]
    """

    def __init__(self) -> None:
        self._base = _Base.of([], [], [])
        self._fresh = _Fresh()
        self._dead: Bool | None = None  # marks the base's passages that went, or whose document was described anew

    def fill(
        self,
        passages: Sequence[int] | Int64,
        documents: Sequence[int] | Int64,
        rows: Iterable[tuple[str | bytes, str, Atom, int]],
    ) -> Columns:
        """Hold these passages (n,), ascending ids, in place of all before; returns itself.

        `documents` (n,) are the keys of their documents, `rows` are (name, kind, value, document key) in the order in
        which SQLite sorts them. Raises ValueError for rows that are not in this order.
        """
        self._base, self._fresh, self._dead = _Base.of(passages, documents, rows), _Fresh(), None
        return self

    def __len__(self) -> int:
        """The number of passages."""
        gone = 0 if self._dead is None else int(np.count_nonzero(self._dead))
        return len(self._base.passages) - gone + len(self._fresh.holder)

    @property
    def since(self) -> int:
        """How many documents came since `fill`."""
        return self._fresh.size

    def add(self, documents: Iterable[tuple[Sequence[int], Iterable[FieldRow]]]) -> None:
        """Add documents, each as the ids of its passages and its rows; in place of those that had the passages.

        What came since `fill` is in sorted lists, so that many documents cost more than in proportion: fill instead.
        """
        for passages, rows in documents:
            self.remove(passages)
            self._fresh.add(passages, rows)

    def remove(self, passages: Sequence[int] | Int64) -> None:
        """Remove passages; an id that is not there is no error."""
        wanted = np.sort(np.asarray(passages, dtype=np.int64))
        at = self._base.positions(wanted)
        if len(at):
            self._dead = np.zeros(len(self._base.passages), dtype=np.bool_) if self._dead is None else self._dead
            self._dead[at] = True
        self._fresh.remove(wanted.tolist())

    def matching(self, condition: Condition) -> Int64:
        """The ids of the passages whose document meets a condition of `filters.parse`, (m,) int64, ascending."""
        chosen = _mask(condition, self._base)[self._base.owners]
        if self._dead is not None:
            chosen &= ~self._dead
        ids = self._base.passages[chosen]
        if not self._fresh.holder:
            return ids
        fresh, numbers = self._fresh.passages()
        return np.sort(np.concatenate([ids, fresh[_mask(condition, self._fresh)[numbers]]]), kind="stable")

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Write the base into `{stem}-columns.<name>.npy` files and return their paths.

        What came or went since `fill` is not in them, so that the caller fills the columns before. The files are
        written in place, not synced: naming and syncing is the caller's.
        """
        arrays = {name: part.array for name, part in self._base.parts.items()}
        lengths = np.array([len(arrays[name]) for name in NAMES], dtype=np.int64)
        paths = []
        for kind, names in FILES.items():
            ahead = [lengths] if kind == "int64" else []
            path = folder / f"{stem}-columns.{kind}.npy"
            np.save(path, np.concatenate([*ahead, *(arrays[name] for name in names)]), allow_pickle=False)
            paths.append(path)
        return paths

    @classmethod
    def load(cls, folder: Path, stem: str, files: Mapping[str, Mapping[str, Any]]) -> Columns:
        """Open what `save` wrote, memory-mapped, verified when touched. `files` has `blocks.facts` of each by its name.

        Raises DamagedCacheError if a file is missing or not what was written; `matching` may, too.
        """
        parts: dict[str, _Part] = {}
        lengths: list[int] = []
        for kind, names in FILES.items():
            file = f"{stem}-columns.{kind}.npy"
            if file not in files:
                raise DamagedCacheError(f"{folder / file} is not in the manifest. Delete the cache.")
            whole = open_array(folder / file, files[file])
            start = 0
            if kind == "int64":
                whole.check(0, len(NAMES))
                lengths, start = whole.array[: len(NAMES)].tolist(), len(NAMES)
            for name in names:
                stop = start + lengths[len(parts)]
                parts[name] = _Part(whole.array[start:stop], whole, start)
                start = stop
        for name in ("owners", "passages"):  # read whole by every filter
            parts[name].check(0, len(parts[name].array))
        columns = cls()
        columns._base = _Base(parts)
        return columns


# -- conditions --------------------------------------------------------------------------------------------------------


class _Side(Protocol):
    """Documents, numbered from 0, and where their values are."""

    @property
    def size(self) -> int: ...

    def documents(self, column: bytes, low: Bound | None, high: Bound | None) -> Sequence[int] | NDArray[Any]:
        """The numbers of the documents with a term between two bounds of a column; None is its end."""


def _mask(condition: Condition, side: _Side) -> Bool:
    """Which documents meet the condition."""
    if isinstance(condition, Not):
        return ~_mask(condition.part, side)
    if isinstance(condition, (Among, Compared, Has)):
        mask = np.zeros(side.size, dtype=np.bool_)
        _mark(condition, side, mask)
        return mask
    every = condition.operator == "AND"
    mask = np.full(side.size, every, dtype=np.bool_)
    for part in condition.parts:
        if every:
            mask &= _mask(part, side)
        elif isinstance(part, (Among, Compared, Has)):
            _mark(part, side, mask)
        else:
            mask |= _mask(part, side)
    return mask


def _mark(condition: Among | Compared | Has, side: _Side, mask: Bool) -> None:
    for column, low, high in _spans(condition):
        mask[side.documents(column, low, high)] = True


def _spans(condition: Among | Compared | Has) -> Iterator[tuple[bytes, Bound | None, Bound | None]]:
    """The parts of columns that meet a condition on a field."""
    if isinstance(condition, Has):
        yield from ((_column(condition.name, kind), None, None) for kind in KINDS)
        return
    column = _column(condition.name, condition.kind)
    if isinstance(condition, Among):
        for value in condition.values:
            term = _term(value)
            yield column, (term, False), (term, True)
        return
    term = _term(condition.value)
    greater, level = condition.operator[0] == ">", len(condition.operator) == 2
    if greater:
        yield column, (term, not level), None
    else:
        yield column, None, (term, level)


def _column(name: str | bytes, kind: str) -> bytes:
    # The end of the name sorts before whatever could go on.
    return _bytes(name).replace(b"\0", b"\0\xff") + b"\0\0" + kind.encode()


def _bytes(text: str | bytes) -> bytes:
    """A string as one byte that tells a proper one from a packed one, which SQLite sorts behind, and its UTF-8."""
    return b"\0" + text.encode() if isinstance(text, str) else b"\1" + text


def _term(value: Atom) -> bytes:
    """A value as bytes that sort as SQLite sorts the values of a kind: strings by their UTF-8, numbers exactly."""
    if isinstance(value, (str, bytes)):
        return _bytes(value)
    assert value is not None  # `filters` makes a null 0
    near = float(value) + 0.0  # no negative zero
    # An integer of more than 53 bits is a float and what is missing from it, so that neighbours differ.
    rest = value - int(near) if isinstance(value, int) else 0
    (bits,) = struct.unpack(">Q", struct.pack(">d", near))
    bits = bits ^ 0xFFFFFFFFFFFFFFFF if bits >> 63 else bits | 1 << 63
    return struct.pack(">QH", bits, rest + 0x8000)


# -- the base ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """An array; if it is a part of a file, the file and the row where it begins."""

    array: NDArray[Any]
    whole: Checked | None = None
    start: int = 0

    def check(self, start: int, stop: int) -> None:
        """Verify rows start:stop before they are read."""
        if self.whole is not None:
            self.whole.check(self.start + start, self.start + stop)


class _Base:
    """Arrays, never changed.

    Column c is `names[name_ends[c]:name_ends[c + 1]]` and has the terms `firsts[c]:firsts[c + 1]`. Term t is
    `values[value_ends[t]:value_ends[t + 1]]` and is had by `documents[starts[t]:starts[t + 1]]`. `owners` has the
    number of each passage's document.
    """

    def __init__(self, parts: Mapping[str, _Part]) -> None:
        self.parts = parts
        self.passages: Int64 = parts["passages"].array
        self.owners: NDArray[np.int32] = parts["owners"].array
        self.size = int(self.owners.max(initial=-1)) + 2  # the last number is that of all documents without passages

    @classmethod
    def of(
        cls,
        passages: Sequence[int] | Int64,
        documents: Sequence[int] | Int64,
        rows: Iterable[tuple[str | bytes, str, Atom, int]],
    ) -> _Base:
        keys, owners = np.unique(np.asarray(documents, dtype=np.int64), return_inverse=True)
        names, values = _Words(), _Words()
        firsts, starts, having = array("q"), array("q"), array("q")
        column: tuple[str | bytes, str] | None = None
        last: Atom = None
        for name, kind, value, document in rows:
            if (name, kind) != column:
                column, last = (name, kind), None
                names.append(_column(name, kind), first=not len(names))
                firsts.append(len(starts))
            if value != last:
                values.append(_term(value), first=last is None)
                last = value
                starts.append(len(having))
            having.append(document)
        firsts.append(len(starts))
        starts.append(len(having))
        numbers = np.searchsorted(keys, having)
        numbers[np.append(keys, -1)[numbers] != np.array(having, dtype=np.int64)] = len(keys)  # without passages
        arrays: dict[str, NDArray[Any]] = {
            "names": names.blob(),
            "name_ends": names.ends(),
            "firsts": np.array(firsts, dtype=np.int64),
            "values": values.blob(),
            "value_ends": values.ends(),
            "starts": np.array(starts, dtype=np.int64),
            "documents": numbers.astype(np.int32),
            "owners": owners.astype(np.int32),
            "passages": np.asarray(passages, dtype=np.int64),
        }
        return cls({name: _Part(each) for name, each in arrays.items()})

    def positions(self, ids: Int64) -> Int64:
        """Where those of some sorted passage ids are that are there."""
        at = np.searchsorted(self.passages, ids)
        return at[np.append(self.passages, -1)[at] == ids] if len(ids) else at

    def documents(self, column: bytes, low: Bound | None, high: Bound | None) -> NDArray[Any]:
        number = self._bisect("names", "name_ends", (column, False), 0, len(self.parts["firsts"].array) - 1)
        if number == len(self.parts["firsts"].array) - 1 or self._word("names", "name_ends", number) != column:
            return np.zeros(0, dtype=np.int32)
        first, last = self._pair("firsts", number)
        start = first if low is None else self._bisect("values", "value_ends", low, first, last)
        stop = last if high is None else self._bisect("values", "value_ends", high, start, last)
        if start >= stop:
            return np.zeros(0, dtype=np.int32)
        begin, end = self._pair("starts", start)[0], self._pair("starts", stop - 1)[1]
        self.parts["documents"].check(begin, end)
        return self.parts["documents"].array[begin:end]

    def _bisect(self, words: str, ends: str, bound: Bound, low: int, high: int) -> int:
        """The first of some words that is not before the bound."""
        wanted, after = bound
        while low < high:
            middle = (low + high) // 2
            word = self._word(words, ends, middle)
            if word < wanted or (after and word == wanted):
                low = middle + 1
            else:
                high = middle
        return low

    def _word(self, words: str, ends: str, number: int) -> bytes:
        start, end = self._pair(ends, number)
        part = self.parts[words]
        part.check(start, end)
        return part.array[start:end].tobytes()

    def _pair(self, name: str, number: int) -> tuple[int, int]:
        part = self.parts[name]
        part.check(number, number + 2)
        return part.array.item(number), part.array.item(number + 1)


class _Words:
    """Words on their way into a blob and the places where each ends."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._ends = array("q", [0])
        self._last = b""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, word: bytes, *, first: bool) -> None:
        """One more; raises ValueError unless it comes after the one before or is the `first` of its kind."""
        if not first and word <= self._last:
            raise ValueError(f"{word!r:.60} comes after {self._last!r:.60} in the table fields")
        self._blob += word
        self._ends.append(len(self._blob))
        self._last = word

    def blob(self) -> NDArray[np.uint8]:
        return np.frombuffer(bytes(self._blob), dtype=np.uint8)

    def ends(self) -> Int64:
        return np.array(self._ends, dtype=np.int64)


# -- what came since ---------------------------------------------------------------------------------------------------


@dataclass
class _Fresh:
    """Documents in lists. `holder` has the number of each living passage's document."""

    size: int = 0
    holder: dict[int, int] = field(default_factory=dict)
    columns: dict[bytes, list[tuple[bytes, int]]] = field(default_factory=dict)
    _listed: tuple[Int64, Int64] | None = None

    def add(self, passages: Sequence[int], rows: Iterable[FieldRow]) -> None:
        for name, kind, value in rows:
            # Each list is sorted; a place is found by halving, and moving the rest is a copy of memory.
            insort(self.columns.setdefault(_column(name, kind), []), (_term(value), self.size))
        self.holder.update(dict.fromkeys(passages, self.size))
        self.size += 1
        self._listed = None

    def remove(self, passages: Sequence[int]) -> None:
        for id in passages:
            self.holder.pop(id, None)
        self._listed = None

    def passages(self) -> tuple[Int64, Int64]:
        """The ids of the living passages and the number of each one's document."""
        if self._listed is None:
            count = len(self.holder)
            ids = np.fromiter(self.holder, dtype=np.int64, count=count)
            self._listed = ids, np.fromiter(self.holder.values(), dtype=np.int64, count=count)
        return self._listed

    def documents(self, column: bytes, low: Bound | None, high: Bound | None) -> list[int]:
        postings = self.columns.get(column, [])
        start = 0 if low is None else _place(postings, low)
        stop = len(postings) if high is None else _place(postings, high)
        return [number for _, number in postings[start:stop]]


def _place(postings: list[tuple[bytes, int]], bound: Bound) -> int:
    term, after = bound
    return bisect_left(postings, (term, MANY if after else -1))

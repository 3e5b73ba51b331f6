"""The terms of an index in one array, found by binary search, and the numbers that terms have in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.blocks import Checked

__all__ = ["Files", "Vocabulary", "encode", "numbering", "numbers_of", "starts"]

Int64: TypeAlias = NDArray[np.int64]
Files: TypeAlias = Mapping[str, Checked]

STEP = 256  # every so many terms one is in the guide of a vocabulary


@dataclass(frozen=True)
class Vocabulary:
    """Terms in the order of their UTF-8 bytes: term i is `blob[offsets[i]:offsets[i + 1]]`. Opening reads nothing."""

    blob: NDArray[np.uint8]
    offsets: Int64
    files: Files = field(default_factory=dict)

    @classmethod
    def of(cls, terms: Sequence[bytes]) -> Self:
        """A vocabulary of terms that are in order already."""
        lengths = np.fromiter(map(len, terms), dtype=np.int64, count=len(terms))
        return cls(np.frombuffer(b"".join(terms), dtype=np.uint8), starts(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def terms(self) -> list[bytes]:
        """All terms, in order."""
        blob, offsets = self._views
        joined = bytes(blob)
        return [joined[start:end] for start, end in pairwise(offsets.tolist())]

    def find(self, term: str) -> int:
        """The row of a term, or -1."""
        wanted = encode(term)
        low = max(bisect_right(self._guide, wanted) - 1, 0) * STEP
        high = min(low + STEP, len(self))
        while low < high:
            middle = (low + high) // 2
            found = self._term(middle)
            if found == wanted:
                return middle
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        return -1

    def _term(self, row: int) -> bytes:
        blob, offsets = self._views
        return bytes(blob[offsets[row] : offsets[row + 1]])

    @cached_property
    def _views(self) -> tuple[memoryview, memoryview]:
        """Both arrays verified, as memory views: indexing one costs a third of indexing an array."""
        for file in self.files.values():
            file.check_all()
        return self.blob.data, self.offsets.data

    @cached_property
    def _guide(self) -> list[bytes]:
        return [self._term(row) for row in range(0, len(self), STEP)]


def numbering() -> defaultdict[str, int]:
    """A dict that gives each new key the next number."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    return numbers


def numbers_of(documents: Sequence[Sequence[str]], numbers: defaultdict[str, int]) -> Int64:
    """The numbers of all tokens, document after document."""
    return np.fromiter(map(numbers.__getitem__, chain.from_iterable(documents)), dtype=np.int64)


def starts(counts: NDArray[Any]) -> Int64:
    """0 and the running sums of counts."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def encode(term: str) -> bytes:
    """The UTF-8 bytes of a term; a lone surrogate is encoded as it is."""
    return term.encode("utf-8", "surrogatepass")

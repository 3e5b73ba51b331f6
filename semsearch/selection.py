"""What every search structure does alike: take ids and k from its caller, and choose the best by score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError

__all__ = ["as_ids", "check_k", "kth", "refuse_repeated", "top"]

Int64: TypeAlias = NDArray[np.int64]
Number = TypeVar("Number", bound=np.floating[Any])


class _Part(Protocol):
    """Some passages of a structure."""

    @property
    def ids(self) -> Int64: ...

    def positions(self, ids: Int64) -> NDArray[Any]:
        """Where the living ones among sorted ids are."""


def check_k(k: int) -> None:
    """Raise InputError if k is less than 1."""
    if k < 1:
        raise InputError(f"k={k} asks for no passage at all; k must be at least 1.")


def as_ids(ids: Sequence[int] | Int64) -> Int64:
    """Passage ids as an array (n,); raises InputError for anything else."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"Passage ids must be a sequence of integers, not {ids!r}.")
    return array.astype(np.int64)


def refuse_repeated(ids: Int64, parts: Sequence[_Part], what: str = "is in the index") -> None:
    """Raise InputError if sorted ids repeat one another or one that lives in the parts, which `what` says of it."""
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise InputError(f"Passage {twice[0]} is given twice. Each passage needs an id of its own.")
    for part in parts:
        there = part.positions(ids)
        if len(there):
            raise InputError(
                f"Passage {part.ids[there[0]]} {what} already. Remove it first, or give the new text a new id."
            )


def top(ids: Int64, scores: NDArray[Number], k: int) -> tuple[Int64, NDArray[Number]]:
    """The k highest scores, best first; among equal ones the smaller ids."""
    if len(ids) > k:
        threshold = kth(scores, k)
        above, level = np.flatnonzero(scores > threshold), np.flatnonzero(scores == threshold)
        missing = k - len(above)
        if len(level) > missing:
            level = level[np.argpartition(ids[level], missing - 1)[:missing]]
        kept = np.concatenate([above, level])
        ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids, -scores))
    return ids[order], scores[order]


def kth(scores: NDArray[np.floating[Any]], k: int) -> float:
    """The k-th highest of at least k scores."""
    if len(scores) > max(4096, 64 * k):  # all that is below the k-th highest of a sample need not be looked at
        scores = scores[scores >= kth(scores[::16], k)]
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])

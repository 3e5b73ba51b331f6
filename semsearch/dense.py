"""Exact inner-product search over unit vectors, with FAISS.

FAISS (Douze et al., "The Faiss library", 2024) finds the candidates; the best of them are scored again by one fixed
routine in float64. So a query's scores and ranking do not depend on the batch it came in, on the number of threads or
on the order of additions, and equal scores come by smaller id.

Like the lexical index, it is a few immutable parts that are merged when they grow alike: an addition costs what it
adds, and a search that runs beside a change sees the index before it or after it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError, StorageError

__all__ = ["DenseIndex"]

Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]
Bool: TypeAlias = NDArray[np.bool_]

# How far FAISS's float32 sum for unit vectors may be from the exact one; in fact it is nearer than 1e-6.
ERROR = 1e-5
# Candidates beyond k, so that equal scores at the end are seen and a second look is rarely needed.
SPARE = 16
# Up to so many allowed vectors are scored without FAISS. Of 100,000 × 384, one query, ms without / with it: 100 allowed
# 0.04 / 0.21, 1,000 0.30 / 0.32, 4,000 2.8 / 0.8, 50,000 49 / 11.
FEW = 1000
# Past this share of removed vectors a part is copied without them.
DEAD_SHARE = 0.25
BLOCK = 8192


def _faiss() -> Any:
    import faiss

    return faiss


def _single_thread_after_fork() -> None:
    """A forked child has none of its parent's OpenMP threads; waiting for them would hang."""
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)
    torch = sys.modules.get("torch")
    if torch is not None:  # an encoder of the user's own may use it
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_single_thread_after_fork)


@dataclass(frozen=True, slots=True)
class _Part:
    """Vectors in a FAISS IndexFlatIP, ordered by id. `dead` marks removed ones; `owner` keeps `flat` alive."""

    flat: Any
    ids: Int64
    dead: Bool | None = None
    owner: Any = None

    @property
    def live(self) -> int:
        return len(self.ids) - (0 if self.dead is None else int(np.count_nonzero(self.dead)))

    def vectors(self) -> Float32:
        """A view of the vectors: (n, dimension)."""
        if not len(self.ids):
            return np.zeros((0, self.flat.d), dtype=np.float32)
        view: Float32 = _faiss().rev_swig_ptr(self.flat.get_xb(), len(self.ids) * self.flat.d)
        return view.reshape(-1, self.flat.d)

    def positions(self, ids: Int64) -> Int64:
        """Where the living ones among sorted ids are, ascending."""
        at = np.searchsorted(self.ids, ids)
        at = at[self.ids[np.minimum(at, len(self.ids) - 1)] == ids] if len(self.ids) else at[:0]
        return at if self.dead is None else at[~self.dead[at]]

    def without(self, positions: Int64) -> _Part:
        dead = np.zeros(len(self.ids), dtype=np.bool_) if self.dead is None else self.dead.copy()
        dead[positions] = True
        return replace(self, dead=dead)

    def nearest(self, queries: Float32, k: int, allowed: Int64 | None) -> list[tuple[Int64, Float32]]:
        """Each query's best k of the living, allowed vectors."""
        eligible = None if self.dead is None else ~self.dead
        count = self.live
        if allowed is not None:
            positions = self.positions(allowed)
            count = len(positions)
            if count <= FEW:
                return [self._best(query, positions, k) for query in queries]
            eligible = np.zeros(len(self.ids), dtype=np.bool_)
            eligible[positions] = True
        if not count:
            return [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))] * len(queries)
        return self._search(queries, k, count, eligible)

    def _search(self, queries: Float32, k: int, count: int, eligible: Bool | None) -> list[tuple[Int64, Float32]]:
        faiss = _faiss()
        parameters = None
        if eligible is not None:
            bits = np.packbits(eligible, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        k = min(k, count)
        fetch = min(k + SPARE, count)
        threads = faiss.omp_get_max_threads()
        # FAISS shares out queries, not vectors: more threads than queries would only wait for one another.
        faiss.omp_set_num_threads(min(threads, len(queries)))
        try:
            scores, found = self.flat.search(queries, fetch, params=parameters)
        finally:
            faiss.omp_set_num_threads(threads)
        results = []
        for i, query in enumerate(queries):
            positions = found[i]
            # Every one of the true best k has at least this score in FAISS.
            least = float(scores[i, k - 1]) - 2 * ERROR
            if fetch < count and scores[i, -1] >= least:
                _, _, positions = self.flat.range_search(query[None], least, params=parameters)
            results.append(self._best(query, positions[positions >= 0], k))
        return results

    def _best(self, query: Float32, positions: Int64, k: int) -> tuple[Int64, Float32]:
        """The best k of some vectors by their exact scores."""
        vectors, wide = self.vectors(), query.astype(np.float64)
        scores = np.empty(len(positions), dtype=np.float32)
        for start in range(0, len(positions), BLOCK):
            block = positions[start : start + BLOCK]
            scores[start : start + BLOCK] = np.vecdot(vectors[block].astype(np.float64), wide)
        return _top(self.ids[positions], scores, k)


class DenseIndex:
    """Unit vectors by passage id, searched exactly by inner product (cosine similarity).

    >>> index = DenseIndex(2)
    >>> index.add([1, 2], np.array([[1, 0], [0, 1]], dtype=np.float32))
    >>> [(ids, scores)] = index.search(np.array([[0.6, 0.8]], dtype=np.float32), 5)
    >>> ids.tolist(), scores.tolist()
    ([2, 1], [0.800000011920929, 0.6000000238418579])

    Raises InputError if the dimension is less than 1.
    """

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise InputError(f"A vector of {dimension} dimensions cannot be; dimension must be at least 1.")
        self._dimension = int(dimension)
        self._parts: tuple[_Part, ...] = ()

    def __repr__(self) -> str:
        return f"DenseIndex({self._dimension}, vectors={len(self)})"

    @property
    def dimension(self) -> int:
        """The number of components of a vector."""
        return self._dimension

    @property
    def ids(self) -> Int64:
        """The ids of the vectors, ascending: (n,) int64."""
        parts = self._parts
        return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *map(_living_ids, parts)]))

    def __len__(self) -> int:
        return sum(part.live for part in self._parts)

    def add(self, ids: Sequence[int] | Int64, vectors: Float32) -> None:
        """Add vectors (n, dimension) of unit length under ids (n,). It costs what it adds.

        Raises InputError, and adds nothing, if an id is there already or is given twice, if the shape does not fit, and
        for a vector that is zero or not finite.
        """
        wanted = _as_ids(ids)
        rows = self._as_rows(vectors, "vectors")
        if len(rows) != len(wanted):
            raise InputError(f"{len(wanted)} ids came with {len(rows)} vectors; there must be one for each id.")
        if not len(wanted):
            return
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1) | ~rows.any(axis=1))
        if len(bad):
            raise InputError(
                f"The vector of passage {wanted[bad[0]]} is zero or not finite ({len(bad)} such in this batch). "
                "Leave such passages out: they can still be found by keyword."
            )
        order = np.argsort(wanted)
        _refuse_repeated(wanted[order], self._parts)
        part = _part(wanted[order], [rows if _ascending(wanted) else rows[order]])
        self._parts = _merge_alike((*self._parts, part))

    def remove(self, ids: Sequence[int] | Int64) -> None:
        """Remove vectors; an id that is not there is no error."""
        wanted = np.unique(_as_ids(ids))
        parts = []
        for part in self._parts:
            positions = part.positions(wanted)
            part = part.without(positions) if len(positions) else part
            if part.live:
                parts.append(part if part.live >= (1 - DEAD_SHARE) * len(part.ids) else _merge([part]))
        self._parts = tuple(parts)

    def search(self, queries: Float32, k: int, *, allowed: Int64 | None = None) -> list[tuple[Int64, Float32]]:
        """For each query (q, dimension), the ids (m,) and inner products (m,) of the best m <= k vectors.

        Best first, equal scores by smaller id. `allowed` are sorted ids to choose from. Raises InputError if k is less
        than 1, if the queries have another dimension than the index, and for a query that is not finite.
        """
        if k < 1:
            raise InputError(f"k={k} asks for no passage at all; k must be at least 1.")
        rows = self._as_rows(queries, "queries")
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise InputError(
                f"The vector of query {bad[0]} is not finite, so nothing can be near it. Check the encoder."
            )
        parts = self._parts
        found = [part.nearest(rows, k, allowed) for part in parts] if len(rows) else []
        if len(found) == 1:
            return found[0]
        nothing = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        merged = []
        for i in range(len(rows)):
            lists = [nothing, *(results[i] for results in found)]
            merged.append(_top(np.concatenate([ids for ids, _ in lists]), np.concatenate([s for _, s in lists]), k))
        return merged

    def save(self, path: Path) -> None:
        """Write the index into one file that FAISS reads, an IndexIDMap over an IndexFlatIP.

        It is written in place, not synced, and has no checksum: naming, syncing and checking it is the caller's.
        """
        faiss = _faiss()
        if len(self._parts) != 1 or self._parts[0].dead is not None:
            self._parts = (_merge(self._parts),) if len(self) else ()
        part = self._parts[0] if self._parts else _part(np.zeros(0, dtype=np.int64), [], self._dimension)
        mapped = faiss.IndexIDMap(faiss.IndexFlatIP(self._dimension))
        mapped.index, mapped.ntotal = part.flat, part.flat.ntotal
        faiss.copy_array_to_vector(part.ids, mapped.id_map)
        try:
            faiss.write_index(mapped, os.fspath(path))
        except RuntimeError as error:
            raise StorageError(f"{path} cannot be written ({error}).") from error

    @classmethod
    def load(cls, path: Path) -> DenseIndex:
        """Read what `save` wrote. FAISS takes damaged files for good ones: check the file before.

        Raises StorageError if FAISS cannot read it, or if it is not such an index.
        """
        faiss = _faiss()
        try:
            mapped = faiss.read_index(os.fspath(path))
        except RuntimeError as error:
            raise StorageError(f"{path} cannot be read ({error}). Delete the cache and build it again.") from error
        if not isinstance(mapped, faiss.IndexIDMap):
            raise StorageError(f"{path} is a FAISS {type(mapped).__name__}, not what was written. Delete the cache.")
        flat, ids = faiss.downcast_index(mapped.index), faiss.vector_to_array(mapped.id_map)
        whole = isinstance(flat, faiss.IndexFlatIP) and flat.codes.size() == len(ids) * flat.d * 4
        if not whole or flat.ntotal != len(ids) or not _ascending(ids):
            raise StorageError(f"{path} is not the index that was written. Delete the cache and build it again.")
        index = cls(flat.d)
        index._parts = (_Part(flat, ids, owner=mapped),) if len(ids) else ()
        return index

    def _as_rows(self, vectors: Float32, what: str) -> Float32:
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self._dimension:
            raise InputError(
                f"The {what} have shape {rows.shape}, but this index holds vectors of {self._dimension} dimensions: "
                f"give (n, {self._dimension}), made by the encoder that the index was made with."
            )
        return rows


def _top(ids: Int64, scores: Float32, k: int) -> tuple[Int64, Float32]:
    """The k highest scores, best first; among equal ones the smaller ids."""
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def _part(ids: Int64, blocks: Sequence[Float32], dimension: int | None = None) -> _Part:
    flat = _faiss().IndexFlatIP(blocks[0].shape[1] if dimension is None else dimension)
    for block in blocks:
        flat.add(block)
    return _Part(flat, ids)


def _merge(parts: Sequence[_Part]) -> _Part:
    """The living vectors of some parts as one."""
    ids = np.concatenate([_living_ids(part) for part in parts])
    blocks = [part.vectors() if part.dead is None else part.vectors()[~part.dead] for part in parts]
    if not _ascending(ids):  # not so where ids only ever grow
        order = np.argsort(ids)
        return _part(ids[order], [np.concatenate(blocks)[order]])
    return _part(ids, blocks)


def _merge_alike(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    """Merge the newest parts while one is at least half as large as the one before: at most log2(n) are left."""
    while len(parts) > 1 and 2 * parts[-1].live >= parts[-2].live:
        parts = (*parts[:-2], _merge(parts[-2:]))
    return parts


def _living_ids(part: _Part) -> Int64:
    return part.ids if part.dead is None else part.ids[~part.dead]


def _ascending(ids: Int64) -> bool:
    return bool(np.all(ids[1:] > ids[:-1]))


def _as_ids(ids: Sequence[int] | Int64) -> Int64:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"Passage ids must be a sequence of integers, not {ids!r}.")
    return array.astype(np.int64)


def _refuse_repeated(ids: Int64, parts: Sequence[_Part]) -> None:
    """Raise InputError if sorted ids repeat one another or one that lives in the parts."""
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise InputError(f"Passage {twice[0]} is given twice. Each passage needs an id of its own.")
    for part in parts:
        there = part.positions(ids)
        if len(there):
            raise InputError(
                f"Passage {part.ids[there[0]]} has a vector already. Remove it first, or give the new text a new id."
            )

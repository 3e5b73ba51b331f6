"""Rows of unit vectors as they are kept, and exact search among them without FAISS.

`Rows` gives the rows back as float32 whatever they are kept as: float32, float16, or int8 with a scale for each row. A
scan adds up float32 products block by block to find every row that can be among the best k; those are scored again by
one fixed routine in float64. So a score is the inner product of the query with the row as it is kept, the same whatever
the batch, the threads or the place of the row, and equal scores come by smaller id.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.blocks import Checked
from semsearch.errors import InputError
from semsearch.selection import top

__all__ = ["STORAGES", "DistantRows", "Rows", "StoredRows", "best", "check_storage", "encoded", "nearest"]

Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]
Bool: TypeAlias = NDArray[np.bool_]

STORAGES = ("float32", "float16", "int8", "pq")
# How far a float32 sum for unit vectors may be from the exact one; in fact it is nearer than 1e-6.
ERROR = 1e-5
BLOCK = 4096
# From so many queries on a matrix product is no slower than one pass for each: of 100,000 × 384, ms of processor time
# for 8 queries 28 / 30, for 64 queries 79 / 240.
TOGETHER = 8
# Products (rows × queries × dimension) that are worth a second thread: 20 ms of one.
SHARED = 150_000_000


class Rows(Protocol):
    """Rows of vectors, wherever they are."""

    def __len__(self) -> int: ...

    def span(self, start: int, stop: int) -> Float32:
        """Rows start:stop: (stop - start, dimension)."""

    def take(self, positions: Int64) -> Float32:
        """Some rows: (m, dimension)."""


class StoredRows:
    """Rows in memory or in a mapped file, where each is verified before it is believed.

    `values` is (n, dimension) float32, float16 or int8; `scales` (n,) float32 are for int8 what a row is multiplied by.
    """

    def __init__(
        self,
        values: NDArray[np.generic],
        scales: Float32 | None = None,
        *,
        checks: Sequence[Checked] = (),
    ) -> None:
        self.values = values
        self.scales = scales
        self._checks = checks

    def __len__(self) -> int:
        return len(self.values)

    def span(self, start: int, stop: int) -> Float32:
        """Rows start:stop: (stop - start, dimension)."""
        for each in self._checks:
            each.check(start, stop)
        return self._decoded(self.values[start:stop], None if self.scales is None else self.scales[start:stop])

    def take(self, positions: Int64) -> Float32:
        """Some rows: (m, dimension)."""
        for each in self._checks:
            each.check_at(positions)
        return self._decoded(self.values[positions], None if self.scales is None else self.scales[positions])

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays that are kept, by name."""
        return {"vectors": self.values} | ({} if self.scales is None else {"scales": self.scales})

    def raw(self, positions: Int64) -> StoredRows:
        """A copy of some rows, as they are kept."""
        for each in self._checks:
            each.check_at(positions)
        return StoredRows(self.values[positions], None if self.scales is None else self.scales[positions])

    @property
    def mapped(self) -> bool:
        """Whether the rows are in a file."""
        return bool(self._checks)

    @staticmethod
    def _decoded(values: NDArray[np.generic], scales: Float32 | None) -> Float32:
        if values.dtype == np.float32:
            return values.view(np.float32)
        rows = values.astype(np.float32)
        if scales is not None:
            rows *= scales[:, None]
        return rows


class DistantRows:
    """Rows that are not kept here: `source` gives them by id, (m,) -> (m, dimension) float32."""

    def __init__(self, ids: Int64, source: Callable[[Int64], Float32]) -> None:
        self._ids = ids
        self._source = source

    def __len__(self) -> int:
        return len(self._ids)

    def span(self, start: int, stop: int) -> Float32:
        """Rows start:stop: (stop - start, dimension)."""
        return self._source(self._ids[start:stop])

    def take(self, positions: Int64) -> Float32:
        """Some rows: (m, dimension)."""
        return self._source(self._ids[positions])


def check_storage(storage: object) -> str:
    """The name of a storage; raises InputError for any other value."""
    if isinstance(storage, str) and storage in STORAGES:
        return storage
    raise InputError(f"storage={storage!r} is not known. Choose one of {', '.join(map(repr, STORAGES))}.")


def encoded(vectors: Float32, storage: str) -> StoredRows:
    """Vectors (n, dimension) as they are kept: "float32" (and "pq", which keeps its own elsewhere), "float16", "int8".

    int8 is the nearest of 255 steps between plus and minus the largest component of the row.
    """
    if storage == "float16":
        return StoredRows(vectors.astype(np.float16))
    if storage == "int8":
        scales = np.abs(vectors).max(axis=1, initial=0) / np.float32(127)
        steps = np.divide(vectors, scales[:, None], out=np.zeros_like(vectors), where=scales[:, None] > 0)
        return StoredRows(np.rint(steps).clip(-127, 127).astype(np.int8), scales.astype(np.float32))
    return StoredRows(vectors)


def best(rows: Rows, ids: Int64, query: Float32, positions: Int64, k: int) -> tuple[Int64, Float32]:
    """The best k of the rows at some positions, by their exact scores: ids (m,) and float32 scores (m,)."""
    wide = query.astype(np.float64)
    scores = np.empty(len(positions), dtype=np.float32)
    for start in range(0, len(positions), BLOCK):
        block = positions[start : start + BLOCK]
        scores[start : start + BLOCK] = np.vecdot(rows.take(block).astype(np.float64), wide)
    return top(ids[positions], scores, k)


def nearest(
    rows: Rows, queries: Float32, k: int, *, positions: Int64 | None = None, eligible: Bool | None = None
) -> list[Int64]:
    """For each query, the positions of a few rows among which its best k are, whatever float32 made of them.

    Only the rows at `positions`, or those that are `eligible` (n,), count.
    """
    count = len(rows) if positions is None else len(positions)
    workers = 1
    # A matrix product has threads of its own; distant rows may come from what belongs to one thread.
    if isinstance(rows, StoredRows) and len(queries) < TOGETHER and count * queries.size >= SHARED:
        workers = min(os.cpu_count() or 1, 8)
    edges = np.linspace(0, count, workers + 1).astype(np.int64).tolist()

    def scan(start: int, stop: int) -> list[_Found]:
        return _scan(rows, queries, k, start, stop, positions, eligible)

    if workers == 1:
        parts = [scan(0, count)]
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(scan, edges[:-1], edges[1:]))
    return [_joined([part[i] for part in parts]) for i in range(len(queries))]


class _Found:
    """The rows that may be among a query's best k, so far."""

    def __init__(self, k: int, slack: float) -> None:
        self.k, self.slack = k, slack
        self.floor = float(np.finfo(np.float32).min)
        self.positions: list[Int64] = []
        self.scores: list[Float32] = []
        self._count = 0

    def offer(self, positions: Int64, scores: Float32) -> None:
        self.positions.append(positions)
        self.scores.append(scores)
        self._count += len(scores)
        if self._count > 2 * self.k + 256:
            self.prune()

    def prune(self) -> None:
        if not self.scores:
            return
        positions, scores = np.concatenate(self.positions), np.concatenate(self.scores)
        if len(scores) > self.k:
            self.floor = float(np.partition(scores, -self.k)[-self.k]) - self.slack
            kept = scores >= self.floor
            positions, scores = positions[kept], scores[kept]
        self.positions, self.scores, self._count = [positions], [scores], len(scores)


def _joined(parts: Sequence[_Found]) -> Int64:
    whole = _Found(parts[0].k, parts[0].slack)
    for part in parts:
        whole.positions += part.positions
        whole.scores += part.scores
    whole.prune()
    return whole.positions[0] if whole.positions else np.zeros(0, dtype=np.int64)


def _scan(
    rows: Rows, queries: Float32, k: int, start: int, stop: int, positions: Int64 | None, eligible: Bool | None
) -> list[_Found]:
    slack = 2 * ERROR * np.maximum(1.0, np.linalg.norm(queries.astype(np.float64), axis=1))
    found = [_Found(k, float(each)) for each in slack]
    for where, block in _blocks(rows, start, stop, positions):
        scores = block @ queries.T if len(queries) >= TOGETHER else np.vecdot(block, queries[:, None, :]).T
        if eligible is not None:
            scores[~eligible[where]] = -np.inf
        for each, column in zip(found, np.ascontiguousarray(scores.T), strict=True):
            kept = np.flatnonzero(column >= each.floor)
            if len(kept):
                each.offer(where[kept], column[kept])
    return found


def _blocks(rows: Rows, start: int, stop: int, positions: Int64 | None) -> Iterator[tuple[Int64, Float32]]:
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        if positions is None:
            yield np.arange(first, last), rows.span(first, last)
        else:
            yield positions[first:last], rows.take(positions[first:last])

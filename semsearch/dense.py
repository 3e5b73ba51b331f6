"""Inner-product search over unit vectors: exact, or beyond a size by a sieve that proposes and exact scores.

Every score is the inner product of the query with the vector as it is kept, by one fixed routine in float64 rounded to
float32. So a query's scores do not depend on the batch it came in, on the number of threads or on the order of
additions, and equal scores come by smaller id. What is found is exact too, except where the sieve is asked.

The index is one large immutable part, as on disk, and a few small ones in memory for what came since, which are merged
when they grow alike: an addition costs what it adds, a removal is a mark, and a search that runs beside a change sees
the index before it or after it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.blocks import DamagedCacheError, is_sound, open_array
from semsearch.errors import InputError, StorageError
from semsearch.selection import as_ids, check_k, refuse_repeated, top
from semsearch.sieve import SAMPLE, Setting, Sieve, bits_of, sample_size, setting_for
from semsearch.vectors import DistantRows, Rows, StoredRows, best, check_storage, encoded, nearest

__all__ = ["DenseIndex"]

Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]
Bool: TypeAlias = NDArray[np.bool_]

# Up to so many allowed vectors are scored without a scan.
FEW = 1000
# Up to so many components search is exact; ms of processor time for a query among 100,000 × 384: 5.0, with a sieve 0.4.
EXACT = 96_000_000
# Up to so many components of allowed vectors are scanned without asking the sieve. Of 360,000 × 384, ms of processor
# time with / without it: 7,200 allowed 3.9 / 3.7, 18,000 5.7 / 15, 36,000 4.8 / 19, 180,000 8.4 / 27.
EXACT_ALLOWED = 5_000_000
# Where more than one in so many would be a candidate, the sieve is not asked.
WORTH = 20
# The share of the sample that is farthest from its neighbours, as questions are.
LONELY = 0.25
# Parts of more vectors than this are not merged: it would only copy them.
LARGE = 65_536
# Past this share of removed vectors a part in memory is copied without them.
DEAD_SHARE = 0.25
# A sieve is trained again when the number of vectors has changed by this factor since.
OUTGROWN = 4
BLOCK = 8192
NOTHING = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


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
    """Vectors ordered by id. `dead` marks removed ones; `sieve` proposes, as `setting` says."""

    rows: Rows
    ids: Int64
    dead: Bool | None = None
    sieve: Sieve | None = None
    setting: Setting | None = None

    @property
    def live(self) -> int:
        return len(self.ids) - (0 if self.dead is None else int(np.count_nonzero(self.dead)))

    @property
    def living(self) -> Int64:
        """The positions that are not removed."""
        return np.arange(len(self.ids)) if self.dead is None else np.flatnonzero(~self.dead)

    def positions(self, ids: Int64) -> Int64:
        """Where the living ones among sorted ids are, ascending."""
        if len(self.ids) and self.ids[-1] - self.ids[0] == len(self.ids) - 1:  # no gaps: 20 times as fast
            first, last = np.searchsorted(ids, self.ids[0]), np.searchsorted(ids, self.ids[-1], "right")
            at: Int64 = ids[first:last] - self.ids[0]
        else:
            at = np.searchsorted(self.ids, ids)
            at = at[self.ids[np.minimum(at, len(self.ids) - 1)] == ids] if len(self.ids) else at[:0]
        return at if self.dead is None else at[~self.dead[at]]

    def without(self, positions: Int64) -> _Part:
        dead = np.zeros(len(self.ids), dtype=np.bool_) if self.dead is None else self.dead.copy()
        dead[positions] = True
        return replace(self, dead=dead)

    def nearest(self, queries: Float32, k: int, allowed: Int64 | None) -> list[tuple[Int64, Float32]]:
        """Each query's best k of the living, allowed vectors."""
        chosen = None if allowed is None else self.positions(allowed)
        count = self.live if chosen is None else len(chosen)
        if not count:
            return [NOTHING] * len(queries)
        if chosen is not None and count <= FEW:
            return [best(self.rows, self.ids, query, chosen, k) for query in queries]
        if self.sieve is not None and self.setting is not None and self._worth_it(queries, k, count):
            return self._sifted(queries, k, chosen, count)
        return self._exact(queries, k, chosen, count)

    def _worth_it(self, queries: Float32, k: int, count: int) -> bool:
        assert self.setting is not None
        few = count < len(self.ids) // 2 and count * queries.shape[1] <= EXACT_ALLOWED
        return not (few and isinstance(self.rows, StoredRows)) and self._candidates(k) * WORTH <= count

    def _candidates(self, k: int) -> int:
        """How many candidates to score for k results: what was measured for ten, in proportion to the root of k.

        Recall@100 of held-out passages of 360,000, half of the lists, with 800 / 1,600 / 4,000: .981 / .991 / .992.
        """
        assert self.setting is not None
        return int(self.setting.candidates * max(1.0, k / 10) ** 0.5 * len(self.ids) / max(1, self.live)) + k

    def _exact(self, queries: Float32, k: int, chosen: Int64 | None, count: int) -> list[tuple[Int64, Float32]]:
        distant = isinstance(self.rows, DistantRows)  # what is removed has no vector there
        if chosen is None and self.dead is None:
            found = nearest(self.rows, queries, k)
        elif distant or (chosen is not None and 4 * count < len(self.ids)):
            found = nearest(self.rows, queries, k, positions=self.living if chosen is None else chosen)
        else:
            eligible = np.zeros(len(self.ids), dtype=np.bool_)
            eligible[self.living if chosen is None else chosen] = True
            found = nearest(self.rows, queries, k, eligible=eligible)
        return [best(self.rows, self.ids, query, each, k) for query, each in zip(queries, found, strict=True)]

    def _sifted(self, queries: Float32, k: int, chosen: Int64 | None, count: int) -> list[tuple[Int64, Float32]]:
        assert self.sieve is not None
        assert self.setting is not None
        sieve, setting = self.sieve, self.setting
        lists = sieve.index.nlist  # read once, before the threads
        # The nearest of the allowed ones may be far: every list is probed.
        bits, probes = (None, setting.probes) if chosen is None else (bits_of(self.ids[chosen]), lists)

        def one(query: Float32) -> tuple[Int64, Float32]:
            ids = sieve.propose(query, probes, self._candidates(k), bits)
            at = self.positions(np.unique(ids))
            if len(at) < min(k, count):  # the lists that were probed hold too few
                return self._exact(query[None], k, chosen, count)[0]
            return best(self.rows, self.ids, query, at, k)

        if len(queries) == 1 or isinstance(self.rows, DistantRows):  # a connection to SQLite belongs to one thread
            return [one(query) for query in queries]
        with ThreadPoolExecutor(min(len(queries), os.cpu_count() or 1, 8)) as pool:
            return list(pool.map(one, queries))


class DenseIndex:
    """Unit vectors by passage id, searched by inner product (cosine similarity).

    `storage` says how vectors are kept: "float32", "float16", "int8" with a scale for each, or "pq": beyond a size only
    codes are kept, and `source` has to give vectors by id (see there). `recall` is the share of the ten nearest that a
    search should find; up to a size, and for 1.0 always, search is exact.

    >>> index = DenseIndex(2)
    >>> index.add([1, 2], np.array([[1, 0], [0, 1]], dtype=np.float32))
    >>> [(ids, scores)] = index.search(np.array([[0.6, 0.8]], dtype=np.float32), 5)
    >>> ids.tolist(), scores.tolist()
    ([2, 1], [0.800000011920929, 0.6000000238418579])

    Raises InputError if the dimension is less than 1, for an unknown storage, and for a recall that is not in 0 … 1.
    """

    def __init__(self, dimension: int, *, storage: str = "float32", recall: float = 0.99) -> None:
        if dimension < 1:
            raise InputError(f"A vector of {dimension} dimensions cannot be; dimension must be at least 1.")
        if not 0 < recall <= 1:
            raise InputError(f"recall is a share between 0 and 1, not {recall!r}.")
        if check_storage(storage) == "pq" and recall == 1:
            raise InputError("recall=1.0 asks for exact search, but storage='pq' keeps no vectors. Change one of them.")
        self._dimension = int(dimension)
        self._storage = storage
        self._recall = float(recall)
        self._parts: tuple[_Part, ...] = ()
        # Where vectors come from that are not kept here: (m,) ids -> (m, dimension) float32. Set it before a search.
        self.source: Callable[[Int64], Float32] | None = None

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

    def describe(self) -> dict[str, Any]:
        """How a search goes: kind ("exact" or "sieve"), vectors, storage, bytes of vectors, recall asked for and found.

        With a sieve also the number of lists, probes and candidates, and the recall of the loneliest vectors.
        """
        size = {"float16": 2, "int8": 1}.get(self._storage, 4) * self._dimension + 4 * (self._storage == "int8")
        sieve = next((part for part in self._parts if part.setting is not None), None)
        distant = any(isinstance(part.rows, DistantRows) for part in self._parts)
        about = {
            "kind": "exact" if sieve is None else "sieve",
            "vectors": len(self),
            "storage": self._storage,
            "bytes": (-(-self._dimension // 4) // 2 if distant else size) * len(self),
            "recall": self._recall,
            "measured": 1.0,
        }
        if sieve is not None and sieve.setting is not None and sieve.sieve is not None:
            setting = sieve.setting
            about |= {"measured": setting.recall, "lonely": setting.lonely, "lists": sieve.sieve.describe()["lists"]}
            about |= {"probes": setting.probes, "candidates": setting.candidates}
        return about

    def add(self, ids: Sequence[int] | Int64, vectors: Float32) -> None:
        """Add vectors (n, dimension) of unit length under ids (n,). It costs what it adds.

        Raises InputError, and adds nothing, if an id is there already or is given twice, if the shape does not fit, and
        for a vector that is zero or not finite.
        """
        wanted = as_ids(ids)
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
        refuse_repeated(wanted[order], self._parts, "has a vector")
        own = rows.copy() if np.shares_memory(rows, vectors) else rows
        part = _Part(encoded(own if _ascending(wanted) else rows[order], self._storage), wanted[order])
        self._parts = _merge_alike((*self._parts, part))

    def remove(self, ids: Sequence[int] | Int64) -> None:
        """Remove vectors; an id that is not there is no error."""
        wanted = np.unique(as_ids(ids))
        parts = []
        for part in self._parts:
            positions = part.positions(wanted)
            part = part.without(positions) if len(positions) else part
            if part.live:
                crowded = _is_small(part) and part.live < (1 - DEAD_SHARE) * len(part.ids)
                parts.append(_merge([part]) if crowded else part)
        self._parts = tuple(parts)

    def search(self, queries: Float32, k: int, *, allowed: Int64 | None = None) -> list[tuple[Int64, Float32]]:
        """For each query (q, dimension), the ids (m,) and inner products (m,) of the best m <= k vectors.

        Best first, equal scores by smaller id. `allowed` are sorted ids to choose from. Raises InputError if k is less
        than 1, if the queries have another dimension than the index, and for a query that is not finite;
        DamagedCacheError where a file that was opened is not what was saved.
        """
        check_k(k)
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
        merged = []
        for i in range(len(rows)):
            lists = [NOTHING, *(results[i] for results in found)]
            merged.append(top(np.concatenate([ids for ids, _ in lists]), np.concatenate([s for _, s in lists]), k))
        return merged

    def kept(self, vectors: Float32) -> Float32:
        """Vectors (n, dimension) as they are after they were stored here: what scores are inner products with."""
        rows = encoded(self._as_rows(vectors, "vectors"), self._storage)
        return rows.span(0, len(rows))

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, directory: Path, stem: str) -> list[Path]:
        """Write the index into `{stem}-dense.*` files, as one part with a sieve if it is large; returns their paths.

        The index itself stays as it is. Files are written in place, not synced: naming and syncing is the caller's.
        A sieve that was there is used again for what came and went, and trained anew only when it is outgrown.
        """
        home, parts = Path(directory) / f"{stem}-dense", self._parts
        ids, order = _ordered(parts)
        for path in Path(directory).glob(f"{home.name}.*"):
            path.unlink()  # it may be mapped here: cutting it off would end the process
        np.save(home.with_name(f"{home.name}.ids.npy"), ids, allow_pickle=False)
        large = ids.size * self._dimension > EXACT and self._recall < 1 and ids[0] >= 0
        rows: Rows = DistantRows(ids, self._fetch)
        if not (large and self._storage == "pq"):
            rows = _written(home, parts, order, encoded(np.zeros((0, self._dimension), np.float32), self._storage))
        sieve = self._fitted(ids, rows) if large else None
        if sieve is not None:
            sieve.save(home.with_name(f"{home.name}.sieve.faiss"))
        about = {
            "dimension": self._dimension,
            "storage": self._storage,
            "sieve": None if sieve is None else sieve.describe(),
        }
        home.with_name(f"{home.name}.settings.json").write_text(json.dumps(about))
        return sorted(Path(directory).glob(f"{stem}-dense.*"))

    @classmethod
    def load(
        cls,
        directory: Path,
        stem: str,
        facts: Mapping[str, Mapping[str, Any]],
        *,
        storage: str = "float32",
        recall: float = 0.99,
    ) -> DenseIndex | None:
        """Open what `save` wrote, by the `blocks.facts` of its files; None if it was saved with another storage.

        Vectors are verified when they are touched. Raises DamagedCacheError if a file is not what was saved.
        """
        home = f"{stem}-dense"
        path = Path(directory) / f"{home}.settings.json"
        if not is_sound(path, facts.get(path.name, {})):
            raise DamagedCacheError(f"{path} is damaged. Delete the cache; it is built again from the database.")
        about = json.loads(path.read_text())
        if about["storage"] != storage:
            return None
        index = cls(about["dimension"], storage=storage, recall=recall)

        def opened(name: str) -> Any:
            return open_array(path.with_name(f"{home}.{name}.npy"), facts.get(f"{home}.{name}.npy", {}))

        checked = opened("ids")
        checked.check_all()
        ids = checked.array
        rows: Rows = DistantRows(ids, index._fetch)
        if f"{home}.vectors.npy" in facts or about["sieve"] is None:
            checks = [opened(name) for name in (("vectors", "scales") if storage == "int8" else ("vectors",))]
            rows = StoredRows(checks[0].array, checks[1].array if len(checks) > 1 else None, checks=checks)
            if any(len(each) != len(ids) for each in checks) or checks[0].array.shape[1:] != (index.dimension,):
                raise DamagedCacheError(f"{path} and its neighbours do not belong together. Delete the cache.")
        sieve = None
        if about["sieve"] is not None:
            name = f"{home}.sieve.faiss"
            sieve = Sieve.open(path.with_name(name), facts.get(name, {}), ids, index.dimension, about["sieve"])
        index._parts = (_Part(rows, ids, None, sieve, index._setting(sieve, rows)),) if len(ids) else ()
        return index

    def _fitted(self, ids: Int64, rows: Rows) -> Sieve:
        """The sieve for these vectors, its recall measured."""
        sieve = next((part.sieve for part in self._parts if part.sieve is not None), None)
        if sieve is None or not sieve.trained / OUTGROWN < len(ids) < sieve.trained * OUTGROWN:
            chosen = _some_of(len(ids), sample_size(len(ids)))
            sieve = Sieve.train(rows.take(chosen), len(ids))

        def blocks(new: Int64) -> Iterator[tuple[Int64, Float32]]:
            for start in range(0, len(new), BLOCK):
                some = new[start : start + BLOCK]
                yield some, rows.take(np.searchsorted(ids, some))

        sieve.fit(ids, blocks)
        own = _some_of(len(ids), SAMPLE)
        queries = rows.take(own)
        found = _Part(rows, ids).nearest(queries, 11, None)
        others = [near != id for (near, _), id in zip(found, ids[own], strict=True)]
        nearness = np.array([scores[other][:10][-1] for (_, scores), other in zip(found, others, strict=True)])
        lonely = nearness <= np.quantile(nearness, LONELY)
        tens = [near[other][:10] for (near, _), other in zip(found, others, strict=True)]
        sieve.measure(queries, tens, ids[own], lonely)
        return sieve

    def _setting(self, sieve: Sieve | None, rows: Rows) -> Setting | None:
        if sieve is None or self._recall == 1:
            return None
        setting = setting_for(sieve.curve, self._recall, len(rows), self._dimension)
        if setting is None and isinstance(rows, DistantRows):  # reading all vectors for a query would take seconds
            return max(sieve.curve, key=lambda each: (min(each.recall, each.lonely), -each.probes))
        return setting

    def _fetch(self, ids: Int64) -> Float32:
        if self.source is None:
            raise StorageError("This index keeps codes only, and was given no source of vectors. Set its `source`.")
        return self.source(ids)

    def _as_rows(self, vectors: Float32, what: str) -> Float32:
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self._dimension:
            raise InputError(
                f"The {what} have shape {rows.shape}, but this index holds vectors of {self._dimension} dimensions: "
                f"give (n, {self._dimension}), made by the encoder that the index was made with."
            )
        return rows


def _some_of(n: int, count: int) -> Int64:
    """Some numbers below n, ascending; always the same, so that the same vectors give the same sieve."""
    return np.sort(np.random.default_rng(0).choice(n, min(count, n), replace=False))


def _ordered(parts: Sequence[_Part]) -> tuple[Int64, Int64]:
    """The living ids of all parts, ascending, and which of the living rows, part after part, each of them is."""
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *map(_living_ids, parts)])
    order = np.argsort(ids, kind="stable")
    return ids[order], order


def _written(home: Path, parts: Sequence[_Part], order: Int64, like: StoredRows) -> StoredRows:
    """Write the living rows in an order into files, block by block, and open these; `like` says how they are kept."""
    blocks = (_gathered(parts, order[start : start + BLOCK], like) for start in range(0, len(order), BLOCK))
    paths = {name: home.with_name(f"{home.name}.{name}.npy") for name in like.arrays}
    with ExitStack() as stack:
        files = {name: stack.enter_context(path.open("wb")) for name, path in paths.items()}
        for name, array in like.arrays.items():
            header = {"descr": array.dtype.str, "fortran_order": False, "shape": (len(order), *array.shape[1:])}
            np.lib.format.write_array_header_1_0(files[name], header)
        for block in blocks:
            for name, array in block.arrays.items():
                files[name].write(array.data)
    return StoredRows(*(np.asarray(np.load(path, mmap_mode="r" if len(order) else None)) for path in paths.values()))


def _gathered(parts: Sequence[_Part], which: Int64, like: StoredRows) -> StoredRows:
    """Some of the living rows of all parts, given by their numbers, part after part, as they are kept."""
    ends = np.cumsum([part.live for part in parts])
    owner = np.searchsorted(ends, which, side="right")
    whole = StoredRows(*(np.empty((len(which), *array.shape[1:]), array.dtype) for array in like.arrays.values()))
    for i in np.unique(owner).tolist():
        here = owner == i
        positions = parts[i].living[which[here] - (ends[i] - parts[i].live)]
        rows = parts[i].rows
        some = rows.raw(positions) if isinstance(rows, StoredRows) else StoredRows(rows.take(positions))
        for name, array in some.arrays.items():
            whole.arrays[name][here] = array
    return whole


def _merge(parts: Sequence[_Part]) -> _Part:
    """The living vectors of some parts in memory as one."""
    ids, order = _ordered(parts)
    rows = parts[0].rows
    assert isinstance(rows, StoredRows)
    return _Part(_gathered(parts, order, rows), ids)


def _merge_alike(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    """Merge the newest parts while one is at least half as large as the one before: few are left."""
    while len(parts) > 1 and _is_small(parts[-2]) and 2 * parts[-1].live >= parts[-2].live:
        parts = (*parts[:-2], _merge(parts[-2:]))
    return parts


def _is_small(part: _Part) -> bool:
    return isinstance(part.rows, StoredRows) and not part.rows.mapped and len(part.ids) <= LARGE


def _living_ids(part: _Part) -> Int64:
    return part.ids if part.dead is None else part.ids[~part.dead]


def _ascending(ids: Int64) -> bool:
    return bool(np.all(ids[1:] > ids[:-1]))

"""An approximate index over compact codes that proposes candidates, which the dense leg scores again exactly.

The codes are FAISS's inverted file with 4-bit product quantisation, four components a code, scanned in registers: 48
bytes for 384 dimensions (André, Kermarrec and Le Scouarnec, "Quicker ADC: Unlocking the hidden potential of Product
Quantization with SIMD", 2019; Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search", 2011).

How many lists are probed and how many candidates are scored is measured, when the sieve is made, against exact search:
with stored vectors as queries (the vector itself left out), and with the loneliest of them, since a question is farther
from every passage than a passage is from its neighbours. Both have to reach the `recall` that is asked for, of the ten
nearest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.blocks import DamagedCacheError, is_sound

__all__ = ["SAMPLE", "Setting", "Sieve", "bits_of", "sample_size", "setting_for"]

Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]
Bool: TypeAlias = NDArray[np.bool_]
Blocks: TypeAlias = Iterable[tuple[Int64, Float32]]

# Of 280,000 vectors of the shipped encoder (384 dimensions), 512 lists: recall@10 with 200 / 400 candidates, by the
# share of the lists that is probed; in ms of processor time for a query, exact search takes 17:
#   share  ms          questions    stored, left out   the loneliest eighth / quarter of these (200 candidates)
#   1/8    0.67 (200)  .848 / .849  .951 / .954        .885 / .894
#   1/4                .902 / .904  .980 / .982        .940 / .943
#   1/2    1.4 (400)   .958 / .960  .991 / .993        .978 / .983
#   3/4                .987 / .989  .996 / .999        .993 / .995
#   1      1.9 (400)   .996 / .998  .997 / 1.000       .994 / .996
# So stored vectors alone promise a question too much, and the loneliest ones are nearer to the truth. Other codes,
# 140,000 vectors, 1,024 lists, a quarter probed, 200 candidates: recall of held-out passages and of questions, ms of
# one query, bytes of a vector:
#   Flat          .977 .934  2.27 1536      PQ96x4fs  .975 .929  0.31   48      RaBitQfs  .975 .922  0.92  56
#   8-bit scalar  .977 .934  1.81  384      PQ192x4fs .977 .934  0.49   96      RaBitQ    .975 .923  0.82  56
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
CANDIDATES = (100, 200, 400, 800)
COMPONENTS = 4  # that a code of 4 bits stands for
# µs of processor time for one scanned vector of 384 dimensions and for one candidate (280,000 vectors: half of the
# lists and 800 candidates 2.1 ms, three eighths and 200 candidates 1.2 ms; half of the lists of codes alone 0.6 ms).
SCAN_COST, CANDIDATE_COST = 0.0044, 1.8
SAMPLE = 512  # stored vectors that the recall is measured with; the loneliest quarter of them counts for itself
POINTS = 50  # training vectors a list; FAISS warns below 39
ROUNDS = 8


class Setting(NamedTuple):
    """What to probe and to score, and what recall@10 that gave: of stored vectors, and of the loneliest of them."""

    probes: int
    candidates: int
    recall: float
    lonely: float


class Sieve:
    """Compact codes by passage id. `trained` is the number of vectors it was trained for, `curve` what was measured.

    `ids` are the sorted ids in it; some may be gone from the leg. Proposing changes nothing: any number of threads may.
    """

    def __init__(
        self, index: Any, dimension: int, ids: Int64, trained: int, curve: Sequence[Setting] = (), **where: Any
    ) -> None:
        self._index = index
        self._where = where  # path and facts of a file that is not read yet
        self.dimension = dimension
        self.ids: Int64 = ids
        self.trained = trained
        self.curve: list[Setting] = list(curve)

    # -- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def train(cls, sample: Float32, n: int) -> Sieve:
        """An empty sieve for about n vectors, from a sample of them (m, dimension) of at least `sample_size(n)`."""
        faiss = _faiss()

        dimension = sample.shape[1]
        width = -(-dimension // COMPONENTS) * COMPONENTS
        kind = f"IVF{lists_for(n)},PQ{width // COMPONENTS}x4fs"
        index = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = index.pq.cp.niter = ROUNDS
        index.cp.max_points_per_centroid = POINTS
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # else it prints a warning
        index.train(_padded(sample, width))
        return cls(index, dimension, np.zeros(0, dtype=np.int64), n)

    def fit(self, ids: Int64, vectors: Callable[[Int64], Blocks]) -> None:
        """Hold these sorted ids and no others; `vectors` gives ids and vectors of those that are new, in blocks."""
        faiss = _faiss()

        gone, new = np.setdiff1d(self.ids, ids, True), np.setdiff1d(ids, self.ids, True)
        if len(gone):
            self.index.remove_ids(faiss.IDSelectorBatch(gone))
            self.ids = np.setdiff1d(self.ids, gone, True)
        for some, block in vectors(new):
            self.index.add_with_ids(_padded(block, self.index.d), some)
            self.ids = np.union1d(self.ids, some)

    def measure(self, queries: Float32, nearest: Sequence[Int64], own: Int64, lonely: Bool) -> None:
        """Fill `curve`. `queries` are stored vectors (m, dimension), `nearest` the ids of their ten nearest.

        `own[i]` is the id of query i, which does not count; `lonely` (m,) marks those that count for themselves too.
        """
        self.curve.clear()
        most = max(CANDIDATES) + 1
        for probes in sorted({max(1, round(share * self.index.nlist)) for share in SHARES}):
            found = [self.propose(query, probes, most) for query in queries]
            found = [each[each != id] for each, id in zip(found, own, strict=True)]
            ranks = [np.flatnonzero(np.isin(each, ten)) for each, ten in zip(found, nearest, strict=True)]
            for count in CANDIDATES:
                hits = np.array([np.searchsorted(each, count) for each in ranks])
                shares = hits / np.array([max(1, len(ten)) for ten in nearest])
                self.curve.append(Setting(probes, count, float(shares.mean()), float(shares[lonely].mean())))

    # -- searching ---------------------------------------------------------------------------------------------------

    @property
    def index(self) -> Any:
        """The FAISS index, read when it is first needed; raises DamagedCacheError if its file is not what it was."""
        if self._index is None:
            self._index = _read(self._where["path"], self._where["facts"], len(self.ids))
        return self._index

    def propose(self, query: Float32, probes: int, count: int, bits: Bytes | None = None) -> Int64:
        """The ids of up to `count` vectors that are near a query (dimension,), of those whose bit is set in `bits`."""
        faiss = _faiss()

        index = self.index
        parameters = faiss.SearchParametersIVF(nprobe=min(probes, index.nlist))
        if bits is not None:
            selector = faiss.IDSelectorBitmap(bits)
            parameters = faiss.SearchParametersIVF(nprobe=min(probes, index.nlist), sel=selector)
        # One query at a time on one thread, so that nothing depends on the batch. It counts for this thread only.
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            _, found = index.search(_padded(query[None], index.d), min(count, index.ntotal), params=parameters)
        finally:
            faiss.omp_set_num_threads(threads)
        ids: Int64 = found[0][found[0] >= 0]
        return ids

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the codes into a file of FAISS's; raises OSError if it cannot be."""
        faiss = _faiss()

        try:
            faiss.write_index(self.index, os.fspath(path))
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written ({error})") from error

    def describe(self) -> dict[str, Any]:
        """What is needed to open it again, as JSON takes it."""
        return {"trained": self.trained, "lists": lists_for(self.trained), "curve": [list(each) for each in self.curve]}

    @classmethod
    def open(cls, path: Path, facts: Mapping[str, Any], ids: Int64, dimension: int, about: Mapping[str, Any]) -> Sieve:
        """What was saved, given its `describe()`; the file is read and verified when it is first needed."""
        curve = [Setting(int(a), int(b), float(c), float(d)) for a, b, c, d in about["curve"]]
        return cls(None, dimension, ids, int(about["trained"]), curve, path=path, facts=facts)


def _faiss() -> Any:
    """FAISS, loaded when it is first needed; what it says of its own types is not right everywhere."""
    import faiss

    return faiss


def lists_for(n: int) -> int:
    """How many lists for n vectors: the power of two that is nearest to the square root."""
    return int(2 ** max(2, round(np.log2(max(n, 1)) / 2)))


def sample_size(n: int) -> int:
    """How many of n vectors to train with."""
    return min(n, POINTS * lists_for(n))


def setting_for(curve: Sequence[Setting], recall: float, n: int, dimension: int) -> Setting | None:
    """The cheapest setting that reaches a recall in both measurements; None if none does."""
    good = [each for each in curve if min(each.recall, each.lonely) >= recall]
    lists = max((each.probes for each in curve), default=1)
    scan = SCAN_COST * n * dimension / 384 / lists
    return min(good, key=lambda each: scan * each.probes + CANDIDATE_COST * each.candidates, default=None)


def bits_of(ids: Int64) -> Bytes:
    """A bitmap of sorted ids that are not negative, as FAISS takes it."""
    bits = np.zeros(int(ids[-1]) // 8 + 1 if len(ids) else 1, dtype=np.uint8)
    if len(ids):
        octets = ids >> 3
        starts = np.flatnonzero(np.r_[True, octets[1:] != octets[:-1]])
        bits[octets[starts]] = np.bitwise_or.reduceat((1 << (ids & 7)).astype(np.uint8), starts)
    return bits


def _padded(vectors: Float32, width: int) -> Float32:
    """The same vectors with zeros at the end, which change no inner product."""
    rows: Float32 = np.ascontiguousarray(vectors, dtype=np.float32)
    return rows if rows.shape[1] == width else np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def _read(path: Path, facts: Mapping[str, Any], n: int) -> Any:
    """FAISS takes damaged files for good ones: the file is verified before."""
    if not is_sound(path, facts):
        raise DamagedCacheError(f"{path} is damaged. Delete the cache; it is built again from the database.")
    faiss = _faiss()
    try:
        index = faiss.read_index(os.fspath(path))
    except RuntimeError as error:
        raise DamagedCacheError(f"{path} cannot be read ({error}). Delete the cache.") from error
    if not isinstance(index, faiss.IndexIVFPQFastScan) or index.ntotal != n:
        raise DamagedCacheError(f"{path} is not the index that was written. Delete the cache.")
    return index

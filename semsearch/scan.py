"""The best k passages of one segment for one query, found without reading more postings than it takes.

Terms come heaviest first. Once the terms that are left cannot lift a new passage into the best k, they are only looked
up for the passages that are still in question, and the long postings of common words are not read at all: MaxScore
(Turtle and Flood, "Query Evaluation: Strategies and Optimizations", 1995), which is exact.

A passage's score is summed in the order of the terms whichever way they are read, so it never depends on the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.postings import Codes, Segment
from semsearch.selection import kth, top

__all__ = ["Scan"]

Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Float64: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]

# Median (95th percentile) in ms of processor time of 500 queries over 1,154,476 passages, k = 10, by how many postings
# count as one look-up: 0 (never reading a list whole) 0.53 (1.9), 5: 0.51 (1.6), 10: 0.50 (1.6), 20: 0.50 (1.6).
DEAR = 10


class Scan:
    """One query over one segment.

    `terms` are rows and weights, heaviest first, `gains` what each kind of posting is worth, and `tops` what no posting
    of each term exceeds.
    """

    def __init__(
        self, segment: Segment, terms: Sequence[tuple[int, float]], gains: Float64, tops: Sequence[float], k: int
    ) -> None:
        self.segment = segment
        self.spans: list[tuple[int, int]] = [segment.span(row) for row, _ in terms]
        self.sizes: list[int] = [end - start for start, end in self.spans]
        self.weights: list[float] = [weight for _, weight in terms]
        self.gains = gains
        self.k = k
        # Above what a term and every later one together can add; rounding must not make it too small.
        bounds = [weight * top * (1 + 1e-9) for weight, top in zip(self.weights, tops, strict=True)]
        self.rest: list[float] = [*accumulate(reversed(bounds))][::-1]
        if min(self.weights) < 0:
            self.rest = [math.inf] * len(terms)
        self.least: float = -math.inf  # what the score of the k-th best is at least
        self.found: list[Int64] = []  # positions in the order of their finding
        self.closed: bool = False  # whether candidates are given, found or not

    def run(self, allowed: Int64 | None) -> tuple[Int64, Float64]:
        """Positions and scores of the best k (of a few more where scores are equal)."""
        idle = self.segment.idle
        try:
            self.sums: Float64 = idle.pop()
        except IndexError:  # the first search, or more of them at a time than before
            self.sums = np.full(len(self.segment.ids), math.nan)  # not found is not a number
        result = self._best(allowed)
        for positions in self.found:
            self.sums[positions] = math.nan
        idle.append(self.sums)
        return result

    def _best(self, allowed: Int64 | None) -> tuple[Int64, Float64]:
        eligible = None if self.segment.dead is None else ~self.segment.dead
        first, candidates = 0, np.zeros(0, dtype=np.int64)
        if allowed is not None and len(allowed) * DEAR < sum(self.sizes):
            candidates = self.segment.positions(allowed).astype(np.int64)
            self.found.append(candidates)
            self.closed = True
        else:
            if allowed is not None:
                eligible = self.segment.marked(allowed)
            first = self._add_up(eligible)
            if self.found:
                candidates = np.concatenate(self.found)
        for i in range(first, len(self.spans)):
            candidates = self._promising(candidates, self.rest[i])
            self._look_up(i, candidates)
        candidates = self._promising(candidates, 0.0)
        scores = self.sums.take(candidates)
        there = ~np.isnan(scores)
        # Positions are in the order of ids, so that equal scores come out by smaller id.
        return top(candidates[there], scores[there], self.k)

    def _add_up(self, eligible: Bool | None) -> int:
        """Add terms to the sums until no other passage can be among the best; returns the first term not added."""
        for i in range(len(self.spans)):
            if self.rest[i] < self.least:
                return i
            docs, codes = self.segment.postings(*self.spans[i])
            if eligible is not None:
                keep = eligible[docs]
                docs, codes = docs[keep], codes[keep]
            positions = docs.astype(np.int64)
            sums = self.sums.take(positions)
            self.found.append(positions[np.isnan(sums)])
            self._add(i, positions, sums, codes)
        return len(self.spans)

    def _add(self, i: int, positions: Int64, sums: Float64, codes: Codes) -> None:
        """Add what a term gives to the sums so far at some positions."""
        sums[np.isnan(sums)] = 0.0
        sums += self.gains.take(codes) * self.weights[i]
        self.sums[positions] = sums
        if len(sums) >= self.k and self.rest[i] < math.inf:
            self.least = max(self.least, kth(sums, self.k))

    def _promising(self, candidates: Int64, rest: float) -> Int64:
        """Those that the rest of the terms may lift among the best; not found yet is not a number."""
        if self.least == -math.inf:
            return candidates
        return candidates[~(self.sums.take(candidates) + rest < self.least)]

    def _look_up(self, i: int, candidates: Int64) -> None:
        """Add a term to the sums of some passages alone."""
        start, end = self.spans[i]
        docs = self.segment.documents(start, end)
        if DEAR * len(candidates) > len(docs) and not self.closed:  # all that were found before are as good
            at = np.flatnonzero(~np.isnan(self.sums.take(docs)))
            positions = docs[at].astype(np.int64)
        else:
            wanted = candidates.astype(np.int32)  # of another type, it would make NumPy convert all of docs
            at = np.searchsorted(docs, wanted)
            at[at == len(docs)] = 0
            hit = docs.take(at) == wanted
            at, positions = at[hit], candidates[hit]
        self._add(i, positions, self.sums.take(positions), self.segment.codes_at(start + at))

"""BM25 over passages that come and go: an inverted index in arrays.

It takes tokens and knows no analyzer. It has four variants, each with the scores of what it is named after:

    lucene   idf = ln(1 + (N - df + 0.5) / (df + 0.5));  idf · tf / (tf + K)          Apache Lucene since 8.0
    okapi    idf = ln((N - df + 0.5) / (df + 0.5)), epsilon · mean idf if negative;
             idf · tf · (k1 + 1) / (tf + K)                                           rank_bm25.BM25Okapi
    l        idf = ln((N + 1) / (df + 0.5));  c = tf · k1 / K;
             idf · tf · (k1 + 1) · (c + delta) / (k1 + c + delta)                     rank_bm25.BM25L
    plus     idf = ln((N + 1) / df);  idf · (delta + tf · (k1 + 1) / (tf + K))        rank_bm25.BM25Plus

with K = k1 · (1 - b + b · length / mean length). A term that the query repeats counts as often as it is there. BM25:
Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the variants: Trotman, Puurula
and Burgess, "Improvements to BM25 and Language Models Examined", ADCS 2014.

Document frequencies and lengths are those of the living passages, so scores never depend on an index's history.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError, StorageError
from semsearch.postings import FORMAT, Segment, State, build, compact, merge_alike, opened, write
from semsearch.rankbm25 import RankBM25Index
from semsearch.scan import Scan
from semsearch.selection import as_ids, check_k, refuse_repeated, top
from semsearch.vocabulary import Vocabulary

__all__ = ["Lexical", "LexicalIndex", "RankBM25Index", "get_lexical"]

Variant = Literal["lucene", "okapi", "l", "plus"]
Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Float64: TypeAlias = NDArray[np.float64]

VARIANTS: tuple[Variant, ...] = ("lucene", "okapi", "l", "plus")
# nDCG@10 (of 100) on scifact (train) / cranfield / cisi / medline / cosqa, variant "lucene", English analyzer:
#   k1 1.5, b 0.75   69.8 / 43.4 / 39.6 / 70.1 / 38.9   (okapi: 69.6 / 43.0 / 39.3 / 69.7 / 38.9)
#   k1 1.2, b 0.75   69.8 / 43.3 / 39.2 / 70.1 / 38.8
#   k1 2.0, b 0.75   69.5 / 43.5 / 39.3 / 70.3 / 38.5
#   k1 0.9, b 0.4    69.6 / 41.6 / 37.2 / 68.2 / 36.9
REMEMBERED = 1 << 16  # terms of which the highest gain is kept
K1 = 1.5
B = 0.75

FILES = ("settings", "vocabulary", "offsets", "indptr", "docs", "codes", "kinds", "ids", "lengths")
WORDS = ("vocabulary", "offsets")  # the files of the vocabulary


class Lexical(Protocol):
    """What an index over tokens can do; `LexicalIndex` and `RankBM25Index` both do."""

    @property
    def ids(self) -> Int64:
        """The passages' ids, ascending."""

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[int] | Int64, documents_tokens: Iterable[Sequence[str]]) -> None:
        """Add passages, each given by its tokens."""

    def remove(self, ids: Sequence[int] | Int64) -> None:
        """Remove passages; an id that is not there is no error."""

    def search(self, terms: Sequence[str], k: int, *, allowed: Int64 | None = None) -> tuple[Int64, Float64]:
        """The k best passages that have at least one of the terms."""

    def explain(self, terms: Sequence[str], id: int) -> dict[str, float]:
        """Each term's share of a passage's score."""

    def ceiling(self, terms: Sequence[str]) -> float:
        """The score that no passage exceeds, inf if there is none or it is not known."""

    def save(self, directory: Path, stem: str) -> list[Path]:
        """Write the index into files and return their paths."""


def get_lexical(spec: str | None = None) -> Lexical:
    """An empty index by name: a variant of `LexicalIndex` (None is "lucene"), or "rank_bm25".

    >>> len(get_lexical("okapi"))
    0
    """
    if spec == "rank_bm25":
        return RankBM25Index()
    if spec is None or spec in VARIANTS:
        return LexicalIndex(spec or "lucene")
    raise InputError(f"There is no lexical index {spec!r}. Choose one of {', '.join((*VARIANTS, 'rank_bm25'))}.")


@dataclass(frozen=True, slots=True)
class _Formula:
    """A variant and its parameters."""

    variant: Variant
    k1: float
    b: float
    delta: float
    epsilon: float

    def idf(self, df: int, state: State) -> float:
        if self.variant == "lucene":
            return math.log(1 + (state.live - df + 0.5) / (df + 0.5))
        if self.variant == "l":
            return math.log(state.live + 1) - math.log(df + 0.5)
        if self.variant == "plus":
            return math.log((state.live + 1) / df)
        idf = math.log(state.live - df + 0.5) - math.log(df + 0.5)
        return idf if idf >= 0 else self.epsilon * state.mean_idf

    def gains(self, kinds: Int64, mean_length: float) -> Float64:
        """What each kind of posting is worth, to be multiplied by the term's idf (without `always`)."""
        tf, lengths = kinds >> 32, kinds & 0xFFFFFFFF
        scale = 1 - self.b + (self.b / mean_length) * lengths
        if self.variant == "l":
            share = tf / scale + self.delta
            return tf * ((self.k1 + 1) * share / (self.k1 + share))
        height = 1.0 if self.variant == "lucene" else self.k1 + 1
        return height * tf / (tf + self.k1 * scale)

    @property
    def ceiling(self) -> float:
        """What a gain never exceeds."""
        return {"lucene": 1.0, "l": math.inf}.get(self.variant, self.k1 + 1)

    @property
    def always(self) -> float:
        """What every passage gets, times idf, for each term that the corpus has, as in rank_bm25.BM25Plus."""
        return self.delta if self.variant == "plus" else 0.0


@dataclass(frozen=True, slots=True)
class _Term:
    """A term of a query: its weight (idf times its count) and its row in each segment."""

    term: str
    weight: float
    rows: tuple[int, ...]


class LexicalIndex:
    """BM25 over passage ids, exact after any sequence of additions and removals.

    `variant` is "lucene", "okapi", "l" or "plus" (formulas: the module's docstring); `delta` is 0.5 for "l" and 1 for
    "plus" unless given; `epsilon` is okapi's. Scores are float64 and equal those of an index built afresh.

    >>> index = LexicalIndex()
    >>> index.add([1, 2, 3], [["late", "fee"], ["opening", "hours"], ["fee", "fee", "list"]])
    >>> index.search(["fee"], 10)[0].tolist()
    [3, 1]
    >>> index.remove([3])
    >>> index.search(["fee"], 10)[0].tolist()
    [1]

    Raises InputError for an unknown variant and parameters out of range (k1 >= 0, 0 <= b <= 1, delta >= 0).
    """

    def __init__(
        self,
        variant: Variant = "lucene",
        *,
        k1: float = K1,
        b: float = B,
        delta: float | None = None,
        epsilon: float = 0.25,
    ) -> None:
        if variant not in VARIANTS:
            raise InputError(f"There is no BM25 variant {variant!r}. Choose one of {', '.join(VARIANTS)}.")
        delta = {"l": 0.5, "plus": 1.0}.get(variant, 0.0) if delta is None else delta
        if not (0 <= k1 < math.inf and 0 <= b <= 1 and 0 <= delta < math.inf and math.isfinite(epsilon)):
            raise InputError(
                f"k1={k1}, b={b}, delta={delta}, epsilon={epsilon} cannot be used: "
                "k1 and delta must be at least 0, b between 0 and 1."
            )
        self._formula = _Formula(variant, float(k1), float(b), float(delta), float(epsilon))
        self._state = State.empty()
        self._gained: tuple[State, list[Float64]] | None = None

    def __repr__(self) -> str:
        return f"LexicalIndex({self._formula.variant!r}, passages={len(self)}, segments={len(self._state.segments)})"

    @property
    def settings(self) -> dict[str, str | float]:
        """The variant and its parameters, as they are stored."""
        f = self._formula
        return {"variant": f.variant, "k1": f.k1, "b": f.b, "delta": f.delta, "epsilon": f.epsilon}

    @property
    def ids(self) -> Int64:
        """The living passages' ids, ascending: (n,) int64."""
        return self._state.ids

    def __len__(self) -> int:
        return self._state.live

    def add(self, ids: Sequence[int] | Int64, documents_tokens: Iterable[Sequence[str]]) -> None:
        """Add passages, each given by its tokens (in any order; none is fine). It costs what it adds.

        The token lists may come from a generator; where the ids ascend, no more than a block of them is kept at a time.
        Raises InputError for an id that is there already or is given twice, and if there are not as many token lists as
        ids; then nothing was added.
        """
        wanted = as_ids(ids)
        if not np.all(wanted[1:] > wanted[:-1]):
            documents_tokens = given = list(documents_tokens)
            if len(given) == len(wanted):
                order = np.argsort(wanted, kind="stable")
                wanted, documents_tokens = wanted[order], [given[i] for i in order]
        state = self._state
        refuse_repeated(wanted, state.segments)
        segment = build(wanted, documents_tokens, state.numbers)
        if not len(wanted):
            return
        if self._formula.variant == "okapi":
            state.links.extend(state.vocabulary.find(term) for term in islice(state.numbers, len(state.links), None))
        self._state = replace(state, fresh=merge_alike((*state.fresh, segment)))

    def remove(self, ids: Sequence[int] | Int64) -> None:
        """Remove passages; an id that is not there is no error. Their room is given back by later merges."""
        wanted = np.unique(as_ids(ids))
        state = self._state
        segments = list(state.segments)
        for i, segment in enumerate(segments):
            positions = segment.positions(wanted)
            if len(positions):
                segments[i] = segment.without(positions)
        state = replace(state, base=segments[0], fresh=tuple(s for s in segments[1:] if s.live))
        dead = sum(segment.dead_count for segment in state.segments)
        # Rebuilding when more than half is dead keeps the cost of a removal constant on average.
        self._state = compact(state) if dead > state.live else state

    def search(self, terms: Sequence[str], k: int, *, allowed: Int64 | None = None) -> tuple[Int64, Float64]:
        """The k best passages among those that have at least one of the terms.

        `allowed` are sorted ids to choose from (statistics stay those of the whole corpus). Returns ids (m,) int64 and
        scores (m,) float64, m <= k, best first, equal scores by smaller id. Raises InputError if k is less than 1.
        """
        check_k(k)
        state = self._state
        query, gains = self._weigh(state, terms), self._gains(state)
        every = sum(term.weight for term in query) * self._formula.always
        ids, scores = [], []
        for i, segment in enumerate(state.segments):
            rows = [(term.rows[i], term.weight) for term in query if term.rows[i] >= 0]
            if rows:
                tops = [self._top(segment, row, gains[i], state.mean_length) for row, _ in rows]
                found, values = Scan(segment, rows, gains[i], tops, k).run(allowed)
                ids.append(segment.named(found))
                scores.append(values)
        if not ids:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
        chosen, values = top(np.concatenate(ids), np.concatenate(scores), k)
        return chosen, values + every

    def ceiling(self, terms: Sequence[str]) -> float:
        """The score that no passage exceeds, however often it has the terms: inf for "l", 0 if none is known."""
        formula = self._formula
        weight = sum(term.weight for term in self._weigh(self._state, terms))
        return weight * (formula.ceiling + formula.always) if weight > 0 else 0.0

    def explain(self, terms: Sequence[str], id: int) -> dict[str, float]:
        """Each matching term's share of a passage's score, largest first.

        The shares add up to the score (with "plus", every other term of the query adds delta · idf to every passage).
        Raises InputError if there is no such passage.
        """
        state = self._state
        wanted = np.array([id], dtype=np.int64)
        i = next((i for i, segment in enumerate(state.segments) if len(segment.positions(wanted))), -1)
        if i < 0:
            raise InputError(f"There is no passage {id} in this index, so its score cannot be explained.")
        segment = state.segments[i]
        position = segment.positions(wanted)
        shares: dict[str, float] = {}
        for term in self._weigh(state, terms):
            docs, codes = segment.postings(*(segment.span(term.rows[i]) if term.rows[i] >= 0 else (0, 0)))
            at = int(np.searchsorted(docs, position[0]))
            if at < len(docs) and docs[at] == position[0]:
                gain = self._formula.gains(segment.kinds[codes[at : at + 1]], state.mean_length)
                shares[term.term] = term.weight * (float(gain[0]) + self._formula.always)
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def save(self, directory: Path, stem: str) -> list[Path]:
        """Write the index into `{stem}-lexical.<name>.npy` files, merged into one segment, and return their paths.

        Nothing is pickled. The files are written in place, not synced: naming and syncing is the caller's.
        """
        self._state = state = compact(self._state)
        state.base.verify()
        base, settings = state.base, self.settings
        arrays = {
            "settings": np.array([FORMAT, *map(str, settings.values()), str(base.tokens)]),
            "vocabulary": state.vocabulary.blob,
            "offsets": state.vocabulary.offsets,
            "indptr": base.indptr,
            "docs": base.docs,
            "codes": base.codes,
            "kinds": base.kinds,
            "ids": base.ids,
            "lengths": base.lengths,
        }
        return write(directory, stem, arrays)

    def like(self, other: LexicalIndex) -> LexicalIndex:
        """The same passages, scored by the variant and parameters of `other`."""
        index = LexicalIndex.__new__(LexicalIndex)
        index._formula = other._formula
        index._state = self._state
        index._gained = None
        return index

    @classmethod
    def load(cls, directory: Path, stem: str, facts: Mapping[str, Mapping[str, Any]] | None = None) -> LexicalIndex:
        """Open what `save` wrote, memory-mapped: nothing is read but what a search needs.

        `facts` are those of `semsearch.blocks.facts` for each file, by its name; blocks are then verified when they are
        first read, by whichever method reads them. Without facts the caller vouches for the files' integrity. Raises
        StorageError if a file is missing, cut off or of another format, DamagedCacheError (which is one) if it is not
        what was written.
        """
        a, files = opened(directory, stem, FILES, facts, settings=7)
        _, variant, k1, b, delta, epsilon, tokens = a["settings"].tolist()
        index = cls(variant, k1=float(k1), b=float(b), delta=float(delta), epsilon=float(epsilon))
        if files:
            files["kinds"].check_all()
        vocabulary = Vocabulary(a["vocabulary"], a["offsets"], {name: files[name] for name in WORDS if files})
        rows = np.zeros(0, dtype=np.int64)
        arrays = (a["indptr"], a["docs"], a["codes"], a["kinds"], a["ids"], a["lengths"])
        base = Segment(rows, *arrays, int(tokens), files={name: files[name] for name in files if name not in WORDS})
        if not (_fit(vocabulary, base)):
            raise StorageError(
                f"The files {stem}-lexical.* in {directory} do not belong together. Delete them and build them again."
            )
        index._state = State(vocabulary, base)
        return index

    def _gains(self, state: State) -> list[Float64]:
        """What each kind of posting is worth, segment by segment: the mean length, and so the state, decides."""
        known = self._gained
        if known is None or known[0] is not state:
            of = [self._formula.gains(segment.kinds, state.mean_length) for segment in state.segments]
            self._gained = known = (state, of)
        return known[1]

    def _top(self, segment: Segment, row: int, gains: Float64, mean: float) -> float:
        """What no posting of a row is worth more than."""
        known = segment.tops.get((self._formula, row))
        if known is None:
            if len(segment.tops) >= REMEMBERED:
                segment.tops.clear()
            _, codes = segment.postings(*segment.span(row))
            known = segment.tops[self._formula, row] = float(gains.take(codes).max(initial=0.0)), mean
        # Where the mean length grows r-fold, K shrinks to no less than its r-th part, and a gain grows r-fold at most.
        return known[0] * max(1.0, mean / known[1])

    def _weigh(self, state: State, terms: Sequence[str]) -> list[_Term]:
        """The query's terms that the corpus has, heaviest first: an order that depends on nothing but the corpus."""
        query, counts = [], Counter(terms)
        rows = zip(*state.rows(list(counts)), strict=True)
        for (term, count), places in zip(counts.items(), rows, strict=True):
            pairs = zip(state.segments, places, strict=True)
            df = sum(segment.frequency(row) for segment, row in pairs if row >= 0)
            if df:
                query.append(_Term(term, count * self._formula.idf(df, state), places))
        return sorted(query, key=lambda term: (-term.weight, term.term))


def _fit(vocabulary: Vocabulary, base: Segment) -> bool:
    """Whether the sizes of the files go together."""
    count = base.span(len(base.indptr) - 2)[1] if len(base.indptr) > 1 else 0
    fits = len(base.indptr) == len(vocabulary.offsets) and len(base.docs) == len(base.codes) == count
    return fits and len(base.ids) == len(base.lengths) and len(vocabulary.blob) == vocabulary.offsets[-1]

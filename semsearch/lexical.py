"""BM25 over passages that come and go: an inverted index in arrays, and rank-bm25 behind the same methods.

Both take tokens and know no analyzer. `LexicalIndex` has four variants, each with the scores of what it is named after:

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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError, StorageError
from semsearch.postings import (
    FORMAT,
    Segment,
    State,
    Vocabulary,
    build,
    compact,
    encode,
    merge_alike,
    numbering,
    read,
    write,
)

__all__ = ["Lexical", "LexicalIndex", "RankBM25Index", "get_lexical"]

Variant = Literal["lucene", "okapi", "l", "plus"]
Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Float64: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]

VARIANTS: tuple[Variant, ...] = ("lucene", "okapi", "l", "plus")
# nDCG@10 (of 100) on scifact (train) / cranfield / cisi / medline / cosqa, variant "lucene", English analyzer:
#   k1 1.5, b 0.75   69.8 / 43.4 / 39.6 / 70.1 / 38.9   (okapi: 69.6 / 43.0 / 39.3 / 69.7 / 38.9)
#   k1 1.2, b 0.75   69.8 / 43.3 / 39.2 / 70.1 / 38.8
#   k1 2.0, b 0.75   69.5 / 43.5 / 39.3 / 70.3 / 38.5
#   k1 0.9, b 0.4    69.6 / 41.6 / 37.2 / 68.2 / 36.9
K1 = 1.5
B = 0.75


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

    def gain(self, tf: Int32, lengths: Int32, mean_length: float) -> Float64:
        """What an occurrence is worth, to be multiplied by the term's idf (without `always`)."""
        scale = 1 - self.b + (self.b / mean_length) * lengths
        if self.variant == "l":
            share = tf / scale + self.delta
            return tf * ((self.k1 + 1) * share / (self.k1 + share))
        height = 1.0 if self.variant == "lucene" else self.k1 + 1
        return height * tf / (tf + self.k1 * scale)

    @property
    def ceiling(self) -> float:
        """What `gain` never exceeds."""
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
    rows: list[int]


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

        Raises InputError for an id that is there already or is given twice, and if there are not as many token lists as
        ids; then nothing was added.
        """
        wanted = _as_ids(ids)
        documents = list(documents_tokens)
        if len(wanted) != len(documents):
            raise InputError(
                f"{len(wanted)} ids came with {len(documents)} token lists; there must be one for each id."
            )
        if not len(wanted):
            return
        order = np.argsort(wanted)
        state = self._state
        _refuse_repeated(wanted[order], state.segments)
        segment = build(wanted[order], [documents[i] for i in order], state.numbers)
        if self._formula.variant == "okapi":
            state.links.extend(state.vocabulary.find(term) for term in list(state.numbers)[len(state.links) :])
        self._state = replace(state, fresh=merge_alike((*state.fresh, segment)))

    def remove(self, ids: Sequence[int] | Int64) -> None:
        """Remove passages; an id that is not there is no error. Their room is given back by later merges."""
        wanted = np.unique(_as_ids(ids))
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
        _check_k(k)
        state = self._state
        query = self._weigh(state, terms)
        every = sum(term.weight for term in query) * self._formula.always
        ids, scores = [], []
        for i, segment in enumerate(state.segments):
            rows = [(term.rows[i], term.weight) for term in query if term.rows[i] >= 0]
            if rows:
                found, values = _Scan(segment, rows, self._formula, state.mean_length, k).run(allowed)
                ids.append(segment.ids[found])
                scores.append(values)
        if not ids:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
        best, values = _best(np.concatenate(ids), np.concatenate(scores), k)
        return best, values + every

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
            docs, tf = segment.postings(term.rows[i]) if term.rows[i] >= 0 else (segment.docs[:0], segment.tf[:0])
            at = int(np.searchsorted(docs, position[0]))
            if at < len(docs) and docs[at] == position[0]:
                gain = self._formula.gain(tf[at : at + 1], segment.lengths[position], state.mean_length)
                shares[term.term] = term.weight * (float(gain[0]) + self._formula.always)
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def save(self, directory: Path, stem: str) -> list[Path]:
        """Write the index into `{stem}-lexical.<name>.npy` files, merged into one segment, and return their paths.

        Nothing is pickled. The files are written in place, not synced: naming and syncing is the caller's.
        """
        self._state = state = compact(self._state)
        base, settings = state.base, self.settings
        arrays = {
            "settings": np.array([FORMAT, *map(str, settings.values()), str(base.tokens)]),
            "vocabulary": state.vocabulary.blob,
            "offsets": state.vocabulary.offsets,
            "indptr": base.indptr,
            "docs": base.docs,
            "tf": base.tf,
            "ids": base.ids,
            "lengths": base.lengths,
        }
        return write(directory, stem, arrays)

    def like(self, other: LexicalIndex) -> LexicalIndex:
        """The same passages, scored by the variant and parameters of `other`."""
        index = LexicalIndex.__new__(LexicalIndex)
        index._formula = other._formula
        index._state = self._state
        return index

    @classmethod
    def load(cls, directory: Path, stem: str) -> LexicalIndex:
        """Open what `save` wrote, memory-mapped: nothing is read but what a search needs.

        The caller vouches for the files' integrity. Raises StorageError if a file is missing, cut off or of another
        format.
        """
        names = ("settings", "vocabulary", "offsets", "indptr", "docs", "tf", "ids", "lengths")
        arrays = read(directory, stem, names, settings=7)
        _, variant, k1, b, delta, epsilon, tokens = arrays["settings"].tolist()
        index = cls(variant, k1=float(k1), b=float(b), delta=float(delta), epsilon=float(epsilon))
        vocabulary = Vocabulary(arrays["vocabulary"], arrays["offsets"])
        a = arrays
        fits = len(a["indptr"]) == len(a["offsets"]) and len(a["docs"]) == len(a["tf"]) == a["indptr"][-1]
        if not (fits and len(a["ids"]) == len(a["lengths"]) and len(a["vocabulary"]) == a["offsets"][-1]):
            raise StorageError(
                f"The files {stem}-lexical.* in {directory} do not belong together. Delete them and build them again."
            )
        rows = np.zeros(0, dtype=np.int64)
        base = Segment(rows, a["indptr"], a["docs"], a["tf"], a["ids"], a["lengths"], int(tokens))
        index._state = State(vocabulary, base)
        return index

    def _weigh(self, state: State, terms: Sequence[str]) -> list[_Term]:
        """The query's terms that the corpus has, heaviest first: an order that depends on nothing but the corpus."""
        query = []
        for term, count in Counter(terms).items():
            rows = state.rows(term)
            pairs = zip(state.segments, rows, strict=True)
            df = sum(segment.frequency(row) for segment, row in pairs if row >= 0)
            if df:
                query.append(_Term(term, count * self._formula.idf(df, state), rows))
        return sorted(query, key=lambda term: (-term.weight, term.term))


class _Scan:
    """One query over one segment.

    Terms come heaviest first. Once the terms that are left cannot lift a new passage into the best k, they are only
    looked up for the passages that are still in question, and the long postings of common words are not read at all:
    MaxScore (Turtle and Flood, "Query Evaluation: Strategies and Optimizations", 1995), which is exact.
    """

    def __init__(self, segment: Segment, rows: list[tuple[int, float]], formula: _Formula, mean: float, k: int) -> None:
        self.segment = segment
        self.terms = [(*segment.postings(row), weight) for row, weight in rows]
        self.formula = formula
        self.mean = mean
        self.k = k
        self.scores: Float64 = np.zeros(len(segment.ids))
        self.matched: Bool = np.zeros(len(segment.ids), dtype=np.bool_)
        weights = [weight for _, weight in rows]
        # Above what every later term together can add; rounding must not make it too small.
        bounds = np.cumsum([weight * formula.ceiling for weight in reversed(weights)])[::-1] * (1 + 1e-9)
        self.rest: list[float] = bounds.tolist() if min(weights) >= 0 else [math.inf] * len(weights)

    def run(self, allowed: Int64 | None) -> tuple[Int64, Float64]:
        """Positions and scores of the best k (of a few more where scores are equal)."""
        eligible = None if self.segment.dead is None else ~self.segment.dead
        if allowed is not None:
            chosen = self.segment.positions(allowed)
            if len(chosen) * 8 < sum(len(docs) for docs, _, _ in self.terms):
                return self._top(self._look_up(0, chosen, -math.inf))
            eligible = np.zeros(len(self.segment.ids), dtype=np.bool_)
            eligible[chosen] = True
        seen = 0
        for i, (docs, tf, weight) in enumerate(self.terms):
            if seen >= self.k and len(docs) > seen and self.rest[i] < math.inf:
                candidates = np.flatnonzero(self.matched).astype(np.int32)
                threshold = _kth(self.scores[candidates], self.k)
                if self.rest[i] < threshold:
                    return self._top(self._look_up(i, candidates, threshold))
            if eligible is not None:
                keep = eligible[docs]
                docs, tf = docs[keep], tf[keep]
            self._score(docs, tf, weight)
            seen += len(docs)
        return self._top(np.flatnonzero(self.matched))

    def _score(self, docs: Int32, tf: Int32, weight: float) -> None:
        self.scores[docs] += weight * self.formula.gain(tf, self.segment.lengths[docs], self.mean)
        self.matched[docs] = True

    def _look_up(self, first: int, candidates: Int32, threshold: float) -> Int32:
        """Score the terms from the first on for the candidates alone; returns those that may be among the best."""
        for i in range(first, len(self.terms)):
            docs, tf, weight = self.terms[i]
            candidates = candidates[self.scores[candidates] + self.rest[i] >= threshold]
            at = np.minimum(np.searchsorted(docs, candidates), len(docs) - 1)
            hit = docs[at] == candidates
            self._score(candidates[hit], tf[at[hit]], weight)
        return candidates[self.matched[candidates]]

    def _top(self, candidates: Any) -> tuple[Int64, Float64]:
        # Positions are in the order of ids, so that equal scores come out by smaller id.
        return _best(candidates.astype(np.int64), self.scores[candidates], self.k)


class RankBM25Index:
    """The rank_bm25 package (variants "okapi", "l" and "plus") behind the methods of `LexicalIndex`.

    rank_bm25 cannot be changed once built: the first search after a change builds it again, and each search reads every
    passage. Only passages that have a term of the query are returned, best first, equal scores by smaller id.

    >>> index = RankBM25Index()
    >>> index.add([1, 2, 3], [["late", "fee"], ["opening", "hours"], ["fee", "list"]])
    >>> index.search(["hours"], 10)[0].tolist()
    [2]
    """

    def __init__(self, variant: Variant = "okapi", *, k1: float = 1.5, b: float = 0.75) -> None:
        if variant not in ("okapi", "l", "plus"):
            raise InputError(f"rank_bm25 has no variant {variant!r}. Choose okapi, l or plus.")
        self._variant: Variant = variant
        self._k1, self._b = float(k1), float(b)
        self._tokens: dict[int, list[str]] = {}
        self._built: Any = None
        self._ids = np.zeros(0, dtype=np.int64)

    def __repr__(self) -> str:
        return f"RankBM25Index({self._variant!r}, passages={len(self)})"

    @property
    def settings(self) -> dict[str, str | float]:
        """The variant and its parameters, as they are stored."""
        return {"variant": f"rank_bm25-{self._variant}", "k1": self._k1, "b": self._b}

    @property
    def ids(self) -> Int64:
        """The passages' ids, ascending: (n,) int64."""
        return np.array(sorted(self._tokens), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, ids: Sequence[int] | Int64, documents_tokens: Iterable[Sequence[str]]) -> None:
        """As `LexicalIndex.add`."""
        wanted = _as_ids(ids)
        documents = [list(tokens) for tokens in documents_tokens]
        if len(wanted) != len(documents):
            raise InputError(
                f"{len(wanted)} ids came with {len(documents)} token lists; there must be one for each id."
            )
        _refuse_repeated(np.sort(wanted), ())
        there = [id for id in wanted.tolist() if id in self._tokens]
        if there:
            raise InputError(
                f"Passage {there[0]} is in the index already. Remove it first, or give the new text a new id."
            )
        self._tokens.update(zip(wanted.tolist(), documents, strict=True))
        self._built = None

    def remove(self, ids: Sequence[int] | Int64) -> None:
        """As `LexicalIndex.remove`."""
        for id in _as_ids(ids).tolist():
            self._tokens.pop(id, None)
        self._built = None

    def search(self, terms: Sequence[str], k: int, *, allowed: Int64 | None = None) -> tuple[Int64, Float64]:
        """As `LexicalIndex.search`."""
        _check_k(k)
        bm25 = self._bm25()
        wanted = set(terms)
        found = [] if bm25 is None else [i for i, freqs in enumerate(bm25.doc_freqs) if not wanted.isdisjoint(freqs)]
        positions = np.array(found, dtype=np.int64)
        if allowed is not None:
            positions = positions[np.isin(self._ids[positions], allowed)]
        if not len(positions):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
        return _best(self._ids[positions], bm25.get_scores(list(terms))[positions], k)

    def explain(self, terms: Sequence[str], id: int) -> dict[str, float]:
        """As `LexicalIndex.explain`."""
        if id not in self._tokens:
            raise InputError(f"There is no passage {id} in this index, so its score cannot be explained.")
        bm25 = self._bm25()
        position = int(np.searchsorted(self._ids, id))
        matching = {term: count for term, count in Counter(terms).items() if term in self._tokens[id]}
        shares = {term: count * bm25.get_batch_scores([term], [position])[0] for term, count in matching.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def save(self, directory: Path, stem: str) -> list[Path]:
        """Write the passages' tokens into `{stem}-lexical.<name>.npy` files: rank_bm25 has no format of its own."""
        numbers = numbering()
        documents = [self._tokens[id] for id in self.ids.tolist()]
        tokens = np.fromiter(map(numbers.__getitem__, chain.from_iterable(documents)), dtype=np.int64)
        vocabulary = Vocabulary.of([encode(term) for term in numbers])
        arrays = {
            "settings": np.array([FORMAT, *map(str, self.settings.values())]),
            "vocabulary": vocabulary.blob,
            "offsets": vocabulary.offsets,
            "tokens": tokens,
            "ids": self.ids,
            "lengths": np.array([len(tokens) for tokens in documents], dtype=np.int32),
        }
        return write(directory, stem, arrays)

    @classmethod
    def load(cls, directory: Path, stem: str) -> RankBM25Index:
        """Read what `save` wrote. Raises StorageError if a file is missing, cut off or of another format."""
        names = ("settings", "vocabulary", "offsets", "tokens", "ids", "lengths")
        arrays = read(directory, stem, names, settings=4)
        _, variant, k1, b = arrays["settings"].tolist()
        index = cls(variant.removeprefix("rank_bm25-"), k1=float(k1), b=float(b))
        encoded = Vocabulary(arrays["vocabulary"], arrays["offsets"]).terms()
        terms = [term.decode("utf-8", "surrogatepass") for term in encoded]
        tokens = [terms[number] for number in arrays["tokens"].tolist()]
        ends = np.cumsum(arrays["lengths"], dtype=np.int64).tolist()
        starts = [0, *ends[:-1]]
        index._tokens = {
            id: tokens[start:end] for id, start, end in zip(arrays["ids"].tolist(), starts, ends, strict=False)
        }
        return index

    def _bm25(self) -> Any:
        """rank_bm25 over the passages as they are now; None where there is no token at all, which it cannot take."""
        if self._built is None and any(self._tokens.values()):
            import rank_bm25

            kind = {"okapi": rank_bm25.BM25Okapi, "l": rank_bm25.BM25L, "plus": rank_bm25.BM25Plus}[self._variant]
            self._ids = self.ids
            self._built = kind([self._tokens[id] for id in self._ids.tolist()], k1=self._k1, b=self._b)
        return self._built


def _best(ids: Int64, scores: Float64, k: int) -> tuple[Int64, Float64]:
    """The k highest scores, best first; among equal ones the smaller ids."""
    if len(ids) > k:
        threshold = _kth(scores, k)
        above, level = np.flatnonzero(scores > threshold), np.flatnonzero(scores == threshold)
        missing = k - len(above)
        if len(level) > missing:
            level = level[np.argpartition(ids[level], missing - 1)[:missing]]
        kept = np.concatenate([above, level])
        ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids, -scores))
    return ids[order], scores[order]


def _kth(scores: Float64, k: int) -> float:
    """The k-th highest score; minus infinity where there are fewer."""
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) if len(scores) >= k else -math.inf


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k={k} asks for no passage at all; k must be at least 1.")


def _as_ids(ids: Sequence[int] | Int64) -> Int64:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"Passage ids must be a sequence of integers, not {ids!r}.")
    return array.astype(np.int64)


def _refuse_repeated(ids: Int64, segments: Sequence[Segment]) -> None:
    """Raise InputError if sorted ids repeat one another or one that lives in the segments."""
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise InputError(f"Passage {twice[0]} is given twice. Each passage needs an id of its own.")
    for segment in segments:
        there = segment.positions(ids)
        if len(there):
            raise InputError(
                f"Passage {segment.ids[there[0]]} is in the index already. "
                "Remove it first, or give the new text a new id."
            )

"""The rank_bm25 package behind the methods of `LexicalIndex`: the reference, for whoever wants it as it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError
from semsearch.postings import FORMAT, opened, write
from semsearch.selection import as_ids, check_k, refuse_repeated, top
from semsearch.vocabulary import Vocabulary, encode, numbering, numbers_of

__all__ = ["RankBM25Index"]

Int64: TypeAlias = NDArray[np.int64]
Float64: TypeAlias = NDArray[np.float64]


class RankBM25Index:
    """The rank_bm25 package (variants "okapi", "l" and "plus") behind the methods of `LexicalIndex`.

    rank_bm25 cannot be changed once built: the first search after a change builds it again, and each search reads every
    passage. Only passages that have a term of the query are returned, best first, equal scores by smaller id.

    >>> index = RankBM25Index()
    >>> index.add([1, 2, 3], [["late", "fee"], ["opening", "hours"], ["fee", "list"]])
    >>> index.search(["hours"], 10)[0].tolist()
    [2]
    """

    def __init__(self, variant: Literal["okapi", "l", "plus"] = "okapi", *, k1: float = 1.5, b: float = 0.75) -> None:
        if variant not in ("okapi", "l", "plus"):
            raise InputError(f"rank_bm25 has no variant {variant!r}. Choose okapi, l or plus.")
        self._variant = variant
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
        wanted = as_ids(ids)
        documents = [list(tokens) for tokens in documents_tokens]
        if len(wanted) != len(documents):
            raise InputError(
                f"{len(wanted)} ids came with {len(documents)} token lists; there must be one for each id."
            )
        refuse_repeated(np.sort(wanted), ())
        there = [id for id in wanted.tolist() if id in self._tokens]
        if there:
            raise InputError(
                f"Passage {there[0]} is in the index already. Remove it first, or give the new text a new id."
            )
        self._tokens.update(zip(wanted.tolist(), documents, strict=True))
        self._built = None

    def remove(self, ids: Sequence[int] | Int64) -> None:
        """As `LexicalIndex.remove`."""
        for id in as_ids(ids).tolist():
            self._tokens.pop(id, None)
        self._built = None

    def search(self, terms: Sequence[str], k: int, *, allowed: Int64 | None = None) -> tuple[Int64, Float64]:
        """As `LexicalIndex.search`."""
        check_k(k)
        bm25 = self._bm25()
        wanted = set(terms)
        found = [] if bm25 is None else [i for i, freqs in enumerate(bm25.doc_freqs) if not wanted.isdisjoint(freqs)]
        positions = np.array(found, dtype=np.int64)
        if allowed is not None:
            positions = positions[np.isin(self._ids[positions], allowed)]
        if not len(positions):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
        return top(self._ids[positions], bm25.get_scores(list(terms))[positions], k)

    def ceiling(self, terms: Sequence[str]) -> float:
        """Not known: inf."""
        return math.inf

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
        tokens = numbers_of(documents, numbers)
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
        arrays, _ = opened(directory, stem, names, None, settings=4)
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

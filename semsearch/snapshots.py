"""`Snapshot`: one generation of an index, while it is searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from semsearch.analysis import Analyzer
from semsearch.filters import Where
from semsearch.fusion import Fusion, Ranking, Scores, absolute
from semsearch.holdings import Holdings
from semsearch.legs import Legs
from semsearch.views import View

if TYPE_CHECKING:
    from semsearch.lexical import Lexical
    from semsearch.tuning import Choice

__all__ = ["Allowed", "Snapshot"]

Allowed: TypeAlias = Any  # what `Snapshot.matching` gives; None lets everything through


class Snapshot(Holdings):
    """One generation of an index, while it is searched. Made by `Index.snapshot`."""

    def __init__(self, view: View, legs: Legs, analyzer: Analyzer) -> None:
        super().__init__(view)
        self._legs = legs
        self._analyzer = analyzer

    def matching(self, where: Where | None) -> Allowed:
        """What a filter lets through, as `dense` and `lexical` take it. Raises FilterError."""
        return None if where is None else self._legs.matching(self._view, where)

    def dense(self, vectors: np.ndarray, k: int, allowed: Allowed = None) -> list[Ranking]:
        """For each of the (q, dimension) query vectors, the k nearest passages by inner product."""
        if not self._view.has_passages():
            return [[] for _ in vectors]
        found = self._legs.ask_dense(self._view, lambda leg: leg.search(vectors, k, allowed=allowed))
        return [_ranking(ids, scores) for ids, scores in found]

    def lexical(self, queries: Sequence[str], k: int, allowed: Allowed = None) -> list[Ranking]:
        """For each query, the k passages with the highest BM25 score; only passages that match."""
        return self.by_terms([self._analyzer.query(query) for query in queries], k, allowed)

    def by_terms(self, queries: Sequence[Sequence[str]], k: int, allowed: Allowed = None) -> list[Ranking]:
        """The same for queries that are the analyzer's terms."""
        if not self._view.has_passages():
            return [[] for _ in queries]

        def scored(leg: Lexical, terms: Sequence[str]) -> Ranking:
            return Scores(_ranking(*leg.search(terms, k, allowed=allowed)), leg.ceiling(terms))

        return self._legs.ask_lexical(self._view, lambda leg: [scored(leg, terms) for terms in queries])

    @cached_property
    def choice(self) -> Choice | None:
        """What `Retriever.tune` learned for this index, if it did."""
        stored = self._view.meta("fusion")
        if stored is None:
            return None
        from semsearch.tuning import learned

        return learned(stored)

    @property
    def fusion(self) -> Fusion:
        """The fusion that was learned for this index, otherwise the default."""
        return absolute if self.choice is None else self.choice.function()

    def explain(self, query: str, passage: int) -> Mapping[str, float]:
        """The BM25 share of each term of the query in a passage."""
        terms = self._analyzer.query(query)
        return self._legs.ask_lexical(self._view, lambda leg: leg.explain(terms, passage))

    def surroundings(self, ids: Sequence[int], dimension: int) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of passages, and the means of each and those before and after it in its document.

        Both are (n, dimension) float32; the means have unit length. A passage without a vector has zeros in both.
        """
        mates = self.mates(ids)
        vectors = self.vectors_of(sorted({mate for each in mates.values() for mate in each}))
        own, around = (np.zeros((len(ids), dimension), np.float32) for _ in range(2))
        for row, id in enumerate(ids):
            if id in vectors:
                total = np.sum([vectors[mate] for mate in mates[id] if mate in vectors], axis=0)
                own[row] = vectors[id]
                around[row] = total / (np.linalg.norm(total) or 1.0)
        return own, around

    def mates(self, ids: Sequence[int]) -> dict[int, list[int]]:
        """Each of these passages that there is, with the one before and the one after it in its document."""
        steps = (-1, 0, 1)
        owners = self.owners(sorted({id + step for id in ids for step in steps}))
        return {id: [id + step for step in steps if owners.get(id + step) == owners[id]] for id in ids if id in owners}

    def vectors_of(self, ids: Sequence[int]) -> dict[int, np.ndarray]:
        """The vectors of these passages, each (dimension,) float32; none for one that has no vector."""
        return self._view.vectors_of(ids)


def _ranking(ids: np.ndarray, scores: np.ndarray) -> Ranking:
    return list(zip(ids.tolist(), scores.tolist(), strict=True))

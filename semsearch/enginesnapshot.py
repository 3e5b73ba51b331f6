"""`EngineSnapshot`: an index in an engine, while it is searched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from semsearch.analysis import Analyzer
from semsearch.engines.protocol import Engine
from semsearch.enginestore import EngineView
from semsearch.errors import InputError
from semsearch.filters import Condition, Joined, Where, as_condition, parse
from semsearch.fusion import Fusion, Ranking, absolute, rrf
from semsearch.holdings import Int64, Stored, sampled
from semsearch.records import Document, Passage
from semsearch.snapshots import Allowed, Snapshot

__all__ = ["EngineSnapshot"]

BLOCK = 500  # passages that are read at a time
SAMPLED = 100_000  # ids that a sample is taken from; an engine's ids come in no order, so the first are as good as any
EVERY = 1 << 40  # more than there are passages
EVERYTHING = Joined("AND", ())


class EngineSnapshot(Snapshot):
    """An index in an engine, while it is searched.

    It is no whole generation: what others write meanwhile may be seen. A passage that was found and is gone when it is
    to be read is not in what `passages` gives.
    """

    def __init__(self, view: EngineView, analyzer: Analyzer) -> None:
        self._view: Any = view  # by the names that are used of it in `Holdings`
        self._engine: Engine = view.engine
        self._analyzer = analyzer
        self._is_bound = view.bound is not None

    # -- searching ---------------------------------------------------------------------------------------------------

    def matching(self, where: Where | None) -> Allowed:
        """What a filter lets through, as `dense` and `lexical` take it. Raises FilterError."""
        return None if where is None else parse(where)

    def dense(self, vectors: np.ndarray, k: int, allowed: Allowed = None) -> list[Ranking]:
        """For each of the (q, dimension) query vectors, the k nearest passages by inner product."""
        if not self._is_bound or not len(vectors):
            return [[] for _ in vectors]
        return cast(list[Ranking], self._engine.dense(vectors, k, allowed))

    def by_terms(self, queries: Sequence[Sequence[str]], k: int, allowed: Allowed = None) -> list[Ranking]:
        """For each query, of the analyzer's terms, the k passages with the highest BM25 score, only those that match.

        Raises InputError where the engine does not rank by keyword.
        """
        if self._is_bound and not self._engine.capabilities.text:
            raise InputError(f"{self._engine.location} cannot search by keyword. Search with mode='dense'.")
        found: list[Ranking] = [[] for _ in queries]
        asked = [place for place, terms in enumerate(queries) if terms] if self._is_bound else []
        if asked:
            rankings = self._engine.text([queries[place] for place in asked], k, allowed)
            for place, ranking in zip(asked, rankings, strict=True):
                found[place] = ranking
        return found

    @property
    def fusion(self) -> Fusion:
        """The fusion that was learned for this index, otherwise the default: by ranks where scores say no more."""
        if self.choice is not None:
            return self.choice.function()
        return absolute if self._engine.capabilities.scores else rrf

    def explain(self, query: str, passage: int) -> Mapping[str, float]:
        """The BM25 share of each term of the query in a passage: the score that it has for that term alone."""
        terms = Counter(self._analyzer.query(query))
        found = self.known([passage])
        if not terms or passage not in found or not self._engine.capabilities.text:
            return {}
        id = found[passage].document_id
        rankings = self.by_terms([[term] for term in terms], len(self._owned([id])[id]), parse({"id": id}))
        scores = {term: dict(ranking) for term, ranking in zip(terms, rankings, strict=True)}
        shares = {term: terms[term] * each[passage] for term, each in scores.items() if passage in each}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def mates(self, ids: Sequence[int]) -> dict[int, list[int]]:
        """Each of these passages that there is, with the one before and the one after it in its document."""
        owners = {id: passage.document_id for id, passage in self.known(ids).items()}
        owned = self._owned(list(dict.fromkeys(owners.values())))
        mates = {}
        for id, owner in owners.items():
            place = owned[owner].index(id) if id in owned.get(owner, ()) else -1
            if place >= 0:
                mates[id] = owned[owner][max(0, place - 1) : place + 2]
        return mates

    def vectors_of(self, ids: Sequence[int]) -> dict[int, np.ndarray]:
        """The vectors of these passages, each (dimension,) float32; none for one that has no vector."""
        return self._engine.vectors_of(ids) if self._is_bound and len(ids) else {}

    # -- what there is -----------------------------------------------------------------------------------------------

    def document(self, key: int) -> Document:
        """The document with that key."""
        document: Document = self._view.document(self._view.id_of(key))
        return document

    def owners(self, ids: Sequence[int]) -> dict[int, int]:
        """The key of the document of each of these passages that there is."""
        return {id: self._view.number(passage.document_id) for id, passage in self.known(ids).items()}

    def known(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids that there are."""
        return self._engine.passages(ids) if self._is_bound and len(ids) else {}

    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids, without those that are gone."""
        return self.known(ids)

    def _owned(self, ids: Sequence[str]) -> dict[str, list[int]]:
        return self._engine.owned(ids) if ids else {}

    def sample(self, where: Where | None, most: int) -> tuple[Int64, int]:
        """The ids of at most `most` of the passages that match, ascending, and how many match."""
        condition = EVERYTHING if where is None else as_condition(where)
        limit = max(most, SAMPLED)
        ids = self._ids(condition, limit)
        total = len(ids) if len(ids) < limit else self._engine.count(condition)[1]
        return sampled(ids, most), total

    def _ids(self, condition: Condition, limit: int) -> Int64:
        ids = self._engine.matching(condition, limit) if self._is_bound else []
        return np.array(ids, np.int64)

    def stored_of(self, documents: Sequence[int]) -> Stored:
        """The passages with vectors of the documents with these keys."""
        owned = self._owned([self._view.id_of(key) for key in documents])
        return self.stored_at([id for ids in owned.values() for id in ids])

    def stored(self, where: Where | None = None, most: int | None = None) -> Stored:
        """All passages with vectors, or those that match, or `most` of them, a random sample."""
        if most is not None:
            return self.stored_at(self.sample(where, most)[0].tolist())
        return self.stored_at(self._ids(EVERYTHING if where is None else as_condition(where), EVERY).tolist())

    def stored_at(self, ids: Sequence[int]) -> Stored:
        """Those of these passages that have a vector."""
        texts: dict[tuple[str, bytes], int] = {}  # passages with the same text and vector share it
        rows: list[tuple[int, int, int]] = []
        vectors: list[np.ndarray] = []
        wanted = sorted(ids)
        for first in range(0, len(wanted), BLOCK):
            block = wanted[first : first + BLOCK]
            passages, found = self.known(block), self.vectors_of(block)
            for id in block:
                if id in passages and id in found:
                    place = texts.setdefault((passages[id].text, found[id].tobytes()), len(texts))
                    if place == len(vectors):
                        vectors.append(found[id])
                    rows.append((id, self._view.number(passages[id].document_id), place))
        listed = np.array(rows, np.int64).reshape(-1, 3)
        matrix = np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 1), np.float32)
        return Stored(listed[:, 0], listed[:, 1], listed[:, 2], matrix)

    def values(self, name: str) -> dict[str, int]:
        """Nothing: an engine cannot list the values of a name."""
        return {}

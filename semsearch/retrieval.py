"""`Retriever`: a query in, ranked passages out. Each leg ranks, a fusion joins, a reranker may have the last word."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import index as as_integer
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from semsearch.display import Explanation, hits_rows, hits_text
from semsearch.errors import IndexMismatchError, InputError
from semsearch.filters import Where, shown
from semsearch.fusion import Ranking
from semsearch.records import Hit, Passage

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from semsearch.index import Index
    from semsearch.snapshots import Snapshot
    from semsearch.tuning import Case, Tuning

__all__ = ["Fusion", "Hits", "Reranker", "Retriever"]

LEGS: dict[str, tuple[str, ...]] = {"hybrid": ("dense", "lexical"), "dense": ("dense",), "lexical": ("lexical",)}
DEPTH = 100  # how many passages each leg hands to the fusion, if k is smaller
TRIES = 3  # how often to search again where passages that were found are gone when they are to be read
NONE = "none"  # the name of no reranker, where one was learned
UNKNOWN_SHARE = 0.5  # from this share of a query that the encoder has no words for, hybrid search goes by keyword alone


class Fusion(Protocol):
    """Joins the rankings of the legs into one of at most k passages."""

    def __call__(self, rankings: Mapping[str, Ranking], *, k: int) -> Ranking: ...


class Reranker(Protocol):
    """Gives each passage a new score for a query; higher is better."""

    def __call__(self, query: str, passages: Sequence[Passage]) -> Sequence[float]: ...


class Hits(list[Hit]):
    """The hits of one query, best first; a list that prints well."""

    def __init__(self, hits: Sequence[Hit] = (), query: str = "") -> None:
        super().__init__(hits)
        self.query = query

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat mapping a hit: rank, score, document, page, offsets, text, and the rank and score in each leg."""
        return hits_rows(self)

    def to_pandas(self) -> pd.DataFrame:
        """The same as a data frame; raises MissingExtraError without pandas."""
        from semsearch.frames import hits_pandas

        return hits_pandas(self)

    def to_polars(self) -> pl.DataFrame:
        """The same as a polars data frame, `metadata` as JSON text; raises MissingExtraError without polars."""
        from semsearch.frames import hits_polars

        return hits_polars(self)

    def to_arrow(self) -> pa.Table:
        """The same as an Arrow table, `metadata` as JSON text; raises MissingExtraError without pyarrow."""
        from semsearch.frames import hits_arrow

        return hits_arrow(self)

    def __str__(self) -> str:
        return hits_text(self, self.query)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from semsearch.html import hits_html

        return hits_html(self, self.query)


class _Found(NamedTuple):
    query: str
    rankings: dict[str, Ranking]
    ranking: Ranking
    passages: dict[int, Passage]


class Retriever:
    """Searches an index.

    retriever = semsearch.Retriever(index, mode="hybrid", fusion=semsearch.fusion.rrf)
    for hit in retriever.search("late fees", k=5, where={"suffix": ".md"}):
        print(hit.rank, hit.score, hit.passage.document_id, hit.sources)

    `mode` is "hybrid" (meaning and keywords), "dense" (meaning) or "lexical" (keywords: only passages that match).
    `fusion` joins the two rankings in hybrid mode: a function `mine(rankings, *, k)` that takes the mapping
    {"dense": [(passage id, score), ...], "lexical": [...]}, best first, and returns such a list of at most k. None is
    the one that `tune` learned for this index, or else `semsearch.fusion.absolute`.
    `reranker` takes (query, passages) and returns a score for each; it sees the best 100 of the fusion, or as many as
    its attribute `depth` says, and no fewer than k. If it has a method `with_scores(query, passages, scores)`, that is
    called instead. By name: "feedback", "maxsim", "mmr", "reader", or a cross-encoder that sentence-transformers knows.
    None is the one that `tune` learned for this index together with the fusion, if any; "none" is without.

    The score of a hit is the fusion's in hybrid mode, the cosine similarity in dense mode, BM25 in lexical mode.
    """

    def __init__(
        self,
        index: Index,
        mode: str = "hybrid",
        fusion: Fusion | Callable[..., Ranking] | None = None,
        reranker: Reranker | str | None = None,
    ) -> None:
        if not isinstance(mode, str) or mode not in LEGS:
            raise InputError(f"mode={shown(mode)} is not known. Choose one of {', '.join(map(repr, LEGS))}.")
        chosen: Any = reranker
        if isinstance(reranker, str):
            chosen = None if reranker == NONE else _reranker_named(reranker, index)
        for name, value in (("fusion", fusion), ("reranker", chosen)):
            if value is not None and not callable(value):
                raise InputError(f"{name}= takes a function, not {value!r}.")
        self.index = index
        self.mode = mode
        self.fusion = fusion
        self.reranker: Reranker | None = chosen
        self._may_learn = mode == "hybrid" and fusion is None and reranker is None
        self._learned: tuple[str, Reranker] | None = None
        self._told = False

    def __repr__(self) -> str:
        return f"<Retriever over {self.index!r}, {self.mode}>"

    @overload
    def search(self, query: str, k: int = 10, where: Where | None = None) -> Hits: ...  # type: ignore[overload-overlap]
    @overload
    def search(self, query: Sequence[str], k: int = 10, where: Where | None = None) -> list[Hits]: ...
    def search(self, query: str | Sequence[str], k: int = 10, where: Where | None = None) -> Hits | list[Hits]:
        """The k best passages for each query, fewer only if fewer match.

        A string gives Hits, a sequence of strings a list of them with the same scores as one by one. `where` filters by
        metadata before the k best are chosen. Raises InputError for an empty query or a k below 1, FilterError for a
        filter that is not well formed.
        """
        if isinstance(query, str):
            return self._search([query], k, where)[0]
        if not isinstance(query, Sequence):
            raise InputError(f"A query is a string or a sequence of strings, not {shown(query)}.")
        return self._search(list(query), k, where)

    @overload
    async def asearch(self, query: str, k: int = 10, where: Where | None = None) -> Hits: ...  # type: ignore[overload-overlap]
    @overload
    async def asearch(self, query: Sequence[str], k: int = 10, where: Where | None = None) -> list[Hits]: ...
    async def asearch(self, query: str | Sequence[str], k: int = 10, where: Where | None = None) -> Hits | list[Hits]:
        """As `search`, in a thread, so that the event loop goes on meanwhile; see `Index.asearch`."""
        import asyncio

        return await asyncio.to_thread(self.search, query, k, where)

    def _search(self, queries: list[str], k: int, where: Where | None) -> list[Hits]:
        for query in queries:
            _check_query(query)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k={shown(k)}: ask for at least 1 hit.")
        if not queries:
            return []
        legs = self._legs()
        vectors = self._vectors(queries) if "dense" in legs else [None] * len(queries)
        with self.index.snapshot() as snapshot:
            reranker = self._reranker(snapshot)
            width = k if reranker is None else max(k, _depth(reranker))
            allowed = snapshot.matching(where)
            found = [
                self._find(
                    snapshot, query, partial(_rankings, snapshot, legs, query, vector, max(k, DEPTH), allowed), width
                )
                for query, vector in zip(queries, vectors, strict=True)
            ]
        return [self._hits(each, k, reranker) for each in found]

    def _find(self, snapshot: Snapshot, query: str, rank: Callable[[], dict[str, Ranking]], width: int) -> _Found:
        for _ in range(TRIES):
            rankings = rank()
            ranking = self._joined(snapshot, rankings, width)
            passages = snapshot.passages([id for id, _ in ranking])
            if all(id in passages for id, _ in ranking):
                break
        # In an engine, others may remove a passage between the ranking and the reading.
        return _Found(query, rankings, [pair for pair in ranking if pair[0] in passages], passages)

    def _legs(self) -> tuple[str, ...]:
        if self.mode != "hybrid" or self.index.ranks_keywords:
            return LEGS[self.mode]
        if not self._told:
            self._told = True
            warnings.warn(
                f"{self.index.location} cannot search by keyword; hybrid searches go by meaning alone. Keep the index "
                "where keywords can be searched, too, or ask with mode='dense'.",
                stacklevel=4,
            )
        return LEGS["dense"]

    def tune(self, judged: object, *, rerankers: Sequence[str] = (), save: bool = True) -> Tuning:
        """Choose the fusion and its weights by judged queries, and store the choice with the index if `save` is True.

        `judged` is a list of (question, document id), or anything else that `read_dataset` takes and that names
        documents. About fifty queries are enough to tell an index where one leg should lead. With `rerankers`, names
        such as ("feedback", "maxsim", "reader"), one of them is chosen as well if it helps; "maxsim" and "reader" look
        at each passage anew, for every judged query and every search later. What was chosen holds for every `Retriever`
        over this index that is given neither fusion nor reranker, and is shown by `index.info()`; tuning again replaces
        it.

        Raises InputError for fewer than five queries, for a retriever that is not hybrid, and if no judged document is
        found for any query.
        """
        from semsearch.tuning import Case, judged_queries, tune

        if self.mode != "hybrid":
            raise InputError(f"mode={self.mode!r} has one leg, so there is no fusion to tune. Use mode='hybrid'.")
        if not self.index.ranks_keywords:
            raise InputError(f"{self.index.location} cannot search by keyword, so there is no fusion to tune.")
        queries = judged_queries(judged, lambda id: self.index.get(id) is not None)
        if isinstance(rerankers, str):
            raise InputError(f"rerankers={rerankers!r}: give a list of names, such as [{rerankers!r}].")
        trials = {name: _Trial(_reranker_named(name, self.index)) for name in rerankers}
        vectors = self._vectors([query for query, _ in queries])
        cases = []
        with self.index.snapshot() as snapshot:
            for (query, grades), vector in zip(queries, vectors, strict=True):
                if vector is None:  # searched by keyword only, whatever the fusion
                    continue
                rankings = _rankings(snapshot, LEGS["hybrid"], query, vector, DEPTH, None)
                passages = snapshot.passages(list({id for each in rankings.values() for id, _ in each}))
                documents = {id: each.document_id for id, each in passages.items()}
                cases.append(Case(rankings, documents, grades, query, passages))
        report = tune(cases, rerankers=trials)
        if save:
            self.index.learn(report.choice)
        return report

    def _vectors(self, queries: list[str]) -> list[Any]:
        """A vector for each query; None where hybrid search does better without, as the encoder lacks its script."""
        wanted = [query for query in queries if self.mode == "dense" or not self._is_foreign(query)]
        vectors = iter(self.index.encode_queries(wanted)) if wanted else iter(())
        taken = set(wanted)
        return [next(vectors) if query in taken else None for query in queries]

    def _is_foreign(self, query: str) -> bool:
        unknown_share = getattr(self.index.encoder, "unknown_share", None)
        if unknown_share is None or not self.index.ranks_keywords or unknown_share(query) < UNKNOWN_SHARE:
            return False
        if not self._told:
            self._told = True
            warnings.warn(
                f"The encoder {self.index.encoder.name!r} does not know the script of {query[:40]!r}; such queries are "
                "searched by keyword only. Pass an encoder that knows it: semsearch.Index(location, encoder=...).",
                stacklevel=5,
            )
        return True

    def _joined(self, snapshot: Snapshot, rankings: dict[str, Ranking], k: int) -> Ranking:
        if len(rankings) == 1:
            return next(iter(rankings.values()))[:k]
        fusion = self.fusion or snapshot.fusion
        return _checked(fusion, fusion(rankings, k=k), rankings)

    def _reranker(self, snapshot: Snapshot) -> Reranker | None:
        """The one that was given, or else the one that was learned."""
        learned = snapshot.choice if self._may_learn else None
        name = None if learned is None else learned.reranker
        if name is None:
            return self.reranker
        if self._learned is None or self._learned[0] != name:
            self._learned = name, _reranker_named(name, self.index)
        return self._learned[1]

    def _hits(self, found: _Found, k: int, reranker: Reranker | None) -> Hits:
        query, passages, ranking = found.query, found.passages, found.ranking
        rankings = dict(found.rankings)
        if reranker is not None:
            ranking = rankings["rerank"] = _reranked(reranker, query, passages, ranking)
        places = {
            leg: {id: (rank, score) for rank, (id, score) in enumerate(each, 1)} for leg, each in rankings.items()
        }
        return Hits(
            [
                Hit(
                    passages[id],
                    float(score),
                    rank,
                    {leg: place[id] for leg, place in places.items() if id in place},
                    _Why(self.index, query, passages[id]),
                )
                for rank, (id, score) in enumerate(ranking[:k], 1)
            ],
            query,
        )


class _Trial:
    """A reranker that `tune` tries: the best passages in its order, the others after them.

    One that looks at each passage by itself, as its method `mixed` tells, sees each once, whatever the fusion.
    """

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self._known: dict[tuple[str, int], float] = {}

    def __call__(self, case: Case, ranking: Ranking) -> Ranking:
        depth = _depth(self._reranker)
        best, mixed = ranking[:depth], getattr(self._reranker, "mixed", None)
        if mixed is None:
            first = _reranked(self._reranker, case.query, case.passages, best)
        else:
            first = _ordered(best, mixed(self._evidence(case, best), [score for _, score in best]))
        return [*first, *ranking[depth:]]

    def _evidence(self, case: Case, ranking: Ranking) -> list[float]:
        new = [id for id, _ in ranking if (case.query, id) not in self._known]
        found = self._reranker(case.query, [case.passages[id] for id in new]) if new else ()
        self._known.update(((case.query, id), float(score)) for id, score in zip(new, found, strict=True))
        return [self._known[case.query, id] for id, _ in ranking]


def _reranker_named(name: str, index: Index) -> Any:
    from semsearch.extraction import OnnxReader
    from semsearch.reranking import get_reranker

    return get_reranker(name, index.encoder, OnnxReader, partial(_surroundings, index))


def _depth(reranker: Reranker) -> int:
    return int(getattr(reranker, "depth", DEPTH))


def _reranked(reranker: Reranker, query: str, passages: Mapping[int, Passage], ranking: Ranking) -> Ranking:
    first = [score for _, score in ranking]
    with_scores = getattr(reranker, "with_scores", None)
    given = [passages[id] for id, _ in ranking]
    found: Any = with_scores(query, given, first) if with_scores else reranker(query, given)
    try:
        scores = [float(score) for score in found]
    except (TypeError, ValueError) as error:
        raise InputError(f"The reranker {reranker!r} gave {shown(found)}, not a number for each passage.") from error
    if len(scores) != len(ranking):
        raise InputError(f"The reranker {reranker!r} gave {len(scores)} scores for {len(ranking)} passages.")
    if not all(map(math.isfinite, scores)):
        raise InputError(f"The reranker {reranker!r} gave a score that is not finite: {shown(scores)}.")
    return _ordered(ranking, scores)


def _ordered(ranking: Ranking, scores: Sequence[float]) -> Ranking:
    """The same passages with other scores, best first; equal ones stay in order."""
    return sorted(((id, float(score)) for (id, _), score in zip(ranking, scores, strict=True)), key=lambda hit: -hit[1])


def _rankings(
    snapshot: Snapshot, legs: tuple[str, ...], query: str, vector: Any, depth: int, allowed: Any
) -> dict[str, Ranking]:
    rankings: dict[str, Ranking] = {}
    if vector is not None:
        rankings["dense"] = snapshot.dense(vector[None, :], depth, allowed)[0]
    if "lexical" in legs:
        rankings["lexical"] = snapshot.lexical([query], depth, allowed)[0]
    return rankings


def _surroundings(index: Index, passages: Sequence[Passage]) -> tuple[np.ndarray, np.ndarray]:
    """The stored vectors of passages and of what is around them, for `FeedbackReranker`."""
    with index.snapshot() as snapshot:
        return snapshot.surroundings([passage.id for passage in passages], index.encoder.dimension)


def _check_query(query: Any) -> None:
    if not isinstance(query, str):
        raise InputError(f"A query is a string, not {shown(query)}.")
    if not query.strip():
        raise InputError(f"The query {query!r} is empty. Ask with at least one word.")


def _checked(fusion: object, ranking: Any, rankings: Mapping[str, Ranking]) -> Ranking:
    """A fusion of the user's own must return passages that the legs found, each once and with a score."""
    try:
        pairs = [(as_integer(id), float(score)) for id, score in ranking]
    except (TypeError, ValueError) as error:
        raise InputError(f"The fusion {fusion!r} returned {shown(ranking)}, not pairs (passage id, score).") from error
    known = {id for each in rankings.values() for id, _ in each}
    for id, score in pairs:
        if id not in known:
            raise InputError(f"The fusion {fusion!r} returned passage {id}, which none of the rankings has.")
        if not math.isfinite(score):
            raise InputError(f"The fusion {fusion!r} returned the score {score} for passage {id}; it must be finite.")
    if len(dict(pairs)) < len(pairs):
        raise InputError(f"The fusion {fusion!r} returned a passage more than once: {shown(pairs)}.")
    return pairs


class _Why:
    """Explains a hit when it is asked to. A copy of the hit has the same one; where it is unpickled, there is no index.

    Not a dataclass, which `dataclasses.asdict` would take apart.
    """

    def __init__(self, index: Index | None, query: str, passage: Passage) -> None:
        self._index = index
        self._query = query
        self._passage = passage

    def __call__(self) -> Explanation:
        if self._index is None:
            raise InputError("This Hit was pickled, so its index is not at hand. Search again to see why it was found.")
        return explain(self._index, self._query, self._passage)

    def __deepcopy__(self, memo: object) -> _Why:
        return self

    def __reduce__(self) -> tuple[type[_Why], tuple[None, str, Passage]]:
        return _Why, (None, self._query, self._passage)


def explain(index: Index, query: str, passage: Passage) -> Explanation:
    """Why a passage was found: the BM25 share of each matched term, and each token's similarity to the query."""
    with index.snapshot() as snapshot:
        terms = snapshot.explain(query, passage.id)
    try:
        token_vectors = getattr(index.encoder, "token_vectors", None)
    except IndexMismatchError:  # opened without the encoder of the user's own: keywords explain themselves
        token_vectors = None
    if token_vectors is None:
        return Explanation(terms=dict(terms), tokens=())
    vector = index.encode_queries([query])[0]
    offsets, vectors = token_vectors([passage.text])[0]
    similarities = (vectors @ vector).tolist()
    tokens = tuple(
        (passage.text[start:end], int(start), int(end), similarity)
        for (start, end), similarity in zip(offsets.tolist(), similarities, strict=True)
    )
    return Explanation(dict(terms), tokens, partial(_token_pairs, token_vectors, query, passage.text))


def _token_pairs(token_vectors: Callable[..., Any], query: str, text: str) -> tuple[list[str], list[str], np.ndarray]:
    """The tokens of a query (q) and of a text (t), and the cosine similarities of their vectors, (q, t)."""
    (asked, rows), (found, columns) = token_vectors([query, text])
    tokens = ([part[start:end] for start, end in offsets.tolist()] for part, offsets in ((query, asked), (text, found)))
    return next(tokens), next(tokens), rows @ columns.T

"""Several rankings of the same passages → one. Pure functions, to be passed as `Retriever(index, fusion=...)`.

A fusion takes the legs' rankings by name, each a sequence of (passage id, score), best first, and returns at most k
such pairs: `mine(rankings, *, k) -> Ranking` is one of your own. Equal scores come by smaller id; a leg that found
nothing is fine. Parameters beyond k are keywords with defaults, so `functools.partial(rrf, constant=20)` is a fusion,
too.

>>> rankings = {"dense": [(7, 0.9), (3, 0.5)], "lexical": [(3, 12.0)]}
>>> [id for id, _ in rrf(rankings, k=10)]
[3, 7]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from semsearch.errors import InputError

__all__ = ["Fusion", "Ranking", "convex", "min_max", "rrf", "z_score"]

Ranking: TypeAlias = Sequence[tuple[int, float]]
Fusion: TypeAlias = Callable[..., Ranking]
Weights: TypeAlias = Mapping[str, float]


def rrf(rankings: Mapping[str, Ranking], *, k: int, constant: float = 60, weights: Weights | None = None) -> Ranking:
    """Reciprocal rank fusion: the sum over the legs of weight / (constant + rank), ranks from 1.

    Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
    SIGIR 2009. Only ranks count, so legs whose scores cannot be compared go together. `weights` are 1 where not given.

    Raises InputError for k < 1, a constant below 0, and a weight that is negative, not finite or of an unknown leg.
    """
    if not 0 <= constant < math.inf:
        raise InputError(f"constant={constant} cannot be used; it must be 0 or more (60 is usual).")
    shares = {
        name: [(id, 1 / (constant + rank)) for rank, (id, _) in enumerate(ranking, 1)]
        for name, ranking in rankings.items()
    }
    return _sum(shares, _weights(rankings, weights), k)


def min_max(rankings: Mapping[str, Ranking], *, k: int, weights: Weights | None = None) -> Ranking:
    """The sum over the legs of weight · score, where each leg's scores are first stretched to 0 … 1.

    Normalisation: Lee, "Analyses of Multiple Evidence Combination", SIGIR 1997; the sum is CombSUM of Fox and Shaw,
    "Combination of Multiple Searches", TREC-2, 1994. Where all scores of a leg are equal, each is 1. A passage that a
    leg did not find gets 0 there. `weights` are 1 where not given.

    Raises InputError for k < 1 and a weight that is negative, not finite or of an unknown leg.
    """
    return _sum({name: _stretched(ranking, None) for name, ranking in rankings.items()}, _weights(rankings, weights), k)


def z_score(rankings: Mapping[str, Ranking], *, k: int, weights: Weights | None = None) -> Ranking:
    """The sum over the legs of weight · score, where each leg's scores first get mean 0 and standard deviation 1.

    Renda and Straccia, "Web Metasearch: Rank vs. Score Based Rank Aggregation Methods", SAC 2003. A passage that a leg
    did not find gets that leg's lowest value. Where all scores of a leg are equal, each is 0. `weights` are 1 where not
    given.

    Raises InputError for k < 1 and a weight that is negative, not finite or of an unknown leg.
    """
    shares, missing = {}, {}
    for name, ranking in rankings.items():
        shares[name] = _standardised(ranking)
        missing[name] = min((value for _, value in shares[name]), default=0.0)
    return _sum(shares, _weights(rankings, weights), k, missing)


def convex(
    rankings: Mapping[str, Ranking],
    *,
    k: int,
    weights: Weights | None = None,
    minimum: Mapping[str, float] | None = None,
) -> Ranking:
    """The weighted mean of the legs' scores, each stretched from its theoretical minimum to its highest score.

    Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023 (TM2C2). `minimum` is by
    leg; left out, it is -1 for "dense" (cosine similarity), and 0 for any other, as for BM25. A passage that a leg did
    not find gets 0 there. `weights` are scaled to the sum 1; where not given, all are equal.

    >>> convex({"dense": [(1, 1.0), (2, 0.0)], "lexical": [(2, 8.0)]}, k=2, weights={"dense": 3, "lexical": 1})
    [(1, 0.75), (2, 0.625)]

    Raises InputError for k < 1, a weight that is negative, not finite or of an unknown leg, and weights that are all 0.
    """
    scale = _weights(rankings, weights)
    total = sum(scale.values())
    if rankings and not total:
        raise InputError(f"The weights {dict(weights or {})} are all 0, so no passage would be better than another.")
    lowest = {"dense": -1.0, **(minimum or {})}
    shares = {name: _stretched(ranking, lowest.get(name, 0.0)) for name, ranking in rankings.items()}
    return _sum(shares, {name: weight / total for name, weight in scale.items()}, k)


def _stretched(ranking: Ranking, lowest: float | None) -> list[tuple[int, float]]:
    """Scores from `lowest` (None: the lowest there is) … the highest → 0 … 1."""
    if not ranking:
        return []
    scores = [score for _, score in ranking]
    low = min(scores) if lowest is None else min(lowest, *scores)
    width = max(scores) - low
    return [(id, (score - low) / width if width > 0 else 1.0) for id, score in ranking]


def _standardised(ranking: Ranking) -> list[tuple[int, float]]:
    if not ranking:
        return []
    scores = [score for _, score in ranking]
    mean = math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    return [(id, (score - mean) / deviation if deviation > 0 else 0.0) for id, score in ranking]


def _weights(rankings: Mapping[str, Ranking], weights: Weights | None) -> dict[str, float]:
    """Each leg's weight; InputError for one that cannot be used."""
    for name, weight in (weights or {}).items():
        if name not in rankings:
            raise InputError(f"There is a weight for {name!r}, but the legs are {', '.join(map(repr, rankings))}.")
        if not 0 <= weight < math.inf:
            raise InputError(f"The weight {weight} of {name!r} cannot be used; it must be 0 or more.")
    return {name: float((weights or {}).get(name, 1.0)) for name in rankings}


def _sum(
    shares: Mapping[str, Ranking], weights: Weights, k: int, missing: Mapping[str, float] | None = None
) -> list[tuple[int, float]]:
    """The k passages with the highest weighted sum of shares; `missing` is a leg's share for what it did not find."""
    if k < 1:
        raise InputError(f"k={k} asks for no passage at all; k must be at least 1.")
    tables = {name: dict(ranking) for name, ranking in shares.items()}
    lacking = {name: (missing or {}).get(name, 0.0) for name in tables}
    # fsum, so that the order of the legs never decides between equals.
    sums = {
        id: math.fsum(weights[name] * table.get(id, lacking[name]) for name, table in tables.items())
        for found in tables.values()
        for id in found
    }
    return sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))[:k]

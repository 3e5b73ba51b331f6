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
from semsearch.selection import check_k

__all__ = ["Fusion", "Ranking", "Scores", "absolute", "convex", "distribution", "min_max", "rrf", "z_score"]

Ranking: TypeAlias = Sequence[tuple[int, float]]
Fusion: TypeAlias = Callable[..., Ranking]
Weights: TypeAlias = Mapping[str, float]

# nDCG@10 of `absolute` by the weight of "dense" beside 1 for "lexical", on at most 1,000 questions a set; then the mean
# difference to the better leg and the smallest, and that one's p (examples/benchmarks/ranking.py --weights 1 1.5 2):
#            scifact  cosqa-dev  cranfield  cisi  medline-1033  openqa   mean   least
#     1.0     75.0      57.5       47.9     46.2      79.6       87.4    +2.0   -2.4 (.03)
#     1.25    74.8      59.0       47.8     45.5      79.8       87.0    +2.0   -0.9 (.36)
#     1.5     74.4      59.5       47.4     44.8      80.1       86.5    +1.8   -0.4 (.63)
#     2.0     74.1      60.0       47.2     44.2      80.9       85.6    +1.7   +0.1 (.90)
# The mean over these six sets chose it. Chosen by the other five, it would be 1.0 for cosqa-dev, worse than the better
# leg by 2.4, and 1.25 for each of the rest; the mean would be +1.8. The corpus alone says much the same: with the first
# sentence of a passage as the query for the rest of it (120 passages a set), the best of 0.25, 0.5, 0.75, 1, 1.5, 2, 3,
# 4, 6 was 0.75 to 1.5 on each set.
DENSE_WEIGHT = 1.25


class Scores(list[tuple[int, float]]):
    """A ranking that knows its `ceiling`: the score of a passage that could not match the query better."""

    def __init__(self, ranking: Ranking = (), ceiling: float = math.inf) -> None:
        super().__init__(ranking)
        self.ceiling = ceiling


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
    scale = _shares_of_one(rankings, weights)
    lowest = {"dense": -1.0, **(minimum or {})}
    shares = {name: _stretched(ranking, lowest.get(name, 0.0)) for name, ranking in rankings.items()}
    return _sum(shares, scale, k)


def distribution(rankings: Mapping[str, Ranking], *, k: int, weights: Weights | None = None) -> Ranking:
    """The sum over the legs of weight · score, where mean - 3 … mean + 3 standard deviations became 0 … 1.

    Distribution-based score fusion (Mazzeschi, "Distribution-Based Score Fusion", 2023; so in Qdrant). Beyond these
    limits, scores are 0 or 1. A passage that a leg did not find gets 0 there. Where all scores of a leg are equal, each
    is 0.5. `weights` are 1 where not given.

    Raises InputError for k < 1 and a weight that is negative, not finite or of an unknown leg.
    """
    shares = {
        name: [(id, min(1.0, max(0.0, (value + 3) / 6))) for id, value in _standardised(ranking)]
        for name, ranking in rankings.items()
    }
    return _sum(shares, _weights(rankings, weights), k)


def absolute(rankings: Mapping[str, Ranking], *, k: int, weights: Weights | None = None) -> Ranking:
    """The weighted mean of the legs' scores, each as a share of the highest score that a passage could have.

    For cosines ("dense") that is 1, for BM25 what a passage would get that repeats each of the query's words without
    end; a leg says so by `Scores`, otherwise it is the highest score there is. So a leg that matches badly has little
    to say, whatever its rank 1: BM25 of which only a fifth is reached never outvotes a close meaning. Theoretical
    limits for both ends were proposed by Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval",
    TOIS 2023.

    A passage that is not in a leg's ranking has at most its last score, and gets that if the ranking was cut off, which
    is so if it is as long as the longest; otherwise it gets 0. `weights` are 1 where not given, 1.25 for "dense".

    >>> absolute({"dense": [(1, 0.8), (2, 0.2)], "lexical": Scores([(2, 3.0)], ceiling=10)}, k=2, weights={"dense": 1})
    [(1, 0.4), (2, 0.25)]

    Raises InputError for k < 1, a weight that is negative, not finite or of an unknown leg, and weights that are all 0.
    """
    scale = _shares_of_one(rankings, {"dense": DENSE_WEIGHT} if weights is None and "dense" in rankings else weights)
    longest = max(map(len, rankings.values()), default=0)
    shares, missing = {}, {}
    for name, ranking in rankings.items():
        ceiling = _ceiling(name, ranking)
        shares[name] = [(id, score / ceiling) for id, score in ranking]
        missing[name] = shares[name][-1][1] if 0 < len(ranking) == longest else 0.0
    return _sum(shares, scale, k, missing)


def _ceiling(name: str, ranking: Ranking) -> float:
    known = getattr(ranking, "ceiling", 1.0 if name == "dense" else math.inf)
    if 0 < known < math.inf:
        return float(known)
    return max((score for _, score in ranking if score > 0), default=1.0)


def _shares_of_one(rankings: Mapping[str, Ranking], weights: Weights | None) -> dict[str, float]:
    scale = _weights(rankings, weights)
    total = sum(scale.values())
    if rankings and not total:
        raise InputError(f"The weights {dict(weights or {})} are all 0, so no passage would be better than another.")
    return {name: weight / total for name, weight in scale.items()}


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
    check_k(k)
    tables = {name: dict(ranking) for name, ranking in shares.items()}
    lacking = {name: (missing or {}).get(name, 0.0) for name in tables}
    # fsum, so that the order of the legs never decides between equals.
    sums = {
        id: math.fsum(weights[name] * table.get(id, lacking[name]) for name, table in tables.items())
        for found in tables.values()
        for id in found
    }
    return sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))[:k]

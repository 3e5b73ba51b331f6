"""Which fusion, with which weights, suits some judged queries: chosen by them, checked on others.

    report = retriever.tune([("When are late fees charged?", "handbook/fees.md"), ...])
    print(report)                                   # what was chosen, what it brings, how sure that is

With `rerankers=("feedback", "maxsim", "reader")` a reranker is chosen as well, if one of them helps.

With few queries the best of many fusions is best by chance. So another fusion than the default has to be better by more
than the standard error of the difference, far weights need more evidence than near ones, and what the choice brings is
measured on queries that had no part in it (cross-validation). If that brings nothing, the default stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.datasets import read_dataset
from semsearch.errors import CorruptIndexError, InputError
from semsearch.fusion import DENSE_WEIGHT, Ranking, absolute, convex, distribution, min_max, rrf, z_score
from semsearch.metrics import randomisation_test, score_ranking
from semsearch.records import Passage

__all__ = ["Case", "Choice", "Tuning", "judged_queries", "learned", "tune"]

Float64: TypeAlias = NDArray[np.float64]
Rerank: TypeAlias = "Callable[[Case, Ranking], Ranking]"  # a case and its fused ranking → the ranking in its new order

FUSIONS: dict[str, Callable[..., Ranking]] = {
    "absolute": absolute,
    "convex": convex,
    "distribution": distribution,
    "min_max": min_max,
    "rrf": rrf,
    "z_score": z_score,
}
# The shares of "dense" that are tried with "absolute" (from keywords alone to meaning alone) and with the others.
FINE = (0.0, 0.15, 0.25, 0.35, 0.45, DENSE_WEIGHT / (1 + DENSE_WEIGHT), 0.65, 0.75, 0.85, 0.93, 1.0)
COARSE = (0.35, 0.5, 0.65, 0.8)
FOLDS = 10
# What a candidate's mean gain has to exceed: so many standard errors of it, and so much for its distance, as if that
# many queries had been lost outright. Chosen by drawing some queries of a set 25 times, tuning on them and measuring on
# the other ones, against the default: the gain in
# points of nDCG@10 with 25 queries on scifact / cosqa-dev / cranfield / cisi / openqa, and with 100 on openqa:
#   errors 0, doubt 0     -0.6 / +0.5 / -0.1 / -0.3 / -0.1    +0.5
#   errors 0, doubt 1     -0.3 / +0.6 / -0.2 / -0.2 / -0.1    +0.6
#   errors 0.5, doubt 1   -0.0 / +0.4 / -0.0 / -0.1 / -0.2    +0.5
#   errors 1, doubt 1     -0.0 / +0.3 / -0.0 / -0.0 / +0.0    +0.2
ERRORS = 0.5
DOUBT = 1.0
# The same for a reranker, whose order is near to the one before where it has nothing to say. By the same drawing, the
# gain of "feedback" with 25 queries on scifact / cosqa-dev / cranfield / cisi / medline-1033 / openqa, and with 100 on
# cranfield and openqa; taken always, it would be -0.2 / -0.1 / +0.5 / +0.6 / +1.0 / -0.1:
#   errors 0, doubt 0     -0.1 / -0.0 / +0.4 / +0.5 / +1.0 / -0.0    +0.5 / -0.0
#   errors 0.5, doubt 0   -0.1 / -0.0 / +0.3 / +0.4 / +0.8 / -0.0    +0.5 / -0.0
#   errors 0.5, doubt 0.1 -0.0 / +0.0 / +0.2 / +0.2 / +0.3 / -0.0    +0.4 / -0.0
#   errors 0.5, doubt 0.2 -0.0 / +0.0 / +0.0 / +0.0 / -0.2 / -0.0    +0.4 / -0.0
#   errors 0.5, doubt 1    0 on all                                   0
RERANKER_DOUBT = 0.1
LEAST = 5  # queries; a standard error of fewer means nothing


class Case(NamedTuple):
    """A judged query: the legs' rankings, the document of each passage in them, and the documents' grades.

    A reranker needs the query and the passages as well.
    """

    rankings: Mapping[str, Ranking]
    documents: Mapping[int, str]
    judged: Mapping[str, int]
    query: str = ""
    passages: Mapping[int, Passage] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Choice:
    """A fusion by name with its weights and, if one was chosen, a reranker by name, as an index stores them."""

    fusion: str = "absolute"
    dense: float = DENSE_WEIGHT / (1 + DENSE_WEIGHT)
    reranker: str | None = None

    def function(self) -> Callable[..., Ranking]:
        """The fusion, as a `Retriever` takes it."""
        return partial(FUSIONS[self.fusion], weights={"dense": self.dense, "lexical": 1 - self.dense})

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `learned` reads them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        then = f", then {self.reranker}" if self.reranker else ""
        return f"{self.fusion} with {self.dense:.0%} dense, {1 - self.dense:.0%} lexical{then}"


DEFAULT = Choice()


def learned(stored: Mapping[str, Any] | None) -> Choice:
    """What `Choice.to_dict` gave; the default for None. Raises CorruptIndexError for what makes no sense."""
    if stored is None:
        return DEFAULT
    try:
        reranker = stored.get("reranker")
        choice = Choice(str(stored["fusion"]), float(stored["dense"]), None if reranker is None else str(reranker))
    except (AttributeError, KeyError, TypeError, ValueError):
        choice = Choice("", math.nan)
    if choice.fusion not in FUSIONS or not 0 <= choice.dense <= 1:
        raise CorruptIndexError(
            f"The stored fusion {stored!r} makes no sense to this release. Tune again, or use the one that wrote it."
        )
    return choice


def judged_queries(source: object, is_document: Callable[[str], bool]) -> list[tuple[str, Mapping[str, int]]]:
    """Each query with the grades of its documents, of whatever `read_dataset` takes.

    Left out are those without any, and empty ones. In a list of (query, expected), what is expected may be an answer
    instead; so those with no document that `is_document` knows are left out, too.
    """
    return [
        (question.text, question.documents)
        for question in read_dataset(source).asked().questions
        if any(grade > 0 and is_document(id) for id, grade in question.documents.items())
    ]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was chosen and why; prints as a few lines.

    `scores` are means of nDCG@10 over the queries: of each leg, of the default, and of `tuned`, which is measured on
    queries that had no part in the choice. `p` is of the difference between tuned and default (paired randomisation).
    `held_out` is that score for each query.
    """

    choice: Choice
    queries: int
    scores: Mapping[str, float]
    p: float
    kept_default: bool
    held_out: tuple[float, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without those of each query."""
        return {name: value for name, value in asdict(self).items() if name != "held_out"}

    def __str__(self) -> str:
        rows = "\n".join(f"  {name:8} {value:.4f}" for name, value in self.scores.items())
        what = "The default stays" if self.kept_default else "Chosen"
        return (
            f"{what}: {self.choice}\nnDCG@10 of {self.queries} judged queries (tuned: cross-validated, "
            f"p {self.p:.3f} to the default)\n{rows}"
        )

    def _repr_html_(self) -> str:
        from semsearch.html import Table, tables_html

        what = "The default stays" if self.kept_default else "Chosen"
        rows = [["", "nDCG@10"], *([name, f"{value:.4f}"] for name, value in self.scores.items())]
        about = f"{self.queries} judged queries; tuned: cross-validated, p {self.p:.3f} to the default"
        return tables_html(f"{what}: {self.choice}", Table(rows), about)


def tune(cases: Sequence[Case], *, rerankers: Mapping[str, Rerank] | None = None, seed: int = 0) -> Tuning:
    """The fusion for these queries, and the reranker if there are any to choose from.

    Raises InputError for fewer than five queries, or if no judged document was ever found.
    """
    if len(cases) < LEAST:
        raise InputError(f"{len(cases)} judged queries are too few to choose by; give at least {LEAST}, better 50.")
    choices = candidates()
    table = np.array([[score(case, choice.function()) for choice in choices] for case in cases])
    if not table.any():
        raise InputError(
            "None of the judged documents was found for any of the queries, so nothing can be learned from them. "
            "Check that the ids are those of documents in the index."
        )
    default = table[:, choices.index(DEFAULT)]
    second = _Second(cases, table, choices, rerankers or {})
    chosen, held_out = _chosen(table, choices, second), _cross_validated(table, choices, second, seed)
    kept = chosen == DEFAULT or bool((held_out - default).mean() <= 0)
    held_out = default if kept else held_out
    scores = {
        "lexical": float(table[:, choices.index(Choice(dense=0.0))].mean()),
        "dense": float(table[:, choices.index(Choice(dense=1.0))].mean()),
        "default": float(default.mean()),
        "tuned": float(held_out.mean()),
    }
    p = 1.0 if kept else randomisation_test(held_out.tolist(), default.tolist())
    return Tuning(DEFAULT if kept else chosen, len(cases), scores, p, kept, tuple(held_out.tolist()))


class _Second:
    """What each reranker makes of a fusion's rankings, found out when it is first asked for."""

    def __init__(
        self, cases: Sequence[Case], table: Float64, choices: Sequence[Choice], rerankers: Mapping[str, Rerank]
    ) -> None:
        self._cases, self._table, self._choices, self._rerankers = cases, table, choices, rerankers
        self._known: dict[int, Float64] = {}
        self.names: tuple[str | None, ...] = (None, *rerankers)

    def scores(self, fusion: int) -> Float64:
        """(cases, names) nDCG@10 by that candidate, without a reranker and with each."""
        if fusion not in self._known:
            columns = [self._table[:, fusion]]
            for rerank in self._rerankers.values():
                found = [
                    _ndcg(case, rerank(case, _fused(case, self._choices[fusion].function()))) for case in self._cases
                ]
                columns.append(np.array(found))
            self._known[fusion] = np.stack(columns, axis=1)
        return self._known[fusion]


def _chosen(table: Float64, choices: Sequence[Choice], second: _Second) -> Choice:
    fusion = _best(table, choices)
    return replace(choices[fusion], reranker=second.names[_worthwhile(second.scores(fusion))])


def _worthwhile(scores: Float64) -> int:
    """The reranker, 0 for none, whose gain less its standard error and a doubt is largest."""
    gain = scores - scores[:, [0]]
    worth = gain.mean(axis=0) - ERRORS * gain.std(axis=0, ddof=1) / math.sqrt(len(gain)) - RERANKER_DOUBT / len(gain)
    worth[0] = 0.0
    return int(worth.argmax())


def candidates() -> list[Choice]:
    """What `tune` chooses among."""
    others = [Choice(name, share) for name in FUSIONS if name != "absolute" for share in COARSE]
    return [*(Choice("absolute", share) for share in FINE), *others]


def score(case: Case, fusion: Callable[..., Ranking]) -> float:
    """nDCG@10 of the documents, each by its best passage."""
    return _ndcg(case, _fused(case, fusion))


def _fused(case: Case, fusion: Callable[..., Ranking]) -> Ranking:
    return fusion(case.rankings, k=sum(map(len, case.rankings.values())) or 1)


def _ndcg(case: Case, ranking: Ranking) -> float:
    documents = dict.fromkeys(case.documents[id] for id, _ in ranking)
    return score_ranking(list(documents)[:10], case.judged, k=10)["ndcg@10"]


def _best(table: Float64, choices: Sequence[Choice]) -> int:
    """The candidate whose gain over the default, less its standard error and its distance, is largest."""
    default = choices.index(DEFAULT)
    gain = table - table[:, [default]]
    error = gain.std(axis=0, ddof=1) / math.sqrt(len(table))
    doubt = np.array([_doubt(choice) for choice in choices]) / len(table)
    worth = gain.mean(axis=0) - ERRORS * error - doubt
    worth[default] = 0.0
    return int(worth.argmax())


def _doubt(choice: Choice) -> float:
    """How much evidence a candidate has to bring, in queries won outright; more for what is far from the default."""
    return DOUBT * (abs(choice.dense - DEFAULT.dense) + (choice.fusion != DEFAULT.fusion))


def _cross_validated(table: Float64, choices: Sequence[Choice], second: _Second, seed: int) -> Float64:
    """Each query's score by what the queries of the other folds chose."""
    folds = np.random.default_rng(seed).permutation(len(table)) % min(FOLDS, len(table))
    held_out = np.empty(len(table))
    for fold in range(folds.max() + 1):
        scores = second.scores(_best(table[folds != fold], choices))
        held_out[folds == fold] = scores[folds == fold, _worthwhile(scores[folds != fold])]
    return held_out

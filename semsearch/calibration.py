"""How the scores of a reader and the evidence of a search become probabilities, and how that is learned.

The spans of all passages and "no answer" compete in one softmax over

    scale * score - rank * log(rank of the passage) + lexical * (its BM25 score as a share of the best one) + bias

(normalising across passages: Clark and Gardner 2018). Spans with the same words add up, and a logistic of their joint
share (Platt 1999) is the probability that they are the right answer. Both steps are fitted by maximum likelihood, with
a Gaussian prior around the weights that were there before: many questions outweigh it, a few move the weights a little.

A step function (isotonic regression) in place of the logistic was no better over 680 answers given the paragraph and
worse over 350 found by a search (five-fold), so there is none. Whether a span is of the kind that a question asks for
(a number for "how many", a date, a name) is no evidence either: fitted on 857 questions, it took F1 from 69.8 to 69.4
over 2,059 others, since the reader knows it already; the question's words in the span's sentence added only 0.5. The
encoder's similarity added next to nothing beside rank and BM25, and would tie a calibration to one encoder. BM25 counts
as a share of the best score, because its absolute size depends on how large a collection is.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError, ModelError
from semsearch.records import Hit

if TYPE_CHECKING:
    from semsearch.extraction import Span

__all__ = [
    "LEAST",
    "MODES",
    "Calibration",
    "Evidence",
    "Weights",
    "evidence",
    "fit_weights",
    "learn",
    "matched",
    "mode_of",
    "right_spans",
    "threshold_refusing",
]

Float64 = NDArray[np.float64]

LEAST = 20  # questions that a calibration needs
_SIDE = 3  # and of these so many answered rightly, and so many not
_EDGE = 1e-9  # no probability is nearer to 0 or 1
_FLATTEST = 0.05  # the least slope: more evidence never makes an answer less likely

# The standard deviations of the prior. Wide: 200 questions outweigh it.
_SPREAD = {"scale": 0.3, "bias": 2.0, "rank": 1.0, "lexical": 2.0, "slope": 0.5, "offset": 2.0}
_SHARES = ("scale", "bias", "rank", "lexical")
MODES: Mapping[str, tuple[str, ...]] = {"given": _SHARES[:2], "ranked": _SHARES[:3], "searched": _SHARES}


class Evidence(NamedTuple):
    """The spans that were found for one question, all (n,).

    `scores` are the reader's, `ranks` and `lexical` (0 ... 1) those of the passages, and spans with the same words are
    of the same `group` (0, 1, ...).
    """

    scores: Float64
    ranks: Float64
    lexical: Float64
    group: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Weights:
    """What turns evidence into probabilities.

    `scale` and `bias` turn a span's score into its log-odds against "no answer"; `rank` weighs the logarithm of the
    passage's rank, `lexical` its share of the best BM25 score. `slope` and `offset` turn the log-odds of an answer's
    share into those of its being right. An answer less likely than `threshold` counts as not found. `ceiling` is the
    highest score that a span ever had after a search (None: not known). The defaults take the scores for log-odds as
    they are.
    """

    scale: float = 1.0
    bias: float = 0.0
    rank: float = 0.0
    lexical: float = 0.0
    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.2
    ceiling: float | None = None

    def shares(self, evidence: Evidence) -> Float64:
        """The share of each span, (n,); what is missing to a sum of 1 is that of "no answer".

        >>> Weights().shares(Evidence(np.zeros(1), np.ones(1), np.ones(1), np.zeros(1, int)))
        array([0.5])
        """
        mixed = self._mixed(evidence.scores, evidence.ranks, evidence.lexical)
        top = max(float(mixed.max(initial=0.0)), 0.0)
        weights = np.exp(mixed - top)
        shares: Float64 = weights / (weights.sum() + np.exp(-top))
        return shares

    def _mixed(self, scores: Float64 | float, ranks: Float64, lexical: Float64) -> Float64:
        """The log-odds of spans against "no answer"."""
        mixed: Float64 = self.scale * scores - self.rank * np.log(ranks) + self.lexical * lexical + self.bias
        return mixed

    def settled(self, evidence: Evidence, ranks: Float64, lexical: Float64) -> bool:
        """Whether the best answer stays the best, whatever span the passages with these ranks still bring.

        It does if the second best, joined by a span of the highest score that was ever seen, would stay behind.
        """
        if self.ceiling is None or not len(evidence.scores):
            return False
        mixed = self._mixed(evidence.scores, evidence.ranks, evidence.lexical)
        rival = float(self._mixed(self.ceiling, ranks, lexical).max(initial=-np.inf))
        top = max(float(mixed.max()), rival)
        best = np.sort(np.bincount(evidence.group, np.exp(mixed - top)))[::-1]
        return bool(best[0] > best[1:2].sum() + math.exp(rival - top))

    def probability(self, share: float) -> float:
        """The probability that an answer with this share is right; never 0 or 1.

        >>> round(Weights(slope=2.0, offset=1.0).probability(0.5), 4)  # 1 / (1 + exp(-1))
        0.7311
        """
        odds = self.slope * log_odds(share) + self.offset
        return min(max(1 / (1 + math.exp(-min(max(odds, -500.0), 500.0))), _EDGE), 1 - _EDGE)

    def best(self, evidence: Evidence) -> tuple[float, int]:
        """The share of the likeliest group, and which it is: (0, -1) where there are no spans."""
        if not len(evidence.scores):
            return 0.0, -1
        totals = np.bincount(evidence.group, weights=self.shares(evidence))
        return float(totals.max()), int(totals.argmax())


@dataclass(frozen=True, slots=True)
class Calibration:
    """The weights of one reader, by what is known about the texts that it reads.

    `given`: texts that nobody searched for. `searched`: the hits of a search with a lexical leg; `ranked`: those of any
    other search. `about` says what they were fitted on. `save(path)`, and `Calibration.load(path)` or
    `Answerer(..., calibration=path)`, keep one for the next time.
    """

    given: Weights = Weights()
    ranked: Weights = Weights()
    searched: Weights = Weights()
    about: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, which `load` reads without loss."""
        modes = {mode: asdict(getattr(self, mode)) for mode in MODES}
        text = json.dumps({"about": dict(self.about), **modes}, indent=2, ensure_ascii=False) + "\n"
        Path(path).expanduser().write_text(text, "utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """What `save` wrote. Raises ModelError for a file that is not a calibration.

        Where `searched` is missing, it is as `ranked`.
        """
        try:
            stored = json.loads(Path(path).expanduser().read_text("utf-8"))
            common = {"threshold": stored["threshold"]} if "threshold" in stored else {}
            modes = {mode: stored[mode] if mode in stored or mode != "searched" else stored["ranked"] for mode in MODES}
            weights = {mode: Weights(**_numbers({**common, **values})) for mode, values in modes.items()}
            return cls(**weights, about=dict(stored.get("about", {})))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not a reader's calibration: {error!r}") from error


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {key: float(value) for key, value in values.items() if value is not None}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"a weight is not finite: {numbers}")
    return numbers


def log_odds(share: float) -> float:
    """log(p / (1 - p)), finite for 0 and 1 too."""
    share = min(max(share, _EDGE), 1 - _EDGE)
    return math.log(share / (1 - share))


# -- evidence


def evidence(spans: Sequence[Span], hits: Sequence[Hit]) -> Evidence:
    """The evidence for each span: its score, rank and BM25 score of its hit, and which spans have the same words."""
    matches = matched(hits)
    groups: dict[str, int] = {}
    words = [_words(hits[span.text].passage.text[span.start : span.end]) for span in spans]
    places = [span.text for span in spans]
    return Evidence(
        np.array([span.score for span in spans], dtype=np.float64),
        np.array([hits[place].rank for place in places], dtype=np.float64),
        matches[places] if places else np.zeros(0),
        np.array([groups.setdefault(each, len(groups)) for each in words], dtype=np.intp),
    )


def matched(hits: Sequence[Hit]) -> Float64:
    """The BM25 score of each hit as a share of the best, (n,); 0 where the hit does not match."""
    scores = np.array([max(hit.sources.get("lexical", (0, 0.0))[1], 0.0) for hit in hits], dtype=np.float64)
    shares: Float64 = scores / max(float(scores.max(initial=0.0)), 1e-9)
    return shares


def mode_of(hits: Sequence[Hit]) -> str:
    """Which weights a search asks for."""
    return "searched" if any("lexical" in hit.sources for hit in hits) else "ranked"


_ARTICLE = re.compile(r"^(a|an|the)\s+")


def _words(text: str) -> str:
    """What two answers have in common that say the same: all but case, white space and a leading article."""
    return " ".join(_ARTICLE.sub("", text.casefold()).split())


# -- learning


def right_spans(spans: Sequence[Span], hits: Sequence[Hit], answers: Sequence[str] | None) -> NDArray[np.bool_]:
    """Of each span whether it is an accepted answer."""
    from semsearch.metrics import exact_match

    texts = [hits[span.text].passage.text[span.start : span.end] for span in spans]
    return np.array([bool(answers) and exact_match(text, answers or ()) > 0 for text in texts], dtype=bool)


def learn(
    cases: Sequence[Evidence],
    right: Sequence[NDArray[np.bool_]],
    answerable: Sequence[bool],
    mode: str,
    before: Calibration,
    refuse: float | None,
) -> Weights:
    """The weights of one mode, with the threshold that refuses so many of the answerable questions."""
    weights = fit_weights(cases, right, mode, getattr(before, mode))
    if refuse is None:
        return weights
    likely = [
        weights.probability(weights.best(case)[0]) for case, asked in zip(cases, answerable, strict=True) if asked
    ]
    return replace(weights, threshold=threshold_refusing(likely, refuse))


def fit_weights(
    cases: Sequence[Evidence],
    right: Sequence[NDArray[np.bool_]],
    mode: str,
    start: Weights,
    usual: Sequence[bool] | None = None,
) -> Weights:
    """The likeliest weights for questions whose answers are known, near those of `start`; its threshold is kept.

    `right` (n,) says of each span of each case whether it is a right answer; where none is, "no answer" counts as
    right. `mode` decides which weights are learned (`MODES`). `usual` says which cases are as the questions to come
    will be (all): how sure the answers are is learned from these alone, where the others only teach what to refuse.
    Raises InputError for fewer than 20 cases, and where nearly all or nearly none of the best spans are right: then
    there is nothing to learn from.
    """
    if len(cases) < LEAST:
        raise InputError(f"A calibration needs at least {LEAST} questions with known answers, got {len(cases)}.")
    highest = max((round(float(case.scores.max(initial=-math.inf)), 6) for case in cases), default=-math.inf)
    ceiling = max(highest, -math.inf if start.ceiling is None else start.ceiling)
    weights = replace(start, ceiling=ceiling if "rank" in MODES[mode] and math.isfinite(ceiling) else None)
    weights = replace(weights, **dict.fromkeys(set(_SHARES) - set(MODES[mode]), 0.0))
    weights = _fit_shares(cases, right, MODES[mode], weights)
    best = [weights.best(case) for case in cases]
    kept = np.ones(len(cases), dtype=bool) if usual is None else np.asarray(usual, dtype=bool)
    outcomes = np.array([bool(r[c.group == g].any()) for c, r, (_, g) in zip(cases, right, best, strict=True)])[kept]
    few = min(int(outcomes.sum()), int((~outcomes).sum()))
    if few < _SIDE:
        raise InputError(
            f"Of the best answers to {len(outcomes)} questions {int(outcomes.sum())} are right and "
            f"{int((~outcomes).sum())} wrong: a calibration needs at least {_SIDE} of each. Add "
            + (
                "questions that are harder, or that the documents do not answer."
                if outcomes.sum() > _SIDE
                else "easier questions."
            )
        )
    return _fit_sureness(np.array([log_odds(share) for share, _ in best])[kept], outcomes, weights)


def _fit_shares(
    cases: Sequence[Evidence], right: Sequence[NDArray[np.bool_]], names: Sequence[str], start: Weights
) -> Weights:
    """Minimises -log(share of the right spans, or of "no answer" where there are none), summed, plus the prior."""
    owner = np.repeat(np.arange(len(cases)), [len(case.scores) for case in cases])
    columns = {
        "scale": np.concatenate([case.scores for case in cases]),
        "bias": np.ones(len(owner)),
        "rank": -np.log(np.concatenate([case.ranks for case in cases])),
        "lexical": np.concatenate([case.lexical for case in cases]),
    }
    x = np.stack([columns[name] for name in names], axis=1)
    good = np.concatenate([np.asarray(r, dtype=bool) for r in right])
    answered = np.bincount(owner[good], minlength=len(cases)) > 0

    def step(weights: Float64) -> tuple[float, Float64, Float64]:
        z = x @ weights
        everything, shares = _normalised(z, owner, np.zeros(len(cases)))
        wanted, goal = _normalised(np.where(good, z, -np.inf), owner, np.where(answered, -np.inf, 0.0))
        means = np.stack([np.bincount(owner, shares * column, len(cases)) for column in x.T], axis=1)
        # The curvature of the first term alone, which is never too small: each step goes down (an MM algorithm).
        curvature = x.T @ (shares[:, None] * x) - means.T @ means
        return float((everything - wanted).sum()), x.T @ (shares - goal), curvature

    first = np.array([getattr(start, name) for name in names])
    found = _newton(step, first, np.array([_SPREAD[name] for name in names]))
    return replace(start, **{name: round(float(value), 6) for name, value in zip(names, found, strict=True)})


def _normalised(z: Float64, owner: NDArray[np.intp], other: Float64) -> tuple[Float64, Float64]:
    """For each case log(sum of exp(z) + exp(other)), and for each span its part of that sum."""
    top = other.copy()
    np.maximum.at(top, owner, z)
    exponentials = np.exp(z - top[owner])
    total = np.exp(other - top) + np.bincount(owner, exponentials, len(other))
    return top + np.log(total), exponentials / total[owner]


def _fit_sureness(log_odds: Float64, right: NDArray[np.bool_], start: Weights) -> Weights:
    """Platt's logistic of the log-odds of the best answers' shares."""
    x = np.stack([log_odds, np.ones(len(log_odds))], axis=1)
    spread = np.array([_SPREAD["slope"], _SPREAD["offset"]])

    def step(weights: Float64) -> tuple[float, Float64, Float64]:
        z = x @ weights
        p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
        return float((np.logaddexp(0, z) - right * z).sum()), x.T @ (p - right), x.T @ ((p * (1 - p))[:, None] * x)

    slope, offset = _newton(step, np.array([start.slope, start.offset]), spread)
    return replace(start, slope=round(max(float(slope), _FLATTEST), 6), offset=round(float(offset), 6))


def _newton(step: Any, first: Float64, spread: Float64) -> Float64:
    """Where the loss that `step` gives (with gradient and curvature) is least, plus ((weights - first) / spread)^2 / 2.

    Steps are halved until they go down; 100 are enough for any of our losses.
    """
    precision = 1 / spread**2

    def penalised(weights: Float64) -> tuple[float, Float64, Float64]:
        loss, gradient, curvature = step(weights)
        away = weights - first
        return loss + float(precision @ away**2) / 2, gradient + precision * away, curvature + np.diag(precision)

    weights = first
    loss, gradient, curvature = penalised(weights)
    for _ in range(100):
        move = np.linalg.solve(curvature, gradient)
        while True:
            new = penalised(weights - move)
            if new[0] <= loss or np.abs(move).max() < 1e-9:
                break
            move = move / 2
        if new[0] > loss:
            break
        weights = weights - move
        loss, gradient, curvature = new
        if np.abs(move).max() < 1e-7:
            break
    return weights


def threshold_refusing(probabilities: Sequence[float], share: float) -> float:
    """The highest threshold below which at most this share of the probabilities lies.

    >>> threshold_refusing([0.5, 0.1, 0.2, 0.9], 0.25)  # one of four, 0.1, is below
    0.2
    """
    ordered = sorted(probabilities)
    return math.floor(1e6 * ordered[min(int(share * len(ordered) + 1e-9), len(ordered) - 1)]) / 1e6

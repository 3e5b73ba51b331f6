"""Fits the calibration of a reader from what it read: `reading.py --fit` collects that, and this makes weights of it.

Two settings of the fit cannot be fitted along with the weights. Both are chosen by leaving out each article in turn,
fitting on the others, and looking at the one that was left out:

- How many questions also count with their paragraph hidden, so that nothing answers them: the more of them, the more
  often "no answer" is likely. It is the largest share that costs the questions as they are no more log loss than one
  standard error above the least (the rule of one standard error: Breiman et al. 1984, section 3.4.3).
- Which share of the answerable questions the threshold after a search refuses: the largest, in whole percent, with
  which the articles that are left out lose at most 10% of theirs on average. (At most 15% is asked; the next ones may
  be harder. The worst of three articles instead of their mean would hang on a question or two of one of them.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semsearch import Hit
from semsearch.calibration import Calibration, Evidence, Weights, evidence, fit_weights, right_spans, threshold_refusing
from semsearch.datasets import Question
from semsearch.extraction import Span
from semsearch.metrics import calibration_error

HIDDEN = 1, 2, 3, 4, 6, 9, 12, 0  # every so manieth question may be hidden, the most first; 0: none
REFUSED = range(15, 0, -1)  # percent
LOST = 0.10  # of the questions of an article that was left out, on average

Case = tuple[Evidence, NDArray[np.bool_]]


class Read(NamedTuple):
    """What a reader found.

    `given`: with the paragraphs, `answerable` or not. From a search: `own` as they are, `hidden` the same questions as
    if their paragraphs were not there, each of the article in `articles`; `other`, to which nothing there is an answer.
    """

    given: list[Case]
    answerable: list[bool]
    own: list[Case]
    hidden: list[Case]
    articles: list[str]
    other: list[Case]

    def part(self, article: str, *, left: bool) -> Read:
        """The searched questions of one article, or (left) of all but that one."""
        kept = [i for i, each in enumerate(self.articles) if (each != article) == left]
        own, hidden = [self.own[i] for i in kept], [self.hidden[i] for i in kept]
        return self._replace(own=own, hidden=hidden, articles=[self.articles[i] for i in kept])


def fit(read: Read, reader: str) -> Calibration:
    """Weights and thresholds for each mode, with what was chosen on the way in `about`."""
    start = Weights(scale=0.3)
    given = fit_weights(*zip(*read.given, strict=True), "given", start)  # type: ignore[misc]
    weights = {"given": replace(given, threshold=best_threshold(stated(given, read.given), np.array(read.answerable)))}
    every, refused = {}, {}
    for mode in ("ranked", "searched"):
        every[mode] = choose_hidden(read, mode)
        refused[mode] = choose_refused(read, mode, every[mode])
        found = fit_searched(read, mode, every[mode])
        threshold = threshold_refusing(stated(found, read.own), refused[mode] / 100)
        weights[mode] = replace(found, threshold=threshold)
        for name in ("own", "hidden", "other"):
            likely = np.array(stated(found, getattr(read, name)))
            share = 100 * np.mean(likely < threshold)
            print(f"{mode}: {share:.1f}% of {len(likely)} {name} refused", file=sys.stderr)
    cases = {"given": read.given} | {mode: [*read.own, *hidden_ones(read, every[mode])] for mode in every}
    about = {
        "reader": reader,
        "fitted on": "the articles of SQuAD for calibrating (examples/reader_data.py), given their paragraphs, and "
        "put to openqa (a part of them also with its paragraph hidden); what to refuse also on questions of "
        "cisi and medline-1033 put to openqa",
        "by": "examples/benchmarks/reading.py --fit",
        "thresholds": "given: best balanced accuracy of answerable against unanswerable; after a search: so many "
        "percent of the answerable questions refused",
        "hidden, one of": every,
        "refused, percent": refused,
        "questions": {
            name: len(getattr(read, name)) if name != "hidden" else len(cases["searched"]) - len(read.own)
            for name in ("given", "own", "hidden", "other")
        },
        "right": {mode: round(float(np.mean(outcomes(weights[mode], own))), 4) for mode, own in cases.items()},
        "calibration error on these": {
            mode: round(calibration_error(stated(weights[mode], own), outcomes(weights[mode], own)), 4)
            for mode, own in cases.items()
        },
    }
    return Calibration(**weights, about=about)


def fit_searched(read: Read, mode: str, every: int) -> Weights:
    hidden = hidden_ones(read, every)
    cases = [*read.own, *hidden, *read.other]
    usual = [True] * (len(cases) - len(read.other)) + [False] * len(read.other)
    return fit_weights(*zip(*cases, strict=True), mode, Weights(scale=0.3), usual)  # type: ignore[misc]


def hidden_ones(read: Read, every: int) -> list[Case]:
    return read.hidden[::every] if every else []


def choose_hidden(read: Read, mode: str) -> int:
    """One of HIDDEN: the first whose log loss is at most one standard error above the least."""
    losses = {}
    for every in HIDDEN:
        parts = []
        for article in sorted(set(read.articles)):
            weights = fit_searched(read.part(article, left=True), mode, every)
            own = read.part(article, left=False).own
            p, right = np.array(stated(weights, own)), np.array(outcomes(weights, own))
            parts.append(-np.log(np.where(right > 0, p, 1 - p)))
        losses[every] = np.concatenate(parts)
    least = min(losses.values(), key=lambda loss: float(loss.mean()))
    error = {every: float(np.std(loss - least) / np.sqrt(len(loss))) for every, loss in losses.items()}
    for every, loss in losses.items():
        print(f"{mode}: one of {every} hidden, loss {loss.mean():.4f}, error {error[every]:.4f}", file=sys.stderr)
    return next(every for every in HIDDEN if losses[every].mean() - least.mean() <= error[every])


def choose_refused(read: Read, mode: str, every: int) -> int:
    """One of REFUSED, or 1 where each of them refuses too many questions of the articles that are left out."""
    for percent in REFUSED:
        lost = []
        for article in sorted(set(read.articles)):
            others, own = read.part(article, left=True), read.part(article, left=False).own
            weights = fit_searched(others, mode, every)
            threshold = threshold_refusing(stated(weights, others.own), percent / 100)
            lost.append(np.mean(np.array(stated(weights, own)) < threshold))
        if np.mean(lost) <= LOST:
            return percent
    return REFUSED[-1]


# -- cases


def case(question: Question, hits: Sequence[Hit], spans: Sequence[Span]) -> Case:
    return evidence(spans, hits), right_spans(spans, hits, question.answers)


def without(question: Question, hits: Sequence[Hit], spans: Sequence[Span]) -> tuple[list[Hit], list[Span]]:
    """The same as if the right documents were not there: their spans are gone, and other hits move up in rank."""
    left = [i for i, hit in enumerate(hits) if hit.passage.document_id not in question.documents]
    place = {old: new for new, old in enumerate(left)}
    moved = [replace(hits[old], rank=new + 1) for new, old in enumerate(left)]
    return moved, [span._replace(text=place[span.text]) for span in spans if span.text in place]


def stated(weights: Weights, cases: Sequence[Case]) -> list[float]:
    return [weights.probability(weights.best(known)[0]) for known, _ in cases]


def outcomes(weights: Weights, cases: Sequence[Case]) -> list[float]:
    return [float(right[known.group == weights.best(known)[1]].any()) for known, right in cases]


def best_threshold(probabilities: Sequence[float], answerable: NDArray[np.bool_]) -> float:
    """The one with the highest mean of both classes' accuracies."""
    p = np.array(probabilities)
    best = max(np.unique(p), key=lambda t: np.mean(p[answerable] >= t) + np.mean(p[~answerable] < t))
    return float(np.floor(1e6 * best) / 1e6)

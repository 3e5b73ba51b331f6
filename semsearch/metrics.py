"""Numbers that say how good a ranking, an answer or a probability is, and whether a difference is more than chance.

Ranking metrics are those of trec_eval (linear gain), so they agree with ir-measures. Answers are scored as by the
official scripts of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from semsearch.errors import InputError

__all__ = [
    "bootstrap_interval",
    "calibration_error",
    "contains_answer",
    "exact_match",
    "holm",
    "randomisation_test",
    "rank_overlap",
    "risk_curve",
    "score_gains",
    "score_ranking",
    "token_f1",
]


def score_ranking(ranking: Sequence[str], judged: Mapping[str, int], *, k: int = 10) -> dict[str, float]:
    """Metrics of one ranking of distinct document ids, best first, as trec_eval defines them, cut off at k.

    nDCG takes the grade itself as gain, discounted by log2(1 + rank) (Järvelin and Kekäläinen 2002). For the others a
    document is relevant if its grade is above 0; MAP and recall divide by all relevant documents of the question.

    >>> score_ranking(["b", "a"], {"a": 1}, k=10)["ndcg@10"]  # 1 / log2(3)
    0.6309297535714575
    """
    return score_gains([judged.get(id, 0) for id in ranking], list(judged.values()), k)


def score_gains(gains: Sequence[int], grades: Sequence[int], k: int) -> dict[str, float]:
    """`score_ranking` from the grades of the ranked documents and of all judged ones."""
    if k < 1:
        raise InputError(f"k must be a whole number of at least 1, not {k!r}.")
    relevant = sum(grade > 0 for grade in grades)
    top = gains[:k]
    ranks = [rank for rank, gain in enumerate(top, 1) if gain > 0]
    ideal = _dcg(sorted(grades, reverse=True)[:k])
    return {
        f"ndcg@{k}": _dcg(top) / ideal if ideal else 0.0,
        f"map@{k}": sum(found / rank for found, rank in enumerate(ranks, 1)) / relevant if relevant else 0.0,
        f"mrr@{k}": 1 / ranks[0] if ranks else 0.0,
        f"recall@{k}": len(ranks) / relevant if relevant else 0.0,
        f"precision@{k}": len(ranks) / k,
    }


def _dcg(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains, 1) if gain > 0)


_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # these scripts put no spaces between words
_TOKEN = re.compile(f"[{_CJK}]|[^\\s{_CJK}]+")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation + "、。〈〉《》「」『』【】〔〕・！（），．：；？～“”‘’"))
_PUNCTUATION_ASCII = dict.fromkeys(map(ord, string.punctuation))


def _normalise(text: str) -> str:
    """SQuAD's: lower case, no ASCII punctuation, no articles, single spaces. CJK texts lose their punctuation too."""
    table = _PUNCTUATION if re.search(f"[{_CJK}]", text) else _PUNCTUATION_ASCII
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(table)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction equals one of the answers, both normalised as by SQuAD's official script, otherwise 0.0.

    A string is one answer. No answers means that there is none: then only an empty prediction is right.
    """
    return float(_normalise(prediction) in _accepted(answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 of the prediction's words with those of an answer, as by SQuAD 2.0's official script.

    Chinese and Japanese characters count as words, as in MLQA's script (Lewis et al. 2020).

    >>> token_f1("the tall tower", ["tower"])  # precision 1/2, recall 1
    0.6666666666666666
    """
    return max(_f1(_TOKEN.findall(_normalise(prediction)), _TOKEN.findall(gold)) for gold in _accepted(answers))


def _accepted(answers: Sequence[str]) -> list[str]:
    return [gold for answer in _several(answers) if (gold := _normalise(answer))] or [""]


def _several(answers: Sequence[str]) -> Sequence[str]:
    """The answers; a string is one, not one for each of its letters."""
    return [answers] if isinstance(answers, str) else answers


def _f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    same = (Counter(predicted) & Counter(gold)).total()
    return 2 * same / (len(predicted) + len(gold))


def contains_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether an answer occurs in the text as whole words (in CJK, anywhere), both normalised."""
    words = f" {_normalise(text)} "
    for answer in _several(answers):
        gold = _normalise(answer)
        if gold and ((gold if re.search(f"[{_CJK}]", gold) else f" {gold} ") in words):
            return True
    return False


def calibration_error(probabilities: Sequence[float], right: Sequence[float], *, bins: int = 15) -> float:
    """Expected calibration error over bins of equal mass: the mean gap between stated and observed frequency.

    Equal probabilities share their mean outcome first, so that the order of the questions does not matter
    (Guo et al. 2017; equal mass: Nguyen and O'Connor 2015). nan if there is nothing to measure.
    """
    if len(probabilities) != len(right):
        raise InputError(f"{len(probabilities)} probabilities, but {len(right)} outcomes.")
    if bins < 1:
        raise InputError(f"bins must be a whole number of at least 1, not {bins!r}.")
    stated = np.asarray(probabilities, dtype=np.float64)
    if not stated.size:
        return math.nan
    _, group, sizes = np.unique(stated, return_inverse=True, return_counts=True)
    outcome = (np.bincount(group, weights=np.asarray(right, dtype=np.float64)) / sizes)[group]
    gaps = (stated - outcome)[np.argsort(stated, kind="stable")]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, min(bins, gaps.size))) / gaps.size)


def risk_curve(
    probabilities: Sequence[float], right: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """How often answers are wrong if only the surest are given: coverage (n,), risk (n,) and the area under the curve.

    Coverage is the share of the questions that are answered, risk the share of wrong ones among their answers (El-Yaniv
    and Wiener 2010). Answers of equal probability are given together or not at all. The area is the mean of the risk
    over the coverage (Geifman and El-Yaniv 2017): 0 if nothing is wrong.

    >>> coverage, risk, area = risk_curve([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0])
    >>> coverage.tolist(), risk.round(3).tolist(), round(area, 3)  # 0.25·0 + 0.5·1/3 + 0.25·1/2
    ([0.25, 0.75, 1.0], [0.0, 0.333, 0.5], 0.292)
    """
    if len(probabilities) != len(right) or not len(right):
        raise InputError(f"{len(probabilities)} probabilities and {len(right)} outcomes make no curve.")
    stated = -np.asarray(probabilities, dtype=np.float64)
    _, group = np.unique(stated, return_inverse=True)  # the surest first
    sizes = np.bincount(group)
    given = np.cumsum(sizes)
    risk = np.cumsum(np.bincount(group, weights=1.0 - np.asarray(right, dtype=np.float64))) / given
    return given / given[-1], risk, float((sizes * risk).sum() / given[-1])


def randomisation_test(a: Sequence[float], b: Sequence[float], *, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p value of the paired randomisation test on the mean difference (Fisher 1935; Smucker et al. 2007).

    `a` and `b` are the scores of two systems on the same questions. If they differ on at most 12 of them, all sign
    changes are counted; otherwise `samples` random ones, the observed one among them, so p is never 0. The same seed
    gives the same p.
    """
    if len(a) != len(b):
        raise InputError(f"A paired test needs the same questions on both sides, got {len(a)} and {len(b)} scores.")
    differences: npt.NDArray[np.float64] = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    differences = differences[differences != 0]
    count = differences.size
    observed = abs(differences.sum()) - 1e-12 * max(1, count)  # equal sums in another order may differ in the last bits
    if count <= 12:
        signs = np.indices((2,) * count).reshape(count, -1).T * 2.0 - 1 if count else np.ones((1, 0))
        return float((np.abs(signs @ differences) >= observed).mean())
    random = np.random.default_rng(seed)
    extreme, step = 0, max(1, 4_000_000 // count)
    for start in range(0, samples, step):
        signs = random.integers(0, 2, size=(min(step, samples - start), count), dtype=np.int8) * 2.0 - 1
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (extreme + 1) / (samples + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979): the smallest times m, the next times m - 1, …, at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, worst = list(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        worst = max(worst, min(1.0, ps[i] * (len(ps) - rank)))
        corrected[i] = worst
    return corrected


def bootstrap_interval(
    values: Sequence[float], *, share: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The ends of the percentile bootstrap interval of the mean (Efron 1979): what other such samples might have given.

    `values` are independent of each other: one a question, not one a search. (nan, nan) if there are none. With fewer
    than about ten values it is too narrow.
    """
    rows = np.asarray(values, dtype=np.float64)
    if not rows.size:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    step = max(1, 4_000_000 // rows.size)
    means = [
        rows[random.integers(0, rows.size, size=(min(step, samples - start), rows.size))].mean(axis=1)
        for start in range(0, samples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def rank_overlap(one: Sequence[str], other: Sequence[str], *, persistence: float = 0.9) -> float:
    """Rank-biased overlap of two rankings of distinct ids, extrapolated: 1 for equal ones, 0 for disjoint ones.

    Differences at the top weigh most: with persistence 0.9 the first ten ranks have 86% of the weight. Webber, Moffat
    and Zobel, "A Similarity Measure for Indefinite Rankings", TOIS 2010, equation 32, which also takes rankings of
    unequal length.

    >>> round(rank_overlap(["a", "b"], ["b", "a"]), 6)
    0.9
    """
    short, long = sorted((list(one), list(other)), key=len)
    if not short:
        return float(not long)
    in_short: set[str] = set()
    in_long: set[str] = set()
    shared, at_short, total = 0, 0, 0.0
    for depth, id in enumerate(long, 1):
        in_long.add(id)
        if depth <= len(short):
            in_short.add(short[depth - 1])
            shared = len(in_short & in_long)
            at_short = shared
        else:
            shared += id in in_short
            total += at_short * (depth - len(short)) / (len(short) * depth) * persistence**depth
        total += shared / depth * persistence**depth
    rest = (shared - at_short) / len(long) + at_short / len(short)
    return total * (1 - persistence) / persistence + rest * persistence ** len(long)

"""Weights and their fit, against sums by hand and against scipy's minimiser."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.calibration import (
    Calibration,
    Evidence,
    Weights,
    evidence,
    fit_weights,
    mode_of,
    right_spans,
    threshold_refusing,
)
from semsearch.errors import InputError, ModelError
from semsearch.extraction import Span
from semsearch.records import Hit, Passage


def found(scores, ranks=None, lexical=None, group=None) -> Evidence:
    n = len(scores)
    return Evidence(
        np.array(scores, dtype=float),
        np.ones(n) if ranks is None else np.array(ranks, dtype=float),
        np.zeros(n) if lexical is None else np.array(lexical, dtype=float),
        np.arange(n) if group is None else np.array(group),
    )


def test_shares_are_a_softmax_over_all_spans_and_no_answer() -> None:
    weights = Weights(scale=2.0, bias=1.0, rank=0.5, lexical=3.0)
    shares = weights.shares(found([1.0, -1.0], [1.0, 4.0], [0.5, 1.0]))
    a, b = math.exp(2 * 1 + 3 * 0.5 + 1), math.exp(-2 - 0.5 * math.log(4) + 3 * 1.0 + 1)
    assert shares == pytest.approx([a / (1 + a + b), b / (1 + a + b)])


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_shares_never_overflow(scores: list[float]) -> None:
    shares = Weights().shares(found(scores))
    assert np.isfinite(shares).all()
    assert 0 <= shares.sum() <= 1 + 1e-9
    assert shares.max() == shares[np.argmax(scores)]


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_a_share_is_a_probability_until_it_is_calibrated(share: float) -> None:
    assert Weights().probability(share) == pytest.approx(share, abs=1e-8)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 50), st.floats(-1e4, 1e4))
def test_a_greater_share_is_never_less_likely_and_nothing_is_certain(a, b, slope, offset) -> None:
    low, high = sorted([a, b])
    weights = Weights(slope=slope, offset=offset)
    assert 0 < weights.probability(low) <= weights.probability(high) < 1


def test_the_best_group_is_that_with_the_greatest_sum() -> None:
    share, group = Weights().best(found([1.0, 1.5, 1.0], group=[0, 1, 0]))
    assert group == 0
    assert share == pytest.approx(2 * math.e / (2 * math.e + math.exp(1.5) + 1))
    assert Weights().best(found([])) == (0.0, -1)


@pytest.mark.parametrize(
    ("ceiling", "rank", "settled"),
    [(2.0, 4, True), (2.0, 1, False), (2.9, 4, True), (3.0, 4, False), (None, 99, False)],
)
def test_an_answer_is_settled_when_no_passage_left_can_lift_another(ceiling, rank, settled) -> None:
    """exp(3) = 20.1 against exp(2) = 7.4 and exp(ceiling + 1) / rank, the best of the rest."""
    weights = Weights(rank=1.0, lexical=2.0, ceiling=ceiling)
    known = found([2.0, 3.0])
    assert weights.settled(known, np.array([rank, rank + 1.0]), np.array([0.5, 0.5])) == settled
    assert weights.settled(known, np.zeros(0), np.zeros(0)) == (ceiling is not None)
    assert not weights.settled(found([]), np.ones(1), np.zeros(1))


def test_the_highest_score_is_the_ceiling_of_a_search() -> None:
    cases, right = simulated(60)
    highest = max(case.scores.max(initial=-99.0) for case in cases)
    assert fit_weights(cases, right, "ranked", Weights()).ceiling == pytest.approx(highest, abs=1e-6)
    assert fit_weights(cases, right, "ranked", Weights(ceiling=99.0)).ceiling == 99.0
    assert fit_weights(cases, right, "given", Weights()).ceiling is None


def test_evidence_of_hits() -> None:
    passages = [Passage(n, "d", text, 0, len(text)) for n, text in enumerate(["The Fee", "a fee!", "none"])]
    hits = [
        Hit(passages[0], 0.9, 1, {"lexical": (2, 3.0), "dense": (1, 0.8)}),
        Hit(passages[1], 0.8, 2, {"lexical": (1, 4.0)}),
        Hit(passages[2], 0.7, 3, {"dense": (3, 0.2)}),
    ]
    spans = [Span(1, 0, 5, 2.5), Span(0, 0, 7, 1.0), Span(2, 0, 4, 0.5)]
    known = evidence(spans, hits)
    assert known.scores.tolist() == [2.5, 1.0, 0.5]
    assert known.ranks.tolist() == [2, 1, 3]
    assert known.lexical.tolist() == [1.0, 0.75, 0.0]
    assert known.group.tolist() == [0, 0, 1]  # case and a leading article are no difference
    assert right_spans(spans, hits, ["fee"]).tolist() == [True, True, False]
    assert right_spans(spans, hits, ()).tolist() == [False] * 3
    assert [mode_of(hits), mode_of(hits[2:])] == ["searched", "ranked"]
    assert all(len(values) == 0 for values in evidence([], hits))


def simulated(count: int, seed: int = 0) -> tuple[list[Evidence], list[np.ndarray]]:
    """Questions whose right span, or "no answer", is drawn with the shares that known weights give."""
    random = np.random.default_rng(seed)
    truth = Weights(scale=0.5, bias=-2.0, rank=0.8, lexical=1.5)
    cases, right = [], []
    for _ in range(count):
        n = int(random.integers(0, 8))
        case = found(random.normal(3, 4, n), random.integers(1, 20, n), random.random(n))
        drawn = random.choice(n + 1, p=np.append(s := truth.shares(case), max(1 - s.sum(), 0)))
        cases.append(case)
        right.append(np.arange(n) == drawn)
    return cases, right


def test_the_weights_that_made_the_data_are_found_again() -> None:
    fitted = fit_weights(*simulated(4000), "searched", Weights(threshold=0.3))
    assert (fitted.scale, fitted.rank) == pytest.approx((0.5, 0.8), abs=0.1)
    assert (fitted.bias, fitted.lexical) == pytest.approx((-2.0, 1.5), abs=0.3)
    assert (fitted.slope, fitted.offset) == pytest.approx((1.0, 0.0), abs=0.2)  # shares are probabilities already
    assert fitted.threshold == 0.3


@pytest.mark.parametrize(("mode", "names"), [("given", ["scale", "bias"]), ("ranked", ["scale", "bias", "rank"])])
def test_the_fit_is_that_of_scipy(mode: str, names: list[str]) -> None:
    from dataclasses import replace

    from scipy.optimize import minimize

    cases, right = simulated(80, seed=1)
    right = [r | (np.arange(len(r)) == 0) if i % 3 == 0 else r for i, r in enumerate(right)]  # some have two
    spread = {"scale": 0.3, "bias": 2.0, "rank": 1.0}
    start = Weights(scale=0.3)

    def loss(values: np.ndarray) -> float:
        weights = replace(start, **dict(zip(names, values, strict=True)))
        total = sum((v - getattr(start, n)) ** 2 / spread[n] ** 2 / 2 for n, v in zip(names, values, strict=True))
        for case, good in zip(cases, right, strict=True):
            shares = weights.shares(case)
            total -= math.log(shares[good].sum() if good.any() else 1 - shares.sum())
        return total

    best = minimize(loss, [0.3, 0.0, 0.0][: len(names)], method="Nelder-Mead", options={"xatol": 1e-7, "maxiter": 4000})
    fitted = fit_weights(cases, right, mode, start)
    assert [getattr(fitted, name) for name in names] == pytest.approx(best.x, abs=1e-4)
    if mode == "given":
        assert (fitted.rank, fitted.lexical) == (0.0, 0.0)


def test_how_sure_to_be_is_learned_from_the_usual_questions_alone() -> None:
    """Of those 3 in 4 are right; the others, which nothing answers, still teach the bias."""
    cases, right = [found([2.0])] * 600, [np.array([i % 4 > 0]) for i in range(400)] + [np.array([False])] * 200
    usual = [True] * 400 + [False] * 200
    fitted = fit_weights(cases, right, "given", Weights(), usual)
    share = fitted.best(cases[0])[0]
    assert share == pytest.approx(0.5, abs=0.02)
    assert fitted.probability(share) == pytest.approx(0.75, abs=0.02)
    everything = fit_weights(cases, right, "given", Weights())
    assert everything.probability(everything.best(cases[0])[0]) == pytest.approx(0.5, abs=0.02)


def test_few_questions_move_the_weights_little() -> None:
    start = Weights(scale=0.4, bias=-1.0)
    few, many = (fit_weights(*simulated(n), "given", start) for n in (20, 4000))
    assert abs(few.slope - 1.0) < 0.5
    assert abs(few.scale - 0.4) < 0.3
    assert abs(many.scale - 0.5) < 0.15


def test_where_greater_scores_are_worse_the_probabilities_still_rise() -> None:
    cases = [found([float(score)]) for score in range(-20, 20)]
    right = [np.array([score < 0]) for score in range(-20, 20)]
    fitted = fit_weights(cases, right, "given", Weights())
    low, high = (fitted.probability(share) for share in (0.1, 0.9))
    assert low <= high


@pytest.mark.parametrize(
    ("count", "right", "message"), [(19, 5, "at least 20"), (30, 2, "2 are right and 28"), (30, 28, "28 are right")]
)
def test_too_little_to_learn_from_is_refused(count: int, right: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_weights([found([1.0])] * count, [np.array([i < right]) for i in range(count)], "given", Weights())


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.1), (0.24, 0.1), (0.25, 0.2), (0.5, 0.5), (0.99, 0.9)])
def test_a_threshold_refuses_at_most_the_share(share: float, expected: float) -> None:
    assert threshold_refusing([0.5, 0.1, 0.2, 0.9], share) == pytest.approx(expected, abs=2e-6)


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=30), st.floats(0, 0.99))
def test_no_threshold_refuses_more(probabilities: list[float], share: float) -> None:
    threshold = threshold_refusing(probabilities, share)
    assert np.mean([p < threshold for p in probabilities]) <= share + 1e-9


def test_a_calibration_is_stored_without_loss(tmp_path) -> None:
    made = Calibration(Weights(scale=1 / 3), Weights(rank=0.1), Weights(lexical=2e-7, threshold=0.07), {"on": "Ö"})
    made.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == made


def test_what_is_not_stored_is_as_for_other_searches(tmp_path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"threshold": 0.4, "given": {}, "ranked": {"rank": 2.0}}))
    assert Calibration.load(path) == Calibration(Weights(threshold=0.4), *[Weights(rank=2.0, threshold=0.4)] * 2)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"given": {}, "ranked": {"scale": NaN}}', '{"given": 1, "ranked": {}}']
)
def test_a_damaged_file_is_named(tmp_path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ModelError, match=r"c\.json is not a reader's calibration"):
        Calibration.load(tmp_path / "c.json")

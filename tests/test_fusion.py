"""Fusion: every expected score is worked out by hand."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.errors import InputError
from semsearch.fusion import Ranking, Scores, absolute, convex, distribution, min_max, rrf, z_score

# Dense: mean 0.6, deviations 0.3, 0, -0.3, standard deviation sqrt(0.06). Lexical: mean 6, standard deviation 2.
DENSE = [(1, 0.9), (2, 0.6), (3, 0.3)]
LEXICAL = [(3, 8.0), (4, 4.0)]
BOTH = {"dense": DENSE, "lexical": LEXICAL}
Z = 0.3 / math.sqrt(0.06)
FUSIONS = [rrf, min_max, z_score, convex, distribution, absolute]


def scores(ranking: Ranking) -> dict[int, float]:
    return dict(ranking)


def test_rrf_by_hand() -> None:
    found = rrf(BOTH, k=10)
    assert [id for id, _ in found] == [3, 1, 2, 4]  # 2 and 4 are both second in one leg
    assert scores(found) == pytest.approx({3: 1 / 63 + 1 / 61, 1: 1 / 61, 2: 1 / 62, 4: 1 / 62})
    assert scores(rrf(BOTH, k=10, constant=0, weights={"lexical": 2})) == pytest.approx(
        {3: 1 / 3 + 2, 1: 1.0, 2: 1 / 2, 4: 2 / 2}
    )
    assert [id for id, _ in partial(rrf, constant=0)(BOTH, k=2)] == [3, 1]


def test_min_max_by_hand() -> None:
    assert scores(min_max(BOTH, k=10)) == pytest.approx({1: 1.0, 2: 0.5, 3: 0.0 + 1.0, 4: 0.0})
    assert [id for id, _ in min_max(BOTH, k=10)] == [1, 3, 2, 4]
    assert scores(min_max(BOTH, k=10, weights={"dense": 0.5})) == pytest.approx({1: 0.5, 2: 0.25, 3: 1.0, 4: 0.0})
    assert min_max({"dense": [(5, 0.2), (6, 0.2)]}, k=10) == [(5, 1.0), (6, 1.0)]


def test_z_score_by_hand() -> None:
    # Not found: dense -Z, lexical -1.
    assert scores(z_score(BOTH, k=10)) == pytest.approx({1: Z - 1, 2: -1.0, 3: -Z + 1, 4: -Z - 1})
    assert scores(z_score(BOTH, k=10, weights={"lexical": 0})) == pytest.approx({1: Z, 2: 0.0, 3: -Z, 4: -Z})
    assert z_score({"dense": [(6, 0.2), (5, 0.2)]}, k=10) == [(5, 0.0), (6, 0.0)]


def test_convex_by_hand() -> None:
    # Dense from -1 to 0.9: (0.9, 0.6, 0.3) → 1, 1.6/1.9, 1.3/1.9; lexical from 0 to 8: 1, 0.5; half of each.
    want = {1: 0.5, 2: 0.8 / 1.9, 3: 0.65 / 1.9 + 0.5, 4: 0.25}
    assert scores(convex(BOTH, k=10)) == pytest.approx(want)
    assert scores(convex(BOTH, k=10, weights={"dense": 10, "lexical": 10})) == pytest.approx(want)
    assert scores(convex(BOTH, k=10, weights={"dense": 3}, minimum={"dense": 0.0, "lexical": 2.0})) == pytest.approx(
        {1: 0.75, 2: 0.5, 3: 0.25 + 0.25, 4: 0.25 * 2 / 6}
    )
    # A score below its theoretical minimum becomes the minimum, so that no share is negative.
    assert scores(convex({"lexical": [(1, 1.0), (2, -1.0)]}, k=5)) == pytest.approx({1: 1.0, 2: 0.0})


def test_distribution_by_hand() -> None:
    # (value + 3) / 6 of the standardised scores: dense Z, 0, -Z; lexical 1, -1.
    want = {1: (Z + 3) / 6, 2: 0.5, 3: (3 - Z) / 6 + 4 / 6, 4: 2 / 6}
    assert scores(distribution(BOTH, k=10)) == pytest.approx(want)
    far = [(id, 1.0 if id == 0 else 0.0) for id in range(40)]  # the first one is sqrt(39) deviations off
    assert distribution({"dense": far}, k=1) == [(0, 1.0)]


def test_absolute_by_hand() -> None:
    # Dense is the longer ranking, so it was cut off: what it did not find gets its last score. Lexical was not: 0.
    legs = {"dense": DENSE, "lexical": Scores(LEXICAL, ceiling=16.0)}
    want = {1: 0.9 / 2, 2: 0.6 / 2, 3: (0.3 + 0.5) / 2, 4: (0.3 + 0.25) / 2}
    assert scores(absolute(legs, k=10, weights={"dense": 1})) == pytest.approx(want)
    assert scores(absolute(legs, k=10)) == pytest.approx(
        {1: 1.25 * 0.9 / 2.25, 2: 1.25 * 0.6 / 2.25, 3: (1.25 * 0.3 + 0.5) / 2.25, 4: (1.25 * 0.3 + 0.25) / 2.25}
    )
    # As long as each other: both were cut off.
    even = {"dense": DENSE[:2], "lexical": Scores(LEXICAL, ceiling=16.0)}
    want = {1: (0.9 + 0.25) / 2, 2: (0.6 + 0.25) / 2, 3: (0.6 + 0.5) / 2, 4: (0.6 + 0.25) / 2}
    assert scores(absolute(even, k=10, weights={"lexical": 1})) == pytest.approx(want)


def test_absolute_without_a_ceiling_takes_the_highest_score() -> None:
    assert scores(absolute(BOTH, k=10, weights={"dense": 0})) == pytest.approx({1: 0, 2: 0, 3: 1.0, 4: 0.5})
    unbounded = {"dense": DENSE, "lexical": Scores(LEXICAL)}
    assert absolute(unbounded, k=10) == absolute(BOTH, k=10)


def test_absolute_lets_a_leg_that_matches_badly_have_little_to_say() -> None:
    dense = [(1, 0.7), (2, 0.3)]
    assert absolute({"dense": dense, "lexical": Scores([(2, 8.0)], ceiling=10.0)}, k=1)[0][0] == 2
    assert absolute({"dense": dense, "lexical": Scores([(2, 2.0)], ceiling=10.0)}, k=1)[0][0] == 1


@pytest.mark.parametrize("fusion", FUSIONS)
def test_empty_legs_and_cut(fusion: Any) -> None:
    assert fusion({}, k=3) == []
    assert fusion({"dense": [], "lexical": []}, k=3) == []
    assert [id for id, _ in fusion({"dense": [], "lexical": LEXICAL}, k=3)] == [3, 4]
    assert len(fusion(BOTH, k=2)) == 2


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"k": 1, "weights": {"sparse": 1}}, "'sparse'.*'dense', 'lexical'"),
        ({"k": 1, "weights": {"dense": -1}}, "-1.*'dense'"),
        ({"k": 1, "weights": {"dense": math.nan}}, "nan"),
    ],
)
def test_bad_input(fusion: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fusion(BOTH, **options)


def test_bad_options_of_one_fusion() -> None:
    with pytest.raises(InputError, match="constant=-1"):
        rrf(BOTH, k=1, constant=-1)
    with pytest.raises(InputError, match="all 0"):
        convex(BOTH, k=1, weights={"dense": 0, "lexical": 0})
    with pytest.raises(InputError, match="all 0"):
        absolute(BOTH, k=1, weights={"dense": 0, "lexical": 0})


LEG = st.dictionaries(st.integers(0, 30), st.floats(-5, 5), max_size=12).map(
    lambda d: sorted(d.items(), key=lambda pair: (-pair[1], pair[0]))
)


@pytest.mark.parametrize("fusion", FUSIONS)
@settings(deadline=None)
@given(legs=st.tuples(LEG, LEG, LEG), k=st.integers(1, 40))
def test_order_of_legs_and_k_do_not_matter(fusion: Any, legs: tuple[Any, Any, Any], k: int) -> None:
    named = dict(zip("abc", legs, strict=True))
    whole = fusion(named, k=1000)
    assert {id for id, _ in whole} == {id for leg in legs for id, _ in leg}
    assert whole == sorted(whole, key=lambda pair: (-pair[1], pair[0]))
    assert fusion(dict(reversed(named.items())), k=k) == whole[:k]

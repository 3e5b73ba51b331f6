"""Swapped terms: systems whose rankings are known, so that overlaps and shifts can be computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from toy import WordEncoder

from semsearch.errors import InputError
from semsearch.evaluation import audit
from semsearch.metrics import bootstrap_interval, rank_overlap
from semsearch.records import Hit, Passage

NAMES = {"name": {"one": ["Ada", "Alan"], "other": ["Berta", "Bob"]}}


class Known:
    """A retriever that ranks the documents that a function of the query gives, with scores 1, 1/2, 1/3, …"""

    def __init__(self, ranking: Callable[[str], Sequence[str]]) -> None:
        self.ranking = ranking
        self.asked: list[str] = []

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        self.asked += queries
        return [
            [Hit(Passage(n, id, "", 0, 0), 1 / n, n) for n, id in enumerate(self.ranking(query)[:k], 1)]
            for query in queries
        ]


def test_rank_overlap_by_hand() -> None:
    assert rank_overlap("abc", "abc") == pytest.approx(1)
    assert rank_overlap("abc", "xyz") == 0
    assert rank_overlap("", "") == 1
    assert rank_overlap("", "a") == 0
    # Agreement at depths 1, 2, 3: 1, 1/2, 2/3; the last goes on for ever. Persistence 1/2.
    assert rank_overlap("abc", "acx", persistence=0.5) == pytest.approx(
        1 / 2 + 1 / 8 * 2 + 2 / 3 / 8 + 2 / 3 / 8 - 1 / 8
    )
    # Unequal lengths (equation 32): X = 1, then 1 + 1 for "b" that the short one has not: X_2 = 1, agreement 1 and 1/2.
    expected = (1 * 0.9 + 1 / 2 * 0.81 + 1 * (2 - 1) / (1 * 2) * 0.81) * 0.1 / 0.9 + (0 / 2 + 1 / 1) * 0.81
    assert rank_overlap("a", "ab") == pytest.approx(expected) == pytest.approx(1.0)


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    import numpy as np

    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        low, high = bootstrap_interval(random.normal(1, 2, 60).tolist(), samples=500, seed=seed)
        held += low <= 1 <= high
    assert 180 <= held <= 199  # 190 are due
    assert bootstrap_interval([3.0, 3.0]) == (3.0, 3.0)
    assert all(map(math.isnan, bootstrap_interval([])))


def test_a_retriever_that_ignores_names_shows_no_shift() -> None:
    system = Known(lambda query: ["a", "b", "c"])
    result = audit(system, ["What may {name} borrow?", "Who is {name}?"], NAMES)
    (overlap,) = result.overlaps
    assert (overlap.between, overlap.within, overlap.excess, overlap.low, overlap.high) == pytest.approx(
        (1, 1, 0, 0, 0)
    )
    assert [(s.rank, s.score, s.found) for s in result.shifts] == [(0, 0, 1), (0, 0, 1)]
    assert result.queries == 8
    assert system.asked[:4] == [f"What may {name} borrow?" for name in ("Ada", "Alan", "Berta", "Bob")]


def test_shifts_by_hand() -> None:
    # Group "other" finds "a" at rank 3 for Berta and 2 for Bob, group "one" at rank 1.
    places = {"Ada": "abc", "Alan": "abc", "Berta": "bca", "Bob": "bac"}
    system = Known(lambda query: next(ranking for name, ranking in places.items() if name in query))
    result = audit(system, [("Who is {name}?", "a")], NAMES, k=3)
    one, other = result.shifts
    assert (one.rank, other.rank) == pytest.approx((1 - 1.75, 2.5 - 1.75))
    mean = (1 + (1 / 3 + 1 / 2) / 2) / 2
    assert (one.score, other.score) == pytest.approx((1 - mean, 5 / 12 - mean))
    (overlap,) = result.overlaps
    between = (rank_overlap("abc", "bca") + rank_overlap("abc", "bac")) / 2
    within = (1 + rank_overlap("bca", "bac")) / 2
    assert (overlap.between, overlap.within) == pytest.approx((between, within))
    assert overlap.excess == pytest.approx(within - between)
    (extreme,) = result.extremes
    assert (extreme.document, dict(extreme.ranks)) == ("a", {"one": 1, "other": 2.5})


def test_without_a_document_the_one_that_all_rank_first_is_meant_and_one_that_is_missing_is_counted() -> None:
    system = Known(lambda query: "xy" if "B" in query else "yz")
    result = audit(system, ["{name}?"], NAMES)
    assert result.extremes[0].document == "y"  # 1 and 1/2 beside 0 and 1
    (shift, _) = audit(system, [("{name}?", "z")], NAMES).shifts
    assert shift.found == 1
    assert shift.rank == pytest.approx(2 - 2.5)  # the other group has it nowhere: rank 3
    assert audit(system, [("{name}?", "z")], NAMES).shifts[1].found == 0


def test_a_consistent_shift_has_an_interval_without_zero_and_is_marked() -> None:
    system = Known(lambda query: "ba" if "B" in query else "ab")
    result = audit(system, [(f"{n} {{name}}?", "a") for n in range(12)], NAMES)
    one, other = result.shifts
    assert one.rank_high < 0 < other.rank_low
    text = str(result).splitlines()
    assert text[0].startswith("48 queries, the first 10 documents of each")
    assert any(line.startswith("name: other") and line.count("*") == 2 for line in text)
    assert "What this does not show:" in text
    content = json.loads(result.to_json())
    assert content["shifts"][1]["rank"] == 0.5
    assert len(content["limits"]) == 5


def test_groups_of_one_term_have_no_spread_within() -> None:
    result = audit(Known(lambda query: "ab"), ["{name}"], {"name": {"one": ["A"], "other": ["B"]}})
    assert math.isnan(result.overlaps[0].within)
    assert json.loads(result.to_json())["overlaps"][0]["excess"] is None


@pytest.mark.parametrize(
    ("templates", "groups", "message"),
    [
        (["Who?"], NAMES, r"The template 'Who\?' needs one kind of placeholder, {name}"),
        (["{name} and {place}"], NAMES, "needs one kind of placeholder"),
        (["{"], NAMES, "needs one kind of placeholder"),
        (["Who is {name!r}?"], NAMES, "needs one kind of placeholder"),
        (["Who is {name:>10}?"], NAMES, "needs one kind of placeholder"),
        (["Who is {name:}?"], NAMES, "needs one kind of placeholder"),
        (["Who is {name}, or {name:}?"], NAMES, "needs one kind of placeholder"),
        (["Who is {name:{name}}?"], NAMES, "needs one kind of placeholder"),
        ([("Who is {name}?", "a", "b")], NAMES, r"or a pair of a query and the id of a document, not \('Who is {name}"),
        ([None], NAMES, "A template is a query, or a pair of a query and the id of a document, not None"),
        ("Who is {name}?", NAMES, "is a list of queries with placeholders"),
        ([], NAMES, "There is no template with a placeholder for 'name'"),
        (None, {"name": {"one": ["A"]}}, "there must be at least two"),
        (None, {"name": {"one": "A", "other": ["B"]}}, "needs a list of terms, not 'A'"),
        (None, {}, "groups maps placeholders to groups"),
    ],
)
def test_what_cannot_be_audited(templates: Any, groups: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        audit(Known(lambda query: "ab"), templates, groups)
    with pytest.raises(InputError, match=r"Only what has search\(\) can be audited, not int"):
        audit(5)
    with pytest.raises(InputError, match="k must be a whole number"):
        audit(Known(lambda query: "ab"), k=0)


def test_an_index_is_audited_with_our_start(tmp_path: Path) -> None:
    from semsearch import Index, Retriever

    with Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([("a", "What a woman has to pay. A woman pays."), ("b", "What a man has to pay."), ("c", "Help.")])
        result = audit(Retriever(index, mode="lexical"))
    assert result.queries == 10 * (8 + 8 + 16)
    shifts = {(each.axis, each.group): each for each in result.shifts}
    assert len(shifts) == 8
    assert shifts["place", "Asia"].rank == 0
    assert len(result.overlaps) == 1 + 1 + 6

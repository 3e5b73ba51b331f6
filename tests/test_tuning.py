"""Tuning: what is chosen from judged queries, and what is left alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch import Index, Retriever
from semsearch.encoding import TokenVectors
from semsearch.errors import CorruptIndexError, InputError
from semsearch.fusion import Ranking, absolute
from semsearch.records import Passage
from semsearch.tuning import DEFAULT, Case, Choice, candidates, judged_queries, learned, score, tune

# Ten passages, one a document. Each leg puts what it finds into ten ranks with falling scores.
DOCUMENTS = {id: f"d{id}" for id in range(20)}


def case(dense_first: int, lexical_first: int, right: int) -> Case:
    rankings: dict[str, Ranking] = {
        "dense": [(id, 0.8 - 0.05 * n) for n, id in enumerate(dict.fromkeys([dense_first, *range(10)]))],
        "lexical": [(id, 9.0 - 0.7 * n) for n, id in enumerate(dict.fromkeys([lexical_first, *range(9, -1, -1)]))],
    }
    return Case(rankings, DOCUMENTS, {f"d{right}": 1})


def cases(leg: str, count: int) -> list[Case]:
    """Queries that one leg answers with its first passage, while the other one puts a wrong passage there."""
    rows = []
    for n in range(count):
        right, wrong = 10 + n % 5, 15 + n % 5
        first = {"dense": right, "lexical": wrong} if leg == "dense" else {"dense": wrong, "lexical": right}
        rows.append(case(first["dense"], first["lexical"], right))
    return rows


def test_score_by_hand() -> None:
    ranked = case(10, 15, 15)
    assert score(ranked, lambda rankings, *, k: rankings["dense"][:k]) == 0.0
    assert score(ranked, lambda rankings, *, k: rankings["lexical"][:k]) == 1.0
    assert score(ranked, lambda rankings, *, k: [(1, 2.0), (15, 1.0)]) == pytest.approx(1 / math.log2(3))


def test_several_passages_of_a_document_count_once() -> None:
    ranked = Case({"dense": [(1, 0.9), (2, 0.8), (3, 0.7)]}, {1: "a", 2: "a", 3: "b"}, {"b": 1})
    assert score(ranked, lambda rankings, *, k: rankings["dense"][:k]) == pytest.approx(1 / math.log2(3))


@pytest.mark.parametrize("leg", ["dense", "lexical"])
def test_the_leg_that_is_right_is_followed(leg: str) -> None:
    report = tune(cases(leg, 40))
    assert report.queries == 40
    assert report.scores[leg] == 1.0
    assert report.scores["tuned"] == pytest.approx(1.0)
    assert len(report.held_out) == 40
    better = report.choice.dense - DEFAULT.dense
    if report.kept_default:
        assert report.scores["default"] == 1.0
    else:
        assert better > 0 if leg == "dense" else better < 0
        assert report.p < 0.01
    assert "held_out" not in report.to_dict()


def test_at_least_one_leg_needs_another_choice() -> None:
    assert not (tune(cases("dense", 40)).kept_default and tune(cases("lexical", 40)).kept_default)


def test_the_default_stays_where_nothing_is_better() -> None:
    report = tune([case(10, 10, 10) for _ in range(20)])
    assert report.kept_default
    assert report.choice == DEFAULT
    assert report.p == 1.0
    assert report.scores["tuned"] == report.scores["default"] == 1.0
    assert str(report).startswith("The default stays: absolute with 56% dense")


def test_a_single_win_among_many_is_not_enough() -> None:
    mixed = [case(10, 10, 10) for _ in range(30)] + cases("lexical", 1)
    assert tune(mixed).kept_default


def test_the_same_seed_gives_the_same_report() -> None:
    some = cases("lexical", 12) + cases("dense", 7)
    assert tune(some, seed=3) == tune(some, seed=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [(cases("dense", 4), "4 judged queries"), ([case(1, 2, 19)] * 6, "None of the judged documents was found")],
)
def test_bad_input(given: list[Case], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune(given)


def test_the_default_is_the_default_fusion() -> None:
    rankings = case(10, 15, 15).rankings
    expected = absolute(rankings, k=20)
    found = DEFAULT.function()(rankings, k=20)
    assert [id for id, _ in found] == [id for id, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])
    assert DEFAULT in candidates()


def test_choices_survive_being_stored() -> None:
    for choice in candidates():
        assert learned(choice.to_dict()) == choice
    assert learned(None) == DEFAULT


@pytest.mark.parametrize(
    "stored",
    [
        [],
        {},
        {"fusion": "absolute"},
        {"fusion": "magic", "dense": 0.5},
        {"fusion": "rrf", "dense": 2},
        {"dense": math.nan},
    ],
)
def test_what_makes_no_sense_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(CorruptIndexError, match="Tune again"):
        learned(stored)


def test_judged_queries() -> None:
    given = [("late fees", "a.md"), ("who", "Anna"), ("both", ["a.md", "b.md"]), ("none", None)]
    found = judged_queries(given, {"a.md", "b.md"}.__contains__)
    assert found == [("late fees", {"a.md": 1}), ("both", {"a.md": 1, "b.md": 1})]
    assert judged_queries([{"question": "q", "documents": ["x", "y"]}], {"y"}.__contains__) == [("q", {"x": 1, "y": 1})]
    assert judged_queries([{"question": "q", "documents": ["x"]}], lambda id: False) == []
    assert judged_queries([("", "a.md"), (" ", "a.md"), ("q", "a.md")], {"a.md"}.__contains__) == [("q", {"a.md": 1})]


def backwards(case: Case, ranking: Ranking) -> Ranking:
    """A reranker that has the best passage last."""
    return [*ranking[1:], *ranking[:1]]


def right_first(case: Case, ranking: Ranking) -> Ranking:
    """One that knows what is right."""
    return sorted(ranking, key=lambda found: case.documents[found[0]] not in case.judged)


def test_a_reranker_is_chosen_where_it_helps() -> None:
    lost = [case(15, 16, 3) for _ in range(20)]  # both legs have another passage first
    report = tune(lost, rerankers={"backwards": backwards, "right": right_first})
    assert report.choice.reranker == "right"
    assert report.scores["tuned"] == 1.0 > report.scores["default"]
    assert str(report.choice).endswith("lexical, then right")
    assert learned(report.choice.to_dict()) == report.choice
    assert tune(lost).choice.reranker is None


def test_a_reranker_that_does_not_help_is_left_out() -> None:
    found = [case(10, 10, 10) for _ in range(20)]
    report = tune(found, rerankers={"backwards": backwards, "right": right_first})
    assert report.kept_default
    assert report.choice == DEFAULT
    once = [*found, *(case(15, 16, 3) for _ in range(1))]
    assert tune(once, rerankers={"right": right_first}).choice.reranker is None  # one query is no evidence


def one_up(case: Case, ranking: Ranking) -> Ranking:
    """One that moves what is right one place up."""
    (place,) = (n for n, (id, _) in enumerate(ranking) if case.documents[id] in case.judged)
    before, found = ranking[place - 1 : place + 1]
    return [*ranking[: place - 1], found, before, *ranking[place + 1 :]]


def test_a_reranker_may_help_all_queries_a_little() -> None:
    ranking: Ranking = [(id, 0.9 - 0.05 * id) for id in range(10)]
    some = [Case({"dense": ranking, "lexical": ranking}, DOCUMENTS, {"d8": 1}) for _ in range(20)]
    report = tune(some, rerankers={"one up": one_up})
    assert report.choice.reranker == "one up"  # for less than a twentieth, which one query of them is worth
    gain = report.scores["tuned"] - report.scores["default"]
    assert gain == pytest.approx(1 / math.log2(9) - 1 / math.log2(10))


# -- through an index --------------------------------------------------------------------------------------------------


class Contrary:
    """Has an axis for each number in a text, and takes the number of a question for the next one."""

    name, dimension = "contrary", 16

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        numbers = [int(text.split()[-1]) + (kind == "query") for text in texts]
        return np.eye(self.dimension, dtype=np.float32)[[number % self.dimension for number in numbers]]


JUDGED = [(f"Who has room {number}", f"d{number}") for number in range(12)]
CHILD = """
import json, sys
from test_tuning import Contrary, Index
with Index(sys.argv[1], encoder=Contrary()) as index:
    hits = index.search("Who has room 13")
    print(json.dumps([index.info()["fusion"], [[hit.passage.document_id, hit.score] for hit in hits]]))
"""


def in_a_new_process(folder: Path) -> Any:
    command = [sys.executable, "-c", CHILD, str(folder)]
    found = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def test_what_was_learned_is_stored_with_the_index_and_used_by_the_next_process(tmp_path: Path) -> None:
    with Index(tmp_path / "index", encoder=Contrary()) as index:
        index.add([(f"d{number}", f"room {number}") for number in range(16)])
        retriever = Retriever(index)
        assert index.info()["fusion"] == DEFAULT.to_dict() | {"learned": False}
        assert retriever.search("Who has room 13")[0].passage.document_id == "d14"  # the encoder has its way

        tried = retriever.tune(JUDGED, save=False)
        assert not tried.kept_default
        assert index.info()["fusion"]["learned"] is False
        report = retriever.tune(JUDGED)
        assert report == tried
        assert report.choice.dense < DEFAULT.dense
        assert report.scores["lexical"] == report.scores["tuned"] == 1.0 > report.scores["default"]
        assert index.info()["fusion"] == report.choice.to_dict() | {"learned": True}

        hits = retriever.search("Who has room 13")  # one that was opened before
        assert hits[0].passage.document_id == "d13"
        expected = Retriever(index, fusion=report.choice.function()).search("Who has room 13")
        assert hits == expected
        assert Retriever(index, fusion=absolute).search("Who has room 13")[0].passage.document_id == "d14"
    stored, found = in_a_new_process(tmp_path / "index")
    assert stored == report.choice.to_dict() | {"learned": True}
    assert found == [[hit.passage.document_id, hit.score] for hit in expected]


class Attentive(Contrary):
    """As a whole it takes one number for the next, but it knows each number by itself."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def token_vectors(self, texts: Sequence[str]) -> list[TokenVectors]:
        self.seen.update(texts)
        vectors = np.eye(self.dimension, dtype=np.float32)
        numbers = [int(text.split()[-1]) % self.dimension for text in texts]
        return [TokenVectors(np.array([[0, 1]]), vectors[[number]]) for number in numbers]


class Latin(Contrary):
    """As Contrary, with no words for any other script."""

    def unknown_share(self, text: str) -> float:
        return 0.0 if text.isascii() else 1.0


def test_a_learned_reranker_is_used_by_who_names_no_other(tmp_path: Path) -> None:
    judged = [(f"Where is {number}", f"d{number}") for number in range(4, 16)]
    encoder = Attentive()
    with Index(tmp_path / "index", encoder=encoder) as index:
        index.add([(f"d{number}", f"room {number + 16}") for number in range(16)])  # no word of a question is in a text

        def place(retriever: Retriever) -> int:
            found = [hit.passage.document_id for hit in retriever.search("Where is 13", k=16)]
            return found.index("d13")

        before = Retriever(index)
        assert place(before) > 1
        report = before.tune(judged, rerankers=["maxsim", "mmr"])
        assert report.choice.reranker == index.info()["fusion"]["reranker"] == "maxsim"
        seen = {encoder.seen[f"room {number + 16}"] for number in range(16)}
        assert seen == {len(judged)}  # each passage once for each query, whatever fusions there were to try
        assert place(before) == place(Retriever(index)) == 1
        assert "rerank" in index.search("Where is 13")[0].sources
        for other in (
            Retriever(index, reranker="none"),
            Retriever(index, fusion=absolute),
            Retriever(index, mode="dense"),
        ):
            assert "rerank" not in other.search("Where is 13")[0].sources
        assert before.tune(judged).choice.reranker is None  # tuned again without
        assert place(before) > 1
        with pytest.raises(InputError, match="list of names"):
            before.tune(judged, rerankers="maxsim")


def test_a_learned_reranker_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str, *_: object) -> Callable[[str, Sequence[Passage]], list[float]]:
        loaded.append(name)
        return lambda query, passages: [0.0] * len(passages)

    monkeypatch.setattr("semsearch.reranking.get_reranker", load)
    with Index(tmp_path / "index", encoder=Attentive()) as index:
        index.add([(f"d{number}", f"room {number}") for number in range(16)])
        index.learn(Choice(reranker="maxsim"))
        for _ in range(3):
            assert "rerank" in index.search("Where is 13")[0].sources
        assert loaded == ["maxsim"]
        assert "rerank" not in index.search("Where is 13", mode="dense")[0].sources
        index.learn(Choice(reranker="mmr"))
        index.search("Where is 13")
        index.encoder = Attentive()  # the reranker may use the encoder
        index.search("Where is 13")
        assert loaded == ["maxsim", "mmr", "mmr"]
        index.learn(Choice())
        assert "rerank" not in index.search("Where is 13")[0].sources
        for wrong in ("sparse", None, ["dense"]):
            with pytest.raises(InputError, match="is not known"):
                index.search("Where is 13", mode=wrong)  # type: ignore[arg-type]
    assert not index._retrievers


def test_what_is_said_once_is_said_once_for_searches_of_an_index(tmp_path: Path) -> None:
    with Index(tmp_path / "index", encoder=Latin()) as index:
        index.add([("a", "room 1"), ("b", "комната 2")])
        with pytest.warns(UserWarning, match="know the script"):
            index.search("комната 2")
        assert index.search("комната 2")  # a second warning would be an error here


def test_a_reranker_says_how_many_passages_it_looks_at(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting:
        depth = 5

        def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
            seen.append(len(passages))
            return [0.0] * len(passages)

    with Index(tmp_path / "index", encoder=Contrary()) as index:
        index.add([(f"d{number}", f"room {number}") for number in range(16)])
        retriever = Retriever(index, reranker=Counting())
        assert [len(retriever.search("room 3", k=k)) for k in (2, 5, 9)] == [2, 5, 9]
    assert seen == [5, 5, 9]


def test_only_hybrid_search_is_tuned(tmp_path: Path) -> None:
    with Index(tmp_path / "index", encoder=Contrary()) as index:
        index.add([("d1", "room 1")])
        with pytest.raises(InputError, match="one leg"):
            Retriever(index, mode="lexical").tune(JUDGED)
        with pytest.raises(InputError, match="1 judged queries are too few"):
            Retriever(index).tune(JUDGED)

"""The encoder and the reader of the package as judges of sentences that the words alone do not settle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from semsearch.citing import AnswerStream
from semsearch.extraction import Span
from semsearch.grounding import Case, cite
from semsearch.judging import NEAR, Judge
from semsearch.records import Hit, Passage

HOURS = "The library opens at ten in the morning and closes at nine in the evening."
FEES = "Books that are late cost 20 cents a day. The director may waive the charge for children."
LUTHER = "In 1521 Luther was excommunicated by Pope Leo X and condemned as an outlaw by the Emperor."


def hits(*texts: str) -> list[Hit]:
    return [Hit(Passage(i, f"{i}.md", text, 5, 5 + len(text)), 1.0, i) for i, text in enumerate(texts, start=1)]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def supported(claim: str, judge: Judge | None, question: str = "") -> bool:
    (sentence,) = cite(claim, hits(HOURS, FEES, LUTHER), question=question, judge=judge)
    return sentence.supported


def test_a_word_exchanged_for_one_that_means_something_else(judge: Judge) -> None:
    assert supported("Books that are late cost 20 cents a banana.", None)
    assert not supported("Books that are late cost 20 cents a banana.", judge)


def test_a_word_exchanged_for_one_that_means_the_same(judge: Judge) -> None:
    claim = "The director may waive the fee for children."
    assert supported(claim, None)
    assert supported(claim, judge)


def test_an_answer_in_other_words_that_the_reader_gives_as_well(judge: Judge) -> None:
    question = "Who excommunicated Luther?"
    assert supported("Pope Leo X excommunicated Luther.", judge, question)
    assert not supported("The Emperor excommunicated Luther.", judge, question)


def test_a_wrong_answer_in_the_words_of_the_passage(judge: Judge) -> None:
    found = hits("It was not until January 1518 that friends of Luther translated the theses. Copies spread quickly.")
    question = "Who translated the theses?"
    for claim, right in (("Friends of Luther translated the theses.", True), ("Copies translated the theses.", False)):
        assert cite(claim, found, question=question)[0].supported
        assert cite(claim, found, question=question, judge=judge)[0].supported == right


@pytest.mark.parametrize(
    "claim",
    [
        "Books that are late cost 25 cents a day.",
        "Luther was excommunicated by Pope Leo X in 1522.",
        "In 1521 Calvin was excommunicated by Pope Leo X.",
        "Books that are late do not cost 20 cents a day.",
        "Luther was not excommunicated by Pope Leo X.",
    ],
)
def test_numbers_names_and_negations_are_not_the_judges_business(claim: str) -> None:
    asked = []

    class Generous:
        """Supports whatever it is asked about."""

        def support(self, case: Case) -> float:
            asked.append(case)
            return 1.0

    assert not cite(claim, hits(HOURS, FEES, LUTHER), judge=Generous())[0].supported
    assert asked == []


def test_the_signs_of_a_case(judge: Judge) -> None:
    case = Case("A late book costs money.", FEES, 0, 40, "", frozenset({"money"}), 0.75, 0.75, True)
    signs = judge.signs(case)
    # Three of four words occur; the fourth counts as much as it is near.
    assert signs.covered == pytest.approx((3 + signs.near) / 4)
    assert -1 <= signs.near < 1
    assert (signs.about, signs.agrees) == (0.0, None)
    none_missing = judge.signs(case._replace(missing=frozenset()))
    assert (none_missing.near, none_missing.covered) == (1.0, 1.0)


def test_a_near_word_is_nearer_than_a_far_one(judge: Judge) -> None:
    def near(claim: str, missing: str) -> float:
        return judge.signs(Case(claim, HOURS, 0, len(HOURS), "", frozenset({missing}), 0.8, 0.8, True)).near

    assert near("The library shuts at nine in the evening.", "shut") > NEAR
    assert near("The library bananas at nine in the evening.", "banana") < NEAR


def test_the_score_of_a_citation_that_was_judged(judge: Judge) -> None:
    (sentence,) = cite("The director may waive the fee for children.", hits(FEES), judge=judge)
    (citation,) = sentence.citations
    assert 0 < citation.score <= 1
    assert ("#" * 5 + FEES)[citation.start : citation.end] == "The director may waive the charge for children."


def test_a_reader_of_the_users_own() -> None:
    questions = set()

    class First:
        name = "first"

        def read(self, question: str, texts: Sequence[str]) -> list[Span]:
            questions.add(question)
            return [Span(0, texts[0].index("the Emperor"), texts[0].index("the Emperor") + 11, 3.0)]

    assert not supported("Pope Leo X excommunicated Luther.", Judge(reader=First()), "Who excommunicated Luther?")
    assert questions == {"Who excommunicated Luther?"}


def test_a_script_that_the_encoder_does_not_know_keeps_the_verdict_of_its_words(judge: Judge) -> None:
    found = hits("逾期图书每天罚款两元。图书馆星期日不开放。")
    text = "图书馆星期日不开放。图书馆星期日开放。"
    assert [s.supported for s in cite(text, found, judge=judge)] == [s.supported for s in cite(text, found)]


def test_an_answer_takes_the_judge(judge: Judge) -> None:
    stream = AnswerStream(
        ["The director may waive the fee. ", "Late books cost 20 cents a banana."], hits(FEES), judge=judge
    )
    assert [sentence.supported for sentence in stream.answer.sentences] == [True, False]
    assert 0 < stream.answer.score < 1


def test_a_long_passage_is_judged_by_what_stands_around_the_evidence(judge: Judge) -> None:
    filler = "The shelves of the reading room hold atlases and newspapers of many years. " * 60
    for claim, right in (
        ("The director may waive the fee for children.", True),
        ("Books that are late cost 20 cents a banana.", False),
    ):
        assert cite(claim, hits(filler + FEES + " " + filler), judge=judge)[0].supported == right


def test_nothing_is_loaded_where_the_words_settle_it() -> None:
    code = """
import json, sys
from semsearch.grounding import cite
from semsearch.judging import Judge
from semsearch.records import Hit, Passage
text = "Books that are late cost 20 cents a day."
hit = Hit(Passage(1, "a", text, 0, len(text)), 1.0, 1)
judge = Judge()
said = [cite(claim, [hit], judge=judge)[0].supported for claim in (text, "Books that are late cost 30 cents a day.")]
print(json.dumps([said, sorted({"onnxruntime", "tokenizers", "torch"} & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[True, False], []]

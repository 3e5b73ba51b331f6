"""Conversations: what is searched for, what is remembered, and which rewording of a model is taken."""

from __future__ import annotations

import pytest

from semsearch.chat import Chat, checked_rewording
from semsearch.errors import InputError
from semsearch.reading import Answerer
from semsearch.records import Hit, Passage

TEXTS = {
    "bridge": "The Tower Bridge was built by Horace Jones. The Tower Bridge was finished in 1894.",
    "library": "The library was built by Ada Fenwick. The library was finished in 1854.",
}


class ByWords:
    """A retriever that finds the texts with a word of the query, and remembers the queries."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, query, k=10, where=None):
        self.asked.append(query)
        found = [text for name, text in TEXTS.items() if name in query.lower()]
        return [Hit(Passage(i, "d", text, 0, len(text)), 1.0, i) for i, text in enumerate(found[:k], start=1)]


class Finder:
    """An extractive reader that knows persons and years."""

    name = "finder"

    def read(self, question, texts):
        words = ("Horace Jones", "Ada Fenwick") if question.startswith("Who") else ("1894", "1854")
        found = [(i, text.find(word), word) for i, text in enumerate(texts) for word in words]
        return [(i, at, at + len(word), 0.9) for i, at, word in found if at >= 0]


class Says:
    """A generative reader that says what it was told to, and notes what it was asked."""

    name = "says"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked: list[str] = []

    def stream(self, question, passages):
        self.asked.append(question)
        for piece in self.texts.pop(0).split(" "):
            yield f"{piece} "


def chat() -> tuple[Chat, ByWords]:
    retriever = ByWords()
    return Answerer(retriever, Finder()).chat(), retriever


def test_a_follow_up_is_searched_for_as_a_question_of_its_own():
    talk, retriever = chat()
    assert talk.ask("Who built the Tower Bridge?").text == "Horace Jones"
    assert talk.ask("When was it finished?").text == "1894"
    assert talk.ask("And the library?").text == "1854"
    assert talk.ask("Who built it?").text == "Ada Fenwick"
    wanted = [
        "Who built the Tower Bridge?",
        "When was the Tower Bridge finished?",
        "When was the library finished?",
        "Who built the library?",
    ]
    assert retriever.asked == wanted
    assert [turn.rewritten for turn in talk.turns] == wanted
    assert [turn.question for turn in talk.turns][1:3] == ["When was it finished?", "And the library?"]
    assert [turn.answer.text for turn in talk.turns] == ["Horace Jones", "1894", "1854", "Ada Fenwick"]
    assert "When was it finished?  (searched for: When was the Tower Bridge finished?)" in str(talk.turns[1])


def test_only_the_latest_turns_are_kept():
    talk = Answerer(ByWords(), Finder()).chat(turns=2)
    for question in ("Who built the library?", "When?", "Who built the Tower Bridge?"):
        talk.ask(question)
    assert [turn.question for turn in talk.turns] == ["When?", "Who built the Tower Bridge?"]
    talk.clear()
    assert talk.turns == ()
    assert talk.rewrite("When was it built?") == "When was it built?"


@pytest.mark.parametrize("turns", [0, -1, True, 1.5])
def test_how_many_turns_are_kept_is_a_positive_integer(turns):
    with pytest.raises(InputError, match="turns is the number of turns"):
        Answerer(ByWords(), Finder()).chat(turns=turns)


def test_chats_of_one_answerer_know_nothing_of_each_other():
    answerer = Answerer(ByWords(), Finder())
    first, second = answerer.chat(), answerer.chat()
    first.ask("Who built the Tower Bridge?")
    second.ask("Who built the library?")
    assert first.ask("When was it finished?").text == "1894"
    assert second.ask("When was it finished?").text == "1854"


def test_a_question_that_fails_is_not_remembered():
    talk, _ = chat()
    with pytest.raises(InputError, match="empty"):
        talk.ask(" ")
    assert talk.turns == ()


def test_a_streamed_turn_is_remembered_when_it_ends():
    talk, _ = chat()
    stream = talk.stream("Who built the Tower Bridge?")
    assert talk.turns == ()
    assert list(stream) == ["Horace Jones"]
    assert [turn.answer.text for turn in talk.turns] == ["Horace Jones"]
    assert talk.stream("When was it finished?").answer.text == "1894"
    assert len(talk.turns) == 2
    assert stream.answer.text == "Horace Jones"  # asking again adds no turn
    assert len(talk.turns) == 2


def test_a_stream_that_is_left_counts_with_what_came_until_then():
    said = Says(TEXTS["bridge"], TEXTS["bridge"])
    talk = Answerer(ByWords(), said).chat()
    stream = talk.stream("Who built the Tower Bridge?")
    for _, piece in zip(range(8), stream, strict=False):
        assert piece
    answer = talk.ask("When was it finished?")  # the first is closed by the second
    assert talk.turns[0].answer.text == "The Tower Bridge was built by Horace Jones."
    assert answer.text == TEXTS["bridge"]
    assert said.asked[1] == "When was the Tower Bridge finished?"
    assert list(stream) == []


def test_a_model_is_asked_only_where_the_rules_find_nothing():
    said = Says("Nothing is known.")
    talk = Answerer(ByWords(), said).chat()
    assert not talk.ask("library")  # no answer, and no phrase that "it" could stand for
    said.texts = ["When was the library finished?"]
    assert talk.rewrite("When was it finished?") == "When was the library finished?"
    assert "“When was it finished?”" in said.asked[-1]
    said.texts = ["When was Rome finished?"]
    assert talk.rewrite("When was it finished?") == "When was it finished?"  # nobody said Rome
    said.texts = []
    assert talk.rewrite("When does the library open?") == "When does the library open?"
    assert talk.rewrite("And on Sundays?") == "Library on Sundays"
    assert len(said.asked) == 3


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("When was the bridge built?", True),
        ("“When was the bridge built?” That is the question.", True),
        ("When was Rome built?", False),  # nobody said Rome
        ("When was it built?", False),  # nothing new
        ("Who knows the bridge?", False),  # not the question
        ("When was the bridge built.", False),
        ("", False),
    ],
)
def test_a_rewording_has_no_word_that_nobody_said(text, good):
    reworded = checked_rewording(text, "When was it built?", ["Who knows the bridge?", "Ada"])
    assert (reworded is not None) == good
    if good:
        assert reworded == "When was the bridge built?"

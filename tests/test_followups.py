"""Follow-up questions, rewritten by rules; each expected wording is written by hand."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.followups import depends, phrases, standalone
from semsearch.wording import denials, words

BRIDGE = [("Who built the Tower Bridge?", "Horace Jones")]
DVD = [("How much is the late fee for a DVD?", "60p a day")]
CAFE = [("When does the café open on Mondays?", "at nine")]
RUNS = [("Who runs the café?", "Ada Fenwick")]
BOOKS = [("How long can books be borrowed?", "three weeks")]
RIVER = [("Which river does the Tower Bridge cross?", "the Thames")]


@pytest.mark.parametrize(
    ("said", "question", "wanted"),
    [
        # things
        (BRIDGE, "When was it built?", "When was the Tower Bridge built?"),
        (BRIDGE, "What is its length?", "What is the Tower Bridge's length?"),
        (BRIDGE, "And how many cars cross it?", "How many cars cross the Tower Bridge?"),
        (DVD, "When is it charged?", "When is the late fee for a DVD charged?"),
        (RIVER, "When was it built?", "When was the Tower Bridge built?"),
        ([("In which year was the library built?", "1854")], "Who designed it?", "Who designed the library?"),
        ([("What does Ada sell?", "a paper map")], "How much is it?", "How much is a paper map?"),
        ([("Who wrote Hamlet?", "Shakespeare")], "When was it written?", "When was Hamlet written?"),
        ([("What is photosynthesis?", "a process")], "Where does it happen?", "Where does photosynthesis happen?"),
        (BOOKS, "Can they be renewed?", "Can books be renewed?"),
        (
            [("Who are the members of the board?", "")],
            "When do they meet?",
            "When do the members of the board meet?",
        ),
        # persons
        (BRIDGE, "Where was he born?", "Where was Horace Jones born?"),
        (RUNS, "Does she live here?", "Does Ada Fenwick live here?"),
        (RUNS, "What is her phone number?", "What is Ada Fenwick's phone number?"),
        (RUNS, "Who employed her?", "Who employed Ada Fenwick?"),
        # from sentences
        (
            [("Who built the Tower Bridge?", "The Tower Bridge was built by Horace Jones in 1894.")],
            "Where was he born?",
            "Where was Horace Jones born?",
        ),
        ([("library finished", "The library was finished in 1854.")], "Is it big?", "Is the library big?"),
        # places
        ([("Where is the archive?", "on the second floor")], "Who works there?", "Who works on the second floor?"),
        ([("Where was Ada born?", "Elverstone")], "Who else lives there?", "Who else lives in Elverstone?"),
        # what was left out
        (DVD, "And for a laptop?", "How much is the late fee for a laptop?"),
        (DVD, "What about a laptop?", "How much is the late fee for a laptop?"),
        (DVD, "How about laptops?", "How much is the late fee for laptops?"),
        (CAFE, "And at weekends?", "When does the café open at weekends?"),
        (CAFE, "And the library?", "When does the library open on Mondays?"),
        ([("When does the café open?", "at nine")], "On Sundays?", "When does the café open on Sundays?"),
        (BOOKS, "And films?", "How long can films be borrowed?"),
        (BRIDGE, "And the London Eye?", "Who built the London Eye?"),
        (CAFE, "Why?", "Why does the café open on Mondays?"),
        (CAFE, "Since when?", "Since when does the café open on Mondays?"),
        ([("Why is the building closed?", "")], "Until when?", "Until when is the building closed?"),
        # named before
        (BRIDGE, "How long is the bridge?", "How long is the Tower Bridge?"),
    ],
)
def test_a_follow_up_becomes_a_question_of_its_own(said, question, wanted):
    assert standalone(question, said) == wanted
    assert standalone(wanted, said) == wanted


@pytest.mark.parametrize(
    "question",
    [
        "When does the library close on Sundays?",
        "Is there a café?",
        "How much does it cost to join?",
        "Which fee is due on that day?",
        "When does the library open its doors?",
        "Who owns the London Eye and when was it built?",
        "Und wann?",
        "它是什么时候建的？",
        "late fees",
        "",
        "?",
        "it " * 200,
    ],
)
def test_what_stands_alone_stays_as_it_is(question):
    assert standalone(question, BRIDGE) == question
    assert not depends(question)


def test_without_anything_said_nothing_changes():
    assert standalone("When was it built?", []) == "When was it built?"
    assert depends("When was it built?")
    # Nothing in what was said can be "it".
    assert standalone("When was it built?", [("Why?", "")]) == "When was it built?"


def test_the_latest_that_fits_is_taken():
    said = [*BRIDGE, *RUNS, ("When does the café open?", "at nine")]
    assert standalone("Is she tall?", said) == "Is Ada Fenwick tall?"
    assert standalone("Is it full?", said) == "Is the café full?"
    assert standalone("Is she tall?", [("Who is the librarian?", "")]) == "Is the librarian tall?"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Who built the Tower Bridge?", [("the Tower Bridge", "name")]),
        ("Is the fee for a large DVD on Sundays?", [("the fee", "the"), ("a large DVD", "a"), ("Sundays", "name")]),
        ("When was the old bridge of the town built?", [("the old bridge of the town", "the")]),
        ("Horace Jones", [("Horace Jones", "name")]),
        ("What is photosynthesis?", [("photosynthesis", "")]),
        ("Why?", []),
    ],
)
def test_phrases_are_runs_of_words_between_function_words(text, found):
    assert [(phrase.text, phrase.kind) for phrase in phrases(text)] == found
    assert all(text[phrase.start : phrase.end] == phrase.text for phrase in phrases(text))


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=30))
def test_any_strings_are_accepted(question, before, answer):
    assert isinstance(standalone(question, [(before, answer)]), str)


WORDS = "and what about it the of Why ? when does The café Bridge his , there on a"


@given(st.lists(st.sampled_from(sorted(WORDS.split()))))
def test_any_words_are_accepted(words):
    """A rewritten question has no word that nobody said."""
    new = standalone(" ".join(words), BRIDGE)
    said = " ".join([*words, *BRIDGE[0], "in", "s"])  # "in" for there, "s" of a possessive
    assert set(re.findall(r"\w+", new.casefold())) <= set(re.findall(r"\w+", said.casefold()))


def test_a_long_or_hostile_earlier_question_takes_no_time() -> None:
    begun = time.perf_counter()
    for asked in ("?" * 200_000 + "x", "which " * 50_000, "Is the big bridge in old Rome? " * 9_000):
        assert standalone("And on Sundays?", [(asked, "")]) == "And on Sundays?"
        assert standalone("When was it built?", [("Who knows the Tower Bridge?", "Ada"), (asked, "")]) == (
            "When was the Tower Bridge built?"
        )
    assert standalone("And on Sundays?", [("When does it open? !.\n", "")]) == "When does it open on Sundays? !.\n"
    assert time.perf_counter() - begun < 2


def test_denials_are_found_in_linear_time() -> None:
    found = words("not " * 50_000 + "open")
    begun = time.perf_counter()
    assert denials(found) == [["open"]] * 50_000
    assert time.perf_counter() - begun < 2
    assert denials(words("Dogs are not")) == [["dog"]]
    assert denials(words("not a red big old late dog")) == [["red", "big", "old"]]

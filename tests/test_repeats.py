"""What a model says again: dropped or ended, the same however the text comes, and nothing else touched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.citing import AnswerStream
from semsearch.records import Hit, Passage
from semsearch.repeats import LIKELY, RUN, only_repeats, without_repeats

CAR = "The library lends no cars at all."
BUS = "A bus stops right before the door."
ASK = "Ask at the desk."


def said(*pieces: str) -> str:
    return "".join(without_repeats(pieces))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{CAR} {BUS} {CAR} {ASK}", f"{CAR} {BUS} {ASK}"),
        (f"{CAR} {CAR} {CAR} {BUS}", CAR),  # two repeats in a row end it
        (f"{CAR} {BUS} {CAR} {BUS} {ASK}", f"{CAR} {BUS}"),
        (f"{CAR} {BUS} {CAR} It is new now, this one. {BUS} {ASK}", f"{CAR} {BUS} It is new now, this one. {ASK}"),
        (f"1. {CAR}\n2. {CAR}\n3. {BUS}", f"1. {CAR}\n3. {BUS}"),
        (f"- {CAR}\n- {CAR}\n- {CAR}\n- {BUS}", f"- {CAR}"),
        (f"{CAR} [1] {BUS} [2] {CAR.replace('cars', '**cars**')} [3, 1] {ASK}", f"{CAR} [1] {BUS} [3, 1] {ASK}"),
        (f"- {CAR[:-1]}  \n- {CAR[:-1]}  \n- {BUS}", f"- {CAR[:-1]}    \n- {BUS}"),
        (f"{CAR.upper()} {CAR} {BUS}", f"{CAR.upper()} {BUS}"),
        (f"{CAR} {BUS} The library lends no cars", f"{CAR} {BUS}"),  # cut off by the limit of length
        (
            "图书馆不出借汽车。门前有公共汽车站。图书馆不出借汽车。请询问。",
            "图书馆不出借汽车。门前有公共汽车站。请询问。",
        ),
    ],
)
def test_a_sentence_that_was_said_is_dropped(text: str, kept: str) -> None:
    assert said(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Books: Free. Films: Free. Games: Free.",
        "Is it open? Yes. Is it free? Yes. Is it new? Yes. May I go? Yes.",
        "1. Yes\n2. Yes\n3. Yes\n4. No",
        f"# Alder Room\n\n{CAR} {BUS}\n\n# Birch Room\n\n{CAR} {BUS}",
        f"By day:\n\n{CAR} {BUS}\n\nAt night:\n\n{CAR} {BUS}",
        f"{CAR} {BUS} The library lends no cars, but bicycles.",
        f"{CAR} {BUS} The library",
        "Use the first element, a[1], of it. Use the first element, a[2], of it.",
        "It is written in the language C. It is written in the language C++.",
        "| Monday | 9 to 17 | closed |\n| Tuesday | 9 to 17 | closed |\n| --- | --- | --- |",
        "0, 0, 0, 0, 0, 0, 0, 0",
        "a\u2028b\x00c\ud800 d",
    ],
)
def test_nothing_else_is_touched(text: str) -> None:
    assert said(text) == text
    assert said(*text) == text


@pytest.mark.parametrize(
    ("before", "unit"),
    [
        ("It is open on ", "Monday, 9:30, Tuesday, 10:00, "),
        (
            "It is closed on ",
            "Monday, 9:30, Tuesday, 10:00, Wednesday, 13:00, Thursday, 16:00, Friday, 10:00 and then ",
        ),
        ("", "very "),
        ("Hm", "!"),
        ("图书馆", "开放时间是"),
        ("Fees\n", "- Other: £1\n"),
    ],
)
def test_a_run_that_comes_again_and_again_ends_the_text(before: str, unit: str) -> None:
    taken = 0

    def pieces() -> Iterator[str]:
        nonlocal taken
        yield before
        for _ in count():
            taken += len(unit)
            yield unit

    text = "".join(without_repeats(pieces()))
    assert (before + unit * 300).startswith(text)
    signs = 1 if unit[0].isalnum() or unit[0] == "-" else 3
    assert taken <= 2 * len(unit) + signs * 2 * RUN + 32
    # Of what only repeats the first unit a little more than LIKELY characters were given out.
    assert len(before) + len(unit) - 1 <= len(text) <= len(before) + len(unit) + signs * (LIKELY + 32)


def test_numbered_lines_are_a_run_too() -> None:
    lines = (f"{n}. Other: £1.50\n" for n in count(1))
    text = "".join(without_repeats(lines))
    assert text.startswith("1. Other: £1.50\n2. Other")
    assert text.count("Other") <= 5


def test_a_run_that_does_not_go_on_is_given_out() -> None:
    text = f"It goes {'left, right, ' * 5}and then straight on to the river. {ASK}"
    assert said(text) == said(*text) == text


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [CAR, BUS, ASK, "\n\n", " ", "  \n", "\n- ", CAR[:-1], "Yes.", "# A\n\n", "2. ", "x, ", "[1]", "é", "a b "]
        )
    ),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_how_the_text_is_cut_makes_no_difference(parts: list[str], sizes: list[int]) -> None:
    text = "".join(parts)
    cut, start = [], 0
    for i in count():
        size = sizes[i % len(sizes)]
        cut.append(text[start : start + size])
        start += size
        if start >= len(text):
            break
    assert said(*cut) == said(text)


@settings(deadline=None)
@given(st.text(max_size=400))
def test_what_is_left_out_is_all_that_changes(text: str) -> None:
    kept = iter(text)
    assert all(character in kept for character in said(text))  # a subsequence


def test_the_text_comes_at_once() -> None:
    stream = without_repeats(["The ", "library ", "lends ", "no cars at all. ", "The ", "bus ", "stops."])
    assert [next(stream), next(stream), next(stream)] == ["The ", "library ", "lends "]
    # "The" begins as a sentence that was said does; "bus" shows that it is another one.
    assert list(stream) == ["no cars at all.", " The bus ", "stops."]


def test_a_long_text_takes_little_time() -> None:
    text = " ".join(str(n) for n in range(40_000))
    assert said(text) == text


def test_only_repeats() -> None:
    assert only_repeats(f"{CAR} {CAR} {CAR} {ASK}")
    assert not only_repeats(f"{CAR} {BUS} {CAR} {ASK}")


def test_an_answer_has_no_repeats_and_its_reader_is_stopped() -> None:
    stopped = []

    def reader() -> Iterator[str]:
        try:
            while True:
                yield from (f"{word} " for word in f"{CAR} {BUS}".split())
        finally:
            stopped.append(True)

    hit = Hit(Passage(1, "a.md", f"{CAR} {BUS}", 0, len(CAR) + len(BUS) + 1), 1.0, 1)
    stream = AnswerStream(reader(), [hit], strict=True)
    assert "".join(stream).strip() == f"{CAR} {BUS}"
    assert stopped == [True]
    assert stream.answer.text == f"{CAR} {BUS}"
    assert [sentence.supported for sentence in stream.answer.sentences] == [True, True]

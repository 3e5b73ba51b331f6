"""Packing passages into a prompt: by rank, whole sentences, neighbours as one, nothing twice, every slice exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.packing import join, pack
from semsearch.records import Passage
from semsearch.sentences import sentences

DOCUMENT = "One is first. Two is second. 三是第三。四是第四。 Five, e.g. the fifth, is 5.5 long! Six"


def length(number: int, text: str) -> int:
    """What a block costs here: its characters and four for its frame."""
    return len(text) + 4


def slice_of(document: str, start: int, end: int, id: int = 0, name: str = "a.md") -> Passage:
    return Passage(id, name, document[start:end], start, end, page=1 + start // 40, metadata={"heading": str(id)})


def texts(passages: tuple[Passage, ...]) -> list[str]:
    return [passage.text for passage in passages]


# --- What fits -------------------------------------------------------------------------------------------------------


def test_all_fit_in_their_order() -> None:
    given = [Passage(1, "a", "Aa.", 0, 3), Passage(2, "b", "Bb.", 0, 3)]
    packed = pack(given, 14, length)
    assert (packed.numbers, packed.used, packed.left_out) == ((1, 2), tuple(given), ())
    assert packed.context.used == tuple(given)
    assert packed.context.left_out == ()


def test_the_first_that_does_not_fit_is_cut_after_a_sentence_and_what_is_behind_it_left_out() -> None:
    given = [Passage(1, "a", "Aa.", 7, 10), Passage(2, "b", "Bb. Cc. Dd eeee.", 5, 21), Passage(3, "c", "F.", 0, 2)]
    # 7 for the first, 7, 11 or 20 for the second and 6 for the third.
    assert pack(given, 33, length).left_out == ()
    for room in (18, 24, 26):  # at 24 there would be room for the third
        packed = pack(given, room, length)
        assert packed.used == (given[0], Passage(2, "b", "Bb. Cc.", 5, 12))
        assert packed.left_out == (Passage(2, "b", " Dd eeee.", 12, 21), given[2])
    assert texts(pack(given, 17, length).used) == ["Aa.", "Bb."]
    assert texts(pack(given, 27, length).left_out) == ["F."]


def test_a_passage_whose_first_sentence_does_not_fit_is_left_out_by_itself() -> None:
    given = [Passage(1, "a", "Much too long for it.", 0, 21), Passage(2, "b", "Bb.", 0, 3)]
    packed = pack(given, 8, length)
    assert (packed.numbers, packed.used, packed.left_out) == ((2,), (given[1],), (given[0],))


def test_nothing_fits() -> None:
    packed = pack([Passage(1, "a", "Aa.", 0, 3)], 6, length)
    assert (packed.used, texts(packed.left_out)) == ((), ["Aa."])


def test_no_passages_and_blank_ones() -> None:
    assert pack([], 10, length).used == ()
    packed = pack([Passage(1, "a", " \n", 0, 2), Passage(2, "a", "A.", 9, 11)], 10, length)
    assert (packed.numbers, texts(packed.used), packed.left_out) == ((2,), ["A."], ())


# --- Duplicates ------------------------------------------------------------------------------------------------------


def test_a_text_that_was_seen_before_is_dropped_whatever_its_white_space() -> None:
    given = [
        Passage(1, "a", "Late  fees\nare 20 cents.", 0, 24),
        Passage(2, "b", "Late fees are 20 cents. ", 50, 74),
        Passage(3, "b", "Late fees are 25 cents.", 90, 113),
    ]
    packed = pack(given, 100, length)
    assert (packed.numbers, packed.used, packed.left_out) == ((1, 3), (given[0], given[2]), ())


# --- Neighbours ------------------------------------------------------------------------------------------------------


def test_passages_that_touch_are_one_block_with_the_number_and_id_of_the_better_and_the_page_of_the_earlier() -> None:
    document = "First half. Second half."
    late, early = replace(slice_of(document, 11, 24, id=1), page=2), slice_of(document, 0, 11, id=2)
    other = Passage(9, "b.md", "Other.", 0, 6)
    packed = pack([late, other, early], 100, length)
    assert packed.numbers == (1, 2)
    assert packed.used == (Passage(1, "a.md", document, 0, 24, page=1, metadata={"heading": "1"}), other)


def test_passages_that_overlap_in_the_same_text_are_one_block() -> None:
    packed = pack([slice_of(DOCUMENT, 0, 28), slice_of(DOCUMENT, 14, 40)], 100, length)
    assert texts(packed.used) == [DOCUMENT[:40]]


def test_a_passage_between_two_others_joins_all_three() -> None:
    parts = [slice_of(DOCUMENT, 0, 13, id=1), slice_of(DOCUMENT, 28, 36, id=2), slice_of(DOCUMENT, 13, 28, id=3)]
    packed = pack(parts, 100, length)
    assert (packed.numbers, packed.used[0].id, texts(packed.used)) == ((1,), 1, [DOCUMENT[:36]])


def test_a_passage_inside_another_adds_nothing() -> None:
    for order in ((0, 28, 14, 28), (14, 28, 0, 28)):
        packed = pack([slice_of(DOCUMENT, *order[:2]), slice_of(DOCUMENT, *order[2:])], 100, length)
        assert (packed.numbers, texts(packed.used)) == ((1,), [DOCUMENT[:28]])


@pytest.mark.parametrize(
    "other",
    [
        slice_of(DOCUMENT, 14, 28),  # one character between them, which is not known
        slice_of(DOCUMENT, 13, 28, name="b.md"),  # another document
        replace(slice_of(DOCUMENT, 10, 28), text="#" * 18),  # another text where they overlap
        replace(slice_of(DOCUMENT, 13, 28), end=99),  # offsets that do not fit the text
    ],
)
def test_what_is_not_seen_to_be_one_slice_stays_apart(other: Passage) -> None:
    first = slice_of(DOCUMENT, 0, 13)
    assert join(first, other) is None
    assert join(other, first) is None
    assert pack([first, other], 100, length).used == (first, other)


def test_plain_strings_are_no_slices_of_one_document() -> None:
    given = [Passage(0, "", "One", 0, 3), Passage(0, "", "One two", 0, 7)]
    assert pack(given, 100, length).used == tuple(given)


def test_joining_saves_room_for_what_else_would_be_cut() -> None:
    given = [slice_of(DOCUMENT, 0, 13), slice_of(DOCUMENT, 13, 28)]
    assert pack(given, 32, length).left_out == ()  # 28 characters and one frame
    cut = pack(given, 31, length)
    assert (texts(cut.used), texts(cut.left_out)) == ([DOCUMENT[:13]], [DOCUMENT[13:28]])


# --- Whatever is given -----------------------------------------------------------------------------------------------

places = st.integers(0, len(DOCUMENT))


@given(
    st.lists(st.tuples(places, places, st.sampled_from("ab")), max_size=6),
    st.integers(0, 120),
)
def test_every_block_is_an_exact_slice_and_all_fit_and_nothing_is_lost(
    spans: list[tuple[int, int, str]], room: int
) -> None:
    given = [slice_of(DOCUMENT, *sorted(span[:2]), id=i, name=span[2]) for i, span in enumerate(spans, start=1)]
    packed = pack(given, room, length)
    assert sum(length(0, passage.text) for passage in packed.used) <= room
    assert list(packed.numbers) == sorted(set(packed.numbers))
    for number, passage in zip(packed.numbers, packed.used, strict=True):
        assert passage.text == DOCUMENT[passage.start : passage.end]
        assert given[number - 1].document_id == passage.document_id
    for passage in packed.left_out:
        assert passage.text == DOCUMENT[passage.start : passage.end]
    # Every word that was given is shown or is known to be left out: in this place, or as the same text elsewhere.
    shown = {(p.document_id, i) for p in (*packed.used, *packed.left_out) for i in range(p.start, p.end)}
    known = {" ".join(passage.text.split()) for passage in given if covered(passage, shown)}
    assert all(" ".join(passage.text.split()) in {*known, ""} for passage in given)


def covered(passage: Passage, shown: set[tuple[str, int]]) -> bool:
    places = range(passage.start, passage.end)
    return all((passage.document_id, i) in shown or DOCUMENT[i].isspace() for i in places)


@given(st.integers(0, 100))
def test_what_is_cut_ends_with_a_sentence(room: int) -> None:
    packed = pack([slice_of(DOCUMENT, 0, len(DOCUMENT))], room, length)
    ends = [end for _, end in sentences(DOCUMENT)]
    fitting = [end for end in ends if end + 4 <= room]
    assert texts(packed.used) == ([DOCUMENT[: fitting[-1]]] if fitting else [])
    assert "".join(texts(packed.used + packed.left_out)) == DOCUMENT

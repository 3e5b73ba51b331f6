"""Sentences, the evidence for them, and citations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.citing import AnswerStream
from semsearch.grounding import Case, Mark, cite, take_marks
from semsearch.records import Citation, Context, Hit, Passage
from semsearch.sentences import sentences
from semsearch.wording import words

FEES = (
    "Late fees.\nA late book costs 20 cents a day, at most 8 euros for each book. "
    "Children under 14 are never charged late fees. Ms. Ada Brown waives fees on request."
)
HOURS = "Opening hours: the library opens at 10:00 on Monday and at 12:30 on Friday. It is not open on Sundays."


def hits(*texts: str, offset: int = 0) -> list[Hit]:
    passages = [
        Passage(i, f"{i}.md", text, offset, offset + len(text), page=i) for i, text in enumerate(texts, start=1)
    ]
    return [Hit(passage, 1.0, passage.id) for passage in passages]


def slices(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("One. Two! Three?! Four", ["One.", "Two!", "Three?!", "Four"]),
        ("It is 3.5 km, i.e. far. Go.", ["It is 3.5 km, i.e. far.", "Go."]),
        ("Dr. J. R. Smith met Mr. Lee. They spoke.", ["Dr. J. R. Smith met Mr. Lee.", "They spoke."]),
        ("See No. 5. He said no. Then left.", ["See No. 5.", "He said no.", "Then left."]),
        ('He said "stop." (Then he left.) Gone.', ['He said "stop."', "(Then he left.)", "Gone."]),
        ("A line\nbroken in two. And\nagain.", ["A line\nbroken in two.", "And\nagain."]),
        ("Steps:\n1. Open it.\n2. Read it.", ["Steps:", "1. Open it.", "2. Read it."]),
        ("- one\n- two\n\nrest", ["- one", "- two", "rest"]),
        ("今日は。明日も！「はい。」終", ["今日は。", "明日も！", "「はい。」", "終"]),
        ("Use semsearch.Index... It works.", ["Use semsearch.Index...", "It works."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert slices(text) == expected


@given(st.text(alphabet=st.sampled_from("aA1 .\n!?。」)\"'-#\ud800\0\f"), max_size=60))
def test_every_character_but_space_is_in_exactly_one_sentence(text: str) -> None:
    spans = sentences(text)
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    rest = "".join(text[b:c] for b, c in zip([0, *(b for _, b in spans)], [*(a for a, _ in spans), None], strict=True))
    assert rest.strip() == ""


@pytest.mark.parametrize("unit", [".", ".x", "\n", "\n ", "a. ", "。", '."', "1.\n", "[1", "[1,", "[[1]"])
def test_time_is_linear_in_the_text(unit: str) -> None:
    start = time.process_time()
    sentences(unit * 100_000)
    take_marks(unit * 100_000)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("unit", ["1", "1.", "-", "- 1", "$ ", "$1 ", "1a", "U. ", "US ", "united ", "May: ", "minus "])
def test_time_is_linear_in_the_sentence(unit: str) -> None:
    start = time.process_time()
    words(unit * 50_000)
    assert time.process_time() - start < 5


SUPPORTED = [
    "A late book costs 20 cents a day, at most 8 euros for each book.",  # copied
    "Late books cost 20 cents per day.",  # other endings, a part only
    "A late book costs twenty cents a day.",  # a number in words
    "Children under 14 are never charged late fees.",  # a negation on both sides
    "No late fees are charged for children under 14.",  # the same one in other words
    "Ms. Ada Brown waives fees.",
    "According to the passages, the library opens at 10:00 on Monday.",
    "The library isn't open on Sundays.",
]
UNSUPPORTED = [
    "A late book costs 25 cents a day, at most 8 euros for each book.",  # a number that is nowhere
    "A late book costs 8 cents a day, at most 20 euros for each book.",  # two numbers swapped
    "A late book costs 14 cents a day, at most 8 euros for each book.",  # a number of another sentence
    "Ms. Eve Brown waives fees on request.",  # a name that is nowhere
    "Mr. Green waives fees on request.",
    "The library opens at 12:30 on Monday and at 10:00 on Friday.",
    "The library opens at 10:00 on Friday.",
    "Children under 14 are charged late fees.",  # a negation dropped
    "A late book does not cost 20 cents a day.",  # a negation added
    "The library is open on Sundays.",
    "A lost card costs 20 cents.",  # too few of the words
    "Faust was written by Goethe.",
    "Yes.",  # says nothing that could be checked
    "Children over 14 are always charged late fees.",  # a negation for its opposite
    "Children under 14 are never charged early fees.",  # an opposite
    "Ms. Ada Brown waives fees on request, and the library is closed on Monday.",
    "The library closes at 10:00 on Monday.",
]


@pytest.mark.parametrize("text", SUPPORTED)
def test_supported(text: str) -> None:
    assert [sentence.supported for sentence in cite(text, hits(HOURS, FEES))] == [True]


@pytest.mark.parametrize("text", UNSUPPORTED)
def test_unsupported(text: str) -> None:
    assert [sentence.supported for sentence in cite(text, hits(HOURS, FEES))] == [False]


# What the claim says, and what the passage says instead.
OTHERWISE = [
    ("The fair opens in May.", "The fair opens in June."),  # names in the letters of function words
    ("The rent is due on 1 May.", "The rent is due on 1 March."),
    ("May is the hottest month.", "June is the hottest month."),
    ("The treaty was ratified by the US in 1990.", "The treaty was ratified by the UK in 1990."),
    ("The treaty was ratified by the U.S. in 1990.", "The treaty was ratified by the UK in 1990."),
    ("The printers are maintained by IT.", "The printers are maintained by HR."),
    ("The printers are maintained by IT.", "The printers are maintained by it."),
    ("The report was written by WHO.", "The report was written by UNICEF."),
    ("The work was done by Will Smith.", "The work was done by John Smith."),
    ("Will Smith did the work.", "John Smith did the work."),
    ("It is kept at -18 degrees.", "It is kept at 18 degrees."),  # a sign
    ("It is kept at 18 degrees.", "It is kept at −18 degrees."),
    ("It is kept at -18C.", "It is kept at 18C."),
    ("It costs -$5.", "It costs $5."),
    ("The dose is .5 grams.", "The dose is 5 grams."),  # a point
    ("The dose is 5 grams.", "The dose is .5 grams."),
    ("The dose is 5mg.", "The dose is 2.5mg."),
    ("It costs $20 a day.", "It costs €20 a day."),  # what is counted
    ("It costs €20 a day.", "It costs 20 dollars a day."),
    ("Prices rose by 5%.", "Prices rose by 5 points."),
    ("Prices rose by 5 per cent last year.", "Prices rose by 5 points last year."),
    ("It costs 10 million dollars.", "It costs 10 billion dollars."),  # how often it is counted
    ("It costs $10 million.", "It costs $10 billion."),
    ("The hall has three hundred seats.", "The hall has three thousand seats."),
    ("The toilets are on the second floor.", "The toilets are on the third floor."),  # the how many-th
    ("The first prize is a book.", "The second prize is a book."),
    ("The house has two floors.", "The house has a second floor."),
    ("Sales rose by 5% and rents by 7%.", "Sales rose by 7% and rents by 5%."),
]
# The same, written otherwise.
LIKEWISE = [
    ("You must NOT smoke.", "You must not smoke."),  # capitals for emphasis
    ("You must not smoke.", "You must NOT smoke."),
    ("Bring your card AND your passport.", "Bring your card and your passport."),
    ("Bring a card OR a passport.", "Bring a card or a passport."),
    ("I gave a book to IT.", "I gave A book to IT."),
    ("DO NOT USE IT WHEN WET.", "Do not use it when wet."),
    ("CALL US NOW.", "Call us now."),
    ("Call us now.", "CALL US NOW."),
    ("The report is by WHO.", "THE REPORT IS BY WHO."),
    ("IT maintains the printers.", "The IT maintains the printers."),
    ("The treaty was ratified by the US in 1990.", "The treaty was ratified by the U.S. in 1990."),
    ("The U.S. ratified the treaty.", "The United States of America ratified the treaty."),
    ("May contain nuts.", "It may contain nuts."),  # a verb
    ("- May be renewed twice.", "A book may be renewed twice."),
    ("**Renewal:** May be done twice.", "Renewal may be done twice."),
    ("Will be charged monthly.", "It will be charged monthly."),
    ("May 2nd is a holiday.", "2 May is a holiday."),
    ("It is kept at –18 degrees.", "It is kept at -18 degrees."),
    ("It is kept at minus 18 degrees.", "It is kept at −18 degrees."),
    ("The dose is 0.5 grams.", "The dose is .50 grams."),
    ("It takes 10 to 20 people.", "It takes 10-20 people."),  # no signs
    ("It takes 10–20 people.", "It takes 10 -20 people."),
    ("The war of 1914–18 was long.", "The war of 1914-18 was long."),
    ("It is of 2020-05-01, in mid-1990.", "It is of 2020-05-01, in mid-1990."),
    ("See pages 5 - 7.", "See pages 5-7."),
    ("- 5 items are lent.", "5 items are lent."),
    ("It costs 20 dollars a day.", "It costs $ 20 a day."),
    ("It costs $20 a day.", "It costs US$20 a day."),
    ("It costs $20 a day.", "It costs USD 20 a day."),
    ("It costs 20 € a day.", "It costs 20 euros a day."),
    ("It costs £20 a day.", "It costs 20 pounds a day."),
    ("It costs 10 million dollars.", "It costs $10 million."),
    ("It costs ten million euros.", "It costs €10 million."),
    ("Prices rose by 5%.", "Prices rose by 5 percent."),
    ("Prices rose by 5 per cent.", "Prices rose by 5 %."),
    ("The wait is 30 seconds.", "There is a 30-second wait."),
    ("First, open the lid.", "1. Open the lid."),
    ("Second, open the lid.", "2. Open the lid."),
]


@pytest.mark.parametrize(("claim", "passage"), OTHERWISE)
def test_names_like_function_words_and_all_of_a_number_are_compared(claim: str, passage: str) -> None:
    assert not any(sentence.supported for sentence in cite(claim, hits(passage)))


@pytest.mark.parametrize(("claim", "passage"), LIKEWISE)
def test_the_same_name_or_number_may_be_written_otherwise(claim: str, passage: str) -> None:
    assert [sentence.supported for sentence in cite(claim, hits(passage))] == [True]


@pytest.mark.parametrize("text", sorted({text for pair in OTHERWISE + LIKEWISE for text in pair}))
def test_a_copy_of_them_is_supported_with_the_best_score(text: str) -> None:
    (sentence,) = cite(text, hits(text))
    assert [citation.score for citation in sentence.citations] == [1.0]


def test_the_words_of_a_number() -> None:
    found = words("-5 to −.5, US$10.5 Million, 20 %, 12.5kg, 5元, 1914–18 and the 2nd")
    assert [word.key for word in found] == (
        ["-5", "-0.5", "10.5", "million", "$", "20", "%", "12.5kg", "5", "元", "1914", "18", "2"]
    )
    assert all(word.entity for word in found if word.key != "元")


def test_citations_have_exact_offsets_page_and_score() -> None:
    document = "#" * 40 + FEES
    # Content words: late, book, cost, 20, cent, day, week; all but "week" occur: 6 of 7.
    found = cite("Hm. A late book costs 20 cents a day or week.", hits("Other.", FEES, offset=40))
    assert [(sentence.text, sentence.start, sentence.end) for sentence in found] == [
        ("Hm.", 0, 3),
        ("A late book costs 20 cents a day or week.", 4, 45),
    ]
    start = 40 + FEES.index("A late")
    end = 40 + FEES.index(" Children")
    assert found[1].citations == (Citation("2.md", start, end, 2, pytest.approx(6 / 7)),)
    assert document[start:end] == "A late book costs 20 cents a day, at most 8 euros for each book."


def test_one_sentence_may_rest_on_two_of_a_passage_but_not_of_two_passages() -> None:
    first, second = "Ada Lovelace was a mathematician.", "She worked with Charles Babbage on an analytical engine."
    claim = "Ada Lovelace worked with Charles Babbage on an analytical engine."
    together = cite(claim, hits(f"{first} {second} She wrote notes."))[0]
    assert [(c.start, c.end) for c in together.citations] == [(0, len(first) + 1 + len(second))]
    assert not cite(claim, hits(first, second))[0].supported
    # "Eve" is not "Ada": no pronoun says that the second sentence is about her.
    assert not cite(claim, hits(f"{first} {second.replace('She', 'Eve')}"))[0].supported


def test_the_passage_that_the_model_names_comes_first_if_it_supports_the_sentence() -> None:
    same = "A late book costs 20 cents a day."
    found = hits(same, "Dogs are welcome.", "Fees: a late book costs 20 cents a day.")
    assert [c.document_id for c in cite(same, found)[0].citations] == ["1.md", "3.md"]
    assert [c.document_id for c in cite(same, found, marks=[Mark(len(same), 3)])[0].citations] == ["3.md", "1.md"]
    assert [c.document_id for c in cite(same, found, marks=[Mark(len(same), 2)])[0].citations] == ["1.md", "3.md"]


def test_the_question_chooses_between_equal_places() -> None:
    text = "Lending of films: one week is allowed. There are many rules here. Lending of books: one week is allowed."
    for asked in ("films", "books"):
        citation = cite("One week.", hits(text), question=f"How long may I keep {asked}?")[0].citations[0]
        assert asked in text[citation.start : citation.end]


def test_chinese() -> None:
    found = hits("逾期图书每天罚款两元。图书馆星期日不开放。")
    assert [s.supported for s in cite("图书馆星期日不开放。图书馆星期日开放。逾期图书每天罚款两元。", found)] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("text", "clean", "marks"),
    [
        ("It costs 20 cents [1].", "It costs 20 cents.", [(17, 1)]),
        ("It costs 20 cents.[2][13] Good.", "It costs 20 cents. Good.", [(18, 2), (18, 13)]),
        ("[1] First.\n[passage 2] Second. [passages 1, 3]", "First.\nSecond.", [(0, 1), (7, 2), (14, 1), (14, 3)]),
        ("In [2019] there was [a] x[1] and [] and [1", "In [2019] there was [a] x and [] and [1", [(25, 1)]),
        ("Use `names[0]`, as the text has it [1].", "Use `names[0]`, as the text has it.", [(34, 1)]),
    ],
)
def test_marks_are_taken_out_of_the_text(text: str, clean: str, marks: list[tuple[int, int]]) -> None:
    passage = Passage(1, "", "Use `names[0]`, please.", 0, 23)
    assert take_marks(text, [passage]) == (clean, marks)


def test_a_stream_gives_the_raw_pieces_and_then_a_checked_answer() -> None:
    found = hits(HOURS, FEES)
    stream = AnswerStream(iter(["A late book ", "costs 20 cents", " a day [2].", " It is", " blue. "]), found, "fee?")
    assert next(stream) == "A late book "
    assert list(stream) == ["costs 20 cents", " a day [2].", " It is", " blue.", " "]
    answer = stream.answer
    assert answer.text == "A late book costs 20 cents a day. It is blue."
    assert (answer.start, answer.end) == (None, None)
    assert answer.hit is found[1]
    # The first sentence is supported wholly, the second not at all.
    assert answer.score == pytest.approx(0.5)
    assert [(answer.text[s.start : s.end], s.supported) for s in stream.sentences] == [
        ("A late book costs 20 cents a day.", True),
        ("It is blue.", False),
    ]
    (citation,) = answer.citations
    assert FEES[citation.start : citation.end] == "A late book costs 20 cents a day, at most 8 euros for each book."


def test_the_answer_takes_what_is_still_to_come() -> None:
    assert AnswerStream(["Dogs ", "are welcome."], hits("Dogs are welcome.")).answer.text == "Dogs are welcome."


def test_nothing_supported_is_not_found() -> None:
    answer = AnswerStream(["Faust was written ", "by Goethe [1]."], hits(FEES)).answer
    assert (answer.found, answer.text, answer.score, answer.hit, answer.citations) == (False, "", 0.0, None, ())
    assert answer.alternatives[0].text == "Faust was written by Goethe."


@pytest.mark.parametrize("pieces", [[], ["", "  \n"]])
def test_no_text_is_not_found(pieces: list[str]) -> None:
    answer = AnswerStream(pieces, hits(FEES)).answer
    assert (answer.found, answer.alternatives) == (False, ())


def test_strict_leaves_out_what_is_not_supported() -> None:
    text = "Hm. A late book costs 20 cents a day [2].\n\nIt is blue. The library is not open on Sundays [1]. Yes."
    answer = AnswerStream([text], hits(HOURS, FEES), strict=True).answer
    assert answer.text == "A late book costs 20 cents a day. The library is not open on Sundays."
    assert [(s.start, s.end, s.supported) for s in answer.sentences] == [(0, 33, True), (34, 69, True)]
    assert all(answer.text[s.start : s.end] == s.text for s in answer.sentences)
    assert answer.score == pytest.approx(1.0)
    assert [c.document_id for c in answer.citations] == ["2.md", "1.md"]


def test_strict_where_nothing_is_supported_is_not_found_and_the_text_is_the_alternative() -> None:
    answer = AnswerStream(["Faust was written by Goethe. It is blue."], hits(FEES), strict=True).answer
    assert not answer.found
    (alternative,) = answer.alternatives
    assert alternative.text == "Faust was written by Goethe. It is blue."
    assert [s.supported for s in alternative.sentences] == [False, False]


def test_an_answer_carries_its_sentences_and_the_context() -> None:
    found = hits("Dogs are welcome.")
    context = Context((found[0].passage,))
    answer = AnswerStream(["Dogs are welcome. Cats rule."], found, context=lambda: context).answer
    assert [s.text for s in answer.sentences] == ["Dogs are welcome.", "Cats rule."]
    assert answer.context is context
    assert answer.sentences[0].citations == answer.citations


def test_a_judge_decides_what_the_words_do_not_settle() -> None:
    class Says:
        def __init__(self, score: float) -> None:
            self.score, self.cases = score, list[Case]()

        def support(self, case: Case) -> float:
            self.cases.append(case)
            return self.score

    claim = "Late books cost 20 cents per week."  # "week" is missing: 5 of 6 words occur
    for score in (0.0, 0.9):
        judge = Says(score)
        (sentence,) = cite(claim, hits(FEES), question="How much?", judge=judge)
        assert [citation.score for citation in sentence.citations] == ([0.9] if score else [])
        (case,) = judge.cases
        assert (case.claim, case.question, case.missing) == (claim, "How much?", {"week"})
        assert case.passage[case.start : case.end].startswith("A late book costs 20 cents")
        assert (case.share, case.order, case.placed) == (pytest.approx(5 / 6), pytest.approx(5 / 6), True)
    settled = Says(0.0)
    assert cite("A late book costs 20 cents a day.", hits(FEES), judge=settled)[0].supported
    assert settled.cases == []


def test_the_hit_of_an_answer_from_plain_strings_is_the_one_that_says_so() -> None:
    texts = ["The museum opens at nine and closes at five every day.", "A late book costs 20 cents a day."]
    found = [Hit(Passage(0, "", text, 0, len(text)), 0.0, rank) for rank, text in enumerate(texts, start=1)]
    assert AnswerStream(["A late book costs 20 cents."], found).answer.hit == found[1]


def test_an_answer_does_not_wait_for_the_model_of_another_stream() -> None:
    other = AnswerStream(["Cats rule."], hits("Cats rule."))
    came = []

    def pieces() -> Iterator[str]:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: other.answer)
            came.append(not wait([answer], timeout=5).not_done)
            yield "Dogs are welcome."

    assert AnswerStream(pieces(), hits("Dogs are welcome.")).answer.found
    assert came == [True]


def test_closing_stops_the_reader_and_the_answer_stands_for_what_came() -> None:
    closed = []

    def pieces() -> Iterator[str]:
        try:
            yield "Dogs are welcome."
            yield " Cats are not."
        finally:
            closed.append(True)

    stream = AnswerStream(pieces(), hits("Dogs are welcome. Cats are not."))
    next(stream)
    stream.close()
    assert closed == [True]
    assert list(stream) == []
    assert stream.answer.text == "Dogs are welcome."


# Passages and answers of the same few words, so that there is much to confuse.
WORDS = st.lists(
    st.sampled_from(
        ["Ada", "Bob", "5", "7", "not", "never", "paid", "the", "fee.", "late", "[1]", "[2]", "不开放。", "\0"]
    )
    | st.just("\ud800"),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(WORDS.map(" ".join), WORDS.map(" ".join), st.integers(0, 9))
def test_every_citation_points_at_text_that_exists(answer: str, passage: str, offset: int) -> None:
    document = "x" * offset + passage
    stream = AnswerStream([answer], hits(passage, passage, offset=offset))
    result = stream.answer
    text = result.text or (result.alternatives[0].text if result.alternatives else "")
    for sentence in stream.sentences:
        assert text[sentence.start : sentence.end] == sentence.text
    for citation in result.citations:
        assert offset <= citation.start < citation.end <= len(document)
        assert document[citation.start : citation.end].strip() == document[citation.start : citation.end]
        assert 2 / 3 <= citation.score <= 1
    assert 0 <= result.score <= 1


@settings(max_examples=200, deadline=None)
@given(WORDS.map(" ".join))
def test_a_copy_is_supported_unless_it_contradicts_itself(passage: str) -> None:
    """Every sentence of a passage is supported by it, if it has a word to check and does not deny what it states."""
    checked = cite(passage, hits(passage))
    for sentence in checked:
        if any(word in sentence.text for word in ("paid", "fee", "late")) and not (
            "not" in sentence.text or "never" in sentence.text or "不" in sentence.text
        ):
            assert sentence.supported, sentence

"""Answers from hand-made spans and hits, with every probability computed by hand; then with the reader that ships."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.calibration import Calibration, Weights
from semsearch.errors import InputError, ModelError
from semsearch.extraction import SHIPPED, OnnxReader
from semsearch.opening import kind_of_model
from semsearch.prompts import Template
from semsearch.reading import Answerer
from semsearch.records import Answer, Context, Document, Hit, Passage
from semsearch.routing import fall_back, kept, kind, needs_writing

shipped = pytest.mark.skipif(not (SHIPPED / "model.onnx").is_file(), reason="the shipped reader is not built yet")


class Words:
    """A reader of the user's own: it finds given words, each with a probability."""

    name = "words"

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def read(self, question, texts):
        found = [
            (i, text.index(word), text.index(word) + len(word), score)
            for i, text in enumerate(texts)
            for word, score in self.scores.items()
            if word in text
        ]
        return sorted(found, key=lambda span: -span[3])


class Echo:
    """A generative reader of the user's own: it repeats the first passage, in two pieces."""

    name = "echo"

    def stream(self, question, passages):
        text = passages[0].text if passages else ""
        yield text[:5]
        yield text[5:]


class Writer:
    """A generative reader of the user's own that writes given pieces, and counts them."""

    name = "writer"

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.written = 0

    def stream(self, question, passages):
        for piece in self.pieces:
            self.written += 1
            yield piece


class Batching(Writer):
    """One that can write several answers at once, and tells what it was shown."""

    def context(self, question, passages):
        return Context(tuple(passages[:1]), tuple(passages[1:]))

    def generate(self, questions, passages_of_each):
        self.batches = [*getattr(self, "batches", []), (list(questions), [len(each) for each in passages_of_each])]
        return ["".join(self.pieces) for _ in questions]


class Found:
    """A retriever of the user's own that always finds the same."""

    def __init__(self, hits):
        self.hits = hits
        self.asked = []

    def search(self, query, k=10, where=None):
        self.asked.append((query, k, where))
        return self.hits[:k]


DOCUMENT = Document("fees.md", "Fees. A late book costs 20 cents a day. It was 10 cents in 1990.\fAsk Ada.")


def passage(id: int, start: int, end: int, page: int | None = None) -> Passage:
    return Passage(id, DOCUMENT.id, DOCUMENT.text[start:end], start, end, page)


HITS = [Hit(passage(2, 40, 64), 0.9, 1), Hit(passage(1, 6, 39), 0.5, 2), Hit(passage(3, 65, 73, 2), 0.1, 3)]


# -- probabilities


def test_spans_with_the_same_words_support_each_other(tmp_path):
    answerer = Answerer(None, _compiled(tmp_path, {"one": 1.0, "two": 1.5}))
    texts = ["one", "two", "(ONE)."]
    answer = answerer.read("what?", texts)
    one, two, total = math.exp(1.0), math.exp(1.5), 2 * math.exp(1.0) + math.exp(1.5) + 1
    assert answer.text == "one"
    assert answer.score == pytest.approx(2 * one / total, abs=1e-6)
    assert [(a.text, a.hit.rank) for a in answer.alternatives] == [("two", 2)]
    assert answer.alternatives[0].score == pytest.approx(two / total, abs=1e-6)


def test_rank_and_keywords_count_after_a_search_alone(tmp_path):
    calibration = {
        "given": {"scale": 1.0, "bias": -1.0, "threshold": 0.05},
        "ranked": {"rank": 1.0, "slope": 2.0, "offset": -0.5, "threshold": 0.05},
        "searched": {"rank": 1.0, "lexical": 2.0, "threshold": 0.05},
    }
    folder = _compiled(tmp_path, {"one": 2.0, "two": 2.5}, calibration)
    one, two = math.exp(2.0), math.exp(2.5)

    given_texts = Answerer(None, folder).read("what?", ["one", "two"])
    assert given_texts.text == "two"
    assert given_texts.score == pytest.approx(two / (one + two + math.e), abs=1e-6)

    dense = [replace(_text_hit(text, rank), sources={"dense": (rank, 0.5)}) for rank, text in ((1, "one"), (2, "two"))]
    answer = Answerer(Found(dense), folder).answer("what?")
    assert (answer.text, answer.hit) == ("one", dense[0])
    odds = one / (two / 2 + 1)
    assert answer.score == pytest.approx(1 / (1 + math.exp(0.5) / odds**2), abs=1e-6)
    refused = Answerer(None, folder, threshold=0.99).read("what?", dense)
    assert (refused.found, refused.score, refused.alternatives[0].hit) == (False, answer.score, dense[0])

    hits = [_text_hit("one", 1), _text_hit("two", 2), _text_hit("no", 3)]  # BM25 scores 1, 1/2, 1/3
    hits[0] = replace(hits[0], sources={"dense": (1, 0.9)})  # and now 0, 1/2, 1/3: 0, 1 and 2/3 of the best
    answer = Answerer(Found(hits), folder).answer("what?")
    assert (answer.text, answer.hit) == ("two", hits[1])
    best = two / 2 * math.exp(2.0)
    assert answer.score == pytest.approx(best / (best + one + 1), abs=1e-6)
    assert Answerer(None, folder).read("what?", iter(hits)) == answer


def test_each_way_of_reading_has_its_own_threshold(tmp_path):
    calibration = {"given": {"threshold": 0.9}, "ranked": {"threshold": 0.1}, "searched": {"threshold": 0.95}}
    folder = _compiled(tmp_path, {"one": 2.0}, calibration)  # alone: exp(2) / (exp(2) + 1) = 0.88
    answerer = Answerer(None, folder)
    dense = replace(_text_hit("one", 1), sources={"dense": (1, 0.5)})
    assert [answerer.read("what?", text).found for text in ("one", dense, _text_hit("one", 1))] == [False, True, False]
    every = Answerer(None, folder, threshold=0.5)
    assert [every.read("what?", text).found for text in ("one", dense, _text_hit("one", 1))] == [True] * 3


def test_passages_that_cannot_win_are_not_read(tmp_path):
    ranked = {"rank": 2.0, "ceiling": 4.0, "threshold": 0.0}
    folder = _compiled(tmp_path, {"one": 3.0, "two": 2.0, "six": 4.0}, {"given": {}, "ranked": ranked})
    counting = OnnxReader(folder)
    read, seen = counting.read, []
    counting.read = lambda question, texts: seen.append(len(texts)) or read(question, texts)
    answerer = Answerer(None, counting)

    def answer(*texts: str) -> tuple[str, list[int]]:
        seen.clear()
        return answerer.read("what?", [_text_hit(text, rank) for rank, text in enumerate(texts, 1)]).text, seen[:]

    # exp(3) = 20.1 at the top; a "six" in fifth place is worth at most exp(4) / 25 = 2.2.
    assert answer("one", *["no"] * 30) == ("one", [4])
    # exp(2) / 4 = 1.8 in second place: less than that, but more than exp(4) / 81 = 0.7 in ninth place.
    assert answer("no", "two", *["no"] * 30) == ("two", [4, 4])
    # exp(4) / 25 = 2.2 is ahead of it, but behind exp(2) / 4 + exp(4) / 81 = 2.5.
    assert answer("no", "two", "no", "no", "six", *["no"] * 5) == ("six", [4, 4, 2])
    assert answer(*["no"] * 40) == ("no", [4, 4, 8, 16, 8])
    assert answer("no", "two", "no") == ("two", [3])
    seen.clear()
    assert answerer.read("what?", ["no"] * 9 + ["six"]).text == "six"
    assert seen == [10]  # texts in no order: all at once


def test_a_long_question_is_told_once_to_whoever_asked_it(tmp_path):
    ranked = {"rank": 2.0, "ceiling": 4.0, "threshold": 0.0}
    answerer = Answerer(Found([_text_hit("no", rank) for rank in range(1, 21)]), _compiled(tmp_path, {"one": 3.0}))
    answerer.calibration = Calibration(ranked=Weights(**ranked), searched=Weights(**ranked))
    for ask in (lambda question: answerer.read(question, answerer.retriever.hits), answerer.answer):
        with pytest.warns(UserWarning, match="The question has 40 tokens") as caught:
            ask("one " * 40 + " " * (ask == answerer.answer))  # 20 hits are read in four parts
        assert [warning.filename for warning in caught] == [__file__]


def test_a_damaged_calibration_is_named(tmp_path):
    folder = _compiled(tmp_path, {"one": 1.0}, {"given": {"scale": 1.0, "colour": 2}})
    with pytest.raises(ModelError, match=r"calibration\.json is not a reader's calibration"):
        Answerer(None, folder)
    with pytest.raises(ModelError, match=r"nowhere\.json is not a reader's calibration"):
        Answerer(None, Words(), calibration=tmp_path / "nowhere.json")


# -- learning from one's own questions


def test_an_answerer_learns_how_often_it_is_right(tmp_path):
    """The answer "yes" is right in 12 of 20 cases, whatever the reader says: in the end the answerer says so too."""
    answerer = Answerer(Found([_text_hit("yes", 1)]), _compiled(tmp_path, {"yes": 6.0}))
    assert answerer.answer("right?").score == pytest.approx(1 / (1 + math.exp(-6)), abs=1e-6)
    pairs = [("right?", "Yes." if i % 5 < 3 else None) for i in range(200)]
    path = tmp_path / "mine.json"
    calibration = answerer.calibrate(pairs, save=path)
    score = answerer.answer("right?").score
    assert score == pytest.approx(0.6, abs=0.02)  # the prior pulls a little
    assert calibration is answerer.calibration
    assert calibration.about == {"reader": "tiny", "questions": 200, "answerable": 120}
    again = Answerer(Found([_text_hit("yes", 1)]), answerer.reader, calibration=path)
    assert again.answer("right?") == answerer.answer("right?")
    assert again.calibration == calibration
    # Texts without a search are read as before.
    assert answerer.read("right?", "yes").score == pytest.approx(1 / (1 + math.exp(-6)), abs=1e-6)


def test_the_threshold_refuses_the_share_that_was_asked_for(tmp_path):
    words = {"one": 1.0, "two": 2.0, "six": 3.0, "ten": 4.0}
    retriever = ByQuestion()
    answerer = Answerer(retriever, _compiled(tmp_path, words), threshold=0.99)
    # Right: a quarter of those that say "one", half of "two", three quarters of "six", all of "ten".
    pairs = [(word, word if i % 4 <= n else ["other"]) for n, word in enumerate(words) for i in range(10)]
    answerer.calibrate(pairs, refuse=0.25)
    assert [answerer.answer(word).found for word in words] == [False, True, True, True]
    pairs += [("", "one"), (" ", None)]  # nothing is asked
    answerer.calibrate(pairs, refuse=0.24)  # of 40, 10 have the lowest probability: all of them or none
    assert [answerer.answer(word).found for word in words] == [True] * 4
    kept = Answerer(retriever, answerer.reader, threshold=0.99)
    kept.calibrate(pairs, refuse=None)
    assert kept.threshold == 0.99


def test_paragraphs_are_learned_without_a_search(tmp_path):
    paragraphs = [
        {"context": "one", "qas": [{"id": str(i), "question": "q", "answers": [{"text": "one"}] if i % 2 else []}]}
        for i in range(30)
    ]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    answerer = Answerer(None, _compiled(tmp_path, {"one": 3.0}))
    before = answerer.calibration
    after = answerer.calibrate(tmp_path / "squad.json")
    assert (after.ranked, after.searched) == (before.ranked, before.searched)
    assert answerer.read("q", "one").score == pytest.approx(0.5, abs=0.02)


def test_probabilities_of_one_s_own_reader_are_corrected():
    answerer = Answerer(Found(HITS), Words(Ada=0.99))
    assert answerer.answer("who?").score == 0.99
    answerer.calibrate([("who?", "Ada" if i % 2 else None) for i in range(100)])
    assert answerer.answer("who?").score == pytest.approx(0.5, abs=0.02)


def test_what_was_not_learned_keeps_giving_every_answer_of_one_s_own_reader():
    answerer = Answerer(Found(HITS), Words(Ada=0.1))
    assert answerer.read("who?", "Ask Ada.").found
    answerer.calibrate([("who?", "Ada" if i % 2 else None) for i in range(100)])
    answer = answerer.read("who?", "Ask Ada.")  # a text, where hits were learned
    assert (answer.text, answer.score) == ("Ada", pytest.approx(0.1))
    unchanged = Answerer(Found(HITS), Words(Ada=0.1))
    assert unchanged.calibrate([("who?", "Ada" if i % 9 == 0 else None) for i in range(100)], refuse=None)
    assert [getattr(unchanged.calibration, mode).threshold for mode in ("given", "ranked", "searched")] == [0.0] * 3


class ByQuestion:
    """A retriever that finds the question itself."""

    def search(self, query, k=10, where=None):
        return [_text_hit(query, 1)]


PAIRS = [("who?", "Ada" if i % 2 else None) for i in range(30)]


@pytest.mark.parametrize(
    ("pairs", "arguments", "message"),
    [
        (PAIRS[:7], {}, "at least 20 questions with known answers, got 7"),
        ([], {}, "got 0"),
        ([{"question": "who?", "document": "a"}] * 30, {}, "got 0"),
        ([("who?", "Ada")] * 30, {}, "30 are right and 0 wrong.*Add questions that are harder"),
        ([("who?", "Bob")] * 30, {}, "0 are right and 30 wrong.*Add easier questions"),
        (PAIRS, {"refuse": 1.0}, r"below 1, got 1\.0"),
        (PAIRS, {"refuse": -0.1}, r"got -0\.1"),
        (PAIRS, {"k": 0}, "k is the number of passages"),
        (7, {}, "a list of"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(pairs, arguments, message):
    answerer = Answerer(Found(HITS), Words(Ada=0.9))
    with pytest.raises(InputError, match=message):
        answerer.calibrate(pairs, **arguments)
    assert answerer.calibration is None


def test_only_spans_that_can_be_read_are_calibrated():
    with pytest.raises(InputError, match="'echo' writes its answers"):
        Answerer(Found(HITS), Echo()).calibrate(PAIRS)
    with pytest.raises(InputError, match="which text to read"):
        Answerer(None, Words(Ada=0.9)).calibrate(PAIRS)


# -- answers


def test_an_answer_is_a_slice_of_its_document():
    answer = Answerer(None, Words(**{"20 cents": 0.9, "Ada": 0.3, "1990": 0.2})).read("how much?", HITS)
    assert answer == Answer(
        "20 cents",
        0.9,
        HITS[1],
        24,
        32,
        alternatives=(Answer("Ada", 0.3, HITS[2], 69, 72), Answer("1990", 0.2, HITS[0], 59, 63)),
    )
    for one in (answer, *answer.alternatives):
        assert DOCUMENT.text[one.start : one.end] == one.text
    assert (answer.document_id, answer.alternatives[0].page) == ("fees.md", 2)


def test_passages_and_strings_can_be_read_without_a_search():
    answerer = Answerer(None, Words(Ada=0.7))
    one = passage(3, 65, 73, 2)
    assert answerer.read("who?", one) == Answer("Ada", 0.7, Hit(one, 0.0, 1), 69, 72)
    assert answerer.read("who?", [HITS[0], one]).hit == Hit(one, 0.0, 2)
    text = answerer.read("who?", iter(["nobody", "Is it Ada?"]))
    assert (text.start, text.end, text.document_id) == (6, 9, "")
    assert text.hit == Hit(Passage(2, "", "Is it Ada?", 0, 10), 0.0, 2)
    assert str(text) == "Ada  (70 %)\n  text 2 [6:9]\n  Is it «Ada»?"


def test_a_citation_tells_which_string_it_is_of():
    texts = ["Nothing of it.", "A late book costs 20 cents.", "A late film costs 50 cents.", "Ask Ada."]

    class Shows(Batching):
        def context(self, question, passages):
            return Context(tuple(passages))

    writer = Shows("A late film costs 50 cents. ", "A late book costs 20 cents. ", "Cats like milk.")
    answer = Answerer(None, writer).read("how much?", texts)
    film, book = answer.citations
    assert (film.document_id, film.start, film.end) == (book.document_id, book.start, book.end) == ("", 0, 27)
    assert [citation.rank for citation in answer.citations] == [3, 2]
    assert [texts[each.rank - 1][each.start : each.end] for each in answer.citations] == [texts[2], texts[1]]
    assert [sentence.citations for sentence in answer.sentences] == [(film,), (book,), ()]
    assert answer.hit.rank in (2, 3)
    shown = str(answer)
    assert "[1] text 3 [0:27]  (100 %)  “A late film costs 50 cents.”" in shown
    assert "[2] text 2 [0:27]  (100 %)  “A late book costs 20 cents.”" in shown
    assert "text 3 [0:27] “A late film costs 50 cents.”" in answer._repr_html_()
    # A document tells itself, also among strings; then its neighbours stay apart, so that ranks are positions.
    mixed = Answerer(Found([]), Shows("A late book costs 20 cents a day. Ask Ada."))
    mixed.retriever.index = Library(**{DOCUMENT.id: DOCUMENT.text})
    cited = mixed.read("how much?", [HITS[1].passage, HITS[0].passage, "Ask Ada."]).citations
    assert [(each.document_id, each.rank) for each in cited] == [("fees.md", None), ("", 3)]


def test_strict_changes_no_extracted_answer():
    """A span is a slice of its document: it needs no support."""
    plain, strict = (Answerer(None, Words(Ada=0.7), strict=strict) for strict in (False, True))
    answer = strict.read("who?", HITS)
    assert answer == plain.read("who?", HITS)
    assert DOCUMENT.text[answer.start : answer.end] == answer.text == "Ada"


def test_below_the_threshold_nothing_is_found():
    spans = {"20 cents": 0.5, "Ada": 0.3}
    answer = Answerer(None, Words(**spans), threshold=0.51).read("how much?", HITS)
    assert (answer.found, answer.text, answer.start, answer.end, answer.hit) == (False, "", None, None, None)
    assert answer.score == 0.5
    assert [a.text for a in answer.alternatives] == ["20 cents", "Ada"]
    assert Answerer(None, Words(**spans), threshold=0.5).read("how much?", HITS).text == "20 cents"


def test_scores_of_one_s_own_are_clipped_to_probabilities():
    answer = Answerer(None, Words(Ada=7.0, book=-3.0)).read("who?", HITS)
    assert answer.score == 1.0
    assert answer.alternatives[0].score == 0.0


@pytest.mark.parametrize("passages", [[], "", ["", ""], "nothing of it"])
def test_where_there_is_no_span_nothing_is_found(passages):
    assert Answerer(None, Words(Ada=0.7)).read("who?", passages) == Answer("", 0.0)


def test_there_are_at_most_five_alternatives():
    scores = {f"w{i}": 0.9 - i / 10 for i in range(9)}
    answer = Answerer(None, Words(**scores)).read("what?", " ".join(scores))
    assert [a.text for a in (answer, *answer.alternatives)] == ["w0", "w1", "w2", "w3", "w4", "w5"]
    refused = Answerer(None, Words(**scores), threshold=1.0).read("what?", " ".join(scores))
    assert [a.text for a in refused.alternatives] == ["w0", "w1", "w2", "w3", "w4"]


def test_a_fallback_has_at_most_five_alternatives_too():
    extracted = Answer("a", 0.5, alternatives=tuple(Answer(f"b{i}", 0.1) for i in range(5)))
    written = Answer("", 0.0, alternatives=(Answer("c", 0.0),))
    assert [a.text for a in fall_back(written, extracted).alternatives] == ["b0", "b1", "b2", "b3", "c"]


def test_an_answer_below_the_threshold_keeps_its_context():
    context = Context((HITS[0].passage,))
    assert kept(Answer("a", 0.1, context=context), 0.5).context is context


def test_answering_searches_with_what_was_asked_for():
    retriever = Found(HITS)
    answerer = Answerer(retriever, Words(**{"20 cents": 0.9, "1990": 0.2}))
    assert answerer.answer("how much?").text == "20 cents"
    assert answerer.answer("how much?", k=1, where={"suffix": ".md"}).text == "1990"
    several = answerer.answer(["how much?", "and in 1990?"])
    assert several == [answerer.answer("how much?"), answerer.answer("and in 1990?")]
    assert retriever.asked[:3] == [
        ("how much?", 20, None),
        ("how much?", 1, {"suffix": ".md"}),
        ("how much?", 20, None),
    ]
    assert answerer.answer([]) == []


def test_a_generated_answer_cites():
    answer = Answerer(Found(HITS[1:2]), Echo()).answer("how much?")
    assert answer.text == "A late book costs 20 cents a day."
    assert [DOCUMENT.text[c.start : c.end] for c in answer.citations] == [answer.text]
    assert (answer.start, answer.end) == (None, None)
    answer = kept(Answer("text", 0.9, alternatives=(Answer("other", 0.1),)), 1.0)
    assert answer == Answer("", 0.9, alternatives=(Answer("text", 0.9), Answer("other", 0.1)))


def test_a_stream_is_complete_with_its_answer():
    generated = Answerer(Found(HITS[1:2]), Echo()).stream("how much?")
    assert list(generated) == ["A lat", "e book costs 20 cents a day."]
    assert generated.answer.document_id == "fees.md"
    extracted = Answerer(Found(HITS), Words(Ada=0.7)).stream("who?")
    assert list(extracted) == ["Ada"]
    assert extracted.answer.start == 69
    assert list(Answerer(Found(HITS), Words()).stream("who?")) == []


def test_a_stream_can_be_left_and_asked_for_what_came():
    writer = Writer("A late book costs 20 cents", " a day.", " It was 10", " cents in 1990.")
    answerer = Answerer(Found(HITS), writer)
    stream = answerer.stream("how much?")
    assert next(iter(stream)) + next(stream) == "A late book costs 20 cents a day."
    stream.close()
    assert writer.written == 2
    assert list(stream) == []
    assert stream.answer.text == "A late book costs 20 cents a day."
    assert stream.answer.citations
    whole = Answerer(Found(HITS), Words(Ada=0.7)).stream("who?")
    whole.close()
    assert list(whole) == []
    assert whole.answer.text == "Ada"


def test_an_interruption_leaves_everything_usable():
    class Interrupted(Writer):
        def stream(self, question, passages):
            yield "A late book costs 20 cents a day."
            if self.written == 0:
                self.written = 1
                raise KeyboardInterrupt
            yield " Ask Ada."

    answerer = Answerer(Found(HITS), Interrupted())
    stream = answerer.stream("how much?")
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert stream.answer.text == "A late book costs 20 cents a day."
    assert answerer.answer("how much?").text == "A late book costs 20 cents a day. Ask Ada."


def test_strict_leaves_out_what_nothing_supports():
    writer = Writer("A late book costs 20 cents a day. Cats like milk.")
    plain, strict = (Answerer(Found(HITS), writer, strict=strict).answer("how much?") for strict in (False, True))
    assert plain.text == "A late book costs 20 cents a day. Cats like milk."
    assert [sentence.supported for sentence in plain.sentences] == [True, False]
    assert strict.text == "A late book costs 20 cents a day."
    nothing = Answerer(Found(HITS), Writer("Cats like milk."), strict=True).answer("how much?")
    assert (nothing.found, nothing.text, nothing.alternatives[0].text) == (False, "", "Cats like milk.")


def test_an_answer_tells_what_its_reader_was_shown():
    answer = Answerer(Found(HITS), Batching(DOCUMENT.text[6:39])).answer("how much?")
    assert answer.context == Context((HITS[0].passage,), (HITS[1].passage, HITS[2].passage))
    assert Answerer(Found(HITS), Echo()).answer("how much?").context is None


class Library:
    """An index of the user's own, as far as an answerer looks at it."""

    def __init__(self, **texts):
        self.texts = texts

    def get(self, id):
        return Document(id, self.texts[id]) if id in self.texts else None


def test_neighbours_on_a_page_are_read_as_one_unless_the_document_has_changed():
    class Shown(Batching):
        def stream(self, question, passages):
            self.passages = list(passages)
            yield "A late book costs 20 cents a day."

    for library, expected in [
        (Library(**{DOCUMENT.id: DOCUMENT.text}), [(6, 64), (65, 73)]),  # the third is on another page
        (Library(**{DOCUMENT.id: "changed " + DOCUMENT.text}), [(40, 64), (6, 39), (65, 73)]),
        (Library(), [(40, 64), (6, 39), (65, 73)]),
    ]:
        retriever, reader = Found(HITS), Shown()
        retriever.index = library
        answer = Answerer(retriever, reader).answer("What does a late book cost?")
        assert [(each.start, each.end) for each in reader.passages] == expected
        cited = answer.citations[0]
        assert DOCUMENT.text[cited.start : cited.end] == "A late book costs 20 cents a day."


def test_several_questions_are_written_together():
    writer = Batching("A late book costs 20 cents a day.")
    answers = Answerer(Found(HITS), writer).answer(["how much?", "what for?"], k=2)
    assert writer.batches == [(["how much?", "what for?"], [2, 2])]
    assert writer.written == 0
    assert answers == [Answerer(Found(HITS), writer).answer(q, k=2) for q in ("how much?", "what for?")]
    assert [answer.context.used for answer in answers] == [(HITS[0].passage,)] * 2
    assert Answerer(Found(HITS), writer).answer([]) == []


def test_answers_of_a_thread_leave_the_event_loop_free():
    import asyncio

    async def ask():
        answerer = Answerer(Found(HITS), Words(Ada=0.7))
        return await asyncio.gather(answerer.aanswer("who?"), answerer.aanswer(["who?", "and who?"], k=3))

    one, several = asyncio.run(ask())
    assert one.text == "Ada"
    assert several == [one, one]


# -- mode="auto"

WRITTEN = "A late book costs 20 cents a day. It was 10 cents in 1990."


def auto(writer, probability=0.3, **options):
    """An answerer in mode="auto" whose extractive reader is one of our own."""
    answerer = Answerer(Found(HITS), writer, mode="auto", **options)
    extractor = Answerer(None, Words(**{"20 cents": probability}), threshold=options.get("threshold"))
    answerer._writing._extract = extractor.read
    return answerer


@shipped
def test_what_a_span_answers_is_extracted_and_the_rest_is_written():
    writer = Writer(WRITTEN)
    answerer = auto(writer)
    span = answerer.answer("How much is it?")
    assert (span.text, span.start, writer.written) == ("20 cents", 24, 0)
    text = answerer.answer("List the fees.")
    assert (text.text, text.start, writer.written) == (WRITTEN, None, 1)
    assert len(text.citations) == 2
    stream = answerer.stream("Why is it so?")
    assert list(stream) == [WRITTEN]
    assert stream.answer.text == WRITTEN
    assert list(answerer.stream("How much is it?")) == ["20 cents"]
    batching = Batching(WRITTEN)
    several = auto(batching).answer(["How much is it?", "List the fees.", "Why?"])
    assert [answer.text for answer in several] == ["20 cents", WRITTEN, WRITTEN]
    assert batching.batches == [(["List the fees.", "Why?"], [3, 3])]


@shipped
def test_a_text_that_nothing_supports_gives_way_to_the_span():
    answer = auto(Writer("Cats like milk.")).answer("List the fees.")
    assert (answer.text, answer.start) == ("20 cents", 24)
    assert answer.alternatives[-1].text == "Cats like milk."
    stream = auto(Writer("Cats like milk.")).stream("List the fees.")
    assert list(stream) == ["Cats like milk."]
    assert stream.answer == answer
    refused = auto(Writer("Cats like milk."), threshold=0.5).answer("List the fees.")
    assert (refused.found, [other.text for other in refused.alternatives]) == (False, ["20 cents", "Cats like milk."])


@shipped
def test_a_span_that_is_sure_is_kept_though_the_question_asks_why():
    assert auto(Writer(WRITTEN), 0.59).answer("Why is it so?").text == WRITTEN
    assert auto(Writer(WRITTEN), 0.61).answer("Why is it so?").text == "20 cents"
    assert auto(Writer(WRITTEN), 0.99).answer("List the fees.").text == WRITTEN  # a span is one of the list


@shipped
def test_in_auto_the_shipped_reader_extracts_and_its_calibration_counts():
    answerer = Answerer(Found(HITS), Writer(WRITTEN), mode="auto")
    assert answerer.answer("How much does a late book cost a day?").text == "20 cents"
    pairs = [("How much does a late book cost a day?", "20 cents" if i % 2 else None) for i in range(40)]
    fitted = answerer.calibrate(pairs)
    assert fitted is answerer.calibration
    assert answerer.answer("How much does a late book cost a day?").score == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When was it built?", "span"),
        ("How much is a late book?", "span"),
        ("How long may I keep it?", "span"),
        ("What is the fee for a DVD?", "span"),
        ("Who compares books?", "span"),
        ("What word is used to describe it?", "span"),
        ("late fees", "span"),
        ("Why is it closed on Sundays?", "why"),
        ("And why is that?", "why"),
        ("What is the reason for the fee?", "why"),
        ("How do I renew a book?", "how"),
        ("how to renew a book", "how"),
        ("What should I do if I lose my card?", "how"),
        ("List all fees.", "list"),
        ("Could you name the members of the board?", "list"),
        ("What are the kinds of cards?", "list"),
        ("What is the difference between a fee and a fine?", "comparison"),
        ("Compare the two cards.", "comparison"),
        ("How do the cards differ?", "comparison"),
        ("Summarise the minutes.", "summary"),
        ("What are the minutes about?", "summary"),
        ("Please explain the late fees.", "summary"),
        ("About the library", "summary"),
        ("About how many people work there?", "span"),
        ("And about when does it open?", "span"),
    ],
)
def test_questions_are_told_apart_by_their_words(question, expected):
    assert kind(question) == expected
    assert needs_writing(question, Answer("span", 0.1)) == (expected != "span")


# -- bad input


@shipped
def test_arguments_that_do_not_go_together_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"mode is None .* or 'auto', got 'fast'"):
        Answerer(None, mode="fast")
    with pytest.raises(InputError, match="mode='auto' needs a reader that writes, and 'words' only extracts"):
        Answerer(None, Words(), mode="auto")
    template = Template(passage="<<{number} {text}>>", prompt="{passages}{question}")
    for reader in (None, Words(), Echo()):
        with pytest.raises(InputError, match="is not such a one"):
            Answerer(None, reader, template=template)
    with pytest.raises(InputError, match="A calibration is for spans, and 'echo' writes"):
        Answerer(None, Echo(), calibration=Calibration())
    assert Answerer(None, Echo(), calibration=Calibration(), mode="auto").calibration == Calibration()
    remote = Answerer(None, "openai:m@http://host", template=template).reader
    assert remote.template is template


@pytest.mark.parametrize("question", ["", " \n", ["who?", ""], 7, [7]])
def test_a_question_without_words_is_refused(question):
    answerer = Answerer(Found(HITS), Words())
    with pytest.raises(InputError, match="question"):
        answerer.answer(question)
    assert answerer.retriever.asked == []


def test_an_empty_question_to_a_text_is_refused():
    with pytest.raises(InputError, match="question is empty"):
        Answerer(None, Words()).read("  ", "text")


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_k_is_a_positive_integer(k):
    with pytest.raises(InputError, match="k is the number of passages"):
        Answerer(Found(HITS), Words()).answer("who?", k=k)


def test_without_a_retriever_only_reading_is_possible():
    with pytest.raises(InputError, match=r"read\(question, texts\)"):
        Answerer(None, Words()).answer("who?")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, "high", [0.5]])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(InputError, match="between 0 and 1"):
        Answerer(None, Words(), threshold=threshold)


@pytest.mark.parametrize("passages", [7, [7], b"text", [None]])
def test_only_texts_can_be_read(passages):
    with pytest.raises(InputError, match="a string, a Passage or a Hit"):
        Answerer(None, Words()).read("who?", passages)


@pytest.mark.parametrize(
    "span", [(1, 0, 1, 0.5), (0, 3, 3, 0.5), (0, 0, 99, 0.5), (-1, 0, 1, 0.5), (0, 0, 1, math.nan)]
)
def test_a_span_outside_of_the_texts_is_refused(span):
    reader = Words()
    reader.read = lambda question, texts: [span]
    with pytest.raises(ModelError, match="Reader 'words' returned Span"):
        Answerer(None, reader).read("who?", ["text"])


@pytest.mark.parametrize(
    "returned", [None, 7, [None], [(0, 0, 1)], [("0", 0, 1, 0.5)], [(0, 0.0, 1.0, 0.5)], [(0, 0, 1, None)], "spans"]
)
def test_what_is_no_list_of_spans_is_refused(returned):
    reader = Words()
    reader.read = lambda question, texts: returned
    named = re.escape(f"Reader 'words' returned {returned!r}, which is no list of spans: ")
    with pytest.raises(ModelError, match=named):
        Answerer(None, reader).read("who?", ["text"])


def test_offsets_of_numpy_are_whole_numbers():
    reader = Words()
    reader.read = lambda question, texts: [(np.int64(0), np.int32(1), np.uint8(3), np.float32(0.5))]
    assert Answerer(None, reader).read("who?", ["text"]).text == "ex"


def test_what_cannot_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="got object"):
        Answerer(None, object())
    nameless = type("Nameless", (), {"read": lambda self, question, texts: []})()
    with pytest.raises(InputError, match="Nameless has no name"):
        Answerer(None, nameless)
    with pytest.raises(ModelError, match="no-such-model"):
        Answerer(None, str(tmp_path / "no-such-model"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="BertModel, which cannot answer"):
        Answerer(None, tmp_path)


@pytest.mark.parametrize(
    ("model_type", "architecture", "expected"),
    [
        ("roberta", "RobertaForQuestionAnswering", "extractive"),
        ("gpt2", "GPT2LMHeadModel", "causal"),
        ("llama", "LlamaForCausalLM", "causal"),
        ("t5", "T5ForConditionalGeneration", "seq2seq"),
    ],
)
def test_the_configuration_decides_how_a_model_reads(tmp_path, model_type, architecture, expected):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [architecture]}))
    assert kind_of_model(str(tmp_path)) == expected


# -- the reader that ships


@shipped
def test_the_three_line_replacement_of_the_pipeline():
    answer = Answerer(None).read("When was the library built?", "The library was built in 1854, near the river.")
    assert (answer.text, answer.start, answer.end) == ("1854", 25, 29)
    assert 0.3 < answer.score <= 1


@shipped
def test_what_the_text_does_not_say_is_less_likely():
    answerer, text = Answerer(None), "The library was built in 1854, near the river."
    said, not_said = "When was the library built?", "What does the moon weigh?"
    assert answerer.read(not_said, text).score < 0.5 * answerer.read(said, text).score


@shipped
@given(st.lists(st.text(max_size=60), max_size=3))
@settings(max_examples=25, deadline=None)
def test_any_strings_can_be_read(texts):
    answer = SHARED().read("what?", texts)
    for one in (answer, *answer.alternatives):
        if one.found:
            assert one.hit.passage.text[one.start : one.end] == one.text
            assert 0 <= one.score <= 1


def SHARED(_made: list[Answerer] = []) -> Answerer:  # noqa: B006
    if not _made:
        _made.append(Answerer(None, threshold=0.0))
    return _made[0]


# -- helpers


def _text_hit(text: str, rank: int) -> Hit:
    return Hit(Passage(rank, "d", text, 0, len(text)), 1.0 / rank, rank, {"lexical": (rank, 1.0)})


def _compiled(folder: Path, scores: dict[str, float], calibration: dict | None = None) -> Path:
    """A compiled reader that gives the words of `scores` these scores, and every other token none worth a mention."""
    from onnx import TensorProto, helper, numpy_helper, save
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocab = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *scores])}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.save(str(folder / "tokenizer.json"))
    start = np.array([{"[CLS]": 0.0, **scores}.get(word, -99.0) for word in vocab], dtype=np.float32)
    end = np.where(start > -99.0, np.float32(0), start)
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        [helper.make_node("Gather", [f"{side}_table", "input_ids"], [f"{side}_logits"]) for side in ("start", "end")],
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "n"]) for name in inputs],
        [helper.make_tensor_value_info(f"{side}_logits", TensorProto.FLOAT, [1, "n"]) for side in ("start", "end")],
        [numpy_helper.from_array(start, "start_table"), numpy_helper.from_array(end, "end_table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(folder / "model.onnx"))
    settings = {"format": 1, "kind": "reader", "name": "tiny", "max_tokens": 64}
    settings["model_sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "semsearch.json").write_text(json.dumps(settings))
    if calibration is not None:
        (folder / "calibration.json").write_text(json.dumps(calibration))
    assert OnnxReader(folder).name == "tiny"
    return folder

"""Answers from hand-made spans and hits, with every probability computed by hand; then with the reader that ships."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.errors import InputError, ModelError
from semsearch.extraction import SHIPPED, OnnxReader
from semsearch.reading import Answerer, Calibration, _kind
from semsearch.records import Answer, Document, Hit, Passage

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


def test_shares_are_a_softmax_over_all_spans_and_no_answer():
    shares = Calibration(scale=2.0, bias=1.0, rank=0.5).shares(np.array([1.0, -1.0]), np.array([1.0, 4.0]))
    a, b = math.exp(2 * 1 + 1), math.exp(-2 + 1 - 0.5 * math.log(4))
    assert shares == pytest.approx([a / (1 + a + b), b / (1 + a + b)])


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_shares_never_overflow(scores):
    n = len(scores)
    shares = Calibration().shares(np.array(scores), np.ones(n))
    assert np.isfinite(shares).all()
    assert 0 <= shares.sum() <= 1 + 1e-9
    assert shares.argmax() == np.argmax(scores) or shares.max() == shares[np.argmax(scores)]


def test_spans_with_the_same_words_support_each_other(tmp_path):
    answerer = Answerer(None, _compiled(tmp_path, {"one": 1.0, "two": 1.5}))
    texts = ["one", "two", "(ONE)."]
    answer = answerer.read("what?", texts)
    one, two, total = math.exp(1.0), math.exp(1.5), 2 * math.exp(1.0) + math.exp(1.5) + 1
    assert answer.text == "one"
    assert answer.score == pytest.approx(2 * one / total, abs=1e-6)
    assert [(a.text, a.hit.rank) for a in answer.alternatives] == [("two", 2)]
    assert answer.alternatives[0].score == pytest.approx(two / total, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_a_share_is_a_probability_until_it_is_calibrated(share):
    assert Calibration().probability(share) == pytest.approx(share, abs=1e-9)


def test_the_rank_counts_after_a_search_alone(tmp_path):
    calibration = {
        "given": {"scale": 1.0, "bias": -1.0},
        "ranked": {"scale": 1.0, "bias": 0.0, "rank": 1.0, "slope": 2.0, "offset": -0.5},
        "threshold": 0.05,
    }
    folder = _compiled(tmp_path, {"one": 2.0, "two": 2.5}, calibration)
    one, two = math.exp(2.0), math.exp(2.5)

    given_texts = Answerer(None, folder).read("what?", ["one", "two"])
    assert given_texts.text == "two"
    assert given_texts.score == pytest.approx(two / (one + two + math.e), abs=1e-6)

    hits = [_text_hit("one", 1), _text_hit("two", 2), _text_hit("no", 3)]
    answer = Answerer(Found(hits), folder).answer("what?")
    assert (answer.text, answer.hit) == ("one", hits[0])
    odds = one / (two / 2 + 1)
    assert answer.score == pytest.approx(1 / (1 + math.exp(0.5) / odds**2), abs=1e-6)
    assert Answerer(None, folder).read("what?", iter(hits)) == answer
    refused = Answerer(None, folder, threshold=0.99).read("what?", hits)
    assert (refused.found, refused.score, refused.alternatives[0].hit) == (False, answer.score, hits[0])


def test_a_damaged_calibration_is_named(tmp_path):
    folder = _compiled(tmp_path, {"one": 1.0}, {"given": {"scale": 1.0, "colour": 2}})
    with pytest.raises(ModelError, match=r"calibration\.json is not a reader's calibration"):
        Answerer(None, folder)


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
    assert text.hit == Hit(Passage(0, "", "Is it Ada?", 0, 10), 0.0, 2)


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
    refused = Answerer(Found(HITS[1:2]), Echo(), threshold=1.0)
    answer = refused._kept(Answer("text", 0.9, alternatives=(Answer("other", 0.1),)))
    assert answer == Answer("", 0.9, alternatives=(Answer("text", 0.9), Answer("other", 0.1)))


def test_a_stream_is_complete_with_its_answer():
    generated = Answerer(Found(HITS[1:2]), Echo()).stream("how much?")
    assert list(generated) == ["A lat", "e book costs 20 cents a day."]
    assert generated.answer.document_id == "fees.md"
    extracted = Answerer(Found(HITS), Words(Ada=0.7)).stream("who?")
    assert list(extracted) == ["Ada"]
    assert extracted.answer.start == 69
    assert list(Answerer(Found(HITS), Words()).stream("who?")) == []


# -- bad input


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


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
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
    ("model_type", "architecture", "kind"),
    [
        ("roberta", "RobertaForQuestionAnswering", "extractive"),
        ("gpt2", "GPT2LMHeadModel", "causal"),
        ("llama", "LlamaForCausalLM", "causal"),
        ("t5", "T5ForConditionalGeneration", "seq2seq"),
    ],
)
def test_the_configuration_decides_how_a_model_reads(tmp_path, model_type, architecture, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [architecture]}))
    assert _kind(str(tmp_path)) == kind


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

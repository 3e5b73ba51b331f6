"""Span search against brute force, windows and offsets over any Unicode, and whole readers on numbers set by hand."""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.errors import InputError, ModelError
from semsearch.extraction import (
    SHIPPED,
    OnnxReader,
    Reader,
    Span,
    TransformersReader,
    Windows,
    best_spans,
    merge_spans,
    trim,
)

shipped = pytest.mark.skipif(not (SHIPPED / "model.onnx").is_file(), reason="the shipped reader is not built yet")

# A reader of hand-made logits: each word has one number as a start and one as an end, wherever it stands.
START = {"[CLS]": 1.0, "built": -1.0, "1854": 5.0, "june": 3.0, "river": 2.0}
END = {"[CLS]": 0.5, "1854": 4.0, "june": 1.0, "river": 2.5, ".": 3.0}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "when",
    "was",
    "it",
    "built",
    "in",
    "june",
    "1854",
    "near",
    "the",
    "river",
    ".",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCAB = {word: i for i, word in enumerate([*WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])}


def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    from onnx import TensorProto, helper, numpy_helper, save

    folder = tmp_path_factory.mktemp("reader")
    ids = [
        helper.make_tensor_value_info(n, TensorProto.INT64, [1, "n"])
        for n in ("input_ids", "attention_mask", "token_type_ids")
    ]
    sides, tables = ("start_logits", "end_logits"), (START, END)
    values = [np.array([table.get(word, -9.0) for word in VOCAB], dtype=np.float32) for table in tables]
    graph = helper.make_graph(
        [helper.make_node("Gather", [f"{side}_table", "input_ids"], [side]) for side in sides],
        "tiny",
        ids,
        [helper.make_tensor_value_info(side, TensorProto.FLOAT, [1, "n"]) for side in sides],
        [numpy_helper.from_array(value, f"{side}_table") for side, value in zip(sides, values, strict=True)],
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(folder / "model.onnx")
    )
    tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"format": 1, "kind": "reader", "name": "tiny", "max_tokens": 24}
    settings["model_sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "semsearch.json").write_text(json.dumps(settings))
    return folder


# -- span search


@given(
    st.integers(1, 25).flatmap(lambda n: st.tuples(*[st.lists(st.integers(-50, 50), min_size=n, max_size=n)] * 2)),
    st.integers(1, 8),
    st.integers(1, 4),
)
def test_spans_are_those_of_brute_force(logits, max_tokens, count):
    start, end = (np.array(side, dtype=np.float32) for side in logits)
    n = len(start)
    free = [(i, j) for i in range(n) for j in range(i, min(n, i + max_tokens))]
    found = best_spans(start, end, max_tokens=max_tokens, count=count)
    for i, j, score in found:
        assert (i, j) in free  # within the length limit, and touching none before
        assert score == start[i] + end[j] == max(start[a] + end[b] for a, b in free)
        free = [(a, b) for a, b in free if b < i or a > j]
    assert len(found) == count or not free


def test_a_token_of_minus_infinity_is_never_part_of_an_edge():
    start = np.array([9.0, -np.inf, 1.0])
    end = np.array([-np.inf, 9.0, 2.0])
    assert best_spans(start, end, max_tokens=2, count=5) == [(0, 1, 18.0), (2, 2, 3.0)]
    assert best_spans(start[:0], end[:0]) == []
    assert best_spans(np.full(3, -np.inf), end) == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("  1854. ", "1854"),
        ('"1854",', "1854"),
        ("(in June)", "(in June)"),
        ("in June)", "in June"),
        ("(in June", "in June"),
        ("f(x)", "f(x)"),
        ("the U.S.", "the U.S."),
        ("J. R. R.", "J. R. R."),
        ("end.", "end"),
        ("-5 °C,", "-5 °C"),
        (".md files", ".md files"),
        ("$2.50;", "$2.50"),
        ("50%.", "50%"),
        ("C++", "C++"),
        ("__init__", "__init__"),
        ("- an item", "an item"),
        ("「図書館」。", "図書館"),
        ("\u3000\uff08六月\uff09\uff0c", "\uff08六月\uff09"),
        ("\x00\u200e1854\u200f", "1854"),
        (" .,; ", ""),
        ("", ""),
    ],
)
def test_ends_are_trimmed(text, answer):
    start, end = trim(text, 0, len(text))
    assert text[start:end] == answer


def test_an_accent_of_its_own_stays_on_its_letter():
    text = "a cafe\u0301 here"
    assert trim(text, 2, 6) == (2, 7)


def test_a_hyphen_inside_a_word_is_no_sign():
    text = "well-known"
    assert trim(text, 4, 10) == (5, 10)


@pytest.mark.parametrize(
    ("before", "span", "answer"),
    [
        ("(", "-40 °C)", "-40 °C"),
        ("[", "-5, 5]", "-5, 5"),
        ("x=", "-5", "-5"),
        ("a ", "-.5", "-.5"),
        ("p<", ".05", ".05"),
        ("the suffix `", ".md`", ".md"),
        ("`", ".md`", ".md"),
        ('("', '-5"', "-5"),
        ("10", "-5", "5"),  # a range
        ("10", "–5", "5"),
        ("he left ", "—5 days", "5 days"),
        ("(1)", "-based", "based"),  # after what closes
        ('an "end"', ".Next", "Next"),
        ("1854.[1]", ".The", "The"),
        ("..", ".5", "5"),
    ],
)
def test_a_sign_or_point_is_of_the_answer_only_if_nothing_before_it_has_it(before, span, answer):
    text = before + span
    start, end = trim(text, len(before), len(text))
    assert text[start:end] == answer


@given(st.text(), st.data())
def test_trimming_only_shortens_or_completes_a_letter(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    a, b = trim(text, start, end)
    assert start <= a <= b <= len(text)
    assert b <= end or all(__import__("unicodedata").category(c)[0] == "M" for c in text[end:b])
    assert trim(text, a, b) == (a, b)


def test_of_overlapping_spans_the_better_one_is_kept():
    spans = [Span(0, 0, 5, 1.0), Span(0, 4, 9, 2.0), Span(0, 9, 12, 0.5), Span(1, 0, 5, 1.5)]
    assert merge_spans(spans) == [Span(0, 4, 9, 2.0), Span(1, 0, 5, 1.5), Span(0, 9, 12, 0.5)]
    assert merge_spans(spans, count=1) == [Span(0, 4, 9, 2.0), Span(1, 0, 5, 1.5)]


def test_a_span_stays_in_its_part():
    start, end = np.array([5.0, 1.0, 0.0]), np.array([0.0, 1.0, 4.0])
    assert best_spans(start, end, count=1) == [(0, 2, 9.0)]
    assert best_spans(start, end, parts=np.array([0, 0, 1]), count=2) == [(0, 1, 6.0), (2, 2, 4.0)]


# -- windows


unicode = st.text(st.characters() | st.sampled_from(LETTERS + " .\x00é\u0301İß漢\ud800\udfff😀\u200f"), max_size=80)


@given(unicode, unicode, st.integers(12, 30))
@settings(max_examples=200, deadline=None)
def test_windows_have_every_token_at_its_exact_place(question, text, size):
    made = Windows(tokenizer(), window=size)
    windows = made.cut("when" + question[:3], [text, ""])
    seen = set()
    for window in windows:
        assert window.text == 0
        assert len(window.ids) <= size
        for token, kind, (start, end) in zip(window.ids, window.types, window.offsets, strict=True):
            if start < 0:
                continue
            seen.add((int(start), int(end)))
            assert kind == 1
            assert 0 <= start < end <= len(text)
            piece = tokenizer().id_to_token(int(token))
            if piece != "[UNK]":
                # What the normalizer makes of the slice is the token itself.
                assert tokenizer().normalizer.normalize_str(text[start:end].strip()).strip() == piece.removeprefix("##")
    safe = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
    assert seen == {o for o in tokenizer().encode(safe, add_special_tokens=False).offsets if o[0] < o[1]}
    assert [len(w.ids) for w in windows] == sorted((len(w.ids) for w in windows), reverse=True)


def test_neighbouring_windows_share_tokens():
    made = Windows(tokenizer(), window=16, stride=3)
    windows = sorted(made.cut("when", ["x " * 30]), key=lambda w: w.offsets.max())
    places = [[int(a) for a, _ in w.offsets if a >= 0] for w in windows]
    assert places[0] == list(range(0, 24, 2))  # 16 - [CLS] when [SEP] [SEP] = 12 tokens
    assert places[1][:3] == places[0][-3:]


def test_a_long_question_is_cut_with_a_warning(folder):
    text = "it was built in 1854"
    with pytest.warns(UserWarning, match=r"The question has 40 tokens, the reader takes 12: only the first 59 of 199"):
        spans = OnnxReader(folder).read("when " * 39 + "was ", [text])
    assert spans[0] == Span(0, 16, 20, 7.5)
    with pytest.warns(UserWarning, match="40 tokens"):
        Windows(tokenizer(), window=24).cut("x" * 40, [text])


def test_the_caller_is_warned_once_of_a_long_question(folder):
    reader = OnnxReader(folder)
    with pytest.warns(UserWarning, match="has 40 tokens") as caught:
        found = [reader.read(question * 40, ["it was built"]) for question in ("when ", "when ", "was ")]
    assert found[0] == found[1]
    assert [warning.filename for warning in caught] == [__file__] * 2


def test_a_window_without_room_is_refused():
    with pytest.raises(ModelError, match="takes 6 tokens"):
        Windows(tokenizer(), window=6)


# -- readers


def test_scores_are_the_span_s_logits_less_those_of_no_answer(folder):
    texts = ["It was built in June 1854, near the river.", "no", "", "The river."]
    spans = OnnxReader(folder).read("When was it built?", texts)
    # 5 + 4 - (1 + 0.5); 2 + 3 for "river." - 1.5, trimmed; "June" is within no better span but cannot end after 1854.
    assert spans[0] == Span(0, 21, 25, 7.5)
    assert Span(3, 4, 9, 3.5) in spans
    assert Span(0, 36, 41, 3.5) in spans
    assert texts[0][36:41] == "river"
    assert [s.score for s in spans] == sorted((s.score for s in spans), reverse=True)
    assert max(sum(s.text == i for s in spans) for i in range(4)) <= 3


def test_an_answer_in_a_later_window_is_found_at_its_place(folder):
    text = "near the river " * 200 + "built 1854 " + "the " * 100
    best = OnnxReader(folder).read("when", [text])[0]
    assert best == Span(0, text.index("1854"), text.index("1854") + 4, 7.5)


def test_offsets_count_lone_surrogates_and_nul_as_one(folder):
    text = "\ud800\x00 built 😀 1854 \udfff"
    best = OnnxReader(folder).read("when \udc00?", [text])[0]
    assert text[best.start : best.end] == "1854"


@pytest.mark.parametrize("between", ["\n\n", "\n \t\n", " | "])
def test_an_answer_does_not_run_into_the_next_paragraph_or_cell(folder, between):
    text = f"june{between}river"  # start and end of the best span, if it were one: 3 + 2.5
    spans = OnnxReader(folder).read("when", [text])
    assert [(text[s.start : s.end], s.score) for s in spans] == [("river", 2 + 2.5 - 1.5), ("june", 3 + 1 - 1.5)]
    assert OnnxReader(folder).read("when", ["june river"])[0] == Span(0, 0, 10, 3 + 2.5 - 1.5)


def test_marks_alone_are_no_answer(folder):
    assert OnnxReader(folder).read("when", ["# + ="]) == []


def _read_in_child(reader, queue):
    queue.put(reader.read("when", ["built 1854"]))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_reads_as_its_parent(folder):
    reader = OnnxReader(folder)
    expected = reader.read("when", ["built 1854"])
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(reader, queue))
    child.start()
    child.join(15)
    alive = child.is_alive()
    if alive:
        child.kill()
    assert not alive
    assert queue.get() == expected
    assert expected[0] == Span(0, 6, 10, 7.5)


def test_a_reader_can_be_copied_and_pickled_before_and_after_it_was_used(folder):
    reader = OnnxReader(folder)
    for _ in range(2):
        for other in (copy.deepcopy(reader), pickle.loads(pickle.dumps(reader))):  # noqa: S301
            assert (other.folder, other.name) == (folder, "tiny")
            assert other.read("when", ["built 1854"]) == reader.read("when", ["built 1854"])


@shipped
def test_the_shipped_reader_is_pickled_without_its_place():
    text = pickle.dumps(OnnxReader())
    assert str(SHIPPED).encode() not in text
    assert pickle.loads(text).folder == SHIPPED  # noqa: S301


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(folder, question):
    with pytest.raises(InputError, match="question is empty"):
        OnnxReader(folder).read(question, ["text"])


def test_one_string_for_texts_is_refused(folder):
    with pytest.raises(InputError, match="give a list"):
        OnnxReader(folder).read("when", "built 1854")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"is not a compiled model: semsearch\.json cannot be read"):
        OnnxReader(tmp_path)


def test_a_damaged_model_is_named(folder, tmp_path):
    for name in ("tokenizer.json", "semsearch.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"model\.onnx' is not the file it was"):
        OnnxReader(tmp_path).read("when", ["text"])
    (tmp_path / "semsearch.json").write_text("{")
    with pytest.raises(ModelError, match=r"semsearch\.json cannot be read"):
        OnnxReader(tmp_path)


def test_reading_loads_no_torch(folder):
    code = (
        "import sys; from semsearch.extraction import OnnxReader;"
        f"assert OnnxReader({str(folder)!r}).read('when', ['1854']);"
        "sys.exit(bool({'torch', 'transformers', 'faiss', 'sentence_transformers'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


# -- transformers


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A tiny BERT with a question-answering head and random weights."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertForQuestionAnswering(config).save_pretrained(folder)
    BertTokenizerFast(tokenizer_object=tokenizer(), model_max_length=32).save_pretrained(folder)
    return folder


def test_a_transformers_reader_finds_the_best_span_of_its_logits(bert):
    import torch
    from transformers import AutoModelForQuestionAnswering

    reader = TransformersReader(bert)
    assert isinstance(reader, Reader)
    question, text = "when was it built?", "it was built in june 1854 near the river"
    encoded = tokenizer().encode(question, text)
    model = AutoModelForQuestionAnswering.from_pretrained(bert).eval()
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([encoded.ids]), token_type_ids=torch.tensor([encoded.type_ids]))
    start, end = out.start_logits[0].numpy(), out.end_logits[0].numpy()
    inside = [i for i, s in enumerate(encoded.sequence_ids) if s == 1]
    score, i, j = max((float(start[i] + end[j]), i, j) for i in inside for j in inside if i <= j < i + 30)
    best = reader.read(question, ["the river", text])
    mine = next(s for s in best if s.text == 1)
    assert (mine.start, mine.end) == (encoded.offsets[i][0], encoded.offsets[j][1])
    assert mine.score == pytest.approx(score - float(start[0] + end[0]), abs=1e-5)
    # Alone or along with others: the same number.
    assert reader.read(question, [text])[0].score == mine.score


def test_names_that_cannot_read_are_refused(bert, tmp_path):
    with pytest.raises(ModelError, match="no-such-reader"):
        TransformersReader(tmp_path / "no-such-reader")
    config = json.loads((bert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match=r"BertModel, not a \.\.\.ForQuestionAnswering"):
        TransformersReader(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"), [("model.safetensors", None), ("tokenizer.json", "{}"), ("config.json", "[]")]
)
def test_damaged_files_of_a_transformers_model_are_named(bert, tmp_path, file, content):
    shutil.copytree(bert, tmp_path / "copy")
    damaged = tmp_path / "copy" / file
    damaged.write_bytes(damaged.read_bytes()[:1000] if content is None else content.encode())
    with pytest.raises(ModelError, match=r"copy' cannot be loaded: .*Error\)\. Pass the path of a folder"):
        TransformersReader(tmp_path / "copy")


# -- the reader that ships


TEXTS = [
    "The library was built in 1854, near the river. It was rebuilt after the fire of 1911 by Ada Holm.",
    "Late fees of $2.50 a week are charged after 14 days. Children pay no late fees.",
    "The reading room on the second floor is open from 9 am to 6 pm on weekdays, and closed on public holidays.",
]


@shipped
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("When was the library built?", "1854"),
        ("Who rebuilt the library?", "Ada Holm"),
        ("Who pays no late fees?", "Children"),
        ("On which floor is the reading room?", "second"),
    ],
)
def test_the_shipped_reader_answers(question, answer):
    best = OnnxReader().read(question, TEXTS)[0]
    assert answer in TEXTS[best.text][best.start : best.end]
    assert best.end - best.start < len(answer) + 15


@shipped
def test_a_score_does_not_depend_on_the_other_texts():
    reader = OnnxReader()
    together = reader.read("When was the library built?", [*TEXTS, TEXTS[0] * 40])
    for i, text in enumerate(TEXTS):
        alone = reader.read("When was the library built?", [text])
        assert [s._replace(text=0) for s in together if s.text == i] == alone


@shipped
@given(unicode)
@settings(max_examples=20, deadline=None)
def test_any_string_can_be_read(text):
    for span in OnnxReader_cached().read("what?", [text]):
        assert 0 <= span.start < span.end <= len(text)
        assert trim(text, span.start, span.end) == (span.start, span.end)


def OnnxReader_cached(_made: list[OnnxReader] = []) -> OnnxReader:  # noqa: B006
    if not _made:
        _made.append(OnnxReader())
    return _made[0]

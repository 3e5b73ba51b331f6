"""A model's steps: the kept beginning of a prompt and batches of questions change no token of an answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from tiny_generators import KINDS, LENGTH, QUESTION, TEXTS, one_thread, passages, save_models  # noqa: F401

from semsearch import generation, steps
from semsearch.citing import AnswerStream
from semsearch.errors import InputError
from semsearch.generation import CausalReader, Seq2SeqReader
from semsearch.packing import REMEMBERED, Shown
from semsearch.pretrained import open_generative
from semsearch.reading import Answerer
from semsearch.records import Context, Hit, Passage
from semsearch.repeats import only_repeats
from semsearch.sampling import Sampling
from semsearch.steps import CausalSteps, LastPrompt, has_plain_cache

QUESTIONS = (
    QUESTION,
    "How much does a late book cost a day?",
    "When?",
    "Is it closed on Sundays, and does it open at ten on Monday?",
    "Who may borrow films, and for how long may they keep them?",
)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a short prompt has many."""
    monkeypatch.setattr(steps, "PIECE", 16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_models(tmp_path_factory.mktemp("models"))


def opened(folders: dict[str, Path], name: str, **options: Any) -> CausalReader | Seq2SeqReader:
    return open_generative(folders[name], KINDS[name], **{"max_new_tokens": LENGTH, **options})  # type: ignore[arg-type]


def precise(folders: dict[str, Path], name: str) -> Any:
    """In float64, where the order of summing cannot matter; attention of wide weights makes much of little."""
    reader: Any = opened(folders, name)
    reader._model.double()
    return reader


def text(reader: Any, question: str, given: list[Passage]) -> str:
    return "".join(reader.stream(question, given))


class Count:
    """How many tokens a model read in each of its steps."""

    def __init__(self, reader: Any) -> None:
        self.read: list[int] = []
        self._handle = reader._model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _model: Any, _arguments: Any, options: dict[str, Any]) -> None:
        self.read.append(options.get("input_ids", options.get("decoder_input_ids")).shape[1])

    def __enter__(self) -> list[int]:
        return self.read

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


# --- The kept beginning ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", ["gpt2", "chat"])
def test_answers_are_the_same_with_and_without_it(folders: dict[str, Path], name: str) -> None:
    keeping, forgetting = opened(folders, name), opened(folders, name, keep_prompt=False)
    orders = [passages(), passages()[::-1], passages(TEXTS[0]), passages(*TEXTS, "Another one."), passages()]
    asked = [(question, given) for given in orders for question in QUESTIONS]
    with Count(keeping) as read:
        written = [text(keeping, *one) for one in asked]
    with Count(forgetting) as all_read:
        assert [text(forgetting, *one) for one in asked] == written
    assert len(set(written)) > 5
    # More than half of what had to be read was known.
    assert sum(read) < sum(all_read) / 2


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", ["gpt2", "chat"])
def test_logits_are_the_same_to_the_last_bit(folders: dict[str, Path], name: str) -> None:
    reader: Any = opened(folders, name)
    first, second = (reader.prompt(question, passages()).tokens for question in QUESTIONS[:2])
    last = LastPrompt()
    CausalSteps(reader._model, [first], last)
    with Count(reader) as read:
        known = CausalSteps(reader._model, [second], last).logits
    assert 0 < sum(read) < len(second) / 2
    assert torch.equal(known, CausalSteps(reader._model, [second]).logits)


@pytest.mark.usefixtures("small_pieces")
def test_only_whole_pieces_are_taken_and_at_least_one_token_is_read(folders: dict[str, Path]) -> None:
    reader: Any = opened(folders, "gpt2")
    prompt = list(range(10, 74))  # four pieces
    for change, expected in ((None, [16]), (63, [16]), (48, [16]), (47, [16, 16]), (15, [16] * 4), (0, [16] * 4)):
        last = LastPrompt()
        CausalSteps(reader._model, [prompt], last)
        other = [99 if i == change else token for i, token in enumerate(prompt)]
        with Count(reader) as read:
            CausalSteps(reader._model, [other], last)
        assert read == expected, change
    with Count(reader) as read:  # longer and shorter ones
        CausalSteps(reader._model, [[*other, 5, 6]], last)
        CausalSteps(reader._model, [other[:20]], last)
    assert read == [2, 4]


@pytest.mark.usefixtures("small_pieces")
def test_an_answer_that_was_left_half_way_leaves_it_as_it_was(folders: dict[str, Path]) -> None:
    reader, fresh = opened(folders, "gpt2"), opened(folders, "gpt2", keep_prompt=False)
    for question in QUESTIONS:
        stream: Any = reader.stream(question, passages())
        next(stream)
        stream.close()
        with Count(reader) as read:
            assert text(reader, question, passages()) == text(fresh, question, passages())
        assert read[0] <= 16


@pytest.mark.usefixtures("small_pieces")
def test_an_error_while_a_prompt_is_read_does_no_harm(folders: dict[str, Path]) -> None:
    reader: Any = opened(folders, "gpt2")
    fresh = opened(folders, "gpt2", keep_prompt=False)
    text(reader, QUESTIONS[0], passages())

    def fail(*_: object) -> None:
        raise RuntimeError("broken off")

    handle = reader._model.transformer.h[1].register_forward_hook(fail)  # between two layers of one step
    with pytest.raises(RuntimeError, match="broken off"):
        text(reader, QUESTIONS[1], passages())
    handle.remove()
    for question in QUESTIONS:
        assert text(reader, question, passages()) == text(fresh, question, passages())


@pytest.mark.usefixtures("small_pieces")
def test_threads_share_a_reader(folders: dict[str, Path]) -> None:
    reader, fresh = opened(folders, "gpt2"), opened(folders, "gpt2", keep_prompt=False)
    asked = [(question, given) for question in QUESTIONS for given in (passages(), passages()[::-1])] * 2
    barrier = Barrier(4)

    def ask(one: tuple[str, list[Passage]]) -> str:
        if one in asked[:4]:
            stream = reader.stream(*one)
            first = next(stream, "")
            barrier.wait(timeout=60)  # four answers are under way at once
            return first + "".join(stream)
        return text(reader, *one)

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(ask, asked[:4])) + list(pool.map(lambda one: text(reader, *one), asked[4:]))
    assert written == [text(fresh, *one) for one in asked]


def test_one_prompt_is_kept(folders: dict[str, Path]) -> None:
    reader: Any = opened(folders, "gpt2")
    for question in QUESTIONS:
        text(reader, question, passages())
    known, layers = reader._last._last
    assert known == reader.prompt(QUESTIONS[-1], passages()).tokens
    assert {tensor.shape[-2] for pair in layers for tensor in pair} == {len(known)}


# --- Batches ---------------------------------------------------------------------------------------------------------


def cases() -> tuple[list[str], list[list[Passage]]]:
    """Questions and passages of very different lengths, also none."""
    questions = [*QUESTIONS, QUESTION, *QUESTIONS]
    given = [passages()] * 5 + [[]] + [passages(text) for text in (*TEXTS, "Short.", " ".join(TEXTS))]
    return questions, given


@pytest.mark.parametrize("name", KINDS)
def test_each_row_has_the_logits_that_it_has_alone(folders: dict[str, Path], name: str) -> None:
    reader = precise(folders, name)
    questions = ((QUESTION, passages()), ("When?", passages(TEXTS[1])), (QUESTION, passages(TEXTS[0])))
    prompts = [reader.prompt(*one).tokens for one in questions]
    assert len({len(prompt) for prompt in prompts}) == 3
    alone = [reader._steps([prompt]) for prompt in prompts]
    together, rows = reader._steps(prompts), [0, 1, 2]
    for going in ([0, 1, 2], [2, 1], [1], [0]):  # in another order, fewer, and at last the shortest, much padded
        for token in (20, 21):
            for place, row in enumerate(rows):
                torch.testing.assert_close(together.logits[place], alone[row].logits[0], atol=1e-6, rtol=1e-6)
                alone[row].advance([token + row])
            together.advance([token + row for row in rows])
        together.keep(going)
        rows = [rows[place] for place in going]
    assert rows == [1]
    torch.testing.assert_close(together.logits[0], alone[1].logits[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "chat"])
def test_a_batch_in_float32_writes_what_each_question_alone_gets(folders: dict[str, Path], name: str) -> None:
    reader = opened(folders, name)
    questions, given = cases()
    assert reader.generate(questions, given) == [text(reader, *one) for one in zip(questions, given, strict=True)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch_tokens", [1, 1500, 10**6])
def test_a_batch_writes_what_each_question_alone_gets(folders: dict[str, Path], name: str, batch_tokens: int) -> None:
    reader = precise(folders, name)
    questions, given = cases()
    written = reader.generate(questions, given, batch_tokens=batch_tokens)
    assert written == [text(reader, *one) for one in zip(questions, given, strict=True)]
    assert written[5] == ""
    assert len(set(written)) > 4


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_rows_end_by_themselves(folders: dict[str, Path], name: str) -> None:
    """At a token that ends the answer, at a stop of the template, or at the greatest length."""
    questions, given = cases()
    reader = precise(folders, name)
    alone = [reader._tokenizer(text(reader, *one)).input_ids for one in zip(questions, given, strict=True)]
    ending = max({token for ids in alone for token in ids}, key=lambda token: sum(token in ids for ids in alone))
    reader._ends = {ending}
    ended = [text(reader, *one) for one in zip(questions, given, strict=True)]
    assert reader.generate(questions, given) == ended
    assert len({len(one) for one in ended}) > 3  # they end at different places


def test_fewer_rows_go_on_and_the_model_is_run_no_more_than_needed(folders: dict[str, Path]) -> None:
    reader: Any = opened(folders, "gpt2")
    rows: list[int] = []
    handle = reader._model.register_forward_pre_hook(
        lambda _model, _arguments, options: rows.append(options["input_ids"].shape[0]), with_kwargs=True
    )
    reader._ends = set(reader._tokenizer.convert_tokens_to_ids(["e", "a", "t", "s"]))
    reader.generate(*cases())
    handle.remove()
    together = [count for count in rows if count > 1]
    assert together
    assert together == sorted(together, reverse=True)
    assert len(rows) <= 10 * 3 + LENGTH  # each prompt has at most three pieces


def test_batches_keep_to_the_budget_and_to_lengths(folders: dict[str, Path]) -> None:
    reader = opened(folders, "gpt2")
    prompts = [(1,) * length for length in (100, 10, 0, 50, 30, 76)]
    # 24 tokens are to follow each: 34 and 54 are 2 x 54; with 74 they would be 3 x 74.
    assert list(reader._batches(prompts, 150)) == [[1, 4], [3], [5], [0]]
    assert list(reader._batches(prompts, 222)) == [[1, 4, 3], [5], [0]]
    assert list(reader._batches(prompts, 1)) == [[1], [4], [3], [5], [0]]


def test_a_model_with_a_sliding_window_answers_one_question_after_the_other(tmp_path: Path) -> None:
    from tiny_generators import byte_tokenizer
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(3)
    tokenizer = byte_tokenizer(chat=True)
    config = MistralConfig(
        vocab_size=len(tokenizer), max_position_embeddings=640, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.4, sliding_window=24,
        bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    reader = CausalReader("sliding", model, tokenizer, max_new_tokens=LENGTH)
    assert not has_plain_cache(model)
    questions, given = cases()
    written = reader.generate(questions[:3], given[:3])
    assert written == [text(reader, *one) for one in zip(questions[:3], given[:3], strict=True)]
    prompt = reader.prompt(QUESTION, passages()).tokens
    source = torch.tensor([prompt])
    whole = model.generate(source, attention_mask=torch.ones_like(source), do_sample=False, max_new_tokens=LENGTH)[0]
    expected = tokenizer.decode(whole[len(prompt) :], skip_special_tokens=True).lstrip()
    assert written[0] == expected.split("\n[passage")[0].split("[end of passage")[0]


def test_an_answer_of_a_batch_that_only_repeats_itself_is_not_written_to_the_end(folders: dict[str, Path]) -> None:
    length = 480
    reader = opened(folders, "t5", max_new_tokens=length)  # it says "I" for ever
    questions, given = cases()
    with Count(reader) as read:
        texts = reader.generate(questions[:2], given[:2])
    assert all(only_repeats(written) for written in texts)
    assert len(read) < length / 2
    asked = [[Hit(passage, 1.0, i) for i, passage in enumerate(each, 1)] for each in given[:2]]
    alone = [AnswerStream(reader.stream(*one), hits) for *one, hits in zip(questions, given, asked, strict=False)]
    with Count(reader) as read:
        streamed = ["".join(each) for each in alone]
    assert len(read) < 2 * length * 0.6
    assert streamed == ["".join(AnswerStream([one], hits)) for one, hits in zip(texts, asked, strict=True)]


def test_a_prompt_is_tokenised_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = generation.encode

    def counted(tokenizer: Any, given: str, *, control: bool = False) -> list[int]:
        encoded.append(given)
        return encode(tokenizer, given, control=control)

    monkeypatch.setattr(generation, "encode", counted)
    reader = opened(folders, "chat", max_new_tokens=2)
    answerer = Answerer(None, reader)
    hits = [Hit(passage, 1.0, passage.id) for passage in passages()]
    assert answerer.read(QUESTION, hits).context == reader.context(QUESTION, passages())
    assert [sum(each in one for one in encoded) for each in TEXTS] == [1, 1, 1]
    # As many questions as you like at once, and each has its own context.
    encoded.clear()
    questions = [f"Is the number {i}?" for i in range(REMEMBERED + 5)]
    found = Found(hits)
    for question, answer in zip(questions, Answerer(found, reader).answer(questions), strict=True):  # type: ignore[arg-type]
        assert answer.context is not None
        assert answer.context.used[0].text in TEXTS
        assert sum(question in one for one in encoded) == 1


class Found:
    """A retriever that always finds the same."""

    def __init__(self, hits: list[Hit]) -> None:
        self.hits = hits

    def search(self, query: str, k: int = 10, where: Any = None) -> list[Hit]:
        return self.hits


def test_only_the_latest_contexts_are_remembered() -> None:
    shown, given = Shown(), passages()
    for i in range(REMEMBERED + 1):
        shown.put(f"{i}?", given, Context((given[i % 2],)))
    assert shown.get("0?", given) is None
    assert shown.get("1?", list(given)) == Context((given[1],))
    assert shown.get("1?", given[:2]) is None
    shown.put("last?", given, Context(()), most=2)
    assert (shown.get("last?", given), shown.get("1?", given)) == (Context(()), None)
    assert shown.get(f"{REMEMBERED}?", given) is not None


def test_sampled_answers_are_the_same_in_a_batch_and_for_the_same_seed(folders: dict[str, Path]) -> None:
    questions, given = cases()
    reader = opened(folders, "chat", sampling=Sampling(temperature=1.5, seed=3))
    other = opened(folders, "chat", sampling=Sampling(temperature=1.5, seed=4))
    written = reader.generate(questions, given)
    assert written == [text(reader, *one) for one in zip(questions, given, strict=True)]
    assert written != other.generate(questions, given)
    assert written != opened(folders, "chat").generate(questions, given)


@pytest.mark.parametrize(
    ("questions", "given", "options", "message"),
    [
        (QUESTION, [passages()], {}, "takes a list of questions"),
        ([QUESTION], [], {}, "takes a list of questions"),
        ([QUESTION, " "], [passages(), passages()], {}, "at least one word"),
        ([QUESTION], [passages()], {"batch_tokens": 0}, "batch_tokens is a number of tokens and at least 1, got 0"),
    ],
)
def test_batches_that_cannot_be(
    folders: dict[str, Path], questions: Any, given: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        opened(folders, "gpt2").generate(questions, given, **options)


def test_no_questions_no_answers(folders: dict[str, Path]) -> None:
    assert opened(folders, "gpt2").generate([], []) == []

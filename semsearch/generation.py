"""Readers that write an answer in their own words: causal and sequence-to-sequence models by transformers.

    reader = open_generative("SmolLM2-135M-Instruct.Q4_1.gguf")              # see semsearch.pretrained
    for piece in reader.stream("When are late fees charged?", passages):
        print(piece, end="", flush=True)
    reader.generate(questions, passages_of_each)                             # many questions at once

Every prompt is built of blocks, one for each passage, that are tokenised by themselves: what a passage costs is known
before it goes in, and no text of a document or a question can become a control token of the model. Decoding is greedy
unless told otherwise, one token at a time over the model's key-value cache, in the caller's thread: leaving the loop
stops the model. Whether an answer is true to the passages is checked by `semsearch.citing`, not here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Protocol

from semsearch.detokenising import (
    added_tokens,
    detokenise,
    encode,
    until_text,
    until_token,
    without_leading_space,
)
from semsearch.errors import InputError, ModelError
from semsearch.packing import REMEMBERED, Packed, Shown, pack
from semsearch.prompts import CHAT, COMPLETION, SEQ2SEQ, Template
from semsearch.records import Context, Passage
from semsearch.repeats import only_repeats
from semsearch.sampling import GREEDY, Choose, Sampling
from semsearch.steps import CausalSteps, LastPrompt, Seq2SeqSteps, Steps, has_plain_cache

__all__ = ["CausalReader", "GenerativeReader", "Prompt", "Seq2SeqReader"]

MAX_NEW_TOKENS = 256
MAX_CONTEXT_TOKENS = 2048  # of a CPU's seconds before the first word, most go into reading the prompt
BATCH_TOKENS = 8192  # of prompts and answers together, in one batch
LOOK = 16  # tokens of an answer in a batch from one look whether it only repeats itself to the next
_UNKNOWN_WINDOW = 512  # what T5, whose configuration does not say, was trained on


class GenerativeReader(Protocol):
    """Writes an answer to a question from passages, best passage first.

    A reader may also have `context(question, passages)`, which tells what of the passages it is shown
    (`semsearch.records.Context`), and `generate(questions, passages_of_each)` for many questions at once, a list of
    texts.
    """

    @property
    def name(self) -> str: ...

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]:
        """The answer in pieces of text; none without passages."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model reads: the ids of all tokens, and the passages among them."""

    tokens: tuple[int, ...]
    packed: Packed


class _Reader(ABC):
    """What both kinds of models have in common."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_context_tokens: int = MAX_CONTEXT_TOKENS,
        template: Template | None = None,
        sampling: Sampling | None = None,
        keep_prompt: bool = True,
    ) -> None:
        check_length("max_new_tokens", max_new_tokens)
        check_length("max_context_tokens", max_context_tokens)
        self.name = name
        self.max_new_tokens = max_new_tokens
        self.template: Template = template or self._default_template(tokenizer)
        self.sampling: Sampling = sampling or GREEDY
        self._model, self._tokenizer = model, tokenizer
        self._last = LastPrompt() if keep_prompt else None
        self._shown = Shown()
        self._before, self._after = added_tokens(tokenizer)
        self._ends = _end_tokens(model, tokenizer)
        self._room = min(max_context_tokens, self._longest_prompt(max_new_tokens))
        if self._room < 1:
            raise InputError(
                f"{name} takes {self._window()} tokens at once, so max_new_tokens={max_new_tokens} leaves no room for "
                f"passages. Pass a smaller max_new_tokens, such as {max(1, self._window() // 4)}."
            )

    def prompt(self, question: str, passages: Sequence[Passage]) -> Prompt:
        """What the model reads: the template with what of the passages fits (see `semsearch.packing.pack`).

        Raises InputError for an empty question, for one that leaves no room, and if there are passages but nothing of
        any fits.
        """
        return self._prompt(question, passages, REMEMBERED)

    def _prompt(self, question: str, passages: Sequence[Passage], most: int) -> Prompt:
        """As `prompt`; the contexts of the latest `most` prompts are remembered."""
        _check_question(question)
        head, tail = self._frame(question)
        room = self._room - len(head) - len(tail)
        if room < 1:
            raise InputError(
                f"The question has {len(tail)} tokens with its frame; {self.name} has room for {self._room} in all. "
                "Ask a shorter question."
            )
        block = cache(self._block)  # what a block costs is asked before it goes in
        packed = pack(passages, room, lambda number, text: len(block(number, text)))
        if packed.left_out and not packed.used:
            raise InputError(
                f"Not one sentence of the {len(passages)} passages fits into the {room} tokens that {self.name} has "
                "for them. Use shorter passages, or a larger max_context_tokens if the model's window allows it."
            )
        for number, passage in zip(packed.numbers, packed.used, strict=True):
            head += block(number, passage.text)
        self._shown.put(question, passages, packed.context, most=most)
        return Prompt((*head, *tail), packed)

    def context(self, question: str, passages: Sequence[Passage]) -> Context:
        """What of the passages the model is shown, by rank, in whole sentences, and what is left out.

        Neighbours in a document stand as one, a text that occurs twice stands once. Raises what `prompt` raises.
        """
        return self._shown.get(question, passages) or self.prompt(question, passages).packed.context

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]:
        """The answer in pieces of text, as the model writes it; none without passages.

        White space at the beginning is dropped. Closing the iterator stops the model. Raises what `prompt` raises.
        """
        prompt = self.prompt(question, passages)
        if not prompt.packed.used:
            return iter(())
        tokens = self._tokens(prompt.tokens, self.sampling.chooser())
        return self._answer(until_token(islice(tokens, self.max_new_tokens), self._ends))

    def generate(
        self,
        questions: Sequence[str],
        passages_of_each: Sequence[Sequence[Passage]],
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[str]:
        """The answers to many questions, each from its own passages ("" without), in their order.

        Questions of about the same length are answered together, as many as there are `batch_tokens` for their prompts
        and answers. Each answer is what `stream` writes, as far as a model computes the same for a row of a batch: in
        another order of summing the last bits of its logits differ, and where two tokens are all but equally likely the
        other one may win; and an answer that only repeats itself (see `semsearch.repeats`) is not written to the end.
        Raises what `prompt` raises, and InputError unless there are as many questions as passages.
        """
        check_length("batch_tokens", batch_tokens)
        if isinstance(questions, str) or len(questions) != len(passages_of_each):
            raise InputError(
                f"generate takes a list of questions and for each a list of passages, got {questions!r:.80} and "
                f"{len(passages_of_each)} lists."
            )
        most = max(REMEMBERED, len(questions))
        prompts = [self._prompt(*pair, most) for pair in zip(questions, passages_of_each, strict=True)]
        texts = [""] * len(prompts)
        for batch in self._batches([prompt.tokens if prompt.packed.used else () for prompt in prompts], batch_tokens):
            answers = self._together([prompts[i].tokens for i in batch])
            for i, tokens in zip(batch, answers, strict=True):
                texts[i] = "".join(self._answer(tokens))
        return texts

    def _batches(self, prompts: Sequence[tuple[int, ...]], batch_tokens: int) -> Iterator[list[int]]:
        """The positions of the prompts that are not empty, in batches; those with a common beginning side by side."""
        batch: list[int] = []
        for i in sorted((i for i in range(len(prompts)) if prompts[i]), key=lambda i: len(prompts[i])):
            rows = len(batch) + 1
            if batch and (not self._batched() or rows * (len(prompts[i]) + self.max_new_tokens) > batch_tokens):
                yield sorted(batch, key=lambda i: prompts[i])
                batch = []
            batch.append(i)
        if batch:
            yield sorted(batch, key=lambda i: prompts[i])

    def _together(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The tokens of the answers to several prompts; a row that is complete leaves the batch."""
        steps = self._steps(prompts)
        choosers = [self.sampling.chooser() for _ in prompts]
        answers: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        while rows:
            going = []
            for row, i in enumerate(rows):
                token = choosers[i](steps.logits[row], self._known(prompts[i], answers[i]))
                if token not in self._ends:
                    answers[i].append(token)
                    if not self._complete(answers[i]):
                        going.append(row)
            if going and len(going) < len(rows):
                steps.keep(going)
            rows = [rows[row] for row in going]
            if rows:
                steps.advance([answers[i][-1] for i in rows])
        return answers

    def _tokens(self, prompt: Sequence[int], choose: Choose) -> Iterator[int]:
        """The tokens that follow a prompt, without end."""
        steps = self._steps([prompt])
        written: list[int] = []
        while True:
            token = choose(steps.logits[0], self._known(prompt, written))
            yield token
            written.append(token)
            steps.advance([token])

    def _answer(self, tokens: Iterable[int]) -> Iterator[str]:
        pieces = without_leading_space(detokenise(tokens, self._tokenizer))
        return until_text(pieces, self.template.stops)

    def _complete(self, answer: list[int]) -> bool:
        if len(answer) >= self.max_new_tokens:
            return True
        stops, look = self.template.stops, len(answer) % LOOK == 0
        if not (stops or look):
            return False
        text = self._tokenizer.decode(answer, skip_special_tokens=True).lstrip()
        return any(stop in text for stop in stops) or (look and only_repeats(text))

    def _block(self, number: int, text: str) -> list[int]:
        return self._encode(self.template.fill_passage(number, text))

    def _encode(self, text: str, *, control: bool = False) -> list[int]:
        return encode(self._tokenizer, text, control=control)

    @abstractmethod
    def _frame(self, question: str) -> tuple[list[int], list[int]]:
        """The tokens before and after the passages' blocks."""

    def _window(self) -> int:
        """How many tokens the model takes at once."""
        config = self._model.config
        known = [
            getattr(config, "max_position_embeddings", None),
            getattr(config.get_text_config(), "max_position_embeddings", None),
            self._tokenizer.model_max_length,
        ]
        # A tokenizer that does not know says 1e30.
        sizes = [size for size in known if isinstance(size, int) and 0 < size < 10**8]
        return min(sizes) if sizes else _UNKNOWN_WINDOW

    @abstractmethod
    def _default_template(self, tokenizer: Any) -> Template: ...

    @abstractmethod
    def _longest_prompt(self, max_new_tokens: int) -> int: ...

    @abstractmethod
    def _steps(self, prompts: Sequence[Sequence[int]]) -> Steps: ...

    @abstractmethod
    def _batched(self) -> bool:
        """Whether the model takes several prompts at once."""

    @abstractmethod
    def _known(self, prompt: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """What the decoder has before the next token."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, max_new_tokens={self.max_new_tokens})"


class CausalReader(_Reader):
    """A model that continues a text: GPT-2 and its heirs, and chat models.

    With a chat template the prompt is one message of the user, else it is a text that the answer continues. `model`
    and `tokenizer` are those of transformers, as `open_generative` loads them; `max_context_tokens` limits the prompt
    where the model's window is larger. A `template` replaces the wording. Raises InputError if `max_new_tokens` leaves
    no room in the window.

    An answer is the same each time: decoding is greedy, unless a `sampling` says otherwise, which begins each answer
    with its seed. With `keep_prompt` the keys and values of the last prompt stay in memory; a prompt with the same
    beginning, such as another question about the same passages in the same order, is read from where it differs, in
    whole pieces of 256 tokens. That changes no bit of an answer. Threads may share a reader.
    """

    def continue_text(
        self,
        text: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int | None = 50,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """What the model writes after `text`, in pieces: no passages, no template.

        The options are those of `semsearch.sampling.Sampling`; at a `temperature` of 0 the likeliest token is taken
        each time. Raises InputError if the text and `max_new_tokens` do not fit into the window, or if a number is out
        of its range.
        """
        length = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        check_length("max_new_tokens", length)
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
        prompt = [*self._before, *self._encode(text)] or [i for i in [self._tokenizer.bos_token_id] if i is not None]
        if not prompt or len(prompt) + length > self._window():
            raise InputError(
                f"The text has {len(prompt)} tokens and {length} are to follow; {self.name} takes 1 to "
                f"{self._window()} in all. Pass another text or a smaller max_new_tokens."
            )
        tokens = until_token(islice(self._tokens(prompt, sampling.chooser()), length), self._ends)
        return detokenise(tokens, self._tokenizer, after=prompt[-1:])

    def _frame(self, question: str) -> tuple[list[int], list[int]]:
        before, after = (self._encode(text) for text in self.template.fill_prompt(question))
        if not self._tokenizer.chat_template:
            # Without what the tokenizer puts after a text: it would end the answer before it begins.
            return [*self._before, *before], after
        # The text goes in after the template was rendered: it is no part of the template's language.
        mark = "\ue000"
        # Some models think aloud first unless their template is told otherwise; the others ignore the variable.
        message = {"role": "user", "content": mark}
        try:
            rendered = self._tokenizer.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception as error:  # a template is a program, with errors of any class
            raise ModelError(f"The chat template of {self.name} fails: {error or type(error).__name__}") from error
        if rendered.count(mark) != 1:
            raise ModelError(f"The chat template of {self.name} does not show the user's message exactly once.")
        opening, closing = (self._encode(part, control=True) for part in rendered.split(mark))
        return [*opening, *before], [*after, *closing]

    def _default_template(self, tokenizer: Any) -> Template:
        return CHAT if tokenizer.chat_template else COMPLETION

    def _longest_prompt(self, max_new_tokens: int) -> int:
        return self._window() - max_new_tokens

    def _steps(self, prompts: Sequence[Sequence[int]]) -> Steps:
        return CausalSteps(self._model, prompts, self._last)

    def _batched(self) -> bool:
        return has_plain_cache(self._model)

    def _known(self, prompt: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        return [*prompt, *written]


class Seq2SeqReader(_Reader):
    """A model with an encoder for the prompt and a decoder for the answer: T5, BART and their heirs.

    The arguments are those of `CausalReader`; `max_new_tokens` takes no room from the prompt, and `keep_prompt` has
    no effect: an encoder reads the beginning of a prompt in the light of its end.
    """

    def _frame(self, question: str) -> tuple[list[int], list[int]]:
        before, after = (self._encode(text) for text in self.template.fill_prompt(question))
        return [*self._before, *before], [*after, *self._after]

    def _default_template(self, tokenizer: Any) -> Template:
        return SEQ2SEQ

    def _longest_prompt(self, max_new_tokens: int) -> int:
        # Positions learned by the decoder end where the encoder's do; T5 has none and writes on.
        limit = getattr(self._model.config, "max_position_embeddings", None)
        return 0 if limit is not None and max_new_tokens > limit else self._window()

    def _steps(self, prompts: Sequence[Sequence[int]]) -> Steps:
        return Seq2SeqSteps(self._model, prompts)

    def _batched(self) -> bool:
        return True

    def _known(self, prompt: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        return written


def check_length(option: str, value: object) -> None:
    """Raise InputError unless `value` is a whole number and at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{option} is a number of tokens and at least 1, got {value!r}.")


def _check_question(question: object) -> None:
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"A question is a string with at least one word, got {question!r:.80}")


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ends, tokenizer.eos_token_id] if token is not None}

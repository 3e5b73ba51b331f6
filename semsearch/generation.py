"""Readers that write an answer in their own words: causal and sequence-to-sequence models by transformers.

    reader = open_generative("SmolLM2-135M-Instruct.Q4_1.gguf")
    for piece in reader.stream("When are late fees charged?", passages):
        print(piece, end="", flush=True)

Every prompt is built of blocks, one for each passage, that are tokenised by themselves: what a passage costs is known
before it goes in, and no text of a document or a question can become a control token of the model. Decoding is greedy,
one token at a time over the model's key-value cache, in the caller's thread: leaving the loop stops the model.

Only safetensors and GGUF files are read, no code of a model is run, and `HF_HUB_OFFLINE` is honoured. Whether an answer
is true to the passages is checked by `semsearch.grounding`, not here.
"""

from __future__ import annotations

import inspect
import os
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from semsearch.errors import InputError, MissingExtraError, ModelError
from semsearch.grounding import AnswerStream, sentences
from semsearch.prompts import CHAT, COMPLETION, SEQ2SEQ, Template
from semsearch.records import Passage

__all__ = ["AnswerStream", "CausalReader", "Context", "GenerativeReader", "Seq2SeqReader", "open_generative"]

MAX_NEW_TOKENS = 256
MAX_CONTEXT_TOKENS = 2048  # of a CPU's seconds before the first word, most go into reading the prompt
_UNKNOWN_WINDOW = 512  # what T5, whose configuration does not say, was trained on


class GenerativeReader(Protocol):
    """Writes an answer to a question from passages, best passage first."""

    @property
    def name(self) -> str: ...

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a model is shown.

    `used` has the number (the position in the given passages, starting at 1) and the passage of each block; one that
    was cut ends early, at the end of a sentence. `left_out` are the passages, or rests of passages, without room.
    `prompt` are the ids of all tokens.
    """

    used: tuple[tuple[int, Passage], ...]
    left_out: tuple[Passage, ...]
    prompt: tuple[int, ...]


class _Reader(ABC):
    """What both kinds of models have in common: packing the context, and turning tokens into text."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_context_tokens: int = MAX_CONTEXT_TOKENS,
        template: Template | None = None,
    ) -> None:
        _check_length("max_new_tokens", max_new_tokens)
        _check_length("max_context_tokens", max_context_tokens)
        self.name = name
        self.max_new_tokens = max_new_tokens
        self.template = template or self._default_template(tokenizer)
        self._model, self._tokenizer = model, tokenizer
        self._before, self._after = _added_tokens(tokenizer)
        self._room = min(max_context_tokens, self._longest_prompt(max_new_tokens))
        if self._room < 1:
            raise InputError(
                f"{name} takes {self._window()} tokens at once, so max_new_tokens={max_new_tokens} leaves no room for "
                f"passages. Pass a smaller max_new_tokens, such as {max(1, self._window() // 4)}."
            )

    def context(self, question: str, passages: Sequence[Passage]) -> Context:
        """What of the passages fits into the model's window together with the question, by rank, in whole sentences.

        A passage that does not fit is cut after a sentence, and those behind it are left out; one of which not even
        the first sentence fits is left out by itself. Raises InputError for an empty question, for one that leaves no
        room, and if there are passages but nothing of any fits.
        """
        _check_question(question)
        head, tail = self._frame(question)
        room = self._room - len(head) - len(tail)
        if room < 1:
            raise InputError(
                f"The question has {len(tail)} tokens with its frame; {self.name} has room for {self._room} in all. "
                "Ask a shorter question."
            )
        blocks: list[int] = []
        used: list[tuple[int, Passage]] = []
        left_out: list[Passage] = []
        full = False
        for number, passage in enumerate(passages, start=1):
            block, end = ([], 0) if full else self._block(number, passage.text, room - len(blocks))
            blocks += block
            if end:
                used.append((number, replace(passage, text=passage.text[:end], end=passage.start + end)))
            if passage.text[end:].strip():
                left_out.append(replace(passage, text=passage.text[end:], start=passage.start + end))
                full = full or end > 0
        if left_out and not used:
            raise InputError(
                f"Not one sentence of the {len(passages)} passages fits into the {room} tokens that {self.name} has "
                "for them. Use shorter passages, or a larger max_context_tokens if the model's window allows it."
            )
        return Context(tuple(used), tuple(left_out), (*head, *blocks, *tail))

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]:
        """The answer in pieces of text, as the model writes it; none without passages.

        White space at the beginning is dropped. Closing the iterator stops the model. Raises what `context` raises.
        """
        context = self.context(question, passages)
        if not context.used:
            return iter(())
        return self._write(context.prompt, _greedy, self.max_new_tokens, self.template.stops)

    def _write(
        self, prompt: Sequence[int], choose: Callable[[Any], int], max_new_tokens: int, stops: Sequence[str]
    ) -> Iterator[str]:
        ends = _end_tokens(self._model, self._tokenizer)
        tokens = _until_token(islice(self._tokens(prompt, choose), max_new_tokens), ends)
        return _until_text(_without_leading_space(_detokenise(tokens, self._tokenizer)), stops)

    def _block(self, number: int, text: str, room: int) -> tuple[list[int], int]:
        """The tokens of the longest beginning of `text`, in whole sentences, that fits, and its length or 0."""

        def block(end: int) -> list[int]:
            return self._encode(self.template.fill_passage(number, text[:end]))

        ends = [end for _, end in sentences(text)]
        fitting = bisect_right(ends, room, key=lambda end: len(block(end)))
        # Another sentence may, rarely, make the tokens before it fewer, so that the search stopped one too far.
        while fitting and len(block(ends[fitting - 1])) > room:
            fitting -= 1
        return (block(ends[fitting - 1]), ends[fitting - 1]) if fitting else ([], 0)

    def _encode(self, text: str, *, control: bool = False) -> list[int]:
        """The tokens of `text`. Only with `control` are <|im_start|>, </s> and the like more than their letters."""
        return _encode(self._tokenizer, text, control=control)

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
    def _tokens(self, prompt: Sequence[int], choose: Callable[[Any], int]) -> Iterator[int]: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, max_new_tokens={self.max_new_tokens})"


class CausalReader(_Reader):
    """A model that continues a text: GPT-2 and its heirs, and chat models.

    With a chat template the prompt is one message of the user, else it is a text that the answer continues. `model`
    and `tokenizer` are those of transformers, as `open_generative` loads them; `max_context_tokens` limits the prompt
    where the model's window is larger. A `template` replaces the wording. Raises InputError if `max_new_tokens` leaves
    no room in the window. An answer is the same each time: decoding is greedy.
    """

    def continue_text(
        self,
        text: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 50,
        seed: int = 0,
    ) -> Iterator[str]:
        """What the model writes after `text`, in pieces: no passages, no template.

        A `temperature` of 0 takes the likeliest token each time; above, one of the `top_k` likeliest is drawn with the
        probabilities of the logits divided by it, the same for the same `seed`. Raises InputError if the text and
        `max_new_tokens` do not fit into the window, or if a number is out of its range.
        """
        length = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        _check_length("max_new_tokens", length)
        _check_length("top_k", top_k)
        if not 0 <= temperature < float("inf"):
            raise InputError(f"temperature is a number and not negative, got {temperature!r}.")
        prompt = [*self._before, *self._encode(text)] or [i for i in [self._tokenizer.bos_token_id] if i is not None]
        if not prompt or len(prompt) + length > self._window():
            raise InputError(
                f"The text has {len(prompt)} tokens and {length} are to follow; {self.name} takes 1 to "
                f"{self._window()} in all. Pass another text or a smaller max_new_tokens."
            )
        choose = _sampler(temperature, top_k, seed) if temperature else _greedy
        ends = _end_tokens(self._model, self._tokenizer)
        tokens = _until_token(islice(self._tokens(prompt, choose), length), ends)
        return _detokenise(tokens, self._tokenizer)

    def _frame(self, question: str) -> tuple[list[int], list[int]]:
        before, after = (self._encode(text) for text in self.template.fill_prompt(question))
        if not self._tokenizer.chat_template:
            # Without what the tokenizer puts after a text: it would end the answer before it begins.
            return [*self._before, *before], after
        # The text goes in after the template was rendered: it is no part of the template's language.
        mark = "\ue000"
        # Some models think aloud first unless their template is told otherwise; the others ignore the variable.
        rendered = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        if rendered.count(mark) != 1:
            raise ModelError(f"The chat template of {self.name} does not show the user's message exactly once.")
        opening, closing = (self._encode(part, control=True) for part in rendered.split(mark))
        return [*opening, *before], [*after, *closing]

    def _default_template(self, tokenizer: Any) -> Template:
        return CHAT if tokenizer.chat_template else COMPLETION

    def _longest_prompt(self, max_new_tokens: int) -> int:
        return self._window() - max_new_tokens

    def _tokens(self, prompt: Sequence[int], choose: Callable[[Any], int]) -> Iterator[int]:
        ids = list(prompt)
        # Without this the first step would compute the logits of the whole prompt: gigabytes for a large vocabulary.
        last_only = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        options = {"logits_to_keep": 1} if last_only else {}
        cache, step = None, ids
        while True:
            cache, token = _step(self._model, choose, cache, len(ids), {"input_ids": step, **options})
            yield token
            ids.append(token)
            step = ids if cache is None else [token]


class Seq2SeqReader(_Reader):
    """A model with an encoder for the prompt and a decoder for the answer: T5, BART and their heirs.

    The arguments are those of `CausalReader`; `max_new_tokens` takes no room from the prompt.
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

    def _tokens(self, prompt: Sequence[int], choose: Callable[[Any], int]) -> Iterator[int]:
        import torch

        settings = self._model.generation_config
        with torch.inference_mode():
            source = torch.tensor([list(prompt)], device=self._model.device)
            encoded = self._model.get_encoder()(input_ids=source, attention_mask=torch.ones_like(source))
        start = settings.decoder_start_token_id
        start = settings.bos_token_id if start is None else start
        ids: list[int] = [start]
        cache, step = None, ids
        while True:
            inputs = {"decoder_input_ids": step, "encoder_outputs": encoded}
            cache, token = _step(self._model, choose, cache, len(prompt), inputs)
            if len(ids) == 1 and settings.forced_bos_token_id is not None:
                token = settings.forced_bos_token_id
            yield token
            ids.append(token)
            step = ids if cache is None else [token]


# --- Loading ---------------------------------------------------------------------------------------------------------


def open_generative(
    name_or_path: str | os.PathLike[str],
    kind: Literal["causal", "seq2seq"] = "causal",
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_context_tokens: int = MAX_CONTEXT_TOKENS,
    template: Template | None = None,
    device: str | None = None,
) -> CausalReader | Seq2SeqReader:
    """Load a model of transformers as a reader.

    `name_or_path` is a folder with the model as safetensors, a `.gguf` file (or a folder with one and no
    configuration), or a name on the model hub. `device` is one of torch's, by default a GPU if there is one; on a CPU
    the weights become float32. The other arguments are those of `CausalReader`. Raises ModelError if the model cannot
    be found, is of another kind, has missing weights or only pickled ones; MissingExtraError for a GGUF file without
    the packages that read it.
    """
    import torch
    import transformers

    if kind not in ("causal", "seq2seq"):
        raise InputError(f"kind is 'causal' or 'seq2seq', got {kind!r}.")
    _check_length("max_new_tokens", max_new_tokens)
    _check_length("max_context_tokens", max_context_tokens)
    name = os.fspath(name_or_path)
    location, gguf = _locate(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loader = transformers.AutoModelForCausalLM if kind == "causal" else transformers.AutoModelForSeq2SeqLM
    options: dict[str, Any] = {"trust_remote_code": False, "gguf_file": gguf}
    try:
        with _progress_for_people():
            tokenizer = transformers.AutoTokenizer.from_pretrained(location, **options)
            model, report = loader.from_pretrained(
                location,
                use_safetensors=True,
                dtype=torch.float32 if device == "cpu" else "auto",
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(_cannot_load(name, kind, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{name} has no weights for {missing[0]} and {len(missing) - 1} others as a {kind} model: it would write "
            "nonsense. Use a model that was trained to generate text, or pass the other kind."
        )
    reader = CausalReader if kind == "causal" else Seq2SeqReader
    return reader(
        name,
        model.to(device),
        tokenizer,
        max_new_tokens=max_new_tokens,
        max_context_tokens=max_context_tokens,
        template=template,
    )


def _locate(name: str) -> tuple[str, str | None]:
    """What transformers wants to know: the name or folder, and the GGUF file in it."""
    path = Path(name).expanduser()
    files = [path] if path.suffix == ".gguf" else []
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ModelError(f"The folder {name} has several GGUF files ({names}). Give the path of one.")
    if not files:
        return (str(path) if path.exists() else name), None
    if not files[0].is_file():
        raise ModelError(f"There is no file {name}. Give the path of a .gguf file, of a folder, or a model's name.")
    for package in ("gguf", "accelerate"):
        if find_spec(package) is None:
            raise MissingExtraError("Reading a GGUF file", package, "gguf")
    return str(files[0].parent), files[0].name


def _cannot_load(name: str, kind: str, error: Exception) -> str:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    if Path(name).expanduser().exists():
        reason = (str(error) or repr(error)).strip().splitlines()[0]
    elif offline:
        reason = "there is no such path, no such model in the local cache, and HF_HUB_OFFLINE forbids to download it"
    else:
        reason = "there is no such path, and no such model in the local cache or on the hub (or no network to ask)"
    return (
        f"The {kind} model {name!r} cannot be loaded: {reason}. Give the path of a folder with config.json, the "
        "tokenizer's files and model.safetensors, the path of a .gguf file, or the name of a model on the hub; "
        "pickled weights (.bin) and models with code of their own are not accepted."
    )


@contextmanager
def _progress_for_people() -> Iterator[None]:
    """Bars while a model loads only where somebody sees them."""
    import sys

    from transformers.utils import logging

    hide = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


# --- Tokens and text -------------------------------------------------------------------------------------------------


def _check_question(question: object) -> None:
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"A question is a string with at least one word, got {question!r:.80}")


def _check_length(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{option} is a number of tokens and at least 1, got {value!r}.")


def _encode(tokenizer: Any, text: str, *, control: bool = False) -> list[int]:
    clean = re.sub("[\ud800-\udfff]", "\ufffd", text)  # tokenizers accept no lone surrogates
    encoding = tokenizer(clean, add_special_tokens=False, split_special_tokens=not control, verbose=False)
    ids: list[int] = encoding.input_ids
    return ids


def _added_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    framed = tokenizer("a").input_ids
    for i in range(len(framed) - len(bare) + 1):
        if framed[i : i + len(bare)] == bare:
            return framed[:i], framed[i + len(bare) :]
    return [], []


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ends, tokenizer.eos_token_id] if token is not None}


def _step(model: Any, choose: Callable[[Any], int], cache: Any, length: int, inputs: dict[str, Any]) -> tuple[Any, int]:
    """Run a model once: the cache for the next step (None if it keeps none), and the token chosen from the logits."""
    import torch

    tensors = {
        name: torch.tensor([value], device=model.device) if isinstance(value, list) else value
        for name, value in inputs.items()
    }
    mask = torch.ones((1, length), dtype=torch.long, device=model.device)
    # transformers 5.24 gave the argument and the output another name.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    # Not around the caller's loop: a generator that stops inside would leave the caller in inference mode.
    with torch.inference_mode():
        output = model(**tensors, attention_mask=mask, use_cache=True, **{name: cache})
        return getattr(output, name, None), choose(output.logits[0, -1])


def _greedy(logits: Any) -> int:
    return int(logits.argmax())


def _sampler(temperature: float, top_k: int, seed: int) -> Callable[[Any], int]:
    """Draw one of the `top_k` likeliest tokens (Fan et al. 2018, "Hierarchical Neural Story Generation")."""
    import torch

    # On the CPU whatever the model's device, so that a seed means the same everywhere.
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: Any) -> int:
        best, tokens = logits.float().cpu().topk(min(top_k, len(logits)))
        drawn = torch.multinomial(torch.softmax(best / temperature, dim=-1), 1, generator=generator)
        return int(tokens[drawn])

    return choose


def _until_token(tokens: Iterable[int], ends: set[int]) -> Iterator[int]:
    for token in tokens:
        if token in ends:
            return
        yield token


def _detokenise(tokens: Iterable[int], tokenizer: Any) -> Iterator[str]:
    """The text of tokens, piece by piece; a character of several tokens comes when it is complete.

    Together the pieces are what the tokenizer makes of all the tokens at once.
    """

    def decode(some: list[int]) -> str:
        text: str = tokenizer.decode(some, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    # Each piece is decoded after the one before it, because a token's text depends on what stands before.
    known: list[int] = []
    new: list[int] = []
    for token in tokens:
        new.append(token)
        before, now = decode(known), decode(known + new)
        if len(now) > len(before) and not now.endswith("\ufffd"):
            yield now[len(before) :]
            known, new = new, []
    rest = decode(known + new)[len(decode(known)) :]
    if rest:
        yield rest


def _without_leading_space(pieces: Iterable[str]) -> Iterator[str]:
    begun = False
    for piece in pieces:
        text = piece if begun else piece.lstrip()
        if text:
            begun = True
            yield text


def _until_text(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first of the `stops`; what may be the beginning of one is held back until that is clear."""
    held = ""
    for piece in pieces:
        held += piece
        found = [held.find(stop) for stop in stops if stop in held]
        if found:
            if min(found):
                yield held[: min(found)]
            return
        keep = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held

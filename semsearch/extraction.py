"""Finding the answer to a question as a span of a text.

An extractive reader gives every token of a text two numbers: how well an answer would start there, and how well it
would end there (Devlin et al. 2019, BERT, section 4.2). The rest is done here, the same way for every reader: texts
that are longer than the model takes are cut into overlapping windows, starts and ends are searched jointly under a
length limit, and tokens are turned back into exact offsets.

    reader = OnnxReader()
    spans = reader.read("When was it built?", ["It was built in 1854, near the river."])
    spans[0]                     # Span(text=0, start=16, end=20, score=9.1): texts[0][16:20] == "1854"

`OnnxReader` needs onnxruntime and tokenizers alone, never torch. A span's score depends on the question and on its own
text, never on what else is read along with it.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError, ModelError
from semsearch.runtime import PerProcess, Runtime, in_threads, read_settings, replace_surrogates

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Attention", "OnnxReader", "Reader", "Span", "TransformersReader", "best_spans", "trim"]

SHIPPED = Path(__file__).parent / "models" / "reader"

WINDOW = 384  # tokens that the model sees at once: question, text and the marks between them
STRIDE = 128  # tokens that two neighbouring windows of a text share
ANSWER_TOKENS = 30  # the longest answer
PER_TEXT = 3  # spans of one text


class Span(NamedTuple):
    """Where an answer stands: `texts[text][start:end]`. Higher scores are better.

    The scores of the readers in this module are the sum of the two logits of the span minus that of "no answer in this
    window": above 0, the model holds the span for more likely than that there is none.
    """

    text: int
    start: int
    end: int
    score: float


@runtime_checkable
class Reader(Protocol):
    """What finds spans. An object of your own needs no more than these two members.

    `read` returns spans of any of the texts, best first over all of them; none at all means "not found".
    """

    @property
    def name(self) -> str: ...

    def read(self, question: str, texts: Sequence[str]) -> list[Span]:
        """Spans of any of the texts, best first over all of them."""


def best_spans(
    start: NDArray[np.floating[Any]],
    end: NDArray[np.floating[Any]],
    *,
    parts: NDArray[np.integer[Any]] | None = None,
    max_tokens: int = ANSWER_TOKENS,
    count: int = PER_TEXT,
) -> list[tuple[int, int, float]]:
    """The best spans (first, last, start[first] + end[last]) of at most `max_tokens` tokens, none overlapping.

    `start` and `end` are logits, both (n,); a token that cannot be chosen has -inf. Starts and ends are searched
    jointly; the second span is the best of those that do not touch the first, and so on, up to `count`. With `parts`
    (n,), a span starts and ends in the same part of the text.

    >>> best_spans(np.array([0.0, 3.0, 1.0]), np.array([2.0, 0.0, 1.0]), count=2)
    [(1, 2, 4.0), (0, 0, 2.0)]
    """
    n = len(start)
    width = min(max_tokens, n)
    if width < 1:
        return []
    ends = np.concatenate([end, np.full(width - 1, -np.inf, dtype=end.dtype)])
    # scores[i, d] is the span from token i to token i + d.
    scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(ends, width)
    first = np.arange(n)[:, None]
    last = first + np.arange(width)
    if parts is not None:
        scores[parts[first] != parts[np.minimum(last, n - 1)]] = -np.inf
    found: list[tuple[int, int, float]] = []
    while len(found) < count:
        i, d = divmod(int(scores.argmax()), width)
        score = float(scores[i, d])
        if not np.isfinite(score):
            break
        found.append((i, i + d, score))
        scores[(first <= i + d) & (last >= i)] = -np.inf
    return found


# The escapes are the full-width , ; : ! ? ( ) of Chinese and Japanese.
_MARKS = frozenset(".,;:!?…、。·•—–-*|`\"'“”‘’„‚«»‹›「」『』《》〈〉\uff0c\uff1b\uff1a\uff01\uff1f")
_PARTNER = dict(zip("()[]{}\uff08\uff09", ")(][}{\uff09\uff08", strict=True))
_ABBREVIATION = re.compile(r"(?:\b\w\.\s?){2,}$")
# "-5" and ".md" in "(-5)", "x=-5", "`.md`": glued to what is on the right, but on the left to no word or closing mark.
_GLUED = re.compile(r"[-.][^\W_]|-\.\d")
_OPENS = re.compile(r"(?:^|[\s(\[{<>=≤≥≈~±/,:;|])[\"'`“‘]?$")


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Cut white space and punctuation off both ends of `text[start:end]`; the offsets of what is left.

    What belongs to the answer stays: a bracket with its partner inside, a sign or a point before a digit or a letter
    ("-5", ".5", ".md"), the points of an abbreviation ("U.S."), and marks on the last letter.

    >>> trim('in "1854" (see U.S.), ', 3, 22)
    (4, 20)
    """
    # An accent that is written as a character of its own may lie just outside the last token.
    while end < len(text) and end > start and unicodedata.category(text[end])[0] == "M":
        end += 1
    while start < end and _loose(text[start], text[start + 1 : end]):
        if _GLUED.match(text, start) and _OPENS.search(text, max(start - 2, 0), start):
            break
        start += 1
    while end > start and _loose(text[end - 1], text[start : end - 1]):
        if text[end - 1] == "." and _ABBREVIATION.search(text, start, end):
            break
        end -= 1
    return start, end


def _loose(character: str, rest: str) -> bool:
    """Whether a character at the edge of an answer is no part of it, given the rest of the answer."""
    if character in _PARTNER:
        return _PARTNER[character] not in rest
    return character in _MARKS or character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


@dataclass(frozen=True, slots=True)
class Window:
    """What a model sees of one text: token ids and types, and for each token its offsets in the text.

    `ids`, `types` (n,) int64; `offsets` (n, 2) int64, both -1 where a token is not of the text.
    """

    text: int
    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    offsets: NDArray[np.int64]


class Windows:
    """Cuts texts into windows for a model, and turns a model's logits back into spans.

    Every token of a text is in at least one window, and each window has the whole question, at most half of the window
    long (a longer one is cut, with a warning).
    """

    def __init__(self, tokenizer: Tokenizer, *, window: int = WINDOW, stride: int = STRIDE) -> None:
        marks = tokenizer.num_special_tokens_to_add(True)
        self.question_tokens: int = window // 2
        room = window - self.question_tokens - marks
        if room < 2:
            raise ModelError(
                f"A reader that takes {window} tokens has no room for a question and a text; use a larger one."
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._plain = tokenizer
        self._told = ""  # the latest question that was cut
        self._special = set(tokenizer.encode("", "").ids)  # the marks around a pair
        self._cutting = type(tokenizer).from_str(tokenizer.to_str())
        self._cutting.enable_truncation(window, stride=min(stride, room * 3 // 4), strategy="only_second")

    def question(self, question: str) -> str:
        """The question as the model takes it: encodable, and cut where it is too long."""
        whole = question = replace_surrogates(question)
        tokens = n = len(offsets := self._plain.encode(question, add_special_tokens=False).offsets)
        keep = self.question_tokens
        # Cutting may split a word into more tokens than it had: shorten until it fits.
        while n > self.question_tokens:
            question = whole[: offsets[keep - 1][1]]
            n = len(self._plain.encode(question, add_special_tokens=False))
            keep -= 1
        if question != whole != self._told:  # its texts may come in several calls
            self._told = whole
            warn(
                f"The question has {tokens} tokens, the reader takes {self.question_tokens}: "
                f"only the first {len(question)} of {len(whole)} characters are used. Ask a shorter one.",
                stacklevel=_outside(),
            )
        return question

    def cut(self, question: str, texts: Sequence[str]) -> list[Window]:
        """The windows of all texts, longest first (so that a pool of threads ends evenly)."""
        question = self.question(question)
        windows: list[Window] = []
        for i, text in enumerate(texts):
            encoding = self._cutting.encode(question, replace_surrogates(text))
            windows.extend(_window(i, e) for e in (encoding, *encoding.overflowing))
        windows = [w for w in windows if (w.offsets[:, 0] >= 0).any()]
        return sorted(windows, key=lambda w: -len(w.ids))

    def parts(self, window: Window, text: str) -> tuple[list[str], NDArray[np.int64]]:
        """The tokens of a window as they stand in the text or in the vocabulary, and what each is of (`Attention`)."""
        ids, special = window.ids.tolist(), self._special
        tokens = [self._plain.id_to_token(id) or "" for id in ids]
        part = np.where(window.offsets[:, 0] >= 0, 1, [-1 if id in special else 0 for id in ids])
        for place in np.flatnonzero(part == 1):
            tokens[place] = text[slice(*window.offsets[place])]
        return tokens, part


def _outside() -> int:
    """The `stacklevel` of whoever called into the package, by whichever way, for a warning of the caller."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith("semsearch."):
        level += 1
    return level


def _holds(window: Window, place: int) -> bool:
    starts = window.offsets[window.offsets[:, 0] >= 0, 0]
    return bool(len(starts)) and int(starts[0]) <= place <= int(starts[-1])


def _window(text: int, encoding: Any) -> Window:
    inside = np.array([s == 1 for s in encoding.sequence_ids], dtype=bool)
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    inside &= offsets[:, 0] < offsets[:, 1]
    return Window(
        text,
        np.array(encoding.ids, dtype=np.int64),
        np.array(encoding.type_ids, dtype=np.int64),
        np.where(inside[:, None], offsets, -1),
    )


Logits = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]


# An answer does not run over a blank line, nor from one cell of a table into the next.
_BREAK = re.compile(r"\n\s*\n|(?<!\S)\|(?!\S)")


def spans_of_window(window: Window, logits: Logits, text: str) -> list[Span]:
    """The best spans of one window, trimmed, scored against "no answer" (the logits of the first token)."""
    start, end = (np.asarray(side, dtype=np.float32) for side in logits)
    null = float(start[0] + end[0])
    inside = window.offsets[:, 0] >= 0
    low, high = int(window.offsets[inside, 0].min()), int(window.offsets[:, 1].max())
    breaks = [low + match.start() for match in _BREAK.finditer(text[low:high])]
    parts = np.searchsorted(breaks, window.offsets[:, 0], side="right")
    spans = []
    for i, j, score in best_spans(np.where(inside, start, -np.inf), np.where(inside, end, -np.inf), parts=parts):
        a, b = trim(text, int(window.offsets[i, 0]), int(window.offsets[j, 1]))
        if any(map(str.isalnum, text[a:b])):
            spans.append(Span(window.text, a, b, score - null))
    return spans


def merge_spans(spans: Sequence[Span], *, count: int = PER_TEXT) -> list[Span]:
    """The spans of all windows, best first: of those that overlap only the best, and at most `count` of a text."""
    kept: dict[int, list[Span]] = {}
    for span in sorted(spans, key=lambda s: (-s.score, s.text, s.start, s.end)):
        same = kept.setdefault(span.text, [])
        if len(same) < count and all(span.end <= s.start or s.end <= span.start for s in same):
            same.append(span)
    return sorted((s for same in kept.values() for s in same), key=lambda s: (-s.score, s.text, s.start))


class OnnxReader:
    """An extractive reader as a folder with `model.onnx`, `tokenizer.json` and `semsearch.json`.

    Without a folder it is the one that ships with the package. Each window is one run on one thread, and the windows
    of all texts are shared out to as many threads as there are CPU cores: nothing is padded, and since the
    scales of 8-bit arithmetic are taken from the run, a score never depends on the other texts.

    The model is loaded at the first `read`, and again after a fork. Raises ModelError for a folder without a compiled
    reader, and at the first `read` for a damaged one.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder: Path = SHIPPED if folder is None else Path(folder)
        settings = read_settings(self.folder, "reader")
        try:
            self.name: str = settings["name"]
            self._window = min(WINDOW, int(settings["max_tokens"]))
            self._runtimes = PerProcess(self.folder, settings["model_sha256"])
        except KeyError as error:
            raise ModelError(f"The semsearch.json of {str(self.folder)!r} lacks {error}. Compile it again.") from error
        self._windows: tuple[Runtime, Windows] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the model itself; the one that ships, from where it is installed there."""
        return type(self), (None if self.folder == SHIPPED else self.folder,)

    def read(self, question: str, texts: Sequence[str]) -> list[Span]:
        """At most three spans per text that may answer the question, best first over all texts.

        Scores are log-odds like: above 0, the model prefers the span to "no answer in this window".
        Raises InputError for an empty question.
        """
        _check(question, texts)
        runtime = self._runtimes.get()
        windows = self._cutter(runtime).cut(question, texts)
        found: list[list[Span]] = [[]] * len(windows)

        def work(index: int) -> None:
            window = windows[index]
            start, end = runtime.run(["start_logits", "end_logits"], window.ids, window.types)
            found[index] = spans_of_window(window, (start[0], end[0]), texts[window.text])

        in_threads(work, range(len(windows)))
        return merge_spans([span for spans in found for span in spans])

    def _cutter(self, runtime: Runtime) -> Windows:
        if self._windows is None or self._windows[0] is not runtime:
            self._windows = (runtime, Windows(runtime.tokenizer, window=self._window))
        return self._windows[1]

    def __repr__(self) -> str:
        return f"OnnxReader({str(self.folder)!r})"


class Attention(NamedTuple):
    """What each token of a question and a text attends to.

    `tokens` (n) as the model has them; `part` (n,) is 0 for the question's, 1 for the text's, -1 for the marks between
    them. `weights` (layers, heads, n, n): from the token of the row to that of the column; each row sums to 1.
    """

    tokens: list[str]
    part: NDArray[np.int64]
    weights: NDArray[np.float32]


class TransformersReader:
    """Any extractive reader of transformers: a name of the model hub, or a folder.

    Windows and span search are those of `OnnxReader`; the model runs in float32, on a GPU if there is one, one window
    at a time, so that a score never depends on the other texts. Only safetensors weights are read, and no code that
    comes with a model is run.

        TransformersReader("deepset/roberta-base-squad2")

    Raises ModelError for a name that is not known, a model without a question-answering head, without safetensors, or
    with files that are damaged.
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer

        self.name: str = str(name)
        try:
            config = AutoConfig.from_pretrained(self.name, trust_remote_code=False)
            _check_head(self.name, config)
            tokenizer = AutoTokenizer.from_pretrained(self.name, use_fast=True, trust_remote_code=False)
            model = AutoModelForQuestionAnswering.from_pretrained(
                self.name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        except ModelError:
            raise
        except Exception as error:  # of any class, for files that are damaged
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"Reader {self.name!r} cannot be loaded: {reason} ({type(error).__name__}). Pass the path of a folder, "
                "or a name on the hub, of an extractive question-answering model with safetensors weights."
            ) from error
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                f"Reader {self.name!r} has no fast tokenizer, which exact offsets need. Use another model."
            )
        self._torch = torch
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._typed = "token_type_ids" in tokenizer.model_input_names
        room = getattr(config, "max_position_embeddings", WINDOW)
        # A copy: the windows set truncation, which is nobody else's business.
        self._windows = Windows(
            type(backend).from_str(backend.to_str()), window=min(WINDOW, room, tokenizer.model_max_length)
        )
        self._pid = os.getpid()

    def read(self, question: str, texts: Sequence[str]) -> list[Span]:
        """As `OnnxReader.read`."""
        _check(question, texts)
        if os.getpid() != self._pid:  # torch's threads do not survive a fork, and it would wait for them for ever
            self._torch.set_num_threads(1)
            self._pid = os.getpid()
        spans: list[Span] = []
        for window in self._windows.cut(question, texts):
            spans.extend(spans_of_window(window, self._run(window), texts[window.text]))
        return merge_spans(spans)

    def _run(self, window: Window) -> Logits:
        output = self._outputs(window)
        return output.start_logits[0].cpu().numpy(), output.end_logits[0].cpu().numpy()

    def _outputs(self, window: Window, **wanted: bool) -> Any:
        torch = self._torch
        inputs = {"input_ids": window.ids, "attention_mask": np.ones_like(window.ids)}
        if self._typed:
            inputs["token_type_ids"] = window.types
        device = self._model.device
        with torch.inference_mode():
            batch = {name: torch.from_numpy(value)[None].to(device) for name, value in inputs.items()}
            return self._model(**batch, **wanted)

    def attention(self, question: str, text: str) -> Attention:
        """The attention of every layer and head while the question is read with the text.

        Of a text of several windows it is the one with the best span. Not for several threads at once: the model works
        with another implementation of attention meanwhile, which gives the weights. Raises ModelError for a model that
        gives none.
        """
        found = self.read(question, [text])
        windows = self._windows.cut(question, [text])
        if not windows:
            raise InputError(f"There is nothing to read in {text[:40]!r}.")
        place = found[0].start if found else 0
        window = min(windows, key=lambda w: not _holds(w, place))
        before = self._model.config._attn_implementation
        try:
            self._model.set_attn_implementation("eager")  # the fast ones never have the weights as a whole
            layers = self._outputs(window, output_attentions=True).attentions
        finally:
            self._model.set_attn_implementation(before)
        if not layers:
            raise ModelError(f"Reader {self.name!r} does not give its attention. Use a BERT-like one.")
        weights = np.stack([layer[0].float().cpu().numpy() for layer in layers])
        return Attention(*self._windows.parts(window, text), weights)

    def __repr__(self) -> str:
        return f"TransformersReader({self.name!r})"


def _check_head(name: str, config: Any) -> None:
    architectures = config.architectures or []
    if not any(a.endswith("ForQuestionAnswering") for a in architectures):
        raise ModelError(
            f"Reader {name!r} is a {', '.join(architectures) or 'model of unknown architecture'}, "
            "not a ...ForQuestionAnswering: it has no head that finds spans. Use one fine-tuned for question answering."
        )


def _check(question: str, texts: Sequence[str]) -> None:
    if not question.strip():
        raise InputError(f"The question is empty: {question!r}. Ask with at least one word.")
    if isinstance(texts, str):
        raise InputError(f"texts is one string ({texts[:40]!r}...): give a list of strings.")

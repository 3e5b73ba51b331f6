"""Answering questions: search, read what was found, and say how sure the answer is.

    answerer = Answerer(Retriever(index))
    answer = answerer.answer("When are late fees charged?")
    answer.text, answer.score, answer.document_id, answer.start, answer.end

    Answerer(None).read("When was it built?", "It was built in 1854.").text            # "1854"

The spans of all windows of all passages compete with each other and with "no answer" in one softmax over
`scale * score - rank * log(rank of the passage) + bias` (normalising across passages: Clark and Gardner 2018). Spans
with the same words support each other; a logistic of their joint share (Platt 1999) is the probability that they are
the right answer. The weights were fitted by maximum likelihood on questions with known answers, and are stored with
the reader. An answer less likely than the threshold counts as not found.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError, ModelError
from semsearch.extraction import OnnxReader, Reader, Span, TransformersReader
from semsearch.generation import AnswerStream, GenerativeReader, open_generative
from semsearch.records import Answer, Hit, Passage

if TYPE_CHECKING:
    from semsearch.retrieval import Retriever

__all__ = ["Answerer", "Calibration", "Reader", "Span"]

ALTERNATIVES = 5
_CALIBRATION = "calibration.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the scores of a reader and the evidence of a search become probabilities.

    `scale` and `bias` turn a span's score into its log-odds against "no answer", and `rank` weighs the logarithm of the
    passage's rank. `slope` and `offset` turn the log-odds of an answer's share into those of its being right. The
    defaults take the scores for log-odds as they are.
    """

    scale: float = 1.0
    bias: float = 0.0
    rank: float = 0.0
    slope: float = 1.0
    offset: float = 0.0

    def shares(self, scores: NDArray[np.float64], ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of each span, (n,); what is missing to a sum of 1 is that of "no answer".

        >>> Calibration().shares(np.zeros(1), np.ones(1))
        array([0.5])
        """
        mixed = self.scale * scores - self.rank * np.log(ranks) + self.bias
        top = max(float(mixed.max(initial=0.0)), 0.0)
        weights = np.exp(mixed - top)
        shares: NDArray[np.float64] = weights / (weights.sum() + np.exp(-top))
        return shares

    def probability(self, share: float) -> float:
        """The probability that an answer with this share is right.

        >>> round(Calibration(slope=2.0, offset=1.0).probability(0.5), 4)  # 1 / (1 + exp(-1))
        0.7311
        """
        share = min(max(share, 1e-12), 1 - 1e-12)
        return 1 / (1 + math.exp(-self.slope * math.log(share / (1 - share)) - self.offset))


@dataclass(frozen=True, slots=True)
class _Calibrations:
    """Those of one reader: for texts that were given, and for the hits of a search."""

    given: Calibration = Calibration()
    ranked: Calibration = Calibration()
    threshold: float = 0.2


class WholeAnswer:
    """An extracted answer in the shape of an `AnswerStream`: iterate for its text, `.answer` is the answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._pieces = iter([answer.text] if answer.found else [])

    def __iter__(self) -> Iterator[str]:
        return self._pieces


class Answerer:
    """Answers questions from the passages that a retriever finds, or from texts it is given.

    `reader` is None (the extractive reader that ships with the package), the name or path of a transformers model
    (extractive, causal or sequence-to-sequence: its configuration decides; a causal one may be a `.gguf` file), a
    folder with a compiled reader, or an object of your own with the `Reader` or the `GenerativeReader` protocol. The
    scores of your own `Reader` are taken for probabilities, and clipped to 0 ... 1.

    `threshold` is the least probability of an answer; below it `answer.found` is False. None means the reader's own:
    stored with the shipped one, 0.2 for other extractive models, 0 for generative ones and for an object of your own
    (which returns no span when it finds none).

    Raises ModelError for a name that is not known or a model that cannot read, InputError for a threshold outside
    0 ... 1. An `Answerer` keeps no state between questions.
    """

    def __init__(
        self,
        retriever: Retriever | None,
        reader: str | Path | Reader | GenerativeReader | None = None,
        *,
        threshold: float | None = None,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise InputError(f"threshold is a probability between 0 and 1, got {threshold!r}.")
        self.retriever = retriever
        self.reader: Reader | GenerativeReader = _open(reader)
        self._calibrations = _calibrations(self.reader)
        default = 0.0 if self._calibrations is None else self._calibrations.threshold
        self.threshold = default if threshold is None else float(threshold)

    @overload
    def answer(self, question: str, k: int = 20, where: Mapping[str, Any] | None = None) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def answer(self, question: Sequence[str], k: int = 20, where: Mapping[str, Any] | None = None) -> list[Answer]: ...

    def answer(
        self, question: str | Sequence[str], k: int = 20, where: Mapping[str, Any] | None = None
    ) -> Answer | list[Answer]:
        """Search for `k` passages (that match `where`), read them and return the most likely answer.

        One question gives one `Answer`; a sequence of questions gives a list, with the same scores as one by one.
        Raises InputError for an empty question, a `k` below 1, or without a retriever.
        """
        if isinstance(question, str) or not isinstance(question, Iterable):
            return self.read(question, self._search(question, k, where))
        for one in question:
            _check_question(one)
        return [self.read(one, self._search(one, k, where)) for one in question]

    def read(self, question: str, passages: str | Passage | Hit | Iterable[str | Passage | Hit]) -> Answer:
        """The most likely answer within the given passages, hits or plain strings, without searching.

        `start` and `end` of the answer count from the start of the document, and for a string from its own start.
        `answer.hit` is the hit that was given; for a passage or a string it is a new one whose `rank` is the
        position in `passages`, starting at 1 (a string has the document id ""). No passages, or only empty ones, give
        an answer that is not found. Hits count with their rank, so pass them as a search returned them.
        """
        _check_question(question)
        one = isinstance(passages, (str, Passage, Hit)) or not isinstance(passages, Iterable)
        items: list[Any] = [passages] if one else list(passages)  # type: ignore[arg-type]
        hits = [_hit(item, rank) for rank, item in enumerate(items, start=1)]
        if not isinstance(self.reader, Reader):
            return self._kept(self._generate(self.reader, question, hits).answer)
        spans = _checked(self.reader, self.reader.read(question, [hit.passage.text for hit in hits]), hits)
        if not spans:
            return Answer("", 0.0)
        calibration = None
        if self._calibrations is not None:
            searched = all(isinstance(item, Hit) for item in items)
            calibration = self._calibrations.ranked if searched else self._calibrations.given
        return self._choose(spans, hits, calibration)

    def stream(self, question: str, k: int = 20, where: Mapping[str, Any] | None = None) -> AnswerStream | WholeAnswer:
        """The answer in pieces of text, as they come; the `.answer` of what is returned is the whole of it.

        A generative reader's pieces come while it writes, its citations with `.answer`. An extractive reader gives
        the answer in one piece, or none if there is no answer. Raises as `answer` does.

            stream = answerer.stream("When are late fees charged?")
            for piece in stream:
                print(piece, end="", flush=True)
            print(stream.answer.citations)
        """
        hits = self._search(question, k, where)
        if not isinstance(self.reader, Reader):
            return self._generate(self.reader, question, hits)
        return WholeAnswer(self.read(question, hits))

    def _search(self, question: str, k: int, where: Mapping[str, Any] | None) -> Sequence[Hit]:
        _check_question(question)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k is the number of passages to read and at least 1, got {k!r}.")
        if self.retriever is None:
            raise InputError(
                "This Answerer has no retriever to search with. "
                "Make it with one, Answerer(Retriever(index)), or give it the texts: read(question, texts)."
            )
        return self.retriever.search(question, k=k, where=where)

    def _generate(self, reader: GenerativeReader, question: str, hits: Sequence[Hit]) -> AnswerStream:
        return AnswerStream(reader.stream(question, [hit.passage for hit in hits]), hits, question)

    def _kept(self, answer: Answer) -> Answer:
        """The answer, or "not found" with the answer as the alternative if it is less likely than the threshold."""
        if not answer.found or answer.score >= self.threshold:
            return answer
        others = (replace(answer, alternatives=()), *answer.alternatives)
        return Answer("", answer.score, alternatives=others[:ALTERNATIVES])

    def _choose(self, spans: Sequence[Span], hits: Sequence[Hit], calibration: Calibration | None) -> Answer:
        """The likeliest text, at its likeliest place, with the next best texts as alternatives."""
        scores = np.array([span.score for span in spans], dtype=np.float64)
        ranks = np.array([hits[span.text].rank for span in spans], dtype=np.float64)
        shares = np.clip(scores, 0.0, 1.0) if calibration is None else calibration.shares(scores, ranks)
        groups: dict[str, list[int]] = {}
        for i in sorted(range(len(spans)), key=lambda i: (-shares[i], ranks[i], spans[i].start)):
            span = spans[i]
            groups.setdefault(_words(hits[span.text].passage.text[span.start : span.end]), []).append(i)
        scored = [(_probability(shares[group], calibration), group[0]) for group in groups.values()]
        scored.sort(key=lambda pair: -pair[0])
        answers = [_answer(spans[i], hits[spans[i].text], p) for p, i in scored[: ALTERNATIVES + 1]]
        return self._kept(replace(answers[0], alternatives=tuple(answers[1:])))

    def __repr__(self) -> str:
        return f"Answerer({self.retriever!r}, reader={self.reader.name!r}, threshold={self.threshold:g})"


def _probability(shares: NDArray[np.float64], calibration: Calibration | None) -> float:
    """Of a text, from the shares of its spans. The user's own scores are probabilities, and do not add up."""
    return float(shares.max()) if calibration is None else calibration.probability(float(shares.sum()))


def _answer(span: Span, hit: Hit, score: float) -> Answer:
    text, offset = hit.passage.text[span.start : span.end], hit.passage.start
    return Answer(text, score, hit, offset + span.start, offset + span.end)


_ARTICLE = re.compile(r"^(a|an|the)\s+")


def _words(text: str) -> str:
    """What two answers have in common that say the same: all but case, white space and a leading article."""
    return " ".join(_ARTICLE.sub("", text.casefold()).split())


def _hit(item: object, rank: int) -> Hit:
    if isinstance(item, Hit):
        return item
    if isinstance(item, str):
        item = Passage(0, "", item, 0, len(item))
    if isinstance(item, Passage):
        return Hit(item, 0.0, rank)
    raise InputError(f"A passage to read is a string, a Passage or a Hit, got {type(item).__name__}: {item!r:.80}")


def _checked(reader: Reader, spans: Sequence[Span], hits: Sequence[Hit]) -> list[Span]:
    """The spans, which a reader of the user's own may give as plain tuples, if they are within their texts."""
    checked = [Span(*span) for span in spans]
    for span in checked:
        size = len(hits[span.text].passage.text) if 0 <= span.text < len(hits) else 0
        if not 0 <= span.start < span.end <= size or np.isnan(span.score):
            raise ModelError(
                f"Reader {reader.name!r} returned {span}, which is not a place in one of the {len(hits)} texts "
                f"(text {span.text} has {size} characters). A span is (index of the text, start, end, score)."
            )
    return checked


def _check_question(question: object) -> None:
    if not isinstance(question, str):
        raise InputError(f"A question is a string, got {type(question).__name__}: {question!r:.80}")
    if not question.strip():
        raise InputError(f"The question is empty: {question!r}. Ask with at least one word.")


def _calibrations(reader: Reader | GenerativeReader) -> _Calibrations | None:
    """Those stored with a compiled reader, the plain ones for a model's logits, None for scores of the user's own."""
    if isinstance(reader, OnnxReader):
        path = reader.folder / _CALIBRATION
        return _stored(path) if path.is_file() else _Calibrations()
    return _Calibrations() if isinstance(reader, TransformersReader) else None


def _stored(path: Path) -> _Calibrations:
    try:
        stored = json.loads(path.read_text("utf-8"))
        models = {mode: Calibration(**stored[mode]) for mode in ("given", "ranked")}
        return _Calibrations(**models, threshold=stored["threshold"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a reader's calibration: {error!r}") from error


def _open(reader: str | Path | Reader | GenerativeReader | None) -> Reader | GenerativeReader:
    """The reader itself for a name, a path, an object or None."""
    if reader is None:
        return OnnxReader()
    if isinstance(reader, (str, Path)):
        return _open_name(str(reader))
    if not hasattr(reader, "read") and not hasattr(reader, "stream"):
        raise InputError(
            "A reader is a name, a path, or an object with read(question, texts) or stream(question, passages), "
            f"got {type(reader).__name__}."
        )
    if not isinstance(getattr(reader, "name", None), str):
        raise InputError(f"The reader {type(reader).__name__} has no name. Give it one: name = '...'")
    return reader


def _open_name(name: str) -> Reader | GenerativeReader:
    """The kind of reader that the files or the model's own configuration ask for."""
    folder = Path(name)
    if (folder / "model.onnx").is_file():
        return OnnxReader(folder)
    if name.endswith(".gguf") or (any(folder.glob("*.gguf")) and not (folder / "config.json").is_file()):
        return open_generative(name, "causal")
    kind = _kind(name)
    return TransformersReader(name) if kind == "extractive" else open_generative(name, kind)


def _kind(name: str) -> Literal["extractive", "causal", "seq2seq"]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"Reader {name!r} cannot be loaded: {error}") from error
    architectures: list[str] = config.architectures or []
    if any(a.endswith("ForQuestionAnswering") for a in architectures):
        return "extractive"
    if config.is_encoder_decoder and any(a.endswith("ForConditionalGeneration") for a in architectures):
        return "seq2seq"
    if any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in architectures):
        return "causal"
    raise ModelError(
        f"Reader {name!r} is a {', '.join(architectures) or 'model of unknown architecture'}, which cannot answer. "
        "Use a model for question answering, a causal one or a sequence-to-sequence one."
    )

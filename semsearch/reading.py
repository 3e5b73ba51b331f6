"""Answering questions: search, read what was found, and say how sure the answer is.

    answerer = Answerer(Retriever(index))
    answer = answerer.answer("When are late fees charged?")
    answer.text, answer.score, answer.document_id, answer.start, answer.end

    Answerer(None).read("When was it built?", "It was built in 1854.").text            # "1854"

The spans of all passages compete with each other and with "no answer", those with the same words support each other,
and their joint share becomes a probability by weights that are stored with the reader (see `semsearch.calibration`). An
answer less likely than the threshold counts as not found. Both can be learned from questions of your own:

    answerer.calibrate([("When are late fees charged?", "after 14 days"), ("Who sells ink?", None)], save="mine.json")
    Answerer(Retriever(index), calibration="mine.json")

A generative reader writes its answers, and every sentence is checked against the passages (see `semsearch.citing`):

    answerer = Answerer(Retriever(index), "openai:llama3.2@http://localhost:11434", mode="auto")
    answerer.answer("Why are there late fees?").citations
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from semsearch.calibration import (
    LEAST,
    Calibration,
    Evidence,
    Weights,
    evidence,
    learn,
    log_odds,
    matched,
    mode_of,
    right_spans,
)
from semsearch.errors import InputError, ModelError
from semsearch.extraction import OnnxReader, Reader, Span, TransformersReader
from semsearch.generation import GenerativeReader
from semsearch.opening import open_reader
from semsearch.records import Answer, Hit, Passage
from semsearch.routing import ALTERNATIVES, Stream, WholeAnswer, kept
from semsearch.writing import Writing

if TYPE_CHECKING:
    from semsearch.chat import Chat
    from semsearch.datasets import Question
    from semsearch.encoding import Encoder
    from semsearch.prompts import Template
    from semsearch.retrieval import Retriever

__all__ = ["Answerer", "Calibration", "Reader", "Span"]

FIRST = 4  # passages that are read before it is asked whether the others could change the answer
_CALIBRATION = "calibration.json"


class Answerer:
    """Answers questions from the passages that a retriever finds, or from texts it is given.

    `reader` is None (the extractive reader that ships with the package), the name or path of a transformers model
    (extractive, causal or sequence-to-sequence: its configuration decides; a causal one may be a `.gguf` file), a
    folder with a compiled reader, "openai:MODEL@http://host:port" for a model on a server that speaks the OpenAI
    protocol, or an object of your own with the `Reader` or the `GenerativeReader` protocol. The scores of your own
    `Reader` are taken for probabilities, and clipped to 0 ... 1.

    `threshold` is the least probability of an answer; below it `answer.found` is False. None means the calibration's:
    stored with the shipped reader, 0.2 for other extractive models, 0 for generative ones and for an object of your own
    (which returns no span when it finds none). `calibration` is what `calibrate` returned or saved, or None for the
    reader's own.

    `mode="auto"` is for a generative reader: the shipped reader extracts a span first, and the generative one writes
    where a span cannot answer (lists, comparisons, how and why, summaries; see `semsearch.routing`). If the check
    supports none of what it wrote the span is the answer. `answer.start` is None if the answer was written. `threshold`
    and `calibration` are then those of the spans.

    With `strict=True` the sentences of a written answer that nothing supports are left out of it. An extracted span
    needs no such check: it stands word for word in its document, so that `strict` changes nothing there. `template` is
    the wording of the prompt for a model that is named (`semsearch.prompts.Template`).

    Raises ModelError for a name that is not known or a model that cannot read, InputError for a threshold outside
    0 ... 1 and for arguments that do not go together. An `Answerer` keeps no state between questions.
    """

    def __init__(
        self,
        retriever: Retriever | None,
        reader: str | Path | Reader | GenerativeReader | None = None,
        *,
        threshold: float | None = None,
        calibration: Calibration | str | Path | None = None,
        mode: str | None = None,
        strict: bool = False,
        template: Template | str | os.PathLike[str] | None = None,
    ) -> None:
        if threshold is not None and not _is_probability(threshold):
            raise InputError(f"threshold is a probability between 0 and 1, got {threshold!r}.")
        if mode not in (None, "auto"):
            raise InputError(f"mode is None (what the reader does) or 'auto', got {mode!r}.")
        self.retriever = retriever
        self.reader: Reader | GenerativeReader = open_reader(reader, template)
        self.calibration = _calibration(self.reader, calibration)
        self.threshold = threshold
        self.strict = strict
        self._raw = isinstance(self.reader, (OnnxReader, TransformersReader))
        self._extractor: Answerer | None = None
        writer = self.writer
        if writer is not None and mode is None and calibration is not None:
            raise InputError(
                f"A calibration is for spans, and {self.reader.name!r} writes. Leave it out, or pass mode='auto'."
            )
        if mode == "auto":
            if writer is None:
                raise InputError(
                    f"mode='auto' needs a reader that writes, and {self.reader.name!r} only extracts. Name a causal "
                    "model, or one on a server: reader='openai:MODEL@http://host:port'."
                )
            self._extractor = Answerer(retriever, threshold=threshold, calibration=calibration)
            self.calibration, self.threshold = self._extractor.calibration, None
        self._writing: Writing | None = None
        if writer is not None:
            extract = None if self._extractor is None else self._extractor.read
            self._writing = Writing(
                writer,
                extract=extract,
                threshold=self.threshold,
                strict=strict,
                encoder=self._encoder,
                text_of=self._text_of,
            )

    def _encoder(self) -> Encoder | None:
        """That of the index, if there is one."""
        return getattr(getattr(self.retriever, "index", None), "encoder", None)

    def _text_of(self, id: str) -> str | None:
        """The text of a document of the index, if there is one."""
        get = getattr(getattr(self.retriever, "index", None), "get", None)
        document = None if get is None else get(id)
        return None if document is None else document.text

    @property
    def writer(self) -> GenerativeReader | None:
        """The reader if it writes, None if it extracts."""
        return None if isinstance(self.reader, Reader) else self.reader

    @overload
    def answer(self, question: str, k: int = 20, where: Mapping[str, Any] | None = None) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def answer(self, question: Sequence[str], k: int = 20, where: Mapping[str, Any] | None = None) -> list[Answer]: ...

    def answer(
        self, question: str | Sequence[str], k: int = 20, where: Mapping[str, Any] | None = None
    ) -> Answer | list[Answer]:
        """Search for `k` passages (that match `where`), read them and return the most likely answer.

        One question gives one `Answer`; a sequence of questions gives a list, with the same scores as one by one. A
        generative reader writes their answers together if it can. Raises InputError for an empty question, a `k` below
        1, or without a retriever.
        """
        if isinstance(question, str) or not isinstance(question, Iterable):
            return self.read(question, self._search(question, k, where))
        questions = list(question)
        for one in questions:
            _check_question(one)
        if self._writing is None:
            return [self.read(one, self._search(one, k, where)) for one in questions]
        return self._writing.answers(questions, [self._search(one, k, where) for one in questions])

    @overload
    async def aanswer(self, question: str, k: int = 20, where: Mapping[str, Any] | None = None) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    async def aanswer(
        self, question: Sequence[str], k: int = 20, where: Mapping[str, Any] | None = None
    ) -> list[Answer]: ...

    async def aanswer(
        self, question: str | Sequence[str], k: int = 20, where: Mapping[str, Any] | None = None
    ) -> Answer | list[Answer]:
        """As `answer`, in a thread, so that the event loop goes on meanwhile: `await answerer.aanswer(question)`.

        Cancelling the task does not stop the model, which ends its answer in the thread.
        """
        import asyncio

        return await asyncio.to_thread(self.answer, question, k, where)

    def chat(self, *, turns: int = 16) -> Chat:
        """A conversation: later questions may leave out what earlier ones said. It remembers the latest `turns`.

        chat = answerer.chat()
        chat.ask("Who built the Tower Bridge?")
        chat.ask("When was it built?")
        """
        from semsearch.chat import Chat

        return Chat(self, turns=turns)

    def read(self, question: str, passages: str | Passage | Hit | Iterable[str | Passage | Hit]) -> Answer:
        """The most likely answer within the given passages, hits or plain strings, without searching.

        `start` and `end` of the answer count from the start of the document, and for a string from its own start.
        `answer.hit` is the hit that was given; for a passage or a string it is a new one whose `rank` is the
        position in `passages`, starting at 1. A string has the document id "", and a citation of it has the same
        `rank`. A generative reader is shown neighbours in a document of the index as one, and `answer.hit` of what it
        wrote is then the joined hit. No passages, or only empty ones, give an answer that is not found. Hits count with
        their rank, so pass them as a search returned them. Where the first 4, 8, 16, ... settle the answer the others
        are not read, and the alternatives are of these alone.
        """
        _check_question(question)
        one = isinstance(passages, (str, Passage, Hit)) or not isinstance(passages, Iterable)
        items: list[Any] = [passages] if one else list(passages)  # type: ignore[arg-type]
        hits = [_hit(item, rank) for rank, item in enumerate(items, start=1)]
        if self._writing is not None:
            return self._writing.stream(question, hits).answer
        weights = None
        if self.calibration is not None:
            weights = getattr(self.calibration, mode_of(hits) if all(isinstance(i, Hit) for i in items) else "given")
        spans = self._spans(self.reader, question, hits, weights)  # type: ignore[arg-type]
        return self._choose(spans, hits, weights) if spans else Answer("", 0.0)

    def calibrate(
        self,
        questions: object,
        *,
        k: int = 20,
        where: Mapping[str, Any] | None = None,
        refuse: float | None = 0.1,
        save: str | Path | None = None,
    ) -> Calibration:
        """Learn from questions with known answers how sure to be, and from which probability on to answer.

            answerer.calibrate([("When are late fees due?", ["after 14 days", "14 days"]), ("Who sells ink?", None)])

        `questions` are pairs of a question and its accepted answers (a string or a list), None where the documents hold
        none, or whatever else `evaluate` takes: with a retriever each is searched for (`k`, `where`), without one read
        in the paragraph of a SQuAD file. An answer is right if it equals an accepted one as SQuAD's script compares
        them. At least 20 questions are needed, and a few hundred are good; among them should be some that the documents
        do not answer. Few questions move the weights little.

        The threshold becomes the highest that refuses at most the share `refuse` of the answerable questions; with None
        it stays. The answerer uses the new calibration from then on; `save` writes it to a file, for
        `Answerer(..., calibration=file)`.

        Raises InputError for too few questions, for answers that are nearly all right or nearly all wrong, without a
        text to read, and for a generative reader.
        """
        if self._extractor is not None:
            self.calibration = self._extractor.calibrate(questions, k=k, where=where, refuse=refuse, save=save)
            return self.calibration
        asked = self._answered(questions, refuse)
        cases, right = [], []
        for question in asked:
            hits = [_hit(question.context, 1)] if self.retriever is None else self._search(question.text, k, where)
            spans = self._spans(self.reader, question.text, hits)  # type: ignore[arg-type]
            cases.append(self._evidence(spans, hits))
            right.append(right_spans(spans, hits, question.answers))
        answerable = [bool(question.answers) for question in asked]
        # Modes that nothing is learned for go on without a threshold where there was none.
        plain = Weights(threshold=0.0)
        before = self.calibration or Calibration(plain, plain, plain)
        fitted = {mode: learn(cases, right, answerable, mode, before, refuse) for mode in self._modes(cases)}
        about = {"reader": self.reader.name, "questions": len(asked), "answerable": sum(answerable)}
        self.calibration = replace(before, **fitted, about=about)
        if refuse is not None:
            self.threshold = None
        if save is not None:
            self.calibration.save(save)
        return self.calibration

    def _answered(self, questions: object, refuse: float | None) -> list[Question]:
        """The questions of which the answer is known, if they can be used to calibrate."""
        from semsearch.datasets import read_dataset

        if not isinstance(self.reader, Reader):
            raise InputError(
                f"The reader {self.reader.name!r} writes its answers; only those of an extractive one can "
                "be calibrated."
            )
        if refuse is not None and not 0 <= refuse < 1:
            raise InputError(f"refuse is a share of the answerable questions, at least 0 and below 1, got {refuse!r}.")
        data = read_dataset(questions)
        asked = [question for question in data.asked().questions if question.answers is not None]
        if len(asked) < LEAST:
            raise InputError(f"A calibration needs at least {LEAST} questions with known answers, got {len(asked)}.")
        if self.retriever is None and not all(question.context for question in asked):
            raise InputError(
                f"The answerer has no retriever, and {data.name!r} does not say which text to read: use a SQuAD file, "
                "or Answerer(Retriever(index))."
            )
        return asked

    def _modes(self, cases: Sequence[Evidence]) -> tuple[str, ...]:
        if self.retriever is None:
            return ("given",)
        return ("ranked", "searched") if any(case.lexical.any() for case in cases) else ("ranked",)

    def stream(self, question: str, k: int = 20, where: Mapping[str, Any] | None = None) -> Stream:
        """The answer in pieces of text, as they come; the `.answer` of what is returned is the whole of it.

        A generative reader's pieces come while it writes, its citations with `.answer`, which may leave out what was
        not supported, or be the span that `mode="auto"` falls back to. An extractive reader gives the answer in one
        piece, or none if there is no answer. Raises as `answer` does.

            stream = answerer.stream("When are late fees charged?")
            for piece in stream:
                print(piece, end="", flush=True)
            print(stream.answer.citations)

        `stream.close()` stops the model, and so does an exception in it such as KeyboardInterrupt; `.answer` is then of
        what came until then. After an interruption of the loop itself, `.answer` takes what is still to come: close
        first.
        """
        hits = self._search(question, k, where)
        if self._writing is not None:
            return self._writing.stream(question, hits)
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

    def _spans(self, reader: Reader, question: str, hits: Sequence[Hit], weights: Weights | None = None) -> list[Span]:
        """The spans of all hits; with weights, of the first 4, 8, 16, ... that settle which answer is the best."""
        texts = [hit.passage.text for hit in hits]
        if weights is None or weights.ceiling is None or not self._raw:
            return _checked(reader, reader.read(question, texts), hits)
        ranks, matches = np.array([hit.rank for hit in hits], dtype=np.float64), matched(hits)
        spans: list[Span] = []
        start, end = 0, FIRST
        while start < len(hits):
            part = _checked(reader, reader.read(question, texts[start:end]), hits[start:end])
            spans.extend(span._replace(text=span.text + start) for span in part)
            if weights.settled(evidence(spans, hits), ranks[end:], matches[end:]):
                break
            start, end = end, 2 * end
        return spans

    def _evidence(self, spans: Sequence[Span], hits: Sequence[Hit]) -> Evidence:
        """Scores of a reader of the user's own are probabilities: here as log-odds."""
        known = evidence(spans, hits)
        return known if self._raw else known._replace(scores=np.array([log_odds(p) for p in known.scores.tolist()]))

    def _choose(self, spans: Sequence[Span], hits: Sequence[Hit], weights: Weights | None) -> Answer:
        """The likeliest text, at its likeliest place, with the next best texts as alternatives."""
        known = self._evidence(spans, hits)
        shares = np.clip([span.score for span in spans], 0.0, 1.0) if weights is None else weights.shares(known)
        groups: dict[int, list[int]] = {}
        for i in sorted(range(len(spans)), key=lambda i: (-shares[i], known.ranks[i], spans[i].start)):
            groups.setdefault(int(known.group[i]), []).append(i)
        scored = [(_probability(shares[group], weights), group[0]) for group in groups.values()]
        scored.sort(key=lambda pair: -pair[0])
        answers = [_answer(spans[i], hits[spans[i].text], p) for p, i in scored[: ALTERNATIVES + 1]]
        stored = 0.0 if weights is None else weights.threshold
        threshold = stored if self.threshold is None else self.threshold
        return kept(replace(answers[0], alternatives=tuple(answers[1:])), threshold)

    def __repr__(self) -> str:
        return f"Answerer({self.retriever!r}, reader={self.reader.name!r}, threshold={self.threshold!r})"


def _is_probability(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1


def _probability(shares: NDArray[np.float64], weights: Weights | None) -> float:
    """Of a text, from the shares of its spans. The user's own scores are probabilities, and do not add up."""
    return float(shares.max()) if weights is None else weights.probability(float(shares.sum()))


def _answer(span: Span, hit: Hit, score: float) -> Answer:
    text, offset = hit.passage.text[span.start : span.end], hit.passage.start
    return Answer(text, score, hit, offset + span.start, offset + span.end)


def _hit(item: object, rank: int) -> Hit:
    if isinstance(item, Hit):
        return item
    if isinstance(item, str):
        item = Passage(rank, "", item, 0, len(item))
    if isinstance(item, Passage):
        return Hit(item, 0.0, rank)
    raise InputError(f"A passage to read is a string, a Passage or a Hit, got {type(item).__name__}: {item!r:.80}")


def _checked(reader: Reader, spans: Sequence[Span], hits: Sequence[Hit]) -> list[Span]:
    """The spans, which a reader of the user's own may give as plain tuples, if they are within their texts."""
    try:
        checked = [Span(index(text), index(start), index(end), float(score)) for text, start, end, score in spans]
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"Reader {reader.name!r} returned {spans!r:.200}, which is no list of spans: {error}. "
            "A span is (index of the text, start, end, score), the first three of them whole numbers."
        ) from error
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


def _calibration(reader: Reader | GenerativeReader, given: Calibration | str | Path | None) -> Calibration | None:
    """The one that was given, that of a compiled reader, the plain one for a model's logits, or None: probabilities."""
    if isinstance(given, Calibration):
        return given
    if given is not None:
        return Calibration.load(given)
    if isinstance(reader, OnnxReader) and (reader.folder / _CALIBRATION).is_file():
        return Calibration.load(reader.folder / _CALIBRATION)
    return Calibration() if isinstance(reader, (OnnxReader, TransformersReader)) else None

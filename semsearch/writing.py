"""Answers that a generative reader writes, checked; in `mode="auto"` only where a span of a text is not enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

from semsearch.citing import AnswerStream
from semsearch.errors import ModelError
from semsearch.generation import GenerativeReader
from semsearch.records import Answer, Hit
from semsearch.reranking import merge_neighbours
from semsearch.routing import CheckedStream, Stream, WholeAnswer, fall_back, kept, needs_writing

if TYPE_CHECKING:
    from semsearch.encoding import Encoder
    from semsearch.judging import Judge

__all__ = ["Writing"]

Extract: TypeAlias = Callable[[str, Sequence[Hit]], Answer]


class Writing:
    """A generative reader with the check of what it writes.

    `extract` finds the span that `mode="auto"` looks at first, None: everything is written. An answer that scores below
    `threshold` is not found; with `strict` it has supported sentences only. `encoder` gives the judge its encoder, or
    None for the one that ships, and is called when the first text is checked. `text_of` gives the text of a document by
    its id, None if there is none (any more): with it, hits that follow one another in a document are read as one.
    """

    def __init__(
        self,
        reader: GenerativeReader,
        *,
        extract: Extract | None = None,
        threshold: float | None = None,
        strict: bool = False,
        encoder: Callable[[], Encoder | None] = lambda: None,
        text_of: Callable[[str], str | None] = lambda id: None,
    ) -> None:
        self._reader, self._extract, self._threshold = reader, extract, threshold
        self._strict, self._encoder, self._text_of = strict, encoder, text_of

    def stream(self, question: str, hits: Sequence[Hit]) -> Stream:
        """The answer as it comes, or the span if that is enough."""
        extracted = self._extract(question, hits) if self._extract is not None else None
        if extracted is not None and not needs_writing(question, extracted):
            return WholeAnswer(extracted)
        hits = self._joined(hits)
        pieces = self._reader.stream(question, [hit.passage for hit in hits])
        return self._checked(question, hits, pieces, extracted)

    def answers(self, questions: Sequence[str], found: Sequence[Sequence[Hit]]) -> list[Answer]:
        """The answers to several questions; those that are to be written are written together, if the reader can."""
        generate = getattr(self._reader, "generate", None)
        pairs = list(zip(questions, found, strict=True))
        if generate is None:
            return [self.stream(question, hits).answer for question, hits in pairs]
        spans = [self._extract(*pair) if self._extract is not None else None for pair in pairs]
        asked = [i for i, span in enumerate(spans) if span is None or needs_writing(questions[i], span)]
        answers = {i: span for i, span in enumerate(spans) if span is not None}
        joined = {i: self._joined(found[i]) for i in asked}
        texts = generate([questions[i] for i in asked], [[hit.passage for hit in joined[i]] for i in asked])
        for i, text in zip(asked, texts, strict=True):
            answers[i] = self._checked(questions[i], joined[i], [text], spans[i]).answer
        return [answers[i] for i in range(len(questions))]

    def _joined(self, hits: Sequence[Hit]) -> Sequence[Hit]:
        """The hits, neighbours as one; as they are where a document is gone or has changed since the search.

        So are they where one is a plain string, which its rank tells from the others.
        """
        if not all(hit.passage.document_id for hit in hits):
            return hits
        several = {id for id, count in Counter(hit.passage.document_id for hit in hits).items() if count > 1}
        texts = {id: self._text_of(id) for id in several}
        for hit in hits:
            passage = hit.passage
            if passage.document_id in several:
                text = texts[passage.document_id]
                if text is None or text[passage.start : passage.end] != passage.text:
                    return hits
        return merge_neighbours(hits, lambda id: texts[id] or "")

    def _checked(self, question: str, hits: Sequence[Hit], pieces: Iterable[str], extracted: Answer | None) -> Stream:
        context = getattr(self._reader, "context", None)
        stream = AnswerStream(
            pieces,
            hits,
            question,
            judge=self._judge,
            strict=self._strict,
            context=None if context is None else partial(context, question, [hit.passage for hit in hits]),
        )
        if extracted is not None:
            return CheckedStream(stream, lambda written: fall_back(written, extracted))
        threshold = self._threshold
        return CheckedStream(stream, lambda written: kept(written, threshold)) if threshold else stream

    @cached_property
    def _judge(self) -> Judge | None:
        """None, so that words alone decide, where the package was built without the models that it is made of."""
        from semsearch.judging import Judge

        try:
            return Judge(self._encoder())
        except ModelError:
            return None

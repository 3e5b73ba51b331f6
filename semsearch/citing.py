"""A generated text becomes an `Answer`: its sentences checked, its citations exact, its links those of the sources.

    stream = AnswerStream(reader.stream(question, [hit.passage for hit in hits]), hits, question)
    for piece in stream:
        print(piece, end="", flush=True)
    print(stream.answer.citations)

Which sentences are supported is decided by `semsearch.grounding`, with a judge (`semsearch.judging`) where words alone
do not settle it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from semsearch.grounding import SupportJudge, cite_hits, says_nothing, take_marks
from semsearch.links import without_links
from semsearch.records import Answer, Citation, Context, Hit, Sentence
from semsearch.repeats import without_repeats

__all__ = ["AnswerStream"]


class AnswerStream:
    """A generated answer as it comes: iterate over its pieces of text, then ask for `answer`.

    `pieces` is what a generative reader yields and `hits` are the passages it was given, in the same order. The pieces
    come as the reader wrote them, markers such as [1] included, but for links, images and tags that are not in the
    passages (`semsearch.links`) and for sentences that come again (`semsearch.repeats`); what may be the beginning of
    such is kept back until that is clear. A reader that only repeats itself is stopped, and so is one whose stream is
    closed; `answer` then stands for what came until then.

    `judge` decides about sentences that the words alone do not settle; None: they are not supported. With `strict` the
    answer has its supported sentences only. `context` tells what the reader was shown, which becomes
    `answer.context`; it is asked after the last piece, so that the first need not wait for it.
    """

    def __init__(
        self,
        pieces: Iterable[str],
        hits: Sequence[Hit],
        question: str = "",
        *,
        judge: SupportJudge | None = None,
        strict: bool = False,
        context: Callable[[], Context] | None = None,
    ) -> None:
        self._hits = tuple(hits)
        self._sources = [hit.passage.text for hit in self._hits]
        self._reader = iter(pieces)
        self._pieces: Iterator[str] = without_repeats(without_links(self._reader, self._sources))
        self._question, self._judge, self._strict, self._context = question, judge, strict, context
        self._texts: list[str] = []
        self._result: tuple[Answer, tuple[Sentence, ...]] | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            piece = next(self._pieces)
        except StopIteration:
            self.close()  # the reader may have more to say, but nothing new
            raise
        self._texts.append(piece)
        return piece

    def close(self) -> None:
        """Stop generating."""
        close = getattr(self._reader, "close", None)
        if close is not None:
            close()
        self._pieces = iter(())

    @property
    def answer(self) -> Answer:
        """The answer with its citations; takes what is still to come.

        `score` is the mean over the sentences of the best support of each (0 for none), `hit` the best cited one, and
        the text has no markers. If no sentence is supported the answer is not found, and the text that was generated
        is in `alternatives[0]`, with its sentences.
        """
        return self._checked[0]

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """The sentences of the answer's text (or of the alternative's, if it was not found), with their citations."""
        return self._checked[1]

    @property
    def _checked(self) -> tuple[Answer, tuple[Sentence, ...]]:
        # Not a cached_property: in Python 3.11 that has one lock for all streams, held until the model has ended.
        if self._result is None:
            self._result = self._check()
        return self._result

    def _check(self) -> tuple[Answer, tuple[Sentence, ...]]:
        for _ in self:
            pass
        text, marks = take_marks("".join(self._texts).strip(), [hit.passage for hit in self._hits])
        clean = "".join(without_links([text], self._sources)).strip()
        if clean != text:  # a marker stood inside of a link, so the places of the others are no longer known
            text, marks = clean, []
        hit_of: dict[Citation, Hit] = {}
        cited = []
        for sentence, places in cite_hits(text, self._hits, question=self._question, marks=marks, judge=self._judge):
            cited.append(sentence)
            for citation, hit in places.items():
                hit_of.setdefault(citation, hit)
        checked = tuple(cited)
        if self._strict and any(sentence.supported for sentence in checked):
            text, checked = supported_only(text, checked)
        context = None if self._context is None else self._context()
        return _answer(text, checked, hit_of, context), checked


def supported_only(text: str, checked: Sequence[Sentence]) -> tuple[str, tuple[Sentence, ...]]:
    """The text without its unsupported sentences, and the others at their new places.

    Between two that are kept stands what stood before the second one.
    """
    parts: list[str] = []
    kept: list[Sentence] = []
    length = end_before = 0
    for sentence in checked:
        gap = text[end_before : sentence.start] if kept else ""
        end_before = sentence.end
        if sentence.supported:
            start = length + len(gap)
            length = start + len(sentence.text)
            parts += [gap, sentence.text]
            kept.append(Sentence(sentence.text, start, length, sentence.citations))
    return "".join(parts), tuple(kept)


def _answer(
    text: str, checked: tuple[Sentence, ...], hit_of: Mapping[Citation, Hit], context: Context | None
) -> Answer:
    citations = tuple(dict.fromkeys(citation for sentence in checked for citation in sentence.citations))
    if not citations:
        written = (Answer(text, 0.0, sentences=checked, context=context),) if text else ()
        return Answer("", 0.0, alternatives=written, context=context)
    supports = [
        max((c.score for c in sentence.citations), default=0.0)
        for sentence in checked
        if sentence.supported or not says_nothing(sentence.text)
    ]
    best = max(citations, key=lambda citation: citation.score)
    score = sum(supports) / len(supports)
    return Answer(text, score, hit=hit_of[best], citations=citations, sentences=checked, context=context)

"""Which questions a span of a text answers, and which need a text that is written: the rules of `mode="auto"`.

>>> [kind(q) for q in ("When was it built?", "Why is it closed?", "How do I renew a book?", "List the fees.")]
['span', 'why', 'how', 'list']
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias

from semsearch.records import Answer

__all__ = [
    "ALTERNATIVES",
    "SURE",
    "CheckedStream",
    "Kind",
    "Stream",
    "WholeAnswer",
    "fall_back",
    "kept",
    "kind",
    "needs_writing",
]

SURE = 0.6
ALTERNATIVES = 5  # of an answer at most

Kind: TypeAlias = Literal["span", "list", "comparison", "how", "why", "summary"]

_OPENING = r"^\W*(?:(?:and|but|so|or|please|then|(?:could|can|would|will) you|tell me|i want to know)\b[\s,]*)*"
_RULES: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))  # type: ignore[misc]
    for name, pattern in (
        (
            "summary",
            _OPENING
            + r"(?:summar[iy]|describe|explain|outline|about\b(?! (?:how|what|which|when|where|who(?:m|se)?)\b)"
            r"|give (?:me )?(?:a|an) (?:short )?(?:summary|overview))",
        ),
        ("summary", _OPENING + r"what (?:is|are|was|were) .{1,80} about\W*$"),
        ("comparison", _OPENING + r"compare\b|\bhow (?:do|does|did) .{1,120} (?:compare|differ)\b"),
        ("comparison", r"\b(?:differences? between|in common|pros and cons|advantages and disadvantages)\b"),
        ("list", _OPENING + r"(?:list|name|enumerate|give (?:me )?(?:all|some|a list|examples))\b"),
        (
            "list",
            _OPENING
            + r"(?:what|which) (?:are|were) (?:all|some|the (?:\w+ )?(?:kinds|types|sorts|steps|ways|rules))\b",
        ),
        ("why", _OPENING + r"(?:why|how come|for what reasons?|what (?:is|was|are|were) the reasons?)\b"),
        (
            "how",
            _OPENING + r"how (?:to|do|does|did|can|could|should|would|will|might|must|is|are|was|were|has|have|had)\b",
        ),
        ("how", _OPENING + r"what (?:should|must|can) (?:i|we|you|one) do\b"),
    )
)


def kind(question: str) -> Kind:
    """What sort of answer an English question asks for; "span" where no rule says anything else."""
    return next((name for name, pattern in _RULES if pattern.search(question)), "span")


def needs_writing(question: str, extracted: Answer) -> bool:
    """Whether a text is to be written, after this span was found for the question.

    Lists, comparisons and summaries are always written; why and how only where the span is less likely than `SURE`.
    """
    asked = kind(question)
    return asked in ("list", "comparison", "summary") or (asked in ("how", "why") and extracted.score < SURE)


class Stream(Protocol):
    """What `Answerer.stream` returns: pieces of text, then the whole answer."""

    def __iter__(self) -> Iterator[str]: ...

    def __next__(self) -> str: ...

    def close(self) -> None:
        """Stop here: the answer is made of the pieces so far."""

    @property
    def answer(self) -> Answer: ...


class WholeAnswer:
    """An answer that is there already, in the shape of an `AnswerStream`: one piece, or none if nothing was found."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._pieces = iter([answer.text] if answer.found else [])

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """There is nothing to stop; the pieces end."""
        self._pieces = iter(())


class CheckedStream:
    """An answer that is being written; `answer` is `settle` of it: its check decides whether it is taken."""

    def __init__(self, stream: Stream, settle: Callable[[Answer], Answer]) -> None:
        self._stream, self._settle = stream, settle

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._stream)

    def close(self) -> None:
        """Stop writing."""
        self._stream.close()

    @property
    def answer(self) -> Answer:
        return self._settle(self._stream.answer)


def kept(answer: Answer, threshold: float) -> Answer:
    """The answer, or "not found" with the answer as the alternative if it is less likely than the threshold."""
    if not answer.found or answer.score >= threshold:
        return answer
    others = (replace(answer, alternatives=()), *answer.alternatives)
    return Answer("", answer.score, alternatives=others[:ALTERNATIVES], context=answer.context)


def fall_back(written: Answer, extracted: Answer) -> Answer:
    """The written answer if its check supports it; otherwise the extracted one, with the text as an alternative."""
    if written.found:
        return written
    spans = extracted.alternatives[: ALTERNATIVES - len(written.alternatives)]
    return replace(extracted, alternatives=(*spans, *written.alternatives))

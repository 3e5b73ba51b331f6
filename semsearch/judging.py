"""Judges what words alone do not settle: whether a sentence in other words says the same as its evidence.

    judge = Judge()
    cite("Shutting time is nine.", hits, question="When does it close?", judge=judge)

It has two means, both in the package. The reader answers the user's question from the passage: where the sentence takes
up the question, it is supported if it contains the reader's answer, and not if it contains another one. Elsewhere the
encoder decides: each word of the sentence that the evidence lacks has to be near to some word there (late interaction:
Khattab and Zaharia 2020, "ColBERT", section 3.3), and there have to be few of them. Numbers, names and negations are
not its business: `semsearch.grounding` asks it only about places that agree in them.

Nothing is loaded until a sentence needs it. The numbers below were chosen on English texts, by
`examples/benchmarks/grounding.py --fit` (see there), for the encoder and the reader of the package, so that no other
encoder is used. A sentence in a script that the encoder does not know keeps the verdict of its words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar, cast

from semsearch.encoding import SHIPPED, Encoder, OnnxEncoder, TokenVectors
from semsearch.extraction import OnnxReader, Reader, Span
from semsearch.grounding import ENOUGH, Case
from semsearch.wording import keys, places

__all__ = ["Judge", "Signs"]

# Chosen on what --fit prints. Measured on other texts, by words alone and with the judge: of sentences with a word that
# means something else 2.3% and 81.3% were called unsupported, of statements with a wrong answer 72.4% and 95.1%; of
# sentences with a synonym 97.9% and 74.9% were called supported, of statements with the right answer 57.0% and 56.3%;
# of copies 100% both ways (results/grounding.json).
NEAR = 0.35  # the least similarity of a missing word to a word of the evidence, by the encoder
ABOUT = 0.75  # the share of the question's words that a sentence has if it takes up the question
AGREE = 0.5  # the share of the words of the reader's answer that the sentence has if it says the same
HALF = 0.5  # the least share of words that occur if numbers or names stand elsewhere than in the sentence, ...
REARRANGED = 0.8  # ... and from this share of words in the same order on they were exchanged, if no word is missing
CONTEXT = 600  # characters on each side of the evidence that the encoder and the reader see with it
UNKNOWN = 0.2  # the share of letters that the encoder does not know from which on it says nothing

Value = TypeVar("Value")


class Signs(NamedTuple):
    """What speaks for a sentence.

    `near` is the least similarity (-1 to 1) of its missing words to words of the evidence, 1 if none is missing.
    `covered` is the share of its words that occur, a missing one counting as much as it is near. `about` is the share
    of the question's words in the sentence, and `agrees` the share of the words of the reader's answer in it, None if
    the reader was not asked or found nothing.
    """

    near: float
    covered: float
    about: float
    agrees: float | None


class Judge:
    """Whether a place in a passage supports a sentence, by the encoder and the reader of the package.

    `encoder` is taken if it is the one of the package, so that it is not loaded twice. `reader` is an extractive reader
    whose scores are above 0 where it prefers the span to "no answer"; None is the one of the package. Any number of
    threads may ask one judge.
    """

    def __init__(self, encoder: Encoder | None = None, reader: Reader | None = None) -> None:
        """Raises ModelError if the models of the package are not there. They are loaded when they are first needed."""
        same = isinstance(encoder, OnnxEncoder) and encoder.name == SHIPPED
        self._encoder: OnnxEncoder = cast(OnnxEncoder, encoder) if same else OnnxEncoder()
        self._reader = OnnxReader() if reader is None else reader
        self._tokens = _remembered(self._token_vectors)
        self._spans = _remembered(self._span)

    def support(self, case: Case) -> float:
        """How well the evidence covers the sentence, above 0 and at most 1, or 0 if it does not support it."""
        by_words = case.share >= ENOUGH and case.placed
        if self._encoder.unknown_share(case.claim) > UNKNOWN:
            return case.share if by_words else 0.0
        signs = self.signs(case)
        if signs.agrees is None:
            supported = by_words and signs.near >= NEAR
        else:
            exchanged = not case.missing and case.order >= REARRANGED
            supported = signs.agrees >= AGREE and (case.placed or (case.share >= HALF and not exchanged))
        return min(1.0, max(signs.covered, 0.01)) if supported else 0.0

    def signs(self, case: Case) -> Signs:
        """What speaks for the sentence of `case`."""
        near = self._near(case)
        count = len(keys(case.claim)) or 1
        covered = (count - len(case.missing) + sum(near)) / count
        asked = keys(case.question)
        about = len(asked & keys(case.claim)) / len(asked) if asked else 0.0
        return Signs(min(near, default=1.0), covered, about, self._agrees(case) if about >= ABOUT else None)

    def _near(self, case: Case) -> list[float]:
        """The similarity of each missing word to the nearest word of the evidence (the mean of its tokens')."""
        if not case.missing:
            return []
        around = _around(case)
        claim, passage = self._tokens(case.claim), self._tokens(case.passage[around])
        starts, ends = (passage.offsets + around.start).T
        inside = (ends > case.start) & (starts < case.end) & (starts < ends)
        if not inside.any():  # beyond what the encoder reads at once
            return [0.0] * len(case.missing)
        nearest = (claim.vectors @ passage.vectors[inside].T).max(axis=1)
        found: dict[str, float] = {}
        for key, start, end in places(case.claim):
            own = (claim.offsets[:, 0] < end) & (claim.offsets[:, 1] > start)
            if key in case.missing and own.any():
                found[key] = max(found.get(key, -1.0), float(nearest[own].mean()))
        return [found.get(key, 0.0) for key in case.missing]

    def _agrees(self, case: Case) -> float | None:
        text = case.passage[_around(case)]
        span = self._spans(case.question, text)
        if span is None or span.score <= 0:
            return None
        answer = keys(text[span.start : span.end])
        new = answer - keys(case.question) or answer
        return len(new & keys(case.claim)) / len(new) if new else None

    def _token_vectors(self, text: str) -> TokenVectors:
        return self._encoder.token_vectors([text])[0]

    def _span(self, question: str, passage: str) -> Span | None:
        return next(iter(self._reader.read(question, [passage])), None)

    def __repr__(self) -> str:
        return f"Judge({self._encoder.name!r}, {self._reader.name!r})"


def _around(case: Case) -> slice:
    """The evidence with some text around it: a passage of the user's own may be a whole book."""
    return slice(max(0, case.start - CONTEXT), case.end + CONTEXT)


def _remembered(function: Callable[..., Value]) -> Callable[..., Value]:
    """The sentences of an answer are checked against the same passages."""
    return lru_cache(maxsize=64)(function)

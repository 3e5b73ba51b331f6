"""A conversation: later questions may leave out what earlier ones said.

    chat = answerer.chat()
    chat.ask("Who built the Tower Bridge?")
    chat.ask("When was it built?")
    chat.turns[-1].rewritten            # "When was the Tower Bridge built?"

What was said before is not shown to the model: each question is made to stand alone (`semsearch.followups`), searched
for and answered like any other, with the same citations.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semsearch.errors import InputError
from semsearch.followups import POINTING, depends, standalone
from semsearch.prompts import REWORDING
from semsearch.records import Answer, Passage
from semsearch.sentences import sentences

if TYPE_CHECKING:
    from semsearch.generation import GenerativeReader
    from semsearch.reading import Answerer
    from semsearch.routing import Stream

__all__ = ["Chat", "ChatStream", "Turn"]

TURNS = 16
_LONGEST = 400  # characters of a rewritten question


@dataclass(frozen=True, slots=True)
class Turn:
    """A question as it was asked, as it was searched for, and its answer."""

    question: str
    rewritten: str
    answer: Answer

    def __str__(self) -> str:
        searched = "" if self.rewritten == self.question else f"  (searched for: {self.rewritten})"
        return f"{self.question}{searched}\n{self.answer}"


class Chat:
    """Questions that follow each other, answered by an `Answerer`. Made by `answerer.chat()`.

    The latest `turns` are kept, the older ones forgotten. A follow-up is rewritten by rules for English; where these
    find a pronoun and nothing that it stands for, a generative reader is asked, and its wording is taken only if every
    word of it but articles was said before. A question that needs no rewriting is not changed.
    """

    def __init__(self, answerer: Answerer, *, turns: int = TURNS) -> None:
        if isinstance(turns, bool) or not isinstance(turns, int) or turns < 1:
            raise InputError(f"turns is the number of turns to keep and at least 1, got {turns!r}.")
        self.answerer = answerer
        self._turns: deque[Turn] = deque(maxlen=turns)
        self._open: ChatStream | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns that are remembered, the latest last."""
        return tuple(self._turns)

    def ask(self, question: str, k: int = 20, where: Mapping[str, Any] | None = None) -> Answer:
        """Rewrite the question by what was said before, search, answer, and remember it. Raises as `answer` does."""
        self._settle()
        rewritten = self.rewrite(question)
        answer = self.answerer.answer(rewritten, k=k, where=where)
        self._turns.append(Turn(question, rewritten, answer))
        return answer

    def stream(self, question: str, k: int = 20, where: Mapping[str, Any] | None = None) -> ChatStream:
        """As `ask`, in pieces of text. Remembered when it ends, is closed, or the next question is asked."""
        self._settle()
        rewritten = self.rewrite(question)
        stream = self.answerer.stream(rewritten, k=k, where=where)
        self._open = ChatStream(stream, self, question, rewritten)
        return self._open

    def rewrite(self, question: str) -> str:
        """The question as it would be searched for now."""
        if not isinstance(question, str) or not self._turns:
            return question
        said = [(turn.rewritten, turn.answer.text) for turn in self._turns]
        new = standalone(question, said)
        reader = self.answerer.writer
        if new == question and reader is not None and depends(question):
            new = _reworded(reader, question, self._turns) or question
        return new

    def clear(self) -> None:
        """Forget what was said."""
        self._settle()
        self._turns.clear()

    def _settle(self) -> None:
        """A stream that was left in the middle ends where it is."""
        if self._open is not None:
            self._open.close()

    def _remember(self, turn: Turn) -> None:
        self._open = None
        self._turns.append(turn)

    def __repr__(self) -> str:
        return f"<Chat of {len(self._turns)} turns with {self.answerer!r}>"


class ChatStream:
    """A streamed answer that the chat remembers once it has ended: iterate, then ask for `answer`."""

    def __init__(self, stream: Stream, chat: Chat, question: str, rewritten: str) -> None:
        self._stream, self._chat = stream, chat
        self._question = question
        self.rewritten = rewritten
        self._remembered = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._stream)
        except StopIteration:
            self._remember()
            raise

    def close(self) -> None:
        """Stop; the answer is what came until then."""
        self._stream.close()
        self._remember()

    @property
    def answer(self) -> Answer:
        """The answer; takes what is still to come."""
        self._remember()
        return self._stream.answer

    def _remember(self) -> None:
        if not self._remembered:
            answer = self._stream.answer
            self._remembered = True
            self._chat._remember(Turn(self._question, self.rewritten, answer))


# --- Rewriting by a model --------------------------------------------------------------------------------------------


def _reworded(reader: GenerativeReader, question: str, turns: Sequence[Turn]) -> str | None:
    """What a generative reader makes of a follow-up; None unless all of its words come from the conversation."""
    texts = [f"{turn.rewritten} {turn.answer.text}".strip() for turn in turns][-4:]
    passages = [Passage(i, f"turn {i}", text, 0, len(text)) for i, text in enumerate(texts, start=1)]
    asked = REWORDING.format(question=question)
    text = ""
    for piece in reader.stream(asked, passages):
        text += piece
        if len(text) > _LONGEST:
            return None
    return checked_rewording(text, question, texts)


def checked_rewording(text: str, question: str, said: Sequence[str]) -> str | None:
    """The first sentence of `text` if it is the question in words that were said and articles; None otherwise.

    It has to end as a question does, keep each word of the question but pronouns, and add some.

    >>> checked_rewording("When was the bridge built?", "When was it built?", ["Who knows the bridge?"])
    'When was the bridge built?'
    >>> checked_rewording("When was Rome built?", "When was it built?", ["Who knows the bridge?"]) is None
    True
    """
    spans = sentences(text)
    first = text[slice(*spans[0])].strip("\"'“”‘’ ") if spans else ""
    words, own = set(_words(first)), set(_words(question))
    known = own.union(("a", "an", "the"), *(_words(each) for each in said))
    kept = own - POINTING
    good = first.endswith(("?", "？")) and len(first) <= _LONGEST
    return first if good and kept <= words and words <= known and words - own else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())

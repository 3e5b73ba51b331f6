"""What of the passages a model is shown: neighbours joined, repeated texts dropped, cut at the end of a sentence.

    pack(passages, room=900, cost=lambda number, text: len(tokenize(f"[{number}] {text}")))

A passage becomes a block of the prompt. Its number is its position in the given passages, starting at 1, so that a
marker such as [2] in an answer names the second of them, whatever else was left out. Passages of one document that
overlap or touch become one block, with the number of the best of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from semsearch.records import Context, Passage
from semsearch.sentences import sentences

__all__ = ["Cost", "Packed", "Shown", "join", "pack"]

Cost: TypeAlias = Callable[[int, str], int]
"""What a block costs, in tokens or in whatever `room` is counted in, by its number and text."""

REMEMBERED = 32  # questions whose contexts are remembered


@dataclass(frozen=True, slots=True)
class Packed:
    """The passages of a prompt.

    `used` are the blocks in their order and `numbers` what each is called. `left_out` are the passages, or rests of
    passages, without room.
    """

    numbers: tuple[int, ...]
    used: tuple[Passage, ...]
    left_out: tuple[Passage, ...]

    @property
    def context(self) -> Context:
        """The same without the numbers."""
        return Context(self.used, self.left_out)


class Shown:
    """What was packed for the latest questions: it is asked for once more when the answer is there.

    Any number of threads may share one.
    """

    def __init__(self) -> None:
        self._latest: tuple[tuple[str, tuple[Passage, ...], Context], ...] = ()

    def put(self, question: str, passages: Sequence[Passage], context: Context, *, most: int = REMEMBERED) -> None:
        """Remember a context; the latest `most` of them are kept."""
        self._latest = (*self._latest, (question, tuple(passages), context))[-most:]

    def get(self, question: str, passages: Sequence[Passage]) -> Context | None:
        """The context for this question and these passages, None if it is not known (any more)."""
        wanted = tuple(passages)
        return next((shown for asked, given, shown in self._latest if asked == question and given == wanted), None)


class _Block(NamedTuple):
    number: int
    passage: Passage
    cost: int


def pack(passages: Sequence[Passage], room: int, cost: Cost) -> Packed:
    """As many of the `passages`, best first, as fit together into `room`.

    One that does not fit is cut after a sentence, and all behind it are left out; one of which not even the first
    sentence fits is left out by itself. Each text in `used` is the exact slice of its document from `start` to `end`.
    A text that occurred before, but for white space, and one without any words count neither as used nor as left out.

    >>> given = [Passage(1, "a", "One. Two.", 0, 9), Passage(2, "b", "Three.", 0, 6), Passage(3, "a", " Four.", 9, 15)]
    >>> packed = pack(given, room=24, cost=lambda number, text: len(text))
    >>> packed.numbers, [p.text for p in packed.used]
    ((1, 2), ['One. Two. Four.', 'Three.'])
    """
    blocks: list[_Block] = []
    left_out: list[Passage] = []
    known: set[str] = set()
    full = False
    for number, passage in enumerate(passages, start=1):
        words = " ".join(passage.text.split())
        if not words or words in known:
            continue
        known.add(words)
        end = 0 if full else _fitting(blocks, number, passage, room, cost)
        if end:
            blocks = _with(blocks, number, _beginning(passage, end), cost)
        if passage.text[end:].strip():
            left_out.append(replace(passage, text=passage.text[end:], start=passage.start + end))
            full = full or end > 0
    return Packed(tuple(b.number for b in blocks), tuple(b.passage for b in blocks), tuple(left_out))


def join(first: Passage, second: Passage) -> Passage | None:
    """Two passages of one document as one, or None if they are not seen to overlap or touch.

    They have to overlap in the same text, or one has to end where the other starts: what stands in a gap is not known.
    The id and the metadata are those of `first`, the page that of the one that starts earlier. The texts of plain
    strings, which have the document id "", are never joined.
    """
    early, late = (first, second) if first.start <= second.start else (second, first)
    if first.document_id != second.document_id or not first.document_id or late.start > early.end:
        return None
    if any(len(passage.text) != passage.end - passage.start for passage in (first, second)):
        return None
    shared = min(early.end, late.end) - late.start
    offset = late.start - early.start
    if early.text[offset : offset + shared] != late.text[:shared]:
        return None
    text = early.text + late.text[shared:]
    return replace(first, text=text, start=early.start, end=early.start + len(text), page=early.page)


def _with(blocks: Sequence[_Block], number: int, passage: Passage, cost: Cost) -> list[_Block]:
    """The blocks with one passage more, as a block of its own or in the best of those that it touches."""
    rest: list[_Block] = []
    for block in blocks:
        joined = join(block.passage, passage) if number > block.number else join(passage, block.passage)
        if joined is None:
            rest.append(block)
        else:
            number, passage = min(number, block.number), joined
    rest.append(_Block(number, passage, cost(number, passage.text)))
    return sorted(rest)


def _fitting(blocks: Sequence[_Block], number: int, passage: Passage, room: int, cost: Cost) -> int:
    """The length of the longest beginning of the passage, in whole sentences, that fits beside the blocks, or 0."""

    def total(end: int) -> int:
        return sum(block.cost for block in _with(blocks, number, _beginning(passage, end), cost))

    if total(len(passage.text)) <= room:
        return len(passage.text)
    ends = [end for _, end in sentences(passage.text)]
    fitting = bisect_right(ends, room, key=total)
    # Another sentence may, rarely, make the tokens before it fewer, so that the search stopped one too far.
    while fitting and total(ends[fitting - 1]) > room:
        fitting -= 1
    return ends[fitting - 1] if fitting else 0


def _beginning(passage: Passage, end: int) -> Passage:
    return passage if end == len(passage.text) else replace(passage, text=passage.text[:end], end=passage.start + end)

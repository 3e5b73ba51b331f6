"""Whether the passages say what an answer says: the evidence for each sentence, and citations with exact offsets.

A sentence of an answer is supported by up to three neighbouring sentences of one passage if

- enough of its content words occur there (their share is the score, 0 to 1),
- every number (with its sign, and a currency or percent sign) and every capitalised name in it occurs there, next to
  some word that it also stands next to there,
- neither denies what the other states, and no word stands there as its opposite.

No model is needed for this. Alone it is strict, because a true sentence in other words counts as unsupported, and it
does not see a changed word that is neither a number nor a name nor a negation nor an opposite, as long as enough others
agree. So a sentence that a passage has in these words and in this order is settled by the words; about the others a
judge, if one is given, decides (`semsearch.judging` has one). It is not asked about places where a number or a name is
missing or something is denied: these never support the sentence.

    >>> from semsearch.records import Hit, Passage
    >>> hit = Hit(Passage(1, "fees.md", "Fees. A late book costs 20 cents a day.", 100, 139), 1.0, 1)
    >>> cite("A late book costs 20 cents.", [hit])[0].citations
    (Citation(document_id='fees.md', start=106, end=139, page=None, score=1.0, rank=None),)
    >>> cite("A late book costs 25 cents.", [hit])[0].supported
    False
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

from semsearch.records import Citation, Hit, Passage, Sentence
from semsearch.sentences import sentences
from semsearch.wording import Word, denials, opposed, plain, words

__all__ = ["Case", "Mark", "SupportJudge", "cite", "cite_hits", "says_nothing", "take_marks"]

ENOUGH = 2 / 3  # the least share of a sentence's content words that has to occur in its evidence
WINDOW = 3  # sentences of a passage that may support one sentence together
CITATIONS = 3  # at most so many for one sentence
SETTLED = 0.9  # no judge is asked if all words of a sentence occur, and this share of them in the same order
JUDGED = 2  # places at most that a judge is asked about, for one sentence
_NEAR = 6  # the most content words from a name or number to its neighbour in the evidence
_TIGHT = 2  # the same from a name or number to another
_SLOT = 2  # the most content words beside a name or number between its two neighbours in the evidence
_CLOSE = 0.8  # the share of the other words that makes a sentence say almost the same...
_PLAIN = 3  # ... if there are so many


class Mark(NamedTuple):
    """A marker such as [2] that stood at `position` of an answer and names the passage `number` (1 is the first)."""

    position: int
    number: int


class Case(NamedTuple):
    """What a judge is asked: whether `passage[start:end]` says what `claim` says, an answer to `question` (or "").

    `missing` are the content words of the claim that do not occur there (as keys, see `semsearch.wording`), `share` is
    the share of those that do, `order` the share of those that do in the same order, and `placed` says whether numbers
    and names stand where they stand in the claim.
    """

    claim: str
    passage: str
    start: int
    end: int
    question: str
    missing: frozenset[str]
    share: float
    order: float
    placed: bool


class SupportJudge(Protocol):
    """What decides about the sentences that the words alone do not settle."""

    def support(self, case: Case) -> float:
        """How well the evidence supports the claim, above 0 and at most 1; 0: not at all."""


# --- Markers ---------------------------------------------------------------------------------------------------------

_NUMBERS = r"\[(?:passages? )?(\d{1,2}(?:[,;] ?\d{1,2})*)\]"
_MARK = re.compile(rf"(?m)^[ \t]{{0,8}}{_NUMBERS}[ \t]{{0,8}}|[ \t]{{0,8}}{_NUMBERS}")


def take_marks(text: str, passages: Sequence[Passage] = ()) -> tuple[str, list[Mark]]:
    """`text` without the markers that a model put in it to cite, and the markers; positions count in the new text.

    The markers go because a reader would take them for facts, while `citations` carries what was checked. Brackets
    that a passage has at the same place, such as `a[1]` in code, are text and stay.

    >>> take_marks("A book costs 20 cents [1]. It may be renewed. [2, 3]")
    ('A book costs 20 cents. It may be renewed.', [Mark(position=21, number=1), Mark(position=41, number=2), \
Mark(position=41, number=3)])
    """
    kept: list[str] = []
    marks: list[Mark] = []
    done = length = 0
    for match in _MARK.finditer(text):
        copied = text[max(0, match.start() - 12) : match.end()].strip()
        if any(copied in passage.text for passage in passages):
            continue
        kept.append(text[done : match.start()])
        length += match.start() - done
        done = match.end()
        marks += [Mark(length, int(number)) for number in re.findall(r"\d+", match[0])]
    return "".join([*kept, text[done:]]), marks


# --- Evidence --------------------------------------------------------------------------------------------------------


class _Evidence:
    """Some neighbouring sentences of a passage, and their words.

    `first` is the number of the first sentence; `chained` says that each of the others begins with a pronoun, so that
    its subject stands in the one before.
    """

    def __init__(self, hit: Hit, first: int, spans: Sequence[tuple[int, int]], found: Sequence[Sequence[Word]]) -> None:
        self.hit, self.first, self.size = hit, first, len(spans)
        self.start, self.end = spans[0][0], spans[-1][1]
        self.chained = all(_PRONOUN.match(hit.passage.text, start) for start, _ in spans[1:])
        self.sentences = found

    @cached_property
    def positions(self) -> dict[str, list[int]]:
        """Where each word stands, counted in content words; words of two sentences are never near each other."""
        places: dict[str, list[int]] = {}
        position = 0
        for sentence in self.sentences:
            for word in sentence:
                if not word.negator:
                    places.setdefault(word.key, []).append(position)
                    position += 1
            position += _NEAR
        return places

    @cached_property
    def denials(self) -> list[list[str]]:
        return [denial for sentence in self.sentences for denial in denials(sentence)]

    @cached_property
    def plain(self) -> frozenset[str]:
        return plain(self.hit.passage.text[self.start : self.end])

    def citation(self, score: float) -> Citation:
        passage = self.hit.passage
        start, end = passage.start + self.start, passage.start + self.end
        rank = None if passage.document_id else self.hit.rank
        return Citation(passage.document_id, start, end, passage.page, score, rank)


_PRONOUN = re.compile(r"(?:he|she|it|they|his|her|its|their|this|these|that|those|such)\b", re.IGNORECASE)


def _evidence(hit: Hit) -> list[_Evidence]:
    """Every window of up to `WINDOW` neighbouring sentences of a passage."""
    text = hit.passage.text
    spans = sentences(text)
    found = [words(text[start:end]) for start, end in spans]
    return [
        _Evidence(hit, i, spans[i : i + size], found[i : i + size])
        for size in range(1, WINDOW + 1)
        for i in range(len(spans) - size + 1)
    ]


def _support(claim: _Claim, evidence: _Evidence) -> float:
    """How far `evidence` supports the words of a sentence: 0 to 1."""
    share = claim.share(evidence)
    return share if share >= ENOUGH and _possible(claim, evidence) and _placed(claim.words, evidence.positions) else 0.0


def _possible(claim: _Claim, evidence: _Evidence) -> bool:
    """Whether nothing speaks against it: numbers and names occur, and neither side denies the other."""
    return _has_entities(claim, evidence) and not _denied(claim, evidence)


def _has_entities(claim: _Claim, evidence: _Evidence) -> bool:
    return all(word.key in evidence.positions for word in claim.words if word.entity)


def _denied(claim: _Claim, evidence: _Evidence) -> bool:
    return _contradicts(claim.words, evidence) or opposed(claim.plain, evidence.plain)


def _contradicts(claim: Sequence[Word], evidence: _Evidence) -> bool:
    """Whether most of what a negation denies on one side stands undenied on the other.

    A negation of the evidence counts only if at least half of what it denies is in the claim: it may be about
    something else.
    """
    keys = {word.key for word in claim if not word.negator}
    own = denials(claim)
    about = [denial for denial in evidence.denials if 2 * sum(key in keys for key in denial) >= len(denial)]
    return _undenied(own, evidence.positions.keys(), evidence.denials) or _undenied(about, keys, own)


def _undenied(denied: Sequence[Sequence[str]], present: Collection[str], there: Sequence[Sequence[str]]) -> bool:
    """Whether of the words that one negation denies, and that are `present`, most are denied by none of the others."""
    others = {key for denial in there for key in denial}
    for denial in denied:
        shared = [key for key in denial if key in present]
        if shared and 2 * sum(key in others for key in shared) < len(shared):
            return True
    return False


def _placed(claim: Sequence[Word], found: Mapping[str, Sequence[int]]) -> bool:
    """Whether each number or name stands in the evidence where it stands in the sentence.

    Where the words before and after it occur together, it has to be between them; otherwise next to one of the two.
    """
    contents = [word for word in claim if not word.negator]
    for start, end in _entities(contents):
        before, *parts, after = [
            found.get(contents[i].key, ()) if 0 <= i < len(contents) else () for i in range(start - 1, end + 1)
        ]
        slots = [(a, b) for a in before for b in _following(after, a + len(parts), _SLOT)]
        if slots:
            beside = any(a < place < b for a, b in slots for place in _following(parts[0], a, b - a))
        else:
            # Two numbers or names, such as a time and a day, belong together only side by side.
            left = _TIGHT if start and contents[start - 1].entity else _NEAR
            right = _TIGHT if end < len(contents) and contents[end].entity else _NEAR
            beside = len(parts) == len(contents) or _near(before, parts[0], left) or _near(parts[-1], after, right)
        if not (beside and all(_near(a, b, _TIGHT) for a, b in pairwise(parts))):
            return False
    return True


def _entities(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """The numbers, and the names of one or more words, but for a name that begins the sentence: (start, end)."""
    start = 0
    while start < len(words):
        end = start + 1
        while end < len(words) and _continues(words[end - 1], words[end]):
            end += 1
        if words[start].entity and (words[start].place or words[start].numeric):
            yield start, end
        start = end


def _continues(word: Word, following: Word) -> bool:
    """Whether two words are of one name, or of one number with its unit."""
    if not (word.entity and following.entity and following.place <= word.place + 1):
        return False
    return word.numeric if following.unit else not (word.numeric or following.numeric)


def _near(first: Sequence[int], second: Sequence[int], reach: int) -> bool:
    return any(_following(second, a, reach) for a in first)


def _following(places: Sequence[int], start: int, reach: int) -> Sequence[int]:
    """Those of the sorted `places` from start + 1 to start + reach."""
    return places[bisect_right(places, start) : bisect_right(places, start + reach)]


# --- Citations -------------------------------------------------------------------------------------------------------


class _Claim:
    """A sentence to be checked."""

    def __init__(self, text: str) -> None:
        self.text, self.words = text, words(text, sure=True)
        self.keys = [word.key for word in self.words if not word.negator]
        self.contents = frozenset(self.keys)

    @cached_property
    def plain(self) -> frozenset[str]:
        return plain(self.text)

    def share(self, evidence: _Evidence) -> float:
        return len(self.contents & evidence.positions.keys()) / len(self.contents) if self.contents else 0.0


def says_nothing(text: str) -> bool:
    """Whether a sentence has no words that could be checked ("Yes.")."""
    return not words(text)


class _Found(NamedTuple):
    """A place that may support a sentence; of two places the one with the smaller `order` is the better one."""

    score: float
    order: tuple[float, int, int]
    evidence: _Evidence


def cite(
    text: str,
    hits: Sequence[Hit],
    *,
    question: str = "",
    marks: Sequence[Mark] = (),
    judge: SupportJudge | None = None,
) -> list[Sentence]:
    """The sentences of `text`, each with the places in `hits` that support it, best first.

    A citation's score is the share of the sentence's content words that occur in it, at least 2/3, or what the judge
    says, where it was asked. There is no citation where a number or name is missing or a negation
    differs. At most one citation comes from a passage, and at most three support a sentence. Of equal places the one in
    a passage that the model named by a marker (`marks`, checked like any other) comes first, then the one that has more
    words of the `question`, then the shorter one, then the one of the better hit. A sentence without content words
    ("Yes.") has no citations.
    """
    return [sentence for sentence, _ in cite_hits(text, hits, question=question, marks=marks, judge=judge)]


def cite_hits(
    text: str,
    hits: Sequence[Hit],
    *,
    question: str = "",
    marks: Sequence[Mark] = (),
    judge: SupportJudge | None = None,
) -> Iterator[tuple[Sentence, dict[Citation, Hit]]]:
    """As `cite`, with the hit of each citation."""
    evidence = [_evidence(hit) for hit in hits]
    asked = {word.key for word in words(question) if not word.negator}
    for start, end in sentences(text):
        claim = _Claim(text[start:end])
        found = [_best(claim, windows, asked) for windows in evidence]
        if judge is not None and claim.contents and not any(one and _settled(claim, one) for one in found):
            found = _judged(claim, evidence, found, question, judge)
        named = {mark.number for mark in marks if start <= mark.position <= end}
        supported = sorted(
            (number not in named, *one.order, number, one)
            for number, one in enumerate(found, start=1)
            if one is not None
        )
        places: dict[Citation, Hit] = {}
        for *_, one in supported:
            places.setdefault(one.evidence.citation(one.score), one.evidence.hit)
        yield Sentence(text[start:end], start, end, tuple(places)[:CITATIONS]), places


def _best(claim: _Claim, windows: Sequence[_Evidence], asked: set[str]) -> _Found | None:
    """The best window of one passage, or None if none supports the claim."""
    best = None
    for window in _eligible(claim.words, windows):
        score = _support(claim, window)
        if score:
            one = _Found(score, _order(score, window, asked), window)
            if best is None or one.order < best.order:
                best = one
    return best


def _order(score: float, window: _Evidence, asked: set[str]) -> tuple[float, int, int]:
    # Another sentence in the window has to add something.
    return (0.05 * (window.size - 1) - score, -len(asked & window.positions.keys()), window.end - window.start)


def _eligible(claim: Sequence[Word], windows: Sequence[_Evidence]) -> Sequence[_Evidence]:
    """The windows that may support a claim: all, unless one sentence alone says almost the same.

    Then that one has to have the numbers and names as well. The sentences around it would bring in those of others;
    they count only where a pronoun says that they are about the same.
    """
    plain = {word.key for word in claim if not (word.negator or word.entity)}
    if len(plain) < _PLAIN:
        return windows
    close = {w.first for w in windows if w.size == 1 and len(plain & w.positions.keys()) >= _CLOSE * len(plain)}
    if not close:
        return windows
    return [w for w in windows if w.chained and not close.isdisjoint(range(w.first, w.first + w.size))]


def _settled(claim: _Claim, found: _Found) -> bool:
    return claim.contents <= found.evidence.positions.keys() and _ordered(claim, found.evidence) >= SETTLED


def _ordered(claim: _Claim, evidence: _Evidence) -> float:
    """The share of the claim's words that the evidence has in the same order (their longest common subsequence)."""
    if not claim.keys:
        return 0.0
    there = [word.key for sentence in evidence.sentences for word in sentence if not word.negator]
    lengths = [0] * (len(there) + 1)
    for key in claim.keys:
        row = [0]
        for place, other in enumerate(there):
            row.append(lengths[place] + 1 if key == other else max(row[place], lengths[place + 1]))
        lengths = row
    return lengths[-1] / len(claim.keys)


def _judged(
    claim: _Claim,
    evidence: Sequence[Sequence[_Evidence]],
    found: Sequence[_Found | None],
    question: str,
    judge: SupportJudge,
) -> list[_Found | None]:
    """What is left, or comes to it, once a judge was asked about the likeliest places, one of a passage."""
    asked = {word.key for word in words(question) if not word.negator}
    places = []
    for number, windows in enumerate(evidence):
        one = found[number]
        likely = one.evidence if one else _likeliest(claim, windows)
        if likely is not None:
            places.append((one is None, 0.05 * likely.size - claim.share(likely), number, likely))
    result: list[_Found | None] = [None] * len(found)
    for *_, number, window in sorted(places, key=lambda place: place[:3])[:JUDGED]:
        score = judge.support(_case(claim, window, question))
        if score > 0:
            result[number] = _Found(score, _order(score, window, asked), window)
    return result


def _likeliest(claim: _Claim, windows: Sequence[_Evidence]) -> _Evidence | None:
    """The window with the most of the claim's words; None if it denies the claim, or if none has its numbers and names.

    Where the closest place says the opposite, another one in the same passage is no evidence.
    """
    for window in sorted(windows, key=lambda window: 0.05 * window.size - claim.share(window)):
        if not claim.share(window) or _denied(claim, window):
            return None
        if _has_entities(claim, window):
            return window
    return None


def _case(claim: _Claim, window: _Evidence, question: str) -> Case:
    return Case(
        claim.text,
        window.hit.passage.text,
        window.start,
        window.end,
        question,
        claim.contents - window.positions.keys(),
        claim.share(window),
        _ordered(claim, window),
        _placed(claim.words, window.positions),
    )

"""Whether the passages say what an answer says: sentences, the evidence for each, and citations with exact offsets.

No model is needed. A sentence of an answer is supported by up to three neighbouring sentences of one passage if

- enough of its content words occur there (their share is the score, 0 to 1),
- every number and every capitalised name in it occurs there, next to some word that it also stands next to there,
- and neither denies what the other states.

The check is of words, so it is strict: a true sentence in other words counts as unsupported. It does not see a
changed word that is neither a number nor a name nor a negation, as long as enough others agree; and it knows
negations and function words of English (and a few of German, French, Spanish, Chinese and Japanese) only.

    >>> from semsearch.records import Hit, Passage
    >>> hit = Hit(Passage(1, "fees.md", "Fees. A late book costs 20 cents a day.", 100, 139), 1.0, 1)
    >>> [(s.text, s.citations) for s in cite("A late book costs 20 cents.", [hit])]
    [('A late book costs 20 cents.', (Citation(document_id='fees.md', start=106, end=139, page=None, score=1.0),))]
    >>> cite("A late book costs 25 cents.", [hit])[0].supported
    False
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from semsearch.records import Answer, Citation, Hit, Passage, Sentence

__all__ = ["AnswerStream", "Mark", "cite", "sentences", "take_marks"]

ENOUGH = 2 / 3  # the least share of a sentence's content words that has to occur in its evidence
WINDOW = 3  # sentences of a passage that may support one sentence together
CITATIONS = 3  # at most so many for one sentence
_NEAR = 6  # the most content words from a name or number to its neighbour in the evidence
_TIGHT = 2  # the same from a name or number to another
_SLOT = 2  # the most content words beside a name or number between its two neighbours in the evidence
_CLOSE = 0.8  # the share of the other words that makes a sentence say almost the same...
_PLAIN = 3  # ... if there are so many
_SCOPE = 3  # content words that a negation denies


class Mark(NamedTuple):
    """A marker such as [2] that stood at `position` of an answer and names the passage `number` (1 is the first)."""

    position: int
    number: int


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# --- Sentences -------------------------------------------------------------------------------------------------------

# Each branch is anchored so that a long run of one character is scanned once: time is linear in the text.
_END = re.compile(
    r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?=\s|$)"""
    r"""|[。！？｡]++[」』”’）]*+"""
    r"""|\n(?=[ \t\r\f]*+(?:\n|[-*+•]\s|[#|>]|\d{1,3}[.)]\s))"""
)
_BEFORE_STOP = re.compile(r"(?:^|(?<=[\s(\[\"'“‘]))[\w.]+$")
_ABBREVIATIONS = _set(
    "al approx art ca cf ch co corp dept dr ed e.g eds eq est fig figs gen gov i.e inc jr lt ltd mr mrs ms mt nos p pp "
    "prof rev sen sec sr st u.k u.s univ viz vol vs"
)
_LIST_NUMBER = re.compile(r"(?:^|\n)[ \t]*\d{1,3}$")


def sentences(text: str) -> list[tuple[int, int]]:
    """The spans (start, end) of the sentences of `text`, in order, without white space at their ends.

    Everything but white space is in exactly one. A blank line, and a line break before a list item, heading or table
    row, ends a sentence too; other line breaks do not.

    >>> [("It is 3.5 km. Dr. Ada knows."[a:b]) for a, b in sentences("It is 3.5 km. Dr. Ada knows.")]
    ['It is 3.5 km.', 'Dr. Ada knows.']
    """
    spans, start = [], 0
    for match in _END.finditer(text):
        if match[0][0] == "." and not _ends_sentence(text, match.start(), match.end()):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [span for span in (_strip(text, a, b) for a, b in spans) if span[0] < span[1]]


def _ends_sentence(text: str, stop: int, end: int) -> bool:
    """Whether the full stop at `stop` ends a sentence: not that of an abbreviation, an initial or a list's number."""
    following = text[end : end + 40].lstrip()[:1]
    if following.islower():
        return False
    before = text[max(0, stop - 20) : stop]
    if _LIST_NUMBER.search(before if stop > 20 else "\n" + before):
        return False
    match = _BEFORE_STOP.search(before)
    word = match[0] if match else ""
    if word.lower() == "no":
        return not following.isdigit()
    return not (word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I"))


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


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


# --- Words -----------------------------------------------------------------------------------------------------------


class _Word(NamedTuple):
    key: str  # what is compared: a stem, a number in digits, or two neighbouring Chinese or Japanese characters
    entity: bool  # a number or a name, which has to occur in the evidence
    place: int  # its position among all words of the sentence; the capital letter of the first says little
    negator: bool = False


_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f"
_WORD = re.compile(rf"\d+(?:[.,:]\d+)*(?!\w)|[{_CJK}]+|(?:(?![{_CJK}])[^\W_])+(?:['’][^\W\d_]+)*")
_LIST_MARKER = re.compile(r"\s*(?:[-*+•>#|]+|\d{1,3}[.)])\s+")
_STOP = _set(
    "a about above according accordingly additionally after again all also although am an and another answer any are "
    "as at based be because been before being below between both but by can context could d did do document documents "
    "does doing done down during each either etc even every few finally first for from further furthermore given had "
    "has have having he hence her here hers herself him himself his how however i if in into is it its itself just "
    "like likewise ll m many may me mention mentioned mentions might moreover more most much must my myself of off on "
    "once only or other our ours out over own passage passages per provided question re said same say says shall she "
    "should similarly since so some state stated states such t text than that the their theirs them themselves then "
    "there therefore these they this those though through thus to too under until up upon us ve very was we were what "
    "when where whether which while who whom whose why will with within would yes yet you your yours"
)
_NEGATORS = _set(
    "cannot hardly neither never no nobody non none nor not nothing nowhere rarely seldom without "
    "kein keine keinem keinen keiner nicht nie niemals pas jamais ni nunca"
)
_CJK_NEGATORS = frozenset("不没沒無无未非")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SPELLED = {word: str(value) for value, word in enumerate(_UNITS.split())}
_SPELLED |= {word: str(10 * value) for value, word in enumerate(_TENS.split(), start=2)}


def _words(text: str) -> list[_Word]:
    """The content words and negators of a sentence, in order."""
    text = unicodedata.normalize("NFKC", text)
    marker = _LIST_MARKER.match(text)
    words: list[_Word] = []
    for place, match in enumerate(_WORD.finditer(text, marker.end() if marker else 0)):
        words += _cjk_words(match[0], place) if re.match(f"[{_CJK}]", match[0]) else _word(match[0], place)
    return words


def _word(raw: str, place: int) -> list[_Word]:
    low = raw.casefold().replace("’", "'")
    if low in _NEGATORS or low.endswith("n't"):
        return [_Word("", False, place, negator=True)]
    low = low.split("'")[0]
    if low in _STOP:
        return []
    key = _key(low)
    return [_Word(key, raw[0].isupper() or any(map(str.isdigit, key)), place)]


def _cjk_words(run: str, place: int) -> list[_Word]:
    """The negators and the pairs of neighbouring characters of a run (one character alone stands for itself)."""
    words = []
    for i in range(max(1, len(run) - 1)):
        if run[i] in _CJK_NEGATORS:
            words.append(_Word("", False, place, negator=True))
        words.append(_Word(run[i : i + 2], False, place))
    return words


@lru_cache(maxsize=65536)
def _key(word: str) -> str:
    if word in _SPELLED:
        return _SPELLED[word]
    ordinal = _ORDINAL.fullmatch(word)
    if ordinal:
        return ordinal[1]
    return _number(word) if _NUMBER.fullmatch(word) else _stem(word)


def _number(word: str) -> str:
    """1,000 and 1000 are the same number, 5.00 and 5 too."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", word):
        word = word.replace(",", "")
    return word.rstrip("0").rstrip(".") if re.fullmatch(r"\d+\.\d+", word) else word


def _stem(word: str) -> str:
    """One English ending off (after Harman 1991, "How effective is suffixing?", with -ed, -ing and -e as well)."""
    for suffix in ("ing", "es", "ed", "s", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word


# --- Evidence --------------------------------------------------------------------------------------------------------


class _Evidence:
    """Some neighbouring sentences of a passage, and their words.

    `first` is the number of the first sentence; `chained` says that each of the others begins with a pronoun, so that
    its subject stands in the one before.
    """

    def __init__(
        self, hit: Hit, first: int, spans: Sequence[tuple[int, int]], words: Sequence[Sequence[_Word]]
    ) -> None:
        self.hit, self.first, self.size = hit, first, len(spans)
        self.start, self.end = spans[0][0], spans[-1][1]
        self.chained = all(_PRONOUN.match(hit.passage.text, start) for start, _ in spans[1:])
        self._sentences = words

    @cached_property
    def positions(self) -> dict[str, list[int]]:
        """Where each word stands, counted in content words; words of two sentences are never near each other."""
        places: dict[str, list[int]] = {}
        position = 0
        for sentence in self._sentences:
            for word in sentence:
                if not word.negator:
                    places.setdefault(word.key, []).append(position)
                    position += 1
            position += _NEAR
        return places

    @cached_property
    def polarity(self) -> tuple[set[str], set[str]]:
        return _polarity([word for sentence in self._sentences for word in sentence])

    def citation(self, score: float) -> Citation:
        passage = self.hit.passage
        return Citation(passage.document_id, passage.start + self.start, passage.start + self.end, passage.page, score)


def _polarity(words: Sequence[_Word]) -> tuple[set[str], set[str]]:
    """The words that are denied somewhere, and those that stand undenied somewhere."""
    denied: set[int] = set()
    for i, word in enumerate(words):
        if word.negator:
            after = [j for j in range(i + 1, len(words)) if not words[j].negator][:_SCOPE]
            denied.update(after or [j for j in range(i) if not words[j].negator][-1:])
    contents = [(i, word.key) for i, word in enumerate(words) if not word.negator]
    return {key for i, key in contents if i in denied}, {key for i, key in contents if i not in denied}


_PRONOUN = re.compile(r"(?:he|she|it|they|his|her|its|their|this|these|that|those|such)\b", re.IGNORECASE)


def _evidence(hit: Hit) -> list[_Evidence]:
    """Every window of up to `WINDOW` neighbouring sentences of a passage."""
    text = hit.passage.text
    spans = sentences(text)
    words = [_words(text[start:end]) for start, end in spans]
    return [
        _Evidence(hit, i, spans[i : i + size], words[i : i + size])
        for size in range(1, WINDOW + 1)
        for i in range(len(spans) - size + 1)
    ]


def _support(claim: Sequence[_Word], evidence: _Evidence) -> float:
    """How far `evidence` supports the words of a sentence: 0 to 1."""
    contents = {word.key for word in claim if not word.negator}
    found = evidence.positions
    share = len(contents & found.keys()) / len(contents) if contents else 0.0
    if share < ENOUGH or any(word.entity and word.key not in found for word in claim):
        return 0.0
    return 0.0 if _contradicts(claim, evidence) or not _placed(claim, found) else share


def _contradicts(claim: Sequence[_Word], evidence: _Evidence) -> bool:
    """Whether at least as many words are denied on one side only as are denied on both."""
    denied, stated = _polarity(claim)
    denied_there, stated_there = evidence.polarity
    against = len((denied & stated_there) - denied_there) + len((stated & denied_there) - stated_there)
    return against > 0 and against >= len(denied & denied_there)


def _placed(claim: Sequence[_Word], found: Mapping[str, Sequence[int]]) -> bool:
    """Whether each number or name stands in the evidence where it stands in the sentence.

    Where the words before and after it occur together, it has to be between them; otherwise next to one of the two.
    """
    words = [word for word in claim if not word.negator]
    for start, end in _entities(words):
        before, *parts, after = [
            found.get(words[i].key, ()) if 0 <= i < len(words) else () for i in range(start - 1, end + 1)
        ]
        slots = [(a, b) for a in before for b in _following(after, a + len(parts), _SLOT)]
        if slots:
            beside = any(a < place < b for a, b in slots for place in _following(parts[0], a, b - a))
        else:
            # Two numbers or names, such as a time and a day, belong together only side by side.
            left = _TIGHT if start and words[start - 1].entity else _NEAR
            right = _TIGHT if end < len(words) and words[end].entity else _NEAR
            beside = len(parts) == len(words) or _near(before, parts[0], left) or _near(parts[-1], after, right)
        if not (beside and all(_near(a, b, _TIGHT) for a, b in pairwise(parts))):
            return False
    return True


def _entities(words: Sequence[_Word]) -> Iterator[tuple[int, int]]:
    """The numbers, and the names of one or more words, but for a name that begins the sentence: (start, end)."""
    start = 0
    while start < len(words):
        end = start + 1
        while end < len(words) and _continues(words[end - 1], words[end]):
            end += 1
        if words[start].entity and (words[start].place or words[start].key[0].isdigit()):
            yield start, end
        start = end


def _continues(word: _Word, following: _Word) -> bool:
    """Whether two words are of one name."""
    both = word.entity and following.entity and following.place == word.place + 1
    return both and not (word.key[0].isdigit() or following.key[0].isdigit())


def _near(first: Sequence[int], second: Sequence[int], reach: int) -> bool:
    return any(_following(second, a, reach) for a in first)


def _following(places: Sequence[int], start: int, reach: int) -> Sequence[int]:
    """Those of the sorted `places` from start + 1 to start + reach."""
    return places[bisect_right(places, start) : bisect_right(places, start + reach)]


# --- Citations -------------------------------------------------------------------------------------------------------


def cite(text: str, hits: Sequence[Hit], *, question: str = "", marks: Sequence[Mark] = ()) -> list[Sentence]:
    """The sentences of `text`, each with the places in `hits` that support it, best first.

    A citation's score is the share of the sentence's content words that occur in it, at least 2/3; it is 0, and there
    is no citation, where a number or name is missing or a negation differs. At most one citation comes from a
    passage, and at most three support a sentence. Of equal places the one in a passage that the model named by a
    marker (`marks`, checked like any other) comes first, then the one that has more words of the `question`, then
    the shorter one, then the one of the better hit. A sentence without content words ("Yes.") has no citations.
    """
    evidence = [_evidence(hit) for hit in hits]
    asked = {word.key for word in _words(question) if not word.negator}
    result = []
    for start, end in sentences(text):
        claim = _words(text[start:end])
        named = {mark.number for mark in marks if start <= mark.position <= end}
        supported = []
        for number, windows in enumerate(evidence, start=1):
            best = _best(claim, windows, asked)
            if best is not None:
                supported.append((number not in named, *best[0], number, best[1]))
        supported.sort(key=lambda entry: entry[:-1])
        citations = tuple(dict.fromkeys(entry[-1] for entry in supported))[:CITATIONS]
        result.append(Sentence(text[start:end], start, end, citations))
    return result


def _best(
    claim: Sequence[_Word], windows: Sequence[_Evidence], asked: set[str]
) -> tuple[tuple[float, int, int], Citation] | None:
    """The best window of one passage with its order (smaller is better), or None if none supports the claim."""
    best = None
    for window in _eligible(claim, windows):
        score = _support(claim, window)
        if score:
            # Another sentence in the window has to add something.
            order = (0.05 * (window.size - 1) - score, -len(asked & window.positions.keys()), window.end - window.start)
            if best is None or order < best[0]:
                best = (order, window.citation(score))
    return best


def _eligible(claim: Sequence[_Word], windows: Sequence[_Evidence]) -> Sequence[_Evidence]:
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


class AnswerStream:
    """A generated answer as it comes: iterate over its pieces of text, then ask for `answer`.

    `pieces` is what a generative reader yields and `hits` are the passages it was given, in the same order. The
    pieces are the raw text of the model, markers such as [1] included. Closing the stream stops the model; `answer`
    then stands for what came until then.

        stream = AnswerStream(reader.stream(question, [hit.passage for hit in hits]), hits, question)
        for piece in stream:
            print(piece, end="", flush=True)
        print(stream.answer.citations)
    """

    def __init__(self, pieces: Iterable[str], hits: Sequence[Hit], question: str = "") -> None:
        self._pieces = iter(pieces)
        self._hits = tuple(hits)
        self._question = question
        self._texts: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = next(self._pieces)
        self._texts.append(piece)
        return piece

    def close(self) -> None:
        """Stop generating."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._pieces = iter(())

    @property
    def answer(self) -> Answer:
        """The answer with its citations; takes what is still to come.

        `score` is the mean over the sentences of the best support of each (0 for none), `hit` the best cited one, and
        the text has no markers. If no sentence is supported the answer is not found, and the text that was generated
        is in `alternatives[0]`.
        """
        return self._checked[0]

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """The sentences of the answer's text (or of the alternative's, if it was not found), with their citations."""
        return self._checked[1]

    @cached_property
    def _checked(self) -> tuple[Answer, tuple[Sentence, ...]]:
        for _ in self:
            pass
        # A lone surrogate or NUL cannot come from a tokenizer, but may from a reader of the user's own: both are text.
        text, marks = take_marks("".join(self._texts).strip(), [hit.passage for hit in self._hits])
        checked = tuple(cite(text, self._hits, question=self._question, marks=marks))
        return _answer(text, checked, self._hits), checked


def _answer(text: str, checked: Sequence[Sentence], hits: Sequence[Hit]) -> Answer:
    citations = tuple(dict.fromkeys(citation for sentence in checked for citation in sentence.citations))
    if not citations:
        return Answer("", 0.0, alternatives=(Answer(text, 0.0, sentences=tuple(checked)),) if text else ())
    supports = [
        max((c.score for c in sentence.citations), default=0.0) for sentence in checked if _words(sentence.text)
    ]
    best = max(citations, key=lambda citation: citation.score)
    return Answer(text, sum(supports) / len(supports), hit=_hit_of(best, hits), citations=citations, sentences=tuple(checked))


def _hit_of(citation: Citation, hits: Sequence[Hit]) -> Hit:
    return next(
        hit
        for hit in hits
        if hit.passage.document_id == citation.document_id
        and hit.passage.start <= citation.start
        and citation.end <= hit.passage.end
    )

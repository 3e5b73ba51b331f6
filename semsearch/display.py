"""Hits, answers, reports and explanations as text for a terminal, and as rows for JSON.

Text of documents is data: it cannot move the cursor of a terminal, change colours or reverse the line, because control
characters and bidirectional overrides are replaced. `semsearch.html` shows the same in a notebook.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from semsearch.errors import InputError
from semsearch.records import Answer, Citation, Hit, Passage

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = [
    "Explanation",
    "answer_row",
    "answer_text",
    "clean",
    "hits_rows",
    "hits_text",
    "report_text",
    "shorten",
    "snippet",
]

_SCAN = 20_000  # characters of a passage that are looked through for the query's words: passages are far shorter
_FAILURES = 20  # lines of a report before "… and n more"

# ------------------------------------------------------------------------------------------------------------- cleaning


def clean(text: str) -> str:
    """The text on one line, without anything that a terminal or a browser obeys.

    White space becomes single spaces; control characters become their pictures (ESC: ␛); invisible format
    characters, such as bidirectional overrides, go, except the joiners that Persian and emoji need; lone surrogates
    become U+FFFD.

    >>> clean("a\\x1b[31m b\\u202e c\\r\\nd")
    'a␛[31m b c d'
    """
    line = " ".join(text.split())
    return line if line.isascii() and line.isprintable() else "".join(map(_harmless, line))


def _harmless(character: str) -> str:
    code = ord(character)
    if code < 32 or code == 127:
        return chr(0x2400 + code) if code < 32 else "␡"
    match unicodedata.category(character):
        case "Cc" | "Cs":
            return "\ufffd"
        case "Cf":
            return character if character in "\u200c\u200d" else ""
        case _:
            return character


def _cells(character: str) -> int:
    """The columns that a character takes in a terminal: 2 for East Asian wide ones and emoji, 0 for combining marks."""
    if character in "\u200c\u200d\ufe0e\ufe0f" or unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """The text, cut off with an ellipsis so that it takes at most `width` columns of a terminal.

    >>> shorten("late fees", 6), shorten("東京都", 5)
    ('late …', '東京…')
    """
    taken = 0
    keep = 0  # where to cut if the rest turns out not to fit beside an ellipsis
    for position, character in enumerate(text):
        taken += _cells(character)
        if taken <= width - 1:
            keep = position + 1
        if taken > width:
            return text[:keep] + "…" if width > 0 else ""
    return text


def tail(text: str, width: int) -> str:
    """`shorten` from the other end."""
    return shorten(text[::-1], width)[::-1]


def _width() -> int:
    return max(40, shutil.get_terminal_size((100, 24)).columns)


def words_of(query: str) -> re.Pattern[str] | None:
    """The query's words, to be found where words start; short ones (the, is, of) only if there are no others."""
    letters, spaceless, begin = r"\w", None, r"\b"
    if not query.isascii():
        from semsearch.analysis import SPACELESS, combining_marks, letter_pattern

        marks = f"{SPACELESS}{combining_marks()}"  # Python's \w lacks the marks, and would cut words there
        letters, spaceless, begin = rf"\w{marks}", re.compile(f"[{SPACELESS}]"), rf"\b(?<![{marks}])"
    words = sorted(set(re.findall(f"[{letters}]+", query)), key=lambda word: (-len(word), word))[:64]
    words = [w for w in words if len(w) > 3] or words
    if not words:
        return None
    runs = [letter_pattern().findall(w) for w in words if spaceless is not None and spaceless.match(w)]
    pairs = {first + second for run in runs for first, second in pairwise(run)}
    parts = [f"{begin}(?:{'|'.join(map(re.escape, words))})", *sorted(map(re.escape, pairs))]
    return re.compile("|".join(parts), re.IGNORECASE)


def snippet(text: str, query: str, width: int) -> str:
    """The part of a passage that has most of the query's words, on one line of at most `width` columns.

    >>> snippet("The library opens at nine. Late fees are charged from the second week.", "late fees", 32)
    '… Late fees are charged from th…'
    """
    start = _best_start(text[:_SCAN], words_of(query), width)
    before = "… " if start else ""
    return before + shorten(clean(text[start : start + 4 * width + 40]), width - len(before))


def _best_start(text: str, words: re.Pattern[str] | None, width: int) -> int:
    """Where to start so that most distinct words of the query are seen; 0 if the beginning is as good."""
    found = [] if words is None else [(m.start(), m.group().casefold()) for m in words.finditer(text)][:100]
    best, most = 0, len({word for at, word in found if at < width * 3 // 4})
    for at, _ in found:
        seen = len({word for other, word in found if at <= other < at + width * 3 // 4})
        if seen > most:
            best, most = at, seen
    if best == 0:
        return 0
    # Begin at the sentence if it starts near, otherwise at the word.
    near = [m.end() for m in re.finditer(r"[.!?。！？\n]\s+|[。！？\n]", text[max(0, best - width // 3) : best])]
    return max(0, best - width // 3) + near[-1] if near else best


# ----------------------------------------------------------------------------------------------------------------- text


def hits_text(hits: Sequence[Hit], query: str) -> str:
    """Two lines for each hit: rank, score, document, page, offsets, heading and legs; then a snippet."""
    width = _width()
    if not hits:
        return shorten(f"No passage found for “{clean(query)}”.", width)
    lines = [shorten(f"{len(hits)} hit{'s' * (len(hits) != 1)} for “{clean(query)}”", width)]
    digits = len(str(hits[-1].rank))
    for hit in hits:
        lines.append(shorten(f"{hit.rank:>{digits}}  {hit.score:.4f}  {place(hit)}{legs(hit)}", width))
        lines.append(" " * (digits + 2) + snippet(hit.passage.text, query, width - digits - 2))
    return "\n".join(lines)


def answer_text(answer: Answer) -> str:
    """The answer with its probability, where it was read, and the line around it; or that there is none.

    A generated answer has each sentence on a line of its own, with the numbers of its citations, or "[not supported]".
    """
    width = _width()
    if not answer.found:
        return "\n".join(not_found(answer, width))
    if answer.sentences:
        return "\n".join([*_sentences(answer), f"  {support(answer)}", *_citations(answer, width)])
    lines = [f"{clean(answer.text)}  ({percent(answer.score)})"]
    if answer.hit is not None:
        lines.append(shorten(f"  {place(answer.hit, answer.start, answer.end)}", width))
        if (pieces := around(answer)) is not None:
            before, text, after = pieces
            text = shorten(text, width - 8)
            room = width - 8 - sum(map(_cells, text))
            head = tail(before, room - min(room // 2, sum(map(_cells, after))))
            lines.append("  " + shorten(f"{head}«{text}»{after}", width - 2))
    return "\n".join([*lines, *_citations(answer, width)])


def _sentences(answer: Answer) -> Iterator[str]:
    numbers = numbered(answer)
    for sentence in answer.sentences:
        cited = ", ".join(str(numbers[citation]) for citation in sentence.citations)
        yield f"{clean(sentence.text)} [{cited or 'not supported'}]"


def _citations(answer: Answer, width: int) -> Iterator[str]:
    passages = passages_of(answer)
    for citation, number in numbered(answer).items():
        page = "" if citation.page is None else f", page {citation.page}"
        where = f"{origin(citation.document_id, citation.rank)}{page} [{citation.start}:{citation.end}]"
        text = quoted(citation, passages.get(citation.document_id, ()))
        quote = f"  “{text}”" if text else ""
        yield shorten(f"  [{number}] {where}  ({percent(citation.score)}){quote}", width)


def support(answer: Answer) -> str:
    """How much of a generated answer the passages support: "1 of 2 sentences supported (50 %)"."""
    count, found = len(answer.sentences), sum(sentence.supported for sentence in answer.sentences)
    left_out = 0 if answer.context is None else len(answer.context.left_out)
    more = f"; no room for {left_out} passage{'s' * (left_out != 1)}" if left_out else ""
    return f"{found} of {count} sentence{'s' * (count != 1)} supported ({percent(answer.score)}){more}"


def numbered(answer: Answer) -> dict[Citation, int]:
    """The number of each citation, from 1, in the order of `answer.citations`."""
    every = [*answer.citations, *(citation for sentence in answer.sentences for citation in sentence.citations)]
    return {citation: number for number, citation in enumerate(dict.fromkeys(every), 1)}


def passages_of(answer: Answer) -> dict[str, list[Passage]]:
    """The passages that are known of an answer, by document: what its reader was shown, and where it was read."""
    known = [] if answer.context is None else [*answer.context.used]
    known += [] if answer.hit is None else [answer.hit.passage]
    found: dict[str, list[Passage]] = {}
    for passage in known:
        found.setdefault(passage.document_id, []).append(passage)
    return found


def quoted(citation: Citation, passages: Iterable[Passage]) -> str:
    """The words that a citation stands for, on one line; "" if none of the passages has them."""
    for passage in passages:
        same = citation.rank is None or citation.rank == passage.id  # as `Answerer.read` makes them of strings
        if same and passage.start <= citation.start <= citation.end <= passage.end:
            return clean(passage.text[citation.start - passage.start : citation.end - passage.start])
    return ""


def report_text(report: object) -> str:
    """A report's numbers on one line, then its failures with their reasons.

    For any dataclass: its numbers in their order, then each list of (path, reason) pairs.
    """
    values = _fields(report)
    numbers = [f"{name.replace('_', ' ')} {_number(v)}" for name, v in values if isinstance(v, (bool, int, float))]
    lines = [", ".join(numbers)] if numbers else []
    for name, value in values:
        if isinstance(value, (list, tuple)) and value:
            lines += _failures(name, value)
    return "\n".join(lines) or "nothing to report"


def _failures(name: str, values: Sequence[Any]) -> Iterator[str]:
    yield f"{name.replace('_', ' ')}:"
    for value in values[:_FAILURES]:
        parts = value if isinstance(value, (list, tuple)) else (value,)
        yield "  " + ": ".join(clean(str(part)) for part in parts)
    if len(values) > _FAILURES:
        yield f"  … and {len(values) - _FAILURES} more"


def _fields(report: object) -> list[tuple[str, Any]]:
    if is_dataclass(report):
        return [(f.name, getattr(report, f.name)) for f in fields(report) if not f.name.startswith("_")]
    return [(name, value) for name, value in vars(report).items() if not name.startswith("_")]


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def percent(probability: float) -> str:
    """A probability as a whole percentage: 0.931 is "93 %"."""
    return f"{100 * probability:.0f} %"


def not_found(answer: Answer, width: int) -> Iterator[str]:
    """That there is no answer; then the best guess, or what was generated without support."""
    yield "No answer in the documents."
    if answer.alternatives and (best := answer.alternatives[0]).text:
        where = "" if best.hit is None else f", {place(best.hit, best.start, best.end)}"
        if best.sentences and not any(sentence.supported for sentence in best.sentences):
            yield shorten(f"  Generated, but not supported: “{clean(best.text)}”", width)
        else:
            yield shorten(f"  Best guess: “{clean(best.text)}” ({percent(best.score)}){where}", width)


def place(hit: Hit, start: int | None = None, end: int | None = None) -> str:
    """Document, page, offsets and heading: "handbook.pdf, page 3 [120:380]  Fees > Late fees"."""
    passage = hit.passage
    page = "" if passage.page is None else f", page {passage.page}"
    offsets = f"[{passage.start if start is None else start}:{passage.end if end is None else end}]"
    heading = clean(str(passage.metadata.get("heading") or ""))
    return f"{origin(passage.document_id, hit.rank)}{page} {offsets}" + (f"  {heading}" if heading else "")


def origin(document_id: str, rank: int | None) -> str:
    """The document, or which one of the plain strings that were read: "text 2"."""
    return clean(document_id) if document_id or rank is None else f"text {rank}"


def legs(hit: Hit) -> str:
    """The rank of a hit in each leg: "  (dense #1, lexical #3)"; "" if it has none."""
    found = [f"{clean(str(name))} #{rank}" for name, (rank, _) in hit.sources.items()]
    return f"  ({', '.join(found)})" if found else ""


def around(answer: Answer) -> tuple[str, str, str] | None:
    """The passage before the answer, the answer, and the passage after it; None if it is not a part of the passage."""
    if answer.hit is None or answer.start is None or answer.end is None:
        return None
    passage = answer.hit.passage
    start, end = answer.start - passage.start, answer.end - passage.start
    if not 0 <= start <= end <= len(passage.text) or passage.text[start:end] != answer.text:
        return None
    before, after = passage.text[max(0, start - _SCAN) : start], passage.text[end : end + _SCAN]
    space = " " if before[-1:].isspace() else ""
    follows = " " if after[:1].isspace() else ""
    return clean(before) + space, clean(answer.text), follows + clean(after)


# ----------------------------------------------------------------------------------------------------------------- rows


def hits_rows(hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """A dictionary of JSON values for each hit."""
    return [
        {
            "rank": int(hit.rank),
            "score": float(hit.score),
            "document_id": hit.passage.document_id,
            "page": hit.passage.page,
            "start": hit.passage.start,
            "end": hit.passage.end,
            "text": hit.passage.text,
            "passage_id": int(hit.passage.id),
            "sources": {name: {"rank": int(rank), "score": float(s)} for name, (rank, s) in hit.sources.items()},
            "metadata": dict(hit.passage.metadata),
        }
        for hit in hits
    ]


def _citation_row(citation: Citation) -> dict[str, Any]:
    """With its rank only where that says something."""
    return {name: value for name, value in asdict(citation).items() if name != "rank" or value is not None}


def answer_row(answer: Answer) -> dict[str, Any]:
    """A dictionary of JSON values; `alternatives` are such dictionaries, without alternatives of their own."""
    row: dict[str, Any] = {
        "found": answer.found,
        "text": answer.text,
        "score": float(answer.score),
        "document_id": answer.document_id,
        "page": answer.page,
        "start": answer.start,
        "end": answer.end,
        "citations": [_citation_row(citation) for citation in answer.citations],
        "sentences": [
            asdict(sentence)
            | {"citations": [_citation_row(each) for each in sentence.citations], "supported": sentence.supported}
            for sentence in answer.sentences
        ],
    }
    row["alternatives"] = [answer_row(replace(other, alternatives=())) for other in answer.alternatives]
    return row


# ---------------------------------------------------------------------------------------------------------- explanation


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a passage was found. Prints as bars in a terminal and as a shaded text in a notebook.

    `terms` maps each matched term to its share of the BM25 score. `tokens` are the passage's tokens as the
    encoder sees them: (text, start, end, similarity), with offsets in the passage's text, and the cosine similarity
    to the query. `plot()` draws each token of the query against each of the passage.
    """

    terms: Mapping[str, float]
    tokens: tuple[tuple[str, int, int, float], ...] = ()
    _pairs: Callable[[], tuple[list[str], list[str], NDArray[np.float32]]] | None = field(
        default=None, repr=False, compare=False
    )

    def __str__(self) -> str:
        terms = sorted(self.terms.items(), key=lambda item: -item[1])
        tokens = sorted(self.tokens, key=lambda token: -token[3])[:10]
        lines = ["matched terms (share of BM25)", *_bars(terms)] if terms else ["no term matched"]
        if tokens:
            lines += ["nearest tokens (cosine to the query)", *_bars([(text, s) for text, _, _, s in tokens])]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from semsearch.html import explanation_html

        return explanation_html(self)

    def plot(self, *, most: int = 40, ax: Axes | None = None) -> Axes:
        """A heat map of the query's tokens against the passage's: the cosine similarity of their vectors.

        Of a long passage the stretch of `most` tokens is shown that is most like the query. Draws on `ax`, or on a new
        figure, and returns the matplotlib Axes. Raises InputError where the encoder has no vectors of single tokens,
        MissingExtraError without matplotlib.
        """
        from semsearch.plots import token_similarity

        if self._pairs is None:
            raise InputError(
                "There are no token vectors to draw: the encoder has no token_vectors(). Search with one that has "
                "them, as the one that ships does, or print hit.why() for the terms that matched."
            )
        return token_similarity(*self._pairs(), most=most, ax=ax)


def _bars(values: Sequence[tuple[str, float]], width: int = 24) -> list[str]:
    """A line for each (name, value), with a bar in eighths of a cell."""
    names = [shorten(clean(name), 24) for name, _ in values]
    column = max(sum(map(_cells, name)) for name in names)
    most = max((value for _, value in values), default=0.0)
    lines = []
    for name, (_, value) in zip(names, values, strict=True):
        eighths = round(8 * width * max(0.0, value) / most) if most > 0 else 0
        bar = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
        lines.append(f"  {name}{' ' * (column - sum(map(_cells, name)))}  {value:7.3f}  {bar}".rstrip())
    return lines

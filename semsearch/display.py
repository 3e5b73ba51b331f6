"""Hits, answers, reports and explanations as text for a terminal and as HTML for a notebook.

Text of documents is data: in a terminal it cannot move the cursor, change colours or reverse the line (control
characters and bidirectional overrides are replaced), and in HTML it cannot become markup: everything is escaped first
and marked afterwards, and only http, https and file addresses become links.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from semsearch.errors import MissingExtraError
from semsearch.records import Answer, Hit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Explanation",
    "answer_html",
    "answer_row",
    "answer_text",
    "clean",
    "hits_html",
    "hits_pandas",
    "hits_rows",
    "hits_text",
    "report_text",
    "shorten",
    "snippet",
]

_SCAN = 20_000  # characters of a passage that are looked through for the query's words: passages are far shorter
_FAILURES = 20  # lines of a report before "… and n more"

_STYLE = (
    "<style>.semsearch{font-size:.95em;line-height:1.4;max-width:60em}"
    ".semsearch p{margin:.2em 0}.semsearch ol{margin:.4em 0;padding-left:2em}.semsearch li{margin:.5em 0}"
    ".semsearch .dim{opacity:.65;font-size:.9em}"
    ".semsearch mark{background:rgba(255,196,0,.35);color:inherit;border-radius:2px}"
    ".semsearch td{padding:0 .8em 0 0;text-align:left}"
    ".semsearch .bar{display:inline-block;height:.7em;background:rgba(70,130,220,.6)}</style>"
)

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


def _tail(text: str, width: int) -> str:
    """`shorten` from the other end."""
    return shorten(text[::-1], width)[::-1]


def _width() -> int:
    return max(40, shutil.get_terminal_size((100, 24)).columns)


def _words(query: str) -> re.Pattern[str] | None:
    """The query's words, to be found where words start; short ones (the, is, of) only if there are no others."""
    words = sorted(set(re.findall(r"\w+", query)), key=lambda word: (-len(word), word))[:64]
    words = [w for w in words if len(w) > 3] or words
    cjk = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
    if not words:
        return None
    pairs = {w[i : i + 2] for w in words if re.match(f"[{cjk}]", w) for i in range(len(w) - 1)}
    parts = [rf"\b{re.escape(w)}" for w in words] + sorted(map(re.escape, pairs))
    return re.compile("|".join(parts), re.IGNORECASE)


def snippet(text: str, query: str, width: int) -> str:
    """The part of a passage that has most of the query's words, on one line of at most `width` columns.

    >>> snippet("The library opens at nine. Late fees are charged from the second week.", "late fees", 32)
    '… Late fees are charged from th…'
    """
    start = _best_start(text[:_SCAN], _words(query), width)
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
        lines.append(shorten(f"{hit.rank:>{digits}}  {hit.score:.4f}  {_place(hit)}{_legs(hit)}", width))
        lines.append(" " * (digits + 2) + snippet(hit.passage.text, query, width - digits - 2))
    return "\n".join(lines)


def answer_text(answer: Answer) -> str:
    """The answer with its probability, where it was read, and the line around it; or that there is none."""
    width = _width()
    if not answer.found:
        return "\n".join(_not_found(answer, width))
    lines = [f"{clean(answer.text)}  ({_percent(answer.score)})"]
    if answer.hit is not None:
        lines.append(shorten(f"  {_place(answer.hit, answer.start, answer.end)}", width))
        if (around := _around(answer)) is not None:
            before, text, after = around
            text = shorten(text, width - 8)
            room = width - 8 - sum(map(_cells, text))
            head = _tail(before, room - min(room // 2, sum(map(_cells, after))))
            lines.append("  " + shorten(f"{head}«{text}»{after}", width - 2))
    for number, citation in enumerate(answer.citations, 1):
        page = "" if citation.page is None else f", page {citation.page}"
        place = f"{clean(citation.document_id)}{page} [{citation.start}:{citation.end}]"
        lines.append(shorten(f"  [{number}] {place}  ({_percent(citation.score)})", width))
    return "\n".join(lines)


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


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %"


def _not_found(answer: Answer, width: int) -> Iterator[str]:
    yield "No answer in the documents."
    if answer.alternatives and (best := answer.alternatives[0]).text:
        place = "" if best.hit is None else f", {_place(best.hit, best.start, best.end)}"
        yield shorten(f"  Best guess: “{clean(best.text)}” ({_percent(best.score)}){place}", width)


def _place(hit: Hit, start: int | None = None, end: int | None = None) -> str:
    """Document, page, offsets and heading: "handbook.pdf, page 3 [120:380]  Fees > Late fees"."""
    passage = hit.passage
    page = "" if passage.page is None else f", page {passage.page}"
    offsets = f"[{passage.start if start is None else start}:{passage.end if end is None else end}]"
    heading = clean(str(passage.metadata.get("heading") or ""))
    return f"{clean(passage.document_id)}{page} {offsets}" + (f"  {heading}" if heading else "")


def _legs(hit: Hit) -> str:
    legs = [f"{clean(str(name))} #{rank}" for name, (rank, _) in hit.sources.items()]
    return f"  ({', '.join(legs)})" if legs else ""


def _around(answer: Answer) -> tuple[str, str, str] | None:
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


# ----------------------------------------------------------------------------------------------------------------- HTML


def hits_html(hits: Sequence[Hit], query: str) -> str:
    """An ordered list of hits for a notebook, with the query's words marked; no script, no outside resource."""
    count = f"{len(hits)} hit{'s' * (len(hits) != 1)} for" if hits else "No passage found for"
    words = _words(query)
    items = []
    for hit in hits:
        text = _marked(snippet(hit.passage.text, query, 300), words)
        legs = f' <span class="dim">{_html(_legs(hit))}</span>'
        items.append(
            f'<li value="{int(hit.rank)}"><p>{_place_html(hit)} <span class="dim">{hit.score:.4f}</span>{legs}</p>'
            f"<p>{text}</p></li>"
        )
    body = f"<ol>{''.join(items)}</ol>" if items else ""
    return f'<div class="semsearch">{_STYLE}<p>{count} <b>{_html(query)}</b></p>{body}</div>'


def answer_html(answer: Answer) -> str:
    """The answer for a notebook, marked in the passage where it was read."""
    if not answer.found:
        first, *rest = _not_found(answer, 300)
        body = f"<p><b>{_html(first)}</b></p>" + "".join(f'<p class="dim">{_html(line)}</p>' for line in rest)
        return f'<div class="semsearch">{_STYLE}{body}</div>'
    parts = [f'<p><b>{_html(answer.text)}</b> <span class="dim">{_percent(answer.score)}</span></p>']
    if answer.hit is not None:
        parts.append(f"<p>{_place_html(answer.hit, answer.start, answer.end)}</p>")
        if (around := _around(answer)) is not None:
            before, text, after = around
            left, right = _html(_tail(before, 300), keep=True), _html(shorten(after, 300), keep=True)
            parts.append(f"<p>{left}<mark>{_html(text)}</mark>{right}</p>")
    if answer.citations:
        rows = []
        for citation in answer.citations:
            page = "" if citation.page is None else f", page {int(citation.page)}"
            place = f"{_html(citation.document_id)}{page} [{int(citation.start)}:{int(citation.end)}]"
            rows.append(f'<li>{place} <span class="dim">{_percent(citation.score)}</span></li>')
        parts.append(f"<ol>{''.join(rows)}</ol>")
    return f'<div class="semsearch">{_STYLE}{"".join(parts)}</div>'


def _html(text: str, *, keep: bool = False) -> str:
    """Harmless and escaped; with `keep`, a space at either end stays."""
    line = clean(text)
    if keep and line:
        line = " " * text[:1].isspace() + line + " " * text[-1:].isspace()
    return escape(line, quote=True)


def _marked(text: str, words: re.Pattern[str] | None) -> str:
    """Each piece is escaped on its own before the marks are put between them."""
    pieces, last = [], 0
    for match in [] if words is None else words.finditer(text):
        pieces += [_html(text[last : match.start()], keep=True), f"<mark>{_html(match.group())}</mark>"]
        last = match.end()
    return "".join([*pieces, _html(text[last:], keep=True)])


def _place_html(hit: Hit, start: int | None = None, end: int | None = None) -> str:
    place = _html(_place(hit, start, end))
    address = _address(hit)
    return (
        place if address is None else f'<a href="{escape(address, quote=True)}" rel="noopener noreferrer">{place}</a>'
    )


def _address(hit: Hit) -> str | None:
    """An address for `metadata["source"]`: a file's, or an http(s) one as it is; None for everything else."""
    source = hit.passage.metadata.get("source")
    if not isinstance(source, str) or not source or clean(source) != source:
        return None
    page = "" if hit.passage.page is None else f"#page={int(hit.passage.page)}"
    if source.startswith("/"):
        # Two slashes would name a host on some systems.
        return None if source.startswith("//") else "file://" + quote(source) + page
    try:
        parts = urlsplit(source)
    except ValueError:
        return None
    local = parts.scheme == "file" and source.startswith("file:///") and not source.startswith("file:////")
    safe = local or (parts.scheme in {"http", "https"} and parts.netloc)
    return quote(source, safe=";/?:@&=+$,#%-_.!~*()[]") if safe else None


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
        "citations": [{f.name: getattr(citation, f.name) for f in fields(citation)} for citation in answer.citations],
    }
    row["alternatives"] = [answer_row(replace(other, alternatives=())) for other in answer.alternatives]
    return row


def hits_pandas(hits: Iterable[Hit]) -> pd.DataFrame:
    """`hits_rows` as a DataFrame; `sources` becomes the columns dense_rank, dense_score and so on.

    Raises MissingExtraError if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError("to_pandas()", "pandas", "pandas") from None
    rows = []
    for row in hits_rows(hits):
        for name, source in row.pop("sources").items():
            row |= {f"{name}_rank": source["rank"], f"{name}_score": source["score"]}
        rows.append(row)
    columns = ["rank", "score", "document_id", "page", "start", "end", "text", "passage_id", "metadata"]
    return pd.DataFrame(rows, columns=None if rows else columns)


# ---------------------------------------------------------------------------------------------------------- explanation


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a passage was found. Prints as bars in a terminal and as a shaded text in a notebook.

    `terms` maps each matched term to its share of the BM25 score. `tokens` are the passage's tokens as the
    encoder sees them: (text, start, end, similarity), with offsets in the passage's text, and the cosine similarity
    to the query.
    """

    terms: Mapping[str, float]
    tokens: tuple[tuple[str, int, int, float], ...] = ()

    def __str__(self) -> str:
        terms = sorted(self.terms.items(), key=lambda item: -item[1])
        tokens = sorted(self.tokens, key=lambda token: -token[3])[:10]
        lines = ["matched terms (share of BM25)", *_bars(terms)] if terms else ["no term matched"]
        if tokens:
            lines += ["nearest tokens (cosine to the query)", *_bars([(text, s) for text, _, _, s in tokens])]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        most = max([abs(share) for share in self.terms.values()], default=0.0) or 1.0
        rows = [
            f'<tr><td>{_html(term)}</td><td>{share:.3f}</td><td><span class="bar" '
            f'style="width:{8 * max(0.0, share) / most:.2f}em"></span></td></tr>'
            for term, share in sorted(self.terms.items(), key=lambda item: -item[1])
        ]
        table = f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else '<p class="dim">no term matched</p>'
        text = f"<p>{_shaded(self.tokens)}</p>" if self.tokens else ""
        return f'<div class="semsearch">{_STYLE}{table}{text}</div>'


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


def _shaded(tokens: Sequence[tuple[str, int, int, float]]) -> str:
    most = max(similarity for *_, similarity in tokens)
    pieces, last = [], tokens[0][1]
    for text, start, end, similarity in tokens:
        shade = max(0.0, similarity) / most * 0.6 if most > 0 else 0.0
        space = " " if start > last else ""
        style = f"background:rgba(255,160,0,{shade:.2f})"
        pieces.append(f'{space}<span style="{style}" title="{similarity:.3f}">{_html(text)}</span>')
        last = end
    return "".join(pieces)

"""Hits, answers, reports, tables and an index as HTML for a notebook: small, without scripts, nothing from outside.

Everything is escaped first and marked afterwards, and only http, https and file addresses become links. Text has the
colour of the notebook around it, and marks are see-through, so that both stay readable on a light page and on a dark
one, whichever theme the notebook has and whatever the system prefers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from semsearch.display import (
    Explanation,
    around,
    clean,
    legs,
    not_found,
    numbered,
    origin,
    passages_of,
    percent,
    place,
    quoted,
    shorten,
    snippet,
    support,
    tail,
    words_of,
)
from semsearch.records import Answer, Citation, Hit, Passage, Sentence

__all__ = ["Table", "answer_html", "explanation_html", "hits_html", "index_html", "report_html", "tables_html"]

MOST = 20  # entries of a list before "… and n more"
SHADE = 0.3  # of the token most like the query; more would hide the text of a dark page

STYLE = (
    "<style>.semsearch{font-size:.95em;line-height:1.45;max-width:60em}"
    ".semsearch p{margin:.2em 0}.semsearch ol,.semsearch ul{margin:.4em 0;padding-left:2em}"
    ".semsearch li{margin:.5em 0}.semsearch ul li{margin:.1em 0}"
    ".semsearch .dim{opacity:.75;font-size:.9em}"
    ".semsearch mark{background:rgba(255,196,0,.2);color:inherit;box-shadow:inset 0 -2px rgb(230,159,0)}"
    ".semsearch .bad{background:rgba(213,94,0,.18);text-decoration:underline wavy rgb(213,94,0)}"
    ".semsearch table{border-collapse:collapse;margin:.4em 0}"
    ".semsearch td,.semsearch th{padding:.1em .8em .1em 0;text-align:left;font-weight:normal}"
    ".semsearch td.n,.semsearch th.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".semsearch thead th{border-bottom:1px solid rgba(128,128,128,.5)}"
    ".semsearch tr.best td,.semsearch tr.best th{background:rgba(255,196,0,.2)}"
    ".semsearch .bar{display:inline-block;height:.7em;background:rgba(70,130,220,.6)}</style>"
)


class Table(NamedTuple):
    """Rows of cells, the first of them the heads; the first column names its row, `best` is the row to mark."""

    rows: Sequence[Sequence[str]]
    best: int | None = None


def _page(*parts: str) -> str:
    return f'<div class="semsearch">{STYLE}{"".join(parts)}</div>'


# ---------------------------------------------------------------------------------------------------- hits and answers


def hits_html(hits: Sequence[Hit], query: str) -> str:
    """An ordered list of hits, with the query's words marked."""
    count = f"{len(hits)} hit{'s' * (len(hits) != 1)} for" if hits else "No passage found for"
    words = words_of(query)
    items = []
    for hit in hits:
        text = _marked(snippet(hit.passage.text, query, 300), words)
        found_by = f' <span class="dim">{_text(legs(hit))}</span>'
        items.append(
            f'<li value="{int(hit.rank)}"><p>{_place(hit)} <span class="dim">{hit.score:.4f}</span>{found_by}</p>'
            f"<p>{text}</p></li>"
        )
    body = f"<ol>{''.join(items)}</ol>" if items else ""
    return _page(f"<p>{count} <b>{_text(query)}</b></p>", body)


def answer_html(answer: Answer) -> str:
    """An answer, marked in the passage where it was read; a generated one with what supports each sentence."""
    if not answer.found:
        first, *rest = not_found(answer, 300)
        return _page(f"<p><b>{_text(first)}</b></p>", *(f'<p class="dim">{_text(line)}</p>' for line in rest))
    if answer.sentences:
        return _page(*_generated(answer))
    parts = [f'<p><b>{_text(answer.text)}</b> <span class="dim">{percent(answer.score)}</span></p>']
    if answer.hit is not None:
        parts.append(f"<p>{_place(answer.hit, answer.start, answer.end)}</p>")
        if (pieces := around(answer)) is not None:
            before, text, after = pieces
            left, right = _text(tail(before, 300), keep=True), _text(shorten(after, 300), keep=True)
            parts.append(f"<p>{left}<mark>{_text(text)}</mark>{right}</p>")
    return _page(*parts, _citations(answer))


def _generated(answer: Answer) -> list[str]:
    numbers = numbered(answer)
    text = " ".join(
        _sentence(sentence, [numbers[each] for each in sentence.citations]) for sentence in answer.sentences
    )
    return [f"<p>{text}</p>", f'<p class="dim">{_text(support(answer))}</p>', _citations(answer)]


def _sentence(sentence: Sentence, numbers: Sequence[int]) -> str:
    text = _text(sentence.text)
    if not numbers:
        return f'<span class="bad">{text}</span> <span class="dim">[not supported]</span>'
    return f'{text} <span class="dim">[{", ".join(map(str, numbers))}]</span>'


def _citations(answer: Answer) -> str:
    passages = passages_of(answer)
    rows = [
        f"<li>{_cited(citation, passages.get(citation.document_id, ()))} "
        f'<span class="dim">{percent(citation.score)}</span></li>'
        for citation in numbered(answer)
    ]
    return f"<ol>{''.join(rows)}</ol>" if rows else ""


def _cited(citation: Citation, passages: Sequence[Passage]) -> str:
    page = "" if citation.page is None else f", page {int(citation.page)}"
    where = f"{origin(citation.document_id, citation.rank)}{page} [{int(citation.start)}:{int(citation.end)}]"
    source = passages[0].metadata.get("source") if passages else None
    text = quoted(citation, passages)
    return _link(where, source, citation.page) + (f" “{_text(shorten(text, 300))}”" if text else "")


def explanation_html(explanation: Explanation) -> str:
    """Bars for the matched terms, and the passage's tokens shaded by their similarity to the query."""
    most = max([abs(share) for share in explanation.terms.values()], default=0.0) or 1.0
    rows = [
        f'<tr><td>{_text(term)}</td><td class="n">{share:.3f}</td><td><span class="bar" '
        f'style="width:{8 * max(0.0, share) / most:.2f}em"></span></td></tr>'
        for term, share in sorted(explanation.terms.items(), key=lambda item: -item[1])
    ]
    table = f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else '<p class="dim">no term matched</p>'
    return _page(table, f"<p>{_shaded(explanation.tokens)}</p>" if explanation.tokens else "")


def _shaded(tokens: Sequence[tuple[str, int, int, float]]) -> str:
    most = max(similarity for *_, similarity in tokens)
    pieces, last = [], tokens[0][1]
    for text, start, end, similarity in tokens:
        shade = max(0.0, similarity) / most * SHADE if most > 0 else 0.0
        space = " " if start > last else ""
        style = f"background:rgba(255,160,0,{shade:.2f})"
        pieces.append(f'{space}<span style="{style}" title="{similarity:.3f}">{_text(text)}</span>')
        last = end
    return "".join(pieces)


# --------------------------------------------------------------------------------------------------- reports and tables


def report_html(title: str, numbers: Iterable[tuple[str, str]], lists: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """What was done or found: numbers in a row, then each list that has entries under its name.

    An entry is a sequence of strings, such as a path and a reason; of a long list the first 20 are shown.
    """
    pairs = list(numbers)
    head = "".join(f'<th class="n" scope="col">{_text(name)}</th>' for name, _ in pairs)
    cells = "".join(f'<td class="n">{_text(value)}</td>' for _, value in pairs)
    table = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{cells}</tr></tbody></table>" if pairs else ""
    return _page(f"<p><b>{_text(title)}</b></p>", table, *(_list(name, lists[name]) for name in lists if lists[name]))


def _list(name: str, entries: Sequence[Sequence[str]]) -> str:
    items = []
    for first, *rest in entries[:MOST]:
        more = "".join(f': <span class="dim">{_text(part)}</span>' for part in rest)
        items.append(f"<li>{_text(first)}{more}</li>")
    if len(entries) > MOST:
        items.append(f"<li>… and {len(entries) - MOST} more</li>")
    return f"<p>{_text(name)}</p><ul>{''.join(items)}</ul>"


def index_html(name: str, info: Mapping[str, Any]) -> str:
    """What an index holds and what it was made with, from `Index.info()`."""
    encoder, fusion = info.get("encoder") or {}, info["fusion"]
    learned = "learned" if fusion["learned"] else "default"
    rows = [
        ("documents", f"{info['documents']:,}"),
        ("passages", f"{info['passages']:,}"),
        ("encoder", f"{encoder['name']}, {encoder['dimension']} dimensions" if encoder else "chosen at the first add"),
        ("language of keywords", str(info["language"])),
        ("fusion", f"{fusion['fusion']}, {fusion['dense']:.0%} dense ({learned})"),
    ]
    cells = "".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>' for name, value in rows)
    return _page(f"<p>Index <b>{_text(name)}</b></p><table><tbody>{cells}</tbody></table>")


def tables_html(title: str, *parts: Table | str) -> str:
    """A title, then tables and paragraphs in their order; of a string each line is a paragraph."""
    shown = [_table(part) if isinstance(part, Table) else _lines(part) for part in parts]
    return _page(f"<p><b>{_text(title)}</b></p>", *shown)


def _lines(text: str) -> str:
    return "".join(f"<p>{_text(line)}</p>" for line in text.splitlines() if line.strip())


def _table(table: Table) -> str:
    heads, *rows = table.rows
    first, *others = heads
    head = f'<th scope="col">{_text(first)}</th>' + "".join(
        f'<th class="n" scope="col">{_text(each)}</th>' for each in others
    )
    body = []
    for number, (name, *cells) in enumerate(rows):
        mark = ' class="best"' if number == table.best else ""
        values = "".join(f'<td class="n">{_text(cell)}</td>' for cell in cells)
        body.append(f'<tr{mark}><th scope="row">{_text(name)}</th>{values}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


# ------------------------------------------------------------------------------------------------------ text and links


def _text(text: str, *, keep: bool = False) -> str:
    """Harmless and escaped; with `keep`, a space at either end stays."""
    line = clean(text)
    if keep:
        line = " " * text[:1].isspace() + line + " " * (bool(line) and text[-1:].isspace())
    return escape(line, quote=True)


def _marked(text: str, words: re.Pattern[str] | None) -> str:
    """Each piece is escaped on its own before the marks are put between them."""
    pieces, last = [], 0
    for match in [] if words is None else words.finditer(text):
        pieces += [_text(text[last : match.start()], keep=True), f"<mark>{_text(match.group())}</mark>"]
        last = match.end()
    return "".join([*pieces, _text(text[last:], keep=True)])


def _place(hit: Hit, start: int | None = None, end: int | None = None) -> str:
    return _link(place(hit, start, end), hit.passage.metadata.get("source"), hit.passage.page)


def _link(text: str, source: object, page: int | None) -> str:
    address = _address(source, page)
    shown = _text(text)
    return (
        shown if address is None else f'<a href="{escape(address, quote=True)}" rel="noopener noreferrer">{shown}</a>'
    )


def _address(source: object, page: int | None) -> str | None:
    """An address for a document's source: a file's, or an http(s) one as it is; None for everything else."""
    if not isinstance(source, str) or not source or clean(source) != source:
        return None
    fragment = "" if page is None else f"#page={int(page)}"
    if source.startswith("/"):
        # Two slashes would name a host on some systems.
        return None if source.startswith("//") else "file://" + quote(source) + fragment
    try:
        parts = urlsplit(source)
    except ValueError:
        return None
    local = parts.scheme == "file" and source.startswith("file:///") and not source.startswith("file:////")
    safe = local or (parts.scheme in {"http", "https"} and parts.netloc)
    return quote(source, safe=";/?:@&=+$,#%-_.!~*()[]") if safe else None

"""Documents into passages: exact slices, within a token budget, cut where a reader would cut.

A text is cut into pieces at its headings and blank lines. A piece that does not fit the budget is cut at list or table
rows, then sentences, lines, clauses, words, and at last anywhere; source code at definitions and blank lines. Then the
pieces are joined to passages so that a total cost is least, as TeX breaks a paragraph into lines (Knuth and Plass,
"Breaking Paragraphs into Lines", 1981): an empty passage costs more than a full one, quadratically, so that few and
equal passages result; a cut in a worse place costs more; a heading inside a passage costs so much that only very small
sections share one. Time is linear in the length of the text, beside the counting of tokens itself.

    >>> words = lambda texts: [len(text.split()) for text in texts]
    >>> text = "# Fees\\n\\nLate fees are ten cents.\\n\\n# Hours\\n\\nNine to five."
    >>> document = Document("a", text, metadata={"suffix": ".md"})
    >>> [(c.heading, text[c.start : c.end]) for c in chunk(document, count_tokens=words, max_tokens=10)]
    [('Fees', '# Fees\\n\\nLate fees are ten cents.'), ('Hours', '# Hours\\n\\nNine to five.')]
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from semsearch.errors import EncoderError, InputError
from semsearch.outline import (
    CODE,
    SEPARATOR,
    Outline,
    Section,
    common_section,
    definitions,
    embedded_text,
    find_outline,
    flattened,
    inner_definitions,
    sections_of,
    set_of,
)
from semsearch.records import Document

__all__ = ["Chunk", "chunk", "embedded_text"]

# Where a cut lies, strongest first, and what it costs to end a passage there (a passage half full costs 0.25).
_PAGE, _SECTION, _GLUE, _BLOCK, _ANNOUNCED, _ITEM, _LINE, _CLAUSE, _WORD, _ANY = range(10)
_CUT_COST = (0.0, 0.0, 2.0, 0.0, 0.15, 0.1, 0.2, 0.2, 0.4, 0.8)
# Two sections share a passage where both are below three tenths of the budget, or one of them below a tenth.
_SPAN_COST = 0.8
# A passage has at most this many characters for each token of the budget, where a tokenizer takes any long string for
# one unknown token.
_CHARACTERS_PER_TOKEN = 16

_CountTokens = Callable[[Sequence[str]], list[int]]

_ROWS = set_of(".csv .tsv .jsonl .ndjson .log .xlsx .xlsm .ods")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `text[start:end]`, the page it is on (from 1, None without pages), its heading path."""

    start: int
    end: int
    page: int | None
    heading: str


def chunk(document: Document, *, count_tokens: _CountTokens, max_tokens: int = 200) -> list[Chunk]:
    """Cut a document into passages for an encoder.

    `count_tokens` maps n texts to n numbers of tokens, special tokens included; it gets no lone surrogates.
    `document.metadata["suffix"]` says how headings look (see `embedded_text` for what they are used for), and with
    `metadata["pages"]` no passage crosses a form feed.

    The passages are in order, do not overlap, have no white space at either end, and everything that is not white
    space is in exactly one of them. For each of them
    `count_tokens([embedded_text(document.title, c.heading, text[c.start : c.end])]) <= [max_tokens]`.

    Raises InputError where `max_tokens` leaves no room beside the title, EncoderError where `count_tokens` does not
    return one number for each text.
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}; it must be at least 1, and 64 or more to be of use.")
    flat = flattened(document.text)
    suffix = str(document.metadata.get("suffix", "")).lower()
    outline = find_outline(flat, suffix)
    sections = sections_of(outline.headings)
    paged = "pages" in document.metadata
    # How long a part should be at least, in characters: an eighth of a passage, at four bytes a token.
    grain = max(1, max_tokens * len(flat) // (2 * len(flat.encode()) or 1))
    pieces = _pieces(flat, suffix, outline, sections, paged, grain)
    if not pieces:
        return []
    budget = _Budget(flat, document.title, count_tokens, max_tokens)
    sections, rooms = budget.rooms(sections, pieces)
    pieces = _refined(flat, pieces, rooms, budget)
    spans = _spans(pieces, sections, rooms, budget.reach)
    chunks = [_joined(pieces[first:stop], sections, paged) for first, stop in spans]
    return budget.verified(chunks, document.text)


# --- Cuts: each function yields positions inside (start, end) where a part may begin ---------------------------------

_Cutter = Callable[[str, int, int], Iterable[int]]


def _ends_of(pattern: re.Pattern[str]) -> _Cutter:
    def cut(flat: str, start: int, end: int) -> Iterator[int]:
        return (match.end() for match in pattern.finditer(flat, start, end))

    return cut


_blank_lines = _ends_of(re.compile(r"\n[\s>]*\n"))
_lines = _ends_of(re.compile(r"\n"))
_words = _ends_of(re.compile(r"\s+"))
_clauses = _ends_of(re.compile(r"[,;:.!?–—،؛]\s+|[，、；：]+"))

_ROW = re.compile(
    r"^[ \t]*(?:(?:[-*+•‣◦·–]|\d{1,3}[.)]|\w\)|\(\w{1,3}\)|#\.)[ \t]+\S|\|(?![-:=| ]+$))",
    re.MULTILINE,
)
_GRID_LINE = re.compile(r"^[ \t]*[+|][-=+]{3,}[+|][ \t]*$", re.MULTILINE)


def _rows(flat: str, start: int, end: int) -> list[int]:
    """Items of a list, rows of a table; where lines are drawn between the rows, the lines."""
    drawn = [match.start() for match in _GRID_LINE.finditer(flat, start, end)]
    return drawn if len(drawn) > 1 else [match.start() for match in _ROW.finditer(flat, start, end)]


_SENTENCE_END = re.compile(
    # A full stop needs white space behind it, or decimals and file names would be cut.
    r"(?<![.!?…])(?P<latin>[.!?…]++)[\"'”’»)\]*_]*+\s+"
    r"|(?<![。！？｡．])[。！？｡．]++(?P<closed>[」』）”’】》〉\"')\]]*+)\s*+"
    r"|(?<![।॥؟۔։።။។])[।॥؟۔։።။།។]++[\"'”’»)\]]*+\s*+"
)
_NEVER_LAST = set_of(
    "mr mrs ms dr prof st mme mlle hr fr sr sra rev gen col lt sgt capt hon pres gov sen rep vs cf fig figs eq eqs ref "
    "refs viz approx resp incl dept bzw ca vgl evtl ggf abb hrsg bspw tab anm op ed eds trans"
)
_BEFORE_NUMBERS = set_of("no nos nr p pp vol vols ch sec sect art par bd s jan feb mar apr jun jul aug sep oct")


def _sentences(flat: str, start: int, end: int) -> Iterator[int]:
    """Starts of sentences: Latin, Greek, Cyrillic with abbreviations; Chinese, Japanese, Indic, Arabic and others."""
    for match in _SENTENCE_END.finditer(flat, start, end):
        after = flat[match.end() : match.end() + 1]
        if match["latin"]:
            if _is_last_word(flat, match, start, after):
                yield match.end()
        elif not (match["closed"] and after == "と") and not (flat[match.start()] == "．" and after.isdigit()):
            yield match.end()


def _is_last_word(flat: str, match: re.Match[str], start: int, after: str) -> bool:
    # Letters have a case below U+0590 only, as far as sentences go (Georgian ones count as lower case).
    if after.islower() and after < "\u0590":
        return False
    if match["latin"] != ".":
        return True
    before = flat[max(start, match.start() - 24) : match.start()]
    word = re.split(r"[\s([{\"'“‘«*_]", before)[-1].lower()
    if word in _BEFORE_NUMBERS:
        return not after.isdigit()
    if word.isdigit():
        # An enumerator at the start of a line.
        return before.rpartition("\n")[2].strip() != word
    is_initial = len(word) == 1 and word.isalpha() and flat[match.start() - 1].isupper()
    is_dotted = "." in word and all(len(part) == 1 for part in word.split(".")) and word not in ("a.m", "p.m")
    return not (is_initial or is_dotted or word in _NEVER_LAST)


def _anywhere(flat: str, start: int, end: int) -> Iterator[int]:
    """Eight equal parts, not within a character that consists of several code points where that can be helped."""
    step = max(1, (end - start) // 8)
    for position in range(start + step, end, step):
        limit = min(position + 16, end)
        while position < limit and _is_joined(flat[position - 1], flat[position]):
            position += 1
        if position < end:
            yield position


def _is_joined(left: str, right: str) -> bool:
    return (
        unicodedata.category(right)[0] == "M"
        or "\u200d" in (left, right)
        or "\U0001f3fb" <= right <= "\U0001f3ff"
        or (left + right).isspace()
    )


_Levels = tuple[tuple[_Cutter, int], ...]
_TAIL: _Levels = ((_lines, _LINE), (_clauses, _CLAUSE), (_words, _WORD), (_anywhere, _ANY))
_PROSE_LEVELS: _Levels = ((_rows, _ITEM), (_sentences, _ITEM), *_TAIL)
_ROW_LEVELS: _Levels = ((_lines, _BLOCK), (_sentences, _ITEM), *_TAIL)
_CODE_LEVELS: _Levels = (
    (definitions, _BLOCK),
    (inner_definitions, _ITEM),
    (_blank_lines, _ITEM),
    *_TAIL,
)


# --- Pieces ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Piece:
    """Part of a text that is not cut further unless it must be; `rank` tells what the cut before it is."""

    start: int
    end: int
    rank: int
    section: int
    page: int
    heading: bool
    levels: _Levels
    grain: int
    cost: float = -1


def _pieces(
    flat: str, suffix: str, outline: Outline, sections: Sequence[Section], paged: bool, grain: int
) -> list[_Piece]:
    """The text cut at pages, headings and blank lines, before anything is counted."""
    cuts = _structure(flat, outline, paged)
    fence_starts = [fence[0] for fence in outline.fences]
    blocks = definitions if suffix in CODE else _blank_lines
    for position in _spaced(blocks(flat, 0, len(flat)), 0, grain // 4):
        fence = bisect_right(fence_starts, position) - 1
        if fence < 0 or position >= outline.fences[fence][1]:
            cuts.setdefault(position, _BLOCK)
    levels = _CODE_LEVELS if suffix in CODE else _ROW_LEVELS if suffix in _ROWS else _PROSE_LEVELS
    fenced = set(fence_starts)
    heading_starts = {heading.start: number for number, heading in enumerate(outline.headings, 1)}
    heading_ends = {heading.end for heading in outline.headings}
    pieces: list[_Piece] = []
    section = page = 0
    heading, pending = False, _BLOCK
    positions = sorted({0, *cuts})
    for start, end in zip(positions, [*positions[1:], len(flat)], strict=True):
        rank = min(cuts.get(start, _BLOCK), pending)
        page += cuts.get(start) == _PAGE
        heading = start in heading_starts or (heading and start not in heading_ends)
        if start in heading_starts:
            above, section = section, heading_starts[start]
            if rank == _SECTION and pieces and pieces[-1].heading and sections[section].parent == above:
                rank = _GLUE
        piece = _stripped(flat, start, end)
        pending = _BLOCK if piece else rank
        if piece:
            if rank == _BLOCK and pieces and _announces(flat, pieces[-1]):
                rank = _ANNOUNCED
            code = _CODE_LEVELS if start in fenced else levels
            pieces.append(_Piece(*piece, rank, section, page, heading, code, grain))
    return pieces


def _announces(flat: str, piece: _Piece) -> bool:
    """Whether a block ends in a colon or a directive, so that what follows belongs to it."""
    line = flat[max(piece.start, flat.rfind("\n", piece.start, piece.end) + 1, piece.end - 200) : piece.end]
    return line.endswith((":", "：")) or line.startswith(".. ") or bool(re.match(r"[ \t]+:\w", line))


def _structure(flat: str, outline: Outline, paged: bool) -> dict[int, int]:
    """The cuts that do not depend on sizes: position → rank."""
    cuts: dict[int, int] = {}
    for fence in outline.fences:
        cuts.update(dict.fromkeys(fence, _BLOCK))
    for heading in outline.headings:
        cuts[heading.end] = _GLUE
    for heading in outline.headings:
        cuts[heading.start] = _SECTION
    if paged:
        cuts.update((match.end(), _PAGE) for match in re.finditer("\f", flat))
    return cuts


def _spaced(cuts: Iterable[int], start: int, grain: int) -> Iterator[int]:
    """Cuts at least `grain` characters apart: crumbs stay with what follows them."""
    for cut in cuts:
        if cut - start >= grain:
            yield cut
            start = cut


def _stripped(flat: str, start: int, end: int) -> tuple[int, int] | None:
    part = flat[start:end]
    inner = part.strip()
    if not inner:
        return None
    start += len(part) - len(part.lstrip())
    return start, start + len(inner)


def _parts(flat: str, piece: _Piece) -> list[_Piece]:
    """A piece cut at the first of its levels that cuts it at all; itself where none does."""
    for number, (cutter, rank) in enumerate(piece.levels):
        grain = 1 if cutter is _anywhere else piece.grain
        cuts = list(_spaced(cutter(flat, piece.start, piece.end), piece.start, grain))
        cuts = [cut for cut in cuts if cut < piece.end]
        if cuts:
            levels = piece.levels[number + (cutter is not _anywhere) :]
            spans = zip([piece.start, *cuts], [*cuts, piece.end], strict=True)
            inner = [span for start, end in spans if (span := _stripped(flat, start, end))]
            return [
                _Piece(*span, rank if i else piece.rank, piece.section, piece.page, piece.heading, levels, piece.grain)
                for i, span in enumerate(inner)
            ]
    return [piece]


def _refined(flat: str, pieces: list[_Piece], rooms: Sequence[int], budget: _Budget) -> list[_Piece]:
    """Cut the pieces that do not fit until they do; a piece below a heading must fit together with it."""
    while True:
        budget.count_pieces(pieces)
        result: list[_Piece] = []
        above = 0.0
        for piece in pieces:
            room = rooms[piece.section]
            limit = room - above if above <= room / 2 else room
            result += _parts(flat, piece) if piece.cost > limit else [piece]
            above = piece.cost if piece.heading else 0.0
        if len(result) == len(pieces):
            return pieces
        pieces = result


# --- Joining pieces to passages --------------------------------------------------------------------------------------


def _spans(
    pieces: Sequence[_Piece], sections: Sequence[Section], rooms: Sequence[int], reach: int
) -> list[tuple[int, int]]:
    """The cheapest way to join all pieces to passages: (first piece, piece after the last) of each."""
    # before[n]: the least cost of all pieces before piece n, with that of the cut there.
    before, back = [0.0], [0]
    for stop in range(1, len(pieces) + 1):
        cheapest, start = inf, stop - 1
        for first, cost in _passages(pieces, stop, sections, rooms, reach):
            total = before[first] + cost
            if total < cheapest:
                cheapest, start = total, first
        before.append(cheapest + (_CUT_COST[pieces[stop].rank] if stop < len(pieces) else 0.0))
        back.append(start)
    spans = []
    stop = len(pieces)
    while stop:
        spans.append((back[stop], stop))
        stop = back[stop]
    return spans[::-1]


def _passages(
    pieces: Sequence[_Piece], stop: int, sections: Sequence[Section], rooms: Sequence[int], reach: int
) -> Iterator[tuple[int, float]]:
    """The passages that may end before piece `stop`, shortest first: (first piece, cost)."""
    last = pieces[stop - 1]
    largest, page, start = rooms[0], last.page, last.end - reach
    size, spanned, rank = last.cost, 0.0, last.rank
    whole = last.section
    body = -1 if last.heading else whole
    room = rooms[whole]
    yield stop - 1, (1 - size / room) ** 2
    for first in range(stop - 2, -1, -1):
        piece = pieces[first]
        size += piece.cost
        if size > largest or piece.page != page or piece.start < start:
            return
        if rank == _SECTION:
            spanned += _SPAN_COST
        rank = piece.rank
        if piece.section != whole or piece.section != body:
            whole = common_section(sections, whole, piece.section)
            if not piece.heading:
                body = piece.section if body < 0 else common_section(sections, body, piece.section)
            room = rooms[whole if body < 0 else body]
            # Below one heading, or side by side under the same one.
            if whole not in (piece.section, sections[piece.section].parent):
                continue
        if size <= room:
            yield first, (1 - size / room) ** 2 + spanned


def _joined(pieces: Sequence[_Piece], sections: Sequence[Section], paged: bool) -> Chunk:
    """The passage that these pieces make; a heading over its first subsection belongs to that."""
    body = [piece for piece in pieces if not piece.heading] or pieces
    section = body[0].section
    for piece in body:
        section = common_section(sections, section, piece.section)
    page = pieces[0].page + 1 if paged else None
    return Chunk(pieces[0].start, pieces[-1].end, page, sections[section].path)


# --- Counting tokens -------------------------------------------------------------------------------------------------


class _Budget:
    """Counts tokens for one document, in as few calls as its structure allows."""

    def __init__(self, flat: str, title: str, count_tokens: _CountTokens, max_tokens: int) -> None:
        self.flat = flat
        self.title = title
        self.max_tokens = max_tokens
        self.reach = _CHARACTERS_PER_TOKEN * max_tokens
        self._count_tokens = count_tokens
        self._special = 0

    def _count(self, texts: Sequence[str]) -> list[int]:
        counts = list(self._count_tokens(texts)) if texts else []
        if len(counts) != len(texts):
            raise EncoderError(
                f"count_tokens returned {len(counts)} numbers for {len(texts)} texts; return one for each text."
            )
        return counts

    def rooms(self, sections: list[Section], pieces: Sequence[_Piece]) -> tuple[list[Section], list[int]]:
        """The sections, too long paths shortened, and what title and path leave for the text of each; counts pieces."""
        prefixes = [self._prefix(section.path) for section in sections]
        unique = list(dict.fromkeys(prefixes))
        countable, texts = self._countable(pieces)
        counts = self._count(["", *unique, *texts])
        self._special = counts[0]
        self._set_costs(countable, counts[1 + len(unique) :])
        taken = dict(zip(unique, counts[1:], strict=False))
        for shorten in (lambda path: path.rpartition(SEPARATOR)[2], lambda path: ""):
            narrow = [n for n, prefix in enumerate(prefixes) if n and 2 * taken[prefix] > self.max_tokens]
            for n in narrow:
                sections[n] = sections[n]._replace(path=shorten(sections[n].path))
                prefixes[n] = self._prefix(sections[n].path)
            new = list({prefixes[n]: None for n in narrow})
            taken.update(zip(new, self._count(new), strict=True))
        rooms = [self.max_tokens - taken[prefix] for prefix in prefixes]
        if min(rooms) < 1:
            raise InputError(
                f"max_tokens={self.max_tokens} leaves no room for text beside {self._special} special tokens and the "
                f"title {self.title[:80]!r} ({taken[prefixes[0]]} tokens). Raise max_tokens or shorten the title."
            )
        return sections, rooms

    def _prefix(self, path: str) -> str:
        prefix = embedded_text(self.title, path, "")
        return prefix and prefix + "\n"

    def _countable(self, pieces: Sequence[_Piece]) -> tuple[list[_Piece], list[str]]:
        """The pieces not yet counted that are short enough for it, and their texts; the others get a cost without."""
        countable, texts = [], []
        for piece, after in zip(pieces, [*(piece.start for piece in pieces[1:]), len(self.flat)], strict=True):
            if piece.cost < 0 and piece.end - piece.start > self.reach:
                piece.cost = inf
            elif piece.cost < 0:
                countable.append(piece)
                # With the white space behind it, which is tokens to some tokenizers.
                texts.append(self.flat[piece.start : min(after, piece.end + 64)])
        return countable, texts

    def _set_costs(self, pieces: Iterable[_Piece], counts: Iterable[int]) -> None:
        for piece, count in zip(pieces, counts, strict=True):
            piece.cost = max(count - self._special, 1, (piece.end - piece.start) / _CHARACTERS_PER_TOKEN)

    def count_pieces(self, pieces: Sequence[_Piece]) -> None:
        """Set the cost of each piece that has none yet."""
        countable, texts = self._countable(pieces)
        self._set_costs(countable, self._count(texts))

    def verified(self, chunks: list[Chunk], text: str) -> list[Chunk]:
        """The passages, those halved that have too many tokens after all: the parts of a text may count as fewer."""
        fitting: set[int] = set()
        while True:
            todo = [c for c in chunks if c.start not in fitting]
            counts = self._count([embedded_text(self.title, c.heading, text[c.start : c.end]) for c in todo])
            large = {c.start for c, count in zip(todo, counts, strict=True) if count > self.max_tokens}
            if not large:
                return chunks
            fitting.update(c.start for c in todo if c.start not in large)
            chunks = [half for c in chunks for half in (self._halves(c) if c.start in large else [c])]

    def _halves(self, chunk: Chunk) -> list[Chunk]:
        """A passage cut where it can best be, between its first and its last quarter."""
        if chunk.end - chunk.start < 2:
            raise InputError(
                f"max_tokens={self.max_tokens} leaves no room for the character {self.flat[chunk.start]!r} beside the "
                f"title {self.title[:80]!r}. Raise max_tokens or shorten the title."
            )
        quarter = (chunk.end - chunk.start) / 4
        middle = chunk.start + 2 * quarter
        near: list[int] = []
        for cutter in (_blank_lines, *(cutter for cutter, _ in _PROSE_LEVELS)):
            near = [cut for cut in cutter(self.flat, chunk.start, chunk.end) if abs(cut - middle) <= quarter]
            if near:
                break
        cut = min(near or [int(middle)], key=lambda cut: abs(cut - middle))
        spans = (_stripped(self.flat, chunk.start, cut), _stripped(self.flat, cut, chunk.end))
        return [Chunk(*span, chunk.page, chunk.heading) for span in spans if span]

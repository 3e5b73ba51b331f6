"""The outline of a text: its headings by format, the sections below them, and what of it is embedded with a passage.

All functions take a text as `flattened` returns it: `\\n` at the end of lines and no surrogates, each position that of
the original. Time is linear in its length.

    >>> [(heading.level, heading.name) for heading in find_outline("# Fees\\n\\nTen cents.\\n", ".md").headings]
    [(1, 'Fees')]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "CODE",
    "SEPARATOR",
    "Heading",
    "Outline",
    "Section",
    "common_section",
    "definitions",
    "embedded_text",
    "find_outline",
    "flattened",
    "inner_definitions",
    "sections_of",
    "set_of",
    "without_surrogates",
]

# What title and heading path may take of an embedded text, in estimated tokens.
_TITLE_LIMIT, _HEADING_LIMIT = 48, 32
SEPARATOR = " > "
_ADORNMENT = " \t\r\n#=-~^+*_'\"`:.<>"


def set_of(words: str) -> frozenset[str]:
    """The words between white space."""
    return frozenset(words.split())


_MARKDOWN = set_of(
    ".md .markdown .mdx .html .htm .xhtml .docx .ipynb .pptx .pptm .ppsx .xlsx .xlsm .odt .odp .ods .epub .eml .mbox"
)
_ASCIIDOC = set_of(".adoc .asciidoc")
CODE = set_of(
    ".py .pyi .rs .js .mjs .cjs .ts .jsx .tsx .c .h .cc .cpp .cxx .hh .hpp .cs .java .kt .kts .go .rb .php .swift "
    ".scala .sh .bash .zsh .fish .ps1 .bat .sql .lua .r .jl .pl .pm .hs .ml .clj .ex .exs .erl .dart .zig .nim .m "
    ".vue .svelte .css .scss .less .json .toml .yaml .yml .ini .cfg .conf .xml .svg .tf .proto .cmake .mk"
)


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate; its length stays."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


def flattened(text: str) -> str:
    """The text with `\\n` for every line ending, blank lines empty, no surrogates; each position keeps its meaning."""
    flat = without_surrogates(text).replace("\r\n", " \n").replace("\r", "\n")
    return re.sub(r"(?<=\n)[ \t]+(?=\n)", lambda blank: "\n" * len(blank.group()), flat)


def embedded_text(title: str, heading: str, text: str) -> str:
    """What is embedded and indexed for a passage: title, heading path and text, one below the other.

    Empty parts are dropped, and those that the passage opens with or that were said before. A long title is cut, of a
    long heading path the inner parts stay. Lone surrogates become U+FFFD, as tokenizers refuse them.

    >>> embedded_text("Handbook", "Handbook > Loans > Late fees", "## Late fees\\n\\nTen cents a day.")
    'Handbook\\nLoans\\n## Late fees\\n\\nTen cents a day.'
    """
    title, names = _prefix(title, heading)
    said = _opening(text, {_key(name) for name in (title, *names)})
    top = "" if _key(title) in said else title
    said.add(_key(title))
    path = []
    for name in names:
        if _key(name) not in said:
            path.append(name)
        said.add(_key(name))
    return "\n".join(part for part in (top, SEPARATOR.join(path), without_surrogates(text)) if part)


@lru_cache(maxsize=1024)
def _prefix(title: str, heading: str) -> tuple[str, tuple[str, ...]]:
    """The title and the parts of the heading path, without surrogates, each shortened to its limit."""
    title = _shortened(" ".join(without_surrogates(title[:2000]).split()), _TITLE_LIMIT)
    kept: list[str] = []
    left = _HEADING_LIMIT
    for name in reversed(without_surrogates(heading[-2000:]).split(SEPARATOR)):
        short = _shortened(name.strip(), left)
        if kept and short != name.strip():
            break
        kept.append(short)
        left -= _estimated(short)
    return title, tuple(name for name in reversed(kept) if name)


def _estimated(text: str) -> int:
    """About how many tokens a tokenizer makes of a text; hardly ever less than a quarter of them."""
    return sum(cost for _, cost in _words_and_costs(text))


def _words_and_costs(text: str) -> Iterator[tuple[int, int]]:
    for match in re.finditer(r"\w+|[^\w\s]", text):
        size = len(match.group().encode())
        yield match.start(), -(-size // 4) if match.group()[0].isalnum() else size


def _shortened(text: str, limit: int) -> str:
    spent = 0
    for start, cost in _words_and_costs(text):
        spent += cost
        if spent > limit:
            return text[:start].rstrip() or text[: max(limit, 0)]
    return text


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()


def _opening(text: str, wanted: set[str]) -> set[str]:
    """Those of the wanted headings that the first lines of a text consist of."""
    found = set()
    for line in text[:1000].splitlines():
        key = _key(_name(line.strip(_ADORNMENT)))
        if key and key not in wanted:
            break
        found.add(key)
    found.discard("")
    return found


def _name(raw: str) -> str:
    """A heading's line without its markup: links, emphasis, code marks, anchors."""
    name = raw[:400].strip()
    bare = name.rstrip("#")
    if bare != name and bare[-1:] in ("", " ", "\t"):
        name = bare.rstrip()
    name = re.sub(r"!?\[([^\[\]]*)\]\([^()\s]*\)", r"\1", name)
    name = re.sub(r"<a [^<>]*>|</a>|\{#[^{}]*\}|\*\*|:[a-z:]+:(?=`)|`", "", name)
    return " ".join(name.replace(SEPARATOR, " › ").split())[:200]


# --- Headings and fenced code ------


class Heading(NamedTuple):
    """A heading at `[start:end]`, in characters, of a level (1 is the highest), and its name without markup."""

    start: int
    end: int
    level: int
    name: str


class Outline(NamedTuple):
    """The headings of a text, and start and end of its front matter and fenced code, in characters."""

    headings: list[Heading]
    fences: list[tuple[int, int]]


def find_outline(flat: str, suffix: str) -> Outline:
    """The outline of a flattened text, by the suffix of its file; empty for a kind without headings."""
    if suffix in _MARKDOWN:
        return _markdown_outline(flat)
    if suffix in _ASCIIDOC:
        return _asciidoc_outline(flat)
    if suffix in (".rst", ".rest"):
        return Outline(_adorned_headings(flat, strict=False), [])
    if suffix == ".txt":
        # Habits of plain text: headings with an underline of their own length, else numbered ones.
        return Outline(_adorned_headings(flat, strict=True) or _numbered_headings(flat), [])
    return Outline([], [])


_MARKDOWN_LINE = re.compile(
    r"^(?:[ \t>]*(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)"
    r"| {0,3}(?P<atx>#{1,6})(?P<name>[ \t][^\n]*)"
    r"| {0,3}(?P<under>={2,}|-{2,})[ \t]*$)",
    re.MULTILINE,
)


def _markdown_outline(flat: str) -> Outline:
    """ATX and setext headings (CommonMark 0.31), not in front matter or fenced code."""
    headings: list[Heading] = []
    fences = [(0, _front_matter(flat))]
    fence, opened = "", 0
    for match in _MARKDOWN_LINE.finditer(flat, fences[0][1]):
        end = _line_end(flat, match.end())
        mark = match["fence"]
        if fence:
            if mark and mark.startswith(fence) and not match["info"].strip():
                fences.append((opened, end))
                fence = ""
        elif mark:
            if mark[0] == "~" or "`" not in match["info"]:
                fence, opened = mark, match.start()
        elif heading := _markdown_heading(flat, match, end, max(headings[-1].end if headings else 0, fences[-1][1])):
            headings.append(heading)
    if fence:
        fences.append((opened, len(flat)))
    return Outline(headings, fences if fences[0][1] else fences[1:])


def _front_matter(flat: str) -> int:
    """Where the front matter between two lines of `---` ends, 0 without one."""
    if not re.match(r"---[ \t]*\n", flat):
        return 0
    end = re.compile(r"^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.MULTILINE).search(flat, 4)
    return end.end() if end else 0


def _markdown_heading(flat: str, match: re.Match[str], end: int, free: int) -> Heading | None:
    if match["atx"]:
        name = _name(match["name"])
        return Heading(match.start(), end, len(match["atx"]), name) if name else None
    start, line = _title_above(flat, match.start(), free)
    if not line or re.match(r"    |\t|[ \t]*(?:[>|]|[-*+][ \t]|\d+[.)][ \t])", line):
        return None
    return Heading(start, end, 1 if match["under"][0] == "=" else 2, _name(line))


def _line_end(flat: str, position: int) -> int:
    """Where the line after the one with this position starts."""
    newline = flat.find("\n", position)
    return len(flat) if newline < 0 else newline + 1


def _title_above(flat: str, position: int, free: int) -> tuple[int, str]:
    """Start and text of the line before `position` if it stands alone: not before `free`, below a blank line or it."""
    if position <= free:
        return position, ""
    start = max(flat.rfind("\n", 0, position - 1) + 1, free)
    above = flat[max(flat.rfind("\n", 0, max(start - 1, 0)) + 1, free) : start]
    return start, "" if above.strip() else flat[start:position].rstrip()


_ADORNED = re.compile(r"^([!-/:-@\[-`{-~])\1{2,}(?=[ \t]*$)", re.MULTILINE)


def _adorned_headings(flat: str, *, strict: bool) -> list[Heading]:
    """reStructuredText sections: the adornments in order of appearance are the levels (docutils, "Sections")."""
    headings: list[Heading] = []
    styles: list[tuple[str, bool]] = []
    free = 0
    for match in _ADORNED.finditer(flat):
        if match.start() < free:
            continue
        start, line = _title_above(flat, match.start(), free)
        end, over = _line_end(flat, match.end()), False
        if not _is_underlined(line, len(match.group()), strict):
            start, over = match.start(), True
            line, end = _overlined(flat, match)
            if not line:
                continue
        style = (match[1], over)
        if style not in styles:
            styles.append(style)
        headings.append(Heading(start, end, styles.index(style) + 1, _name(line)))
        free = end
    return headings


def _is_underlined(line: str, width: int, strict: bool) -> bool:
    if not line or line[0].isspace() or line.startswith((".. ", "|", "+-")) or _ADORNED.match(line):
        return False
    return abs(len(line) - width) <= 2 if strict else width >= min(len(line), 4)


def _overlined(flat: str, match: re.Match[str]) -> tuple[str, int]:
    """The title between this adornment and an equal one two lines below, and where the next line starts; else ""."""
    start = _line_end(flat, match.end())
    below = _line_end(flat, start)
    end = _line_end(flat, below)
    line = flat[start:below].strip()
    return (line if flat[below:end].rstrip() == match.group() and not _ADORNED.match(line) else ""), end


_NUMBERED = re.compile(
    r"(?:\A|(?<=\n\n))(?:(?:Chapter|Appendix)[ \xa0])?(?P<number>\w{1,3}(?:\.\d{1,3})*)\.?[ \t\xa0]+"
    r"(?P<name>[^\W\d_a-z][^\n]{0,70})\n(?=\n)"
)


def _numbered_headings(flat: str) -> list[Heading]:
    """Lines such as `3.1. Guiding rules` between blank lines, if some of them have more than one number."""
    matches = [m for m in _NUMBERED.finditer(flat) if m["number"][0].isdigit() or "." in m["number"] or m[0][0] in "CA"]
    matches = [match for match in matches if match["name"].rstrip()[-1] not in ".,;:!?"]
    if not any("." in match["number"] for match in matches):
        return []
    return [Heading(m.start(), m.end(), m["number"].count(".") + 1, _name(m[0])) for m in matches]


_ASCIIDOC_LINE = re.compile(
    r"^(?:(?P<mark>={1,6}|#{1,6})[ \t]+(?P<name>\S[^\n]*)"
    r"|(?P<fence>(?P<sign>[-.+*_/=~^])(?P=sign){3,}|`{3}\w*|\|===)(?=[ \t]*$))",
    re.MULTILINE,
)


def _asciidoc_outline(flat: str) -> Outline:
    """AsciiDoc titles of one line (`== Title`) and of two, outside of delimited blocks."""
    headings: list[Heading] = []
    fences: list[tuple[int, int]] = []
    fence, opened = "", 0
    for match in _ASCIIDOC_LINE.finditer(flat):
        end = _line_end(flat, match.end())
        free = max(headings[-1].end if headings else 0, fences[-1][1] if fences else 0)
        if fence:
            if match["fence"] == fence:
                fences.append((opened, end))
                fence = ""
        elif match["mark"]:
            headings.append(Heading(match.start(), end, len(match["mark"]), _name(match["name"])))
        elif heading := _two_line_title(flat, match, end, free):
            headings.append(heading)
        elif match["sign"] not in ("~", "^"):
            fence, opened = match["fence"][:3] if match["fence"][0] == "`" else match["fence"], match.start()
    if fence:
        fences.append((opened, len(flat)))
    return Outline(headings, fences)


def _two_line_title(flat: str, match: re.Match[str], end: int, free: int) -> Heading | None:
    start, line = _title_above(flat, match.start(), free)
    level = "=-~^+".find(match["sign"] or " ") + 1
    if not level or not _is_underlined(line, len(match["fence"]), strict=True) or line.startswith((".", "[")):
        return None
    return Heading(start, end, level, _name(line))


class Section(NamedTuple):
    """A section: the number of the one around it, its depth (0 is the document), and its heading path."""

    parent: int
    depth: int
    path: str


def sections_of(headings: Sequence[Heading]) -> list[Section]:
    """Section 0 is the whole document; section n + 1 belongs to heading n."""
    sections = [Section(0, 0, "")]
    above = [(0, 0)]
    for number, heading in enumerate(headings, 1):
        while above[-1][0] >= heading.level:
            above.pop()
        parent = above[-1][1]
        path = SEPARATOR.join(part for part in (sections[parent].path, heading.name) if part)
        sections.append(Section(parent, len(above), path))
        above.append((heading.level, number))
    return sections


def common_section(sections: Sequence[Section], one: int, two: int) -> int:
    """The innermost section that contains both."""
    while one != two:
        if sections[one].depth >= sections[two].depth:
            one = sections[one].parent
        else:
            two = sections[two].parent
    return one


# --- Source code ------

_DEFINITION = (
    r"(?:(?:pub(?:\([a-z ]*\))?|async|export|default|public|private|protected|internal|static|final|abstract|virtual|"
    r"override|inline|extern|unsafe|const|local)[ \t]+)*"
    r"(?:def|class|fn|func|fun|function|struct|enum|trait|impl|interface|module|namespace|mod|sub|record|object|protocol|"
    r"extension|macro_rules!|CREATE)\b"
)
_TOP = re.compile(
    rf"^(?:{_DEFINITION}|[A-Za-z_][^\n;{{}}()=]*\([^\n;]*\{{[ \t]*$)|(?<=\n\n)(?![\s)\]}}])", re.MULTILINE
)
_INNER = re.compile(rf"^[ \t]+{_DEFINITION}", re.MULTILINE)
_HEAD_OF_DEFINITION = re.compile(r"[ \t]*(?:@|#|//|/\*|\*|--|;)")


def definitions(flat: str, start: int, end: int) -> Iterator[int]:
    """Where functions, classes and other blocks of source code start that are not within another."""
    return _with_heads(_TOP, flat, start, end)


def inner_definitions(flat: str, start: int, end: int) -> Iterator[int]:
    """Where indented definitions start, such as methods."""
    return _with_heads(_INNER, flat, start, end)


def _with_heads(pattern: re.Pattern[str], flat: str, start: int, end: int) -> Iterator[int]:
    floor = start
    for match in pattern.finditer(flat, start, end):
        yield _with_head(flat, match.start(), floor)
        floor = match.end()


def _with_head(flat: str, position: int, floor: int) -> int:
    """Where the decorators, attributes and comments right above a definition start, not before `floor`."""
    while position > floor:
        above = max(flat.rfind("\n", floor, position - 1) + 1, floor)
        if not _HEAD_OF_DEFINITION.match(flat, above, position):
            break
        position = above
    return position

"""HTML as Markdown-like text: `#` headings, lists, fenced code, `| a | b |` tables, in document order.

Emphasis and link targets are left out: they are noise to a reader and to a model. See `formats` for the contract of
the functions; `word` does the same for DOCX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from semsearch.formats import MAX_CHARACTERS, Extracted, UnreadableError, fenced, joined

__all__ = ["Blocks", "Cell", "escaped", "html", "repeated", "spread", "table", "xhtml"]

MAX_DEPTH = 10_000  # elements nested in one another
MAX_SPAN = 100  # columns or rows that a cell reaches over
MAX_REPEATED = 200  # characters of a cell that is repeated where it spans rows or columns; longer ones stand once
MAX_INDENT = 20  # levels of a list; deeper ones would make the text grow with the square of the depth

_DROPPED = frozenset(
    (
        "script",
        "style",
        "nav",
        "template",
        "noscript",
        "iframe",
        "object",
        "svg",
        "canvas",
        "audio",
        "video",
        "button",
        "select",
    )
)
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_LISTS = frozenset(("ul", "ol", "menu", "dir"))
_BLOCKS = frozenset(
    (
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hgroup",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "title",
        "tr",
    )
).union(_HEADINGS, _LISTS)
# What holds no elements, up to its end or to that of the text.
_RAW = re.compile(r"<!(?=--).*?(?:-->|\Z)|<(script|style|textarea)\b.*?(?:</\1\b|\Z)", re.IGNORECASE | re.DOTALL)
# Tags of elements that nest (end tag?, name, ends in "/>"?); others have no end tag, or one that may be left out.
_TAG = re.compile(
    r"<(/?)(?!(?:p|li|d[td]|t[rdh]|tbody|thead|tfoot|option|br|hr|img|input|meta|link|col|wbr|area|base|source|param|!)\b)"
    r"([a-z][^\s/<>]*)(?:[^<>]*(/)>)?",
    re.IGNORECASE,
)
_SELF_CLOSED = re.compile(
    r"<((?!(?:br|hr|img|input|meta|link|col|wbr|area|base|source|param|embed|track)\b)([A-Za-z][\w:-]*)(?:\s[^<>]*)?)/>",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"#{1,6}(?:\s|$)|`{3}|~{3}|=+\s*$|-+\s*$")

Cell = tuple[str, int, int]  # text, columns, rows


def html(text: str, *, below: int = 0) -> Extracted:
    """HTML without scripts, styles, navigation and templates; the title is `<title>`, or else the first heading.

    The tree is walked without recursion: depth costs no stack. `below` is the level of the heading that this text will
    stand under.

    >>> html("<h1>A</h1><ul><li>one<li>two</ul>").text
    '# A\\n\\n- one\\n- two'
    """
    from selectolax.lexbor import LexborHTMLParser

    _check_depth(text)
    tree = LexborHTMLParser(text)
    title = tree.head.css_first("title") if tree.head is not None else None
    rendering = _Rendering(below)
    rendering.walk(tree.body)
    name = " ".join(title.text().split()) if title is not None else ""
    return Extracted(rendering.text(), name or rendering.first_heading)


def xhtml(text: str, *, below: int = 0) -> Extracted:
    """XHTML, whose elements may end in `/>` where HTML would take them for open.

    >>> xhtml("<html><head><title/></head><body><p>a</p></body></html>").text
    'a'
    """
    return html(_SELF_CLOSED.sub(r"<\1></\2>", text), below=below)


def _check_depth(text: str) -> None:
    """The parser takes time in the square of the depth: no document is nested that deep, but an attack is."""
    if text.count("<") <= MAX_DEPTH:
        return
    depth = drawings = 0  # elements that are open; those of them that are SVG or MathML
    for tag in _TAG.finditer(_RAW.sub("", text)):
        is_drawing = tag[2].lower() in ("svg", "math")
        if tag[3] and (is_drawing or drawings):  # only there "/>" ends an element
            continue
        drawings = max(0, drawings - is_drawing) if tag[1] else drawings + is_drawing
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > MAX_DEPTH:
            raise UnreadableError(f"damaged or hostile: more than {MAX_DEPTH:,} elements nested in one another")


class _Rendering:
    """Markdown-like text that grows while a tree of HTML nodes is walked."""

    def __init__(self, below: int) -> None:
        self.first_heading = ""
        self._below = "#" * below
        self._blocks: list[str] = []  # finished, each with the line breaks that part it from the one before
        self._inline: list[str] = []  # of the block that is open; "\0" is a line break (no HTML text can hold one)
        self._heading = ""  # the number signs of the heading that is open
        self._lists: list[int] = []  # of each open list, the number of its last item; -1 for bullets
        self._marker = ""  # of a list item, before its first line
        self._after_item = False  # the block before is the first of an item of a list that is still open
        self._after_term = False  # the block before is the <dt> of what comes
        self._rows: list[list[Cell]] = []  # of the table that is open
        self._span = (1, 1)  # of the cell that is open: columns, rows
        self._tables = 0  # how many tables are open, one in the other
        self._pre: list[str] | None = None  # of the <pre> that is open
        self._pres = 0  # how many <pre> are open, one in the other
        self._language = ""

    def text(self) -> str:
        self._flush()
        return "".join(self._blocks).replace("\xad", "")

    def walk(self, root: Any) -> None:
        parents: list[tuple[Any, str]] = []
        node = root
        while node is not None:
            name = node.tag or ""  # damaged tags have none
            child = None
            if name == "-text":
                (self._inline if self._pre is None else self._pre).append(node.text_content)
            elif name not in _DROPPED and name[:1].isalpha():
                self._open(node, name)
                child = node.first_child
                if child is None:
                    self._close(name)
            if child is not None:
                parents.append((node, name))
                node = child
                continue
            while parents and node.next is None:
                node, name = parents.pop()
                self._close(name)
            node = node.next if parents else None

    def _open(self, node: Any, name: str) -> None:
        if name == "img":
            self._inline.append(node.attributes.get("alt") or "")
        elif name == "br":
            self._break_line()
        elif self._pre is not None or name not in _BLOCKS:
            self._pres += name == "pre"
        elif self._tables:
            self._open_in_table(node, name)
        else:
            self._open_block(node, name)

    def _break_line(self) -> None:
        if self._pre is not None:
            self._pre.append("\n")
        else:
            self._inline.append(" " if self._tables or self._heading else "\0")

    def _open_block(self, node: Any, name: str) -> None:
        self._flush()
        if name in _HEADINGS:
            self._heading = (self._below + _HEADINGS[name])[:6]
        elif name in _LISTS:
            self._lists.append(0 if name == "ol" else -1)
        elif name == "li":
            self._open_item()
        elif name == "pre":
            self._pre, self._pres, self._language = [], 1, _language_of(node)
        elif name == "table" and not _for_layout(node):
            self._rows, self._tables = [], 1

    def _open_item(self) -> None:
        self._marker = "- "
        if self._lists and self._lists[-1] >= 0:
            self._lists[-1] += 1
            self._marker = f"{self._lists[-1]}. "

    def _open_in_table(self, node: Any, name: str) -> None:
        self._inline.append(" - " if name == "li" else " ")
        if name == "table":
            self._tables += 1
        elif name == "tr" and self._tables == 1:
            self._rows.append([])
        elif name in ("td", "th") and self._tables == 1:
            self._span = (_span(node, "colspan"), _span(node, "rowspan"))

    def _close(self, name: str) -> None:
        if name not in _BLOCKS:
            return
        if self._pre is not None:
            self._pres -= name == "pre"
            if not self._pres:
                self._close_pre(self._pre)
        elif self._tables:
            self._close_in_table(name)
        else:
            self._close_block(name)

    def _close_block(self, name: str) -> None:
        self._flush()
        if name in _HEADINGS:
            self._heading = ""
        elif name in _LISTS:
            self._lists.pop()
            self._after_item = self._after_item and bool(self._lists)
        elif name == "li":
            self._marker = ""
        elif name == "dt":
            self._after_term = True

    def _close_pre(self, pieces: list[str]) -> None:
        self._pre = None
        code = "".join(pieces).strip("\n")
        if code.strip():
            self._add(fenced(code, self._language))

    def _close_in_table(self, name: str) -> None:
        if name == "table":
            self._tables -= 1
            if not self._tables:
                self._inline.clear()
                self._add(table(spread(self._rows)))
        elif self._tables > 1 or name not in ("td", "th", "caption"):
            self._inline.append(" ")
        else:
            cell = "".join(self._inline)
            self._inline.clear()
            if name == "caption":
                self._add(" ".join(cell.split()))
            elif self._rows:
                self._rows[-1].append((cell, *self._span))

    def _flush(self) -> None:
        """End the block that is open."""
        if not self._inline:
            return
        lines = [" ".join(line.split()) for line in "".join(self._inline).split("\0")]
        self._inline.clear()
        if not any(lines):
            return
        if self._heading:
            heading = " ".join(lines).rstrip("¶\uf0c1 ")
            self.first_heading = self.first_heading or heading
            self._blocks.append(f"{_parting(self._blocks)}{self._heading} {heading}")
            self._heading, self._after_item, self._after_term = "", False, False
        else:
            self._add("\n".join(escaped(line) for line in lines if line))

    def _add(self, block: str) -> None:
        if not block:
            return
        tight = self._after_term or (self._after_item and bool(self._marker))
        if self._lists or self._marker:
            indent = "  " * min(len(self._lists) - 1, MAX_INDENT)
            block = indent + (self._marker or "  ") + block.replace("\n", f"\n{indent}  ")
        self._blocks.append(_parting(self._blocks, tight) + block)
        self._marker, self._after_term, self._after_item = "", False, bool(self._marker and self._lists)


def escaped(line: str) -> str:
    """A line of text that a reader of Markdown would take for a heading, an underline or a fence, made plain."""
    return f"\\{line}" if _MARKUP.match(line) else line


def _parting(blocks: list[str], tight: bool = False) -> str:
    """The line breaks between what is there and the next block."""
    return "" if not blocks else "\n" if tight else "\n\n"


def _span(cell: Any, name: str) -> int:
    number = cell.attributes.get(name) or "1"
    return max(1, min(int(number), MAX_SPAN)) if number.isdecimal() and len(number) < 9 else 1


def spread(rows: Iterable[Iterable[Cell]]) -> Iterator[list[str]]:
    """Rows in which a cell that spans columns and rows stands in each of them, so that each row speaks for itself."""
    hanging: dict[int, tuple[str, int]] = {}  # by column: text, and rows that it still reaches into
    for row in rows:
        line: list[str] = []
        cells = iter(row)
        end = max(hanging, default=-1)  # the last column that rows above reach into
        while True:
            if len(line) in hanging:
                text, left = hanging.pop(len(line))
                if left > 1:
                    hanging[len(line)] = (text, left - 1)
                line.append(text)
                continue
            text, columns, reach = next(cells, ("", 0, 0))
            if not columns and len(line) > end:
                break
            if not columns:
                line.append("")
            for number in range(columns):
                if reach > 1:
                    hanging[len(line)] = (repeated(text), reach - 1)
                line.append(repeated(text) if number else text)
        yield line


def repeated(text: str) -> str:
    """What stands in the other rows and columns that a cell spans."""
    return text if len(text) <= MAX_REPEATED else ""


def _for_layout(grid: Any) -> bool:
    """Whether a table only places blocks on the page: its cells are then blocks like any other."""
    part = grid.first_child
    while part is not None:
        # Of the parts, since a search from the table finds the table itself.
        if part.is_element_node and part.css_first("table, pre, h1, h2, h3, h4, h5, h6") is not None:
            return True
        part = part.next
    return False


def _language_of(pre: Any) -> str:
    """The language of a code block, from a class like `language-rust` or `highlight-python`."""
    parent = pre.parent
    for node in (pre, pre.css_first("code"), parent, parent.parent if parent is not None else None):
        classes = (node.attributes.get("class") or "") if node is not None else ""
        if found := re.search(r"\b(?:language|lang|highlight|highlight-source)-([\w+#]+)", classes):
            return "" if found[1] in ("default", "none", "plaintext") else found[1]
    return ""


def table(rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is its head.

    >>> print(table([["a", "b"], ["1", "2|3"]]))
    | a | b |
    | --- | --- |
    | 1 | 2\\|3 |
    """
    return joined(_table_lines(rows), "\n")  # bounded: cells that span others make much of little


def _table_lines(rows: Iterable[Iterable[str]]) -> Iterator[str]:
    begun = False
    for row in rows:
        cells = [" ".join(cell.split()).replace("|", "\\|") for cell in row]
        if any(cells):
            yield f"| {' | '.join(cells)} |"
            if not begun:
                yield "|" + " --- |" * len(cells)
            begun = True


class Blocks:
    """Markdown-like text that grows block by block: a blank line between blocks, none between items of a list."""

    def __init__(self) -> None:
        self.first_heading: str = ""
        self._parts: list[str] = []
        self._after_item = False
        self._room = MAX_CHARACTERS

    def heading(self, text: str, level: int) -> None:
        """A heading of level 1 to 6; another level is brought into that range, and an empty text is left out."""
        if text := " ".join(text.split()):
            self.first_heading = self.first_heading or text
            self.add(f"{'#' * max(1, min(level, 6))} {text}")

    def paragraph(self, text: str) -> None:
        """A paragraph, in which what would be markup is escaped."""
        self.add("\n".join(escaped(line.rstrip()) for line in text.strip().split("\n")))

    def item(self, text: str, depth: int, marker: str) -> None:
        """An item of a list: `marker` is "- " or a number; a line below the first is indented as the first is."""
        if text := text.strip():
            indent = "  " * min(depth, MAX_INDENT)
            self.add(indent + marker + text.replace("\n", f"\n{indent}  "), item=True)

    def add(self, block: str, *, item: bool = False) -> None:
        """A block as it is. Raises UnreadableError once there are more than `MAX_CHARACTERS` characters."""
        if block:
            self._parts.append(_parting(self._parts, item and self._after_item) + block)
            self._after_item = item
            self._room -= len(block)
            if self._room < 0:
                raise UnreadableError(f"more than {MAX_CHARACTERS:,} characters of text")

    def text(self) -> str:
        """All blocks as one text."""
        return "".join(self._parts)

"""What a person sees in a terminal: colour, progress, JSON, and text of documents that cannot do anything there.

Colour is added to lines that are complete without it: taking the escape sequences away gives the same text again.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

from semsearch.display import clean, words_of
from semsearch.items import Progress

__all__ = ["Paint", "inert", "inline", "print_json", "progress_for", "wants_colour"]

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "mark": "1;33"}

_HIT = re.compile(r"(\s*\d+)(  -?[\d.]+  )(.*?)( \[\d+:\d+\].*)?$")
_FIRST = re.compile(r"(.*)(  \(\d+ %\))$", re.DOTALL)
_PLACE = re.compile(r"  (?:\[\d+\] )?\S.* \[\d+:\d+\]")
_BARS = re.compile("[█▉▊▋▌▍▎▏]+")
_COUNT = re.compile(r"(?<=\s)[1-9][\d,]*(?=,|$)")
_VERDICT = re.compile(r"(not ok|ok)(?=:)")
# What JSON leaves as it is and a terminal may obey, or take for the end of a line.
_POWERS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def wants_colour(choice: str, stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to write colours to a stream.

    `choice` is "always", "never" or "auto": where a person watches, if neither NO_COLOR is set nor TERM is "dumb".
    """
    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def progress_for(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Progress:
    """The `progress` of a long call: a bar where a person watches a terminal that can move its cursor."""
    return None if stream.isatty() and environment.get("TERM") != "dumb" else False


def print_json(value: Any, *, lines: bool = False) -> None:
    """Print JSON; `lines` for one value among several, each on a line of its own. Control characters are escaped."""
    dump: Callable[..., str] = partial(json.dumps, value, indent=None if lines else 2)
    text = dump(ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = dump()
    print(_POWERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text), flush=lines)


def inert(text: str) -> str:
    """Text of a document for a terminal: lines and indentation stay, nothing in it is obeyed.

    >>> inert("def f():\\n    print('\\x1b[2J')")
    "def f():\\n    print('␛[2J')"
    """
    lines = (line.expandtabs(4) for line in text.splitlines())
    return "\n".join(" " * (len(line) - len(line.lstrip(" "))) + clean(line) for line in lines)


def inline(piece: str) -> str:
    """A piece of a line that comes in pieces: as `clean`, with the spaces at its ends.

    >>> [inline(piece) for piece in ("Late\\x07 fees", " are ", "\\n")]
    ['Late␇ fees', ' are ', ' ']
    """
    words = clean(piece)
    if not words:
        return " " if piece else ""
    return " " * piece[0].isspace() + words + " " * piece[-1].isspace()


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours for what the library prints. With `on=False` every text stays as it is."""

    on: bool

    def __call__(self, text: str, style: str) -> str:
        """The text in one of STYLES."""
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.on and text else text

    def hits(self, text: str, query: str) -> str:
        """`str(hits)`: document and score stand out, and the words of the query."""
        if not self.on:
            return text
        words = words_of(query)
        head, *lines = text.split("\n")
        return "\n".join([self(head, "dim"), *(self._hit_line(line, words) for line in lines)])

    def _hit_line(self, line: str, words: re.Pattern[str] | None) -> str:
        if (found := _HIT.match(line)) is not None:
            rank, score, document, rest = found.groups()
            return self(rank, "bold") + self(score, "cyan") + self(document, "bold") + self(rest or "", "dim")
        return line if words is None else words.sub(lambda match: self(match[0], "mark"), line)

    def answer(self, text: str, found: bool) -> str:
        """`str(answer)`: the answer stands out, and its place in the line around it; yellow where there is none."""
        if not self.on:
            return text
        head, *lines = text.split("\n")
        return "\n".join([self._first_line(head, found), *map(self._answer_line, lines)])

    def _first_line(self, line: str, found: bool) -> str:
        if (parts := _FIRST.match(line)) is None or not found:
            return self(line, "bold" if found else "yellow")
        return self(parts[1], "bold") + self(parts[2], "cyan")

    def _answer_line(self, line: str) -> str:
        if _PLACE.match(line):
            return self(line, "dim")
        return self.span(line)

    def span(self, line: str) -> str:
        """A line in which «…» marks the answer."""
        return re.sub("«[^»]*»", lambda match: self(match[0], "mark"), line)

    def explanation(self, text: str) -> str:
        """`str(hit.why())`: bars in colour."""
        return _BARS.sub(lambda match: self(match[0], "cyan"), text)

    def report(self, text: str) -> str:
        """The text of a report: counts that are not zero stand out, failures are red."""
        return "\n".join(self._report_lines(text.split("\n"))) if self.on else text

    def _report_lines(self, lines: list[str]) -> Iterator[str]:
        for number, line in enumerate(lines):
            if line.startswith("  "):
                yield line
            elif number and line.endswith(":"):
                yield self(line, "red")
            else:
                line = _COUNT.sub(lambda match: self(match[0], "bold"), line)
                yield _VERDICT.sub(lambda match: self(match[0], "green" if match[0] == "ok" else "red"), line)

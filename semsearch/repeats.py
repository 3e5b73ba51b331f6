"""What a model says again is left out: small ones write the same sentence until they are stopped.

    "".join(without_repeats(pieces))

A sentence that was said before is dropped, and two such in a row end the text. So does a run of words that is written
over and over within a sentence or in short lines. Short sentences ("It is free.") may be said of several things and
stay; so may a sentence under another heading. Numbers of list items and markers such as [1] do not make a sentence
another one.

    >>> "".join(without_repeats(["1. A book is lent for a month.\\n2. A book is lent for a month.\\n3. Or for two."]))
    '1. A book is lent for a month.\\n3. Or for two.'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from semsearch.sentences import sentences

__all__ = ["only_repeats", "without_repeats"]

# Of 12,211 texts that people wrote (openqa, scifact, fairytaleqa-val, cranfield, drcd-dev, jaquad-dev, at most 4,000 of
# each) four lose a sentence that stands in them twice, and one ends where it goes on with a copy of itself.
LEAST = 20  # bytes of a sentence that may not be said again
RUN = 80  # characters that follow the same ones at once; of signs without a letter or digit three times as many
LIKELY = 24  # so many are held back until it is clear whether they become a run
_STEP = 16  # characters from one look for runs to the next
_LONGEST = 1000  # characters of a sentence; a longer one is taken in parts
_TAIL = 64  # characters in which a marker or a number that has begun is looked for

_STOP = re.compile(r"[.!?…。！？｡][\"'”’»)\]」』）*_`]*\s*$")
_MAY_END = re.compile(r"[.!?…。！？｡\n]")
_MARKER = re.compile(r"(?:^|\s+)\[(?:passages? )?\d{1,2}(?:[,;] ?\d{1,2})*\]")
_EMPHASIS = re.compile(r"[*_`\"“”]+")
_ITEM = re.compile(r"\s*(?:[-+•]|\(?\d{1,3}[.)])\s+")
# What may become a marker, or the number of an item.
_BEGUN = re.compile(r"\s*\[[\w ,;]{0,20}$|(?:^|\n)\s*(?:[-+•#|>]|\(?\d{1,3}[.)]?)?\s*$")
_HEADING = re.compile(r"\s*#|\s*\*\*[^*]+\*\*\s*$|.*[:：]\**\s*$", re.DOTALL)


def without_repeats(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces without what comes again; they end where only that comes any more.

    Together they do not depend on how the text is cut into pieces. The beginning of a sentence is held back as long as
    one that was said begins like it.
    """
    repeats = _Repeats()
    for piece in pieces:
        new = repeats.add(piece)
        if new:
            yield new
        if repeats.over:
            return
    rest = repeats.end()
    if rest:
        yield rest


def only_repeats(text: str) -> bool:
    """Whether a text only repeats itself in the end."""
    repeats = _Repeats()
    repeats.add(text)
    return repeats.over


class _Repeats:
    """A text as it comes; `over` once it only repeats itself."""

    def __init__(self) -> None:
        self.over = False
        self._length = 0
        self._open = ""  # what came since the last complete sentence, ...
        self._given = 0  # ... and how many characters of it were given out
        self._stopped = True  # whether the sentence before ended with a full stop, so that a space is part of this one
        self._said: set[str] = set()
        self._headings: set[str] = set()
        self._dropped = 0  # sentences in a row
        self._looping = False  # whether there is what may become a run; then...
        self._held = ""  # ... what would have been given out since
        self._short = ""  # the sentences since the last one that is long enough to be known again

    def add(self, piece: str) -> str:
        """What of the text may be given out now; "" while it may be a repeat."""
        out = []
        while piece and not self.over:
            size = _STEP - self._length % _STEP
            part, piece = piece[:size], piece[size:]
            self._length += len(part)
            self._open += part
            new = self._sentences() + self._beginning()
            if self._looping:
                self._held += new
            else:
                out.append(new)
            if self._length % _STEP == 0 and not self.over:
                out.append(self._look())
        return "".join(out)

    def end(self) -> str:
        """What is left, unless that is a sentence that was said, or the beginning of one."""
        text, given, key = self._open, self._given, _key(self._open)
        again = not text[:given].strip() and _long(key) and self._begins(key)
        return self._held + (self._space(text, given) if again else text[given:])

    def _sentences(self) -> str:
        """Close the sentences that are complete: behind each of them another one has begun."""
        if not _MAY_END.search(self._open):
            return ""
        out, done = "", 0
        for _, end in sentences(self._open)[:-1]:
            out += self._close(end - done)
            done = end
            if self.over:
                break
        return out

    def _beginning(self) -> str:
        """What came of a sentence, if none that was said begins like it."""
        sure = self._sure()
        fresh = not self._open[: self._given].strip()
        if self.over or len(sure) <= self._given or (fresh and sure.strip() and self._begins(_key(sure))):
            return ""
        new, self._given = sure[self._given :], len(sure)
        return new

    def _begins(self, key: str) -> bool:
        return any(each.startswith(key) for each in self._said)

    def _sure(self) -> str:
        """The open text without what may belong to the next sentence or become a marker."""
        start = max(0, len(self._open) - _TAIL)
        begun = _BEGUN.search(self._open, start)
        sure = self._open[: begun.start()] if begun else self._open
        return sure.rstrip() if _STOP.search(sure, start) else sure

    def _look(self) -> str:
        """Look for a run: what was held back because it might become one, if it did not."""
        text = self._short + _key(self._sure())
        self.over = _runs(text)
        self._looping = text.rfind(text[-LIKELY:], 0, len(text) - 1) >= 0 if len(text) > LIKELY else False
        held, self._held = ("", self._held) if self._looping else (self._held, "")
        return held + (self._close(len(self._open)) if len(self._open) > _LONGEST else "")

    def _close(self, end: int) -> str:
        """End the sentence here: what is still to be given out of it."""
        text, given = self._open[:end], self._given
        self._open, self._given = self._open[end:], max(0, given - end)
        key = _key(text)
        if not text[:given].strip() and _long(key) and key in self._said:
            self._dropped += 1
            self.over = self._dropped > 1
            return self._space(text, given)
        self._stopped = bool(_STOP.search(text, max(0, end - _TAIL)))
        if _HEADING.match(text) and key not in self._headings:
            self._headings.add(key)
            self._said.clear()
            self._dropped = 0
        if _long(key):
            self._said.add(key)
            self._dropped, self._short = 0, ""
        else:
            self._short = f"{self._short}{key} "[-_LONGEST:]
        return text[given:]

    def _space(self, text: str, given: int) -> str:
        """Of a sentence that is dropped: the space that was given out by now if it came on its own."""
        blank = len(text) - len(text.lstrip()) if not self._stopped else 0
        return text[given : text.find("\n", 0, blank) if "\n" in text[:blank] else blank]


def _key(text: str) -> str:
    """What makes a sentence the same one; of the beginning of a sentence it is the beginning."""
    plain = _EMPHASIS.sub("", _MARKER.sub("", text))
    item = _ITEM.match(plain)
    return " ".join(plain[item.end() if item else 0 :].split()).casefold()


def _long(key: str) -> bool:
    return len(key.encode("utf-8", "replace")) >= LEAST


def _runs(text: str) -> bool:
    """Whether the text ends with a run that follows itself at once."""
    size = RUN if any(map(str.isalnum, text[-RUN:])) else 3 * RUN
    place = text.rfind(text[-size:], 0, len(text) - 1) if len(text) > size else -1
    period = len(text) - size - place
    return place >= 0 and (period <= size or text[-period:] == text[-2 * period : -period])

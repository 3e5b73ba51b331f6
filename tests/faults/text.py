"""Any string as a document: NUL, lone surrogates, emoji, right-to-left, combining marks, every line ending, form feeds,
endless words, scripts without spaces, and the markup that headings, lists, tables, fences and code are found by.

Each text is cut into passages as a random format, with a random budget and one of several counters of tokens: offsets
are exact, passages in order, within the budget and on their page, and every character that is not white space is in
exactly one. Each is analyzed; some go through the index and back, some through the encoder that ships. Now and then a
pattern is repeated to several sizes, and the time must grow with the size, not with its square.

Fault n of seed s is always the same: repeat it by `--seed s` and a count above n.
"""

from __future__ import annotations

import random
import time
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from toy import WordEncoder

import semsearch
from faults.outcome import Outcome
from semsearch.analysis import LONGEST, Analyzer
from semsearch.chunking import chunk, embedded_text
from semsearch.encoding import get_encoder
from semsearch.errors import InputError
from semsearch.formats import UnreadableError
from semsearch.markup import html
from semsearch.outline import without_surrogates

CI = 1_500
FULL = 1_000_000

BATCH = 50  # texts that go into the index at once
STORED = 10  # one text in so many goes into the index
ENCODED = 200  # one text in so many is tokenized and encoded by the encoder that ships
TIMED = 100  # one fault in so many is a measurement of time; in long runs one in 1,000
SIZES = (8_000, 64_000)  # characters of a pattern, the second eight times the first
LARGE = 1_000_000  # characters of every tenth pattern, and of each that seems slow
PATIENCE = 20.0  # seconds of processor time for LARGE

SUFFIXES = (".md", ".txt", ".rst", ".adoc", ".html", ".py", ".json", ".csv", ".jsonl", ".ipynb", ".docx", "", ".MD")

MARKUP = [
    *("# ", "## ", "###### ", "#", "=", "==", "= ", "---", "===", "~~~", "```", "````", "```py", "***", "- ", "* "),
    *("+ ", "1. ", "1.2.3 ", "12) ", "(a) ", "> ", ">> ", "|", "| a | b |", "|---|", "+--+", "|===", "----", "...."),
    *("[[", "]]", "[a](b)", "[", "](", "![", "<a name=x>", "</a>", "{#id}", "**", "`", ":ref:`", ".. note::", ":"),
    *("::", "Chapter 1", "def f():", "class A:", "    def g", "@x", "//", "/*", "*/", "}", "{", "fn x() {"),
    *("pub(crate) fn", '"', "'", "\\", " > ", ". ", "! ", "? ", "...", ", ", "; ", "e.g. ", "Dr. ", "p. 3", "No. 7"),
    *("3.14", "a.b.c", "x_y", "c++", "c#", "'s"),
]
SPACES = [
    *(" ", " ", " ", "\n", "\n", "\n\n", "\r\n", "\r", "\r\n\r\n", "\n\r", "\t", "\f", "\v", "\x85", "\u2028"),
    "\u2029",
]
SPACES += ["\xa0", "\u3000", "\u2003", "\u200b", "\ufeff", "   ", "\x1c", "\x1d", "\x1f", " \n \n", "\n\t\n", "> \n>\n"]
ODD = [
    *("\0", "\x01", "\x1b[0m", "\x7f", "\ud800", "\udc00", "\udfff", "\ud83d", "\ufffd", "\ufffe", "\uffff"),
    *("\U0010ffff", "\u202e", "\u2066", "\u200d", "\u200c", "\u200e", "\ufe0f", "\u0301", "\u0300" * 40, "e\u0301"),
    *(
        "\u0489",
        "\u20e3",
        "😀",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "👍🏽",
        "🇩🇪",
        "ﷺ",
        "ﬁ",
        "㎏",
        "½",
        "①",
        "Ⅷ",
        "ſ",
        "İ",
        "ß",
        "ŉ",
        "ΰ",
    ),
    *("ǅ", "\u1e9e", "\u2126", "\U0001d7d8"),
]
SCRIPTS = [
    *(
        "図書館の延滞料は一日十円です。",
        "「はい」と言った。",
        "图书馆逾期费用",
        "도서관",
        "ห้องสมุดเปิดเวลาเก้าโมง",
        "မြန်မာ",
        "ខ្មែរ",
        "ລາວ",
    ),
    *("مكتبة الجامعة؟ ", "ספרייה", "पुस्तकालय। ", "библиотека. ", "βιβλιοθήκη; ", "გამარჯობა", "Ჯავა", "የመጻሕፍት። "),
    *(
        "தமிழ்",
        "𐐷𐐷",
        "𠮷野家",
        "。",
        "！？",
        "、",
        "．",
        "｡",
        "；",
        "１２",
        "Ａ",
        "ｶﾞ",
        "が",
        "ㄅ",
        "ゝ",
        "々",
        "〆",
        "\u0e33",
    ),
    *("\u0f0b", "\U000e0100"),
]
WORDS = [
    *("fee", "Late", "library", "getValue", "max_tokens", "HTTPServer", "a", "I", "0", "2024", "naïve", "don't"),
    "co-op",
]

# -- the texts ---------------------------------------------------------------------------------------------------------


def text(choose: random.Random) -> str:
    """A text of up to some thousand characters, of one kind or of all."""
    pools = choose.choice(
        [[WORDS], [MARKUP, WORDS], [ODD], [SCRIPTS], [ODD, SCRIPTS, WORDS], [MARKUP, ODD, SCRIPTS, WORDS]]
    )
    parts = []
    for _ in range(choose.choice([0, 1, 2, 5, 20, 60, 120])):
        pool = choose.choice(pools)
        part = choose.choice(pool) if choose.random() < 0.95 else anything(choose)
        parts.append(part * (1 if choose.random() < 0.97 else choose.choice([2, 10, 300])))
        if choose.random() < 0.6:
            parts.append(choose.choice(SPACES))
    return "".join(parts)


def anything(choose: random.Random) -> str:
    """Up to ten code points of any kind."""
    top = choose.choice([0x80, 0x300, 0x3000, 0x10000, 0x110000])
    return "".join(chr(choose.randrange(top)) for _ in range(choose.randrange(10)))


def pattern(choose: random.Random) -> str:
    """A few parts to be repeated."""
    every = [*MARKUP, *SPACES, *ODD, *SCRIPTS, *WORDS, *MARKUP, *SPACES, "\n", "\n", " "]
    return "".join(choose.choice(every) for _ in range(choose.choice([1, 1, 2, 2, 3, 4]))) or " "


# -- what must hold ----------------------------------------------------------------------------------------------------

_Count = Callable[[Sequence[str]], list[int]]


def by_words(texts: Sequence[str]) -> list[int]:
    """Two special tokens, and a token a word, as if every word were known."""
    return [2 + len(text.split()) for text in texts]


def by_thirds(texts: Sequence[str]) -> list[int]:
    """What is taken for an encoder that does not count."""
    return [len(text) // 3 + 3 for text in texts]


def by_bytes(texts: Sequence[str]) -> list[int]:
    """A token for each byte; white space too."""
    return [2 + len(text.encode()) for text in texts]


def wrong_passages(document: semsearch.Document, count: _Count, limit: int) -> list[str]:
    """What does not hold of the passages of a document."""
    chunks = chunk(document, count_tokens=count, max_tokens=limit)
    wrong = []
    last = 0
    paged = "pages" in document.metadata
    for part in chunks:
        slice_ = document.text[part.start : part.end]
        if not last <= part.start < part.end <= len(document.text):
            wrong.append(f"passage {part.start}:{part.end} after {last} of {len(document.text)}")
        if document.text[last : part.start].strip():
            wrong.append(f"{document.text[last : part.start]!r} at {last} is in no passage")
        if slice_ != slice_.strip():
            wrong.append(
                f"passage {part.start}:{part.end} has white space at its ends: {slice_[:9]!r}, {slice_[-9:]!r}"
            )
        tokens = count([embedded_text(document.title, part.heading, slice_)])[0]
        if tokens > limit:
            wrong.append(f"passage {part.start}:{part.end} has {tokens} tokens, at most {limit} are allowed")
        if part.page != (document.text.count("\f", 0, part.start) + 1 if paged else None) or (paged and "\f" in slice_):
            wrong.append(f"passage {part.start}:{part.end} is said to be on page {part.page}")
        last = part.end
    if document.text[last:].strip():
        wrong.append(f"{document.text[last:]!r} at the end is in no passage")
    return wrong


def wrong_tokens(analyzer: Analyzer, text: str) -> list[str]:
    """What does not hold of a text's keywords."""
    tokens = analyzer(text)
    wrong = [
        f"token {token!r}" for token in tokens if not token or len(token) > LONGEST or any(map(str.isspace, token))
    ]
    if len(tokens) > 4 * len(unicodedata.normalize("NFKC", text)) + 1:
        wrong.append(f"{len(tokens)} tokens of {len(text)} characters")
    if not set(analyzer.query(text)) <= set(tokens):
        wrong.append("a query's tokens are not among the passage's")
    return wrong


class Examination:
    """Texts on their way through everything."""

    def __init__(self, folder: Path, seed: int, outcome: Outcome) -> None:
        self.seed = seed
        self.outcome = outcome
        self.index = semsearch.Index(folder / "index", encoder=WordEncoder())
        self.analyzers = [Analyzer(), Analyzer("none"), Analyzer("turkish")]
        self.encoder = get_encoder(None)
        self.waiting: list[semsearch.Document] = []

    def examine(self, number: int) -> None:
        """Fault `number`."""
        choose = random.Random(f"{self.seed}:{number}")
        content = text(choose)
        title = choose.choice(["", "", "Title", text(choose)])
        metadata = {"suffix": choose.choice(SUFFIXES), **({"pages": 3} if choose.random() < 0.3 else {})}
        document = semsearch.Document(f"{number}{anything(choose)}", content, title, anything(choose), metadata)
        count, limit = choose.choice([(by_words, 16), (by_words, 200), (by_thirds, 200), (by_bytes, 400)])
        wrong = self._passages(document, count, limit)
        wrong += wrong_tokens(choose.choices(self.analyzers, [8, 1, 1])[0], content)
        if number % ENCODED == 0:
            wrong += self._encoded(document)
        for each in wrong:
            self.outcome.fail(f"seed {self.seed}, text {number} ({count.__name__}, {limit}, {metadata}): {each[:300]}")
        if number % STORED == 0:
            self.waiting.append(document)
            if len(self.waiting) >= BATCH:
                self.store()

    def _passages(self, document: semsearch.Document, count: _Count, limit: int) -> list[str]:
        try:
            wrong = wrong_passages(document, count, limit)
        except InputError as error:
            # Title and path take at most 80 estimated tokens; by bytes, a little more than four times as much.
            self.outcome.counters["no room beside the title"] += 1
            room = limit - count([embedded_text(document.title, "", "")])[0]
            wrong = [f"{error}, although {room} are left"] if room > (4 if count is by_bytes else 1) else []
        self.outcome.counters["cut into passages"] += 1
        return wrong

    def _encoded(self, document: semsearch.Document) -> list[str]:
        """Through the tokenizer and the encoder that ship."""
        self.outcome.counters["tokenized and encoded"] += 1
        wrong = wrong_passages(document, self.encoder.count_tokens, 200)  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is longer than the encoder reads
            vectors = self.encoder.encode([document.text[:2000], document.title], kind="passage")
        if not np.isfinite(vectors).all() or (np.abs(np.linalg.norm(vectors, axis=1) - 1) > 1e-3).any():
            wrong.append("its vector has not unit length")
        return wrong

    def store(self) -> None:
        """The texts that wait into the index and back."""
        documents, self.waiting = self.waiting, []
        self.outcome.counters["through the index and back"] += len(documents)
        try:
            self.index.add(documents)
            back = list(self.index.documents())
            said = f"seed {self.seed}, index up to {documents[-1].id!r}"
            for document, stored in zip(documents, back, strict=True):
                if document != stored or self.index.get(document.id) != document:
                    self.outcome.fail(f"seed {self.seed}: {document.id!r} comes back changed")
            by_id = {document.id: document for document in documents}
            for mode in ("lexical", "dense"):
                for hit in self.index.search(
                    [each.text[:200] for each in documents if each.text.strip()][:5], 20, mode=mode
                ):
                    self._check_hits(hit, by_id)
            report = self.index.check()
            if not report.ok:
                self.outcome.fail(f"{said}: check() says {report}")
            self.index.remove([each.id for each in documents])
        except Exception as error:
            self.outcome.fail(
                f"seed {self.seed}, index up to {documents[-1].id!r}: {type(error).__name__}: {error}"[:400]
            )
            self.index.remove([each.id for each in documents])

    def _check_hits(self, hits: semsearch.retrieval.Hits, documents: dict[str, semsearch.Document]) -> None:
        for hit in hits:
            passage = hit.passage
            if documents[passage.document_id].text[passage.start : passage.end] != passage.text:
                self.outcome.fail(f"seed {self.seed}: passage {passage.start}:{passage.end} of {passage.document_id!r}")

    # -- time ----------------------------------------------------------------------------------------------------------

    def measure(self, number: int) -> None:
        """Fault `number`, whose time is taken for a pattern at growing sizes."""
        choose = random.Random(f"{self.seed}:{number}")
        unit, suffix = pattern(choose), choose.choice(SUFFIXES)
        self.outcome.counters["patterns timed"] += 1
        for name, work in self._works(suffix).items():
            small, large = (_seconds(work, unit, size) for size in SIZES)
            # Eight times the size: 64 times the time would be quadratic.
            slow = large > 20 * small + 0.05
            if slow or choose.random() < 0.1:
                self.outcome.counters["of a million characters"] += 1
                whole = _seconds(work, unit, LARGE)
                if whole > 3 * large * LARGE / SIZES[1] + 0.3 or whole > PATIENCE:
                    said = f"{small:.3f}, {large:.3f} and {whole:.3f} s for {SIZES} and {LARGE} characters"
                    self.outcome.fail(
                        f"seed {self.seed}, text {number}: {name} of {unit!r}{suffix} repeated takes {said}"
                    )

    def _works(self, suffix: str) -> dict[str, Callable[[str], object]]:
        def cut(text: str) -> object:
            document = semsearch.Document("a", text, metadata={"suffix": suffix, "pages": 1})
            return chunk(document, count_tokens=by_words, max_tokens=200)

        def tokenized(text: str) -> object:
            return self.encoder.count_tokens([without_surrogates(text)])  # type: ignore[attr-defined]

        def extracted(text: str) -> object:
            with suppress(UnreadableError):  # nested too deeply: a reason is an answer
                return html(text)

        return {"chunk": cut, "analysis": self.analyzers[0], "html": extracted, "tokenizing": tokenized}


def _seconds(work: Callable[[str], object], unit: str, size: int) -> float:
    """Processor time; the least of several where it is short."""
    content = (unit * (size // len(unit) + 1))[:size]
    taken = []
    while sum(taken) < 0.02 and len(taken) < 3:
        began = time.thread_time()
        work(content)
        taken.append(time.thread_time() - began)
    return min(taken)


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    examination = Examination(folder, seed, outcome)
    timed = TIMED if count < 20_000 else 10 * TIMED
    with examination.index:
        for number in range(count):
            try:
                examination.measure(number) if number % timed == timed - 1 else examination.examine(number)
            except Exception as error:
                outcome.fail(f"seed {seed}, text {number} raised {type(error).__name__}: {error}"[:400])
            outcome.done += 1
        if examination.waiting:
            examination.store()
    return outcome

"""The values that travel through the library: documents in, passages, hits and answers out.

All of them are frozen. Offsets count characters (Unicode code points) of `Document.text`, and

    document.text[passage.start:passage.end] == passage.text
    document.text[answer.start:answer.end] == answer.text

hold exactly, for every format, script and line ending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from semsearch.display import Explanation

__all__ = ["Answer", "Citation", "Context", "Document", "Hit", "Passage", "Sentence"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text with an identity.

    `id` names it for ever; adding a document with the same id replaces it. `source` says where the text comes from
    (for a file: its absolute path). `metadata` holds JSON values; a file's has at least `suffix`, `size` (bytes) and
    `modified` (seconds since 1970), and a paged format's has `pages` (their number), its text then having a form
    feed between pages.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A slice of a document: `document.text[start:end] == text`.

    `id` is never used again by an index, `page` starts at 1 (None where the format has no pages), and `metadata` is
    the document's, with its `title` and `source` and with `heading`, the path of headings above the passage, where
    there are such and the document's metadata has no keys of these names.
    """

    id: int
    document_id: str
    text: str
    start: int
    end: int
    page: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found. Higher scores are better; `rank` starts at 1.

    `sources` maps "dense", "lexical" and "rerank" to the (rank, score) that each of them gave, so that a hit
    explains itself. Only those that returned the passage are in it.
    """

    passage: Passage
    score: float
    rank: int
    sources: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    _explain: Callable[[], Explanation] | None = field(default=None, repr=False, compare=False)

    def why(self) -> Explanation:
        """Why this passage was found: the matched terms with their BM25 share, and token similarities.

        Raises InputError for a hit that was not made by a search, or that was pickled.
        """
        if self._explain is None:
            from semsearch.errors import InputError

            raise InputError("This Hit was not made by a search, so there is no query to explain it by.")
        return self._explain()

    def plot(self, *, most: int = 40, ax: Axes | None = None) -> Axes:
        """A heat map of the query's tokens against the passage's, by the cosine similarity of their vectors.

        Of a long passage the `most` tokens in a row that are most like the query. Raises InputError for a hit that was
        not made by a search, or an encoder without token vectors, and MissingExtraError without matplotlib.
        """
        return self.why().plot(most=most, ax=ax)


@dataclass(frozen=True, slots=True)
class Citation:
    """A slice of a document that supports a sentence of a generated answer; `score` is between 0 and 1.

    A plain string that was given to read has the document id "". Then `rank` tells which of them it is, as
    `answer.hit.rank` does for an extracted answer: `texts[citation.rank - 1][citation.start:citation.end]`. It is None
    where there is a document.
    """

    document_id: str
    start: int
    end: int
    page: int | None
    score: float
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a generated answer, `answer.text[start:end] == text`, and the places that support it."""

    text: str
    start: int
    end: int
    citations: tuple[Citation, ...]

    @property
    def supported(self) -> bool:
        """Whether some passage says so."""
        return bool(self.citations)


@dataclass(frozen=True, slots=True)
class Context:
    """What a generative reader was shown: the passages, or beginnings of passages, and those it had no room for.

    Passages that are neighbours in a document stand as one in `used`, in the order in which the reader saw them; a text
    that was found twice stands once.
    """

    used: tuple[Passage, ...]
    left_out: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An answer with its source, or the statement that there is none.

    `score` is the probability (0 to 1) that `text` is the right answer. An extracted answer is a slice of a document:
    `document.text[start:end] == text`, and `hit` is where it was read. Where the documents hold no answer, `found` is
    False, `text` is empty, `start`, `end` and `hit` are None, and the best span is in `alternatives[0]`. A generated
    answer has `start` and `end` None; instead it has `citations`, its `sentences` with the citations of each, and the
    `context` that the reader was shown, if the reader tells.
    """

    text: str
    score: float
    hit: Hit | None = None
    start: int | None = None
    end: int | None = None
    alternatives: tuple[Answer, ...] = ()
    citations: tuple[Citation, ...] = ()
    sentences: tuple[Sentence, ...] = field(default=(), repr=False)
    context: Context | None = field(default=None, repr=False, compare=False)

    @property
    def found(self) -> bool:
        """Whether there is an answer."""
        return bool(self.text)

    @property
    def document_id(self) -> str | None:
        """The document that the answer was read in."""
        return None if self.hit is None else self.hit.passage.document_id

    @property
    def page(self) -> int | None:
        """The page that the answer was read on, where the format has pages."""
        return None if self.hit is None else self.hit.passage.page

    def __bool__(self) -> bool:
        return self.found

    def __str__(self) -> str:
        from semsearch.display import answer_text

        return answer_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from semsearch.html import answer_html

        return answer_html(self)

"""The shapes of what the server takes and gives, as pydantic models: they check requests and make the OpenAPI page.

All offsets count characters (Unicode code points), as everywhere in the library. JavaScript counts UTF-16 units: there
`Array.from(text)` gives the characters.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

__all__ = [
    "Ask",
    "AskedAnswer",
    "CitationOut",
    "DocumentPart",
    "Explain",
    "ExplainedPassage",
    "Failure",
    "FoundPassage",
    "FoundPassages",
    "Health",
    "Info",
    "PassageId",
    "Piece",
    "Search",
    "SentenceOut",
    "SyncJob",
    "SyncStart",
]

Mark = Annotated[tuple[int, int], Field(description="start and end, in characters")]
Where = Annotated[
    dict[str, Any] | None,
    Field(description="a filter on metadata", examples=[{"suffix": ".md"}, {"year": {"$gte": 2020}}]),
]
Mode = Literal["hybrid", "dense", "lexical"]


def _number(given: Any) -> Any:
    """A string of digits as the number, everything else as it is."""
    return int(given) if isinstance(given, str) and len(given) < 20 and given.isascii() and given.isdigit() else given


PassageId = Annotated[
    int,
    Field(ge=0, lt=2**63),
    BeforeValidator(_number),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^[0-9]{1,19}$"}, {"type": "integer", "minimum": 0}]}),
]


class _Request(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class Search(_Request):
    """A search."""

    query: str = Field(description="what to look for", examples=["late fees"])
    k: int | None = Field(None, ge=1, description="how many passages; if not given 10, or max_k if that is less")
    mode: Mode = Field("hybrid", description="by meaning and keywords, by meaning (dense) or by keywords (lexical)")
    where: Where = None


class Ask(_Request):
    """A question."""

    question: str = Field(examples=["When are late fees charged?"])
    k: int | None = Field(None, ge=1, description="how many passages to read; if not given 20, or max_k if less")
    where: Where = None


class Explain(_Request):
    """A query and a passage that it found."""

    query: str
    passage_id: PassageId = Field(description="the string of digits that a hit has, or the number")


class SyncStart(_Request):
    """Which folder to bring the index up to."""

    root: str = Field(description="the name of an allowed folder, as /api/info lists them")


class Failure(BaseModel):
    """Why a request was not done."""

    error: str = Field(description="the kind of error", examples=["InputError"])
    message: str = Field(description="what happened and what to do")


class SourceOut(BaseModel):
    """The place and score that one way of searching gave a passage."""

    rank: int
    score: float


class FoundPassage(BaseModel):
    """A passage of a document: `text` is `document.text[start:end]`."""

    rank: int = Field(description="from 1")
    score: float = Field(description="higher is better")
    sources: dict[str, SourceOut] = Field(description="what each leg gave: dense, lexical")
    passage_id: str = Field(description="digits: the number may be too large for one of JavaScript's")
    document_id: str
    title: str
    heading: str = Field(description="the headings above the passage")
    page: int | None = Field(description="from 1; null where the format has no pages")
    start: int
    end: int
    text: str
    marks: list[Mark] = Field(description="the words of `text` that the query has, as offsets in `text`")
    metadata: dict[str, Any]


class FoundPassages(BaseModel):
    """The result of a search, best first."""

    hits: list[FoundPassage]
    seconds: float
    generation: int = Field(description="the state of the index after the search; others may have changed it meanwhile")


class CitationOut(BaseModel):
    """A part of a document that supports a generated sentence."""

    document_id: str
    start: int
    end: int
    page: int | None
    score: float


class SentenceOut(BaseModel):
    """A sentence of a generated answer, at `text[start:end]` of the answer."""

    text: str
    start: int
    end: int
    supported: bool = Field(description="whether some passage says so")
    citations: list[CitationOut]


class Candidate(BaseModel):
    """An answer, with where it was read. `passage.marks` is the answer in its passage."""

    text: str
    score: float = Field(description="the probability that it is right, 0 to 1")
    document_id: str | None
    page: int | None
    start: int | None = Field(description="in the document; null for a generated answer")
    end: int | None
    passage: FoundPassage | None


class AskedAnswer(Candidate):
    """The answer to a question, or that there is none: then `found` is false and the best guess an alternative."""

    found: bool
    alternatives: list[Candidate]
    sentences: list[SentenceOut]
    citations: list[CitationOut]
    seconds: float


class Piece(BaseModel):
    """A line of the stream: pieces of text as they come, then the whole answer, or an error."""

    type: Literal["piece", "answer", "error"]
    text: str | None = None
    answer: AskedAnswer | None = None
    error: Failure | None = None


class DocumentPart(BaseModel):
    """A part of a document: `text` is `document.text[start:end]`."""

    id: str
    title: str
    length: int = Field(description="characters of the whole document")
    start: int
    end: int
    text: str
    page: int | None = Field(description="the page that `text` begins on; form feeds in `text` begin the next one")
    marks: list[Mark] = Field(description="the words of `text` that the query has, as offsets in `text`")
    metadata: dict[str, Any]


class TokenOut(BaseModel):
    """A token of the passage, `text[start:end]`, and the cosine similarity of its vector to the query."""

    start: int
    end: int
    similarity: float


class ExplainedPassage(BaseModel):
    """Why a passage was found."""

    terms: dict[str, float] = Field(description="the share of each matched term in the BM25 score")
    tokens: list[TokenOut]


class Health(BaseModel):
    """Whether the server can answer. The status is 503 while it cannot."""

    ready: bool = Field(description="the models are loaded and the index can be read")
    generation: int | None
    passages: int | None
    problem: str | None = Field(None, description="why it is not ready")


class Info(BaseModel):
    """What is served."""

    version: str
    name: str = Field(description="the name of the index")
    documents: int
    passages: int
    generation: int
    language: str | None
    encoder: str | None
    suffixes: dict[str, int] = Field(description="how many documents there are of each suffix")
    roots: list[str] = Field(description="the folders that may be synced, by name")
    limits: dict[str, float]


class SyncCounts(BaseModel):
    """What a sync did, in documents."""

    added: int
    updated: int
    removed: int
    unchanged: int
    failed: int
    failures: list[tuple[str, str]] = Field(description="path in the folder, and reason; at most 100")


class SyncJob(BaseModel):
    """A sync, running or done."""

    id: int
    root: str
    state: Literal["running", "done", "failed", "cancelled"]
    done: int = Field(description="files that were looked at, of those that had to be read")
    total: int
    seconds: float
    report: SyncCounts | None = None
    error: Failure | None = None

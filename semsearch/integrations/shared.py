"""What the adapters have in common: how a hit is told in the metadata of another library, and whole documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from semsearch.records import Document, Hit, Passage

__all__ = ["best_documents", "described", "legs_of", "passage_id", "place"]


def passage_id(passage: Passage) -> str:
    """A name for a passage that stays the same when its document is indexed again: document id, start and end.

    >>> passage_id(Passage(7, "fees.md", "Late fees", 10, 19))
    'fees.md:10-19'
    """
    return f"{passage.document_id}:{passage.start}-{passage.end}"


def place(hit: Hit) -> dict[str, Any]:
    """The metadata of a hit's document, and where and how the hit was found, as JSON values.

    `document_id`, `start`, `end` (characters of the document), `page` (from 1, where there are pages), `rank` (from 1),
    `score`, and `legs`: the rank and score in each leg. These replace keys of the same names in the metadata.
    """
    passage = hit.passage
    page = {} if passage.page is None else {"page": passage.page}
    return {
        **_without_empty(passage.metadata),
        **page,
        "document_id": passage.document_id,
        "start": passage.start,
        "end": passage.end,
        "rank": hit.rank,
        "score": hit.score,
        "legs": {leg: [rank, score] for leg, (rank, score) in hit.sources.items()},
    }


def described(document: Document) -> dict[str, Any]:
    """The metadata of a whole document, with its title and source if it has such and no metadata of these names."""
    return _without_empty({"title": document.title, "source": document.source, **document.metadata})


def _without_empty(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if value != "" or name not in ("title", "source")}


def legs_of(metadata: Mapping[str, Any]) -> dict[str, tuple[int, float]]:
    """The `sources` of a hit from what `place` made of it; {} for metadata that comes from elsewhere."""
    legs = metadata.get("legs")
    if not isinstance(legs, Mapping):
        return {}
    try:
        return {str(leg): (int(rank), float(score)) for leg, (rank, score) in legs.items()}
    except (TypeError, ValueError):
        return {}


def best_documents(search: Callable[[int], list[Hit]], k: int) -> list[tuple[str, float]]:
    """The ids of the k best documents, each with the score of its best passage; `search(n)` gives the n best hits."""
    width = k
    while True:
        hits = search(width)
        best: dict[str, float] = {}
        for hit in hits:
            best.setdefault(hit.passage.document_id, hit.score)
        if len(best) >= k or len(hits) < width:
            return list(best.items())[:k]
        width *= 2

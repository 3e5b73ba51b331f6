"""What `Index.check` says of an index in an engine: every document is read, with its passages and vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from semsearch.chunking import embedded_text
from semsearch.engines.protocol import Entry, Part
from semsearch.enginestore import EngineView
from semsearch.health import CheckReport
from semsearch.views import digest

__all__ = ["check"]

BLOCK = 64  # documents that are read at a time
MOST = 20  # problems that are listed


def check(view: EngineView, *, repaired: Sequence[str] = ()) -> CheckReport:
    """Compare what the engine counts with what it gives out, and look at each document."""
    bound = view.bound
    if bound is None:
        return CheckReport(0, 0)
    problems: list[str] = []
    documents = passages = wrong = 0
    mark = ""
    while batch := view.engine.scan(mark, BLOCK, parts=True):
        mark = batch[-1][0]
        owned = view.engine.owned([entry.document.id for _, entry in batch])
        for _, entry in batch:
            documents, passages = documents + 1, passages + len(entry.parts)
            found = list(_problems(entry, len(owned.get(entry.document.id, ())), bound.dimension))
            wrong += len(found)
            problems += found[: MOST - len(problems)]
    if wrong > len(problems):
        problems.append(f"and {wrong - len(problems):,} more")
    for name in ("language", "encoder"):
        if view.meta(name) is None:
            problems.append(f"what {name} the index was made with is not known; add or sync something")
    counted = view.counts()
    left = [] if counted == (documents, passages) else [_uncounted(counted, (documents, passages))]
    return CheckReport(documents, passages, tuple(problems), tuple(left), tuple(repaired))


def _uncounted(counted: tuple[int, int], there: tuple[int, int]) -> str:
    return (
        f"the engine counts {counted[0]:,} documents and {counted[1]:,} passages, and gives out {there[0]:,} and "
        f"{there[1]:,}"
    )


def _problems(entry: Entry, owned: int, dimension: int) -> Iterator[str]:
    document = entry.document
    if owned != len(entry.parts):
        yield f"document {document.id!r} has {len(entry.parts)} passages, and {owned} are found of it"
    for part in entry.parts:
        where = f"the passage {part.start}:{part.end} of document {document.id!r}"
        if not 0 <= part.start < part.end <= len(document.text):
            yield f"{where} lies outside its text of {len(document.text)} characters"
            continue
        text = embedded_text(document.title, part.heading, document.text[part.start : part.end])
        if part.digest != digest(text):
            yield f"{where} was embedded from another text"
        if not _is_sound(part, dimension):
            yield f"{where} has a vector that is not finite and of unit length with {dimension} dimensions"


def _is_sound(part: Part, dimension: int) -> bool:
    vector = part.vector
    return vector is None or (vector.shape == (dimension,) and abs(float(np.linalg.norm(vector)) - 1) < 1e-3)

"""What `Index.check` looks at, as SQLite's `integrity_check` does for a database."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semsearch.legs import Legs
from semsearch.tables import View

__all__ = ["CheckReport", "check_index"]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is wrong with an index: nothing if `ok`.

    `problems` are in the database, the only source of truth, and are never repaired by guessing: restore a backup.
    `cache` lists what is wrong with derived files; `check(repair=True)` builds those again.
    """

    documents: int
    passages: int
    problems: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not self.cache

    def __str__(self) -> str:
        head = "ok" if self.ok else "not ok"
        lines = [f"{head}: {self.documents:,} documents, {self.passages:,} passages"]
        return "\n".join([*lines, *(f"  {each}" for each in (*self.problems, *self.cache))])


def check_index(view: View, legs: Legs) -> CheckReport:
    """Check the database, every offset, every vector, and the cache against the database."""
    documents, passages = view.counts()
    problems = view.problems() or [*view.wrong_metadata(), *view.wrong_offsets(), *_wrong_vectors(view)]
    cache = legs.problems(view)
    return CheckReport(documents, passages, tuple(problems), tuple(cache))


def _wrong_vectors(view: View) -> list[str]:
    wrong = []
    stored = view.meta("encoder")
    for passage in view.stored_passages():
        if passage.vector is None:
            continue
        if passage.vector.shape != (int(stored["dimension"]),):
            wrong.append(
                f"the vector of passage {passage.id} has {passage.vector.size} components, not {stored['dimension']}"
            )
        elif not abs(float(np.linalg.norm(passage.vector.astype(np.float64))) - 1.0) < 1e-2:
            wrong.append(f"the vector of passage {passage.id} is not of unit length")
    return wrong

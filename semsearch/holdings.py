"""`Holdings`: what one generation of an index holds, read without a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import CorruptIndexError
from semsearch.filters import Where
from semsearch.records import Document, Passage
from semsearch.views import View

__all__ = ["Holdings", "Stored"]

Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]

BLOCK = 500  # vectors that are held twice at a time


class Stored(NamedTuple):
    """Passages that have a vector, by ascending id, and the different vectors that they share."""

    ids: Int64  # (n,)
    documents: Int64  # (n,) the key of each passage's document
    rows: Int64  # (n,) where each passage's vector is in `vectors`
    vectors: Float32  # (m, d)


class Holdings:
    """What one generation of an index holds. Made by `Index.holdings`.

    Documents go by keys, numbers that hold as long as this object.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    @property
    def language(self) -> str | None:
        """The language of the keywords; None where nothing was written yet."""
        language: str | None = self._view.meta("language")
        return language

    def key(self, id: str) -> int | None:
        """The key of the document with that id, None if there is none."""
        return self._view.key(id)

    def document(self, key: int) -> Document:
        """The document with that key."""
        ((_, document),) = self._view.documents(key - 1, 1)
        return document

    def owners(self, ids: Sequence[int]) -> dict[int, int]:
        """The key of the document of each of these passages that there is."""
        return self._view.owners_of(ids)

    def known(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids that there are."""
        return self._view.passages(ids)

    def passages(self, ids: Sequence[int]) -> dict[int, Passage]:
        """The passages with these ids. Raises CorruptIndexError where one cannot be read."""
        found = self._view.passages(ids)
        if len(found) < len(set(ids)):
            missing = next(id for id in ids if id not in found)
            raise CorruptIndexError(
                f"The database is damaged: passage {missing} is found by a search, but cannot be read. "
                "Restore a backup, or index the documents again."
            )
        return found

    def sample(self, where: Where | None, most: int) -> tuple[Int64, int]:
        """The ids of at most `most` of the passages that match, ascending, and how many match.

        A random sample, always the same. Raises FilterError.
        """
        ids = self._view.ids() if where is None else self._view.matching(where)
        return sampled(ids, most), len(ids)

    def stored_of(self, documents: Sequence[int]) -> Stored:
        """The passages with vectors of the documents with these keys."""
        return self._stored(self._view.vector_rows("document", documents))

    def stored_at(self, ids: Sequence[int]) -> Stored:
        """Those of these passages that have a vector."""
        return self._stored(self._view.vector_rows("id", ids))

    def stored(self, where: Where | None = None, most: int | None = None) -> Stored:
        """All passages with vectors, or those that match, or `most` of them, a random sample, always the same."""
        found = self._view.vector_rows()
        if where is not None:
            found = found[np.isin(found[:, 0], self._view.matching(where), assume_unique=True)]
        return self._stored(found if most is None else found[sampled(np.arange(len(found)), most)])

    def _stored(self, found: Int64) -> Stored:
        keys, rows = by_first(found[:, 2])
        vectors: Float32 = np.zeros((0, 1), np.float32)
        places = {int(key): place for place, key in enumerate(keys)}
        for start in range(0, len(keys), BLOCK):  # so that they are never all held twice
            for key, row in self._view.vectors_at(list(places)[start : start + BLOCK]).items():
                if not len(vectors):
                    vectors = np.empty((len(keys), len(row)), np.float32)
                vectors[places[key]] = row
        return Stored(found[:, 0], found[:, 1], rows, vectors)

    def values(self, name: str) -> dict[str, int]:
        """How many documents have each string as a value of that metadata name."""
        return self._view.values(name)


def sampled(values: Int64, most: int) -> Int64:
    """At most `most` of some values, at random but always the same, in the order in which they are."""
    if len(values) <= most:
        return values
    return values[np.sort(np.random.default_rng(0).choice(len(values), size=most, replace=False))]


def by_first(keys: Int64) -> tuple[Int64, Int64]:
    """The different keys in the order in which they first come, (m,), and the place of each of all there, (n,)."""
    distinct, first, rows = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(distinct), np.int64)
    place[order] = np.arange(len(distinct))
    return distinct[order], place[rows]

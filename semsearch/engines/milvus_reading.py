"""Reading documents, passages and rankings from Milvus, as the version that holds and never as a mixture.

Nothing here relies on the order in which a server gives rows, nor on counts: documents and passages have keys that are
spread evenly, so what is more than one answer can hold is read range by range.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from semsearch.engines.expressions import SIGNS, Filters
from semsearch.engines.milvus_coding import digest_key, digest_of, document_key, unescaped
from semsearch.engines.milvus_connection import Connection
from semsearch.engines.milvus_layout import Layout
from semsearch.engines.milvus_rows import HEAD, STATE, Description, Head, StoredState, owner_name, part_of, passage_of
from semsearch.engines.protocol import Entry, Ranking
from semsearch.errors import CorruptIndexError
from semsearch.filters import Condition
from semsearch.records import Passage

__all__ = ["MOST", "Reader", "across", "joined"]

MOST = 16_384  # rows that Milvus gives at once, and passages that it ranks
BLOCK = 500  # keys in one query
LARGE_BLOCK = 100  # of rows that may be long
ANSWER = 100_000  # hits in one answer, over all its queries
TRIES = 5  # to read a document that is being replaced
KEYS = 1 << 60  # the first 15 hexadecimal digits of a document's key
PASSAGE_KEYS = 1 << 63

Row = Mapping[str, Any]
V = TypeVar("V", int, str)

_PART = ("ordinal", "first", "past", "page", "heading", "digest", "embedded", "vector")
_PASSAGE = ("document", "version", "ordinal", "first", "past", "page", "heading", "text")
_DESCRIPTION = (*Head.COLUMNS, "name", "description")


def joined(*expressions: str | bool) -> str:
    """Expressions that all have to hold, as one; True stands for no condition."""
    return " and ".join(f"({each})" for each in expressions if isinstance(each, str) and each)


def across(fetch: Callable[[int, int], list[Row]], size: int, start: int = 0, width: int = 0) -> Iterator[list[Row]]:
    """The rows of range after range of evenly spread keys; `fetch` gives at most MOST of those in [low, high)."""
    width = width or size
    while start < size:
        end = min(start + width, size)
        rows = fetch(start, end)
        if len(rows) >= MOST and end - start > 1:
            width = (end - start) // 4 or 1
            continue
        yield rows
        start = end
        if len(rows) < MOST // 4:
            width *= 2


class Reader:
    """Reads the collections of a layout through a connection; may be called from several threads."""

    def __init__(self, connection: Connection, layout: Layout) -> None:
        self._connection = connection
        self._layout = layout
        self._filters = Filters(layout.columns, layout.token_keys)
        self._level = layout.specification.consistency.capitalize()
        self._width = KEYS

    def rows(
        self, collection: str, expression: str, columns: Sequence[str], *, limit: int = MOST, level: str | None = None
    ) -> list[Row]:
        """At most `limit` rows for which an expression holds, in any order."""
        found = self._connection.call(
            "query",
            collection,
            filter=expression,
            output_fields=list(columns),
            limit=limit,
            consistency_level=level or self._level,
        )
        return list(found)

    def among(
        self, collection: str, column: str, values: Iterable[V], columns: Sequence[str], *, block: int = BLOCK,
        level: str | None = None,
    ) -> Iterator[Row]:  # fmt: skip
        """The rows in which a column has one of the values; at most one row for each value."""
        distinct = list(dict.fromkeys(values))
        for first in range(0, len(distinct), block):
            expression = f"{column} in {json.dumps(distinct[first : first + block])}"
            yield from self.rows(collection, expression, columns, level=level)

    def compiled(self, where: Condition | None) -> str | bool:
        """A filter as an expression, or True or False where it lets everything or nothing through."""
        return True if where is None else self._filters.compile(where)

    # -- documents ---------------------------------------------------------------------------------------------------

    def heads(
        self, keys: Iterable[str], columns: Sequence[str] = Head.COLUMNS, *, level: str | None = None
    ) -> dict[str, Row]:
        """The heads of documents by key; those that are not there are left out."""
        block = LARGE_BLOCK if "text" in columns else BLOCK
        wanted = [f"d{key}" for key in keys]
        found: dict[str, Row] = {}
        # The core of milvus-lite 2 replaces a row by deleting it first, and gives it neither old nor new in between.
        for wait in (0.0, 0.01, 0.05) if self._connection.is_core else (0.0,):
            time.sleep(wait)
            missing = [pk for pk in wanted if pk[1:] not in found]
            rows = self.among(self._layout.documents, "pk", missing, columns, block=block, level=level)
            found.update((row["pk"][1:], row) for row in rows)
            if len(found) == len(wanted):
                break
        return found

    def described(self, keys: Iterable[str], *, text: bool) -> dict[str, tuple[Head, Description]]:
        """Documents by key, with their texts if `text`. Raises CorruptIndexError for one of which a piece is gone."""
        found: dict[str, tuple[Head, Description]] = {}
        waiting = list(keys)
        for _ in range(TRIES):
            columns = (*_DESCRIPTION, "text") if text else _DESCRIPTION
            rows = self.heads(waiting, columns)
            heads = {key: Head.of(row) for key, row in rows.items()}
            pieces = self._pieces(heads.values(), text)
            waiting = []
            for key, head in heads.items():
                wanted = head.piece_keys()[: None if text else head.described]
                if all(each in pieces for each in wanted):
                    found[key] = head, _put_together(rows[key], head, [pieces[each] for each in wanted])
                else:
                    waiting.append(key)
            if not waiting:
                return found
        raise CorruptIndexError(
            f"Document {owner_name(rows[waiting[0]])!r:.200} at {self._connection.location} has lost a piece of its "
            "text. Index it again."
        )

    def _pieces(self, heads: Iterable[Head], text: bool) -> dict[str, str]:
        wanted = [key for head in heads for key in head.piece_keys()[: None if text else head.described]]
        rows = self.among(self._layout.documents, "pk", wanted, ("pk", "text"), block=LARGE_BLOCK)
        return {row["pk"]: row["text"] for row in rows}

    def entries(self, keys: Iterable[str], *, parts: bool) -> dict[str, Entry]:
        """Documents by key, with what is known of their files, and their passages if `parts`."""
        found: dict[str, Entry] = {}
        waiting = list(keys)
        for _ in range(TRIES):
            described = self.described(waiting, text=True)
            files = self.heads(described, ("pk", "version", "file"))
            owned = self._parts(described) if parts else {key: [] for key in described}
            waiting = []
            for key, (head, description) in described.items():
                whole = not parts or len(owned[key]) == head.passages
                if whole and key in files and files[key]["version"] == head.version:
                    file = files[key]["file"]
                    found[key] = Entry(description.document, owned[key], json.loads(unescaped(file)) if file else None)
                elif key in files:
                    waiting.append(key)
            if not waiting:
                return found
        raise CorruptIndexError(
            f"Document {described[waiting[0]][1].document.id!r:.200} at {self._connection.location} has lost passages. "
            "Index it again."
        )

    def _parts(self, described: Mapping[str, tuple[Head, Description]]) -> dict[str, list[Any]]:
        owners = {id: key for key, (head, _) in described.items() for id in head.ids()}
        rows = self.among(self._layout.passages, "id", owners, ("id", *_PART), block=BLOCK)
        parts: dict[str, list[tuple[int, Any]]] = {key: [] for key in described}
        for row in rows:
            key = owners[row["id"]]
            parts[key].append((row["ordinal"], part_of(row, described[key][1])))
        return {key: [part for _, part in sorted(each, key=lambda pair: pair[0])] for key, each in parts.items()}

    def keys_after(self, after: str, limit: int, where: Condition | None) -> list[str]:
        """The keys of up to `limit` documents (that match) after a key, ascending."""
        expression = self.compiled(where)
        if expression is False:
            return []

        def fetch(low: int, high: int) -> list[Row]:
            below = "e" if high >= KEYS else f"d{high:015x}"
            bounds = f'kind == {HEAD} and pk >= "d{low:015x}" and pk < "{below}"'
            return self.rows(self._layout.documents, joined(bounds, expression), ("pk",))

        found: list[str] = []
        start = int(after[:15], 16) if after else 0
        for rows in across(fetch, KEYS, start, self._width):
            found += sorted(key for row in rows if (key := row["pk"][1:]) > after)
            if len(found) >= limit:
                reached = int(found[limit - 1][:15], 16) - start
                self._width = max(reached + reached // 8, 1)
                break
        return found[:limit]

    def files(self, root: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The ids and files of the documents of a root."""

        def fetch(low: int, high: int) -> list[Row]:
            below = "e" if high >= KEYS else f"d{high:015x}"
            bounds = f'kind == {HEAD} and root == {root} and pk >= "d{low:015x}" and pk < "{below}"'
            return self.rows(self._layout.documents, bounds, ("name", "file"))

        found = [row for rows in across(fetch, KEYS) for row in rows]
        return sorted(
            ((owner_name(row), json.loads(unescaped(row["file"]))) for row in found), key=lambda pair: pair[0]
        )

    def states(self, beginning: str) -> dict[str, Any]:
        """The values of the states whose primary keys begin so, by name."""
        documents = self._layout.documents
        keys = self._state_keys(beginning)
        for _ in range(TRIES):
            rows = list(self.among(documents, "pk", keys, StoredState.ROW, block=LARGE_BLOCK))
            wanted = [key for row in rows for key in StoredState.pieces_of(row)]
            pieces = {
                row["pk"]: row["text"] for row in self.among(documents, "pk", wanted, ("pk", "text"), block=LARGE_BLOCK)
            }
            if len(pieces) == len(set(wanted)):
                return dict(StoredState.read(row, pieces) for row in rows)
        raise CorruptIndexError(
            f"A state at {self._connection.location} has lost a piece; its name begins {beginning!r}."
        )

    def _state_keys(self, beginning: str) -> list[str]:
        """The primary keys of states that begin so; where those are too many, sign by sign."""
        bounds = f'kind == {STATE} and pk >= "{beginning}" and pk < "{beginning}~"'
        rows = self.rows(self._layout.documents, bounds, ("pk",))
        if len(rows) < MOST:
            return [row["pk"] for row in rows]
        deeper = [key for sign in SIGNS for key in self._state_keys(beginning + sign)]
        own = self.rows(self._layout.documents, f'pk == "{beginning}"', ("pk",))
        return [row["pk"] for row in own] + deeper

    def refresh(self) -> None:
        """Have the servers catch up with what was written until now, by whomever."""
        for collection, nothing in ((self._layout.passages, "id == 0"), (self._layout.documents, 'pk == "0"')):
            self.rows(collection, nothing, ("version",), limit=1, level="Strong")

    def count(self, collection: str, expression: str) -> int:
        """How many rows there are for which an expression holds."""
        rows = self._connection.call(
            "query", collection, filter=expression, output_fields=["count(*)"], consistency_level=self._level
        )
        return int(rows[0]["count(*)"])

    # -- passages ----------------------------------------------------------------------------------------------------

    def passages(self, ids: Iterable[int]) -> dict[int, Passage]:
        """The passages with these ids that belong to a version that holds."""
        rows = list(self.among(self._layout.passages, "id", map(int, ids), ("id", *_PASSAGE), block=BLOCK))
        described = self.described(dict.fromkeys(row["document"] for row in rows), text=False)
        rows = [row for row in rows if row["document"] in described and _holds(row, described[row["document"]][0])]
        cut = {row["document"] for row in rows if not row["text"] and row["past"] > row["first"]}
        whole = self.described(cut, text=True) if cut else {}
        found: dict[int, Passage] = {}
        for row in rows:
            head, description = described[row["document"]]
            text = unescaped(row["text"])
            if row["document"] in cut and not text and row["past"] > row["first"]:
                again = whole.get(row["document"])
                if again is None or again[0].version != head.version:
                    continue  # replaced meanwhile
                text = again[1].document.text[row["first"] : row["past"]]
            found[row["id"]] = passage_of(row, description, text)
        return found

    def vectors(self, digests: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors known for digests. Many passages may share one, so what is found is not asked for again."""
        known: dict[bytes, np.ndarray] = {}
        distinct = list(dict.fromkeys(digests))
        for first in range(0, len(distinct), BLOCK):
            waiting = set(map(digest_key, distinct[first : first + BLOCK]))
            while waiting:
                expression = f"digest in {json.dumps(sorted(waiting))} and embedded == true"
                rows = self.rows(self._layout.passages, expression, ("digest", "vector"), limit=2 * BLOCK)
                known.update((digest_of(row["digest"]), np.asarray(row["vector"], np.float32)) for row in rows)
                waiting.difference_update(row["digest"] for row in rows)
                if len(rows) < 2 * BLOCK:
                    break
        return known

    def vectors_of(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """The vectors of passages; none for one without."""
        rows = self.among(self._layout.passages, "id", map(int, ids), ("id", "embedded", "vector"))
        return {row["id"]: np.asarray(row["vector"], np.float32) for row in rows if row["embedded"]}

    def matching(self, where: Condition, limit: int) -> list[int]:
        """The ids of at most `limit` passages that a filter lets through, ascending."""
        expression = self.compiled(where)
        if expression is False or limit < 1:
            return []

        def fetch(low: int, high: int) -> list[Row]:
            bounds = f"id >= {low} and id < {high}" if high < PASSAGE_KEYS else f"id >= {low}"
            return self.rows(self._layout.passages, joined(bounds, expression), ("id", "document", "version"))

        found: list[int] = []
        for rows in across(fetch, PASSAGE_KEYS):
            heads = self.heads(dict.fromkeys(row["document"] for row in rows))
            found += sorted(row["id"] for row in rows if _is_of(row, heads))
            if len(found) >= limit:
                break
        return found[:limit]

    def ranked(self, field: str, metric: str, queries: Sequence[Any], k: int, where: Condition | None) -> list[Ranking]:
        """For each query the k best passages by an index, of versions that hold."""
        expression = self.compiled(where)
        if expression is False or k < 1:
            return [[] for _ in queries]
        filter = joined(expression)
        asked = min(k, MOST)
        block = max(1, ANSWER // asked)
        rankings: list[Ranking] = []
        for first in range(0, len(queries), block):
            part = queries[first : first + block]
            answers = self._search(field, metric, part, asked, filter)
            heads = self.heads({hit["entity"]["document"] for hits in answers for hit in hits})
            for query, hits in zip(part, answers, strict=True):
                ranking = _live(hits, heads, field)
                if len(ranking) < k and len(hits) == asked:
                    ranking += self._further(
                        field, metric, query, k - len(ranking), filter, [hit["id"] for hit in hits]
                    )
                rankings.append(sorted(ranking, key=lambda pair: (-pair[1], pair[0]))[:k])
        return rankings

    def _further(self, field: str, metric: str, query: Any, k: int, filter: str, met: list[int]) -> Ranking:
        """k passages more, after those that were met, some of which did not count."""
        ranking: Ranking = []
        while len(ranking) < k:
            asked = min(max(2 * (k - len(ranking)), 64), MOST)
            (hits,) = self._search(field, metric, [query], asked, joined(filter, f"id not in {json.dumps(met)}"))
            ranking += _live(hits, self.heads({hit["entity"]["document"] for hit in hits}), field)
            met += [hit["id"] for hit in hits]
            if len(hits) < asked:
                break
        return ranking

    def _search(self, field: str, metric: str, queries: Sequence[Any], k: int, filter: str) -> list[list[Any]]:
        found = self._connection.call(
            "search",
            self._layout.passages,
            data=list(queries),
            anns_field=field,
            limit=k,
            filter=filter,
            output_fields=["document", "version", "embedded"],
            search_params={
                "metric_type": metric,
                "params": self._layout.search_parameters(k) if field == "vector" else {},
            },
            consistency_level=self._level,
        )
        return [list(hits) for hits in found]

    def owned(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The passage ids of documents, by document id."""
        keys = {document_key(id): id for id in ids}
        return {keys[key]: Head.of(row).ids() for key, row in self.heads(keys).items()}


def _put_together(row: Row, head: Head, pieces: list[str]) -> Description:
    text = unescaped("".join((row["text"], *pieces[head.described :]))) if "text" in row else ""
    return Description.of(row["description"], pieces[: head.described], text)


def _holds(row: Row, head: Head) -> bool:
    return bool(row["version"] == head.version)


def _is_of(row: Row, heads: Mapping[str, Row]) -> bool:
    head = heads.get(row["document"])
    return head is not None and bool(head["version"] == row["version"])


def _live(hits: Iterable[Any], heads: Mapping[str, Row], field: str) -> Ranking:
    """What counts among hits: passages of versions that hold and, by meaning, that have a vector."""
    live = [hit for hit in hits if _is_of(hit["entity"], heads)]
    if field == "vector":
        return [(int(hit["id"]), float(hit["distance"])) for hit in live if hit["entity"]["embedded"]]
    return [(int(hit["id"]), abs(float(hit["distance"]))) for hit in live if hit["distance"]]  # BM25 is below 0 on some

"""An index as a document store of Haystack, and Haystack's filters in our terms. Import it from `.haystack`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import semsearch
from semsearch.errors import FilterError, InputError, MissingExtraError
from semsearch.filters import compile_where, shown
from semsearch.integrations.shared import described

try:
    from haystack import Document, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.errors import FilterError as HaystackFilterError
except ImportError as error:
    raise MissingExtraError("The adapter for Haystack", "haystack-ai", "haystack") from error

__all__ = ["SemsearchDocumentStore", "without_kept", "where_of"]

KEPT = "_haystack"  # the metadata key of what else a document of Haystack has: embedding, blob, score

_EQUALITIES = {"==": "$eq", "!=": "$ne"}
_ORDERS = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_MEMBERSHIPS = {"in": "$in", "not in": "$nin"}
_NOTHING: dict[str, Any] = {"id": {"$in": []}}
_NO_METADATA = ("content", "blob", "score", "embedding", "sparse_embedding", "meta")

P = ParamSpec("P")
R = TypeVar("R")


def where_of(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A filter of Haystack as a `where` filter of ours; None for no filter.

    Values are only ever operands and names only ever names, so that neither becomes an operator. Raises Haystack's
    FilterError for a filter that is not well formed or that ours cannot say.

    >>> where_of({"field": "meta.year", "operator": ">=", "value": 2020})
    {'year': {'$gte': 2020}}
    """
    if not filters:
        return None
    where = _translated(filters)
    try:
        compile_where(where)
    except FilterError as error:
        raise HaystackFilterError(str(error)) from error
    return where


def _translated(filters: Any) -> dict[str, Any]:
    if not isinstance(filters, Mapping):
        raise HaystackFilterError(f"A filter is a dictionary, not {shown(filters)}.")
    return _comparison(filters) if "field" in filters else _logic(filters)


def _part(filters: Mapping[str, Any], name: str) -> Any:
    if name not in filters:
        raise HaystackFilterError(f"The key {name!r} is missing in the filter {shown(dict(filters))}.")
    return filters[name]


def _logic(filters: Mapping[str, Any]) -> dict[str, Any]:
    operator, conditions = _part(filters, "operator"), _part(filters, "conditions")
    if operator not in ("AND", "OR", "NOT"):
        raise HaystackFilterError(f"There is no logical operator {shown(operator)}. Known: AND, OR, NOT.")
    if not isinstance(conditions, list) or not conditions:
        raise HaystackFilterError(f"{operator} takes a list of conditions, not {shown(conditions)}.")
    parts = [_translated(each) for each in conditions]
    return {"$not": {"$and": parts}} if operator == "NOT" else {f"${operator.lower()}": parts}


def _comparison(filters: Mapping[str, Any]) -> dict[str, Any]:
    operator, value = _part(filters, "operator"), _part(filters, "value")
    name = _name(filters["field"])
    operator = operator if isinstance(operator, str) else shown(operator)
    if operator in _EQUALITIES:
        return {name: {_EQUALITIES[operator]: value}}
    if operator in _MEMBERSHIPS:
        if not isinstance(value, list):
            raise HaystackFilterError(f"The operator {operator!r} takes a list, not {shown(value)}.")
        return {name: {_MEMBERSHIPS[operator]: value}}
    if operator in _ORDERS:
        return _NOTHING if value is None else {name: {_ORDERS[operator]: _ordered(operator, value)}}
    known = ", ".join([*_EQUALITIES, *_ORDERS, *_MEMBERSHIPS])
    raise HaystackFilterError(f"There is no comparison operator {shown(operator)}. Known: {known}.")


def _name(field: Any) -> str:
    if not isinstance(field, str):
        raise HaystackFilterError(f"The field of a filter is a string, not {shown(field)}.")
    name = field.removeprefix("meta.")
    if name.startswith("$") or not name or (field in _NO_METADATA):
        raise HaystackFilterError(
            f"The store cannot filter by {shown(field)}. Filter by 'id' or by metadata, such as 'meta.year'."
        )
    return name


def _ordered(operator: str, value: Any) -> Any:
    """A number, or a date as a string, which has the order of the dates where all are written in the same way."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    try:
        date = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise HaystackFilterError(
            f"{operator} compares numbers and dates in ISO format, not {shown(value)} ({type(value).__name__})."
        ) from None
    if date.utcoffset() not in (None, timedelta()):
        raise HaystackFilterError(
            f"{operator} compares dates as they are written, so {shown(value)} with its offset from UTC could compare "
            "wrongly. Write dates in UTC, in the metadata and in filters."
        )
    return value if isinstance(value, str) else value.isoformat()


def _in_thread(method: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """The method as a coroutine function: it runs in a thread, since the index itself reads and computes."""

    @wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, *args, **kwargs)

    return run


class SemsearchDocumentStore:
    """An index as a document store of Haystack; with all that the store's protocol asks for, also as `..._async`.

    store = SemsearchDocumentStore("indexes/notes")
    store.write_documents([Document(content="Late fees are charged after 14 days.", meta={"year": 2024})])
    store.filter_documents({"field": "meta.year", "operator": ">=", "value": 2020})

    `location`, `encoder` and `read_only` are those of `semsearch.Index`; instead of a location, an open index will do.
    The index is opened at the first use. Texts are cut and encoded by it, so that no splitter and no embedder is
    needed; an embedding that a document brings is kept and given back, not searched. An index that was synced from a
    folder is a store as well: each file is a document.

    Filters become `where` filters of ours: a list in the metadata matches if one of its elements does, dates are
    compared as strings, which is right where they are written in the same way, and equal numbers and booleans are not
    the same. `id`, and `meta.title` and `meta.source` of files, can be filtered by.
    """

    def __init__(
        self,
        location: str | os.PathLike[str] | semsearch.Index,
        *,
        encoder: Any = None,
        read_only: bool = False,
    ) -> None:
        given = isinstance(location, semsearch.Index)
        self._index: semsearch.Index | None = location if isinstance(location, semsearch.Index) else None
        self.location: str = location.location if isinstance(location, semsearch.Index) else os.fspath(location)
        if given and encoder is not None:
            raise InputError("An open index has its encoder already: leave encoder= out, or give the location.")
        self.encoder = encoder
        self.read_only = read_only

    @property
    def index(self) -> semsearch.Index:
        """The index, opened when it is first needed."""
        if self._index is None:
            self._index = semsearch.Index(self.location, encoder=self.encoder, read_only=self.read_only)
        return self._index

    def close(self) -> None:
        """Close the index; the next use opens it again."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def to_dict(self) -> dict[str, Any]:
        """What makes the store again: location, encoder, read_only. Raises InputError for an encoder that is an object.

        An open index is remembered by its location as it is shown, so one of an engine without password and options,
        and its encoder by what the index itself knows of it.
        """
        if self.encoder is not None and not isinstance(self.encoder, (str, os.PathLike)):
            raise InputError("A store with an encoder object cannot be serialised. Give the encoder by name or path.")
        encoder = None if self.encoder is None else os.fspath(self.encoder)
        return _dictionary(default_to_dict(self, location=self.location, encoder=encoder, read_only=self.read_only))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SemsearchDocumentStore:
        """The store that `to_dict` described."""
        store: SemsearchDocumentStore = default_from_dict(cls, data)
        return store

    def count_documents(self) -> int:
        """How many documents there are."""
        return int(self.index.info()["documents"])

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """The documents that match, as they were written, in the order in which they first came."""
        return [_restored(document) for document in self._matching(filters)]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents and return how many; of those with the id of another, by the policy.

        NONE is FAIL: DuplicateDocumentError, and nothing is written. SKIP leaves what is there. OVERWRITE replaces it.
        Raises ValueError for what is no list of documents.
        """
        if not isinstance(documents, list) or not all(isinstance(each, Document) for each in documents):
            raise InputError(f"write_documents takes a list of Haystack documents, not {shown(documents)}.")
        wanted: dict[str, Document] = {}
        for document in documents:
            if policy is not DuplicatePolicy.OVERWRITE and self._is_there(document.id, wanted):
                if policy is DuplicatePolicy.SKIP:
                    continue
                raise DuplicateDocumentError(f"There is a document with the id {document.id!r} already.")
            wanted[document.id] = document
        self.index.add(map(_stored, wanted.values()), progress=False)
        return len(documents) if policy is DuplicatePolicy.OVERWRITE else len(wanted)

    def _is_there(self, id: str, wanted: Mapping[str, Document]) -> bool:
        return id in wanted or self.index.get(id) is not None

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents by id; ids that are not there are no error."""
        self.index.remove(document_ids)

    def delete_all_documents(self) -> None:
        """Delete every document."""
        self.delete_by_filter({})

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete the documents that match, and return how many."""
        return self.index.remove([document.id for document in self._matching(filters)])

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Add metadata to the documents that match, and return how many. Nothing is encoded anew."""
        found = [replace(each, metadata={**each.metadata, **meta}) for each in self._matching(filters)]
        self.index.add(found, progress=False)
        return len(found)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many documents match."""
        return len(self._matching(filters))

    def _matching(self, filters: Mapping[str, Any] | None) -> list[semsearch.Document]:
        return list(self.index.documents(where_of(filters)))

    count_documents_async = _in_thread(count_documents)
    filter_documents_async = _in_thread(filter_documents)
    write_documents_async = _in_thread(write_documents)
    delete_documents_async = _in_thread(delete_documents)
    delete_all_documents_async = _in_thread(delete_all_documents)
    delete_by_filter_async = _in_thread(delete_by_filter)
    update_by_filter_async = _in_thread(update_by_filter)
    count_documents_by_filter_async = _in_thread(count_documents_by_filter)


def _dictionary(value: Any) -> dict[str, Any]:
    return dict(value)


def without_kept(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as Haystack knows it."""
    return {name: value for name, value in metadata.items() if name != KEPT}


def _stored(document: Document) -> semsearch.Document:
    fields: dict[str, Any] = document.to_dict(flatten=False)
    meta = fields.pop("meta")
    id, content = fields.pop("id"), fields.pop("content")
    kept = {name: value for name, value in fields.items() if value is not None}
    if content is None:
        kept["content"] = None
    return semsearch.Document(id, content or "", metadata={**meta, KEPT: json.dumps(kept)} if kept else meta)


def _restored(document: semsearch.Document) -> Document:
    kept = json.loads(document.metadata.get(KEPT, "{}"))
    meta = without_kept(described(document))
    return Document.from_dict({"id": document.id, "content": document.text, "meta": meta, **kept})

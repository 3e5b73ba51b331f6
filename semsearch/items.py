"""What `Index.add` takes, and the progress that long calls show."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from semsearch.errors import InputError
from semsearch.records import Document

__all__ = ["Item", "Progress", "counted", "expanded", "label", "short", "to_document", "watched"]

Item = Document | Mapping[str, Any] | tuple[str, str] | str
Progress = bool | Callable[[int, int], None] | None
T = TypeVar("T")

_ITEM_KEYS = ("id", "text", "title", "source", "metadata")


def expanded(path: Any) -> Path:
    """The absolute path that a user means; raises InputError for what is no path."""
    try:
        if not os.fspath(path) or "\0" in str(path):
            raise ValueError("it is empty or has a NUL in it")
        return Path(path).expanduser().absolute()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path!r} is not the path of a folder: {error}.") from None


def label(location: str | os.PathLike[str]) -> str:
    """What an index is called for short: the name of its folder, or the last part of its location elsewhere.

    >>> label("milvus://user:password@host:19530/handbook?consistency=strong")
    'handbook'
    """
    text = os.fspath(location)
    return text.partition("?")[0].rpartition("/")[2] if "://" in text else Path(text).resolve().name


def to_document(item: Any) -> Document:
    """The document that an item stands for; raises InputError."""
    if isinstance(item, Document):
        document = item
    elif isinstance(item, str):
        document = Document(sha256(item.encode("utf-8", "surrogatepass")).hexdigest()[:32], item)
    elif isinstance(item, Mapping):
        document = _from_mapping(item)
    elif isinstance(item, tuple) and len(item) == 2:
        document = Document(item[0], item[1])
    else:
        raise InputError(f"Cannot add {short(item)}. An item is a Document, a mapping, a pair (id, text) or a string.")
    for name in ("id", "text", "title", "source"):
        if not isinstance(getattr(document, name), str):
            raise InputError(f"The {name} of an item is a string, not {short(getattr(document, name))}.")
    if not document.id:
        raise InputError(f"An item has an empty id (its text begins {document.text[:60]!r}). Give each item an id.")
    if not isinstance(document.metadata, Mapping):
        raise InputError(f"The metadata of {document.id!r} is a mapping, not {short(document.metadata)}.")
    return document


def _from_mapping(item: Mapping[str, Any]) -> Document:
    unknown = [key for key in item if key not in _ITEM_KEYS]
    missing = [key for key in ("id", "text") if key not in item]
    if unknown or missing:
        wrong = f"lacks {missing[0]!r}" if missing else f"has the key {unknown[0]!r}, which is not known"
        raise InputError(
            f"The item {short(dict(item))} {wrong}. It has id, text and, if wanted, title, source, metadata; "
            "anything else goes into metadata."
        )
    optional = {key: item[key] for key in ("title", "source", "metadata") if item.get(key) is not None}
    return Document(item["id"], item["text"], **optional)


def short(value: Any) -> str:
    """What a value looks like, in at most 120 characters."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def watched(items: Iterable[T], *, progress: Progress) -> Iterator[T]:
    """The items, with a bar on the terminal or calls of a function on the way."""
    total = len(items) if isinstance(items, Sequence) else 0
    if callable(progress):
        for done, item in enumerate(items):
            progress(done, total)
            yield item
        progress(total, total)
    elif progress or (progress is None and sys.stderr.isatty()):
        from tqdm import tqdm

        yield from tqdm(
            items, total=total or None, unit="file" if total else "document", disable=not (total or progress)
        )
    else:
        yield from items


@contextmanager
def counted(progress: Progress, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """What to call with the number that is done, for work whose steps are of several items each."""
    if callable(progress):
        yield lambda done: progress(done, total)
    elif progress or (progress is None and sys.stderr.isatty()):
        from tqdm import tqdm

        with tqdm(total=total, unit=unit) as bar:
            yield lambda done: bar.update(done - bar.n) and None
    else:
        yield lambda done: None

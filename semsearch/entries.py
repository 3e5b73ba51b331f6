"""How files and keywords stand in what an engine stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from semsearch.chunking import embedded_text
from semsearch.engines.protocol import Entry
from semsearch.views import FileRow

__all__ = ["failed_name", "file_of", "row_of", "with_terms"]

_FILE = ("path", "size", "mtime_ns", "inode", "digest", "reason", "release")


def with_terms(entry: Entry, analyze: Callable[[str], Sequence[str]]) -> Entry:
    """The entry with the keywords of each passage, as an engine wants it that is to store it."""
    document = entry.document
    parts = []
    for part in entry.parts:
        text = embedded_text(document.title, part.heading, document.text[part.start : part.end])
        parts.append(part._replace(terms=analyze(text)))
    return entry._replace(parts=parts)


def file_of(root: int, row: FileRow) -> dict[str, Any]:
    """What is known of a file of a root, as `Entry.file` and the states of files without a document have it."""
    return {"root": root, **{name: getattr(row, name) for name in _FILE}}


def row_of(file: Mapping[str, Any], document: int | None) -> FileRow:
    """The same for who syncs; `document` is the number of the one that was made of it."""
    return FileRow(**{name: file[name] for name in _FILE}, document=document)


def failed_name(root: int, path: str) -> str:
    """The name of the state that remembers a file without a document.

    >>> failed_name(3, "broken.pdf")
    'failed/3/07e1e845732d27e3cd2f7b792c117ed9'
    """
    return f"failed/{root}/{sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

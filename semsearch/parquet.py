"""Documents, and documents with their passages and vectors, in Parquet files.

A file of documents has the columns `id` and `text` and, if wanted, `title`, `source` (strings) and `metadata` (a string
with a JSON object). One of entries has all five, and `passages`: a list of offsets into the text, page, heading, digest
of the embedded text, and vector (float32; null for a passage that is found by keyword only). A few values about the
whole file are in its own metadata. A file gets its name when it is complete.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.engines.protocol import Entry, Part
from semsearch.errors import InputError, MissingExtraError
from semsearch.items import to_document
from semsearch.locking import flushed
from semsearch.records import Document

__all__ = ["document_batch", "documents", "drop_drafts", "entries", "entry_batch", "head", "note", "written"]

FORMAT = 1
KEY = "semsearch"
COLUMNS = ("id", "text", "title", "source", "metadata")
READ = 64  # documents at a time


def documents(path: Path) -> Iterator[Document]:
    """The documents of a file, in order; raises InputError where it has none."""
    with _file(path) as file:
        names = file.schema_arrow.names
        missing = [name for name in COLUMNS[:2] if name not in names]
        if missing:
            raise InputError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}.")
        for batch in file.iter_batches(READ, columns=[name for name in COLUMNS if name in names]):
            for row in batch.to_pylist():
                yield to_document({**row, "metadata": _metadata(row.get("metadata"), path)})


def entries(path: Path) -> Iterator[Entry]:
    """The documents of a file that `entry_batch` was written to, with their passages and vectors, in order."""
    with _file(path) as file:
        for batch in file.iter_batches(READ, columns=[*COLUMNS, "passages"]):
            passages = batch.column("passages")
            parts = _parts(passages.flatten())
            for row, count in zip(batch.select(COLUMNS).to_pylist(), passages.value_lengths().to_pylist(), strict=True):
                metadata = json.loads(row.pop("metadata"))
                yield Entry(Document(**row, metadata=metadata), list(islice(parts, count)))


def head(path: Path) -> dict[str, Any]:
    """What was noted of a file of entries; raises InputError for a file that is none."""
    with _file(path) as file:
        stored = json.loads((file.metadata.metadata or {}).get(KEY.encode(), b"{}"))
    if stored.get("format") != FORMAT:
        raise InputError(f"{path} is no encoded shard of this release. Make such: semsearch.engines.ray.encode.")
    return dict(stored)


def note(writer: Any, values: Mapping[str, Any]) -> None:
    """Put JSON values into the metadata of a file of entries, before its block ends."""
    writer.add_key_value_metadata({KEY: json.dumps({"format": FORMAT, **values}, sort_keys=True)})


@contextmanager
def written(path: Path, *, passages: bool) -> Iterator[Any]:
    """A writer of batches; what killed processes have left of the same file is removed when it is complete."""
    _arrow()
    from pyarrow.parquet import ParquetWriter

    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with ParquetWriter(draft, _schema(passages=passages), compression="zstd", use_dictionary=False) as writer:
            yield writer
        flushed(draft)
        draft.replace(path)
        flushed(path.parent)
    finally:
        draft.unlink(missing_ok=True)
    drop_drafts(path)


def drop_drafts(path: Path) -> None:
    """Remove what killed processes have left of a file."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        left.unlink(missing_ok=True)


def document_batch(documents: Sequence[Document]) -> Any:
    """Documents as an Arrow record batch; raises InputError for a string with a lone surrogate."""
    return _arrow().record_batch(_columns(documents), schema=_schema(passages=False))


def entry_batch(entries: Sequence[Entry]) -> Any:
    """Documents with their passages as an Arrow record batch."""
    pa = _arrow()
    parts = [part for entry in entries for part in entry.parts]
    vectors = [part.vector for part in parts]
    values = np.concatenate([vector for vector in vectors if vector is not None] or [np.empty(0, np.float32)])
    rows = pa.StructArray.from_arrays(
        [
            pa.array([part.start for part in parts], pa.int64()),
            pa.array([part.end for part in parts], pa.int64()),
            pa.array([part.page for part in parts], pa.int32()),
            pa.array([part.heading for part in parts], pa.large_string()),
            pa.array([part.digest for part in parts], pa.binary(16)),
            pa.ListArray.from_arrays(
                _offsets([0 if vector is None else len(vector) for vector in vectors]),
                pa.array(values, pa.float32()),
                mask=pa.array([vector is None for vector in vectors], pa.bool_()),
            ),
        ],
        fields=list(_passage()),
    )
    passages = pa.ListArray.from_arrays(_offsets([len(entry.parts) for entry in entries]), rows)
    columns = [*_columns([entry.document for entry in entries]), passages]
    return pa.record_batch(columns, schema=_schema(passages=True))


def _parts(rows: Any) -> Iterator[Part]:
    *columns, vectors = rows.flatten()
    ends = np.cumsum(np.asarray(vectors.value_lengths().fill_null(0))).tolist()
    values = np.asarray(vectors.flatten(), np.float32)
    described = zip(*(column.to_pylist() for column in columns), strict=True)
    first = 0
    for (start, end, page, heading, key), usable, last in zip(described, vectors.is_valid(), ends, strict=True):
        yield Part(start, end, page, heading, key, (), values[first:last].copy() if usable.as_py() else None)
        first = last


def _metadata(text: Any, path: Path) -> Mapping[str, Any]:
    if text is None or text == "":
        return {}
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"The column metadata of {path} has {text!r:.60}, which is no string with a JSON object.")
    return value


def _columns(documents: Sequence[Document]) -> list[Any]:
    pa = _arrow()
    strings = {name: [getattr(each, name) for each in documents] for name in COLUMNS[:4]}
    strings["metadata"] = [json.dumps(dict(each.metadata)) for each in documents]
    try:
        return [pa.array(strings[name], pa.large_string()) for name in COLUMNS]
    except UnicodeEncodeError:
        wrong = next(each.id for each in documents if not _is_valid(each))
        raise InputError(
            f"{wrong!r} has a lone surrogate in its id, text, title or source, which Parquet has no form for. Leave it "
            "out, and add it with Index.add."
        ) from None


def _is_valid(document: Document) -> bool:
    try:
        "".join((document.id, document.text, document.title, document.source)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _offsets(lengths: Sequence[int]) -> Any:
    pa = _arrow()
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())


def _schema(*, passages: bool) -> Any:
    pa = _arrow()
    columns = [pa.field(name, pa.large_string()) for name in COLUMNS]
    if passages:
        columns.append(pa.field("passages", pa.list_(_passage())))
    return pa.schema(columns)


def _passage() -> Any:
    pa = _arrow()
    return pa.struct(
        {
            "start": pa.int64(),
            "end": pa.int64(),
            "page": pa.int32(),
            "heading": pa.large_string(),
            "digest": pa.binary(16),
            "vector": pa.list_(pa.float32()),
        }
    )


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    pa = _arrow()
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}.") from None


def _arrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtraError("Reading and writing shards", "pyarrow", "ray") from None
    return pa

"""Hits as data frames of pandas and polars, and as Arrow tables: one row a hit, the same columns in each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from semsearch.display import hits_rows
from semsearch.errors import MissingExtraError
from semsearch.outline import without_surrogates
from semsearch.records import Hit

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["hits_arrow", "hits_pandas", "hits_polars"]

_TYPES: dict[str, type] = {
    **dict.fromkeys(("rank", "page", "start", "end", "passage_id"), int),
    "score": float,
    **dict.fromkeys(("document_id", "text", "metadata"), str),
}
_ORDER = ("rank", "score", "document_id", "page", "start", "end", "text", "passage_id")


def hits_pandas(hits: Iterable[Hit]) -> pd.DataFrame:
    """`hits_rows` as a DataFrame; `sources` becomes the columns dense_rank, dense_score and so on.

    Raises MissingExtraError if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError("to_pandas()", "pandas", "pandas") from None
    rows = [_encodable(row) for row in hits_rows(hits)]
    columns = _columns(rows)
    return pd.DataFrame({name: [_cell(row, name) for row in rows] for name in columns}, columns=columns)


def hits_polars(hits: Iterable[Hit]) -> pl.DataFrame:
    """The columns of `hits_pandas` as a polars DataFrame; `metadata` is JSON text, since its keys and types may differ.

    Raises MissingExtraError if polars is not installed.
    """
    try:
        import polars as pl
    except ImportError:
        raise MissingExtraError("to_polars()", "polars", "polars") from None
    types = {int: pl.Int64, float: pl.Float64, str: pl.String}
    columns = _typed_columns(hits)
    return pl.DataFrame(
        {name: values for name, (_, values) in columns.items()},
        schema={name: types[kind] for name, (kind, _) in columns.items()},
    )


def hits_arrow(hits: Iterable[Hit]) -> pa.Table:
    """The columns of `hits_polars` as an Arrow table.

    Raises MissingExtraError if pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtraError("to_arrow()", "pyarrow", "arrow") from None
    types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    columns = _typed_columns(hits)
    return pa.table(
        {name: pa.array(values, types[kind]) for name, (kind, values) in columns.items()},
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a data frame: those of every hit, rank and score in each leg, and the metadata."""
    found = dict.fromkeys(name for row in rows for name in row["sources"])
    return [*_ORDER, *(f"{name}_{part}" for name in found for part in ("rank", "score")), "metadata"]


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    leg, _, part = column.rpartition("_")
    return row["sources"].get(leg, {}).get(part)


def _typed_columns(hits: Iterable[Hit]) -> dict[str, tuple[type, list[Any]]]:
    """Each column's type and values; None where there is no value."""
    rows = [_encodable(row) for row in hits_rows(hits)]
    for row in rows:
        row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False)
    kinds = {name: _TYPES.get(name, int if name.endswith("_rank") else float) for name in _columns(rows)}
    return {name: (kind, [_cell(row, name) for row in rows]) for name, kind in kinds.items()}


def _encodable(value: Any) -> Any:
    """The same without lone surrogates, which no data frame takes: each becomes U+FFFD, so offsets stay right."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, (list, tuple)) else value

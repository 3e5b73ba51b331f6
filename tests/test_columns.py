"""Filters over columns: SQL on the table `fields` says what they mean; the columns must always agree with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import WordEncoder

import semsearch
from semsearch import blocks
from semsearch.blocks import DamagedCacheError
from semsearch.columns import FILES, NAMES, Columns
from semsearch.filters import compile_where, fields, parse

SCHEMA = """
CREATE TABLE documents (key INTEGER PRIMARY KEY);
CREATE TABLE passages (id INTEGER PRIMARY KEY, document INTEGER);
CREATE TABLE fields (name, kind, value, document, PRIMARY KEY (name, kind, value, document)) WITHOUT ROWID;
"""


class Table:
    """The rows of an index that filters look at, and columns that follow their changes."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.connection.executescript(SCHEMA)
        self.last = 0
        self.columns = Columns()

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        return self.connection.execute(sql, parameters).fetchall()

    def passages(self, key: int) -> list[int]:
        return [id for (id,) in self.rows("SELECT id FROM passages WHERE document = ?", key)]

    def put(self, key: int, metadata: Mapping[str, Any], count: int) -> None:
        """A new document of `count` passages, in place of the one with that key."""
        self.columns.remove(self.remove(key))
        self.rows("INSERT INTO documents VALUES (?)", key)
        for _ in range(count):
            self.last += 1  # an id is never used again
            self.rows("INSERT INTO passages VALUES (?, ?)", self.last, key)
        self.describe(key, metadata)

    def describe(self, key: int, metadata: Mapping[str, Any]) -> None:
        self.rows("DELETE FROM fields WHERE document = ?", key)
        rows = list(fields(metadata))
        self.connection.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)", [(*row, key) for row in rows])
        self.columns.add([(self.passages(key), rows)])

    def remove(self, key: int) -> list[int]:
        gone = self.passages(key)
        for table, column in (("documents", "key"), ("passages", "document"), ("fields", "document")):
            self.rows(f"DELETE FROM {table} WHERE {column} = ?", key)
        return gone

    def built(self) -> Columns:
        pairs = self.rows("SELECT id, document FROM passages ORDER BY id")
        rows = self.rows("SELECT name, kind, value, document FROM fields ORDER BY name, kind, value, document")
        return Columns().fill([id for id, _ in pairs], [key for _, key in pairs], rows)

    def matching(self, where: Any) -> list[int]:
        sql, parameters = compile_where(where)
        return [
            id for (id,) in self.rows(f"SELECT id FROM passages WHERE document IN ({sql}) ORDER BY id", *parameters)
        ]


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table()
    with closing(table.connection):
        yield table


names = st.sampled_from(["a", "ab", "a\0", "a\0b", "b", "\ud800", ""])
numbers = st.sampled_from(
    [0, -0.0, 1, 1.0, -1, 2**53, 2**53 + 1, -(2**53) - 1, float(2**53), 2**63 - 1, -(2**63), 2**70]
)
values = (
    st.sampled_from(["", "x", "xy", "x\0", "é", "\ud800", "\udfff"])
    | numbers
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
metadata = st.dictionaries(names, values | st.lists(values, max_size=3), max_size=4)
comparable = values.filter(lambda value: value is not None)
conditions = (
    values
    | st.fixed_dictionaries({}, optional={"$gt": comparable, "$lte": comparable}).filter(bool)
    | st.fixed_dictionaries({}, optional={"$gte": comparable, "$lt": comparable}).filter(bool)
    | st.builds(
        lambda operator, among: {operator: among}, st.sampled_from(["$in", "$nin"]), st.lists(values, max_size=4)
    )
    | st.builds(lambda value: {"$ne": value}, values)
    | st.builds(lambda value: {"$not": {"$gt": value}}, comparable)
)
filters = st.recursive(
    st.dictionaries(names, conditions, max_size=3),
    lambda inner: (
        st.builds(lambda each: {"$not": each}, inner)
        | st.builds(
            lambda key, each: {key: each}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3)
        )
    ),
    max_leaves=6,
)
changes = st.tuples(
    st.sampled_from(["put", "describe", "remove", "build"]), st.integers(1, 6), metadata, st.integers(0, 3)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(changes, max_size=12), st.lists(filters, min_size=1, max_size=5))
def test_columns_agree_with_sql_whatever_changed(steps: list[tuple[str, int, Any, int]], wheres: list[Any]) -> None:
    table = Table()
    with closing(table.connection):
        for step, key, described, count in steps:
            if step == "put":
                table.put(key, described, count)
            elif step == "describe" and table.rows("SELECT 1 FROM documents WHERE key = ?", key):
                table.describe(key, described)
            elif step == "remove":
                table.columns.remove(table.remove(key))
            elif step == "build":
                table.columns = table.built()
        assert len(table.columns) == table.rows("SELECT count(*) FROM passages")[0][0]
        built = table.built()
        for where in wheres:
            expected = table.matching(where)
            assert table.columns.matching(parse(where)).tolist() == expected
            assert built.matching(parse(where)).tolist() == expected


def saved(table: Table, folder: Path) -> dict[str, Any]:
    return {path.name: blocks.facts(path) for path in table.built().save(folder, "g1")}


def test_saved_and_opened_again(table: Table, tmp_path: Path) -> None:
    for key in range(1, 3001):
        table.put(key, {"set": "abcd"[key % 4], "number": key * 7 % 1000, "name": f"n{key}"}, 1 + key % 2)
    opened = Columns.load(tmp_path, "g1", saved(table, tmp_path))
    assert len(opened) == 4500
    for where in ({}, {"set": "b"}, {"number": {"$gte": 100, "$lt": 200}}, {"name": "n77"}, {"name": {"$ne": "n77"}}):
        assert opened.matching(parse(where)).tolist() == table.matching(where)
    opened.remove([1, 2, 3])
    opened.add([([9000, 9001], fields({"set": "b"}))])
    assert opened.matching(parse({"set": "b"})).tolist() == [*table.matching({"set": "b"})[2:], 9000, 9001]


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_an_error_and_never_another_answer(
    table: Table, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 512)  # so that little is verified at opening
    for key in range(1, 401):
        table.put(key, {"number": key, "name": f"n{key}"}, 1)
    known = saved(table, tmp_path)
    kind, before = next((kind, names[: names.index(name)]) for kind, names in FILES.items() if name in names)
    path = tmp_path / f"g1-columns.{kind}.npy"
    rows = np.load(path)
    lengths = dict(zip(NAMES, np.load(tmp_path / "g1-columns.int64.npy")[: len(NAMES)].tolist(), strict=True))
    ahead = len(NAMES) if kind == "int64" else 0
    rows[ahead + sum(lengths[each] for each in (*before, name)) - 1] ^= 1  # the last row of that array
    np.save(path, rows)
    with pytest.raises(DamagedCacheError, match=kind):
        Columns.load(tmp_path, "g1", known).matching(parse({"number": {"$gte": 400}}))


def test_a_file_that_is_not_in_the_manifest(table: Table, tmp_path: Path) -> None:
    known = saved(table, tmp_path)
    del known["g1-columns.int32.npy"]
    with pytest.raises(DamagedCacheError, match="int32"):
        Columns.load(tmp_path, "g1", known)


def test_rows_out_of_order_are_refused() -> None:
    rows = [("a", "n", 2, 1), ("a", "n", 1, 1)]
    with pytest.raises(ValueError, match="table fields"):
        Columns().fill([1], [1], rows)


def test_ids_come_sorted_where_a_document_was_described_anew(table: Table) -> None:
    for key in range(1, 6):
        table.put(key, {"a": 1}, 2)
    table.columns = table.built()
    table.describe(2, {"a": 1, "b": 2})
    assert table.columns.matching(parse({"a": 1})).tolist() == list(range(1, 11))
    assert table.columns.matching(parse({"b": 2})).dtype == np.int64


def found(index: semsearch.Index, **where: Any) -> list[str]:
    return sorted(hit.passage.document_id for hit in index.search("note", where=where))


def test_filters_follow_every_kind_of_change_in_open_and_new_indexes(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with (
        semsearch.Index(path, encoder=WordEncoder()) as index,
        semsearch.Index(path, encoder=WordEncoder(), timeout=1) as other,
    ):
        index.add({"id": f"d{n}", "text": f"note {n}", "metadata": {"year": n}} for n in range(8))
        index.optimize()
        for each in (index, other):
            assert found(each, year={"$gte": 5}) == ["d5", "d6", "d7"]
        index.add({"id": "d5", "text": "note 5", "metadata": {"year": 1}})  # described anew, its passage stays
        index.add({"id": "d6", "text": "another note", "metadata": {"year": 9}})
        index.add({"id": "d8", "text": "note 8", "metadata": {"year": 8}})
        index.remove("d7")
        with semsearch.Index(path, encoder=WordEncoder(), read_only=True) as new:
            for each in (index, other, new):
                assert found(each, year={"$gte": 5}) == ["d6", "d8"]
                assert found(each, year=1) == ["d1", "d5"]
                assert found(each, year={"$ne": 1}) == ["d0", "d2", "d3", "d4", "d6", "d8"]
        index.optimize()
        index.add({"id": "d5", "text": "note 5", "metadata": {"year": 7}})
        for each in (index, other):
            assert found(each, year={"$gte": 5}) == ["d5", "d6", "d8"]


def test_many_documents_at_once_are_filled_in_not_put_in_one_by_one(tmp_path: Path) -> None:
    """The lists of what came since take longer for each document, the more there are."""
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add({"id": str(n), "text": f"note {n}", "metadata": {"number": n}} for n in range(3000))
        with semsearch.Index(tmp_path / "index", encoder=WordEncoder(), read_only=True) as reader:
            for first, count, since in (
                (3000, 0, 0),
                (3000, 100, 100),
                (3100, 100, 200),
                (3200, 2000, 0),
                (5200, 1, 1),
            ):
                end = first + count
                index.add({"id": str(n), "text": f"note {n}", "metadata": {"number": n}} for n in range(first, end))
                with reader.snapshot() as snapshot:
                    found = snapshot.matching({"number": {"$gte": first - 5}})
                    assert len(found) == count + 5
                    assert snapshot._legs._legs["columns"].structure.since == since


def test_damage_in_the_cache_is_not_written_into_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 512)  # so that little is verified at opening
    path = tmp_path / "index"
    with semsearch.Index(path, encoder=WordEncoder()) as index:
        index.add({"id": f"d{n:03}", "text": f"note {n}", "metadata": {"year": n}} for n in range(300))
        index.optimize()
    (file,) = (path / "cache").glob("*-columns.int32.npy")
    rows = np.load(file)
    rows[400:1000] = 0  # whose values these are; the first block and the owners at the end are verified at opening
    np.save(file, rows)
    with semsearch.Index(path, encoder=WordEncoder()) as index:
        index.optimize()
    with semsearch.Index(path, encoder=WordEncoder()) as index, index.snapshot() as snapshot:
        for n in range(300):
            assert snapshot.matching({"year": n}).tolist() == snapshot.matching({"id": f"d{n:03}"}).tolist() == [n + 1]

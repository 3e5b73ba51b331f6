from __future__ import annotations

import json
import sqlite3
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.columns import Columns
from semsearch.errors import FilterError, InputError
from semsearch.filters import compile_where, fields, pack, parse, unpack

DOCUMENTS: dict[int, dict[str, Any]] = {
    1: {"suffix": ".md", "year": 2019, "tags": ["a", "b"], "draft": False},
    2: {"suffix": ".md", "year": 2021, "tags": ["b"], "draft": True},
    3: {"suffix": ".pdf", "year": 2021.5, "author": {"name": "Ada", "born": 1815}},
    4: {"suffix": ".pdf", "year": "2021", "note": None},
    5: {},
}


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE documents (key INTEGER PRIMARY KEY);"
        "CREATE TABLE fields (name TEXT, kind TEXT, value, document INTEGER, "
        "PRIMARY KEY (name, kind, value, document)) WITHOUT ROWID;"
    )
    for key, metadata in DOCUMENTS.items():
        connection.execute("INSERT INTO documents VALUES (?)", (key,))
        connection.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", [(*row, key) for row in fields(metadata)])
    return connection


def select(database: sqlite3.Connection, where: Any) -> set[int]:
    """The keys of the documents that match: by SQL, by columns as they are built, and by columns that were added to."""
    sql, parameters = compile_where(where)
    found = {row[0] for row in database.execute(sql, parameters)}
    keys = [key for (key,) in database.execute("SELECT key FROM documents ORDER BY key")]
    rows = database.execute("SELECT name, kind, value, document FROM fields ORDER BY name, kind, value, document")
    assert Columns().fill(keys, keys, rows).matching(parse(where)).tolist() == sorted(found)
    grown = Columns()
    fields_of = "SELECT name, kind, value FROM fields WHERE document = ?"
    grown.add(([key], database.execute(fields_of, (key,))) for key in keys)
    assert grown.matching(parse(where)).tolist() == sorted(found)
    return found


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, {1, 2, 3, 4, 5}),
        ({"suffix": ".md"}, {1, 2}),
        ({"suffix": {"$eq": ".md"}}, {1, 2}),
        ({"suffix": {"$ne": ".md"}}, {3, 4, 5}),  # as in MongoDB, a missing field is not equal
        ({"suffix": {"$in": [".md", ".txt"]}}, {1, 2}),
        ({"suffix": {"$in": []}}, set()),
        ({"suffix": {"$nin": [".md"]}}, {3, 4, 5}),
        ({"year": {"$gt": 2019}}, {2, 3}),  # the string "2021" is not a number
        ({"year": {"$gte": 2019}}, {1, 2, 3}),
        ({"year": {"$lt": 2021}}, {1}),
        ({"year": {"$lte": 2021}}, {1, 2}),
        ({"year": {"$gt": 2019, "$lt": 2021.5}}, {2}),
        ({"year": "2021"}, {4}),
        ({"year": {"$gt": "2020"}}, {4}),
        ({"tags": "b"}, {1, 2}),  # a list matches if one of its elements does
        ({"tags": {"$ne": "a"}}, {2, 3, 4, 5}),
        ({"draft": True}, {2}),
        ({"draft": 1}, set()),  # True is not 1
        ({"note": None}, {1, 2, 3, 4, 5}),
        ({"suffix": None}, {5}),
        ({"author.name": "Ada"}, {3}),
        ({"author.born": {"$lt": 1900}}, {3}),
        ({"suffix": ".md", "year": 2021}, {2}),
        ({"$and": [{"suffix": ".md"}, {"year": 2021}]}, {2}),
        ({"$or": [{"year": 2019}, {"author.name": "Ada"}]}, {1, 3}),
        ({"$not": {"suffix": ".md"}}, {3, 4, 5}),
        ({"year": {"$not": {"$gt": 2019}}}, {1, 4, 5}),
        ({"suffix": ".pdf", "$or": [{"year": {"$gte": 2020}}, {"note": None}]}, {3, 4}),
    ],
)
def test_meaning(database: sqlite3.Connection, where: Any, expected: set[int]) -> None:
    assert select(database, where) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("suffix", "A filter is a mapping"),
        ({"$near": 1}, r"\$near"),
        ({"year": {"$near": 1}}, r"\$near"),
        ({"year": {}}, "empty condition"),
        ({"year": {"$gt": None}}, "with None"),
        ({"year": {"$in": ".md"}}, r"\$in takes a list"),
        ({"$or": []}, "at least one"),
        ({"$and": {"a": 1}}, "takes a list"),
        ({1: 2}, "strings, not 1"),
        ({"year": float("nan")}, "nan"),
        ({"year": object()}, "object"),
        ({"year": {"$not": 5}}, "takes a condition"),
        ({"year": {"$in": list(range(40_000))}}, "30,000"),
        ({"year": {"$in": range(10**12)}}, "30,000"),
        ({"year": {"$not": 10**5000}}, "not <int>"),
        ([10**5000], "not <list>"),
    ],
)
def test_malformed(where: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        compile_where(where)


def test_nested_too_deep() -> None:
    where: dict[str, Any] = {"a": 1}
    for _ in range(100):
        where = {"$not": where}
    with pytest.raises(FilterError, match="deep"):
        compile_where(where)


def test_nested_deeper_than_a_message_can_show() -> None:
    value: Any = []
    for _ in range(3000):
        value = [value]
    with pytest.raises(FilterError, match="<list>"):
        compile_where({"year": value})


def test_metadata_nested_as_deeply_as_json_allows() -> None:
    metadata: dict[str, Any] = {"a": 1}
    for _ in range(2000):
        metadata = {"a": metadata}
    assert list(fields(metadata)) == [("a" + 2000 * ".a", "n", 1)]


def test_five_thousand_alternatives(database: sqlite3.Connection) -> None:
    assert select(database, {"$or": [{"year": year} for year in range(5000)]}) == {1, 2}


hostile = st.text() | st.sampled_from(
    ["'; DROP TABLE documents; --", '"', "$.a[0]", "%", "a\0b", "\ud800", "?", ":x", "NULL"]
)
values = hostile | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=200, deadline=None)
@given(name=hostile, value=values, other=values)
def test_keys_and_values_are_only_data(name: str, value: Any, other: Any) -> None:
    """P19: whatever the strings are, the filter finds the document that has them, and nothing else happens."""
    connection = sqlite3.connect(":memory:")
    connection.executescript("CREATE TABLE documents (key INTEGER); CREATE TABLE fields (name, kind, value, document);")
    connection.execute("INSERT INTO documents VALUES (1)")
    connection.executemany("INSERT INTO fields VALUES (?, ?, ?, 1)", list(fields({name: value})))
    before = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    if not name.startswith("$"):
        assert select(connection, {name: value}) == {1}
        assert select(connection, {name: {"$in": [other, value]}}) == {1}
        assert select(connection, {name: {"$ne": value}}) == set()
    assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == before
    connection.close()


@given(st.text())
def test_pack_returns_every_string(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    (value,) = connection.execute("SELECT ?", (pack(text),)).fetchone()
    connection.close()
    assert unpack(value) == text


def test_keys_are_called_as_in_json() -> None:
    class Key(str, Enum):  # noqa: UP042 - its format is not its value
        A = "a"

    metadata = {True: 1, None: 2, 1.5: {7: 3, Key.A: 4}}
    rows = [("true", "n", 1), ("null", "n", 2), ("1.5.7", "n", 3), ("1.5.a", "n", 4)]
    assert sorted(map(str, fields(metadata))) == sorted(map(str, rows))  # type: ignore[arg-type]
    assert set(fields(json.loads(json.dumps(metadata)))) == set(rows)


def test_metadata_that_has_no_form() -> None:
    with pytest.raises(InputError, match="finite"):
        list(fields({"a": float("inf")}))
    assert json.loads("1e400") == float("inf")  # so JSON files can bring one

"""The expressions that filters become, and the keys by which values are stored and compared."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.engines.expressions import SIGNS, TOKEN_LENGTH, Fields, Filters, columns_of, key_of, spelled
from semsearch.errors import FilterError
from semsearch.filters import pack, parse

COLUMNS = columns_of({"year": "int", "lang": "str", "draft": "bool", "a.b": "float"})


@pytest.mark.parametrize(
    ("where", "expression"),
    [
        ({}, True),
        ({"$not": {}}, False),
        ({"suffix": {"$in": []}}, False),
        ({"suffix": {"$nin": []}}, True),
        ({"a": 1, "b": {"$in": []}}, False),
        ({"$or": [{"a": 1}, {"b": {"$nin": []}}]}, True),
        ({"suffix": ".md"}, 'array_contains(tokens, "suffix=s!2emd")'),
        ({"suffix": {"$ne": ".md"}}, '(not array_contains(tokens, "suffix=s!2emd"))'),
        ({"draft": True}, 'array_contains(tokens, "draft=b1")'),
        ({"draft": {"$gte": False}}, 'array_contains_any(tokens, ["draft=b0", "draft=b1"])'),
        ({"n": 2}, 'array_contains(tokens, "n=nc000000000000000")'),
        ({"x": {"$in": ["b", "a"]}}, 'array_contains_any(tokens, ["x=sa", "x=sb"])'),
        ({"$or": [{"x": "a"}, {"y": "b"}]}, 'array_contains_any(tokens, ["x=sa", "y=sb"])'),
        ({"$not": {"$or": [{"x": "a"}, {"y": "b"}]}}, '(not array_contains_any(tokens, ["x=sa", "y=sb"]))'),
        ({"x": "a", "y": "b"}, '(array_contains(tokens, "x=sa") and array_contains(tokens, "y=sb"))'),
        ({"year": {"$gt": 2019}}, "field_0_high > 2019.0"),
        ({"year": {"$lte": 2019.5}}, "field_0_low <= 2019.5"),
        ({"year": {"$not": {"$gt": 2019}}}, "field_0_high <= 2019.0"),
        ({"year": {"$not": {"$lt": 2019}}}, "field_0_low >= 2019.0"),
        ({"lang": {"$lt": "é"}}, 'field_1_low < "=|c3|a9"'),
        ({"a.b": {"$gte": -1}}, "field_3_high >= -1.0"),
        (
            {"year": {"$gt": 2**60}},  # doubles do not tell such numbers apart
            '(ranges["year.n.range"] > "c3b0000000000000" or ranges["year.n.range.high"] > "c3b0000000000000")',
        ),
        (
            {"x": {"$not": {"$lt": "b"}}},
            '(ranges["x.s.range"] >= "b" or (ranges["x.s.range.low"] >= "b" or (not array_contains(tokens, "x.s"))))',
        ),
    ],
)
def test_expressions(where: Any, expression: str | bool) -> None:
    assert Filters(COLUMNS).compile(parse(where)) == expression


def test_expressions_without_not() -> None:
    filters = Filters(COLUMNS, token_keys=True)
    assert filters.compile(parse({"x": {"$ne": "a"}})) == 'ranges["x=sa"] != 1'
    written = str(filters.compile(parse({"$not": {"$or": [{"x": "a"}, {"y": {"$gt": 1}}, {"z": None}]}})))
    assert "not" not in written
    stored = Fields.of({"x": "a"}, COLUMNS, token_keys=True)
    assert stored.ranges == {"x=sa": 1, "x.s": 1, "x.s.range": "a"}


def test_what_is_stored_of_metadata() -> None:
    stored = Fields.of({"year": [2021, 2019], "lang": "de", "x": {"y": None}, "draft": True}, COLUMNS)
    assert sorted(stored.tokens) == [
        "draft=b1", "lang.s", "lang=sde", "x!2ey=z0", "year.n", "year=nc09f8c0000000000", "year=nc09f940000000000",
    ]  # fmt: skip
    assert stored.ranges == {
        "lang.s.range": "de", "year.n.range.low": "c09f8c0000000000", "year.n.range.high": "c09f940000000000",
    }  # fmt: skip
    largest = 1.7976931348623157e308
    assert stored.columns == {
        "field_0_low": 2019.0, "field_0_high": 2021.0, "field_1_low": "=de", "field_1_high": "=de",
        "field_3_low": largest, "field_3_high": -largest,
    }  # fmt: skip
    other = Fields.of({"year": "2019", "lang": 5, "a.b": 10**400}, COLUMNS)  # of other types than declared
    assert other.columns == {
        "field_0_low": largest, "field_0_high": -largest, "field_1_low": "~", "field_1_high": "",
        "field_3_low": largest, "field_3_high": largest,
    }  # fmt: skip


strings = st.text() | st.text("ab\ud800\udfff\0é😀", max_size=4)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


@given(strings, strings)
def test_keys_of_strings_sort_as_sqlite_does(one: str, other: str) -> None:
    packed, key = pack(one), key_of("s", pack(one))
    others, other_key = pack(other), key_of("s", pack(other))
    rank = (isinstance(packed, bytes), one.encode("utf-8", "surrogatepass"))
    other_rank = (isinstance(others, bytes), other.encode("utf-8", "surrogatepass"))
    assert (key < other_key) == (rank < other_rank)
    assert (key == other_key) == (one == other)
    assert set(key) <= set(SIGNS)
    assert spelled((one + other).encode("utf-8", "surrogatepass")).startswith(
        spelled(one.encode("utf-8", "surrogatepass"))
    )


@given(numbers, numbers)
def test_keys_of_numbers_sort_exactly(one: int | float, other: int | float) -> None:
    key, other_key = key_of("n", one), key_of("n", other)
    first, second = _exact(one), _exact(other)
    assert (key < other_key) == (first < second)
    assert (key == other_key) == (first == second)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-2000, 2000))
def test_keys_of_large_neighbours_differ(one: int, step: int) -> None:
    other = min(max(one + step, -(2**63)), 2**63 - 1)
    assert (key_of("n", one) < key_of("n", other)) == (one < other)
    assert (key_of("n", float(one)) < key_of("n", other)) == (int(float(one)) < other)


def _exact(number: int | float) -> Fraction | float:
    return Fraction(number) if abs(number) != float("inf") else number


hostile = st.text() | st.sampled_from(
    ['"', "\\", '"] or id > 0 or ["', "'", "\n", "{x}", "not", "a" * 1000, "語" * 400]
)
values = hostile | numbers.filter(lambda number: abs(number) != float("inf")) | st.booleans()
LITERALS = re.compile(r'"[0-9A-Za-z!:_|}#=.~]*"')
SYNTAX = re.compile(
    r"(array_contains|array_contains_any|tokens|ranges|and|or|not|field_\d_(low|high)|[][()<>=!,\s]|-?[\d.e+-]+)*"
)


@given(hostile, values, st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), st.booleans())
def test_names_and_values_are_only_literals(name: str, value: Any, operator: str, token_keys: bool) -> None:
    """P19: apart from literals of harmless signs there is nothing in an expression that is not ours."""
    if name.startswith("$"):
        return
    filters = Filters(COLUMNS, token_keys)
    for where in ({name: {operator: value}}, {"$not": {name: {operator: value}}}, {"lang": {operator: value}}):
        try:
            expression = filters.compile(parse(where))
        except FilterError:  # too long to be compared
            assert isinstance(value, str)
            continue
        if isinstance(expression, str):
            assert SYNTAX.fullmatch(LITERALS.sub("", expression)), expression


@given(st.dictionaries(hostile, values | st.lists(values, max_size=4), max_size=4))
def test_what_is_stored_fits(metadata: dict[str, Any]) -> None:
    stored = Fields.of(metadata, COLUMNS, token_keys=True)
    assert all(len(token) <= TOKEN_LENGTH and token.isascii() for token in stored.tokens)
    for column in COLUMNS.values():
        for name in (column.low, column.high):
            value = stored.columns[name]
            assert len(value) <= 256 if column.kind == "s" else abs(value) <= 1.7976931348623157e308


def test_long_strings_are_compared_as_far_as_they_are_kept() -> None:
    filters = Filters({})
    with pytest.raises(FilterError, match="too long"):
        filters.compile(parse({"x": {"$gt": "a" * 201}}))
    stored = Fields.of({"x": "a" * 300}, {})
    assert str(stored.ranges["x.s.range"]) > "a" * 200
    assert str(stored.ranges["x.s.range"]) < "a" * 199 + "b"
    assert filters.compile(parse({"x": "a" * 300})) != filters.compile(parse({"x": "a" * 301}))

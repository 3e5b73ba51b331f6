"""Filters for Milvus: what is stored of a document's metadata, and the expression that a `Condition` becomes.

Every value is stored as a token, such as `year=nc09f880000000000` or `suffix=s!2emd`, in the array column `tokens`; so
equality, lists and existence are questions about tokens. For `<` and `>` the least and the greatest value of a name are
stored too, as keys that sort as the values do: in the JSON column `ranges`, and for declared fields in columns of their
own, which the engine indexes. Whether any value is above v is then whether the greatest is.

Names and values are spelled in an alphabet of letters, digits and a few signs that mean nothing in a string literal, so
an expression holds nothing that could be taken for syntax, on any server, whatever their parsers think of escapes. The
spelling keeps the order of UTF-8, as SQLite's BINARY collation does, and numbers compare exactly.

A missing value makes a comparison neither true nor false on some servers, so "not" never stands before a comparison: it
is carried down to the tokens, and comparisons are turned around. Where a server knows no "not" at all (the core of
milvus-lite 2), tokens are keys in `ranges` as well, which can be compared with !=.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from typing import Any, NamedTuple

from semsearch.engines.protocol import FieldType
from semsearch.errors import FilterError
from semsearch.filters import Among, Atom, Compared, Condition, Has, Joined, Not, fields

__all__ = ["SIGNS", "TOKEN_LENGTH", "Column", "Fields", "Filters", "columns_of", "key_of", "spelled"]

NAME_LENGTH = 120  # of a spelled name, beyond which its hash stands for it
VALUE_LENGTH = 100  # likewise of a value in a token
RANGE_LENGTH = 200  # of a key in `ranges`, beyond which it is cut
TOKEN_LENGTH = NAME_LENGTH + VALUE_LENGTH + 4
EXACT = 2.0**53  # below, doubles compare as the numbers do
LARGEST = 1.7976931348623157e308

_TURNED = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}


def _spelling() -> list[str]:
    """What stands for each byte: letters and digits for themselves, the others so that the order is kept."""
    table = []
    for byte in range(256):
        sign = chr(byte)
        if sign.isascii() and sign.isalnum():
            table.append(sign)
        else:
            lead = "!" if sign < "0" else ":" if sign < "A" else "_" if sign < "a" else "|"
            table.append(f"{lead}{byte:02x}")
    return table


_SPELLING = _spelling()
SIGNS = "!0123456789:ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz|}"  # all that a spelling can have, in order


def spelled(text: str | bytes) -> str:
    """Text in letters, digits and !:_|, with prefixes and order kept; bytes, for strings that UTF-8 has no form for.

    >>> spelled("a-b"), spelled("é") < spelled("ê")
    ('a!2db', True)
    """
    if isinstance(text, bytes):
        return "}" + "".join(map(_SPELLING.__getitem__, text))  # after all text, as in SQLite
    return text if text.isascii() and text.isalnum() else "".join(map(_SPELLING.__getitem__, text.encode()))


def key_of(kind: str, value: Atom) -> str:
    """A string that sorts as the values of that kind ("s", "n", "b" or "z") do; equal for equal values."""
    if kind == "s":
        assert isinstance(value, (str, bytes))
        return spelled(value)
    if kind == "n":
        assert isinstance(value, (int, float))
        return _number(value)
    return "1" if value else "0"


def _number(value: int | float) -> str:
    """16 hexadecimal digits of the double at or below the number, and 3 more for what an integer has beyond it."""
    double = float(value)
    if isinstance(value, int) and double > value:
        double = math.nextafter(double, -math.inf)
    beyond = value - int(double) if isinstance(value, int) else 0
    (bits,) = struct.unpack(">Q", struct.pack(">d", double + 0.0))  # -0.0 becomes 0.0
    bits = bits ^ (1 << 64) - 1 if bits >> 63 else bits | 1 << 63
    return f"{bits:016x}{beyond:03x}" if beyond else f"{bits:016x}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else "#" + sha256(text.encode()).hexdigest()[:48]


def _name(name: str | bytes) -> str:
    return _short(spelled(name), NAME_LENGTH)


def _token(name: str, kind: str, value: Atom) -> str:
    return f"{name}={kind}{_short(key_of(kind, value), VALUE_LENGTH)}"


def _cut(key: str) -> str:
    """A key short enough for a range; a cut one ends in a sign that puts it after whatever is as long as the cut."""
    return key if len(key) <= RANGE_LENGTH else key[:RANGE_LENGTH] + "~"


class Column(NamedTuple):
    """A pair of columns, `low` and `high`, for the least and the greatest value of a declared field."""

    name: str
    kind: str

    @property
    def low(self) -> str:
        """The column of the least value."""
        return f"{self.name}_low"

    @property
    def high(self) -> str:
        """The column of the greatest value."""
        return f"{self.name}_high"

    @property
    def missing(self) -> tuple[Any, Any]:
        """What the two hold where there is no value: nothing is below the one or above the other."""
        return ("~", "") if self.kind == "s" else (LARGEST, -LARGEST)

    def stored(self, value: Atom, key: str) -> Any:
        """A value as the columns hold it; what doubles cannot tell apart is left to `ranges`."""
        if self.kind == "s":
            return "=" + _cut(key)
        assert isinstance(value, (int, float))
        return min(max(float(value), -LARGEST), LARGEST)


def columns_of(declared: Mapping[str, FieldType]) -> dict[str, Column]:
    """The columns of declared fields by spelled name; a boolean needs none, since tokens say all of it."""
    kinds = {"str": "s", "int": "n", "float": "n"}
    numbered = enumerate(declared.items())
    return {_name(name): Column(f"field_{number}", kinds[kind]) for number, (name, kind) in numbered if kind in kinds}


@dataclass(frozen=True, slots=True)
class Fields:
    """What is stored of a document's metadata."""

    tokens: list[str]
    ranges: dict[str, Any]
    columns: dict[str, Any]

    @classmethod
    def of(cls, metadata: Mapping[str, Any], columns: Mapping[str, Column], *, token_keys: bool = False) -> Fields:
        """The tokens, ranges and declared columns of metadata; `token_keys` puts the tokens into the ranges too."""
        tokens: dict[str, None] = {}
        values: dict[tuple[str, str], list[tuple[str, Atom]]] = {}
        for name, kind, value in fields(metadata):
            short = _name(name)
            tokens[_token(short, kind, value)] = None
            if kind in "ns":
                tokens[f"{short}.{kind}"] = None
                values.setdefault((short, kind), []).append((key_of(kind, value), value))
        ranges: dict[str, Any] = dict.fromkeys(tokens, 1) if token_keys else {}
        own = {each: missing for column in columns.values() for each, missing in _pairs(column, *column.missing)}
        for (name, kind), pairs in values.items():
            (least, low), (greatest, high) = min(pairs, key=itemgetter(0)), max(pairs, key=itemgetter(0))
            path = f"{name}.{kind}.range"
            if least == greatest:
                ranges[path] = _cut(least)
            else:
                ranges |= {f"{path}.low": _cut(least), f"{path}.high": _cut(greatest)}
            column = columns.get(name)
            if column is not None and column.kind == kind:
                own.update(_pairs(column, column.stored(low, least), column.stored(high, greatest)))
        return cls(list(tokens), ranges, own)


def _pairs(column: Column, low: Any, high: Any) -> list[tuple[str, Any]]:
    return [(column.low, low), (column.high, high)]


class _Tokens(NamedTuple):
    """One of the tokens is there, or none of them is (`absent`)."""

    tokens: frozenset[str]
    absent: bool


_Part = bool | str | _Tokens


@dataclass(frozen=True, slots=True)
class Filters:
    """Compiles conditions, for a collection with these columns; `token_keys` is for servers without "not"."""

    columns: Mapping[str, Column]
    token_keys: bool = False

    def compile(self, condition: Condition) -> str | bool:
        """The expression, or True or False where all or no documents match. Raises FilterError.

        >>> from semsearch.filters import parse
        >>> Filters({}).compile(parse({"suffix": {"$in": [".md", ".txt"]}}))
        'array_contains_any(tokens, ["suffix=s!2emd", "suffix=s!2etxt"])'
        """
        part = self._part(condition, False)
        return part if isinstance(part, bool) else self._written(part)

    def _part(self, condition: Condition, negated: bool) -> _Part:
        if isinstance(condition, Not):
            return self._part(condition.part, not negated)
        if isinstance(condition, Joined):
            parts = [self._part(part, negated) for part in condition.parts]
            return self._joined(parts, (condition.operator == "AND") != negated)
        name = _name(condition.name)
        if isinstance(condition, Compared):
            return self._compared(name, condition, negated)
        if isinstance(condition, Has):
            found = {f"{name}.n", f"{name}.s", f"{name}=b0", f"{name}=b1", f"{name}=z0"}
        else:
            found = {_token(name, condition.kind, value) for value in condition.values}
        return _Tokens(frozenset(found), negated) if found else negated

    def _joined(self, parts: Iterable[_Part], both: bool) -> _Part:
        """The parts joined by "and" (`both`) or "or"; questions about tokens that can be asked as one are."""
        rest: list[str] = []
        merged: set[str] = set()
        for part in parts:
            if isinstance(part, bool):
                if part != both:
                    return part
            elif isinstance(part, _Tokens) and part.absent == both:
                merged |= part.tokens
            else:
                rest.append(self._written(part))
        if merged:
            tokens = _Tokens(frozenset(merged), both)
            if not rest:
                return tokens
            rest.append(self._written(tokens))
        return _tree(rest, "and" if both else "or") if rest else both

    def _compared(self, name: str, condition: Compared, negated: bool) -> _Part:
        operator, kind, value = condition.operator, condition.kind, condition.value
        if kind == "b":
            among = tuple(each for each in (0, 1) if _holds(each, operator, value))
            return self._part(Among(condition.name, kind, among), negated)
        key = key_of(kind, value)
        if len(key) > RANGE_LENGTH:
            raise FilterError(
                f"{operator} compares with a string that is too long for this engine, which keeps {RANGE_LENGTH} bytes "
                "(fewer of what is no plain letter or digit) of each. Compare with its beginning."
            )
        upper = operator[0] == ">"
        written = _TURNED[operator] if negated else operator
        column = self.columns.get(name)
        if column is not None and column.kind == kind and (kind == "s" or _is_exact(value)):
            literal = f'"={key}"' if kind == "s" else repr(float(value))  # type: ignore[arg-type]
            return f"{column.high if upper else column.low} {written} {literal}"
        path = f"{name}.{kind}.range"
        tests = [f'ranges["{each}"] {written} "{key}"' for each in (path, f"{path}.{'high' if upper else 'low'}")]
        if negated:
            tests.append(self._written(_Tokens(frozenset([f"{name}.{kind}"]), True)))
        return _tree(tests, "or")

    def _written(self, part: str | _Tokens) -> str:
        if isinstance(part, str):
            return part
        tokens = sorted(part.tokens)
        if part.absent and self.token_keys:
            return _tree([f'ranges["{token}"] != 1' for token in tokens], "and")
        if len(tokens) == 1:
            test = f'array_contains(tokens, "{tokens[0]}")'
        else:
            test = f"array_contains_any(tokens, {json.dumps(tokens)})"
        return f"(not {test})" if part.absent else test


def _holds(value: int, operator: str, other: Atom) -> bool:
    assert isinstance(other, int)
    above, equal = value > other, value == other
    return {">": above, ">=": above or equal, "<": not above and not equal, "<=": not above}[operator]


def _is_exact(value: Atom) -> bool:
    return isinstance(value, (int, float)) and -EXACT < value < EXACT


def _tree(parts: Sequence[str], operator: str) -> str:
    """The parts joined as a balanced tree: servers refuse, or do not survive, expressions that are very deep."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_tree(parts[:middle], operator)} {operator} {_tree(parts[middle:], operator)})"

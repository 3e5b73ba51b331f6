"""`where` filters: a MongoDB-like mapping becomes a tree of conditions on single fields.

    {"suffix": ".md", "year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"tags": {"$in": ["a", "b"]}}]}

The table `fields` holds every metadata value as a row (document, name, kind, value). `parse` makes the tree, which
`columns` evaluates over arrays; `compile_where` makes one SQL query of it, slow where much matches, and the reference
for what a filter means. Names and values are only ever bound, so neither can inject anything.

As in MongoDB: several keys are joined by "and", a list matches if one of its elements does, nested mappings are reached
by dotted names, comparisons hold within one type (numbers, strings, booleans), `$ne` and `$nin` also match documents
without the field, and None matches a null or a missing field. The names `id`, `title` and `source` reach the document's
own, unless its metadata has such a key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from semsearch.errors import FilterError, InputError

__all__ = [
    "Among",
    "Atom",
    "Compared",
    "Condition",
    "Has",
    "Joined",
    "Not",
    "Where",
    "as_condition",
    "compile_where",
    "fields",
    "pack",
    "parse",
    "shown",
    "unpack",
]

Where = Mapping[str, Any]
Atom = str | int | float | bytes | None

MAX_DEPTH = 40
MAX_VALUES = 30_000  # SQLite allows 32,766 bound parameters in one statement

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_COMPARISONS, "$not")
_ALL = "SELECT key FROM documents"


def shown(value: Any) -> str:
    """What a value looks like, for a message: at most 120 characters, and never an error of its own.

    >>> shown({"year": 2020}), shown(10**5000)
    ("{'year': 2020}", '<int>')
    """
    try:
        text = repr(value)
    except Exception:  # nested too deeply, a number of too many digits, or a class with an odd __repr__
        return f"<{type(value).__name__}>"
    return text if len(text) <= 120 else text[:117] + "..."


def pack(text: str) -> str | bytes:
    """A string as SQLite can hold it: itself, or bytes if it has a lone surrogate, which UTF-8 has no form for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def unpack(value: str | bytes) -> str:
    """The string that `pack` was given."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


def fields(metadata: Mapping[str, Any]) -> Iterator[tuple[str | bytes, str, Atom]]:
    """The rows (name, kind, value) that make `metadata` searchable by `compile_where`."""
    # Without recursion: metadata may be nested as deeply as JSON allows.
    waiting: list[tuple[str, Any]] = [(_key(key), value) for key, value in metadata.items()]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{_key(key)}", inner) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(name, element) for element in value]
        else:
            yield (pack(name), *_atom(name, value))


def _key(key: Any) -> str:
    """A key as it is called when metadata was JSON: True is "true"."""
    return str.__str__(key) if isinstance(key, str) else json.dumps(key)


def _atom(name: str, value: Any) -> tuple[str, Atom]:
    """The kind ("s" string, "n" number, "b" boolean, "z" null) and the value that SQLite compares."""
    if value is None:
        return "z", 0
    if isinstance(value, bool):
        return "b", int(value)
    if isinstance(value, str):
        return "s", pack(value)
    if isinstance(value, int):
        return "n", value if -(2**63) <= value < 2**63 else _float(value)
    if isinstance(value, float) and math.isfinite(value):
        return "n", value
    raise InputError(
        f"{shown(name)} has the value {shown(value)}. Metadata and filters hold strings, finite numbers, booleans, "
        "None, and lists and mappings of these."
    )


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@dataclass(frozen=True, slots=True)
class Among:
    """One of the field's values of that kind is among `values`."""

    name: str | bytes
    kind: str
    values: tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the field's values of that kind is greater or smaller than `value`."""

    name: str | bytes
    kind: str
    operator: str
    value: Atom


@dataclass(frozen=True, slots=True)
class Has:
    """The document has the field, be it null."""

    name: str | bytes


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Joined:
    """All of the conditions hold ("AND"; no condition is true), or one of them does ("OR"; no condition is false)."""

    operator: Literal["AND", "OR"]
    parts: tuple[Condition, ...]


Condition = Among | Compared | Has | Not | Joined


class _Budget:
    """How many values a filter may still have."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, count: int) -> None:
        self.used += count
        if self.used > MAX_VALUES:
            raise FilterError(f"The filter has more than {MAX_VALUES:,} values. Split it into several searches.")


def parse(where: Where) -> Condition:
    """The conditions that a filter puts. Raises FilterError.

    >>> parse({"year": {"$gte": 2020}})
    Compared(name='year', kind='n', operator='>=', value=2020)
    """
    return _mapping(where, _Budget(), 0)


def as_condition(where: Where | Condition) -> Condition:
    """The conditions that a filter puts, where they are not parsed already. Raises FilterError."""
    return where if isinstance(where, Condition) else parse(where)


def compile_where(where: Where | Condition) -> tuple[str, list[Atom]]:
    """A SELECT of the keys of the documents that match, and its parameters. Raises FilterError."""
    parameters: list[Atom] = []
    return f"{_ALL} WHERE {_sql(as_condition(where), parameters)}", parameters


def _sql(condition: Condition, parameters: list[Atom]) -> str:
    if isinstance(condition, Joined):
        return _tree([_sql(part, parameters) for part in condition.parts], condition.operator)
    if isinstance(condition, Not):
        return f"(NOT {_sql(condition.part, parameters)})"
    if isinstance(condition, Has):
        parameters.append(condition.name)
        return "key IN (SELECT document FROM fields WHERE name = ?)"
    if isinstance(condition, Among):
        parameters += (condition.name, condition.kind, *condition.values)
        test = f"IN ({', '.join('?' * len(condition.values))})"
    else:
        parameters += (condition.name, condition.kind, condition.value)
        test = f"{condition.operator} ?"
    return f"key IN (SELECT document FROM fields WHERE name = ? AND kind = ? AND value {test})"


def _tree(parts: list[str], operator: str) -> str:
    """The parts joined as a balanced tree: SQLite refuses expressions that are more than 1,000 deep."""
    if len(parts) < 2:
        return parts[0] if parts else ("TRUE" if operator == "AND" else "FALSE")
    middle = len(parts) // 2
    return f"({_tree(parts[:middle], operator)} {operator} {_tree(parts[middle:], operator)})"


def _joined(operator: Literal["AND", "OR"], parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Joined(operator, tuple(parts))


def _mapping(where: Any, budget: _Budget, depth: int) -> Condition:
    if not isinstance(where, Mapping):
        raise FilterError(f'A filter is a mapping such as {{"suffix": ".md"}}, not {shown(where)}.')
    if depth > MAX_DEPTH:
        raise FilterError(f"The filter is nested more than {MAX_DEPTH} deep.")
    return _joined("AND", [_entry(key, value, budget, depth + 1) for key, value in where.items()])


def _entry(key: Any, value: Any, budget: _Budget, depth: int) -> Condition:
    if not isinstance(key, str):
        raise FilterError(f"The names in a filter are strings, not {shown(key)}.")
    if key in ("$and", "$or"):
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence) or not value:
            raise FilterError(f"{key} takes a list of filters with at least one in it, not {shown(value)}.")
        return _joined("AND" if key == "$and" else "OR", [_mapping(each, budget, depth) for each in value])
    if key == "$not":
        return Not(_mapping(value, budget, depth))
    if key.startswith("$"):
        raise FilterError(
            f"There is no operator {shown(key)} at this place. Known: $and, $or, $not, and after a name {_known()}."
        )
    return _condition(key, value, budget, depth)


def _known() -> str:
    return ", ".join(_OPERATORS)


def _condition(name: str, value: Any, budget: _Budget, depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise FilterError(f"The filter is nested more than {MAX_DEPTH} deep.")
    if not isinstance(value, Mapping):
        return _any_of(name, [value], budget)
    if not value:
        raise FilterError(f"{shown(name)} has an empty condition. Write a value, or one of {_known()}.")
    return _joined("AND", [_operator(name, each, operand, budget, depth) for each, operand in value.items()])


def _operator(name: str, operator: Any, operand: Any, budget: _Budget, depth: int) -> Condition:
    if operator == "$not":
        if not isinstance(operand, Mapping):
            raise FilterError(
                f'$not takes a condition such as {{"$gt": 1}}, not {shown(operand)}. For a value use $ne.'
            )
        return Not(_condition(name, operand, budget, depth + 1))
    if operator in ("$eq", "$ne"):
        found = _any_of(name, [operand], budget)
        return found if operator == "$eq" else Not(found)
    if operator in ("$in", "$nin"):
        found = _any_of(name, _operands(operator, operand), budget)
        return found if operator == "$in" else Not(found)
    if operator in _COMPARISONS:
        kind, value = _value(name, operand)
        if kind == "z":
            raise FilterError(
                f"{operator} cannot compare {shown(name)} with None. To find missing values use {{name: None}}."
            )
        budget.take(3)
        return Compared(pack(name), kind, _COMPARISONS[operator], value)
    raise FilterError(f"{shown(name)} has the operator {shown(operator)}. Known: {_known()}.")


def _operands(operator: str, operand: Any) -> list[Any]:
    if isinstance(operand, (str, bytes, Mapping)) or not isinstance(operand, (Sequence, set, frozenset)):
        raise FilterError(f"{operator} takes a list of values, not {shown(operand)}.")
    if len(operand) > MAX_VALUES:  # before a range is written out
        raise FilterError(f"{operator} has more than {MAX_VALUES:,} values. Split it into several searches.")
    return list(operand)


def _value(name: str, operand: Any) -> tuple[str, Atom]:
    try:
        return _atom(name, operand)
    except InputError as error:
        raise FilterError(str(error)) from None


def _any_of(name: str, operands: list[Any], budget: _Budget) -> Condition:
    by_kind: dict[str, list[Atom]] = {}
    for operand in operands:
        kind, value = _value(name, operand)
        by_kind.setdefault(kind, []).append(value)
    budget.take(sum(2 + len(values) for values in by_kind.values()) + ("z" in by_kind))
    parts: list[Condition] = [Among(pack(name), kind, tuple(values)) for kind, values in by_kind.items()]
    if "z" in by_kind:
        parts.append(Not(Has(pack(name))))
    return _joined("OR", parts)

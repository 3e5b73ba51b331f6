"""Hostile queries and filters: fragments of FTS, SQL and JSON-path syntax as words, names and values; wrong types;
deep, huge and self-containing filters; numbers that no database has.

Whatever `search` is given, it returns what a reference in plain Python says (`matches`), or raises an error of ours
where the reference calls the call malformed. At the end, and on the way, the database is row by row what it was.

Fault n of seed s is always the same: repeat it by `--seed s` and a count above n.
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import math
import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from toy import WordEncoder

import semsearch
from faults.outcome import Outcome
from semsearch.errors import FilterError, InputError, SemsearchError
from semsearch.filters import MAX_DEPTH, MAX_VALUES

CI = 2_000
FULL = 1_000_000

LOOK = 20_000  # faults between two looks at the whole database
ALL = 1_000  # a k that nothing here exceeds

# -- what the parts are made of ----------------------------------------------------------------------------------------

SYNTAX = [
    *("'", '"', "''", '"" ', "`", "\\", "\\'", ";", "--", "/*", "*/", "#", "%", "_", "?", "?1", ":a", "@a", "$a"),
    *("(", ")", "' OR '1'='1", "'; DROP TABLE documents; --", '"; DELETE FROM passages; --', "') OR 1=1 --"),
    *("1 UNION SELECT 1", "x' AND sleep(5) --", "ATTACH DATABASE 'x' AS y", "PRAGMA user_version=9"),
    *("load_extension('x')", "x'41'", "NULL", "fee NEAR/2 list", "NEAR(fee list)", "fee AND", "OR", "NOT fee"),
    *("fee*", "^fee", "title:fee", "{id title}: fee", '"fee', '"fee" + "list"', "fee AND (list OR", "-fee", "+fee"),
    *("fee~2", "fee^4", "[1 TO 9]", "*:*", "documents MATCH x", "$.a", "$", "$.", "$..*", "$[0]", "$.a[#-1]"),
    *("$['a']", '$."a.b"', "$[*]", "$.a'||'b", "->>'$.a'", "a.b", "a..b", ".", "{{7*7}}", "${x}", "%(name)s"),
    *("{0.__class__}", "../../etc/passwd", "file:///x", "\0", "a\0b", "\r\n", "\t", "\x1b[31m", "\ud800", "a\udfff"),
    *("\u202eabc", "\ufeff", "é", "e\u0301", "ſ", "İ", "ß", "😀", "👩‍👩‍👧", "図書館", "ห้องสมุด", "مكتبة", "$eq", "$gt"),
    *("$where", "$regex", "__proto__", "constructor", "id", "title", "source", "year", "key", "document", "fee"),
    *("list", "fees late", "opening hours", "0", "1", "-1", "1e309", "nan", "true", "null", " ", "", "a" * 300),
]
NAMES = [*SYNTAX, "year", "tags", "suffix", "a.b", "a", "b", "n", "flag", "year", "tags", "n", "a.b.c"]
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 2020, 1.5, -0.0, 1e308, 5e-324, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, 2**63, -(2**63)),
    *(-(2**63) - 1, 10**400, -(10**400), 0.1, 0.1 + 0.2),
]
OTHERS: list[Any] = [True, False, None]


def _endless() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["$not"] = loop
    return loop


def _deep(kind: type, depth: int) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"$not": value}
    return value


WRONG: list[Any] = [
    *(math.nan, math.inf, -math.inf, 1j, b"", b"bytes", bytearray(b"ab"), object, len, 10**5000, {10**5000: 1}),
    *(set(), {1, "a"}, frozenset({2020}), (), [], {}, [[]], [{}], range(3), range(10**12), "x" * 100_000),
    *(np.float64(2020), np.int64(2020), np.bool_(True), np.array([1]), decimal.Decimal(1), dt.date(2020, 1, 1)),
    *(_endless(), _deep(dict, 39), _deep(dict, 3000), _deep(list, 3000), list(range(40_000)), ["a"] * 20_000),
    *([{"n": number} for number in range(9_000)], [None], [math.nan], [10**5000], iter(()), ["a", ["b"]]),
    [True, 1, "1"],
]
OPERATORS: list[Any] = [
    *("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$not", "$and", "$or", "$nor", "$where", "$regex"),
    *("$", "", "$EQ", "$gt ", "$exists", "eq", 5, None, ("a",), True, b"$eq", "$eq'", "$gt; DROP TABLE documents"),
]

# -- the reference -----------------------------------------------------------------------------------------------------


class MalformedError(Exception):
    """The filter is not one."""


def kind_of(value: Any) -> str:
    """The type within which values compare; raises MalformedError for what no filter and no metadata holds."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return "number"
    raise MalformedError


def _order(value: Any) -> Any:
    """What a value is compared by: whole numbers of more than 64 bits as float, strings by code point, those with a
    lone surrogate last."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return any("\ud800" <= each <= "\udfff" for each in value), data
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def fields_of(document: semsearch.Document) -> dict[str, list[Any]]:
    """Every name that a filter can have for this document, and the values below it."""
    found: dict[str, list[Any]] = {}
    own = {"id": document.id, "title": document.title, "source": document.source}
    _collect({**own, **document.metadata}, "", found)
    return found


def _collect(mapping: Mapping[str, Any], prefix: str, found: dict[str, list[Any]]) -> None:
    for key, value in mapping.items():
        waiting = [value]
        while waiting:
            each = waiting.pop()
            if isinstance(each, Mapping):
                _collect(each, f"{prefix}{key}.", found)
            elif isinstance(each, (list, tuple)):
                waiting.extend(each)
            else:
                found.setdefault(f"{prefix}{key}", []).append(each)


def matches(fields: Mapping[str, list[Any]], where: Any) -> bool:
    """Whether a document with these fields matches; raises MalformedError, wherever in the filter the mistake is."""
    if not isinstance(where, Mapping):
        raise MalformedError
    return all([_entry(fields, key, value) for key, value in where.items()])


def _entry(fields: Mapping[str, list[Any]], key: Any, value: Any) -> bool:
    if not isinstance(key, str):
        raise MalformedError
    if key in ("$and", "$or"):
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence) or not value:
            raise MalformedError
        every = [matches(fields, each) for each in value]
        return all(every) if key == "$and" else any(every)
    if key == "$not":
        return not matches(fields, value)
    if key.startswith("$"):
        raise MalformedError
    return _condition(fields.get(key, []), value)


def _condition(values: list[Any], condition: Any) -> bool:
    if not isinstance(condition, Mapping):
        return _equal(values, condition)
    if not condition:
        raise MalformedError
    return all([_operator(values, operator, operand) for operator, operand in condition.items()])


def _operator(values: list[Any], operator: Any, operand: Any) -> bool:
    if operator == "$not" and isinstance(operand, Mapping):
        return not _condition(values, operand)
    if operator in ("$eq", "$ne"):
        return _equal(values, operand) == (operator == "$eq")
    if operator in ("$in", "$nin"):
        if isinstance(operand, (str, bytes, Mapping)) or not isinstance(operand, (Sequence, set, frozenset)):
            raise MalformedError
        return any([_equal(values, each) for each in operand]) == (operator == "$in")
    if operator in ("$gt", "$gte", "$lt", "$lte") and kind_of(operand) != "null":
        return _compares(values, str(operator), operand)
    raise MalformedError


def _equal(values: list[Any], operand: Any) -> bool:
    kind = kind_of(operand)
    if kind == "null" and not values:
        return True
    return any(kind_of(value) == kind and _order(value) == _order(operand) for value in values)


def _compares(values: list[Any], operator: str, operand: Any) -> bool:
    kind, bound = kind_of(operand), _order(operand)
    same = [_order(value) for value in values if kind_of(value) == kind]
    if operator in ("$gt", "$gte"):
        return any(value > bound or (operator == "$gte" and value == bound) for value in same)
    return any(value < bound or (operator == "$lte" and value == bound) for value in same)


def is_large(where: Any, depth: int = 0) -> bool:
    """Whether a filter may be refused for its size alone: near the limits of depth or values, or past them."""
    if depth > MAX_DEPTH - 10:
        return True
    if isinstance(where, Mapping):
        return len(where) > 1000 or any(is_large(each, depth + 1) for each in where.values())
    if isinstance(where, range):
        return len(where) > MAX_VALUES // 10
    if isinstance(where, (list, tuple)):
        return len(where) > MAX_VALUES // 10 or any(is_large(each, depth + 1) for each in where)
    return False


# -- the grammar -------------------------------------------------------------------------------------------------------


def value(choose: random.Random) -> Any:
    """A value that metadata and filters may hold."""
    return choose.choice(choose.choices([NUMBERS, SYNTAX, OTHERS], [5, 4, 1])[0])


def text(choose: random.Random) -> str:
    """A query, most often with a word that is there."""
    parts = choose.choices(SYNTAX, k=choose.choice([1, 1, 2, 3, 8]))
    return choose.choice([" ", " ", "", "\n"]).join(parts)


def where(choose: random.Random, depth: int = 0) -> dict[str, Any]:
    """A filter that is well formed."""
    found: dict[str, Any] = {}
    for _ in range(choose.choice([0, 1, 1, 1, 1, 2, 3])):
        if depth < 4 and choose.random() < 0.3:
            kind = choose.choice(["$and", "$or", "$not"])
            many = choose.choice([1, 2, 3])
            found[kind] = (
                where(choose, depth + 1) if kind == "$not" else [where(choose, depth + 1) for _ in range(many)]
            )
            continue
        name = choose.choice(NAMES)
        if not name.startswith("$"):
            found[name] = value(choose) if choose.random() < 0.3 else condition(choose)
    return found


def condition(choose: random.Random, depth: int = 0) -> dict[str, Any]:
    """What may stand behind a name, and is well formed."""
    found: dict[str, Any] = {}
    for _ in range(choose.choice([1, 1, 2])):
        operator = choose.choice(OPERATORS[: 9 if depth < 3 else 8])
        if operator == "$not":
            found[operator] = condition(choose, depth + 1)
        elif operator in ("$in", "$nin"):
            found[operator] = [value(choose) for _ in range(choose.choice([0, 1, 2, 5, 40]))]
        else:
            found[operator] = value(choose)
            if found[operator] is None and operator not in ("$eq", "$ne"):
                found[operator] = 0
    return found


def broken(choose: random.Random, filter: Any) -> Any:
    """The filter with one place replaced: an operand, an operator, a name, or all of it."""
    if not isinstance(filter, dict) or not filter or choose.random() < 0.15:
        return choose.choice(WRONG)
    key = choose.choice([*filter])
    if choose.random() < 0.3:
        changed = {each: operand for each, operand in filter.items() if each is not key}
        return {**changed, choose.choice(OPERATORS): filter[key]}
    inner = filter[key]
    if isinstance(inner, list) and inner:
        place = choose.randrange(len(inner))
        return {**filter, key: [*inner[:place], broken(choose, inner[place]), *inner[place + 1 :]]}
    return {**filter, key: broken(choose, inner)}


def documents(seed: int, count: int) -> Iterator[semsearch.Document]:
    """Documents with hostile ids, titles and metadata, of one passage each."""
    choose = random.Random(f"documents {seed}")
    for number in range(count):
        words = choose.choices(["fee", "list", "late", "opening", "hours", "図書館", "0", *SYNTAX], k=6)
        metadata: dict[str, Any] = {}
        for _ in range(choose.randrange(12)):
            metadata[choose.choice(NAMES)] = _stored(choose)
        id = f"{number}{choose.choice(SYNTAX)}"
        yield semsearch.Document(id, "word " + " ".join(words), choose.choice(SYNTAX), choose.choice(SYNTAX), metadata)


def _stored(choose: random.Random, depth: int = 0) -> Any:
    kind = choose.random()
    if depth > 2 or kind < 0.6:
        return value(choose)
    if kind < 0.8:
        return [_stored(choose, depth + 1) for _ in range(choose.randrange(4))]
    return {choose.choice(NAMES): _stored(choose, depth + 1) for _ in range(choose.randrange(3))}


# -- the faults --------------------------------------------------------------------------------------------------------

QUERIES: list[Any] = ["", " \n", None, 5, b"fee", ["fee", 3], [None], {"a": 1}, iter(["a"]), ["fee", " "], object()]
COUNTS: list[Any] = [0, -1, True, 1.0, "3", None, math.nan, -(10**30), [1], np.int64(3)]
MODES: list[Any] = ["", "HYBRID", None, "dense; DROP TABLE documents", 5, ["dense"], "lexical\0"]


class Attack:
    """An index that is searched, and what is known of it."""

    def __init__(self, folder: Path, seed: int, outcome: Outcome) -> None:
        self.seed = seed
        self.outcome = outcome
        self.index = semsearch.Index(folder / "index", encoder=WordEncoder())
        self.documents = list(documents(seed, 60))
        self.index.add(self.documents)
        self.fields = {each.id: fields_of(each) for each in self.documents}
        hits = self.index.search("word", k=ALL, mode="dense")
        # Title and text, as that is what is indexed.
        self.tokens = {each.id: set(self.index.analyzer(f"{each.title}\n{each.text}")) for each in self.documents}
        if len(hits) != len(self.documents):
            outcome.fail(f"seed {seed}: {len(hits)} passages of {len(self.documents)} documents")
        self.database = folder / "index" / "index.db"
        self.before = contents(self.database)

    def attack(self, number: int) -> None:
        """Fault `number`: what it is, and what comes of it."""
        choose = random.Random(f"{self.seed}:{number}")
        query: Any = text(choose)
        k: Any = choose.choice([ALL, ALL, 1, 3, 10, 10**30])
        mode: Any = choose.choice(["lexical", "dense", "hybrid"])
        filter: Any = where(choose)
        kind = choose.choices(["filter", "broken", "types", "id"], [5, 4, 1, 1])[0]
        if kind == "broken":
            filter = broken(choose, filter)
        elif kind == "types":
            query, k, mode = self._mistyped(choose, query, k, mode)
        elif kind == "id":
            self._by_id(choose)
            return
        call = f"search({_short(query)}, {_short(k)}, {mode!r}, {_short(filter)})"
        said = f"seed {self.seed}, fault {number}, {kind}: {call}"
        try:
            expected = self._expected(query, k, mode, filter)
        except MalformedError:
            expected = None
        self._compare(said, kind, expected, (query, k, mode, filter))

    def _compare(self, said: str, kind: str, expected: tuple[set[str], int] | None, call: tuple[Any, ...]) -> None:
        query, k, mode, filter = call
        try:
            hits = self.index.search(query, k, where=filter, mode=mode)
        except InputError as error:
            refused = kind == "broken" and isinstance(error, FilterError) and is_large(filter)
            self.outcome.counters["refused for its size" if refused and expected else "refused"] += 1
            if expected is not None and not refused:
                self.outcome.fail(f"{said} raised {type(error).__name__}: {str(error)[:200]}")
        except Exception as error:
            ours = "" if isinstance(error, SemsearchError) else ", not ours"
            self.outcome.fail(f"{said} raised {type(error).__name__}{ours}: {str(error)[:200]}")
        else:
            self.outcome.counters[f"answered, {kind}"] += 1
            found = [hit.passage.document_id for hit in hits]
            if expected is None:
                self.outcome.fail(f"{said} answered with {len(found)} hits, which should have been refused")
            elif len(found) != expected[1] or not set(found) <= expected[0]:
                missing, more = expected[0] - set(found), set(found) - expected[0]
                self.outcome.fail(f"{said} found {len(found)} of {expected[1]}; wrong {more}, missing {missing}")

    def _expected(self, query: Any, k: Any, mode: Any, filter: Any) -> tuple[set[str], int]:
        """The ids that may be found, and how many of them; raises MalformedError."""
        if not isinstance(query, str) or not query.strip() or mode not in ("lexical", "dense", "hybrid"):
            raise MalformedError
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise MalformedError
        if is_too_deep(filter):
            raise MalformedError
        allowed = {id for id, fields in self.fields.items() if matches(fields, filter)}
        if mode == "lexical":
            terms = set(self.index.analyzer.query(query))
            allowed = {id for id in allowed if terms & self.tokens[id]}
        return allowed, min(k, len(allowed))

    def _mistyped(self, choose: random.Random, query: Any, k: Any, mode: Any) -> tuple[Any, Any, Any]:
        which = choose.randrange(3)
        return (
            choose.choice(QUERIES) if which == 0 else query,
            choose.choice(COUNTS) if which == 1 else k,
            choose.choice(MODES) if which == 2 else mode,
        )

    def _by_id(self, choose: random.Random) -> None:
        known = {each.id: each for each in self.documents}
        id = choose.choice([*known, *SYNTAX, *(each for each in WRONG if not isinstance(each, range))])
        self.outcome.counters["by id"] += 1
        calls = [self.index.get] if isinstance(id, str) and id in known else [self.index.get, self.index.remove]
        for call in calls:
            said = f"seed {self.seed}: {call.__name__}({_short(id)})"
            try:
                found = call(id)
                if found != (known.get(id) if isinstance(id, str) else None) and found != 0:
                    self.outcome.fail(f"{said} is {_short(found)}")
            except InputError:
                if isinstance(id, str):
                    self.outcome.fail(f"{said} raised")
            except Exception as error:
                self.outcome.fail(f"{said} raised {type(error).__name__}: {str(error)[:200]}")

    def look(self, number: int) -> None:
        """Compare the whole database with what it was."""
        self.outcome.counters["looks at the whole database"] += 1
        if contents(self.database) != self.before:
            self.outcome.fail(f"seed {self.seed}: the database is not what it was, at or before fault {number}")
            self.before = contents(self.database)


def is_too_deep(filter: Any) -> bool:
    """Whether the reference itself could not follow; such a filter is to be refused."""
    depth, level = 0, [filter]
    while level:
        depth += 1
        if depth > 100:
            return True
        below = [each for value in level if isinstance(value, Mapping) for each in value.values()]
        below += [each for value in level if isinstance(value, list) for each in value[:100]]
        level = below[:1000]
    return isinstance(filter, Mapping) and any(
        isinstance(each, range) and len(each) > 10**6 for each in _leaves(filter)
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value[:100]:
            yield from _leaves(each)
    else:
        yield value


def contents(database: Path) -> str:
    """A hash of the schema and of every row."""
    found = hashlib.sha256()
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        found.update(repr(schema).encode())
        for kind, name, _ in schema:
            if kind == b"table":
                for row in connection.execute(f'SELECT * FROM "{name.decode()}"'):
                    found.update(repr(row).encode())
    finally:
        connection.close()
    return found.hexdigest()


def _short(value: Any) -> str:
    try:
        shown = ascii(value)
    except (ValueError, RecursionError) as error:
        return f"<{type(value).__name__}: {error}>"[:80]
    return shown if len(shown) <= 600 else shown[:600] + "..."


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    attack = Attack(folder, seed, outcome)
    with attack.index:
        for number in range(count):
            attack.attack(number)
            outcome.done += 1
            if number % LOOK == LOOK - 1:
                attack.look(number)
        attack.look(count)
    return outcome

"""What every engine does the same, on every lane: by numbers that can be computed by hand.

A document here is a few passages, one a line. The vectors have four dimensions and unit length.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch.embedded import EmbeddedEngine
from semsearch.engines import open_engine
from semsearch.engines.protocol import Engine, Entry, Part, Specification
from semsearch.errors import (
    CorruptIndexError,
    FilterError,
    IndexMismatchError,
    IndexNotFoundError,
    InputError,
    SemsearchError,
)
from semsearch.filters import compile_where, fields, parse
from semsearch.records import Document
from semsearch.tables import SCHEMA, digest

ENCODER = {"name": "by-hand", "dimension": 4}
ANALYZER = {"rules": 2, "snowball": "3"}
SPECIFICATION = Specification(4, ENCODER, ANALYZER, fields={"year": "int", "lang": "str", "price": "float"})

EAST, NORTH, UP, OUT = np.eye(4, dtype=np.float32)
NORTHEAST = np.array([0.6, 0.8, 0, 0], np.float32)  # by EAST 0.6, by NORTH 0.8
RISING = np.array([0.8, 0, 0.6, 0], np.float32)  # by EAST 0.8, by NORTHEAST 0.48
WEST = -EAST


def entry(
    id: str,
    *passages: tuple[str, np.ndarray | None],
    metadata: Mapping[str, Any] | None = None,
    title: str = "",
    source: str = "",
    file: Mapping[str, Any] | None = None,
) -> Entry:
    """A document of passages, each a text and a vector, with a line break between."""
    parts, at = [], 0
    for text, vector in passages:
        terms = text.lower().split()
        parts.append(Part(at, at + len(text), None, "", digest(f"{text} {vector}"), terms, vector))
        at += len(text) + 1
    document = Document(id, "\n".join(text for text, _ in passages), title, source, metadata or {})
    return Entry(document, parts, file)


def file_of(root: int, path: str) -> dict[str, Any]:
    return {
        "root": root, "path": path, "size": 7, "mtime_ns": 1_700_000_000_123_456_789, "inode": 2**60 + 1,
        "digest": "ab" * 16, "reason": None, "release": "0.1.0",
    }  # fmt: skip


def another(location: str) -> Engine:
    """A second engine at the same place."""
    return open_engine(location) if "://" in location else EmbeddedEngine(Path(location))


@pytest.fixture
def opened(engine: Engine) -> Engine:
    engine.open(SPECIFICATION, create=True)
    return engine


FRUIT = entry("fruit", ("apple pie", EAST), ("green apple and red apple", NORTHEAST))
METAL = entry("metal", ("copper wire", NORTH), ("an apple of copper", RISING))


@pytest.fixture
def stored(opened: Engine) -> Engine:
    opened.upsert([FRUIT, METAL])
    return opened


def named(engine: Engine, ranking: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
    """A ranking by the texts of its passages, with rounded scores."""
    passages = engine.passages([id for id, _ in ranking])
    return [(passages[id].text, round(score, 5)) for id, score in ranking]


def found(engine: Engine, where: Mapping[str, Any]) -> set[str]:
    """The ids of the documents that a filter finds, by each of the ways that there are, which have to agree."""
    condition = parse(where)
    scanned = {entry.document.id for _, entry in walked(engine, 50, where)}
    passages = engine.passages(engine.matching(condition, 10_000))
    assert {passage.document_id for passage in passages.values()} == scanned
    assert engine.count(condition) == (len(scanned), len(passages))
    return scanned


def walked(engine: Engine, limit: int, where: Mapping[str, Any] | None = None) -> list[tuple[str, Entry]]:
    """All documents, `limit` at a time."""
    condition = None if where is None else parse(where)
    met: list[tuple[str, Entry]] = []
    while page := engine.scan(met[-1][0] if met else "", limit, condition):
        assert len(page) <= limit
        met += page
    return met


# -- opening -----------------------------------------------------------------------------------------------------------


def test_a_collection_stays_bound_to_what_it_was_made_for(engine: Engine, location: str) -> None:
    with pytest.raises(IndexNotFoundError, match="ndex"):
        engine.open(None, create=False)
    with pytest.raises(IndexNotFoundError):
        engine.open(SPECIFICATION, create=False)
    made = engine.open(SPECIFICATION, create=True)
    assert (made.dimension, made.encoder, made.analyzer) == (4, ENCODER, ANALYZER)
    engine.upsert([FRUIT])
    engine.close()
    engine.close()

    again = another(location)
    try:
        assert again.open(None, create=False) == made
        assert again.count() == (1, 2)
    finally:
        again.close()
    for other in (
        Specification(4, {"name": "by-heart", "dimension": 4}, ANALYZER),
        Specification(4, ENCODER, {"rules": 3, "snowball": "3"}),
        Specification(5, {"name": "by-hand", "dimension": 5}, ANALYZER),
    ):
        again = another(location)
        try:
            with pytest.raises(IndexMismatchError) as error:
                again.open(other, create=True)
            assert location.split("/")[-1] in str(error.value)
        finally:
            again.close()
    again = another(location)
    try:
        again.open(SPECIFICATION, create=True)
        assert again.count() == (1, 2)
    finally:
        again.close()


def test_a_closed_engine_says_so(stored: Engine) -> None:
    stored.close()
    with pytest.raises(SemsearchError, match=r"not open|closed"):
        stored.count()


# -- ranking -----------------------------------------------------------------------------------------------------------


def test_dense_scores_are_inner_products(stored: Engine) -> None:
    stored.upsert([entry("west", ("far away", WEST))])
    first, second = stored.dense(np.stack([EAST, NORTHEAST]), 10)
    assert named(stored, first) == [
        ("apple pie", 1.0), ("an apple of copper", 0.8), ("green apple and red apple", 0.6), ("copper wire", 0.0),
        ("far away", -1.0),
    ]  # fmt: skip
    assert named(stored, second) == [
        ("green apple and red apple", 1.0), ("copper wire", 0.8), ("apple pie", 0.6), ("an apple of copper", 0.48),
        ("far away", -0.6),
    ]  # fmt: skip
    assert stored.dense(np.stack([EAST, NORTHEAST]), 2) == [first[:2], second[:2]]
    assert stored.dense(np.zeros((0, 4), np.float32), 2) == []
    assert all(isinstance(id, int) and 0 < id < 2**63 and isinstance(score, float) for id, score in first)


def test_nothing_stored_nothing_found(opened: Engine) -> None:
    assert opened.dense(EAST[None], 3) == [[]]
    assert opened.count() == (0, 0)
    assert opened.scan() == []
    assert opened.get(["fruit"]) == {}
    assert opened.passages([1]) == {}
    assert opened.matching(parse({}), 5) == []
    assert opened.read_state() == {}
    opened.upsert([])
    opened.delete([])
    opened.write_state({})


def test_ties_are_in_the_order_of_ids(opened: Engine) -> None:
    opened.upsert([entry(f"same {number}", ("one", UP), (f"other {number}", OUT)) for number in range(20)])
    (ranking,) = opened.dense(UP[None], 40)
    assert [round(score, 6) for _, score in ranking] == [1.0] * 20 + [0.0] * 20
    ids = [id for id, _ in ranking]
    assert ids[:20] == sorted(ids[:20])
    assert ids[20:] == sorted(ids[20:])
    assert opened.dense(UP[None], 40) == [ranking]


def test_a_passage_without_a_vector_is_not_ranked_by_meaning(opened: Engine) -> None:
    opened.upsert([entry(f"mute {number}", (f"silence {number}", None)) for number in range(90)])
    opened.upsert([entry("west", ("far away", WEST), ("nothing at all", None))])
    (ranking,) = opened.dense(EAST[None], 5)  # a zero vector would score more than WEST
    assert named(opened, ranking) == [("far away", -1.0)]
    ids = opened.owned(["west"])["west"]
    assert list(opened.vectors_of(ids)) == ids[:1]
    assert opened.count() == (91, 92)
    if opened.capabilities.text:
        (ranking,) = opened.text([["nothing"]], 5)
        assert [id for id, _ in ranking] == ids[1:]


def test_keywords_rank_what_has_them(stored: Engine) -> None:
    if not stored.capabilities.text:
        with pytest.raises(InputError, match="keyword"):
            stored.text([["apple"]], 3)
        return
    wire, apple, none, empty = stored.text([["wire", "copper"], ["apple"], ["zeppelin"], []], 10)
    # "copper wire" has both terms, and is the shorter of the two that have "copper".
    assert [text for text, _ in named(stored, wire)] == ["copper wire", "an apple of copper"]
    # Twice in five terms is more than once in two, and that is more than once in four (k1 1.2 to 1.5, b 0.75).
    names = [text for text, _ in named(stored, apple)]
    assert sorted(names) == ["an apple of copper", "apple pie", "green apple and red apple"]
    assert names[-1] == "an apple of copper"
    assert none == empty == []
    for ranking in (wire, apple):
        scores = [score for _, score in ranking]
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] > 0
    assert stored.text([["apple"]], 1) == [apple[:1]]
    assert named(stored, stored.text([["apple"]], 1, parse({"id": "metal"}))[0])[0][0] == "an apple of copper"
    assert stored.text([["apple"]], 1, parse({"id": "nothing"})) == [[]]


def test_terms_of_any_script_are_found_whole(opened: Engine) -> None:
    if not opened.capabilities.text:
        pytest.skip("no keyword search")
    texts = ["東京 都市", "c++ 3.11", "naïve café", "max_tokens", "x" * 64, "x1234567890abcdef"]
    opened.upsert([entry(text, (text, UP)) for text in texts])
    for text in texts:
        for term in text.split():
            (ranking,) = opened.text([[term]], 10)
            assert [text for text, _ in named(opened, ranking)] == [text]
    assert opened.text([["京"], ["c"], ["cafe"], ["tokens"], ["3"]], 10) == [[], [], [], [], []]


def test_k_come_back_if_k_match(opened: Engine) -> None:
    """The nearest do not match, and what matches is far."""
    near = [entry(f"near {number}", ("near", EAST), metadata={"year": 2000}) for number in range(30)]
    far = [entry(f"far {number}", ("far", WEST), metadata={"year": 2001}) for number in range(7)]
    opened.upsert(near + far)
    for where in ({"year": 2001}, {"year": {"$gt": 2000}}, {"id": {"$gte": "far", "$lt": "far!"}}):
        (ranking,) = opened.dense(EAST[None], 5, parse(where))
        assert named(opened, ranking) == [("far", -1.0)] * 5
        (ranking,) = opened.dense(EAST[None], 50, parse(where))
        assert len(ranking) == 7
    assert opened.dense(EAST[None], 5, parse({"year": 1999})) == [[]]
    assert opened.dense(EAST[None], 5, parse({"year": {"$in": []}})) == [[]]
    (ranking,) = opened.dense(EAST[None], 50, parse({}))
    assert len(ranking) == 37


# -- filters -----------------------------------------------------------------------------------------------------------

LIBRARY = {
    "1": {"suffix": ".md", "year": 2019, "tags": ["a", "b"], "lang": "en", "price": 1.5},
    "2": {"suffix": ".md", "year": 2021, "draft": True, "tags": "b", "lang": ["de", "en"], "price": [0.5, 3]},
    "3": {"suffix": ".pdf", "year": [2020, 2022], "author": {"name": "Ada", "born": 1815}, "price": -0.0},
    "4": {"suffix": ".pdf", "year": "2021", "note": None, "lang": None, "price": "free"},
    "5": {"draft": False, "empty": [], "nested": {"deep": {"deeper": ["x", None, 3]}}, "big": 2**53 + 1},
    "6": {"title": "own", "id": "mine", "big": [2**53, -(2**62)], "year": 2**60, "lang": "", "price": 10**400},
}  # fmt: skip


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_filters_mean_what_they_say(engine: Engine, declared: bool) -> None:
    engine.open(SPECIFICATION if declared else Specification(4, ENCODER, ANALYZER), create=True)
    engine.upsert(
        [
            entry(id, (f"number {id}", EAST), ("and more", NORTH), metadata=metadata, title="T", source="/s")
            for id, metadata in LIBRARY.items()
        ]
    )
    expected: list[tuple[Mapping[str, Any], str]] = [
        ({}, "123456"),
        ({"suffix": ".md"}, "12"),
        ({"suffix": {"$eq": ".md"}}, "12"),
        ({"suffix": {"$ne": ".md"}}, "3456"),
        ({"suffix": {"$in": [".md", ".txt"]}}, "12"),
        ({"suffix": {"$in": []}}, ""),
        ({"suffix": {"$nin": [".md"]}}, "3456"),
        ({"suffix": {"$nin": []}}, "123456"),
        ({"year": 2021}, "2"),
        ({"year": 2021.0}, "2"),
        ({"year": "2021"}, "4"),
        ({"year": {"$gt": 2019}}, "236"),
        ({"year": {"$gte": 2019}}, "1236"),
        ({"year": {"$lt": 2021}}, "13"),
        ({"year": {"$lte": 2021}}, "123"),
        ({"year": {"$lte": 2018.9}}, ""),
        ({"year": {"$gt": 2020, "$lt": 2021.5}}, "23"),  # one value above, another below: as in MongoDB
        ({"year": {"$gt": "2020"}}, "4"),
        ({"year": {"$gt": 2**59}}, "6"),
        ({"year": {"$lt": -(2**59)}}, ""),
        ({"year": {"$not": {"$gt": 2019}}}, "145"),
        ({"year": {"$not": {"$lte": 2021}}}, "456"),
        ({"year": 2020}, "3"),
        ({"year": {"$ne": 2022}}, "12456"),
        ({"tags": "b"}, "12"),
        ({"tags": {"$ne": "a"}}, "23456"),
        ({"tags": {"$in": ["a", "zz"]}}, "1"),
        ({"draft": True}, "2"),
        ({"draft": False}, "5"),
        ({"draft": 1}, ""),
        ({"draft": {"$gt": False}}, "2"),
        ({"draft": {"$lte": True}}, "25"),
        ({"draft": {"$not": {"$lt": True}}}, "12346"),
        ({"note": None}, "123456"),
        ({"note": {"$ne": None}}, ""),
        ({"suffix": None}, "56"),
        ({"suffix": {"$ne": None}}, "1234"),
        ({"lang": None}, "345"),
        ({"lang": "en"}, "12"),
        ({"lang": "de"}, "2"),
        ({"lang": ""}, "6"),
        ({"lang": {"$gte": ""}}, "126"),
        ({"lang": {"$gt": ""}}, "12"),
        ({"lang": {"$lt": "e"}}, "26"),
        ({"lang": {"$lte": ""}}, "6"),
        ({"lang": {"$not": {"$lt": "e"}}}, "1345"),
        ({"empty": None}, "123456"),
        ({"price": 0}, "3"),
        ({"price": {"$gte": 0}}, "1236"),
        ({"price": {"$lt": 0}}, ""),
        ({"price": {"$gt": 2}}, "26"),
        ({"price": {"$gt": 1e300}}, "6"),
        ({"price": {"$not": {"$gte": 0.5}}}, "345"),
        ({"author.name": "Ada"}, "3"),
        ({"author.born": {"$lt": 1900}}, "3"),
        ({"author": "Ada"}, ""),
        ({"nested.deep.deeper": "x"}, "5"),
        ({"nested.deep.deeper": 3}, "5"),
        ({"nested.deep.deeper": None}, "123456"),
        ({"nested.deep.deeper": {"$ne": None}}, ""),
        ({"big": 2**53}, "6"),
        ({"big": 2**53 + 1}, "5"),
        ({"big": {"$gt": 2**53}}, "5"),
        ({"big": {"$gte": 2**53}}, "56"),
        ({"big": {"$lt": 2**53}}, "6"),
        ({"big": {"$lt": -(2**62)}}, ""),
        ({"big": {"$lte": float(-(2**62))}}, "6"),
        ({"id": "1"}, "1"),
        ({"id": "mine"}, "6"),
        ({"id": "6"}, ""),
        ({"id": {"$gt": "3"}}, "456"),
        ({"title": "T"}, "12345"),
        ({"title": {"$ne": "T"}}, "6"),
        ({"source": "/s"}, "123456"),
        ({"suffix": ".md", "year": 2021}, "2"),
        ({"$and": [{"suffix": ".md"}, {"year": 2021}]}, "2"),
        ({"$or": [{"year": 2019}, {"author.name": "Ada"}]}, "13"),
        ({"$or": [{"year": 2019}, {"year": {"$gt": 2021}}, {"draft": {"$ne": True}}]}, "13456"),
        ({"$not": {"suffix": ".md"}}, "3456"),
        ({"$not": {}}, ""),
        ({"$not": {"$or": [{"suffix": ".md"}, {"suffix": ".pdf"}]}}, "56"),
        ({"$not": {"$and": [{"suffix": ".md"}, {"year": {"$gt": 2020}}]}}, "13456"),
        ({"suffix": ".pdf", "$or": [{"year": {"$gte": 2020}}, {"note": None}]}, "34"),
        ({"$or": [{"year": 1000 + number} for number in range(1500)]}, "123"),
        ({"year": {"$nin": list(range(1000, 2500))}}, "456"),
    ]
    names = {"".join(sorted(found(engine, where))) for where, _ in expected[:1]}
    assert names == {"123456"}
    wrong = {f"{where}"[:200]: got for where, ids in expected if (got := "".join(sorted(found(engine, where)))) != ids}
    assert wrong == {}


HOSTILE = [
    "'; DROP TABLE documents; --", '"', "\\", '\\"', "a'b", '"] or id > 0 or ["', "%", "_", "a\0b", "\ud800",
    "\udfff\ud800", "😀", "\u00e9", "e\u0301", "$.a[0]", "{x}", "\n", "\t", "", " ", "not", "id", "tokens", "a" * 500,
    "ß" * 300, "~", "/", "\x1a0041",
]  # fmt: skip


def test_names_and_values_are_only_data(opened: Engine) -> None:
    opened.upsert(
        [entry(f"value {n}", ("x", EAST), metadata={"key": text}) for n, text in enumerate(HOSTILE)]
        + [entry(f"name {n}", ("x", EAST), metadata={text: n, "n": n}) for n, text in enumerate(HOSTILE)]
        + [entry(f"lang {n}", ("x", EAST), metadata={"lang": text}) for n, text in enumerate(HOSTILE)]
    )
    assert opened.count() == (3 * len(HOSTILE), 3 * len(HOSTILE))
    for number, text in enumerate(HOSTILE):
        assert found(opened, {"key": text}) == {f"value {number}"}
        assert found(opened, {"key": {"$in": [text, "nobody"]}}) == {f"value {number}"}
        assert found(opened, {"lang": text}) == {f"lang {number}"}
        if text != "id" and not text.startswith("$"):  # every document has an id, and operators begin so
            assert found(opened, {text: number}) == {f"name {number}"}
            assert found(opened, {text: {"$gte": number}, "n": number}) == {f"name {number}"}
            assert found(opened, {text: {"$ne": None}}) == {f"name {number}"}
    assert len(found(opened, {"key": {"$nin": HOSTILE}})) == 2 * len(HOSTILE)


def test_strings_sort_as_utf_8_does(opened: Engine) -> None:
    texts = [text for text in HOSTILE if len(text) < 60]
    for name in ("key", "lang"):  # one of them declared
        opened.upsert([entry(f"{name} {n}", ("x", EAST), metadata={name: text}) for n, text in enumerate(texts)])
    for text in texts:
        below = {n for n, each in enumerate(texts) if _rank(each) < _rank(text)}
        for name in ("key", "lang"):
            assert found(opened, {name: {"$lt": text}}) == {f"{name} {n}" for n in below}
            assert found(opened, {name: {"$not": {"$lt": text}}, name + "x": None, "n": None}) >= {
                f"{name} {n}" for n in set(range(len(texts))) - below
            }


def _rank(text: str) -> tuple[bool, bytes]:
    """SQLite puts what is no Unicode, and so a blob, after all text."""
    encoded = text.encode("utf-8", "surrogatepass")
    return any("\ud800" <= sign <= "\udfff" for sign in text), encoded


def test_random_filters_find_what_sql_finds(opened: Engine) -> None:
    """The SELECT that `compile_where` makes is the reference for what a filter means."""
    chance = random.Random(7)
    names = ["year", "lang", "price", "kind", 'a"b', "x.y"]
    values: list[Any] = [None, True, False, 0, -0.0, 1, 2, 2.5, -3, 2**53, 2**53 + 1, "", "a", "b", "A", "ä", "\ud800"]

    def value() -> Any:
        picked = chance.choice(values)
        return [picked, chance.choice(values), chance.choice(values)] if chance.random() < 0.25 else picked

    documents = {f"d{n}": {name: value() for name in chance.sample(names, chance.randrange(5))} for n in range(60)}
    opened.upsert([entry(id, (id, EAST), metadata=metadata) for id, metadata in documents.items()])
    database = _database(documents)

    def condition(depth: int) -> dict[str, Any]:
        if depth and chance.random() < 0.5:
            joined = chance.choice(["$and", "$or", "$not"])
            if joined == "$not":
                return {"$not": condition(depth - 1)}
            return {joined: [condition(depth - 1) for _ in range(chance.randrange(1, 4))]}
        return {chance.choice(names): test(chance.random() < 0.3)}

    def test(negated: bool) -> dict[str, Any]:
        if negated:
            return {"$not": test(False)}
        operator = chance.choice(["$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte"])
        if operator in ("$in", "$nin"):
            return {operator: chance.sample(values, chance.randrange(4))}
        return {operator: chance.choice(values if operator in ("$eq", "$ne") else values[1:])}

    try:
        for _ in range(150):
            where = condition(3)
            sql, parameters = compile_where(where)
            expected = {f"d{key}" for (key,) in database.execute(sql, parameters)}
            scanned = {entry.document.id for _, entry in walked(opened, 100, where)}
            assert scanned == expected, where
            assert opened.count(parse(where)) == (len(expected), len(expected)), where
    finally:
        database.close()


def _database(documents: Mapping[str, Mapping[str, Any]]) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA)
    for id, metadata in documents.items():
        key = int(id[1:])
        database.execute("INSERT INTO documents VALUES (?, ?, '', '', '{}', '', NULL)", (key, id))
        rows = [(*row, key) for row in fields({"id": id, "title": "", "source": "", **metadata})]
        database.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)", rows)
    return database


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_write_that_is_repeated_changes_nothing(stored: Engine) -> None:
    before = stored.owned(["fruit", "metal"]), stored.dense(EAST[None], 9), stored.get(["fruit"], parts=True)
    stored.upsert([FRUIT, METAL])
    stored.upsert([METAL, FRUIT, METAL])
    assert stored.count() == (2, 4)
    after = stored.owned(["fruit", "metal"]), stored.dense(EAST[None], 9), stored.get(["fruit"], parts=True)
    assert (before[0], before[1]) == (after[0], after[1])
    assert before[2]["fruit"].document == after[2]["fruit"].document
    assert len(walked(stored, 1)) == 2


def test_a_document_is_replaced_whole(stored: Engine) -> None:
    old = stored.owned(["fruit"])["fruit"]
    digests = [part.digest for part in FRUIT.parts]
    stored.upsert([entry("fruit", ("plum jam", UP), metadata={"year": 1})])
    assert stored.count() == (2, 3)
    assert stored.get(["fruit"])["fruit"].document.text == "plum jam"
    new = stored.owned(["fruit"])["fruit"]
    assert len(new) == 1
    assert set(new).isdisjoint(old)
    assert stored.passages(old) == {}
    assert stored.vectors_of(old) == {}
    assert stored.vectors(digests) == {}
    assert named(stored, stored.dense(UP[None], 9)[0]) == [
        ("plum jam", 1.0), ("an apple of copper", 0.6), ("copper wire", 0.0),
    ]  # fmt: skip
    assert found(stored, {"year": 1}) == {"fruit"}
    if stored.capabilities.text:
        assert named(stored, stored.text([["pie"], ["plum"]], 9)[1])[0][0] == "plum jam"
        assert stored.text([["pie"]], 9) == [[]]
    stored.upsert([FRUIT])
    assert named(stored, stored.dense(EAST[None], 1)[0]) == [("apple pie", 1.0)]
    assert found(stored, {"year": 1}) == set()
    stored.upsert([entry("fruit")])  # an empty document is accepted, and has no passages
    assert stored.count() == (2, 2)
    assert stored.owned(["fruit"]) == {"fruit": []}
    assert stored.get(["fruit"], parts=True)["fruit"].document.text == ""


def test_metadata_alone_can_change(stored: Engine) -> None:
    changed = FRUIT._replace(document=Document("fruit", FRUIT.document.text, "", "/new", {"year": 1999}))
    stored.upsert([changed])
    assert stored.count() == (2, 4)
    assert found(stored, {"year": 1999}) == {"fruit"}
    passage = stored.passages(stored.owned(["fruit"])["fruit"][:1]).popitem()[1]
    assert dict(passage.metadata) == {"source": "/new", "year": 1999}
    assert named(stored, stored.dense(EAST[None], 1, parse({"year": 1999}))[0]) == [("apple pie", 1.0)]
    stored.upsert([FRUIT])
    assert found(stored, {"year": 1999}) == set()


def test_the_last_of_the_same_id_holds(opened: Engine) -> None:
    opened.upsert([entry("a", ("first", EAST)), entry("b", ("other", UP)), entry("a", ("second", NORTH))])
    assert opened.count() == (2, 2)
    assert opened.get(["a"])["a"].document.text == "second"


def test_delete(stored: Engine) -> None:
    ids = stored.owned(["fruit"])["fruit"]
    stored.write_state({"kept": 1})
    stored.delete(["fruit", "unknown", "fruit"])
    assert stored.count() == (1, 2)
    assert stored.get(["fruit", "metal"]).keys() == {"metal"}
    assert stored.owned(["fruit", "metal"]).keys() == {"metal"}
    assert stored.passages(ids) == {}
    assert [text for text, _ in named(stored, stored.dense(EAST[None], 9)[0])] == ["an apple of copper", "copper wire"]
    stored.delete(["fruit"])
    stored.upsert([FRUIT])
    assert stored.count() == (2, 4)
    assert named(stored, stored.dense(EAST[None], 1)[0]) == [("apple pie", 1.0)]
    stored.delete(["metal", "fruit"])
    assert stored.count() == (0, 0)
    assert stored.dense(EAST[None], 9) == [[]]
    assert stored.scan() == []
    assert stored.read_state() == {"kept": 1}


def test_what_went_in_comes_out(opened: Engine) -> None:
    document = Document(
        "a/b.md", "Heads\n\nTails", "Coins", "/home/a/b.md",
        {"nested": {"list": [1, 2.5, None, True, "x"], "none": None}, "suffix": ".md", "z": 1, "a": -(2**62)},
    )  # fmt: skip
    parts = [
        Part(0, 5, 1, "Top > Sub", digest("Heads"), ["heads"], EAST),
        Part(7, 12, 2, "", digest("Tails"), ["tails"], None),
    ]
    opened.upsert([Entry(document, parts)])
    (whole,) = opened.get(["a/b.md", "other"], parts=True).values()
    assert whole.document == document
    assert list(whole.document.metadata) == ["nested", "suffix", "z", "a"]
    assert whole.file is None
    assert [part[:4] for part in whole.parts] == [part[:4] for part in parts]
    assert [tuple(part.terms) for part in whole.parts] == [(), ()]
    assert whole.parts[0].digest == digest("Heads")
    assert whole.parts[0].vector is not None
    assert whole.parts[0].vector.dtype == np.float32
    np.testing.assert_array_equal(whole.parts[0].vector, EAST)
    assert whole.parts[1].vector is None
    assert (
        opened.get(["a/b.md"])["a/b.md"] == (document, (), None) or list(opened.get(["a/b.md"])["a/b.md"].parts) == []
    )

    first, second = opened.owned(["a/b.md"])["a/b.md"]
    passages = opened.passages([second, first, second, 12345])
    assert passages.keys() == {first, second}
    own = {"title": "Coins", "source": "/home/a/b.md"}
    assert passages[first].id == first
    assert (passages[first].document_id, passages[first].text, passages[first].page) == ("a/b.md", "Heads", 1)
    assert (passages[first].start, passages[first].end) == (0, 5)
    assert dict(passages[first].metadata) == own | {"heading": "Top > Sub"} | dict(document.metadata)
    assert dict(passages[second].metadata) == own | dict(document.metadata)


STRANGE = "😀\ud83d\ude00\0é\x1a0041\u2028\ufeff\udfff" + "𝔘ñí\r\n"  # the pair of surrogates is two characters


def test_any_text_is_kept_as_it_is(opened: Engine) -> None:
    long = STRANGE + "語" * 70_000 + STRANGE + "a" * 150_000 + "\ud800"
    cuts = [(0, len(STRANGE)), (30, 40), (60_000, 65_000), (len(long) - 30, len(long)), (10, 10), (5, 60_010)]
    parts = [
        Part(start, end, None, "H" + STRANGE, digest(f"{start} {end}"), ["語語", "\ud800"], EAST) for start, end in cuts
    ]
    id = "id " + STRANGE + "/" + "x" * 5000
    single = STRANGE.replace("\ud83d", "")  # JSON has no form for a pair of lone surrogates
    metadata = {single: single, "list": [single, {"deep " + single: "語"}]}
    document = Document(id, long, STRANGE * 100, STRANGE, metadata)
    opened.upsert([Entry(document, parts), entry("short", ("plain", NORTH))])
    kept = opened.get([id], parts=True)[id]
    assert kept.document == document
    assert [part[:5] for part in kept.parts] == [part[:5] for part in parts]
    ids = opened.owned([id])[id]
    passages = opened.passages(ids)
    assert [passages[each].text for each in ids] == [long[start:end] for start, end in cuts]
    assert {passage.metadata["heading"] for passage in passages.values()} == {"H" + STRANGE}
    assert {entry.document.text for _, entry in walked(opened, 1)} == {long, "plain"}
    assert found(opened, {"id": id}) == {id}
    opened.upsert([Entry(document.__class__(id, long[:-1], "", "", {}), parts[:1])])
    assert opened.get([id])[id].document.text == long[:-1]
    assert opened.count() == (2, 2)
    opened.delete([id])
    assert opened.get([id]) == {}


def test_large_metadata_and_headings(opened: Engine) -> None:
    text = "語" * 40_000  # 120,000 bytes
    document = Document("a", "x", text, "/s", {"year": 2000, "long": text})
    opened.upsert([Entry(document, [Part(0, 1, None, text, digest("x"), ["x"], EAST)])])
    assert opened.get(["a"], parts=True)["a"].document == document
    assert opened.get(["a"], parts=True)["a"].parts[0].heading == text
    (passage,) = opened.passages(opened.owned(["a"])["a"]).values()
    assert passage.metadata == {"title": text, "source": "/s", "heading": text, "year": 2000, "long": text}
    assert found(opened, {"long": text}) == {"a"}
    assert found(opened, {"long": text + "!"}) == set()
    assert found(opened, {"long": {"$gt": "語"}}) == {"a"}
    assert found(opened, {"long": {"$lt": "語"}}) == set()


def test_many_documents_in_one_call(opened: Engine) -> None:
    """More than go into one message, or come in one answer of the smaller kinds."""
    number = 1200
    opened.upsert([entry(f"d{n}", (f"p{n}", EAST), ("shared", NORTH), metadata={"n": n}) for n in range(number)])
    assert opened.count() == (number, 2 * number)
    assert opened.count(parse({"n": {"$lt": 1000}})) == (1000, 2000)
    ids = [f"d{n}" for n in range(number)]
    assert opened.owned(ids).keys() == set(ids)
    assert opened.get(ids).keys() == set(ids)
    (ranking,) = opened.dense(EAST[None], number)
    assert len(ranking) == number
    assert {round(score, 5) for _, score in ranking} == {1.0}
    assert len(opened.passages([id for id, _ in ranking])) == number
    assert sorted(entry.document.id for _, entry in walked(opened, 500)) == sorted(ids)
    assert len(opened.matching(parse({}), 10_000)) == 2 * number
    digests = [digest(f"p{n} {EAST}") for n in range(number)] + [digest(f"shared {NORTH}"), digest("unknown")]
    vectors = opened.vectors(digests)
    assert len(vectors) == number + 1
    np.testing.assert_array_equal(vectors[digests[0]], EAST)
    np.testing.assert_array_equal(vectors[digests[number]], NORTH)
    opened.delete(ids[:1100])
    assert opened.count() == (100, 200)
    assert {entry.document.id for _, entry in walked(opened, 64)} == set(ids[1100:])


def test_scan_meets_each_document_once(opened: Engine) -> None:
    files = {f"d{n}": {"n": n, "even": n % 2 == 0} for n in range(11)}
    opened.upsert([entry(id, (id, EAST), metadata=metadata) for id, metadata in files.items()])
    orders = [[entry.document.id for _, entry in walked(opened, limit)] for limit in (1, 2, 3, 11, 64)]
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0]) == sorted(files)
    even = [entry.document.id for _, entry in walked(opened, 2, {"even": True})]
    assert even == [id for id in orders[0] if files[id]["even"]]
    ((mark, first),) = opened.scan(limit=1, parts=True)
    assert [(part.start, part.end) for part in first.parts] == [(0, len(first.document.text))]
    opened.delete([first.document.id])
    assert [entry.document.id for _, entry in opened.scan(mark, 64)] == orders[0][1:]
    assert opened.scan(walked(opened, 64)[-1][0]) == []


# -- files, states, vectors --------------------------------------------------------------------------------------------


def test_files_are_known_by_their_root(opened: Engine) -> None:
    opened.write_state({f"root/{n}": {"path": f"/roots/{n}", "prefix": f"{n}/" if n > 1 else ""} for n in (1, 2)})
    one, two = file_of(1, "a.md"), file_of(2, "a.md")
    opened.upsert(
        [entry("a.md", ("x", EAST), file=one), entry("2/a.md", ("y", EAST), file=two), entry("free", ("z", EAST))]
    )
    assert opened.files(1) == [("a.md", one)]
    assert opened.files(2) == [("2/a.md", two)]
    assert opened.files(3) == []
    assert opened.get(["a.md"])["a.md"].file == one
    assert opened.scan()[0][1].file in (one, two, None)
    touched = one | {"mtime_ns": 5, "reason": "cannot be read \ud800"}
    opened.upsert([entry("a.md", ("x", EAST), file=touched), entry("free", ("z", EAST), file=file_of(1, "free"))])
    assert sorted(opened.files(1)) == [("a.md", touched), ("free", file_of(1, "free"))]
    assert opened.count() == (3, 3)
    opened.upsert([entry("a.md", ("x", EAST))])
    assert opened.files(1) == [("free", file_of(1, "free"))]
    assert opened.get(["a.md"])["a.md"].file is None
    opened.delete(["free"])
    assert opened.files(1) == []


def test_states_are_remembered(opened: Engine, location: str) -> None:
    values: dict[str, Any] = {
        "one": 1, "one/two": [1.5, None, True], "one%": {"a": {"b": "é😀\ud800\0"}}, "one_": "", "On": False,
        "ä'\"\\": [], "x" * 200: "long name", "long": "語" * 100_000,
    }  # fmt: skip
    opened.write_state(values)
    assert opened.read_state() == values
    assert opened.read_state("one") == {name: values[name] for name in ("one", "one/two", "one%", "one_")}
    assert opened.read_state("one/") == {"one/two": [1.5, None, True]}
    assert opened.read_state("one_") == {"one_": ""}
    assert opened.read_state("nothing") == {}
    opened.write_state({"one": 2, "one/two": None, "never": None, "long": "short again"})
    del values["one/two"]
    values |= {"one": 2, "long": "short again"}
    assert opened.read_state() == values
    opened.upsert([FRUIT])
    opened.close()
    again = another(location)
    try:
        again.open(None, create=False)
        assert again.read_state() == values
    finally:
        again.close()


def test_vectors_are_shared_by_digest(opened: Engine) -> None:
    same = digest("same")
    text = "one\ntwo"
    shared = [Part(0, 3, None, "", same, ["one"], NORTHEAST), Part(4, 7, None, "", same, ["two"], NORTHEAST)]
    opened.upsert([Entry(Document("a", text), shared), Entry(Document("b", text), shared)])
    assert list(opened.vectors([same, digest("other"), same])) == [same]
    np.testing.assert_array_equal(opened.vectors([same])[same], NORTHEAST)
    opened.delete(["a"])
    np.testing.assert_array_equal(opened.vectors([same])[same], NORTHEAST)
    opened.delete(["b"])
    assert opened.vectors([same]) == {}
    assert opened.vectors([]) == {}


# -- together ----------------------------------------------------------------------------------------------------------


def test_another_reader_sees_what_was_written(stored: Engine, location: str) -> None:
    reader = another(location)
    try:
        reader.open(None, create=False)
        assert reader.count() == (2, 4)
        stored.upsert([entry("new", ("fresh", OUT))])
        stored.delete(["metal"])
        stored.write_state({"a": 1})
        reader.refresh()
        assert reader.count() == (2, 3)
        assert named(reader, reader.dense(OUT[None], 1)[0]) == [("fresh", 1.0)]
        assert reader.get(["metal"]) == {}
        assert reader.read_state() == {"a": 1}
    finally:
        reader.close()


def test_readers_and_a_writer_in_threads(opened: Engine) -> None:
    """A document of three equal passages is written over and over: nobody ever meets two kinds of them."""
    kinds = [("east", EAST), ("north", NORTH), ("up", UP)]

    def version(number: int) -> Entry:
        word, vector = kinds[number % 3]
        return entry("changing", *((f"{word} {n}", vector) for n in range(3)), metadata={"version": number})

    opened.upsert([version(0), entry("still", ("out", OUT))])

    def write() -> None:
        for number in range(1, 10):
            opened.upsert([version(number)])

    def read() -> Iterator[tuple[set[str], int]]:
        for _ in range(10):
            (ranking,) = opened.dense(np.array([[0.5, 0.5, 0.5, 0.5]], np.float32), 10)
            passages = [p for p in opened.passages([id for id, _ in ranking]).values() if p.document_id == "changing"]
            yield {passage.text.split()[0] for passage in passages}, len(passages)
            whole = opened.get(["changing"], parts=True)["changing"]
            yield {line.split()[0] for line in whole.document.text.split("\n")}, len(whole.parts)

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(lambda: list(read())) for _ in range(3)]
        pool.submit(write).result()
        for words, number in (each for reader in readers for each in reader.result()):
            assert len(words) <= 1
            assert number <= 3
    assert opened.get(["changing"])["changing"].document.metadata == {"version": 9}
    assert opened.count() == (2, 4)


def test_flushing_and_compacting_lose_nothing(stored: Engine) -> None:
    before = stored.dense(EAST[None], 9)
    stored.write_state({"long": "語" * 50_000, "a": 1})
    stored.upsert([entry("long", ("b" * 150_000, None))])
    stored.flush()
    stored.compact()
    stored.refresh()
    assert stored.dense(EAST[None], 9) == before
    assert stored.count() == (3, 5)
    assert stored.get(["long"])["long"].document.text == "b" * 150_000
    assert stored.read_state() == {"long": "語" * 50_000, "a": 1}
    stored.upsert([entry("fruit", ("after", UP))])
    assert stored.count() == (3, 4)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_stored_is_refused_and_changes_nothing(stored: Engine) -> None:
    for metadata in ({"x": float("nan")}, {"x": object()}, {"x": {1: {2, 3}}}):
        with pytest.raises(InputError):
            stored.upsert([entry("good", ("fine", UP)), entry("bad", ("worse", UP), metadata=metadata)])
    with pytest.raises((InputError, TypeError, CorruptIndexError)):
        stored.write_state({"x": object()})
    assert stored.count() == (2, 4)
    assert stored.read_state() == {}


def test_a_filter_that_no_engine_can_evaluate(opened: Engine) -> None:
    with pytest.raises(FilterError):
        parse({"year": {"$gt": None}})
    assert opened.count(parse({"x": {"$gt": "a"}})) == (0, 0)

"""What only an index in Milvus can suffer: writers that die half-way, others that compact meanwhile, no server."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from engines.lanes import Lane

from semsearch.engines import milvus_rows, open_engine
from semsearch.engines.milvus import MilvusEngine
from semsearch.engines.milvus_connection import Connection, RefusedError
from semsearch.engines.protocol import Entry, Part, Specification
from semsearch.errors import EngineUnavailableError, InputError, MissingExtraError, SemsearchError
from semsearch.filters import parse
from semsearch.records import Document
from semsearch.tables import digest

SPECIFICATION = Specification(3, {"name": "by-hand", "dimension": 3}, {"rules": 2})
WRITES = ("upsert", "delete")
EAST, NORTH, UP = np.eye(3, dtype=np.float32)


@pytest.fixture(autouse=True)
def milvus(request: pytest.FixtureRequest) -> None:
    if "lane" in request.fixturenames and request.getfixturevalue("lane").name == "embedded":
        pytest.skip("no Milvus")


@pytest.fixture
def stored(location: str) -> Iterator[MilvusEngine]:
    engine = opened(location)
    engine.upsert([version(0), entry("still", "still one", "still two", vector=NORTH)])
    yield engine
    engine.close()


def opened(location: str) -> MilvusEngine:
    engine = open_engine(location)
    assert isinstance(engine, MilvusEngine)
    engine.open(SPECIFICATION, create=True)
    return engine


def entry(id: str, *texts: str, vector: np.ndarray, tail: str = "") -> Entry:
    """A document of passages with the same vector, and a tail that is in none of them."""
    parts, at = [], 0
    for text in texts:
        parts.append(Part(at, at + len(text), None, "", digest(text), text.split(), vector))
        at += len(text) + 1
    return Entry(Document(id, "\n".join((*texts, tail)), metadata={"of": texts[0].split()[0]}), parts)


def version(number: int) -> Entry:
    """A document of three passages with a text of several pieces, in one of many versions."""
    word = ("zero", "one", "two", "three", "four")[number]
    return entry("changing", *(f"{word} {n}" for n in range(3)), vector=EAST, tail=word * 40_000)


class DiedError(Exception):
    """The writer is no more."""


def before_write(engine: MilvusEngine, number: int, act: Callable[[], None]) -> None:
    """Have something happen before the write of that number, from 0, that the engine sends to the server."""
    connection = engine._connection
    assert connection is not None
    call, writes = connection.call, iter(range(1_000_000))

    def watched(name: str, *arguments: Any, **options: Any) -> Any:
        if name in WRITES and next(writes) == number:
            act()
        return call(name, *arguments, **options)

    connection.call = watched  # type: ignore[method-assign]


def die() -> None:
    raise DiedError


def state_of(engine: MilvusEngine) -> str:
    """Which version of the changing document there is, checked by every way to read it."""
    found = engine.get(["changing"], parts=True).get("changing")
    word = "" if found is None else found.document.text.split()[0]
    own = 0 if found is None else 3
    if found is not None:
        assert found.document.text == next(v for v in map(version, range(5)) if word in v.document.text).document.text
        assert [part.start for part in found.parts] == [n * (len(word) + 3) for n in range(3)]
    assert engine.count() == (1 + bool(word), 2 + own)
    (ranking,) = engine.dense(EAST[None], 5)
    texts = [passage.text for passage in engine.passages([id for id, _ in ranking]).values()]
    assert len(ranking) == len(texts) == 2 + own
    assert sorted(texts) == sorted([f"{word} {n}" for n in range(own)] + ["still one", "still two"])
    if word:
        assert [id for id, _ in engine.dense(EAST[None], 3)[0]] == [id for id, _ in ranking[:3]]
        assert engine.count(parse({"of": word})) == (1, 3)
        assert engine.owned(["changing"])["changing"] == engine.matching(parse({"of": word}), 9) or True
        assert set(engine.owned(["changing"])["changing"]) == set(engine.matching(parse({"of": word}), 9))
    assert engine.count(parse({"id": "changing"})) == (bool(word), own)
    if engine.capabilities.text:
        for other in ("zero", "one", "two", "three"):
            assert len(engine.text([[other]], 9)[0]) == (3 if other == word else 0) + (other in ("one", "two"))
    return word


def raw_rows(engine: MilvusEngine, collection: str) -> int:
    assert engine._connection is not None
    rows = engine._connection.raw.query(
        collection, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=30
    )
    return int(rows[0]["count(*)"])


@pytest.mark.parametrize("deleting", [False, True], ids=["upsert", "delete"])
def test_a_writer_that_dies_at_any_step_leaves_the_old_or_the_new(location: str, deleting: bool) -> None:
    looker = opened(location)
    looker.upsert([version(0), entry("still", "still one", "still two", vector=NORTH)])
    clean = raw_rows(looker, looker._layout.passages), raw_rows(looker, looker._layout.documents)
    states = []
    for step in range(20):
        writer = opened(location)
        before_write(writer, step, die)
        try:
            if deleting:
                writer.delete(["changing"])
            else:
                writer.upsert([version(1)])
            died = False
        except DiedError:
            died = True
        assert writer._connection is not None
        writer._connection.close()  # and not the engine, which would take its intent away
        looker.refresh()
        states.append(state_of(looker))
        if not died:
            break
        if step % 2:  # either somebody compacts, or the same is simply written again
            looker.compact()
            assert state_of(looker) == states[-1]
            assert states[-1] != "zero" or raw_rows(looker, looker._layout.passages) == clean[0]
        looker.upsert([version(0)])
        assert state_of(looker) == "zero"
    new = "" if deleting else "one"
    assert states[0] == "zero"
    assert states[-1] == new
    assert set(states) == {"zero", new}
    assert states == sorted(states, key=lambda state: state == new)  # first all the old, then all the new
    looker.compact()
    assert state_of(looker) == new
    assert raw_rows(looker, looker._layout.passages) == 2 + 3 * (not deleting)
    looker.upsert([version(0)])
    looker.compact()
    assert (raw_rows(looker, looker._layout.passages), raw_rows(looker, looker._layout.documents)) == clean_of(clean)
    looker.close()


def clean_of(clean: tuple[int, int]) -> tuple[int, int]:
    """What `clean` was, without the writer's intent, which `compact` took away."""
    return clean[0], clean[1] - 1


def test_passages_without_a_head_are_not_found(stored: MilvusEngine) -> None:
    """Many of them, nearer than all that counts; as a writer would leave them that never said what it was about."""
    layout, connection = stored._layout, stored._connection
    assert connection is not None
    texts = [f"lost {n}" for n in range(300)]
    lost = milvus_rows.Stored(entry("lost", *texts, vector=EAST), None, layout.columns, layout.token_keys)
    connection.raw.upsert(layout.passages, list(lost.passage_rows(3, layout.text)), timeout=60)
    later = milvus_rows.Stored(version(1), None, layout.columns, layout.token_keys)
    connection.raw.upsert(layout.passages, list(later.passage_rows(3, layout.text)), timeout=60)
    stored.refresh()
    (ranking,) = stored.dense(EAST[None], 4)
    assert [text.split()[0] for text in texts_of(stored, ranking)] == ["zero"] * 3 + ["still"]
    assert len(stored.dense(EAST[None], 400)[0]) == 5
    assert stored.passages(lost.ids()) == {}
    assert len(stored.matching(parse({}), 400)) == 5
    if stored.capabilities.text:
        assert stored.text([["lost"], ["one"]], 9)[0] == []
        assert [text for text in texts_of(stored, stored.text([["one"]], 9)[0])] == ["still one"]
    stored.compact()
    assert raw_rows(stored, layout.passages) == 5
    assert stored.count() == (2, 5)
    stored.upsert([entry("lost", *texts, vector=EAST)])
    assert stored.count() == (3, 305)


def texts_of(engine: MilvusEngine, ranking: list[tuple[int, float]]) -> list[str]:
    passages = engine.passages([id for id, _ in ranking])
    return [passages[id].text for id, _ in ranking]


def test_compacting_in_the_middle_of_a_write_loses_nothing(stored: MilvusEngine, location: str) -> None:
    other = opened(location)
    for step in range(7):
        before_write(stored, 0, lambda: None)
        writer = opened(location)
        before_write(writer, step, other.compact)
        writer.upsert([version(1 + step % 4)])
        writer.write_state({"long": f"{step}" * 70_000})
        stored.refresh()
        assert state_of(stored) == ("one", "two", "three", "four")[step % 4]
        assert stored.read_state() == {"long": f"{step}" * 70_000}
        writer.close()
    other.close()


@pytest.mark.parametrize("finishing", [True, False], ids=["finishing", "unfinished"])
def test_a_write_that_begins_while_somebody_compacts_loses_nothing(
    stored: MilvusEngine, location: str, finishing: bool
) -> None:
    """The passages are met without their head, which comes before anything is removed, or after."""
    writer, compactor = opened(location), opened(location)
    half, go = threading.Event(), threading.Event()

    def pause() -> None:
        half.set()
        assert go.wait(60)

    before_write(writer, 3, pause)  # after the intent, the passages and the pieces
    thread = threading.Thread(target=writer.upsert, args=([version(1)],))
    assert compactor._connection is not None
    call, looks = compactor._connection.call, iter(range(1_000_000))

    def watched(name: str, collection: str, *arguments: Any, **options: Any) -> Any:
        if name == "query" and collection == compactor._layout.passages and not half.is_set():
            thread.start()
            assert half.wait(60)
        about_intents = options.get("filter") == f"kind == {milvus_rows.INTENT}"
        if about_intents and next(looks) == 1 and finishing:
            go.set()
            thread.join(60)
        return call(name, collection, *arguments, **options)

    compactor._connection.call = watched  # type: ignore[method-assign]
    compactor.compact()
    go.set()
    thread.join(60)
    assert not thread.is_alive()
    stored.refresh()
    assert state_of(stored) == "one"
    writer.close()
    compactor.close()


def test_ids_that_clash_get_another_salt(stored: MilvusEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_rows, "passage_id", lambda key, version, ordinal, salt=0: 7 + ordinal // 2 + salt)
    stored.upsert([entry(f"d{n}", f"{n} a", f"{n} b", f"{n} c", vector=UP) for n in range(4)])
    stored.upsert([entry("late", "late a", "late b", vector=UP)])
    owned = stored.owned(["d0", "d1", "d2", "d3", "late"])
    ids = [id for each in owned.values() for id in each]
    assert len(ids) == len(set(ids)) == 14
    for name, own in owned.items():
        passages = stored.passages(own)
        assert [passages[id].text for id in own] == [
            f"{name[-1] if name[0] == 'd' else name} {x}" for x in "abc"[: len(own)]
        ]
    stored.delete(["d1"])
    assert [part.start for part in stored.get(["d2"], parts=True)["d2"].parts] == [0, 4, 8]
    assert stored.count() == (6, 16)


def test_a_collection_of_somebody_else_is_left_alone(lane: Lane, location: str) -> None:
    connection = Connection(open_engine(location)._location)  # type: ignore[attr-defined]
    try:
        connection.raw.create_collection(connection.location.collection, dimension=2, timeout=30)
        with pytest.raises(InputError, match="no index of semsearch"):
            opened(location)
        assert connection.raw.has_collection(connection.location.collection, timeout=30)
    finally:
        connection.close()


def test_a_creation_that_was_interrupted_begins_again(location: str) -> None:
    engine = open_engine(location)
    assert isinstance(engine, MilvusEngine)
    engine._connection = Connection(engine._location)
    before_write(engine, 0, die)  # the row that says what the collections were made for
    with pytest.raises(DiedError):
        engine.open(SPECIFICATION, create=True)
    engine.close()
    with pytest.raises(FileNotFoundError):
        open_engine(location).open(None, create=False)
    engine = open_engine(location)
    other = Specification(4, {"name": "other", "dimension": 4}, {"rules": 2})
    assert engine.open(other, create=True).dimension == 4
    engine.close()


def test_what_a_location_asks_for(location: str) -> None:
    mark = "&" if "?" in location else "?"
    engine = open_engine(f"{location}{mark}fields=year:int,lang:str&consistency=strong&shards=1")
    made = engine.open(SPECIFICATION, create=True)
    assert (made.fields, made.consistency) == ({"year": "int", "lang": "str"}, "strong")
    assert engine.capabilities.exact
    engine.upsert([Entry(Document("a", "x", metadata={"year": 5}), [Part(0, 1, None, "", b"x" * 16, ["x"], UP)])])
    assert engine.count(parse({"year": {"$gt": 4}})) == (1, 1)
    engine.close()
    again = open_engine(f"{location}{mark}consistency=eventually")
    assert again.open(None, create=False).consistency == "eventually"
    again.close()
    for option, message in (("fields=year:str", "made with fields=year:int,lang:str"), ("index=hnsw", "index=flat")):
        other = open_engine(f"{location}{mark}{option}")
        with pytest.raises(InputError, match=message):
            other.open(None, create=False)
        other.close()


def test_an_approximate_index(lane: Lane, location: str) -> None:
    mark = "&" if "?" in location else "?"
    engine = open_engine(f"{location}{mark}index=hnsw")
    if lane.name == "core":  # it has none
        with pytest.raises(RefusedError, match="index"):
            engine.open(SPECIFICATION, create=True)
        return
    engine.open(SPECIFICATION, create=True)
    assert not engine.capabilities.exact
    engine.upsert([version(0), entry("still", "still one", "still two", vector=NORTH)])
    assert len(engine.dense(EAST[None], 3)[0]) == 3
    engine.close()


# -- no server ---------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_reported_in_time() -> None:
    pytest.importorskip("pymilvus")
    start = time.monotonic()
    engine = open_engine("milvus://ada:lovelace@127.0.0.1:1/x?timeout=1")
    with pytest.raises(EngineUnavailableError, match=r"milvus://127\.0\.0\.1:1/x is away") as error:
        engine.open(None, create=False)
    assert 0.9 < time.monotonic() - start < 5
    assert "lovelace" not in str(error.value)
    engine.close()


def test_calls_are_tried_again_while_there_is_time(stored: MilvusEngine) -> None:
    from pymilvus.exceptions import MilvusException

    connection = stored._connection
    assert connection is not None
    seen: list[float] = []

    def passing(timeout: float) -> str:
        seen.append(timeout)
        if len(seen) < 4:
            raise MilvusException(code=2, message="service unavailable")
        return "done"

    assert connection._attempt(passing, "test") == "done"
    assert len(seen) == 4
    assert seen == sorted(seen, reverse=True)  # what is left of the time

    def lasting(timeout: float) -> None:
        seen.append(timeout)
        raise MilvusException(code=1100, message="invalid parameter")

    seen.clear()
    with pytest.raises(RefusedError, match="invalid parameter"):
        connection._attempt(lasting, "test")
    assert len(seen) == 1


def test_a_connection_does_not_survive_a_fork(stored: MilvusEngine) -> None:
    connection = stored._connection
    assert connection is not None
    own, connection._pid = connection._pid, 1
    with pytest.raises(EngineUnavailableError, match="forked"):
        stored.count()
    connection._pid = own
    assert stored.count() == (2, 5)


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtraError, match=r"semsearch\[milvus\]"):
        open_engine("milvus://127.0.0.1:1/x").open(None, create=False)


def test_without_milvus_lite(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymilvus")
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(MissingExtraError, match=r"semsearch\[milvus-lite\]"):
        open_engine("milvus:///nowhere/x.db").open(None, create=False)


def test_a_file_that_cannot_be_opened(lane: Lane) -> None:
    if lane.name != "file":
        pytest.skip("no file")
    engine = open_engine("milvus:///nowhere/at/all/x.db?timeout=2")
    with pytest.raises(SemsearchError, match="cannot be opened"):
        engine.open(SPECIFICATION, create=True)
    engine.close()

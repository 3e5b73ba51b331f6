"""Killing the server, and killing the sync, at any time: nothing is lost, nothing is there twice, nothing by half."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from engines.lanes import Lane, chosen
from engines.syncing import FewWords, child

import semsearch
from semsearch.embedded import EmbeddedEngine
from semsearch.engines import open_engine
from semsearch.engines.protocol import Engine, Entry
from semsearch.errors import EngineUnavailableError

FILES = 60
SECTIONS = 40  # of each file; each becomes a passage
WORDS = ("fee", "late", "day", "book", "card", "shelf", "ink", "desk", "hour", "rent", "film", "loan", "door", "key")
SEED = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files whose passages are all different."""
    folder = tmp_path_factory.mktemp("files")
    chance = random.Random(SEED)
    for file in range(FILES):
        sections = (
            f"## Section {file} {section}\n\n{' '.join(chance.choices(WORDS, k=12))}\n" for section in range(SECTIONS)
        )
        (folder / f"{file:03}.md").write_text("\n".join(sections), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """What a folder holds after a sync that nothing disturbed."""
    location = tmp_path_factory.mktemp("expected") / "index"
    with semsearch.Index(location, encoder=FewWords()) as index:
        index.sync(folder, progress=False)
    found = stored(str(location))
    assert len(found) == FILES
    assert sum(len(entry.parts) for entry in found.values()) == FILES * SECTIONS
    return found


def opened(location: str) -> Engine:
    engine = open_engine(location) if "://" in location else EmbeddedEngine(Path(location))
    engine.open(None, create=False)
    return engine


def stored(location: str) -> dict[str, Entry]:
    """Every document with its passages, by id; each is met once."""
    engine = opened(location)
    found: dict[str, Entry] = {}
    mark = ""
    try:
        while page := engine.scan(mark, 16, parts=True):
            mark = page[-1][0]
            for _, entry in page:
                assert entry.document.id not in found
                found[entry.document.id] = entry
        assert engine.count() == (len(found), sum(len(entry.parts) for entry in found.values()))
    finally:
        engine.close()
    return found


def assert_same(found: Entry, expected: Entry) -> None:
    assert found.document == expected.document
    assert [part[:5] for part in found.parts] == [part[:5] for part in expected.parts]
    vectors = ([part.vector for part in entry.parts if part.vector is not None] for entry in (found, expected))
    np.testing.assert_allclose(*map(np.stack, vectors), atol=1e-6)


def assert_complete(location: str, expected: dict[str, Entry]) -> None:
    found = stored(location)
    assert found.keys() == expected.keys()
    for id, entry in found.items():
        assert_same(entry, expected[id])
    with semsearch.Index(location, encoder=FewWords()) as index:
        assert len(index) == sum(len(entry.parts) for entry in expected.values())
        assert index.check().ok
        id = f"{FILES // 2:03}.md"
        hit = index.search(f"Section {FILES // 2} 17", k=1, where={"id": id}, mode="dense")[0]
        assert expected[id].document.text[hit.passage.start : hit.passage.end] == hit.passage.text
    assert_no_row_is_left_over(location, expected)


def assert_no_row_is_left_over(location: str, expected: dict[str, Entry]) -> None:
    """What the engine itself counts, after what crashes have left was removed."""
    if "127.0.0.1" not in location:
        return
    from pymilvus import MilvusClient

    engine = opened(location)
    engine.compact()
    engine.close()
    address, collection = location.partition("?")[0].removeprefix("milvus://").split("/")
    client = MilvusClient(f"http://{address}", timeout=30, dedicated=True)
    rows = client.query(collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
    client.close()
    assert rows[0]["count(*)"] == sum(len(entry.parts) for entry in expected.values())


def test_a_killed_sync_is_completed_by_the_next(location: str, folder: Path, expected: dict[str, Entry]) -> None:
    chance = random.Random(SEED)
    for _ in range(3):
        with child(location, folder) as running:
            running.wait_for(15)  # of those that are not there yet; every 13 are a batch
            time.sleep(chance.random() / 4)
        for id, entry in (stored(location) if is_there(location) else {}).items():  # some are there, each of them whole
            assert_same(entry, expected[id])
    with child(location, folder) as running:
        report = running.finish(120)
    assert (report["added"] + report["unchanged"], report["updated"], report["failed"]) == (FILES, 0, 0)
    assert_complete(location, expected)


def is_there(location: str) -> bool:
    """Whether the sync came so far that there is an index."""
    try:
        opened(location).close()
    except FileNotFoundError:
        return False
    return True


def test_a_sync_goes_on_when_its_server_comes_back(crashing: Lane, folder: Path, expected: dict[str, Entry]) -> None:
    location = crashing.location("crash") + "?timeout=120"
    with child(location, folder) as running:
        for at in (20, 45):
            running.wait_for(at)
            crashing.kill()
            time.sleep(0.5)
            crashing.start()
        report = running.finish(300)
    assert (report["added"], report["updated"], report["failed"]) == (FILES, 0, 0)
    assert_complete(location, expected)


def test_a_sync_whose_server_stays_away_says_so_and_the_next_completes_it(
    crashing: Lane, folder: Path, expected: dict[str, Entry]
) -> None:
    location = crashing.location("away")
    with child(location + "?timeout=6", folder) as running:
        running.wait_for(30)
        crashing.kill()
        error = running.fail(60)
    last = error.strip().splitlines()[-1]
    assert last.startswith("semsearch.errors.EngineUnavailableError: ")
    assert f"{location} is away, or did not answer within 6 s" in last
    crashing.start()
    location += "?timeout=120"
    with child(location, folder) as running:
        report = running.finish(300)
    assert (report["added"] + report["unchanged"], report["updated"], report["failed"]) == (FILES, 0, 0)
    assert_complete(location, expected)


def test_an_open_index_says_in_time_that_its_server_is_away_and_works_again(crashing: Lane) -> None:
    with semsearch.Index(crashing.location("again") + "?timeout=6", encoder=FewWords()) as index:
        index.add([("a", "Late fees are ten cents."), ("b", "The desk is open.")], progress=False)
        assert [hit.passage.document_id for hit in index.search("late fees", k=1, mode="dense")] == ["a"]
        crashing.kill()
        calls = (lambda: index.search("late fees", mode="dense"), lambda: index.add([("c", "Ink.")], progress=False))
        for work in calls:
            began = time.monotonic()
            with pytest.raises(EngineUnavailableError, match="is away, or did not answer within 6 s"):
                work()
            assert time.monotonic() - began < 12
        crashing.start()
        until = time.monotonic() + 120  # a real server reads its log first
        while True:
            try:
                hits = index.search("late fees", k=1, mode="dense")
                break
            except EngineUnavailableError:
                assert time.monotonic() < until
        assert [hit.passage.document_id for hit in hits] == ["a"]
        index.add([("c", "Ink is sold late.")], progress=False)
        assert {document.id for document in index.documents()} == {"a", "b", "c"}


@pytest.mark.skipif(chosen() == ["embedded"], reason="needs pymilvus: make engines")
def test_a_server_that_is_not_there_is_named_in_time() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(EngineUnavailableError, match=rf"milvus://127.0.0.1:{port}/x is away.*within 1 s"):
            semsearch.Index(f"milvus://ada:secret@127.0.0.1:{port}/x?timeout=1", encoder=FewWords()).search("fees")
        assert time.monotonic() - began < 8

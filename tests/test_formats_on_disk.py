"""P10: a release opens every earlier format, or refuses before it changes a byte."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from golden.make import said
from toy import WordEncoder

import semsearch
from semsearch import store
from semsearch.errors import CorruptIndexError, IndexFormatError, IndexLockedError, StorageError
from semsearch.locking import writer_lock

GOLDEN = Path(__file__).parent / "golden"
# Of index.db as it was released. It is never made again: if this differs, the file was changed, not the format.
SHA256 = {1: "db99ab92ac5169ef5aec11f07425b60d5deb65ef51b5ceca0ed65e561480fa9f"}


def opened(path: Path, **options: Any) -> semsearch.Index:
    return semsearch.Index(path, encoder=WordEncoder(), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the index of format 1."""
    shutil.copytree(GOLDEN / "format-1", tmp_path / "index")
    return tmp_path / "index"


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder, with its time and content."""
    return {
        str(each.relative_to(folder)): (each.stat().st_mtime_ns, each.read_bytes() if each.is_file() else b"")
        for each in sorted(folder.rglob("*"))
    }


def version(path: Path) -> int:
    with closing(sqlite3.connect(path / "index.db")) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def execute(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path / "index.db")) as database:
        rows = database.execute(sql).fetchall()
        database.commit()
        return rows


def assert_says(index: semsearch.Index, expected: dict[str, Any]) -> None:
    """The documents and hits are the expected ones, scores within rounding."""
    now = said(index)
    assert now["documents"] == expected["documents"]
    assert len(now["hits"]) == len(expected["hits"])
    for (*query, hits), (*the_query, right) in zip(now["hits"], expected["hits"], strict=True):
        assert query == the_query
        assert [hit[:-1] for hit in hits] == [hit[:-1] for hit in right], query
        assert [hit[-1] for hit in hits] == pytest.approx([hit[-1] for hit in right], abs=1e-5), query


# -- the golden index --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SHA256)
def test_the_golden_index_is_never_made_again(number: int) -> None:
    expected = json.loads((GOLDEN / f"format-{number}.json").read_text())
    digest = sha256((GOLDEN / f"format-{number}" / "index.db").read_bytes()).hexdigest()
    assert digest == SHA256[number] == expected["sha256"]


@pytest.mark.parametrize("options", [{"read_only": True}, {}])
@pytest.mark.parametrize("number", SHA256)
def test_every_format_opens_and_says_what_it_said(
    number: int, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "index"
    shutil.copytree(GOLDEN / f"format-{number}", path)
    expected = json.loads((GOLDEN / f"format-{number}.json").read_text())
    with opened(path, **options) as index:
        assert index.check().ok, index.check()
        assert_says(index, expected)
        if not options:
            assert index.add([("new", "A new text about late fees.")]).added == 1
            assert index.remove(["fees", "hostile"]) == 2
            assert index.check().ok
            hits = index.search("late fees", k=20)
            assert "new" in [hit.passage.document_id for hit in hits]
            assert "fees" not in [hit.passage.document_id for hit in hits]
            index.optimize()
            assert index.check().ok
    assert not caplog.records
    assert version(path) == (number if options else store.FORMAT)


def test_format_1_without_its_cache(path: Path) -> None:
    shutil.rmtree(path / "cache")
    with opened(path, read_only=True) as index:
        assert_says(index, json.loads((GOLDEN / "format-1.json").read_text()))


# -- a later format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"read_only": True}, {}])
def test_a_later_format_is_refused_before_a_byte_changes(path: Path, options: dict[str, Any]) -> None:
    execute(path, "PRAGMA user_version = 99")
    before = state(path)
    with pytest.raises(IndexFormatError, match=r"has format 99; .* Nothing was changed"):
        opened(path, **options)
    assert state(path) == before


def test_an_index_that_a_later_release_changes_while_it_is_open(path: Path) -> None:
    with opened(path) as index:
        assert len(index.search("late fees")) > 0
        execute(path, "PRAGMA user_version = 2")
        calls: list[Callable[[], object]] = [
            lambda: index.search("late fees"),
            lambda: index.add([("new", "text")]),
            lambda: index.remove("fees"),
            lambda: index.check(),
            lambda: index.backup(path.parent / "copy"),
        ]
        for call in calls:
            with pytest.raises(IndexFormatError, match="has format 2"):
                call()
    assert execute(path, "SELECT count(*) FROM documents WHERE id = 'fees'") == [(1,)]
    assert not (path.parent / "copy").exists()


# -- an earlier format -------------------------------------------------------------------------------------------------


def add_a_table(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE notes (document INTEGER REFERENCES documents (key), note TEXT)")
    connection.execute("INSERT INTO notes SELECT key, 'from format 1' FROM documents")


def add_a_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE notes ADD COLUMN author TEXT")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let this release know formats up to `number`, with the steps that are given."""

    def set_to(number: int, steps: dict[int, Callable[[sqlite3.Connection], None]]) -> None:
        monkeypatch.setattr(store, "FORMAT", number)
        monkeypatch.setattr(store, "MIGRATIONS", steps)

    return set_to


def test_an_earlier_format_is_brought_up_to_date(path: Path, later: Callable[..., None]) -> None:
    later(3, {1: add_a_table, 2: add_a_column})
    expected = json.loads((GOLDEN / "format-1.json").read_text())
    with opened(path) as index:
        assert index.check().ok
        assert_says(index, expected)
        assert index.add([("new", "text")]).added == 1
    assert version(path) == 3
    assert len(execute(path, "SELECT author FROM notes")) == len(expected["documents"])
    ((record,),) = execute(path, "SELECT value FROM meta WHERE name = 'migrations'")
    assert [(each["from"], each["to"]) for each in json.loads(record)] == [(1, 2), (2, 3)]
    with opened(path, read_only=True) as index:
        assert index.get("new") is not None
    assert execute(path, "SELECT value FROM meta WHERE name = 'migrations'") == [(record,)]


def test_two_at_once_migrate_once(path: Path, later: Callable[..., None]) -> None:
    later(2, {1: add_a_table})
    wrong: list[BaseException] = []

    def open_it() -> None:
        try:
            opened(path).close()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    ((record,),) = execute(path, "SELECT value FROM meta WHERE name = 'migrations'")
    assert len(json.loads(record)) == 1


def test_opening_an_earlier_format_for_reading_is_refused(path: Path, later: Callable[..., None]) -> None:
    later(2, {1: add_a_table})
    before = state(path)
    with pytest.raises(IndexFormatError, match=r"has format 1; this release reads format 2. Open it once for writing"):
        opened(path, read_only=True)
    assert {name: file for name, file in state(path).items() if "-wal" not in name and "-shm" not in name} == before


def test_a_format_without_a_step_is_refused(path: Path, later: Callable[..., None]) -> None:
    later(3, {1: add_a_table})
    before = (path / "index.db").read_bytes()
    with pytest.raises(IndexFormatError, match="cannot bring up to 3"):
        opened(path)
    assert (path / "index.db").read_bytes() == before


def test_a_step_that_fails_changes_nothing(path: Path, later: Callable[..., None]) -> None:
    def failing(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM fields")
        connection.execute("SELECT * FROM nowhere")

    def dangling(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM documents")

    for step, error in [(failing, StorageError), (dangling, CorruptIndexError)]:
        later(3, {1: add_a_table, 2: step})
        with pytest.raises(error):
            opened(path)
        later(1, {})
        with opened(path) as index:
            assert index.check().ok
        assert (version(path), execute(path, "SELECT * FROM sqlite_schema WHERE name = 'notes'")) == (1, [])


def test_a_migration_waits_for_the_writer(path: Path, later: Callable[..., None]) -> None:
    later(2, {1: add_a_table})
    with writer_lock(path / "lock", 0.0), pytest.raises(IndexLockedError, match=f"process {os.getpid()}"):
        opened(path, timeout=0.1)
    assert version(path) == 1


@pytest.mark.parametrize("when", ["first", "between", "last"])
def test_killed_in_a_migration(path: Path, when: str, later: Callable[..., None]) -> None:
    """P1: the old format is intact, and the next opening migrates."""
    code = f"""
import os, semsearch
from semsearch import store
def grow(connection):
    connection.execute("CREATE TABLE notes (note TEXT)")
    connection.execute("INSERT INTO notes SELECT zeroblob(100000) FROM documents a, documents b")
    connection.execute("DELETE FROM fields")
def kill(connection):
    os._exit(9)
store.FORMAT, store.CACHE_KIB = 3, 2000
store.MIGRATIONS = {{1: kill, 2: kill}} if {when!r} == "first" else {{1: grow, 2: kill}}
if {when!r} == "last":
    original = store._migrate
    store.MIGRATIONS = {{1: grow, 2: lambda connection: None}}
    store._migrate = lambda *arguments: (original(*arguments), os._exit(9))
semsearch.Index({str(path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    if when != "first":  # more than SQLite keeps in memory: some of it is in the log
        assert (path / "index.db-wal").stat().st_size > 5_000_000
    expected = json.loads((GOLDEN / "format-1.json").read_text())
    with opened(path) as index:
        assert index.check().ok
        assert_says(index, expected)
    assert version(path) == 1
    later(2, {1: add_a_table})
    with opened(path) as index:
        assert index.check().ok
        assert_says(index, expected)
    assert version(path) == 2

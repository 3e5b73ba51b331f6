"""`Index.check`: whatever is wrong is found, what is derived is repaired, and what is not is left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

import semsearch
from semsearch.errors import (
    ClosedIndexError,
    CorruptIndexError,
    InputError,
    ReadOnlyIndexError,
    SemsearchError,
    StorageError,
)
from semsearch.health import leftovers
from semsearch.inspection import MOST
from semsearch.seals import seal

DOCUMENTS = [
    semsearch.Document(
        "fees", "Late fees are twenty cents a day.", "Fees", "/srv/fees.md", {"year": 2020, "tags": ["a", "b"]}
    ),
    semsearch.Document("pages", "First page.\f\fThird page.", "Report", metadata={"pages": 3}),
    semsearch.Document(
        "hostile", "Lone \ud800 surrogate, NUL \0 and emoji \U0001f600.", metadata={"k\udfff": "\ud83d"}
    ),
    semsearch.Document("empty", " \n\t "),
]


def opened(path: Path, **options: Any) -> semsearch.Index:
    return semsearch.Index(path, encoder=WordEncoder(), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with opened(tmp_path / "index") as index:
        index.add([*DOCUMENTS, ("old", "It goes away again."), ("changed", "Before.")])
        index.add([("changed", "After the change.")])
        index.remove("old")
        index.optimize()
        index.add([("late", "Added after the cache was written.")])
    return tmp_path / "index"


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path / "index.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def checked(path: Path, **options: Any) -> semsearch.index.CheckReport:
    with opened(path) as index:
        return index.check(**options)


def found(path: Path, query: str = "late fees", **options: Any) -> list[str]:
    with opened(path) as index:
        return [hit.passage.document_id for hit in index.search(query, **options)]


# -- all is well -------------------------------------------------------------------------------------------------------


def test_a_sound_index(path: Path) -> None:
    report = checked(path)
    assert report == semsearch.index.CheckReport(documents=6, passages=6)
    assert report.ok
    assert str(report) == "ok: 6 documents, 6 passages"
    repaired = checked(path, repair=True)
    assert (repaired.ok, repaired.repaired) == (True, ())


def test_metadata_is_filtered_by_what_json_keeps_of_it(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add({"id": "a", "text": "late fees", "metadata": {True: "v", None: {1: 2}, "lone": "\ud83d \ude00"}})
        assert index.check().ok
        document = index.get("a")
        assert document is not None
        assert document.metadata == {"true": "v", "null": {"1": 2}, "lone": "\ud83d \ude00"}
        wheres: list[dict[str, Any]] = [{"true": "v"}, {"null.1": 2}, {"lone": "\ud83d \ude00"}, {"True": "v"}]
        assert [len(index.search("late fees", where=where)) for where in wheres] == [1, 1, 1, 0]


@pytest.mark.parametrize("metadata", [{"x": "\ud83d\ude00"}, {"\ud83d\ude00": 1}, {"x": [{1: "a", "1": "b"}]}])
def test_metadata_that_json_would_not_keep_is_refused(tmp_path: Path, metadata: dict[str, Any]) -> None:
    with opened(tmp_path / "index") as index:
        with pytest.raises(InputError, match=r"metadata of document 'a' .*one key of two.* two lone surrogates"):
            index.add({"id": "a", "text": "late fees", "metadata": metadata})
        assert index.add({"id": "a", "text": "late fees", "metadata": {"x": "\U0001f600"}}).added == 1


def test_a_new_index(tmp_path: Path) -> None:
    assert checked(tmp_path / "index") == semsearch.index.CheckReport(0, 0)
    assert checked(tmp_path / "index", repair=True) == semsearch.index.CheckReport(0, 0)


def test_a_synced_index(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# One\n\nText of one.")
    (folder / "sub" / "b.txt").write_text("Text of two.")
    (folder / "c.pdf").write_bytes(b"no PDF")
    with opened(tmp_path / "index") as index:
        assert index.sync(folder).failed == 1
        (folder / "a.md").rename(folder / "d.md")
        index.sync(folder)
        assert index.check().ok
    execute(tmp_path / "index", "UPDATE documents SET id = 'other.md' WHERE id = 'd.md'")
    assert "the file 'd.md' of root 1 belongs to the document 'other.md'" in checked(tmp_path / "index").problems


def test_the_plain_bm25_package(path: Path) -> None:
    with opened(path, lexical="rank_bm25") as index:
        assert index.check().ok


# -- the truth ---------------------------------------------------------------------------------------------------------

FEES_VECTOR = "(SELECT vector FROM passages WHERE id = 1)"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ('UPDATE passages SET "end" = 99 WHERE id = 1', "passage 1 has the offsets 0:99 in 'fees', which has 33"),
        ("UPDATE passages SET start = -1 WHERE id = 1", "passage 1 has the offsets -1:33"),
        ('UPDATE passages SET "end" = start WHERE id = 1', "passage 1 has the offsets 0:0"),
        ("UPDATE passages SET start = 5 WHERE id = 1", "text of 'fees' between the characters 0 and 5 is in no"),
        ('UPDATE passages SET "end" = 20 WHERE id = 1', "text of 'fees' after character 20 is in no passage"),
        ("DELETE FROM passages WHERE id = 1", "text of 'fees' after character 0 is in no passage"),
        (
            "INSERT INTO passages (document, start, 'end', heading) VALUES (1, 0, 4, '')",
            "of 'fees' overlaps the one before it",
        ),
        ("UPDATE passages SET page = 1 WHERE id = 1", "passage 1 of 'fees' is on page None, not 1"),
        ("UPDATE passages SET page = 2 WHERE page = 3", "of 'pages' is on page 3, not 2"),
        ('UPDATE passages SET "end" = 23 WHERE page = 1', "of 'pages' goes over the end of page 1"),
        ("UPDATE documents SET text = 'x' || substr(text, 2) WHERE id = 'fees'", "is that of another text"),
        ("UPDATE documents SET title = 'Hours' WHERE id = 'fees'", "is that of another text"),
        ("UPDATE documents SET text = CAST(x'ff' AS TEXT) WHERE id = 'fees'", "the text of document 1 cannot be dec"),
        ("UPDATE documents SET id = x'61' WHERE id = 'fees'", "the id of document 1 cannot be decoded: stored as blob"),
        ("UPDATE documents SET metadata = '[' WHERE id = 'fees'", "the metadata of document 'fees' is not JSON"),
        ("UPDATE documents SET metadata = '[]' WHERE id = 'fees'", "of document 'fees' is not a JSON object"),
        ("UPDATE documents SET metadata = '{\"a\": NaN}' WHERE id = 'fees'", "of document 'fees' is not JSON"),
        ("UPDATE documents SET text = 5 WHERE id = 'fees'", "in 'fees', which has 1 characters"),  # SQLite stores '5'
        ("UPDATE passages SET heading = CAST(x'ff' AS TEXT) WHERE id = 1", "the heading of passage 1 cannot be dec"),
        ("UPDATE passages SET start = 'x' WHERE id = 1", "1 values of passages.start are not integer"),
        (f"UPDATE vectors SET vector = zeroblob(4096) WHERE key = {FEES_VECTOR}", "passage 1 is not of unit length"),
        (f"UPDATE vectors SET vector = x'0000c07f' WHERE key = {FEES_VECTOR}", "passage 1 has 1 components, not 1024"),
        (f"UPDATE vectors SET digest = zeroblob(16) WHERE key = {FEES_VECTOR}", "passage 1 is that of another text"),
        ("UPDATE passages SET vector = 99 WHERE id = 1", "of passages refers to a missing row of vectors"),
        ("DELETE FROM documents WHERE id = 'fees'", "of passages refers to a missing row of documents"),
        ("DELETE FROM meta WHERE name = 'uuid'", "uuid in the table meta is None"),
        ("UPDATE meta SET value = '{' WHERE name = 'created'", "created in the table meta cannot be read"),
        ("DELETE FROM commits WHERE generation = (SELECT max(generation) - 1 FROM commits)", "1 commits are missing"),
        ("INSERT INTO removals VALUES (1, 6)", "passages are there and noted as removed"),
        ("INSERT INTO removals VALUES (2000, 6)", "passages have an id that was not given out"),
        ("INSERT INTO removals VALUES (2, 99)", "removals are of a commit that is not in the history"),
        ("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'passages'", "passages have an id that was not given out"),
        ("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'documents'", "documents have a key that was not given out"),
        ("DROP TABLE files", "the table files is missing"),
        ("DROP INDEX fields_document", "the index fields_document is missing"),
        ("INSERT INTO roots VALUES (1, '/srv', '')", ""),
    ],
)
def test_what_is_wrong_in_the_database_is_told_and_not_touched(path: Path, statement: str, message: str) -> None:
    execute(path, "INSERT INTO commits VALUES (6, 'x'), (7, 'y')", statement)
    report = checked(path)
    if not message:  # the one change here that is right
        assert report.ok
        return
    assert any(message in each for each in report.problems), report
    assert not report.ok
    assert "restore a backup" in str(report)
    before = (path / "index.db").read_bytes()
    assert checked(path, repair=True).problems == report.problems
    assert (path / "index.db").read_bytes() == before


def test_the_name_of_the_encoder_is_lost(path: Path) -> None:
    execute(path, "UPDATE meta SET value = '{}' WHERE name = 'encoder'")
    with semsearch.Index(path) as index:
        report = index.check()
        assert "encoder in the table meta is not what was stored" in report.problems[0]
        assert index.check(repair=True).problems == report.problems


def test_vectors_that_are_not_finite(path: Path) -> None:
    vector = np.full(1024, np.nan, "<f4").tobytes()
    execute(path, f"UPDATE vectors SET vector = x'{vector.hex()}' WHERE key = {FEES_VECTOR}")
    assert any("passage 1 is not of unit length" in each for each in checked(path).problems)


def test_very_many_problems_are_not_listed_one_by_one(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add([(f"d{number}", f"word{number}") for number in range(MOST + 7)])
    execute(tmp_path / "index", "UPDATE passages SET start = -1")
    problems = checked(tmp_path / "index").problems
    assert len(problems) == MOST + 1
    assert problems[-1] == f"... and {2 * (MOST + 7) - MOST:,} more"  # two for each passage


def test_pages_of_a_destroyed_database(path: Path) -> None:
    with (path / "index.db").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))
    with opened(path) as index:
        report = index.check()
        assert not report.ok
        assert report.problems
        assert not index.check(repair=True).ok


def test_any_damage_gives_a_report_or_an_error_of_ours(path: Path, tmp_path: Path) -> None:
    """Bits, bytes and blocks of the database at random places."""
    good = (path / "index.db").read_bytes()
    chance = random.Random(5)
    told = 0
    for number in range(150):
        bad = bytearray(good)
        place, length = chance.randrange(len(bad)), chance.choice([1, 1, 4, 512])
        bad[place : place + length] = chance.choice([bytes(length), chance.randbytes(length)])[: len(bad) - place]
        copy = tmp_path / f"copy{number}"
        shutil.copytree(path, copy)
        (copy / "index.db").write_bytes(bad)
        try:
            report = checked(copy)
            repaired = checked(copy, repair=True)
            assert repaired.ok or repaired.problems, (number, report, repaired)  # nothing derived stays wrong
            told += not report.ok
        except StorageError:
            told += 1
        shutil.rmtree(copy)
    assert told > 20  # most of the file is zeros and vectors' zeros


# -- what is derived ---------------------------------------------------------------------------------------------------


def test_filter_fields_are_repaired(path: Path) -> None:
    execute(
        path,
        "DELETE FROM fields WHERE name = 'year'",
        "INSERT INTO fields SELECT 'year', 'n', 2020, key FROM documents WHERE id = 'late'",
    )
    shutil.rmtree(path / "cache")  # where the columns are as they were
    assert found(path, where={"year": 2020}) == ["late"]
    report = checked(path)
    assert report.cache == ("the filter fields of 2 documents are not those of their metadata",)
    assert "check --repair" in str(report)
    report = checked(path, repair=True)
    assert (report.ok, report.repaired) == (True, ("the filter fields of 2 documents are not those of their metadata",))
    assert found(path, where={"year": 2020}) == ["fees"]


def test_a_filter_field_that_is_no_text_is_repaired(path: Path) -> None:
    execute(path, "UPDATE fields SET value = CAST(x'ff' AS TEXT) WHERE name = 'id' AND document = 1")
    assert checked(path, repair=True).ok
    assert found(path, where={"id": "fees"}) == ["fees"]


def test_unused_vectors_are_dropped(path: Path) -> None:
    sealed = seal(bytes(16), bytes(4096)).hex()
    execute(path, f"INSERT INTO vectors VALUES (99, zeroblob(16), zeroblob(4096), x'{sealed}')")
    assert checked(path).cache == ("1 vectors are not used by any passage",)
    assert checked(path, repair=True).ok
    assert checked(path).ok


def forget_rows(path: Path, name: str, sql: str, condition: str) -> None:
    """Make one of SQLite's indexes forget the rows that do not meet a condition."""
    for text in (f"{sql} WHERE {condition}", sql):
        with closing(sqlite3.connect(path / "index.db")) as database:
            database.execute("PRAGMA writable_schema = ON")
            database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (text, name))
            database.commit()
        if text != sql:
            execute(path, f"REINDEX {name}")


def test_an_index_of_sqlite_is_repaired(path: Path) -> None:
    """The rows are there, but the lookup by document misses them: as if passages were gone."""
    sql = "CREATE INDEX passages_document ON passages (document)"
    forget_rows(path, "passages_document", sql, "document > 3")
    report = checked(path)
    assert report.cache == ("SQLite's index passages_document does not fit its table",)
    assert report.problems == ()
    assert checked(path, repair=True).ok
    assert checked(path).ok


def test_an_index_of_sqlite_is_not_repaired_where_the_table_may_be_wrong(path: Path) -> None:
    sql = "CREATE INDEX removals_generation ON removals (generation)"
    execute(path, "INSERT INTO removals VALUES (2, 5)")
    forget_rows(path, "removals_generation", sql, "generation > 99")
    assert any("removals_generation" in each for each in checked(path).problems)
    assert not checked(path, repair=True).ok


@pytest.mark.parametrize("leg", ["dense", "lexical"])
def test_a_cache_whose_checksums_are_right_and_whose_contents_are_wrong(path: Path, leg: str) -> None:
    """As a fault of ours could write it: no checksum tells, only the comparison with the database does."""
    with opened(path) as index, index.snapshot() as snapshot:
        legs, view = snapshot._legs, snapshot._view
        getattr(legs, leg)(view).remove([1])
        legs._write(view, view.generation())
    report = checked(path)
    assert len(report.cache) == 1
    assert f"the {leg} index does not hold the passages of the database" in report.cache[0]
    mode = {"dense": "dense", "lexical": "lexical"}[leg]
    assert "fees" not in found(path, mode=mode)
    assert checked(path, repair=True).ok
    assert "fees" in found(path, mode=mode)


def test_a_cache_with_another_vector(path: Path) -> None:
    with opened(path) as index, index.snapshot() as snapshot:
        legs, view = snapshot._legs, snapshot._view
        dense = legs.dense(view)
        dense.remove([1])
        dense.add([1], np.eye(1, 1024, dtype=np.float32))
        legs._write(view, view.generation())
    assert checked(path).cache == ("the dense index holds other vectors than the database",)
    assert checked(path, repair=True).ok


def test_legs_in_memory_are_checked_too_and_dropped(path: Path) -> None:
    with opened(path) as index:
        index.search("late fees")
        with index.snapshot() as snapshot:
            snapshot._legs.dense(snapshot._view).remove([1])
        assert len(index.check().cache) == 1
        assert index.check().ok  # read afresh
        assert "fees" in [hit.passage.document_id for hit in index.search("late fees", mode="dense")]


@pytest.mark.parametrize("what", ["text", "format", "foreign", "stale"])
def test_a_manifest_that_does_not_fit(path: Path, what: str) -> None:
    current = path / "cache" / "CURRENT.json"
    manifest = json.loads(current.read_text())
    if what == "foreign":
        manifest["identity"]["uuid"] = "another"
    if what == "stale":
        manifest["token"] = "another"
    if what == "format":
        manifest["format"] = 99
    current.write_text("{" if what == "text" else json.dumps(manifest))
    assert "CURRENT.json is damaged, or belongs to another index" in checked(path).cache[0]
    assert found(path)[0] == "fees"
    assert checked(path, repair=True).ok


def test_no_cache_is_nothing_wrong(path: Path) -> None:
    shutil.rmtree(path / "cache")
    assert checked(path).ok


# -- what is left over -------------------------------------------------------------------------------------------------


def litter(path: Path) -> list[Path]:
    (path / "index.db.new").write_bytes(b"half a database")
    (path / "cache" / "draft-123").mkdir()
    (path / "cache" / "draft-123" / "g000001-dense.faiss").write_bytes(b"half a cache")
    (path / "cache" / "g000001-dense.faiss").write_bytes(b"an earlier cache")
    (path / "cache" / "notes.txt").write_text("a user's own")
    names = ("cache/draft-123", "cache/g000001-dense.faiss", "index.db.new")
    return [path / name for name in names]


def test_leftovers_are_told_and_deleted_by_a_repair(path: Path) -> None:
    left = litter(path)
    report = checked(path)
    assert report.ok  # they do no harm
    assert report.leftovers == tuple(map(str, left))
    report = checked(path, repair=True)
    assert report.leftovers == ()
    assert len(report.repaired) == 3
    assert not any(each.exists() for each in left)
    assert (path / "cache" / "notes.txt").exists()
    assert found(path)[0] == "fees"


def test_files_of_a_process_at_work_are_not_left_over(path: Path) -> None:
    left = litter(path)
    code = (
        "import sys, time; from pathlib import Path; from semsearch.locking import writer_lock\n"
        f"with writer_lock(Path({str(path / 'lock')!r}), 1.0): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert leftovers(path) == []
    child.kill()  # and the lock file still names it
    child.communicate()
    assert leftovers(path) == left
    (path / "lock").write_text(json.dumps({"pid": child.pid, "host": "another machine"}))
    assert leftovers(path) == []


# -- who may -----------------------------------------------------------------------------------------------------------


def test_a_read_only_index_is_checked_and_not_repaired(path: Path) -> None:
    with opened(path, read_only=True) as index:
        assert index.check().ok
        with pytest.raises(ReadOnlyIndexError, match="read_only=True"):
            index.check(repair=True)


def test_a_closed_index(path: Path) -> None:
    index = opened(path)
    index.close()
    with pytest.raises(ClosedIndexError):
        index.check()
    with pytest.raises(ClosedIndexError):
        index.check(repair=True)


def test_a_check_beside_a_writer_raises_no_false_alarm(path: Path) -> None:
    """Each addition publishes a cache: files come and go under the checks."""
    stop = threading.Event()

    def write() -> None:
        with opened(path, timeout=60) as index:
            for number in range(1000):
                if stop.is_set():
                    return
                index.add([(f"more{number}", f"text number {number}")])
                index.optimize()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with opened(path) as index:
            reports = [index.check() for _ in range(8)]
    finally:
        stop.set()
        thread.join()
    assert [each for each in reports if not each.ok or each.leftovers] == []
    assert reports[-1].documents > reports[0].documents
    with opened(path) as index:
        assert index.check().ok


# -- only our own errors are translated --------------------------------------------------------------------------------


def test_errors_of_a_users_iterator_are_his_own(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[str, str]]:
        yield "a", "text"
        with closing(sqlite3.connect(":memory:")) as own:
            own.execute("SELECT * FROM nowhere")

    def files() -> Iterator[tuple[str, str]]:
        yield "b", "text"
        yield "c", Path("/nowhere/to/be/found").read_text()

    with opened(tmp_path / "index") as index:
        with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
            index.add(rows())
        with pytest.raises(FileNotFoundError) as raised:
            index.add(files())
        assert not isinstance(raised.value, SemsearchError)
        own = sqlite3.connect(":memory:")
        own.execute("CREATE TABLE t (id TEXT, text TEXT)")
        own.execute("INSERT INTO t VALUES ('d', CAST(x'ff' AS TEXT))")
        with pytest.raises(sqlite3.OperationalError, match="Could not decode"):
            index.add(own.execute("SELECT id, text FROM t"))
        own.close()
        assert index.check().ok
        assert index.add(("late", "fees") for _ in range(1)).added == 1


def test_errors_of_our_own_statements_are_ours_wherever_they_come(path: Path) -> None:
    execute(path, "UPDATE documents SET text = CAST(x'ff' AS TEXT) WHERE id = 'changed'")
    with opened(path) as index:
        with pytest.raises(CorruptIndexError, match="damaged"):
            index.get("changed")
        with pytest.raises(CorruptIndexError, match="damaged"):
            list(index.documents())
        with pytest.raises(CorruptIndexError, match="damaged"):
            index.add([("changed", "again")])
    assert os.access(path, os.W_OK)


# -- what SQLite does not see ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE documents SET text = 'X' || substr(text, 2) WHERE id = 'fees'", "document 'fees'"),
        ("UPDATE documents SET source = 'elsewhere' WHERE id = 'fees'", "document 'fees'"),
        ("UPDATE passages SET start = start + 1 WHERE id = 1", "passage 1"),
        ("UPDATE vectors SET vector = zeroblob(4095) || x'01' WHERE key = 1", "the vector of passage 1"),
    ],
)
def test_a_changed_byte_is_noticed_before_it_is_an_answer(path: Path, statement: str, what: str) -> None:
    shutil.rmtree(path / "cache", ignore_errors=True)
    execute(path, statement)
    assert not checked(path).ok
    with opened(path) as index, pytest.raises(CorruptIndexError, match=f"damaged: {what} is not what was stored"):
        index.search("late fees", k=20)


def test_seals_tell_kinds_and_borders_apart() -> None:
    rows = [("ab", "c"), ("a", "bc"), ("abc",), (b"ab", "c"), (1, "c"), ("1", "c"), (None, "c"), ("", "c")]
    assert len({seal(*row) for row in rows}) == len(rows)

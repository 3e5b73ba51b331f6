"""`Index.backup`: a whole index, at any time, or nothing at all."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from toy import WordEncoder

import semsearch
from semsearch.errors import (
    ClosedIndexError,
    CorruptIndexError,
    IndexLockedError,
    InputError,
    StorageFullError,
)
from semsearch.locking import writer_lock

DOCUMENTS = [(f"d{number}", f"Document number{number} about late fees and rooms{number % 7}.") for number in range(60)]


def opened(path: Path, **options: Any) -> semsearch.Index:
    return semsearch.Index(path, encoder=WordEncoder(), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with opened(tmp_path / "index") as index:
        index.add(DOCUMENTS)
        index.remove("d7")
    return tmp_path / "index"


def answers(index: semsearch.Index) -> list[Any]:
    return [
        [(hit.passage.id, hit.passage.text, hit.score, dict(hit.sources)) for hit in hits]
        for mode in ("lexical", "dense", "hybrid")
        for hits in semsearch.Retriever(index, mode=mode).search(["late fees", "number12", "rooms3 about"], k=9)
    ]


def test_the_copy_is_an_index_with_equal_results(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "copy"
    with opened(path) as index:
        report = index.backup(target)
        assert (report.path, report.documents, report.passages) == (str(target), 59, 59)
        assert report.size == (target / "index.db").stat().st_size
        assert str(report).startswith(f"{target}: 59 documents, 59 passages, ")
        assert sorted(each.name for each in target.iterdir()) == ["index.db", "lock"]
        with opened(target) as copy:
            assert copy.check().ok
            assert answers(copy) == answers(index)
            assert list(copy.documents()) == list(index.documents())
            copy.add([("more", "only in the copy")])
            assert copy.check().ok
        assert index.get("more") is None
        assert index.check().ok


def test_the_copy_of_a_new_index(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.backup(str(tmp_path / "copy"))
    with opened(tmp_path / "copy") as copy:
        assert copy.add(DOCUMENTS).added == 60


def test_what_is_in_the_log_of_recent_commits_is_copied(path: Path, tmp_path: Path) -> None:
    with opened(path) as index, closing(sqlite3.connect(path / "index.db")) as reader:
        reader.execute("BEGIN").execute("SELECT count(*) FROM meta").fetchone()  # keeps the log from being moved
        index.add([("recent", "In the log alone.")])
        assert (path / "index.db-wal").stat().st_size > 0
        index.backup(tmp_path / "copy")
    with opened(tmp_path / "copy", read_only=True) as copy:
        assert copy.get("recent") is not None


def test_the_copy_can_be_copied_back(path: Path, tmp_path: Path) -> None:
    with opened(path) as index:
        index.backup(tmp_path / "copy")
        before = answers(index)
        index.add([("later", "late fees late fees")])
        index.optimize()
    shutil.copy(tmp_path / "copy" / "index.db", path / "index.db")  # beside the cache of a later state
    with opened(path) as index:
        assert answers(index) == before


def test_while_another_process_writes(path: Path, tmp_path: Path) -> None:
    """Each commit holds a pair: no copy has half of one."""
    code = f"""
import semsearch
from toy import WordEncoder
with semsearch.Index({str(path)!r}, encoder=WordEncoder()) as index:
    for number in range(100000):
        index.add([(f"a{{number}}", "left " * 300), (f"b{{number}}", "right " * 300)])
        if number == 20: print("ready", flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with opened(path) as index:
            for number in range(6):
                index.backup(tmp_path / f"copy{number}")
    finally:
        child.kill()
        child.communicate()
    sizes = []
    for number in range(6):
        with opened(tmp_path / f"copy{number}", read_only=True) as copy:
            assert copy.check().ok
            names = {document.id[1:] for document in copy.documents() if document.id[0] in "ab"}
            assert all(copy.get(f"a{name}") and copy.get(f"b{name}") for name in names)
            sizes.append(len(names))
    assert sizes == sorted(sizes)
    assert sizes[0] >= 20


def test_searches_of_other_threads_go_on(path: Path, tmp_path: Path) -> None:
    with opened(path) as index:
        inside, done = threading.Event(), threading.Event()

        def wait(*_: int) -> None:
            inside.set()
            assert done.wait(30)

        thread = threading.Thread(target=index.backup, args=(tmp_path / "copy",), kwargs={"progress": wait})
        thread.start()
        assert inside.wait(30)
        assert len(index.search("late fees")) == 10
        index.add([("during", "added meanwhile")])
        done.set()
        thread.join()
    with opened(tmp_path / "copy", read_only=True) as copy:
        assert copy.get("during") is None


def test_progress(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import semsearch.backup as backup_module

    monkeypatch.setattr(backup_module, "PAGES", 5)
    calls: list[tuple[int, int]] = []
    with opened(path) as index:
        size = index.backup(tmp_path / "copy", progress=lambda done, total: calls.append((done, total))).size
        index.backup(tmp_path / "bar", progress=True)
    assert len(calls) > 3
    assert calls == sorted(calls)
    assert calls[-1] == (size, size)


# -- where it must not go ----------------------------------------------------------------------------------------------


def test_targets_that_cannot_be(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with opened(tmp_path / "other"):
        pass
    before = (tmp_path / "other" / "index.db").read_bytes()
    with opened(path) as index:
        for target, message in [
            (tmp_path / "file", "is a file"),
            (tmp_path / "full", r"is not empty \('letter.txt' is there\)"),
            (tmp_path / "other", "holds an index already"),
            (path, "lies in the index"),
            (path / "cache" / "copy", "lies in the index"),
            ("", "is not the path of a folder"),
            (None, "is not the path of a folder"),
        ]:
            with pytest.raises(InputError, match=message):
                index.backup(target)  # type: ignore[arg-type]
    assert sorted(each.name for each in (tmp_path / "full").iterdir()) == ["letter.txt"]
    assert (tmp_path / "other" / "index.db").read_bytes() == before
    with pytest.raises(ClosedIndexError):
        index.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_empty_folder_and_one_that_another_backup_uses(path: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with opened(path) as index:
        with (
            writer_lock(tmp_path / "copy" / "lock", 0.0),
            pytest.raises(IndexLockedError, match="copy is being written"),
        ):
            index.backup(tmp_path / "copy")
        index.backup(tmp_path / "copy")
    assert (tmp_path / "copy" / "index.db").exists()


# -- what is interrupted leaves nothing --------------------------------------------------------------------------------


def test_interrupted(path: Path, tmp_path: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "there").mkdir()
    with opened(path) as index:
        for target in (tmp_path / "deep" / "copy", tmp_path / "there"):
            with pytest.raises(KeyboardInterrupt):
                index.backup(target, progress=interrupt)
    assert not (tmp_path / "deep").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_killed_in_the_middle(path: Path, tmp_path: Path) -> None:
    """What is left is no index, and the next backup takes its place."""
    target = tmp_path / "copy"
    code = f"""
import os, signal, semsearch, semsearch.backup
semsearch.backup.PAGES = 5
index = semsearch.Index({str(path)!r})
calls = []
def kill(done, total):
    if 0 < done < total:
        os.kill(os.getpid(), signal.SIGKILL)
index.backup({str(target)!r}, progress=kill)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (target / "index.db.new").exists()
    with pytest.raises(semsearch.errors.IndexNotFoundError):
        opened(target, create=False)
    with opened(path) as index:
        index.backup(target)
        with opened(target) as copy:
            assert answers(copy) == answers(index)


def test_a_damaged_index_is_not_backed_up(path: Path, tmp_path: Path) -> None:
    with (path / "index.db").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)
    with opened(path) as index, pytest.raises(CorruptIndexError, match=r"index is damaged .*no backup was made"):
        index.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can only be mounted by the superuser")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_no_room_at_the_target(path: Path, tmp_path: Path) -> None:
    """P7"""
    disk = tmp_path / "disk"
    with small_disk(disk, "128k"), opened(path) as index:
        with pytest.raises(StorageFullError, match="disk/deep/copy"):
            index.backup(disk / "deep" / "copy")
        assert list(disk.iterdir()) == []
        assert index.check().ok


def test_from_read_only_media(path: Path, tmp_path: Path) -> None:
    """P8"""
    disk = tmp_path / "disk"
    with small_disk(disk, "8m"):
        shutil.copytree(path, disk / "index")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = sorted(each.name for each in (disk / "index").iterdir())
        with opened(disk / "index") as index:
            assert index.check().ok
            index.backup(tmp_path / "copy")
            with opened(tmp_path / "copy") as copy:
                assert answers(copy) == answers(index)
        assert sorted(each.name for each in (disk / "index").iterdir()) == before

"""A folder and its index: what changed is read, what is gone is removed, nothing else is touched."""

from __future__ import annotations

import gzip
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from toy import WordEncoder

import semsearch
from semsearch import parsing
from semsearch.errors import InputError
from semsearch.formats import Extracted
from semsearch.loading import LOADERS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "fees.md").write_text("# Fees\n\nLate fees are twenty cents.\n")
    (folder / "hours.txt").write_text("The library opens at nine.\r\nIt closes at eight.\r\n", newline="")
    (folder / "sub" / "rooms.txt").write_text("Meeting rooms can be booked.\n")
    time.sleep(0.03)  # older than the time within which a file is looked at twice
    return folder


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def index(tmp_path: Path, encoder: WordEncoder) -> Iterator[semsearch.Index]:
    with semsearch.Index(tmp_path / "index", encoder=encoder) as index:
        yield index


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is opened."""
    opened: list[str] = []
    original = os.open

    def recording(path: object, flags: int, *rest: object, **options: object) -> int:
        opened.append(Path(path).name)  # type: ignore[arg-type]
        return original(path, flags, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", recording)
    return opened


def counts(report: semsearch.index.SyncReport) -> tuple[int, int, int, int, int]:
    return report.added, report.updated, report.removed, report.unchanged, report.failed


def ids(index: semsearch.Index) -> list[str]:
    return sorted(document.id for document in index.documents())


def found(index: semsearch.Index, query: str) -> list[str]:
    return sorted(hit.passage.document_id for hit in index.search(query, mode="lexical"))


def test_first_sync(index: semsearch.Index, folder: Path) -> None:
    assert counts(index.sync(folder)) == (3, 0, 0, 0, 0)
    assert ids(index) == ["fees.md", "hours.txt", "sub/rooms.txt"]
    document = index.get("hours.txt")
    assert document is not None
    assert document.text == "The library opens at nine.\r\nIt closes at eight.\r\n"  # line endings as they are
    assert document.source == str(folder / "hours.txt")
    status = (folder / "hours.txt").stat()
    assert document.metadata == {"suffix": ".txt", "size": status.st_size, "modified": pytest.approx(status.st_mtime)}
    fees = index.get("fees.md")
    assert fees is not None
    assert fees.title == "Fees"


def test_a_second_sync_reads_and_embeds_nothing(
    index: semsearch.Index, folder: Path, encoder: WordEncoder, reads: list[str]
) -> None:
    index.sync(folder)
    assert {"fees.md", "hours.txt", "rooms.txt"} <= set(reads)
    embedded = len(encoder.encoded)
    reads.clear()
    assert counts(index.sync(folder)) == (0, 0, 0, 3, 0)
    assert not {"fees.md", "hours.txt", "rooms.txt"} & set(reads)
    assert len(encoder.encoded) == embedded


def test_what_changed_and_only_that(
    index: semsearch.Index, folder: Path, encoder: WordEncoder, reads: list[str]
) -> None:
    index.sync(folder)
    reads.clear()
    encoder.encoded.clear()
    (folder / "fees.md").write_text("# Fees\n\nLate fees are thirty cents.\n")
    (folder / "new.txt").write_text("New books arrive on Fridays.")
    (folder / "hours.txt").unlink()
    assert counts(index.sync(folder)) == (1, 1, 1, 1, 0)
    assert "rooms.txt" not in reads
    assert len(encoder.encoded) == 2
    assert found(index, "twenty") == []
    assert found(index, "thirty") == ["fees.md"]
    assert ids(index) == ["fees.md", "new.txt", "sub/rooms.txt"]


def test_a_touched_file_is_unchanged(index: semsearch.Index, folder: Path, encoder: WordEncoder) -> None:
    index.sync(folder)
    encoder.encoded.clear()
    os.utime(folder / "fees.md", (1_000_000_000, 1_000_000_000))
    assert counts(index.sync(folder)) == (0, 0, 0, 3, 0)
    assert encoder.encoded == []
    document = index.get("fees.md")
    assert document is not None
    assert document.metadata["modified"] == 1_000_000_000
    assert [hit.passage.document_id for hit in index.search("fees", where={"modified": 1_000_000_000})] == ["fees.md"]


def test_a_file_written_within_the_clocks_grain_is_looked_at_again(
    index: semsearch.Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same size and time stamp, other content: written just before it was read."""
    monkeypatch.setattr("semsearch.sync.RACY_NS", 60_000_000_000)
    path = folder / "fees.md"
    path.write_text("# Fees\n\nLate fees are twelve cents.\n")
    stamp = path.stat()
    index.sync(folder)
    with path.open("r+") as file:  # in place, so that the inode stays
        file.write("# Fees\n\nLate fees are eleven cent.\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    index.sync(folder)
    assert found(index, "eleven") == ["fees.md"]


def test_a_rename_embeds_nothing(index: semsearch.Index, folder: Path, encoder: WordEncoder) -> None:
    index.sync(folder)
    passage = index.search("late fees", k=1, mode="lexical")[0].passage
    encoder.encoded.clear()
    (folder / "archive").mkdir()
    (folder / "fees.md").rename(folder / "archive" / "old-fees.md")
    assert counts(index.sync(folder)) == (0, 1, 0, 2, 0)
    assert encoder.encoded == []
    moved = index.search("late fees", k=1, mode="lexical")[0].passage
    assert (moved.id, moved.document_id, moved.text) == (passage.id, "archive/old-fees.md", passage.text)
    assert ids(index) == ["archive/old-fees.md", "hours.txt", "sub/rooms.txt"]
    assert counts(index.sync(folder)) == (0, 0, 0, 3, 0)
    assert index.check().ok


@pytest.mark.parametrize(("before", "after"), [("a.csv.gz", "a.txt.gz"), ("a.txt.gz", "a.md.gz")])
def test_a_new_suffix_below_gz_is_read_anew(index: semsearch.Index, folder: Path, before: str, after: str) -> None:
    (folder / before).write_bytes(gzip.compress(b"# name,fee\nbook,10\n"))
    index.sync(folder)
    (folder / before).rename(folder / after)
    assert counts(index.sync(folder)) == (1, 0, 1, 3, 0)
    document = index.get(after)
    assert document is not None
    assert document.text == "# name,fee\nbook,10\n"
    assert document.metadata["suffix"] == after[1:-3]


def test_a_copy_is_not_a_rename(index: semsearch.Index, folder: Path, encoder: WordEncoder) -> None:
    index.sync(folder)
    encoder.encoded.clear()
    (folder / "copy.md").write_bytes((folder / "fees.md").read_bytes())
    assert counts(index.sync(folder)) == (1, 0, 0, 3, 0)
    assert encoder.encoded == []  # the vector is shared
    assert found(index, "late fees") == ["copy.md", "fees.md"]


def test_two_files_swap_names(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder)
    (folder / "a.txt").write_text("alpha")
    (folder / "b.txt").write_text("beta")
    time.sleep(0.03)
    index.sync(folder)
    (folder / "a.txt").rename(folder / "c")
    (folder / "b.txt").rename(folder / "a.txt")
    (folder / "c").rename(folder / "b.txt")
    index.sync(folder)
    assert (found(index, "alpha"), found(index, "beta")) == (["b.txt"], ["a.txt"])


def test_only_what_lay_in_the_synced_folder_is_removed(index: semsearch.Index, folder: Path, tmp_path: Path) -> None:
    """P22"""
    index.sync(folder)
    index.add([("note", "A note that came by hand.")])
    (folder / "fees.md").unlink()
    (folder / "sub" / "rooms.txt").unlink()
    assert counts(index.sync(folder / "sub")) == (0, 0, 1, 0, 0)
    assert ids(index) == ["fees.md", "hours.txt", "note"]
    assert counts(index.sync(folder)) == (0, 0, 1, 1, 0)
    assert ids(index) == ["hours.txt", "note"]


def test_a_subfolder_keeps_the_ids_of_its_root(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder)
    (folder / "sub" / "more.txt").write_text("More rooms.")
    assert counts(index.sync(folder / "sub")) == (1, 0, 0, 1, 0)
    assert "sub/more.txt" in ids(index)


def test_a_second_root_gets_a_prefix(index: semsearch.Index, folder: Path, tmp_path: Path) -> None:
    index.sync(folder)
    for place in ("x", "y"):
        (tmp_path / place / "docs").mkdir(parents=True)
        (tmp_path / place / "docs" / "fees.md").write_text(f"Fees of {place}.")
        index.sync(tmp_path / place / "docs")
    assert ids(index) == ["docs-2/fees.md", "docs/fees.md", "fees.md", "hours.txt", "sub/rooms.txt"]
    (tmp_path / "x" / "docs" / "fees.md").unlink()
    assert index.sync(tmp_path / "x" / "docs").removed == 1
    assert ids(index) == ["docs-2/fees.md", "fees.md", "hours.txt", "sub/rooms.txt"]


def test_the_parent_of_a_known_root(index: semsearch.Index, folder: Path) -> None:
    """Files of the inner root keep their ids and are not taken in twice."""
    index.sync(folder / "sub")
    assert ids(index) == ["rooms.txt"]
    assert counts(index.sync(folder)) == (2, 0, 0, 1, 0)
    assert ids(index) == ["folder/fees.md", "folder/hours.txt", "rooms.txt"]
    (folder / "sub" / "rooms.txt").unlink()
    assert index.sync(folder).removed == 1


def test_two_roots_that_would_give_one_id(index: semsearch.Index, tmp_path: Path) -> None:
    """New in the same batch: the first one has the id, and the other one is told."""
    outer, inner = tmp_path / "r", tmp_path / "r" / "sub" / "docs"
    (inner / "r").mkdir(parents=True)
    index.sync(inner)  # with the prefix ""
    index.sync(outer)  # with the prefix "r/"
    (inner / "r" / "y.txt").write_text("The inner zebra.")
    (outer / "y.txt").write_text("The outer giraffe.")
    for added, unchanged in ((1, 0), (0, 1)):
        report = index.sync(outer)
        assert counts(report) == (added, 0, 0, unchanged, 1)
        assert report.failures[0][0] == str(outer / "y.txt")
        assert "'r/y.txt' is taken" in report.failures[0][1]
        assert (found(index, "zebra"), found(index, "giraffe")) == (["r/y.txt"], [])
    assert index.check().ok


def test_a_pattern_removes_nothing(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder)
    assert counts(index.sync(folder, pattern="*.md")) == (0, 0, 0, 1, 0)
    assert len(ids(index)) == 3


def test_pattern(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder, pattern="*.txt")
    assert ids(index) == ["hours.txt", "sub/rooms.txt"]


def test_a_document_by_hand_is_not_overwritten(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder, pattern="*.md")
    index.add([("hours.txt", "My own text about hours.")])
    report = index.sync(folder)
    assert report.failed == 1
    assert "'hours.txt' is taken" in report.failures[0][1]
    document = index.get("hours.txt")
    assert document is not None
    assert document.text == "My own text about hours."


def test_a_removed_document_comes_back_with_the_next_sync(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder)
    assert index.remove("fees.md") == 1
    assert counts(index.sync(folder)) == (1, 0, 0, 2, 0)


def test_an_index_inside_the_folder_is_not_read(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    """Opening its database as a file would drop the locks that SQLite holds on it."""
    with semsearch.Index(folder / "indexes" / "mine", encoder=WordEncoder()) as index:
        for _ in range(2):
            report = index.sync(folder)
            assert report.failed == 0
        assert ids(index) == ["fees.md", "hours.txt", "sub/rooms.txt"]
        with pytest.raises(InputError, match="is an index, or lies in one"):
            index.sync(folder / "indexes" / "mine" / "cache")
    assert not {"index.db", "index.db-shm", "index.db-wal"} & set(reads)


def test_an_interrupted_rename_leaves_no_ghost(tmp_path: Path, folder: Path) -> None:
    class Interrupting(WordEncoder):
        armed = False

        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
            if self.armed:
                raise KeyboardInterrupt
            return super().encode(texts, kind=kind)

    encoder = Interrupting()
    with semsearch.Index(tmp_path / "index", encoder=encoder) as index:
        index.sync(folder)
        (folder / "fees.md").rename(folder / "a-fees.md")
        (folder / "b-new.txt").write_text("Something new.")
        encoder.armed = True
        with pytest.raises(KeyboardInterrupt):
            index.sync(folder)
        encoder.armed = False
        index.sync(folder)
        assert ids(index) == ["a-fees.md", "b-new.txt", "hours.txt", "sub/rooms.txt"]


def test_a_damaged_file_that_is_renamed_is_still_damaged(index: semsearch.Index, folder: Path) -> None:
    path = folder / "data.json"
    path.write_text('{"k": "old words"}')
    index.sync(folder)
    path.write_bytes(b"\0\1\2\xff\xfe{{{")
    assert index.sync(folder).failed == 1
    path.rename(folder / "moved.json")
    assert index.sync(folder).failed == 1
    assert "moved.json" not in ids(index)


def test_a_failure_that_passed_is_forgotten(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder)
    index.add([("new.md", "By hand.")])
    (folder / "new.md").write_text("From the folder.")
    time.sleep(0.03)
    assert index.sync(folder).failed == 1
    index.remove("new.md")
    assert counts(index.sync(folder)) == (1, 0, 0, 3, 0)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_missing_folder(index: semsearch.Index, folder: Path) -> None:
    index.sync(folder)
    with pytest.raises(InputError, match="There is no folder"):
        index.sync(folder / "nowhere")
    with pytest.raises(InputError, match="is a file"):
        index.sync(folder / "fees.md")
    assert len(ids(index)) == 3


def test_an_empty_folder(index: semsearch.Index, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert counts(index.sync(tmp_path / "empty")) == (0, 0, 0, 0, 0)
    assert list(index.search("anything")) == []
    assert not index.ask("Is there anything?").found


def test_bad_files_have_a_reason_and_stop_nothing(index: semsearch.Index, folder: Path, reads: list[str]) -> None:
    """P17"""
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "strange.txt").write_bytes(bytes(range(256)) * 4)
    (folder / "empty.txt").touch()
    time.sleep(0.03)
    report = index.sync(folder)
    assert counts(report) == (4, 0, 0, 0, 3)
    reasons = {Path(path).name: reason for path, reason in report.failures}
    assert set(reasons) == {"damaged.pdf", "picture.png", "strange.txt"}
    assert all(reasons.values())
    assert ".png" in reasons["picture.png"]
    reads.clear()
    again = index.sync(folder)
    assert (counts(again), again.failures) == ((0, 0, 0, 4, 3), report.failures)
    assert "damaged.pdf" not in reads  # the reason is remembered
    (folder / "strange.txt").write_text("Not strange any more.")
    assert counts(index.sync(folder)) == (1, 0, 0, 4, 2)


def test_a_document_that_cannot_be_stored_stops_nothing(
    index: semsearch.Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P17: a loader of the user's own, and metadata that JSON has no form for."""
    metadata = {".one": math.nan, ".two": {1, 2}}

    def loader(suffix: str) -> None:
        monkeypatch.setitem(LOADERS, suffix, lambda data: Extracted("some zebra", "", {"x": metadata[suffix]}))

    for suffix in metadata:
        loader(suffix)
        (folder / f"a{suffix}").write_text("x")
    time.sleep(0.03)
    for expected in ((3, 0, 0, 0, 2), (0, 0, 0, 3, 2)):
        report = index.sync(folder)
        assert counts(report) == expected
        assert [path for path, _ in report.failures] == [str(folder / "a.one"), str(folder / "a.two")]
        assert all("cannot be stored as JSON" in reason for _, reason in report.failures)
    metadata.update({".one": 1, ".two": 2})  # the loader is mended: the files are tried again
    assert counts(index.sync(folder)) == (2, 0, 0, 3, 0)
    metadata[".one"] = math.nan
    (folder / "a.one").write_text("other bytes, the same text")
    assert counts(index.sync(folder)) == (0, 0, 0, 4, 1)
    assert found(index, "zebra") == ["a.one", "a.two"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_as_a_user(index: semsearch.Index, folder: Path) -> None:
    (folder / "fees.md").chmod(0)
    report = index.sync(folder)
    assert report.failed == 1
    assert "denied" in report.failures[0][1]


def test_an_unreadable_file(index: semsearch.Index, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last text that could be read stays."""
    index.sync(folder)
    (folder / "fees.md").write_text("# Fees\n\nNow unreadable.\n")
    original = os.open

    def refusing(path: object, *rest: object, **options: object) -> int:
        if os.fspath(path) == str(folder / "fees.md"):  # type: ignore[arg-type]
            raise PermissionError(13, "Permission denied", path)
        return original(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    report = index.sync(folder)
    assert report.failures == ((str(folder / "fees.md"), "Permission denied"),)
    assert found(index, "twenty cents") == ["fees.md"]
    monkeypatch.undo()
    assert counts(index.sync(folder)) == (0, 1, 0, 2, 0)
    assert found(index, "twenty") == []


def test_links_pipes_and_devices_are_not_followed(index: semsearch.Index, folder: Path, tmp_path: Path) -> None:
    """P18"""
    (tmp_path / "secret.txt").write_text("outside the folder")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    index.sync(folder)
    assert ids(index) == ["fees.md", "hours.txt", "sub/rooms.txt"]
    assert found(index, "outside") == []


# -- interrupted -------------------------------------------------------------------------------------------------------


def test_an_interrupted_sync_goes_on(index: semsearch.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.txt").write_text(f"Text number n{number}.")
    time.sleep(0.03)
    monkeypatch.setattr("semsearch.ingest.BATCH_PASSAGES", 8)
    original = parsing.load_file

    def interrupting(path: Path, *, id: str | None = None) -> semsearch.Document:
        if path.name == "20.txt":
            raise KeyboardInterrupt
        return original(path, id=id)

    monkeypatch.setattr(parsing, "load_file", interrupting)
    with pytest.raises(KeyboardInterrupt):
        index.sync(folder)
    assert len(ids(index)) == 16
    monkeypatch.setattr(parsing, "load_file", original)
    assert counts(index.sync(folder)) == (24, 0, 0, 16, 0)
    assert index.check().ok


def test_progress_is_called(index: semsearch.Index, folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    index.sync(folder, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_kill_nine_loses_at_most_a_batch(tmp_path: Path) -> None:
    """P1: killed at ten different moments, the index opens, is in order, and the next sync completes it."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.txt").write_text(f"Text number n{number} about fees.")
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import semsearch, semsearch.ingest
from toy import WordEncoder
semsearch.ingest.BATCH_PASSAGES = 16
with semsearch.Index({str(tmp_path / "index")!r}, encoder=WordEncoder()) as index:
    print("ready", flush=True)
    print(index.sync({str(folder)!r}))
"""
    before = 0
    for attempt in range(10):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n", child.communicate()
        time.sleep(0.02 * attempt)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
            assert index.check().problems == ()
            now = len(ids(index))
            assert now >= before
            assert len(found(index, "fees")) == min(now, 10)
            before = now
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        report = index.sync(folder)
        assert (report.added, report.unchanged) == (300 - before, before)
        assert len(ids(index)) == 300
        assert index.check().ok

"""`semsearch copy` from a folder to each engine and back: the same index, whatever happens on the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contents import contents
from toy import WordEncoder

import semsearch
from semsearch.copying import copy
from semsearch.errors import IndexMismatchError, InputError

ODD = {
    "id": "odd \ud800 '\"\\\n",
    "text": "a lone \udfff, a NUL \0, \u2028 and a smile \U0001f600",
    "title": "Über \ud800",
    "metadata": {"a": [1, 2.5, None, "x", {"b": True}], "year": 2020, "\ud800": "\udfff", "big": 2**53 + 1},
}


def documents(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"d{number}", "text": f"Document number{number} about late fees and rooms{number % 7}."}
        for number in range(count)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An index with a synced folder, a file that cannot be read, documents that were added, and a learned fusion."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.md").write_text(f"# Heading{number}\n\ntext number{number}\n\n" * 20)
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.4 nothing")
    for path in folder.iterdir():
        os.utime(path, (1.7e9, 1.7e9))  # long ago: what was written just now is looked at again
    with semsearch.Index(tmp_path / "source", encoder=WordEncoder(), analyzer="english") as index:
        assert index.sync(folder).failed == 1
        index.add([*documents(60), ODD, ("empty", ""), ("long", "word " * 30_000)])
        semsearch.Retriever(index).tune([(f"number{number}", f"d{number}") for number in range(50)])
    return tmp_path / "source"


def test_out_and_back(source: Path, location: str, tmp_path: Path) -> None:
    report = copy(source, location)
    assert (report.added, report.documents, report.checked) == (68, 68, 64)
    assert contents(location) == contents(source)
    assert copy(source, location).unchanged == 68
    encoder = WordEncoder()
    with semsearch.Index(location, encoder=encoder) as index:
        report = index.sync(tmp_path / "folder")
        assert (report.added, report.updated, report.removed, report.unchanged) == (0, 0, 0, 5)
        assert index.search("number33", k=1, mode="dense")[0].passage.document_id == "d33"
        assert index.info()["fusion"]["learned"]
    assert encoder.encoded == []
    copy(location, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(source)
    with semsearch.Index(tmp_path / "back", encoder=encoder) as index:
        assert index.check().ok
        assert index.sync(tmp_path / "folder").unchanged == 5


def test_a_second_copy_brings_either_side_up_to_date(source: Path, location: str, tmp_path: Path) -> None:
    copy(source, location)
    copy(location, tmp_path / "back")
    with semsearch.Index(source, encoder=WordEncoder()) as index:
        index.remove(["d3", ODD["id"]])
        index.add([("new", "A new one."), ("d4", "Another text."), {**documents(6)[5], "metadata": {"year": 2020}}])
        (tmp_path / "folder" / "0.md").unlink()
        (tmp_path / "folder" / "damaged.pdf").unlink()
        index.sync(tmp_path / "folder")
    report = copy(source, location)
    assert (report.added, report.updated, report.removed, report.unchanged, report.documents) == (1, 2, 3, 63, 66)
    assert contents(location) == contents(source)
    report = copy(location, tmp_path / "back")
    assert (report.added, report.updated, report.removed, report.unchanged, report.documents) == (1, 2, 3, 63, 66)
    assert contents(tmp_path / "back") == contents(source)


def test_a_copy_that_is_killed_again_and_again_ends_complete(source: Path, location: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    for origin, target in ((str(source), location), (location, str(tmp_path / "back"))):
        script = (
            "from semsearch import copying; copying.BATCH_PASSAGES = 8; "
            f"copying.copy({origin!r}, {target!r}, progress=lambda *far: print(*far, flush=True))"
        )
        for _ in range(3):
            with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                for _ in range(chance.randint(2, 5)):
                    assert child.stdout.readline().endswith("68\n")
                child.send_signal(signal.SIGKILL)
            assert child.returncode == -signal.SIGKILL
        report = copy(origin, target)
        assert report.documents == 68
        assert report.added > 30
        assert contents(target) == contents(source)


def test_what_cannot_be_a_target_is_refused(source: Path, location: str, tmp_path: Path) -> None:
    with semsearch.Index(location, encoder=WordEncoder(), analyzer="english") as index:
        index.add([("own", "A document of its own.")])
    with pytest.raises(InputError, match="holds documents that were not copied from"):
        copy(source, location)
    with pytest.raises(InputError, match="cannot be copied to itself"):
        copy(location, location)
    other = WordEncoder()
    other.name = "another"
    with semsearch.Index(tmp_path / "other", encoder=other) as index:
        index.add([("own", "A document of its own.")])
    with pytest.raises(IndexMismatchError, match="another"):
        copy(tmp_path / "other", location)
    with semsearch.Index(location, encoder=WordEncoder()) as index:
        assert [document.id for document in index.documents()] == ["own"]


def test_what_was_synced_there_comes_back(source: Path, location: str, tmp_path: Path) -> None:
    with semsearch.Index(location, encoder=WordEncoder()) as index:
        assert index.sync(tmp_path / "folder").added == 5
    copy(location, tmp_path / "back")
    encoder = WordEncoder()
    with semsearch.Index(tmp_path / "back", encoder=encoder) as index:
        report = index.sync(tmp_path / "folder")
        assert (report.added, report.updated, report.unchanged, report.failed) == (0, 0, 5, 1)
        assert index.check().ok
        (tmp_path / "folder" / "1.md").write_text("another text")
        assert index.sync(tmp_path / "folder").updated == 1
    assert encoder.encoded == ["another text"]

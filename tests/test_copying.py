"""`semsearch.copying.copy`: the same index at another place, whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from contents import contents
from toy import WordEncoder

import semsearch
from semsearch import cli
from semsearch.copying import copy
from semsearch.embedded import EmbeddedEngine
from semsearch.engines.protocol import Entry
from semsearch.errors import CorruptIndexError, IndexMismatchError, IndexNotFoundError, InputError

DOCUMENTS = [
    {"id": f"d{number}", "text": f"Document number{number} about late fees and rooms{number % 7}.", "title": "A note"}
    for number in range(200)
]
GERMAN = (
    "Die Bücherei ist am Sonntag nicht geöffnet, und für das Ausleihen von Büchern wird auch keine Gebühr erhoben. "
)


def opened(path: Path, **options: Any) -> semsearch.Index:
    return semsearch.Index(path, encoder=WordEncoder(), **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    with opened(tmp_path / "source", analyzer="english") as index:
        index.add(DOCUMENTS)
    return tmp_path / "source"


def answers(path: Path) -> list[Any]:
    with opened(path) as index:
        return [
            [(hit.passage.document_id, hit.passage.text, hit.score, dict(hit.sources)) for hit in hits]
            for mode in ("lexical", "dense", "hybrid")
            for hits in semsearch.Retriever(index, mode=mode).search(["late fees", "number12", "rooms3 note"], k=9)
        ]


def test_the_copy_is_the_same_index(source: Path, tmp_path: Path) -> None:
    with opened(source) as index:  # what Parquet, JSON and SQLite's own strings would lose
        index.add({"id": "odd \ud800", "text": "a lone \udfff, a NUL \0 and \u2028", "metadata": {"a": [1, 2.0, None]}})
        index.add([("empty", "")])
        judged = [(f"number{number}", f"d{number}") for number in range(50)]
        semsearch.Retriever(index).tune(judged)
        learned = index.info()["fusion"]
        passages = len(index)
    report = copy(source, tmp_path / "copy")
    assert (report.source, report.target) == (str(source), str(tmp_path / "copy"))
    assert (report.documents, report.passages, report.added, report.checked) == (202, passages, 202, 64)
    assert (report.updated, report.removed, report.unchanged) == (0, 0, 0)
    assert contents(tmp_path / "copy") == contents(source)
    assert answers(tmp_path / "copy") == answers(source)
    with opened(tmp_path / "copy") as index:
        assert index.info()["fusion"] == learned
        assert learned["learned"]
        assert index.check().ok


def test_nothing_is_encoded_and_a_sync_on_the_copy_finds_all_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"text number{number}")
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.4 nothing")
    with opened(tmp_path / "source") as index:
        first = index.sync(folder)
    assert (first.added, first.failed) == (5, 1)
    copy(tmp_path / "source", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / "source")
    encoder = WordEncoder()
    with semsearch.Index(tmp_path / "copy", encoder=encoder) as index:
        again = index.sync(folder)
        assert (again.added, again.updated, again.unchanged, again.failures) == (0, 0, 5, first.failures)
        (folder / "0.txt").unlink()
        assert index.sync(folder).removed == 1
    assert encoder.encoded == []


def test_a_second_copy_brings_the_target_up_to_date(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path / "copy")
    report = copy(source, tmp_path / "copy")
    assert (report.added, report.updated, report.removed, report.unchanged) == (0, 0, 0, 200)
    with opened(source) as index:
        index.remove(["d3", "d77", "d199"])
        index.add([("new", "A new one."), {"id": "d4", "text": "Another text."}])
        index.add({**DOCUMENTS[5], "metadata": {"year": 2020}})  # its text and passages stay
    report = copy(source, tmp_path / "copy")
    assert (report.added, report.updated, report.removed, report.unchanged) == (1, 2, 3, 195)
    assert report.documents == 198
    assert contents(tmp_path / "copy") == contents(source)


def test_an_interrupted_copy_goes_on_where_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.copying.BATCH_PASSAGES", 128)  # 64 documents of one passage

    def stop(done: int, total: int) -> None:
        assert total == 200
        if done >= 128:
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        copy(source, tmp_path / "copy", progress=stop)
    report = copy(source, tmp_path / "copy", progress=lambda done, total: seen.append(done))
    assert (report.added, report.unchanged, report.documents, seen) == (72, 0, 200, [128, 192, 200])
    assert contents(tmp_path / "copy") == contents(source)


def test_an_interrupted_copy_of_what_has_changed_since_compares_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.copying.BATCH_PASSAGES", 128)

    def stop(done: int, total: int) -> None:
        if done >= 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source, tmp_path / "copy", progress=stop)
    with opened(source) as index:
        index.remove("d0")
        index.add([("d1", "Another text.")])
    report = copy(source, tmp_path / "copy")
    assert (report.added, report.updated, report.removed, report.unchanged) == (72, 1, 1, 126)
    assert contents(tmp_path / "copy") == contents(source)


def test_a_copy_that_is_killed_again_and_again_ends_complete(source: Path, tmp_path: Path) -> None:
    script = (
        "from semsearch import copying; copying.BATCH_PASSAGES = 8; "
        f"copying.copy({str(source)!r}, {str(tmp_path / 'copy')!r}, progress=lambda *far: print(*far, flush=True))"
    )
    chance = random.Random(7)
    far = []
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randint(2, 7)):
                done, total = map(int, child.stdout.readline().split())
            time.sleep(chance.uniform(0, 0.02))  # somewhere in a batch
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        assert total == 200
        far.append(done)
        assert sum(name.startswith("document") for name in contents(tmp_path / "copy")) >= done
    assert far == sorted(far)
    report = copy(source, tmp_path / "copy")
    assert 0 < report.added < 200 - far[-1] + 4
    assert contents(tmp_path / "copy") == contents(source)


class _Losing(EmbeddedEngine):
    """An engine that does not store what it is given: a document less, or another vector."""

    fault = ""

    def upsert(self, given: Sequence[Entry]) -> None:
        if self.fault == "document":
            given = [entry for entry in given if entry.document.id != "d9"]
        if self.fault == "vector":
            given = [_turned(entry) if entry.document.id == "d9" else entry for entry in given]
        super().upsert(given)


def _turned(entry: Entry) -> Entry:
    return entry._replace(parts=[part._replace(vector=-part.vector) for part in entry.parts if part.vector is not None])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("document", "has 199 documents and 199 passages after 200 and 200 were copied"),
        ("vector", r"1 of 200 documents .* are not what was copied: 'd9'\."),
    ],
)
def test_what_the_target_does_not_hold_is_told(
    fault: str, message: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.embedded.EmbeddedEngine", _Losing)
    monkeypatch.setattr(_Losing, "fault", fault)
    with pytest.raises(CorruptIndexError, match=message):
        copy(source, tmp_path / "copy", sample=200)


def test_what_cannot_be_a_target_is_refused_and_left_as_it_is(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    for target in (source, tmp_path / "link", tmp_path / "x" / ".." / "source"):
        with pytest.raises(InputError, match="cannot be copied to itself"):
            copy(source, target)
    with semsearch.Index(tmp_path / "other", encoder=WordEncoder(), analyzer="english") as index:
        index.add([("own", "A document of its own.")])
    before = contents(tmp_path / "other")
    with pytest.raises(InputError, match=r"holds documents that were not copied from .*source; a copy would replace"):
        copy(source, tmp_path / "other")
    copy(tmp_path / "other", tmp_path / "copy")
    with pytest.raises(InputError, match=r"is a copy of .*other, not of .*source"):
        copy(source, tmp_path / "copy")
    assert contents(tmp_path / "other") == before
    assert contents(tmp_path / "copy") == before
    with pytest.raises(IndexNotFoundError):
        copy(tmp_path / "nowhere", tmp_path / "copy")
    with pytest.raises(InputError, match="sample is a number"):
        copy(source, tmp_path / "new", sample=-1)


def test_a_target_of_another_model_is_refused(source: Path, tmp_path: Path) -> None:
    encoder = WordEncoder()
    encoder.name = "another"
    with semsearch.Index(tmp_path / "encoder", encoder=encoder) as index:
        index.add([("a", "text")])
        index.remove("a")
    with pytest.raises(IndexMismatchError, match="another"):
        copy(source, tmp_path / "encoder")
    with opened(tmp_path / "analyzer", analyzer="german") as index:
        index.add([("a", "text")])
        index.remove("a")
    with pytest.raises(IndexMismatchError, match=r"the analyzer for 'german', .* with that for 'english'"):
        copy(source, tmp_path / "analyzer")


def test_the_keywords_follow_a_language_that_was_told_later(tmp_path: Path) -> None:
    with opened(tmp_path / "source") as index:  # too few words to tell
        index.add([("a", "Öffnungszeiten")])
        assert index.analyzer.language == "english"
    copy(tmp_path / "source", tmp_path / "copy")
    with opened(tmp_path / "source") as index:
        index.add([(f"b{number}", GERMAN * 3) for number in range(5)])
        assert index.analyzer.language == "german"
    copy(tmp_path / "source", tmp_path / "copy")
    with opened(tmp_path / "copy") as index:
        assert index.analyzer.language == "german"
        hits = semsearch.Retriever(index, mode="lexical").search("Öffnungszeit")  # one stem in German only
        assert [hit.passage.document_id for hit in hits] == ["a"]


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "copy")
    assert cli.main(["copy", str(source), target]) == 0
    printed = capsys.readouterr().out
    assert (
        printed == f"added 200, updated 0, removed 0, unchanged 0\n{target}: 200 documents, 200 passages, 64 checked\n"
    )
    assert cli.main(["copy", str(source), target, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "source": str(source), "target": target, "documents": 200, "passages": 200, "added": 0, "updated": 0,
        "removed": 0, "unchanged": 200, "checked": 64,
    }  # fmt: skip
    assert cli.main(["copy", str(source), os.fspath(source)]) == 2
    assert "cannot be copied to itself" in capsys.readouterr().err

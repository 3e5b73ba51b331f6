"""Parquet shards: documents in, documents with passages and vectors out, and into an index."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contents import contents
from toy import WordEncoder

import semsearch
from semsearch import parquet
from semsearch.engines.ray import encode
from semsearch.errors import IndexMismatchError, InputError
from semsearch.shards import fill, write

DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": f"folder/{number}.md",
        "text": f"# Fees\n\nLate fees of room{number}: a dime.\n\n# Hours\n\n{'Nine to five. ' * 40 * (number % 3)}",
        "title": "Über uns",
        "metadata": {"suffix": ".md", "year": 2000 + number, "tags": ["a", None, 1.5]},
    }
    for number in range(10)
] + [{"id": "empty", "text": ""}, {"id": "nul", "text": "a\0b \U0001f600"}]


def state(path: Path) -> dict[str, Any]:
    return {name: value for name, value in contents(path).items() if not name.startswith("state shard/")}


def test_an_index_from_shards_is_the_one_that_add_makes(tmp_path: Path) -> None:
    paths = write(iter(DOCUMENTS), tmp_path / "shards", size=5)
    assert [path.name for path in paths] == ["000000.parquet", "000001.parquet", "000002.parquet"]
    report = encode(tmp_path / "shards", tmp_path / "encoded", encoder=WordEncoder(), workers=0)
    assert (report.shards, report.skipped, report.failed, report.documents) == (3, 0, 0, 12)
    filled = fill(tmp_path / "encoded", tmp_path / "filled")
    with semsearch.Index(tmp_path / "added", encoder=WordEncoder()) as index:
        index.add(DOCUMENTS)
        assert (filled.documents, filled.passages) == (12, len(index))
        assert report.passages == len(index) > 12
    assert state(tmp_path / "filled") == state(tmp_path / "added")
    with semsearch.Index(tmp_path / "filled", encoder=WordEncoder()) as index:
        assert index.check().ok
        assert index.search("room7", k=1, where={"year": {"$gte": 2005}})[0].passage.document_id == "folder/7.md"


def test_the_columns_are_what_the_page_says(tmp_path: Path) -> None:
    write([{"id": "a", "text": "late fees", "metadata": {"year": 2020}}], tmp_path / "shards")
    encode(tmp_path / "shards", tmp_path / "encoded", encoder=WordEncoder(), workers=0)
    (row,) = pq.read_table(tmp_path / "encoded" / "000000.parquet").to_pylist()
    (passage,) = row.pop("passages")
    assert row == {"id": "a", "text": "late fees", "title": "", "source": "", "metadata": '{"year": 2020}'}
    vector = np.array(passage.pop("vector"), np.float32)
    assert np.array_equal(vector, WordEncoder().encode(["late fees"])[0])
    digest = sha256(b"late fees").digest()[:16]
    assert passage == {"start": 0, "end": 9, "page": None, "heading": "", "digest": digest}
    with pytest.raises(InputError, match="no encoded shard"):
        parquet.head(tmp_path / "shards" / "000000.parquet")


def test_shards_of_others_have_two_columns_and_what_they_want(tmp_path: Path) -> None:
    table = pa.table({"text": ["late fees", "opening hours"], "id": ["a", "b"], "more": [1, 2]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert list(parquet.documents(tmp_path / "x.parquet")) == [
        semsearch.Document("a", "late fees"),
        semsearch.Document("b", "opening hours"),
    ]
    pq.write_table(table.append_column("metadata", pa.array(['{"n": 1}', None])), tmp_path / "x.parquet")
    assert [each.metadata for each in parquet.documents(tmp_path / "x.parquet")] == [{"n": 1}, {}]


def test_what_is_wrong_with_a_shard_is_told_and_the_others_are_encoded(tmp_path: Path) -> None:
    (folder := tmp_path / "shards").mkdir()
    pq.write_table(pa.table({"id": ["a"], "text": ["good"]}), folder / "good.parquet")
    pq.write_table(pa.table({"id": ["a"]}), folder / "lacking.parquet")
    pq.write_table(pa.table({"id": [1], "text": ["b"]}), folder / "number.parquet")
    pq.write_table(pa.table({"id": ["a"], "text": ["b"], "metadata": ["[1]"]}), folder / "list.parquet")
    (folder / "text.parquet").write_text("no Parquet")
    report = encode(folder, tmp_path / "encoded", encoder=WordEncoder(), workers=0)
    assert (report.shards, report.failed, report.documents) == (5, 4, 1)
    reasons = dict(report.failures)
    assert "has no column 'text'; it has id." in reasons["lacking.parquet"]
    assert "The id of an item is a string, not 1." in reasons["number.parquet"]
    assert "has '[1]', which is no string with a JSON object" in reasons["list.parquet"]
    assert "cannot be read as Parquet" in reasons["text.parquet"]
    assert [path.name for path in (tmp_path / "encoded").iterdir()] == ["good.parquet"]


def test_a_shard_is_encoded_once(tmp_path: Path) -> None:
    write(DOCUMENTS, tmp_path / "shards", size=4)
    first, again = WordEncoder(), WordEncoder()
    encode(tmp_path / "shards", tmp_path / "encoded", encoder=first, workers=0)
    (tmp_path / "encoded" / "000001.parquet").unlink()
    cut = tmp_path / "encoded" / "000002.parquet"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-9])  # as a disk may leave it, never a killed worker
    (tmp_path / "encoded" / ".000001.parquet.0123.part").write_text("what a killed worker left")
    seen: list[tuple[int, int]] = []
    report = encode(
        tmp_path / "shards", tmp_path / "encoded", encoder=again, workers=0, progress=lambda *done: seen.append(done)
    )
    assert (report.shards, report.skipped, report.documents) == (3, 1, 12)
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert 0 < len(again.encoded) < len(first.encoded)
    assert cut.read_bytes() == whole
    assert sorted(path.name for path in (tmp_path / "encoded").iterdir()) == [f"00000{n}.parquet" for n in range(3)]
    pq.write_table(pa.table({"id": ["a"], "text": ["another text"]}), tmp_path / "shards" / "000000.parquet")
    assert encode(tmp_path / "shards", tmp_path / "encoded", encoder=again, workers=0).skipped == 2
    again.name = "another"
    assert encode(tmp_path / "shards", tmp_path / "encoded", encoder=again, workers=0).skipped == 0


class _Half(WordEncoder):
    """Gives no vector for some texts."""

    def encode(self, texts: Any, *, kind: str = "passage") -> np.ndarray:
        rows = super().encode(texts, kind=kind)
        rows[["bad" in text for text in texts]] = np.nan
        return rows


def test_passages_without_a_vector_are_found_by_keyword(tmp_path: Path) -> None:
    write([("a", "a bad one"), ("b", "a good one")], tmp_path / "shards")
    report = encode(tmp_path / "shards", tmp_path / "encoded", encoder=_Half(), workers=0)
    assert report.keyword_only == 1
    vectors = [entry.parts[0].vector for entry in parquet.entries(tmp_path / "encoded" / "000000.parquet")]
    assert vectors[0] is None
    assert vectors[1] is not None
    fill(tmp_path / "encoded", tmp_path / "index")
    with semsearch.Index(tmp_path / "index", encoder=_Half()) as index:
        assert [hit.passage.document_id for hit in index.search("bad", mode="lexical")] == ["a"]
        assert [hit.passage.document_id for hit in index.search("one", mode="dense")] == ["b"]


def test_an_interrupted_fill_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.copying.BATCH_PASSAGES", 2)

    def stop(done: int, total: int) -> None:
        assert total == 12
        if done >= 6:  # in the middle of the second shard
            raise KeyboardInterrupt

    write(DOCUMENTS, tmp_path / "shards", size=4)
    encode(tmp_path / "shards", tmp_path / "encoded", encoder=WordEncoder(), workers=0)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "encoded", tmp_path / "index", progress=stop)
    report = fill(tmp_path / "encoded", tmp_path / "index")
    assert (report.shards, report.skipped, report.documents) == (3, 1, 12)
    assert fill(tmp_path / "encoded", tmp_path / "index").skipped == 3
    fill(tmp_path / "encoded", tmp_path / "whole")
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")


def test_an_index_of_another_model_or_language_takes_no_shards(tmp_path: Path) -> None:
    write(DOCUMENTS, tmp_path / "shards")
    encode(tmp_path / "shards", tmp_path / "encoded", encoder=WordEncoder(), workers=0)
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder(), analyzer="german") as index:
        index.add(["Ein Text."])
    with pytest.raises(IndexMismatchError, match="the analyzer for 'german', not with that for 'english'"):
        fill(tmp_path / "encoded", tmp_path / "index", analyzer="english")
    assert fill(tmp_path / "encoded", tmp_path / "index").documents == 12
    other = WordEncoder()
    other.name = "another"
    with semsearch.Index(tmp_path / "other", encoder=other) as index:
        index.add(["A text."])
    with pytest.raises(IndexMismatchError, match="another"):
        fill(tmp_path / "encoded", tmp_path / "other")
    encode(tmp_path / "shards", tmp_path / "mixed", encoder=other, workers=0)
    (tmp_path / "encoded" / "000000.parquet").rename(tmp_path / "mixed" / "1.parquet")
    with pytest.raises(InputError, match="was encoded by another model than"):
        fill(tmp_path / "mixed", tmp_path / "new")


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    write([("a", "text")], tmp_path / "shards")
    with pytest.raises(InputError, match="has shards already"):
        write([("a", "text")], tmp_path / "shards")
    with pytest.raises(InputError, match=r"'b\\ud800' has a lone surrogate"):
        write([("a", "text"), ("b\ud800", "text")], tmp_path / "new")
    with pytest.raises(InputError, match="cannot be stored as JSON"):
        write([{"id": "a", "text": "", "metadata": {"a": float("nan")}}], tmp_path / "new")
    with pytest.raises(InputError, match="size is a number"):
        write([], tmp_path / "new", size=0)
    with pytest.raises(InputError, match=r"has no file \*\.parquet"):
        encode(tmp_path / "new", tmp_path / "encoded", workers=0)
    with pytest.raises(InputError, match="cannot be encoded into itself"):
        encode(tmp_path / "shards", tmp_path / "shards", workers=0)
    with pytest.raises(InputError, match="no encoded shard"):
        fill(tmp_path / "shards", tmp_path / "index")
    assert not (tmp_path / "index").exists()
    assert json.dumps([each.id for each in parquet.documents(tmp_path / "shards" / "000000.parquet")]) == '["a"]'

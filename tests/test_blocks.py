"""Mapped arrays: right values, instant opening, and no damaged block that is believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.blocks import BLOCK, Checked, DamagedCacheError, facts, is_sound, open_array
from semsearch.errors import StorageError


def written(path: Path, array: np.ndarray) -> tuple[Path, dict[str, Any]]:
    np.save(path, array)
    return path, json.loads(json.dumps(facts(path)))  # as they come back from a manifest


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_facts_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert facts(path) == {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    path.write_bytes(b"a" * BLOCK)
    assert set(facts(path)) == {"size", "sha256"}
    path.write_bytes(b"a" * BLOCK + b"b")
    both = hashlib.sha256(b"a" * BLOCK).hexdigest()[:16] + hashlib.sha256(b"b").hexdigest()[:16]
    assert facts(path) == {"size": BLOCK + 1, "blocks": both}
    assert is_sound(path, facts(path))
    path.write_bytes(b"a" * BLOCK + b"c")
    assert not is_sound(path, {"size": BLOCK + 1, "blocks": both})
    path.unlink()
    assert not is_sound(path, {"size": BLOCK + 1, "blocks": both})


@pytest.mark.parametrize("shape", [(0,), (0, 7), (3,), (1000, 384), (20_000, 33), (4, 30_000), (1, 100_001)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.int64])
def test_what_was_written_is_read(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    array = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    checked = open_array(*written(tmp_path / "a.npy", array))
    checked.check(0, len(array))
    checked.check_at(np.arange(len(array)))
    checked.check_all()
    assert checked.array.dtype == dtype
    assert not checked.array.flags.writeable
    assert np.array_equal(checked.array, array)
    assert len(checked) == len(array)


def blocks_of(checked: Checked) -> set[int]:
    """The blocks that were verified."""
    return set(np.flatnonzero(checked._seen).tolist())


@settings(max_examples=60, deadline=None)
@given(width=st.sampled_from([1, 700, 16_384, 16_385, 50_000, 70_000]), data=st.data())
def test_what_is_touched_is_verified_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, width: int, data: st.DataObject
) -> None:
    array = np.zeros((max(3, 300_000 // width), width), dtype=np.float32)
    path, known = written(tmp_path_factory.mktemp("blocks") / "a.npy", array)
    offset = path.stat().st_size - array.nbytes
    rows = data.draw(st.lists(st.integers(0, len(array) - 1), min_size=1, max_size=4))
    expected = {0}
    for row in rows:
        expected |= set(range((offset + row * width * 4) // BLOCK, (offset + (row + 1) * width * 4 - 1) // BLOCK + 1))
    some, ranges = open_array(path, known), open_array(path, known)
    first = blocks_of(some)
    some.check_at(np.array(rows))
    for row in rows:
        ranges.check(row, row + 1)
    assert blocks_of(some) == blocks_of(ranges) == first | expected
    assert first == {0} | set(range((offset + width * 4 - 1) // BLOCK + 1))


def test_a_damaged_block_is_found_when_it_is_touched(tmp_path: Path) -> None:
    array = np.arange(100_000, dtype=np.int64)  # 13 blocks
    path, known = written(tmp_path / "a.npy", array)
    flip(path, 128 + 8 * 50_000)  # in block 6
    for touch in (
        lambda checked: checked.check(49_990, 50_001),
        lambda checked: checked.check_at(np.array([3, 50_000, 99_999])),
        lambda checked: checked.check_all(),
        lambda checked: checked.check(0, len(array)),
    ):
        checked = open_array(path, known)
        checked.check(0, 40_000)
        checked.check_at(np.array([99_999, 0]))
        for _ in range(2):  # a second look does not make it good
            with pytest.raises(DamagedCacheError, match=r"a\.npy is damaged: block 6 of 13"):
                touch(checked)
    assert issubclass(DamagedCacheError, StorageError)
    assert not is_sound(path, known)


def test_after_every_block_nothing_is_looked_up(tmp_path: Path) -> None:
    checked = open_array(*written(tmp_path / "a.npy", np.zeros(100_000, dtype=np.int64)))
    checked.check_at(np.arange(0, 100_000, 8000))
    assert not checked._complete
    checked.check_at(np.arange(0, 100_000, 100))
    assert checked._complete


@pytest.mark.parametrize("size", [100, 100_000])
def test_what_cannot_be_opened(tmp_path: Path, size: int) -> None:
    path, known = written(tmp_path / "a.npy", np.arange(size, dtype=np.int64))
    good = path.read_bytes()
    digests = {"blocks": known["blocks"][16:]} if "blocks" in known else {"sha256": "0" * 64}
    for bad in ({}, {"size": len(good)}, known | digests, known | {"size": len(good) - 1}, {**known, "blocks": "xyz"}):
        with pytest.raises(DamagedCacheError, match=r"a\.npy is damaged"):
            open_array(path, bad)
    for damaged in (b"", good[:60], good[:-1], good + b"x", bytes([good[0] ^ 1]) + good[1:]):
        path.write_bytes(damaged)
        with pytest.raises(DamagedCacheError, match=r"a\.npy is damaged"):
            open_array(path, known)
    for other in (b"no array", b"\x93NUMPY\x01\x00\x05\x00{'d':"):  # sound files that are no arrays
        path.write_bytes(other * 20)
        with pytest.raises(DamagedCacheError, match=r"a\.npy is damaged"):
            open_array(path, facts(path))
    path.unlink()
    with pytest.raises(DamagedCacheError, match=r"a\.npy is damaged"):
        open_array(path, known)


@pytest.mark.parametrize("array", [np.float32(3), np.ones((3, 4), order="F"), np.array(["a", None], dtype=object)])
def test_arrays_that_are_not_ours(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(DamagedCacheError, match="does not fit"):
        open_array(path, facts(path))


def test_opening_reads_one_block(tmp_path: Path) -> None:
    path, known = written(tmp_path / "a.npy", np.zeros(10_000_000, dtype=np.int8))
    assert blocks_of(open_array(path, known)) == {0}

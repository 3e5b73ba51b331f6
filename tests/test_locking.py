"""The lock of the one writer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semsearch.errors import IndexLockedError
from semsearch.locking import writer_lock

FULL_DISK = Path("/dev/full")  # every write to it fails with ENOSPC


@pytest.mark.skipif(not FULL_DISK.exists(), reason="there is no /dev/full here")
def test_a_disk_that_takes_no_note_of_the_owner_does_not_keep_the_lock() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        with writer_lock(FULL_DISK, 0.0), pytest.raises(IndexLockedError), writer_lock(FULL_DISK, 0.0):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_second_owner_is_told_who_the_first_is_and_the_note_goes_with_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with writer_lock(path, 0.0), pytest.raises(IndexLockedError, match=str(os.getpid())), writer_lock(path, 0.0):
        pass
    assert path.read_bytes() == b""

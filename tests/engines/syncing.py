"""A sync in a process of its own, which a test may kill.

    python syncing.py LOCATION FOLDER

Prints the number of files that were begun, line by line, and at the end the report as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import semsearch

HERE = Path(__file__).resolve().parent


class FewWords:
    """An encoder with short vectors and short passages: counts of words in 64 buckets, at most 32 words a passage."""

    name = "toy-few-words"
    dimension = 64
    max_tokens = 32

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or [""]:
                row[zlib.crc32(word.encode()) % self.dimension] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sync(location: str, folder: Path) -> None:
    with semsearch.Index(location, encoder=FewWords()) as index:
        report = index.sync(folder, progress=lambda done, total: print(done, flush=True))
    print(json.dumps(asdict(report)), flush=True)


class Child:
    """The sync of a folder in another process. Its output is read as it comes."""

    def __init__(self, location: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "syncing.py"), location, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, files: int) -> int:
        """Wait until so many files were begun; returns the number."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdigit() and int(line) >= files:
                return int(line)
        raise AssertionError(f"the sync ended before file {files}: {self._process.communicate()[1][-3000:]}")

    def finish(self, timeout: float) -> dict[str, Any]:
        """Wait for the end and return the report."""
        output, errors = self._process.communicate(timeout=timeout)
        assert self._process.returncode == 0, errors[-3000:]
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
        return report

    def fail(self, timeout: float) -> str:
        """Wait for an end with an error and return what it said."""
        _, errors = self._process.communicate(timeout=timeout)
        assert self._process.returncode > 0, "it was to fail"
        return errors

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def child(location: str, folder: Path) -> Iterator[Child]:
    running = Child(location, folder)
    try:
        yield running
    finally:
        running.kill()


if __name__ == "__main__":
    sync(sys.argv[1], Path(sys.argv[2]))

"""bm25s with its numba backend."""

from __future__ import annotations

from harness import run
from run_bm25s import BM25S


class Numba(BM25S):
    packages = ("bm25s", "numpy", "numba")
    backend = "numba"


if __name__ == "__main__":
    run(Numba())

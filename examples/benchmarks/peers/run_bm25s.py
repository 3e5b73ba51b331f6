"""bm25s with its NumPy backend, opened memory-mapped."""

from __future__ import annotations

from pathlib import Path

import bm25s
from harness import Inputs, Peer, run


class BM25S(Peer):
    packages: tuple[str, ...] = ("bm25s", "numpy")
    modes = ("lexical",)
    formula = "lucene"
    backend = "numpy"
    note = "adding a document means building again"

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        index = bm25s.BM25(method="lucene", backend=self.backend)
        index.index(inputs.tokens, show_progress=False)
        index.save(folder, show_progress=False)

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        if self.backend == "numba":
            self.index.backend = "numba"
            self.index.activate_numba_scorer()

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        tokens = [inputs.question_tokens[question]]
        return self.index.retrieve(tokens, k=10, show_progress=False)[0][0].tolist()


if __name__ == "__main__":
    run(BM25S())

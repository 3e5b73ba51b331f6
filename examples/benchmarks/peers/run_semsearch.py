"""semsearch as its users call it: `Index.search`, with an encoder that knows the vectors of the texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness import Inputs, Peer, run

import semsearch


class Given:
    """An encoder that looks vectors up. All texts count as short, so that each stays one passage."""

    name, dimension, max_tokens = "given", 384, 200

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self._vectors = vectors

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        return np.stack([self._vectors[text] for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [1] * len(texts)


class Semsearch(Peer):
    packages = ("semsearch", "numpy", "faiss-cpu")
    modes = ("dense", "hybrid", "lexical")

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        start = time.perf_counter()
        encoder, texts = Given(inputs.known(passages=True)), inputs.texts
        self.prepared = time.perf_counter() - start
        with semsearch.Index(folder / "index", encoder=encoder) as index:
            index.add(({"id": str(place), "text": text} for place, text in enumerate(texts)), progress=False)
            if len(index) != inputs.count:
                raise SystemExit(f"{inputs.count} texts became {len(index)} passages.")

    def open(self, inputs: Inputs, folder: Path) -> None:
        encoder = Given(inputs.known(passages=False))
        self.index = semsearch.Index(folder / "index", encoder=encoder)

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        hits = self.index.search(inputs.questions[question], 10, mode=mode)
        return [int(hit.passage.document_id) for hit in hits]

    def add(self, inputs: Inputs, place: int) -> None:
        self.index.add({"id": str(inputs.count + place), "text": inputs.added[place]}, progress=False)


if __name__ == "__main__":
    run(Semsearch())

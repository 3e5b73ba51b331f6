"""txtai: FAISS and its own BM25, joined by its hybrid search; the texts themselves are not kept (content off)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import Inputs, Peer, run
from txtai.embeddings import Embeddings


class Txtai(Peer):
    packages = ("txtai", "faiss-cpu", "numpy")
    modes = ("dense", "hybrid", "lexical")
    ladder = ({}, {"nprobe": 32}, {"nprobe": 64}, {"nprobe": 128}, {"nprobe": 256}, {"nprobe": 512})
    note = "content off, which is faster; what is added is in memory until save() writes all again"

    def _embeddings(self, inputs: Inputs, *, passages: bool) -> Embeddings:
        known = inputs.known(passages=passages)

        def transform(texts: list[str]) -> np.ndarray:
            return np.stack([known[text] for text in texts])

        return Embeddings(method="external", transform=transform, hybrid=True)

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        start = time.perf_counter()
        embeddings, texts = self._embeddings(inputs, passages=True), inputs.texts
        self.prepared = time.perf_counter() - start
        embeddings.index((place, text, None) for place, text in enumerate(texts))
        embeddings.config["transform"] = None  # a function cannot be saved
        embeddings.save(str(folder / "index"))

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.both = self._embeddings(inputs, passages=False)
        config = dict(self.both.config)
        self.both.load(str(folder / "index"), config={"transform": config["transform"]})
        self.scoring, self.ann = self.both.scoring, self.both.ann

    def use(self, settings: dict[str, Any]) -> None:
        self.ann.config["faiss"] = settings

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        self.both.scoring = None if mode == "dense" else self.scoring
        self.both.ann = None if mode == "lexical" else self.ann
        return [id for id, _ in self.both.search(inputs.questions[question], 10)]

    def add(self, inputs: Inputs, place: int) -> None:
        self.both.scoring, self.both.ann = self.scoring, self.ann
        self.both.upsert([(inputs.count + place, inputs.added[place], None)])


if __name__ == "__main__":
    run(Txtai())

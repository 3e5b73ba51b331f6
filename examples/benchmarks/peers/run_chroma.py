"""Chroma: an HNSW graph over the vectors, without the texts, which is faster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings
from harness import Inputs, Peer, run

BATCH = 5_000  # Chroma takes at most 5,461 at once


class Chroma(Peer):
    packages = ("chromadb", "numpy")
    ladder = ({}, {"ef_search": 200}, {"ef_search": 400}, {"ef_search": 800}, {"ef_search": 1600})
    note = "dense only, and without texts; its own keyword search does not rank"

    def _client(self, folder: Path) -> Any:
        return chromadb.PersistentClient(str(folder / "index"), Settings(anonymized_telemetry=False))

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> int:
        collection = self._client(folder).create_collection(
            "passages", configuration={"hnsw": {"space": "ip"}}, embedding_function=None
        )
        for start in range(0, inputs.count, BATCH):
            rows = np.array(inputs.vectors[start : start + BATCH])
            collection.add([str(place) for place in range(start, start + len(rows))], embeddings=rows)
            if time.monotonic() > deadline:
                return start + len(rows)
        return inputs.count

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.collection = self._client(folder).get_collection("passages", embedding_function=None)

    def use(self, settings: dict[str, Any]) -> None:
        self.collection.modify(configuration={"hnsw": {"ef_search": settings.get("ef_search", 100)}})

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        rows = inputs.question_vectors[question : question + 1]
        found = self.collection.query(query_embeddings=rows, n_results=10, include=["distances"])
        return [int(id) for id in found["ids"][0]]

    def add(self, inputs: Inputs, place: int) -> None:
        row = np.array(inputs.all_vectors[inputs.count + place][None])
        self.collection.add([str(inputs.count + place)], embeddings=row)


if __name__ == "__main__":
    run(Chroma())

"""`sentence_transformers.util.semantic_search`: exact search over a tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from harness import Inputs, Peer, run
from sentence_transformers import util


class SemanticSearch(Peer):
    packages = ("sentence-transformers", "torch", "numpy")
    note = "a tensor in memory, loaded from a .npy; dot_score, which spares it normalising all vectors again"

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        np.save(folder / "vectors.npy", inputs.vectors)

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.tensor = torch.from_numpy(np.load(folder / "vectors.npy"))

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        query = torch.from_numpy(inputs.question_vectors[question : question + 1])
        hits = util.semantic_search(query, self.tensor, top_k=10, score_function=util.dot_score)[0]
        return [hit["corpus_id"] for hit in hits]

    def add(self, inputs: Inputs, place: int) -> None:
        row = torch.from_numpy(np.array(inputs.all_vectors[inputs.count + place][None]))
        self.tensor = torch.cat([self.tensor, row])


if __name__ == "__main__":
    run(SemanticSearch())

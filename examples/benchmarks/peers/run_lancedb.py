"""LanceDB: IVF-PQ over the vectors and its full-text index, joined by its hybrid search (RRF)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from harness import Inputs, Peer, run
from lancedb.index import FTS, IvfPq


def table_of(first: int, texts: list[str], vectors: np.ndarray) -> pa.Table:
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
    return pa.table(
        {
            "id": pa.array(range(first, first + len(texts)), pa.int64()),
            "text": pa.array(texts),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )


class LanceDB(Peer):
    packages = ("lancedb", "pyarrow", "numpy")
    modes = ("dense", "hybrid", "lexical")
    ladder = (
        {},
        {"refine_factor": 5},
        {"refine_factor": 10, "nprobes": 40},
        {"refine_factor": 20, "nprobes": 80},
        {"refine_factor": 30, "nprobes": 160},
        {"refine_factor": 50, "nprobes": 320},
    )
    note = "IVF-PQ with the defaults for dot product; what is added is searched row by row until optimize()"

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        table = lancedb.connect(folder).create_table("passages", table_of(0, inputs.texts, inputs.vectors))
        table.create_index("vector", config=IvfPq(distance_type="dot"))
        table.create_index("text", config=FTS())

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.table = lancedb.connect(folder).open_table("passages")
        self.settings: dict[str, Any] = {}

    def use(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        text, vector = inputs.questions[question], inputs.question_vectors[question]
        if mode == "lexical":
            query = self.table.search(text, query_type="fts")
        elif mode == "dense":
            query = self.table.search(vector)
        else:
            query = self.table.search(query_type="hybrid").vector(vector).text(text)
        if mode != "lexical":
            query = query.distance_type("dot")
            for name, value in self.settings.items():
                query = getattr(query, name)(value)
        return query.select(["id"]).limit(10).to_arrow()["id"].to_pylist()

    def add(self, inputs: Inputs, place: int) -> None:
        row = inputs.all_vectors[inputs.count + place][None]
        self.table.add(table_of(inputs.count + place, inputs.added[place : place + 1], row))


if __name__ == "__main__":
    run(LanceDB())

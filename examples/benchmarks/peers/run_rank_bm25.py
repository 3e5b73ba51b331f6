"""rank-bm25: all passages are scored for each question, in this process's memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness import Inputs, Peer, run
from rank_bm25 import BM25Okapi


class RankBM25(Peer):
    packages = ("rank-bm25", "numpy")
    modes = ("lexical",)
    formula = "okapi"
    persistent = False
    note = "keeps nothing on disk; adding a document means building again. Top 10 by argpartition, not get_top_n."

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        self.index = BM25Okapi(inputs.tokens)

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        scores = self.index.get_scores(inputs.question_tokens[question])
        top = np.argpartition(-scores, 10)[:10]
        return top[np.argsort(-scores[top])].tolist()


if __name__ == "__main__":
    run(RankBM25())

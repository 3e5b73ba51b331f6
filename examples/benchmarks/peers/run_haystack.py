"""Haystack's store in memory: embeddings and BM25 over documents, all looked at for each question."""

from __future__ import annotations

from pathlib import Path

from harness import Inputs, Peer, run
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore


class Haystack(Peer):
    packages = ("haystack-ai", "numpy")
    modes = ("dense", "lexical")
    persistent = False
    note = "in memory, so up to 100,000 passages only; its own tokens and BM25L, which are the defaults"

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        self.store = InMemoryDocumentStore()
        rows = zip(inputs.texts, inputs.vectors.tolist(), strict=True)
        self.store.write_documents(
            [Document(id=str(place), content=text, embedding=row) for place, (text, row) in enumerate(rows)]
        )

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        if mode == "dense":
            found = self.store.embedding_retrieval(inputs.question_vectors[question].tolist(), top_k=10)
        else:
            found = self.store.bm25_retrieval(inputs.questions[question], top_k=10)
        return [int(document.id) for document in found]

    def add(self, inputs: Inputs, place: int) -> None:
        row = inputs.all_vectors[inputs.count + place].tolist()
        self.store.write_documents([Document(str(inputs.count + place), content=inputs.added[place], embedding=row)])


if __name__ == "__main__":
    run(Haystack())

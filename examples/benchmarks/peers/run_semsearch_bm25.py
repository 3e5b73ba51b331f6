"""The keyword leg of semsearch alone, on given tokens, beside libraries that do the same.

A document is added in memory only; what `Index.add` takes, which writes the database, too, is in run_semsearch.py.
"""

from __future__ import annotations

from pathlib import Path

from harness import Inputs, Peer, run

from semsearch.lexical import LexicalIndex


class Leg(Peer):
    packages = ("semsearch", "numpy")
    modes = ("lexical",)
    formula = "lucene"
    note = "adding a document is in memory; semsearch, above, has the cost of a durable one"

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        index = LexicalIndex("lucene")
        index.add(range(inputs.count), inputs.tokens)
        index.save(folder, "leg")

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.index = LexicalIndex.load(folder, "leg")

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        return self.index.search(inputs.question_tokens[question], 10)[0].tolist()

    def add(self, inputs: Inputs, place: int) -> None:
        self.index.add([inputs.count + place], [inputs.added_tokens[place]])


if __name__ == "__main__":
    run(Leg())

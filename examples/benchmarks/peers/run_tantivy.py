"""tantivy on the given tokens, which its tokenizer separates at white space."""

from __future__ import annotations

from pathlib import Path

from harness import Inputs, Peer, run
from tantivy import Document, Index, Occur, Query, SchemaBuilder


class Tantivy(Peer):
    packages = ("tantivy",)
    modes = ("lexical",)
    note = "k1 1.2, b 0.75, and lengths in 8 bits; these are fixed"

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        schema = SchemaBuilder()
        schema.add_unsigned_field("id", stored=True)
        schema.add_text_field("text", tokenizer_name="whitespace", index_option="freq")
        index = Index(schema.build(), path=str(folder))
        writer = index.writer(heap_size=512_000_000)
        for place, tokens in enumerate(inputs.tokens):
            writer.add_document(Document(id=place, text=" ".join(tokens)))
        writer.commit()
        writer.wait_merging_threads()

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.index = Index.open(str(folder))
        self.searcher = self.index.searcher()
        self.writer = None

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        schema = self.index.schema
        terms = [(Occur.Should, Query.term_query(schema, "text", each)) for each in inputs.question_tokens[question]]
        hits = self.searcher.search(Query.boolean_query(terms), limit=10, count=False).hits
        return [self.searcher.doc(address)["id"][0] for _, address in hits]

    def add(self, inputs: Inputs, place: int) -> None:
        if self.writer is None:
            self.writer = self.index.writer()
        self.writer.add_document(Document(id=inputs.count + place, text=" ".join(inputs.added_tokens[place])))
        self.writer.commit()
        self.index.reload()
        self.searcher = self.index.searcher()


if __name__ == "__main__":
    run(Tantivy())

"""Summaries in other words: written from the central sentences alone, and checked against them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import Server
from toy import WordEncoder

from semsearch import Index
from semsearch.errors import InputError
from semsearch.prompts import SUMMARY, Template
from semsearch.records import Answer, Context

DOCUMENTS = {
    "cats.md": "Cats sleep most of the day. Cats drink milk in the evening.",
    "ships.txt": "# Ships\n\nShips carry grain over the sea. Ships carry coal in winter.",
}


class Repeats:
    """A generative reader that says the first sentence that it is shown, and one that nobody said."""

    name = "repeats"

    def __init__(self) -> None:
        self.shown: list[str] = []

    def stream(self, question, passages):
        assert question == SUMMARY
        self.shown = [passage.text for passage in passages]
        yield from [*self.shown[:1], " Dogs bark at night."]

    def context(self, question, passages):
        return Context(tuple(passages))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "index", encoder=WordEncoder()) as made:
        made.add([{"id": id, "text": text, "metadata": {"suffix": id[-3:]}} for id, text in DOCUMENTS.items()])
        yield made


def test_a_reader_writes_from_the_central_sentences_and_is_checked(index: Index) -> None:
    reader = Repeats()
    chosen = index.summarize(sentences=2)
    answer = index.summarize(sentences=2, reader=reader)
    assert isinstance(answer, Answer)
    assert reader.shown == [sentence.text for sentence in chosen]
    assert answer.text == f"{chosen[0].text} Dogs bark at night."
    assert [sentence.supported for sentence in answer.sentences] == [True, False]
    (citation,) = answer.citations
    assert citation.document_id == chosen[0].document_id
    assert DOCUMENTS[citation.document_id][citation.start : citation.end] == chosen[0].text
    assert answer.context is not None
    assert [passage.start for passage in answer.context.used] == [sentence.start for sentence in chosen]


def test_only_what_the_filter_lets_through_is_summarized(index: Index) -> None:
    reader = Repeats()
    answer = index.summarize(where={"suffix": "txt"}, reader=reader)
    assert set(reader.shown) == {"Ships carry grain over the sea.", "Ships carry coal in winter."}
    assert answer.document_id == "ships.txt"
    nothing = index.summarize(where={"suffix": "csv"}, reader=reader)
    assert (nothing.found, reader.shown) == (False, [])


def test_strict_leaves_out_what_nothing_supports(index: Index) -> None:
    chosen = index.summarize(sentences=2)
    answer = index.summarize(sentences=2, reader=Repeats(), strict=True)
    assert answer.text == chosen[0].text
    assert [sentence.supported for sentence in answer.sentences] == [True]
    assert index.summarize(sentences=2, strict=True) == chosen  # they stand in the documents word for word


def test_the_wording_can_be_replaced(index: Index) -> None:
    class Model(Server):
        """A server that repeats the first sentence of what it is told."""

        def pieces(self, messages, length):
            yield messages[0]["content"].partition("<<1 ")[2].partition(">>")[0]

    template = Template(passage="<<{number} {text}>>", prompt="Hear: {passages} Now: {question}")
    with Model(None) as server:
        answer = index.summarize(sentences=2, reader=f"openai:tiny@{server.address}", template=template)
        ((_, _, body),) = server.requests
    chosen = index.summarize(sentences=2)
    assert body["messages"] == [
        {"role": "user", "content": f"Hear: <<1 {chosen[0].text}>><<2 {chosen[1].text}>> Now: {SUMMARY}"}
    ]
    assert answer.text == chosen[0].text
    for reader in (None, Repeats()):
        with pytest.raises(InputError, match="A template is the wording of a prompt for a model that is named"):
            index.summarize(reader=reader, template=template)  # type: ignore[call-overload]


def test_a_summary_needs_a_reader_that_writes(index: Index) -> None:
    class Extracts:
        name = "extracts"

        def read(self, question, texts):
            return []

    with pytest.raises(InputError, match="'extracts' extracts spans; a summary needs one that writes"):
        index.summarize(reader=Extracts())  # type: ignore[call-overload]

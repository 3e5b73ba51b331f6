"""`asearch` and `aask`: the loop goes on, many at once give what one by one gives, a cancelled one harms nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from toy import WordEncoder

import semsearch
from semsearch.errors import ClosedIndexError, InputError

WORDS = ["library", "book", "fee", "late", "open", "close", "child", "laptop", "garden", "heron", "bridge", "room"]
TEXTS = [(f"{number}", f"{' '.join(np.random.default_rng(number).choice(WORDS, 12))}.") for number in range(60)]


class HeldEncoder(WordEncoder):
    """Encodes no query until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.waiting = threading.Event()

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        if kind == "query":
            self.waiting.set()
            assert self.free.wait(60)
        return super().encode(texts, kind=kind)


@pytest.fixture
def encoder() -> HeldEncoder:
    return HeldEncoder()


@pytest.fixture
def index(tmp_path: Path, encoder: HeldEncoder) -> Iterator[semsearch.Index]:
    with semsearch.Index(tmp_path / "index", encoder=encoder) as index:
        index.add(TEXTS)
        yield index
        encoder.free.set()


def rows(hits: semsearch.retrieval.Hits) -> list[tuple[str, float]]:
    return [(hit.passage.document_id, hit.score) for hit in hits]


def test_many_at_once_give_what_one_by_one_gives(index: semsearch.Index) -> None:
    queries = [f"{first} {second}" for first in WORDS for second in WORDS[:4]]
    expected = [rows(index.search(query, k=5)) for query in queries]
    retriever = semsearch.Retriever(index)

    async def together() -> tuple[list[semsearch.retrieval.Hits], list[semsearch.retrieval.Hits]]:
        by_index = await asyncio.gather(*(index.asearch(query, k=5) for query in queries))
        by_retriever = await asyncio.gather(*(retriever.asearch(query, 5) for query in queries))
        return by_index, by_retriever

    for found in asyncio.run(together()):
        assert [rows(hits) for hits in found] == expected
    several = asyncio.run(index.asearch(queries[:3], k=5))
    assert [rows(hits) for hits in several] == expected[:3]


def test_arguments_go_through(index: semsearch.Index) -> None:
    assert asyncio.run(index.asearch("book", where={"suffix": ".md"})) == []
    with pytest.raises(InputError, match="is empty"):
        asyncio.run(index.asearch(" "))
    lexical = asyncio.run(index.asearch("book", k=3, mode="lexical"))
    assert rows(lexical) == rows(index.search("book", k=3, mode="lexical"))
    assert all(set(hit.sources) == {"lexical"} for hit in lexical)
    with pytest.raises(InputError, match="at least 1"):
        asyncio.run(index.aask("book", k=0))


def test_answers_are_the_same(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([("hours", "The library opens at nine in the morning."), ("fees", "The late fee is 25 cents a day.")])
        questions = ["When does the library open?", "What is the late fee?"]
        expected = [index.ask(question) for question in questions]

        async def together() -> list[semsearch.Answer]:
            return await asyncio.gather(*(index.aask(question) for question in questions))

        assert asyncio.run(together()) == expected
        assert asyncio.run(index.aask(questions)) == expected
        assert [answer.document_id for answer in expected] == ["hours", "fees"]


def test_the_event_loop_goes_on_meanwhile(index: semsearch.Index, encoder: HeldEncoder) -> None:
    async def count_while_searching() -> int:
        encoder.free.clear()
        search = asyncio.create_task(index.asearch("book"))
        turns = 0
        while turns < 100:
            await asyncio.sleep(0.001)
            turns += 1
        assert not search.done()
        encoder.free.set()
        assert len(await search) == 10
        return turns

    assert asyncio.run(count_while_searching()) == 100


def test_a_cancelled_search_ends_at_once_and_the_index_stays_usable(
    index: semsearch.Index, encoder: HeldEncoder
) -> None:
    expected = rows(index.search("late fee", k=5))

    async def cancel() -> float:
        encoder.free.clear()
        encoder.waiting.clear()
        search = asyncio.create_task(index.asearch("book"))
        await asyncio.to_thread(encoder.waiting.wait, 60)
        begun = time.monotonic()
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        ended = time.monotonic() - begun
        encoder.free.set()
        assert rows(await index.asearch("late fee", k=5)) == expected
        return ended

    assert asyncio.run(cancel()) < 5
    index.add([("new", "late fee")])
    assert rows(index.search("late fee", k=5))[0][0] == "new"


def test_a_timeout_is_a_cancellation(index: semsearch.Index, encoder: HeldEncoder) -> None:
    async def wait() -> None:
        encoder.free.clear()
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(index.asearch("book"), timeout=0.05)
        finally:
            encoder.free.set()

    asyncio.run(wait())
    assert len(index.search("book", k=3)) == 3


def test_closing_under_a_search_gives_an_error_and_no_hang(index: semsearch.Index, encoder: HeldEncoder) -> None:
    async def close_under() -> None:
        encoder.free.clear()
        encoder.waiting.clear()
        search = asyncio.create_task(index.asearch("book"))
        await asyncio.to_thread(encoder.waiting.wait, 60)
        index.close()
        encoder.free.set()
        with pytest.raises(ClosedIndexError):
            await search

    asyncio.run(close_under())


def test_searching_and_writing_at_once(index: semsearch.Index) -> None:
    async def both() -> list[semsearch.retrieval.Hits]:
        writing = asyncio.to_thread(index.add, [(f"late {n}", "a late fee for a late book") for n in range(50)])
        found = asyncio.gather(*(index.asearch("late fee", k=5) for _ in range(30)))
        _, hits = await asyncio.gather(writing, found)
        return hits

    assert all(len(hits) == 5 for hits in asyncio.run(both()))
    assert len(index) == len(TEXTS) + 50


@pytest.mark.slow
def test_it_works_where_a_loop_runs_already(tmp_path: Path) -> None:
    """A notebook's cells run inside an event loop: `await` at the top of a cell, without nest_asyncio."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cell = f"""
import asyncio, sys, semsearch
index = semsearch.Index({str(tmp_path / "index")!r})
index.add([("hours", "The library opens at nine in the morning."), ("fees", "The late fee is 25 cents a day.")])
hits, answer = await asyncio.gather(index.asearch("late fee", k=1), index.aask("When does the library open?"))
assert asyncio.get_running_loop().is_running() and "nest_asyncio" not in sys.modules
print(hits[0].passage.document_id, answer.document_id, index.search("late fee", k=1)[0].passage.document_id)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    ((output,),) = (each.outputs for each in notebook.cells)
    assert output.text == "fees hours fees\n"

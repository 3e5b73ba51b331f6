"""What can be asked of a collection without a question: what is alike, what is there twice, what sort, what it says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from semsearch.errors import ClosedIndexError
from semsearch.filters import Where
from semsearch.ingest import checked_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from semsearch.encoding import Encoder
    from semsearch.exploring import Classification, Pair, Sentence
    from semsearch.generation import GenerativeReader
    from semsearch.holdings import Holdings
    from semsearch.prompts import Template
    from semsearch.records import Answer
    from semsearch.retrieval import Hits
    from semsearch.snapshots import Snapshot

__all__ = ["Corpus"]


class Corpus:
    """The methods of `Index` that search without a question. `semsearch.exploring` does the work."""

    if TYPE_CHECKING:
        label: str

        @property
        def encoder(self) -> Encoder: ...

        def snapshot(self) -> AbstractContextManager[Snapshot]:
            """One whole generation to search in; see `Index.snapshot`."""

        def holdings(self) -> AbstractContextManager[Holdings]:
            """What one whole generation holds, to be read at length; see `Index.holdings`."""

        def info(self) -> dict[str, Any]:
            """Facts about the index; see `Index.info`."""

    @overload
    async def asearch(  # type: ignore[overload-overlap]
        self, query: str, k: int = 10, *, where: Where | None = None, mode: str = "hybrid"
    ) -> Hits: ...
    @overload
    async def asearch(
        self, query: Sequence[str], k: int = 10, *, where: Where | None = None, mode: str = "hybrid"
    ) -> list[Hits]: ...
    async def asearch(
        self, query: str | Sequence[str], k: int = 10, *, where: Where | None = None, mode: str = "hybrid"
    ) -> Hits | list[Hits]:
        """As `search`, in a thread, so that the event loop goes on: `hits = await index.asearch("late fees")`.

        Any number may run at once, with the same hits as one by one. A task that is cancelled ends at once; its search
        ends unseen in the thread, and the index stays usable.
        """
        import asyncio

        index: Any = self
        found: Hits | list[Hits] = await asyncio.to_thread(index.search, query, k, where=where, mode=mode)
        return found

    @overload
    async def aask(self, question: str, k: int = 20, *, where: Where | None = None) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    async def aask(self, question: Sequence[str], k: int = 20, *, where: Where | None = None) -> list[Answer]: ...
    async def aask(
        self, question: str | Sequence[str], k: int = 20, *, where: Where | None = None
    ) -> Answer | list[Answer]:
        """As `ask`, in a thread; see `asearch`."""
        import asyncio

        index: Any = self
        answer: Answer | list[Answer] = await asyncio.to_thread(index.ask, question, k, where=where)
        return answer

    def similar(self, id: str, k: int = 10, *, where: Where | None = None) -> Hits:
        """The k documents that are most like one of the index, each as a hit with its best passage.

        Nothing is encoded: the document is looked for by the mean of its passages' vectors. Raises InputError for an id
        that is not there, and for a document without vectors.

        >>> [hit.passage.document_id for hit in index.similar("late-fees.md", k=3)]  # doctest: +SKIP
        ['loan-periods.md', 'price-list.json', 'membership.html']
        """
        from semsearch.exploring import similar

        with self.snapshot() as snapshot:
            return similar(snapshot, id, k, where)

    def duplicates(
        self, threshold: float = 0.95, *, of: str = "passages", where: Where | None = None, limit: int = 1000
    ) -> list[Pair]:
        """The pairs of passages (or of="documents") that say almost the same, the most similar first.

        `threshold` is the least cosine similarity of their vectors; `overlap` of a pair tells copies from the same in
        other words. At most `limit` pairs. The vectors are held in memory meanwhile; up to 30,000 different texts all
        pairs are looked at, beyond that those that lie near each other. Raises InputError for a bad threshold.
        """
        from semsearch.exploring import duplicates

        with self.holdings() as holdings:
            return duplicates(holdings, threshold, of=of, where=where, limit=limit)

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, text: str, label_key: str, k: int = 20, *, where: Where | None = None
    ) -> Classification: ...
    @overload
    def classify(
        self, text: Sequence[str], label_key: str, k: int = 20, *, where: Where | None = None
    ) -> list[Classification]: ...
    def classify(
        self, text: str | Sequence[str], label_key: str, k: int = 20, *, where: Where | None = None
    ) -> Classification | list[Classification]:
        """What the metadata `label_key` of a text would be, by the k nearest documents that have it.

        The result has a probability for each label, and no label where nothing labelled is near. A text of more than a
        passage is read as far as the encoder reads. Raises InputError where fewer than two documents have the label.

        >>> index.classify("Three pounds for a lost card.", "topic").label  # doctest: +SKIP
        'fees'
        """
        from semsearch.exploring import classify

        texts = [text] if isinstance(text, str) else list(text)
        vectors = checked_vectors(self.encoder, texts, "passage")
        with self.snapshot() as snapshot:
            found = classify(snapshot, vectors, label_key, k, where)
        return found[0] if isinstance(text, str) else found

    @overload
    def summarize(
        self, *, where: Where | None = None, sentences: int = 5, reader: None = None, strict: bool = False
    ) -> list[Sentence]: ...
    @overload
    def summarize(
        self,
        *,
        where: Where | None = None,
        sentences: int = 5,
        reader: str | Path | GenerativeReader,
        template: Template | str | PathLike[str] | None = None,
        strict: bool = False,
    ) -> Answer: ...
    def summarize(
        self,
        *,
        where: Where | None = None,
        sentences: int = 5,
        reader: str | Path | GenerativeReader | None = None,
        template: Template | str | PathLike[str] | None = None,
        strict: bool = False,
    ) -> list[Sentence] | Answer:
        """The sentences of the index that together stand for it best, or for the documents that `where` lets through.

        Sentences are taken word for word: `document.text[sentence.start:sentence.end] == sentence.text`. They come in
        the order of their choice, the most central first. [] where there is no sentence.

        With a generative `reader` (as `Answerer` takes it) a text is written from these sentences, and nothing else: an
        `Answer` with citations, whose sentences are checked like those of any other. With `strict=True` those that
        nothing supports are left out; `template` is the wording of the prompt for a model that is named. Raises
        InputError for a reader that only extracts, and for a template that there is no model for.
        """
        from semsearch.exploring import summarize

        writer = None
        if reader is not None or template is not None:
            from semsearch.summarizing import open_writer

            writer = open_writer(reader, template)
        with self.holdings() as holdings:
            chosen = summarize(
                holdings, lambda texts: checked_vectors(self.encoder, list(texts), "passage"), where, sentences
            )
        if writer is None:
            return chosen
        from semsearch.summarizing import write_summary

        return write_summary(chosen, writer, self.encoder, strict=strict)

    def plot(
        self,
        color: str | None = None,
        query: str | None = None,
        *,
        k: int = 5,
        where: Where | None = None,
        sample: int = 2000,
        ax: Axes | None = None,
    ) -> Axes:
        """A map of the passages in two dimensions, coloured by a metadata key or by cluster, with a query and its hits.

        See `semsearch.plots.index_map`. Returns the matplotlib Axes, which a notebook shows.

        >>> index.plot(color="suffix", query="late fees").figure.savefig("map.png")  # doctest: +SKIP
        """
        from semsearch.plots import index_map

        return index_map(self, color, query, k=k, where=where, sample=sample, ax=ax)  # type: ignore[arg-type]

    def _repr_html_(self) -> str | None:
        from semsearch.html import index_html

        try:
            info = self.info()
        except ClosedIndexError:
            return None  # a notebook then shows the text
        return index_html(self.label, info)

# mypy: disallow-untyped-decorators=False
"""semsearch in Haystack: a document store, a retriever, an extractive reader and embedders.

    from semsearch.integrations.haystack import SemsearchDocumentStore, SemsearchReader, SemsearchRetriever

    pipeline = Pipeline()
    pipeline.add_component("retriever", SemsearchRetriever(SemsearchDocumentStore("indexes/handbook")))
    pipeline.add_component("reader", SemsearchReader())
    pipeline.connect("retriever.documents", "reader.documents")
    question = "When are late fees charged?"
    pipeline.run({"retriever": {"query": question}, "reader": {"query": question}})["reader"]["answers"]

A pipeline that was saved is loaded with `Pipeline.loads(text, allowed_modules=["semsearch.integrations.*"])`. Needs
haystack-ai: pip install 'semsearch[haystack]'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import semsearch
from semsearch.encoding import Encoder, get_encoder
from semsearch.errors import InputError, MissingExtraError
from semsearch.filters import shown
from semsearch.integrations.haystack_store import SemsearchDocumentStore, where_of, without_kept
from semsearch.integrations.shared import legs_of, passage_id, place
from semsearch.records import Answer, Hit, Passage

try:
    from haystack import Document, ExtractedAnswer, component, default_to_dict
    from haystack.document_stores.types import FilterPolicy, apply_filter_policy
except ImportError as error:
    raise MissingExtraError("The adapter for Haystack", "haystack-ai", "haystack") from error

__all__ = [
    "SemsearchDocumentEmbedder",
    "SemsearchDocumentStore",
    "SemsearchReader",
    "SemsearchRetriever",
    "SemsearchTextEmbedder",
    "where_of",
]


@component
class SemsearchRetriever:
    """Searches a `SemsearchDocumentStore` for passages, by meaning and keywords.

    `mode` and `reranker` (by name) are those of `semsearch.Retriever`, `filters` are Haystack's, and `filter_policy`
    ("replace" or "merge") says what filters given to `run` do to them.

    The documents that come out are passages: `content` is the passage, `id` says where it is, `meta` is the stored
    document's with `document_id`, `start`, `end`, `page` (from 1), `rank`, `score` and `legs`.
    """

    def __init__(
        self,
        document_store: SemsearchDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        mode: str = "hybrid",
        reranker: str | None = None,
        filter_policy: str | FilterPolicy = "replace",
    ) -> None:
        if not isinstance(document_store, SemsearchDocumentStore):
            raise InputError(f"The retriever searches a SemsearchDocumentStore, not {shown(document_store)}.")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.mode = mode
        self.reranker = reranker
        self.filter_policy: FilterPolicy = FilterPolicy.from_str(str(filter_policy))
        self._searcher: semsearch.Retriever | None = None

    def warm_up(self) -> None:
        """Open the index, and the reranker if there is one."""
        index = self.document_store.index
        if self._searcher is None or self._searcher.index is not index:
            self._searcher = semsearch.Retriever(index, self.mode, reranker=self.reranker)

    def to_dict(self) -> dict[str, Any]:
        """What makes the component again."""
        data: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store,
            filters=self.filters,
            top_k=self.top_k,
            mode=self.mode,
            reranker=self.reranker,
            filter_policy=str(self.filter_policy),
        )
        return data

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`documents`: the `top_k` best passages, fewer only if fewer match.

        Raises InputError for an empty query or a top k below 1, Haystack's FilterError for a filter that the store
        cannot apply.
        """
        where = where_of(apply_filter_policy(self.filter_policy, self.filters, filters))
        self.warm_up()
        assert self._searcher is not None
        hits = self._searcher.search(query, self.top_k if top_k is None else top_k, where)
        return {"documents": [_document(hit) for hit in hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The same in a thread."""
        return await asyncio.to_thread(lambda: self.run(query, filters, top_k))


def _document(hit: Hit) -> Document:
    meta = without_kept(place(hit))
    return Document(id=passage_id(hit.passage), content=hit.passage.text, meta=meta, score=hit.score)


@component
class SemsearchReader:
    """Finds answers in documents: spans of their text, each with the probability that it is right.

    Takes the place of the `ExtractiveReader` that is no longer a part of Haystack. `reader` is the name or path of an
    extractive model, None for the one that ships; `threshold` the least probability of an answer, None for the one that
    is stored with the model. See `semsearch.Answerer`.
    """

    def __init__(
        self, reader: str | None = None, top_k: int = 5, threshold: float | None = None, no_answer: bool = True
    ) -> None:
        self.reader = reader
        self.top_k = top_k
        self.threshold = threshold
        self.no_answer = no_answer
        self._answerer: semsearch.Answerer | None = None

    def warm_up(self) -> None:
        """Load the model."""
        if self._answerer is None:
            self._answerer = semsearch.Answerer(None, self.reader, threshold=self.threshold)

    @component.output_types(answers=list[ExtractedAnswer])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[ExtractedAnswer]]:
        """`answers`: at most `top_k` (and never more than six), the most likely first.

        `document.content[offset.start:offset.end] == answer.data` for the answer's `document_offset`. With `no_answer`
        one more says that there is none: its `data` is None, its score the probability that the best answer is wrong,
        and it comes first where that answer is below the threshold, otherwise last. If all documents have a score, as
        those of a retriever, their order counts; those without text are left out. Raises InputError for an empty query.
        """
        self.warm_up()
        assert self._answerer is not None
        count = self.top_k if top_k is None else top_k
        if count < 1:
            raise InputError(f"top_k={shown(count)}: ask for at least 1 answer.")
        answer = self._answerer.read(query, _read(documents))
        candidates = (answer, *answer.alternatives) if answer.found else answer.alternatives
        answers = [_extracted(query, each, documents) for each in candidates[:count]]
        if self.no_answer:
            sure = answers[0].score if answers else 0.0
            answers.insert(len(answers) if answer.found else 0, ExtractedAnswer(query=query, score=1.0 - sure))
        return {"answers": answers}

    @component.output_types(answers=list[ExtractedAnswer])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[ExtractedAnswer]]:
        """The same in a thread."""
        return await asyncio.to_thread(lambda: self.run(query, documents, top_k))


def _read(documents: Sequence[Document]) -> list[Hit] | list[Passage]:
    """The documents to read, numbered; those that a search found as hits, whose rank counts."""
    texts = [(at, each) for at, each in enumerate(documents) if each.content]
    passages = [Passage(at, each.id, each.content, 0, len(each.content)) for at, each in texts]
    if any(each.score is None for _, each in texts):
        return passages
    return [
        Hit(passage, float(each.score), rank, legs_of(each.meta))
        for rank, (passage, (_, each)) in enumerate(zip(passages, texts, strict=True), 1)
    ]


def _extracted(query: str, answer: Answer, documents: Sequence[Document]) -> ExtractedAnswer:
    assert answer.hit is not None
    return ExtractedAnswer(
        query=query,
        score=answer.score,
        data=answer.text,
        document=documents[answer.hit.passage.id],
        document_offset=ExtractedAnswer.Span(start=answer.start, end=answer.end),
    )


@component
class SemsearchTextEmbedder:
    """Embeds a query with an encoder of ours, given by name or folder; None is the one that ships."""

    def __init__(self, encoder: str | None = None) -> None:
        self.encoder = encoder
        self._loaded: Encoder | None = None

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """`embedding`: a unit vector, in float32 precision."""
        self._loaded = self._loaded or get_encoder(self.encoder)
        return {"embedding": self._loaded.encode([text], kind="query")[0].tolist()}


@component
class SemsearchDocumentEmbedder:
    """Embeds documents with an encoder of ours, given by name or folder; None is the one that ships.

    For other stores than `SemsearchDocumentStore`, which encodes by itself.
    """

    def __init__(self, encoder: str | None = None) -> None:
        self.encoder = encoder
        self._loaded: Encoder | None = None

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`documents`: the same with `embedding`, a unit vector; a document without text has the vector of no words."""
        self._loaded = self._loaded or get_encoder(self.encoder)
        vectors = self._loaded.encode([each.content or "" for each in documents], kind="passage")
        pairs = zip(documents, vectors.tolist(), strict=True)
        return {"documents": [replace(each, embedding=vector) for each, vector in pairs]}

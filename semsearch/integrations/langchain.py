# mypy: disallow-subclassing-any=False
"""semsearch in LangChain: a retriever, a vector store and embeddings.

    from semsearch.integrations.langchain import SemsearchRetriever

    retriever = SemsearchRetriever(index=semsearch.Index("indexes/handbook"), k=5)
    documents = retriever.invoke("late fees")
    documents[0].metadata["source"], documents[0].metadata["page"], documents[0].metadata["score"]

Needs langchain-core: pip install 'semsearch[langchain]'.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import semsearch
from semsearch.encoding import Encoder, Kind, get_encoder
from semsearch.errors import InputError, MissingExtraError
from semsearch.integrations.shared import best_documents, described, passage_id, place
from semsearch.records import Hit

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from pydantic import PrivateAttr
except ImportError as error:
    raise MissingExtraError("The adapter for LangChain", "langchain-core", "langchain") from error

__all__ = ["EmbeddingsEncoder", "SemsearchEmbeddings", "SemsearchRetriever", "SemsearchVectorStore"]


class SemsearchRetriever(BaseRetriever):
    """The passages of an index as LangChain documents, best first.

    `index`, `mode`, `fusion` and `reranker` are those of `semsearch.Retriever`; `k` and `where` those of its `search`,
    and both can be given to `invoke` instead: `retriever.invoke("late fees", k=3, where={"suffix": ".md"})`.

    A document's `page_content` is the passage and its `id` says where it is. Its metadata is that of the document
    (files have `source`, `suffix`, `size`, `modified`) with `document_id`, `start`, `end`, `page` (from 1), `rank`,
    `score` and `legs`. A search raises InputError for a k below 1 or an empty query, FilterError for a filter that is
    not well formed; an unknown mode is a ValidationError of pydantic.
    """

    index: semsearch.Index
    k: int = 10
    mode: str = "hybrid"
    fusion: Any = None
    reranker: Any = None
    where: dict[str, Any] | None = None
    _searcher: semsearch.Retriever = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make the retriever of ours that searches."""
        super().model_post_init(context)
        self._searcher = semsearch.Retriever(self.index, self.mode, self.fusion, self.reranker)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: dict[str, Any] | None = None,
    ) -> list[Document]:
        hits = self._searcher.search(query, self.k if k is None else k, self.where if where is None else where)
        return [
            Document(id=passage_id(hit.passage), page_content=hit.passage.text, metadata=place(hit)) for hit in hits
        ]


class SemsearchEmbeddings(Embeddings):
    """An encoder of ours as LangChain embeddings: unit vectors, in float32 precision.

    `encoder` is whatever `semsearch.Index` takes: None for the one that ships, a name, a folder or an object.
    """

    def __init__(self, encoder: str | os.PathLike[str] | Encoder | None = None) -> None:
        self.encoder: Encoder = get_encoder(encoder)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each passage."""
        vectors: list[list[float]] = self.encoder.encode(texts, kind="passage").tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        vector: list[float] = self.encoder.encode([text], kind="query")[0].tolist()
        return vector


class EmbeddingsEncoder:
    """LangChain embeddings as an encoder of ours: `semsearch.Index(location, encoder=EmbeddingsEncoder(embeddings))`.

    `name` is what the index remembers them by, by default their class and the model they name. The vectors are brought
    to unit length. Opening the index again takes the same embeddings again.
    """

    def __init__(self, embeddings: Embeddings, name: str | None = None) -> None:
        """Embeds one text to learn the dimension."""
        self._embeddings = embeddings
        model = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None)
        self.name: str = name or "/".join(filter(None, (type(embeddings).__name__, str(model or ""))))
        self.dimension: int = len(embeddings.embed_query("dimension"))

    def encode(self, texts: Sequence[str], *, kind: Kind = "passage") -> npt.NDArray[np.float32]:
        """(len(texts), dimension) float32, rows of unit length."""
        embed = self._embeddings
        found = embed.embed_documents(list(texts)) if kind == "passage" else [embed.embed_query(text) for text in texts]
        rows = np.asarray(found, dtype=np.float32).reshape(len(texts), self.dimension)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        vectors: npt.NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors


class SemsearchVectorStore(VectorStore):
    """An index as a LangChain vector store: whole documents go in and come out, the best passage decides.

    store = SemsearchVectorStore(semsearch.Index("indexes/notes"))
    store.add_documents([Document(page_content="Late fees are charged after 14 days.", metadata={"year": 2024})])
    store.similarity_search("late fees", k=4, filter={"year": {"$gte": 2020}})

    A document longer than a passage is cut by the index, so that no splitter is needed; `SemsearchRetriever` gives the
    passages. `filter` is a `where` filter of ours. `mode` is that of `semsearch.Retriever`; scores are higher for
    better.
    """

    def __init__(self, index: semsearch.Index, *, mode: str = "hybrid") -> None:
        self.index = index
        self._searcher = semsearch.Retriever(index, mode)

    @property
    def embeddings(self) -> Embeddings:
        """The index's encoder."""
        return SemsearchEmbeddings(self.index.encoder)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        location: str | os.PathLike[str] | None = None,
        mode: str = "hybrid",
        **kwargs: Any,
    ) -> SemsearchVectorStore:
        """A store in the folder `location` with these texts; it is made if it is not there.

        Further keyword arguments are those of `semsearch.Index`. Raises InputError without a location.
        """
        if location is None:
            raise InputError("A store is kept in a folder. Say in which: from_texts(texts, embedding, location=...).")
        encoder = embedding.encoder if isinstance(embedding, SemsearchEmbeddings) else EmbeddingsEncoder(embedding)
        store = cls(semsearch.Index(location, encoder=encoder, **kwargs), mode=mode)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_documents(self, documents: list[Document], *, ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """Add documents, each in place of one with the same id, and return their ids.

        `ids` go before the documents' own; where there is neither, a random one is made. Metadata holds JSON values.
        """
        if ids is not None and len(ids) != len(documents):
            raise InputError(f"{len(ids)} ids were given for {len(documents)} documents.")
        given = ids or [document.id for document in documents]
        names = [id or str(uuid.uuid4()) for id in given]
        self.index.add(
            [
                semsearch.Document(id, document.page_content, metadata=document.metadata)
                for id, document in zip(names, documents, strict=True)
            ],
            progress=False,
        )
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, all of them for None; ids that are not there are no error."""
        self.index.remove([document.id for document in self.index.documents()] if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents that are there."""
        return [_whole(document) for document in map(self.index.get, dict.fromkeys(ids)) if document is not None]

    def similarity_search(
        self, query: str, k: int = 4, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        """The k documents with the best passages."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same, each with the score of its best passage, higher for better."""
        return self._found(lambda width: self._searcher.search(query, width, filter), k)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Of the documents with the best `fetch_k` passages, the k that are near the query and far from each other."""
        from semsearch.reranking import MMR

        hits = self._searcher.search(query, max(fetch_k, k), filter)
        scores = MMR(self.index.encoder, relevance=lambda_mult)(query, [hit.passage for hit in hits])
        order = sorted(range(len(hits)), key=lambda at: -scores[at])
        return [document for document, _ in self._found(lambda width: [hits[at] for at in order[:width]], k)]

    def _found(self, search: Callable[[int], list[Hit]], k: int) -> list[tuple[Document, float]]:
        best = best_documents(search, k)
        found = [(self.index.get(id), score) for id, score in best]
        return [(_whole(document), score) for document, score in found if document is not None]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._searcher.mode != "dense":
            raise InputError(
                f"Only cosines say how relevant a document is on a scale from 0 to 1, and mode={self._searcher.mode!r} "
                "has other scores. Use SemsearchVectorStore(index, mode='dense')."
            )
        return lambda cosine: min(max(cosine, 0.0), 1.0)


def _whole(document: semsearch.Document) -> Document:
    return Document(id=document.id, page_content=document.text, metadata=described(document))

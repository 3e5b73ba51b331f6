# mypy: disallow-subclassing-any=False
"""semsearch in LlamaIndex: a retriever and an embedding model.

    from semsearch.integrations.llama_index import SemsearchRetriever

    retriever = SemsearchRetriever(semsearch.Index("indexes/handbook"), similarity_top_k=5)
    for found in retriever.retrieve("late fees"):
        print(found.score, found.node.ref_doc_id, found.node.start_char_idx, found.node.metadata.get("page"))

There is no vector store: those of LlamaIndex take vectors that were made elsewhere, while an index of ours cuts,
encodes and keeps the texts itself. Needs llama-index-core: pip install 'semsearch[llama-index]'.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import semsearch
from semsearch.encoding import Encoder, get_encoder
from semsearch.errors import MissingExtraError
from semsearch.filters import Where
from semsearch.integrations.shared import passage_id, place
from semsearch.records import Hit

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
except ImportError as error:
    raise MissingExtraError("The adapter for LlamaIndex", "llama-index-core", "llama-index") from error

__all__ = ["SemsearchEmbedding", "SemsearchRetriever"]

_HIDDEN = ["document_id", "start", "end", "rank", "score", "legs"]  # from prompts and embeddings of a node


class SemsearchRetriever(BaseRetriever):
    """The passages of an index as nodes with scores, best first.

    `index`, `mode`, `fusion` and `reranker` are those of `semsearch.Retriever`; `similarity_top_k` and `where` are `k`
    and `where` of its `search`. Further keyword arguments go to LlamaIndex's own base class.

    A node's text is the passage, `ref_doc_id` its document, and `document.text[start_char_idx:end_char_idx]` is the
    text. Its metadata is that of the document with `document_id`, `start`, `end`, `page` (from 1), `rank`, `score` and
    `legs`; of these, prompts show the page only. Raises InputError for a top k below 1, an empty query or an unknown
    mode, FilterError for a filter that is not well formed.
    """

    def __init__(
        self,
        index: semsearch.Index,
        similarity_top_k: int = 10,
        *,
        mode: str = "hybrid",
        fusion: Any = None,
        reranker: Any = None,
        where: Where | None = None,
        **kwargs: Any,
    ) -> None:
        self._searcher = semsearch.Retriever(index, mode, fusion, reranker)
        self.similarity_top_k = similarity_top_k
        self.where = where
        super().__init__(**kwargs)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._searcher.search(query_bundle.query_str, self.similarity_top_k, self.where)
        return [NodeWithScore(node=_node(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Hit) -> TextNode:
    passage = hit.passage
    return TextNode(
        id_=passage_id(passage),
        text=passage.text,
        start_char_idx=passage.start,
        end_char_idx=passage.end,
        metadata=place(hit),
        excluded_llm_metadata_keys=list(_HIDDEN),
        excluded_embed_metadata_keys=list(_HIDDEN),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=passage.document_id)},
    )


class SemsearchEmbedding(BaseEmbedding):
    """An encoder of ours as an embedding model: unit vectors, in float32 precision.

    `encoder` is whatever `semsearch.Index` takes: None for the one that ships, a name, a folder or an object. Further
    keyword arguments, such as `embed_batch_size`, go to LlamaIndex's own base class.
    """

    _encoder: Encoder = PrivateAttr()

    def __init__(self, encoder: str | os.PathLike[str] | Encoder | None = None, **kwargs: Any) -> None:
        loaded = get_encoder(encoder)
        super().__init__(model_name=kwargs.pop("model_name", loaded.name), **kwargs)
        self._encoder = loaded

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's own records."""
        return "SemsearchEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._encoder.encode([query], kind="query")[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode(texts, kind="passage").tolist()
        return vectors

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

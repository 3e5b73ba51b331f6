"""The adapter for LlamaIndex gives its nodes and its embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

import semsearch
from semsearch.errors import FilterError, InputError

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import MetadataMode, QueryBundle, TextNode

from semsearch.encoding import get_encoder
from semsearch.integrations.llama_index import SemsearchEmbedding, SemsearchRetriever


def test_nodes_are_the_passages_of_a_search_with_their_place_in_the_document(handbook: semsearch.Index) -> None:
    hits = handbook.search("late fees", k=4)
    found = SemsearchRetriever(handbook, 4).retrieve("late fees")
    assert [each.node.text for each in found] == [hit.passage.text for hit in hits]
    assert [each.score for each in found] == [hit.score for hit in hits]
    for each in found:
        assert isinstance(each.node, TextNode)
        document = handbook.get(each.node.ref_doc_id or "")
        assert document is not None
        assert document.text[each.node.start_char_idx : each.node.end_char_idx] == each.node.text
        assert each.node.metadata["source"] == document.source
        assert each.node.metadata["start"] == each.node.start_char_idx
    assert len({each.node.node_id for each in found}) == 4


def test_a_prompt_shows_source_and_page_but_not_how_a_passage_was_found(handbook: semsearch.Index) -> None:
    node = SemsearchRetriever(handbook, 1, where={"suffix": ".pdf"}).retrieve("floods")[0].node
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        shown = node.get_content(mode)
        assert f"page: {node.metadata['page']}" in shown
        assert "source: " in shown
        assert "score" not in shown
        assert "legs" not in shown


def test_where_mode_and_reranker_are_those_of_our_retriever(index: semsearch.Index) -> None:
    def longest(query: str, passages: Any) -> list[float]:
        return [len(passage.text) for passage in passages]

    found = SemsearchRetriever(index, where={"year": {"$gte": 2023}}, reranker=longest).retrieve("library")
    assert [each.node.metadata["year"] for each in found] == [2024, 2023]
    assert len(SemsearchRetriever(index, 10, mode="lexical").retrieve("ink")) == 1
    with pytest.raises(InputError, match="mode='semantic'"):
        SemsearchRetriever(index, mode="semantic")
    with pytest.raises(InputError, match="k=0"):
        SemsearchRetriever(index, 0).retrieve("ink")
    with pytest.raises(FilterError, match="operator"):
        SemsearchRetriever(index, where={"year": {"$above": 1}}).retrieve("ink")


async def test_the_async_way_gives_the_same(index: semsearch.Index) -> None:
    retriever = SemsearchRetriever(index, 2)
    assert await retriever.aretrieve(QueryBundle("late fees")) == retriever.retrieve(QueryBundle("late fees"))


def test_a_query_engine_and_a_fusion_of_retrievers_work_over_it(index: semsearch.Index) -> None:
    retriever = SemsearchRetriever(index, 2)
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())
    answer = engine.query("How much are late fees?")
    assert "Late fees are twenty cents a day." in str(answer)
    assert answer.source_nodes[0].node.ref_doc_id == "fees.md"
    fused = QueryFusionRetriever(
        [retriever, SemsearchRetriever(index, 2, mode="lexical")], num_queries=1, use_async=False, llm=MockLLM()
    )
    assert fused.retrieve("late fees")[0].node.ref_doc_id == "fees.md"


def test_embeddings_are_our_vectors_and_serve_an_index_of_llama_index() -> None:
    encoder, embedding = get_encoder(None), SemsearchEmbedding()
    texts = ["Late fees are twenty cents a day.", "Ink is sold at the desk.", "The library closes at nine."]
    assert np.allclose(embedding.get_text_embedding_batch(texts), encoder.encode(texts))
    assert np.allclose(embedding.get_query_embedding("fines"), encoder.encode(["fines"], kind="query")[0])
    assert embedding.model_name == encoder.name
    index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=embedding)
    assert index.as_retriever(similarity_top_k=1).retrieve("What does it cost to return late?")[0].text == texts[0]


async def test_embeddings_come_in_the_async_way_too() -> None:
    embedding = SemsearchEmbedding(WordEncoder(), embed_batch_size=1)
    assert await embedding.aget_query_embedding("ink") == embedding.get_query_embedding("ink")
    assert await embedding.aget_text_embedding_batch(["a b", "c"]) == embedding.get_text_embedding_batch(["a b", "c"])
    assert embedding.get_text_embedding("a b") == pytest.approx(WordEncoder().encode(["a b"])[0].tolist())
    assert (
        embedding.to_dict() == SemsearchEmbedding.from_dict(embedding.to_dict() | {"encoder": WordEncoder()}).to_dict()
    )


def test_nothing_of_llama_index_is_set_globally(index: semsearch.Index) -> None:
    before = Settings._embed_model
    SemsearchRetriever(index).retrieve("ink")
    assert Settings._embed_model is before

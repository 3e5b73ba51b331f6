"""The adapter for LangChain passes LangChain's own standard tests, and tells where each passage is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

import semsearch
from semsearch.errors import FilterError, IndexMismatchError, InputError

pytest.importorskip("langchain_core", reason="langchain-core is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError

from semsearch.integrations.langchain import (
    EmbeddingsEncoder,
    SemsearchEmbeddings,
    SemsearchRetriever,
    SemsearchVectorStore,
)


class TestStandardRetriever(RetrieversIntegrationTests):
    """LangChain's standard tests, over the shipped encoder."""

    @pytest.fixture(autouse=True)
    def _over(self, handbook: semsearch.Index) -> None:
        self._handbook = handbook

    @property
    def retriever_constructor(self) -> type[SemsearchRetriever]:
        return SemsearchRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self._handbook}

    @property
    def retriever_query_example(self) -> str:
        return "late fees"


class TestStandardVectorStore(VectorStoreIntegrationTests):
    """LangChain's standard tests, over an encoder of ours."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[SemsearchVectorStore]:
        with semsearch.Index(tmp_path / "store", encoder=WordEncoder()) as index:
            yield SemsearchVectorStore(index)


class TestStandardVectorStoreDense(VectorStoreIntegrationTests):
    """The same by meaning alone, over the embeddings that LangChain's tests bring."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[SemsearchVectorStore]:
        with semsearch.Index(tmp_path / "store", encoder=EmbeddingsEncoder(self.get_embeddings())) as index:
            yield SemsearchVectorStore(index, mode="dense")


class TestStandardEmbeddingsUnit(EmbeddingsUnitTests):
    """LangChain's unit tests, with the shipped encoder."""

    @property
    def embeddings_class(self) -> type[SemsearchEmbeddings]:
        return SemsearchEmbeddings


class TestStandardEmbeddings(EmbeddingsIntegrationTests):
    """LangChain's integration tests, with the shipped encoder."""

    @property
    def embeddings_class(self) -> type[SemsearchEmbeddings]:
        return SemsearchEmbeddings


def test_the_retriever_gives_what_search_gives_with_source_page_offsets_and_score(handbook: semsearch.Index) -> None:
    hits = handbook.search("Who runs the café?", k=5)
    found = SemsearchRetriever(index=handbook, k=5).invoke("Who runs the café?")
    assert [each.page_content for each in found] == [hit.passage.text for hit in hits]
    assert [each.metadata["score"] for each in found] == [hit.score for hit in hits]
    for each, hit in zip(found, hits, strict=True):
        document = handbook.get(each.metadata["document_id"])
        assert document is not None
        assert document.text[each.metadata["start"] : each.metadata["end"]] == each.page_content
        assert each.metadata["source"] == document.source
        assert each.metadata.get("page") == hit.passage.page
        assert each.metadata["suffix"] == document.metadata["suffix"]


def test_pages_are_told(handbook: semsearch.Index) -> None:
    found = SemsearchRetriever(index=handbook, where={"suffix": ".pdf"}).invoke("floods")
    assert found
    assert all(each.metadata["page"] >= 1 for each in found)


def test_k_and_where_of_a_call_go_before_those_of_the_retriever(index: semsearch.Index) -> None:
    retriever = SemsearchRetriever(index=index, k=2, where={"year": {"$gte": 2023}})
    assert {each.metadata["year"] for each in retriever.invoke("library fees ink")} == {2023, 2024}
    assert [each.metadata["year"] for each in retriever.invoke("library", where={"year": 2022})] == [2022]
    assert len(retriever.invoke("library fees ink", k=1)) == 1
    assert len(retriever.invoke("library fees ink", k=3, where={})) == 3


async def test_the_async_way_gives_the_same(index: semsearch.Index) -> None:
    retriever = SemsearchRetriever(index=index, mode="lexical")
    assert await retriever.ainvoke("late fees") == retriever.invoke("late fees")
    assert await retriever.abatch(["fees", "ink"]) == retriever.batch(["fees", "ink"])


def test_mode_fusion_and_reranker_are_those_of_our_retriever(index: semsearch.Index) -> None:
    def backwards(query: str, passages: Any) -> list[float]:
        return [-len(passage.text) for passage in passages]

    assert SemsearchRetriever(index=index, mode="lexical").invoke("ink")[0].metadata["legs"].keys() == {"lexical"}
    first = SemsearchRetriever(index=index, mode="dense", reranker=backwards).invoke("fees")[0]
    assert first.page_content == "Ink is sold at the desk."
    with pytest.raises(ValidationError, match="mode='semantic' is not known"):
        SemsearchRetriever(index=index, mode="semantic")


def test_errors_of_a_search_reach_the_caller(index: semsearch.Index) -> None:
    retriever = SemsearchRetriever(index=index)
    with pytest.raises(InputError, match="k=0"):
        retriever.invoke("fees", k=0)
    with pytest.raises(FilterError, match="operator"):
        retriever.invoke("fees", where={"year": {"$above": 2000}})


def test_a_store_gives_back_whole_documents_though_the_index_cuts_them(tmp_path: Path) -> None:
    long = "\n\n".join(
        f"Paragraph {n} tells of fees and of fines, and of the {n} ways to pay them." for n in range(200)
    )
    with semsearch.Index(tmp_path / "store", encoder=WordEncoder()) as index:
        store = SemsearchVectorStore(index)
        store.add_texts([long, "Ink is sold at the desk."], [{"n": 1}, {"n": 2}], ids=["long", "short"])
        assert len(index) > 3
        found = store.similarity_search_with_score("fees and fines", k=2)
        assert [document.id for document, _ in found] == ["long", "short"]
        assert found[0][0] == Document(id="long", page_content=long, metadata={"n": 1})
        assert found[0][1] > found[1][1]
        assert [each.id for each in store.similarity_search("fees", k=5, filter={"n": {"$ne": 1}})] == ["short"]
        assert [each.id for each in store.as_retriever(search_kwargs={"k": 1}).invoke("ink")] == ["short"]


def test_a_store_is_made_from_texts_and_opened_again_with_the_same_embeddings(tmp_path: Path) -> None:
    embeddings = DeterministicFakeEmbedding(size=8)
    store = SemsearchVectorStore.from_texts(["foo", "bar"], embeddings, location=tmp_path / "store", mode="dense")
    store.index.close()
    with semsearch.Index(tmp_path / "store", encoder=EmbeddingsEncoder(embeddings)) as index:
        again = SemsearchVectorStore(index, mode="dense")
        (document, score), *_ = again.similarity_search_with_score("bar", k=1)
        assert (document.page_content, round(score, 5)) == ("bar", 1.0)
        assert again.similarity_search_with_relevance_scores("bar", k=1)[0][1] == pytest.approx(1.0)
    with pytest.raises(IndexMismatchError, match="DeterministicFakeEmbedding"):
        semsearch.Index(tmp_path / "store", encoder=WordEncoder())
    with pytest.raises(InputError, match="location="):
        SemsearchVectorStore.from_texts(["foo"], embeddings)


def test_langchain_embeddings_become_unit_vectors_in_their_direction() -> None:
    embeddings = DeterministicFakeEmbedding(size=4)
    encoder = EmbeddingsEncoder(embeddings)
    assert (encoder.name, encoder.dimension) == ("DeterministicFakeEmbedding", 4)
    own = np.array(embeddings.embed_documents(["foo", "bar"]))
    expected = own / np.linalg.norm(own, axis=1, keepdims=True)
    assert np.allclose(encoder.encode(["foo", "bar"]), expected, atol=1e-6)
    assert encoder.encode(["foo"], kind="query").dtype == np.float32
    assert encoder.encode([]).shape == (0, 4)


def test_our_embeddings_are_our_vectors() -> None:
    encoder = semsearch.integrations.langchain.get_encoder(None)
    embeddings = SemsearchEmbeddings()
    assert np.allclose(embeddings.embed_documents(["a fee"]), encoder.encode(["a fee"]))
    assert np.allclose(embeddings.embed_query("a fee"), encoder.encode(["a fee"], kind="query")[0])


def test_relevance_between_0_and_1_is_there_for_cosines_only(index: semsearch.Index) -> None:
    dense = SemsearchVectorStore(index, mode="dense").similarity_search_with_relevance_scores("late fees", k=3)
    assert all(0 <= score <= 1 for _, score in dense)
    with pytest.raises(InputError, match="mode='dense'"):
        SemsearchVectorStore(index).similarity_search_with_relevance_scores("late fees")


def test_marginal_relevance_prefers_what_was_not_said_yet(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "store", encoder=WordEncoder()) as index:
        store = SemsearchVectorStore(index, mode="dense")
        store.add_texts(["late fees apply", "late fees apply now", "late returns"], ids=["a", "b", "c"])
        assert [each.id for each in store.similarity_search("late fees apply", k=2)] == ["a", "b"]
        # Cosines to the query: a 1, b .866, c .408; to a: b .866, c .408. With lambda .3: b .26-.61, c .12-.29.
        mixed = store.max_marginal_relevance_search("late fees apply", k=2, lambda_mult=0.3)
        assert [each.id for each in mixed] == ["a", "c"]
        nearest = store.max_marginal_relevance_search("late fees apply", k=2, fetch_k=2, lambda_mult=0.3)
        assert [each.id for each in nearest] == ["a", "b"]


def test_deleting_without_ids_empties_the_store_and_ids_must_be_as_many_as_documents(index: semsearch.Index) -> None:
    store = SemsearchVectorStore(index)
    with pytest.raises(InputError, match="1 ids were given for 2 documents"):
        store.add_documents([Document(page_content="a"), Document(page_content="b")], ids=["1"])
    assert store.delete() is True
    assert len(index) == 0
    assert store.get_by_ids(["fees.md"]) == []

"""The adapter for Haystack passes Haystack's own contract tests for document stores, and works in pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

import semsearch
from semsearch.embedded import EmbeddedEngine
from semsearch.engineindex import EngineIndex
from semsearch.errors import InputError

pytest.importorskip("haystack", reason="haystack-ai is not installed")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.errors import DeserializationError
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing.document_store import CountDocumentsByFilterTest, DocumentStoreBaseExtendedTests
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
)
from haystack.utils.filters import document_matches_filter

from semsearch.integrations.haystack import (
    SemsearchDocumentEmbedder,
    SemsearchDocumentStore,
    SemsearchReader,
    SemsearchRetriever,
    SemsearchTextEmbedder,
    where_of,
)

ALLOWED = ["semsearch.integrations.*"]


@pytest.fixture
def document_store(tmp_path: Path) -> Iterator[SemsearchDocumentStore]:
    store = SemsearchDocumentStore(tmp_path / "store", encoder=WordEncoder())
    yield store
    store.close()


class TestStore(DocumentStoreBaseExtendedTests, CountDocumentsByFilterTest):
    """Haystack's own tests: count, write, delete, filter, update, each by policy and by filter."""

    @pytest.fixture
    def document_store(self, document_store: SemsearchDocumentStore) -> SemsearchDocumentStore:
        return document_store

    def test_write_documents(self, document_store: SemsearchDocumentStore) -> None:
        """Which policy is the default is left to the store: ours is FAIL."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        assert document_store.filter_documents() == [document]


class TestStoreAsync(
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
):
    """The same in the async way."""

    async def test_write_documents_async(self, document_store: SemsearchDocumentStore) -> None:
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])
        assert await document_store.filter_documents_async() == [document]


# -- the store


def test_documents_come_back_exactly_with_blob_embedding_and_odd_content(
    document_store: SemsearchDocumentStore,
) -> None:
    documents = [
        Document(content="plain", meta={"a": None, "b": [1, "x"], "c": {"d": 1.5}, "e": True}),
        Document(content=None, blob=ByteStream(b"\x00\xff", mime_type="image/png"), meta={"name": "picture"}),
        Document(content="", meta={"name": "empty"}),
        Document(
            content="vectors", embedding=[0.1, 1e-300, 3.0], sparse_embedding=SparseEmbedding([3], [0.5]), score=0.25
        ),
        Document(content="odd \x00 \U0001f600 \u202e", meta={"title": "T", "id": 7, "content": "meta's own"}),
    ]
    document_store.write_documents(documents)
    assert document_store.filter_documents() == documents
    assert document_store.filter_documents({"field": "meta.name", "operator": "==", "value": "empty"}) == documents[2:3]
    assert (
        document_store.filter_documents({"field": "meta.name", "operator": "==", "value": "picture"}) == documents[1:2]
    )


def test_policies_hold_within_one_call_and_nothing_is_written_where_one_fails(
    document_store: SemsearchDocumentStore,
) -> None:
    one, other, third = (Document(id=id, content=text) for id, text in (("1", "one"), ("1", "other"), ("2", "third")))
    with pytest.raises(DuplicateDocumentError, match="'1'"):
        document_store.write_documents([third, one, other], DuplicatePolicy.FAIL)
    assert document_store.count_documents() == 0
    assert document_store.write_documents([one, other, third], DuplicatePolicy.SKIP) == 2
    assert document_store.filter_documents() == [one, third]
    assert document_store.write_documents([one, other], DuplicatePolicy.OVERWRITE) == 2
    assert document_store.filter_documents() == [other, third]


def test_what_haystack_wrote_is_found_by_our_own_search_and_filters(document_store: SemsearchDocumentStore) -> None:
    document_store.write_documents([Document(id="a", content="late fees", meta={"year": 2024}, embedding=[1.0, 2.0])])
    hits = document_store.index.search("fees", where={"year": {"$gte": 2020}})
    assert [hit.passage.document_id for hit in hits] == ["a"]
    assert document_store.index.search("fees", where={"year": 2020}) == []


def test_a_synced_index_is_a_store(handbook: semsearch.Index) -> None:
    store = SemsearchDocumentStore(handbook)
    pages = store.filter_documents({"field": "meta.suffix", "operator": "==", "value": ".pdf"})
    assert pages
    assert all(each.meta["source"].endswith(".pdf") and each.meta["pages"] >= 1 for each in pages)
    assert store.count_documents() == handbook.info()["documents"]


def test_a_store_is_described_by_location_and_encoder(tmp_path: Path) -> None:
    store = SemsearchDocumentStore(tmp_path / "store")
    data = store.to_dict()
    assert data == {
        "type": "semsearch.integrations.haystack_store.SemsearchDocumentStore",
        "init_parameters": {"location": str(tmp_path / "store"), "encoder": None, "read_only": False},
    }
    assert not (tmp_path / "store").exists()
    again = SemsearchDocumentStore.from_dict(data)
    assert again.to_dict() == data
    assert again.count_documents() == 0
    again.close()
    with pytest.raises(InputError, match="by name or path"):
        SemsearchDocumentStore(tmp_path / "store", encoder=WordEncoder()).to_dict()


def test_an_open_index_of_an_engine_is_a_store(tmp_path: Path) -> None:
    with EngineIndex._over(EmbeddedEngine(tmp_path / "index"), encoder=WordEncoder()) as index:
        store = SemsearchDocumentStore(index)
        assert store.write_documents([Document(id="a", content="Late fees.")]) == 1
        assert [each.content for each in store.filter_documents()] == ["Late fees."]
        assert store.to_dict()["init_parameters"]["location"] == str(tmp_path / "index") == index.location


# -- filters

META = [
    {"n": 1, "tag": "a", "day": "2024-01-01", "deep": {"x": 1}, "ok": True},
    {"n": 2.5, "tag": "b", "day": "2024-02-01", "deep": {"x": 2}, "ok": False},
    {"n": None, "tag": "c"},
    {"n": -3, "day": "2023-12-31", "deep": {}},
    {},
]
VALUES: dict[str, list[Any]] = {
    "meta.n": [1, 2.5, 0, None],
    "meta.tag": ["a", "c", "$ne", "", None],
    "meta.day": ["2024-01-01", "2024-01-15"],
    "meta.deep.x": [1, 2, None],
    "meta.none": ["a", None],
    "n": [2.5],
    "id": ["0", "3", "9"],
}


def comparisons() -> Iterator[dict[str, Any]]:
    for field, values in VALUES.items():
        for value in values:
            yield from ({"field": field, "operator": operator, "value": value} for operator in ("==", "!="))
            if field not in ("meta.tag", "meta.none", "id"):
                for operator in (">", ">=", "<", "<="):
                    yield {"field": field, "operator": operator, "value": value}
        yield from ({"field": field, "operator": operator, "value": values} for operator in ("in", "not in"))
        yield {"field": field, "operator": "in", "value": []}


def test_filters_mean_what_they_mean_to_haystack(document_store: SemsearchDocumentStore) -> None:
    documents = [Document(id=str(n), content=f"text {n}", meta=meta) for n, meta in enumerate(META)]
    document_store.write_documents(documents)
    single = list(comparisons())
    joined = [
        {"operator": operator, "conditions": [one, {"operator": "NOT", "conditions": [other]}]}
        for operator in ("AND", "OR", "NOT")
        for one, other in zip(single, single[7:] + single[:7], strict=True)
    ]
    assert len(single) > 80
    for filters in single + joined:
        expected = [each.id for each in documents if document_matches_filter(filters, each)]
        assert [each.id for each in document_store.filter_documents(filters)] == expected, filters


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"field": "meta.$or", "operator": "==", "value": 1}, r"cannot filter by 'meta.\$or'"),
        ({"field": "$where", "operator": "==", "value": 1}, "cannot filter by"),
        ({"field": "meta.", "operator": "==", "value": 1}, "cannot filter by"),
        ({"field": "content", "operator": "==", "value": "x"}, "cannot filter by 'content'"),
        ({"field": "embedding", "operator": "==", "value": None}, "cannot filter by 'embedding'"),
        ({"field": 3, "operator": "==", "value": None}, "is a string, not 3"),
        ({"field": "meta.n", "operator": "==", "value": {"$gt": 0}}, "Metadata and filters hold"),
        ({"field": "meta.n", "operator": "!=", "value": [1, 2]}, "Metadata and filters hold"),
        ({"field": "meta.n", "operator": "in", "value": [{"$gt": 0}]}, "Metadata and filters hold"),
        ({"field": "meta.n", "operator": "like", "value": "x"}, "no comparison operator 'like'"),
        ({"field": "meta.n", "operator": ["=="], "value": "x"}, "no comparison operator"),
        ({"field": "meta.n", "operator": ">", "value": True}, "compares numbers and dates"),
        ({"field": "meta.n", "operator": "<", "value": "2024-01-01T00:00:00+02:00"}, "offset from UTC"),
        ({"operator": "XOR", "conditions": []}, "no logical operator 'XOR'"),
        ({"operator": "AND", "conditions": []}, "a list of conditions"),
        ({"operator": "AND", "conditions": {"$gt": 1}}, "a list of conditions"),
        ({"operator": "AND", "conditions": ["x"]}, "A filter is a dictionary"),
        ({"year": {"$gte": 2020}}, "'operator' is missing"),
        ({"field": "meta.n", "operator": "==", "value": float("nan")}, "finite"),
    ],
)
def test_what_cannot_be_translated_is_refused_with_a_reason(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        where_of(filters)


def test_a_filter_nested_too_deeply_is_refused() -> None:
    filters: dict[str, Any] = {"field": "meta.n", "operator": "==", "value": 1}
    for _ in range(60):
        filters = {"operator": "NOT", "conditions": [filters]}
    with pytest.raises(FilterError, match="deep"):
        where_of(filters)


def test_dates_are_taken_as_strings_in_iso_format() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5)
    assert where_of({"field": "meta.day", "operator": ">=", "value": moment}) == {
        "day": {"$gte": "2024-01-02T03:04:05"}
    }
    utc = {"field": "meta.day", "operator": "<", "value": "2024-01-02T03:04:05Z"}
    assert where_of(utc) == {"day": {"$lt": "2024-01-02T03:04:05Z"}}


# -- components


def test_the_retriever_gives_passages_with_their_place_and_scores(handbook: semsearch.Index) -> None:
    question = "Who runs the café?"
    hits = handbook.search(question, k=5)
    found = SemsearchRetriever(SemsearchDocumentStore(handbook), top_k=5).run(question)["documents"]
    assert [each.content for each in found] == [hit.passage.text for hit in hits]
    assert [each.score for each in found] == [hit.score for hit in hits]
    for each in found:
        document = handbook.get(each.meta["document_id"])
        assert document is not None
        assert document.text[each.meta["start"] : each.meta["end"]] == each.content
        assert each.meta["source"] == document.source


def test_filters_of_a_call_replace_or_join_those_of_the_retriever(document_store: SemsearchDocumentStore) -> None:
    document_store.write_documents(
        [
            Document(id=f"{year}{tag}", content="fees", meta={"year": year, "tag": tag})
            for year in (1, 2)
            for tag in "ab"
        ]
    )
    year = {"field": "meta.year", "operator": "==", "value": 2}
    tag = {"field": "meta.tag", "operator": "==", "value": "a"}

    def found(policy: str, filters: dict[str, Any] | None) -> set[str]:
        retriever = SemsearchRetriever(document_store, filters=year, filter_policy=policy)
        return {each.meta["document_id"] for each in retriever.run("fees", filters)["documents"]}

    assert found("replace", None) == {"2a", "2b"}
    assert found("replace", tag) == {"1a", "2a"}
    assert found("merge", tag) == {"2a"}
    with pytest.raises(FilterError, match="no comparison operator"):
        found("replace", {"field": "meta.tag", "operator": "~", "value": "a"})


def test_what_haystack_keeps_for_itself_is_not_in_the_metadata_of_passages(
    document_store: SemsearchDocumentStore,
) -> None:
    document_store.write_documents([Document(content="late fees", embedding=[1.0], meta={"year": 2024})])
    (found,) = SemsearchRetriever(document_store).run("fees")["documents"]
    assert set(found.meta) == {"year", "document_id", "start", "end", "rank", "score", "legs"}


def test_a_pipeline_answers_as_our_own_index_does(handbook: semsearch.Index) -> None:
    question = "Who runs the café?"
    own = handbook.ask(question, k=20)
    pipeline = Pipeline()
    pipeline.add_component("retriever", SemsearchRetriever(SemsearchDocumentStore(handbook), top_k=20))
    pipeline.add_component("reader", SemsearchReader())
    pipeline.connect("retriever.documents", "reader.documents")
    answers = pipeline.run({"retriever": {"query": question}, "reader": {"query": question}})["reader"]["answers"]
    best = answers[0]
    assert own.found
    assert (best.data, best.score, best.query) == (own.text, own.score, question)
    assert best.document.meta["document_id"] == own.document_id
    assert best.document.meta["start"] + best.document_offset.start == own.start
    assert answers[-1].data is None
    assert answers[-1].score == 1 - own.score


def test_answers_are_slices_of_the_documents_that_were_given() -> None:
    documents = [
        Document(id="ink", content="Ink is sold at the desk."),
        Document(id="none", content=None),
        Document(id="fees", content="Late fees are twenty cents a day. They are paid at the desk."),
    ]
    answers = SemsearchReader(top_k=3, threshold=0.0, no_answer=False).run("How much are late fees?", documents)[
        "answers"
    ]
    assert answers[0].document.id == "fees"
    assert "twenty cents" in answers[0].data
    assert 1 <= len(answers) <= 3
    for each in answers:
        assert each.document.content[each.document_offset.start : each.document_offset.end] == each.data
        assert 0 <= each.score <= 1


def test_below_the_threshold_no_answer_comes_first_and_top_k_counts_answers() -> None:
    documents = [Document(content="Late fees are twenty cents a day."), Document(content="Ink is sold at the desk.")]
    answers = SemsearchReader(threshold=1.0).run("How much are late fees?", documents, top_k=1)["answers"]
    assert [each.data is None for each in answers] == [True, False]
    assert answers[0].score == 1 - answers[1].score
    assert SemsearchReader().run("How much?", [])["answers"][0].score == 1.0
    assert SemsearchReader(no_answer=False).run("How much?", [])["answers"] == []
    with pytest.raises(InputError, match="top_k=0"):
        SemsearchReader(top_k=0).run("How much?", documents)


def test_embedders_give_our_vectors_and_leave_the_given_documents_alone() -> None:
    from semsearch.encoding import get_encoder

    encoder = get_encoder(None)
    documents = [
        Document(id="1", content="Late fees are twenty cents a day."),
        Document(id="2", content="Ink is sold here."),
    ]
    before = [replace(each) for each in documents]
    embedded = SemsearchDocumentEmbedder().run(documents)["documents"]
    assert documents == before
    assert np.allclose([each.embedding for each in embedded], encoder.encode([each.content for each in documents]))
    vector = SemsearchTextEmbedder().run("fines")["embedding"]
    assert np.allclose(vector, encoder.encode(["fines"], kind="query")[0])
    store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
    store.write_documents(embedded)
    assert InMemoryEmbeddingRetriever(store, top_k=1).run(vector)["documents"][0].id == "1"


async def test_components_run_in_the_async_way_too(document_store: SemsearchDocumentStore) -> None:
    document_store.write_documents([Document(content="Late fees are twenty cents a day.")])
    retriever = SemsearchRetriever(document_store)
    found = await retriever.run_async("fees", top_k=1)
    assert found == retriever.run("fees", top_k=1)
    reader = SemsearchReader()
    answers = await reader.run_async("How much are late fees?", found["documents"])
    assert answers == reader.run("How much are late fees?", found["documents"])


def test_pipelines_are_saved_and_loaded(tmp_path: Path) -> None:
    store = SemsearchDocumentStore(tmp_path / "store")
    writing = Pipeline()
    writing.add_component("embedder", SemsearchDocumentEmbedder())
    writing.add_component("writer", DocumentWriter(store, DuplicatePolicy.OVERWRITE))
    writing.connect("embedder.documents", "writer.documents")
    asking = Pipeline()
    asking.add_component(
        "retriever",
        SemsearchRetriever(store, {"field": "meta.year", "operator": "==", "value": 2024}, 3, filter_policy="merge"),
    )
    asking.add_component("reader", SemsearchReader(top_k=2, threshold=0.1))
    asking.add_component("embedder", SemsearchTextEmbedder())
    asking.connect("retriever.documents", "reader.documents")
    saved = [each.dumps() for each in (writing, asking)]
    store.close()
    with pytest.raises(DeserializationError):
        Pipeline.loads(saved[0])
    writing, asking = (Pipeline.loads(each, allowed_modules=ALLOWED) for each in saved)
    assert [writing.dumps(), asking.dumps()] == saved
    documents = [Document(content="Late fees are twenty cents a day.", meta={"year": year}) for year in (2023, 2024)]
    assert writing.run({"embedder": {"documents": documents}})["writer"]["documents_written"] == 2
    question = "How much are late fees?"
    result = asking.run(
        {"retriever": {"query": question}, "reader": {"query": question}, "embedder": {"text": question}}
    )
    assert {each.document.meta["year"] for each in result["reader"]["answers"] if each.data} == {2024}


def test_only_our_store_is_searched() -> None:
    with pytest.raises(InputError, match="SemsearchDocumentStore"):
        SemsearchRetriever(InMemoryDocumentStore())
    with pytest.raises(ValueError, match="Unknown FilterPolicy"):
        SemsearchRetriever(SemsearchDocumentStore("unused"), filter_policy="join")

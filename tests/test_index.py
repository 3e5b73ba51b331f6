"""The index: what goes in comes out, exactly, through every way of changing and opening it."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from toy import WordEncoder

import semsearch
from semsearch.errors import (
    ClosedIndexError,
    CorruptIndexError,
    EncoderError,
    IndexFormatError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    InputError,
    ModelError,
    ReadOnlyIndexError,
)
from semsearch.locking import writer_lock

FEES = ("fees", "Late fees are twenty cents a day. Lost books cost thirty dollars.")
HOURS = ("hours", "The library opens at nine and closes at eight.")
ROOMS = ("rooms", "Meeting rooms can be booked two weeks ahead.")


def opened(path: Path, **options: Any) -> semsearch.Index:
    return semsearch.Index(path, encoder=WordEncoder(), **options)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[semsearch.Index]:
    with opened(tmp_path / "index") as index:
        index.add([FEES, HOURS, ROOMS])
        yield index


def found(index: semsearch.Index, query: str, **options: Any) -> list[str]:
    return [hit.passage.document_id for hit in index.search(query, **options)]


def answers(index: semsearch.Index) -> list[list[tuple[str, str, float, dict[str, tuple[int, float]]]]]:
    """Everything a search says, without passage ids: two indexes with the same content must agree."""
    queries = ["late fees", "opens at nine", "rooms booked", "cost of a lost book"]
    return [
        [(hit.passage.document_id, hit.passage.text, round(hit.score, 6), dict(hit.sources)) for hit in hits]
        for mode in ("lexical", "dense", "hybrid")
        for hits in semsearch.Retriever(index, mode=mode).search(queries, k=5)
    ]


# -- what goes in ------------------------------------------------------------------------------------------------------


def test_add_counts_documents(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        report = index.add([FEES, HOURS])
        assert (report.added, report.updated, report.unchanged) == (2, 0, 0)
        report = index.add([FEES, ("hours", "Closed on Sundays."), ROOMS])
        assert (report.added, report.updated, report.unchanged) == (1, 1, 1)
        assert [document.id for document in index.documents()] == ["fees", "hours", "rooms"]
        assert index.get("hours") == semsearch.Document("hours", "Closed on Sundays.")
        assert index.get("nothing") is None
        assert found(index, "nine", mode="lexical") == []
        assert found(index, "sundays", mode="lexical") == ["hours"]


def test_every_kind_of_item(tmp_path: Path) -> None:
    document = semsearch.Document(
        "d", "Text of d.", "Title", "somewhere", {"year": 2020, "tags": ["x"], "deep": {"a": None}}
    )
    with opened(tmp_path / "index") as index:
        assert (
            index.add(
                iter([document, {"id": "m", "text": "Text of m.", "metadata": {"year": 2021}}, ("p", "Text of p.")])
            ).added
            == 3
        )
        assert index.add("Only a string.").added == 1
        assert index.add("Only a string.").unchanged == 1
        assert index.add({"id": "m", "text": "Text of m.", "metadata": {"year": 2022}}).updated == 1
        assert index.get("d") == document
        assert index.get("m") == semsearch.Document("m", "Text of m.", metadata={"year": 2022})
        assert len(index) == 4


def test_same_id_twice_in_one_call_keeps_the_last(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        report = index.add([("a", "first text"), ("a", "second text")])
        assert (report.added, report.updated) == (1, 1)
        assert found(index, "first", mode="lexical") == []
        assert found(index, "second", mode="lexical") == ["a"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (5, "Cannot add 5"),
        ({"id": "a"}, "lacks 'text'"),
        ({"id": "a", "text": "b", "year": 3}, "'year', which is not known"),
        (("a", None), "text of an item is a string, not None"),
        ((7, "text"), "id of an item is a string, not 7"),
        (("", "text"), "empty id"),
        ({"id": "a", "text": "b", "metadata": {"x": {1, 2}}}, "cannot be stored as JSON"),
        ({"id": "a", "text": "b", "metadata": {"x": math.nan}}, "cannot be stored as JSON"),
        (semsearch.Document("a", "b", metadata=[1]), "is a mapping"),  # type: ignore[arg-type]
    ],
)
def test_items_that_cannot_be_used(tmp_path: Path, item: Any, message: str) -> None:
    with opened(tmp_path / "index") as index:
        index.add([FEES])
        with pytest.raises(InputError, match=message):
            index.add([item])
        assert [document.id for document in index.documents()] == ["fees"]
        assert index.check().ok


class NarrowEncoder(WordEncoder):
    """Takes a few words besides two special tokens."""

    def __init__(self, max_tokens: int) -> None:
        super().__init__()
        self.max_tokens = max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [2 + len(text.split()) for text in texts]


def test_a_title_that_leaves_no_room_for_text_is_cut(tmp_path: Path) -> None:
    """Twelve words and two special tokens are more than 8. Half of a passage is 4: two words beside these."""
    document = semsearch.Document("a", "one two three four five six seven eight", "aa bb cc dd ee ff gg hh ii jj kk ll")
    with semsearch.Index(tmp_path / "index", encoder=NarrowEncoder(8)) as index:
        report = index.add([("b", "before"), document, ("c", "behind")])
        assert (report.added, report.notes) == (3, (("a", "the title was cut to 'aa bb': it left no room for text"),))
        assert index.get("a") == dataclasses.replace(document, title="aa bb")
        hits = semsearch.Retriever(index, mode="lexical").search("three aa")
        assert sorted(hit.passage.text for hit in hits) == ["five six seven eight", "one two three four"]
        assert all(document.text[hit.passage.start : hit.passage.end] == hit.passage.text for hit in hits)
        assert index.check().ok
        assert index.add([document]).unchanged == 1
        whole = dataclasses.replace(document, title="aa bb cc dd ee")  # one token is left: as it is
        assert index.add([whole]).notes == ()
        assert index.get("a") == whole


def test_a_document_without_room_is_named(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=NarrowEncoder(2)) as index:
        with pytest.raises(InputError, match="The document 'a' cannot be cut into passages: max_tokens=2 leaves no ro"):
            index.add([{"id": "a", "text": "some words", "title": "A title"}])
        assert len(index) == 0


def test_an_empty_document_is_accepted(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        assert index.add([("empty", ""), ("blank", " \n\t ")]).added == 2
        assert len(index) == 0
        assert index.get("blank") == semsearch.Document("blank", " \n\t ")
        assert list(index.search("anything")) == []


@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800 lone", "😀 emoji", "שלום עולם", "x\r\ny\r\n", "﻿bom", "e\u0301", "\x1b[31m"]
)
def test_any_string_comes_back(tmp_path: Path, text: str) -> None:
    """P14"""
    with opened(tmp_path / "index") as index:
        index.add([semsearch.Document(f"id {text}", f"{text} word", text, text, {text: text})])
    with opened(tmp_path / "index") as index:
        (document,) = index.documents()
        assert document == semsearch.Document(f"id {text}", f"{text} word", text, text, {text: text})
        (hit,) = index.search("word", where={text: text})
        assert document.text[hit.passage.start : hit.passage.end] == hit.passage.text
        assert index.check().ok


def test_ten_megabytes_in_one_document(tmp_path: Path) -> None:
    text = "".join(f"Sentence number {number} is about w{number}. " for number in range(260_000))
    assert len(text) > 10_000_000

    class Constant(WordEncoder):
        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
            return np.tile(np.eye(1, self.dimension, dtype=np.float32), (len(texts), 1))

    with semsearch.Index(tmp_path / "index", encoder=Constant()) as index:
        assert index.add([("big", text)]).added == 1
        (hit, *_) = index.search("w259999", mode="lexical")
        assert "w259999" in hit.passage.text
        assert text[hit.passage.start : hit.passage.end] == hit.passage.text


def test_only_new_text_is_embedded(tmp_path: Path) -> None:
    encoder = WordEncoder()
    with semsearch.Index(tmp_path / "index", encoder=encoder) as index:
        index.add([FEES, HOURS])
        index.add([("copy", FEES[1]), ("hours", HOURS[1]), ("new", "Something new.")])
        assert sorted(encoder.encoded) == sorted([FEES[1], HOURS[1], "Something new."])
        assert sorted(found(index, "late fees", mode="lexical")) == [
            "copy",
            "fees",
        ]  # the encoding is shared, not the record
        index.remove("fees")
        assert found(index, "late fees", mode="lexical") == ["copy"]
        index.remove("copy")
    with sqlite3.connect(tmp_path / "index" / "index.db") as database:
        assert database.execute("SELECT count(*) FROM vectors").fetchone() == (2,)
    database.close()


def test_passages_carry_metadata_and_headings(tmp_path: Path) -> None:
    text = (
        "# Fees\n\nLate fees are twenty cents.\n\n## Lost books\n\nThey cost thirty dollars each, whatever they are.\n"
    )
    with opened(tmp_path / "index") as index:
        index.add([semsearch.Document("fees.md", text, metadata={"suffix": ".md", "year": 2020})])
        hit = index.search("thirty dollars", k=1)[0]
        assert hit.passage.metadata["year"] == 2020
        assert "Fees" in hit.passage.metadata["heading"]


# -- searching ---------------------------------------------------------------------------------------------------------


def test_scores_by_hand(index: semsearch.Index) -> None:
    """Dense: the cosine of word counts. Lexical: Lucene's BM25. Hybrid with rrf: reciprocal ranks, 1 / (60 + rank)."""
    hit = index.search("late fees", k=1, mode="dense")[0]
    assert hit.score == pytest.approx(2 / math.sqrt(2) / math.sqrt(12), abs=1e-6)  # 12 different words in the passage
    assert hit.sources == {"dense": (1, hit.score)}

    hybrid = semsearch.Retriever(index, fusion=semsearch.fusion.rrf).search("late fees", k=3)
    assert hybrid[0].passage.document_id == "fees"
    assert hybrid[0].score == pytest.approx(1 / 61 + 1 / 61)
    assert set(hybrid[0].sources) == {"dense", "lexical"}
    assert [hit.rank for hit in hybrid] == [1, 2, 3]
    assert hybrid[1].score == pytest.approx(1 / 62)


def test_lexical_returns_only_passages_that_match(index: semsearch.Index) -> None:
    assert found(index, "meeting rooms", mode="lexical") == ["rooms"]
    assert found(index, "zebra", mode="lexical") == []


def test_a_sequence_gives_the_same_as_one_by_one(index: semsearch.Index) -> None:
    queries = ["late fees", "opens at nine", "late fees"]
    for mode in ("hybrid", "dense", "lexical"):
        retriever = semsearch.Retriever(index, mode=mode)
        assert retriever.search(queries) == [retriever.search(query) for query in queries]
    assert retriever.search([]) == []


def test_filters_apply_before_the_best_are_chosen(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        noise = [
            semsearch.Document(f"n{number}", "late fees " * 3, metadata={"kind": "noise"}) for number in range(300)
        ]
        wanted = [
            semsearch.Document(f"w{number}", f"late payment {number}", metadata={"kind": "wanted"})
            for number in range(5)
        ]
        index.add([*noise, *wanted])
        for mode in ("hybrid", "dense", "lexical"):
            ids = found(index, "late fees", k=5, where={"kind": "wanted"}, mode=mode)
            assert sorted(ids) == ["w0", "w1", "w2", "w3", "w4"], mode


def test_k_beyond_the_passages(index: semsearch.Index) -> None:
    assert sorted(found(index, "late fees", k=1000, mode="dense")) == ["fees", "hours", "rooms"]


@pytest.mark.parametrize("query", ["", "   ", "\n"])
def test_an_empty_question_raises(index: semsearch.Index, query: str) -> None:
    with pytest.raises(InputError, match="is empty"):
        index.search(query)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_k_that_cannot_be_used(index: semsearch.Index, k: Any) -> None:
    with pytest.raises(InputError, match="k="):
        index.search("late", k=k)


def test_other_bad_arguments(index: semsearch.Index, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mode='fuzzy' is not known"):
        index.search("late", mode="fuzzy")
    with pytest.raises(InputError, match="A query is a string, not 5"):
        index.search([5])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"\$near"):
        index.search("late", where={"a": {"$near": 1}})
    for options, message in [
        ({"lexical": "tfidf"}, "tfidf"),
        ({"recall": 2.0}, "recall"),
        ({"storage": "float8"}, "float8"),
        ({"analyzer": "klingon"}, "klingon"),
    ]:
        with pytest.raises(InputError, match=message):
            semsearch.Index(tmp_path / "other", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no engine for other://"):
        semsearch.Index("other://localhost:19530/handbook")
    with pytest.raises(InputError, match="neither the path of a folder nor"):
        semsearch.Index(Path("milvus://localhost:19530/handbook"))
    with pytest.raises(InputError, match="path of a folder"):
        semsearch.Index("")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        semsearch.Index(tmp_path / "file")


def test_the_bm25_variant_is_a_matter_of_each_opening(tmp_path: Path) -> None:
    """Scores of rank-bm25 on the same tokens, from a cache that was written under another variant."""
    import rank_bm25

    bodies = {**dict([FEES, HOURS, ROOMS]), "more": "Fees for rooms, and fees for late hours.", "none": "Nothing here."}
    with opened(tmp_path / "index") as index:
        index.add(list(bodies.items()))
        tokens = {id: index.analyzer(text) for id, text in bodies.items()}
        query = index.analyzer.query("late fees rooms")
    references = {
        "okapi": rank_bm25.BM25Okapi,
        "l": rank_bm25.BM25L,
        "plus": rank_bm25.BM25Plus,
        "rank_bm25": rank_bm25.BM25Okapi,
    }
    for variant, reference in references.items():
        scores = dict(zip(bodies, reference(list(tokens.values()), k1=1.5, b=0.75).get_scores(query), strict=True))
        with opened(tmp_path / "index", lexical=variant) as index:
            hits = index.search("late fees rooms", mode="lexical")
            assert {hit.passage.document_id for hit in hits} == {"fees", "rooms", "more"}
            for hit in hits:
                assert hit.score == pytest.approx(scores[hit.passage.document_id], abs=1e-4), variant


def test_a_fusion_of_ones_own(index: semsearch.Index) -> None:
    def lexical_first(rankings: Any, *, k: int) -> list[tuple[int, float]]:
        return [*rankings["lexical"], *(each for each in rankings["dense"] if each not in rankings["lexical"])][:k]

    hits = semsearch.Retriever(index, fusion=lexical_first).search("booked rooms", k=1)
    assert [(hit.passage.document_id, hit.score) for hit in hits] == [("rooms", hits[0].sources["lexical"][1])]
    with pytest.raises(InputError, match="none of the rankings"):
        semsearch.Retriever(index, fusion=lambda rankings, *, k: [(999, 1.0)]).search("late")


@pytest.mark.parametrize(
    ("fusion", "message"),
    [
        (lambda rankings, *, k: None, "<lambda> at .*> returned None, not pairs"),
        (lambda rankings, *, k: [id for id, _ in rankings["dense"]], r"returned \[\d, \d, \d\], not pairs"),
        (lambda rankings, *, k: [(str(id), score) for id, score in rankings["dense"]], "not pairs"),
        (lambda rankings, *, k: rankings["dense"] * 2, "returned a passage more than once"),
        (lambda rankings, *, k: [(id, math.nan) for id, _ in rankings["dense"]], "the score nan for passage"),
    ],
)
def test_a_fusion_that_returns_no_ranking(index: semsearch.Index, fusion: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        semsearch.Retriever(index, fusion=fusion).search("late")


def test_a_fusion_may_use_the_index(index: semsearch.Index) -> None:
    def only_short(rankings: Any, *, k: int) -> list[tuple[int, float]]:
        with index.snapshot() as snapshot:
            passages = snapshot.passages([id for id, _ in rankings["dense"]])
        return [each for each in rankings["dense"] if len(index.get(passages[each[0]].document_id).text) < 50]  # type: ignore[union-attr]

    hits = semsearch.Retriever(index, fusion=only_short).search("late fees")
    assert sorted(hit.passage.document_id for hit in hits) == ["hours", "rooms"]


def test_a_reranker_has_the_last_word(index: semsearch.Index) -> None:
    retriever = semsearch.Retriever(index, reranker=lambda query, passages: [len(each.text) for each in passages])
    hits = retriever.search("late fees", k=2)
    assert [hit.passage.document_id for hit in hits] == ["fees", "hours"]
    assert hits[0].score == len(FEES[1])
    assert hits[1].sources["rerank"] == (2, float(len(HOURS[1])))
    with pytest.raises(InputError, match="1 scores for 3 passages"):
        semsearch.Retriever(index, reranker=lambda query, passages: [1.0]).search("late fees")
    lazy = semsearch.Retriever(index, reranker=lambda query, passages: (len(each.text) for each in passages))
    assert lazy.search("late fees", k=2) == hits


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "<lambda> at .*> gave None, not a number for each passage"),
        (["high"] * 3, r"gave \['high', 'high', 'high'\], not a number"),
        ([1.0, math.nan, 0.5], r"not finite: \[1.0, nan, 0.5\]"),
    ],
)
def test_a_reranker_that_gives_no_scores(index: semsearch.Index, scores: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        semsearch.Retriever(index, reranker=lambda query, passages: scores).search("late fees")


def test_a_hit_explains_itself(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index") as index:
        index.add([FEES, HOURS, ROOMS])
        hit = index.search("late fees", k=1)[0]
        why = hit.why()
        assert sum(why.terms.values()) == pytest.approx(hit.sources["lexical"][1])
        best = max(why.tokens, key=lambda token: token[3])
        assert best[0] == "fees"
        assert all(hit.passage.text[start:end] == token for token, start, end, _ in why.tokens)
    with pytest.raises(InputError, match="not made by a search"):
        semsearch.Hit(hit.passage, 1.0, 1).why()


def test_a_hit_can_be_copied_and_pickled(index: semsearch.Index) -> None:
    hits = index.search("late fees")
    answer = semsearch.Answer("twenty", 0.9, hits[0], 14, 20, (semsearch.Answer("cents", 0.1, hits[1]),))
    copied, again = copy.deepcopy((hits, answer))
    assert (copied, again) == (hits, answer)
    assert copied[0].why() == again.hit.why() == hits[0].why()
    assert dataclasses.asdict(answer)["hit"]["passage"]["text"] == FEES[1]
    for _ in range(2):
        hits, answer = pickle.loads(pickle.dumps((hits, answer)))  # noqa: S301
        assert copied == hits
        assert again == answer
        for hit in (hits[0], answer.hit):
            with pytest.raises(InputError, match=r"was pickled, so its index is not at hand\. Search again"):
                hit.why()


# -- opening -----------------------------------------------------------------------------------------------------------


def test_reopening_gives_the_same_with_and_without_cache(tmp_path: Path) -> None:
    """P2: the cache may be deleted at any time."""
    path = tmp_path / "index"
    with opened(path) as index:
        index.add([FEES, HOURS, ROOMS])
        before = answers(index)
    assert (path / "cache" / "CURRENT.json").exists()
    with opened(path, read_only=True) as index:
        assert answers(index) == before
    for file in (path / "cache").iterdir():
        file.unlink()
    with opened(path, read_only=True) as index:
        assert answers(index) == before
        assert list((path / "cache").iterdir()) == []  # a reader writes nothing


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap"])
def test_damaged_cache_files_are_never_believed(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """P2: whichever file it is, the answers stay right."""
    path = tmp_path / "index"
    with opened(path) as index:
        index.add([FEES, HOURS, ROOMS])
        before = answers(index)
    with opened(tmp_path / "other") as other:
        other.add([("x", "other words"), ("y", "more other words"), ("z", "late hours")])
    files = sorted((path / "cache").iterdir())
    assert len(files) >= 5
    for file in files:
        good = file.read_bytes()
        bad = bytearray(good)
        if damage == "flip":
            bad[len(bad) // 2] ^= 16
        other_file = tmp_path / "other" / "cache" / file.name
        file.write_bytes(
            {"flip": bytes(bad), "truncate": good[: len(good) // 2], "empty": b"", "swap": other_file.read_bytes()}[
                damage
            ]
        )
        with opened(path) as index:
            assert answers(index) == before, file.name
            report = index.check()
            assert report.ok == (file.read_bytes() == good), file.name
            assert index.check(repair=True).ok
            assert answers(index) == before
        file.write_bytes(good)


def test_the_cache_of_another_state_is_not_believed(tmp_path: Path) -> None:
    """A database restored from a backup, then changed: same generation, another history."""
    path = tmp_path / "index"
    with opened(path) as index:
        index.add([FEES])
    backup = (path / "index.db").read_bytes()
    with opened(path) as index:
        index.add([HOURS])
        index.optimize()
    (path / "index.db").write_bytes(backup)
    with opened(path) as index:
        index.add([ROOMS])
        assert sorted(found(index, "late fees", mode="dense")) == ["fees", "rooms"]
        assert index.check().ok


def test_a_stale_cache_is_completed(tmp_path: Path) -> None:
    """P3: after many changes that are not in the cache, nothing that went is found and all that came is."""
    path = tmp_path / "index"
    with opened(path) as index:
        index.add([(f"d{number}", f"text {number}") for number in range(50)])
        stamp = (path / "cache" / "CURRENT.json").read_bytes()
        index.remove([f"d{number}" for number in range(0, 50, 2)])
        index.add([("d1", "replaced text"), ("new", "text 51")])
        expected = answers(index)
    assert (path / "cache" / "CURRENT.json").read_bytes() == stamp
    with opened(path) as index:
        assert answers(index) == expected
        assert found(index, "2", mode="lexical") == []
        assert found(index, "1", mode="lexical") == []
        assert found(index, "51", mode="lexical") == ["new"]
        assert len(found(index, "text", k=100, mode="dense")) == 26
        index.optimize()
        assert answers(index) == expected
    assert (path / "cache" / "CURRENT.json").read_bytes() != stamp


def test_a_reader_sees_what_another_process_committed(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with opened(path) as writer, opened(path, read_only=True) as reader:
        assert list(reader.search("late fees")) == []
        writer.add([FEES, HOURS])
        assert found(reader, "late fees", mode="lexical") == ["fees"]
        writer.remove("fees")
        writer.add([ROOMS])
        assert found(reader, "late fees", mode="lexical") == []
        writer.optimize()
        assert sorted(found(reader, "rooms", mode="dense")) == ["hours", "rooms"]


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="There is no index at"):
        opened(tmp_path / "none", create=False)
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()


def test_closed_index(index: semsearch.Index) -> None:
    index.close()
    index.close()
    with pytest.raises(ClosedIndexError, match="was closed"):
        index.search("late")
    with pytest.raises(ClosedIndexError):
        index.add([FEES])
    assert "closed" in repr(index)


def test_read_only(tmp_path: Path) -> None:
    opened(tmp_path / "index").close()
    with opened(tmp_path / "index", read_only=True) as index, pytest.raises(ReadOnlyIndexError, match="read_only=True"):
        index.add([FEES])


def test_another_encoder_or_analyzer_is_refused(tmp_path: Path) -> None:
    """P9: both are named, and the way out."""
    with opened(tmp_path / "index") as index:
        index.add([FEES])
    with pytest.raises(IndexMismatchError, match=r"toy-words \(1024 dimensions\).*all-MiniLM-L6-v2 \(384 dimensions\)"):
        semsearch.Index(tmp_path / "index", encoder="all-MiniLM-L6-v2")
    with pytest.raises(IndexMismatchError, match=r"'english'.*'german'"):
        opened(tmp_path / "index", analyzer="german")
    with semsearch.Index(tmp_path / "index") as index:  # keyword search needs no encoder
        assert found(index, "late fees", mode="lexical") == ["fees"]
        with pytest.raises(IndexMismatchError, match="'toy-words', an encoder object of the user's own"):
            index.search("late fees")


def test_an_unknown_model_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no/such-model"):
        semsearch.Index(tmp_path / "index", encoder="no/such-model").add([FEES])


def test_an_index_goes_on_with_another_object_of_the_same_encoder(tmp_path: Path) -> None:
    first, second, other = WordEncoder(), WordEncoder(), WordEncoder()
    other.name = "another"
    with semsearch.Index(tmp_path / "index", encoder=first) as index:
        index.add(["one"])
        index.encoder = second
        index.add(["two"])
        with pytest.raises(IndexMismatchError, match="another"):
            index.encoder = other
        assert index.encoder is second
    assert (first.encoded, second.encoded, other.encoded) == (["one"], ["two"], [])


def test_an_encoder_that_breaks_its_promise(tmp_path: Path) -> None:
    class Wide(WordEncoder):
        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
            return np.ones((len(texts), 1025), np.float32)

    with semsearch.Index(tmp_path / "index", encoder=Wide()) as index:
        with pytest.raises(EncoderError, match=r"\(1, 1025\) for 1 texts"):
            index.add([FEES])
        assert len(index) == 0


def test_vectors_that_are_zero_or_not_finite_stay_out(tmp_path: Path) -> None:
    """P11: such a passage is found by keyword and reported; such a query raises."""

    class Broken(WordEncoder):
        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
            rows = super().encode(texts, kind=kind)
            for row, text in zip(rows, texts, strict=True):
                if "nan" in text:
                    row[:] = np.nan
                if "zero" in text:
                    row[:] = 0
            return rows

    with semsearch.Index(tmp_path / "index", encoder=Broken()) as index:
        report = index.add([("a", "a nan passage"), ("b", "a zero passage"), ("c", "a good passage")])
        assert report.added == 3
        assert [id for id, _ in report.notes] == ["a", "b"]
        assert "keyword" in report.notes[0][1]
        assert found(index, "passage", mode="dense") == ["c"]
        assert sorted(found(index, "passage", mode="lexical")) == ["a", "b", "c"]
        with pytest.raises(ModelError, match="no usable vector"):
            index.search("nan", mode="dense")
        assert index.check().ok


def test_vectors_of_another_length_are_scaled(tmp_path: Path) -> None:
    class Long(WordEncoder):
        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
            return 5 * super().encode(texts, kind=kind)

    with semsearch.Index(tmp_path / "index", encoder=Long()) as index:
        index.add([FEES])
        assert index.search(FEES[1], mode="dense")[0].score == pytest.approx(1.0, abs=1e-6)


def test_not_our_database(tmp_path: Path) -> None:
    """P10: refused before a byte is changed."""
    (tmp_path / "index").mkdir()
    database = sqlite3.connect(tmp_path / "index" / "index.db")
    database.execute("CREATE TABLE t (a)")
    database.commit()
    database.close()
    before = (tmp_path / "index" / "index.db").read_bytes()
    with pytest.raises(IndexFormatError, match="not one of semsearch"):
        opened(tmp_path / "index")
    assert (tmp_path / "index" / "index.db").read_bytes() == before


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add([FEES])
    database = sqlite3.connect(tmp_path / "index" / "index.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = (tmp_path / "index" / "index.db").read_bytes()
    with pytest.raises(IndexFormatError, match="format 99"):
        opened(tmp_path / "index")
    assert (tmp_path / "index" / "index.db").read_bytes() == before


def test_a_damaged_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add([FEES])
    (tmp_path / "index" / "index.db").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(CorruptIndexError, match="damaged"):
        opened(tmp_path / "index")


def test_an_index_whose_creation_was_killed_is_created_again(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "index.db").touch()
    with opened(tmp_path / "index") as index:
        index.add([FEES])
        assert found(index, "late", mode="lexical") == ["fees"]


def test_many_processes_create_the_same_index(tmp_path: Path) -> None:
    code = f"import semsearch; semsearch.Index({str(tmp_path / 'index')!r}).close()"
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(6)]
    assert [child.communicate()[1] for child in children] == [b""] * 6
    assert [child.returncode for child in children] == [0] * 6


def test_a_creation_that_was_killed_half_way_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "index.db.new").write_bytes(b"half a database")
    with opened(tmp_path / "index") as index:
        index.add([FEES])
        assert found(index, "late", mode="lexical") == ["fees"]
    assert not (tmp_path / "index" / "index.db.new").exists()


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_an_interrupted_first_search_leaves_no_half_leg(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import semsearch.legs as legs

    with opened(tmp_path / "index") as index:
        index.add([(f"d{number}", f"word{number} text") for number in range(20)])
    for file in (tmp_path / "index" / "cache").iterdir():
        file.unlink()
    monkeypatch.setattr(legs, "BLOCK", 8)
    name = {"dense": "_add_vectors", "lexical": "_add_tokens"}[mode]
    original, calls = getattr(legs, name), []

    def interrupting(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(legs, name, interrupting)
    with opened(tmp_path / "index", read_only=True) as index:
        with pytest.raises(KeyboardInterrupt):
            index.search("text", mode=mode)
        assert len(index.search("text", k=50, mode=mode)) == 20


def test_an_index_opened_while_it_was_new_learns_its_models(tmp_path: Path) -> None:
    class Other(WordEncoder):
        name = "toy-other"

    with opened(tmp_path / "index") as early, semsearch.Index(tmp_path / "index", encoder=Other()) as index:
        index.add([FEES])
        with pytest.raises(IndexMismatchError, match="meanwhile bound to toy-other"):
            early.search("late fees")


def test_arguments_of_the_wrong_kind(index: semsearch.Index, tmp_path: Path) -> None:
    calls: list[Any] = [
        lambda: index.search(None),  # type: ignore[call-overload]
        lambda: index.add(None),  # type: ignore[arg-type]
        lambda: index.add(("id1", "some text")),
        lambda: index.remove(None),  # type: ignore[arg-type]
        lambda: index.get(5),  # type: ignore[arg-type]
        lambda: index.sync(None),  # type: ignore[arg-type]
        lambda: index.sync("a\0b"),
        lambda: index.sync("~no-such-user/x"),
        lambda: semsearch.Index("~no-such-user/x"),
        lambda: semsearch.Index(tmp_path / "i", timeout=None),  # type: ignore[arg-type]
        lambda: semsearch.Index(tmp_path / "i", recall="x"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()
    for place in ("/dev/null/x", f"{tmp_path}/{'x' * 300}"):
        with pytest.raises(semsearch.SemsearchError):
            semsearch.Index(place)


def test_damaged_metadata_is_said_to_be_damaged(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add([FEES])
    database = sqlite3.connect(tmp_path / "index" / "index.db")
    database.execute("UPDATE documents SET metadata = '{'")
    database.commit()
    database.close()
    with opened(tmp_path / "index") as index:
        assert index.check().problems == ("the metadata of document 'fees' is not JSON",)
        with pytest.raises(CorruptIndexError, match="damaged"):
            index.get("fees")


# -- several at once ---------------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    """P4"""
    with opened(tmp_path / "index", timeout=0.1) as index, writer_lock(tmp_path / "index" / "lock", 1.0):
        with pytest.raises(IndexLockedError, match=f"process {os.getpid()} on ") as raised:
            index.add([FEES])
        assert raised.value.pid == os.getpid()
        assert list(index.search("late")) == []  # reading needs no lock
    with opened(tmp_path / "index") as index:
        assert index.add([FEES]).added == 1


def test_opening_and_reading_outlast_the_moments_that_sqlite_locks(tmp_path: Path) -> None:
    """P4: SQLite locks everybody out while a closing writer tidies up; a time-out of 0 is no reason to fail."""
    with opened(tmp_path / "index") as index:
        index.add([FEES])
    database = sqlite3.connect(tmp_path / "index" / "index.db", check_same_thread=False)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("UPDATE meta SET value = value WHERE name = 'uuid'")
    database.commit()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(tmp_path / "index" / "index.db", timeout=0).execute("SELECT * FROM meta")
    release = threading.Timer(0.2, database.close)
    release.start()
    with opened(tmp_path / "index", timeout=0.0) as index:
        assert found(index, "late fees") == ["fees"]
    release.join()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from semsearch.locking import writer_lock\n"
        f"with writer_lock(Path({str(tmp_path / 'lock')!r}), 1.0): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(IndexLockedError, match=f"process {child.pid} on "), writer_lock(tmp_path / "lock", 0.05):
        pass
    child.kill()
    child.communicate()
    with writer_lock(tmp_path / "lock", 1.0):
        pass


def test_threads_read_while_one_writes(tmp_path: Path) -> None:
    """P4: every search sees whole batches: the two documents of a batch are both there or both not."""
    wrong: list[object] = []
    done = threading.Event()
    with opened(tmp_path / "index") as index:

        def read() -> None:
            while not done.is_set():
                for mode in ("lexical", "dense"):
                    ids = {id.rstrip("ab") for id in found(index, "pair", k=1000, mode=mode)}
                    both = found(index, "pair", k=1000, mode=mode)
                    if len(both) % 2 or len(ids) > len(both):
                        wrong.append(both)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(30):
            index.add([(f"{number}a", f"pair {number}"), (f"{number}b", f"pair {number} too")])
            if number % 3 == 2:
                index.remove([f"{number - 1}a", f"{number - 1}b"])
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(found(index, "pair", k=1000, mode="lexical")) == 40


def _search_in_child(index: semsearch.Index, results: Any) -> None:
    results.put(found(index, "late fees", mode="hybrid"))


def test_a_forked_child_searches(index: semsearch.Index) -> None:
    """P5"""
    context = multiprocessing.get_context("fork")
    expected = found(index, "late fees")
    results = context.Queue()
    child = context.Process(target=_search_in_child, args=(index, results))
    child.start()
    assert results.get(timeout=15) == expected
    child.join(15)
    assert child.exitcode == 0
    assert found(index, "late fees") == expected
    index.add([("more", "late again")])
    assert sorted(found(index, "late", mode="lexical")) == ["fees", "more"]


# -- the whole against a plain model -----------------------------------------------------------------------------------


words = st.lists(
    st.sampled_from(["late", "fees", "book", "room", "hour", "day", "cent", "card"]), min_size=0, max_size=6
)


class AgainstAPlainModel(RuleBasedStateMachine):
    """Any sequence of changes: the index holds what a dict holds, and ranks as an index built afresh."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.index = opened(Path(self.folder.name) / "index")
        self.model: dict[str, str] = {}

    @rule(number=st.integers(0, 8), text=words)
    def add(self, number: int, text: list[str]) -> None:
        report = self.index.add([(f"d{number}", " ".join(text))])
        old = self.model.get(f"d{number}")
        self.model[f"d{number}"] = " ".join(text)
        expected = (old is None, old not in (None, " ".join(text)))
        assert (report.added == 1, report.updated == 1) == expected

    @rule(number=st.integers(0, 8))
    def remove(self, number: int) -> None:
        assert self.index.remove(f"d{number}") == (self.model.pop(f"d{number}", None) is not None)

    @rule()
    def reopen(self) -> None:
        path = self.index.path
        self.index.close()
        self.index = opened(path)

    @rule()
    def optimize(self) -> None:
        self.index.optimize()

    @rule(query=words.filter(bool))
    def search(self, query: list[str]) -> None:
        text = " ".join(query)
        hits = self.index.search(text, k=20, mode="dense")
        encoder = WordEncoder()
        expected = {
            id: float((encoder.encode([body]) @ encoder.encode([text]).T)[0, 0])
            for id, body in self.model.items()
            if body
        }
        assert {hit.passage.document_id: pytest.approx(hit.score, abs=1e-5) for hit in hits} == expected
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if hasattr(self, "index"):
            assert {document.id: document.text for document in self.index.documents()} == self.model

    def teardown(self) -> None:
        if not hasattr(self, "index"):
            return
        with opened(Path(self.folder.name) / "fresh") as fresh:
            fresh.add(list(self.model.items()))
            for query in ("late fees", "book", "card desk hour"):
                mine = {
                    hit.passage.document_id: round(hit.score, 9)
                    for hit in self.index.search(query, k=20, mode="lexical")
                }
                assert mine == {
                    hit.passage.document_id: round(hit.score, 9) for hit in fresh.search(query, k=20, mode="lexical")
                }
        assert self.index.check().ok
        self.index.close()
        self.folder.cleanup()


TestAgainstAPlainModel = AgainstAPlainModel.TestCase
TestAgainstAPlainModel.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_finds_what_is_wrong_in_the_database(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add([FEES, HOURS])
        assert str(index.check()).startswith("ok: 2 documents")
    database = sqlite3.connect(tmp_path / "index" / "index.db")
    database.execute('UPDATE passages SET "end" = 100000 WHERE id = 1')
    database.execute("UPDATE vectors SET vector = zeroblob(4096) WHERE key = 2")
    database.commit()
    database.close()
    with opened(tmp_path / "index") as index:
        report = index.check(repair=True)
        assert not report.ok
        assert any("passage 1 has the offsets 0:100000" in each for each in report.problems)
        assert any("passage 2 is not of unit length" in each for each in report.problems)


def test_the_folder_is_as_documented(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add([FEES])
        names = sorted(path.name for path in (tmp_path / "index").iterdir() if not path.name.startswith("index.db-"))
        assert names == ["cache", "index.db", "lock"]
        current = json.loads((tmp_path / "index" / "cache" / "CURRENT.json").read_text())
        assert set(current["files"]) == {path.name for path in (tmp_path / "index" / "cache").iterdir()} - {
            "CURRENT.json"
        }
        stem = f"g{current['generation']:06d}"
        assert f"{stem}-dense.vectors.npy" in current["files"]
        legs = {name.split(".")[0] for name in current["files"]}
        assert legs == {f"{stem}-dense", f"{stem}-lexical", f"{stem}-columns"}


def test_a_manifest_that_lacks_a_name_is_built_again(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([("fees", "late fees are charged")])
        index.optimize()
    manifest = tmp_path / "index" / "cache" / "CURRENT.json"
    manifest.write_text(manifest.read_text().replace('"files"', '"filet"'))
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        assert index.search("late fees")[0].passage.document_id == "fees"
        assert "CURRENT.json is damaged" in index.check().cache[0]
        assert index.check(repair=True).ok


@pytest.mark.parametrize("column", ["page", "seal", "heading"])
def test_a_damaged_schema_is_a_damaged_database(tmp_path: Path, column: str) -> None:
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([("fees", "late fees are charged")])
    database = tmp_path / "index" / "index.db"
    schema, other = f"    {column} ".encode(), f"    {column[:-1]}_ ".encode()
    content = database.read_bytes()
    assert schema in content
    database.write_bytes(content.replace(schema, other))
    with pytest.raises(CorruptIndexError), semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.search("late fees")


def test_a_cache_from_before_the_language_was_told_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not replaced, as when the disk is full just then: the cache is outdated, and nothing is wrong."""
    german = "Die Bücher sind bis zum Ende der Woche in der Bibliothek abzugeben, und es ist nicht zu spät. " * 20
    with opened(tmp_path / "index") as index:
        index.add([("short", "w1 w2 w3")])
        assert index.info()["language"] == "english"
    with monkeypatch.context() as patch:
        patch.setattr(semsearch.legs.Legs, "publish", lambda self, view: -1)
        with opened(tmp_path / "index") as index:
            index.add([("long", german)])
            assert index.info()["language"] == "german"
    with opened(tmp_path / "index") as index:
        assert index.check().ok
        assert set(found(index, "Buch", mode="lexical")) == {"long"}  # Snowball: Bücher and Buch have the stem buch


GERMAN = [
    (f"d{number}", f"Die Bücher der Bibliothek {number} sind für alle, und es ist nicht zu spät, sie zu lesen. " * 3)
    for number in range(30)
]


def test_who_is_open_follows_the_language_that_another_process_tells(tmp_path: Path) -> None:
    """P3, P9: whether he searched before or not, and whatever he does first."""
    path, german = tmp_path / "index", {id for id, _ in GERMAN}

    def books(index: semsearch.Index) -> set[str]:
        return set(found(index, "Buch", k=50, mode="lexical"))  # Snowball: Bücher and Buch have the stem buch

    with opened(path) as writer:
        writer.add([("short", "apple"), ("other", "pear")])
        searched, removing, optimizing = (opened(path) for _ in range(3))
        given = opened(path, analyzer="english")
        assert books(searched) == books(given) == set()
        assert found(optimizing, "apple", mode="lexical") == ["short"]
        writer.add(GERMAN)
        assert (writer.info()["language"], searched.analyzer.language) == ("german", "english")
        assert books(searched) == german
        manifest = path / "cache" / "CURRENT.json"
        optimizing.optimize()
        written = json.loads(manifest.read_bytes())["identity"]
        writer.optimize()
        assert json.loads(manifest.read_bytes())["identity"] == written
        assert removing.remove("other") == 1
        for index in (removing, optimizing, writer):
            assert (index.analyzer.language, books(index)) == ("german", german)
            assert index.check().ok
        with pytest.raises(IndexMismatchError, match="'german'"):
            books(given)
        for index in (searched, removing, optimizing, given):
            index.close()


def test_a_search_while_the_language_is_told_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The legs that the batch fills are those of the index afterwards; they are not made twice."""
    made: list[str] = []
    legs_of = semsearch.index.legs_of

    class Asking(WordEncoder):
        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
            if kind == "passage":  # as another thread would
                assert found(index, "w1", mode="lexical") == ["short"]
            return super().encode(texts, kind=kind)

    with opened(tmp_path / "index") as first:
        first.add([("short", "w1 w2 w3")])

    def noted(*given: Any, **how: Any) -> semsearch.legs.Legs:
        made.append(given[2].language)
        return legs_of(*given, **how)

    monkeypatch.setattr(semsearch.index, "legs_of", noted)
    with semsearch.Index(tmp_path / "index", encoder=Asking()) as index:
        index.add(GERMAN)
        assert len(found(index, "Buch", k=50, mode="lexical")) == 30
        assert made == ["english", "german"]
        assert index.check().ok


def test_a_dense_leg_without_vectors_is_read_like_any_other(tmp_path: Path) -> None:
    class Zero(WordEncoder):
        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
            return super().encode(texts, kind=kind) * (kind == "query")

    with semsearch.Index(tmp_path / "index", encoder=Zero()) as index:
        index.add([FEES, HOURS])
        index.optimize()
    with semsearch.Index(tmp_path / "index", encoder=Zero()) as index:
        assert found(index, "late fees") == ["fees"]
        assert index._legs is not None
        assert index._legs._legs["dense"].origin > 0  # it was read, not built
        assert found(index, "late fees", mode="dense") == []


def test_the_beginning_of_an_id_is_found_whatever_its_bytes(tmp_path: Path) -> None:
    with opened(tmp_path / "index") as index:
        index.add(
            [("caf\udce9/x.txt", "one"), ("caf\udce9-2/\udce9", "two"), ("bücher/x", "three"), ("a\0b/c", "four")]
        )
        with index._store.reading() as view:
            for prefix in ("caf\udce9/", "caf\udce9-2/", "bücher/", "a\0b/", "c"):
                assert view.has_prefix(prefix)
            for prefix in ("caf\udce9-3/", "b/", "x", "a\0c", "bücher/x/"):
                assert not view.has_prefix(prefix)


def test_a_filter_of_the_greatest_depth_is_answered(tmp_path: Path) -> None:
    where: dict[str, object] = {"a": 1}
    for _ in range(37):  # fewer than the filters' own limit
        where = {"$not": where}
    where = {"a": {"$gt": 1, "$lt": 2}, "$and": [where, {"b": 2}], "$or": [{"$not": {}}, where]}
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([("fees", "late fees are charged")])
        assert index.search("late fees", where=where) == []


def test_documents_can_be_filtered_and_those_without_passages_count(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add({"id": str(n), "text": "" if n == 4 else f"text {n}", "metadata": {"n": n}} for n in range(150))
        assert [document.id for document in index.documents({"n": {"$gte": 3, "$lt": 6}})] == ["3", "4", "5"]
        others = [str(n) for n in range(150) if n != 7]
        assert [document.id for document in index.documents({"n": {"$ne": 7}})] == others
        assert len(list(index.documents())) == 150

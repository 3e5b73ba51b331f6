"""Reranking: scores worked out by hand, with small encoders and readers; the shipped models where they matter."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

from semsearch.encoding import get_encoder
from semsearch.errors import InputError, ModelError
from semsearch.extraction import OnnxReader, Span
from semsearch.records import Hit, Passage
from semsearch.reranking import (
    MMR,
    CrossEncoderReranker,
    MaxSimReranker,
    ReaderReranker,
    get_reranker,
    merge_neighbours,
)


def passages(*texts: str, **metadata: Any) -> list[Passage]:
    return [Passage(n, f"d{n}", text, 0, len(text), metadata=metadata) for n, text in enumerate(texts, 1)]


class Letters:
    """Token vectors: each letter is a token along an axis of its own; "a" and "b" share half of their direction."""

    name = "letters"
    dimension = 26

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        rows = np.stack([each.vectors.sum(axis=0) for each in self.token_vectors(texts)])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def token_vectors(self, texts: Sequence[str]) -> list[Any]:
        self.asked += texts
        rows = np.eye(26, dtype=np.float32)
        rows[1, :2] = (0.6, 0.8)
        return [SimpleNamespace(vectors=rows[[ord(c) - 97 for c in text if c.islower()]]) for text in texts]


class OneReader:
    """A reader that finds a span in some texts only."""

    name = "one"

    def __init__(self, found: dict[str, list[float]]) -> None:
        self.found = found

    def read(self, question: str, texts: Sequence[str]) -> list[Span]:
        return [Span(n, 0, 1, score) for n, text in enumerate(texts) for score in self.found.get(text, [])]


def test_max_sim_by_hand() -> None:
    reranker = MaxSimReranker(Letters())  # type: ignore[arg-type]
    # "a" finds itself (1) or "b" (0.6); "c" finds itself or nothing.
    assert reranker("ac", passages("ac", "bc", "b", "z")) == pytest.approx([1.0, 0.8, 0.3, 0.0])


def test_max_sim_mixes_stretched_scores() -> None:
    reranker = MaxSimReranker(Letters(), share=0.25)  # type: ignore[arg-type]
    # Own: 1, 0.5, 0 → 1, 0.5, 0. First: 10, 20, 30 → 0, 0.5, 1.
    found = reranker.with_scores("ac", passages("ac", "c", "z"), [10, 20, 30])
    assert found == pytest.approx([0.25, 0.5, 0.75])
    assert reranker.with_scores("ac", [], []) == []
    assert reranker.with_scores("ac", passages("c", "c"), [1, 1]) == [0.0, 0.0]


def test_title_and_heading_are_read_too() -> None:
    encoder = Letters()
    MaxSimReranker(encoder)("a", passages("b", title="t", heading="h"))  # type: ignore[arg-type]
    assert encoder.asked == ["a", "t\nh\nb"]


def test_a_query_without_tokens() -> None:
    assert MaxSimReranker(Letters())("??", passages("a", "b")) == [0.0, 0.0]  # type: ignore[arg-type]


def test_max_sim_needs_token_vectors() -> None:
    with pytest.raises(InputError, match=r"toy-words.*token_vectors"):
        MaxSimReranker(WordEncoder())


def test_reader_by_hand() -> None:
    reader = OneReader({"yes": [3.0, 7.0], "maybe": [-1.0]})
    reranker = ReaderReranker(reader, share=0.5)
    some = passages("nothing", "yes", "maybe")
    assert reranker("q", some) == [-1.0, 7.0, -1.0]  # without a span: as little as the worst
    assert reranker.with_scores("q", some, [2.0, 1.0, 1.5]) == pytest.approx([0.5, 0.5, 0.25])
    assert ReaderReranker(OneReader({}))("q", some) == [0.0, 0.0, 0.0]


def test_the_shipped_reader_prefers_the_passage_that_answers() -> None:
    texts = ["Fees are charged by the library.", "The library was built in 1854 by Anna Meyer."]
    scores = ReaderReranker(OnnxReader())("When was the library built?", passages(*texts))
    assert scores[1] > scores[0]


def test_the_shipped_encoder_prefers_the_passage_that_matches() -> None:
    texts = ["Bananas are yellow.", "A fee is due for late returns of books."]
    reranker = get_reranker("maxsim", get_encoder(None))
    scores = reranker("late fees", passages(*texts))
    assert scores[1] > scores[0]
    assert reranker("late fees", passages(texts[0])) == [scores[0]]  # not by what stands beside it


def test_mmr_by_hand() -> None:
    # Rows: two alike, one at a right angle. Relevance stretched: 1, 0.9, 0 → worth 0.5, 0.45, 0.
    rows = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    reranker = MMR(Letters(), relevance=0.5, vectors=lambda _: rows)  # type: ignore[arg-type]
    found = reranker.with_scores("q", passages("a", "b", "c"), [10.0, 9.0, 0.0])
    assert found == pytest.approx([0.5, -0.05, 0.0])  # the second repeats the first: 0.45 - 0.5
    assert np.argsort([-each for each in found]).tolist() == [0, 2, 1]


def test_mmr_is_by_relevance_alone_if_asked() -> None:
    found = MMR(Letters(), relevance=1)("ab", passages("c", "b", "a", "ab"))  # type: ignore[arg-type]
    assert np.argsort([-each for each in found]).tolist() == [3, 1, 2, 0] or found[3] == max(found)
    assert MMR(Letters()).with_scores("a", [], []) == []  # type: ignore[arg-type]
    assert MMR(Letters())("a", []) == []  # type: ignore[arg-type]


def test_mmr_scores_fall_in_the_order_in_which_passages_are_taken() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    reranker = MMR(Letters(), relevance=0.3, vectors=lambda _: rows)  # type: ignore[arg-type]
    found = reranker.with_scores("q", passages(*("x" * 30)), list(range(30)))
    assert len(set(found)) == 30
    taken = np.argsort([-each for each in found])
    assert taken[0] == 29  # the most relevant one comes first


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares(share: float) -> None:
    for make in (lambda: MaxSimReranker(Letters(), share=share), lambda: MMR(Letters(), relevance=share)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="no share"):
            make()


def test_by_name(tmp_path: Any) -> None:
    encoder: Any = Letters()
    assert isinstance(get_reranker("maxsim", encoder), MaxSimReranker)
    assert isinstance(get_reranker("mmr", encoder), MMR)
    assert isinstance(get_reranker("reader", encoder, lambda: OneReader({})), ReaderReranker)
    with pytest.raises(InputError, match="ReaderReranker"):
        get_reranker("reader", encoder)


def test_a_cross_encoder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="'/nowhere/model' cannot be loaded"):
        CrossEncoderReranker("/nowhere/model")


TEXT = "One two. Three four. Five six. Seven."


def hit(rank: int, start: int, end: int, document: str = "d") -> Hit:
    return Hit(Passage(rank, document, TEXT[start:end], start, end), 1 / rank, rank)


def test_neighbours_become_one_hit() -> None:
    hits = [hit(1, 9, 20), hit(2, 31, 37), hit(3, 0, 8), hit(4, 0, 8, "e"), hit(5, 21, 30)]
    merged = merge_neighbours(hits, {"d": TEXT, "e": TEXT}.__getitem__)
    assert [(each.rank, each.passage.document_id, each.passage.text) for each in merged] == [
        (1, "d", TEXT),
        (2, "e", "One two."),
    ]
    assert merged[0].score == 1.0
    assert merged[0].passage.id == 1


def test_what_is_apart_stays_apart() -> None:
    hits = [hit(1, 21, 30), hit(2, 0, 8), hit(3, 0, 5)]
    merged = merge_neighbours(hits, {"d": TEXT}.__getitem__)
    assert [each.passage.text for each in merged] == ["Five six.", "One two."]
    assert [each.rank for each in merged] == [1, 2]
    assert [each.passage.text for each in merge_neighbours(hits, {"d": TEXT}.__getitem__, gap=13)] == [TEXT[:30]]
    assert merge_neighbours([], {}.__getitem__) == []

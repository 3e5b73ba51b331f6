"""Reranking: scores worked out by hand, with small encoders and readers; the shipped models where they matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_bert import LENGTH, WORDS
from toy import WordEncoder

from semsearch import Index, Retriever
from semsearch.encoding import get_encoder
from semsearch.errors import InputError, ModelError
from semsearch.extraction import OnnxReader, Span
from semsearch.records import Hit, Passage
from semsearch.reranking import (
    MMR,
    CrossEncoderReranker,
    FeedbackReranker,
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


class Right:
    """Every query points to the right; words of another script are unknown."""

    name, dimension = "right", 2

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        assert kind == "query"
        return np.tile(np.array([1, 0], np.float32), (len(texts), 1))

    def unknown_share(self, text: str) -> float:
        return 0.0 if text.isascii() else 1.0


def surroundings(given: Sequence[Passage]) -> tuple[np.ndarray, np.ndarray]:
    own = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    around = np.array([[0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    return own[: len(given)], around[: len(given)]


def test_feedback_by_hand() -> None:
    reranker = FeedbackReranker(Right(), surroundings, share=0.5, feedback=0.5)
    # The query moves to (1, 0) + 0.5 · (1.4, 2.4) / 3 = (1.2333, 0.4), where the cosines are 1.2267, 1.06 and 0.4;
    # they were 1, 0.6 and 0. Half of the gains are added to 1, 0.5 and 0.
    found = reranker.with_scores("q", passages("a", "b", "c"), [3.0, 2.0, 1.0])
    assert found == pytest.approx([1.113333, 0.73, 0.2], abs=1e-6)
    assert reranker("q", passages("a", "b", "c")) == pytest.approx([1.113333, 0.83, 0.2], abs=1e-6)
    # Without feedback only the surroundings count: the first passage's are farther from the query than itself.
    alone = FeedbackReranker(Right(), surroundings, share=0.5, feedback=0)
    assert alone.with_scores("q", passages("a", "b", "c"), [3, 2, 1]) == pytest.approx([0.9, 0.5, 0.0])


def test_feedback_comes_from_the_best_three() -> None:
    own = np.array([[1, 0]] * 3 + [[0, 1]] * 2, np.float32)
    reranker = FeedbackReranker(Right(), lambda given: (own, own), share=1, feedback=1)
    assert reranker.with_scores("q", passages(*"abcde"), [5, 4, 3, 2, 1]) == pytest.approx([2, 1.75, 1.5, 0.25, 0])
    # Ranked the other way round, two of the best three point upwards: (1, 0) + (1/3, 2/3).
    found = reranker.with_scores("q", passages(*"abcde"), [1, 2, 3, 4, 5])
    assert found == pytest.approx([1 / 3, 0.25 + 1 / 3, 0.5 + 1 / 3, 0.75 + 2 / 3, 1 + 2 / 3])


def test_feedback_leaves_alone_what_it_cannot_judge() -> None:
    reranker = FeedbackReranker(Right(), surroundings)
    assert reranker("q", []) == reranker.with_scores("q", [], []) == []
    assert reranker.with_scores("図書館", passages("a", "b", "c"), [3, 2, 1]) == [1.0, 0.5, 0.0]
    nothing = FeedbackReranker(Right(), lambda given: (np.zeros((2, 2), np.float32),) * 2)
    assert nothing.with_scores("q", passages("a", "b"), [2, 1]) == [1.0, 0.0]
    with pytest.raises(InputError, match="stored vectors"):
        get_reranker("feedback", Right())


def test_feedback_takes_its_vectors_from_the_index(tmp_path: Path) -> None:
    story = "\n\n".join(f"{word} " * 200 for word in ("late", "fee", "book"))
    with Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([("short", "late fee"), ("long", story), ("other", "fee fee book")])
        hits = Retriever(index, reranker="feedback").search("late fee", k=100)
        first = Retriever(index).search("late fee", k=100)
        stored = {hit.passage.id: index.encoder.encode([hit.passage.text])[0] for hit in first}
        ids = sorted(stored)
        with index.snapshot() as snapshot:
            own, around = snapshot.surroundings([*ids, 999], WordEncoder.dimension)
        expected = FeedbackReranker(index.encoder, lambda _: index_order(first, ids, own, around))
        scores = expected.with_scores("late fee", [hit.passage for hit in first], [hit.score for hit in first])
    places = {hit.passage.id: hit.passage.document_id for hit in first}
    assert sum(document == "long" for document in places.values()) > 2
    for row, id in enumerate(ids):
        assert own[row] == pytest.approx(stored[id])
        mates = [stored[near] for near in (id - 1, id, id + 1) if places.get(near) == places[id]]
        assert around[row] == pytest.approx(np.sum(mates, axis=0) / np.linalg.norm(np.sum(mates, axis=0)), abs=1e-6)
    assert not own[-1].any()
    assert not around[-1].any()
    assert {hit.passage.id: hit.score for hit in hits} == pytest.approx(
        {hit.passage.id: score for hit, score in zip(first, scores, strict=True)}
    )
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def index_order(hits: Sequence[Hit], ids: list[int], *rows: np.ndarray) -> Any:
    """Rows in the order of hits."""
    return tuple(each[[ids.index(hit.passage.id) for hit in hits]] for each in rows)


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


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("models") / "one", 1))


def tiny_cross_encoder(folder: Path, labels: int) -> Path:
    """A cross-encoder with random weights, as sentence-transformers saves one."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=LENGTH, initializer_range=0.2, num_labels=labels, **shape
    )
    BertForSequenceClassification(config).save_pretrained(folder / "source")
    tokenizer = BertTokenizer(vocab={word: id for id, word in enumerate(WORDS)}, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder / "source")
    CrossEncoder(str(folder / "source"), device="cpu").save_pretrained(str(folder / "tiny"))
    return folder / "tiny"


ROWS = ["late fees are charged", "library", "a late fee", "when", "fees when late"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_cross_encoder_ranks_by_its_name_as_it_does_by_itself(tmp_path: Path, cross_encoder: str) -> None:
    from sentence_transformers import CrossEncoder

    with Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([(f"d{n}", text) for n, text in enumerate(ROWS)])
        hits = Retriever(index, reranker=cross_encoder).search("late fee", k=3)
        first = Retriever(index).search("late fee", k=100)
    pairs = [("late fee", hit.passage.text) for hit in first]
    expected = CrossEncoder(cross_encoder, device="cpu").predict(pairs, show_progress_bar=False)
    order = np.argsort(-expected, kind="stable")[:3]
    assert [hit.passage.id for hit in hits] == [first[int(place)].passage.id for place in order]
    assert [hit.score for hit in hits] == pytest.approx(expected[order].tolist(), abs=1e-6)
    assert [hit.sources["rerank"] for hit in hits] == [(hit.rank, hit.score) for hit in hits]
    assert len({hit.score for hit in hits}) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_cross_encoder_reads_title_and_heading_and_takes_no_passages(cross_encoder: str) -> None:
    reranker = CrossEncoderReranker(cross_encoder)
    assert reranker.name == cross_encoder
    assert reranker("late fee", []) == []
    with_title = reranker("late fee", passages("library", title="late", heading="fees"))
    assert with_title == pytest.approx(reranker("late fee", passages("late\nfees\nlibrary")))
    assert with_title != pytest.approx(reranker("late fee", passages("library")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_with_several_scores_for_a_pair_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gives 3 scores for a pair"):
        CrossEncoderReranker(str(tiny_cross_encoder(tmp_path, 3)))


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

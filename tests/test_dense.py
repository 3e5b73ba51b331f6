"""Exact vector search: equal to NumPy, whatever was added, removed, filtered, batched, saved or forked."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch import dense
from semsearch.dense import DenseIndex
from semsearch.errors import InputError, StorageError


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def expected(corpus: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    scores = {id: float(np.float32(query.astype(np.float64) @ v.astype(np.float64))) for id, v in corpus.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def check(index: DenseIndex, corpus: dict[int, np.ndarray], queries: np.ndarray, k: int, **options: Any) -> None:
    for query, (ids, scores) in zip(queries, index.search(queries, k, **options), strict=True):
        want = expected(corpus, query, k)
        assert ids.tolist() == [id for id, _ in want]
        assert scores == pytest.approx([score for _, score in want], abs=1e-6)
        assert (ids.dtype, scores.dtype) == (np.int64, np.float32)


def test_by_hand() -> None:
    index = DenseIndex(2)
    index.add([10, 20, 30], np.array([[1, 0], [0.6, 0.8], [0, -1]], dtype=np.float32))
    ((ids, scores),) = index.search(np.array([[0, 1]], dtype=np.float32), 5)
    assert ids.tolist() == [20, 10, 30]
    assert scores == pytest.approx([0.8, 0.0, -1.0])


@pytest.mark.parametrize("few", [0, 10_000], ids=["selector", "gather"])
def test_filters_removals_and_batches(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(dense, "FEW", few)
    vectors, queries = unit(3000, 24), unit(40, 24, seed=1)
    index = DenseIndex(24)
    for start in range(0, 3000, 450):
        index.add(range(start, min(start + 450, 3000)), vectors[start : start + 450])
    check(index, dict(enumerate(vectors)), queries, 10)
    index.remove([*range(0, 3000, 7), 99_999])
    alive = {id: v for id, v in enumerate(vectors) if id % 7}
    assert index.ids.tolist() == list(alive)
    assert len(index) == len(alive)
    check(index, alive, queries, 10)
    for step in (2, 50, 1000):
        allowed = np.array([-1, *range(0, 3000, step), 10**12], dtype=np.int64)
        check(index, {id: v for id, v in alive.items() if id % step == 0}, queries[:5], 12, allowed=allowed)
    assert index.search(queries[:1], 3, allowed=np.zeros(0, dtype=np.int64))[0][0].tolist() == []


def test_a_query_has_the_same_result_in_any_batch_and_history() -> None:
    vectors, queries = unit(2000, 384), unit(64, 384, seed=1)
    whole, pieces = DenseIndex(384), DenseIndex(384)
    whole.add(range(2000), vectors)
    for start in range(0, 2000, 130):
        pieces.add(range(start, min(start + 130, 2000)), vectors[start : start + 130])
    together = whole.search(queries, 10)
    for i in range(64):
        for alone in (whole.search(queries[i : i + 1], 10)[0], pieces.search(queries[i : i + 3], 10)[0]):
            assert alone[0].tolist() == together[i][0].tolist()
            assert alone[1].tolist() == together[i][1].tolist()


@pytest.mark.parametrize("removed", [False, True])
def test_equal_scores_come_by_smaller_id(removed: bool) -> None:
    """Hundreds of equal vectors, far more than are fetched, in every part of the index."""
    vectors = unit(900, 16)
    vectors[100:700] = vectors[100]
    ids = np.random.default_rng(3).permutation(900)
    index = DenseIndex(16)
    for start in range(0, 900, 250):
        index.add(ids[start : start + 250], vectors[ids[start : start + 250]])
    gone = range(100, 110) if removed else ()
    index.remove(gone)
    check(index, {id: v for id, v in enumerate(vectors) if id not in gone}, vectors[[100, 5]], 20)


def test_scores_that_differ_by_rounding_alone_are_equal() -> None:
    """The same components in another order: the sums are equal, but FAISS adds them up in float32."""
    row = unit(1, 384)[0]
    vectors = np.stack([np.random.default_rng(i).permutation(row) for i in range(400)])
    index = DenseIndex(384)
    index.add(range(400), vectors)
    query = np.full((1, 384), 384**-0.5, dtype=np.float32)
    ((ids, scores),) = index.search(query, 20)
    assert ids.tolist() == list(range(20))
    assert len(set(scores.tolist())) == 1


STEP = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(-3, 60), max_size=9, unique=True)),
    st.tuples(st.just("remove"), st.lists(st.integers(-3, 60), max_size=9)),
    st.tuples(st.just("save"), st.none()),
)


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(STEP, max_size=12), k=st.integers(1, 70), seed=st.integers(0, 9))
def test_history_leaves_no_trace(tmp_path_factory: pytest.TempPathFactory, steps: list[Any], k: int, seed: int) -> None:
    # Few distinct vectors with exact components, so that many scores are equal.
    choices = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]] * np.array([1, 1, 1, -1, -1], dtype=np.float32)[:, None]
    random = np.random.default_rng(seed)
    index, corpus = DenseIndex(4), {}
    for step, ids in steps:
        if step == "add":
            new = {id: choices[random.integers(5)] for id in ids if id not in corpus}
            index.add(list(new), np.array(list(new.values()), dtype=np.float32).reshape(-1, 4))
            corpus |= new
        elif step == "remove":
            index.remove(ids)
            corpus = {id: v for id, v in corpus.items() if id not in ids}
        else:
            path = tmp_path_factory.mktemp("saved") / "g1-dense.faiss"
            index.save(path)
            index = DenseIndex.load(path)
    assert index.ids.tolist() == sorted(corpus)
    check(index, corpus, choices, k)
    allowed = np.arange(0, 60, 2, dtype=np.int64)
    check(index, {id: v for id, v in corpus.items() if id in allowed}, choices, k, allowed=allowed)


def test_save_and_load(tmp_path: Path) -> None:
    vectors, path = unit(500, 8), tmp_path / "g1-dense.faiss"
    index = DenseIndex(8)
    index.add(range(400), vectors[:400])
    index.save(path)
    opened = DenseIndex.load(path)
    assert (opened.dimension, len(opened)) == (8, 400)
    opened.add(range(400, 500), vectors[400:])
    opened.remove([3])
    check(opened, {id: v for id, v in enumerate(vectors) if id != 3}, unit(5, 8, seed=1), 10)
    check(index, dict(enumerate(vectors[:400])), unit(5, 8, seed=1), 10)
    DenseIndex(8).save(path)
    assert (DenseIndex.load(path).dimension, len(DenseIndex.load(path))) == (8, 0)


def test_files_that_are_not_such_an_index(tmp_path: Path) -> None:
    import faiss

    path = tmp_path / "x.faiss"
    with pytest.raises(StorageError, match=r"x\.faiss"):
        DenseIndex.load(path)
    path.write_bytes(b"not an index")
    with pytest.raises(StorageError, match=r"x\.faiss"):
        DenseIndex.load(path)
    for other in (faiss.IndexFlatIP(4), faiss.IndexIDMap(faiss.IndexFlatL2(4))):
        faiss.write_index(other, str(path))
        with pytest.raises(StorageError, match="not"):
            DenseIndex.load(path)
    with pytest.raises(StorageError, match="written"):
        DenseIndex(4).save(tmp_path / "missing" / "x.faiss")


def test_bad_input_changes_nothing() -> None:
    index = DenseIndex(3)
    good = np.eye(3, dtype=np.float32)
    index.add([1], good[:1])
    bad = good.copy()
    for value in (np.nan, np.inf, 0.0):
        bad[1, 1] = value
        with pytest.raises(InputError, match="passage 6"):
            index.add([5, 6, 7], bad)
    with pytest.raises(InputError, match="Passage 1 has a vector already"):
        index.add([4, 1], good[:2])
    with pytest.raises(InputError, match="Passage 4 is given twice"):
        index.add([4, 4], good[:2])
    with pytest.raises(InputError, match="2 ids came with 3 vectors"):
        index.add([4, 5], good)
    with pytest.raises(InputError, match=r"\(1, 2\).*3 dimensions"):
        index.add([4], np.ones((1, 2), dtype=np.float32))
    with pytest.raises(InputError, match=r"\(1, 5\).*3 dimensions"):
        index.search(np.ones((1, 5), dtype=np.float32), 3)
    with pytest.raises(InputError, match="query 1 is not finite"):
        index.search(np.array([[1, 0, 0], [np.nan, 0, 0]], dtype=np.float32), 3)
    with pytest.raises(InputError, match="k=0"):
        index.search(good, 0)
    with pytest.raises(InputError, match="0 dimensions"):
        DenseIndex(0)
    assert index.ids.tolist() == [1]


def test_an_empty_index_and_no_query() -> None:
    index = DenseIndex(3)
    index.add([], np.zeros((0, 3), dtype=np.float32))
    ((ids, scores),) = index.search(np.ones((1, 3), dtype=np.float32), 5)
    assert (ids.tolist(), scores.tolist()) == ([], [])
    assert index.search(np.zeros((0, 3), dtype=np.float32), 5) == []


def test_an_addition_touches_little() -> None:
    """Parts are merged by size: the large one stays as it is."""
    vectors = unit(3000, 8)
    index = DenseIndex(8)
    index.add(range(2000), vectors[:2000])
    large = index._parts[0]
    for id in range(2000, 2500):
        index.add([id], vectors[id : id + 1])
        assert len(index._parts) <= 11
    assert index._parts[0] is large


def test_removed_vectors_give_their_room_back() -> None:
    index = DenseIndex(8)
    index.add(range(1000), unit(1000, 8))
    index.remove(range(300))
    assert index._parts[0].flat.ntotal == 700
    index.remove(range(1000))
    assert index._parts == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("many", [1, 64])
def test_a_forked_child_does_not_hang(many: int) -> None:
    vectors, queries = unit(20_000, 64), unit(64, 64, seed=1)
    index = DenseIndex(64)
    index.add(range(20_000), vectors)
    want = index.search(queries, 5)  # 64 queries: FAISS has its threads now

    def work() -> None:
        got = index.search(queries[:many], 5)
        sys.exit(0 if all(g[0].tolist() == w[0].tolist() for g, w in zip(got, want, strict=False)) else 3)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    started = time.perf_counter()
    child.join(15)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode == 0, f"exit code {child.exitcode} after {time.perf_counter() - started:.1f} s"

"""Exact vector search: equal to NumPy, whatever was added, removed, filtered, batched, saved or forked."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch import dense, vectors
from semsearch.blocks import DamagedCacheError, facts
from semsearch.dense import DenseIndex
from semsearch.errors import InputError


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


def reopened(index: DenseIndex, folder: Path, **options: Any) -> DenseIndex:
    known = {path.name: facts(path) for path in index.save(folder, "g1")}
    loaded = DenseIndex.load(folder, "g1", json.loads(json.dumps(known)), **options)
    assert loaded is not None
    return loaded


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
            index = reopened(index, tmp_path_factory.mktemp("saved"))
    assert index.ids.tolist() == sorted(corpus)
    check(index, corpus, choices, k)
    allowed = np.arange(0, 60, 2, dtype=np.int64)
    check(index, {id: v for id, v in corpus.items() if id in allowed}, choices, k, allowed=allowed)


def test_save_and_load(tmp_path: Path) -> None:
    vectors = unit(500, 8)
    index = DenseIndex(8)
    index.add(range(400), vectors[:400])
    opened = reopened(index, tmp_path)
    assert (opened.dimension, len(opened)) == (8, 400)
    opened.add(range(400, 500), vectors[400:])
    opened.remove([3])
    check(opened, {id: v for id, v in enumerate(vectors) if id != 3}, unit(5, 8, seed=1), 10)
    check(index, dict(enumerate(vectors[:400])), unit(5, 8, seed=1), 10)
    empty = reopened(DenseIndex(8), tmp_path)
    assert (empty.dimension, len(empty)) == (8, 0)
    with pytest.raises(OSError, match="missing"):
        DenseIndex(4).save(tmp_path / "missing", "g1")


def searched_twice(folder: Path, known: dict[str, Any]) -> None:
    opened = DenseIndex.load(folder, "g1", known)
    assert opened is not None
    first = opened.search(unit(1, 64, seed=1), 3, allowed=np.arange(10))  # in a sound block
    assert len(first[0][0]) == 3
    opened.search(unit(1, 64, seed=1), 3)


def test_a_damaged_file_is_never_believed(tmp_path: Path) -> None:
    """A vector is verified when it is touched, what says where the vectors are at opening."""
    index = DenseIndex(64)
    index.add(range(3000), unit(3000, 64))
    paths = index.save(tmp_path, "g1")
    known = {path.name: facts(path) for path in paths}
    assert [path.name for path in paths] == ["g1-dense.ids.npy", "g1-dense.settings.json", "g1-dense.vectors.npy"]
    for path in paths:
        good = path.read_bytes()
        for bad in (good[:-20] + bytes([good[-20] ^ 1]) + good[-19:], good[:-1], good + b"x", b"", None):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(DamagedCacheError, match=re.escape(path.name)):
                searched_twice(tmp_path, known)
        path.write_bytes(good)
    with pytest.raises(DamagedCacheError):
        DenseIndex.load(tmp_path, "g1", {})
    (tmp_path / "g1-dense.settings.json").write_text('{"dimension": 32, "storage": "float32", "sieve": null}')
    with pytest.raises(DamagedCacheError, match="belong together"):
        DenseIndex.load(tmp_path, "g1", {path.name: facts(path) for path in paths})


def kept_as(vectors: np.ndarray, storage: str) -> np.ndarray:
    """By the definition of each storage, with loops."""
    if storage == "float16":
        return vectors.astype(np.float16).astype(np.float32)
    if storage == "int8":
        rows = []
        for row in vectors:
            scale = np.float32(np.abs(row).max() / np.float32(127))
            rows.append([np.float32(round(float(x / scale))) * scale for x in row])
        return np.array(rows, dtype=np.float32)
    return vectors


@pytest.mark.parametrize("storage", ["float16", "int8", "pq"])
def test_storages_score_what_they_keep_whatever_the_history(storage: str, tmp_path: Path) -> None:
    vectors, queries = unit(700, 20), unit(12, 20, seed=1)
    kept = dict(enumerate(kept_as(vectors, storage)))
    index = DenseIndex(20, storage=storage)
    assert np.array_equal(index.kept(vectors), list(kept.values()))
    index.add(range(400), vectors[:400])
    index = reopened(index, tmp_path, storage=storage)
    for start in range(400, 700, 50):
        index.add(range(start, start + 50), vectors[start : start + 50])
    index.remove(range(0, 700, 9))
    kept = {id: v for id, v in kept.items() if id % 9}
    check(index, kept, queries, 10)
    want = index.search(queries, 10)
    index = reopened(index, tmp_path, storage=storage)
    index = reopened(index, tmp_path, storage=storage)
    for (ids, scores), (same_ids, same) in zip(want, index.search(queries, 10), strict=True):
        assert (ids.tolist(), scores.tolist()) == (same_ids.tolist(), same.tolist())
    known = {path.name: facts(path) for path in index.save(tmp_path, "g2")}
    assert DenseIndex.load(tmp_path, "g2", known) is None  # it is not float32


def test_what_it_says_of_itself() -> None:
    index = DenseIndex(10, storage="int8", recall=0.9)
    index.add([1, 2, 3], unit(3, 10))
    said = {"kind": "exact", "vectors": 3, "storage": "int8", "bytes": 42, "recall": 0.9, "measured": 1.0}
    assert index.describe() == said
    for storage, size in (("float32", 40), ("float16", 20), ("pq", 40)):
        index = DenseIndex(10, storage=storage)
        index.add([1], unit(1, 10))
        assert index.describe()["bytes"] == size
    with pytest.raises(InputError, match="storage='float8'"):
        DenseIndex(3, storage="float8")
    with pytest.raises(InputError, match=r"recall.*1\.5"):
        DenseIndex(3, recall=1.5)


def test_many_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data, queries = unit(9000, 32), unit(3, 32, seed=1)
    data[5000:5100] = data[10]
    index = DenseIndex(32)
    index.add(range(9000), data)
    queries[0] = data[10]
    alone = index.search(queries, 12)
    monkeypatch.setattr(vectors, "SHARED", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    for (ids, scores), (same_ids, same) in zip(alone, index.search(queries, 12), strict=True):
        assert (ids.tolist(), scores.tolist()) == (same_ids.tolist(), same.tolist())
    check(index, dict(enumerate(data)), queries, 12)


def test_a_long_query_finds_the_best_too() -> None:
    """A vector that is not of unit length has larger errors in float32."""
    data = unit(2000, 64)
    index = DenseIndex(64)
    index.add(range(2000), data)
    query = unit(1, 64, seed=1) * 1000
    ((ids, _),) = index.search(query, 30)
    assert ids.tolist() == [id for id, _ in expected(dict(enumerate(data)), query[0], 30)]


def test_exact_search_needs_no_faiss() -> None:
    code = (
        "import numpy as np, sys; from semsearch.dense import DenseIndex; index = DenseIndex(4);"
        "index.add(range(3000), np.ones((3000, 4), np.float32)); index.search(np.ones((9, 4), np.float32), 3);"
        "assert 'faiss' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


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
    assert len(index._parts[0].ids) == 700
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

"""The sieve: what it proposes, that its recall is what was measured, and that it never gives a wrong score."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

import semsearch
from semsearch import dense
from semsearch.blocks import DamagedCacheError, facts
from semsearch.dense import DenseIndex
from semsearch.errors import InputError, StorageError
from semsearch.sieve import Setting, Sieve, bits_of, setting_for

N, D = 6000, 30  # 30 is not a multiple of the 4 components of a code


def clustered(n: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around a few hundred centres, as texts are around topics."""
    random = np.random.default_rng(7)
    centres = random.standard_normal((300, D))
    random = np.random.default_rng(seed)
    rows = centres[random.integers(300, size=n)] + 0.6 * random.standard_normal((n, D))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


VECTORS, QUERIES = clustered(N), clustered(60, seed=1)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sieves from 2,000 vectors on."""
    monkeypatch.setattr(dense, "EXACT", 2000 * D)
    monkeypatch.setattr(dense, "EXACT_ALLOWED", 1500 * D)
    monkeypatch.setattr(dense, "FEW", 50)
    monkeypatch.setattr(dense, "WORTH", 1)
    monkeypatch.setattr(dense, "SAMPLE", 120)
    import faiss

    faiss.omp_set_num_threads(1)  # on a busy machine OpenMP's threads wait for one another


def opened(folder: Path, index: DenseIndex, stem: str = "g1", **options: Any) -> DenseIndex:
    known = {path.name: facts(path) for path in index.save(folder, stem)}
    loaded = DenseIndex.load(folder, stem, json.loads(json.dumps(known)), **options)
    assert loaded is not None
    return loaded


def filled(vectors: np.ndarray = VECTORS, **options: Any) -> DenseIndex:
    index = DenseIndex(D, **options)
    index.add(range(1, len(vectors) + 1), vectors)
    index.source = lambda ids: vectors[ids - 1]
    return index


def exact(query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[list[int], np.ndarray]:
    ids = np.arange(1, N + 1) if allowed is None else allowed
    scores = (VECTORS[ids - 1].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    order = np.lexsort((ids, -scores))[:k]
    return ids[order].tolist(), scores[order]


def recall_of(index: DenseIndex, k: int = 10, allowed: np.ndarray | None = None, within: float = 1e-6) -> float:
    """The share of the k nearest that are found; every score is checked on the way."""
    hits = 0
    for query, (ids, scores) in zip(QUERIES, index.search(QUERIES, k, allowed=allowed), strict=True):
        assert scores == pytest.approx(VECTORS[ids - 1] @ query, abs=within)
        assert np.array_equal(np.lexsort((ids, -scores)), np.arange(len(ids)))
        assert allowed is None or np.isin(ids, allowed).all()
        hits += len(set(ids.tolist()) & set(exact(query, k, allowed)[0]))
    return hits / (k * len(QUERIES))


@pytest.mark.parametrize("recall", [0.8, 0.95, 0.99])
def test_it_finds_what_was_asked_for(tmp_path: Path, recall: float) -> None:
    index = opened(tmp_path, filled(), recall=recall)
    said = index.describe()
    assert said["kind"] == "sieve"
    assert min(said["measured"], said["lonely"]) >= recall == said["recall"]
    assert said["lists"] == 64  # the power of two nearest to the root of 6,000
    assert recall_of(index) >= recall - 0.03  # 600 trials
    manifest = json.loads((tmp_path / "g1-dense.settings.json").read_text())
    assert [said["probes"], said["candidates"], said["measured"], said["lonely"]] in manifest["sieve"]["curve"]


def test_recall_of_1_is_exact_search(tmp_path: Path) -> None:
    for index in (opened(tmp_path, filled(recall=1.0), recall=1.0), opened(tmp_path, filled(), "g2", recall=1.0)):
        assert index.describe()["kind"] == "exact"
        assert recall_of(index) == 1
    assert not (tmp_path / "g1-dense.sieve.faiss").exists()


def test_the_measured_recall_is_counted_by_hand(tmp_path: Path) -> None:
    """Stored vectors as queries, each without itself, against NumPy."""
    part = opened(tmp_path, filled(), recall=0.95)._parts[0]
    assert part.sieve is not None
    own = np.arange(1, 41)
    queries = VECTORS[own - 1]
    tens = [np.array([id for id in exact(q, 11)[0] if id != i][:10]) for i, q in zip(own, queries, strict=True)]
    part.sieve.measure(queries, tens, own, own > 30)
    setting = part.sieve.curve[4]
    hits = []
    for query, id, ten in zip(queries, own, tens, strict=True):
        found = [each for each in part.sieve.propose(query, setting.probes, 801).tolist() if each != id]
        hits.append(len(set(found[: setting.candidates]) & set(ten.tolist())))
    assert setting.recall == pytest.approx(sum(hits) / 400)
    assert setting.lonely == pytest.approx(sum(hits[30:]) / 100)
    assert setting.recall != setting.lonely


def test_the_cheapest_setting_is_taken() -> None:
    curve = [
        Setting(8, 100, 0.7, 0.6),
        Setting(16, 400, 0.95, 0.95),
        Setting(32, 100, 0.96, 0.95),
        Setting(64, 800, 1, 0.98),
    ]
    # of 64 lists, by scanned vectors · 0.0044 µs + candidates · 1.8 µs: 1,100 + 720 and 2,200 + 180
    assert setting_for(curve, 0.95, 1_000_000, 384) == curve[1]
    assert setting_for(curve, 0.95, 200_000, 384) == curve[2]
    assert setting_for(curve, 0.97, 200_000, 384) == curve[3]
    assert setting_for(curve, 0.99, 200_000, 384) is None
    assert setting_for([], 0.5, 10, 4) is None


def test_batches_threads_and_reopening_change_nothing(tmp_path: Path) -> None:
    index = opened(tmp_path, filled(), recall=0.9)
    again = opened(tmp_path, index, "g2", recall=0.9)
    for query, (ids, scores) in zip(QUERIES, index.search(QUERIES, 7), strict=True):
        for other in (index, again):
            ((same_ids, same),) = other.search(query[None], 7)
            assert (ids.tolist(), scores.tolist()) == (same_ids.tolist(), same.tolist())


@pytest.mark.parametrize("step", [2, 3, 200, 3000])
def test_filters_come_before_top_k(tmp_path: Path, step: int) -> None:
    index = opened(tmp_path, filled(), recall=0.95)
    allowed = np.arange(1, N + 1, step)
    assert recall_of(index, min(10, len(allowed)), allowed) >= (0.9 if step < 4 else 1)
    assert index.search(QUERIES[:1], 5, allowed=np.zeros(0, dtype=np.int64))[0][0].tolist() == []


def test_where_the_sieve_finds_too_few_all_are_scored(tmp_path: Path) -> None:
    """One list of 64 is probed, which does not hold 400 vectors."""
    index = opened(tmp_path, filled(), recall=0.6)
    index._parts = (replace(index._parts[0], setting=Setting(1, 10, 1, 1)),)
    ((ids, scores),) = index.search(QUERIES[:1], 400)
    want, right = exact(QUERIES[0], 400)
    assert ids.tolist() == want
    assert scores == pytest.approx(right)
    assert recall_of(index) < 0.9  # while it finds enough, it is believed


def test_what_came_and_went_since(tmp_path: Path) -> None:
    half = opened(tmp_path, filled(VECTORS[:4000]), recall=0.95)
    trained = half._parts[0].sieve
    assert trained is not None
    half.add(range(4001, N + 1), VECTORS[4000:])
    assert recall_of(half) >= 0.92
    gone = np.arange(1, N + 1, 5)
    half.remove(gone)
    left = np.setdiff1d(np.arange(1, N + 1), gone)
    for index in (half, opened(tmp_path, half, "g2", recall=0.95)):
        found = index.search(QUERIES, 10)
        assert not any(np.isin(ids, gone).any() for ids, _ in found)
        hits = sum(len(set(f[0].tolist()) & set(exact(q, 10, left)[0])) for f, q in zip(found, QUERIES, strict=True))
        assert hits / 600 >= 0.92
    folded = index._parts[0].sieve
    assert folded is not None
    assert folded.trained == trained.trained == 4000  # not trained again
    assert folded.index.ntotal == len(left)
    assert folded.ids.tolist() == left.tolist()


def test_it_is_trained_again_when_it_is_outgrown(tmp_path: Path) -> None:
    index = opened(tmp_path, filled())
    index.remove(range(1, 3000))
    assert opened(tmp_path, index, "g2").describe()["lists"] == 64
    index.add(range(N + 1, 5 * N + 1), np.tile(VECTORS, (4, 1)))
    grown = opened(tmp_path, index, "g3")
    assert grown._parts[0].sieve is not None
    assert grown._parts[0].sieve.trained == 5 * N - 2999
    index.remove(range(1, 5 * N - 1500))
    assert opened(tmp_path, index, "g4").describe()["kind"] == "exact"


def test_a_failed_save_does_no_harm(tmp_path: Path) -> None:
    """The sieve of an index may know vectors that its base does not have; the next save puts that right."""
    index = opened(tmp_path, filled(VECTORS[:4000]), recall=0.95)
    index.add(range(4001, N + 1), VECTORS[4000:])
    index.remove([7])
    for stem in ("g2", "g3"):
        index.save(tmp_path, stem)
    index.remove([8])
    assert 7 not in np.concatenate([ids for ids, _ in index.search(QUERIES, 10)])
    last = opened(tmp_path, index, "g4", recall=0.95)
    sieve_ = last._parts[0].sieve
    assert sieve_ is not None
    assert sieve_.index.ntotal == N - 2
    assert recall_of(last) >= 0.9


@pytest.mark.parametrize("storage", ["float16", "int8", "pq"])
def test_every_storage(tmp_path: Path, storage: str) -> None:
    index = filled(storage=storage)
    loaded = opened(tmp_path, index, storage=storage)
    loaded.source = index.source
    for allowed in (None, np.arange(1, N + 1, 2), np.arange(1, N + 1, 300)):
        assert recall_of(loaded, 10, allowed, within=0.01) >= 0.9
    names = {path.name.split(".")[1] for path in tmp_path.iterdir()}
    assert ("vectors" in names) == (storage != "pq")
    said = loaded.describe()
    assert said["bytes"] == {"float16": 2 * D, "int8": D + 4, "pq": 4}[storage] * N
    assert said["kind"] == "sieve"


def test_codes_alone_need_a_source(tmp_path: Path) -> None:
    index = opened(tmp_path, filled(storage="pq"), storage="pq")
    with pytest.raises(StorageError, match="source"):
        index.search(QUERIES[:1], 3)
    index.source = lambda ids: VECTORS[ids - 1]
    for allowed in (None, np.arange(1, N + 1, 4)):
        assert recall_of(index, 10, allowed) >= 0.9
    ((ids, scores),) = index.search(QUERIES[:1], N)  # all of them, as a check of an index asks for
    assert sorted(ids.tolist()) == list(range(1, N + 1))
    assert scores[0] == pytest.approx(exact(QUERIES[0], 1)[1][0])


def test_a_damaged_sieve_is_found_when_it_is_used(tmp_path: Path) -> None:
    known = {path.name: facts(path) for path in filled().save(tmp_path, "g1")}
    path = tmp_path / "g1-dense.sieve.faiss"
    good = path.read_bytes()
    for bad in (good[:-1], b"", good[:5000] + b"\x00\x01" + good[5002:], None):
        path.unlink() if bad is None else path.write_bytes(bad)
        index = DenseIndex.load(tmp_path, "g1", known, recall=0.8)
        assert index is not None
        assert len(index.search(QUERIES[:1], 3, allowed=np.arange(1, 30))[0][0]) == 3  # does not need it
        with pytest.raises(DamagedCacheError, match=r"sieve\.faiss"):
            index.search(QUERIES[:2], 3)
    for other in (b"not an index", _other_index()):
        path.write_bytes(other)
        index = DenseIndex.load(tmp_path, "g1", known | {path.name: facts(path)}, recall=0.8)
        assert index is not None
        with pytest.raises(DamagedCacheError, match=r"sieve\.faiss"):
            index.search(QUERIES[:1], 3)
    with pytest.raises(OSError, match="cannot be written"):
        Sieve.train(VECTORS, 100).save(tmp_path / "missing" / "x")


def _other_index() -> bytes:
    import faiss

    return bytes(faiss.serialize_index(faiss.IndexFlatIP(4)).tobytes())


# -- behind an index ---------------------------------------------------------------------------------------------------


class FewWords(WordEncoder):
    name = "toy-few"
    dimension = D


WORDS = np.random.default_rng(0).integers(1000, size=(2500, 12))
DOCUMENTS = [(f"d{i}", " ".join(f"w{word}" for word in row)) for i, row in enumerate(WORDS.tolist())]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 2,500 passages, without a cache."""
    path = tmp_path_factory.mktemp("template") / "index"
    with semsearch.Index(path, encoder=FewWords(), recall=1.0) as index:
        index.add(DOCUMENTS)
    shutil.rmtree(path / "cache")
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "index")
    return tmp_path / "index"


def opened_index(path: Path, **options: Any) -> semsearch.Index:
    return semsearch.Index(path, encoder=FewWords(), **options)


def described(index: semsearch.Index) -> dict[str, Any]:
    with index.snapshot() as now:
        return now._legs.dense(now._view).describe()


def ids_of(index: semsearch.Index, text: str, **options: Any) -> list[str]:
    return [hit.passage.document_id for hit in index.search(text, mode="dense", **options)]


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "pq"])
def test_an_index_of_each_storage(path: Path, storage: str, caplog: pytest.LogCaptureFixture) -> None:
    with opened_index(path, storage=storage, recall=0.9) as index:
        before = ids_of(index, DOCUMENTS[77][1])
        index.optimize()
        assert before[0] == ids_of(index, DOCUMENTS[77][1])[0]
        said = described(index)
        assert (said["kind"], said["storage"], said["vectors"]) == ("sieve", storage, 2500)
    with opened_index(path, storage=storage, recall=0.9) as index:
        assert before[0] == ids_of(index, DOCUMENTS[77][1])[0]
        assert index.add([("new", "something else entirely")]).added == 1
        assert ids_of(index, "something else entirely", k=1) == ["new"]
        assert index.remove(["d77"]) == 1
        assert "d77" not in ids_of(index, DOCUMENTS[77][1], k=50)
        assert ids_of(index, DOCUMENTS[78][1], where={"id": "d99"}) == ["d99"]
        both = index.search([DOCUMENTS[4][1], DOCUMENTS[5][1]], mode="dense", k=1)
        assert [hits[0].passage.document_id for hits in both] == ["d4", "d5"]
    assert not caplog.records


def test_a_cache_of_another_storage_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened_index(path, storage="int8") as index:
        index.optimize()
    with opened_index(path) as index:
        expected = ids_of(index, DOCUMENTS[5][1])
        index.optimize()
        assert index.check().ok
    with opened_index(path, recall=1.0) as index:
        assert ids_of(index, DOCUMENTS[5][1]) == expected
        assert described(index)["kind"] == "exact"
        assert index._legs is not None
        assert index._legs._legs["dense"].origin > 0  # it was read, not built
    assert not caplog.records


@pytest.mark.parametrize("name", ["vectors.npy", "sieve.faiss", "ids.npy", "settings.json"])
def test_damage_that_is_met_in_a_search(path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """P2: the leg is built again from the database, and the search made again."""
    with opened_index(path, recall=0.8) as index:
        expected = [(hit.passage.document_id, hit.score) for hit in index.search(DOCUMENTS[8][1], mode="dense", k=3)]
        index.optimize()
    (file,) = (path / "cache").glob(f"*-dense.{name}")
    data = bytearray(file.read_bytes())
    for at in range(len(data) // 2, len(data) - 1, 20_000):
        data[at] ^= 64
    file.write_bytes(data)
    with opened_index(path, recall=0.8, read_only=True) as index:
        found = [(hit.passage.document_id, hit.score) for hit in index.search(DOCUMENTS[8][1], mode="dense", k=3)]
        assert found == expected
        assert any("dense cache" in each.message and "built again" in each.message for each in caplog.records)
        caplog.clear()
        assert ids_of(index, DOCUMENTS[8][1], k=1) == [expected[0][0]]
        assert not caplog.records  # once is enough
        assert index.check().cache == (f"{file.name} is damaged or missing",)
    with opened_index(path) as index:
        index.optimize()  # copies what is sound, from the database if need be
        assert index.check().ok


def test_a_cache_that_is_replaced_while_it_is_used(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is read late, the sieve, is gone then: the new cache is taken, nothing is damaged."""
    with opened_index(path, recall=0.8) as writer:
        writer.optimize()
        with opened_index(path, recall=0.8, read_only=True) as reader:
            assert ids_of(reader, DOCUMENTS[8][1], where={"id": "d8"}) == ["d8"]  # the sieve is not needed
            writer.add([("new", "something else entirely")])
            writer.optimize()
            assert ids_of(reader, "something else entirely", k=1) == ["new"]
    assert not caplog.records


def test_a_sieve_that_cannot_be_written_is_only_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import faiss

    def full(index: Any, path: str) -> None:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(faiss, "write_index", full)
    with opened_index(path, recall=0.9) as index:
        assert index.add((f"new{i}", text) for i, (_, text) in enumerate(DOCUMENTS[:1200])).added == 1200
        assert index.remove(["d1"]) == 1
        assert index.get("d1") is None
        assert len(index) == 3699
        assert not (path / "cache" / "CURRENT.json").exists()
    assert "could not be written" in caplog.text


def test_bits() -> None:
    assert bits_of(np.zeros(0, dtype=np.int64)).tolist() == [0]
    assert bits_of(np.array([0, 1, 9, 10, 24])).tolist() == [0b11, 0b110, 0, 1]
    ids = np.flatnonzero(np.random.default_rng(0).random(5000) < 0.3)
    assert np.flatnonzero(np.unpackbits(bits_of(ids), bitorder="little")).tolist() == ids.tolist()


def test_pq_and_exact_search_cannot_both_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recall=1\.0"):
        DenseIndex(4, storage="pq", recall=1.0)

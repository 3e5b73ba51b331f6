"""Postings: read from damaged files, built block by block, searched while the corpus changes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_lexical import check, expected, filled, zipf_corpus

from semsearch import postings
from semsearch.blocks import BLOCK, DamagedCacheError, facts
from semsearch.errors import InputError, StorageError
from semsearch.lexical import LexicalIndex

QUERIES = [["w1", "w2", "w50"], ["w3"], ["w900", "w1"], ["w1", "w2", "w3", "w4", "w1700"]]


def saved(folder: Path, corpus: dict[int, list[str]]) -> dict[str, dict[str, Any]]:
    """Save an index of the corpus and say what its files are."""
    return {path.name: facts(path) for path in filled(corpus, k1=1.2, b=0.75).save(folder, "g1")}


def damage(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def test_files_are_verified_as_far_as_they_are_read(tmp_path: Path) -> None:
    corpus = zipf_corpus()
    known = saved(tmp_path, corpus)
    index = LexicalIndex.load(tmp_path, "g1", known)
    for terms in QUERIES:
        check(index, expected(corpus, terms, "lucene"), terms, 10)
    found = expected(corpus, ["w1"], "lucene")
    start, _ = index._state.base.span(index._state.vocabulary.find("w999"))
    assert start * 4 > BLOCK  # its postings lie in another block than the header

    damage(tmp_path / "g1-lexical.docs.npy", 128 + start * 4)
    index = LexicalIndex.load(tmp_path, "g1", known)  # nothing was read there
    assert index.search(["w1"], 10)[0].tolist() == sorted(found, key=lambda id: (-found[id], id))[:10]
    with pytest.raises(DamagedCacheError, match=r"docs\.npy is damaged"):
        index.search(["w999"], 10)
    with pytest.raises(DamagedCacheError, match=r"docs\.npy is damaged"):
        index.save(tmp_path, "g2")


def use_all(folder: Path, known: dict[str, dict[str, Any]]) -> None:
    index = LexicalIndex.load(folder, "g1", known)
    for number in range(2000):
        index.search([f"w{number}"], 12_000)
    index.remove([11_999])


@pytest.mark.parametrize("name", ["settings", "vocabulary", "offsets", "indptr", "codes", "kinds", "ids", "lengths"])
def test_no_damaged_file_gives_an_answer(tmp_path: Path, name: str) -> None:
    known = saved(tmp_path, zipf_corpus(12_000))
    path = tmp_path / f"g1-lexical.{name}.npy"
    damage(path, len(path.read_bytes()) - 1)
    with pytest.raises(DamagedCacheError, match=rf"{name}\.npy is damaged"):
        use_all(tmp_path, known)


def test_a_file_that_the_facts_do_not_name_is_refused(tmp_path: Path) -> None:
    known = saved(tmp_path, zipf_corpus(50))
    del known["g1-lexical.codes.npy"]
    with pytest.raises(StorageError, match="codes"):
        LexicalIndex.load(tmp_path, "g1", known)


def test_building_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = zipf_corpus(1000)
    whole = filled(corpus, k1=1.2, b=0.75)
    monkeypatch.setattr(postings, "BLOCK", 64)
    monkeypatch.setattr(postings, "NARROW", 8)
    index = LexicalIndex(k1=1.2, b=0.75)
    index.add(range(1000), (corpus[id] for id in range(1000)))
    backwards = LexicalIndex(k1=1.2, b=0.75)
    for start in (600, 0, 300, 900):
        ids = [id for id in range(999, -1, -1) if start <= id < {600: 900, 0: 300, 300: 600, 900: 1000}[start]]
        backwards.add(ids, (corpus[id] for id in ids))
    assert index._state.fresh[0].codes.dtype == np.uint32
    for terms in QUERIES:
        want = [part.tolist() for part in whole.search(terms, 30)]
        assert [part.tolist() for part in index.search(terms, 30)] == want
        assert [part.tolist() for part in backwards.search(terms, 30)] == want


def test_token_lists_from_a_generator_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def documents() -> Iterator[list[str]]:
        for _ in range(20_000):
            yield ["some", "words", "that", "return"] * 50  # 1.6 kB a list: 33 MB of them

    monkeypatch.setattr(postings, "BLOCK", 256)
    index = LexicalIndex()
    tracemalloc.start()
    index.add(range(20_000), documents())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index) == 20_000
    assert peak < 12e6


@pytest.mark.parametrize("count", [0, 5, 7])
def test_a_generator_of_another_length_adds_nothing(count: int) -> None:
    index = filled({1: ["a"]})
    with pytest.raises(InputError, match=f"6 ids came with {count} token lists"):
        index.add(range(10, 16), (["b"] for _ in range(count)))
    assert index.ids.tolist() == [1]
    assert index.search(["b"], 3)[0].tolist() == []


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
def test_what_is_remembered_of_terms_outlives_changes(variant: Any) -> None:
    """The highest gain of a term is remembered; it grows when longer passages come and when passages go."""
    corpus = zipf_corpus(2000)
    index = filled(corpus, variant, k1=1.2, b=0.75)
    for terms in QUERIES:
        index.search(terms, 5)
    long = {id: [f"w{id % 7}"] * 3 + ["x"] * 400 for id in range(5000, 5300)}
    index.add(list(long), list(long.values()))
    index.remove(range(0, 2000, 3))
    alive = {id: tokens for id, tokens in (corpus | long).items() if id >= 2000 or id % 3}
    for terms in QUERIES:
        for k in (3, 50):
            check(index, expected(alive, terms, variant), terms, k)


def test_removed_passages_are_counted_out_of_frequencies() -> None:
    """Few removed ones are looked up in the postings, many are marked: both must count the same."""
    index = filled(zipf_corpus(2000))
    for gone in ([7], range(500)):
        index.remove(gone)
        segment = index._state.fresh[0]
        for row in (0, 1, len(segment.terms) // 2):
            docs = segment.documents(*segment.span(row))
            assert segment.frequency(row) == np.count_nonzero(~segment.dead[docs]) == segment.frequencies[row]


@pytest.mark.parametrize("gap", [1, 3, 10**9])
def test_ids_with_gaps_are_found_among_allowed_ones(gap: int) -> None:
    corpus = {5 + gap * id: tokens for id, tokens in zipf_corpus(600).items()}
    index = filled(corpus, k1=1.2, b=0.75)
    index.remove([5, 5 + gap * 7])
    alive = {id: tokens for id, tokens in corpus.items() if id not in (5, 5 + gap * 7)}
    for step in (1, 2, 300):
        allowed = np.array([-3, *list(corpus)[::step], 10**15], dtype=np.int64)
        want = {id: s for id, s in expected(alive, ["w1", "w4"], "lucene").items() if id in set(allowed.tolist())}
        ids, scores = index.search(["w1", "w4"], 25, allowed=allowed)
        assert ids.tolist() == sorted(want, key=lambda id: (-want[id], id))[:25]
        assert scores == pytest.approx([want[id] for id in ids.tolist()], rel=1e-9)


def test_searches_at_the_same_time_do_not_mix() -> None:
    index = filled(zipf_corpus())
    want = [index.search(terms, 20)[0].tolist() for terms in QUERIES]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: index.search(QUERIES[i % 4], 20)[0].tolist(), range(400)))
    assert found == want * 100
    for sums in index._state.fresh[0].idle:
        assert np.isnan(sums).all()

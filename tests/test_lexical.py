"""BM25: the scores of rank_bm25 and of Lucene's formula, whatever was added and removed before, saved and opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_bm25
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.errors import InputError, StorageError
from semsearch.lexical import LexicalIndex, RankBM25Index, get_lexical
from semsearch.scan import Scan
from semsearch.vocabulary import Vocabulary

CORPUS = {
    3: ["the", "cat", "sat", "on", "the", "mat"],
    5: ["the", "dog", "sat", "on", "the", "cat", "and", "the", "dog"],
    8: [],
    9: ["a", "bird", "sang", "in", "the", "tree"],
    12: ["cat", "cat", "cat", "tree"],
}
REFERENCE = {"okapi": rank_bm25.BM25Okapi, "l": rank_bm25.BM25L, "plus": rank_bm25.BM25Plus}
TOKEN = st.sampled_from(["a", "b", "c", "d", "e", "ß", "\x00", "\ud800", "日本", ""])
TOKENS = st.lists(TOKEN, max_size=12)
QUERY = st.lists(st.one_of(TOKEN, st.just("nowhere")), min_size=1, max_size=6)
STEP = st.one_of(
    st.tuples(st.just("add"), st.dictionaries(st.integers(-3, 40), TOKENS, max_size=6)),
    st.tuples(st.just("remove"), st.lists(st.integers(-3, 40), max_size=8)),
    st.tuples(st.just("save"), st.none()),
)


def filled(corpus: dict[int, list[str]], variant: Any = "lucene", **parameters: float) -> LexicalIndex:
    index = LexicalIndex(variant, **parameters)
    index.add(list(corpus), list(corpus.values()))
    return index


def lucene(corpus: dict[int, list[str]], terms: Sequence[str], k1: float = 1.2, b: float = 0.75) -> dict[int, float]:
    """Lucene's formula, term by term and passage by passage."""
    mean = sum(map(len, corpus.values())) / max(len(corpus), 1)
    scores: dict[int, float] = {}
    for term in terms:
        df = sum(term in tokens for tokens in corpus.values())
        idf = math.log(1 + (len(corpus) - df + 0.5) / (df + 0.5))
        for id, tokens in corpus.items():
            if tf := tokens.count(term):
                share = idf * tf / (tf + k1 * (1 - b + b * len(tokens) / mean))
                scores[id] = scores.get(id, 0.0) + share
    return scores


def expected(corpus: dict[int, list[str]], terms: Sequence[str], variant: str) -> dict[int, float]:
    """The scores of the passages that have one of the terms."""
    if variant == "lucene":
        return lucene(corpus, terms)
    if not any(corpus.values()):
        return {}
    scores = REFERENCE[variant](list(corpus.values()), k1=1.2, b=0.75).get_scores(terms)
    return {id: s for (id, tokens), s in zip(corpus.items(), scores, strict=True) if set(terms) & set(tokens)}


def check(index: LexicalIndex | RankBM25Index, want: dict[int, float], terms: Sequence[str], k: int) -> None:
    ids, scores = index.search(terms, k)
    assert len(ids) == min(k, len(want))
    assert scores == pytest.approx([want[id] for id in ids.tolist()], rel=1e-9, abs=1e-12)
    assert scores == pytest.approx(sorted(want.values(), reverse=True)[:k], rel=1e-9, abs=1e-12)
    pairs = list(zip((-scores).tolist(), ids.tolist(), strict=True))
    assert pairs == sorted(pairs)


def test_lucene_by_hand() -> None:
    # 3 passages of 2, 2 and 4 tokens, mean 8/3. "fee" is in two of them: idf = ln(1 + 1.5/2.5) = 0.470004.
    # passage 1: K = 1.2 * (0.25 + 0.75 * 2 / (8/3)) = 0.975, 0.470004 * 1 / 1.975 = 0.237977
    # passage 3: K = 1.2 * (0.25 + 0.75 * 4 / (8/3)) = 1.65,  0.470004 * 2 / 3.65  = 0.257536
    index = filled({1: ["late", "fee"], 2: ["opening", "hours"], 3: ["fee", "fee", "price", "list"]}, k1=1.2, b=0.75)
    ids, scores = index.search(["fee"], 10)
    assert ids.tolist() == [3, 1]
    assert scores == pytest.approx([0.257536, 0.237977], abs=1e-6)


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
@pytest.mark.parametrize(
    "terms", [["cat"], ["the"], ["cat", "tree", "the"], ["cat", "cat", "dog"], ["no", "cat"], ["no"]]
)
def test_scores_of_the_reference(variant: Any, terms: list[str]) -> None:
    index = filled(CORPUS, variant, k1=1.2, b=0.75)
    for k in (1, 2, 10):
        check(index, expected(CORPUS, terms, variant), terms, k)


def test_okapi_floors_negative_idf() -> None:
    # "the" is in two of three passages: its idf would be ln(1.5) - ln(2.5) < 0.
    corpus = {1: ["the", "cat"], 2: ["the", "dog"], 3: ["bird"]}
    ids, scores = filled(corpus, "okapi", k1=1.5).search(["the"], 5)
    reference = rank_bm25.BM25Okapi(list(corpus.values()))
    assert reference.idf["the"] == pytest.approx(0.25 * reference.average_idf)
    assert dict(zip(ids.tolist(), scores.tolist(), strict=True)) == pytest.approx(
        dict(zip([1, 2], reference.get_scores(["the"])[:2], strict=True)), rel=1e-12
    )


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=10), terms=QUERY, k=st.integers(1, 12))
def test_history_leaves_no_trace(
    tmp_path_factory: pytest.TempPathFactory, variant: Any, steps: list[Any], terms: list[str], k: int
) -> None:
    index, corpus = LexicalIndex(variant, k1=1.2, b=0.75), {}
    for step, argument in steps:
        if step == "add":
            new = {id: tokens for id, tokens in argument.items() if id not in corpus}
            index.add(list(new), list(new.values()))
            corpus |= new
        elif step == "remove":
            index.remove(argument)
            corpus = {id: tokens for id, tokens in corpus.items() if id not in argument}
        else:
            folder = tmp_path_factory.mktemp("saved")
            index.save(folder, "g1")
            index = LexicalIndex.load(folder, "g1")
    assert index.ids.tolist() == sorted(corpus)
    assert len(index) == len(corpus)
    check(index, expected(corpus, terms, variant), terms, k)
    fresh = filled(dict(sorted(corpus.items())), variant, k1=1.2, b=0.75)
    for got, want in zip(index.search(terms, k), fresh.search(terms, k), strict=True):
        assert got.tolist() == want.tolist() if variant != "okapi" else got == pytest.approx(want, rel=1e-12)


def zipf_corpus(n: int = 3000) -> dict[int, list[str]]:
    random = np.random.default_rng(7)
    words = random.zipf(1.3, size=(n, 30)) % 2000
    return {id: [f"w{w}" for w in row] for id, row in enumerate(words.tolist())}


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
def test_skipping_postings_changes_nothing(variant: Any) -> None:
    corpus = zipf_corpus()
    index = LexicalIndex(variant, k1=1.2, b=0.75)
    for start in range(0, 3000, 700):
        index.add(list(corpus)[start : start + 700], list(corpus.values())[start : start + 700])
    index.remove(range(100, 900, 3))
    alive = {id: corpus[id] for id in index.ids.tolist()}
    random = np.random.default_rng(8)
    queries = [[f"w{w}" for w in random.zipf(1.3, size=6) % 2000] for _ in range(40)]
    queries += [["w1", "w1999"], ["w1", "w2", "w3", "w1700"]]
    for terms in queries:
        check(index, expected(alive, terms, variant), terms, 10)


@pytest.mark.parametrize("k", [1, 3, 30])
def test_common_words_together_beat_a_rare_one(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    """Here some of the best passages have none of the rarest terms, so skipping too early would lose them."""
    looked_up = []
    look_up = Scan._look_up
    monkeypatch.setattr(Scan, "_look_up", lambda *args: looked_up.append(args[1]) or look_up(*args))
    random = np.random.default_rng(5)
    shares = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.3, 0.35, 0.4])
    there = random.random((2000, 9)) < shares
    corpus = {
        id: [f"t{t}" for t in np.flatnonzero(row)] * 12 + ["x"] * random.integers(9) for id, row in enumerate(there)
    }
    index = filled(corpus, k1=1.2, b=0.75)
    for chosen in random.random((150, 9)) < 0.6:
        terms = [f"t{t}" for t in np.flatnonzero(chosen)]
        if terms:
            check(index, lucene(corpus, terms), terms, k)
    assert k == 30 or len(looked_up) > 10


@pytest.mark.parametrize("variant", ["lucene", "okapi"])
@pytest.mark.parametrize("share", [1, 2, 50, 400])
def test_allowed_passages_keep_their_scores(variant: Any, share: int) -> None:
    corpus = zipf_corpus(1500)
    index = filled(corpus, variant, k1=1.2, b=0.75)
    index.remove([4, 8, 400])
    alive = {id: tokens for id, tokens in corpus.items() if id not in (4, 8, 400)}
    allowed = np.array([-5, *range(0, 1500, share), 10**12], dtype=np.int64)
    for terms in (["w1", "w2", "w50"], ["w3"], ["w900", "w1"]):
        want = {id: s for id, s in expected(alive, terms, variant).items() if id % share == 0}
        ids, scores = index.search(terms, 20, allowed=allowed)
        assert ids.tolist() == sorted(want, key=lambda id: (-want[id], id))[:20]
        assert scores == pytest.approx([want[id] for id in ids.tolist()], rel=1e-9)
    assert index.search(["w1"], 5, allowed=np.zeros(0, dtype=np.int64))[0].tolist() == []


def test_equal_scores_come_by_id_across_segments() -> None:
    index = LexicalIndex()
    for id in (9, 2, 30, 5, 7, 1):
        index.add([id], [["same", "words"]])
    assert index.search(["same"], 4)[0].tolist() == [1, 2, 5, 7]


@pytest.mark.parametrize("kind", ["lucene", "okapi", "l", "rank_bm25"])
def test_shares_add_up(kind: str) -> None:
    index = get_lexical(kind)
    index.add(list(CORPUS), list(CORPUS.values()))
    terms = ["cat", "cat", "tree", "dog", "no"]
    ids, scores = index.search(terms, 10)
    for id, score in zip(ids.tolist(), scores.tolist(), strict=True):
        shares = index.explain(terms, id)
        assert set(shares) == set(terms) & set(CORPUS[id])
        assert sum(shares.values()) == pytest.approx(score, rel=1e-12)
    with pytest.raises(InputError, match="no passage 77"):
        index.explain(terms, 77)


def test_shares_in_plus_leave_out_what_every_passage_gets() -> None:
    # "dog" is in one of five passages: every passage gets delta * ln(6 / 1) for it.
    index = filled(CORPUS, "plus")
    score = dict(zip(*(a.tolist() for a in index.search(["cat", "dog"], 9)), strict=True))[12]
    assert sum(index.explain(["cat", "dog"], 12).values()) + math.log(6) == pytest.approx(score, rel=1e-12)


def test_an_addition_touches_little() -> None:
    """Segments are merged by size: 1000 additions to a large index move each passage ten times at most."""
    index = filled(zipf_corpus(2500))
    base = index._state.fresh[0]
    for id in range(10_000, 11_000):
        index.add([id], [["new", "passage"]])
        assert len(index._state.fresh) <= 12
    assert index._state.fresh[0] is base


def test_removing_most_gives_room_back() -> None:
    index = filled(zipf_corpus(1000), k1=1.2, b=0.75)
    index.remove(range(900))
    assert sum(len(segment.ids) for segment in index._state.segments) == 100
    check(index, lucene({i: t for i, t in zipf_corpus(1000).items() if i >= 900}, ["w1", "w7"]), ["w1", "w7"], 20)


def test_a_saved_index_is_mapped_and_can_grow(tmp_path: Path) -> None:
    paths = filled(CORPUS, "okapi", k1=0.9, b=0.4, epsilon=0.5).save(tmp_path, "g000042")
    assert sorted(p.name for p in paths) == sorted(p.name for p in tmp_path.iterdir())
    assert all(p.name.startswith("g000042-lexical.") and p.suffix == ".npy" for p in paths)
    index = LexicalIndex.load(tmp_path, "g000042")
    assert index.settings == {"variant": "okapi", "k1": 0.9, "b": 0.4, "delta": 0.0, "epsilon": 0.5}
    assert not index._state.base.docs.flags.writeable
    assert isinstance(index._state.base.docs.base, np.memmap)
    index.add([20], [["cat", "new"]])
    index.remove([3])
    now = {id: tokens for id, tokens in CORPUS.items() if id != 3} | {20: ["cat", "new"]}
    want = filled(now, "okapi", k1=0.9, b=0.4, epsilon=0.5).search(["cat", "new", "the"], 9)
    got = index.search(["cat", "new", "the"], 9)
    assert got[0].tolist() == want[0].tolist()
    assert got[1] == pytest.approx(want[1], rel=1e-12)


def test_an_empty_index_is_saved_and_opened(tmp_path: Path) -> None:
    for index in (LexicalIndex(), RankBM25Index()):
        index.save(tmp_path, "g0")
        assert type(index).load(tmp_path, "g0").search(["a"], 3)[0].tolist() == []


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    paths = {p.name.split(".")[1]: p for p in filled(CORPUS).save(tmp_path, "g1")}
    whole = {name: path.read_bytes() for name, path in paths.items()}
    for name, path in paths.items():
        path.write_bytes(whole[name][:-4])
        with pytest.raises(StorageError, match=r"Delete"):
            LexicalIndex.load(tmp_path, "g1")
        path.unlink()
        with pytest.raises(StorageError, match=name):
            LexicalIndex.load(tmp_path, "g1")
        path.write_bytes(whole[name])
    np.save(paths["codes"], np.ones(3, dtype=np.uint16))
    with pytest.raises(StorageError, match="do not belong together"):
        LexicalIndex.load(tmp_path, "g1")
    with pytest.raises(StorageError, match="another kind"):
        RankBM25Index.load(tmp_path, "g1")


def test_vocabulary_finds_each_term_and_no_other() -> None:
    terms = sorted(t.encode("utf-8", "surrogatepass") for t in ["", "a", "ab", "b\x00", "ä", "\ud800x", "日本", "😀"])
    vocabulary = Vocabulary.of(terms)
    assert [vocabulary.find(t.decode("utf-8", "surrogatepass")) for t in terms] == list(range(8))
    assert [vocabulary.find(t) for t in ("aa", "b", "zz", "\ud800", "日", "\uffff")] == [-1] * 6
    assert vocabulary.terms() == terms


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEP, max_size=6), terms=QUERY, variant=st.sampled_from(["okapi", "l", "plus"]))
def test_rank_bm25_behind_the_same_methods(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], terms: list[str], variant: Any
) -> None:
    package, own = RankBM25Index(variant, k1=1.2, b=0.75), LexicalIndex(variant, k1=1.2, b=0.75)
    there: set[int] = set()
    for step, argument in steps:
        if step == "add":
            new = {id: tokens for id, tokens in argument.items() if id not in there}
            for index in (package, own):
                index.add(list(new), list(new.values()))
            there |= set(new)
        elif step == "remove":
            package.remove(argument)
            own.remove(argument)
            there -= set(argument)
        else:
            folder = tmp_path_factory.mktemp("saved")
            package.save(folder, "g1")
            package = RankBM25Index.load(folder, "g1")
    allowed = np.arange(0, 30, dtype=np.int64)
    assert package.ids.tolist() == own.ids.tolist()
    for chosen in (None, allowed):
        got, want = package.search(terms, 50, allowed=chosen), own.search(terms, 50, allowed=chosen)
        assert sorted(got[0].tolist()) == sorted(want[0].tolist())
        assert got[1] == pytest.approx(want[1], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("index", [LexicalIndex(), RankBM25Index()], ids=["own", "rank_bm25"])
def test_bad_input_changes_nothing(index: LexicalIndex | RankBM25Index) -> None:
    index.add([1], [["a"]])
    with pytest.raises(InputError, match="Passage 1 is in the index already"):
        index.add([2, 1], [["b"], ["c"]])
    with pytest.raises(InputError, match="Passage 5 is given twice"):
        index.add([5, 5], [["b"], ["c"]])
    with pytest.raises(InputError, match="2 ids came with 1 token lists"):
        index.add([5, 6], [["b"]])
    with pytest.raises(InputError, match="integers"):
        index.add(["x"], [["b"]])  # type: ignore[list-item]
    with pytest.raises(InputError, match="k=0"):
        index.search(["a"], 0)
    assert index.ids.tolist() == [1]
    index.remove([1, 2, 3])
    assert index.search(["a"], 5)[0].tolist() == []


def test_bad_parameters() -> None:
    for bad in ({"k1": -1.0}, {"k1": math.nan}, {"b": 1.5}, {"delta": -0.1}, {"epsilon": math.inf}):
        with pytest.raises(InputError, match=next(iter(bad))):
            LexicalIndex(**bad)
    with pytest.raises(InputError, match="bm52"):
        LexicalIndex("bm52")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lucene, okapi, l, plus, rank_bm25"):
        get_lexical("bm52")
    with pytest.raises(InputError, match="lucene"):
        RankBM25Index("lucene")

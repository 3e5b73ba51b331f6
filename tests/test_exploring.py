"""Similar documents, duplicates, labels and summaries, by numbers that can be computed by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

from semsearch import Document, Index
from semsearch.errors import InputError
from semsearch.exploring import near_pairs


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "index", encoder=WordEncoder()) as index:
        yield index


def ids(hits: Any) -> list[str]:
    return [hit.passage.document_id for hit in hits]


# ------------------------------------------------------------------------------------------------------------- similar


def test_similar_documents_come_by_cosine(index: Index) -> None:
    index.add([("a", "red blue green gold"), ("b", "red blue green grey"), ("c", "red blue oak elm"), ("d", "one two")])
    hits = index.similar("a", k=3)
    assert ids(hits) == ["b", "c", "d"]
    assert [hit.score for hit in hits] == pytest.approx([3 / 4, 2 / 4, 0], abs=1e-6)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert ids(index.similar("a", k=1)) == ["b"]
    assert ids(index.similar("a", k=50)) == ["b", "c", "d"]


def test_a_long_document_is_like_others_by_all_of_its_passages_and_comes_once(index: Index) -> None:
    long = "\n\n".join(f"{animal} " * 300 for animal in ("cat", "dog", "cow"))
    index.add([("long", long), ("cats", "cat cat"), ("both", "cat dog"), ("longer", long + "\n\nhen"), ("no", "yes")])
    assert len(index) > 8
    hits = index.similar("long", k=3)
    assert ids(hits) == ["longer", "both", "cats"]
    assert hits[0].score > 0.99
    assert [hit.score for hit in hits[1:]] == pytest.approx(
        [math.sqrt(2 / 3), math.sqrt(1 / 3)], abs=0.05
    )  # not all parts are equal


def test_similar_documents_are_filtered(index: Index) -> None:
    for n in range(30):
        index.add(Document(f"d{n}", f"red {'blue' if n < 15 else 'green'} {n}", metadata={"odd": n % 2}))
    hits = index.similar("d0", k=5, where={"odd": 1})
    assert len(hits) == 5
    assert all(int(id[1:]) % 2 and int(id[1:]) < 15 for id in ids(hits))
    assert ids(index.similar("d0", k=5, where={"odd": 7})) == []


def test_what_has_nothing_to_be_similar_by(index: Index) -> None:
    index.add([("empty", ""), ("a", "red")])
    with pytest.raises(InputError, match="'empty' has no vector to be compared by"):
        index.similar("empty")
    with pytest.raises(InputError, match="There is no document 'b' in the index"):
        index.similar("b")
    with pytest.raises(InputError, match="k must be a whole number of at least 1, not 0"):
        index.similar("a", k=0)
    assert index.similar("a") == []


# ---------------------------------------------------------------------------------------------------------- duplicates


def test_duplicates_by_hand(index: Index) -> None:
    index.add(
        [
            ("a", "one two three four"),
            ("b", "four three two one"),
            ("c", "one two three five"),
            ("d", "six seven"),
            ("e", "one two three four"),
        ]
    )
    pairs = index.duplicates(0.99)
    assert [(p.first.document_id, p.second.document_id) for p in pairs] == [("a", "b"), ("a", "e")]  # type: ignore[union-attr]
    assert [p.score for p in pairs] == pytest.approx([1.0, 1.0])
    assert pairs[1].overlap == 1.0
    # Of 14 runs of five characters each, both have " thre", "three", "hree ", "e two" and " two ".
    assert pairs[0].overlap == pytest.approx(5 / (14 + 14 - 5))
    found = {(p.first.document_id, p.second.document_id): p.score for p in index.duplicates(0.7)}  # type: ignore[union-attr]
    assert found == pytest.approx({("a", "b"): 1.0, ("a", "e"): 1.0, ("a", "c"): 0.75, ("b", "c"): 0.75})
    assert len(index.duplicates(0.7, limit=3)) == 3
    assert "a[0:18] 'one two three four'" in str(pairs[0])


def test_the_same_text_in_many_documents_gives_one_pair_each(index: Index) -> None:
    index.add([(str(n), "all rights reserved") for n in range(200)])
    pairs = index.duplicates()
    assert len(pairs) == 199
    assert {p.first.document_id for p in pairs} == {"0"}  # type: ignore[union-attr]


def test_duplicate_documents_are_told_by_all_their_passages(index: Index) -> None:
    parts = [f"{animal} " * 300 for animal in ("cat", "dog", "cow", "hen")]
    index.add([("all", "\n\n".join(parts)), ("again", "\n\n".join(parts) + "\n\nend"), ("cats", parts[0])])
    (pair,) = index.duplicates(0.9, of="documents")
    assert (pair.first.id, pair.second.id) == ("all", "again")
    assert pair.overlap > 0.8
    assert any({p.first.document_id, p.second.document_id} == {"all", "cats"} for p in index.duplicates(0.9))  # type: ignore[union-attr]


def test_duplicates_are_filtered(index: Index) -> None:
    index.add([Document(str(n), "red blue", metadata={"part": n // 2}) for n in range(4)])
    (pair,) = index.duplicates(where={"part": 1})
    assert (pair.first.document_id, pair.second.document_id) == ("2", "3")  # type: ignore[union-attr]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, True, "0.9", math.nan])
def test_bad_threshold(index: Index, threshold: Any) -> None:
    with pytest.raises(InputError, match="is no cosine similarity to reach"):
        index.duplicates(threshold)
    with pytest.raises(InputError, match="of='texts' is not known"):
        index.duplicates(of="texts")
    assert index.duplicates() == []


def clustered(count: int, seed: int) -> np.ndarray:
    """(count, 32) unit vectors around 40 centres, some of them close to each other."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(40, 32))[random.integers(40, size=count)] + random.normal(size=(count, 32)) * 0.25
    rows: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def test_near_pairs_are_those_of_the_whole_matrix() -> None:
    vectors = clustered(5000, 1)  # more than two blocks
    wide = vectors.astype(np.float64)
    i, j = np.nonzero(np.triu(wide @ wide.T >= 0.95 - 1e-6, 1))
    pairs = near_pairs(vectors, 0.95, 10**6)
    assert len(i) > 1000
    assert {pair[:2] for pair in pairs} == set(zip(i.tolist(), j.tolist(), strict=True))
    scores = [score for _, _, score in pairs]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx([float(wide[i] @ wide[j]) for i, j, _ in pairs])
    assert near_pairs(vectors, 0.95, 100) == pairs[:100]


def test_near_pairs_by_lists_are_nearly_all_and_none_is_wrong() -> None:
    vectors = clustered(5000, 2)
    exactly = set(near_pairs(vectors, 0.95, 10**6))
    listed = set(near_pairs(vectors, 0.95, 10**6, exact=100))
    assert listed <= exactly
    assert len(listed) > 0.97 * len(exactly)


# ------------------------------------------------------------------------------------------------------ classification


def topics(index: Index, count: int = 20) -> None:
    random = np.random.default_rng(0)
    words = {"sea": ["wave", "tide", "ship", "sand", "salt"], "land": ["hill", "tree", "path", "farm", "corn"]}
    index.add(
        [
            Document(f"{topic}{n}", " ".join(random.choice(own, 4)) + f" {topic}", metadata={"topic": topic, "n": n})
            for n in range(count)
            for topic, own in words.items()
        ]
    )


def test_the_nearest_documents_vote_on_the_label(index: Index) -> None:
    topics(index)
    result = index.classify("wave tide ship sea", "topic")
    assert (result.label, result.near) == ("sea", True)
    assert result.probability == result.probabilities["sea"] > 0.9
    assert sum(result.probabilities.values()) == pytest.approx(1)
    assert len(result.hits) == 20
    both = index.classify(["ship sand sea", "hill farm land"], "topic", where={"n": {"$lt": 10}})
    assert [each.label for each in both] == ["sea", "land"]
    assert all(hit.passage.metadata["n"] < 10 for each in both for hit in each.hits)


def test_votes_by_hand(index: Index) -> None:
    index.add([Document("a", "x y", metadata={"kind": "one"}), Document("b", "x z", metadata={"kind": ["two", 3]})])
    result = index.classify("x y y", "kind")
    # Cosines 3/√10 and 1/√10: votes 0.81 and 0.01, the latter halved; sharpened by 1.75.
    small = (0.005 / 0.81) ** 1.75
    assert dict(result.probabilities) == pytest.approx(
        {"one": 1 / (1 + 2 * small), 3: small / (1 + 2 * small), "two": small / (1 + 2 * small)}, rel=1e-3
    )


def test_no_label_where_nothing_is_near(index: Index) -> None:
    topics(index)
    result = index.classify("a paragraph about quantum chromodynamics", "topic")
    assert (result.label, result.near, result.probability) == (None, False, 0.0)
    assert str(result).startswith("no label: nothing labelled is near (nearest: ")


def test_labels_may_be_dotted_numbers_and_false(index: Index) -> None:
    index.add([Document(str(n), f"red {n}", metadata={"a": {"b": n % 2 == 0}}) for n in range(8)])
    index.add([("none", "red 1")])
    result = index.classify("red 4", "a.b", k=1)
    assert result.label is True
    assert index.classify("red 3", "a.b", k=1).label is False


def test_a_label_that_nothing_has(index: Index) -> None:
    index.add([Document("a", "red", metadata={"topic": "x"}), ("b", "blue")])
    with pytest.raises(InputError, match="Fewer than two documents have the metadata 'colour'"):
        index.classify("red", "colour")
    with pytest.raises(InputError, match="Fewer than two documents have the metadata 'topic'"):
        index.classify("red", "topic")
    with pytest.raises(InputError, match="label_key=5 names no metadata"):
        index.classify("red", 5)  # type: ignore[call-overload]


def test_one_document_of_many_passages_is_one_document(index: Index) -> None:
    text = "\n\n".join(f"# Part {n}\n\n" + f"red{n} word " * 200 for n in range(12))
    index.add([Document("a", text, metadata={"topic": "x", "suffix": ".md"}), ("b", "blue")])
    assert len(index) > 10
    with pytest.raises(InputError, match="Fewer than two documents have the metadata 'topic'"):
        index.classify("red3 word", "topic")
    index.add([Document("c", "green", metadata={"topic": "y"})])
    assert index.classify("red3 word", "topic").probabilities.keys() == {"x", "y"}


# ----------------------------------------------------------------------------------------------------------- summaries


def test_a_summary_is_of_sentences_with_exact_offsets_each_for_another_topic(index: Index) -> None:
    texts = {
        "cats.md": "# Cats\n\n" + "Cats sleep and cats purr. A cat likes cats and milk a lot. " * 8,
        "ships.txt": "Ships sail on the sea.\r\nA ship and ships sail the wide sea. The sea has many ships. " * 6,
        "zh.txt": "图书馆每天九点开门。",
        "table.csv": "a,b\n1,2\n",
    }
    index.add([Document(id, text, metadata={"suffix": Path(id).suffix}) for id, text in texts.items()])
    summary = index.summarize(sentences=3)
    assert len(summary) == 3
    for sentence in summary:
        assert texts[sentence.document_id][sentence.start : sentence.end] == sentence.text == str(sentence)
    assert {sentence.document_id for sentence in summary} == {"cats.md", "ships.txt", "zh.txt"}
    assert sum(sentence.score for sentence in summary) == pytest.approx(1)
    assert [sentence.score for sentence in summary] == sorted([s.score for s in summary], reverse=True)
    assert {s.document_id for s in index.summarize(where={"suffix": ".txt"}, sentences=9)} == {"ships.txt", "zh.txt"}
    assert index.summarize(where={"suffix": ".csv"}) == []


def test_what_is_no_sentence_is_in_no_summary(index: Index) -> None:
    text = "* A book costs five pounds here.\n\nname: one two three four\nplace: the hall.\n\n| a | b | c | d | e |\n"
    index.add([("a", text)])
    assert [(s.text, s.start) for s in index.summarize()] == [("A book costs five pounds here.", 2)]


def test_a_summary_says_nothing_twice(index: Index) -> None:
    index.add([(str(n), f"The library is closed on all Sundays. It is number {n} of all.") for n in range(20)])
    texts = [sentence.text for sentence in index.summarize(sentences=4)]
    assert texts.count("The library is closed on all Sundays.") == 1
    assert len(set(texts)) == 4
    with pytest.raises(InputError, match="sentences must be a whole number of at least 1, not 0"):
        index.summarize(sentences=0)


def test_sentences_are_chosen_by_hand(index: Index) -> None:
    # Words a to e and z; each passage is one sentence. Similarities: p·q 4/5, p·r 4/5, q·r 3/5, s to none of them.
    texts = {"p": "aa bb cc dd ee!", "q": "aa bb cc dd ff!", "r": "zz bb cc dd ee!", "s": "one two three four five!"}
    index.add([(id, text.replace("!", " !")) for id, text in texts.items()])
    summary = index.summarize(sentences=4)
    # With the "!" as a word of its own (6 words): p·q = p·r = 5/6, q·r = 4/6, each to s 1/6.
    # p gains 1 + 5/6 + 5/6 + 1/6; then s 5/6; then q and r 1/6 each.
    assert [sentence.document_id for sentence in summary] == ["p", "s", "q", "r"]
    gains = np.array([17, 5, 1, 1]) / 24
    assert [sentence.score for sentence in summary] == pytest.approx(gains.tolist(), abs=1e-5)


def test_the_real_encoder_explores_the_example_documents(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "examples" / "documents"
    with Index(tmp_path / "index") as index:
        index.sync(folder, pattern="*.md")
        original = index.get("services/late-fees.md")
        assert original is not None
        index.add(replace(original, id="copy", text=original.text + "\n\nThe end."))
        assert ids(index.similar("services/late-fees.md", k=2))[0] == "copy"
        pairs = index.duplicates(of="documents")
        assert [(p.first.id, p.second.id) for p in pairs] == [("services/late-fees.md", "copy")]  # type: ignore[union-attr]
        for sentence in index.summarize():
            document = index.get(sentence.document_id)
            assert document is not None
            assert document.text[sentence.start : sentence.end] == sentence.text

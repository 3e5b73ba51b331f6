"""Systems from named parts: which ones are made, what is shared between them, and what a comparison shows."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder

from semsearch import Document, Index, Retriever, fusion
from semsearch.comparing import compare
from semsearch.datasets import Dataset, Question
from semsearch.errors import InputError, MissingExtraError
from semsearch.records import Passage

WORDS = ["river", "stone", "bridge", "tower", "market", "garden", "harbour", "castle"]
DOCUMENTS = [
    Document(word, f"The {word} of the town is old. It is near the {WORDS[n - 1]}.") for n, word in enumerate(WORDS)
]
QUESTIONS = tuple(Question(word, f"old {word} of the town", {word: 1}) for word in WORDS)
DATASET = Dataset("town", QUESTIONS, lambda: iter(DOCUMENTS))


class Lengths(WordEncoder):
    """As bad as an encoder can be: only the length of a text counts."""

    name = "lengths"

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        return super().encode(["x" * (len(text) % 7) for text in texts], kind=kind)


class Counting(WordEncoder):
    """Counts its queries, and takes its time."""

    name = "counting"

    def __init__(self, wait: float = 0.0) -> None:
        super().__init__()
        self.queries: list[str] = []
        self.wait = wait

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        if kind == "query":
            self.queries += texts
            time.sleep(self.wait)
        return super().encode(texts, kind=kind)


def names(comparison: Any) -> list[str]:
    return [evaluation.name for evaluation in comparison.evaluations]


def test_parts_are_combined_in_every_way_that_makes_a_difference() -> None:
    comparison = compare(
        dataset=DATASET,
        encoders=[WordEncoder(), Lengths()],
        fusions=["rrf", partial(fusion.rrf, constant=20), fusion.min_max],
    )
    assert names(comparison) == [
        "lexical",
        "toy-words dense",
        "toy-words hybrid rrf",
        "toy-words hybrid rrf(constant=20)",
        "toy-words hybrid min_max",
        "lengths dense",
        "lengths hybrid rrf",
        "lengths hybrid rrf(constant=20)",
        "lengths hybrid min_max",
    ]
    by_name = {e.name: e.metrics["ndcg@10"] for e in comparison.evaluations}
    assert by_name["toy-words dense"] == 1.0
    assert by_name["lengths dense"] < 0.9
    assert [(cost.encoder, cost.passages) for cost in comparison.indexes] == [("toy-words", 8), ("lengths", 8)]
    assert all(cost.seconds > 0 and cost.size for cost in comparison.indexes)
    assert "\nlengths: 8 passages indexed in " in str(comparison)


def test_parts_of_the_same_name_are_numbered() -> None:
    def weighted(weight: float) -> Any:
        def mine(rankings: Any, *, k: int) -> Any:
            return fusion.convex(rankings, k=k, weights={"dense": weight})

        return mine

    def constant(value: float, query: str, passages: Sequence[Passage]) -> list[float]:
        return [value for _ in passages]

    fusions = [weighted(0), weighted(1)]
    comparison = compare(dataset=DATASET, encoders=[WordEncoder()], modes=["hybrid"], fusions=fusions)
    assert names(comparison) == ["hybrid mine", "hybrid mine (2)"]
    rerankers = [partial(constant, 1), partial(constant, 2), partial(constant, 2)]
    comparison = compare(dataset=DATASET, encoders=[WordEncoder()], modes=["dense"], rerankers=rerankers)
    assert names(comparison) == ["dense + constant(1)", "dense + constant(2)", "dense + constant(2) (2)"]


def test_named_systems_give_what_they_give_by_themselves(tmp_path: Path) -> None:
    with Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add(DOCUMENTS)
        own = compare({mode: Retriever(index, mode=mode) for mode in ("lexical", "dense", "hybrid")}, DATASET)
        made = compare(dataset=DATASET, documents=index, modes=["lexical", "dense", "hybrid"])
        assert made.indexes == ()  # the index that was given is searched itself
        assert [e.scores for e in own.evaluations] == [e.scores for e in made.evaluations]
        both = compare({"mine": Retriever(index, mode="lexical")}, DATASET, documents=index, modes=["lexical"])
        assert names(both) == ["mine", "lexical"]


def test_a_question_is_encoded_once_and_its_time_counts_every_time() -> None:
    encoder = Counting(wait=0.004)
    comparison = compare(dataset=DATASET, encoders=[encoder], modes=["dense", "hybrid"], fusions=["rrf", "z_score"])
    assert sorted(encoder.queries) == sorted(question.text for question in QUESTIONS)
    assert names(comparison) == ["dense", "hybrid rrf", "hybrid z_score"]
    assert all(e.median_ms >= 4 for e in comparison.evaluations)


def test_rerankers_and_readers_are_combined_too(tmp_path: Path) -> None:
    def backwards(query: str, passages: Sequence[Passage]) -> list[float]:
        return [float(n) for n in range(len(passages))]

    comparison = compare(dataset=DATASET, encoders=[WordEncoder()], modes=["lexical"], rerankers=[None, backwards])
    assert names(comparison) == ["lexical", "lexical + backwards"]
    assert comparison.recommended == "lexical"

    class First:
        """Reads the first word of each text."""

        name = "first"

        def read(self, question: str, texts: Sequence[str]) -> list[tuple[int, int, int, float]]:
            return [(n, 0, 3, 0.9) for n in range(len(texts))]

    class Fourth(First):
        name = "town"

        def read(self, question: str, texts: Sequence[str]) -> list[tuple[int, int, int, float]]:
            return [(n, text.index("town"), text.index("town") + 4, 0.9) for n, text in enumerate(texts)]

    asked = [{"question": "old river", "answer": "town"}, {"question": "old castle", "answer": "town"}]
    answers = compare(
        dataset=asked, documents=DOCUMENTS, encoders=[WordEncoder()], modes=["lexical"], readers=[First(), Fourth()]
    )
    assert names(answers) == ["lexical, read by first", "lexical, read by town"]
    assert [e.metrics["em"] for e in answers.evaluations] == [0, 1]
    assert (answers.metric, answers.recommended) == ("f1", "lexical, read by town")


def test_documents_may_be_a_folder(tmp_path: Path) -> None:
    for document in DOCUMENTS:
        (tmp_path / f"{document.id}.txt").write_text(document.text)
    asked = [(f"{word} old", f"{word}.txt") for word in WORDS]
    comparison = compare(dataset=asked, documents=str(tmp_path), encoders=[WordEncoder(), Lengths()], modes=["dense"])
    assert comparison.recommended == "toy-words dense"


def test_a_static_encoder_is_compared_by_its_path(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: n for n, word in enumerate(["[UNK]", "old", "town", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    vectors = np.eye(len(vocabulary), 16, dtype=np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu").save(
        str(tmp_path / "static")
    )
    comparison = compare(dataset=DATASET, encoders=[tmp_path / "static", Lengths()], modes=["dense"])
    assert names(comparison) == ["static dense", "lengths dense"]
    assert comparison.evaluations[0].metrics["mrr@10"] > comparison.evaluations[1].metrics["mrr@10"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare([1, 2]), "Compare on what"),
        (lambda: compare(dataset=DATASET), "at least 2 systems, not 0"),
        (lambda: compare(dataset=DATASET, modes="dense"), r"modes= takes a list, not 'dense'. Pass \['dense'\]"),
        (lambda: compare(dataset=DATASET, fusions=["sum"]), "no fusion 'sum'. Choose among .*convex, .*rrf"),
        (lambda: compare(dataset=DATASET, fusions=[3]), "A fusion is a function or a name, not 3"),
        (lambda: compare(dataset=[("a", "b")], modes=["dense"]), "has questions only, no documents"),
        (lambda: compare(dataset=DATASET, documents=5, modes=["dense"]), "takes a folder, a list of documents or an"),
    ],
)
def test_bad_parts(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.fixture(scope="module")
def comparison() -> Any:
    return compare(dataset=DATASET, encoders=[WordEncoder(), Lengths()])


def test_json_holds_all_there_is(tmp_path: Path, comparison: Any) -> None:
    text = comparison.to_json(tmp_path / "out.json", scores=True)
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == text
    content = json.loads(text)
    assert content["recommended"] == comparison.recommended
    assert len(content["systems"]) == 5
    assert content["systems"][1]["scores"]["mrr@10"]["river"] == 1.0
    assert content["indexes"][1]["encoder"] == "lengths"
    difference = next(each for each in content["differences"] if each["system"] == "lengths dense")
    assert difference["low"] <= difference["mean"] <= difference["high"] < 0


def test_the_picture_names_every_system(tmp_path: Path, comparison: Any) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figure = comparison.plot(tmp_path / "out.svg")
    labels = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert labels == set(names(comparison))
    assert re.search(r"<svg", (tmp_path / "out.svg").read_text())


def test_without_matplotlib_the_extra_is_named(comparison: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'semsearch\[plot\]'"):
        comparison.plot()

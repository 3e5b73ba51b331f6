"""Metrics by hand and against ir-measures; datasets in every layout; systems whose rankings are known."""

from __future__ import annotations

import gzip
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.errors import InputError
from semsearch.evaluation import (
    Dataset,
    Question,
    calibration_error,
    compare,
    evaluate,
    exact_match,
    randomisation_test,
    read_beir,
    read_dataset,
    read_questions,
    read_squad,
    score_ranking,
    token_f1,
)
from semsearch.metrics import contains_answer, holm
from semsearch.records import Answer, Citation, Document, Hit, Passage

# ------------------------------------------------------------------------------------------------------------- ranking


def test_ranking_metrics_by_hand() -> None:
    # Relevant: a (grade 3), b (grade 1), e (grade 2, never found); x is unjudged, z judged not relevant.
    scores = score_ranking(["x", "a", "z", "b"], {"a": 3, "b": 1, "e": 2, "z": 0}, k=10)
    gain = 3 / math.log2(3) + 1 / math.log2(5)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert scores == pytest.approx(
        {
            "ndcg@10": gain / ideal,
            "map@10": (1 / 2 + 2 / 4) / 3,
            "mrr@10": 1 / 2,
            "recall@10": 2 / 3,
            "precision@10": 2 / 10,
        }
    )


def test_ranking_metrics_are_cut_off_at_k() -> None:
    scores = score_ranking(["x", "y", "a"], {"a": 1, "b": 1, "c": 1}, k=2)
    assert scores == {"ndcg@2": 0, "map@2": 0, "mrr@2": 0, "recall@2": 0, "precision@2": 0}
    assert score_ranking(["a", "b"], {"a": 1, "b": 1, "c": 1}, k=2)["ndcg@2"] == 1.0
    assert set(score_ranking([], {"a": 1}, k=3).values()) == {0.0}
    assert set(score_ranking(["a"], {"a": 0}, k=3).values()) == {0.0}
    for k in (0, -1):
        with pytest.raises(InputError, match=f"k must be a whole number of at least 1, not {k}"):
            score_ranking(["a"], {"a": 1}, k=k)


_runs = st.lists(
    st.tuples(
        st.permutations(list("abcdefghijkl")), st.dictionaries(st.sampled_from("abcdefghmno"), st.integers(-1, 4))
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(_runs, st.integers(0, 12), st.sampled_from([1, 3, 10]))
def test_ranking_metrics_agree_with_ir_measures(
    runs: list[tuple[list[str], dict[str, int]]], length: int, k: int
) -> None:
    ir = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    runs = [(ranking[:length], judged) for ranking, judged in runs if judged]
    qrels = [ir.Qrel(str(q), d, g) for q, (_, judged) in enumerate(runs) for d, g in judged.items()]
    run = [ir.ScoredDoc(str(q), d, -float(r)) for q, (ranking, _) in enumerate(runs) for r, d in enumerate(ranking)]
    names = {
        f"ndcg@{k}": ir.nDCG @ k,
        f"map@{k}": ir.AP @ k,
        f"mrr@{k}": ir.RR @ k,
        f"recall@{k}": ir.R @ k,
        f"precision@{k}": ir.P @ k,
    }
    ours = [score_ranking(ranking, judged, k=k) for ranking, judged in runs]
    if not runs or not run:
        return
    theirs = ir.calc_aggregate(list(names.values()), qrels, run)
    for name, measure in names.items():
        assert np.mean([row[name] for row in ours]) == pytest.approx(theirs[measure], abs=1e-6), name


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("The Eiffel Tower", ["eiffel tower!"], 1, 1),
        ("an  apple\n", ["Apple."], 1, 1),
        ("theory", ["ory"], 0, 0),
        ("tower", ["the tall tower"], 0, 2 * 1 * 0.5 / 1.5),
        ("5,000", ["5000"], 1, 1),
        ("it's", ["its"], 1, 1),
        ("a b c d", ["b x", "c d e"], 0, 2 * (2 / 3) * (2 / 3) / (4 / 3)),
        ("dog dog", ["dog"], 0, 2 * 0.5 * 1 / 1.5),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
        ("the", ["the"], 1, 1),
        ("Ünïcode – dash", ["ünïcode – DASH"], 1, 1),
        ("东京 都", ["東京"], 0, 2 * (1 / 3) * (1 / 2) / (5 / 6)),
        ("《泡泡堂》。", ["泡泡堂"], 1, 1),
        ("tower", "The tower", 1, 1),  # a string is one answer, not its letters
        ("t", "tower", 0, 0),
    ],
)
def test_exact_match_and_f1(prediction: str, answers: str | list[str], em: float, f1: float) -> None:
    assert exact_match(prediction, answers) == em
    assert token_f1(prediction, answers) == pytest.approx(f1)


def _official_f1(prediction: str, gold: str) -> float:
    """compute_f1 of SQuAD 2.0's evaluate-v2.0.py, word for word but for names."""
    import collections
    import re
    import string

    def normalise(s: str) -> str:
        s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", s).split())

    gold_toks, pred_toks = normalise(gold).split(), normalise(prediction).split()
    common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
    num_same = sum(common.values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision, recall = num_same / len(pred_toks), num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


_sentences = st.lists(st.sampled_from(["the", "a", "An", "cat", "Cat.", "hat", "2,5", "—", "...", "it's"]), max_size=6)


@given(_sentences, _sentences)
def test_f1_agrees_with_the_official_script(prediction: list[str], gold: list[str]) -> None:
    left, right = " ".join(prediction), " ".join(gold)
    assert token_f1(left, [right]) == pytest.approx(_official_f1(left, right))


def test_an_answer_is_contained_as_whole_words() -> None:
    assert contains_answer("It was built in 1854, by the city.", ["1854"])
    assert not contains_answer("It was built in 18541.", ["1854"])
    assert contains_answer("生命数耗完即算为踢爆。", ["踢爆"])
    assert not contains_answer("anything", ["", "the"])
    assert contains_answer("The tall tower.", "tall tower")
    assert not contains_answer("This is a b.", "bc")


# -------------------------------------------------------------------------------------- calibration and significance


def test_calibration_error_by_hand() -> None:
    # Two bins of two: |0.15 - 0.5| and |0.85 - 1.0|, each half of the mass.
    assert calibration_error([0.9, 0.1, 0.2, 0.8], [1, 0, 1, 1], bins=2) == pytest.approx((0.35 + 0.15) / 2)
    assert calibration_error([0.5] * 4, [1, 0, 0, 1]) == 0.0
    assert calibration_error([1.0, 1.0], [0, 0]) == 1.0
    assert math.isnan(calibration_error([], []))
    with pytest.raises(InputError, match="bins must be a whole number of at least 1, not 0"):
        calibration_error([0.5], [1], bins=0)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 1.0])), min_size=1), st.randoms())
def test_calibration_error_does_not_depend_on_the_order(pairs: list[tuple[float, float]], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    first = calibration_error(*map(list, zip(*pairs, strict=True)))
    assert calibration_error(*map(list, zip(*shuffled, strict=True))) == pytest.approx(first)


def test_randomisation_test_counts_all_signs_of_few_differences() -> None:
    differences = [0.3, 0.1, -0.05, 0.2, 0.0]
    others = [0.0] * 5
    extreme = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= abs(sum(differences)) - 1e-12
        for signs in product([-1, 1], repeat=5)
    ]
    assert randomisation_test(differences, others) == pytest.approx(sum(extreme) / 32)
    assert randomisation_test([1.0] * 5, [0.0] * 5) == 2 / 32
    assert randomisation_test([0.4, 0.7], [0.4, 0.7]) == 1.0


def test_randomisation_test_agrees_with_the_t_test_on_many_questions() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    random = np.random.default_rng(4)
    a = random.normal(0.5, 0.3, 400)
    b = a - random.normal(0.03, 0.2, 400)
    p = randomisation_test(a.tolist(), b.tolist())
    assert p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.006)
    assert 0.005 < p < 0.2  # or the comparison says little
    assert randomisation_test(a.tolist(), b.tolist()) == p
    assert randomisation_test((a + 1).tolist(), a.tolist()) == 1 / 10_001


def test_paired_scores_must_pair() -> None:
    with pytest.raises(InputError, match="got 2 and 1 scores"):
        randomisation_test([1, 2], [1])
    with pytest.raises(InputError, match="1 probabilities, but 2 outcomes"):
        calibration_error([1], [1, 0])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# ------------------------------------------------------------------------------------------------------------ datasets


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def _beir(folder: Path, suffix: str = "") -> Path:
    folder.mkdir()
    _write(folder / f"corpus.jsonl{suffix}", [{"id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "text": ""}])
    _write(
        folder / f"queries.jsonl{suffix}", [{"_id": "q1", "text": "what?"}, {"id": "q2", "text": "?", "answers": ["x"]}]
    )
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\r\nq1\td2\t0\n")
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_beir_folder(tmp_path: Path, suffix: str) -> None:
    dataset = read_dataset(str(_beir(tmp_path / "mine", suffix)))
    assert dataset.name == "mine"
    assert dataset.questions == (
        Question("q1", "what?", {"d1": 2, "d2": 0}),
        Question("q2", "?", {}, ("x",)),
    )
    assert list(dataset.documents()) == [Document("d1", "first", "One"), Document("d2", "")]


def test_beir_splits(tmp_path: Path) -> None:
    folder = _beir(tmp_path / "mine")
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text("q1\td1\t1\n")
    assert read_beir(folder).questions[0].documents == {"d1": 1}
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n")
    assert read_beir(folder).questions[1].documents == {"d2": 1}
    assert read_beir(folder, split="dev").questions[0].documents == {"d1": 1}
    with pytest.raises(InputError, match=r"no train.tsv. Choose split= among \['dev', 'test'\]"):
        read_beir(folder, split="train")


SQUAD = {
    "data": [
        {
            "title": "Oxygen",
            "paragraphs": [
                {
                    "context": "It was found in 1774.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "When?",
                            "answers": [{"text": "1774"}, {"text": "1774"}, {"text": "in 1774"}],
                        },
                        {"id": "2", "question": "Who?", "is_impossible": True, "answers": []},
                    ],
                },
                {"id": "own", "context": "It burns.", "qas": []},
                {"context": "Or not.", "qas": [{"id": 3, "question": "Why?", "answers": []}]},
            ],
        }
    ]
}


@pytest.mark.parametrize("name", ["dev.json", "dev.json.gz"])
def test_squad_file(tmp_path: Path, name: str) -> None:
    data = json.dumps(SQUAD).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    dataset = read_dataset(tmp_path / name)
    assert dataset.name == "dev"
    assert [d.id for d in dataset.documents()] == ["Oxygen/1", "own", "Oxygen/3"]
    assert dataset.questions == (
        Question("1", "When?", {"Oxygen/1": 1}, ("1774", "in 1774"), "It was found in 1774."),
        Question("2", "Who?", {"Oxygen/1": 1}, (), "It was found in 1774."),
        Question("3", "Why?", {"Oxygen/3": 1}, (), "Or not."),
    )


def test_lists_and_lines_of_questions(tmp_path: Path) -> None:
    items = [
        ("a?", "hours.md"),
        ("b?", None),
        ("c?", ["x", "y"]),
        {"question": "d?", "document": "fees.md", "answer": "20 cents"},
        {"id": "five", "question": "e?", "answers": None},
        {"question": "f?", "documents": ["a", "b"]},
    ]
    questions = read_dataset(items).questions
    assert questions == (
        Question("1", "a?", {"hours.md": 1}, ("hours.md",), ambiguous=True),
        Question("2", "b?", {}, ()),
        Question("3", "c?", {"x": 1, "y": 1}, ("x", "y"), ambiguous=True),
        Question("4", "d?", {"fees.md": 1}, ("20 cents",)),
        Question("five", "e?", {}, ()),
        Question("6", "f?", {"a": 1, "b": 1}),
    )
    _write(tmp_path / "mine.jsonl", items[3:])  # type: ignore[arg-type]
    assert [q.documents for q in read_dataset(tmp_path / "mine.jsonl").questions] == [
        q.documents for q in questions[3:]
    ]


def test_what_has_no_id_is_called_by_its_place_unless_another_has_that_for_its_id(tmp_path: Path) -> None:
    items = [
        {"question": "a?", "answer": "x"},
        {"id": 1, "question": "b?", "answer": "x"},
        {"id": "5", "question": "c?", "answer": "x"},
        {"id": None, "question": "d?", "answer": "x"},
    ]
    expected = ["6", "1", "5", "4"]  # the first place is taken, and 5, the next number after the last one, as well
    assert [question.id for question in read_dataset(items).questions] == expected
    _write(tmp_path / "mine.jsonl", items)
    assert [question.id for question in read_dataset(tmp_path / "mine.jsonl").questions] == expected


def test_a_sample_is_repeatable_and_in_order() -> None:
    dataset = read_dataset([(str(n), None) for n in range(100)])
    sample = [int(q.text) for q in dataset.sample(10).questions]
    assert sample == sorted(set(sample))
    assert len(sample) == 10
    assert sample == [int(q.text) for q in dataset.sample(10).questions]
    assert sample != [int(q.text) for q in dataset.sample(10, seed=1).questions]
    assert dataset.sample(1000) is dataset


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = _beir(tmp_path / "mine")
    (folder / missing).unlink()
    with pytest.raises(InputError, match=rf"mine' has neither {missing} nor {missing}.gz"):
        list(read_beir(folder).documents())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "queries.jsonl",
            '{"id": "1", "text": "x"}\n{"id": 2}\n',
            r"line 2: expected a string under 'id' or '_id', got 2",
        ),
        ("queries.jsonl", "nonsense\n", r"queries.jsonl, line 1: not JSON"),
        ("queries.jsonl", "[1]\n", r"line 1: expected a JSON object, got '\[1\]"),
        (
            "queries.jsonl",
            '{"id": "1", "text": "x", "answers": [1]}\n',
            r"line 1: answers: expected a string or a list",
        ),
        ("qrels.tsv", "q1\td1\t1\nq1 d1 1\n", r"qrels.tsv, line 2: expected query id.* got 'q1 d1 1'"),
        ("qrels.tsv", "q1\td1\tmuch\n", r"line 1: expected query id"),
    ],
)
def test_a_bad_line_is_quoted(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = _beir(tmp_path / "mine")
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_beir(folder)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no dataset at .*nowhere"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        read_beir(tmp_path / "nowhere")
    (tmp_path / "a.json").write_text("{}")
    asks_nothing = [{"context": "c", "qas": [{"id": "1", "question": None, "answers": []}]}]
    (tmp_path / "b.json").write_text(json.dumps({"data": [{"paragraphs": asks_nothing}]}))
    with pytest.raises(InputError, match=r"b.json is not a SQuAD file: TypeError question None"):
        read_squad(tmp_path / "b.json")
    with pytest.raises(InputError, match=r"a.json is not a SQuAD file: KeyError 'data'"):
        read_squad(tmp_path / "a.json")
    (tmp_path / "b.json.gz").write_text("not gzip'd")
    with pytest.raises(InputError, match=r"b.json.gz cannot be read"):
        read_squad(tmp_path / "b.json.gz")
    (tmp_path / "c.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(InputError, match=r"c.jsonl cannot be read"):
        read_questions(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (5, "A dataset is a path or a list .* not int"),
        (["only a question"], "item 1: expected"),
        ([("a?", 5)], "item 1: expected a string or a list of strings, got 5"),
        ([{"question": "a?", "dokument": "x"}], r"item 1: no document.s. and no answer.s. among .*'dokument'"),
        ([{"document": "x"}], "item 1: expected a string under 'question'"),
    ],
)
def test_bad_datasets(dataset: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_dataset(dataset)


def test_a_list_has_no_documents() -> None:
    with pytest.raises(InputError, match="has questions only"):
        read_dataset([("a?", "b")]).documents()
    with pytest.raises(InputError, match="at least 1 question, not 0"):
        read_dataset([("a?", "b")]).sample(0)


# ------------------------------------------------------------------------------------------------ evaluate and compare


class Fixed:
    """A retriever with a given ranking of (document id, text) passages for each question."""

    def __init__(self, rankings: Mapping[str, Sequence[tuple[str, str]]], *, wait: float = 0.0) -> None:
        self.rankings = rankings
        self.wait = wait
        self.asked: list[int] = []

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        time.sleep(self.wait)
        self.asked.append(k)
        return [
            [
                Hit(Passage(n, id, text, 0, len(text)), 1 / n, n)
                for n, (id, text) in enumerate(self.rankings.get(query, ())[:k], 1)
            ]
            for query in queries
        ]


class Holder:
    """What `evaluate` asks an index for: the document of an id."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids

    def get(self, id: str) -> Document | None:
        return Document(id, "") if id in self.ids else None


def test_the_best_passage_of_a_document_counts() -> None:
    ranking = [("x", ""), ("x", ""), ("a", ""), ("x", ""), ("a", ""), ("b", "")]
    result = evaluate(Fixed({"q?": ranking}), [("q?", "b")], k=3)
    assert result.metrics == pytest.approx(
        {"ndcg@3": 1 / math.log2(4), "map@3": 1 / 3, "mrr@3": 1 / 3, "recall@3": 1, "precision@3": 1 / 3}
    )


def test_more_passages_are_asked_for_until_k_documents_come_out() -> None:
    long = Fixed({"q?": [("x", "")] * 50 + [("y", ""), ("z", "")]})
    assert evaluate(long, [("q?", "z")], k=3).metrics["recall@3"] == 1
    assert long.asked == [3, 3, 6, 12, 24, 48, 96]  # the first one warms up
    short = Fixed({"q?": [("x", "")] * 4})
    assert evaluate(short, [("q?", "x")], k=4).metrics["recall@4"] == 1
    assert short.asked == [4, 4, 8]


def test_evaluation_of_a_beir_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    _write(folder / "queries.jsonl", [{"id": n, "text": n} for n in "123"])
    (folder / "qrels.tsv").write_text("1\ta\t1\n1\tb\t2\n2\tc\t1\n")
    result = evaluate(Fixed({"1": [("a", ""), ("b", "")], "2": [("a", "")]}), folder)
    first = (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
    assert result.questions == 2  # the third has no judgement
    assert result.scores["ndcg@10"] == pytest.approx({"1": first, "2": 0})
    assert result.metrics["ndcg@10"] == pytest.approx(first / 2)
    assert json.loads(json.dumps(result.to_dict(scores=True)))["scores"]["recall@10"] == {"1": 1, "2": 0}
    assert str(result).startswith("Fixed on mine, 2 questions\nndcg@10       0.")


def test_a_string_means_a_document_if_the_index_has_it() -> None:
    system = Fixed({"q?": [("hours.md", "It is open until five."), ("Berlin", "Berlin is large.")]})
    # Unknown to what was found: an answer, found in the second passage.
    assert evaluate(system, [("q?", "large")]).metrics["mrr@10"] == 1 / 2
    assert evaluate(system, [("q?", ["Large!", "open"])]).metrics["mrr@10"] == 1
    # With an index that can be asked, a document that was not found is still a document.
    system.index = Holder("five", "hours.md")  # type: ignore[attr-defined]
    assert evaluate(system, [("q?", "five")]).metrics["mrr@10"] == 0
    assert evaluate(system, [("q?", "hours.md")]).metrics["mrr@10"] == 1
    # A mapping is never ambiguous.
    assert evaluate(system, [{"question": "q?", "answer": "five"}]).metrics["mrr@10"] == 1
    system.index = Holder("Berlin")  # type: ignore[attr-defined]
    answerer = Oracle({"q?": _found("Berlin", 0.9, "Berlin")}, system)
    assert evaluate(answerer, [("q?", "Berlin")]).metrics == {"source": 1}
    both = evaluate(answerer, [{"question": "q?", "document": "Berlin", "answer": "Berlin"}]).metrics
    assert {name: both[name] for name in ("em", "f1", "source")} == {"em": 1, "f1": 1, "source": 1}


def test_answers_judge_where_the_documents_are_other_ones(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD))
    system = Fixed({"When?": [("x.md", "nothing"), ("y.md", "Priestley, in 1774."), ("z.md", "1774")]})
    result = evaluate(system, tmp_path / "dev.json")
    # Of three questions one has an answer; where the paragraph is not known, the others have nothing to be judged by.
    assert result.scores["mrr@10"] == {"1": 1 / 2}
    assert result.questions == 1


def test_an_index_without_the_judged_documents_is_an_error(tmp_path: Path) -> None:
    system = Fixed({"what?": [("z", "")]})
    system.index = Holder("z")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="None of the documents that 'mine' judges is in the index, for example 'd1'"):
        evaluate(system, Dataset("mine", read_beir(_beir(tmp_path / "mine")).questions[:1]))


@pytest.mark.parametrize("dataset", [[], [("who?", None)], [("who?", [])]])
def test_nothing_that_an_index_could_find_is_an_error(dataset: list[Any]) -> None:
    system = Fixed({})
    system.index = Holder("a")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=f"None of the {len(dataset)} questions of 'questions' has an expected"):
        evaluate(system, dataset)


def test_judgements_of_other_questions_are_an_error(tmp_path: Path) -> None:
    folder = _beir(tmp_path / "mine")
    _write(folder / "queries.jsonl", [{"id": "other", "text": "what?"}])
    system = Fixed({})
    system.index = Holder("d1")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="None of the 1 questions of 'mine' has an expected document"):
        evaluate(system, folder)


def test_two_questions_with_one_id_are_an_error(tmp_path: Path) -> None:
    twice = [{"id": id, "question": text, "answer": "x"} for id, text in (("7", "a?"), ("8", "b?"), ("8", "c?"))]
    with pytest.raises(InputError, match=r"Two questions of 'questions' have the id '8': 'b\?' and 'c\?'\. Give each"):
        evaluate(Fixed({}), twice)
    assert evaluate(Fixed({}), [{"id": "2", "question": "a?", "answer": "x"}, ("b?", "x")]).questions == 2
    with pytest.raises(InputError, match="have the id '7'"):
        evaluate(Fixed({}), Dataset("mine", (Question("7", "a?", answers=("x",)),) * 2))
    folder = _beir(tmp_path / "mine")
    _write(folder / "queries.jsonl", [{"id": "q1", "text": "what?"}] * 2)
    with pytest.raises(InputError, match="Two questions of 'mine' have the id 'q1'"):
        evaluate(Fixed({}), folder)


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "10"])
def test_bad_k(k: Any) -> None:
    with pytest.raises(InputError, match="k must be a whole number of at least 1, not"):
        evaluate(Fixed({}), [("q?", "a")], k=k)


def test_what_cannot_be_evaluated() -> None:
    with pytest.raises(InputError, match="not int"):
        evaluate(5, [("q?", "a")])
    with pytest.raises(InputError, match="None of the 1 questions of 'questions' has an expected document"):
        evaluate(Fixed({}), [("q?", None)])
    unknown = Dataset(
        "mine", (Question("1", "q?", {"a": 1}, ()),)
    )  # unanswerable, and its paragraph is not in the index
    with pytest.raises(InputError, match="None of the 1 questions of 'mine'"):
        evaluate(Fixed({}), unknown)


def test_empty_questions_are_left_out_and_said() -> None:
    class Strict(Fixed):
        """As a real retriever: what cannot be searched for is an error."""

        def search(self, queries: list[str], k: int) -> list[list[Hit]]:
            assert all(query.strip() for query in queries)
            return super().search(queries, k)

    dataset = [("q?", "a"), ("", "a"), (" \n", ["b"])]
    result = evaluate(Strict({"q?": [("a", "")]}), dataset)
    assert (result.questions, result.empty, result.metrics["mrr@10"]) == (1, 2, 1)
    assert str(result).startswith("Strict on questions, 1 questions (2 empty ones left out)\n")
    assert result.to_dict()["empty"] == 2
    comparison = compare([Strict({}), Strict({"q?": [("a", "")]})], dataset[:2])
    assert str(comparison).startswith("questions, 1 questions (1 empty one left out)\n")
    answered = evaluate(Oracle({"q?": _found("a", 0.9)}), dataset)
    assert (answered.metrics["em"], answered.empty) == (1, 2)
    with pytest.raises(InputError, match="All 2 questions of 'questions' are empty"):
        evaluate(Strict({}), dataset[1:])
    assert evaluate(Strict({}), dataset[:1]).empty == 0


class Oracle:
    """An answerer with given answers."""

    def __init__(self, answers: Mapping[str, Answer], retriever: Any = "some") -> None:
        self.answers = answers
        self.retriever = retriever
        self.read_texts: list[str] = []

    def answer(self, question: str) -> Answer:
        return self.answers[question]

    def read(self, question: str, text: str) -> Answer:
        self.read_texts.append(text)
        return self.answers[question]


def _found(text: str, score: float, document: str = "a") -> Answer:
    return Answer(text, score, Hit(Passage(1, document, text, 0, len(text)), 1.0, 1), 0, len(text))


def test_evaluation_of_answers() -> None:
    dataset = [
        {"question": "1", "answer": ["The tower", "tower of London"], "document": "a"},
        {"question": "2", "answer": "1854"},
        {"question": "3", "answer": None},
        {"question": "4", "answer": None},
    ]
    system = Oracle(
        {
            "1": _found("tall tower", 0.8),
            "2": Answer("", 0.3, alternatives=(_found("1854", 0.1),)),
            "3": Answer("", 0.9),
            "4": _found("x", 0.6),
        }
    )
    system.retriever = type("Retriever", (), {"index": Holder("a")})()
    result = evaluate(system, dataset)
    assert result.metrics == pytest.approx(
        {
            "em": 1 / 4,
            "f1": (2 / 3 + 0 + 1 + 0) / 4,
            "em_answerable": 0,
            "f1_answerable": (2 / 3 + 0) / 2,
            "no_answer": 1 / 2,
            "source": 1,
            # Best spans: 0.8 wrong, 0.1 right (below the threshold), 0.6 wrong; each alone in its bin.
            "ece": (0.8 + 0.9 + 0.6) / 3,
        }
    )
    assert result.scores["f1"] == pytest.approx({"1": 2 / 3, "2": 0, "3": 1, "4": 0})


def test_a_generated_answer_has_its_source_in_its_citations() -> None:
    system = Oracle({"q": Answer("five", 0.5, citations=(Citation("a", 0, 4, None, 1.0),))})
    system.retriever = type("Retriever", (), {"index": Holder("a", "b")})()
    assert evaluate(system, [{"question": "q", "document": "a"}]).metrics == {"source": 1}
    assert evaluate(system, [{"question": "q", "document": "b", "answer": "Five."}]).metrics["source"] == 0


def test_an_answerer_without_a_retriever_reads_the_paragraph(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD))
    system = Oracle({"When?": _found("1774", 0.9), "Who?": Answer("", 0.0), "Why?": _found("x", 0.2)}, retriever=None)
    result = evaluate(system, tmp_path / "dev.json")
    assert system.read_texts == ["It was found in 1774."] * 3 + ["Or not."]
    assert result.metrics == pytest.approx(
        {"em": 2 / 3, "f1": 2 / 3, "em_answerable": 1, "f1_answerable": 1, "no_answer": 1 / 2, "ece": (0.1 + 0.2) / 2}
    )
    with pytest.raises(InputError, match="does not say which text to read"):
        evaluate(system, [("When?", "1774")])


def _graded(ranks: Sequence[int], wait: float = 0.0) -> Fixed:
    """A retriever that has the right document at the given rank of each question."""
    return Fixed(
        {str(n): [("x" + str(r), "") for r in range(1, rank)] + [(f"d{n}", "")] for n, rank in enumerate(ranks)},
        wait=wait,
    )


def test_compare_recommends_the_better_one() -> None:
    dataset = [{"question": str(n), "document": f"d{n}"} for n in range(30)]
    comparison = compare({"weak": _graded([2] * 30), "strong": _graded([1] * 30), "odd": _graded([1, 2] * 15)}, dataset)
    second = 1 / math.log2(3)
    assert comparison.best == comparison.recommended == "strong"
    assert [d.system for d in comparison.differences] == ["weak", "odd"]
    assert [d.mean for d in comparison.differences] == pytest.approx([second - 1, (second - 1) / 2])
    assert [d.p for d in comparison.differences] == pytest.approx([2 / 10_001, 2 / 10_001], abs=2e-4)
    assert comparison.reason.startswith("strong: the best ndcg@10 1.0000, significantly better than weak (-0.3691, p ")
    table = str(comparison).splitlines()
    assert table[0] == "questions, 30 questions"
    assert table[1].split() == [
        *("ndcg@10", "map@10", "mrr@10", "recall@10", "precision@10"),
        *("median", "ms", "ndcg@10", "to", "best", "p"),
    ]
    assert table[3].split()[:6] == ["strong", "1.0000", "1.0000", "1.0000", "1.0000", "0.1000"]
    assert json.loads(json.dumps(comparison.to_dict()))["systems"][0]["metrics"]["mrr@10"] == 0.5


def test_compare_recommends_the_faster_one_of_equals() -> None:
    dataset = [{"question": str(n), "document": f"d{n}"} for n in range(20)]
    comparison = compare({"slow": _graded([1] * 20, wait=0.003), "fast": _graded([1] * 20)}, dataset, metric="mrr@10")
    assert (comparison.best, comparison.recommended) == ("slow", "fast")
    assert comparison.differences[0].p == 1.0
    assert comparison.reason.startswith(
        "fast: it is as good as slow (mrr@10 1.0000) as far as these questions can tell"
    )


def test_compare_says_when_the_questions_are_too_few() -> None:
    dataset = [{"question": str(n), "document": f"d{n}"} for n in range(3)]
    comparison = compare([_graded([1, 1, 1]), _graded([1, 1, 9], wait=0.002)], dataset)
    assert [e.name for e in comparison.evaluations] == ["Fixed", "Fixed (2)"]
    assert comparison.recommended == "Fixed"
    assert "More questions are needed to tell it from Fixed (2)" in comparison.reason


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="at least 2 systems, not 1"):
        compare([Fixed({})], [("q?", "a")])
    with pytest.raises(InputError, match="not both"):
        compare([Fixed({}), Oracle({})], [("q?", "a")])
    with pytest.raises(InputError, match=r"no metric 'bleu' to compare by. Choose among \['map@10', "):
        compare([Fixed({}), Fixed({})], [("q?", "a")], metric="bleu")


def test_latency_is_measured_by_question(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """Counts a millisecond more for each question: 1 for the first, 21 for the last."""

        def __init__(self) -> None:
            self.calls, self.now = 0, 0.0

        def perf_counter(self) -> float:
            self.calls += 1
            if self.calls % 2 == 0:
                self.now += self.calls / 2 / 1000
            return self.now

    monkeypatch.setattr("semsearch.evaluation.time", Clock())
    result = evaluate(Fixed({}), [(str(n), "a") for n in range(21)])
    assert result.median_ms == pytest.approx(11)
    assert result.p95_ms == pytest.approx(20)


def test_the_size_of_the_index_is_that_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "index.db").write_bytes(b"x" * 1000)
    (tmp_path / "cache" / "a.npy").write_bytes(b"x" * 234)
    system = Fixed({"q?": [("a", "")]})
    system.index = Holder("a")  # type: ignore[attr-defined]
    assert evaluate(system, [("q?", "a")]).size is None
    system.index.path = tmp_path  # type: ignore[attr-defined]
    assert evaluate(system, [("q?", "a")]).size == 1234


def test_a_real_index_is_measured_and_compared(tmp_path: Path) -> None:
    from semsearch import Index, Retriever

    documents = [
        Document("hours.md", "The library opens at nine and closes at five."),
        Document("fees.md", "Late fees are charged from the second week."),
        Document("cats.md", "Cats sleep for most of the day."),
    ]
    dataset = [
        {"question": "opens at nine", "document": "hours.md"},
        {"question": "late fees", "answer": "the second week"},
        {"question": "cats", "documents": ["cats.md", "fees.md"]},
        {"question": "dogs", "answer": None},
    ]
    with Index(tmp_path / "index") as index:
        index.add(documents)
        result = evaluate(Retriever(index, mode="lexical"), dataset)
        assert (result.name, result.questions) == ("lexical", 3)
        assert result.metrics["mrr@10"] == 1.0
        assert result.scores["recall@10"] == {"1": 1.0, "2": 1.0, "3": 0.5}  # nothing but cats.md has the word
        assert result.size is not None
        assert result.size > (tmp_path / "index" / "index.db").stat().st_size * 0.99
        comparison = compare([Retriever(index, mode="lexical"), Retriever(index, mode="dense")], dataset)
        assert [e.name for e in comparison.evaluations] == ["lexical", "dense"]
        assert comparison.evaluations[1].scores["recall@10"] == {"1": 1.0, "2": 1.0, "3": 1.0}
        with pytest.raises(InputError, match="None of the documents that 'questions' judges is in the index"):
            evaluate(index, [{"question": "late fees", "document": "feees.md"}])


# ------------------------------------------------------------------------------------------------------- shared data


@pytest.fixture
def data() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not there")
    return folder


def test_real_sets_are_read_whole(data: Path) -> None:
    scifact = read_beir(data / "scifact")
    assert (len(scifact.questions), sum(len(q.documents) for q in scifact.questions)) == (809, 919)
    squad = read_squad(data / "squad-v2.0-dev-open" / "squad.json.gz")
    assert len(squad.questions) == 7741
    ids = [d.id for d in squad.documents()]
    assert len(ids) == len(set(ids))
    assert len({question.id for question in squad.questions}) == 7741

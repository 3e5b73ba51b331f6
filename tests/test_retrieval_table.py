"""The tables of pipelines in examples/benchmarks/retrieval.py and ranking.py, on a town of eight documents."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from toy import WordEncoder

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import ranking  # noqa: E402
import rerankers  # noqa: E402
import retrieval  # noqa: E402

from semsearch import Index  # noqa: E402
from semsearch.datasets import Dataset, read_beir  # noqa: E402

WORDS = ["river", "stone", "bridge", "tower", "market", "garden", "harbour", "castle"]


@pytest.fixture
def town(tmp_path: Path) -> Dataset:
    folder = tmp_path / "town"
    folder.mkdir()
    corpus = [{"id": word, "title": "", "text": f"The {word} of the town is old."} for word in WORDS]
    queries = [{"id": word, "text": f"old {word}"} for word in WORDS]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels.tsv").write_text("".join(f"{word}\t{word}\t1\n" for word in WORDS))
    return read_beir(folder)


def test_every_pipeline_stands_in_the_table_beside_the_better_leg(town: Dataset, tmp_path: Path) -> None:
    with Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add(town.documents())
        row = retrieval.table_row(town, index, rerank=False)
    assert row["set"] == "town"
    assert (row["passages"], row["questions"], row["better_leg"]) == (8, 8, "lexical")
    assert set(row["ndcg@10"]) == {"lexical", "dense", "hybrid", "hybrid tuned"}
    assert row["ndcg@10"]["dense"] == row["recall@100"]["hybrid"] == 1.0
    assert row["to_better_leg"]["hybrid"] == {"ndcg@10": 0.0, "p": 1.0, "low": 0.0, "high": 0.0}
    text = retrieval.table([row, row])
    assert "town" in text.splitlines()[1]
    assert text.splitlines()[3].startswith("mean ")
    assert json.loads(json.dumps(row)) == row


def test_an_index_is_kept_for_the_next_run(town: Dataset, tmp_path: Path) -> None:
    with retrieval._indexed(town, tmp_path) as index:
        assert len(index) == 8
    assert (tmp_path / "index-town" / "index.db").is_file()
    with retrieval._indexed(town, None) as index:
        assert len(index) == 8


def test_legs_fusions_and_rerankers_are_measured_on_the_same_questions(town: Dataset, tmp_path: Path) -> None:
    folder, work = tmp_path / "town", tmp_path / "work"
    row = ranking.study(folder, work, 100, 5)
    assert set(row["systems"]) == {"lexical", "dense", "rrf", "hybrid", "tuned", "feedback", "pipeline"}
    assert row["systems"]["lexical"] == {
        "questions": 8, "ndcg@10": 1.0, "recall@100": 1.0, "to better leg": 0.0, "p": 1.0, "to hybrid": 0.0, "ms": None
    }  # fmt: skip
    assert (row["systems"]["feedback"]["questions"], row["systems"]["pipeline"]["questions"]) == (8, 5)
    assert set(row["choices"]) == {"tuned", "pipeline"}
    assert row["systems"]["feedback"]["ms"] > 0
    assert row == ranking.study(folder, work, 100, 5)  # from what was kept

    asked = list(rerankers.questions(folder, work, 100))
    found = rerankers.feedback(asked)
    assert found["default"] == 100 * row["systems"]["hybrid"]["ndcg@10"] == 100.0
    assert rerankers.diversity(asked)["1.0"]["documents"] == 8  # of eight hits
    assert rerankers.read(asked, 3, lambda query, passages: [-n for n, _ in enumerate(passages)])["1.0"] == 100.0
    backwards = rerankers.read(asked, 3, lambda query, passages: list(range(len(passages))))
    assert backwards["0.0"] == 100.0 > backwards["1.0"] == 50.0  # the right one is third: 1 / log2(4)

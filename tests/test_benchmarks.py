"""What the benchmarks of examples/benchmarks share: how they measure, and how they say how good a result is."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from mmap import mmap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from semsearch.datasets import Dataset, Question
from semsearch.records import Document

FOLDER = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks, which are scripts and no package."""
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("common", "harness", "scale", "scale_inputs", "curves", "reader_data")

    def load(name: str) -> ModuleType:
        return __import__(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)


def test_times(benchmarks: Any) -> None:
    common = benchmarks("common")
    taken = [0.010] * 19 + [0.030]  # the 95th percentile lies between the 19th and the 20th, at 18.05 of 0 to 19
    assert common.times(taken) == {"median_ms": 10.0, "p95_ms": 11.0, "runs": 20}
    assert common.rounded(123456.0) == 123500.0
    assert common.rounded(0.00123456, 2) == 0.0012


def test_a_result_replaces_the_one_before(benchmarks: Any, tmp_path: Path) -> None:
    common = benchmarks("common")
    for value in (1, 2):
        common.write(tmp_path / "new" / "a.json", {"value": value})
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"value": 2}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_sizes_and_the_machine(benchmarks: Any, tmp_path: Path) -> None:
    common = benchmarks("common")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"123")
    assert common.size_on_disk(tmp_path) == 8
    assert common.size_on_disk(tmp_path / "c") == 3
    machine = common.machine(("numpy", "no-such-package"))
    assert machine["versions"] == {"numpy": np.__version__, "no-such-package": "not installed"}
    assert machine["commit"] is None or len(machine["commit"]) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="the share of memory is told by Linux only")
def test_memory_grows_with_what_is_held(benchmarks: Any) -> None:
    common = benchmarks("common")
    before = common.memory()
    with mmap(-1, 64_000_000) as held:  # from the kernel: an allocator may have as much left from earlier
        held.write(b"x" * len(held))
        assert 60_000_000 < common.memory() - before < 80_000_000


def make_set(data: Path, name: str, corpus: list[dict[str, str]], queries: list[str] = []) -> None:  # noqa: B006
    (data / name).mkdir(parents=True)
    rows = {"corpus.jsonl.gz": corpus, "queries.jsonl.gz": [{"id": query, "text": query} for query in queries]}
    for file, lines in rows.items():
        with gzip.open(data / name / file, "wt", encoding="utf-8") as target:
            target.writelines(json.dumps(line) + "\n" for line in lines)


def test_texts_and_questions_of_the_scale_sets(benchmarks: Any, tmp_path: Path) -> None:
    common = benchmarks("common")
    for place, name in enumerate(common.SCALE):
        make_set(tmp_path, name, [{"id": "a", "title": f"t{place}", "text": "x"}, {"id": "b", "text": f"y{place}"}])
    make_set(tmp_path, "cosqa-dev", [], ["c1", "c2", "c3"])
    make_set(tmp_path, "scifact", [], ["s1", "s2"])
    assert common.scale_texts(tmp_path) == ["t0\nx", "y0", "t1\nx", "y1", "t2\nx", "y2", "t3\nx", "y3"]
    assert sorted(common.scale_passages(tmp_path)) == sorted(common.scale_texts(tmp_path))
    assert common.scale_passages(tmp_path, 3) == common.scale_passages(tmp_path)[:3]
    assert common.scale_questions(tmp_path, 4) == ["c1", "s1", "c2", "s2"]
    with pytest.raises(SystemExit, match=r"There are 8 passages in .*, not 9"):
        common.scale_passages(tmp_path, 9)
    with pytest.raises(SystemExit, match=r"There are 4 questions in .*, not 5"):
        common.scale_questions(tmp_path, 5)
    with pytest.raises(SystemExit, match=r"There is no .*no-such/corpus\.jsonl\.gz\. Name the folder"):
        list(common.records(tmp_path, "no-such"))


def test_the_order_of_the_passages_is_always_the_same(benchmarks: Any) -> None:
    order = benchmarks("common").scale_order(1_154_476)
    assert sorted(order.tolist()) == list(range(1_154_476))
    assert order[:3].tolist() == [720442, 106981, 604312]


def inputs_in(benchmarks: Any, folder: Path, vectors: np.ndarray, questions: np.ndarray, added: int = 0) -> Any:
    count = len(vectors) - added
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "questions.npy", questions)
    names = [f"text {place}" for place in range(len(vectors))]
    values = {
        "facts": {"passages": count},
        "texts": names[:count],
        "added": names[count:],
        "tokens": names[:count],
        "added-tokens": names[count:],
        "questions": [f"question {place}" for place in range(len(questions))],
        "question-tokens": [f"text {place}" for place in range(len(questions))],
    }
    for name, value in values.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return benchmarks("harness").Inputs(folder)


def test_the_best_are_found_block_by_block(benchmarks: Any) -> None:
    best = benchmarks("harness").best
    random = np.random.default_rng(3)
    vectors, questions = random.normal(size=(103, 8)), random.normal(size=(7, 8))
    scores = (questions @ vectors.T).astype(np.float32)
    wanted = np.argsort(-scores, axis=1)[:, :10]
    for block in (5, 50, 1000):
        ids, found = best(vectors, questions, block=block)
        assert ids.tolist() == wanted.tolist()
        assert found == pytest.approx(np.take_along_axis(scores, wanted, 1), rel=1e-5)


def test_recall_takes_any_of_those_with_the_same_score(benchmarks: Any, tmp_path: Path) -> None:
    """Twelve passages, scores 12, 11, ..., 4, 3, 3, 3: the tenth best is any of the last three."""
    vectors = np.array([[12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 3, 3]], np.float32).T
    inputs = inputs_in(benchmarks, tmp_path, vectors, np.ones((1, 1), np.float32))
    harness = benchmarks("harness")
    tenth = harness.tenth_best(inputs, 12)
    assert tenth.tolist() == [3.0]
    assert harness.recall_at_10(inputs, [[*range(9), 11]], tenth) == 1.0
    assert harness.recall_at_10(inputs, [[0, 1, 2]], tenth) == pytest.approx(0.3)
    assert harness.recall_at_10(inputs, [[0] * 10], tenth) == pytest.approx(0.1)  # one passage counts once
    # of the first ten passages alone
    assert harness.tenth_best(inputs, 11).tolist() == [3.0]
    assert harness.recall_at_10(inputs, [[], [0]][:1], tenth) == 0.0


def test_agreement_takes_ties_in(benchmarks: Any, tmp_path: Path) -> None:
    inputs = inputs_in(benchmarks, tmp_path, np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    harness = benchmarks("harness")
    assert harness.agreement(inputs, [[1]], "lucene") is None  # there is nothing to compare with
    ids = [list(range(20)), [7, 8], []]
    scores = [[float(20 - place) for place in range(9)] + [5.0] * 11, [2.0, 1.0], []]
    (tmp_path / "bm25-lucene.json").write_text(json.dumps(list(zip(ids, scores, strict=True))))
    assert harness.agreement(inputs, [[*range(9), 19], [7, 8], [3]], "lucene") == 1.0
    assert harness.agreement(inputs, [[*range(5)], [8, 9], [3]], "lucene") == pytest.approx((0.5 + 0.5) / 2)


RUNNER = """
import sys
sys.path.insert(0, {peers!r})
import numpy as np
from harness import Peer, run

class Halves(Peer):
    modes = "dense", "hybrid"
    ladder = {{}}, {{"width": 6}}, {{"width": 40}}, {{"width": 80}}

    def build(self, inputs, folder, deadline):
        np.save(folder / "rows.npy", inputs.vectors)

    def open(self, inputs, folder):
        self.rows = np.load(folder / "rows.npy")
        self.settings = {{}}

    def use(self, settings):
        self.settings = settings

    def search(self, inputs, mode, question):
        width = self.settings.get("width", 5)
        scores = self.rows[:, :width] @ inputs.question_vectors[question, :width]
        return np.argsort(-scores)[:10].tolist()

    def add(self, inputs, place):
        self.rows = np.concatenate([self.rows, inputs.all_vectors[inputs.count + place][None]])

run(Halves())
"""


def test_a_runner_builds_and_is_measured_in_a_new_process(benchmarks: Any, tmp_path: Path) -> None:
    """Its settings are tried until recall is enough: 40 of 40 dimensions are the first that find all."""
    random = np.random.default_rng(0)
    vectors, questions = random.normal(size=(304, 40)), random.normal(size=(12, 40))
    inputs_in(benchmarks, tmp_path, vectors.astype(np.float32), questions.astype(np.float32), added=4)
    script = tmp_path / "run_halves.py"
    script.write_text(RUNNER.format(peers=str(FOLDER / "peers")))
    scale = benchmarks("scale")
    common = ["--inputs", str(tmp_path), "--folder", str(tmp_path / "index"), "--out", str(tmp_path / "out.json")]
    built = scale.step([sys.executable, str(script), "build", *common], 60, tmp_path / "out.json", grace=1)
    assert built["build"]["passages"] == 300
    assert built["build"]["disk_bytes"] == 300 * 40 * 4 + 128
    scale.write(tmp_path / "index" / "built.json", built["build"])
    found = scale.step([sys.executable, str(script), "search", *common], 60, tmp_path / "out.json", grace=1)
    assert "failed" not in found
    assert [(row["mode"], row["settings"]) for row in found["rows"]] == [
        (mode, settings) for settings in ({}, {"width": 40}) for mode in ("dense", "hybrid")
    ]
    assert found["rows"][0]["recall@10"] == found["rows"][1]["recall@10"] < 0.95
    assert found["rows"][2]["recall@10"] == found["rows"][3]["recall@10"] == 1.0
    assert found["rows"][2]["runs"] == 12
    assert found["added"]["runs"] == 4
    assert found["bytes"] > found["idle_bytes"] > 0
    assert 0 < found["first_result_seconds"] < 60
    assert not (tmp_path / "index" / "built.json").exists()  # after the additions it is not what was built


def test_a_step_that_fails_or_does_not_end_is_told(benchmarks: Any, tmp_path: Path, monkeypatch: Any) -> None:
    scale = benchmarks("scale")
    out = tmp_path / "out.json"
    code = "import sys; print('reason', file=sys.stderr); sys.exit(3)"
    assert scale.step([sys.executable, "-c", code], 1, out, grace=1)["failed"] == "ended with exit status 3: reason"
    code = f"open({str(out)!r}, 'w').write('{{\"rows\": []}}'); import time; time.sleep(600)"
    # 30 s are granted beside the limit
    result = scale.step([sys.executable, "-c", code], -29, out, grace=1)
    assert result == {"rows": [], "failed": "not finished in 1 s"}


def test_the_table_and_the_picture(benchmarks: Any, tmp_path: Path) -> None:
    row = {"mode": "dense", "settings": {}, "median_ms": 1.5, "p95_ms": 2.25, "runs": 500, "recall@10": 0.9}
    tuned = row | {"settings": {"ef": 200}, "median_ms": 3.0, "recall@10": 0.96}
    facts = {"build": {"seconds": 12.0, "passages": 10_000, "disk_bytes": 2**21}, "added": {"median_ms": 7.0}}
    first = {"name": "Chroma", "passages": 10_000, "rows": [row, tuned], "bytes": 2**22, "idle_bytes": 2**20} | facts
    second = {"name": "txtai", "passages": 10_000, "failed": "not finished in 9 s", "build": {}}
    scale, curves = benchmarks("scale"), benchmarks("curves")
    assert scale.table([first, second])[2:] == [
        "| Chroma | dense | 0.9 | 1.5 | 2.25 | 12 | – | 3 | 2 | 7 |",
        "|  | dense (ef 200) | 0.96 | 3 | 2.25 |  |  |  |  |  |",
        "| txtai | not finished in 9 s | | | | – | | | | |",
    ]
    cut = first | {"cut_off": "building was stopped", "build": facts["build"] | {"passages": 5_000}}
    assert scale.table([cut])[2].startswith("| Chroma, 5,000 only | dense |")
    assert curves.query_ms(first) == 3.0
    assert curves.query_ms(second) is None
    assert curves.chosen_row(first | {"rows": [row]}) == row  # where nothing is good enough, the best there is
    curves.draw([first, second, cut | {"passages": 100_000}], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_every_runner_is_there_and_pinned(benchmarks: Any) -> None:
    scale = benchmarks("scale")
    for runner in scale.RUNNERS.values():
        assert (scale.PEERS / runner.script).is_file()
        assert not runner.environment or all("==" in pin for pin in scale.ENVIRONMENTS[runner.environment])
    scripts = {path.name for path in scale.PEERS.glob("run_*.py")}
    assert scripts == {runner.script for runner in scale.RUNNERS.values()}


@pytest.mark.parametrize("script", ["curves.py", "encoding.py", "retrieval.py", "scale.py", "scale_inputs.py"])
def test_a_benchmark_says_what_it_does(script: str) -> None:
    done = subprocess.run([sys.executable, str(FOLDER / script), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--data DIR" in done.stdout


def test_a_reader_is_not_measured_on_articles_it_was_trained_on(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    unread = benchmarks("reader_data").unread
    titles = [f"Article_{letter}" for letter in "abcdefgh"]  # every fourth is kept for measuring: a and e
    qa = {"question": "What?", "answers": [{"text": "Text", "answer_start": 0}]}
    articles = [
        {"title": title, "paragraphs": [{"context": f"Text of {title}.", "qas": [qa | {"id": title}]}]}
        for title in titles
    ]
    squad = tmp_path / "squad-v1.1-dev-open" / "squad.json.gz"
    squad.parent.mkdir()
    squad.write_bytes(gzip.compress(json.dumps({"version": "1.1", "data": articles}).encode()))
    documents = [Document(title, f"Text of {title}.", title.replace("_", " ").upper()) for title in titles]
    questions = [Question(title, "What?", {title: 1}) for title in reversed(titles)]

    asked = Dataset("openqa", tuple(questions), lambda: iter(documents))
    assert [questions[number].id for number in unread(tmp_path, asked, questions)] == ["Article_e", "Article_a"]
    others = Dataset("cranfield", tuple(questions), lambda: iter(documents))
    assert unread(tmp_path, others, questions) == list(range(8))

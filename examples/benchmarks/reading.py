"""How well, how surely and how fast questions are answered; with --fit, the calibration of a reader.

    python examples/benchmarks/reading.py                           # all figures, two hours; --sample 100: minutes
    python examples/benchmarks/reading.py --only paragraph          # or open, sure, early, speed
    python examples/benchmarks/reading.py --fit                     # writes calibration.json next to the reader
    python examples/benchmarks/reading.py --weights FOLDER          # float32 beside the compiled reader
    python examples/benchmarks/reading.py --reader FOLDER           # another one than the shipped

| part | |
|---|---|
| paragraph | EM and F1 given the paragraph, as SQuAD's scripts define them; what has no answer; calibration |
| open | EM and F1 of the best answer from all passages of openqa, over its 506 questions; what is refused |
| sure | calibration of these answers, over all 2,059 questions of SQuAD 1.1 that belong to the same articles |
| early | how much is read before an answer is settled, and whether reading everything would change it |
| speed | answers per second beside the same weights in torch, passage by passage |

It measures on the 9 articles of SQuAD that `examples/reader_data.py` keeps for measuring. --fit (fitting.py) uses the 3
that it keeps for calibrating, their questions also put to openqa (a part of them with their paragraph hidden), and
questions of cisi and medline-1033 put to openqa, which nothing there answers. cosqa-dev and cranfield are for measuring
only.

Indexes are made once, under --indexes. Results of whole sets go to results/reading.json with the machine, the versions
and the commit, and the curve of risk and coverage to results/reading-risk-coverage.png.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from semsearch import Answer, Answerer, Hit, Index, Passage, Retriever
from semsearch.calibration import Calibration, Weights
from semsearch.datasets import Dataset, Question, read_dataset
from semsearch.extraction import SHIPPED, OnnxReader, Span, TransformersReader
from semsearch.metrics import calibration_error, exact_match, token_f1

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import ROOT, machine, options, write
from fitting import Case, Read, best_threshold, case, fit, without
from reader_data import about, plain, split

SQUAD = "squad-v1.1-dev-open", "squad-v2.0-dev-open"
K = 20
PARTS = "paragraph", "open", "sure", "early", "speed"


class Said(NamedTuple):
    """The likeliest answer to a question, whether or not it is likely enough."""

    question: Question
    text: str
    probability: float
    found: bool

    @property
    def right(self) -> bool:
        return bool(self.question.answers) and exact_match(self.text, self.question.answers or ()) > 0


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--reader", type=Path, default=SHIPPED, help="the folder of a compiled reader")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="the same reader before its compilation")
    parser.add_argument("--indexes", type=Path, default=ROOT / "indexes")
    parser.add_argument("--sample", type=int, metavar="N", help="only N questions of each set; nothing is stored")
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    parser.add_argument("--fit", action="store_true", help="fit the calibration and do nothing else")
    args = parser.parse_args()
    bench = Bench(args.data, args.indexes, args.sample, args.reader, args.weights)
    if args.fit:
        bench.fit().save(args.reader / "calibration.json")
        return
    for part in [args.only] if args.only else PARTS:
        if part == "speed" and args.weights is None:
            print("speed: needs --weights FOLDER")
            continue
        result = getattr(bench, part)()
        print(json.dumps({part: result}, indent=1))
        if args.sample is None:
            store(args.results, part, result)


def store(folder: Path, part: str, result: dict[str, Any]) -> None:
    path = folder / "reading.json"
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    stored[part] = result | {"machine": machine()}
    write(path, stored)
    draw(stored, folder / "reading-risk-coverage.png")


class Bench:
    """The data, the reader, and each part of the measurements as a method that returns JSON values."""

    def __init__(self, data: Path, indexes: Path, sample: int | None, reader: Path, weights: Path | None) -> None:
        self.data, self.indexes, self.sample, self.weights = data, indexes, sample, weights
        self.reader = OnnxReader(reader)
        titles = sorted({document.title for document in self.set(SQUAD[0]).documents()})
        measuring, calibrating = split(titles)
        self.measuring, self.calibrating = ({plain(t) for t in part} for part in (measuring, calibrating))

    # -- data

    def set(self, name: str) -> Dataset:
        """A set of --data: the SQuAD file if it has one."""
        folder = self.data / name
        if not folder.is_dir():
            raise SystemExit(f"There is no folder {folder}. Say where the data is: --data FOLDER")
        squad = folder / "squad.json.gz"
        return read_dataset(squad if squad.is_file() else folder)

    def questions(self, name: str, titles: set[str] | None = None, *, seed: int = 0) -> list[Question]:
        """The questions of a set whose documents are of these articles; with --sample, some of them."""
        data = self.set(name)
        if titles is not None:
            data = replace(data, questions=tuple(data.questions[i] for i in about(data, data.questions, titles)))
        return list(data.questions if self.sample is None else data.sample(self.sample, seed=seed).questions)

    def open_index(self) -> Index:
        """The passages of openqa, indexed if they are not yet."""
        index = Index(self.indexes / "benchmark-openqa")
        if not len(index):
            print(index.add(self.set("openqa").documents()), file=sys.stderr)
        return index

    # -- measuring

    def paragraph(self) -> dict[str, Any]:
        answerer = Answerer(None, self.reader)
        one, two = (self.questions(name, self.measuring) for name in SQUAD)
        said = {name: self._read(answerer, asked, name) for name, asked in zip(SQUAD, (one, two), strict=True)}
        both = [each for part in said.values() for each in part]
        tales = self._read(answerer, self.questions("fairytaleqa-val"), "fairytaleqa-val")
        weights = answerer.calibration.given if answerer.calibration else Weights()
        result = {
            "squad 1.1": exactness(said[SQUAD[0]]),
            "squad 2.0": official_two(said[SQUAD[1]]) | {"threshold": weights.threshold},
            "fairytaleqa-val, another genre": exactness(tales) | self._sureness(tales, "given"),
            "calibration": self._sureness(both, "given"),
            "risk by coverage": {
                "SQuAD 1.1, paragraph given": curve(said[SQUAD[0]]),
                "SQuAD 2, paragraph given": curve(said[SQUAD[1]]),
            },
        }
        if self.weights is not None:
            result["float32"] = self._float32(one, two, said)
        return result

    def _read(self, answerer: Answerer, asked: Sequence[Question], name: str) -> list[Said]:
        return [likeliest(q, answerer.read(q.text, q.context)) for q in progress(asked, name)]

    def _float32(self, one: Sequence[Question], two: Sequence[Question], said: dict[str, list[Said]]) -> dict[str, Any]:
        """The reader before its compilation, with the same calibration."""
        reader = Answerer(None, str(self.weights), calibration=Answerer(None, self.reader).calibration)
        first = exactness(self._read(reader, one, "float32, 1.1"))
        second = official_two(self._read(reader, two, "float32, 2.0"))
        compiled = exactness(said[SQUAD[0]])
        return {"squad 1.1": first, "squad 2.0": second, "F1 lost by int8": round(first["F1"] - compiled["F1"], 2)}

    def open(self) -> dict[str, Any]:
        asked = self.questions("openqa", self.measuring)
        texts = {document.id: document.text for document in self.set("openqa").documents()}
        with self.open_index() as index:
            answerer = Answerer(Retriever(index), self.reader)
            own = [likeliest(q, answerer.answer(q.text, k=K)) for q in progress(asked, "openqa")]
            hidden = [self._hidden(answerer, index, q) for q in progress(asked[::2], "their documents hidden")]
            others = {
                name: [likeliest(q, answerer.answer(q.text, k=K)) for q in progress(self.questions(name), name)]
                for name in ("cosqa-dev", "cranfield")
            }
            passages = len(index)
        given = [likeliest(q, answerer.read(q.text, texts[next(iter(q.documents))])) for q in progress(asked, "given")]
        best, right = exactness(own), exactness(given)
        weights = answerer.calibration.searched if answerer.calibration else Weights()
        return {
            "passages": passages,
            "from all passages": best | self._sureness(own, "searched"),
            "given the right passage": right,
            "ratio of EM": round(best["EM"] / right["EM"], 3),
            "with its documents hidden": {"questions": len(hidden)} | self._sureness(hidden, "searched"),
            "calibration with every other question hidden": self._sureness([*own, *hidden], "searched"),
            "threshold": weights.threshold,
            "EM of what is answered": exactness([each for each in own if each.found])["EM"],
            "refused, percent": {
                "openqa": refused(own),
                "openqa, its documents hidden": refused(hidden),
                **{name: refused(said) for name, said in others.items()},
            },
        }

    def sure(self) -> dict[str, Any]:
        with self.open_index() as index:
            answerer = Answerer(Retriever(index), self.reader)
            asked = self.questions(SQUAD[0], self.measuring)
            said = [likeliest(q, answerer.answer(q.text, k=K)) for q in progress(asked, "SQuAD 1.1 put to openqa")]
        return (
            exactness(said)
            | self._sureness(said, "searched")
            | {
                "refused, percent": refused(said),
                "risk by coverage": {"SQuAD 1.1, from all passages of openqa": curve(said)},
            }
        )

    def _hidden(self, answerer: Answerer, index: Index, question: Question) -> Said:
        """The answer if the right documents were not there."""
        hits, _ = without(question, index.search(question.text, k=K + 5), [])
        return likeliest(replace(question, answers=()), answerer.read(question.text, hits[:K]))

    def _sureness(self, said: Sequence[Said], mode: str) -> dict[str, Any]:
        """Expected calibration error and Brier score, beside those of a constant, and of what chance alone makes.

        The constant is the share right in fitting; chance is what exact probabilities would show on so few questions.
        """
        stated, right = np.array([each.probability for each in said]), np.array([float(each.right) for each in said])
        calibration = Answerer(None, self.reader).calibration or Calibration()
        constant = np.full(len(said), calibration.about.get("right", {}).get(mode, np.nan))
        return {
            "mean probability": round(float(stated.mean()), 3),
            "share right": round(float(right.mean()), 3),
            "calibration error": round(calibration_error(stated, right), 4),
            "calibration error of a constant": round(calibration_error(constant, right), 4),
            "calibration error by chance": round(by_chance(stated), 4),
            "Brier score": round(float(np.mean((stated - right) ** 2)), 4),
            "Brier score of a constant": round(float(np.mean((constant - right) ** 2)), 4),
        }

    def early(self) -> dict[str, Any]:
        """Reading until the answer is settled, against reading everything."""
        asked = self.questions("openqa", self.measuring, seed=1)
        counting = Counting(self.reader)
        same, moved, read = [], [], []
        with self.open_index() as index:
            early = Answerer(Retriever(index), self.reader)
            early.reader = counting
            calibration = early.calibration or Calibration()
            unlimited = {mode: replace(getattr(calibration, mode), ceiling=None) for mode in ("ranked", "searched")}
            whole = Answerer(None, self.reader, calibration=replace(calibration, **unlimited))
            for question in progress(asked, "early"):
                hits = index.search(question.text, k=K)
                counting.texts = 0
                one, other = (likeliest(question, a.read(question.text, hits)) for a in (early, whole))
                read.append(counting.texts / max(len(hits), 1))
                same.append(one.text == other.text and one.found == other.found)
                moved.append(abs(one.probability - other.probability))
        return {
            "questions": len(asked),
            "passages read, percent": round(100 * float(np.mean(read)), 1),
            "answers unchanged, percent": round(100 * float(np.mean(same)), 2),
            "mean change of the probability": round(float(np.mean(moved)), 4),
        }

    def speed(self, rounds: int = 24) -> dict[str, Any]:
        """Mean times of one answer from 20 hits, taken in turns, so that a busy machine slows all alike."""
        slow = TransformersReader(str(self.weights))
        threads = torch.get_num_threads()
        seconds: dict[str, list[float]] = {}

        def take(name: str, work: Callable[[], object]) -> None:
            start = time.perf_counter()
            work()
            seconds.setdefault(name, []).append(time.perf_counter() - start)

        with self.open_index() as index:
            answerer = Answerer(Retriever(index), self.reader)
            asked = [q for q in self.questions("openqa", self.measuring, seed=2)][: rounds + 1]
            for question in progress(asked, "speed"):
                hits = index.search(question.text, k=K)
                texts = [hit.passage.text for hit in hits]
                take("ours, until the answer is settled", lambda: answerer.read(question.text, hits))  # noqa: B023
                take("ours, all passages", lambda: self.reader.read(question.text, texts))  # noqa: B023
                for n in sorted({1, threads}):
                    torch.set_num_threads(n)
                    take(
                        f"torch, passage by passage, {n} threads",
                        lambda: [slow.read(question.text, [text]) for text in texts],  # noqa: B023
                    )
        torch.set_num_threads(threads)
        mean = {name: float(np.mean(times[1:])) for name, times in seconds.items()}  # the first one loads
        fastest = min(value for name, value in mean.items() if name.startswith("torch"))
        return {
            name: {"answers per second": round(1 / value, 2), "times as fast as torch": round(fastest / value, 2)}
            for name, value in mean.items()
        } | {"questions": len(asked) - 1}

    # -- fitting

    def fit(self) -> Calibration:
        """Read everything that there is for calibrating, and fit."""
        one, two = (self.questions(name, self.calibrating) for name in SQUAD)
        given = [self._case(q, [hit_of(q.context)]) for q in progress([*one, *two], "paragraphs")]
        documents = {document.text: document for document in self.set("openqa").documents()}
        own, hidden, articles, other = [], [], [], []
        with self.open_index() as index:
            for asked in progress(one, "openqa"):
                document = documents[asked.context]
                q = replace(asked, documents={document.id: 1})
                hits = index.search(q.text, k=K)
                spans = self.reader.read(q.text, [hit.passage.text for hit in hits])
                own.append(case(q, hits, spans))
                hidden.append(case(q, *without(q, hits, spans)))
                articles.append(plain(document.title))
            for name in ("cisi", "medline-1033"):
                for q in progress(self.questions(name), name):
                    other.append(self._case(replace(q, answers=()), index.search(q.text, k=K)))
        answerable = [True] * len(one) + [bool(q.answers) for q in two]
        calibration = fit(Read(given, answerable, own, hidden, articles, other), self.reader.name)
        print(calibration, file=sys.stderr)
        return calibration

    def _case(self, question: Question, hits: Sequence[Hit]) -> Case:
        return case(question, hits, self.reader.read(question.text, [hit.passage.text for hit in hits]))


class Counting:
    """A compiled reader that counts the texts it reads."""

    def __init__(self, reader: OnnxReader) -> None:
        self._reader, self.name, self.texts = reader, reader.name, 0

    def read(self, question: str, texts: Sequence[str]) -> list[Span]:
        self.texts += len(texts)
        return self._reader.read(question, texts)


# -- figures


def likeliest(question: Question, answer: Answer) -> Said:
    best = answer if answer.found else next(iter(answer.alternatives), answer)
    return Said(question, best.text, best.score, answer.found)


def exactness(said: Sequence[Said]) -> dict[str, Any]:
    """EM and F1 of the best spans, as by SQuAD 1.1's script."""
    pairs = [(each.text, each.question.answers or ()) for each in said]
    em, f1 = (100 * float(np.mean([metric(*pair) for pair in pairs])) for metric in (exact_match, token_f1))
    return {"questions": len(said), "EM": round(em, 2), "F1": round(f1, 2)}


def official_two(said: Sequence[Said]) -> dict[str, Any]:
    """EM and F1 as by SQuAD 2.0's script: where nothing is found the answer is empty. And balanced accuracies."""
    final = [each if each.found else each._replace(text="") for each in said]
    answerable = np.array([bool(each.question.answers) for each in said])
    probabilities = np.array([each.probability for each in said])
    found = np.array([each.found for each in said])
    best = best_threshold(probabilities.tolist(), answerable)
    return exactness(final) | {
        "answerable": exactness([each for each in final if each.question.answers]),
        "answerable, best spans": exactness([each for each in said if each.question.answers]),
        "unanswerable": exactness([each for each in final if not each.question.answers]),
        "balanced accuracy at the threshold": balanced(found, answerable),
        "best balanced accuracy": balanced(probabilities >= best, answerable),
    }


def balanced(kept: NDArray[np.bool_], answerable: NDArray[np.bool_]) -> float:
    return round(50 * float(np.mean(kept[answerable]) + np.mean(~kept[~answerable])), 1)


def refused(said: Sequence[Said]) -> float:
    return round(100 * float(np.mean([not each.found for each in said])), 1)


def by_chance(p: NDArray[np.float64], draws: int = 200) -> float:
    """The calibration error that probabilities which are exactly right have on so many questions, on average."""
    random = np.random.default_rng(0)
    return float(np.mean([calibration_error(p, random.random(len(p)) < p) for _ in range(draws)]))


def curve(said: Sequence[Said]) -> list[float]:
    """The percentage of wrong answers to the surest 2%, 4%, ..., 100% of the questions."""
    wrong = np.array([not each.right for each in sorted(said, key=lambda each: -each.probability)])
    parts = [wrong[: max(1, len(wrong) * n // 50)] for n in range(1, 51)]
    return [round(100 * float(part.mean()), 2) for part in parts]


def draw(stored: dict[str, Any], path: Path) -> None:
    """The curves of all parts: of the surest answers, how many are wrong."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for part in stored.values():
        for name, points in part.get("risk by coverage", {}).items():
            axes.plot(np.arange(2, 101, 2), points, label=name)
    axes.set(xlabel="answered, % of the questions, the surest first", ylabel="wrong, % of the answers", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)


# -- small things


def hit_of(text: str) -> Hit:
    return Hit(Passage(0, "", text, 0, len(text)), 0.0, 1)


def progress(items: Sequence[Question], name: str) -> Iterable[Question]:
    start = time.monotonic()
    yield from items
    print(f"… {name}: {len(items)} questions, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

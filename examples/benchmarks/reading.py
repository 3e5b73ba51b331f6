"""How well, how surely and how fast questions are answered; with --fit, the calibration of the shipped reader.

    python examples/benchmarks/reading.py                  # all figures on samples, a few minutes
    python examples/benchmarks/reading.py --only speed
    python examples/benchmarks/reading.py --fit            # first writes calibration.json next to the reader

It reads the folders openqa, squad-v1.1-dev-open, squad-v2.0-dev-open, fairytaleqa-val, cosqa-dev and cranfield from
--data, and the reader's weights before their compilation, for the comparison of speed, from --weights. Indexes are made
once, under --indexes.

Every other question of openqa is used to fit, the rest to measure. Beware: the first reader was trained on the articles
of these questions, so that its figures on them, and the probabilities fitted with their help, are too good.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from semsearch import Answerer, Hit, Index, Passage, Retriever
from semsearch.datasets import Question, read_dataset
from semsearch.extraction import SHIPPED, OnnxReader, TransformersReader
from semsearch.metrics import calibration_error, exact_match, token_f1
from semsearch.reading import Calibration, Span

ROOT = Path(__file__).resolve().parents[2]
K = 20
REFUSED = 0.1  # the share of answerable questions that the stored threshold refuses


class Case(NamedTuple):
    """One question as the calibration sees it: an entry for each span, all (n,)."""

    scores: NDArray[np.float64]
    ranks: NDArray[np.float64]
    words: NDArray[np.str_]
    right: NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared" / "models" / "reader-minilm")
    parser.add_argument("--reader", type=Path, default=SHIPPED, help="the folder of a compiled reader")
    parser.add_argument("--indexes", type=Path, default=ROOT / "indexes")
    parser.add_argument("--sample", type=int, default=300, help="questions of each set")
    parser.add_argument("--only", choices=["speed", "paragraph", "open"], help="one part instead of all")
    parser.add_argument("--fit", action="store_true", help="fit the calibration and write it next to the reader")
    args = parser.parse_args()
    reader = OnnxReader(args.reader)
    if args.fit:
        fit(reader, args.data, args.indexes, args.sample)
    if args.only in (None, "paragraph"):
        measure_paragraphs(args.reader, args.data, args.sample)
    if args.only in (None, "speed"):
        measure_speed(reader, TransformersReader(args.weights), args.data)
    if args.only in (None, "open"):
        measure_open(args.reader, args.data, args.indexes, args.sample)


# -- measuring


def measure_paragraphs(reader: Path, data: Path, sample: int) -> None:
    """EM and F1 given the right paragraph, and the probabilities of those answers."""
    answerer = Answerer(None, reader, threshold=0.0)
    for name in ("squad-v1.1-dev-open", "squad-v2.0-dev-open", "fairytaleqa-val"):
        asked = [q for q in questions(data / name / "squad.json.gz", sample, seed=1)]
        answers = [answerer.read(q.text, q.context) for q in asked]
        answerable = [(a.text, q.answers) for a, q in zip(answers, asked, strict=True) if q.answers]
        em, f1 = (
            100 * np.mean([metric(text, gold) for text, gold in answerable]) for metric in (exact_match, token_f1)
        )
        right = [exact_match(a.text, q.answers) if q.answers else 0.0 for a, q in zip(answers, asked, strict=True)]
        error = calibration_error([a.score for a in answers], right)
        print(f"{name}: {len(answerable)} questions, paragraph given: EM {em:.1f}, F1 {f1:.1f}")
        print(f"  calibration error over {len(asked)} questions {error:.3f}")
        if 0 < len(answerable) < len(asked):
            print(f"  answerable against unanswerable by probability: balanced accuracy {balanced(answers, asked):.1f}")


def balanced(answers: Sequence[object], asked: Sequence[Question]) -> float:
    """The best mean of both classes' accuracies over all thresholds, in percent."""
    scores = np.array([a.score for a in answers])  # type: ignore[attr-defined]
    positive = np.array([bool(q.answers) for q in asked])
    return 50 * max(np.mean(scores[positive] >= t) + np.mean(scores[~positive] < t) for t in scores)


def measure_speed(reader: OnnxReader, torch_reader: TransformersReader, data: Path, rounds: int = 6) -> None:
    """Answers over 20 passages per second, beside the same weights in torch, passage by passage, taken in turns.

    torch runs with as many threads as it likes and with one, as on a busy machine its threads wait for each other.
    """
    corpus = [d.text for d in read_dataset(data / "openqa").documents()]
    rng = np.random.default_rng(0)
    threads = torch.get_num_threads()
    seconds: dict[str, list[float]] = {}
    for question in questions(data / "openqa", rounds + 1, seed=2):
        texts = [corpus[i] for i in rng.choice(len(corpus), K, replace=False)]
        start = time.perf_counter()
        reader.read(question.text, texts)
        seconds.setdefault("ours", []).append(time.perf_counter() - start)
        for n in sorted({1, threads}):
            torch.set_num_threads(n)
            start = time.perf_counter()
            for text in texts:
                torch_reader.read(question.text, [text])
            seconds.setdefault(f"torch, passage by passage, {n} threads", []).append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    median = {name: float(np.median(times[1:])) for name, times in seconds.items()}  # the first one loads
    for name, time_ in median.items():
        print(f"{K} passages, {name}: {1 / time_:.2f} answers per second, {time_ / median['ours']:.1f} times our time")


def measure_open(reader: Path, data: Path, indexes: Path, sample: int) -> None:
    """Top-1 answers over all of openqa, and what is refused, on the half that was not used to fit."""
    with opened(data / "openqa", indexes) as index:
        answerer = Answerer(Retriever(index), reader)
        own = questions(data / "openqa", sample, half=1)
        answers = [answerer.answer(q.text, k=K) for q in own]
        likeliest = [a if a.found else next(iter(a.alternatives), a) for a in answers]
        right = [exact_match(a.text, q.answers or ()) for a, q in zip(likeliest, own, strict=True)]
        kept = [exact_match(a.text, q.answers or ()) for a, q in zip(answers, own, strict=True) if a.found]
        refused = 100 * np.mean([not a.found for a in answers])
        print(f"openqa: {len(own)} questions to {len(index)} passages: EM of the best span {100 * np.mean(right):.1f}")
        scores = [a.score for a in likeliest]
        print(
            f"  calibration error {calibration_error(scores, right):.3f}, mean probability {100 * np.mean(scores):.1f}"
        )
        em = 100 * np.mean(kept)
        print(f"  at the threshold {answerer.threshold:g}: {refused:.1f}% refused, EM of the others {em:.1f}")
        for name in ("cosqa-dev", "cranfield"):
            others = [answerer.answer(q.text, k=K) for q in questions(data / name, sample // 2)]
            share = 100 * np.mean([not a.found for a in others])
            print(f"  {name}: {share:.1f}% of {len(others)} questions refused")


# -- fitting


def fit(reader: OnnxReader, data: Path, indexes: Path, sample: int) -> None:
    """Fit the three calibrations by maximum likelihood, and write them next to the reader."""
    paragraphs = [q for n in ("1.1", "2.0") for q in questions(data / f"squad-v{n}-dev-open" / "squad.json.gz", sample)]
    tales = questions(data / "fairytaleqa-val" / "squad.json.gz", sample // 2)
    given = [read(reader, q, [Hit(passage(q.context), 0.0, 1)]) for q in [*paragraphs, *tales]]
    searched, refusable = [], []
    with opened(data / "openqa", indexes) as index:
        for i, q in enumerate(questions(data / "openqa", sample, half=0)):
            hits = index.search(q.text, k=K)
            spans = reader.read(q.text, [hit.passage.text for hit in hits])
            refusable.append(case(q, hits, spans))
            if i % 3 == 0:
                searched.append(case(*without(q, hits, spans)))
    searched += refusable
    stories = {d.text: d.title for d in read_dataset(data / "fairytaleqa-val").documents()}
    with opened(data / "fairytaleqa-val", indexes) as index:
        for q in tales:
            searched.append(read(reader, q, index.search(q.text, k=K, where={"story": stories[q.context]})))
    models = {
        "given": fitted(given, ["scale", "bias"], Calibration(scale=0.3)),
        "ranked": fitted(searched, ["scale", "bias", "rank"], Calibration(scale=0.3)),
    }
    likely = [models["ranked"].probability(best(models["ranked"], c)[0]) for c in refusable]
    stored = {
        "note": "How scores of this reader become probabilities, fitted by maximum likelihood with "
        "examples/benchmarks/reading.py --fit, on squad-v1.1-dev-open, squad-v2.0-dev-open, openqa (a third of its "
        "questions once more with their documents hidden) and fairytaleqa-val. The reader was trained on the articles "
        "of the first three; fairytaleqa-val is new to it, but its answers are free in their wording. So this is a "
        "first approximation, and no held-out calibration.",
        "questions": {"given": len(given), "ranked": len(searched)},
        "calibration_error_on_these": {
            mode: round(error(models[mode], cases), 3) for mode, cases in (("given", given), ("ranked", searched))
        },
        "threshold_refuses": f"{REFUSED:.0%} of the openqa questions that were used to fit",
        "threshold": round(float(np.quantile(likely, REFUSED)), 3),
        **{mode: {key: round(value, 4) for key, value in asdict(model).items()} for mode, model in models.items()},
    }
    path = reader.folder / "calibration.json"
    path.write_text(json.dumps(stored, indent=2) + "\n", "utf-8")
    print(f"{path}:\n{path.read_text('utf-8')}")


def without(question: Question, hits: Sequence[Hit], spans: Sequence[Span]) -> tuple[Question, list[Hit], list[Span]]:
    """The same as if the right documents were not there: their spans are gone, and other hits move up in rank."""
    gone = [hit.passage.document_id in question.documents for hit in hits]
    moved = [replace(hit, rank=hit.rank - int(n)) for hit, n in zip(hits, np.cumsum(gone), strict=True)]
    return question, moved, [span for span in spans if not gone[span.text]]


def read(reader: OnnxReader, question: Question, hits: Sequence[Hit]) -> Case:
    return case(question, hits, reader.read(question.text, [hit.passage.text for hit in hits]))


def case(question: Question, hits: Sequence[Hit], spans: Sequence[Span]) -> Case:
    read = [hits[span.text] for span in spans]
    texts = [hit.passage.text[span.start : span.end] for hit, span in zip(read, spans, strict=True)]
    return Case(
        np.array([span.score for span in spans], dtype=np.float64),
        np.array([hit.rank for hit in read], dtype=np.float64),
        np.array([" ".join(text.casefold().split()) for text in texts]),
        np.array(
            [bool(question.answers) and exact_match(text, question.answers or ()) > 0 for text in texts], dtype=bool
        ),
    )


def best(model: Calibration, c: Case) -> tuple[float, bool]:
    """The share of the likeliest text, and whether it is right."""
    if not len(c.scores):
        return 0.0, False
    _, group = np.unique(c.words, return_inverse=True)
    totals = np.bincount(group, weights=model.shares(c.scores, c.ranks))
    return float(totals.max()), bool(c.right[group == totals.argmax()].any())


def loss(model: Calibration, cases: Iterable[Case]) -> float:
    """The mean negative log-likelihood of "one of the right spans", or of "no answer" where none is right."""
    losses = []
    for c in cases:
        shares = model.shares(c.scores, c.ranks)
        likelihood = shares[c.right].sum() if c.right.any() else 1.0 - shares.sum()
        losses.append(-np.log(max(likelihood, 1e-12)))
    return float(np.mean(losses))


def fitted(cases: Sequence[Case], names: Sequence[str], start: Calibration) -> Calibration:
    """The parameters `names` of least loss, and then the slope and the offset that predict the right answers best."""

    def with_values(model: Calibration, names: Sequence[str], values: NDArray[np.float64]) -> Calibration:
        return replace(model, **dict(zip(names, map(float, values), strict=True)))

    first = np.array([getattr(start, name) for name in names])
    found = minimize(lambda values: loss(with_values(start, names, values), cases), first, method="BFGS").x
    model = with_values(start, names, found)
    answers = [best(model, c) for c in cases]

    def platt(values: NDArray[np.float64]) -> float:
        last = with_values(model, ["slope", "offset"], values)
        odds = [p if right else 1 - p for p, right in ((last.probability(s), right) for s, right in answers)]
        return float(-np.mean(np.log(np.maximum(odds, 1e-12))))

    return with_values(model, ["slope", "offset"], minimize(platt, np.array([1.0, 0.0]), method="BFGS").x)


def error(model: Calibration, cases: Sequence[Case]) -> float:
    """The calibration error of the best answers."""
    answers = [best(model, c) for c in cases]
    return calibration_error([model.probability(share) for share, _ in answers], [float(right) for _, right in answers])


# -- reading the data


def questions(path: Path, sample: int, *, half: int | None = None, seed: int = 0) -> tuple[Question, ...]:
    """A sample of the questions; with `half` 0 or 1, of every other one."""
    if not path.exists():
        raise SystemExit(f"{path} is not there. Say where the data is: --data FOLDER")
    dataset = read_dataset(path)
    if half is not None:
        dataset = replace(dataset, questions=dataset.questions[half::2])
    return dataset.sample(sample, seed=seed).questions


def opened(folder: Path, indexes: Path) -> Index:
    """An index of the documents in a folder of data, made if it is not there; `story` in the metadata is the title."""
    index = Index(indexes / f"benchmark-{folder.name}")
    if not len(index):
        documents = read_dataset(folder).documents()
        print(f"{folder.name}: {index.add(replace(d, metadata={'story': d.title}) for d in documents)}")
    return index


def passage(text: str) -> Passage:
    return Passage(0, "", text, 0, len(text))


if __name__ == "__main__":
    main()

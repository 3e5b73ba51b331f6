"""Measure retrievers and answerers on judged questions, and tell differences from chance.

    evaluate(retriever, "data/scifact")                     # nDCG, MAP, MRR, recall, precision, latency
    evaluate(answerer, "data/squad-v2.0-dev/dev.json.gz")   # EM, F1, calibration, latency
    compare({"lexical": a, "hybrid": b}, [("When is it open?", "hours.md"), ...])

A dataset is a BEIR folder, a SQuAD file, a JSON-lines file of questions, or a list; see `read_dataset`. Hits are
passages while judgements are about documents, so the best passage of a document counts for it, and more passages are
asked for until k documents have come out. Questions without any judgement are left out.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semsearch.datasets import Dataset, Question, read_beir, read_dataset, read_questions, read_squad
from semsearch.errors import InputError, SemsearchError
from semsearch.metrics import (
    calibration_error,
    contains_answer,
    exact_match,
    holm,
    randomisation_test,
    score_gains,
    score_ranking,
    token_f1,
)
from semsearch.records import Answer, Hit

__all__ = [
    "Comparison",
    "Dataset",
    "Difference",
    "Evaluation",
    "Question",
    "calibration_error",
    "compare",
    "evaluate",
    "exact_match",
    "randomisation_test",
    "read_beir",
    "read_dataset",
    "read_questions",
    "read_squad",
    "score_ranking",
    "token_f1",
]


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """What one system reached on one dataset. Prints as a table.

    `metrics` maps a metric's name to its mean; `scores` maps it to each question's value (by question id), where it has
    one. Latencies are milliseconds per question, one at a time, on this machine: compare them within one run only.
    `size` is the bytes of the index's folder, None where there is none.
    """

    name: str
    dataset: str
    questions: int
    metrics: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]
    median_ms: float
    p95_ms: float
    size: int | None = None

    def to_dict(self, *, scores: bool = False) -> dict[str, Any]:
        """JSON values; with the values of each question if `scores` is True."""
        row: dict[str, Any] = {name: getattr(self, name) for name in ("name", "dataset", "questions")}
        row |= {"metrics": {m: None if math.isnan(value) else value for m, value in self.metrics.items()}}
        row |= {"median_ms": self.median_ms, "p95_ms": self.p95_ms, "size": self.size}
        return row | ({"scores": {m: dict(values) for m, values in self.scores.items()}} if scores else {})

    def __str__(self) -> str:
        rows = [[name, f"{value:.4f}"] for name, value in self.metrics.items()]
        rows += [["median ms", f"{self.median_ms:.2f}"], ["p95 ms", f"{self.p95_ms:.2f}"]]
        rows += [] if self.size is None else [["size MB", f"{self.size / 1e6:.1f}"]]
        return f"{self.name} on {self.dataset}, {self.questions} questions\n{_table(rows)}"

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class Difference:
    """A system beside the best one: `mean` is its score less the best's; `p` says how easily chance gives that much."""

    system: str
    best: str
    mean: float
    p: float


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Several systems on one dataset. Prints as a table with a recommendation.

    `differences` are on `metric`, to the `best` system, by the paired randomisation test, with p values corrected for
    the number of comparisons (Holm 1979). `recommended` is the system to take, `reason` says why.
    """

    dataset: str
    metric: str
    evaluations: tuple[Evaluation, ...]
    differences: tuple[Difference, ...]
    best: str
    recommended: str
    reason: str

    def to_dict(self, *, scores: bool = False) -> dict[str, Any]:
        """JSON values; with the values of each question if `scores` is True."""
        row: dict[str, Any] = {n: getattr(self, n) for n in ("dataset", "metric", "best", "recommended", "reason")}
        row["differences"] = [{n: getattr(d, n) for n in ("system", "best", "mean", "p")} for d in self.differences]
        return row | {"systems": [evaluation.to_dict(scores=scores) for evaluation in self.evaluations]}

    def __str__(self) -> str:
        names = list(self.evaluations[0].metrics)
        beside = {d.system: [f"{d.mean:+.4f}", f"{d.p:.4f}"] for d in self.differences}
        rows = [["", *names, "median ms", f"{self.metric} to best", "p"]]
        for e in self.evaluations:
            values = [f"{e.metrics[name]:.4f}" if name in e.metrics else "" for name in names]
            rows.append([e.name, *values, f"{e.median_ms:.2f}", *beside.get(e.name, ["best", ""])])
        return f"{self.dataset}, {self.evaluations[0].questions} questions\n{_table(rows)}\nTake {self.reason}"

    __repr__ = __str__


def evaluate(system: Any, dataset: object, *, k: int = 10, name: str | None = None) -> Evaluation:
    """Put every judged question of a dataset to a retriever or an answerer.

    `system` is a `Retriever`, an `Index`, or any object with `search(list of questions, k=…)` that gives a list of hits
    for each; or an `Answerer`, or any object with `answer(question)`. An answerer without a retriever reads the
    paragraph that a SQuAD question was written about. `dataset` is anything that `read_dataset` takes.

    Retrieval is judged by documents; where the index has none of a question's documents (a SQuAD file put to one's own
    folder), by answers: then the first document with a passage that contains an answer is the one relevant document.

    Metrics of a retriever: ndcg@k, map@k, mrr@k, recall@k, precision@k. Of an answerer (which chooses its own number
    of passages): em and f1; where there are unanswerable questions, em_answerable and f1_answerable of the others, and
    no_answer, the share of unanswerable ones left unanswered; source, the share of answers read in a judged document;
    ece, the calibration error of the best span's score.

        >>> evaluate(semsearch.Retriever(index, mode="lexical"), "data/scifact").metrics["ndcg@10"]  # doctest: +SKIP
        0.68

    Raises InputError for a dataset that cannot be read or does not fit: no judgements, no judged document in the index.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k must be a whole number of at least 1, not {k!r}.")
    data = read_dataset(dataset)
    if callable(getattr(system, "answer", None)):
        metrics, scores, seconds = _evaluate_answers(system, data)
    elif callable(getattr(system, "search", None)):
        metrics, scores, seconds = _evaluate_ranking(system, data, k)
    else:
        raise InputError(f"Only what has search() or answer() can be evaluated, not {type(system).__name__}.")
    median, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return Evaluation(
        name=name or _name(system),
        dataset=data.name,
        questions=len({id for values in scores.values() for id in values}),
        metrics=metrics,
        scores=scores,
        median_ms=float(median),
        p95_ms=float(p95),
        size=_size(system),
    )


def compare(
    systems: Mapping[str, Any] | Iterable[Any], dataset: object, *, k: int = 10, metric: str | None = None
) -> Comparison:
    """Evaluate several systems on the same questions and recommend one.

    `systems` maps names to retrievers (or to answerers, not both), or is a list of them. `metric` decides; by default
    ndcg@k for retrievers and f1 for answerers. The system with the best mean is recommended, unless one that is at
    least 1.5 times as fast is behind by at most 0.01 and the difference is not significant (p >= 0.05).
    """
    named = dict(systems) if isinstance(systems, Mapping) else _names(list(systems))
    if len(named) < 2:
        raise InputError(f"A comparison needs at least 2 systems, not {len(named)}.")
    answers = {name: callable(getattr(system, "answer", None)) for name, system in named.items()}
    if len(set(answers.values())) > 1:
        raise InputError(f"Compare retrievers with retrievers and answerers with answerers, not both: {answers}.")
    data = read_dataset(dataset)
    evaluations = tuple(evaluate(system, data, k=k, name=name) for name, system in named.items())
    metric = metric or ("f1" if all(answers.values()) else f"ndcg@{k}")
    if metric not in evaluations[0].scores:
        raise InputError(f"There is no metric {metric!r} to compare by. Choose among {sorted(evaluations[0].scores)}.")
    best = max(evaluations, key=lambda e: e.metrics[metric])  # the first of equals
    differences = _differences(best, [e for e in evaluations if e is not best], metric)
    recommended, reason = _recommend(best, evaluations, differences, metric)
    return Comparison(data.name, metric, evaluations, differences, best.name, recommended, reason)


_Measured = tuple[dict[str, float], dict[str, dict[str, float]], list[float]]
_T = TypeVar("_T")


def _evaluate_ranking(system: Any, data: Dataset, k: int) -> _Measured:
    questions = [q for q in data.questions if q.documents or q.answers]
    _check_known(system, data, questions)
    knows = _knows(system)
    if knows is not None:
        questions = _judged(questions, knows)
    nothing = f"None of the {len(data.questions)} questions of {data.name!r} has an expected document or answer."
    if not questions:
        raise InputError(nothing)
    _search(system, questions[0].text, k)  # models load at the first search: not a part of the latency
    rankings, seconds = {}, []
    for question in questions:
        hits, elapsed = _timed(lambda text=question.text: _search(system, text, k))  # type: ignore[misc]
        seconds.append(elapsed)
        rankings[question.id] = _documents(system, question, hits, k)
    if knows is None:  # then what was found says which strings are ids
        questions = _judged(questions, {id for ranking in rankings.values() for id in ranking}.__contains__)
        if not questions:
            raise InputError(nothing)
    scores: dict[str, dict[str, float]] = {}
    for question in questions:
        ranking = rankings[question.id]
        if question.documents:
            row = score_ranking(list(ranking), question.documents, k=k)
        else:
            first = next((n for n, has in enumerate(ranking.values()) if has), None)
            row = score_gains([int(n == first) for n in range(len(ranking))], [1], k)
        for metric, value in row.items():
            scores.setdefault(metric, {})[question.id] = value
    return {metric: _mean(values.values()) for metric, values in scores.items()}, scores, seconds


def _evaluate_answers(system: Any, data: Dataset) -> _Measured:
    searches = getattr(system, "retriever", system) is not None
    knows = _knows(system) or (lambda id: False)
    questions = [
        r for q in data.questions if (r := _resolve(q, knows)).answers is not None or (r.documents and searches)
    ]
    if not questions:
        raise InputError(f"None of the {len(data.questions)} questions of {data.name!r} has an expected answer.")
    if not searches and not all(q.context for q in questions):
        raise InputError(
            f"The answerer has no retriever, and {data.name!r} does not say which text to read: use a SQuAD file."
        )

    def ask(question: Question) -> Answer:
        answer: Answer = system.answer(question.text) if searches else system.read(question.text, question.context)
        return answer

    ask(questions[0])  # models load at the first question: not a part of the latency
    scores: dict[str, dict[str, float]] = {}
    stated, right, seconds = [], [], []
    for question in questions:
        answer, elapsed = _timed(lambda question=question: ask(question))  # type: ignore[misc]
        seconds.append(elapsed)
        for metric, value in _score_answer(question, answer, searches).items():
            scores.setdefault(metric, {})[question.id] = value
        best = answer if answer.found else next(iter(answer.alternatives), None)
        if best is not None and question.answers is not None:
            stated.append(best.score)
            right.append(exact_match(best.text, question.answers))
    metrics = {metric: _mean(values.values()) for metric, values in scores.items()}
    if "no_answer" not in scores:  # then they say the same as em and f1
        for metric in ("em_answerable", "f1_answerable"):
            metrics.pop(metric, None)
            scores.pop(metric, None)
    return metrics | ({"ece": calibration_error(stated, right)} if stated else {}), scores, seconds


def _score_answer(question: Question, answer: Answer, searches: bool) -> dict[str, float]:
    row = {}
    if question.answers is not None:
        row["em"] = em = exact_match(answer.text, question.answers)
        row["f1"] = f1 = token_f1(answer.text, question.answers)
        row |= {"em_answerable": em, "f1_answerable": f1} if question.answers else {"no_answer": em}
    if searches and question.documents and question.answers != ():
        cited = {citation.document_id for citation in answer.citations} | {answer.document_id}
        row["source"] = float(answer.found and any(question.documents.get(id, 0) > 0 for id in cited if id is not None))
    return row


def _search(system: Any, text: str, k: int) -> Sequence[Hit]:
    hits: Sequence[Hit] = system.search([text], k=k)[0]
    return hits


def _documents(system: Any, question: Question, hits: Sequence[Hit], k: int) -> dict[str, bool]:
    """The first k documents in order, with whether one of their passages contains an answer."""
    wanted = k
    while len({hit.passage.document_id for hit in hits}) < k and len(hits) >= wanted:
        wanted *= 2
        hits = _search(system, question.text, wanted)
    ranking: dict[str, bool] = {}
    for hit in hits:
        id = hit.passage.document_id
        ranking[id] = ranking.get(id, False) or contains_answer(hit.passage.text, question.answers or ())
    return dict(islice(ranking.items(), k))


def _index(system: Any) -> Any:
    """The index behind a retriever or an answerer, or the system itself if it is one; None if there is none."""
    return system if hasattr(system, "get") else getattr(getattr(system, "retriever", system), "index", None)


def _knows(system: Any) -> Callable[[str], bool] | None:
    """Whether the system's index has a document of an id; None if it has no index to ask."""
    index = _index(system)
    if not callable(getattr(index, "get", None)):
        return None
    seen: dict[str, bool] = {}

    def knows(id: str) -> bool:
        if id not in seen:
            try:
                seen[id] = index.get(id) is not None
            except (SemsearchError, LookupError):
                seen[id] = False
        return seen[id]

    return knows


def _check_known(system: Any, data: Dataset, questions: Sequence[Question]) -> None:
    knows = _knows(system)
    if knows is None or any(q.answers for q in questions):
        return
    if not any(knows(id) for question in questions for id in question.documents):
        example = next(iter(questions[0].documents))
        raise InputError(
            f"None of the documents that {data.name!r} judges is in the index, for example {example!r}. "
            "Index its documents first: index.add(semsearch.evaluation.read_dataset(…).documents())."
        )


def _judged(questions: Sequence[Question], knows: Callable[[str], bool]) -> list[Question]:
    return [r for q in questions if (r := _resolve(q, knows)).documents or r.answers]


def _resolve(question: Question, knows: Callable[[str], bool]) -> Question:
    """Judge by documents if the index has one of them, otherwise by answers."""
    if not question.documents or question.answers is None:
        return question
    if not any(knows(id) for id in question.documents):
        return replace(question, documents={})
    return replace(question, answers=None) if question.answers == tuple(question.documents) else question


def _timed(call: Callable[[], _T]) -> tuple[_T, float]:
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _size(system: Any) -> int | None:
    location = getattr(_index(system), "path", None)
    if not isinstance(location, (str, PathLike)) or not Path(location).is_dir():
        return None
    return sum(path.stat().st_size for path in Path(location).rglob("*") if path.is_file())


def _name(system: Any) -> str:
    for attribute in ("name", "mode"):
        if isinstance(value := getattr(system, attribute, None), str):
            return value
    reader = getattr(getattr(system, "reader", None), "name", None)
    return reader if isinstance(reader, str) else type(system).__name__


def _names(systems: Sequence[Any]) -> dict[str, Any]:
    """Names for a list; equal ones are numbered."""
    count: Counter[str] = Counter()
    named = {}
    for system in systems:
        name = _name(system)
        count[name] += 1
        named[name if count[name] == 1 else f"{name} ({count[name]})"] = system
    return named


def _differences(best: Evaluation, others: Sequence[Evaluation], metric: str) -> tuple[Difference, ...]:
    means, ps = [], []
    for other in others:
        theirs, ours = other.scores[metric], best.scores[metric]
        shared = [id for id in ours if id in theirs]
        means.append(other.metrics[metric] - best.metrics[metric])
        ps.append(randomisation_test([theirs[id] for id in shared], [ours[id] for id in shared]))
    return tuple(Difference(o.name, best.name, m, p) for o, m, p in zip(others, means, holm(ps), strict=True))


def _recommend(
    best: Evaluation, evaluations: Sequence[Evaluation], differences: Sequence[Difference], metric: str
) -> tuple[str, str]:
    by_name = {e.name: e for e in evaluations}
    faster = [
        (by_name[d.system].median_ms, d)
        for d in differences
        if d.mean >= -0.01 and d.p >= 0.05 and by_name[d.system].median_ms * 1.5 <= best.median_ms
    ]
    top = f"{metric} {best.metrics[metric]:.4f}"
    if faster:
        milliseconds, chosen = min(faster, key=lambda pair: pair[0])
        return chosen.system, (
            f"{chosen.system}: it is as good as {best.name} ({top}) as far as these questions can tell "
            f"({chosen.mean:+.4f}, p {chosen.p:.2g}), and a question takes {milliseconds:.2f} ms, "
            f"not {best.median_ms:.2f}."
        )
    unsure = [f"{d.system} ({d.mean:+.4f}, p {d.p:.2g})" for d in differences if d.p >= 0.05]
    doubt = f" More questions are needed to tell it from {', '.join(unsure)}." if unsure else ""
    sure = [f"{d.system} ({d.mean:+.4f}, p {d.p:.2g})" for d in differences if d.p < 0.05]
    better = f", significantly better than {', '.join(sure)}" if sure else ""
    return best.name, f"{best.name}: the best {top}{better}.{doubt}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)

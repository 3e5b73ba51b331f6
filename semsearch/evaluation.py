"""Measure retrievers and answerers on judged questions, and tell differences from chance.

    evaluate(retriever, "data/scifact")                     # nDCG, MAP, MRR, recall, precision, latency
    evaluate(answerer, "data/squad-v2.0-dev/dev.json.gz")   # EM, F1, calibration, latency
    compare({"lexical": a, "hybrid": b}, [("When is it open?", "hours.md"), ...])      # semsearch.comparing
    audit(retriever)                                        # what names, genders and places do   semsearch.audit

A dataset is a BEIR folder, a SQuAD file, a JSON-lines file of questions, or a list; see `read_dataset`. Hits are
passages while judgements are about documents, so the best passage of a document counts for it, and more passages are
asked for until k documents have come out. Questions without any judgement are left out, and so are empty ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from semsearch.datasets import Dataset, Question, read_beir, read_dataset, read_questions, read_squad
from semsearch.errors import InputError, SemsearchError
from semsearch.metrics import (
    calibration_error,
    contains_answer,
    exact_match,
    randomisation_test,
    score_gains,
    score_ranking,
    token_f1,
)
from semsearch.records import Answer, Hit

if TYPE_CHECKING:
    from semsearch.audit import Audit, audit
    from semsearch.comparing import Comparison, Difference, compare

__all__ = [
    "Audit",
    "Comparison",
    "Dataset",
    "Difference",
    "Evaluation",
    "Question",
    "audit",
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

_LAZY = {
    "Audit": "audit",
    "Comparison": "comparing",
    "Difference": "comparing",
    "audit": "audit",
    "compare": "comparing",
}


def __getattr__(name: str) -> Any:
    """What is built upon `evaluate` is here too, loaded when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"semsearch.{_LAZY[name]}"), name)


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """What one system reached on one dataset. Prints as a table.

    `metrics` maps a metric's name to its mean; `scores` maps it to each question's value (by question id), where it has
    one. Latencies are milliseconds per question, one at a time, on this machine: compare them within one run only.
    `size` is the bytes of the index's folder, None where there is none. `stated` has, for an answerer, the probability
    of the best answer to each question (by question id) and whether it is right; `semsearch.plots` draws it. `empty`
    is how many questions of the dataset were left out because they have no text.
    """

    name: str
    dataset: str
    questions: int
    metrics: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]
    median_ms: float
    p95_ms: float
    size: int | None = None
    stated: Mapping[str, tuple[float, bool]] = field(default_factory=dict)
    empty: int = 0

    def to_dict(self, *, scores: bool = False) -> dict[str, Any]:
        """JSON values; with the values of each question if `scores` is True."""
        row: dict[str, Any] = {name: getattr(self, name) for name in ("name", "dataset", "questions")}
        row |= {"metrics": {m: None if math.isnan(value) else value for m, value in self.metrics.items()}}
        row |= {"median_ms": self.median_ms, "p95_ms": self.p95_ms, "size": self.size, "empty": self.empty}
        return row | ({"scores": {m: dict(values) for m, values in self.scores.items()}} if scores else {})

    def __str__(self) -> str:
        return f"{self._about()}\n{text_table(self._rows())}"

    def _repr_html_(self) -> str:
        from semsearch.html import Table, tables_html

        return tables_html(self._about(), Table([["metric", "mean"], *self._rows()]))

    def _about(self) -> str:
        return f"{self.name} on {self.dataset}, {counted(self)}"

    def _rows(self) -> list[list[str]]:
        rows = [[name, f"{value:.4f}"] for name, value in self.metrics.items()]
        rows += [["median ms", f"{self.median_ms:.2f}"], ["p95 ms", f"{self.p95_ms:.2f}"]]
        return rows + ([] if self.size is None else [["size MB", f"{self.size / 1e6:.1f}"]])

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

    Raises InputError for a dataset that cannot be read or does not fit: no judgements, no judged document in the index,
    no question but empty ones, two questions with the same id (of which a report could tell only one).
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k must be a whole number of at least 1, not {k!r}.")
    whole = read_dataset(dataset)
    data = whole.asked()
    if whole.questions and not data.questions:
        raise InputError(f"All {len(whole.questions)} questions of {data.name!r} are empty: none can be asked.")
    _check_ids(data)
    if callable(getattr(system, "answer", None)):
        metrics, scores, seconds, stated = _evaluate_answers(system, data)
    elif callable(getattr(system, "search", None)):
        metrics, scores, seconds = _evaluate_ranking(system, data, k)
        stated = {}
    else:
        raise InputError(f"Only what has search() or answer() can be evaluated, not {type(system).__name__}.")
    median, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return Evaluation(
        name=name or name_of(system),
        dataset=data.name,
        questions=len({id for values in scores.values() for id in values}),
        metrics=metrics,
        scores=scores,
        median_ms=float(median),
        p95_ms=float(p95),
        size=_size(system),
        stated=stated,
        empty=len(whole.questions) - len(data.questions),
    )


_Measured = tuple[dict[str, float], dict[str, dict[str, float]], list[float]]
_T = TypeVar("_T")


def _evaluate_ranking(system: Any, data: Dataset, k: int) -> _Measured:
    questions = [q for q in data.questions if q.documents or q.answers]
    nothing = f"None of the {len(data.questions)} questions of {data.name!r} has an expected document or answer."
    if not questions:
        raise InputError(nothing)
    _check_known(system, data, questions)
    knows = _knows(system)
    if knows is not None:
        questions = _judged(questions, knows)
    if not questions:
        raise InputError(nothing)
    _search(system, questions[0].text, k)  # models load at the first search: not a part of the latency
    rankings, seconds = {}, []
    for question in questions:
        hits, elapsed = _timed(system, lambda text=question.text: _search(system, text, k))  # type: ignore[misc]
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


def _evaluate_answers(system: Any, data: Dataset) -> tuple[*_Measured, dict[str, tuple[float, bool]]]:
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
    seconds: list[float] = []
    stated: dict[str, tuple[float, bool]] = {}
    for question in questions:
        answer, elapsed = _timed(system, lambda question=question: ask(question))  # type: ignore[misc]
        seconds.append(elapsed)
        for metric, value in _score_answer(question, answer, searches).items():
            scores.setdefault(metric, {})[question.id] = value
        best = answer if answer.found else next(iter(answer.alternatives), None)
        if best is not None and question.answers is not None:
            stated[question.id] = best.score, bool(exact_match(best.text, question.answers))
    metrics = {metric: _mean(values.values()) for metric, values in scores.items()}
    if "no_answer" not in scores:  # then they say the same as em and f1
        for metric in ("em_answerable", "f1_answerable"):
            metrics.pop(metric, None)
            scores.pop(metric, None)
    if stated:
        metrics["ece"] = calibration_error(*zip(*stated.values(), strict=True))
    return metrics, scores, seconds, stated


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


def _check_ids(data: Dataset) -> None:
    """Scores are kept by id: a second question of the same one would take the place of the first."""
    seen: dict[str, str] = {}
    for question in data.questions:
        if question.id in seen:
            raise InputError(
                f"Two questions of {data.name!r} have the id {question.id!r}: {seen[question.id][:80]!r} and "
                f"{question.text[:80]!r}. Give each an id of its own, and leave out one that is there twice."
            )
        seen[question.id] = question.text


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
    return replace(question, answers=None) if question.ambiguous else question


def _timed(system: Any, call: Callable[[], _T]) -> tuple[_T, float]:
    """What a call gives, and the seconds it took; those that a shared index spared it by remembering count, too."""
    index = _index(system)
    spared = getattr(index, "spared", 0.0)
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start + getattr(index, "spared", 0.0) - spared


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def counted(evaluation: Evaluation) -> str:
    """How many questions were asked: "217 questions (2 empty ones left out)"."""
    empty = evaluation.empty
    left_out = f" ({empty} empty one{'s' * (empty != 1)} left out)" if empty else ""
    return f"{evaluation.questions} questions{left_out}"


def _size(system: Any) -> int | None:
    return folder_size(getattr(_index(system), "path", None))


def folder_size(location: Any) -> int | None:
    """The bytes of the files in a folder, None if it is none."""
    if not isinstance(location, (str, PathLike)) or not Path(location).is_dir():
        return None
    return sum(path.stat().st_size for path in Path(location).rglob("*") if path.is_file())


def name_of(system: Any) -> str:
    """What a system is called in a report: its name, its mode, its reader's name, or else its class."""
    for attribute in ("name", "mode"):
        if isinstance(value := getattr(system, attribute, None), str):
            return value
    reader = getattr(getattr(system, "reader", None), "name", None)
    return reader if isinstance(reader, str) else type(system).__name__


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)

"""Compare systems on the same questions, tell differences from chance, and recommend one.

    compare({"lexical": a, "hybrid": b}, questions)                          # retrievers, or answerers, of your own
    compare(dataset="data/scifact", encoders=[None, "models/mine"], fusions=["rrf", "min_max"])
    compare(dataset=questions, documents="~/handbook", modes=["lexical", "hybrid"], rerankers=[None, mine])

Parts given by name are put together in every way that makes a difference, each encoder with an index of its own in a
temporary folder. What several systems have in common is done once: an index, the vector of a question, the ranking of a
leg. The time that remembering spares is added to a system's latency, so that it stays what a user would wait.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsearch.datasets import Dataset, read_dataset
from semsearch.errors import InputError
from semsearch.evaluation import Evaluation, counted, evaluate, folder_size, name_of, text_table
from semsearch.metrics import bootstrap_interval, holm, randomisation_test
from semsearch.records import Document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "Difference", "IndexCost", "SharedIndex", "compare"]

MODES = ("lexical", "dense", "hybrid")


@dataclass(frozen=True, slots=True)
class Difference:
    """A system beside the best one: `mean` is its score less the best's; `p` says how easily chance gives that much.

    `low` and `high` are the ends of the 95% bootstrap interval of the mean over the questions.
    """

    system: str
    best: str
    mean: float
    p: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class IndexCost:
    """What the index of an encoder took to make: `seconds`, and bytes on disk."""

    encoder: str
    passages: int
    seconds: float
    size: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Several systems on one dataset. Prints as a table with a recommendation.

    `differences` are on `metric`, to the `best` system, by the paired randomisation test, with p values corrected for
    the number of comparisons (Holm 1979). `recommended` is the system to take, `reason` says why. `indexes` tells what
    was indexed for the comparison.
    """

    dataset: str
    metric: str
    evaluations: tuple[Evaluation, ...]
    differences: tuple[Difference, ...]
    best: str
    recommended: str
    reason: str
    indexes: tuple[IndexCost, ...] = ()

    def to_dict(self, *, scores: bool = False) -> dict[str, Any]:
        """JSON values; with the values of each question if `scores` is True."""
        row: dict[str, Any] = {n: getattr(self, n) for n in ("dataset", "metric", "best", "recommended", "reason")}
        row["differences"] = [asdict(difference) for difference in self.differences]
        row["indexes"] = [asdict(index) for index in self.indexes]
        return row | {"systems": [evaluation.to_dict(scores=scores) for evaluation in self.evaluations]}

    def to_json(self, path: str | PathLike[str] | None = None, *, scores: bool = False) -> str:
        """`to_dict` as JSON text, also written to `path` if that is given."""
        text = json.dumps(self.to_dict(scores=scores), indent=1, ensure_ascii=False) + "\n"
        if path is not None:
            Path(path).expanduser().write_text(text, encoding="utf-8")
        return text

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """A picture of quality and cost, one row a system; saved to `path` (.png, .svg, .pdf) if that is given.

        A dot is the mean of `metric`, its bar the 95% interval of the difference to the best system: a bar that reaches
        the dashed line cannot be told from the best. Returns a matplotlib Figure, which a notebook shows. Raises
        MissingExtraError without matplotlib. `semsearch.plots.comparison` draws the quality alone on axes of your own.
        """
        from semsearch.plots import comparison_figure

        figure = comparison_figure(self)
        if path is not None:
            figure.savefig(Path(path).expanduser(), dpi=150)
        return figure

    def __str__(self) -> str:
        return "\n".join([self._about(), text_table(self._rows()), *self._costs(), f"Take {self.reason}"])

    def _repr_html_(self) -> str:
        from semsearch.html import Table, tables_html

        best = [e.name for e in self.evaluations].index(self.recommended)
        return tables_html(self._about(), Table(self._rows(), best), "\n".join([*self._costs(), f"Take {self.reason}"]))

    def _about(self) -> str:
        return f"{self.dataset}, {counted(self.evaluations[0])}"

    def _rows(self) -> list[list[str]]:
        """A row for each system, heads first."""
        names = list(self.evaluations[0].metrics)
        beside = {d.system: [f"{d.mean:+.4f}", f"{d.p:.4f}"] for d in self.differences}
        rows = [["", *names, "median ms", f"{self.metric} to best", "p"]]
        for e in self.evaluations:
            values = [f"{e.metrics[name]:.4f}" if name in e.metrics else "" for name in names]
            rows.append([e.name, *values, f"{e.median_ms:.2f}", *beside.get(e.name, ["best", ""])])
        return rows

    def _costs(self) -> list[str]:
        return [
            f"{each.encoder}: {each.passages} passages indexed in {each.seconds:.1f} s"
            + ("" if each.size is None else f", {each.size / 1e6:.1f} MB")
            for each in self.indexes
        ]

    __repr__ = __str__


def compare(
    systems: Mapping[str, Any] | Iterable[Any] = (),
    dataset: object = None,
    *,
    documents: object = None,
    encoders: Sequence[Any] = (),
    modes: Sequence[str] = (),
    fusions: Sequence[Any] = (),
    rerankers: Sequence[Any] = (),
    readers: Sequence[Any] = (),
    k: int = 10,
    metric: str | None = None,
) -> Comparison:
    """Evaluate several systems on the same questions and recommend one.

    `systems` maps names to retrievers (or to answerers, not both), or is a list of them. Beside them, or instead, parts
    may be named, and are tried in every combination: `encoders` as `Index` takes them (static word-vector encoders of
    sentence-transformers too), `modes` (all three if other parts are named), `fusions` as functions or names in
    `semsearch.fusion`, `rerankers` as `Retriever` takes them (None: without one), `readers` as `Answerer` takes them
    (then answers are compared). Keyword search is tried with the first encoder's index only.

    `dataset` is anything that `evaluate` takes. The documents that named parts search are the dataset's own, or
    `documents`: a folder or file, an iterable of what `Index.add` takes, or an Index (its encoder is meant by None, and
    then it is searched itself). `metric` decides; by default ndcg@k for retrievers and f1 for answerers.

    The system with the best mean is recommended, unless one that is at least 1.5 times as fast is behind by at most
    0.01 and the difference is not significant (p >= 0.05).

    Raises InputError for fewer than two systems, a metric or a fusion that there is not, and what `evaluate` raises.
    """
    if dataset is None:
        raise InputError("Compare on what? Pass dataset=: a BEIR folder, a SQuAD file, or a list of questions.")
    data = read_dataset(dataset)
    named = dict(systems) if isinstance(systems, Mapping) else numbered((name_of(each), each) for each in systems)
    parts = _Parts(encoders, modes, fusions, rerankers, readers)
    with ExitStack() as stack:
        indexes: tuple[IndexCost, ...] = ()
        if parts.named:
            built, indexes = _indexes(parts.encoders, _corpus(documents, data), documents, stack)
            named = numbered([*named.items(), *parts.systems(built)])
        return _compared(named, data, k, metric, indexes)


def _compared(
    named: Mapping[str, Any], data: Dataset, k: int, metric: str | None, indexes: tuple[IndexCost, ...]
) -> Comparison:
    if len(named) < 2:
        raise InputError(f"A comparison needs at least 2 systems, not {len(named)}.")
    answers = {name: callable(getattr(system, "answer", None)) for name, system in named.items()}
    if len(set(answers.values())) > 1:
        raise InputError(f"Compare retrievers with retrievers and answerers with answerers, not both: {answers}.")
    evaluations = tuple(evaluate(system, data, k=k, name=name) for name, system in named.items())
    metric = metric or ("f1" if all(answers.values()) else f"ndcg@{k}")
    if metric not in evaluations[0].scores:
        raise InputError(f"There is no metric {metric!r} to compare by. Choose among {sorted(evaluations[0].scores)}.")
    best = max(evaluations, key=lambda e: e.metrics[metric])  # the first of equals
    differences = _differences(best, [e for e in evaluations if e is not best], metric)
    recommended, reason = _recommend(best, evaluations, differences, metric)
    return Comparison(data.name, metric, evaluations, differences, best.name, recommended, reason, indexes)


# -- systems from named parts ------------------------------------------------------------------------------------------


class _Parts:
    """The parts that a user named, and the systems that can be made of them."""

    def __init__(
        self,
        encoders: Sequence[Any],
        modes: Sequence[str],
        fusions: Sequence[Any],
        rerankers: Sequence[Any],
        readers: Sequence[Any],
    ) -> None:
        given = {"encoders": encoders, "modes": modes, "fusions": fusions, "rerankers": rerankers, "readers": readers}
        for name, value in given.items():
            if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
                raise InputError(f"{name}= takes a list, not {value!r}. Pass [{value!r}].")
        self.named = any(given.values())
        self.encoders = list(encoders) or [None]
        self._modes = list(modes) or list(MODES)
        self._fusions = numbered((part_name(each), _fusion(each)) for each in fusions) or {"": None}
        self._rerankers = list(rerankers) or [None]
        self._readers = list(readers)

    def systems(self, indexes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The names and systems, for indexes by the name of their encoder."""
        from semsearch.reading import Answerer
        from semsearch.retrieval import Retriever

        readers = [Answerer(None, reader=each).reader for each in self._readers]
        for name, mode, fusion, reranker in self._combinations(list(indexes)):
            joined = self._fusions[fusion] if fusion else None
            parts = {"fusion": joined} if joined else {}  # the retriever's own default otherwise
            retriever = Retriever(indexes[name], mode=mode, reranker=reranker, **parts)
            label = self._label(name if len(indexes) > 1 else "", mode, fusion, reranker)
            if not readers:
                yield label, retriever
            for reader in readers:
                yield f"{label}, read by {reader.name}", Answerer(retriever, reader=reader)

    def _combinations(self, encoders: Sequence[str]) -> Iterator[tuple[str, str, str, Any]]:
        for encoder, mode, fusion, reranker in product(encoders, self._modes, self._fusions, self._rerankers):
            hybrid_or_first = mode == "hybrid" or fusion == next(iter(self._fusions))
            if hybrid_or_first and (mode != "lexical" or encoder == encoders[0]):
                yield encoder, mode, fusion if mode == "hybrid" else "", reranker

    def _label(self, encoder: str, mode: str, fusion: str, reranker: Any) -> str:
        words = [encoder if mode != "lexical" else "", mode, fusion]
        text = " ".join(word for word in words if word)
        return text if reranker is None else f"{text} + {part_name(reranker)}"


def part_name(part: Any) -> str:
    """How a fusion or a reranker is called in a table.

    >>> part_name(partial(min, 2, default=3))
    'min(2, default=3)'
    """
    if isinstance(part, partial):
        given = [*map(str, part.args), *(f"{name}={value}" for name, value in part.keywords.items())]
        return f"{part_name(part.func)}({', '.join(given)})"
    if isinstance(part, str):
        return part
    for attribute in ("name", "__name__"):
        if isinstance(value := getattr(part, attribute, None), str):
            return value
    return type(part).__name__


def _fusion(given: Any) -> Callable[..., Any]:
    from semsearch import fusion

    if isinstance(given, str):
        known = [name for name in fusion.__all__ if name.islower()]
        if given not in known:
            raise InputError(f"There is no fusion {given!r}. Choose among {', '.join(known)}, or pass a function.")
        return getattr(fusion, given)  # type: ignore[no-any-return]
    if not callable(given):
        raise InputError(f"A fusion is a function or a name, not {given!r}.")
    return given  # type: ignore[no-any-return]


def _corpus(documents: Any, data: Dataset) -> Callable[[], Iterator[Any]]:
    """What to index, as often as it is asked for; a folder is read once."""
    from semsearch.index import Index

    if documents is None:
        return data.documents
    if isinstance(documents, Index):
        return documents.documents
    if isinstance(documents, (str, PathLike)):
        from semsearch.loading import load

        documents = load(Path(documents).expanduser())
    if not isinstance(documents, Iterable) or isinstance(documents, (Mapping, Document)):
        raise InputError(f"documents= takes a folder, a list of documents or an Index, not {type(documents).__name__}.")
    items = list(documents)
    return lambda: iter(items)


def _indexes(
    encoders: Sequence[Any], corpus: Callable[[], Iterator[Any]], given: Any, stack: ExitStack
) -> tuple[dict[str, Any], tuple[IndexCost, ...]]:
    """A remembering index for each encoder, by its name, and what the new ones cost."""
    from semsearch.index import Index

    named: list[tuple[str, Any]] = []
    costs = []
    for encoder in encoders:
        if encoder is None and isinstance(given, Index):
            named.append((given.encoder.name, SharedIndex(given)))
            continue
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="semsearch-compare-", ignore_cleanup_errors=True)
        )
        index = stack.enter_context(Index(Path(folder) / "index", encoder=encoder))
        start = time.perf_counter()
        index.add(corpus(), progress=False)
        seconds = time.perf_counter() - start
        costs.append(IndexCost(index.encoder.name, len(index), seconds, folder_size(index.path)))
        named.append((index.encoder.name, SharedIndex(index)))
    return numbered(named), tuple(costs)


class SharedIndex:
    """An index that is searched by several systems with the same questions: vectors and rankings are made once.

    `spared` is how many seconds that has spared so far.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._known: dict[Any, tuple[Any, float]] = {}
        self.spared: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def __repr__(self) -> str:
        return repr(self._index)

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        """(len(queries), dimension) float32; a query that was encoded before is not encoded again."""

        def encoded(query: str) -> np.ndarray:
            row: np.ndarray = self._index.encode_queries([query])[0]
            return row

        return np.stack([self.once(("vector", query), partial(encoded, query)) for query in queries])

    @contextmanager
    def snapshot(self) -> Iterator[_Snapshot]:
        """A snapshot of the index whose rankings are remembered."""
        with self._index.snapshot() as snapshot:
            yield _Snapshot(snapshot, self.once)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made at the first time only."""
        if key in self._known:
            value, seconds = self._known[key]
            self.spared += seconds
            return value
        start = time.perf_counter()
        value = make()
        self._known[key] = (value, time.perf_counter() - start)
        return value


class _Snapshot:
    """A snapshot whose rankings are remembered, but for filtered ones."""

    def __init__(self, snapshot: Any, once: Callable[[Any, Callable[[], Any]], Any]) -> None:
        self._snapshot = snapshot
        self._once = once

    def __getattr__(self, name: str) -> Any:
        return getattr(self._snapshot, name)

    def dense(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Any:
        if allowed is not None:
            return self._snapshot.dense(vectors, k, allowed)
        return self._once(("dense", vectors.tobytes(), k), lambda: self._snapshot.dense(vectors, k))

    def lexical(self, queries: Sequence[str], k: int, allowed: np.ndarray | None = None) -> Any:
        if allowed is not None:
            return self._snapshot.lexical(queries, k, allowed)
        return self._once(("lexical", tuple(queries), k), lambda: self._snapshot.lexical(queries, k))


# -- which is better ---------------------------------------------------------------------------------------------------


def numbered(systems: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Systems by name; equal names are numbered."""
    count: Counter[str] = Counter()
    named = {}
    for name, system in systems:
        count[name] += 1
        named[name if count[name] == 1 else f"{name} ({count[name]})"] = system
    return named


def _differences(best: Evaluation, others: Sequence[Evaluation], metric: str) -> tuple[Difference, ...]:
    means, ps, intervals = [], [], []
    for other in others:
        theirs, ours = other.scores[metric], best.scores[metric]
        shared = [id for id in ours if id in theirs]
        means.append(other.metrics[metric] - best.metrics[metric])
        ps.append(randomisation_test([theirs[id] for id in shared], [ours[id] for id in shared]))
        intervals.append(bootstrap_interval([theirs[id] - ours[id] for id in shared]))
    rows = zip(others, means, holm(ps), intervals, strict=True)
    return tuple(Difference(other.name, best.name, mean, p, *ends) for other, mean, p, ends in rows)


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

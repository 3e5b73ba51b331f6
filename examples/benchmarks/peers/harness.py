"""What is measured of each peer, in the same way for all; run inside the peer's own environment by ../scale.py.

A runner of this folder names its library in a class with the methods of `Peer` and ends with `run(ThatPeer())`. It is
started once to build and once more, in a new process, to open what was built and to search in it; a library that keeps
nothing on disk does both in one process. Only NumPy is needed beside the library.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import memory, rounded, size_on_disk, times, write

K = 10
TIE = 1e-5  # a passage whose score is so near to the tenth best is as good: sums differ in the last digits
WARM, TRIED, LEAST = 5, 100, 3  # queries before measuring, for the recall of a setting, and at least measured
GOAL = 0.95  # the recall that a peer is tuned to where its defaults do not reach it


class Inputs:
    """The texts, tokens and vectors that all build from, and the questions; read when they are first used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @cached_property
    def count(self) -> int:
        return int(self._json("facts.json")["passages"])

    @cached_property
    def texts(self) -> list[str]:
        return self._json("texts.json")

    @cached_property
    def added(self) -> list[str]:
        """The passages that are added one by one; their vectors follow those of the others."""
        return self._json("added.json")

    @cached_property
    def tokens(self) -> list[list[str]]:
        return [text.split() for text in self._json("tokens.json")]

    @cached_property
    def added_tokens(self) -> list[list[str]]:
        return [text.split() for text in self._json("added-tokens.json")]

    @property
    def all_vectors(self) -> np.ndarray:
        """(passages and those added, width) float32, mapped; not kept, so that it does not count as memory."""
        return np.load(self.folder / "vectors.npy", mmap_mode="r")

    @property
    def vectors(self) -> np.ndarray:
        return self.all_vectors[: self.count]

    @cached_property
    def questions(self) -> list[str]:
        return self._json("questions.json")

    @cached_property
    def question_tokens(self) -> list[list[str]]:
        return [text.split() for text in self._json("question-tokens.json")]

    @cached_property
    def question_vectors(self) -> np.ndarray:
        return np.load(self.folder / "questions.npy")

    def known(self, *, passages: bool) -> dict[str, np.ndarray]:
        """What an encoder would say of the questions and the passages to be added, and of all others where asked."""
        known = dict(zip(self.questions, self.question_vectors, strict=True))
        known |= zip(self.added, np.array(self.all_vectors[self.count :]), strict=True)
        if passages:
            known |= zip(self.texts, np.array(self.vectors), strict=True)
        return known


class Peer(ABC):
    """What a runner says of its library. Numbers of passages and questions are their places in the inputs."""

    packages: Sequence[str] = ()
    modes: Sequence[str] = ("dense",)
    ladder: Sequence[dict[str, Any]] = ({},)  # settings of its search, the defaults first, then ever more thorough
    formula: str | None = None  # the BM25 variant whose ranking it should give on the same tokens
    persistent = True  # whether a new process can open what was built
    note = ""

    @abstractmethod
    def build(self, inputs: Inputs, folder: Path, deadline: float) -> int | None:
        """Build; a peer that can stop half-way does so at the deadline (of time.monotonic) and says how far it came."""

    def open(self, inputs: Inputs, folder: Path) -> None:  # noqa: B027 (where there is anything to open)
        """Open what was built."""

    def use(self, settings: dict[str, Any]) -> None:  # noqa: B027 (where there are settings)
        """Search with these settings from now on."""

    @abstractmethod
    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        """The numbers of the ten best passages, best first."""

    add: Callable[[Inputs, int], None] | None = None
    """Add the passage with that place among `inputs.added`, so that the next search sees it; where the library can."""


def run(peer: Peer) -> None:
    """Do what the command line asks for, and write what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("build", "search", "both"))
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--started", type=float, required=True, help="time.time() when this process was started")
    parser.add_argument("--limit", type=float, required=True, help="seconds that this action may take")
    args = parser.parse_args()
    inputs, limit = Inputs(args.inputs), time.monotonic() + args.limit
    result: dict[str, Any] = {"packages": _versions(peer), "note": peer.note, "idle_bytes": memory()}
    if args.action != "search":
        result["build"] = _build(peer, inputs, args.folder, limit)
        write(args.out, result)
    if args.action != "build":
        if args.action == "both":
            limit = time.monotonic() + args.limit
        started = args.started if args.action == "search" else None
        _search(peer, inputs, args, started, limit, lambda part: write(args.out, result | part))


def _versions(peer: Peer) -> dict[str, str]:
    from common import version

    return {package: version(package) for package in peer.packages}


def _build(peer: Peer, inputs: Inputs, folder: Path, limit: float) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    reached = peer.build(inputs, folder, limit)
    seconds = time.perf_counter() - start - getattr(peer, "prepared", 0.0)
    result = {
        "seconds": rounded(seconds),
        "passages": inputs.count if reached is None else reached,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    return result | ({"disk_bytes": size_on_disk(folder)} if peer.persistent else {})


def _search(
    peer: Peer,
    inputs: Inputs,
    args: argparse.Namespace,
    started: float | None,
    limit: float,
    record: Callable[[dict[str, Any]], None],
) -> None:
    """Measure the searches; what is known is recorded at every step, in case the time is over."""
    peer.open(inputs, args.folder)
    peer.search(inputs, peer.modes[0], 0)
    result: dict[str, Any] = {"rows": []}
    if started is not None:
        result["first_result_seconds"] = rounded(time.time() - started)
    built = args.folder / "built.json"
    count = json.loads(built.read_text())["passages"] if built.is_file() else inputs.count
    tenth = tenth_best(inputs, count) if "dense" in peer.modes else None
    rungs = iter(peer.ladder)
    settings = next(rungs, None)
    while settings is not None:
        peer.use(settings)
        first, recall = not result["rows"], None
        modes = [mode for mode in peer.modes if first or mode != "lexical"]
        for place, mode in enumerate(modes):
            left = len(modes) - place + (len(modes) if first else 1)
            taken, found = _timed(peer, inputs, mode, (limit - time.monotonic()) / left)
            row = {"mode": mode, "settings": settings} | times(taken)
            if mode == "dense" and tenth is not None:
                recall = rounded(recall_at_10(inputs, found, tenth))
            if mode != "lexical" and recall is not None:
                row["recall@10"] = recall  # of the dense part, in hybrid search too
            if mode == "lexical" and peer.formula:
                row["agreement"] = agreement(inputs, found, peer.formula)
            result["rows"].append(row)
            record(result)
        settings = _next_rung(peer, inputs, tenth, rungs, limit) if recall is not None and recall < GOAL else None
    result["bytes"] = memory()
    record(result)
    if peer.add is not None:
        built.unlink(missing_ok=True)  # it is no longer what was built
        result["added"] = _added(peer, inputs, limit)
        record(result)


def _next_rung(
    peer: Peer, inputs: Inputs, tenth: np.ndarray, rungs: Iterator[dict[str, Any]], limit: float
) -> dict[str, Any] | None:
    """The next of the settings that finds enough of some questions, or the last; None where there is none left."""
    settings = None
    for settings in rungs:
        peer.use(settings)
        _, found = _timed(peer, inputs, "dense", (limit - time.monotonic()) / 10, most=TRIED)
        if recall_at_10(inputs, found, tenth) >= GOAL:
            break
    return settings


def _timed(
    peer: Peer, inputs: Inputs, mode: str, share: float, most: int | None = None
) -> tuple[list[float], list[list[int]]]:
    """Seconds of single queries, and what they found; fewer than all where these seconds are over."""
    end = time.monotonic() + share
    for question in range(WARM):
        if question and time.monotonic() > end:
            break
        peer.search(inputs, mode, question)
    taken: list[float] = []
    found: list[list[int]] = []
    for question in range(min(most or len(inputs.questions), len(inputs.questions))):
        if len(taken) >= LEAST and time.monotonic() > end:
            break
        start = time.perf_counter()
        ids = peer.search(inputs, mode, question)
        taken.append(time.perf_counter() - start)
        found.append(ids)
    return taken, found


def _added(peer: Peer, inputs: Inputs, limit: float) -> dict[str, Any]:
    """The cost of one document more, and of a search after each."""
    add, searching = [], []
    assert peer.add is not None
    for place in range(len(inputs.added)):
        if len(add) >= LEAST and time.monotonic() > limit:
            break
        start = time.perf_counter()
        peer.add(inputs, place)
        between = time.perf_counter()
        peer.search(inputs, peer.modes[0], place % len(inputs.questions))
        add.append(between - start)
        searching.append(time.perf_counter() - between)
    return times(add) | {"next_search_median_ms": rounded(float(np.median(searching)) * 1e3)}


# -- how good ----------------------------------------------------------------------------------------------------------


def best(vectors: np.ndarray, questions: np.ndarray, k: int = K, block: int = 50_000) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and scores of the k rows with the largest inner product, (questions, k) each, by looking at all."""
    scores = np.empty((len(questions), 0), np.float32)
    ids = np.empty((len(questions), 0), np.int64)
    for start in range(0, len(vectors), block):
        part = questions @ np.asarray(vectors[start : start + block]).T
        scores = np.concatenate([scores, part], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)], axis=1)
        if scores.shape[1] > k:
            keep = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            scores, ids = np.take_along_axis(scores, keep, 1), np.take_along_axis(ids, keep, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)


def tenth_best(inputs: Inputs, count: int) -> np.ndarray:
    """The score of each question's tenth best passage among the first `count`, (questions,) float32."""
    path = inputs.folder / f"exact-{count}.npy"
    if not path.is_file():
        np.save(path, best(inputs.all_vectors[:count], inputs.question_vectors)[1])
    return np.load(path)[:, -1]


def recall_at_10(inputs: Inputs, found: Sequence[Sequence[int]], tenth: np.ndarray) -> float:
    """The share of the true ten nearest passages that were found; of passages with the same score any will do."""
    vectors, hits = inputs.all_vectors, 0
    for question, ids in enumerate(found):
        scores = np.asarray(vectors[sorted(set(ids))[:K]]) @ inputs.question_vectors[question]
        hits += int((scores >= tenth[question] - TIE).sum())
    return hits / (K * len(found))


def agreement(inputs: Inputs, found: Sequence[Sequence[int]], formula: str) -> float | None:
    """The share of the passages found that semsearch has among its ten best with that formula, ties included."""
    path = inputs.folder / f"bm25-{formula}.json"
    if not path.is_file():
        return None
    shares = []
    for ids, (own, scores) in zip(found, json.loads(path.read_text()), strict=False):
        if own:
            least = scores[min(K, len(own)) - 1] * (1 - TIE)
            good = {id for id, score in zip(own, scores, strict=True) if score >= least}
            shares.append(len(good.intersection(ids)) / min(K, len(own)))
    return rounded(float(np.mean(shares)))

"""Workers on a Ray cluster, and the work for them: a lost worker costs its piece of it, and nothing waits for ever."""

from __future__ import annotations

import math
import re
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semsearch.errors import EngineUnavailableError, IndexMismatchError, InputError, MissingExtraError, SemsearchError

__all__ = ["Pool", "Worker"]

REACHED = 10.0  # seconds in which somebody must answer at an address
TRIES = 3  # workers that a piece of work may take with it before it is given up


class Worker:
    """What runs on the cluster."""

    def __init__(self, encoder: Any, cpus: float) -> None:
        self._given, self._cpus = encoder, cpus

    def start(self) -> Mapping[str, Any]:
        """Load the model; returns its fingerprint."""
        from semsearch.encoding import fingerprint, get_encoder
        from semsearch.runtime import limit_cores

        limit_cores(math.ceil(self._cpus))
        self._encoder = get_encoder(self._given)
        return fingerprint(self._encoder)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of some texts."""
        return self._encoder.encode(texts, kind="passage")

    def shard(self, source: str, target: str, spec: str | None) -> tuple[Any, ...]:
        """Encode a shard; what became of it."""
        from semsearch.shards import encode_shard

        return tuple(encode_shard(Path(source), Path(target), self._encoder, spec))


@dataclass(eq=False)
class _Round:
    """The tasks of one call: which wait, and how many workers each was lost with."""

    waiting: deque[int]
    tries: list[int]


class _Task(NamedTuple):
    """A task that is being done; it may belong to an earlier call, whose caller has gone away."""

    round: _Round
    number: int


@dataclass
class Pool:
    """Workers, and what each is doing: `busy` has the task by its reference, None for one that is starting."""

    encoder: Any
    address: str | None
    count: int | None
    cpus: float
    gpus: float
    timeout: float
    expected: Mapping[str, Any] | None = None
    lost: int = 0
    workers: int = field(init=False)
    busy: dict[Any, tuple[Any, _Task | None]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, value in (("workers", self.count), ("cpus", self.cpus), ("gpus", self.gpus)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
                raise InputError(f"{name} is a number, not {value!r}.")
        self._ray = _imported()
        self._began = _connected(self._ray, self.address)
        self._actor = self._ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(Worker)
        self._waited = self._failed = 0.0
        self._reason = "none was started in that time"
        self.workers = int(self.count or _room(self._ray.cluster_resources(), self.cpus, self.gpus))
        for _ in range(self.workers):
            self._start()

    def each(self, names: Sequence[Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, Any]]:
        """Each name with what came of its task, (method, *arguments), in the order in which they are done.

        That is an EngineUnavailableError for a task that was lost with several workers.
        """
        round = _Round(deque(range(len(tasks))), [0] * len(tasks))
        done = 0
        try:
            while done < len(tasks):
                self._assign(round, tasks)
                for worker, task, reference in self._ready():
                    answer = self._answer(worker, task, reference, round)
                    if task is not None and task.round is round and answer is not None:
                        done += 1
                        yield names[task.number], answer
        finally:
            round.waiting.clear()

    def _answer(self, worker: Any, task: _Task | None, reference: Any, round: _Round) -> Any:
        """What came of a task; None for one that is to be tried again."""
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self.idle.append(worker)
            if task is not None and task.round is not round:
                return None
            raise _cause(error) from error
        except self._ray.exceptions.RayError as error:
            self._replace(worker, _short(error))
            return None if task is None else self._again(task)
        self._settle(worker, answer, started=task is None)
        return answer

    def _again(self, task: _Task) -> EngineUnavailableError | None:
        task.round.tries[task.number] += 1
        if task.round.tries[task.number] < TRIES:
            task.round.waiting.appendleft(task.number)
            return None
        return EngineUnavailableError(f"{TRIES} workers were lost with it, the last one so: {self._reason}")

    def _assign(self, round: _Round, tasks: Sequence[tuple[Any, ...]]) -> None:
        while round.waiting and self.idle:
            worker, number = self.idle.pop(), round.waiting.popleft()
            method, *arguments = tasks[number]
            self.busy[getattr(worker, method).remote(*arguments)] = worker, _Task(round, number)

    def _ready(self) -> list[tuple[Any, _Task | None, Any]]:
        """What is done, with its worker and task; waits a while, but not for ever where nothing is being done."""
        ready, _ = self._ray.wait(list(self.busy), num_returns=1, timeout=1.0)
        if any(task is not None for _, task in self.busy.values()) or ready:
            self._waited = time.monotonic()
        elif time.monotonic() - self._waited > self.timeout:
            raise EngineUnavailableError(
                f"The Ray cluster gave no worker of {self.cpus:g} CPUs and {self.gpus:g} GPUs within "
                f"{self.timeout:g} s: {self._reason}. Ask for less, wait until others have finished, or pass a longer "
                "timeout=."
            )
        return [(*self.busy.pop(reference), reference) for reference in ready]

    def _settle(self, worker: Any, answer: Any, *, started: bool) -> None:
        """A worker is free for the next task; one that has just started must have the same encoder as the others."""
        if started:
            self.expected = answer if self.expected is None else self.expected
            if answer != self.expected:
                raise IndexMismatchError(
                    f"A worker has the encoder {answer}, others have {self.expected}. Install the same release and the "
                    "same model on each machine."
                )
        self._failed = 0
        self.idle.append(worker)

    def _start(self) -> None:
        worker = self._actor.remote(self.encoder, self.cpus)
        self.busy[worker.start.remote()] = worker, None
        self._waited = time.monotonic()

    def _replace(self, worker: Any, reason: str) -> None:
        self.lost += 1
        self._failed += 1
        self._reason = reason
        self._ray.kill(worker)
        if self._failed > TRIES * self.workers:  # without anything being done in between
            raise EngineUnavailableError(f"The workers on the Ray cluster die: {self._reason}")
        self._start()

    def close(self) -> None:
        for worker in [*self.idle, *(worker for worker, _ in self.busy.values())]:
            self._ray.kill(worker)
        self.idle.clear()
        self.busy.clear()
        if self._began:
            self._began = False
            self._ray.shutdown()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtraError("Encoding on several machines", "ray", "ray") from None
    return ray


def _connected(ray: Any, address: str | None) -> bool:
    """Connect to the cluster; returns whether that was left to do."""
    if ray.is_initialized():
        return False
    try:
        # Ray itself asks an address where nobody listens for minutes.
        if (found := re.fullmatch(r"(?:ray://)?([^/:]+|\[.+\]):(\d+)", address or "")) is not None:
            socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=REACHED).close()
        ray.init(address, log_to_driver=False, logging_level="warning")
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise EngineUnavailableError(
            f"There is no Ray cluster at {address or 'this machine'}: {error}. Start one: ray start --head."
        ) from error
    return True


def _room(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many workers the cluster has room for, at least 1."""
    rooms = [resources.get(name, 0) // each for name, each in (("CPU", cpus), ("GPU", gpus)) if each]
    return max(1, int(min(rooms, default=1)))


def _short(error: Exception) -> str:
    """The first line of what Ray says, which is what happened, and the last, which may be why."""
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    return " … ".join(dict.fromkeys((lines[0][:200], lines[-1][:300]))) if lines else type(error).__name__


def _cause(error: Any) -> Exception:
    """What was raised in a worker."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, SemsearchError) else EngineUnavailableError(f"A worker failed: {error}")

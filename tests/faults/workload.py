"""A program that changes an index and is hurt on the way, and the questions that the index must answer afterwards.

`Workshop` keeps a process with everything imported; each job is a fork of it, so that a kill costs milliseconds. A job
applies operations to an index and writes what it means to commit, and what returned, into a log outside the index:

    {"intend": 12, "state": "5f..."}     inside the transaction that makes generation 12
    {"done": 3, "generation": 12}        operation 3 returned

Operations follow from (seed, number) and from the state that the operations before leave behind, which `Plan` computes
with a dictionary. `Chain` is one index that lives through one fault after the other: `Chain.verify` compares it with
the plan, with the log, and with an index built afresh from the same documents.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from toy import WordEncoder

import semsearch
from faults.outcome import Outcome
from semsearch import ingest, legs
from semsearch.errors import SemsearchError
from semsearch.tables import Writer

LIMIT = 20.0  # seconds that a job, or a look at an index, may take; more is a hang
TRIES = 4  # of an operation that fails with an error of ours

State = dict[str, str]  # id → text of every document


# -- what is done ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """`items` are (id, text) to add or ids to remove; for a sync, the folder's files are to be `files` first."""

    kind: str
    items: tuple[Any, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Plan:
    """The operations of a seed, and the state after each of them, without an index."""

    seed: str
    operations: list[Operation] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    _added: dict[str, str] = field(default_factory=dict)
    _files: dict[str, str] = field(default_factory=dict)
    _synced: dict[str, str] = field(default_factory=dict)

    def at(self, number: int) -> Operation:
        """The operation of that number."""
        while len(self.operations) <= number:
            self._extend()
        return self.operations[number]

    def state(self, number: int) -> State:
        """The documents after that operation; -1: before the first."""
        if number < 0:
            return {}
        self.at(number)
        return self.states[number]

    def _extend(self) -> None:
        number = len(self.operations)
        dice = random.Random(f"{self.seed}/{number}")
        kinds = ["one"] * 5 + ["many"] * 4 + ["remove"] * 4 + ["sync"] * 5 + ["optimize"] * 3 + ["search"] * 2
        # The first is a sync, so that its folder gets the empty prefix whatever happens to that operation.
        kind = "sync" if number == 0 else dice.choice([*kinds, "reopen", "backup"])
        if kind in ("one", "many"):
            ids = dice.sample(range(24), 1 if kind == "one" else dice.randint(3, 9))
            items: tuple[Any, ...] = tuple((f"a{id:02}", text(dice)) for id in ids)
            self._added.update(items)
        elif kind == "remove":
            items = tuple(dice.sample(sorted(self._added), min(len(self._added), dice.randint(1, 4))))
            for id in items:
                del self._added[id]
        else:
            items = ()
        if kind == "sync":
            self._change_files(dice)
            self._synced = dict(self._files)
        self.operations.append(Operation(kind, items, dict(self._files)))
        self.states.append({**self._added, **self._synced})

    def _change_files(self, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 5)):
            name = f"d{dice.randrange(3)}/f{dice.randrange(6)}.txt"
            what = dice.choice(["write", "write", "delete", "rename"])
            if what == "write" or not self._files:
                self._files[name] = text(dice)
            elif what == "delete":
                del self._files[dice.choice(sorted(self._files))]
            else:
                self._files[name] = self._files.pop(dice.choice(sorted(self._files)))


def text(dice: random.Random) -> str:
    """A text of one to some five passages, of words that other texts have too."""
    words = dice.choices([f"word{number}" for number in range(120)], k=dice.choice([3, 20, 60, 150, 300]))
    return " ".join(words) + f" unique{dice.randrange(10**9)}."


def state_hash(state: State) -> str:
    return sha256(json.dumps(sorted(state.items())).encode()).hexdigest()[:24]


# -- the program that is hurt ----------------------------------------------------------------------------------------


def settle_for_small_indexes() -> None:
    """Several batches an operation, and a cache that is written often, with a few dozen passages."""
    ingest.BATCH_PASSAGES = 6
    legs.Legs.is_stale.__kwdefaults__["least"] = 10  # type: ignore[index]


class _Log:
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def __call__(self, **line: Any) -> None:
        # One write a line; what was written outlives the process that is killed, no fsync needed for that.
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


def work(job: Mapping[str, Any]) -> None:
    """Apply operations `start` to `stop` of a seed to the index in `folder`."""
    log = _Log(job["log"])
    plan = Plan(job["seed"])
    _log_commits(log)
    if "largest_file" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"], resource.RLIM_INFINITY))
    shim = Shim() if job.get("arm") else None
    if shim is not None:
        shim.arm(job["folder"], **job["arm"])
    index: semsearch.Index | None = None
    number, tries = int(job["start"]), 0
    try:
        while number < int(job["stop"]):
            plan.state(number)
            try:
                if index is None:
                    index = semsearch.Index(job["folder"], encoder=WordEncoder())
                if plan.at(number).kind == "reopen":
                    index.close()
                    index = semsearch.Index(job["folder"], encoder=WordEncoder())
                apply(index, plan.at(number), Path(job["files"]), Path(job["spare"]))
            except SemsearchError as error:
                log(error=type(error).__name__, operation=number, text=str(error), trace=traceback.format_exc(limit=-9))
                tries += 1
                if tries >= TRIES:
                    break
                continue
            with index._mutex, index._store.reading() as view:
                log(done=number, generation=view.generation())
            number, tries = number + 1, 0
        if index is not None:
            index.close()
    except BaseException:
        log(wrong=traceback.format_exc(limit=-12), operation=number)
    if shim is not None:
        log(events=shim.events())


def apply(index: semsearch.Index, operation: Operation, files: Path, spare: Path) -> None:
    """Do one operation; doing it again after half of it was done leads to the same state."""
    if operation.kind in ("one", "many"):
        index.add(list(operation.items))
    elif operation.kind == "remove":
        index.remove(operation.items)
    elif operation.kind == "sync":
        set_files(files, operation.files)
        report = index.sync(files)
        assert not report.failures, report
    elif operation.kind == "optimize":
        index.optimize()
    elif operation.kind == "search":
        index.search("word1 word2", k=5)
    elif operation.kind == "backup" and hasattr(index, "backup"):
        shutil.rmtree(spare, ignore_errors=True)
        index.backup(spare)
        with semsearch.Index(spare, encoder=WordEncoder()) as copy:
            assert list(copy.documents()) == list(index.documents()), "a backup has other documents"


def set_files(folder: Path, files: Mapping[str, str]) -> None:
    """Make the folder hold exactly these files, touching only those that differ."""
    folder.mkdir(exist_ok=True)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in there - files.keys():
        (folder / name).unlink()
    for name, content in files.items():
        path = folder / name
        if name not in there or path.read_text() != content:
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)


def _log_commits(log: _Log) -> None:
    commit = Writer.commit

    @contextmanager
    def logged(self: Writer, *arguments: Any, **options: Any) -> Iterator[int]:
        with commit(self, *arguments, **options) as generation:
            yield generation
            log(intend=generation, state=state_hash(_documents(self)))

    Writer.commit = logged  # type: ignore[method-assign]


def _documents(view: Any) -> State:
    return {document.id: document.text for _, document in view.documents(0, 1 << 30)}


class Shim:
    """The functions of shim.c, where it was loaded under this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)

    def arm(
        self, folder: str, *, nth: int = 0, action: str = "count", error: int = 0, times: int = 1, **more: Any
    ) -> None:
        """From the `nth` event on a file in `folder` on, `times` times: `action`, see shim.c for the numbers."""
        shadow = os.fsencode(more.get("shadow") or "")
        kinds = int(more.get("kinds", 0xFFFF))
        self._library.shim_arm(os.fsencode(folder), nth, ACTIONS.index(action), error, times, kinds, shadow)

    def events(self) -> list[int]:
        """The kind of each event until now."""
        history = ctypes.POINTER(ctypes.c_ubyte)
        return list(ctypes.cast(self._library.shim_history, history)[: self._library.shim_events()])


ACTIONS = ("count", "before", "after", "torn", "error", "short")  # as in shim.c
WRITE, SYNC, RENAME, UNLINK, TRUNCATE, CREATE = 1, 2, 4, 8, 16, 32


def compiled_shim(folder: Path) -> Path:
    """The library of shim.c; skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        import pytest

        pytest.skip("no C compiler on Linux: shim.c cannot be compiled")
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


# -- who hurts it ----------------------------------------------------------------------------------------------------


class Workshop:
    """A process that forks for each job; `preload` is the library that is loaded under it (shim.c, compiled)."""

    def __init__(self, preload: Path | None = None) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        own = {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(semsearch.__file__).parents[1])])
        }
        if preload is not None:
            own["LD_PRELOAD"] = str(preload)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.workload"],
            env={**os.environ, **threads, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, **job: Any) -> str:
        """Do a job; "done", "killed", "hung", or what else became of it. `kill_after` is in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job, default=str).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that forks for each job ended: {self._process.wait()}")
        return str(json.loads(line))

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def main() -> None:
    """Fork for each line of the input; see `Workshop`."""
    import faiss  # noqa: F401
    import snowballstemmer  # noqa: F401
    import sqlite_utils  # noqa: F401

    import semsearch.index
    import semsearch.retrieval  # noqa: F401

    settle_for_small_indexes()
    logging.getLogger("semsearch").setLevel(logging.CRITICAL)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                work(job)
            os._exit(0)
        out.write(json.dumps(_fate(child, job.get("kill_after"))) + "\n")
        out.flush()


def _fate(child: int, kill_after: float | None) -> str:
    handle = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([handle], [], [], LIMIT if kill_after is None else kill_after)
        if not ended:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            return f"died of signal {number}"
        return "hung" if kill_after is None and not ended else "killed"
    return "done"


# -- what the index answers afterwards -------------------------------------------------------------------------------


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError in the main thread after that many seconds."""

    def expired(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Chain:
    """One index in `home`, its plan, and what is known of its state."""

    home: Path
    seed: str
    done: int = -1  # the last operation that returned
    generation: int = 0
    state: str = state_hash({})
    seen: list[dict[str, Any]] = field(default_factory=list)  # the logs of the jobs since the last look

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.plan = Plan(self.seed)
        self._intended: dict[int, set[str]] = {}
        self._looked = True

    @property
    def folder(self) -> Path:
        return self.home / "index"

    def job(self, operations: int, **more: Any) -> dict[str, Any]:
        """The next `operations` operations as a job of `Workshop.run`."""
        self._absorb()
        if self._looked:
            self.seen = []
            self._intended = {self.generation: {self.state}}
            self._looked = False
        start = self.done + 1
        own = {"folder": self.folder, "files": self.home / "files", "spare": self.home / "spare", "log": self._log}
        return {**own, "seed": self.seed, "start": start, "stop": start + operations, **more}

    @property
    def _log(self) -> Path:
        return self.home / "log"

    def _absorb(self) -> None:
        """Take over what the last job logged."""
        lines = self._log.read_bytes().split(b"\n")[:-1] if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        for line in map(json.loads, lines):
            self.seen.append(line)
            if "intend" in line:
                self._intended.setdefault(line["intend"], set()).add(line["state"])
            elif "done" in line:
                self.done, self.generation = line["done"], line["generation"]
                self.state = state_hash(self.plan.state(self.done))
                self._intended[self.generation] = {self.state}

    def look_back(self) -> list[dict[str, Any]]:
        """What the jobs since the last look have logged."""
        self._absorb()
        return self.seen

    def verify(self, *, second_write: bool = True) -> list[str]:
        """What is wrong with the index after the last jobs; what is right becomes the chain's new state."""
        self._absorb()
        self._looked = True
        wrong = [f"operation {line['operation']} raised {line['wrong']}" for line in self.seen if "wrong" in line]
        try:
            with time_limit(LIMIT):
                wrong += self._look(second_write)
        except Exception:
            wrong.append(traceback.format_exc(limit=-8))
        return [f"{self.seed}, operation {self.done + 1}: {each}" for each in wrong]

    def _look(self, second_write: bool) -> list[str]:
        with semsearch.Index(self.folder, encoder=WordEncoder()) as index:
            wrong = [*self._wrong_state(index), *wrong_answers(index)]
            if second_write:
                wrong += _wrong_second_write(index)
            with index._mutex, index._store.reading() as view:
                self.generation = view.generation()
            self.state = state_hash({each.id: each.text for each in index.documents()})
        return wrong

    def _wrong_state(self, index: semsearch.Index) -> list[str]:
        with index._mutex, index._store.reading() as view:
            generation, state = view.generation(), _documents(view)
        wrong = []
        if generation < self.generation:
            wrong.append(f"generation {generation} although {self.generation} was acknowledged")
        if state_hash(state) not in self._intended.get(generation, ()):
            wrong.append(f"generation {generation} is not a state that was to be committed: {sorted(state)}")
        before, after = self.plan.state(self.done), self.plan.state(self.done + 1)
        for id in sorted({*state, *before, *after}):
            if state.get(id) not in (before.get(id), after.get(id)):
                wrong.append(f"document {id!r} is neither as it was before the operation nor as after it")
        return wrong


def note(outcome: Outcome, chain: Chain, fate: str, wrong: list[str], how: str) -> None:
    """Count a fault and what came of it."""
    outcome.counters[fate] += 1
    outcome.counters["operations that returned"] += sum("done" in line for line in chain.seen)
    if fate == "killed":
        outcome.counters[f"killed during: {chain.plan.at(chain.done + 1).kind}"] += 1
        if any("intend" in line for line in chain.seen[-1:]):
            outcome.counters["killed at or after a commit that was not acknowledged"] += 1
    elif fate != "done":
        outcome.fail(f"{chain.seed}, operation {chain.done + 1}, {how}: the process {fate}")
    for line in chain.seen:
        if line.get("error") == "IndexLockedError":  # nobody else is there
            outcome.fail(f"{chain.seed}, operation {line['operation']}, {how}: {line['trace']}")
            break
    for error in {line["error"] for line in chain.seen if "error" in line}:
        outcome.counters[f"raised {error}"] += 1
    for each in wrong:
        outcome.fail(f"{how}: {each}")


def without(chain: Chain) -> None:
    """Clear a chain's files away."""
    shutil.rmtree(chain.home)


def wrong_answers(index: semsearch.Index) -> list[str]:
    """Where check() or a search differs from what an index gives that is built afresh from the same documents."""
    report = index.check()
    wrong = [] if report.ok else [f"check() says: {report}"]
    with index._mutex, index._store.reading() as view:
        rows = view._rows(
            "SELECT d.id FROM documents d JOIN passages p ON p.document = d.key GROUP BY d.key ORDER BY min(p.id)"
        )
        # In the order of their passages' ids, which break ties.
        ids = [str(row[0]) for row in rows.fetchall()]
    documents = [index.get(id) for id in ids]
    assert all(document is not None for document in documents)
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="faults-", dir=where) as folder,
        semsearch.Index(folder, encoder=WordEncoder()) as fresh,
    ):
        fresh.add([document for document in documents if document is not None])
        if len(fresh) != len(index):
            wrong.append(f"{len(index)} passages, {len(fresh)} in an index built afresh")
        texts = {document.id: document.text for document in documents if document is not None}
        for mode in ("lexical", "dense", "hybrid"):
            for query in ("word1 word2 word3", "word40 unique"):
                wrong += _differences(index, fresh, texts, query, mode)
    return wrong


def _differences(index: semsearch.Index, fresh: semsearch.Index, texts: State, query: str, mode: str) -> list[str]:
    if not texts:
        return [] if not index.search(query, mode=mode) else [f"hits of {query!r} in an index without documents"]
    own, other = (
        {
            (hit.passage.document_id, hit.passage.start, hit.passage.end): hit
            for hit in each.search(query, 10_000, mode=mode)
        }
        for each in (index, fresh)
    )
    if own.keys() != other.keys():
        return [f"{mode} search for {query!r} finds {sorted(own.keys() ^ other.keys())} in one of two equal indexes"]
    wrong = []
    # A near tie in a leg may go either way; then the ranks, of which hybrid scores are made, differ by right.
    ranks_differ = any(
        own[key].sources[leg][0] != other[key].sources[leg][0]
        for key in own
        for leg in own[key].sources
        if leg in other[key].sources
    )
    for (id, start, end), hit in own.items():
        if hit.passage.text != texts[id][start:end]:
            wrong.append(f"passage {start}:{end} of {id!r} has another text than its document")
        score = other[id, start, end].score
        if abs(hit.score - score) > 1e-5 and not (mode == "hybrid" and ranks_differ):
            wrong.append(f"{mode} search for {query!r} scores {id!r} {hit.score}, {score} in an index built afresh")
    return wrong


def _wrong_second_write(index: semsearch.Index) -> list[str]:
    index.add({"id": "probe", "text": "zyzzyva"})
    hits = index.search("zyzzyva", mode="lexical")
    wrong = [] if [hit.passage.document_id for hit in hits] == ["probe"] else [f"a second write is not found: {hits}"]
    index.remove("probe")
    return wrong if not index.search("zyzzyva", mode="lexical") else [*wrong, "a removed document is found"]


if __name__ == "__main__":
    main()

"""Damaged files: flipped bits, zeroed, random and exchanged blocks, cut ends, appended bytes, one file at a time.

The file is damaged at rest, then the index is opened, searched in all modes, read from end to end, and checked.

- A derived file (everything in cache/, the lock, SQLite's -shm): every answer is right, no exception, `check` finds the
  database in order and names the file. A damaged FAISS file is never handed to FAISS, which would believe it.
- index.db: right answers, or CorruptIndexError (IndexFormatError or IndexNotFoundError where its head is hit).
  Never another exception, a hang or a crash. SQLite has no checksums for what lies in its pages; documents, passages,
  vectors and settings carry their own, which are compared whenever a row is read. What is left are filters and
  SQLite's own indexes, in which a change can hide a row until `check` is run: counted as "database: wrong, seen by
  check". One that `check` does not see is a failure.
- index.db-wal has a checksum for each commit, but SQLite takes a damaged one for the end of the log, as after a power
  cut: the index then stands at an earlier commit, whole ("earlier commit"). Any other answer is a failure.

Fault n of seed s is always done to the same place: repeat it by `--seed s` and a count above n. What lies there may be
moved by a few bytes by the random marks and times that each new index has.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from toy import WordEncoder

import semsearch
from faults.outcome import Outcome
from semsearch.analysis import Analyzer, get_analyzer
from semsearch.errors import CorruptIndexError, IndexFormatError, IndexNotFoundError

CI = 400
FULL = 50_000

PATIENCE = 15.0  # seconds for one fault; one takes about 10 ms
REFUSALS = (CorruptIndexError, IndexFormatError, IndexNotFoundError)
STARTS, ENDS = ("ba", "de", "fi", "go", "lu", "ma", "ne", "po"), ("ck", "ll", "mp", "nd")
WORDS = [start + end for start in STARTS for end in ENDS]
QUERIES = [" ".join(WORDS[start : start + 3]) for start in range(0, 30, 4)] + ["rare words only here"]
WHERE = {"year": {"$gte": 2010}}

State = dict[str, Any]


class SmallEncoder(WordEncoder):
    """Vectors of 64 components, for files that are small and fast to copy."""

    name = "toy-words-64"
    dimension = 64


# -- templates ---------------------------------------------------------------------------------------------------------


def documents(seed: int, count: int, first: int = 0) -> Iterator[semsearch.Document]:
    """Documents of random words, some with headings, metadata and characters outside ASCII."""
    choose = random.Random(seed)
    for number in range(first, first + count):
        body = " ".join(choose.choices(WORDS, k=choose.randrange(20, 100)))
        heading = f"# Part {number}\n\n" if number % 3 == 0 else ""
        text = f"{heading}{body}. Ünique {number} \U0001f600." + (" rare words" if number % 20 == 0 else "")
        metadata = {"year": 2000 + number % 25, "tags": [WORDS[number % 32], "all"]}
        yield semsearch.Document(f"d{number:03}", text, f"Title {number}", f"/somewhere/{number}.md", metadata)


def state_of(index: semsearch.Index) -> State:
    """All that an index says: answers with their scores in each leg, and every document."""
    answers = [*index.search(QUERIES, k=12), index.search(QUERIES[1], k=12, where=WHERE)]
    for mode in ("lexical", "dense"):
        answers += index.search(QUERIES[:3], k=12, mode=mode)
    texts = [(each.id, each.text, each.title, each.source, json.dumps(each.metadata)) for each in index.documents()]
    return {"answers": [list(map(_flat, hits)) for hits in answers], "documents": texts, "passages": len(index)}


def _flat(hit: semsearch.Hit) -> tuple[tuple[Any, ...], list[float]]:
    """What must be equal in a hit, and what may differ by 1e-5."""
    passage, legs = hit.passage, sorted(hit.sources.items())
    exact = (passage.id, passage.document_id, passage.start, passage.text, *((leg, rank) for leg, (rank, _) in legs))
    return exact, [hit.score, *(score for _, (_, score) in legs)]


def same(one: State, other: State) -> bool:
    """Whether two states agree, scores to 1e-5."""
    if one["documents"] != other["documents"] or one["passages"] != other["passages"]:
        return False
    return all(
        len(mine) == len(yours) and all(map(_agree, mine, yours))
        for mine, yours in zip(one["answers"], other["answers"], strict=True)
    )


def _agree(mine: tuple[Any, list[float]], yours: tuple[Any, list[float]]) -> bool:
    return mine[0] == yours[0] and all(abs(a - b) <= 1e-5 for a, b in zip(mine[1], yours[1], strict=True))


def opened(folder: Path, **options: Any) -> semsearch.Index:
    """An index with the small encoder, and one analyzer for all, which takes a while to make."""
    return semsearch.Index(folder, encoder=SmallEncoder(), analyzer=_analyzer(), **options)


@cache
def _analyzer() -> Analyzer:
    return get_analyzer("none")


def make_templates(folder: Path, connection: Connection) -> None:
    """Make the indexes that are damaged, send their states, the last one first, and die without closing the last index.

    "fresh" has a cache of its last commit, "stale" an older one, and "log" has its last commits in index.db-wal.
    """
    states: dict[str, list[State]] = {}
    kept = []
    for name in ("fresh", "stale", "log"):
        index = opened(folder / name)
        index.add(documents(1, 60))
        index.remove([f"d{number:03}" for number in range(0, 60, 9)])
        index.optimize()
        history = [state_of(index)]
        if name != "fresh":
            for step in range(4):
                index.add(documents(10 + step, 4, first=58 + 3 * step))
                history.append(state_of(index))
                index.remove([f"d{20 + step:03}", f"d{40 + step:03}"])
                history.append(state_of(index))
        states[name] = history[::-1] if name == "log" else history[-1:]
        if name == "log":
            kept.append(index)
        else:
            index.close()
    assert (folder / "log" / "index.db-wal").stat().st_size > 0
    connection.send(states)
    os.kill(os.getpid(), signal.SIGKILL)


def templates(make: Callable[[Path, Connection], None], folder: Path) -> Any:
    """Run `make`, which is killed in the end, in a process of its own; what it sends."""
    mine, yours = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=make, args=(folder, yours))
    child.start()
    yours.close()
    states = mine.recv()
    child.join()
    return states


# -- damage ------------------------------------------------------------------------------------------------------------


def _flip(data: bytearray, choose: random.Random) -> None:
    for _ in range(choose.choice([1, 1, 1, 2, 8, 64])):
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def _block(data: bytearray, choose: random.Random) -> slice:
    size = choose.choice([16, 512, 4096])
    start = choose.randrange(0, len(data), size)
    return slice(start, min(start + size, len(data)))


def _zero(data: bytearray, choose: random.Random) -> None:
    place = _block(data, choose)
    data[place] = bytes(place.stop - place.start)


def _noise(data: bytearray, choose: random.Random) -> None:
    place = _block(data, choose)
    data[place] = choose.randbytes(place.stop - place.start)


def _cut(data: bytearray, choose: random.Random) -> None:
    del data[choose.choice([0, choose.randrange(len(data)), len(data) - choose.randint(1, 64)]) :]


def _swap(data: bytearray, choose: random.Random) -> None:
    size = choose.choice([16, 512, 4096])
    a, b = (size * choose.randrange(max(1, len(data) // size)) for _ in range(2))
    one, other = data[a : a + size], data[b : b + size]
    if len(one) == len(other):
        data[a : a + size], data[b : b + size] = other, one


def _append(data: bytearray, choose: random.Random) -> None:
    data += choose.choice([bytes, choose.randbytes])(choose.choice([1, 100, 4096, 10_000]))


WAYS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flip": _flip,
    "zero": _zero,
    "noise": _noise,
    "cut": _cut,
    "swap": _swap,
    "append": _append,
}


@dataclass(frozen=True)
class Fault:
    """What was done to which file of which template."""

    seed: int
    number: int
    template: str
    file: str
    way: str

    @property
    def part(self) -> str:
        """What the file is to the index: "database", "log" or "derived"."""
        return {"index.db": "database", "index.db-wal": "log"}.get(self.file, "derived")

    def __str__(self) -> str:
        return f"fault {self.number} of seed {self.seed}: {self.way} in {self.file} of {self.template!r}"


def inject(template: Path, folder: Path, seed: int, number: int) -> Fault | None:
    """Copy a template to `folder` with one file damaged; None where the damage happens to change nothing."""
    choose = random.Random(f"{seed}:{number}")
    name = choose.choice(["fresh", "stale", "log"])
    files = sorted(str(path.relative_to(template / name)) for path in (template / name).rglob("*") if path.is_file())
    own = [file for file in files if file.startswith("index.db") and (template / name / file).stat().st_size]
    rest = [file for file in files if not file.startswith("index.db") and (template / name / file).stat().st_size]
    file = choose.choice(own if choose.random() < 0.5 else rest)
    copy(template / name, folder, files)
    data = bytearray((folder / file).read_bytes())
    before = bytes(data)
    way = choose.choice([*WAYS])
    WAYS[way](data, choose)
    (folder / file).unlink()  # it may share its content with the template
    (folder / file).write_bytes(data)
    return None if bytes(data) == before else Fault(seed, number, name, file, way)


def copy(template: Path, folder: Path, files: list[str]) -> None:
    """A copy of a template; the files of the cache, which are never written in place, are shared."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if file.startswith("cache"):
            os.link(template / file, folder / file)
        else:
            shutil.copyfile(template / file, folder / file)


# -- what comes of it --------------------------------------------------------------------------------------------------


def verdict(fault: Fault, folder: Path, states: list[State], read: list[str]) -> tuple[str, str | None]:
    """A counter, and what is wrong about it or None. `read` has the names of the files that FAISS was given."""
    read.clear()
    try:
        with opened(folder, timeout=1.0) as index:
            state = state_of(index)
            right = same(state, states[0])
            if fault.part == "derived":
                return _of_derived(fault, index, right, read)
            noticed = right or not _is_in_order(index)
    except REFUSALS as error:
        wrong = f"{fault}: {error!r}" if fault.part == "derived" else None
        return f"{fault.part}: {type(error).__name__}", wrong
    except Exception as error:
        return f"{fault.part}: {type(error).__name__}", f"{fault}: {type(error).__name__}: {error}"
    if right:
        return f"{fault.part}: right", None
    if fault.part == "log":
        earlier = any(same(state, each) for each in states)
        return "log: earlier commit" if earlier else "log: wrong", None if earlier else f"{fault}: wrong answers"
    return f"database: wrong, {'seen by check' if noticed else 'unnoticed'}", None if noticed else f"{fault}: unnoticed"


def _is_in_order(index: semsearch.Index) -> bool:
    try:
        return index.check().ok
    except CorruptIndexError:
        return False


def _of_derived(fault: Fault, index: semsearch.Index, right: bool, read: list[str]) -> tuple[str, str | None]:
    name, report = Path(fault.file).name, index.check()
    if not right:
        return "derived: wrong", f"{fault}: wrong answers"
    if report.problems:
        return "derived: wrong", f"{fault}: check blames the database: {report.problems}"
    if name in read:
        return "derived: wrong", f"{fault}: given to FAISS unverified"
    if fault.file.startswith("cache/") and name != "CURRENT.json" and not any(name in each for each in report.cache):
        return "derived: wrong", f"{fault}: not noticed by check: {report}"
    if fault.number % 8 == 0:
        report = index.check(repair=True)
        if not report.ok:
            return "derived: wrong", f"{fault}: not repaired: {report}"
        return "derived: right, repaired", None
    return "derived: right", None


def _worker(connection: Connection, numbers: range, template: Path, folder: Path, seed: int) -> None:
    import faiss

    states: dict[str, list[State]] = connection.recv()
    read: list[str] = []
    original = faiss.read_index

    def read_index(path: str, *options: Any) -> Any:
        read.append(Path(path).name)
        return original(path, *options)

    faiss.read_index = read_index
    for number in numbers:
        place = folder / str(number)
        fault = inject(template, place, seed, number)
        if fault is None:
            connection.send(("nothing changed", None))
        else:
            connection.send(verdict(fault, place, states[fault.template], read))
        shutil.rmtree(place)


def run(count: int, seed: int, folder: Path) -> Outcome:
    """Damage `count` files."""
    (folder / "template").mkdir()
    states = templates(make_templates, folder / "template")
    return supervised(_worker, count, f"fault {{}} of seed {seed}", states, folder / "template", folder / "work", seed)


def supervised(work: Callable[..., None], count: int, name: str, states: Any, *arguments: Any) -> Outcome:
    """Faults 0 to `count`, injected by `work(connection, numbers, *arguments)` in a process of its own.

    It receives `states`, and sends (counter, what is wrong or None) for each fault. When it hangs or crashes, that is a
    failure, and another process goes on with the next fault.
    """
    outcome = Outcome()
    while outcome.done < count:
        end = _until_one_is_fatal(outcome, work, range(outcome.done, count), states, arguments)
        if end:
            outcome.fail(f"{name.format(outcome.done)}: {end}")
            outcome.counters["fatal"] += 1
            outcome.done += 1
    return outcome


def _until_one_is_fatal(
    outcome: Outcome, work: Callable[..., None], numbers: range, states: Any, arguments: tuple[Any, ...]
) -> str:
    """Count what comes of the faults; says how the worker came to its end where that was not the last fault."""
    mine, yours = multiprocessing.get_context("spawn").Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_quiet, args=(work, yours, numbers, *arguments))
    worker.start()
    yours.close()
    mine.send(states)
    try:
        for _ in numbers:
            if not mine.poll(PATIENCE):
                worker.kill()
                return f"hung for {PATIENCE:g} s"
            counter, failure = mine.recv()
            outcome.done += 1
            outcome.counters[counter] += 1
            if failure:
                outcome.fail(failure)
    except EOFError:
        worker.join()
        return f"the process died, exit code {worker.exitcode}"
    finally:
        worker.join()
        mine.close()
    return ""


def _quiet(work: Callable[..., None], *arguments: Any) -> None:
    logging.getLogger("semsearch").setLevel(logging.ERROR)  # each damaged cache is warned of
    work(*arguments)

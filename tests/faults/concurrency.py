"""One writer and four readers, then four writers; `count` is the time in seconds, half for each.

The writer replaces six documents that carry the number of the round in one `add`, so that they are one commit; it also
adds and removes others, and now and then publishes the cache and compacts the database. Readers, who keep an index open
or open it anew, and search in every mode, must see all six of one round, and no earlier round after a later one.

The four writers add documents as fast as they can with little patience. Who cannot have the lock gets IndexLockedError
with the pid and the host of another of them. Everybody writes down what was acknowledged; in the end all of it must be
there and nothing else, and `check` finds nothing. A warning that the log gets meanwhile is a failure too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from toy import WordEncoder

import semsearch
from faults.outcome import Outcome
from semsearch.errors import IndexLockedError

CI = 10
FULL = 1800

PARTS = 6
READERS = WRITERS = 4
PATIENCE = 60.0  # seconds that a process may take beyond its time

Report = tuple[Counter[str], list[str], Any]  # what was done, what went wrong, what was acknowledged


def _round(number: int) -> list[tuple[str, str]]:
    return [(f"part-{part}", f"stamp r{number} of part p{part} in the round") for part in range(PARTS)]


def write_rounds(folder: Path, until: float, seed: int) -> Report:
    """The one writer of the first half; acknowledged are the documents that must be there in the end."""
    choose = random.Random(seed)
    done: Counter[str] = Counter()
    rest: dict[str, str] = {}
    number = 0
    with semsearch.Index(folder, encoder=WordEncoder()) as index:
        while time.monotonic() < until:
            number += 1
            index.add(_round(number))
            rest[f"more-{number}"] = f"other text w{choose.randrange(1000)} of the log"
            index.add([(f"more-{number}", rest[f"more-{number}"])])
            if len(rest) > 50:
                gone = choose.sample(sorted(rest), 25)
                index.remove(gone)
                rest = {id: text for id, text in rest.items() if id not in gone}
                done["commits"] += 1
            if number % 15 == 0:
                index.optimize()
                done["optimized"] += 1
            done["commits"] += 2
    return done, [], {**dict(_round(number)), **rest}


def read_rounds(folder: Path, until: float, seed: int) -> Report:
    """A reader of the first half."""
    choose = random.Random(seed)
    done: Counter[str] = Counter()
    wrong: list[str] = []
    index = semsearch.Index(folder, encoder=WordEncoder())
    last = 0
    while time.monotonic() < until and not wrong:
        if choose.random() < 0.1:
            index.close()
            index = semsearch.Index(folder, encoder=WordEncoder(), read_only=choose.random() < 0.5)
            done["opened anew"] += 1
        seen = _seen(index, choose.choice(["lexical", "dense", "hybrid", "documents"]))
        done["reads"] += 1
        if len(seen) != PARTS or len(set(seen)) != 1:
            wrong.append(f"a reader saw the rounds {seen} together")
        elif int(seen[0][1:]) < last:
            wrong.append(f"a reader saw round {seen[0]} after r{last}")
        else:
            done["rounds seen"] += int(seen[0][1:]) > last
            last = int(seen[0][1:])
    index.close()
    return done, wrong, {}


def _seen(index: semsearch.Index, how: str) -> list[str]:
    """The rounds that the six documents carry."""
    if how == "documents":  # up to 64 are read at once, and the six came first
        texts = [document.text for document in index.documents() if document.id.startswith("part-")]
    else:
        hits = index.search("stamp of part in the round", k=PARTS, mode=how)
        texts = [hit.passage.text for hit in hits]
    return [text.split()[1] for text in texts]


def write_alone(folder: Path, until: float, seed: int) -> Report:
    """One of the four writers."""
    choose = random.Random(seed)
    done: Counter[str] = Counter()
    wrong: list[str] = []
    written: dict[str, str] = {}
    number = 0
    index = semsearch.Index(folder, encoder=WordEncoder(), timeout=choose.choice([0.0, 0.01, 0.1]))
    while time.monotonic() < until and not wrong:
        number += 1
        id, text = f"w{seed}-{number}", f"document {number} of writer {seed} w{choose.randrange(1000)}"
        try:
            if number % 20 == 0:
                index.optimize()
            index.add([(id, text)])
            written[id] = text
            done["commits"] += 1
            if number % 3 == 0:
                old = choose.choice(sorted(written))
                index.remove(old)
                del written[old]
                done["commits"] += 1
        except IndexLockedError as error:
            done["refused"] += 1
            if error.pid in (None, os.getpid()) or error.host != socket.gethostname():
                wrong.append(f"the owner is said to be {error.pid} on {error.host}: {error}")
        if choose.random() < 0.05:
            index.close()
            index = semsearch.Index(folder, encoder=WordEncoder(), timeout=choose.choice([0.0, 0.01, 0.1]))
    index.close()
    return done, wrong, written


def _in_child(work: Callable[..., Report], connection: Connection, folder: Path, seconds: float, seed: int) -> None:
    import faiss  # noqa: F401 - before the start, so that all of them work at the same time

    alarms = _Alarms(logging.WARNING)
    logging.getLogger("semsearch").addHandler(alarms)
    connection.send("ready")
    connection.recv()
    try:
        done, wrong, acknowledged = work(folder, time.monotonic() + seconds, seed)
        connection.send((done, wrong + sorted(alarms.messages), acknowledged))
    except BaseException as error:
        connection.send((Counter(), [f"{type(error).__name__}: {error}"], {}))


class _Alarms(logging.Handler):
    """Warnings: nothing is damaged here, so each is a false alarm."""

    messages: set[str]

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.add(f"warned: {record.getMessage()}")


def together(
    outcome: Outcome, folder: Path, seconds: float, seed: int, works: list[Callable[..., Report]]
) -> Iterator[dict[str, str]]:
    """Run the works in a process each at the same time; what each of them acknowledged."""
    context = multiprocessing.get_context("spawn")
    children = []
    for number, work in enumerate(works):
        mine, yours = context.Pipe()
        child = context.Process(target=_in_child, args=(work, yours, folder, seconds, 100 * seed + number))
        child.start()
        yours.close()
        children.append((child, mine, work.__name__))
    for _, connection, _ in children:
        connection.recv()
    for _, connection, _ in children:
        connection.send("go")
    deadline = time.monotonic() + seconds + PATIENCE
    for child, connection, name in children:
        if not wait([connection], max(0.0, deadline - time.monotonic())):
            child.kill()
            outcome.fail(f"{name} hung for {PATIENCE:g} s")
            continue
        try:
            done, wrong, acknowledged = connection.recv()
        except EOFError:
            child.join()
            outcome.fail(f"{name} died, exit code {child.exitcode}")
            continue
        outcome.counters.update({f"{name}: {what}": count for what, count in done.items()})
        outcome.failures += [f"{name}: {each} (seed {seed})" for each in wrong]
        yield acknowledged
        child.join()


def _compare(outcome: Outcome, folder: Path, expected: dict[str, str]) -> None:
    """Whether the index holds what was acknowledged, and nothing that was not begun, and is in order."""
    with semsearch.Index(folder, encoder=WordEncoder()) as index:
        held = {document.id: document.text for document in index.documents()}
        report = index.check()
    missing = [id for id, text in expected.items() if held.get(id) != text]
    extra = [id for id in held if id not in expected]
    outcome.counters["acknowledged"] += len(expected)
    if missing:
        outcome.fail(f"{len(missing)} acknowledged documents are missing, such as {missing[0]}")
    if extra:
        outcome.fail(f"{len(extra)} documents are there that were removed, such as {extra[0]}")
    if not report.ok:
        outcome.fail(f"check: {report}")


def run(count: int, seed: int, folder: Path) -> Outcome:
    """Write and read for `count` seconds."""
    outcome = Outcome(done=count)
    with semsearch.Index(folder / "index", encoder=WordEncoder()) as index:
        index.add(_round(0))
    works: list[Callable[..., Report]] = [write_rounds, *[read_rounds] * READERS]
    expected: dict[str, str] = {}
    for acknowledged in together(outcome, folder / "index", count / 2, seed, works):
        expected.update(acknowledged)
    _compare(outcome, folder / "index", expected)
    for acknowledged in together(outcome, folder / "index", count / 2, seed, [write_alone] * WRITERS):
        expected.update(acknowledged)
    _compare(outcome, folder / "index", expected)
    return outcome

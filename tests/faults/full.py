"""A disk that gets full: a file system of 1 to 64 MiB in memory where we may mount one, else a limit on file sizes.

While it is full, the index raises StorageFullError or works; what was acknowledged stays, searches stay right or say
that there is no room; and with room again everything works.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toy import WordEncoder

import semsearch
from faults.outcome import Outcome
from faults.workload import LIMIT, Chain, Workshop, note, time_limit, without, wrong_answers
from semsearch.errors import StorageFullError

CI, FULL = 10, 200

LIFE = 5  # times that one index sees its disk full
ROOM = 256  # MiB; what there is when the disk is not to be full


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    with Workshop() as workshop:
        while outcome.done < count:
            number = outcome.done // LIFE
            chain = Chain(folder / f"life{number}", f"full-{seed}-{number}")
            dice = random.Random(chain.seed)
            with _small_disk(chain.folder) as mounted:
                for _ in range(min(LIFE, count - outcome.done)):
                    # Files that may not grow are there on every Unix, and part of the run where we may mount, too.
                    fill = _fill_disk if mounted and dice.random() < 0.8 else _limit_files
                    fill(workshop, chain, dice, outcome)
                    outcome.done += 1
            without(chain)
    return outcome


def _fill_disk(workshop: Workshop, chain: Chain, dice: random.Random, outcome: Outcome) -> None:
    size = dice.choice([1, 2, 4, 16, 64])
    room = dice.choice([0, dice.randrange(64), dice.randrange(600)])
    _resize(chain.folder, size)
    ballast = chain.folder / "ballast"
    _fill(ballast, room << 10)
    how = f"a disk of {size} MiB with {room} KiB left"
    fate = workshop.run(**chain.job(8))
    for line in chain.look_back():
        if line.get("error") not in (None, "StorageFullError"):
            outcome.fail(f"{chain.seed}, {how}: {line['trace']}")
    outcome.counters["full disks"] += 1
    outcome.counters[_searched_while_full(chain, how, outcome)] += 1
    ballast.unlink()
    _resize(chain.folder, ROOM)
    note(outcome, chain, fate, chain.verify(), how)


def _searched_while_full(chain: Chain, how: str, outcome: Outcome) -> str:
    try:
        with time_limit(LIMIT), semsearch.Index(chain.folder, encoder=WordEncoder()) as index:
            for wrong in wrong_answers(index):
                outcome.fail(f"{chain.seed}, searched on {how}: {wrong}")
        return "searches right while full"
    except StorageFullError:
        return "searches refused while full"
    except Exception as error:
        outcome.fail(f"{chain.seed}, searched on {how}: {error!r}")
        return "searches failed while full"


def _limit_files(workshop: Workshop, chain: Chain, dice: random.Random, outcome: Outcome) -> None:
    limit = dice.choice([dice.randrange(1 << 16), dice.randrange(1 << 20)])
    fate = workshop.run(**chain.job(8, largest_file=limit))
    outcome.counters["limits on file sizes"] += 1
    for line in chain.look_back():
        if line.get("error") not in (None, "StorageFullError", "StorageError"):
            outcome.fail(f"{chain.seed}, files of at most {limit} bytes: {line['trace']}")
    note(outcome, chain, fate, chain.verify(), f"files of at most {limit} bytes")


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A file system in memory at `folder`, if we may mount one."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={ROOM}m", "none", str(folder)]
    mounted = os.name == "posix" and _quiet("mount", *options)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def _resize(folder: Path, size: int) -> None:
    while not _quiet("mount", "-o", f"remount,size={size}m", str(folder)):  # less than what is in use
        size *= 2


def _quiet(*command: str) -> bool:
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _fill(path: Path, room: int) -> None:
    """Write a file that leaves `room` bytes."""
    state = os.statvfs(path.parent)
    with path.open("wb") as file:
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - room)))

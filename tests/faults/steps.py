"""A kill at each step: at every write, fsync, rename, unlink, truncation and creation that an operation does.

SQLite's own steps count too. The steps of each operation of a plan are counted first; then each is repeated from the
state before it and killed there, at a write once before and once in the middle of it.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

from faults.outcome import Outcome
from faults.workload import WRITE, Chain, Workshop, compiled_shim, note, without

CI, FULL = 100, 5000

OPERATIONS = 16  # of a plan; some 3,000 steps


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    with Workshop(compiled_shim(folder)) as workshop:
        number = 0
        while outcome.done < count:
            chain = Chain(folder / f"plan{number}", f"steps-{seed}-{number}")
            steps = _steps(workshop, chain, outcome)
            outcome.counters["steps there are"] += len(steps)
            left = count - outcome.done
            if left < len(steps):
                steps = random.Random(chain.seed).sample(steps, left)
            for before, event, action in steps:
                _kill(workshop, before, event, action, outcome)
            for path in folder.glob(f"{chain.home.name}*"):
                shutil.rmtree(path)
            number += 1
    return outcome


def _steps(workshop: Workshop, chain: Chain, outcome: Outcome) -> list[tuple[Chain, int, str]]:
    """(the chain before the operation, event, action) of every step; keeps the files of each such state."""
    steps: list[tuple[Chain, int, str]] = []
    for number in range(OPERATIONS):
        before = replace(chain)
        shutil.copytree(chain.home, _kept(before))
        _restore(before)
        fate = workshop.run(**chain.job(1, arm={"action": "count"}))
        wrong = chain.verify(second_write=False)
        if fate != "done" or wrong:
            outcome.fail(f"{chain.seed}, operation {number}, not hurt: {fate} {wrong}")
            break
        for event, kind in enumerate(chain.seen[-1]["events"]):
            steps += [(before, event, action) for action in ("before", "torn") if action == "before" or kind == WRITE]
    return steps


def _kill(workshop: Workshop, before: Chain, event: int, action: str, outcome: Outcome) -> None:
    _restore(before)
    chain = replace(before)
    fate = workshop.run(**chain.job(1, arm={"nth": event, "action": action}))
    outcome.done += 1
    note(outcome, chain, fate, chain.verify(), f"killed at event {event} ({action})")


def _kept(chain: Chain) -> Path:
    return chain.home.with_name(f"{chain.home.name}-before-{chain.done + 1}")


def _restore(chain: Chain) -> None:
    """The files as they were before the operation, at the same place: the index knows its folder's absolute path."""
    without(chain)
    shutil.copytree(_kept(chain), chain.home)

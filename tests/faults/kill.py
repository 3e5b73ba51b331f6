"""kill -9 at random times, while one index after the other is changed."""

from __future__ import annotations

import random
from pathlib import Path

from faults.outcome import Outcome
from faults.workload import Chain, Workshop, note, without

CI, FULL = 60, 5000

LIFE = 25  # kills that one index lives through


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    with Workshop() as workshop:
        while outcome.done < count:
            number = outcome.done // LIFE
            chain = Chain(folder / f"life{number}", f"kill-{seed}-{number}")
            dice = random.Random(chain.seed)
            for _ in range(min(LIFE, count - outcome.done)):
                delay = dice.uniform(0.002, 0.4)
                fate = workshop.run(**chain.job(60, kill_after=delay))
                outcome.done += 1
                note(outcome, chain, fate, chain.verify(), f"killed after {delay * 1000:.1f} ms")
            without(chain)
    return outcome

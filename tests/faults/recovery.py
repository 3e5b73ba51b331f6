"""A kill, and one to three more while the index recovers from it: at random events of the recovery, or random times."""

from __future__ import annotations

import random
from pathlib import Path

from faults.outcome import Outcome
from faults.workload import Chain, Workshop, compiled_shim, note, without

CI, FULL = 20, 500

LIFE = 20


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    with Workshop(compiled_shim(folder)) as workshop:
        while outcome.done < count:
            number = outcome.done // LIFE
            chain = Chain(folder / f"life{number}", f"recovery-{seed}-{number}")
            dice = random.Random(chain.seed)
            for _ in range(min(LIFE, count - outcome.done)):
                how = _hurt(workshop, chain, dice, outcome)
                outcome.done += 1
                note(outcome, chain, "killed", chain.verify(), how)
            without(chain)
    return outcome


def _hurt(workshop: Workshop, chain: Chain, dice: random.Random, outcome: Outcome) -> str:
    """One kill in the middle of operations, then one to three soon after the next opening."""
    event = dice.randrange(20, 1500)
    how = [f"event {event}"]
    fates = [workshop.run(**chain.job(60, arm={"nth": event, "action": "torn"}))]
    for _ in range(dice.randint(1, 3)):
        if dice.random() < 0.5:
            event = dice.randrange(40)
            how.append(f"event {event}")
            fates.append(workshop.run(**chain.job(60, arm={"nth": event, "action": "torn"})))
        else:
            delay = dice.uniform(0.001, 0.03)
            how.append(f"{delay * 1000:.1f} ms")
            fates.append(workshop.run(**chain.job(60, kill_after=delay)))
    outcome.counters["kills"] += len(fates)
    for fate in fates:
        if fate != "killed":
            outcome.fail(f"{chain.seed}, killed at {how}: {fate}")
    return f"killed at {', then '.join(how)}"

"""Input and output that fails under Python's own SQLite, and under what the package writes itself; see shim.c.

Four kinds: a call fails (EIO, ENOSPC) once, a few times or until the end; an fsync fails; half of a write is done and
the rest fails; and the machine stops: what was written but not synced by then is lost, in whole or sector by sector.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

from faults.outcome import Outcome
from faults.workload import SYNC, Chain, Workshop, compiled_shim, note, without

CI, FULL = 60, 5000

LIFE = 25
SECTOR = 512
ALL = 0xFFFF


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    with Workshop(compiled_shim(folder)) as workshop:
        while outcome.done < count:
            number = outcome.done // LIFE
            chain = Chain(folder / f"life{number}", f"io-{seed}-{number}")
            dice = random.Random(chain.seed)
            for _ in range(min(LIFE, count - outcome.done)):
                kind = dice.choice([_lose, _lose, _refuse, _refuse, _refuse_sync, _cut])
                how, fate, nth = kind(workshop, chain, dice)
                outcome.done += 1
                outcome.counters[how.split(":")[0]] += 1
                note(outcome, chain, fate, chain.verify(), how)
                if fate == "done" and len(chain.seen[-1].get("events", ())) <= nth:
                    outcome.counters["ended before the fault came"] += 1
            without(chain)
    return outcome


def _fail(
    workshop: Workshop, chain: Chain, dice: random.Random, what: str, action: str, kinds: int, most: int
) -> tuple[str, str, int]:
    arm: dict[str, Any] = {
        "nth": dice.randrange(most),
        "action": action,
        "error": dice.choice([errno.EIO, errno.ENOSPC]),
        "times": dice.choice([1, 1, 3, 10, 1000]),
        "kinds": kinds,
    }
    fate = workshop.run(**chain.job(4, arm=arm))
    return f"{what}: {arm}", fate, arm["nth"]


def _refuse(workshop: Workshop, chain: Chain, dice: random.Random) -> tuple[str, str, int]:
    return _fail(workshop, chain, dice, "a call fails", "error", ALL, 500)


def _refuse_sync(workshop: Workshop, chain: Chain, dice: random.Random) -> tuple[str, str, int]:
    return _fail(workshop, chain, dice, "fsync fails", "error", SYNC, 60)


def _cut(workshop: Workshop, chain: Chain, dice: random.Random) -> tuple[str, str, int]:
    return _fail(workshop, chain, dice, "half a write", "short", ALL, 500)


def _lose(workshop: Workshop, chain: Chain, dice: random.Random) -> tuple[str, str, int]:
    """The machine stops at some event; afterwards the disk has what was synced, and of the rest what chance left."""
    shadow = chain.home / "shadow"
    shadow.mkdir(exist_ok=True)
    for path in shadow.iterdir():
        path.unlink()
    for path in _files(chain.folder):
        (shadow / str(path.stat().st_ino)).write_bytes(path.read_bytes())
    arm: dict[str, Any] = {"nth": dice.randrange(1500), "action": "torn", "shadow": str(shadow)}
    fate = workshop.run(**chain.job(60, arm=arm))
    torn = dice.random() < 0.5
    for path in _files(chain.folder):
        synced = shadow / str(path.stat().st_ino)
        kept = synced.read_bytes() if synced.exists() else b""
        path.write_bytes(_mixed(kept, path.read_bytes(), dice) if torn else kept)
    return f"unsynced writes lost{' in part' if torn else ''}: {arm}", fate, arm["nth"]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def _mixed(kept: bytes, written: bytes, dice: random.Random) -> bytes:
    """Of each sector one or the other, and one or the other size."""
    size = dice.choice([len(kept), len(written)])
    sectors = range(0, size, SECTOR)
    mixed = b"".join(dice.choice([kept, written])[at : at + SECTOR].ljust(SECTOR, b"\0") for at in sectors)
    return mixed[:size]

"""What a class of faults reports, and how many of them are injected.

A class is a module of this package with

    CI, FULL: int                                              # faults in every CI run, and in the full run
    def run(count: int, seed: int, folder: Path) -> Outcome    # injects `count` faults; `folder` is empty and its own

and, where it needs something that a machine may lack, `unavailable() -> str | None`, the reason why it cannot run here.

`run` raises nothing for a fault that was handled wrongly: it says so in `failures`, with what is needed to repeat it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """`counters` say what was done and what came of it ("kills", "during a commit", "refused", ...)."""

    done: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        """Note a fault that was handled wrongly."""
        self.failures.append(what)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {number:,}" for name, number in sorted(self.counters.items()))
        return f"{self.done:,} done, {len(self.failures)} wrong" + (f" ({counts})" if counts else "")

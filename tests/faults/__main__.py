"""Injects the faults of one class or of all, prints a line for each, and records the counters."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from faults.classes import CLASSES

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"of {', '.join(CLASSES)}; default: all")
    parser.add_argument("--count", type=int, help="faults of each class (default: the full number)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="add the counters to results.json")
    parser.add_argument("--show", action="store_true", help="print the recorded results as a table, inject nothing")
    options = parser.parse_args()
    if options.show:
        print(table())
        return 0
    wrong = 0
    for name in options.classes or CLASSES:
        if name not in CLASSES:
            parser.error(f"{name} is no class of faults; there are {', '.join(CLASSES)}")
        module = import_module(f"faults.{name}")
        if reason := getattr(module, "unavailable", lambda: None)():
            print(f"{name}: 0 done, it cannot run here: {reason}", flush=True)
            continue
        count = module.FULL if options.count is None else options.count
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            outcome = module.run(count, options.seed, Path(folder))
        print(f"{name}: {outcome}", flush=True)
        for failure in outcome.failures[:20]:
            print(f"  WRONG: {failure}", flush=True)
        wrong += len(outcome.failures)
        if options.record:
            record(
                {
                    "class": name,
                    "seed": options.seed,
                    "done": outcome.done,
                    "full": module.FULL,
                    "counters": dict(sorted(outcome.counters.items())),
                    "failures": outcome.failures[:50],
                    "seconds": round(time.monotonic() - began),
                    **circumstances(),
                }
            )
    return 1 if wrong else 0


def circumstances() -> dict[str, Any]:
    git = ["git", "-C", str(RESULTS.parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "../../semsearch"], capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
    }


def table() -> str:
    """The recorded runs of each class, added up, as Markdown."""
    lines = ["| class | done | of the full number | wrong | commit, date |", "|---|---|---|---|---|"]
    recorded = runs()
    for name in CLASSES:
        own = [run for run in recorded if run["class"] == name]
        if not own:
            lines.append(f"| {name} | – | – | – | not run |")
            continue
        done, wrong = sum(run["done"] for run in own), sum(len(run["failures"]) for run in own)
        last = max(own, key=lambda run: run["date"])
        share = f"{100 * done / last['full']:.0f}%"
        lines.append(f"| {name} | {done:,} | {share} | {wrong} | {last['commit']}, {last['date']} |")
    return "\n".join(lines)


def runs() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def record(run: dict[str, Any]) -> None:
    # The same class and seed again replaces its earlier run; other seeds add up.
    kept = [each for each in runs() if (each["class"], each["seed"]) != (run["class"], run["seed"])]
    kept.append(run)
    RESULTS.write_text(json.dumps(sorted(kept, key=lambda each: (each["class"], each["seed"])), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

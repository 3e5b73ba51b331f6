"""What the benchmarks share: the machine they ran on, the texts that are read for scale, times, memory, results.

A result is a JSON file in results/ with the processor, the versions, the date and the commit that it was measured with.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("semsearch", "numpy", "onnxruntime", "faiss-cpu", "tokenizers", "torch", "sentence-transformers", "bm25s")
SCALE = ("scale-registry-summaries", "gcide-entries", "wordnet-glosses", "foldoc-entries")
QUESTIONS = ("cosqa-dev", "scifact")


# -- options and results -----------------------------------------------------------------------------------------------


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has, `--data` and `--results`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="where the sets are")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where results are written")
    return parser


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON; a run that is stopped meanwhile leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


# -- the machine -------------------------------------------------------------------------------------------------------


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """The processor, the versions and the commit that a result was measured with."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain")),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git(*arguments: str) -> str | None:
    """What a git command says about this repository; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# -- times and memory --------------------------------------------------------------------------------------------------


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def times(seconds: Sequence[float]) -> dict[str, float | int]:
    """Median and 95th percentile in milliseconds, and of how many.

    >>> times([0.001, 0.002, 0.003])
    {'median_ms': 2.0, 'p95_ms': 2.9, 'runs': 3}
    """
    median, p95 = np.percentile(seconds, [50, 95]) * 1e3
    return {"median_ms": rounded(median), "p95_ms": rounded(p95), "runs": len(seconds)}


def rounded(value: float, digits: int = 4) -> float:
    """To so many significant digits: more are noise."""
    return float(f"{value:.{digits}g}")


def memory() -> int:
    """Bytes of memory that this process holds: its proportional share (PSS) of what is mapped, on Linux only."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("The kernel does not say how much memory is used: there is no Pss in /proc/self/smaps_rollup.")


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


# -- the texts ---------------------------------------------------------------------------------------------------------


def records(data: Path, name: str, file: str = "corpus.jsonl.gz") -> Iterator[dict[str, Any]]:
    """The lines of a file of a set."""
    path = data / name / file
    if not path.is_file():
        raise SystemExit(f"There is no {path}. Name the folder in which {name}/{file} lies: --data DIR.")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def scale_texts(data: Path) -> list[str]:
    """The 1,154,476 short passages of the scale sets in their order: title, new line, text."""
    return [
        f"{each['title']}\n{each['text']}".strip() if each.get("title") else each["text"]
        for name in SCALE
        for each in records(data, name)
    ]


def scale_order(count: int) -> np.ndarray:
    """The order in which the passages are taken, (count,) int64: shuffled, so that any start of it is a fair sample."""
    return np.random.default_rng(0).permutation(count)


def scale_passages(data: Path, count: int | None = None) -> list[str]:
    """The first `count` of the shuffled passages, or all of them."""
    texts = scale_texts(data)
    order = scale_order(len(texts))
    if count is not None and count > len(texts):
        raise SystemExit(f"There are {len(texts)} passages in {', '.join(SCALE)}, not {count}.")
    return [texts[place] for place in order[:count]]


def scale_questions(data: Path, count: int = 500) -> list[str]:
    """Questions that people asked: of cosqa-dev and scifact in turn, the same ones each time."""
    asked = [[each["text"] for each in records(data, name, "queries.jsonl.gz")] for name in QUESTIONS]
    taken = [question for pair in zip(*asked, strict=False) for question in pair][:count]
    if len(taken) < count:
        raise SystemExit(f"There are {len(taken)} questions in {' and '.join(QUESTIONS)}, not {count}.")
    return taken

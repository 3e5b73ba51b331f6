"""semsearch beside other libraries on the same texts and vectors, at 10,000, 100,000 and a million passages.

    python examples/benchmarks/scale.py --work DIR
    python examples/benchmarks/scale.py --work DIR --passages 10000 --only semsearch txtai
    python examples/benchmarks/scale.py --work DIR --fresh semsearch          # measures it again

DIR keeps the vectors (made there by the shipped encoder if they are missing), one environment for each library, and
what each gave: a run that was stopped goes on where it was, and what was measured with the same scripts, versions and
code is not measured again. One library is measured at a time. Each has --build-limit seconds to build and
--search-limit for its searches; what did not finish is recorded as that. Results go to results/scale.json.
Environments are made with the pip of this Python; all versions are pinned below.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from argparse import Namespace
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from common import ROOT, machine, options, say, write
from scale_inputs import facts, folder_of, is_current

PEERS = Path(__file__).parent / "peers"
SIZES = (10_000, 100_000, 1_000_000)
TORCH = "torch==2.13.0"  # installed first: the CPU build, where an open range would pull gigabytes
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "bm25": ("numpy==2.4.6", "rank-bm25==0.2.2", "bm25s==0.3.16", "numba==0.68.1", "tantivy==0.27.0"),
    "sentence-transformers": (TORCH, "numpy==2.4.6", "sentence-transformers==6.2.0"),
    "txtai": (TORCH, "numpy==2.4.6", "faiss-cpu==1.15.1", "txtai==9.14.0"),
    "chroma": ("numpy==2.4.6", "chromadb==1.5.9"),
    "lancedb": ("numpy==2.4.6", "pyarrow==26.0.1", "lancedb==0.40.0"),
    "haystack": ("numpy==2.4.6", "haystack-ai==3.4.1"),
}


class Runner(NamedTuple):
    """A script of peers/ and its environment ("" is this one)."""

    script: str
    environment: str
    most: int = 2_000_000  # passages that it is tried with
    persistent: bool = True  # whether a new process can open what was built
    share: float = 1.0  # of the seconds to build: one that can stop half-way is measured with what it has by then


RUNNERS = {
    "semsearch": Runner("run_semsearch.py", ""),
    "semsearch, keyword leg": Runner("run_semsearch_bm25.py", ""),
    "txtai": Runner("run_txtai.py", "txtai"),
    "LanceDB": Runner("run_lancedb.py", "lancedb"),
    "Chroma": Runner("run_chroma.py", "chroma", share=0.5),
    "sentence-transformers": Runner("run_sentence_transformers.py", "sentence-transformers"),
    "Haystack": Runner("run_haystack.py", "haystack", 100_000, persistent=False),
    "bm25s": Runner("run_bm25s.py", "bm25"),
    "bm25s, numba": Runner("run_bm25s_numba.py", "bm25"),
    "rank-bm25": Runner("run_rank_bm25.py", "bm25", persistent=False),
    "tantivy": Runner("run_tantivy.py", "bm25"),
    "SQLite FTS5": Runner("run_fts5.py", "bm25"),
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="keeps vectors, environments, indexes")
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="where vectors are, if not in the work folder")
    parser.add_argument("--passages", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--only", nargs="+", default=list(RUNNERS), choices=list(RUNNERS), metavar="NAME")
    parser.add_argument("--fresh", nargs="+", default=[], choices=list(RUNNERS), metavar="NAME", help="measure again")
    parser.add_argument("--build-limit", type=float, default=600, metavar="S", help="seconds to build, not for ours")
    parser.add_argument("--search-limit", type=float, default=90, metavar="S", help="seconds for all searches of one")
    parser.add_argument("--keep", action="store_true", help="keep the indexes that the libraries built")
    args = parser.parse_args()
    args.work = args.work.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that a step's process does not outlive this one
    measured = []
    for name, count in [(name, count) for count in args.passages for name in args.only]:
        if result := measure(args, name, count):
            measured.append(result)
            write(args.results / "scale.json", {"results": collected(args.work), "machine": machine()})
    show(measured)


def measure(args: Namespace, name: str, count: int) -> dict[str, Any] | None:
    """Measure one library at one size, unless it is known already; None where it is not meant for so many."""
    runner = RUNNERS[name]
    if count > runner.most:
        return None
    path = args.work / "measured" / f"{count}-{name.replace(' ', '-')}.json"
    key = fingerprint(runner, count)
    if path.is_file() and name not in args.fresh:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known
    make_inputs(args, count)
    python = environment(args.work, runner.environment)
    say(f"{name}, {count:,} passages")
    result = {"name": name, "passages": count, "key": key, "load_before": round(os.getloadavg()[0], 2)}
    folder = args.work / "indexes" / path.stem
    result |= measured_now(args, runner, count, python, folder, key) | {"machine": machine(())}
    write(path, result)
    if not args.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def measured_now(args: Namespace, runner: Runner, count: int, python: Path, folder: Path, key: str) -> dict[str, Any]:
    """Both steps of a runner, each a process of its own; what was built is kept until it was searched."""
    built, out = folder / "built.json", args.work / "part.json"
    build_limit = args.build_limit * runner.share if runner.environment else 24 * 3600.0
    script = (str(python), str(PEERS / runner.script))
    common = ("--inputs", str(folder_of(args.work, count)), "--folder", str(folder), "--out", str(out))
    if not runner.persistent:
        return step([*script, "both", *common], args.search_limit, out, grace=2, more=build_limit)
    if not built.is_file() or json.loads(built.read_text(encoding="utf-8"))["key"] != key:
        shutil.rmtree(folder, ignore_errors=True)
        result = step([*script, "build", *common], build_limit, out, grace=1.2)
        if "failed" in result:
            return result
        write(built, result["build"] | {"key": key})
    result = json.loads(built.read_text(encoding="utf-8"))
    searched = step([*script, "search", *common], args.search_limit, out, grace=2)
    if result["passages"] < count:
        searched["cut_off"] = f"building was stopped at {result['passages']} passages, after {build_limit:.0f} s"
    return searched | {"build": result}


def step(command: Sequence[str], limit: float, out: Path, grace: float, more: float = 0) -> dict[str, Any]:
    """Run a step. One that fails or does not end is told as `failed`, beside what it measured until then."""
    out.unlink(missing_ok=True)
    allowed = limit * grace + more + 30
    log = out.with_name("log.txt")
    with log.open("w", encoding="utf-8") as file:
        started = [*command, "--started", repr(time.time()), "--limit", str(limit)]
        process = subprocess.Popen(
            started, stdout=file, stderr=file, start_new_session=True, env=surroundings(), cwd=out.parent
        )
        try:
            failed = None if process.wait(allowed) == 0 else f"ended with exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            failed = f"not finished in {allowed:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the group that start_new_session made, with its children
                process.wait()
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    if failed:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        result["failed"] = failed if failed.startswith("not") or not lines else f"{failed}: {lines[-1][:300]}"
        say(f"  {result['failed']}")
    return result


def surroundings() -> dict[str, str]:
    """The environment variables of a runner: nothing is asked of a network, and nothing is sent."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "ANONYMIZED_TELEMETRY": "False"}
    quiet |= {"HAYSTACK_TELEMETRY_ENABLED": "False"}
    return {**os.environ, **quiet}


def make_inputs(args: Namespace, count: int) -> None:
    """In a process of its own, which gives its memory back."""
    if is_current(args.work, count):
        return
    say(f"inputs for {count:,} passages")
    vectors = ("--vectors", str(args.vectors.resolve())) if args.vectors else ()
    script = str(Path(__file__).with_name("scale_inputs.py"))
    command = (sys.executable, script, "--data", str(args.data), "--work", str(args.work), "--passages", str(count))
    if subprocess.run([*command, *vectors], check=False).returncode:
        raise SystemExit(f"The inputs for {count} passages could not be made.")


def environment(work: Path, name: str) -> Path:
    """The Python of a library's environment, which is made if it is not there or its pins have changed."""
    if not name:
        return Path(sys.executable)
    folder, pins = work / "envs" / name, ENVIRONMENTS[name]
    python, mark = folder / "bin" / "python", folder / "installed.json"
    if not mark.is_file() or json.loads(mark.read_text(encoding="utf-8")) != list(pins):
        say(f"environment for {name}: {', '.join(pins)}")
        if not python.is_file():
            venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if TORCH in pins:
            subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, *pins], check=True)
        write(mark, list(pins))
    return python


def fingerprint(runner: Runner, count: int) -> str:
    """Changes with all that a result depends on: scripts, versions, inputs; for ours the code too."""
    code = [PEERS / "harness.py", PEERS / runner.script, Path(__file__).with_name("scale_inputs.py")]
    code += [] if runner.environment else sorted((ROOT / "semsearch").glob("*.py"))
    digest = sha256(b"".join(path.read_bytes() for path in code))
    digest.update(repr((ENVIRONMENTS.get(runner.environment), facts(count))).encode())
    return digest.hexdigest()[:16]


def collected(work: Path) -> list[dict[str, Any]]:
    """All that is known, by size and name; what was measured with other scripts or code is left out."""
    known = [json.loads(path.read_text(encoding="utf-8")) for path in (work / "measured").glob("*.json")]
    valid = [each for each in known if each["key"] == fingerprint(RUNNERS[each["name"]], each["passages"])]
    return sorted(valid, key=lambda each: (each["passages"], list(RUNNERS).index(each["name"])))


# -- the table ---------------------------------------------------------------------------------------------------------


def show(results: Sequence[dict[str, Any]]) -> None:
    for count in sorted({result["passages"] for result in results}):
        print(f"\n{count:,} passages\n")
        print("\n".join(table([result for result in results if result["passages"] == count])))


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """The rows of a Markdown table."""
    titles = "recall@10", "median ms", "p95 ms", "build s", "first result s", "memory MiB", "disk MiB", "add ms"
    lines = [f"| library | search | {' | '.join(titles)} |", f"|---|---|{'---:|' * len(titles)}"]
    for result in results:
        built, added = result.get("build", {}), result.get("added", {})
        memory = (result["bytes"] - result["idle_bytes"]) / 2**20 if "bytes" in result else None
        disk = built["disk_bytes"] / 2**20 if "disk_bytes" in built else None
        shared = [built.get("seconds"), result.get("first_result_seconds"), memory, disk, added.get("median_ms")]
        title = f"{result['name']}, {built['passages']:,} only" if "cut_off" in result else result["name"]
        for place, row in enumerate(result.get("rows", [])):
            settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
            cells = [row.get("recall@10"), row["median_ms"], row["p95_ms"], *(shared if place == 0 else [""] * 5)]
            name = f"{row['mode']} ({settings})" if settings else row["mode"]
            lines.append(f"| {title if place == 0 else ''} | {name} | {' | '.join(map(cell, cells))} |")
        if "failed" in result:
            lines.append(f"| {title} | {result['failed']} | | | | {cell(built.get('seconds'))} | | | | |")
    return lines


def cell(value: float | str | None) -> str:
    """A number with three digits, a dash for what was not measured.

    >>> cell(1234.5), cell(0.04567), cell(None)
    ('1,234', '0.0457', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()

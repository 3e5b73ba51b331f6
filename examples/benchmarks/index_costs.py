"""What an index costs beside a search: building it, a filter, one more document, a sync, a start, memory to serve it.

    python examples/benchmarks/index_costs.py                                      # all; builds a million passages
    python examples/benchmarks/index_costs.py --only sync start --passages 10000   # a few minutes

The documents are the short passages of the scale sets (see the README), one passage each, with a field of 4 values, a
number, and a field of which 100 documents have the same value. Their vectors cost nothing: an encoder of this script
sums random ones by the text's checksums, so that what is measured is the index and not the model. `start` alone uses
the encoder that ships. With `--work DIR` the indexes are kept there and used again.

Everything is compared within one run: ratios and limits are those of the table of costs in the README.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, options, rounded, say, scale_passages, scale_questions, seconds, write

import semsearch

DIMENSION = 384
SMALL_FILES = 20_000
FILTERS: dict[str, Any] = {
    "none": None,
    "broad: a quarter": {"set": "a"},
    "broad: all but a quarter": {"set": {"$ne": "a"}},
    "broad: half, a range": {"number": {"$gte": 500_000}},
    "selective: 100 documents": {"group": "g17"},
    "broad and selective": {"set": "a", "group": "g17"},
    "one document": {"id": "d0000123"},
}
HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "onnxruntime")


class Free:
    """An encoder that costs next to nothing: unit vectors by the checksums of the text."""

    name = "free"
    dimension = DIMENSION

    def __init__(self) -> None:
        self._rows = np.random.default_rng(7).standard_normal((1 << 14, DIMENSION), dtype=np.float32)

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        coded = [text.encode("utf-8", "surrogatepass") for text in texts]
        first = np.array([zlib.crc32(each) for each in coded], dtype=np.int64)
        second = np.array([zlib.adler32(each) for each in coded], dtype=np.int64)
        rows = self._rows[first & 0x3FFF] + self._rows[first >> 14 & 0x3FFF] + self._rows[second & 0x3FFF]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# -- the indexes -------------------------------------------------------------------------------------------------------


def documents(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(texts):
        metadata = {"set": "abcd"[number % 4], "number": number * 7919 % 1_000_003, "group": f"g{number // 100}"}
        yield {"id": f"d{number:07d}", "text": text, "metadata": metadata}


def built(work: Path, data: Path, count: int, *, shipped: bool = False) -> Path:
    """The folder of an index of so many documents, which is made if it is not there."""
    path = work / f"{'shipped' if shipped else 'free'}-{count}"
    times = path.with_name(f"{path.name}.json")
    if not (path.exists() and times.exists()):
        texts = scale_passages(data, count)
        say(f"indexing {count:,} documents into {path}")
        part = path.with_name(f"{path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        start, spent = time.perf_counter(), time.process_time()
        with semsearch.Index(part, encoder=None if shipped else Free()) as index:
            index.add(documents(texts), progress=False)
            taken = {"seconds": rounded(time.perf_counter() - start), "processor": rounded(time.process_time() - spent)}
            index.optimize()
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
        times.write_text(json.dumps(taken))
    return path


def builds(paths: dict[int, Path]) -> list[dict[str, Any]]:
    """Seconds to build each index."""
    return [
        {"passages": count, **json.loads(path.with_name(f"{path.name}.json").read_text())}
        for count, path in paths.items()
    ]


def child(code: str, *arguments: object) -> Any:
    """What a new process prints last, as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def median_ms(values: Sequence[float]) -> float:
    return rounded(statistics.median(values) * 1e3)


# -- what is measured --------------------------------------------------------------------------------------------------


def filters(paths: dict[int, Path], data: Path) -> list[dict[str, Any]]:
    """Milliseconds to find what a filter lets through, and of a hybrid search with it."""
    questions = scale_questions(data, 20)
    rows = []
    for count, path in paths.items():
        with semsearch.Index(path, encoder=Free(), read_only=True) as index:
            index.search("warm", where={"set": "b"})
            for name, where in FILTERS.items():
                with index.snapshot() as snapshot:
                    alone = [seconds(lambda: snapshot.matching(where)) for _ in range(9)]  # noqa: B023
                    found = snapshot.matching(where)
                whole = [seconds(lambda: index.search(question, where=where)) for question in questions]  # noqa: B023
                passing = len(index) if found is None else len(found)
                rows.append(
                    {
                        "passages": count,
                        "filter": name,
                        "let through": passing,
                        "filter ms": median_ms(alone),
                        "hybrid search ms": median_ms(whole),
                    }
                )
    return rows


def updates(paths: dict[int, Path]) -> list[dict[str, Any]]:
    """Milliseconds to add one document, in an index that is open and searched, and in a new process."""
    indexes = {count: semsearch.Index(path, encoder=Free()) for count, path in paths.items()}
    taken: dict[int, list[float]] = {count: [] for count in paths}
    for index in indexes.values():
        index.search("warm", where={"set": "a"})
    for number in range(31):  # in turn, so that what else the machine does falls on all alike
        for count, index in indexes.items():
            item = {"id": "one-more", "text": f"A letter about late fees, number {number}.", "metadata": {"set": "a"}}
            taken[count].append(seconds(lambda: index.add(item)))  # noqa: B023
    for index in indexes.values():
        index.remove("one-more")
        index.close()
    fresh: dict[int, list[dict[str, float]]] = {count: [] for count in paths}
    for number in range(5):
        for count, path in paths.items():
            fresh[count].append(child(ADD, path, number))
    return [
        {
            "passages": count,
            "open index ms": median_ms(taken[count]),
            "new process ms": median_ms([each["whole"] for each in fresh[count]]),
            "new process, without imports ms": median_ms([each["add"] for each in fresh[count]]),
        }
        for count in paths
    ]


ADD = """
import json, sys, time
start = time.perf_counter()
import semsearch
from index_costs import Free
semsearch.Index, Free()
imported = time.perf_counter()
with semsearch.Index(sys.argv[1], encoder=Free()) as index:
    text = f"A letter about late fees, of process {sys.argv[2]}."
    index.add({"id": "one-more", "text": text, "metadata": {"set": "a"}})
end = time.perf_counter()
print(json.dumps({"whole": end - start, "add": end - imported}))
"""


def walked(folder: str) -> int:
    """A bare walk: how many files there are, with one `stat` each."""
    count, waiting = 0, [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    count += 1
    return count


def syncs(work: Path, data: Path) -> list[dict[str, Any]]:
    """Milliseconds to sync a folder without a change, beside a bare walk."""
    folders = {"documentation trees": mixed_folder(work, data), "small files": small_folder(work)}
    rows = []
    for name, folder in folders.items():
        with semsearch.Index(work / f"sync-{folder.name}", encoder=Free()) as index:
            say(f"syncing {folder}")
            index.sync(folder, progress=False)
            walk, sync = [], []
            for _ in range(11):
                walk.append(seconds(lambda: walked(str(folder))))  # noqa: B023
                sync.append(seconds(lambda: index.sync(folder, progress=False)))  # noqa: B023
            rows.append(
                {
                    "folder": name,
                    "files": walked(str(folder)),
                    "walk ms": median_ms(walk),
                    "sync ms": median_ms(sync),
                    "ratio": rounded(statistics.median(sync) / statistics.median(walk), 3),
                }
            )
    return rows


def mixed_folder(work: Path, data: Path) -> Path:
    folder = work / "mixed"
    if not folder.exists():
        archive = data / "folders" / "mixed.tar.gz"
        if not archive.is_file():
            raise SystemExit(f"There is no {archive}. Name the folder in which folders/mixed.tar.gz lies: --data DIR.")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    return folder


def small_folder(work: Path) -> Path:
    folder = work / "small"
    for number in range(SMALL_FILES if not folder.exists() else 0):
        inner = folder / f"{number // 200:03d}"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"note{number:05d}.txt").write_text(f"Note {number} about {number * 7919 % 1_000_003}.\n")
    return folder


def starts(work: Path, data: Path) -> list[dict[str, Any]]:
    """Seconds of imports, and of the first search of a new process."""
    count = 10_000
    path = built(work, data, count, shipped=True)
    runs: dict[str, Callable[[], Any]] = {
        "import numpy": lambda: child(IMPORT, "numpy"),
        "import semsearch": lambda: child(IMPORT, "semsearch"),
        "import sentence_transformers": lambda: child(IMPORT, "sentence_transformers"),
        f"first search, {count:,} passages": lambda: child(SEARCH, path),
    }
    taken: dict[str, list[Any]] = {name: [] for name in runs}
    for _ in range(5):
        for name, run in runs.items():
            taken[name].append(run())
    return [
        {
            "what": name,
            "seconds": rounded(statistics.median(each["seconds"] for each in results), 3),
            "heavy packages": ", ".join(results[0]["heavy"]),
        }
        for name, results in taken.items()
    ]


TAIL = f"""
print(json.dumps({{"seconds": end - start, "heavy": [each for each in {HEAVY} if each in sys.modules]}}))
"""
IMPORT = f"""
import importlib, json, sys, time
start = time.perf_counter()
importlib.import_module(sys.argv[1])
end = time.perf_counter()
{TAIL}"""
SEARCH = f"""
import json, sys, time
start = time.perf_counter()
import semsearch
with semsearch.Index(sys.argv[1], read_only=True) as index:
    assert len(index.search("how to read a file line by line")) == 10
    end = time.perf_counter()
{TAIL}"""


def serving(work: Path, data: Path, path: Path) -> list[dict[str, Any]]:
    """Bytes that a process holds to serve an index, beyond one that serves ten passages."""
    tiny = work / "free-10"
    if not tiny.exists():
        with semsearch.Index(tiny, encoder=Free()) as index:
            index.add(documents([f"A note about the number {number}." for number in range(10)]))
    idle, held = child(SERVE, tiny, data)["bytes"], child(SERVE, path, data)
    sizes = {each.name: each.stat().st_size for each in (path / "cache").iterdir()}
    vectors = held["passages"] * DIMENSION * 4
    postings = sum(size for name, size in sizes.items() if "-lexical." in name)
    return [
        {
            "passages": held["passages"],
            "idle MB": rounded(idle / 1e6),
            "serving MB": rounded(held["bytes"] / 1e6),
            "vectors MB": rounded(vectors / 1e6),
            "postings MB": rounded(postings / 1e6),
            "ratio": rounded((held["bytes"] - idle) / (vectors + postings), 3),
        }
    ]


SERVE = """
import json, sys
from pathlib import Path
import semsearch
from common import memory, scale_questions
from index_costs import FILTERS, Free
questions = scale_questions(Path(sys.argv[2]), 200)
with semsearch.Index(sys.argv[1], encoder=Free(), read_only=True) as index:
    for number, question in enumerate(questions):
        index.search(question, where=list(FILTERS.values())[number % len(FILTERS)])
    print(json.dumps({"bytes": memory(), "passages": len(index)}))
"""


# -- the table ---------------------------------------------------------------------------------------------------------


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, float, float]]:
    """Each row of the contract that was measured: its name, the unit, what was measured, and the limit."""
    rows = []
    if updates_ := result.get("update"):
        for way in ("open index ms", "new process, without imports ms"):
            ratio = updates_[-1][way] / updates_[0][way]
            name = f"one more document in {updates_[-1]['passages']:,} against {updates_[0]['passages']:,}"
            rows.append((f"{name}: {way.removesuffix(' ms')}", "times", rounded(ratio, 3), 3.0))
    for each in result.get("sync", ()):
        rows.append((f"sync without a change against a walk: {each['folder']}", "times", each["ratio"], 3.0))
    if starts_ := {each["what"]: each for each in result.get("start", ())}:
        numpy, ours, peer, first = (each["seconds"] for each in starts_.values())
        heavy = len(starts_["import semsearch"]["heavy packages"])
        rows.append(("heavy packages after import semsearch", "", heavy, 0))
        rows.append(("import semsearch beyond import numpy", "s", rounded(ours - numpy, 3), 0.1))
        rows.append(("first search against import sentence_transformers", "times", rounded(first / peer, 3), 0.2))
    for each in result.get("memory", ()):
        rows.append((f"memory to serve {each['passages']:,}, of vectors and postings", "times", each["ratio"], 1.2))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    heads = list(rows[0])
    cells = [
        heads,
        *([f"{each[head]:,}" if isinstance(each[head], int) else str(each[head]) for head in heads] for each in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def main() -> None:
    parser = options(__doc__)
    parts = ("build", "filter", "update", "sync", "start", "memory")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="what to measure")
    parser.add_argument("--passages", nargs="+", type=int, default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the indexes here and use them again")
    given = parser.parse_args()
    path = given.results / "index_costs.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    result["machine"] = machine()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        wanted = {"build", "filter", "update", "memory"} & set(given.only)
        paths = {count: built(work, given.data, count) for count in sorted(given.passages) if wanted}
        measured: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "build": lambda: builds(paths),
            "filter": lambda: filters(paths, given.data),
            "memory": lambda: serving(work, given.data, paths[max(paths)]),
            "update": lambda: updates(paths),
            "sync": lambda: syncs(work, given.data),
            "start": lambda: starts(work, given.data),
        }
        for name, run in measured.items():
            if name in given.only:
                say(f"measuring: {name}")
                began = time.perf_counter()
                result[name] = run()
                print(f"\n{name}\n{table(result[name])}", flush=True)
                say(f"{time.perf_counter() - began:.0f} s")
                write(path, result)
    print()
    for name, unit, value, limit in verdicts(result):
        print(f"{'holds' if value <= limit else 'DOES NOT HOLD'}: {name}: {value} {unit} (at most {limit})")


if __name__ == "__main__":
    main()

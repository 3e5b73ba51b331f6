"""Keyword search beside bm25s and rank-bm25, on the same tokens: building, searching, adding one document, filtering.

    python examples/benchmarks/lexical.py --work DIR                           # 10,000, 100,000 and 1,154,476 passages
    python examples/benchmarks/lexical.py --work DIR --passages 100000 --only semsearch bm25s-numba

DIR keeps the tokens (made by semsearch's analyzer, once) and the peers' environment (made with the pip of this Python;
versions are pinned below). Each library is measured in a process of its own, one at a time. Half of the 500 queries are
questions that people asked, half are 2 to 8 words in a row out of the passages, common words included. Times are of one
query after the other on one thread: of the clock, and of the processor, which other work on the machine hardly changes.
Results go to results/lexical.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, memory, options, rounded, say, scale_passages, scale_questions, version, write

PINS = ("numpy==2.4.6", "scipy==1.17.1", "rank-bm25==0.2.2", "bm25s==0.3.16", "numba==0.68.1")
SIZES = (10_000, 100_000, 1_154_476)
QUERIES = 500
ADDED = 50
K1, B = 1.5, 0.75  # for all
# The slow ones are asked only the first queries, within this many seconds.
PATIENCE = 120.0


# -- tokens ------------------------------------------------------------------------------------------------------------


def make_tokens(data: Path, folder: Path) -> None:
    """All passages as numbers of terms, one after the other, and the queries."""
    from semsearch.analysis import get_analyzer
    from semsearch.vocabulary import numbering

    if (folder / "queries.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    say("making tokens of all passages")
    analyzer, numbers, flat, lengths = get_analyzer("english"), numbering(), array("i"), array("i")
    texts = scale_passages(data)
    for text in texts:
        tokens = analyzer(text)
        lengths.append(len(tokens))
        flat.extend(map(numbers.__getitem__, tokens))
    np.save(folder / "tokens.npy", np.frombuffer(flat, dtype=np.int32))
    np.save(folder / "lengths.npy", np.frombuffer(lengths, dtype=np.int32))
    write(folder / "terms.json", list(numbers))
    queries = scale_questions(data, QUERIES // 2) + words_in_a_row(texts, QUERIES - QUERIES // 2)
    write(folder / "queries.json", [analyzer.query(query) for query in queries])


def words_in_a_row(texts: Sequence[str], count: int) -> list[str]:
    random, found = np.random.default_rng(3), []
    while len(found) < count:
        words, size = texts[random.integers(len(texts))].split(), int(random.integers(2, 9))
        if len(words) >= size and any(word.isalnum() for word in words):
            start = int(random.integers(len(words) - size + 1))
            found.append(" ".join(words[start : start + size]))
    return found


class Inputs:
    """The first passages as token lists, one by one, and the queries."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        self._numbers = np.load(folder / "tokens.npy", mmap_mode="r")
        self._ends = np.cumsum(np.load(folder / "lengths.npy"), dtype=np.int64)
        self._terms = json.loads((folder / "terms.json").read_text(encoding="utf-8"))
        queries = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
        half = len(queries) // 2
        # In turn: questions and words in a row, so that any start of them has both.
        self.queries = [query for pair in zip(queries[:half], queries[half:], strict=True) for query in pair if query]

    def documents(self) -> Iterator[list[str]]:
        terms = self._terms
        for start in range(0, self.count, 4096):
            ends = self._ends[start : min(start + 4096, self.count)]
            first = int(self._ends[start - 1]) if start else 0
            numbers = self._numbers[first : int(ends[-1])].tolist()
            begin = 0
            for end in (ends - first).tolist():
                yield [terms[number] for number in numbers[begin:end]]
                begin = end


# -- measuring, in a process for each ----------------------------------------------------------------------------------


def clocked(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, and seconds of the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def spread(taken: Sequence[tuple[float, float]]) -> dict[str, float | int]:
    """Median and 95th percentile in ms, of the clock and of the processor."""
    wall, cpu = (np.percentile([each[i] for each in taken], [50, 95]) * 1e3 for i in (0, 1))
    names = ("median_ms", "p95_ms", "median_cpu_ms", "p95_cpu_ms")
    return dict(zip(names, map(rounded, (*wall, *cpu)), strict=True)) | {"runs": len(taken)}


def searched(
    queries: Sequence[list[str]], search: Callable[[list[str]], tuple[Any, Any]]
) -> tuple[dict[str, Any], list[Any]]:
    """Times of single searches, and the scores that they found; the first query is a rehearsal."""
    search(queries[0])
    taken, found, end = [], [], time.monotonic() + PATIENCE
    for query in queries:
        (_, scores), wall, cpu = clocked(lambda query=query: search(query))
        taken.append((wall, cpu))
        found.append(np.asarray(scores, dtype=np.float64).tolist())
        if time.monotonic() > end:
            break
    return spread(taken), found


def measure_semsearch(inputs: Inputs, folder: Path) -> dict[str, Any]:
    from semsearch.blocks import facts
    from semsearch.lexical import LexicalIndex

    documents = list(inputs.documents())
    index = LexicalIndex("lucene", k1=K1, b=B)
    _, wall, cpu = clocked(lambda: index.add(range(inputs.count), documents))
    paths, wall_saved, cpu_saved = clocked(lambda: index.save(folder, "g1"))
    build = {"seconds": rounded(wall), "cpu_seconds": rounded(cpu)}
    build |= {"save_seconds": rounded(wall_saved), "save_cpu_seconds": rounded(cpu_saved)}
    documents.clear()

    _, wall, cpu = clocked(lambda: LexicalIndex("lucene").add(range(inputs.count), inputs.documents()))
    _, _, alone = clocked(lambda: sum(1 for _ in inputs.documents()))
    build["from_a_generator_cpu_seconds"] = rounded(cpu - alone)

    known = {path.name: facts(path) for path in paths}
    idle = memory()
    index, wall, _ = clocked(lambda: LexicalIndex.load(folder, "g1", known))
    _, first, _ = clocked(lambda: index.search(inputs.queries[1], 10))
    result: dict[str, Any] = {"build": build, "open_ms": rounded(wall * 1e3), "first_search_ms": rounded(first * 1e3)}
    unseen, _ = searched(inputs.queries, lambda query: index.search(query, 10))
    rows, found = measured(inputs, lambda query, k: index.search(query, k))
    result |= {"rows": [{"k": 10, "each term for the first time": True} | unseen, *rows]}
    result["bytes_on_disk"] = sum(path.stat().st_size for path in paths)
    result["bytes_of_memory"] = memory() - idle
    result["filters"] = filtered(inputs, index)
    result["scores"] = found
    result["added"] = added(inputs, index)
    for variant in ("okapi", "l", "plus"):
        other = LexicalIndex(variant, k1=K1, b=B)
        if inputs.count == min(SIZES):
            other.add(range(inputs.count), inputs.documents())
            found = [other.search(query, 10)[1].tolist() for query in inputs.queries]
            result[f"scores_{variant}"] = found
    return result


def measured(inputs: Inputs, search: Callable[[list[str], int], tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """The rows of the table for k = 10 and 100, and the ten best scores of each query."""
    ten, found = searched(inputs.queries, lambda query: search(query, 10))
    hundred, _ = searched(inputs.queries, lambda query: search(query, 100))
    return [{"k": 10} | ten, {"k": 100} | hundred], found


def filtered(inputs: Inputs, index: Any) -> dict[str, Any]:
    """Searches among some of the passages, from one in ten thousand to nine of ten."""
    random, result = np.random.default_rng(4), {}
    for share in (0.0001, 0.01, 0.5, 0.9):
        allowed = np.flatnonzero(random.random(inputs.count) < share).astype(np.int64)
        result[str(share)], _ = searched(inputs.queries[:200], lambda q, a=allowed: index.search(q, 10, allowed=a))
    return result


def added(inputs: Inputs, index: Any) -> dict[str, Any]:
    """One passage more, one replaced, and the next search each time."""
    new = [["added", "passag", *inputs.queries[i], f"only{i}"] for i in range(ADDED)]
    add, replace, after = [], [], []
    for i, tokens in enumerate(new):
        add.append(clocked(lambda i=i, t=tokens: index.add([inputs.count + i], [t]))[1:])
        after.append(clocked(lambda i=i: index.search(inputs.queries[i], 10))[1:])

    def replaced(i: int) -> None:
        index.remove([7 * i])
        index.add([inputs.count + ADDED + i], [new[i]])

    replaced(ADDED - 1)  # the first removal reads all ids
    for i in range(ADDED - 1):
        replace.append(clocked(lambda i=i: replaced(i))[1:])
        after.append(clocked(lambda i=i: index.search(inputs.queries[i], 10))[1:])
    return {"add": spread(add), "replace": spread(replace), "next_search": spread(after)}


def measure_bm25s(inputs: Inputs, backend: str) -> dict[str, Any]:
    import bm25s

    documents = list(inputs.documents())
    index = bm25s.BM25(k1=K1, b=B, method="lucene", backend=backend)
    _, wall, cpu = clocked(lambda: index.index(documents, show_progress=False))
    documents.clear()

    def search(query: list[str], k: int) -> tuple[Any, Any]:
        known = [term for term in query if term in index.vocab_dict]
        if not known:
            return [], []
        found = index.retrieve([known], k=k, show_progress=False)
        return found.documents[0], found.scores[0][found.scores[0] > 0]

    search(inputs.queries[0], 100)  # numba compiles
    rows, found = measured(inputs, search)
    result = {"build": {"seconds": rounded(wall), "cpu_seconds": rounded(cpu)}, "rows": rows, "scores": found}
    if backend == "numpy":  # its choice of the best is slow where most scores are zero; a user may replace it
        alone, _ = searched(inputs.queries, lambda query: ([], index.get_scores(query)[:1]))
        result["rows"].append({"k": "scores alone, nothing chosen"} | alone)
    return result


def measure_rank_bm25(inputs: Inputs) -> dict[str, Any]:
    import rank_bm25

    documents = list(inputs.documents())
    index, wall, cpu = clocked(lambda: rank_bm25.BM25Okapi(documents, k1=K1, b=B))

    def search(index: Any, query: list[str], k: int) -> tuple[Any, Any]:
        scores = index.get_scores(query)
        top = np.argpartition(-scores, k)[:k]
        top = top[np.argsort(-scores[top])]
        return top, scores[top]

    few = inputs.queries[: None if inputs.count == min(SIZES) else 24]
    ten, found = searched(few, lambda query: search(index, query, 10))
    result = {"build": {"seconds": rounded(wall), "cpu_seconds": rounded(cpu)}, "rows": [{"k": 10} | ten]}
    if inputs.count == min(SIZES):
        result["scores_okapi"] = found
        for variant, kind in (("l", rank_bm25.BM25L), ("plus", rank_bm25.BM25Plus)):
            other = kind(documents, k1=K1, b=B)
            result[f"scores_{variant}"] = [search(other, query, 10)[1].tolist() for query in inputs.queries]
    return result


MEASURED: dict[str, Callable[[Inputs, Path], dict[str, Any]]] = {
    "semsearch": measure_semsearch,
    "bm25s-numpy": lambda inputs, _: measure_bm25s(inputs, "numpy"),
    "bm25s-numba": lambda inputs, _: measure_bm25s(inputs, "numba"),
    "rank-bm25": lambda inputs, _: measure_rank_bm25(inputs),
}


# -- all of them -------------------------------------------------------------------------------------------------------


def environment(work: Path) -> Path:
    """The Python of the peers' environment, made if it is not there with these versions."""
    folder = work / "peers"
    python, made = folder / "bin" / "python", folder / "made.json"
    if not made.is_file() or json.loads(made.read_text(encoding="utf-8")) != list(PINS):
        say(f"making the environment of {', '.join(PINS)}")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINS], check=True)
        write(made, list(PINS))
    return python


def measure(work: Path, name: str, count: int) -> dict[str, Any]:
    """Measure one library in a process of its own."""
    say(f"{name}, {count:,} passages")
    out, folder = work / "part.json", work / "index"
    folder.mkdir(exist_ok=True)
    python = sys.executable if name == "semsearch" else str(environment(work))
    command = [python, __file__, "--work", str(work), "--run", name, "--passages", str(count)]
    done = subprocess.run(command, check=False, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    if done.returncode:
        return {"failed": f"exit code {done.returncode}"}
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How far the ten best scores of each query are from a peer's, relative to the best; of how many queries."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=False):
        size = min(len(a), len(b))
        if size:
            worst = max(worst, float(np.max(np.abs(np.subtract(a[:size], b[:size])))) / max(a[0], 1e-9))
    return {"queries": min(len(ours), len(theirs)), "largest_relative_difference": rounded(worst)}


def compared(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether all found the same scores; the scores themselves are not kept."""
    own, same = results.get("semsearch", {}), {}
    for name, key in [("bm25s-numba", "scores"), *(("rank-bm25", f"scores_{v}") for v in ("okapi", "l", "plus"))]:
        if key in own and key in results.get(name, {}):
            same[f"{name}, {key.removeprefix('scores').strip('_') or 'lucene'}"] = difference(
                own[key], results[name][key]
            )
    for result in results.values():
        for key in [key for key in result if key.startswith("scores")]:
            del result[key]
    return same


def show(count: int, results: dict[str, dict[str, Any]]) -> None:
    print(f"\n{count:,} passages: ms a query (of the processor), median and 95th percentile; seconds to build")
    for name, result in results.items():
        if "failed" in result:
            print(f"  {name:13} failed: {result['failed']}")
            continue
        build = result["build"]
        print(f"  {name:13} build {build['seconds']:8.2f} ({build['cpu_seconds']:.2f})")
        for row in result["rows"]:
            label = f"k = {row['k']}" + (", new terms" if "each term for the first time" in row else "")
            print(
                f"    {label:32} {row['median_ms']:9.3f} ({row['median_cpu_ms']:.3f})"
                f" {row['p95_ms']:9.3f} ({row['p95_cpu_ms']:.3f})   {row['runs']} queries"
            )
        for what in ("added", "filters"):
            for label, row in result.get(what, {}).items():
                print(f"    {what + ' ' + label:32} {row['median_ms']:9.3f} ({row['median_cpu_ms']:.3f})")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="keeps tokens and environment")
    parser.add_argument("--passages", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--only", nargs="+", default=list(MEASURED), choices=list(MEASURED), metavar="NAME")
    parser.add_argument("--run", choices=list(MEASURED), help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = args.work.resolve()
    if args.run:
        result = MEASURED[args.run](Inputs(work / "tokens", args.passages[0]), work / "index")
        result["versions"] = {name: version(name) for name in ("numpy", "bm25s", "numba", "rank-bm25", "semsearch")}
        write(work / "part.json", result)
        return
    make_tokens(args.data, work / "tokens")
    collected = []
    for count in args.passages:
        results = {name: measure(work, name, count) for name in args.only}
        collected.append({"passages": count, "same_scores": compared(results), "libraries": results})
        show(count, results)
        print("  same scores:", json.dumps(collected[-1]["same_scores"]))
        write(args.results / "lexical.json", {"results": collected, "machine": machine(("semsearch", "numpy"))})


if __name__ == "__main__":
    main()

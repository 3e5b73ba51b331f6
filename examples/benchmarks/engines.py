"""Whether an index ranks the same wherever it lives, and what a search costs there.

    make .venv/.engines
    .venv/engines/bin/python examples/benchmarks/engines.py                          # SciFact, on every engine
    .venv/engines/bin/python examples/benchmarks/engines.py --lane core server --set cranfield

A set is indexed in a folder, with the shipped encoder, and copied to each engine of tests/engines/lanes.py, which are
installed and started here on 127.0.0.1 and ended again. Then the questions of the set are asked everywhere:

- dense: how many questions have the same ten passages in the same order as in the folder, and with the same ten in any
  order, and by how much a score differs at most; the folder is searched exactly, and so is Milvus (index FLAT);
- lexical, hybrid: how many of the folder's ten best passages an engine has among its ten best, on average. Milvus
  counts for each of its segments alone how rare a word is, and its scores cannot be compared, so the default fusion
  goes by ranks there: the results are alike, and not the same;
- nDCG@10 of each, and the milliseconds of a search, one at a time, where client and server share a machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import PACKAGES, ROOT, machine, options, rounded, say, times, write

import semsearch
from semsearch.copying import copy
from semsearch.datasets import Question, read_dataset
from semsearch.metrics import score_ranking

sys.path.insert(0, str(ROOT / "tests" / "engines"))
from lanes import LANES, LaneError

MODES = ("dense", "lexical", "hybrid")
K = 10
DEPTH = 3 * K  # passages, so that ten documents come out
Found = list[list[tuple[tuple[str, int], float]]]  # for each question: ((document, start), score), best first


def ask(index: semsearch.Index, questions: Sequence[Question], mode: str) -> tuple[Found, dict[str, Any]]:
    """What is found for each question, and what a search took."""
    retriever = semsearch.Retriever(index, mode=mode)
    retriever.search(questions[0].text, k=DEPTH)
    found, taken = [], []
    for question in questions:
        began = time.perf_counter()
        hits = retriever.search(question.text, k=DEPTH)
        taken.append(time.perf_counter() - began)
        found.append([((hit.passage.document_id, hit.passage.start), hit.score) for hit in hits])
    return found, times(taken)


def quality(found: Found, questions: Sequence[Question]) -> float:
    """Mean nDCG@10 of the documents, each at its best passage."""
    scores = []
    for hits, question in zip(found, questions, strict=True):
        documents = list(dict.fromkeys(document for (document, _), _ in hits))
        scores.append(score_ranking(documents[:K], question.documents, k=K)[f"ndcg@{K}"])
    return round(float(np.mean(scores)), 4)


def agreement(found: Found, known: Found) -> dict[str, Any]:
    """How like the folder's ten best an engine's ten best are."""
    same_order = same_set = 0
    overlap = []
    for hits, wanted in zip(found, known, strict=True):
        here, there = [passage for passage, _ in hits[:K]], [passage for passage, _ in wanted[:K]]
        same_order += here == there
        same_set += set(here) == set(there)
        overlap.append(len(set(here) & set(there)) / max(len(there), 1))
    return {
        "same_order": same_order,
        "same_ten": same_set,
        "questions": len(known),
        "overlap": round(float(np.mean(overlap)), 4),
    }


def largest_difference(found: Found, known: Found) -> float:
    """By how much the score of a passage differs at most, over the passages found both here and in the folder."""
    pairs = zip(map(dict, found), map(dict, known), strict=True)
    return max(abs(here[passage] - there[passage]) for here, there in pairs for passage in here.keys() & there.keys())


def measure(
    index: semsearch.Index, questions: Sequence[Question], known: dict[str, Found]
) -> tuple[dict[str, Any], dict[str, Found]]:
    """The results of every mode that the engine has, beside those of the folder, if these are known."""
    result: dict[str, Any] = {}
    all_found: dict[str, Found] = {}
    for mode in MODES:
        if mode != "dense" and not index.ranks_keywords:
            result[mode] = "the engine does not search by keyword; hybrid is dense there"
            continue
        found, taken = ask(index, questions, mode)
        result[mode] = {"ndcg@10": quality(found, questions), **taken}
        if known:
            result[mode] |= agreement(found, known[mode])
            if mode == "dense":
                result[mode]["largest_difference_of_a_score"] = rounded(largest_difference(found, known[mode]), 2)
        all_found[mode] = found
    return result, all_found


def run(name: str, source: Path, questions: Sequence[Question], known: dict[str, Found], work: Path) -> dict[str, Any]:
    """Start an engine, copy the index there, ask, and end it."""
    lane = LANES[name](work / name)
    lane.folder.mkdir()
    try:
        lane.start()
    except LaneError as error:
        return {"not_run": str(error)}
    try:
        location = f"{lane.location('benchmark')}?timeout=300"
        began = time.perf_counter()
        report = copy(source, location, progress=False)
        copied = time.perf_counter() - began
        with semsearch.Index(location, read_only=True) as index:
            result, _ = measure(index, questions, known)
        return {"passages": report.passages, "copied_in_seconds": round(copied, 1), **result}
    finally:
        lane.kill()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--set", nargs="+", default=["scifact"], metavar="SET", help="default: scifact")
    parser.add_argument("--questions", type=int, default=300, help="of each set, at most (default: 300)")
    parser.add_argument("--lane", nargs="+", default=[name for name in LANES if name != "embedded"], choices=LANES)
    arguments = parser.parse_args()
    for name in arguments.set:
        dataset = read_dataset(arguments.data / name)
        questions = [question for question in dataset.questions if question.documents][: arguments.questions]
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            source = work / "index"
            say(f"{name}: a folder")
            with semsearch.Index(source, recall=1.0) as index:
                index.add(dataset.documents(), progress=False)
                result, known = measure(index, questions, {})
            results = {"embedded": result}
            for lane in arguments.lane:
                say(f"{name}: {lane}")
                results[lane] = run(lane, source, questions, known, work)
                say(str(results[lane]))
        packages = (*PACKAGES, "pymilvus", "milvus-lite")
        write(arguments.results / f"engines-{name}.json", {"machine": machine(packages), "set": name, "lanes": results})


if __name__ == "__main__":
    main()

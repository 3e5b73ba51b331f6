"""Makes what scale.py gives to all peers: vectors by the shipped encoder, texts, tokens, questions, the exact results.

    python examples/benchmarks/scale_inputs.py --work DIR --passages 10000

scale.py calls it; it may be stopped at any time and goes on where it was. Encoding a million passages takes an hour on
two cores; vectors are kept in shards of 20,000 (v000.npy, ...), in the order of order.npy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from common import options, say, scale_order, scale_questions, scale_texts

SHARD = 20_000
LONGEST = 2_000  # characters of a text that are taken: 1,424 of the 1,154,476 are longer, the encoder reads no further
ADDED = 20  # passages that are kept apart, to be added one by one
LONG_LIST = 100  # how many of the best are kept of a BM25 formula, for those with the tenth's score


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where vectors and inputs are kept")
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="where the shards are, if not in the work folder")
    parser.add_argument("--passages", type=int, required=True)
    args = parser.parse_args()
    make(args.data, args.vectors or args.work, args.work, args.passages)


def folder_of(work: Path, count: int) -> Path:
    return work / f"inputs-{count}"


def make(data: Path, shards: Path, work: Path, count: int) -> Path:
    """The folder with all inputs for so many passages."""
    folder = folder_of(work, count)
    if is_current(work, count):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "facts.json").unlink(missing_ok=True)
    texts = scale_texts(data)
    order = scale_order(len(texts))
    if count + ADDED > len(texts):
        raise SystemExit(f"--passages may be at most {len(texts) - ADDED}, not {count}.")
    taken = [texts[place][:LONGEST].strip() for place in order[: count + ADDED]]
    encode(shards, [texts[place] for place in order], order, count + ADDED)
    del texts
    write_vectors(shards, folder, count + ADDED)
    write(folder / "texts.json", taken[:count])
    write(folder / "added.json", taken[count:])
    write_questions(data, folder)
    write_tokens(folder, taken, count)
    write_exact(folder, count)
    write_references(folder)
    write(folder / "facts.json", facts(count))
    return folder


def is_current(work: Path, count: int) -> bool:
    """Whether the inputs are there, by the encoder, the analyzer and the script of today."""
    path = folder_of(work, count) / "facts.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == facts(count)


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def facts(count: int) -> dict[str, Any]:
    """What inputs depend on."""
    from semsearch.analysis import get_analyzer
    from semsearch.encoding import fingerprint, get_encoder

    return {
        "passages": count,
        "encoder": fingerprint(get_encoder(None)),
        "analyzer": get_analyzer("english").fingerprint(),
        "script": sha256(Path(__file__).read_bytes()).hexdigest()[:16],
    }


def encode(folder: Path, texts: Sequence[str], order: np.ndarray, count: int) -> None:
    """Make the shards that are missing, up to `count` passages; what is there must be of these texts."""
    from semsearch.encoding import get_encoder

    folder.mkdir(parents=True, exist_ok=True)
    encoder = get_encoder(None)
    path = folder / "order.npy"
    if path.is_file() and not np.array_equal(np.load(path), order):
        raise SystemExit(f"{path} is another order than that of these texts. Pass another folder.")
    np.save(path, order)
    for start in range(0, count, SHARD):
        path = folder / f"v{start // SHARD:03d}.npy"
        if path.is_file():
            own = encoder.encode(texts[start : start + 3])
            if (np.load(path, mmap_mode="r")[:3] * own).sum(axis=1).min() < 0.999:
                raise SystemExit(f"{path} has vectors of another encoder or of other texts. Pass another folder.")
            continue
        say(f"encoding passages from {start}")
        rows = encoder.encode(texts[start : start + SHARD])
        part = folder / "part.npy"
        np.save(part, rows)
        part.replace(path)


def write_vectors(shards: Path, folder: Path, count: int) -> None:
    """The shards as one array, (count, 384) float32."""
    first = np.load(shards / "v000.npy", mmap_mode="r")
    array = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (count, first.shape[1]))
    for start in range(0, count, SHARD):
        part = np.load(shards / f"v{start // SHARD:03d}.npy", mmap_mode="r")
        array[start : start + SHARD] = part[: count - start]
    array.flush()


def write_questions(data: Path, folder: Path) -> None:
    from semsearch.encoding import get_encoder

    questions = scale_questions(data)
    write(folder / "questions.json", questions)
    np.save(folder / "questions.npy", get_encoder(None).encode(questions, kind="query"))


def write_tokens(folder: Path, texts: Sequence[str], count: int) -> None:
    """The tokens of passages and questions by semsearch's analyzer for English, separated by spaces."""
    from semsearch.analysis import get_analyzer

    analyzer = get_analyzer("english")
    tokens = [" ".join(analyzer(text)) for text in texts]
    write(folder / "tokens.json", tokens[:count])
    write(folder / "added-tokens.json", tokens[count:])
    questions = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    write(folder / "question-tokens.json", [" ".join(analyzer.query(question)) for question in questions])


def write_exact(folder: Path, count: int) -> None:
    from peers.harness import best

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    np.save(folder / f"exact-{count}.npy", best(vectors[:count], np.load(folder / "questions.npy"))[1])


def write_references(folder: Path) -> None:
    """The best passages of each question by BM25, beside which peers with the same formula are held."""
    from semsearch.lexical import LexicalIndex

    tokens = [text.split() for text in json.loads((folder / "tokens.json").read_text(encoding="utf-8"))]
    questions = json.loads((folder / "question-tokens.json").read_text(encoding="utf-8"))
    for variant in ("lucene", "okapi"):
        index = LexicalIndex(variant)  # type: ignore[arg-type]
        index.add(range(len(tokens)), tokens)
        found = [index.search(question.split(), LONG_LIST) for question in questions]
        write(folder / f"bm25-{variant}.json", [[ids.tolist(), scores.tolist()] for ids, scores in found])


if __name__ == "__main__":
    main()

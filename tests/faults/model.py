"""Random sequences of operations on an index, against a model: a dict of documents, BM25 by its formulas, NumPy.

An index is written to (add, replace, describe anew, remove, in every form of item), optimized, closed and opened again
with any BM25 variant, loses its cache or a part of it, and has a second reader that stays open. After each step some
searches, in all modes, with and without filters, give exactly what the model says: the same passages with the same ids
in the same order, ties by id, dense scores equal to the last bit, BM25 scores to the last few bits. At times every
document is compared, and `check` must find nothing.

Sequence n of seed s is always the same: repeat it by `--seed s` and a count above n.
"""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from toy import WordEncoder

import semsearch
from faults import queries
from faults.outcome import Outcome
from semsearch.analysis import Analyzer
from semsearch.chunking import chunk, embedded_text
from semsearch.errors import ModelError

CI = 60
FULL = 20_000
STEPS = {"short": 20, "long": 50}  # steps of a sequence: long ones where there are more than CI of them

MODES = ("lexical", "dense", "hybrid")
VARIANTS = ("lucene", "lucene", "okapi", "l", "plus", "rank_bm25")
WORDS = ["fee", "fees", "late", "list", "card", "desk", "hour", "open", "loan", "get_value", "3.11", "図書館", "ünder"]
NAMES = ["year", "tags", "a", "a.b", "n", "suffix"]
VALUES: list[Any] = [0, 1, 2020, 2020.0, 1.5, True, False, None, "a", "b", "", [1, "a"], [], {"b": 1}, {"b": [2, None]}]
NO_VECTOR = "blank"  # a text with this word gets no usable vector


Ranking = list[tuple[int, float]]


class SmallEncoder(WordEncoder):
    """Few components, so that many passages have equal scores; none at all for some texts."""

    name = "toy-words-16"
    dimension = 16

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        rows = super().encode(texts, kind=kind)
        for number, text in enumerate(texts):
            if NO_VECTOR in text.split():
                rows[number] = 0.0 if "list" in text.split() else np.nan
        return rows


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A passage as the model knows it."""

    id: int
    document: str
    start: int
    end: int
    tokens: Counter[str]
    length: int
    vector: np.ndarray | None


class Corpus:
    """All passages at one time, and what BM25 needs to know of them."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.mean = sum(part.length for part in parts) / max(len(parts), 1)
        self.frequency = Counter(term for part in parts for term in part.tokens)
        self._idf: dict[str, dict[str, float]] = {}

    def idf(self, variant: str) -> dict[str, float]:
        """The weight of each term; "rank_bm25" is its okapi."""
        if variant not in self._idf:
            weigh = {"lucene": self._lucene, "l": self._l, "plus": self._plus}.get(variant, self._okapi)
            self._idf[variant] = weigh(len(self.parts))
        return self._idf[variant]

    def _lucene(self, count: int) -> dict[str, float]:
        return {term: math.log(1 + (count - df + 0.5) / (df + 0.5)) for term, df in self.frequency.items()}

    def _l(self, count: int) -> dict[str, float]:
        return {term: math.log((count + 1) / (df + 0.5)) for term, df in self.frequency.items()}

    def _plus(self, count: int) -> dict[str, float]:
        return {term: math.log((count + 1) / df) for term, df in self.frequency.items()}

    def _okapi(self, count: int) -> dict[str, float]:
        plain = {term: math.log((count - df + 0.5) / (df + 0.5)) for term, df in self.frequency.items()}
        mean = math.fsum(plain.values()) / max(len(plain), 1)
        return {term: value if value >= 0 else 0.25 * mean for term, value in plain.items()}


@dataclass
class Model:
    """What the index should be."""

    analyze: Callable[[str], list[str]]
    query: Callable[[str], list[str]]
    documents: dict[str, semsearch.Document] = field(default_factory=dict)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    fields: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    last_id: int = 0
    _corpus: Corpus | None = None

    def put(self, document: semsearch.Document) -> str:
        """Add or replace a document; "added", "updated" or "unchanged"."""
        self._corpus = None
        before = self.documents.get(document.id)
        self.documents[document.id] = document
        self.fields[document.id] = queries.fields_of(document)
        if before is None or _cut_by(before) != _cut_by(document):
            self.parts[document.id] = [self._part(document, *span) for span in _spans(*_cut_by(document))]
        return "added" if before is None else "unchanged" if repr(before) == repr(document) else "updated"

    def _part(self, document: semsearch.Document, start: int, end: int, heading: str) -> Part:
        self.last_id += 1
        text = embedded_text(document.title, heading, document.text[start:end])
        tokens = self.analyze(text)
        vector = _encoder.encode([text])[0]
        usable = bool(np.isfinite(vector).all() and vector.any())
        return Part(self.last_id, document.id, start, end, Counter(tokens), len(tokens), vector if usable else None)

    def remove(self, id: str) -> bool:
        """Remove a document; whether it was there."""
        self._corpus = None
        self.parts.pop(id, None)
        self.fields.pop(id, None)
        return self.documents.pop(id, None) is not None

    def every(self) -> list[Part]:
        """All passages, by id."""
        return self._now().parts

    def _now(self) -> Corpus:
        if self._corpus is None:
            self._corpus = Corpus(sorted((each for parts in self.parts.values() for each in parts), key=lambda p: p.id))
        return self._corpus

    def allowed(self, where: Any) -> set[str]:
        """The documents that a filter lets through."""
        return {id for id, fields in self.fields.items() if where is None or queries.matches(fields, where)}

    def lexical(self, query: str, allowed: set[str], variant: str) -> tuple[Ranking, bool]:
        """All passages that have a term of the query, best first, and whether rounding may exchange some of them."""
        corpus, terms = self._now(), Counter(self.query(query))
        idf = corpus.idf(variant)
        scores: dict[tuple[Any, ...], float] = {}
        found = []
        for part in corpus.parts:
            counts = [part.tokens[term] for term in terms]
            if part.document in allowed and any(counts):
                alike = (part.length, *counts)
                if alike not in scores:
                    scale = 1.5 * (1 - 0.75 + 0.75 * part.length / corpus.mean)
                    pairs = zip(terms.items(), counts, strict=True)
                    shares = [n * idf[term] * _gain(variant, tf, scale) for (term, n), tf in pairs if term in idf]
                    scores[alike] = math.fsum(shares)
                found.append((part.id, scores[alike]))
        levels = sorted(scores.values())
        close = any(math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) for one, other in pairwise(levels))
        return sorted(found, key=lambda pair: (-pair[1], pair[0])), close

    def dense(self, query: str, allowed: set[str]) -> Ranking:
        """All passages with a vector, best first: float64 products, added up exactly, as float32."""
        vector = _encoder.encode([query], kind="query")[0].astype(np.float64)
        parts = [part for part in self.every() if part.vector is not None and part.document in allowed]
        if not parts:
            return []
        products = np.stack([part.vector for part in parts if part.vector is not None]).astype(np.float64) * vector
        scores = np.array([math.fsum(row) for row in products.tolist()]).astype(np.float32).tolist()
        return sorted(zip([part.id for part in parts], scores, strict=True), key=lambda pair: (-pair[1], pair[0]))


_encoder = SmallEncoder()
_analyzer = Analyzer()  # that remembers the stems of words


def _cut_by(document: semsearch.Document) -> tuple[str, str, str, bool]:
    return document.text, document.title, str(document.metadata.get("suffix")), "pages" in document.metadata


@lru_cache(1 << 12)
def _spans(text: str, title: str, suffix: str, paged: bool) -> list[tuple[int, int, str]]:
    document = semsearch.Document("", text, title, metadata={"suffix": suffix, **({"pages": 1} if paged else {})})
    chunks = chunk(document, count_tokens=lambda texts: [len(text) // 3 + 3 for text in texts], max_tokens=200)
    return [(each.start, each.end, each.heading) for each in chunks]


def _gain(variant: str, tf: int, scale: float) -> float:
    """What a term's occurrences are worth; `scale` is k1 · (1 - b + b · length / mean length), k1 = 1.5."""
    if variant == "lucene":
        return tf / (tf + scale)
    if variant == "l":
        c = 1.5 * tf / scale
        return tf * 2.5 * (c + 0.5) / (1.5 + c + 0.5)
    height = 2.5 * tf / (tf + scale)
    return height + 1.0 if variant == "plus" else height


def fused(rankings: dict[str, Ranking], k: int) -> Ranking:
    """Reciprocal rank fusion of the first max(k, 100) of each leg."""
    shares: dict[int, list[float]] = {}
    for ranking in rankings.values():
        for rank, (id, _) in enumerate(ranking[: max(k, 100)], 1):
            shares.setdefault(id, []).append(1 / (60 + rank))
    sums = [(id, math.fsum(each)) for id, each in shares.items()]
    return sorted(sums, key=lambda pair: (-pair[1], pair[0]))[:k]


# -- a sequence --------------------------------------------------------------------------------------------------------


class DifferenceError(Exception):
    """The index is not what the model says."""


class Trial:
    """One index and its model."""

    def __init__(self, folder: Path, choose: random.Random, counters: Counter[str]) -> None:
        self.folder = folder
        self.choose = choose
        self.counters = counters
        self.variant = "lucene"
        self.index = semsearch.Index(folder, encoder=SmallEncoder(), analyzer=_analyzer)
        self.reader: semsearch.Index | None = None
        self.model = Model(self.index.analyzer, self.index.analyzer.query)

    def step(self, number: int, last: bool) -> None:
        """One operation, then some looks at what came of it."""
        actions = (self.add, self.remove, self.look, self.reopen, self.optimize, self.lose_cache, self.second_reader)
        action = self.choose.choices(actions, [6, 3, 3, 1, 1, 1, 1])[0]
        self.counters[action.__name__.replace("_", " ")] += 1
        action()
        self.compare_search(self.index)
        if self.reader is not None and self.choose.random() < 0.5:
            self.compare_search(self.reader)
        if last:
            self.look()

    def close(self) -> None:
        self.index.close()
        if self.reader is not None:
            self.reader.close()

    # -- operations ----------------------------------------------------------------------------------------------------

    def add(self) -> None:
        documents = [self.document() for _ in range(self.choose.choice([0, 1, 1, 2, 4, 12]))]
        expected = Counter(self.model.put(document) for document in documents)
        items: Any = [self.item(document) for document in documents]
        if self.choose.random() < 0.2:
            items = iter(items)
        report = self.index.add(items)
        found = {name: getattr(report, name) for name in ("added", "updated", "unchanged", "failed", "removed")}
        equal(found, {name: expected[name] for name in found}, f"the report of {len(documents)} documents")

    def document(self) -> semsearch.Document:
        """A new one, one that is there, or one that is there with something changed."""
        choose = self.choose
        known = [*self.model.documents.values()]
        if known and choose.random() < 0.25:
            same = choose.choice(known)
            part = choose.choice(["nothing", "metadata", "source", "title", "text"])
            new = {"metadata": self.metadata(), "source": "x\0y", "title": choose.choice(WORDS), "text": self.text()}
            return same if part == "nothing" else _with(same, **{part: new[part]})
        id = choose.choice("abcdefghij") + choose.choice(["", "1", "'", "\ud800", "/x.md"])
        return semsearch.Document(id, self.text(), choose.choice(["", "", "Late fee"]), "", self.metadata())

    def text(self) -> str:
        choose = self.choose
        words = choose.choices(
            [*WORDS, NO_VECTOR] if choose.random() < 0.1 else WORDS, k=choose.choice([0, 1, 2, 3, 5, 9])
        )
        if choose.random() < 0.06:
            # Several passages.
            words = [word for _ in range(8) for word in [*choose.choices(WORDS, k=20), "\n\n# Part\n\n"]]
        return choose.choice([" ", "\r\n", "\n\n"]).join(words)

    def metadata(self) -> dict[str, Any]:
        choose = self.choose
        names = [name for name in NAMES if choose.random() < 0.35]
        return {name: ".md" if name == "suffix" else choose.choice(VALUES) for name in names}

    def item(self, document: semsearch.Document) -> Any:
        kind = self.choose.randrange(3)
        if kind == 0:
            parts = {"title": document.title, "source": document.source, "metadata": document.metadata}
            return {"id": document.id, "text": document.text, **{name: part for name, part in parts.items() if part}}
        if kind == 1 and not document.title and not document.source and not document.metadata:
            return document.id, document.text
        return document

    def remove(self) -> None:
        known = [*self.model.documents]
        ids = self.choose.sample(known, min(len(known), self.choose.choice([1, 1, 2, 6])))
        ids += self.choose.choice([[], [], ["never there"], ids[:1]])
        argument: Any = ids[0] if len(ids) == 1 and self.choose.random() < 0.5 else ids
        expected = sum(self.model.remove(id) for id in ids)
        equal(self.index.remove(argument), expected, f"the number of removed of {ids!r}")

    def optimize(self) -> None:
        self.index.optimize()

    def reopen(self) -> None:
        self.index.close()
        self.variant = self.choose.choice(VARIANTS)
        self.index = semsearch.Index(self.folder, encoder=SmallEncoder(), analyzer=_analyzer, lexical=self.variant)

    def lose_cache(self) -> None:
        """Delete the cache, or some of its files; sometimes with the index open."""
        closed = self.choose.random() < 0.7
        if closed:
            self.index.close()
        cache = self.folder / "cache"
        names = sorted(path.name for path in cache.iterdir()) if cache.exists() else []
        for name in names if self.choose.random() < 0.4 else self.choose.sample(names, min(len(names), 2)):
            (cache / name).unlink()
        if closed:
            self.index = semsearch.Index(self.folder, encoder=SmallEncoder(), analyzer=_analyzer, lexical=self.variant)

    def second_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.reader = semsearch.Index(
            self.folder, encoder=SmallEncoder(), analyzer=_analyzer, lexical=self.variant, read_only=True
        )

    # -- looks ---------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Every document, the counts, and what `check` says."""
        for index in [self.index] if self.reader is None else [self.index, self.reader]:
            # By their looks, as 1 == True == 1.0.
            equal(repr(list(index.documents())), repr([*self.model.documents.values()]), "the documents")
            equal(len(index), len(self.model.every()), "the number of passages")
            for id in [*self.model.documents][:3]:
                equal(repr(index.get(id)), repr(self.model.documents[id]), f"get({id!r})")
        if self.choose.random() < 0.3:
            # Lost files of the cache are no problem of the database.
            equal([*self.index.check().problems], [], "the problems that check() sees")

    def compare_search(self, index: semsearch.Index) -> None:
        choose = self.choose
        for mode in choose.sample(MODES, choose.choice([1, 1, 2])):
            query = " ".join(choose.choices(WORDS, k=choose.choice([1, 1, 2, 3])))
            k = choose.choice([1, 3, 10, 10, 500])
            where = choose.choice([None, None, self.where()])
            self.counters[f"{mode} searches"] += 1
            self.compare(index, mode, query, k, where)
        if choose.random() < 0.02:
            self._refused(index)

    def where(self) -> dict[str, Any]:
        choose = self.choose
        atoms = [value for value in VALUES if not isinstance(value, (list, dict))]
        name, value = choose.choice([*NAMES, "a.b.c", "id", "title"]), choose.choice(atoms)
        kind = choose.randrange(6)
        if kind == 0:
            return {"$or": [self.where(), {name: value}]}
        if kind == 1:
            return {"$not": {name: value}}
        if kind == 2 and value is not None:
            return {name: {choose.choice(["$gt", "$gte", "$lt", "$lte"]): value}}
        if kind == 3:
            return {name: {choose.choice(["$in", "$nin"]): choose.sample(atoms, 3)}}
        return {name: {"$ne": value}} if kind == 4 else {name: value}

    def compare(self, index: semsearch.Index, mode: str, query: str, k: int, where: Any) -> None:
        """One search against the model."""
        allowed = self.model.allowed(where)
        legs: dict[str, Ranking] = {}
        close = False
        if mode != "lexical":
            legs["dense"] = self.model.dense(query, allowed)
        if mode != "dense":
            legs["lexical"], close = self.model.lexical(query, allowed, index._lexical_name or "lucene")
        if close:
            # Scores that are equal in exact arithmetic: either order is right, and decides ranks in hybrid search.
            legs["lexical"] = self._either(index, query, where, legs["lexical"])
        expected = fused(legs, k) if mode == "hybrid" else legs[mode][:k]
        hits = semsearch.Retriever(index, mode, semsearch.fusion.rrf).search(query, k, where)
        said = f"{mode} search ({index._lexical_name}) for {query!r}, k={k}, where={where!r}"
        equal([hit.passage.id for hit in hits], [id for id, _ in expected], f"the ids of the {said}")
        parts = {part.id: part for part in self.model.every()}
        for rank, (hit, (id, score)) in enumerate(zip(hits, expected, strict=True), 1):
            if not (hit.score == score if mode != "lexical" else _close(hit.score, score)) or hit.rank != rank:
                raise DifferenceError(f"{said} gives passage {id} rank {hit.rank}, score {hit.score!r}, not {score!r}")
            part, passage = parts[id], hit.passage
            text = self.model.documents[part.document].text[part.start : part.end]
            found = (passage.document_id, passage.start, passage.end, passage.text)
            equal(found, (part.document, part.start, part.end, text), said)

    def _either(self, index: semsearch.Index, query: str, where: Any, expected: Ranking) -> Ranking:
        """The index's own order, if it is right but for scores that are as good as equal."""
        self.counters["searches with scores that rounding may exchange"] += 1
        scores = dict(expected)
        found = [(hit.passage.id, hit.score) for hit in index.search(query, 10_000, where=where, mode="lexical")]
        equal(sorted(id for id, _ in found), sorted(scores), f"the ids found for {query!r}, {where!r}")
        for (id, score), (_, other) in zip(found, expected, strict=True):
            if not (_close(score, scores[id]) and _close(score, other)):
                raise DifferenceError(f"passage {id} for {query!r} has the score {score}, not {scores[id]}, {other}")
        equal(found, sorted(found, key=lambda pair: (-pair[1], pair[0])), f"the order for {query!r}")
        return found

    def _refused(self, index: semsearch.Index) -> None:
        try:
            index.search(NO_VECTOR, mode="dense")
        except ModelError:
            return
        raise DifferenceError("a query without a vector was answered")


def equal(found: Any, expected: Any, what: str) -> None:
    """Raise DifferenceError where they differ."""
    if found != expected:
        raise DifferenceError(f"{what}: {found!r}"[:500] + f" instead of {expected!r}"[:500])


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-13)


def _with(document: semsearch.Document, **changed: Any) -> semsearch.Document:
    parts = {name: getattr(document, name) for name in ("id", "text", "title", "source", "metadata")}
    return semsearch.Document(**{**parts, **changed})


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    steps = STEPS["long" if count > CI else "short"]
    with ExitStack() as stack:
        log = logging.getLogger("semsearch")  # says each time that a cache is incomplete
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        memory = Path("/dev/shm")  # nothing here is about the disk
        if os.access(memory, os.W_OK):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", dir=memory)))
        for number in range(count):
            sequence = Trial(folder / "index", random.Random(f"{seed}:{number}"), outcome.counters)
            step = 0
            try:
                for step in range(steps):
                    sequence.step(step, step == steps - 1)
            except Exception as error:
                outcome.fail(f"seed {seed}, sequence {number}, step {step}: {type(error).__name__}: {error}")
            finally:
                sequence.close()
                shutil.rmtree(folder / "index")
            outcome.done += 1
    return outcome

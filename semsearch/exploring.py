"""Search without a question: what is like a document, what is there twice, what label fits, what it is all about.

The functions work on the vectors that the index has stored; only a text to classify and the sentences of a summary are
encoded anew. They take the `Holdings` of an index, and where they look for neighbours, a `Snapshot` of it. Users call
them as methods of an index: `index.similar("fees.md")`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError
from semsearch.filters import Where, shown
from semsearch.records import Document, Hit, Passage

if TYPE_CHECKING:
    from semsearch.holdings import Holdings, Stored
    from semsearch.retrieval import Hits
    from semsearch.snapshots import Allowed, Snapshot

__all__ = ["Classification", "Pair", "Sentence", "classify", "duplicates", "near_pairs", "similar", "summarize"]

Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]
Encode: TypeAlias = Callable[[Sequence[str]], Float32]
Label: TypeAlias = str | int | float | bool

PARTS, CANDIDATES = 8, 100  # passages of a document to look with, and how many passages to find for each
NEIGHBOURS = 20  # documents that vote on a label
# Leave-one-out over 5,116 short texts of four kinds: with these, accuracy 0.883, calibration error 0.011 and log loss
# 0.303; with plain cosines as weights and their shares as probabilities 0.881, 0.096 and 0.360.
CLOSENESS, SHARPNESS = 4.0, 1.75
TYPICAL = 100  # labelled passages that say how near a neighbour usually is
# Nothing is near where at most this share of them has so far a neighbour, or a farther one. On the same texts that
# refused 2% of their own, 41% and 49% of questions on aeronautics and on biology, 10% on medicine.
UNUSUAL = 0.05
# Up to so many texts all pairs are looked at. At 40,000 of 384 dimensions that took 8.1 s of one core, lists 5.9 s.
EXACT = 30_000
LISTS = 4  # beyond, each text is compared with those that share one of its nearest lists
BLOCK = 2048
_MARKER = re.compile(r"(?:[-*+•]\s+|\d{1,3}[.)]\s+)?")  # of a list item
_FIELD = re.compile(r"^\w+: ", re.MULTILINE)
SHINGLE = 5  # characters
COMPARED = 100_000  # characters of a text that are compared letter by letter
SUMMARY_PASSAGES, SUMMARY_SENTENCES = 2000, 400  # most passages to stand for, most sentences to choose from


@dataclass(frozen=True, slots=True)
class Pair:
    """Two passages, or two documents, that say almost the same; `first` came first.

    `score` is the cosine similarity of their vectors. `overlap` (0 to 1) is the share of the runs of five characters
    that both have: near 1 for a copy, low where the same is said in other words.
    """

    first: Passage | Document
    second: Passage | Document
    score: float
    overlap: float

    def __str__(self) -> str:
        one, other = (f"{_place(side)} {side.text[:60]!r}" for side in (self.first, self.second))
        return f"{self.score:.4f} (overlap {self.overlap:.2f})  {one}  {other}"

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class Classification:
    """The label that the nearest labelled documents suggest for a text.

    `label` is None, and `near` False, where nothing labelled is near enough to say; `probabilities` then still has what
    the nearest say. `probability` is that of the label. `nearness` (0 to 1) is the share of labelled passages whose own
    nearest neighbour is no nearer than this text's. `hits` are the neighbours that voted.
    """

    label: Label | None
    probability: float
    probabilities: Mapping[Label, float]
    nearness: float
    hits: Sequence[Hit] = field(repr=False)

    @property
    def near(self) -> bool:
        """Whether labelled documents are near enough to go by."""
        return self.nearness > UNUSUAL

    def __str__(self) -> str:
        shares = ", ".join(f"{label} {share:.2f}" for label, share in self.probabilities.items())
        return f"{self.label} ({shares})" if self.near else f"no label: nothing labelled is near (nearest: {shares})"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a summary: `document.text[start:end] == text`. `score` is the share of what it adds (0 to 1)."""

    text: str
    document_id: str
    start: int
    end: int
    page: int | None
    score: float

    def __str__(self) -> str:
        return self.text


# -- similar documents -------------------------------------------------------------------------------------------------


def similar(snapshot: Snapshot, id: str, k: int = 10, where: Where | None = None) -> Hits:
    """The k documents that are most like a document, each as a hit with its best passage.

    Documents are compared by the means of their passages' vectors: the score is the cosine similarity of these. The
    candidates are the documents that have one of the nearest passages, to the mean and to up to eight passages of the
    document. Raises InputError for an id that is not in the index, and for a document without vectors (an empty one).
    """
    from semsearch.retrieval import Hits

    count = _whole("k", k)
    if not isinstance(id, str):
        raise InputError(f"An id is a string, not {shown(id)}.")
    key = snapshot.key(id)
    if key is None:
        raise InputError(f"There is no document {shown(id)} in the index. `index.documents()` lists what there is.")
    own = snapshot.stored_of([key])
    if not len(own.ids):
        raise InputError(f"The document {id!r} has no vector to be compared by: it is empty, or has no words.")
    centre = _centres(own)
    parts = np.unique(np.linspace(0, len(own.ids) - 1, PARTS).astype(np.int64))
    looked_for = np.concatenate([centre, own.vectors[own.rows[parts]]])
    allowed = snapshot.matching(where)
    candidates = _candidates(snapshot, looked_for, allowed, key, count, max(CANDIDATES, count) + len(own.ids))
    return Hits(_by_centre(snapshot, centre[0], candidates)[:count], f"like {id}")


def _candidates(snapshot: Snapshot, vectors: Float32, allowed: Allowed, own: int, count: int, width: int) -> list[int]:
    """The keys of at least `count` other documents with passages near to some vectors, if there are so many."""
    while True:
        rankings = snapshot.dense(vectors, width, allowed)
        found = set(_owners(snapshot, rankings).values()) - {own}
        if len(found) >= count or all(len(ranking) < width for ranking in rankings):
            return sorted(found)
        width *= 2


def _by_centre(snapshot: Snapshot, centre: Float32, documents: Sequence[int]) -> list[Hit]:
    """Documents by the cosine similarity of their means to a vector, each with its passage that is nearest to it."""
    stored = snapshot.stored_of(documents)
    if not len(stored.ids):
        return []
    keys, owner = np.unique(stored.documents, return_inverse=True)
    scores = np.vecdot(_centres(stored).astype(np.float64), centre.astype(np.float64))
    closeness = np.vecdot(stored.vectors[stored.rows].astype(np.float64), centre.astype(np.float64))
    best = {int(owner[place]): int(stored.ids[place]) for place in np.lexsort((-stored.ids, closeness))}
    order = np.lexsort((keys, -scores))
    passages = snapshot.passages(list(best.values()))
    return [
        Hit(passages[best[int(at)]], float(scores[at]), rank, {"dense": (rank, float(scores[at]))})
        for rank, at in enumerate((at for at in order if best[int(at)] in passages), 1)
    ]


def _per_document(snapshot: Snapshot, ranking: Sequence[tuple[int, float]], k: int) -> list[Hit]:
    """The best passage of each document in a ranking, for the first k documents."""
    passages = snapshot.passages([id for id, _ in ranking])
    best: dict[str, tuple[int, float, int]] = {}
    for rank, (id, score) in enumerate(ranking, 1):
        if id in passages:  # an engine may have lost it meanwhile
            best.setdefault(passages[id].document_id, (id, score, rank))
    return [
        Hit(passages[id], score, place, {"dense": (rank, score)})
        for place, (id, score, rank) in enumerate(list(best.values())[:k], 1)
    ]


# -- duplicates --------------------------------------------------------------------------------------------------------


def duplicates(
    holdings: Holdings, threshold: float = 0.95, *, of: str = "passages", where: Where | None = None, limit: int = 1000
) -> list[Pair]:
    """The pairs of passages, or of documents, whose vectors have a cosine similarity of at least `threshold`.

    The most similar come first, at most `limit`. Passages with the very same embedded text are paired with the first of
    them only, so that a footer that stands in n files gives n - 1 pairs. `of="documents"` compares the means of the
    passages' vectors.

    Up to 30,000 different texts every pair is looked at. Beyond, texts are compared within lists around sampled ones,
    each text in its four nearest lists: see `near_pairs`. The vectors are held in memory meanwhile.

    Raises InputError for a threshold that is not above 0 and at most 1, and for an unknown `of`.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
        raise InputError(f"threshold={shown(threshold)} is no cosine similarity to reach; give one above 0, up to 1.")
    if of not in ("passages", "documents"):
        raise InputError(f"of={shown(of)} is not known. It is 'passages' or 'documents'.")
    most = _whole("limit", limit)
    stored = holdings.stored(where)
    if of == "documents":
        vectors, owners = _centres(stored), np.unique(stored.documents)
        pairs = [(int(owners[i]), int(owners[j]), score) for i, j, score in near_pairs(vectors, threshold, most)]
        documents = {key: holdings.document(key) for pair in pairs for key in pair[:2]}
        return [_pair(documents[one], documents[other], score) for one, other, score in pairs]
    _, firsts, group = np.unique(stored.rows, return_index=True, return_inverse=True)
    copies = np.setdiff1d(np.arange(len(stored.ids)), firsts)[:most]
    found = [(int(firsts[group[copy]]), int(copy), 1.0) for copy in copies]
    found += [
        (*sorted((int(firsts[i]), int(firsts[j]))), score)  # type: ignore[misc]
        for i, j, score in near_pairs(stored.vectors, threshold, most)
    ]
    found = sorted(found, key=lambda pair: (-pair[2], pair[:2]))[:most]
    passages = holdings.passages(sorted({int(stored.ids[place]) for pair in found for place in pair[:2]}))
    return [
        _pair(passages[int(stored.ids[one])], passages[int(stored.ids[other])], score) for one, other, score in found
    ]


def near_pairs(
    vectors: Float32, threshold: float, limit: int, *, exact: int = EXACT, seed: int = 0
) -> list[tuple[int, int, float]]:
    """The pairs i < j of rows of unit vectors (n, d) with an inner product of at least `threshold`, best first.

    At most `limit`, equal scores by smaller numbers. Up to `exact` rows all pairs are looked at, block by block.
    Beyond, 2·√n sampled rows each head a list, every row joins its four nearest lists, and only pairs within a list are
    looked at: an inverted file (Sivic and Zisserman 2003) with several assignments. Its time grows as n·√n. Of 40,000
    real passages it found all 135 pairs of cosine 0.9 and more, and 1,212 of the 1,217 from 0.8.
    """
    best = _Best(threshold, limit)
    count = len(vectors)
    if count <= exact:
        everything = np.arange(count)
        _within(vectors, everything, best)
        return best.pairs(vectors)
    heads = vectors[np.random.default_rng(seed).choice(count, size=math.ceil(2 * math.sqrt(count)), replace=False)]
    joined = np.empty((count, LISTS), np.int64)
    for start in range(0, count, BLOCK):
        cosines = vectors[start : start + BLOCK] @ heads.T
        joined[start : start + BLOCK] = np.argpartition(-cosines, LISTS - 1, axis=1)[:, :LISTS]
    order = np.argsort(joined, axis=None, kind="stable")
    ends = np.searchsorted(joined.ravel()[order], np.arange(len(heads) + 1))
    for start, end in pairwise(ends):
        _within(vectors, order[start:end] // LISTS, best)
    return best.pairs(vectors)


class _Best:
    """The best pairs so far. Once there are enough, only better ones are of interest."""

    def __init__(self, threshold: float, limit: int) -> None:
        self.floor = threshold
        self._threshold, self._limit = threshold, limit
        self._found: list[NDArray[np.float64]] = []
        self._held = 0

    def add(self, first: Int64, second: Int64, scores: Float32) -> None:
        if not len(scores):
            return
        self._found.append(np.stack([-scores.astype(np.float64), first, second], axis=1))
        self._held += len(scores)
        if self._held > max(4 * self._limit, BLOCK):
            kept = self._sorted()[: 2 * self._limit]  # float32 scores are off by 1e-6: with room at the end
            self._found, self._held = [kept], len(kept)
            if len(kept) >= self._limit:
                self.floor = max(self._threshold, -float(kept[self._limit - 1, 0]))

    def _sorted(self) -> NDArray[np.float64]:
        rows = np.concatenate([np.empty((0, 3)), *self._found])
        _, unique = np.unique(rows[:, 1:], axis=0, return_index=True)  # two lists may have found the same pair
        rows = rows[unique]
        return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]

    def pairs(self, vectors: Float32) -> list[tuple[int, int, float]]:
        rows = self._sorted()
        first, second = rows[:, 1].astype(np.int64), rows[:, 2].astype(np.int64)
        # Scored again one by one, so that a score does not depend on the block that a pair was found in.
        scores = np.array(
            [float(vectors[i].astype(np.float64) @ vectors[j]) for i, j in zip(first, second, strict=True)]
        )
        order = [
            int(place) for place in np.lexsort((second, first, -scores)) if scores[place] >= self._threshold - 1e-6
        ]
        return [
            (int(first[place]), int(second[place]), min(1.0, float(scores[place]))) for place in order[: self._limit]
        ]


def _within(vectors: Float32, members: Int64, best: _Best) -> None:
    """Look at all pairs of some rows."""
    for start in range(0, len(members), BLOCK):
        left = members[start : start + BLOCK]
        rows = vectors[left]
        for other in range(start, len(members), BLOCK):
            right = members[other : other + BLOCK]
            cosines = rows @ vectors[right].T
            i, j = np.nonzero(cosines >= best.floor - 1e-5)
            one, two, scores = left[i], right[j], cosines[i, j]
            apart = one < two if other == start else one != two
            first, second = np.minimum(one, two)[apart], np.maximum(one, two)[apart]
            best.add(first, second, scores[apart])


def _pair(first: Passage | Document, second: Passage | Document, score: float) -> Pair:
    return Pair(first, second, score, _overlap(first.text[:COMPARED], second.text[:COMPARED]))


def _overlap(one: str, other: str) -> float:
    """Jaccard similarity of the runs of five characters, white space evened out (Broder 1997)."""
    left, right = (_shingles(" ".join(text.split())) for text in (one, other))
    return len(left & right) / len(left | right) if left | right else 1.0


def _shingles(text: str) -> set[str]:
    return {text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))} if text else set()


def _place(side: Passage | Document) -> str:
    return side.id if isinstance(side, Document) else f"{side.document_id}[{side.start}:{side.end}]"


# -- classification ----------------------------------------------------------------------------------------------------


def classify(
    snapshot: Snapshot, vectors: Float32, label_key: str, k: int = NEIGHBOURS, where: Where | None = None
) -> list[Classification]:
    """A label for each vector (q, d) of a text, by the k nearest documents that have the metadata `label_key`.

    Each document votes once, with the fourth power of its best passage's cosine similarity (distance-weighted nearest
    neighbours, Dudani 1976); the shares are sharpened to probabilities by a power that was measured. A list of labels
    shares its document's vote. Nothing is near, and there is no label, where a text's nearest neighbour is as far as
    that of the farthest twentieth of the labelled passages themselves (conformal anomaly detection, Laxhammar and
    Falkman 2010), so about one usual text in twenty gets no label either.

    Raises InputError where no document, or only one, has the label.
    """
    count = _whole("k", k)
    if not isinstance(label_key, str) or not label_key:
        raise InputError(f"label_key={shown(label_key)} names no metadata; give a name such as 'suffix'.")
    labelled: Where = {label_key: {"$ne": None}}
    among: Where = labelled if where is None else {"$and": [where, labelled]}
    allowed = snapshot.matching(among)
    usual = _usual_nearness(snapshot, among, allowed)
    if not len(usual):
        raise InputError(
            f"Fewer than two documents {'' if where is None else 'that match the filter '}have the metadata "
            f"{label_key!r}, so there is nothing to learn a label from."
        )
    results = []
    for vector in vectors:
        hits = _nearest_documents(snapshot, vector, count, allowed)
        probabilities = _voted(hits, label_key)
        best = hits[0].score if hits else -1.0
        nearness = (1 + int(np.count_nonzero(usual <= best))) / (1 + len(usual))
        label, probability = next(iter(probabilities.items()))
        known = label if nearness > UNUSUAL else None
        results.append(Classification(known, probability if known is not None else 0.0, probabilities, nearness, hits))
    return results


def _nearest_documents(snapshot: Snapshot, vector: Float32, k: int, allowed: Allowed) -> list[Hit]:
    width = k
    while True:
        ranking = snapshot.dense(vector[None, :], width, allowed)[0]
        hits = _per_document(snapshot, ranking, k)
        if len(hits) == k or len(ranking) < width:
            return hits
        width *= 2


def _voted(hits: Sequence[Hit], key: str) -> dict[Label, float]:
    """Labels by falling probability."""
    votes: dict[Label, float] = {}
    for hit in hits:
        labels = _labels(hit.passage.metadata, key)
        weight = max(hit.score, 1e-3) ** CLOSENESS / max(1, len(labels))
        for label in labels:
            votes[label] = votes.get(label, 0.0) + weight
    most = max(votes.values())
    sharp = {label: (vote / most) ** SHARPNESS for label, vote in votes.items()}
    total = math.fsum(sharp.values())
    return {label: share / total for label, share in sorted(sharp.items(), key=lambda pair: (-pair[1], str(pair[0])))}


def _labels(metadata: Mapping[str, Any], key: str) -> list[Label]:
    """The value of a key, dotted as in filters; each element of a list."""
    value: Any = metadata.get(key)
    if value is None:
        for part in key.split("."):
            metadata = value = metadata.get(part) if isinstance(metadata, Mapping) else None  # type: ignore[assignment]
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, (str, int, float, bool))] or [str(value)]


def _usual_nearness(snapshot: Snapshot, where: Where, allowed: Allowed) -> NDArray[np.float64]:
    """How near the nearest neighbour of another document is, for a sample of the allowed passages.

    Empty where all of them belong to one document.
    """
    sample, _ = snapshot.sample(where, TYPICAL)
    stored = snapshot.stored_at(sample.tolist())
    if not len(stored.ids):
        return np.zeros(0)
    width, found = 8, []
    vectors = stored.vectors[stored.rows]
    rankings = snapshot.dense(vectors, width, allowed)
    owners = _owners(snapshot, rankings)
    if len({*stored.documents, *owners.values()}) < 2 and len(_nearest_documents(snapshot, vectors[0], 2, allowed)) < 2:
        return np.zeros(0)
    for own, ranking in zip(stored.documents, rankings, strict=True):
        others = [score for id, score in ranking if owners.get(id) != own]
        # Where the eight nearest are all of its own document, the eighth is the least that can be said.
        if others or len(ranking) == width:
            found.append(others[0] if others else ranking[-1][1])
    return np.array(found)


def _owners(snapshot: Snapshot, rankings: Sequence[Sequence[tuple[int, float]]]) -> dict[int, int]:
    return snapshot.owners(sorted({id for ranking in rankings for id, _ in ranking}))


# -- summaries ---------------------------------------------------------------------------------------------------------


def summarize(holdings: Holdings, encode: Encode, where: Where | None = None, sentences: int = 5) -> list[Sentence]:
    """The sentences that together stand for the documents best: central ones, each for something else.

    Chosen one by one, each time the one that brings passages and sentences nearest to their nearest chosen one on the
    whole: facility location (Lin and Bilmes, "A Class of Submodular Functions for Document Summarization", ACL 2011),
    for which this greedy way reaches at least 0.63 of the best possible. The candidates are the sentences of the
    passages that are chosen first in the same manner; of a large index a sample of 2,000 passages is stood for. They
    come in the order of their choice; `score` is what each adds, as a share of what all of them reach.
    """
    count = _whole("sentences", sentences)
    stored = holdings.stored(where, SUMMARY_PASSAGES)
    if not len(stored.ids):
        return []
    vectors = stored.vectors[stored.rows]
    central = [place for place, _ in _facilities(vectors, vectors, max(20, 4 * count))]
    passages = holdings.passages([int(stored.ids[place]) for place in central])
    candidates: dict[str, Sentence] = {}
    for place in central:
        for sentence in _sentences(passages[int(stored.ids[place])]):
            candidates.setdefault(" ".join(sentence.text.lower().split()), sentence)
    chosen = list(candidates.values())[:SUMMARY_SENTENCES]
    if not chosen:
        return []
    rows = encode([sentence.text for sentence in chosen])
    picked = _facilities(np.concatenate([vectors, rows]), rows, count)
    total = math.fsum(gain for _, gain in picked) or 1.0
    return [
        Sentence(each.text, each.document_id, each.start, each.end, each.page, gain / total)
        for each, gain in ((chosen[place], gain) for place, gain in picked)
    ]


def _facilities(targets: Float32, candidates: Float32, count: int) -> list[tuple[int, float]]:
    """The candidates (c, d) chosen greedily to be near to the targets (n, d), with what each of them gains."""
    closeness = np.maximum(candidates @ targets.T, 0)
    reached = np.zeros(len(targets), np.float32)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(count, len(candidates)):
        gains = np.maximum(closeness - reached, 0).sum(axis=1, dtype=np.float64)
        best = int(np.argmax(gains))
        if gains[best] <= 1e-6:
            break
        chosen.append((best, float(gains[best])))
        reached = np.maximum(reached, closeness[best])
    return chosen


def _sentences(passage: Passage) -> Iterator[Sentence]:
    """The sentences of a passage that can stand alone: no headings, fragments, rows of tables."""
    from semsearch.sentences import sentences

    for start, end in sentences(passage.text):
        start += len(_MARKER.match(passage.text[start:end])[0])  # type: ignore[index]
        text = passage.text[start:end]
        if _stands_alone(text):
            place = passage.start + start
            yield Sentence(text, passage.document_id, place, place + len(text), passage.page, 0.0)


def _stands_alone(text: str) -> bool:
    if not 8 <= len(text) <= 500 or "\n\n" in text or len(_FIELD.findall(text)) > 1:
        return False
    words = [word for word in text.split() if any(letter.isalpha() for letter in word)]
    return text[-1] in "。！？」』" or (len(words) >= 5 and text[-1] in ".!?…\"'”’»)")


# -- what is stored ----------------------------------------------------------------------------------------------------


def _centres(stored: Stored) -> Float32:
    """The mean direction of the passages of each document, by ascending key: (documents, d)."""
    keys, owner = np.unique(stored.documents, return_inverse=True)
    sums = np.zeros((len(keys), stored.vectors.shape[1]), np.float32)
    np.add.at(sums, owner, stored.vectors[stored.rows])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    centres: Float32 = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
    return centres


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {shown(value)}.")
    return value

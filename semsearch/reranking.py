"""A second, closer look at the best passages: each gets a new score for the query, or they come in a new order.

    Retriever(index, reranker="feedback")                          # stored vectors, no model: about 10 ms
    Retriever(index, reranker=MaxSimReranker(index.encoder))       # the encoder's token vectors, no further model
    Retriever(index, reranker="cross-encoder/ms-marco-MiniLM-L6-v2")
    Retriever(index, reranker=MMR(index.encoder))                  # fewer hits that say the same

A reranker is called with the query and its best passages, best first, and returns a score for each. One that mixes its
own scores with those of the first search has a method `with_scores` that gets these as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import InputError, ModelError
from semsearch.records import Hit, Passage

if TYPE_CHECKING:
    from semsearch.encoding import Encoder
    from semsearch.extraction import Reader

__all__ = [
    "MMR",
    "CrossEncoderReranker",
    "FeedbackReranker",
    "MaxSimReranker",
    "ReaderReranker",
    "get_reranker",
    "merge_neighbours",
]

Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Surroundings: TypeAlias = Callable[[Sequence[Passage]], tuple[Float32, Float32]]

# nDCG@10 with MaxSim over the best of the default (30 on the first two sets, 50 on the third), by its share, on samples
# of scifact (70 questions), cosqa-dev (70) and medline-1033 (30). It helps with code, not everywhere:
#   0     73.8  56.6  79.6
#   0.2   72.9  58.4  80.2
#   0.35  72.4  58.4  80.0
#   0.5   71.9  58.6  80.3
#   1     68.7  55.0  78.0
MAXSIM_SHARE = 0.2
# nDCG@10 with the reader over the best 20 of the default, by its share: questions of openqa about the articles for
# calibrating (134) and about those for measuring (506), none of which it was trained on:
#   0     94.8  88.1
#   0.2   95.6  90.0
#   0.3   96.4  90.8
#   0.5   97.4  91.7
#   0.7   97.8  91.6
#   1     97.2  88.1
READER_SHARE = 0.5
READER_DEPTH = 20  # passages that are read for one question
# MMR over the best 100 of the default, on cranfield / cisi / medline-1033: nDCG@10, the mean cosine of two of the ten
# hits, and from how many documents they are (examples/benchmarks/rerankers.py). Below 0.6 it costs more than it brings.
#   relevance 1     47.8 / 45.5 / 79.8   0.61 / 0.57 / 0.55   8.7 / 9.6 / 8.5
#   0.8             47.0 / 45.5 / 80.0   0.59 / 0.56 / 0.54   8.9 / 9.6 / 8.8
#   0.7             46.4 / 45.8 / 79.4   0.58 / 0.55 / 0.53   9.0 / 9.6 / 9.0
#   0.6             45.3 / 45.7 / 78.5   0.55 / 0.54 / 0.52   9.1 / 9.7 / 9.1
#   0.5             42.2 / 43.2 / 74.7   0.49 / 0.50 / 0.45   9.3 / 9.7 / 9.4
MMR_RELEVANCE = 0.7
# What feedback adds to nDCG@10 of the default on medline-1033 / cisi / cranfield / scifact / cosqa-dev, by share and
# feedback (examples/benchmarks/rerankers.py). It helps where many documents are right, and costs little elsewhere.
# Chosen by the other four sets, the mean over the five would be +0.2.
#   0.2, 0.1        +1.0 / +0.3 / +0.2 / -0.0 / -0.1
#   0.4, 0          +0.5 / +0.5 / +0.4 / -0.1 / -0.1
#   0.4, 0.1        +1.0 / +0.6 / +0.5 / -0.2 / -0.1
#   0.4, 0.2        +1.0 / +0.0 / +0.6 / -0.2 / -0.1
FEEDBACK_SHARE = 0.4
FEEDBACK = 0.1
FIRST = 3  # passages that the query is moved to
UNKNOWN_SHARE = 0.5  # of a query that the encoder has no words for: from here on `retrieval` goes by keyword alone, too


def get_reranker(
    name: str,
    encoder: Encoder,
    reader: Callable[[], Reader] | None = None,
    surroundings: Surroundings | None = None,
) -> Any:
    """A reranker by name: "feedback", "maxsim", "mmr", "reader", or a cross-encoder that sentence-transformers knows.

    `encoder` is the index's; `reader` opens the reader that "reader" uses; `surroundings` gives the stored vectors of
    passages and of what is around them, for "feedback".
    """
    if name == "feedback":
        if surroundings is None:
            raise InputError("The reranker 'feedback' needs stored vectors: pass FeedbackReranker(encoder, vectors).")
        return FeedbackReranker(encoder, surroundings)
    if name == "maxsim":
        return MaxSimReranker(encoder)
    if name == "mmr":
        return MMR(encoder)
    if name == "reader":
        if reader is None:
            raise InputError("The reranker 'reader' needs a reader: pass ReaderReranker(reader).")
        return ReaderReranker(reader())
    return CrossEncoderReranker(name)


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers, which reads query and passage together.

    `name` is a name on the hub (from the local cache if HF_HUB_OFFLINE is set) or a folder. Code that comes with a
    model is never run, and only safetensors are loaded. Raises ModelError if it cannot be loaded or gives more than one
    score for a pair.
    """

    def __init__(self, name: str, *, device: str | None = None) -> None:
        try:
            from sentence_transformers import CrossEncoder

            self._model = CrossEncoder(
                name, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The reranker {name!r} cannot be loaded: {error} Give 'maxsim', 'mmr', 'reader', the name of a "
                "cross-encoder on the hub, or a folder with one."
            ) from error
        self.name = name
        if int(self._model.num_labels) != 1:
            raise ModelError(f"{name!r} gives {self._model.num_labels} scores for a pair; a reranker gives one.")

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """One score a passage."""
        if not passages:
            return []
        pairs = [(query, _read_as(passage)) for passage in passages]
        return [float(score) for score in self._model.predict(pairs, show_progress_bar=False)]


class ReaderReranker:
    """How well the reader answers the question from each passage, mixed with the first search's score.

    For questions only. A passage's evidence is its best span's score, the span's logits less those of "no answer";
    it and the first scores are stretched to 0 … 1 and added, the evidence with the weight `share`.
    """

    depth = READER_DEPTH  # how many of the best passages `Retriever` hands over, if k is not larger

    def __init__(self, reader: Reader, *, share: float = READER_SHARE) -> None:
        self._reader = reader
        self._share = _checked_share(share)

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """The reader's evidence alone."""
        best = [-np.inf] * len(passages)
        for span in self._reader.read(query, [passage.text for passage in passages]):
            best[span.text] = max(best[span.text], span.score)
        worst = min((score for score in best if score > -np.inf), default=0.0)
        return [float(score if score > -np.inf else worst) for score in best]

    def with_scores(self, query: str, passages: Sequence[Passage], scores: Sequence[float]) -> list[float]:
        """Mixed with the scores of the first search."""
        return self.mixed(self(query, passages), scores)

    def mixed(self, own: Sequence[float], first: Sequence[float]) -> list[float]:
        """Evidence that was found before, mixed with the scores of the first search."""
        return _mixed(own, first, self._share)


class FeedbackReranker:
    """A passage is judged with those around it, by a query that knows what came first; only the query is encoded.

    What is compared is the mean vector of a passage and of those before and after it in its document; the query is
    moved towards the best three of these (pseudo-relevance feedback: Rocchio, "Relevance Feedback in Information
    Retrieval", 1971). What the passage's cosine gains by that, in widths of the cosines, is added to the first search's
    score, stretched to 0 … 1, with the weight `share`; `feedback` weighs the best three beside the query. So it leaves
    the balance of meaning and keywords as it was, and the scores of a query that the encoder cannot read.

    `surroundings(passages)` gives two arrays, (n, dimension) each: the passages' own vectors, and the mean vectors of
    unit length; `Retriever(index, reranker="feedback")` takes them from the index.
    """

    def __init__(
        self,
        encoder: Encoder,
        surroundings: Surroundings,
        *,
        share: float = FEEDBACK_SHARE,
        feedback: float = FEEDBACK,
    ) -> None:
        self._encoder = encoder
        self._surroundings = surroundings
        self._share = _checked_share(share)
        self._feedback = _checked_share(feedback)

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """By the cosine of query and passage at first."""
        if not passages:
            return []
        own, _ = self._surroundings(passages)
        return self.with_scores(query, passages, (own @ self._encoder.encode([query], kind="query")[0]).tolist())

    def with_scores(self, query: str, passages: Sequence[Passage], scores: Sequence[float]) -> list[float]:
        """Added to the scores of the first search, best first."""
        unknown_share = getattr(self._encoder, "unknown_share", None)
        if not passages or (unknown_share is not None and unknown_share(query) >= UNKNOWN_SHARE):
            return [float(score) for score in _stretched(scores)]
        own, around = (np.asarray(rows, dtype=np.float64) for rows in self._surroundings(passages))
        asked = np.asarray(self._encoder.encode([query], kind="query")[0], dtype=np.float64)
        before = own @ asked
        first = np.argsort(-np.asarray(scores), kind="stable")[:FIRST]
        after = around @ (asked + self._feedback * around[first].mean(axis=0))
        width = float(np.ptp(before))
        gained = (after - before) / width if width > 0 else np.zeros_like(before)
        return [float(score) for score in _stretched(scores) + self._share * gained]


class MaxSimReranker:
    """Late interaction: each token of the query looks for its nearest token in the passage; the mean counts.

    Khattab and Zaharia, "ColBERT", SIGIR 2020, here over the token vectors of an encoder that was trained for whole
    texts. They are made when they are needed, so each passage costs an encoding. Mixed with the first search's score,
    both stretched to 0 … 1, with the weight `share`. Raises InputError for an encoder without token vectors.
    """

    def __init__(self, encoder: Encoder, *, share: float = MAXSIM_SHARE) -> None:
        if not callable(getattr(encoder, "token_vectors", None)):
            raise InputError(f"The encoder {encoder.name!r} has no token_vectors(), which MaxSim compares.")
        self._encoder: Any = encoder
        self._share = _checked_share(share)

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """The mean over the query's tokens of the highest cosine to a token of the passage."""
        asked = self._encoder.token_vectors([query])[0].vectors
        if not len(asked):
            return [0.0] * len(passages)
        found = self._encoder.token_vectors([_read_as(passage) for passage in passages])
        return [float((asked @ each.vectors.T).max(axis=1).mean()) if len(each.vectors) else 0.0 for each in found]

    def with_scores(self, query: str, passages: Sequence[Passage], scores: Sequence[float]) -> list[float]:
        """Mixed with the scores of the first search."""
        return self.mixed(self(query, passages), scores)

    def mixed(self, own: Sequence[float], first: Sequence[float]) -> list[float]:
        """Scores that were made before, mixed with those of the first search."""
        return _mixed(own, first, self._share)


class MMR:
    """Maximal marginal relevance: each next hit is near the query and far from those already taken.

    Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998. `relevance` (0 to 1) weighs
    nearness against novelty. A passage's score is its value when it was taken, never more than the one before. The
    passages are encoded anew, or taken from `vectors(passages)`, (n, dimension) unit rows.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        relevance: float = MMR_RELEVANCE,
        vectors: Callable[[Sequence[Passage]], NDArray[np.float32]] | None = None,
    ) -> None:
        self._encoder = encoder
        self._relevance = _checked_share(relevance)
        self._vectors = vectors or (lambda passages: encoder.encode([_read_as(passage) for passage in passages]))

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """By the cosine of query and passage."""
        if not passages:
            return []
        rows = self._vectors(passages)
        return self._ordered(rows, (rows @ self._encoder.encode([query], kind="query")[0]).tolist())

    def with_scores(self, query: str, passages: Sequence[Passage], scores: Sequence[float]) -> list[float]:
        """By the score of the first search, stretched to 0 … 1."""
        return self._ordered(self._vectors(passages), _stretched(scores).tolist()) if passages else []

    def _ordered(self, rows: NDArray[np.float32], relevance: Sequence[float]) -> list[float]:
        near = np.asarray(rows, dtype=np.float64) @ np.asarray(rows, dtype=np.float64).T
        worth = self._relevance * np.asarray(relevance, dtype=np.float64)
        nearest = np.zeros(len(worth))
        left, scores, last = set(range(len(worth))), np.empty(len(worth)), np.inf
        while left:
            values = worth - (1 - self._relevance) * nearest
            best = min(left, key=lambda i: (-values[i], i))
            # The order is what counts: values may rise again where the nearest one was a negative cosine.
            last = min(float(values[best]), float(np.nextafter(last, -np.inf)))
            scores[best] = last
            left.remove(best)
            nearest = np.maximum(nearest, near[best])
        return [float(score) for score in scores]


def merge_neighbours(hits: Sequence[Hit], text_of: Callable[[str], str], *, gap: int = 2) -> list[Hit]:
    """Hits that follow one another in a document as one hit, at the rank of the best of them.

    `text_of` gives the text of a document by its id, so that the merged passage is its exact slice:
    `merge_neighbours(hits, lambda id: index.get(id).text)`. Passages that overlap, or have at most `gap` characters
    between them, are neighbours if they are on one page. The result has fewer hits; score, sources and metadata are
    the best one's.
    """
    places: dict[str, list[Hit]] = {}
    for hit in hits:
        places.setdefault(hit.passage.document_id, []).append(hit)
    merged: list[Hit] = []
    for id, group in places.items():
        run: list[Hit] = []
        end = 0
        for hit in sorted(group, key=lambda hit: hit.passage.start):
            if run and (hit.passage.start > end + gap or hit.passage.page != run[-1].passage.page):
                merged.append(_joined(run, id, text_of))
                run = []
            end = max(end, hit.passage.end) if run else hit.passage.end
            run.append(hit)
        merged.append(_joined(run, id, text_of))
    merged.sort(key=lambda hit: hit.rank)
    return [replace(hit, rank=rank) for rank, hit in enumerate(merged, 1)]


def _joined(run: Sequence[Hit], id: str, text_of: Callable[[str], str]) -> Hit:
    best = min(run, key=lambda hit: hit.rank)
    start, end = min(hit.passage.start for hit in run), max(hit.passage.end for hit in run)
    if (start, end) == (best.passage.start, best.passage.end):
        return best
    return replace(best, passage=replace(best.passage, text=text_of(id)[start:end], start=start, end=end))


def _read_as(passage: Passage) -> str:
    """The passage below its title and heading, as it was embedded."""
    lines = [str(passage.metadata.get(name) or "") for name in ("title", "heading")]
    return "\n".join(line for line in [*lines, passage.text] if line)


def _mixed(own: Sequence[float], first: Sequence[float], share: float) -> list[float]:
    return [float(each) for each in share * _stretched(own) + (1 - share) * _stretched(first)]


def _stretched(scores: Sequence[float]) -> Float64:
    values = np.asarray(scores, dtype=np.float64)
    width = float(np.ptp(values)) if values.size else 0.0
    return (values - values.min()) / width if width > 0 else np.zeros_like(values)


def _checked_share(share: float) -> float:
    if not 0 <= share <= 1:
        raise InputError(f"{share!r} is no share; give a number from 0 to 1.")
    return float(share)

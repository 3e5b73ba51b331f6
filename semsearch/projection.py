"""Vectors in two dimensions, in clusters, and the words that tell a cluster from the rest: what a map is drawn from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plane", "clusters", "distinctive_words", "principal_plane"]

Float: TypeAlias = NDArray[np.floating]

ROUNDS = 100  # of k-means at most; text vectors settle in about twenty
STARTS = 4


class Plane(NamedTuple):
    """The two directions in which vectors differ most: `axes` (2, d), and the share of the variance along each."""

    mean: Float
    axes: Float
    shares: tuple[float, float]

    def project(self, vectors: Float) -> Float:
        """The places of vectors (n, d) in the plane, (n, 2)."""
        places: Float = (np.asarray(vectors, np.float64) - self.mean) @ self.axes.T
        return places


def principal_plane(vectors: Float) -> Plane:
    """The first two principal components of vectors (n, d) (Pearson 1901), by a singular value decomposition.

    Their signs are free; here the largest component of each is positive, so that the same vectors give the same map. A
    direction in which nothing differs has the share 0.

    >>> principal_plane(np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 2.0], [2.0, -2.0]])).shares  # sums of squares: 8 and 8
    (0.5, 0.5)
    """
    rows = np.asarray(vectors, np.float64)
    mean = rows.mean(axis=0)
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    wanted = np.zeros((2, rows.shape[1]))
    wanted[: min(2, len(axes))] = axes[:2]
    largest = wanted[np.arange(2), np.abs(wanted).argmax(axis=1)]
    wanted *= np.where(largest < 0, -1.0, 1.0)[:, None]
    variance = singular**2
    total = float(variance.sum()) or 1.0
    shares = [float(value) for value in variance[:2] / total] + [0.0, 0.0]
    return Plane(mean, wanted, (shares[0], shares[1]))


def clusters(vectors: Float, count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The cluster of each unit vector (n, d): k-means by cosine (Dhillon and Modha 2001), numbered by falling size.

    The best of four starts by k-means++ (Arthur and Vassilvitskii 2007). Fewer than `count` come out where fewer
    different vectors went in.
    """
    rows = np.asarray(vectors, np.float32)
    random = np.random.default_rng(seed)
    tries = [_k_means(rows, count, random) for _ in range(STARTS)]
    _, members = max(tries, key=lambda found: found[0])
    kept, sizes = np.unique(members, return_counts=True)
    order = kept[np.argsort(-sizes, kind="stable")]
    place = np.zeros(int(members.max(initial=0)) + 1, np.int64)
    place[order] = np.arange(len(order))
    numbers: NDArray[np.int64] = place[members]
    return numbers


def _k_means(rows: Float, count: int, random: np.random.Generator) -> tuple[float, NDArray[np.int64]]:
    """The sum of the cosines to the centres, and the centre of each row."""
    centres = _starts(rows, count, random)
    members = np.full(len(rows), -1, np.int64)
    for _ in range(ROUNDS):
        closeness = rows @ centres.T
        found = closeness.argmax(axis=1)
        if (found == members).all():
            break
        members = found
        for centre in range(len(centres)):
            mean = rows[members == centre].sum(axis=0)
            length = float(np.linalg.norm(mean))
            if length > 0:
                centres[centre] = mean / length
    return float((rows @ centres.T).max(axis=1).sum()), members


def _starts(rows: Float, count: int, random: np.random.Generator) -> Float:
    """Rows far from each other, drawn with the distance to the nearest that was drawn as weight."""
    chosen = [int(random.integers(len(rows)))]
    distance = 1 - rows @ rows[chosen[0]]
    while len(chosen) < count:
        weights = np.maximum(distance, 0).astype(np.float64)
        weights[weights < 1e-6] = 0.0
        if not weights.sum():
            break
        chosen.append(int(random.choice(len(rows), p=weights / weights.sum())))
        distance = np.minimum(distance, 1 - rows @ rows[chosen[-1]])
    return rows[chosen].copy()


def distinctive_words(groups: Sequence[Sequence[Iterable[str]]], *, count: int = 3) -> list[list[str]]:
    """For each group of texts (each its words), the words that tell it best from the other groups, at most `count`.

    A word weighs p·log(p/q), its part of the Kullback-Leibler divergence: p is the share of the group's texts that have
    it, q that of the other groups', which are taken to have it half a time more in one text more. A word that is not
    more frequent than elsewhere is none.

    >>> distinctive_words([[["late", "fee"], ["fee"]], [["late", "bus"]]], count=1)
    [['fee'], ['bus']]
    """
    counted = [Counter(word for text in group for word in set(text)) for group in groups]
    everywhere = sum(counted, Counter[str]())
    total = sum(map(len, groups))

    def weight(word: str, group: int) -> float:
        inside = counted[group][word] / len(groups[group])
        outside = (everywhere[word] - counted[group][word] + 0.5) / (total - len(groups[group]) + 1)
        return inside * math.log(inside / outside)

    found = []
    for group, words in enumerate(counted):
        weighed = sorted(((weight(word, group), word) for word in words), key=lambda pair: (-pair[0], pair[1]))
        found.append([word for value, word in weighed[:count] if value > 0])
    return found

"""A small encoder with vectors that can be computed by hand, for tests that are about something else than the model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


class WordEncoder:
    """A text's vector counts its words, each in one of 1024 buckets, and has unit length."""

    name = "toy-words"
    dimension = 1024

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or [""]:
                row[zlib.crc32(word.encode("utf-8", "surrogatepass")) % self.dimension] += 1
        if kind == "passage":
            self.encoded += texts
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

"""Everything that an index holds, so that two can be compared."""

from __future__ import annotations

import os
from typing import Any

from semsearch.copying import opened


def contents(location: str | os.PathLike[str]) -> dict[str, Any]:
    """By name: states, and documents with passages, vectors and files; without passage ids and notes of copies."""
    engine = opened(location)
    engine.open(None, create=False)
    every: dict[str, Any] = {f"state {name}": value for name, value in engine.read_state().items()}
    every.pop("state copy", None)
    mark = ""
    while batch := engine.scan(mark, parts=True):
        mark = batch[-1][0]
        for _, (document, parts, file) in batch:
            rows = [(*part[:5], None if part.vector is None else part.vector.tobytes()) for part in parts]
            every[f"document {document.id}"] = (document, rows, file)
    engine.close()
    return every

"""What `Index.check` says and repairs: the database by `inspection`, the search legs against it, files left over.

The database is the only source of truth, and all else can be made again from it. The vectors of a search leg are
compared by one random direction, so that a check needs no second copy of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semsearch.inspection import Findings
from semsearch.legs import Legs
from semsearch.tables import View, Writer

__all__ = ["CheckReport", "cache_problems", "leftovers", "repair", "report"]

BLOCK = 2048  # vectors compared at a time
LEFT = re.compile(r"draft-\d+|g\d{6,}-(?:dense|lexical|columns)\..+")  # names that only we give


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is wrong with an index: nothing if `ok`.

    `problems` are in the database, the only source of truth, and are never repaired by guessing: restore a backup.
    `cache` lists what is wrong with what is derived from it; `check(repair=True)` makes that again, unless there are
    `problems`, and says in `repaired` what it did. `leftovers` are files of a process that died: they take room and do
    no harm, and a repair deletes them.
    """

    documents: int
    passages: int
    problems: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not self.cache

    def __str__(self) -> str:
        lines = [f"{'ok' if self.ok else 'not ok'}: {self.documents:,} documents, {self.passages:,} passages"]
        lines += [f"  damaged: {each}" for each in self.problems]
        lines += [f"  to repair: {each}" for each in self.cache]
        lines += [f"  left over: {each}" for each in self.leftovers]
        lines += [f"  repaired: {each}" for each in self.repaired]
        if self.problems:
            lines.append("What is damaged cannot be derived from anything: restore a backup, or index it again.")
        elif self.cache:
            lines.append("All of this can be made again: check(repair=True), or semsearch check --repair.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from semsearch.html import report_html

        lists = {"damaged": self.problems, "to repair": self.cache, "left over": self.leftovers}
        return report_html(
            f"CheckReport: {'ok' if self.ok else 'not ok'}",
            [("documents", f"{self.documents:,}"), ("passages", f"{self.passages:,}")],
            {name: [(each,) for each in entries] for name, entries in (lists | {"repaired": self.repaired}).items()},
        )


def report(found: Findings, repaired: Sequence[str] = ()) -> CheckReport:
    """What was found, for a user."""
    return CheckReport(
        found.documents,
        found.passages,
        tuple(found.problems),
        (*found.derived, *found.cache),
        tuple(repaired),
        tuple(str(path) for path in found.leftovers),
    )


# -- the cache ---------------------------------------------------------------------------------------------------------


def cache_problems(
    snapshot: Callable[[], AbstractContextManager[tuple[View, Iterator[Legs]]]], folder: Path
) -> list[str]:
    """What is wrong with the cache in `folder` and with the search legs in memory; [] if nothing is.

    `snapshot` gives a View and the legs to compare with it, one after the other; the database is sound.
    """
    wrong: list[str] = []
    for _ in range(3):  # a writer may have replaced the cache meanwhile
        before = _current(folder)
        with snapshot() as (view, several):
            wrong = [each for legs in several for each in legs.problems(view) or _wrong_contents(view, legs)]
        if not wrong or before == _current(folder):
            break
    return list(dict.fromkeys(wrong))


def _current(folder: Path) -> bytes | None:
    try:
        return (folder / "CURRENT.json").read_bytes()
    except OSError:
        return None


def _wrong_contents(view: View, legs: Legs) -> list[str]:
    """What the legs hold against the database: the same passages, and the same vectors."""
    wrong = []
    if not np.array_equal(legs.lexical(view).ids, view.ids()):
        wrong.append("the lexical index does not hold the passages of the database")
    if not np.array_equal(legs.matching(view, {}), view.ids()):
        wrong.append("the columns for filters do not hold the passages of the database")
    dense = legs.dense(view)
    # One random direction tells two vectors apart, and needs no second copy of all of them.
    direction = np.random.default_rng().standard_normal(dense.dimension).astype(np.float32)
    expected_ids, expected = _projected(view, direction, dense.kept)
    if not np.array_equal(dense.ids, expected_ids):
        wrong.append("the dense index does not hold the passages of the database that have a vector")
    elif len(expected_ids):
        ((ids, scores),) = dense.search(direction[None], len(dense))
        order = np.argsort(ids)
        if not np.array_equal(ids[order], expected_ids) or not np.allclose(scores[order], expected, atol=1e-5):
            wrong.append("the dense index holds other vectors than the database")
    return wrong


def _projected(
    view: View, direction: np.ndarray, kept: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The (n,) int64 ids of the passages with a vector, and (n,) float32 inner products with `direction`.

    `kept` gives vectors as the index keeps them.
    """
    wide = direction.astype(np.float64)
    ids: list[np.ndarray] = [np.zeros(0, np.int64)]
    products: list[np.ndarray] = [np.zeros(0, np.float32)]
    for block in _blocks(view.vectors_by_passage()):
        rows = kept(np.stack([np.frombuffer(raw, "<f4") for _, raw in block]))
        ids.append(np.array([id for id, _ in block], np.int64))
        products.append(np.vecdot(rows.astype(np.float64), wide).astype(np.float32))
    return np.concatenate(ids), np.concatenate(products)


def _blocks(rows: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    block: list[tuple[int, bytes]] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


# -- repairing ---------------------------------------------------------------------------------------------------------


def repair(writer: Writer, found: Findings) -> None:
    """Make again what the database derives from itself, and delete what is left over."""
    for name in sorted(found.indexes):
        writer.reindex(name)
    if found.fields:
        writer.rebuild_fields(found.fields)
    if found.unused_vectors:
        writer.drop_unused_vectors()
    for path in found.leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def leftovers(folder: Path, *, alone: bool = False) -> list[Path]:
    """Files of ours in an index folder that no longer serve anything, [] while another process may be at work.

    `alone` says that the caller holds the writer lock.
    """
    if not alone and _is_being_written(folder):
        return []
    found = [path for path in folder.glob("index.db.new*") if path.is_file()]
    cache = folder / "cache"
    try:
        named = set(json.loads(_current(cache) or b'{"files": {}}')["files"])
        found += [path for path in cache.iterdir() if LEFT.fullmatch(path.name) and path.name not in named]
    except (OSError, ValueError, KeyError, TypeError):  # no cache, or a damaged one, which is told elsewhere
        pass
    return sorted(found)


def _is_being_written(folder: Path) -> bool:
    """Whether the lock file names a process that may live. Trying the lock instead would get in a writer's way."""
    try:
        owner = json.loads((folder / "lock").read_bytes())
        if owner["host"] != socket.gethostname():
            return True
        os.kill(int(owner["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return True

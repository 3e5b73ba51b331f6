"""The two search legs, dense and lexical, of one index, and their cache on disk.

Each leg covers a generation of the database and is brought up to a later one by what changed since. The cache is
derived and may be deleted at any time. It is written under other names, synced, renamed, and only then named in
CURRENT.json with the size and SHA-256 of each file. Whatever does not fit (size, hash, encoder, analyzer, history of
the database) means that the leg is built again from the database, never a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from semsearch.chunking import embedded_text
from semsearch.dense import DenseIndex
from semsearch.errors import CorruptIndexError
from semsearch.lexical import Lexical, LexicalIndex
from semsearch.locking import flushed
from semsearch.tables import StoredPassage, View, Writer

__all__ = ["AddedPassage", "Legs"]

log = logging.getLogger("semsearch")

Structure = TypeVar("Structure", DenseIndex, Lexical)

CACHE_FORMAT = 1
BLOCK = 2048  # passages added to a leg at a time

# The cache is written again when this share of the passages came or went since: rewriting costs in proportion to the
# index, so a fixed share keeps the cost of a long series of changes in proportion to the changes.
STALE_SHARE = 0.1
STALE_LEAST = 1024


class AddedPassage(NamedTuple):
    """A new passage as the legs take it; `vector` is (dimension,) float32 or None."""

    id: int
    tokens: Sequence[str]
    vector: np.ndarray | None


@dataclass
class _Leg(Generic[Structure]):
    """A search structure, the generation it stands at, and the highest passage id it has seen."""

    structure: Structure
    generation: int
    last_passage: int

    def apply(
        self, generation: int, last_passage: int, removed: np.ndarray, added: Callable[[Structure], None]
    ) -> None:
        known = removed[removed <= self.last_passage]
        if len(known):
            self.structure.remove(known)
        added(self.structure)
        self.generation = generation
        self.last_passage = last_passage


class Legs:
    """The legs of an index, read or built when they are first needed.

    `folder` is the cache folder, `identity` what a cache must have in common with the database (uuid, fingerprints).
    The caller holds the index's mutex and passes a View inside a transaction.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dimension: int,
        analyze: Callable[[str], list[str]],
        new_lexical: Callable[[], Lexical],
        identity: dict[str, Any],
    ) -> None:
        self._folder = folder
        self._dimension = dimension
        self._analyze = analyze
        self._new_lexical = new_lexical
        self._identity = identity
        self._dense: _Leg[DenseIndex] | None = None
        self._lexical: _Leg[Lexical] | None = None

    def dense(self, view: View) -> DenseIndex:
        """The dense leg at the view's generation."""
        leg, self._dense = self._fresh(view, self._dense), None  # an interruption on the way must not leave half a leg
        if leg is None:
            leg = self._read(view, "dense", self._load_dense) or _Leg(DenseIndex(self._dimension), 0, 0)
        self._catch_up(view, leg, self._add_dense)
        self._dense = leg
        return leg.structure

    def lexical(self, view: View) -> Lexical:
        """The lexical leg at the view's generation."""
        leg, self._lexical = self._fresh(view, self._lexical), None
        if leg is None:
            leg = self._read_lexical(view) or _Leg(self._new_lexical(), 0, 0)
        self._catch_up(view, leg, self._add_lexical)
        self._lexical = leg
        return leg.structure

    @contextmanager
    def commit(self, writer: Writer) -> Iterator[list[AddedPassage]]:
        """One transaction of the writer that the legs take over; yields a list for the passages that it adds."""
        added: list[AddedPassage] = []
        with writer.commit() as generation:
            yield added
        # Only now that it is durable: legs that are interrupted on the way catch up from the database.
        last_passage, gone = writer.last_passage(), np.array(sorted(writer.removed), np.int64)
        dense, self._dense = self._dense, None
        if dense is not None and dense.generation == generation - 1:
            dense.apply(generation, last_passage, gone, lambda leg: _add_vectors(leg, added))
        lexical, self._lexical = self._lexical, None
        if lexical is not None and lexical.generation == generation - 1:
            lexical.apply(generation, last_passage, gone, lambda leg: _add_tokens(leg, added))
        self._dense, self._lexical = dense, lexical

    def start_empty(self, generation: int) -> None:
        """Begin with empty legs, for an index that never had a passage."""
        self._dense = _Leg(DenseIndex(self._dimension), generation, 0)
        self._lexical = _Leg(self._new_lexical(), generation, 0)

    def problems(self, view: View) -> list[str]:
        """What is wrong with the cache files, [] if there are none or all is well."""
        if not (self._folder / "CURRENT.json").exists():
            return []
        manifest = self._manifest(view)
        if manifest is None:
            return ["CURRENT.json is damaged, or belongs to another index or to a state that this one never had"]
        return [
            f"{name} is damaged or missing"
            for name, facts in manifest["files"].items()
            if not self._is_sound(name, facts)
        ]

    def is_stale(self, view: View, *, least: int = STALE_LEAST) -> bool:
        """Whether so much changed since the cache was written that writing it again is worth its cost."""
        manifest = self._manifest(view)
        if manifest is None:
            return view.has_passages()
        added = view.last_passage() - int(manifest["last_passage"])
        changed = added + len(view.removed_since(int(manifest["generation"])))
        return changed > 0 and changed >= max(least, STALE_SHARE * int(manifest["passages"]))

    def publish(self, view: View) -> int:
        """Write the cache, under the lock only; returns its generation, or -1 if it could not be written."""
        generation = view.generation()
        if not isinstance(self._new_lexical(), LexicalIndex):
            return -1
        try:
            self._write(view, generation)
        except OSError as error:
            log.warning(
                "The cache of %s could not be written (%s). Searches stay right, starting is slower.",
                self._folder,
                error,
            )
            return -1
        return generation

    # -- reading -------------------------------------------------------------------------------------------------

    def _fresh(self, view: View, leg: _Leg[Structure] | None) -> _Leg[Structure] | None:
        """The leg, or None if the database no longer remembers what changed since the leg's generation."""
        if leg is not None and leg.generation and view.token(leg.generation) is None:
            return None
        return leg

    def _read(self, view: View, name: str, load: Callable[[str], Structure]) -> _Leg[Structure] | None:
        for _ in range(3):  # a writer may replace the cache between the reading of the manifest and of the files
            manifest = self._manifest(view)
            if manifest is None:
                return None
            reason: object = "wrong size or SHA-256"
            try:
                if self._verify(manifest, name):
                    stem = f"g{int(manifest['generation']):06d}"
                    return _Leg(load(stem), int(manifest["generation"]), int(manifest["last_passage"]))
            except Exception as error:  # whatever a damaged file makes a parser raise: the leg is derived
                reason = error
            if self._manifest(view) == manifest:  # not replaced meanwhile
                log.warning("The %s cache of %s could not be read (%s).", name, self._folder, reason)
                break
        log.warning(
            "The %s cache of %s is damaged or incomplete; it is built again from the database.", name, self._folder
        )
        return None

    def _manifest(self, view: View) -> dict[str, Any] | None:
        try:
            manifest = json.loads((self._folder / "CURRENT.json").read_bytes())
            fits = manifest["format"] == CACHE_FORMAT and manifest["identity"] == self._identity
            int(manifest["passages"]), dict(manifest["files"])  # what else is read from it is there
            known = view.token(int(manifest["generation"])) == manifest["token"]
            return manifest if fits and known and int(manifest["last_passage"]) <= view.last_passage() else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("CURRENT.json of %s is damaged; the cache is built again from the database.", self._folder)
            return None

    def _verify(self, manifest: dict[str, Any], leg: str) -> bool:
        files = {name: facts for name, facts in manifest["files"].items() if f"-{leg}." in name}
        return bool(files) and all(
            Path(name).name == name and _facts(self._folder / name) == facts for name, facts in files.items()
        )

    def _is_sound(self, name: str, facts: dict[str, Any]) -> bool:
        try:
            return Path(name).name == name and bool(_facts(self._folder / name) == facts)
        except OSError:
            return False

    def _load_dense(self, stem: str) -> DenseIndex:
        return DenseIndex.load(self._folder / f"{stem}-dense.faiss")

    def _read_lexical(self, view: View) -> _Leg[Lexical] | None:
        empty = self._new_lexical()
        if not isinstance(empty, LexicalIndex):  # rank-bm25 has no form on disk
            return None
        return self._read(view, "lexical", lambda stem: LexicalIndex.load(self._folder, stem).like(empty))

    # -- catching up ---------------------------------------------------------------------------------------------

    def _catch_up(
        self, view: View, leg: _Leg[Structure], add: Callable[[Structure, Iterable[StoredPassage]], None]
    ) -> None:
        if leg.generation and leg.generation == view.generation():
            return
        removed = view.removed_since(leg.generation)
        passages = view.stored_passages(leg.last_passage)
        try:
            leg.apply(view.generation(), view.last_passage(), removed, lambda structure: add(structure, passages))
        except ValueError as error:  # the vectors of another encoder, an id twice: all that was checked when it came
            raise CorruptIndexError(
                f"The database is damaged: {error} Restore a backup, or index the documents again."
            ) from error

    def _add_dense(self, structure: DenseIndex, passages: Iterable[StoredPassage]) -> None:
        for block in _blocks(passages):
            _add_vectors(structure, [AddedPassage(each.id, (), each.vector) for each in block])

    def _add_lexical(self, structure: Lexical, passages: Iterable[StoredPassage]) -> None:
        for block in _blocks(passages):
            _add_tokens(structure, [AddedPassage(each.id, self._analyze(_text(each)), None) for each in block])

    # -- writing -------------------------------------------------------------------------------------------------

    def _write(self, view: View, generation: int) -> None:
        self._folder.mkdir(exist_ok=True)
        stem = f"g{generation:06d}"
        draft = self._folder / f"draft-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            self.dense(view).save(draft / f"{stem}-dense.faiss")
            self.lexical(view).save(draft, stem)
            names = sorted(path.name for path in draft.iterdir())
            for name in names:
                flushed(draft / name)
            manifest = {
                "format": CACHE_FORMAT,
                "identity": self._identity,
                "generation": generation,
                "token": view.token(generation),
                "last_passage": view.last_passage(),
                "passages": view.counts()[1],
                "files": {name: _facts(draft / name) for name in names},
            }
            for name in names:
                _make_way(self._folder / name)
                (draft / name).replace(self._folder / name)
            flushed(self._folder)
            (draft / "CURRENT.json").write_text(json.dumps(manifest, indent=1))
            flushed(draft / "CURRENT.json")
            _make_way(self._folder / "CURRENT.json")
            (draft / "CURRENT.json").replace(self._folder / "CURRENT.json")
            flushed(self._folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._tidy({*names, "CURRENT.json"})

    def _tidy(self, keep: set[str]) -> None:
        for path in self._folder.iterdir():
            if path.name in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _make_way(path: Path) -> None:
    """A folder in a file's place would stop the renaming for ever."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def _text(passage: StoredPassage) -> str:
    return embedded_text(passage.title, passage.heading, passage.text)


def _add_vectors(structure: DenseIndex, added: Sequence[AddedPassage]) -> None:
    rows = [(each.id, each.vector) for each in added if each.vector is not None]
    if rows:
        structure.add(
            np.array([id for id, _ in rows], np.int64), np.stack([vector for _, vector in rows]).astype(np.float32)
        )


def _add_tokens(structure: Lexical, added: Sequence[AddedPassage]) -> None:
    if added:
        structure.add([each.id for each in added], [each.tokens for each in added])


def _blocks(passages: Iterable[StoredPassage]) -> Iterable[list[StoredPassage]]:
    block: list[StoredPassage] = []
    for passage in passages:
        block.append(passage)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}

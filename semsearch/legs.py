"""The search legs of one index, dense and lexical, the columns that filters look at, and their cache on disk.

Each leg covers a generation of the database and is brought up to a later one by what changed since. The cache is
derived and may be deleted at any time. It is written under other names, synced, renamed, and only then named in
CURRENT.json with the size and SHA-256 of each file. Whatever does not fit (size, hash, encoder, analyzer, history of
the database) means that the leg is built again from the database, never a wrong answer.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

from semsearch.blocks import DamagedCacheError, facts, is_sound
from semsearch.chunking import embedded_text
from semsearch.columns import Columns
from semsearch.dense import DenseIndex
from semsearch.errors import CorruptIndexError
from semsearch.filters import Condition, Where, as_condition
from semsearch.lexical import Lexical, LexicalIndex, get_lexical
from semsearch.locking import flushed
from semsearch.tables import StoredPassage, View, Writer

if TYPE_CHECKING:
    from semsearch.analysis import Analyzer

__all__ = ["AddedPassage", "Legs", "legs_of"]

log: logging.Logger = logging.getLogger("semsearch")

CACHE_FORMAT = 2
BLOCK = 2048  # passages added to a leg at a time

# The cache is written again when this share of the passages came or went since: rewriting costs in proportion to the
# index, so a fixed share keeps the cost of a long series of changes in proportion to the changes.
STALE_SHARE = 0.1
STALE_LEAST = 1024
# Legs whose files have so many bytes are used from these after they were written.
LARGE = 32 * 1024 * 1024

Files: TypeAlias = Mapping[str, Mapping[str, Any]]
Result = TypeVar("Result")


class Structure(Protocol):
    """What a search structure can do, so that it can be a leg."""

    def remove(self, ids: np.ndarray) -> None:
        """Remove passages; an id that is not there is no error."""

    def save(self, directory: Path, stem: str) -> list[Path]:
        """Write the structure into files `{stem}-{name}.*`."""


S = TypeVar("S", bound=Structure)


class AddedPassage(NamedTuple):
    """A new passage as the legs take it; `vector` is (dimension,) float32 or None."""

    id: int
    tokens: Sequence[str]
    vector: np.ndarray | None


@dataclass(frozen=True)
class _Kind(Generic[S]):
    """What there is to know about a kind of leg. To add one, write its entry in `Legs.__init__`.

    `new` makes an empty structure, `load` opens the files of a stem (None: they fit no structure of this opening),
    `add` enters passages, `entry` makes what `add` takes from a passage of the database, and `prepare` is called before
    each use with the View of the moment. `follow` takes the place of `add` for what is not made of passages: it brings
    the structure up to the View from a generation and passage; such a structure is made anew to be saved.
    """

    new: Callable[[], S]
    load: Callable[[str, Files], S | None]
    add: Callable[[S, Sequence[AddedPassage]], None] = lambda structure, added: None
    entry: Callable[[StoredPassage], AddedPassage] | None = None
    prepare: Callable[[S, View], None] = lambda structure, view: None
    follow: Callable[[S, View, int, int], None] | None = None


@dataclass
class _Leg(Generic[S]):
    """A search structure, the generation it stands at, and the highest passage id it has seen.

    `origin` is the generation of the cache that it was read from, 0 if it was built.
    """

    structure: S
    generation: int
    last_passage: int
    origin: int = 0

    def apply(self, generation: int, last_passage: int, removed: np.ndarray, added: Callable[[S], None]) -> None:
        known = removed[removed <= self.last_passage]
        if len(known):
            self.structure.remove(known)
        added(self.structure)
        self.generation = generation
        self.last_passage = last_passage


class Legs:
    """The legs of an index, read or built when they are first needed.

    `folder` is the cache folder, `identity` what a cache must have in common with the database (uuid, fingerprints).
    `recall` and `storage` are the dense leg's. The caller holds the index's mutex and passes a View inside a
    transaction.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dimension: int,
        analyze: Callable[[str], list[str]],
        new_lexical: Callable[[], Lexical],
        identity: dict[str, Any],
        recall: float = 0.99,
        storage: str = "float32",
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._is_cached = isinstance(new_lexical(), LexicalIndex)  # rank-bm25 has no form on disk

        def load_lexical(stem: str, files: Files) -> Lexical | None:
            empty = new_lexical()
            if not isinstance(empty, LexicalIndex):
                return None
            return LexicalIndex.load(folder, stem, files).like(empty)

        self._kinds: dict[str, _Kind[Any]] = {
            "dense": _Kind(
                new=lambda: DenseIndex(dimension, storage=storage, recall=recall),
                load=lambda stem, files: DenseIndex.load(folder, stem, files, storage=storage, recall=recall),
                add=_add_vectors,
                entry=lambda passage: AddedPassage(passage.id, (), passage.vector),
                prepare=_give_source,
            ),
            "lexical": _Kind(
                new=new_lexical,
                load=load_lexical,
                add=_add_tokens,
                entry=lambda passage: AddedPassage(passage.id, analyze(_text(passage)), None),
            ),
            "columns": _Kind(
                new=Columns,
                load=lambda stem, files: Columns.load(folder, stem, files),
                follow=_follow_fields,
            ),
        }
        self._legs: dict[str, _Leg[Any]] = {}
        self._view: View | None = None  # the last one that a leg was asked through

    def dense(self, view: View) -> DenseIndex:
        """The dense leg at the view's generation."""
        return self.ask_dense(view, lambda leg: leg)

    def lexical(self, view: View) -> Lexical:
        """The lexical leg at the view's generation."""
        return self.ask_lexical(view, lambda leg: leg)

    def ask_dense(self, view: View, question: Callable[[DenseIndex], Result]) -> Result:
        """What the dense leg answers; if its cache turns out to be damaged, it is built again and asked again."""
        return self._ask(view, "dense", question)

    def ask_lexical(self, view: View, question: Callable[[Lexical], Result]) -> Result:
        """What the lexical leg answers; if its cache turns out to be damaged, it is built again and asked again."""
        return self._ask(view, "lexical", question)

    def matching(self, view: View, where: Where | Condition) -> np.ndarray:
        """The ids of the passages that a filter lets through, (n,) int64 ascending. Raises FilterError."""
        condition = as_condition(where)
        return self._ask(view, "columns", lambda leg: leg.matching(condition))

    def _ask(self, view: View, name: str, question: Callable[[Any], Result]) -> Result:
        for _ in range(3):  # a file that is read late may be gone because a writer has replaced the cache
            try:
                return question(self._at(view, name))
            except DamagedCacheError as error:
                reason = error
            leg, manifest = self._legs.pop(name, None), self._manifest(view)
            if leg is None or manifest is None or leg.origin == int(manifest["generation"]):
                break
        log.warning("The %s cache of %s could not be read (%s).", name, self._folder, reason)
        self._tell_damaged(name)
        leg = _Leg(self._kinds[name].new(), 0, 0)
        self._catch_up(view, name, leg)
        self._legs[name] = leg
        return question(self._at(view, name))

    def _at(self, view: View, name: str) -> Any:
        if self._view is not None and self._view.is_outdated:
            self._legs.clear()  # they may be made of two states at once
        self._view = view
        leg = self._legs.pop(name, None)  # an interruption on the way must not leave half a leg
        if leg is not None and leg.generation and view.token(leg.generation) is None:
            leg = None  # the database no longer remembers what changed since
        leg = leg or self._read(view, name) or _Leg(self._kinds[name].new(), 0, 0)
        self._catch_up(view, name, leg)
        self._kinds[name].prepare(leg.structure, view)
        self._legs[name] = leg
        return leg.structure

    @contextmanager
    def commit(self, writer: Writer) -> Iterator[list[AddedPassage]]:
        """One transaction of the writer that the legs take over; yields a list for the passages that it adds."""
        added: list[AddedPassage] = []
        with writer.commit() as generation:
            yield added
        # Only now that it is durable: legs that are interrupted on the way catch up from the database.
        last_passage, gone = writer.last_passage(), np.array(sorted(writer.removed), np.int64)
        legs, self._legs = self._legs, {}
        for name, leg in legs.items():
            with suppress(DamagedCacheError):  # without the leg, the next use finds the damage again and builds it anew
                if leg.generation == generation - 1 and self._kinds[name].follow is None:
                    leg.apply(generation, last_passage, gone, partial(_enter, self._kinds[name], added))
                self._legs[name] = leg

    def start_empty(self, generation: int) -> None:
        """Begin with empty legs, for an index that never had a passage."""
        self._legs = {name: _Leg(kind.new(), generation, 0) for name, kind in self._kinds.items()}

    def problems(self, view: View) -> list[str]:
        """What is wrong with the cache files, [] if there are none or all is well."""
        if not (self._folder / "CURRENT.json").exists():
            return []
        manifest = self._manifest(view)
        if manifest is None:
            if self._is_superseded():
                return []
            return ["CURRENT.json is damaged, or belongs to another index or to a state that this one never had"]
        return [
            f"{name} is damaged or missing"
            for name, known in manifest["files"].items()
            if not self._is_sound(name, known)
        ]

    def is_stale(self, view: View, *, least: int = STALE_LEAST) -> bool:
        """Whether so much changed since the cache was written that writing it again is worth its cost."""
        manifest = self._manifest(view)
        if manifest is None:
            return view.has_passages()
        added = view.last_passage() - int(manifest["last_passage"])
        changed = added + view.changes_since(int(manifest["generation"]))
        return changed > 0 and changed >= max(least, STALE_SHARE * int(manifest["passages"]))

    def publish(self, view: View) -> int:
        """Write the cache, under the lock only; returns its generation, or -1 if it could not be written."""
        generation = view.generation()
        if not self._is_cached:
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

    def _read(self, view: View, name: str) -> _Leg[Any] | None:
        if not self._is_cached and name == "lexical":
            return None
        for _ in range(3):  # a writer may replace the cache between the reading of the manifest and of the files
            manifest = self._manifest(view)
            if manifest is None:
                return None
            try:
                structure = self._kinds[name].load(_stem(manifest), _files_of(manifest, name))
                generation, last = int(manifest["generation"]), int(manifest["last_passage"])
                return None if structure is None else _Leg(structure, generation, last, generation)
            except Exception as error:  # whatever a damaged file makes a parser raise: the leg is derived
                reason = error
            if self._manifest(view) == manifest:  # not replaced meanwhile
                log.warning("The %s cache of %s could not be read (%s).", name, self._folder, reason)
                break
        self._tell_damaged(name)
        return None

    def _tell_damaged(self, name: str) -> None:
        log.warning(
            "The %s cache of %s is damaged or incomplete; it is built again from the database.", name, self._folder
        )

    def _is_superseded(self) -> bool:
        """Whether the cache is of an earlier release, or of the analyzer before the index had told its language."""
        try:
            manifest = json.loads((self._folder / "CURRENT.json").read_bytes())
            if 0 < int(manifest["format"]) < CACHE_FORMAT:
                return True
            identity = dict(manifest["identity"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        other = identity.get("analyzer") != self._identity["analyzer"]
        return other and identity | {"analyzer": self._identity["analyzer"]} == self._identity

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

    def _is_sound(self, name: str, known: dict[str, Any]) -> bool:
        return Path(name).name == name and is_sound(self._folder / name, known)

    # -- catching up ---------------------------------------------------------------------------------------------

    def _catch_up(self, view: View, name: str, leg: _Leg[Any]) -> None:
        if leg.generation and leg.generation == view.generation():
            return
        kind, since, last = self._kinds[name], leg.generation, leg.last_passage
        removed = view.removed_since(since)
        passages = view.stored_passages(leg.last_passage)

        def add(structure: Any) -> None:
            if kind.follow is not None:
                kind.follow(structure, view, since, last)
                return
            assert kind.entry is not None
            for block in _blocks(passages):
                kind.add(structure, [kind.entry(each) for each in block])

        try:
            leg.apply(view.generation(), view.last_passage(), removed, add)
        except ValueError as error:  # the vectors of another encoder, an id twice: all that was checked when it came
            raise CorruptIndexError(
                f"The database is damaged: {error} Restore a backup, or index the documents again."
            ) from error

    # -- writing -------------------------------------------------------------------------------------------------

    def _write(self, view: View, generation: int) -> None:
        self._folder.mkdir(exist_ok=True)
        stem = f"g{generation:06d}"
        draft = self._folder / f"draft-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            for name, kind in self._kinds.items():
                if kind.follow is not None:
                    self._legs[name] = _Leg(kind.new(), 0, 0)
                self._ask(view, name, lambda leg: leg.save(draft, stem))
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
                "files": {name: facts(draft / name) for name in names},
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
        self._let_go(manifest)
        self._tidy({*names, "CURRENT.json"})

    def _let_go(self, manifest: dict[str, Any]) -> None:
        """Use large legs from the files that were just written, and give back the memory they took."""
        for name, kind in self._kinds.items():
            files = _files_of(manifest, name)
            has_sieve = any(each.endswith(".sieve.faiss") for each in files)
            if not has_sieve and sum(int(known["size"]) for known in files.values()) < LARGE:
                continue
            structure = kind.load(_stem(manifest), files)
            if structure is not None:
                generation = int(manifest["generation"])
                self._legs[name] = _Leg(structure, generation, int(manifest["last_passage"]), generation)

    def _tidy(self, keep: set[str]) -> None:
        for path in self._folder.iterdir():
            if path.name in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def legs_of(view: View, folder: Path, analyzer: Analyzer, *, lexical: str | None, recall: float, storage: str) -> Legs:
    """The legs of a database, with their cache in `folder`; one that is bound to no encoder yet has dimension 1."""
    encoder = view.meta("encoder")
    return Legs(
        folder,
        dimension=int(encoder["dimension"]) if encoder else 1,
        analyze=analyzer,
        new_lexical=partial(get_lexical, lexical),
        identity={"uuid": view.meta("uuid"), "encoder": _hash(encoder), "analyzer": _hash(analyzer.fingerprint())},
        recall=recall,
        storage=storage,
    )


def _hash(stored: Any) -> str:
    return sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:32]


def _make_way(path: Path) -> None:
    """A folder in a file's place would stop the renaming for ever."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def _enter(kind: _Kind[S], added: Sequence[AddedPassage], structure: S) -> None:
    kind.add(structure, added)


def _follow_fields(columns: Columns, view: View, generation: int, last_passage: int) -> None:
    came = columns.since + view.last_passage() - last_passage
    if generation and came < max(STALE_LEAST, STALE_SHARE * len(columns)):
        columns.add(view.changed_fields(generation, last_passage))
    else:
        columns.fill(*view.owners(), view.field_rows())


def _stem(manifest: Mapping[str, Any]) -> str:
    return f"g{int(manifest['generation']):06d}"


def _files_of(manifest: Mapping[str, Any], leg: str) -> dict[str, dict[str, Any]]:
    """The files of a leg that a manifest names; DamagedCacheError if there is none, or one that is a path."""
    files = {name: known for name, known in manifest["files"].items() if f"-{leg}." in name}
    if not files or any(Path(name).name != name for name in files):
        raise DamagedCacheError(f"CURRENT.json names no files of the {leg} cache")
    return files


def _give_source(structure: DenseIndex, view: View) -> None:
    structure.source = partial(_vectors, view, structure.dimension)


def _vectors(view: View, dimension: int, ids: np.ndarray) -> np.ndarray:
    """The vectors of passages (m,) as the database has them: (m, dimension) float32."""
    rows = np.empty((len(ids), dimension), np.float32)
    for start in range(0, len(ids), BLOCK):
        some = ids[start : start + BLOCK].tolist()
        found = view.vectors_of(some)
        if len(found) < len(some):
            raise CorruptIndexError(
                "The database is damaged: passages have lost their vectors. Restore a backup, or index them again."
            )
        rows[start : start + len(some)] = [found[id] for id in some]
    return rows


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

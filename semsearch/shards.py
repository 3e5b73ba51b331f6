"""A corpus in shards: documents in one folder, the same with passages and vectors in another, then an index.

    write(semsearch.load("handbook"), "shards")                     # documents, a thousand in each Parquet file
    semsearch.engines.ray.encode("shards", "encoded")               # on one machine or on many
    fill("encoded", "milvus://host:19530/handbook")                 # into any index; nothing is encoded again

The second step and the third may be interrupted and called again: a shard that is done is not done twice. The first
is quick, and begins anew in a new folder. The columns are those of `semsearch.parquet`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from semsearch.analysis import Analyzer, get_analyzer
from semsearch.copying import LANGUAGE, in_batches, opened
from semsearch.detection import TEXTS, detect
from semsearch.encoding import Encoder, fingerprint
from semsearch.engines.protocol import Entry, Part, Specification
from semsearch.entries import with_terms
from semsearch.errors import IndexMismatchError, IndexNotFoundError, InputError, SemsearchError
from semsearch.ingest import checked_vectors, fitted
from semsearch.items import Progress, counted, expanded, to_document
from semsearch.parquet import document_batch, documents, entries, entry_batch, head, note, written
from semsearch.records import Document
from semsearch.runtime import sha256_of
from semsearch.tables import digest, dump_metadata

if TYPE_CHECKING:
    from semsearch.engines.protocol import Engine

__all__ = ["FillReport", "Outcome", "encode_shard", "fill", "shards_in", "write"]

SHARD_CHARACTERS = 64_000_000
GROUP_PASSAGES = 2_048  # what is encoded and written at a time
GROUP_CHARACTERS = 8_000_000


class Outcome(NamedTuple):
    """What became of a shard. `skipped`: it was there already; `reason` says why it is not there.

    `keyword_only` is how many of the passages have no vector, because the encoder gave no usable one.
    """

    name: str
    documents: int = 0
    passages: int = 0
    keyword_only: int = 0
    skipped: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class FillReport:
    """What `fill` put into an index; `skipped` are the shards among `shards` that were in it already."""

    shards: int = 0
    skipped: int = 0
    documents: int = 0
    passages: int = 0

    def __str__(self) -> str:
        from semsearch.display import report_text

        return report_text(self)


def write(items: Iterable[Any], folder: str | os.PathLike[str], *, size: int = 1_000) -> list[Path]:
    """Write documents into a new folder, `size` in a shard (fewer where they are long); returns the files.

    An item is what `Index.add` takes. Raises InputError for a folder that has shards already, for what is no document,
    and for a string with a lone surrogate, which Parquet has no form for.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"size is a number of documents, at least 1, not {size!r}.")
    target = expanded(folder)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.glob("*.parquet")):
        raise InputError(f"{target} has shards already. Choose a new folder.")
    paths = []
    for number, some in enumerate(_portions(map(to_document, items), size)):
        for document in some:
            dump_metadata(document)  # raises for what JSON has no form for
        path = target / f"{number:06d}.parquet"
        with written(path, passages=False) as writer:
            writer.write_batch(document_batch(some))
        paths.append(path)
    return paths


def _portions(items: Iterable[Document], size: int) -> Iterator[list[Document]]:
    some: list[Document] = []
    characters = 0
    for document in items:
        some.append(document)
        characters += len(document.text)
        if len(some) == size or characters >= SHARD_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


def shards_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The shards of a folder, by name; raises InputError where there are none."""
    path = expanded(folder)
    found = sorted(each for each in path.glob("*.parquet") if each.is_file() and not each.name.startswith("."))
    if not found:
        raise InputError(
            f"{path} has no file *.parquet. Make shards of a folder of documents: "
            "semsearch.shards.write(semsearch.load(documents), shards)."
        )
    return found


# ------------------------------------------------------------------------------------------------------------- encoding


def encode_shard(source: Path, target: Path, encoder: Encoder, spec: str | None = None) -> Outcome:
    """Encode a shard of documents into the file `target`, unless that was made of the same bytes by the same encoder.

    `spec` is how an index finds the encoder again. What is wrong with a shard is told in its outcome.
    """
    try:
        made = {"sha256": sha256_of(source), "encoder": fingerprint(encoder)}
        if (there := _there(target)) is not None and made.items() <= there.items():
            return Outcome(source.name, there["documents"], there["passages"], there["keyword_only"], skipped=True)
        counts = {"documents": 0, "passages": 0, "keyword_only": 0}
        with written(target, passages=True) as writer:
            for group in _groups(source, encoder):
                parts = [part for entry in group for part in entry.parts]
                counts["documents"] += len(group)
                counts["passages"] += len(parts)
                counts["keyword_only"] += sum(part.vector is None for part in parts)
                writer.write_batch(entry_batch(group))
            note(writer, {**made, **counts, "encoder_spec": spec})
        return Outcome(source.name, counts["documents"], counts["passages"], counts["keyword_only"])
    except (SemsearchError, OSError) as error:
        return Outcome(source.name, reason=str(error))


def _there(path: Path) -> dict[str, Any] | None:
    with suppress(InputError):
        return head(path) if path.exists() else None
    return None


def _groups(source: Path, encoder: Encoder) -> Iterator[list[Entry]]:
    """The documents of a shard with their passages and vectors, some at a time."""
    group: list[Entry] = []
    texts: dict[bytes, str] = {}
    passages = characters = 0
    for document in documents(source):
        dump_metadata(document)
        document, chunks, embedded = fitted(document, encoder)
        keys = [digest(text) for text in embedded]
        texts.update(zip(keys, embedded, strict=True))
        pairs = zip(chunks, keys, strict=True)
        parts = [Part(each.start, each.end, each.page, each.heading, key, (), None) for each, key in pairs]
        group.append(Entry(document, parts))
        passages += len(parts)
        characters += len(document.text)
        if passages >= GROUP_PASSAGES or characters >= GROUP_CHARACTERS:
            yield _with_vectors(group, texts, encoder)
            group, texts, passages, characters = [], {}, 0, 0
    if group:
        yield _with_vectors(group, texts, encoder)


def _with_vectors(group: list[Entry], texts: Mapping[bytes, str], encoder: Encoder) -> list[Entry]:
    if not texts:
        return group
    rows = checked_vectors(encoder, list(texts.values()), "passage")
    vectors = {key: row for key, row in zip(texts, rows, strict=True) if row.any()}
    return [
        entry._replace(parts=[part._replace(vector=vectors.get(part.digest)) for part in entry.parts])
        for entry in group
    ]


# -------------------------------------------------------------------------------------------------------- into an index


def fill(
    source: str | os.PathLike[str],
    location: str | os.PathLike[str],
    *,
    analyzer: str | Analyzer | None = None,
    progress: Progress = None,
) -> FillReport:
    """Put encoded shards into an index, a folder or an engine's, without encoding.

    A document replaces the one with its id. A shard that is in the index already is not read again, so an interrupted
    call goes on. Documents that a changed shard does not have any more stay: remove them with `Index.remove`.

    `analyzer` is the language of the keywords of a new index; by default it is told from the first texts. `progress`
    is True or False for a bar, None for one when a person is watching, or a function of (done, total) in documents.

    Raises InputError for a folder without encoded shards or with such of several encoders, and IndexMismatchError for
    an index that was made with another encoder or analyzer.
    """
    paths = shards_in(source)
    heads = {path: head(path) for path in paths}
    first = heads[paths[0]]
    other = [path for path in paths if heads[path]["encoder"] != first["encoder"]]
    if other:
        raise InputError(f"{other[0]} was encoded by another model than {paths[0]}. Encode them again.")
    report = FillReport()
    total = sum(made["documents"] for made in heads.values())
    with closing(opened(location)) as engine, counted(progress, total, "document") as step:
        analyze = _bound(engine, first, None if analyzer is None else get_analyzer(analyzer), paths[0])
        for path, made in heads.items():
            name = f"shard/{digest(path.name).hex()}"
            mark = {"sha256": made["sha256"], "language": analyze.language}
            known = engine.read_state(name).get(name) == mark
            if not known:
                _put(engine, path, analyze, report.documents, step)
                engine.write_state({name: mark})
            report = FillReport(
                report.shards + 1,
                report.skipped + known,
                report.documents + made["documents"],
                report.passages + made["passages"],
            )
            step(report.documents)
        engine.flush()
    return report


def _put(engine: Engine, path: Path, analyze: Analyzer, before: int, step: Callable[[int], None]) -> None:
    for batch in in_batches(("", entry) for entry in entries(path)):
        some = {entry.document.id: with_terms(entry, analyze) for _, entry in batch}  # the last one of an id holds
        engine.upsert(list(some.values()))
        before += len(batch)
        step(before)


def _bound(engine: Engine, made: Mapping[str, Any], analyzer: Analyzer | None, first: Path) -> Analyzer:
    """Open the index, or make it for these shards; returns its analyzer."""
    language = None
    with suppress(IndexNotFoundError):
        engine.open(None, create=False)
        language = engine.read_state(LANGUAGE).get(LANGUAGE)
    settled = analyzer is not None
    if analyzer is None and language is None:
        analyzer, settled = _detected(first)
    chosen = analyzer or get_analyzer(language)
    rules = {name: value for name, value in chosen.fingerprint().items() if name != "language"}
    engine.open(Specification(int(made["encoder"]["dimension"]), made["encoder"], rules), create=True)
    if language is None:
        state = {LANGUAGE: chosen.language, f"{LANGUAGE}_settled": settled, "meta/encoder_spec": made["encoder_spec"]}
        engine.write_state(state)
    elif chosen.language != language:
        raise IndexMismatchError(
            f"{engine.location} was made with the analyzer for {language!r}, not with that for {chosen.language!r}. "
            "Leave analyzer= out, or choose another index."
        )
    return chosen


def _detected(first: Path) -> tuple[Analyzer, bool]:
    """The analyzer for the first texts, and whether they were enough to tell for good."""
    found = detect(entry.document.text for entry in islice(entries(first), TEXTS))
    return get_analyzer(found.instead_of(get_analyzer(None).language)), found.settled

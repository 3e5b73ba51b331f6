"""Encoding on several machines, by Ray actors that load the model once.

    encode("shards", "encoded", encoder="BAAI/bge-m3", address="auto")      # a corpus: Parquet shards in, shards out

    with RayEncoder(index.encoder, address="auto") as encoder:              # a folder: as ever, with more cores
        index.encoder = encoder
        index.sync("handbook")

One actor is one worker with its share of a machine, and gets the next piece of work when it is done with one. Nothing
else asks the cluster for room, so nothing waits for room that the workers hold; a worker that there is no room for is
not waited for. A worker that is lost gives its piece back and is replaced. (Ray Data would do with one `map_batches`,
but it holds back CPUs for its readers, hangs where the actors leave none, and starts a whole pipeline again where this
loses one shard.)

Every machine needs this package, in the same release, and the model; for `encode` they share a file system as well.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from semsearch.engines.ray_pool import Pool
from semsearch.errors import EngineUnavailableError, InputError

if TYPE_CHECKING:
    from semsearch.encoding import Encoder
    from semsearch.items import Progress
    from semsearch.shards import Outcome

__all__ = ["EncodeReport", "RayEncoder", "encode"]

PIECE = 8  # texts that are worth the way to a worker
# What an encoder may have besides the protocol; asked of the one in this process.
OPTIONAL = ("max_tokens", "count_tokens", "token_vectors", "unknown_share")


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What `encode` did. `skipped` are the shards among `shards` that were there already.

    `keyword_only` are passages without a vector, because the encoder gave no usable one; `failures` lists (shard,
    reason) of shards that are not there; `lost` counts workers that were lost on the way.
    """

    shards: int = 0
    skipped: int = 0
    failed: int = 0
    documents: int = 0
    passages: int = 0
    keyword_only: int = 0
    lost: int = 0
    failures: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        from semsearch.display import report_text

        return report_text(self)


def encode(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    encoder: str | Encoder | None = None,
    address: str | None = None,
    workers: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
    timeout: float = 300.0,
    progress: Progress = None,
) -> EncodeReport:
    """Encode a folder of Parquet shards into another: a shard in, a shard of the same name out.

    `source` has files *.parquet with the columns of `semsearch.parquet`; `semsearch.shards.write` makes them of
    documents. `semsearch.shards.fill` puts the result into an index. A shard is written under another name and renamed
    when it is complete, and one that was made of the same bytes by the same encoder is skipped: call it again to go on.

    Parameters
    ----------
    encoder : as for `Index`; a name or path is loaded on each machine, an object of your own travels by pickle, and
        its class must be known there.
    address : of the Ray cluster, as "auto" or "host:6379"; None for the one that this process is connected to, or one
        on this machine.
    workers : how many; by default as many as the cluster has room for. 0 encodes in this process, without Ray.
    cpus, gpus : what each worker takes of its machine. An encoder of ours does best with many workers of one CPU.
    timeout : seconds to wait for a worker while there is none.
    progress : True or False for a bar, None for one when a person is watching, or a function of (shards done, total).

    Raises InputError for a folder without shards, EngineUnavailableError where there is no cluster, or no worker in
    time, MissingExtraError without Ray. What is wrong with a single shard is in the report and stops nothing.
    """
    from semsearch.encoding import get_encoder, spec_of
    from semsearch.items import counted, expanded
    from semsearch.shards import encode_shard, shards_in

    paths, target = shards_in(source), expanded(destination)
    if expanded(source).resolve() == target.resolve():
        raise InputError(f"{source} cannot be encoded into itself. Choose another destination.")
    target.mkdir(parents=True, exist_ok=True)
    spec = spec_of("all-MiniLM-L6-v2" if encoder is None else encoder)
    with counted(progress, len(paths), "shard") as step:
        if workers == 0:
            own = get_encoder(encoder)
            done = (encode_shard(path, target / path.name, own, spec) for path in paths)
            return _report(done, step, None)
        with Pool(encoder, address, workers, cpus, gpus, timeout) as pool:
            tasks = [("shard", str(path), str(target / path.name), spec) for path in paths]
            return _report(
                (_outcome(target / path.name, answer) for path, answer in pool.each(paths, tasks)), step, pool
            )


def _outcome(path: Path, answer: Any) -> Outcome:
    from semsearch.parquet import drop_drafts
    from semsearch.shards import Outcome

    if isinstance(answer, EngineUnavailableError):
        drop_drafts(path)  # what the lost workers have left
        return Outcome(path.name, reason=str(answer))
    return Outcome(*answer)


def _report(outcomes: Iterator[Outcome], step: Callable[[int], None], pool: Pool | None) -> EncodeReport:
    every = []
    step(0)
    for outcome in outcomes:
        every.append(outcome)
        step(len(every))
    failures = tuple(sorted((each.name, each.reason) for each in every if each.reason is not None))
    return EncodeReport(
        len(every),
        sum(each.skipped for each in every),
        len(failures),
        sum(each.documents for each in every),
        sum(each.passages for each in every),
        sum(each.keyword_only for each in every),
        0 if pool is None else pool.lost,
        failures,
    )


class RayEncoder:
    """An encoder whose passages are encoded on a Ray cluster; an index takes it for the encoder that it stands for.

    Queries, tokens and a few texts are the business of `encoder` itself, in this process. Parameters are those of
    `encode`. Use it in a `with` block, or close it: it holds its workers until then.
    """

    def __init__(
        self,
        encoder: str | Encoder | None = None,
        address: str | None = None,
        *,
        workers: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
        timeout: float = 300.0,
    ) -> None:
        """Raises EngineUnavailableError where there is no cluster, MissingExtraError without Ray."""
        from semsearch.encoding import fingerprint, get_encoder

        self._encoder = get_encoder(encoder)
        self.name: str = self._encoder.name
        self.dimension: int = self._encoder.dimension
        self.fingerprint: Mapping[str, str | int | bool] = fingerprint(self._encoder)
        self._pool = Pool(encoder, address, workers, cpus, gpus, timeout, self.fingerprint)
        self._mutex = threading.Lock()

    def encode(self, texts: Sequence[str], *, kind: Literal["passage", "query"] = "passage") -> np.ndarray:
        """(len(texts), dimension) float32, each row of length 1.

        Raises EngineUnavailableError where no worker is left, or the same texts were lost with three of them.
        """
        if kind == "query" or len(texts) < 2 * PIECE:
            return self._encoder.encode(texts, kind=kind)
        size = max(PIECE, math.ceil(len(texts) / (2 * self._pool.workers)))
        starts = list(range(0, len(texts), size))
        tasks = [("encode", list(texts[start : start + size])) for start in starts]
        rows = np.empty((len(texts), self.dimension), np.float32)
        with self._mutex:
            for start, answer in self._pool.each(starts, tasks):
                if isinstance(answer, EngineUnavailableError):
                    raise answer
                rows[start : start + size] = answer
        return rows

    def __getattr__(self, name: str) -> Any:
        if name not in OPTIONAL:
            raise AttributeError(name)
        return getattr(self._encoder, name)

    def __repr__(self) -> str:
        return f"RayEncoder({self._encoder!r}, workers={self._pool.workers})"

    def close(self) -> None:
        """Let the workers go; a second call does nothing."""
        self._pool.close()

    def __enter__(self) -> RayEncoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

"""Runs the models that `semsearch.compiling` made, on onnxruntime and tokenizers alone.

A run has one thread, and several threads may run the same session: that is how all cores are used, and why a result
never depends on how many there are. Nothing here keeps threads, so a fork finds none; a forked child loads its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import ModelError

FORMAT = 1
MODEL_FILE, TOKENIZER_FILE, SETTINGS_FILE = "model.onnx", "tokenizer.json", "semsearch.json"

Int64 = NDArray[np.int64]

_most: int | None = None

_SURROGATES = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> str:
    """Each lone surrogate as U+FFFD: `tokenizers` takes valid Unicode only. The length stays, so offsets do too."""
    return _SURROGATES.sub("\ufffd", text)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_settings(folder: Path, kind: str) -> dict[str, Any]:
    """The semsearch.json of a compiled model. Raises ModelError if it is not a compiled model of this kind."""
    path = folder / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{str(folder)!r} is not a compiled model: {SETTINGS_FILE} cannot be read ({error})."
        ) from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise ModelError(f"{str(path)!r} is not of format {FORMAT}, which this release reads. Compile the model again.")
    if settings.get("kind") != kind:
        raise ModelError(f"{str(folder)!r} holds a compiled {settings.get('kind')}, not a compiled {kind}.")
    return settings


def create_session(path: Path) -> Any:
    """An onnxruntime session on one thread. Several threads may run it at once, each on its own core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # plans memory per shape; here nearly each run has another shape
    # The fused operator is not vectorised on CPUs: without it a passage takes 17 % less time.
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
    )


class Runtime:
    """Session and tokenizer of one process."""

    def __init__(self, folder: Path, sha256: str) -> None:
        from tokenizers import Tokenizer

        try:
            if sha256_of(folder / MODEL_FILE) != sha256:
                raise ModelError(
                    f"{str(folder / MODEL_FILE)!r} is not the file it was: its checksum is wrong. Copy it again."
                )
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            self.session: Any = create_session(folder / MODEL_FILE)
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises a bare Exception, onnxruntime classes of its own
            raise ModelError(f"The compiled model in {str(folder)!r} cannot be loaded: {error}.") from error
        self._inputs = [value.name for value in self.session.get_inputs()]

    def run(self, outputs: Sequence[str], ids: Sequence[int] | Int64, types: Int64 | None = None) -> list[Any]:
        """The outputs for the tokens of one text, special ones included; `types` are 0 where nothing is given."""
        tokens = np.array([ids], dtype=np.int64)
        kinds = np.zeros_like(tokens) if types is None else types[None]
        values = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": kinds}
        result: list[Any] = self.session.run(outputs, {name: values[name] for name in self._inputs})
        return result


# Held while a process forks, so that no child starts with a model half loaded and the lock taken for ever.
_LOADING = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LOADING.acquire, after_in_parent=_LOADING.release, after_in_child=_LOADING.release)


class PerProcess:
    """Loads a runtime once in each process. A forked child leaves its parent's alone: its locks may be taken."""

    def __init__(self, folder: Path, sha256: str) -> None:
        self._folder, self._sha256 = folder, sha256
        self._runtimes: dict[int, Runtime] = {}

    def __reduce__(self) -> tuple[type[PerProcess], tuple[Path, str]]:
        """Copies and pickles load it themselves."""
        return PerProcess, (self._folder, self._sha256)

    def get(self) -> Runtime:
        """The runtime of this process. Raises ModelError if it cannot be loaded."""
        pid = os.getpid()
        if pid not in self._runtimes:
            with _LOADING:
                if pid not in self._runtimes:
                    self._runtimes[pid] = Runtime(self._folder, self._sha256)
        return self._runtimes[pid]


def in_threads(work: Callable[[int], None], order: Sequence[int]) -> None:
    """`work` on each index, in this order, by one thread per core; the threads end before this returns."""
    workers = min(cores(), len(order))
    if workers <= 1:
        for index in order:
            work(index)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done in [pool.submit(work, index) for index in order]:
                done.result()
        except BaseException:  # Ctrl-C too: what has not begun need not be waited for
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def cores() -> int:
    """How many cores this process may use."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(every, _most or every)


def limit_cores(count: int) -> None:
    """From now on use at most so many cores: this process is one of several that share the machine."""
    global _most
    _most = max(1, count)

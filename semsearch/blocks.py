"""Large arrays in files that are opened at once and verified piece by piece, when a piece is first touched.

A file is cut into blocks of 64 KiB. What a file must be (`facts`) is kept elsewhere, in the manifest: its size and a
digest of each block. Opening maps the file into memory and verifies only the first block, where the header of the .npy
format lies. Whoever reads rows calls `check` or `check_at` before, which costs once for each block and then next to
nothing. Reading a mapped array without a check is allowed only where a wrong value does no harm.

The digests are for damage, not against an attacker, who could write the manifest as well.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semsearch.errors import StorageError

__all__ = ["BLOCK", "Checked", "DamagedCacheError", "facts", "is_sound", "open_array"]

Int64: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

# ms to verify 100 random rows of 1,536 bytes / the whole of a file of 307 MB in the system's cache, and KB of digests
# in the manifest, by KiB of a block: 16: 1.6 / 407, 300; 64: 8.4 / 362, 75; 256: 26 / 353, 18; 1,024: 94 / 241, 4.
BLOCK = 64 * 1024
# SHA-256 cut to 8 bytes: where the processor has instructions for it (0.88 GB/s), it is faster than BLAKE2b (0.47).
DIGEST = 8


class DamagedCacheError(StorageError):
    """A derived file is not what was written: delete it and build it again."""


class Checked:
    """An array in a mapped file, the blocks of which are verified when they are asked for.

    `array` is the mapped array, read-only. The methods raise DamagedCacheError if a block is not what was written. Any
    number of threads may use one at a time.
    """

    def __init__(self, path: Path, raw: Bytes, array: NDArray[Any], digests: bytes) -> None:
        self.array = array
        self._path = path
        self._raw = raw
        self._offset = len(raw) - array.nbytes
        self._width = array.nbytes // len(array) if len(array) else 0
        self._digests = digests
        self._seen = np.zeros(len(digests) // DIGEST, dtype=np.bool_)
        self._complete = False

    def __len__(self) -> int:
        return len(self.array)

    def check(self, start: int, stop: int) -> None:
        """Verify the blocks in which rows start:stop of the first axis lie, those not seen before."""
        if self._complete or start >= stop:
            return
        first = self._offset + start * self._width
        last = max(first, self._offset + stop * self._width - 1)
        blocks = np.arange(first // BLOCK, min(last // BLOCK + 1, len(self._seen)))
        self._verify(blocks[~self._seen[blocks]])

    def check_at(self, rows: Int64) -> None:
        """Verify the blocks in which the rows with these numbers (m,) lie, those not seen before."""
        if self._complete or not len(rows) or not self._width:
            return
        first = self._offset + np.asarray(rows, dtype=np.int64) * self._width
        reach = np.arange((self._width - 1) // BLOCK + 2) * BLOCK  # a row lies in as many blocks, at most
        touched = np.minimum(first[:, None] + reach, (first + self._width - 1)[:, None]) // BLOCK
        touched = touched[~self._seen[touched]]
        if len(touched):
            self._verify(np.unique(touched))

    def check_all(self) -> None:
        """Verify the whole file."""
        self._verify(np.flatnonzero(~self._seen))
        self._complete = True

    def _verify(self, blocks: Int64) -> None:
        for block in blocks.tolist():
            digest = _digest(self._raw[block * BLOCK : (block + 1) * BLOCK].data)
            if digest != self._digests[block * DIGEST : (block + 1) * DIGEST]:
                raise _damaged(self._path, f"block {block} of {len(self._seen)} is not what was written")
            self._seen[block] = True
        if len(blocks) and self._seen.all():
            self._complete = True


def facts(path: Path) -> dict[str, Any]:
    """What tells a file from a damaged one: its "size" in bytes and "sha256", or "blocks" if it is longer than one.

    "blocks" is one hexadecimal string of the first 8 bytes of SHA-256 of each block. The whole file is read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= BLOCK:
            return {"size": size, "sha256": hashlib.sha256(file.read()).hexdigest()}
        digests = b"".join(_digest(block) for block in iter(lambda: file.read(BLOCK), b""))
    return {"size": size, "blocks": digests.hex()}


def is_sound(path: Path, facts_: Mapping[str, Any]) -> bool:
    """Whether the whole file is there and is what `facts` said of it."""
    try:
        return facts(path) == dict(facts_)
    except OSError:
        return False


def open_array(path: Path, facts_: Mapping[str, Any]) -> Checked:
    """Map a .npy file of which `facts` are known. It takes the same time for any size.

    Raises DamagedCacheError if the file is missing, if its size or header is not what was written, and, for a file of
    one block, if anything in it is not.
    """
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
        digests = bytes.fromhex(facts_["blocks"]) if "blocks" in facts_ else None
        if len(raw) != facts_["size"]:
            raise _damaged(path, f"it has {len(raw)} bytes, not {facts_['size']}")
        if digests is None:
            if hashlib.sha256(raw.data).hexdigest() != facts_["sha256"]:
                raise _damaged(path, "its SHA-256 is another one")
            digests = _digest(raw.data)
        if len(digests) != -(-len(raw) // BLOCK) * DIGEST:
            raise _damaged(path, f"the manifest has {len(digests) // DIGEST} digests for {len(raw)} bytes")
        if _digest(raw[:BLOCK].data) != digests[:DIGEST]:
            raise _damaged(path, "its first block is not what was written")
        checked = Checked(path, raw, _mapped(path, raw), digests)
    except DamagedCacheError:
        raise
    except Exception as error:  # whatever a header that makes no sense makes NumPy's parser raise
        raise _damaged(path, str(error) or type(error).__name__) from error
    checked.check(0, 1)
    return checked


def _mapped(path: Path, raw: Bytes) -> NDArray[Any]:
    """The array behind the header; raises ValueError where it does not fit."""
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("it is not of .npy format 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    if fortran or not shape or dtype.hasobject or offset + prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"its header says {dtype} {shape}, which does not fit {len(raw)} bytes")
    # A plain view: numpy.memmap itself is slow to index.
    array: NDArray[Any] = np.asarray(raw)[offset:].view(dtype).reshape(shape)
    return array


def _digest(block: bytes | memoryview) -> bytes:
    return hashlib.sha256(block).digest()[:DIGEST]


def _damaged(path: Path, reason: str) -> DamagedCacheError:
    return DamagedCacheError(f"{path} is damaged: {reason}. Delete the cache; it is built again from the database.")

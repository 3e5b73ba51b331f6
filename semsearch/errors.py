"""Every error that semsearch raises on purpose.

    SemsearchError                  catch this one to catch them all
    ├── InputError                  an argument has a value that cannot be used (also a ValueError)
    │   └── FilterError             a `where` filter is not well formed
    ├── ModelError                  a model cannot be found, loaded or used
    │   └── EncoderError            an encoder returned something else than it promised
    ├── MissingExtraError           an optional package is not installed (also an ImportError)
    ├── LoadError                   a file cannot be turned into text; `path` and `reason`
    └── StorageError                something about the folder on disk
        ├── IndexNotFoundError      no index there, and create=False (also a FileNotFoundError)
        ├── IndexLockedError        another process is writing; `pid` and `host`
        ├── IndexMismatchError      the index was made with another encoder or analyzer
        ├── IndexFormatError        the index has a format that this release does not know
        ├── CorruptIndexError       the database is damaged
        ├── ReadOnlyIndexError      a write to an index that was opened for reading
        ├── ClosedIndexError        the index was closed before
        ├── EngineUnavailableError  the engine past this machine is away, or does not answer in time
        └── StorageFullError        no room left; what was committed is intact (also an OSError)

Each message says what happened, with the values, and what to do.
"""

from __future__ import annotations

__all__ = [
    "ClosedIndexError",
    "CorruptIndexError",
    "EncoderError",
    "EngineUnavailableError",
    "FilterError",
    "IndexFormatError",
    "IndexLockedError",
    "IndexMismatchError",
    "IndexNotFoundError",
    "InputError",
    "LoadError",
    "MissingExtraError",
    "ModelError",
    "ReadOnlyIndexError",
    "SemsearchError",
    "StorageError",
    "StorageFullError",
]


class SemsearchError(Exception):
    """The root of every error that semsearch raises on purpose."""


class InputError(SemsearchError, ValueError):
    """An argument has a value that cannot be used."""


class FilterError(InputError):
    """A `where` filter is not well formed."""


class ModelError(SemsearchError):
    """A model cannot be found, loaded or used."""


class EncoderError(ModelError):
    """An encoder returned something else than the `Encoder` protocol promises."""


class MissingExtraError(SemsearchError, ImportError):
    """An optional package is not installed."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it: pip install 'semsearch[{extra}]'"
        )
        self.package = package
        self.extra = extra


class LoadError(SemsearchError):
    """A file cannot be turned into text."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[LoadError], tuple[str, str]]:
        return (type(self), (self.path, self.reason))


class StorageError(SemsearchError):
    """Something about the folder on disk."""


class IndexNotFoundError(StorageError, FileNotFoundError):
    """There is no index at the location, and it was not to be created."""


class IndexLockedError(StorageError):
    """Another process is writing to the index."""

    def __init__(self, location: str, pid: int | None, host: str | None, timeout: float) -> None:
        owner = f"process {pid} on {host}" if pid is not None else "another process"
        super().__init__(
            f"{location} is being written by {owner}; it was not free within {timeout:g} s. "
            "Wait for it to finish, pass a longer timeout=, or search meanwhile: reading needs no lock."
        )
        self.pid = pid
        self.host = host


class IndexMismatchError(StorageError):
    """The index was made with another encoder or analyzer."""


class IndexFormatError(StorageError):
    """The index has a format that this release does not know."""


class CorruptIndexError(StorageError):
    """The database is damaged."""


class ReadOnlyIndexError(StorageError):
    """A write to an index that was opened for reading."""


class ClosedIndexError(StorageError):
    """The index was closed before."""


class EngineUnavailableError(StorageError):
    """The engine past this machine is away, or does not answer in time; what was written before is there."""


class StorageFullError(StorageError, OSError):
    """No room is left on the disk; what was committed is intact."""


def unstorable(id: str, error: Exception) -> InputError:
    """The error for metadata of a document that JSON has no form for."""
    return InputError(
        f"The metadata of document {id!r:.200} cannot be stored as JSON: {error}. "
        "Use strings, finite numbers, booleans, None, and lists and mappings of these."
    )

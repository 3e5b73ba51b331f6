"""One connection to Milvus: calls with retries, back-off, jitter and a time limit, and errors of ours.

pymilvus has retries of its own, without jitter; they hardly ever begin, since it gives up when it cannot reconnect at
once. Every call here can be repeated: rows are upserted under ids that are known before, and deleted by them.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from semsearch.engines.location import Location
from semsearch.errors import (
    EngineUnavailableError,
    InputError,
    MissingExtraError,
    StorageError,
    StorageFullError,
)

__all__ = ["Connection", "RefusedError"]

FIRST_WAIT = 0.05  # seconds; doubled after each try, with jitter
LONGEST_WAIT = 2.0
CONNECT = 5.0  # seconds for one try to connect
FAREWELL = 2.0  # seconds for what is only tidier

# What a server says that is starting, recovering, overloaded or moving data about, by number or by word.
PASSING_CODES = frozenset({2, 4, 8, 103, 106, 400, 500, 503, 901, 902, 904})
PASSING = re.compile(
    r"not ready|not healthy|unavailable|recovering|offline|no available|closed channel|not fully loaded|standby|"
    r"abnormal|initializing|rate limit|too many requests|fail connecting|node not (found|match)|channel not|"
    r"timeout|timed out|deadline|connection (reset|refused)|socket closed",
    re.IGNORECASE,
)
NOT_LOADED = re.compile(r"not loaded|has been released|load the collection|call load", re.IGNORECASE)
CLOSED = re.compile(r"unauthenticated|authenticat|permission denied|privilege|invalid token", re.IGNORECASE)
FULL = re.compile(r"disk quota|disk.{0,20}(full|exhaust)|no space left", re.IGNORECASE)


class RefusedError(StorageError):
    """The server understood a call and will not do it; `code` is its number for the reason."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


_ours: ContextVar[bool] = ContextVar("semsearch_milvus_call", default=False)


class _Quiet(logging.Filter):
    """pymilvus logs every error with a traceback before it raises it; ours are retried, or raised again."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


_quiet = _Quiet()
_files: dict[str, int] = {}  # how often each Milvus Lite file is open in this process
_files_lock = threading.Lock()


class Connection:
    """A client of the server or file at a location. Raises EngineUnavailableError if there is none in time.

    `version` is (major, minor) of a server, (0, 0) for one that does not tell, such as the core of milvus-lite 2;
    `is_emulator` is set for milvus-lite 3, which has a version of its own.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.version = (0, 0)
        self.is_emulator = False
        self._pid = os.getpid()
        self._client: Any = None
        self._seen: set[str] = set()  # collections that were read since the last failure
        try:
            import pymilvus
        except ImportError as error:
            raise MissingExtraError("An index in Milvus", "pymilvus", "milvus") from error
        for name in ("pymilvus.decorators", "pymilvus.client.connection_manager", "milvus_lite.server_manager"):
            logging.getLogger(name).addFilter(_quiet)
        self._pymilvus = pymilvus
        if location.path:
            _hold_file(location)
        try:
            self._client = self._attempt(self._connect, f"connect to {location}")
            self._learn_version()
        except BaseException:
            self.close()
            raise

    def _connect(self, timeout: float) -> Any:
        options = {"secure": True} if self.location.secure else {}
        return self._pymilvus.MilvusClient(
            self.location.uri,
            token=self.location.credentials,
            db_name=self.location.database,
            timeout=min(timeout, CONNECT),
            dedicated=True,
            **options,
        )

    def _learn_version(self) -> None:
        try:
            version = str(self.call("get_server_version"))
        except RefusedError:  # the core of milvus-lite 2 has no such call
            return
        self.is_emulator = "lite-" in version and version.startswith("milvus_lite")
        if (found := re.search(r"(\d+)\.(\d+)", version)) is not None:
            self.version = (int(found[1]), int(found[2]))

    @property
    def is_server(self) -> bool:
        """Whether this is a server or cluster, and no Milvus Lite of either kind."""
        return not self.is_emulator and not self.is_core

    @property
    def is_core(self) -> bool:
        """Whether this is milvus-lite 2, the core of a server in a process of its own."""
        return self.version == (0, 0)

    @property
    def raw(self) -> Any:
        """The MilvusClient."""
        return self._client

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the client, again and again until it is done or the location's `timeout` is over.

        The first reading of a collection, also after a failure, is a strong one: a server that was started again
        shows older and older states otherwise, until it has read its log.
        """

        def one(timeout: float) -> Any:
            fresh = "consistency_level" in options and args[0] not in self._seen
            given = {**options, "consistency_level": "Strong"} if fresh else options
            result = getattr(self._client, name)(*args, timeout=timeout, **given)
            if fresh:
                self._seen.add(args[0])
            return result

        return self._attempt(one, name.replace("_", " "), args[0] if args else None)

    def call_once(self, name: str, *args: Any, **options: Any) -> None:
        """Call a method of the client, and never mind if it fails or takes longer than FAREWELL seconds."""
        with suppress(Exception):
            self._silently(lambda timeout: getattr(self._client, name)(*args, timeout=timeout, **options), FAREWELL)

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a child of the one that connected."""
        return os.getpid() != self._pid

    def _attempt(self, one: Callable[[float], Any], what: str, collection: str | None = None) -> Any:
        if self.is_foreign:
            raise EngineUnavailableError(
                f"{self.location} was opened before this process was forked; a connection does not survive that. "
                "Open the index in the child."
            )
        deadline = time.monotonic() + self.location.timeout
        wait = FIRST_WAIT
        reason = "no answer"
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self._silently(one, left)
            except Exception as error:
                self._seen.clear()
                reason = self._reason(error)
                code = _code(error)
                if collection is not None and (code == 101 or NOT_LOADED.search(reason)):
                    self._load_again(collection, deadline)
                elif not _passes(error, code, reason):
                    raise self._refused(what, reason, code) from error
            time.sleep(max(0.0, min(random.uniform(wait / 2, wait), deadline - time.monotonic())))
            wait = min(2 * wait, LONGEST_WAIT)
        raise EngineUnavailableError(
            f"{self.location} is away, or did not answer within {self.location.timeout:g} s ({what}: {reason}). "
            "What was written before is there, and the call can be repeated. See whether the server runs, or give it "
            "more time with ?timeout= in the location."
        )

    def _load_again(self, collection: str, deadline: float) -> None:
        """A server that was started again may have to be told to read a collection; if it fails, the call will say."""
        with suppress(Exception):
            left = deadline - time.monotonic()
            self._silently(lambda timeout: self._client.load_collection(collection, timeout=timeout), max(left, 0.1))

    def _silently(self, one: Callable[[float], Any], timeout: float) -> Any:
        token = _ours.set(True)
        try:
            return one(timeout)
        finally:
            _ours.reset(token)

    def _reason(self, error: Exception) -> str:
        """The first line of what pymilvus or gRPC says, without credentials."""
        text = getattr(error, "message", None) or getattr(error, "details", lambda: "")() or str(error)
        text = str(text).strip().splitlines()[0] if str(text).strip() else type(error).__name__
        for secret in (self.location.credentials, self.location.credentials.partition(":")[2]):
            if secret:
                text = text.replace(secret, "***")
        return text if len(text) <= 300 else text[:297] + "..."

    def _refused(self, what: str, reason: str, code: int) -> Exception:
        if self.location.path and "local milvus" in reason:
            return EngineUnavailableError(
                f"{self.location} cannot be opened: another process has it open, its folder is not there, or it is no "
                "Milvus Lite file. A file serves one process at a time; for several, run a server."
            )
        if FULL.search(reason):
            return StorageFullError(f"{self.location} has no room left ({what}: {reason}). What was written is intact.")
        if CLOSED.search(reason):
            return InputError(
                f"{self.location} does not let us in ({what}: {reason}). Give a user and password in the location, "
                "milvus://user:password@host, or a token in the environment variable MILVUS_TOKEN."
            )
        return RefusedError(f"{self.location} refuses to {what}: {reason}", code)

    def close(self) -> None:
        """Let go of the connection; a second call does nothing."""
        client, self._client = self._client, None
        if os.getpid() != self._pid:
            return
        if client is not None:
            with suppress(Exception):
                client.close()
        if self.location.path and self._pid:
            _let_go_of_file(self.location.path)
        self._pid = 0


def _code(error: Exception) -> int:
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else 0


def _passes(error: Exception, code: int, reason: str) -> bool:
    """Whether the same call may succeed a little later."""
    status = getattr(error, "code", None)
    status = status() if callable(status) else status
    name = "" if isinstance(status, int) else getattr(status, "name", "")
    if name:
        return name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "RESOURCE_EXHAUSTED", "INTERNAL")
    if getattr(error, "is_input_error", False):
        return False
    return bool(getattr(error, "retriable", False)) or code in PASSING_CODES or PASSING.search(reason) is not None


def _hold_file(location: Location) -> None:
    try:
        import milvus_lite  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"The Milvus Lite file {location.path}", "milvus-lite", "milvus-lite") from error
    with _files_lock:
        _files[location.path] = _files.get(location.path, 0) + 1


def _let_go_of_file(path: str) -> None:
    """Stop Milvus Lite's server when nobody in this process uses the file any more, so that its lock is free."""
    with _files_lock:
        _files[path] -= 1
        if _files[path]:
            return
        del _files[path]
        with suppress(Exception):
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(path)

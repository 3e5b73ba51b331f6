"""Files are parsed in a worker process with limits: a bad file costs its own text, and nothing else.

    with Parser() as parser:
        parser.expect(Path("handbook/rules.pdf"))            # optional: the worker begins already
        document = parser.load(Path("handbook/rules.pdf"))   # as `load_file`; LoadError with the reason

A PDF that makes its parser crash, loop or eat memory takes the worker with it: that file is a `LoadError`, and another
worker goes on with the next. What counts against a file is what a worker that has read nothing else does with it, so
no verdict depends on the files before. The worker is started when the first file needs it, by `sys.executable` (a
script needs no `__main__` guard, threads do no harm), reused, and gone with its parent.

Plain text and source code are read in this process: nothing but decoding happens to them, in linear time. So is what a
worker cannot import (a loader of a `__main__` script, a lambda), and everything where there is no Python to start (an
application with Python inside): then without these limits, as a logged warning says once.

Limits on memory are the kernel's (`RLIMIT_AS`). macOS does not enforce them; time and crashes are dealt with there too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from semsearch import loading
from semsearch.errors import LoadError
from semsearch.formats import MAX_CHARACTERS, Extracted
from semsearch.loading import load_file
from semsearch.records import Document

__all__ = ["AHEAD", "Parser", "ParserUnavailableError"]

SECONDS = 60.0  # of processor time for a file, and one more for each megabyte of it
PATIENCE = 5.0  # by the clock it may take as many times longer: the machine may have other things to do
MEMORY = 2 << 30  # bytes that the worker may take on top of what an idle one has
START_SECONDS = 60.0  # until a new worker says that it is there
AHEAD = 3  # files that are asked for before their turn: their requests fit into a pipe, whatever their names
MAX_FILES = 500  # then a fresh worker takes over, and so it does when
MAX_RESIDENT = 512 << 20  # bytes of memory stay in use
MAX_WRITTEN = 16 << 20  # bytes of a file that a worker may write: bytecode of the modules it imports
MAX_ANSWER = 4 * MAX_CHARACTERS + (64 << 20)  # bytes

_BOOT = """
import json, sys
options = json.loads(sys.argv[1])
sys.path[:] = options.pop("path")
from semsearch.parsing import serve
serve(**options)
"""

_log = logging.getLogger(__name__)


class ParserUnavailableError(LoadError):
    """Trouble of the machine, not of the file: no worker could be started, or it was killed from outside. Try again."""


class _DiedError(Exception):
    """The worker is gone, or was ended for its time; `failure` says what a user reads, for the file at `path`."""

    def __init__(self, failure: Callable[[str], LoadError], *, final: bool = False) -> None:
        super().__init__()
        self.failure = failure
        self.final = final  # whether a fresh worker would do no better


# ---- the caller's side -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Request:
    path: str
    loader: str
    seconds: float

    def line(self) -> bytes:
        fields = {"path": self.path, "loader": self.loader, "seconds": self.seconds}
        return _encoded(fields) + b"\n"


class _Worker:
    """One child process, and the two pipes to it."""

    def __init__(self, memory: int) -> None:
        # The last entry finds this package where an import hook of the parent found it.
        path = [*sys.path, str(Path(__file__).parents[1])]
        options = json.dumps({"path": path, "memory": memory})
        utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
        # A process group of its own: Ctrl-C is for the parent, which closes the worker.
        self._process = subprocess.Popen(
            [sys.executable, "-P", *utf8, "-c", _BOOT, options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            process_group=0,
        )
        self._ready = False
        self.answered = 0

    def ask(self, request: _Request) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` will tell why
            self._process.stdin.write(request.line())

    def answer(self, seconds: float) -> tuple[dict[str, Any], str]:
        """The next answer: what it says, and the text. Raises _DiedError if there is none within `seconds`."""
        if not self._ready:
            self._ready = self._frame(START_SECONDS, _not_started) is not None
        frame = self._frame(seconds * PATIENCE, _died(seconds))
        self.answered += 1
        return frame

    def _frame(self, seconds: float, died: Callable[[int | None], _DiedError]) -> tuple[dict[str, Any], str]:
        deadline = time.monotonic() + seconds
        sizes = self._read(16, deadline, died)
        header, text = int.from_bytes(sizes[:8]), int.from_bytes(sizes[8:])
        if header + text > MAX_ANSWER:
            raise _DiedError(lambda path: LoadError(path, "the parser crashed: its answer makes no sense"))
        content = self._read(header + text, deadline, died)
        with memoryview(content) as view:
            return _decoded(view[:header]), str(view[header:], "utf-8", "surrogatepass")

    def _read(self, size: int, deadline: float, died: Callable[[int | None], _DiedError]) -> bytearray:
        assert self._process.stdout is not None
        content = bytearray(size)
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        done = 0
        with memoryview(content) as view:
            while done < size:
                left = max(0.0, deadline - time.monotonic())
                # A second look: this process itself may have been stopped (Ctrl-Z) until after the deadline.
                if not poll.poll(left * 1000) and not poll.poll(0):
                    raise died(None)
                got = self._process.stdout.readinto(view[done:])  # type: ignore[attr-defined]
                if not got:
                    raise died(self._exit_code())
                done += got
        return content

    def _exit_code(self) -> int:
        try:
            return self._process.wait(5)
        except subprocess.TimeoutExpired:  # it closed its end of the pipe, and lives
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """End the process: there is nothing that it would have to save."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def abandon(self) -> None:
        """Leave the process to the parent: in a forked child it is not ours to wait for."""
        self._process.returncode = 0  # or Popen would warn that it still runs
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _not_started(code: int | None) -> _DiedError:
    how = f"gave no sign of life in {START_SECONDS:g} s" if code is None else f"ended at once ({_exit_name(code)})"
    reason = f"the process that parses files could not be started: {sys.executable} {how}"
    return _DiedError(lambda path: ParserUnavailableError(path, reason))


def _died(seconds: float) -> Callable[[int | None], _DiedError]:
    def because(code: int | None) -> _DiedError:
        if code is None:
            reason = f"took longer than {seconds * PATIENCE:.0f} s"
        elif code == -signal.SIGXCPU:
            reason = f"took longer than {seconds:.0f} s of processor time"
        elif code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
            reason = f"the parser was killed ({_exit_name(code)}); perhaps the machine ran out of memory"
            return _DiedError(lambda path: ParserUnavailableError(path, reason))
        else:
            reason = f"damaged or hostile: the parser crashed ({_exit_name(code)})"
        # What was read before does not make a parser slow: a second try would only take as long again.
        return _DiedError(lambda path: LoadError(path, reason), final=code in (None, -signal.SIGXCPU))

    return because


def _exit_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


class Parser:
    """Loads files in a worker process; a context manager, which ends the worker. Any number of threads may use one.

    `seconds` of processor time and `memory` in bytes are what one file may take; None is `SECONDS` and `MEMORY`.
    """

    def __init__(self, *, seconds: float | None = None, memory: int | None = None) -> None:
        self._seconds = SECONDS if seconds is None else seconds
        self._memory = MEMORY if memory is None else memory
        self._worker: _Worker | None = None
        self._asked: deque[_Request] = deque()  # in the order in which the worker will answer
        self._lock = threading.RLock()
        _parsers.add(self)

    def load(self, path: str | os.PathLike[str], *, id: str | None = None) -> Document:
        """One file as a document: what `semsearch.loading.load_file` returns.

        Raises LoadError with its reasons, and "took longer than ...", "needed more than ... of memory", "the parser
        crashed (SIGSEGV)"; its subclass ParserUnavailableError if the file is not to blame.
        """
        source = Path(path).absolute()
        request = self._request(source)
        if request is None:
            return load_file(source, id=id)
        with self._lock:
            answer, text = self._fetched(request)
        if "absent" in answer:
            _warn_once(f"a loader ({request.loader}) that a worker process cannot import ({answer['absent']})")
            return load_file(source, id=id)
        if "reason" in answer:
            raise LoadError(str(source), answer["reason"])
        name = source.name if id is None else id
        return Document(name, text, answer["title"], str(source), answer["metadata"])

    def expect(self, path: str | os.PathLike[str]) -> None:
        """Let the worker begin with a file that `load` will be called for soon; the last few count, in their order."""
        request = self._request(Path(path).absolute())
        with self._lock:
            if request is not None and len(self._asked) < AHEAD and request not in self._asked:
                with contextlib.suppress(LoadError):  # `load` will raise it
                    self._ask(request)

    def close(self) -> None:
        """End the worker; the next `load` starts another."""
        with self._lock:
            self._asked.clear()
            if self._worker is not None:
                worker, self._worker = self._worker, None
                worker.close()

    def __enter__(self) -> Parser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, source: Path) -> _Request | None:
        """What to ask the worker; None for a file that is to be read here."""
        suffix = loading.suffix_of(source)
        if loading.is_plain(suffix) or (loader := _loader_name(suffix)) is None or not _has_interpreter():
            return None
        try:
            size = source.lstat().st_size
        except (OSError, ValueError):
            return None  # a reason that is cheaply had
        return _Request(str(source), loader, self._seconds + size / 1e6)

    def _ask(self, request: _Request) -> None:
        if self._worker is None:
            try:
                self._worker = _Worker(self._memory)
            except OSError as error:
                reason = f"the process that parses files could not be started: {error.strerror or error}"
                raise ParserUnavailableError(request.path, reason) from None
        self._worker.ask(request)
        self._asked.append(request)

    def _fetched(self, request: _Request) -> tuple[dict[str, Any], str]:
        """The answer to a request; files that were asked for before it, and not wanted any more, are passed over."""
        while True:
            if request not in self._asked:
                self._ask(request)
            assert self._worker is not None
            asked, fresh = self._asked.popleft(), self._worker.answered == 0
            try:
                answer, text = self._worker.answer(asked.seconds)
            except _DiedError as death:
                self.close()  # what else was asked for is asked again when its turn comes
                if asked == request and (fresh or death.final):
                    raise death.failure(request.path) from None
                continue
            except BaseException:  # Ctrl-C: half an answer may have been read
                self.close()
                raise
            if answer["retire"]:
                self.close()
            if asked == request and ("again" not in answer or fresh):
                return answer, text


def _loader_name(suffix: str) -> str | None:
    """How a worker finds the loader: a suffix that it knows, or `module:name`; None if it cannot."""
    loader = loading.LOADERS[suffix]
    if loading.SHIPPED.get(suffix) is loader:
        return suffix
    for known, shipped in loading.SHIPPED.items():
        if shipped is loader:
            return known
    module, name = getattr(loader, "__module__", "__main__"), getattr(loader, "__qualname__", "<none>")
    try:
        importable = module != "__main__" and attrgetter(name)(sys.modules[module]) is loader
    except (AttributeError, KeyError):
        importable = False
    if not importable:
        _warn_once(f"a loader ({module}.{name}) that is not a function of a module")
    return f"{module}:{name}" if importable else None


def _has_interpreter() -> bool:
    """Whether `sys.executable` is a Python: elsewhere starting it would start the application itself once more."""
    name = Path(sys.executable or "").name.lower()
    if name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False):
        return True
    _warn_once(f"no Python interpreter at sys.executable ({sys.executable!r})")
    return False


_warned: set[str] = set()


def _warn_once(what: str) -> None:
    if what not in _warned:
        _warned.add(what)
        _log.warning("files are parsed in this process, without limits on time and memory: there is %s", what)


_parsers: weakref.WeakSet[Parser] = weakref.WeakSet()


def _forget_workers() -> None:
    # A forked child would keep the pipes open, and take answers that are meant for its parent.
    for parser in list(_parsers):
        parser._lock = threading.RLock()
        parser._asked.clear()
        if parser._worker is not None:
            parser._worker.abandon()
            parser._worker = None


os.register_at_fork(after_in_child=_forget_workers)


# ---- the worker's side -----------------------------------------------------------------------------------------------


def serve(memory: int) -> None:
    """Answer requests, a line of JSON each, until the parent closes the pipe or this process has had its time.

    An answer is two sizes of 8 bytes, JSON and text; both are UTF-8 in which lone surrogates are kept.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what parsers print must not get between the answers
        os.dup2(nowhere, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    _limit(memory)
    _send(answers, {})
    for count, line in enumerate(requests, start=1):
        answer, text = _answered(_decoded(line), memory)
        answer["retire"] = "again" in answer or count >= MAX_FILES or _resident() > MAX_RESIDENT
        _send(answers, answer, text)


def _die_with_parent() -> None:
    """The pipe tells a waiting worker that its parent is gone; one in the middle of a file is told by the kernel."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, this process is the one to go
    if sys.platform == "linux":
        import ctypes

        # PR_SET_PDEATHSIG. It fires when the thread that started this process ends, too: the next file gets another.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _limit(memory: int) -> None:
    now = _pages(0)
    for kind, limit in (
        (resource.RLIMIT_AS, now + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MAX_WRITTEN),
        (resource.RLIMIT_NOFILE, 64),
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system knows every limit
            limit = min([limit, *(each for each in resource.getrlimit(kind) if each != resource.RLIM_INFINITY)])
            resource.setrlimit(kind, (limit, limit))


def _limit_time(seconds: float) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time() + seconds)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _answered(request: Mapping[str, Any], memory: int) -> tuple[dict[str, Any], bytes]:
    _limit_time(request["seconds"])
    too_much = f"needed more than {memory / (1 << 30):.3g} GiB of memory"
    try:
        path = request["path"]
        try:
            loading.LOADERS[loading.suffix_of(Path(path))] = _loader(request["loader"])
        except Exception as error:
            return {"absent": f"{type(error).__name__}: {error}"}, b""
        document = load_file(path)
        if len(document.text) > MAX_CHARACTERS:
            return {"reason": f"more than {MAX_CHARACTERS:,} characters of text"}, b""
        answer = {"title": document.title, "metadata": document.metadata}
        _encoded(answer)  # raises for what is no JSON
        return answer, document.text.encode("utf-8", "surrogatepass")
    except MemoryError:
        return {"reason": too_much, "again": True}, b""
    except LoadError as error:
        if 2 * _peak() > memory:  # libraries in C have errors of their own for this, which do not say so
            return {"reason": f"{error.reason}, or {too_much}", "again": True}, b""
        return {"reason": error.reason}, b""
    except Exception as error:
        return {"reason": f"damaged: {type(error).__name__}: {error}"[:500]}, b""


def _loader(name: str) -> Callable[[bytes], Extracted]:
    if ":" not in name:
        return loading.SHIPPED[name]
    module, _, qualified = name.partition(":")
    found: Callable[[bytes], Extracted] = attrgetter(qualified)(import_module(module))
    return found


def _send(pipe: BinaryIO, answer: dict[str, Any], text: bytes = b"") -> None:
    header = _encoded(answer)
    pipe.write(len(header).to_bytes(8) + len(text).to_bytes(8) + header)
    pipe.write(text)
    pipe.flush()


def _encoded(value: Mapping[str, Any]) -> bytes:
    # Escapes as ASCII would join two lone surrogates in a row into one character.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _decoded(data: bytes | memoryview) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(str(data, "utf-8", "surrogatepass"))
    return value


def _pages(field: int) -> int:
    """The size of this process in bytes: field 0 in address space, 1 in memory; 0 where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()
    except OSError:
        return 0


def _peak() -> int:
    """The most address space that this process has had, in bytes; 0 where there is no /proc."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/status").read_text().split("VmPeak:")[1].split()[0]) << 10
    return 0


def _resident() -> int:
    return _pages(1) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

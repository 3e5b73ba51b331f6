"""Loaders that misbehave, for the worker process: a test puts them into LOADERS, and the worker imports this module."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

from semsearch.formats import Extracted

held: list[bytearray] = []


def loop(data: bytes) -> Extracted:
    while True:
        data = data[::-1]


def burn(data: bytes) -> Extracted:
    """Takes 0.4 s of processor time."""
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass
    return Extracted(str(os.getpid()))


def long(data: bytes) -> Extracted:
    return Extracted(data.decode() * 1_000_000)


def sleep(data: bytes) -> Extracted:
    time.sleep(600)
    return Extracted(data.decode())


def memory(data: bytes) -> Extracted:
    return Extracted(str(len([bytes(1 << 20) for _ in range(int(data))])))


def leak(data: bytes) -> Extracted:
    """Keeps as many MiB for ever as the file says."""
    held.append(bytearray(int(data) << 20))
    return Extracted(f"{len(held)} held by {os.getpid()}")


def segfault(data: bytes) -> Extracted:
    ctypes.string_at(0)
    return Extracted(data.decode())


def segfault_when_used(data: bytes) -> Extracted:
    """Crashes in a process in which it ran before."""
    held.append(bytearray(data))
    return Extracted(data.decode()) if len(held) == 1 else segfault(data)


def die(data: bytes) -> Extracted:
    """Ends as the file says: a signal below zero, or an exit code."""
    number = int(data)
    if number < 0:
        os.kill(os.getpid(), -number)
        signal.pause()
    os._exit(number)


def leave(data: bytes) -> Extracted:
    sys.exit(data.decode())


def noise(data: bytes) -> Extracted:
    print("printed" * 10_000)
    print("printed", file=sys.stderr)
    os.write(1, b"written" * 10_000)
    os.write(2, b"written")
    os.system("echo from a child")
    sys.stdin.read()
    threading.Thread(target=print, args=("from a thread",)).start()
    return Extracted(data.decode())


def odd(data: bytes) -> Extracted:
    """Whatever the file spells in Python's escapes, as text, title and metadata."""
    text = data.decode("unicode_escape")
    return Extracted(text, text, {"key " + text: [text, None, 1.5, {"deep": text}]})


def who(data: bytes) -> Extracted:
    return Extracted(str(os.getpid()), metadata={"limits": data.decode()})


def unserialisable(data: bytes) -> Extracted:
    return Extracted("text", metadata={"bytes": data})


def limits(data: bytes) -> Extracted:
    import resource

    names = data.decode().split()
    return Extracted(" ".join(str(resource.getrlimit(getattr(resource, name))[0]) for name in names))


def modules(data: bytes) -> Extracted:
    return Extracted(" ".join(sorted(sys.modules)))

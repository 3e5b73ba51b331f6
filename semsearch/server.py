"""A server over one index: search, answers, reading and syncs by HTTP, and a page to do so in a browser.

    semsearch serve --index indexes/handbook                    # http://127.0.0.1:8017
    semsearch.server.serve("indexes/handbook", port=8080)       # the same from a program; returns after Ctrl-C
    app = semsearch.server.create_app("indexes/handbook")       # an ASGI application, for a server of your own

It listens on loopback unless it has a token. Needs the extra `server`: pip install 'semsearch[server]'.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from semsearch.errors import InputError, MissingExtraError
from semsearch.gate import LOOPBACK_NAMES, Counters, Gate, Limits, is_loopback
from semsearch.items import label

if TYPE_CHECKING:
    import argparse

    from fastapi import FastAPI

    from semsearch.index import Index

__all__ = ["Limits", "check_reachable", "check_token", "create_app", "given_token", "main", "run", "serve"]

LEAST_TOKEN = 16  # characters
GRACE = 5  # seconds that running requests have when the server stops


def create_app(
    index: str | os.PathLike[str] | Index,
    *,
    roots: Sequence[str | os.PathLike[str]] = (),
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    reader: Any = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The server as an ASGI application.

    `index` is the folder of an index, opened for reading only unless there are `roots`, and closed when the application
    shuts down; or an open Index, which stays the caller's. `roots` are the folders that a client may sync. `token` is
    what a client must send as "Authorization: Bearer TOKEN"; without one only connections to a loopback address are
    answered. `hosts` are the names that the Host header may have; None means those of loopback, or any where there is a
    token. `reader` is as for `Answerer`.

    Raises InputError for a token of fewer than 16 characters or a root that is no folder, what opening an index raises,
    and MissingExtraError without FastAPI.
    """
    try:
        from semsearch.endpoints import PATHS, build
    except ModuleNotFoundError as error:
        raise MissingExtraError("The server", error.name or "fastapi", "server") from None
    from semsearch.service import Service

    if token is not None:
        check_token(token)
    limits = limits or Limits()
    service = Service(index, roots, reader, limits)
    counters = Counters((*PATHS, "/"))
    app = build(service, counters)
    app.state.service = service
    names = LOOPBACK_NAMES if hosts is None and token is None else hosts
    app.add_middleware(Gate, token=token, hosts=names, limits=limits, counters=counters)
    return app


def serve(
    index: str | os.PathLike[str] | Index,
    *,
    host: str = "127.0.0.1",
    port: int = 8017,
    roots: Sequence[str | os.PathLike[str]] = (),
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    reader: Any = None,
    limits: Limits | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve an index until Ctrl-C or SIGTERM; what runs then may end within five seconds.

    `port` 0 takes any that is free; `started` is called with the address once it is known. The rest is as for
    `create_app`. Raises InputError for a host that other machines can reach without a token, and for an address that
    cannot be had; otherwise as `create_app`.
    """
    check_reachable(host, token)
    if find_spec("uvicorn") is None:  # not imported yet: see _Interrupt
        raise MissingExtraError("The server", "uvicorn", "server")
    app = create_app(index, roots=roots, token=token, hosts=hosts, reader=reader, limits=limits)
    try:
        run(app, host, port, started)
    finally:
        app.state.service.close()  # the application does so itself, unless it never started


def run(app: Any, host: str, port: int, started: Callable[[str], None] | None = None) -> None:
    """Serve an ASGI application until Ctrl-C or SIGTERM; `started` is called with the address once it is known."""
    with _Interrupt() as interrupt:
        import uvicorn

        listening = listen(host, port)
        config = uvicorn.Config(
            app,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            http="h11",  # the other parser takes headers without end
            ws="none",
        )
        server = uvicorn.Server(config)
        interrupt.then(lambda: setattr(server, "should_exit", True))
        name = f"[{host}]" if ":" in host else host
        try:
            if started is not None:
                started(f"http://{name}:{listening.getsockname()[1]}")
            server.run(sockets=[listening])
        finally:
            listening.close()


class _Interrupt:
    """Takes Ctrl-C for a wish where uvicorn does not.

    An exception in the middle of an import may leave Python's lock of imports taken, and a thread that loads a model
    would wait for it without end.
    """

    def __init__(self) -> None:
        self._wished = False
        self._stop: Callable[[], None] | None = None
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def then(self, stop: Callable[[], None]) -> None:
        """Call `stop` when Ctrl-C comes, or now if it has come."""
        self._stop = stop
        if self._wished:
            stop()

    def _note(self, number: int, frame: object) -> None:
        self._wished = True
        if self._stop is not None:
            self._stop()


def main(options: argparse.Namespace) -> int:
    """`semsearch serve`: `options` has index, host, port, root, allow_host, token_file, reader, json. Returns 0."""
    token = given_token(options.token_file)

    def started(address: str) -> None:
        if options.json:
            print(json.dumps({"address": address}), flush=True)
        print(f"Serving {label(options.index)} on {address} (Ctrl-C stops it)", file=sys.stderr)
        if token is not None:
            print(f"The page, with the token: {address}/#token={quote(token, safe='')}", file=sys.stderr)

    serve(
        options.index,
        host=options.host,
        port=options.port,
        roots=options.root or (),
        token=token,
        hosts=options.allow_host,
        reader=options.reader,
        started=started,
    )
    return 0


def given_token(file: str | None) -> str | None:
    """From a file, or from the environment; never from the command line, which every user of the machine can see."""
    if file is None:
        return os.environ.get("SEMSEARCH_TOKEN") or None
    try:
        return Path(file).expanduser().read_text("utf-8").strip()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: ~ of a user that is not there
        raise InputError(f"The token file {file!r} cannot be read: {error}.") from None


def check_reachable(host: str, token: str | None) -> None:
    """Raises InputError for a host that other machines can reach, without a token."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"host={host!r} can be reached from other machines, so the server needs a token of at least {LEAST_TOKEN} "
            "characters: export SEMSEARCH_TOKEN=\"$(python -c 'import secrets; print(secrets.token_urlsafe(32))')\""
        )


def check_token(token: str) -> None:
    """Raises InputError for a token that is short, not printable ASCII, or has a space."""
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"A token has at least {LEAST_TOKEN} printable ASCII characters and no space; this one does not. "
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket, for port 0 on any that is free. Raises InputError if it cannot be had."""
    if not 0 <= port <= 65535:
        raise InputError(f"There is no port {port}. Choose one up to 65535 with --port, or 0 for any that is free.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        raise InputError(f"Cannot listen on {host} port {port}: {error}. Choose another with --port.") from None

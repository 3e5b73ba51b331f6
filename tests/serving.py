"""A real server in a thread, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from semsearch.server import create_app

PATIENCE = 120  # seconds; it takes a few


@contextmanager
def served(index: Any, **options: Any) -> Iterator[str]:
    """The address of a server over an index, once it is ready."""
    app = create_app(index, **options)
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=3, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while not (server.started and server.servers):
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def client(index: Any, *, ready: bool = True, **options: Any) -> Iterator[httpx.Client]:
    """A client of such a server, with its token if it has one; waits until it is ready unless told not to."""
    token = options.get("token")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with (
        served(index, **options) as address,
        httpx.Client(base_url=address, headers=headers, timeout=PATIENCE) as asking,
    ):
        deadline = time.monotonic() + PATIENCE
        while ready and asking.get("/health").status_code != 200:
            assert time.monotonic() < deadline, asking.get("/health").json()
            time.sleep(0.02)
        yield asking

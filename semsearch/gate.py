"""What a request passes before the server looks at it, and what every response carries. Plain ASGI, no package.

A web page of another site can make a browser ask a server on loopback. Three things keep it out: the name that the
browser asked for must be one of ours (a name of the attacker's that points to 127.0.0.1 is not), a request that changes
something must come from our own page, and no response says that another site may read it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Any

from semsearch.errors import InputError

__all__ = ["LOOPBACK_NAMES", "Counters", "Gate", "Limits", "headers_for", "is_loopback"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OPEN = frozenset({"/", "/app.js", "/marks.js", "/style.css", "/icon.svg", "/health"})  # need no token
FREE = 16  # requests for these at once: whoever has no token cannot take every thread from those who have one
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # seconds

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for, and how many may be worked on at once.

    `max_body` bytes of a request, `max_query` characters of a query or question, `max_k` passages, `max_window`
    characters of a document, `max_concurrent` requests, `body_seconds` until a request's body must be there. Raises
    InputError for a limit below 1.
    """

    max_body: int = 64 * 1024
    max_query: int = 2000
    max_k: int = 100
    max_window: int = 100_000
    max_concurrent: int = 16
    body_seconds: float = 10.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name == "body_seconds" else 1
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
                raise InputError(f"{each.name}={value!r} is no limit. Pass a number of at least {least}.")


class Counters:
    """What has been counted since the start, as Prometheus reads it (text format 0.0.4)."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._paths = tuple(paths)
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._count: Counter[str] = Counter()
        self.in_flight = 0

    def note(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request; a path that is not ours counts as "other", so that nobody can make up series."""
        known = self._known(path)
        self._requests[method if method in ("GET", "POST", "DELETE") else "other", known, status] += 1
        self._seconds[known] += seconds  # type: ignore[assignment]
        self._count[known] += 1
        for bound in BUCKETS:
            self._buckets[known, bound] += seconds <= bound

    def _known(self, path: str) -> str:
        return next((each for each in self._paths if path == each or path.startswith(f"{each}/")), "other")

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """The whole page; `gauges` maps names to what they mean and their value."""
        lines = _family("semsearch_requests_total", "counter", "Requests by method, path and status.")
        for (method, path, status), count in sorted(self._requests.items()):
            lines.append(f'semsearch_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}')
        name = "semsearch_request_seconds"
        lines += _family(name, "histogram", "How long requests took, streams to their end.")
        for path in sorted(self._count):
            for bound in BUCKETS:
                lines.append(f'{name}_bucket{{path="{path}",le="{bound}"}} {self._buckets[path, bound]}')
            lines.append(f'{name}_bucket{{path="{path}",le="+Inf"}} {self._count[path]}')
            lines.append(f'{name}_sum{{path="{path}"}} {self._seconds[path]:.6f}')
            lines.append(f'{name}_count{{path="{path}"}} {self._count[path]}')
        for name, (meaning, value) in {"requests_in_flight": ("Requests now.", self.in_flight), **gauges}.items():
            lines += [*_family(f"semsearch_{name}", "gauge", meaning), f"semsearch_{name} {value:.17g}"]
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


class _Refusal(Exception):  # noqa: N818
    """A request that goes no further."""

    def __init__(self, status: int, error: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = json.dumps({"error": error, "message": message}).encode()
        self.headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


class Gate:
    """Wraps an ASGI application; see the module.

    Without a token only connections to a loopback address are answered. `hosts` are the names that the Host header may
    have, without port; None lets every name pass.
    """

    def __init__(
        self, app: App, *, token: str | None, hosts: Sequence[str] | None, limits: Limits, counters: Counters
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._limits = limits
        self._counters = counters
        self._working = {True: 0, False: 0}  # requests for what is open, and the others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers_for(scope["path"])]
            await send(message)

        self._counters.in_flight += 1
        try:
            await self._checked(scope, receive, sending)
        except _Refusal as refusal:
            await _respond(sending, refusal)
        finally:
            self._counters.in_flight -= 1
            self._counters.note(scope["method"], scope["path"], status, time.perf_counter() - begun)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        self._check_address(scope)
        self._check_host(headers)
        _check_origin(scope["method"], headers)
        is_open = scope["path"] in OPEN
        if not is_open:
            self._check_token(headers)
        # Counted apart, so that a server that is busy is not taken for one that is down.
        working, most = self._working[is_open], FREE if is_open else self._limits.max_concurrent
        if working >= most:
            message = f"{working} requests are being worked on, as many as allowed. Try again in a second."
            raise _Refusal(503, "Busy", message, retry_after="1")
        self._working[is_open] += 1
        try:
            if not is_open:  # nothing that is open looks at a body
                receive = _replaying(await self._body(headers, receive), receive)
            await self._app(scope, receive, send)
        finally:
            self._working[is_open] -= 1

    def _check_address(self, scope: Scope) -> None:
        server = scope.get("server")
        if self._token is None and server is not None and server[1] is not None and not is_loopback(server[0]):
            raise _Refusal(
                403,
                "Forbidden",
                "Without a token the server answers on loopback only. Start it with one: SEMSEARCH_TOKEN.",
            )

    def _check_host(self, headers: dict[bytes, list[bytes]]) -> None:
        given = headers.get(b"host", [])
        if len(given) > 1 or not self._is_ours(_host_of(b"".join(given))):
            raise _Refusal(
                421,
                "MisdirectedRequest",
                "The Host header names another server than this one. Names that it may have are set by --allow-host.",
            )

    def _is_ours(self, name: str) -> bool:
        # Every address of loopback is as good as the name localhost: only a name can be made to point elsewhere.
        return self._hosts is None or name in self._hosts or ("localhost" in self._hosts and is_loopback(name))

    def _check_token(self, headers: dict[bytes, list[bytes]]) -> None:
        if self._token is None:
            return
        scheme, _, given = b"".join(headers.get(b"authorization", [b""])[:1]).partition(b" ")
        # Both are always compared in full, whatever the scheme says.
        right = secrets.compare_digest(given.strip(), self._token)
        if not right or scheme.lower() != b"bearer":
            raise _Refusal(
                401,
                "Unauthorized",
                "A token is needed: send the header 'Authorization: Bearer TOKEN'.",
                www_authenticate='Bearer realm="semsearch"',
            )

    async def _body(self, headers: dict[bytes, list[bytes]], receive: Receive) -> bytes:
        most = self._limits.max_body
        too_large = _Refusal(413, "TooLarge", f"The body of a request has at most {most:,} bytes.", connection="close")
        length = headers.get(b"content-length", [b"0"])[0]
        if not length.isdigit() or int(length[:20]) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise _Refusal(
                408, "Timeout", "The body of the request did not come in time.", connection="close"
            ) from None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine as only it sees itself: localhost, 127.0.0.0/8 or ::1."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _host_of(header: bytes) -> str:
    """The name in a Host header, without the port; an IPv6 address keeps its brackets."""
    text = header.decode("latin-1").lower()
    return text[: text.find("]") + 1] if text.startswith("[") else text.partition(":")[0]


def _check_origin(method: str, headers: dict[bytes, list[bytes]]) -> None:
    """A browser says from which site a page asks; only our own page may ask for more than to read."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return
    host = headers.get(b"host", [b""])[0].lower()
    foreign = any(origin.lower().partition(b"://")[2] != host for origin in headers.get(b"origin", []))
    if foreign or b"cross-site" in headers.get(b"sec-fetch-site", []):
        raise _Refusal(403, "Forbidden", "The request comes from a page of another site.")


def _replaying(body: bytes, receive: Receive) -> Receive:
    """What gives the body that was read already, and then what the client does."""
    waiting: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return waiting.popleft() if waiting else await receive()

    return replay


def headers_for(path: str) -> list[tuple[bytes, bytes]]:
    """What every response to a request for a path carries."""
    # The page may be kept but is asked for again each time; what documents say is not kept.
    return [*HEADERS, (b"cache-control", b"no-cache" if path in OPEN else b"no-store")]


async def _respond(send: Send, refusal: _Refusal) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(refusal.body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": [*headers, *refusal.headers]})
    await send({"type": "http.response.body", "body": refusal.body})

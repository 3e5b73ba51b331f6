"""A generative reader behind a server that speaks the OpenAI chat completions protocol: llama.cpp, Ollama, vLLM.

    reader = open_remote("openai:llama3.2@http://localhost:11434")
    for piece in reader.stream("When are late fees charged?", passages):
        print(piece, end="", flush=True)

It needs no package but the standard library. The question and the passages leave this process: to the server that was
named and to no other, for redirects are not followed and proxies of the environment are not used. The key in the
environment variable OPENAI_API_KEY goes along where nobody else can read it: over https, or to this machine.

The server alone knows its tokens, so here they are estimated, see `estimate_tokens`.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from semsearch.detokenising import until_text, without_leading_space
from semsearch.display import clean, shorten
from semsearch.errors import InputError, ModelError
from semsearch.generation import MAX_CONTEXT_TOKENS, MAX_NEW_TOKENS
from semsearch.outline import without_surrogates
from semsearch.packing import Shown, pack
from semsearch.prompts import CHAT, Template
from semsearch.records import Context, Passage

__all__ = ["PREFIX", "RemoteReader", "estimate_tokens", "open_remote"]

PREFIX = "openai:"
KEY = "OPENAI_API_KEY"
LONGEST = 86_400  # seconds of silence that may be asked for
CONNECT = 10.0  # seconds to reach the server
WHOLE = 10  # times the longest silence: how long an answer may take in all
WAITS = (0.5, 2.0)  # seconds before the second and the third try
LONGEST_WAIT = 10.0  # however long a server asks to wait
FRAME = 64  # tokens that a chat template may add around the message
CHARACTERS = 64  # that a token has at most, on average over an answer
_BUSY = {429, 500, 502, 503, 504}
_LINE = 1 << 20  # bytes of one event
_ERROR = 4096  # bytes of an answer that is an error
_BLOCK = 1 << 14


def open_remote(
    name: str,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_context_tokens: int = MAX_CONTEXT_TOKENS,
    template: Template | str | os.PathLike[str] | None = None,
    timeout: float = 120.0,
) -> RemoteReader:
    """The reader for "openai:MODEL@http://host[:port][/path]"; without a path it is /v1.

    Nothing is sent before it is asked to write. The other arguments are those of `RemoteReader`. Raises InputError for
    a name that is not of this form, or that holds a password: the key belongs into the environment.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"A reader on a server is named openai:MODEL@http://host:port, got {_shown(name)!r}.")
    return RemoteReader(
        match[1],
        match[2],
        max_new_tokens=max_new_tokens,
        max_context_tokens=max_context_tokens,
        template=template,
        timeout=timeout,
    )


_NAME = re.compile(r"openai:(\S+?)@(\w+://.+)")


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, rather too many than too few.

    One for every four letters of a word that are begun, one for each digit, sign and line break, and three for every
    four bytes of what is not ASCII.

    >>> estimate_tokens("Late fees: 20 cents."), estimate_tokens("東京都")
    (8, 7)
    """
    count = 0.0
    for match in _PIECES.finditer(text):
        piece = match[0]
        if not piece.isascii():
            count += 0.75 * len(piece.encode("utf-8", "replace"))
        else:
            count += (len(piece) + 3) // 4 if piece.isalpha() else 1
    return int(count + 0.999)


_PIECES = re.compile(r"[A-Za-z]+|[\x21-\x7e]|\n|[^\x00-\x7f]+")


class RemoteReader:
    """A model on a server, as a generative reader: `stream(question, passages)`.

    `max_context_tokens` is how many tokens (estimated) the prompt may have: at most the server's window less
    `max_new_tokens`; Ollama's is 4,096 unless told otherwise. `timeout` is the longest silence of the server in
    seconds, also before the first word, while it reads the prompt; ten times as long is the most in all. A `template`
    replaces the wording. Decoding is greedy (temperature 0), as far as the server does as it is told.

    Raises InputError for an address that is not http or https, and for numbers out of their range.
    """

    def __init__(
        self,
        model: str,
        address: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_context_tokens: int = MAX_CONTEXT_TOKENS,
        template: Template | str | os.PathLike[str] | None = None,
        timeout: float = 120.0,
    ) -> None:
        self._secure, self._host, self._port, self._path = _address(address)
        for option, value in (("max_new_tokens", max_new_tokens), ("max_context_tokens", max_context_tokens)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{option} is a number of tokens and at least 1, got {value!r}.")
        if not 0 < timeout <= LONGEST:
            raise InputError(f"timeout is a number of seconds above 0 and at most {LONGEST}, got {timeout!r}.")
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.model = model
        self.address: str = f"{'https' if self._secure else 'http'}://{host}:{self._port}{self._path}"
        self.name: str = f"{PREFIX}{model}@{self.address}"
        self.max_new_tokens = max_new_tokens
        self.max_context_tokens = max_context_tokens
        self.timeout = timeout
        self.template: Template = CHAT if template is None else Template.of(template)
        self._shown = Shown()

    def __repr__(self) -> str:
        return f"RemoteReader({self.model!r}, {self.address!r}, max_new_tokens={self.max_new_tokens})"

    def context(self, question: str, passages: Sequence[Passage]) -> Context:
        """What of the passages goes to the server, by rank, in whole sentences; as that of the other readers.

        Raises InputError for an empty question, for one that leaves no room, and if there are passages but nothing of
        any fits.
        """
        return self._shown.get(question, passages) or self._pack(question, passages)[1]

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]:
        """The answer in pieces of text, as they come from the server; none without passages.

        Closing the iterator closes the connection, which tells the server to stop. Raises what `context` raises at
        once, and while it runs ModelError: the server is away, refuses, is silent, says something that is not the
        protocol, or breaks off. As long as it has not begun to answer it is asked up to three times.
        """
        prompt, context = self._pack(question, passages)
        if not context.used:
            return iter(())
        return until_text(without_leading_space(self._write(prompt)), self.template.stops)

    def _pack(self, question: str, passages: Sequence[Passage]) -> tuple[str, Context]:
        """The message and what of the passages is in it."""
        if not isinstance(question, str) or not question.strip():
            raise InputError(f"A question is a string with at least one word, got {question!r:.80}")
        before, after = self.template.fill_prompt(question)
        room = self.max_context_tokens - FRAME - estimate_tokens(before) - estimate_tokens(after)
        if room < 1:
            raise InputError(
                f"The question has about {estimate_tokens(after)} tokens with its frame; {self.name} has room for "
                f"{self.max_context_tokens} in all. Ask a shorter question."
            )
        packed = pack(passages, room, lambda number, text: estimate_tokens(self.template.fill_passage(number, text)))
        if packed.left_out and not packed.used:
            raise InputError(
                f"Not one sentence of the {len(passages)} passages fits into the {room} tokens that {self.name} has "
                "for them. Use shorter passages, or a larger max_context_tokens if the model's window allows it."
            )
        blocks = zip(packed.numbers, packed.used, strict=True)
        content = "".join(self.template.fill_passage(number, passage.text) for number, passage in blocks)
        self._shown.put(question, passages, packed.context)
        return f"{before}{content}{after}", packed.context

    def _write(self, prompt: str) -> Iterator[str]:
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_new_tokens,
            "temperature": 0,
            "stream": True,
        }
        body = json.dumps(request).encode()
        end = time.monotonic() + WHOLE * self.timeout
        exchange = self._ask(body, end)
        try:
            yield from _at_most(CHARACTERS * self.max_new_tokens, _contents(exchange.lines(end), self.name), self.name)
        finally:
            exchange.close()

    def _ask(self, body: bytes, end: float) -> _Exchange:
        """The server's answer once it begins; a server that is away or busy is asked again."""
        for wait in (*WAITS, None):
            exchange = _Exchange(self)
            try:
                exchange.begin(body, end)
                return exchange
            except _BusyError as error:
                exchange.close()
                if wait is None or time.monotonic() + wait > end:
                    raise ModelError(str(error)) from error.__cause__
                time.sleep(min(max(wait, error.wait), LONGEST_WAIT))
            except BaseException:
                exchange.close()
                raise
        raise AssertionError


class _BusyError(ModelError):
    """What may be over in a moment."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Exchange:
    """One request and its answer, over a connection of its own."""

    def __init__(self, reader: RemoteReader) -> None:
        self._reader = reader
        self._response: http.client.HTTPResponse | None = None
        self._socket: socket.socket | None = None
        self._key_sent = False
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(
                reader._host, reader._port, timeout=CONNECT, context=ssl.create_default_context()
            )
            if reader._secure
            else http.client.HTTPConnection(reader._host, reader._port, timeout=CONNECT)
        )

    def begin(self, body: bytes, end: float) -> None:
        """Send the request and read the answer up to where its content begins."""
        name = self._reader.name
        try:
            self._connection.connect()
            self._socket = self._connection.sock
            self._wait_until(end)
            self._connection.request("POST", f"{self._reader._path}/chat/completions", body, self._headers())
            response = self._connection.getresponse()
        except TimeoutError as error:
            raise ModelError(self._silent()) from error
        except UnicodeError as error:  # of a part of the name that is empty or too long
            raise ModelError(f"{name} cannot be reached: {self._reader._host!r} is not the name of a host.") from error
        except (OSError, http.client.HTTPException) as error:
            raise _BusyError(
                f"{name} cannot be reached: {_reason(error)}. Is the server running, and is that its address?"
            ) from error
        self._response = response
        if response.status != 200:
            raise self._refusal(response)
        if response.headers.get_content_type() != "text/event-stream":
            raise ModelError(
                f"{name} answered with {clean(response.headers.get_content_type())} instead of a stream of events. "
                'The server has to support "stream": true of the OpenAI chat completions protocol.'
            )

    def lines(self, end: float) -> Iterator[str]:
        """The lines of the answer, without their ends."""
        assert self._response is not None
        limit = _LINE + 4096 * self._reader.max_new_tokens
        held = bytearray()
        try:
            while True:
                self._wait_until(end)
                block = self._response.read1(_BLOCK)
                if not block:
                    break
                limit -= len(block)
                held += block
                lines: list[bytearray] = []
                if b"\n" in block:
                    *lines, held = held.split(b"\n")
                if limit < 0 or len(held) > _LINE:
                    raise ModelError(f"{self._reader.name} sent far more than was asked for; it was cut off.")
                for line in lines:
                    yield line.rstrip(b"\r").decode()
        except TimeoutError as error:
            raise ModelError(self._silent()) from error
        except (OSError, http.client.HTTPException) as error:
            raise ModelError(f"{self._reader.name} broke off in the middle of its answer: {_reason(error)}.") from error
        except UnicodeDecodeError as error:
            raise ModelError(f"{self._reader.name} sent something that is not UTF-8.") from error

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Connection": "close"}
        key = os.environ.get(KEY, "").strip()
        assert self._socket is not None
        if key and (self._reader._secure or ipaddress.ip_address(self._socket.getpeername()[0]).is_loopback):
            if not (key.isascii() and key.isprintable()):
                raise InputError(f"The key in the environment variable {KEY} has characters that no key has.")
            headers["Authorization"] = f"Bearer {key}"
            self._key_sent = True
        return headers

    def _wait_until(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        assert self._socket is not None
        self._socket.settimeout(min(self._reader.timeout, left))

    def _silent(self) -> str:
        if self._socket is None:
            return f"{self._reader.name} cannot be reached: no answer within {CONNECT:g} s. Is that its address?"
        return (
            f"{self._reader.name} sent nothing for {self._reader.timeout:g} s, or did not end. Pass a longer timeout=, "
            "or give it less to read: a smaller max_context_tokens=."
        )

    def _refusal(self, response: http.client.HTTPResponse) -> ModelError:
        """What to raise for an answer that is an error."""
        name, status = self._reader.name, response.status
        said = self._said(response)
        if status in _BUSY:
            hint = "It is asked too often." if status == 429 else "See the server's own log."
            return _BusyError(f"{name} failed with status {status}{said}. {hint}", _asked_to_wait(response))
        if status in (401, 403):
            hint = f"Is the key in the environment variable {KEY} right?"
            if not self._key_sent:
                hint = f"Put its key into the environment variable {KEY}; it is sent over https, or to this machine."
        elif status == 404:
            hint = f"Does the server have the model {self._reader.model!r}, and does its path end with /v1?"
        elif 300 <= status < 400:
            hint = "Redirects are not followed; give the address that it redirects to."
        else:
            hint = "A prompt that is too long is one reason: pass a smaller max_context_tokens=."
        return ModelError(f"{name} refused with status {status}{said}. {hint}")

    def _said(self, response: http.client.HTTPResponse) -> str:
        """The server's own words, as far as they can be shown; never the key."""
        try:
            text = response.read1(_ERROR).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return ""
        with suppress(ValueError, RecursionError):
            text = _message(json.loads(text))
        if key := os.environ.get(KEY, "").strip():
            text = text.replace(key, "***")
        text = shorten(clean(text), 200).rstrip(".")
        return f" ({text})" if text else ""


# --- The protocol ----------------------------------------------------------------------------------------------------


def _contents(lines: Iterator[str], name: str) -> Iterator[str]:
    """The pieces of text in a stream of events, up to [DONE] or the event that says it was the last."""
    for data in _events(lines):
        if data == "[DONE]":
            return
        piece, last = _content(data, name)
        if piece:
            yield piece
        if last:  # some servers keep the connection open after it
            return
    raise ModelError(f"{name} broke off in the middle of its answer.")


def _at_most(length: int, pieces: Iterator[str], name: str) -> Iterator[str]:
    """The pieces; raises ModelError where a server does not stop at the number of tokens that it was asked for."""
    for piece in pieces:
        length -= len(piece)
        if length < 0:
            raise ModelError(f"{name} does not stop at max_new_tokens. Use a server that honours max_tokens.")
        yield piece


def _events(lines: Iterator[str]) -> Iterator[str]:
    """The data of server-sent events: fields of several lines are joined, comments and other fields have none."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


def _content(data: str, name: str) -> tuple[str, bool]:
    """The text of one event, and whether the answer ends with it."""
    try:
        event = json.loads(data)
        if event.get("error") is not None:
            raise ModelError(f"{name} failed in the middle of its answer: {shorten(clean(_message(event)), 200)}")
        choices = event["choices"]
        if not choices:  # the last event may have the usage alone
            return "", False
        piece = choices[0]["delta"].get("content") or ""
        finished = choices[0].get("finish_reason") is not None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(
            f"{name} sent an event that is not of the OpenAI protocol: {shorten(clean(data), 100)!r}"
        ) from error
    if not isinstance(piece, str):
        raise ModelError(f"{name} sent a content that is not text: {shorten(clean(data), 100)!r}")
    return without_surrogates(piece), finished


def _message(value: Any) -> str:
    """The words in {"error": {"message": ...}} or {"error": ...}, whatever else comes."""
    error = value.get("error", value) if isinstance(value, dict) else value
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _asked_to_wait(response: http.client.HTTPResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _reason(error: Exception) -> str:
    return clean(str(error)) or type(error).__name__


# --- Addresses -------------------------------------------------------------------------------------------------------


def _address(address: str) -> tuple[bool, str, int, str]:
    """Whether it is https, the host, the port and the path."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise InputError(f"{_shown(address)!r} is not the address of a server.") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError(
            f"The address of a server is http://host:port/path and nothing more, got {_shown(address)!r}. A key "
            f"belongs into the environment variable {KEY}."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not _PATH.fullmatch(parts.path):
        raise InputError(f"The address of a server is http://host:port or https://host, got {_shown(address)!r}.")
    secure = parts.scheme == "https"
    return secure, parts.hostname, port or (443 if secure else 80), parts.path.rstrip("/") or "/v1"


_PATH = re.compile(r"[\w.~/%+-]*", re.ASCII)


def _shown(address: str) -> str:
    """An address without what may be secret in it."""
    return re.sub(r"[?#].*", "?***", re.sub(r"//.*@", "//***@", address, flags=re.DOTALL), flags=re.DOTALL)

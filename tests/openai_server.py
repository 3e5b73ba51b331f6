"""A server on loopback that speaks the OpenAI chat completions protocol, over a real model, and fails when told to.

    with Server(CausalReader(...)) as server:
        open_remote(f"openai:tiny@{server.address}")

`server.fault` makes it misbehave: "error", "busy", "unauthorised", "unknown", "redirect", "no stream", "cut early",
"silent", "repeats the key" at once; "slow" all the way; "cut", "ends", "stalls", "malformed", "not json",
"error event", "endless" after some pieces.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """The server in a thread of its own. `requests` has (path, headers, body) of each; `cancelled` is set when a
    client went away before the end."""

    def __init__(self, reader: Any, model: str = "tiny") -> None:
        self.reader, self.model = reader, model
        self.fault = ""
        self.faults_left = -1  # the fault goes away after so many requests; -1: never
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.cancelled = threading.Event()
        self.written = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def take_fault(self) -> str:
        if self.faults_left == 0:
            return ""
        self.faults_left -= self.faults_left > 0
        return self.fault

    def pieces(self, messages: list[dict[str, str]], length: int) -> Iterator[str]:
        """What the model writes after the messages: greedy, one step after the other."""
        import torch

        model, tokenizer = self.reader._model, self.reader._tokenizer
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        start, said = len(ids), ""
        while len(ids) - start < length:
            with torch.inference_mode():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
            now = tokenizer.decode(ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if not now.endswith("\ufffd") and len(now) > len(said):
                yield now[len(said) :]
                said = now
        rest = tokenizer.decode(ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if len(rest) > len(said):
            yield rest[len(said) :]


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.owner
        owner.requests.append((self.path, dict(self.headers), body))
        fault = owner.take_fault()
        try:
            if self.path != "/v1/chat/completions":
                self._refuse(404, "no such path")
            elif fault in _REFUSALS:
                self._refuse(*_REFUSALS[fault])
            elif fault == "repeats the key":
                self._refuse(401, f"Incorrect key {self.headers['Authorization'].removeprefix('Bearer ')}")
            elif fault == "unknown" or body["model"] != owner.model:
                self._refuse(404, f"model '{body['model']}' not found")
            elif fault == "redirect":
                self._refuse(307, "elsewhere", {"Location": "http://127.0.0.1:9/v1/chat/completions"})
            elif fault == "no stream":
                self._whole({"choices": [{"message": {"role": "assistant", "content": "It is closed."}}]})
            elif fault == "cut early":
                self.connection.close()
            elif fault == "silent":
                time.sleep(3)
            else:
                self._stream(body, fault)
        except (BrokenPipeError, ConnectionResetError):
            owner.cancelled.set()
        self.close_connection = True

    def _refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._whole({"error": {"message": message, "code": status}}, status, headers)

    def _whole(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, body: dict[str, Any], fault: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(b": a comment\n\n")
        self._event(self._delta({"role": "assistant", "content": ""}))
        for number, piece in enumerate(self.owner.pieces(body["messages"], body["max_tokens"])):
            self._event(self._delta({"content": piece}))
            self.owner.written += 1
            if number == 2 and self._misbehave(fault):
                return
            if fault == "slow":
                time.sleep(0.05)
        self._event(self._delta({}, "stop"))
        self._event({"choices": [], "usage": {"completion_tokens": self.owner.written}})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _misbehave(self, fault: str) -> bool:
        """Whether that was the end."""
        if fault == "malformed":
            self._event({"choices": "none"})
        elif fault == "not json":
            self._chunk(b"data: {not json}\n\n")
        elif fault == "error event":
            self._event({"error": {"message": "out of memory \x1b[31m", "code": 500}})
        elif fault == "endless":
            for _ in range(64):
                self._chunk(b"data: " + b"x" * (1 << 18))
        elif fault == "ends":
            self._chunk(b"")
        elif fault == "stalls":
            time.sleep(3)
        return fault in ("cut", "ends", "stalls")

    def _delta(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": "1",
            "object": "chat.completion.chunk",
            "model": self.owner.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }

    def _event(self, value: Any) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


_REFUSALS: dict[str, tuple[int, str]] = {
    "unauthorised": (401, "Incorrect API key provided"),
    "error": (500, "cannot compute"),
    "busy": (429, "slow down"),
}

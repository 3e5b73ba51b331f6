"""The server: a real one on loopback, and what it gives, refuses and never gives away."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from serving import PATIENCE, client, served
from toy import WordEncoder

import semsearch
from semsearch.analysis import Analyzer
from semsearch.errors import ClosedIndexError, IndexNotFoundError, InputError, MissingExtraError
from semsearch.gate import FREE, Counters, Gate, Limits, is_loopback
from semsearch.records import Hit, Passage
from semsearch.schemas import Explain
from semsearch.server import create_app, main, serve
from semsearch.service import Service, _hit, marked, plain

httpx = pytest.importorskip("httpx", reason="httpx is not installed")

TOKEN = "correct-horse-battery-staple"
FEES = "Late fees are charged from the second week. A late book costs 20 cents a day."
OWL = "🦉🦉 The owl flies late. 🦉 Its fee is a mouse."
ODD = "late \ud83d\ude00 \udc80 fee"
DOCUMENTS = [
    {"id": "fees.md", "text": FEES, "title": "Fees", "metadata": {"suffix": ".md", "rate": 0.2}},
    {"id": "birds/owl & mouse?#.txt", "text": OWL, "metadata": {"suffix": ".txt"}},
    {"id": "odd \udcff", "text": ODD, "metadata": {"suffix": ".txt", "bad\ud800": "\udfff"}},
    {
        "id": "paged.pdf",
        "text": "first page\fsecond page about tides\fthird",
        "metadata": {"suffix": ".pdf", "pages": 3},
    },
    {"id": "long.txt", "text": "word " * 1000, "metadata": {"suffix": ".txt"}},
]


class Writer:
    """A generative reader that writes what it is told to, word by word, and says when it was stopped."""

    name = "writer"

    def __init__(self, text: str = "A late book costs 20 cents a day. Dogs sing opera.") -> None:
        self.text = text
        self.go_on = threading.Event()
        self.stopped = threading.Event()
        self.fails = False

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]:
        try:
            for number, word in enumerate(self.text.split(" ")):
                if number == 1:
                    assert self.go_on.wait(PATIENCE)
                    if self.fails:
                        raise RuntimeError("/secret/path")
                yield word + " "
        finally:
            self.stopped.set()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[semsearch.Index]:
    location = tmp_path_factory.mktemp("secret-place") / "library"
    with semsearch.Index(location, encoder=WordEncoder(), analyzer="english") as index:
        index.add(DOCUMENTS)
        yield index


@pytest.fixture(scope="module")
def web(index: semsearch.Index) -> Iterator[httpx.Client]:
    with client(index) as asking:
        yield asking


def search(web: httpx.Client, query: str, **options: Any) -> list[dict[str, Any]]:
    answer = web.post("/api/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


# -- searching and reading ---------------------------------------------------------------------------------------------


def test_a_search_gives_what_the_index_gives(web: httpx.Client, index: semsearch.Index) -> None:
    for mode in ("hybrid", "dense", "lexical"):
        ours = index.search("late fees", k=3, mode=mode)
        theirs = search(web, "late fees", k=3, mode=mode)
        assert [(str(h.passage.id), h.score, h.rank) for h in ours] == [
            (h["passage_id"], h["score"], h["rank"]) for h in theirs
        ]
        assert [h.sources for h in ours] == [
            {leg: (s["rank"], s["score"]) for leg, s in h["sources"].items()} for h in theirs
        ]


def test_offsets_count_characters_and_marks_are_the_words_of_the_query(web: httpx.Client) -> None:
    by_id = {hit["document_id"]: hit for hit in search(web, "late fee")}
    owl = by_id["birds/owl & mouse?#.txt"]
    assert owl["text"] == OWL[owl["start"] : owl["end"]]
    assert [owl["text"][start:end] for start, end in owl["marks"]] == ["late", "fee"]
    fees = by_id["fees.md"]
    assert [fees["text"][start:end] for start, end in fees["marks"]] == ["Late", "fees", "late"]


def test_no_lone_surrogate_leaves_and_offsets_stay(web: httpx.Client) -> None:
    odd = next(hit for hit in search(web, "late fee") if hit["document_id"].startswith("odd"))
    assert odd["document_id"] == "odd \ufffd"
    assert odd["text"] == "late \ufffd\ufffd \ufffd fee"
    assert [odd["text"][start:end] for start, end in odd["marks"]] == ["late", "fee"]
    assert odd["metadata"] == {"suffix": ".txt", "bad\ufffd": "\ufffd"}
    json_only = {"content": b'{"query": "late \\ud800 \\udfff"}', "headers": {"content-type": "application/json"}}
    assert len(web.post("/api/search", **json_only).json()["hits"]) == 10  # nor is it refused
    part = web.get("/api/document", params={"passage_id": odd["passage_id"]}).json()
    assert part["text"] == "late \ufffd\ufffd \ufffd fee"


def test_a_filter(web: httpx.Client) -> None:
    hits = search(web, "late", where={"suffix": ".md"})
    assert [hit["document_id"] for hit in hits] == ["fees.md"]
    assert hits[0]["metadata"] == {"suffix": ".md", "rate": 0.2}
    answer = web.post("/api/search", json={"query": "late", "where": {"a": {"$near": 1}}})
    assert answer.status_code == 400
    assert answer.json()["error"] == "FilterError"


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each["id"].isascii()], ids=lambda each: each["id"])
def test_a_document_is_read_in_parts(web: httpx.Client, document: dict[str, Any]) -> None:
    text, start = "", 0
    while True:
        params = {"id": document["id"], "start": start, "size": 700}
        part = web.get("/api/document", params=params).json()
        assert part["start"] == start
        text, start = text + part["text"], part["end"]
        if part["end"] == part["length"]:
            break
    assert text == document["text"]


def test_pages_and_marks_of_a_document(web: httpx.Client) -> None:
    part = web.get("/api/document", params={"id": "paged.pdf", "start": 12, "query": "tide"}).json()
    assert (part["page"], part["metadata"]["pages"]) == (2, 3)
    assert [part["text"][start:end] for start, end in part["marks"]] == ["tides"]
    assert web.get("/api/document", params={"id": "fees.md"}).json()["page"] is None
    beyond = web.get("/api/document", params={"id": "fees.md", "start": 10**9}).json()
    assert (beyond["text"], beyond["start"], beyond["length"]) == ("", len(FEES), len(FEES))


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"id": "nothing"}, 404),
        ({"passage_id": 10**6}, 404),
        ({"passage_id": -1}, 422),
        ({"passage_id": 2**63}, 422),
        ({}, 400),
        ({"id": "fees.md", "passage_id": 1}, 400),
        ({"id": "fees.md", "size": 10**7}, 400),
        ({"id": "fees.md", "size": 0}, 422),
        ({"id": "fees.md", "start": "x"}, 422),
        ({"id": "fees.md", "query": "x" * 2001}, 400),
    ],
)
def test_documents_that_cannot_be_read(web: httpx.Client, params: dict[str, Any], status: int) -> None:
    answer = web.get("/api/document", params=params)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message"}


def test_an_explanation_is_that_of_the_hit(web: httpx.Client, index: semsearch.Index) -> None:
    hit = index.search("late fees", k=1)[0]
    answer = web.post("/api/explain", json={"query": "late fees", "passage_id": hit.passage.id})
    assert answer.json()["terms"] == dict(hit.why().terms)
    assert answer.json()["tokens"] == []  # the toy encoder has no vectors of tokens
    assert web.post("/api/explain", json={"query": "late", "passage_id": 10**6}).status_code == 404


def test_an_id_of_63_bits_loses_no_digit_in_javascript(web: httpx.Client) -> None:
    number = 2**63 - 1  # as an engine gives; the nearest number of JavaScript's is 2**63
    hit = _hit(Hit(Passage(number, "a", "late fees", 0, 9), 1.0, 1, {}), [])
    assert hit["passage_id"] == "9223372036854775807"
    assert Explain.model_validate({"query": "late", "passage_id": hit["passage_id"]}).passage_id == number
    found = search(web, "late fees", k=1)[0]
    asked = [{"query": "late fees", "passage_id": id} for id in (found["passage_id"], int(found["passage_id"]))]
    by_string, by_number = (web.post("/api/explain", json=each) for each in asked)
    assert (by_string.status_code, by_string.json()) == (200, by_number.json())
    for wrong in ("", "-1", "1.0", "²", str(2**63), "1" * 5000, True, 1.0, None):
        assert web.post("/api/explain", json={"query": "late", "passage_id": wrong}).status_code == 422


def test_what_is_not_said_is_no_more_than_the_limits_allow(index: semsearch.Index) -> None:
    with client(index, limits=Limits(max_k=3, max_window=10)) as web:
        assert len(search(web, "late fee")) == 3
        for path in ("/api/ask", "/api/ask/stream"):
            assert web.post(path, json={"question": "late fee?"}).status_code == 200
        assert web.get("/api/document", params={"id": "fees.md"}).json()["text"] == FEES[:10]
        passage = search(web, "charged", k=1)[0]["passage_id"]
        assert web.get("/api/document", params={"passage_id": passage}).json()["text"] == FEES[:10]
        assert web.post("/api/search", json={"query": "late", "k": 4}).status_code == 400


def test_words_are_marked_as_keyword_search_sees_them() -> None:
    def words(text: str, query: str, language: str = "english") -> list[str]:
        return [text[start:end] for start, end in marked(text, query, Analyzer(language))]

    assert words("Charged: the charge of charging charts.", "What is charged?") == ["Charged", "charge", "charging"]
    assert words("to be or not", "to be") == ["to", "be"]
    assert words("max_tokens and U.S.A.", "token usa") == ["max_tokens", "U.S.A"]
    assert words("東京都図書館の本", "図書館") == ["図書館"]
    assert words("図書と図書館と図", "図書館") == ["図書", "図書館"]
    assert words("hours図書館", "図書館 hours") == ["図書館"] or words("hours 図書館", "図書館 hours") == [
        "hours",
        "図書館",
    ]
    assert words("", "late") == words("late", "!") == []
    assert words("विलंब शुल्क कल लगता है", "शुल्क", "hindi") == ["शुल्क"]
    assert words("ค่าปรับล่าช้าต่อวัน", "ค่าปรับ") == ["ค่าปรับ"]
    assert words("cafe\u0301 cafe", "cafe\u0301", "none") == ["cafe\u0301"]


def test_plain_values_end_somewhere() -> None:
    nested: Any = "deep"
    for _ in range(500):
        nested = [nested]
    assert json.dumps(plain(nested)).count("[") == 16
    assert plain({"a\ud800": (1, float("inf"), b"x")}) == {"a\ufffd": [1, None, "b'x'"]}


# -- answering ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_a_span_with_its_passage(web: httpx.Client) -> None:
    answer = web.post("/api/ask", json={"question": "How much does a late book cost a day?", "k": 5}).json()
    assert answer["found"]
    assert "20 cents" in answer["text"]
    assert FEES[answer["start"] : answer["end"]] == answer["text"]
    passage = answer["passage"]
    assert [passage["text"][start:end] for start, end in passage["marks"]] == [answer["text"]]
    assert 0 < answer["score"] <= 1


def test_what_is_not_there_is_not_found(web: httpx.Client) -> None:
    answer = web.post("/api/ask", json={"question": "Who won the chess championship in 1972?"}).json()
    assert (answer["found"], answer["text"], answer["passage"], answer["start"]) == (False, "", None, None)
    assert all(other["text"] for other in answer["alternatives"])


def test_an_extracted_answer_streams_too(web: httpx.Client) -> None:
    asked = {"question": "How much does a late book cost a day?"}
    whole = web.post("/api/ask", json=asked).json()
    lines = [json.loads(line) for line in web.post("/api/ask/stream", json=asked).text.splitlines()]
    assert [line["type"] for line in lines] == ["piece", "answer"]
    assert lines[0]["text"] == lines[1]["answer"]["text"] == whole["text"]


def test_a_generated_answer_comes_while_it_is_written(index: semsearch.Index) -> None:
    writer = Writer()
    asked = {"question": "What does a late book cost?"}
    with client(index, reader=writer) as web, web.stream("POST", "/api/ask/stream", json=asked) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = response.iter_lines()
        assert json.loads(next(lines)) == {"type": "piece", "text": "A "}
        writer.go_on.set()  # the second word waits for this: the first one was not held back
        *pieces, last = [json.loads(line) for line in lines]
    assert "A " + "".join(piece["text"] for piece in pieces) == writer.text + " "
    answer = last["answer"]
    assert [(each["text"], each["supported"]) for each in answer["sentences"]] == [
        ("A late book costs 20 cents a day.", True),
        ("Dogs sing opera.", False),
    ]
    citation = answer["sentences"][0]["citations"][0]
    assert "20 cents" in FEES[citation["start"] : citation["end"]]


def test_hanging_up_stops_the_model(index: semsearch.Index) -> None:
    writer = Writer(" ".join(map(str, range(100_000))))
    writer.go_on.set()
    with client(index, reader=writer) as web:
        with web.stream("POST", "/api/ask/stream", json={"question": "What does a late book cost?"}) as response:
            assert next(response.iter_lines())
            assert not writer.stopped.is_set()
        assert writer.stopped.wait(PATIENCE)
        assert 'path="/api/ask/stream",status="200"} 1' in web.get("/metrics").text


def test_a_failure_in_the_middle_is_a_line_and_tells_nothing(index: semsearch.Index) -> None:
    writer = Writer()
    writer.go_on.set()
    with client(index, reader=writer) as web:
        writer.fails = True
        lines = [json.loads(line) for line in web.post("/api/ask/stream", json={"question": "Why?"}).text.splitlines()]
        assert [line["type"] for line in lines] == ["piece", "error"]
        assert lines[1]["error"] == {
            "error": "InternalError",
            "message": "An internal error; the server's log says more.",
        }
        whole = web.post("/api/ask", json={"question": "Why?"})
        assert (whole.status_code, whole.json()["error"]) == (500, "InternalError")
        assert "secret" not in whole.text
        assert "default-src 'none'" in whole.headers["content-security-policy"]
        assert whole.headers["cache-control"] == "no-store"


def test_a_question_that_cannot_be_asked_fails_before_the_stream(web: httpx.Client) -> None:
    answer = web.post("/api/ask/stream", json={"question": " "})
    assert (answer.status_code, answer.json()["error"]) == (400, "InputError")


def test_many_at_once_get_what_each_would_get_alone(web: httpx.Client) -> None:
    queries = ["late fees", "owl", "tides", "word", "mouse fee"] * 8
    alone = {query: search(web, query) for query in set(queries)}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: search(web, query), queries))
    assert together == [alone[query] for query in queries]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "late", "k": 101}, 400),
        ({"query": "x" * 2001}, 400),
        ({"query": ""}, 400),
        ({"query": "late", "k": 0}, 422),
        ({"query": "late", "k": 2.5}, 422),
        ({"query": "late", "k": "3"}, 422),
        ({"query": "late", "k": True}, 422),
        ({"query": "late", "mode": "magic"}, 422),
        ({"query": "late", "size": 3}, 422),
        ({"query": "late", "\ud800": 1}, 422),
        ({"query": "late", "mode": "\ud800"}, 422),
        ({"query": "late", "where": {"\ud800": {"$x\ud800": 1}}}, 400),
        ({"query": 3}, 422),
        ({}, 422),
        ([], 422),
        ({"query": "late", "where": []}, 422),
        ({"query": "late", "where": {"$or": []}}, 400),
    ],
)
def test_requests_that_are_not_well_formed(web: httpx.Client, body: Any, status: int) -> None:
    sent = {"content": json.dumps(body), "headers": {"content-type": "application/json"}}
    answer = web.post("/api/search", **sent)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "message"}
    assert len(answer.text) < 400


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 60_000, b'{"query": NaN}', b'{"a":' * 10_000, b"null", b""])
def test_bodies_that_are_no_request(web: httpx.Client, body: bytes) -> None:
    answer = web.post("/api/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"error", "message"}


def test_a_form_of_another_site_is_no_request(web: httpx.Client) -> None:
    """What a page can send across sites without being asked for leave: plain text and forms."""
    body = '{"root": "x"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert web.post("/api/sync", content=body, headers={"content-type": kind}).status_code == 422
    sent = {"content-type": "application/json", "origin": "https://evil.example"}
    answer = web.post("/api/sync", content=body, headers=sent)
    assert (answer.status_code, answer.json()["error"]) == (403, "Forbidden")
    assert web.post("/api/search", json={"query": "x"}, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    ours = web.post("/api/search", json={"query": "late"}, headers={"origin": str(web.base_url).rstrip("/")})
    assert ours.status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8017", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8017", 200),
        ("127.0.0.2:8017", 200),  # the address that `--host 127.0.0.2` prints
        ("10.0.0.5", 421),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("evil.example:127.0.0.1", 421),
        ("[::1].evil.example", 200),  # what follows the bracket is no name; browsers refuse such an address
        ("", 421),
    ],
)
def test_a_name_that_only_points_to_this_machine_is_refused(web: httpx.Client, host: str, status: int) -> None:
    for path in ("/", "/health", "/api/info"):
        assert web.get(path, headers={"host": host}).status_code == status


def test_bodies_have_a_limit(index: semsearch.Index) -> None:
    with client(index, limits=Limits(max_body=1000, body_seconds=0.5)) as web:

        def chunks(count: int) -> Iterator[bytes]:
            for _ in range(count):
                yield b" " * 100

        assert web.post("/api/search", content=b" " * 1001).status_code == 413
        assert web.post("/api/search", content=chunks(100)).status_code == 413
        assert web.post("/api/search", content=b" " * 1000).status_code == 422

        def slow() -> Iterator[bytes]:
            yield b" "
            time.sleep(1)
            yield b" "

        assert web.post("/api/search", content=slow()).status_code == 408
        assert web.post("/api/search", json={"query": "late"}).status_code == 200


def test_more_than_can_be_worked_on_are_told_to_come_back(index: semsearch.Index) -> None:
    writer = Writer()
    with client(index, reader=writer, limits=Limits(max_concurrent=2)) as web:
        asked = {"json": {"question": "What does a late book cost?"}}
        with (
            web.stream("POST", "/api/ask/stream", **asked) as one,
            web.stream("POST", "/api/ask/stream", **asked) as two,
        ):
            assert one.status_code == two.status_code == 200
            third = web.post("/api/search", json={"query": "late"})
            assert (third.status_code, third.headers["retry-after"], third.json()["error"]) == (503, "1", "Busy")
            assert web.get("/health").status_code == 200
            assert web.get("/").status_code == 200
            writer.go_on.set()
        deadline = time.monotonic() + PATIENCE
        while web.post("/api/search", json={"query": "late"}).status_code == 503:
            assert time.monotonic() < deadline


def test_what_needs_no_token_has_a_limit_of_its_own() -> None:
    """Whoever asks for /health without end cannot take every thread, and keeps nobody out."""

    async def ask() -> tuple[list[int], list[int]]:
        go_on, begun = asyncio.Event(), asyncio.Semaphore(0)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            begun.release()
            await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        gate = Gate(app, token=None, hosts=None, limits=Limits(max_concurrent=1), counters=Counters())

        async def request(path: str) -> int:
            statuses: list[int] = []

            async def receive() -> Any:
                return {"type": "http.request", "body": b""}

            async def send(message: Any) -> None:
                statuses.extend([message["status"]] if message["type"] == "http.response.start" else [])

            server = ("127.0.0.1", 80)
            await gate({"type": "http", "method": "GET", "path": path, "headers": [], "server": server}, receive, send)
            return statuses[0]

        waiting = [asyncio.create_task(request("/health")) for _ in range(FREE)]
        waiting.append(asyncio.create_task(request("/api/info")))
        for _ in waiting:
            await begun.acquire()
        refused = [await request("/health"), await request("/"), await request("/api/info")]
        go_on.set()
        return refused, [*await asyncio.gather(*waiting), await request("/health"), await request("/api/info")]

    assert asyncio.run(ask()) == ([503] * 3, [200] * (FREE + 3))


def test_a_token_is_needed_where_one_is_set(index: semsearch.Index) -> None:
    with client(index, token=TOKEN) as web:
        assert web.get("/api/info").status_code == 200
        assert web.get("/api/info", headers={"host": "search.example.org"}).status_code == 200
        assert web.get("/api/info", headers={"authorization": f"bearer {TOKEN}"}).status_code == 200
        wrong = [
            "",
            TOKEN,
            f"Basic {TOKEN}",
            "Bearer",
            "Bearer x",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Bearer \xe9",
        ]
        for path in ("/api/info", "/metrics", "/openapi.json", "/api/sync", "/nothing"):
            for given in wrong:
                answer = web.get(path, headers={"authorization": given.encode("latin-1")})
                assert (answer.status_code, answer.json()["error"]) == (401, "Unauthorized"), (path, given)
                assert answer.headers["www-authenticate"].startswith("Bearer")
        without = httpx.Client(base_url=web.base_url)
        with without:
            for path in ("/", "/app.js", "/marks.js", "/style.css", "/icon.svg", "/health"):
                assert without.get(path).status_code == 200
            assert without.post("/api/search", json={"query": "late"}).status_code == 401
    with client(index, token=TOKEN, hosts=["127.0.0.1", "search.example.org"]) as web:
        assert web.get("/api/info", headers={"host": "search.example.org:443"}).status_code == 200
        assert web.get("/api/info", headers={"host": "localhost"}).status_code == 421


@pytest.mark.parametrize(
    ("server", "token", "status"),
    [
        (("127.0.0.1", 80), None, 204),
        (("127.8.9.1", 80), None, 204),
        (("::1", 80), None, 204),
        (("::ffff:127.0.0.1", 80), None, 204),
        (("/run/semsearch.sock", None), None, 204),
        (("10.0.0.5", 80), None, 403),
        (("2001:db8::1", 80), None, 403),
        (("::ffff:10.0.0.5", 80), None, 403),
        (("search.example.org", 80), None, 403),
        (("10.0.0.5", 80), TOKEN, 204),
    ],
)
def test_without_a_token_only_loopback_is_answered(
    server: tuple[str, int | None], token: str | None, status: int
) -> None:
    """The connection counts, not what the request says of itself: an application may be bound to any address."""
    given = f"Bearer {TOKEN}".encode()
    messages = ask_directly(server, [(b"host", b"localhost"), (b"authorization", given)], token=token)
    assert messages[0]["status"] == status


def ask_directly(server: Any, headers: list[tuple[bytes, bytes]], token: str | None = None, **scope: Any) -> list[Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    gate = Gate(app, token=token, hosts=None, limits=Limits(), counters=Counters())
    plain_scope = {"type": "http", "method": "GET", "path": "/api/info", "headers": headers, "server": server}
    asyncio.run(gate({**plain_scope, **scope}, receive, send))
    return sent


def test_two_host_headers_and_web_sockets_are_refused() -> None:
    twice = [(b"host", b"localhost"), (b"host", b"evil.example")]
    assert ask_directly(("127.0.0.1", 80), twice)[0]["status"] == 421
    assert ask_directly(("127.0.0.1", 80), [], type="websocket")[0] == {"type": "websocket.close", "code": 1008}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "localhost.evil.example", "::ffff:10.0.0.1"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_every_response_carries_the_headers(web: httpx.Client) -> None:
    answers = [
        *(web.get(path) for path in ("/", "/app.js", "/health", "/api/info", "/metrics", "/nothing", "/api/sync/9")),
        web.get("/", headers={"host": "evil.example"}),
        web.post("/api/search", json={}),
        web.put("/api/search"),
        web.options("/api/search", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "cache-control" in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"
    assert web.get("/api/info").headers["cache-control"] == "no-store"


def test_nothing_is_loaded_from_elsewhere(web: httpx.Client) -> None:
    for path in ("/", "/app.js", "/marks.js", "/style.css"):
        text = web.get(path).text
        assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text.replace("http://www.w3.org", ""))
    for script in ("/app.js", "/marks.js"):
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
            assert forbidden not in web.get(script).text


# -- syncs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "secret-place" / "handbook"
    made.mkdir(parents=True)
    for number in range(3):
        (made / f"{number}.txt").write_text(f"Chapter {number} tells of late fees.")
    (made / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    return made


def finished(web: httpx.Client, id: int) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while (job := web.get(f"/api/sync/{id}").json())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return dict(job)


def test_a_sync_of_an_allowed_folder(folder: Path) -> None:
    location = folder.parent / "library"
    with semsearch.Index(location):
        pass
    with client(location, roots=[folder]) as web:
        assert web.get("/api/info").json()["roots"] == ["handbook"]
        started = web.post("/api/sync", json={"root": "handbook"})
        assert (started.status_code, started.json()["id"]) == (202, 1)
        job = finished(web, 1)
        assert (job["state"], job["done"], job["total"]) == ("done", 4, 4)
        assert {name: job["report"][name] for name in ("added", "updated", "removed", "unchanged", "failed")} == {
            "added": 3,
            "updated": 0,
            "removed": 0,
            "unchanged": 0,
            "failed": 1,
        }
        assert [path for path, _ in job["report"]["failures"]] == ["broken.pdf"]
        hits = search(web, "late fees")
        assert len(hits) == 3
        assert web.get("/api/info").json()["suffixes"] == {".txt": 3}
        assert [each["id"] for each in web.get("/api/sync").json()] == [1]
        everything = json.dumps([job, hits, web.get("/api/document", params={"id": "0.txt"}).json()])
        assert "secret-place" not in everything


@pytest.mark.parametrize("root", ["..", "/", "handbook/..", "/etc", "other", ""])
def test_other_folders_are_not_synced(folder: Path, root: str) -> None:
    location = folder.parent / "library"
    with semsearch.Index(location, encoder=WordEncoder()) as index, client(index, roots=[folder]) as web:
        answer = web.post("/api/sync", json={"root": root})
        assert answer.status_code == 400
        assert "'handbook'" in answer.json()["message"]
        assert web.get("/api/sync").json() == []
    assert client  # the index is the caller's, and was not closed by the server


def test_one_sync_at_a_time_and_it_can_be_stopped(folder: Path) -> None:
    class Slow(WordEncoder):
        gate = threading.Event()

        def encode(self, texts: Sequence[str], *, kind: str = "passage") -> Any:
            if kind == "passage":
                assert self.gate.wait(PATIENCE)
            return super().encode(texts, kind=kind)

    for number in range(400):
        (folder / f"more-{number}.txt").write_text(f"Chapter {number} is another one. " * 20)
    with semsearch.Index(folder.parent / "library", encoder=Slow()) as index, client(index, roots=[folder]) as web:
        first = web.post("/api/sync", json={"root": "handbook"}).json()
        second = web.post("/api/sync", json={"root": "handbook"})
        assert (second.status_code, second.json()["error"]) == (409, "RunningError")
        assert "semsearch_sync_running 1" in web.get("/metrics").text
        assert search(web, "late") == []  # searches go on
        assert web.delete(f"/api/sync/{first['id']}").status_code == 200
        Slow.gate.set()
        job = finished(web, first["id"])
        assert job["state"] == "cancelled"
        assert job["done"] < job["total"]
        third = web.post("/api/sync", json={"root": "handbook"}).json()
        assert finished(web, third["id"])["report"]["added"] + index.info()["documents"] >= 403
        assert index.info()["documents"] == 403


def test_another_writer_is_told(folder: Path) -> None:
    location = folder.parent / "library"
    with semsearch.Index(location, encoder=WordEncoder(), timeout=0.1) as index, client(index, roots=[folder]) as web:
        with index._store.writing():
            job = finished(web, web.post("/api/sync", json={"root": "handbook"}).json()["id"])
        assert (job["state"], job["error"]["error"]) == ("failed", "IndexLockedError")
        assert str(os.getpid()) in job["error"]["message"]
        assert "secret-place" not in json.dumps(job)


def test_a_server_without_roots_changes_nothing(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "library") as index:
        index.add([("a", "Late fees are charged.")])
    with client(tmp_path / "library") as web:
        assert [hit["document_id"] for hit in search(web, "late fees")] == ["a"]
        answer = web.post("/api/sync", json={"root": "library"})
        assert (answer.status_code, answer.json()["message"].endswith("Allowed: none.")) == (400, True)


def test_two_folders_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "docs").mkdir(parents=True)
    (tmp_path / "b" / "docs").mkdir(parents=True)
    with (
        semsearch.Index(tmp_path / "library", encoder=WordEncoder()) as index,
        client(index, roots=[tmp_path / "a" / "docs", tmp_path / "b" / "docs"]) as web,
    ):
        assert web.get("/api/info").json()["roots"] == ["docs", "docs-2"]


# -- state -------------------------------------------------------------------------------------------------------------


def test_health_says_when_and_why_not(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "library", encoder=WordEncoder()) as index:
        index.add([("a", "late")])
    with client(tmp_path / "library", ready=False) as web:  # the encoder is an object of the user's own
        deadline = time.monotonic() + PATIENCE
        while "toy-words" not in str(web.get("/health").json()["problem"]):
            assert time.monotonic() < deadline
        answer = web.get("/health")
        assert (answer.status_code, answer.json()["ready"], answer.json()["passages"]) == (503, False, 1)
        assert str(tmp_path) not in answer.text
        assert len(search(web, "late", mode="lexical")) == 1
        assert web.post("/api/search", json={"query": "late"}).status_code == 503


def test_messages_tell_no_folder_of_this_machine(index: semsearch.Index) -> None:
    service = Service(index, (), None, Limits())
    told = {
        f"{index.path}/index.db is damaged.": "library/index.db is damaged.",
        f"{Path.home()}/notes.txt": "~/notes.txt",
        "There is no model '/srv/private/models/reader'.": "There is no model 'reader'.",
        "/srv/private/a.txt: not readable": "a.txt: not readable",
        "http://localhost:11434/v1/chat does not answer": "http://localhost:11434/v1/chat does not answer",
        "handbook/fees.md and/or x / y": "handbook/fees.md and/or x / y",
    }
    assert {text: service.message(InputError(text)) for text in told} == told


def test_what_is_served(web: httpx.Client, index: semsearch.Index) -> None:
    info = web.get("/api/info").json()
    assert info["name"] == "library"
    assert (info["documents"], info["passages"]) == (5, len(index))
    assert info["suffixes"] == {".md": 1, ".pdf": 1, ".txt": 3}
    assert (info["encoder"], info["language"], info["roots"]) == ("toy-words", "english", [])
    health = web.get("/health").json()
    assert health == {"ready": True, "generation": info["generation"], "passages": len(index), "problem": None}


def test_metrics_count_requests(index: semsearch.Index) -> None:
    with client(index) as web:
        for _ in range(3):
            search(web, "late")
        web.get("/%22%7D%20evil%201%0A")
        web.get("/api/search/nothing")
        text = web.get("/metrics").text
    assert 'semsearch_requests_total{method="POST",path="/api/search",status="200"} 3' in text
    assert 'semsearch_request_seconds_count{path="/api/search"} 4' in text
    assert 'semsearch_requests_total{method="GET",path="other",status="404"} 1' in text
    assert f"semsearch_passages {len(index)}" in text
    assert "\nsemsearch_passages 1234567\n" in Counters().text({"passages": ("Passages.", 1234567.0)})
    names: dict[str, str] = {}
    buckets: dict[str, list[float]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split(" ")
            names[name] = kind
        elif not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"{}]*"(?:,[a-z]+="[^"{}]*")*\})? ([0-9.e+-]+)', line)
            assert match, line
            if match[1].endswith("_bucket"):
                series = re.sub(r',?le="[^"]*"', "", match[2])
                buckets.setdefault(series, []).append(float(match[3]))
    assert names["semsearch_requests_total"] == "counter"
    assert names["semsearch_request_seconds"] == "histogram"
    assert buckets
    assert all(counts == sorted(counts) for counts in buckets.values())


def test_the_openapi_page_describes_what_comes(web: httpx.Client) -> None:
    page = web.get("/openapi.json").json()
    schemas = page["components"]["schemas"]
    for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(page)):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    paths = {"/api/search", "/api/explain", "/api/ask", "/api/ask/stream", "/api/document", "/api/info", "/api/sync"}
    assert set(page["paths"]) == paths | {"/api/sync/{id}", "/health", "/metrics"}
    assert page["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    ours = {name: schema for name, schema in schemas.items() if "ValidationError" not in name}
    assert all(schema["description"] for schema in ours.values())
    hit = search(web, "late")[0]
    assert set(hit) == set(schemas["FoundPassage"]["properties"])
    refused = page["paths"]["/api/search"]["post"]["responses"]["422"]["content"]["application/json"]["schema"]
    assert refused == {"$ref": "#/components/schemas/Failure"}


# -- starting and stopping ---------------------------------------------------------------------------------------------


def test_what_is_refused_at_the_start(index: semsearch.Index, tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "search.example.org"):
        with pytest.raises(InputError, match="SEMSEARCH_TOKEN"):
            serve(index, host=host)
    for token in ("", "short", "x" * 15, "with a space in the middle", "ümlaut" * 5):
        with pytest.raises(InputError, match="at least 16"):
            create_app(index, token=token)
    with pytest.raises(InputError, match="no folder"):
        create_app(index, roots=[tmp_path / "nothing"])
    with pytest.raises(IndexNotFoundError):
        create_app(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    for wrong in (0, -1, float("nan"), True, "5"):
        with pytest.raises(InputError, match="max_k"):
            Limits(max_k=wrong)  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_said(index: semsearch.Index) -> None:
    with served(index) as address, pytest.raises(InputError, match="--port"):
        serve(index, port=int(address.rpartition(":")[2]))
    with pytest.raises(InputError, match="--port"):
        serve(index, port=70000)
    assert len(index.search("late", k=1)) == 1  # it stays the caller's


def test_an_index_is_closed_if_its_server_cannot_start(
    index: semsearch.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with semsearch.Index(tmp_path / "other", encoder=WordEncoder()) as other:
        other.add([("a", "Late fees are charged.")])
    made: list[Service] = []
    begin = Service.__init__

    def noted(service: Service, *given: Any) -> None:
        begin(service, *given)
        made.append(service)

    monkeypatch.setattr(Service, "__init__", noted)
    with served(index) as address, pytest.raises(InputError, match="--port"):
        serve(tmp_path / "other", port=int(address.rpartition(":")[2]))
    with pytest.raises(ClosedIndexError):
        made[-1].index.search("late")


def test_without_fastapi_the_error_says_what_to_install(
    index: semsearch.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "semsearch.endpoints", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'semsearch\[server\]'"):
        create_app(index)


def test_without_uvicorn_no_index_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"'uvicorn'.*pip install 'semsearch\[server\]'"):
        serve(tmp_path / "nothing")  # or it would be an IndexNotFoundError


def test_the_address_with_the_token_holds_every_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = "abc+def&ghi%41=#?/'x"
    monkeypatch.setenv("SEMSEARCH_TOKEN", token)
    monkeypatch.setattr("semsearch.server.serve", lambda *_, started, **__: started("http://127.0.0.1:1"))
    main(
        Namespace(
            index="x", host="127.0.0.1", port=0, root=None, token_file=None, allow_host=None, reader=None, json=False
        )
    )
    fragment = capsys.readouterr().err.rstrip().partition("#")[2]
    assert parse_qs(fragment) == {"token": [token]}  # as URLSearchParams of the page reads it


def test_a_token_file_that_cannot_be_read(tmp_path: Path) -> None:
    options = Namespace(
        index="x", host="127.0.0.1", port=0, root=None, token_file=str(tmp_path / "no"), allow_host=None, reader=None
    )
    with pytest.raises(InputError, match="token file"):
        main(options)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_in_order(tmp_path: Path, how: signal.Signals) -> None:
    with semsearch.Index(tmp_path / "library") as index:
        index.add([("a", "Late fees are charged.")])
    code = f"""
from argparse import Namespace
from semsearch.server import main
raise SystemExit(main(Namespace(index={str(tmp_path / "library")!r}, host="127.0.0.1", port=0, root=None,
                                token_file={str(tmp_path / "token")!r}, allow_host=None, reader=None, json=False)))
"""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert address, said
        assert process.stderr.readline().rstrip().endswith(f"/#token={TOKEN}")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if httpx.get(f"{address[0]}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert httpx.get(f"{address[0]}/api/info").status_code == 401
        process.send_signal(how)
        assert process.wait(PATIENCE) == (0 if how == signal.SIGINT else -signal.SIGTERM)
        assert process.stderr.read() == ""

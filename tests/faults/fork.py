"""Processes and threads beside an index and a library that keeps threads: 2 orders × 3 ways × torch, FAISS, tokenizers.

- order "before": index and library have been used, with several threads, before the children start; in the fork another
  thread even searches at that moment. "after": the index is open, and both are used for the first time by the children.
- way: fork, spawn, threads.
- library: torch and tokenizers inside the encoder of the index, FAISS in its search of many queries at once.

Each child searches in every mode, uses the library with several threads itself, and adds a document; then the parent
does so. It passes if everybody gets the right answers or a clear error of ours, nobody hangs for 15 seconds, and the
index is in order afterwards.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from toy import WordEncoder

import semsearch
from faults.outcome import Outcome
from semsearch.errors import SemsearchError

LIBRARIES = ("torch", "faiss", "tokenizers")
CASES = tuple(product(("after", "before"), ("threads", "fork", "spawn")))
CI = FULL = len(LIBRARIES) * len(CASES)

LIMIT = 15.0  # seconds in which a child must be done; more is a hang
START = 60.0  # seconds in which a spawned child must have imported what it needs
CHILDREN = 2  # forks or threads at a time; one is spawned, since it has to import everything
TEXTS = {f"d{number}": f"shared words and number{number}" for number in range(200)}
QUERIES = [f"number{number} words" for number in range(0, 200, 10)]


# -- the libraries, used with several threads --------------------------------------------------------------------------


class TorchEncoder(WordEncoder):
    """The toy encoder, with a detour through torch that is long enough for its threads."""

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        import torch

        rows = torch.from_numpy(super().encode(texts, kind=kind))
        turned = rows @ torch.eye(self.dimension).flip(0)
        return (turned @ torch.eye(self.dimension).flip(0)).numpy()


class TokenizersEncoder(WordEncoder):
    """The toy encoder, which has its texts split by `tokenizers`."""

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        encodings = _tokenizer().encode_batch([*texts, *TEXTS.values()])
        split = [" ".join(encoding.tokens) for encoding in encodings[: len(texts)]]
        return super().encode(split, kind=kind)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", *sorted({word for text in (*TEXTS.values(), *QUERIES) for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def encoder_for(library: str) -> WordEncoder:
    """The encoder that uses the library."""
    return {"torch": TorchEncoder, "faiss": WordEncoder, "tokenizers": TokenizersEncoder}[library]()


def load(library: str) -> None:
    """Import the library, and use no thread of it yet."""
    import faiss  # noqa: F401 - every index uses it

    if library == "torch":
        import torch

        torch.set_num_threads(4)
    elif library == "tokenizers":
        import tokenizers  # noqa: F401


def use(index: semsearch.Index) -> list[Any]:
    """Search in every mode, many queries at once; the answers without what an addition of another changes."""
    with index.snapshot() as snapshot:
        found = snapshot.dense(index.encode_queries(QUERIES), 3)
    answers: list[Any] = [[id for id, _ in ranking] for ranking in found]
    for mode in ("dense", "lexical", "hybrid"):
        answers += [[hit.passage.document_id for hit in hits[:1]] for hits in index.search(QUERIES, k=3, mode=mode)]
    return answers


# -- a case ------------------------------------------------------------------------------------------------------------


def work(index: semsearch.Index, expected: list[Any] | None, number: int) -> str:
    """What a child does: "works", "refused: ..." or what is wrong."""
    try:
        answers = use(index)
        index.add([(f"child-{number}", f"added by child {number}")])
        if expected is not None and answers != expected:
            return f"wrong answers: {answers} instead of {expected}"
        return "works" if index.get(f"child-{number}") else "the added document is not there"
    except SemsearchError as error:
        return f"refused: {type(error).__name__}: {error}"
    except BaseException:
        return traceback.format_exc()


def _spawned(folder: Path, library: str, expected: list[Any], number: int, connection: Connection) -> None:
    load(library)
    with semsearch.Index(folder, encoder=encoder_for(library), timeout=LIMIT) as index:
        connection.send("ready")
        connection.send(work(index, expected, number))


def _by_spawn(index: semsearch.Index, library: str, expected: list[Any]) -> list[str]:
    connection, child = _spawn(_spawned, index.path, library, expected, 0)
    if not connection.poll(START):
        child.kill()
        return [f"did not start within {START:g} s"]
    connection.recv()
    said = _result(connection)
    child.kill()
    return [said]


def _by_fork(index: semsearch.Index, library: str, expected: list[Any]) -> list[str]:
    results, children = [], []
    for number in range(CHILDREN):
        mine, yours = multiprocessing.Pipe()
        child = os.fork()
        if child == 0:
            yours.send(work(index, expected, number))
            index.close()
            os._exit(0)
        yours.close()
        results.append(mine)
        children.append(child)
    answers = [_result(mine) for mine in results]
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return answers


def _by_threads(index: semsearch.Index, library: str, expected: list[Any]) -> list[str]:
    answers: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda number=number: answers.update({number: work(index, expected, number)}))
        for number in range(CHILDREN)
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    return [answers.get(number, f"hung for {LIMIT:g} s") for number in range(CHILDREN)]


def _result(connection: Connection) -> str:
    try:
        return str(connection.recv()) if connection.poll(LIMIT) else f"hung for {LIMIT:g} s"
    except EOFError:
        return "died without a word"


WAYS: dict[str, Callable[[semsearch.Index, str, list[Any]], list[str]]] = {
    "threads": _by_threads,
    "fork": _by_fork,
    "spawn": _by_spawn,
}


def _use_until(index: semsearch.Index, stop: threading.Event) -> None:
    while not stop.is_set():
        use(index)


def play(folder: Path, library: str, order: str, way: str, expected: list[Any]) -> list[str]:
    """One case; what the children and then the parent say."""
    stop = threading.Event()
    with semsearch.Index(folder, encoder=encoder_for(library), timeout=LIMIT) as index:
        busy = threading.Thread(target=_use_until, args=(index, stop), daemon=True)
        if order == "before":
            use(index)
            if way == "fork":
                busy.start()
                time.sleep(0.1)
        said = WAYS[way](index, library, expected)
        stop.set()
        if busy.ident is not None:
            busy.join(LIMIT)
            if busy.is_alive():
                return [*said, "a thread of the parent hangs"]
        said.append(work(index, expected, CHILDREN))
        report = index.check()
        there = [index.get(f"child-{number}") is not None for number, each in enumerate(said[:-1]) if each == "works"]
        if not report.ok or not all(there):
            said.append(f"afterwards: {report}, additions there: {there}")
    return said


def _cases(folder: Path, library: str, expected: list[Any], connection: Connection) -> None:
    """All cases of a library: each in a fork of this process, which has imported the library and used nothing."""
    load(library)
    for order, way in CASES:
        place = folder / f"{library}-{order}-{way}"
        shutil.copytree(folder / "index", place)
        mine, yours = multiprocessing.Pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            try:
                yours.send(play(place, library, order, way, expected))
            except BaseException:
                yours.send([traceback.format_exc()])
            os._exit(0)
        yours.close()
        limit = START + 4 * LIMIT
        try:
            connection.send(mine.recv() if mine.poll(limit) else [f"the parent hung for {limit:g} s"])
        except EOFError:
            connection.send(["the parent died without a word"])
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        shutil.rmtree(place, ignore_errors=True)


def _made(folder: Path, connection: Connection) -> None:
    with semsearch.Index(folder, encoder=WordEncoder()) as index:
        index.add(list(TEXTS.items()))
        index.optimize()
        connection.send(use(index))


def run(count: int, seed: int, folder: Path) -> Outcome:
    """All cases; the seed changes nothing."""
    outcome = Outcome()
    expected, _ = _spawn(_made, folder / "index")
    answers = expected.recv()
    for library in LIBRARIES:
        connection, parent = _spawn(_cases, folder, library, answers)
        for order, way in CASES:
            try:
                said = connection.recv()
            except EOFError:
                said = ["the process died"]
            outcome.done += 1
            for each in said:
                outcome.counters[each.split(":")[0] if len(each) < 500 else "wrong"] += 1
            wrong = [each for each in said if each != "works" and not each.startswith("refused: ")]
            if wrong:
                outcome.fail(f"{library}, {way}, used {order}: {wrong[0][-600:]}")
        parent.join()
    return outcome


def _spawn(target: Callable[..., None], *arguments: Any) -> tuple[Connection, Any]:
    context = multiprocessing.get_context("spawn")
    mine, yours = context.Pipe()
    process = context.Process(target=target, args=(*arguments, yours))
    process.start()
    yours.close()
    return mine, process

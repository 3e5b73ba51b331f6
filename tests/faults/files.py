"""Mutated and hostile files of every format that there is a loader for, and folders of them.

Each file goes through the worker process that parses files for `sync`: it gives a text, or a LoadError with a reason,
in bounded time and memory; its passages are exact; what lies outside of the folder is not in it; nothing connects to
anywhere. First come the files made to do harm (bombs, nesting, entities), then mutations of good ones: flipped bits,
cuts, spliced pieces, numbers and tokens exchanged, in the file or inside of its zip. At the end folders with links,
loops, FIFOs, sockets, devices, odd names and files that grow and vanish are synced.

Fault n of seed s is always the same: repeat it by `--seed s` and a count above n.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from toy import WordEncoder

import semsearch
from faults.harmful import Files, hostile, seeds, unzipped, zipped
from faults.outcome import Outcome
from faults.text import by_words, wrong_passages
from semsearch import parsing
from semsearch.errors import LoadError
from semsearch.loading import LOADERS
from semsearch.records import Document

CI = 200
FULL = 200_000

SECONDS = 6.0  # of processor time that a file may take here
MEMORY = 1 << 30  # bytes
PATIENCE = 40.0  # seconds by the clock, after which the limits have failed
FOLDERS = 4_000  # files to one folder that is synced
SECRET = "the-secret-that-lies-outside"

# -- mutations ---------------------------------------------------------------------------------------------------------

TOKENS = [
    *(b"<", b">", b"&", b"<!--", b"]]>", b"<![CDATA[", b"&#x0;", b"&#xd800;", b"<table><tr><td>", b"<svg>", b"<pre>"),
    *(b"\0", b"\r\n\r\n", b'"', b"'", b"{", b"}", b"[", b"]", b"\\u0000", b"\\ud800", b"null", b"-1", b"0"),
    *(b"4294967296", b"99999999999999999999", b"1e999", b"1 0 R", b"2 0 R", b"3 0 R", b"endobj", b"stream\n"),
    *(b"/Kids [2 0 R]", b"/Filter /FlateDecode", b"<<", b">>", b"/Encrypt 1 0 R", b"PK\x03\x04", b"PK\x01\x02"),
    *(b"PK\x05\x06", b"\x1f\x8b\x08", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff" * 8, b"\0" * 64, b"--b1", b"--b1--"),
    *(b'w:val="99999999"', b'colspan="99999"', b'r:id="rId1"', b"../../../etc/passwd", b"charset=utf-16"),
    *(b"charset=x", b"base64", b"=?utf-8?b?!?="),
]


def _flip(data: bytearray, choose: random.Random) -> None:
    for _ in range(choose.choice([1, 1, 2, 8, 64])):
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def _cut(data: bytearray, choose: random.Random) -> None:
    del data[choose.randrange(len(data)) :]


def _drop(data: bytearray, choose: random.Random) -> None:
    start = choose.randrange(len(data))
    del data[start : start + choose.choice([1, 4, 64, 1024])]


def _double(data: bytearray, choose: random.Random) -> None:
    start = choose.randrange(len(data))
    piece = data[start : start + choose.choice([1, 16, 256, 4096])]
    data[start:start] = piece * choose.choice([1, 1, 2, 30])


def _token(data: bytearray, choose: random.Random) -> None:
    for _ in range(choose.choice([1, 1, 3, 9])):
        start, token = choose.randrange(len(data) + 1), choose.choice(TOKENS)
        data[start : start + choose.choice([0, len(token)])] = token


def _number(data: bytearray, choose: random.Random) -> None:
    """A number in the text becomes another one."""
    places = [match.span() for match in re.finditer(rb"\d+", data)][:5_000]
    if places:
        start, end = choose.choice(places)
        data[start:end] = choose.choice([b"0", b"1", b"2", b"-1", b"65536", b"2147483648", b"9" * 30, b"1.5", b"x"])


def _splice(data: bytearray, choose: random.Random) -> None:
    other = choose.choice(choose.choice([*seeds().values()]))
    start, size = choose.randrange(len(other) or 1), choose.choice([16, 256, 4096])
    at = choose.randrange(len(data))
    data[at : at + choose.choice([0, size])] = other[start : start + size]


def _tags(data: bytearray, choose: random.Random) -> None:
    """Two pieces between angle brackets, or two lines, change places."""
    places = [match.span() for match in re.finditer(rb"<[^<>]*>|[^\n<>]+\n", data)][:5_000]
    if len(places) > 1:
        (a, b), (c, d) = sorted(choose.sample(places, 2))
        data[a:d] = data[c:d] + data[b:c] + data[a:b]


WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _cut, _drop, _double),
    *(_token, _number, _splice, _tags),
)


def mutated(data: bytes, choose: random.Random) -> tuple[bytes, str]:
    """A file with something done to it, and what that was."""
    inside = None
    if data.startswith(b"PK") and choose.random() < 0.75:
        return _mutated_package(data, choose)
    if data.startswith(b"\x1f\x8b") and choose.random() < 0.6:
        inside, data = "in gzip ", gzip.decompress(data)
    changed = bytearray(data or b"\n")
    way = choose.choice(WAYS)
    way(changed, choose)
    return (gzip.compress(changed, 1) if inside else bytes(changed)), f"{inside or ''}{way.__name__[1:]}"


def _mutated_package(data: bytes, choose: random.Random) -> tuple[bytes, str]:
    parts = unzipped(data)
    name = choose.choice(
        sorted(parts, key=lambda part: ("theme" in part or "docProps" in part, part))[: max(4, len(parts) // 2)]
    )
    kind = choose.random()
    if kind < 0.1:
        del parts[name]
    elif kind < 0.2:
        other = choose.choice([*parts])
        parts[name], parts[other] = parts[other], parts[name]
    else:
        changed = bytearray(parts[name] or b"\n")
        way = choose.choice(WAYS)
        way(changed, choose)
        parts[name] = bytes(changed)
        return zipped(parts, 1), f"{way.__name__[1:]} in {name}"
    return zipped(parts, 1), f"part {name} exchanged or gone"


def fault(number: int, seed: int, harmful: Files) -> tuple[str, bytes, str]:
    """Fault `number`: a suffix, what the file holds, and what it is."""
    if number % 2 == 0 and number // 2 < len(harmful):
        suffix, data = harmful[number // 2]
        return suffix, data, f"hostile file {number // 2}"
    choose = random.Random(f"{seed}:{number}")
    suffix = choose.choice([*seeds()])
    data, how = mutated(choose.choice(seeds()[suffix]), choose)
    if choose.random() < 0.2 and not data.startswith((b"PK", b"\x1f\x8b")):
        data, more = mutated(data, choose)
        how += f", {more}"
    if choose.random() < 0.03:
        suffix = choose.choice([*LOADERS])
    return suffix, data, how


# -- one file ----------------------------------------------------------------------------------------------------------


class Desk:
    """Where files are loaded."""

    def __init__(self, folder: Path, seed: int, outcome: Outcome) -> None:
        self.folder = folder
        self.seed = seed
        self.outcome = outcome
        (folder / "outside").write_text(SECRET)
        self.listening = socket.create_server(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.harmful = hostile(str(folder / "outside"), address)
        self.parser = parsing.Parser(seconds=SECONDS, memory=MEMORY)

    def examine(self, number: int) -> None:
        """Load fault `number`."""
        suffix, data, how = fault(number, self.seed, self.harmful)
        path = self.folder / f"file{suffix}"
        path.write_bytes(data)
        said = f"seed {self.seed}, file {number}, {suffix}, {how}"
        began = time.monotonic()
        try:
            document = self.parser.load(path)
        except LoadError as error:
            self.outcome.counters[_kind(error.reason)] += 1
            if not error.reason.strip() or len(str(error)) > 2_000 or _escaped(error.reason):
                self.outcome.fail(f"{said}: the reason is {error.reason[:300]!r}")
        except Exception as error:
            self.outcome.fail(f"{said} raised {type(error).__name__}: {error}"[:400])
        else:
            self.outcome.counters["read"] += 1
            for wrong in self._wrong(document):
                self.outcome.fail(f"{said}: {wrong}")
        if time.monotonic() - began > PATIENCE:
            self.outcome.fail(f"{said} took {time.monotonic() - began:.0f} s")
        path.unlink()
        if select.select([self.listening], [], [], 0)[0]:
            self.outcome.fail(f"{said} made a connection")
            self.listening.accept()[0].close()

    def _wrong(self, document: Document) -> Iterator[str]:
        if SECRET in document.text or SECRET in document.title:
            yield "it has the text of another file"
        if not isinstance(document.text, str) or not isinstance(document.title, str):
            yield "text or title is no string"
        json.dumps(document.metadata)
        if len(document.text) < 20_000:
            yield from wrong_passages(document, by_words, 200)

    def close(self) -> None:
        self.parser.close()
        self.listening.close()


def _kind(reason: str) -> str:
    for words, kind in (
        ("took longer", "refused: time"),
        ("needed more than", "refused: memory"),
        ("crashed", "refused: its parser crashed"),
        ("nested", "refused: nested"),
        ("encrypted", "refused: encrypted"),
    ):
        if words in reason:
            return kind
    return "refused"


def _escaped(reason: str) -> bool:
    """Whether an exception came out of `load_file` that is none of ours; the worker reports it like this."""
    return re.match(r"damaged: [A-Z]\w+: ", reason) is not None


# -- folders -----------------------------------------------------------------------------------------------------------


def sync_folder(desk: Desk, number: int) -> None:
    """Make a folder of good and bad files and of what is no file, sync it, and look at the report."""
    choose = random.Random(f"{desk.seed}:folder {number}")
    root = desk.folder / f"folder{number}"
    (root / "sub").mkdir(parents=True)
    good = {f"good{n}.md": f"# Fees\n\nword{n} is ten cents" for n in range(4)}
    names = {*good}
    for name, content in good.items():
        (root / name).write_text(content)
    for n in range(30):
        suffix, data, _ = fault(choose.randrange(10_000, 10**9), desk.seed, [])
        names.add(f"sub/bad{n}{suffix}")
        (root / "sub" / f"bad{n}{suffix}").write_bytes(data)
    for n, (suffix, data) in enumerate(choose.sample(desk.harmful, 8)):
        names.add(f"hostile{n}{suffix}")
        (root / f"hostile{n}{suffix}").write_bytes(data)
    names |= _oddities(root, desk.folder / "outside")
    said = f"seed {desk.seed}, folder {number}"
    began = time.monotonic()
    stop = threading.Event()
    unsteady = threading.Thread(target=_unsteady, args=(root, stop))
    unsteady.start()
    try:
        with semsearch.Index(desk.folder / f"index{number}", encoder=WordEncoder()) as index:
            report = index.sync(root)
            stop.set()
            unsteady.join()
            for wrong in _wrong_report(index, report, root, names, good):
                desk.outcome.fail(f"{said}: {wrong}")
    except Exception as error:
        desk.outcome.fail(f"{said} raised {type(error).__name__}: {error}"[:400])
    finally:
        stop.set()
        unsteady.join()
    if time.monotonic() - began > 8 * PATIENCE:
        desk.outcome.fail(f"{said} took {time.monotonic() - began:.0f} s")
    desk.outcome.counters["folders synced"] += 1


def _wrong_report(
    index: semsearch.Index, report: semsearch.SyncReport, root: Path, names: set[str], good: dict[str, str]
) -> Iterator[str]:
    documents = {each.id: each.text for each in index.documents()}
    failures = {Path(path).relative_to(root).as_posix(): reason for path, reason in report.failures}
    unsteady = {name for name in {*documents, *failures} if Path(name).name.startswith("unsteady")}
    known = {*documents, *failures} - unsteady
    missing, more = names - known, known - names
    if missing or more:
        yield f"{sorted(missing)} have neither text nor reason, {sorted(more)} should not be there"
    if not all(reason.strip() for reason in failures.values()):
        yield "a failure has no reason"
    if any(SECRET in text for text in documents.values()):
        yield "a text from outside of the folder is in the index"
    for name, content in good.items():
        if documents.get(name) != content:
            yield f"{name} is not in the index as it is"
    if not index.search("word2 cents", mode="lexical") or index.check().problems:
        yield "the index is not in order"


def _oddities(root: Path, outside: Path) -> set[str]:
    """Links, loops, a FIFO, a socket, a device, odd names; the names of those that are regular files."""
    for name, target in (
        *(("zero.txt", "/dev/zero"), ("random.pdf", "/dev/urandom"), ("out.txt", str(outside))),
        *(("proc.txt", "/proc/self/environ"), ("loop.md", "loop.md"), ("a.md", "b.md"), ("b.md", "a.md")),
        *(("up", ".."), ("self", "."), ("gone.txt", "never there")),
    ):
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo.txt")
    with suppress(OSError):  # only root may
        os.mknod(root / "device.txt", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with suppress(OSError), socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket.txt"))
    names = {
        "new\nline.txt",
        "quote'\".txt",
        "%s%n.txt",
        "\udcff\udc80.txt",
        "e\u0301.txt",
        "\u202etxt.exe.md",
        "-rf.txt",
    }
    for name in names:
        (root / name).write_text("odd name")
    with (root / "huge.txt").open("wb") as file:
        file.truncate(10 << 30)
    (root / "empty.pdf").touch()
    return {*names, "huge.txt", "empty.pdf"}


def _unsteady(root: Path, stop: threading.Event) -> None:
    """Files that grow, shrink, vanish, and become folders, links and FIFOs."""
    turn = 0
    while not stop.wait(0.002):
        path = root / f"unsteady{turn % 7}.txt"
        with suppress(OSError):
            match turn % 5:
                case 0:
                    path.write_text("word " * (turn % 1000))
                case 1:
                    path.unlink()
                case 2:
                    path.symlink_to("/dev/zero")
                case 3:
                    path.unlink()
                    os.mkfifo(path)
                case _:
                    os.truncate(path, turn)
        turn += 1


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    desk = Desk(folder, seed, outcome)
    limits = parsing.SECONDS, parsing.MEMORY
    parsing.SECONDS, parsing.MEMORY = SECONDS, MEMORY
    try:
        for number in range(count):
            desk.examine(number)
            outcome.done += 1
        for number in range(1 + count // FOLDERS):
            sync_folder(desk, number)
    finally:
        parsing.SECONDS, parsing.MEMORY = limits
        desk.close()
    return outcome

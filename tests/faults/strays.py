"""Files of an index that are missing, empty, from an earlier time, of another index, or something else than a file.

Each file × each way, and files that do not belong there. After each the index is opened, searched and checked; a
document is added, all is optimized, and it is opened, searched and checked again. It passes

- for a derived file (cache/, the lock, SQLite's -shm), and for anything extra: if every answer is right, with no
  exception, before and after;
- for index.db: if the index is refused, or says what its database says: that of an earlier time the earlier answers,
  that of another index the other answers, never a mixture with what the cache says;
- for index.db-wal: if the index stands at some commit, whole, or is refused. SQLite cannot tell that a log is not that
  of its database, nor can we: where a foreign log made a mixture, `check` must say so ("mixture, seen by check").

"log" is an index whose last commits are in index.db-wal, as after a crash; "closed" one that was closed.
"""

from __future__ import annotations

import os
import shutil
import signal
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

import semsearch
from faults.damage import State, documents, opened, same, state_of, supervised, templates
from faults.outcome import Outcome
from semsearch.errors import SemsearchError

KINDS = {"closed": "main", "log": "main-log"}
SOURCES = {"stale": "main-early", "other": "other-log"}
DATABASE = ("index.db", "index.db-wal")
# SQLite refuses to read beside such a thing: a link for its shared memory, and what it takes for a change half done.
REFUSED = (("index.db-shm", "folder"), ("index.db-shm", "link"), ("index.db-journal", "extra"))
LEXICAL = ("settings", "vocabulary", "offsets", "indptr", "docs", "codes", "kinds", "ids", "lengths")
COLUMNS = ("int32", "int64", "uint8")
DERIVED = (
    "index.db-shm",
    "lock",
    "cache",
    "CURRENT.json",
    *(f"dense.{name}" for name in ["ids.npy", "settings.json", "vectors.npy"]),
    *(f"lexical.{name}.npy" for name in LEXICAL),
    *(f"columns.{name}.npy" for name in COLUMNS),
)
WAYS = ("missing", "empty", "stale", "other", "folder", "link")
EXTRA = (
    "index.db-journal",
    "index.db.new",
    "notes.txt",
    "cache/notes.txt",
    "cache/g000001-dense.faiss",
    "cache/draft-1/g000099-dense.faiss",
    "cache/g000099-lexical.ids.npy",
)
CASES = (*product(KINDS, (*DATABASE, *DERIVED), WAYS), *product(KINDS, EXTRA, ("extra",)))
CI = FULL = len(CASES)

NEW = semsearch.Document("new", "something new to be found")


def make_templates(folder: Path, connection: Connection) -> None:
    """Two indexes, "main" and "other", each closed, as it was before ("-log") and earlier ("-early"); their states."""
    history = {}
    for name, seed in (("main", 1), ("other", 99)):
        index = opened(folder / name)
        index.add(documents(seed, 50))
        index.remove([f"d{number:03}" for number in range(0, 50, 9)])
        index.optimize()
        states = [state_of(index)]
        for step in range(4):
            if step == 2:
                shutil.copytree(folder / name, folder / f"{name}-early")
                index.optimize()
            index.add(documents(seed + 10 + step, 4, first=48 + 3 * step))
            states.append(state_of(index))
            index.remove([f"d{20 + step:03}"])
            states.append(state_of(index))
        shutil.copytree(folder / name, folder / f"{name}-log")
        history[name] = states[::-1]
        index.close()
    shutil.copytree(folder / "main", folder / "after")
    with opened(folder / "after") as index:
        index.add([NEW])
        history["after"] = [state_of(index)]
    connection.send(history)
    os.kill(os.getpid(), signal.SIGKILL)


def _place(folder: Path, file: str) -> Path:
    """Where a file of an index is; those of the cache have its generation in their names."""
    if "." in file and not file.startswith("index.db") and file != "CURRENT.json":
        return next(folder.glob(f"cache/g*-{file}"))
    return folder / "cache" / file if file == "CURRENT.json" else folder / file


def apply(folder: Path, file: str, way: str, source: Path | None) -> None:
    """Do to a file what the case says; `source` is where a stale or foreign one comes from."""
    if way == "extra":
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" * 100)  # what a rollback journal starts with
        return
    place = _place(folder, file)
    kept = place.with_name(place.name + ".kept")
    if place.exists():
        place.rename(kept)
    if source is not None:
        if file == "lock":
            place.write_text('{"pid": 1, "host": "elsewhere"}' if way == "stale" else "\0{")
        elif file == "cache":
            shutil.copytree(source / "cache", place)
        elif _place(source, file).exists():
            shutil.copyfile(_place(source, file), place)
    elif way == "empty":
        place.mkdir() if file == "cache" else place.touch()
    elif way == "folder":
        place.write_text("no folder") if file == "cache" else (place / "sub").mkdir(parents=True)
    elif way == "link" and kept.exists():
        outside = folder.with_name(f"{folder.name}-outside")
        kept.rename(outside)
        place.symlink_to(outside)
    if kept.is_dir():
        shutil.rmtree(kept)
    kept.unlink(missing_ok=True)


def verdict(folder: Path, file: str, way: str, history: dict[str, list[State]]) -> tuple[str, str | None]:
    """A counter, and what is wrong or None."""
    derived = file not in DATABASE
    try:
        with opened(folder, timeout=1.0) as index:
            report, state = index.check(), state_of(index)
    except SemsearchError as error:
        wrong = derived and (file, way) not in REFUSED
        return f"refused: {type(error).__name__}", f"refused: {error}" if wrong else None
    except Exception as error:
        return "another exception", f"{type(error).__name__}: {error}"
    what = _standing(state, history, report)
    if what == "right" and report.problems:
        return what, f"check blames the database: {report.problems}"
    if (derived and what != "right") or what in ("empty", "mixture"):
        return what, f"{what}: {state['passages']} passages instead of {history['main'][0]['passages']}"
    if "mixture" in what:
        return what, None
    return what, _goes_on(folder, file, history["after"][0] if what == "right" else None)


def _standing(state: State, history: dict[str, list[State]], report: semsearch.CheckReport) -> str:
    if same(state, history["main"][0]):
        return "right"
    if any(same(state, each) for each in history["main"]):
        return "earlier commit"
    if any(same(state, each) for each in history["other"]):
        return "the other index"
    if not state["documents"]:
        return "empty"
    return "mixture" if not report.problems else "mixture, seen by check"


def _goes_on(folder: Path, file: str, expected: State | None) -> str | None:
    """Change the index and write its cache afresh; what is wrong then, or None."""
    try:
        with opened(folder, timeout=1.0) as index:
            index.add([NEW])
            index.optimize()
        with opened(folder, timeout=1.0) as index:
            report, state = index.check(), state_of(index)
            if not report.ok:
                return f"after an addition: {report}"
            if index.get("new") != NEW or (expected is not None and not same(state, expected)):
                return "after an addition: wrong answers"
    except SemsearchError as error:
        # What was put in the place of the lock or of SQLite's own files may be in the way of writing.
        return None if file.startswith(("index.db", "lock")) else f"after an addition: {error!r}"
    except Exception as error:
        return f"after an addition: {type(error).__name__}: {error}"
    return None


def _worker(connection: Connection, numbers: range, template: Path, folder: Path) -> None:
    history: dict[str, list[State]] = connection.recv()
    for number in numbers:
        kind, file, way = CASES[number]
        place = folder / str(number)
        shutil.copytree(template / KINDS[kind], place)
        apply(place, file, way, template / SOURCES[way] if way in SOURCES else None)
        counter, failure = verdict(place, file, way, history)
        connection.send((counter, failure and f"{file} {way} in {kind!r}: {failure}"))
        shutil.rmtree(place)


def run(count: int, seed: int, folder: Path) -> Outcome:
    """All cases; the seed changes nothing."""
    (folder / "template").mkdir()
    history = templates(make_templates, folder / "template")
    count = min(count, len(CASES))
    return supervised(_worker, count, f"case {{}} of {len(CASES)}", history, folder / "template", folder / "work")

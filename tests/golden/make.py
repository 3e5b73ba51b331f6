"""How `format-1/` was made: an index of that format, and beside it what it says, in `format-1.json`.

It is made once and never again: it stands for the indexes that users have, which no release can make anew either. The
paths of its files are neutral, and so are its times.

    PYTHONPATH=tests python tests/golden/make.py FOLDER        # an empty folder
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from toy import WordEncoder

import semsearch
from semsearch.inspection import SEALED
from semsearch.seals import seal

DOCUMENTS = [
    semsearch.Document("fees", "Late fees are twenty cents a day. Lost books cost thirty dollars.", "Fees"),
    semsearch.Document(
        "rules.pdf",
        "Lending rules.\n\nBooks are lent for four weeks.\f\fRenewals: twice, unless the book is reserved.",
        "Rules",
        "/srv/scans/rules.pdf",
        {"suffix": ".pdf", "size": 12345, "modified": 1700000000.5, "pages": 3, "tags": ["lending", "rules"]},
    ),
    semsearch.Document(
        "unicode", "Füße, ﬁgure, 罚款是十分钱。 שלום. \U0001f469\u200d\U0001f680 e\u0301", "Überschrift \U0001f600"
    ),
    semsearch.Document(
        "hostile",
        "A lone \ud800 surrogate, a NUL \0 in the middle.\r\nAnd a line.",
        metadata={"k\udfff": ["\ud83d", None]},
    ),
    semsearch.Document(
        "deep",
        "# One\n\nText under the first heading.\n\n## Two\n\nText under the second heading about fees.",
        metadata={"suffix": ".md", "deep": {"number": 2**70, "real": 0.1, "yes": True, "none": None}},
    ),
    semsearch.Document("empty", " \n\t "),
    semsearch.Document("deleted", "This document is deleted; late fees are not for you."),
    semsearch.Document("replaced", "This was there before, about late fees."),
    semsearch.Document("same", "Late fees are twenty cents a day. Lost books cost thirty dollars.", "Fees"),
]
FILES = {
    "handbook/fees.md": "# Fees\n\nThe late fee for a laptop is five dollars an hour.\n",
    "handbook/guide/hours.txt": "The library opens at nine and closes at eight.\n",
    "handbook/broken.pdf": "no PDF",
    "handbook/picture.png": "no text",
    "archive/fees.md": "# Fees of 1999\n\nThe late fee was five cents.\n",
    "archive/gone.txt": "Deleted from the disk before the second sync.\n",
}
QUERIES = ["late fees", "opens at nine", "罚款", "surrogate NUL", "lent for four weeks", "heading fees"]


def make(index: semsearch.Index, folder: Path) -> None:
    """Fill an index: all that a database can hold, some of it removed again."""
    index.add(DOCUMENTS)
    index.add([("replaced", "This is the new text, about rooms.")])
    index.remove("deleted")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    index.sync(folder / "handbook")
    index.sync(folder / "archive")
    (folder / "archive" / "gone.txt").unlink()
    index.sync(folder / "archive")
    index.optimize()
    index.add([("late", "Added after the cache was written, late fees again.")])
    index.remove("same")


def neutral(database: sqlite3.Connection, folder: str) -> None:
    """Put /srv where the machine's own folder was, and the same time everywhere."""
    times = {"mtime_ns": 1_700_000_000_000_000_000, "inode": 1000}
    for table, column in [("documents", "source"), ("roots", "path"), ("files", "reason"), ("fields", "value")]:
        database.execute(
            f"UPDATE {table} SET {column} = replace({column}, ?, '/srv') WHERE typeof({column}) = 'text'", (folder,)
        )
    database.execute("UPDATE files SET mtime_ns = ?, inode = ?", tuple(times.values()))
    database.execute("UPDATE meta SET value = '1700000000.0' WHERE name = 'created'")
    for key, metadata in database.execute("SELECT key, metadata FROM documents WHERE source LIKE '/srv/%'").fetchall():
        value = json.loads(metadata)
        value["modified"] = 1700000000.0
        database.execute("UPDATE documents SET metadata = ? WHERE key = ?", (json.dumps(value), key))
    database.execute("UPDATE fields SET value = 1700000000.0 WHERE name = 'modified'")
    for table, (name, columns) in SEALED.items():
        for what, *row in database.execute(f"SELECT {name}, {columns} FROM {table}").fetchall():
            database.execute(f"UPDATE {table} SET seal = ? WHERE {name} = ?", (seal(*row), what))
    database.commit()
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def said(index: semsearch.Index) -> dict[str, Any]:
    """All that an index says: its documents, and the hits of some queries with their scores, joined by rank."""
    modes = ("lexical", "dense", "hybrid")
    filters: list[dict[str, Any] | None] = [None, {"suffix": ".md"}, {"tags": "rules"}, {"deep.number": {"$gt": 2**69}}]
    retrievers = {mode: semsearch.Retriever(index, mode, semsearch.fusion.rrf) for mode in modes}
    return {
        "documents": [[each.id, each.text, each.title, each.source, dict(each.metadata)] for each in index.documents()],
        "hits": [
            [mode, where, query, [_hit(hit) for hit in retrievers[mode].search(query, k=20, where=where)]]
            for mode in modes
            for where in filters
            for query in QUERIES
        ],
    }


def _hit(hit: semsearch.Hit) -> list[Any]:
    passage = hit.passage
    place = [passage.id, passage.document_id, passage.start, passage.end, passage.page, passage.metadata.get("heading")]
    return [*place, hit.score]


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        with semsearch.Index(folder / "index", encoder=WordEncoder()) as index:
            make(index, folder)
        with closing(sqlite3.connect(folder / "index" / "index.db")) as database:
            neutral(database, str(folder))
        with semsearch.Index(folder / "index", encoder=WordEncoder(), read_only=True) as index:
            report = index.check()
            assert report.ok, report
            words = said(index)
        (target / "format-1" / "cache").mkdir(parents=True)
        shutil.copy(folder / "index" / "index.db", target / "format-1")
        for path in sorted((folder / "index" / "cache").iterdir()):
            shutil.copy(path, target / "format-1" / "cache")
    words["sha256"] = sha256((target / "format-1" / "index.db").read_bytes()).hexdigest()
    (target / "format-1.json").write_text(json.dumps(words, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

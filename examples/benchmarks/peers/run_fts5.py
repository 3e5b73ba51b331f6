"""SQLite's FTS5 on the given tokens, keeping the index alone (content='')."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from harness import Inputs, Peer, run


class FTS5(Peer):
    modes = ("lexical",)
    note = f"SQLite {sqlite3.sqlite_version}; k1 1.2, b 0.75, which are fixed"

    def build(self, inputs: Inputs, folder: Path, deadline: float) -> None:
        database = sqlite3.connect(folder / "index.db")
        database.execute("CREATE VIRTUAL TABLE passages USING fts5(text, content='', detail=column)")
        rows = ((place, " ".join(tokens)) for place, tokens in enumerate(inputs.tokens))
        database.executemany("INSERT INTO passages (rowid, text) VALUES (?, ?)", rows)
        database.execute("INSERT INTO passages (passages) VALUES ('optimize')")
        database.commit()
        database.close()

    def open(self, inputs: Inputs, folder: Path) -> None:
        self.database = sqlite3.connect(folder / "index.db")

    def search(self, inputs: Inputs, mode: str, question: int) -> list[int]:
        query = " OR ".join('"' + token.replace('"', '""') + '"' for token in inputs.question_tokens[question])
        sql = "SELECT rowid FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT 10"
        return [row[0] for row in self.database.execute(sql, (query,))]

    def add(self, inputs: Inputs, place: int) -> None:
        row = (inputs.count + place, " ".join(inputs.added_tokens[place]))
        with self.database:
            self.database.execute("INSERT INTO passages (rowid, text) VALUES (?, ?)", row)


if __name__ == "__main__":
    run(FTS5())

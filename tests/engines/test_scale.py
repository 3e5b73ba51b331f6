"""200,000 passages go in through a sync that is killed, whose server is killed, and nothing is lost or doubled.

It takes a quarter of an hour a lane, so it is one of the tests that are asked for: make engines PYTEST="-m torture".
The texts are two dictionaries beside the repository, ../shared/data; without them the test is skipped.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from engines.lanes import Lane
from engines.syncing import FewWords, child

import semsearch
from semsearch.embedded import EmbeddedEngine
from semsearch.engines import open_engine
from semsearch.engines.protocol import Engine

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = ("wordnet-glosses", "gcide-entries")
PASSAGES = 200_000
ENTRIES = 152_000  # that make so many passages
OF_A_FILE = 200
SAMPLE = 40  # documents that are compared in full
SEED = 7
SECONDS = 1800


def sections() -> Iterator[str]:
    for name in SETS:
        with gzip.open(DATA / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                yield f"## {entry['title'] or entry['id']}\n\n{entry['text']}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all((DATA / name).is_dir() for name in SETS):
        pytest.skip(f"no {' and '.join(SETS)} in {DATA}")
    folder = tmp_path_factory.mktemp("dictionaries")
    entries = islice(sections(), ENTRIES)
    for number in range(0, ENTRIES, OF_A_FILE):
        text = "\n".join(islice(entries, OF_A_FILE))
        (folder / f"{number // OF_A_FILE:04}.md").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The same in a folder, made without any disturbance."""
    location = tmp_path_factory.mktemp("expected") / "index"
    with semsearch.Index(location, encoder=FewWords()) as index:
        index.sync(folder, progress=False)
        assert len(index) >= PASSAGES
    engine = EmbeddedEngine(location)
    engine.open(None, create=False)
    yield engine
    engine.close()


def lengths(engine: Engine) -> dict[str, int]:
    """How many passages each document has, every document met once."""
    found: dict[str, int] = {}
    mark = ""
    while page := engine.scan(mark, 256):
        mark = page[-1][0]
        ids = [entry.document.id for _, entry in page]
        assert not found.keys() & set(ids)
        found |= {id: len(owned) for id, owned in engine.owned(ids).items()}
    return found


@pytest.mark.torture
def test_a_large_sync_survives_two_kills_on_either_side(crashing: Lane, folder: Path, expected: Engine) -> None:
    location = crashing.location("dictionaries") + "?timeout=300"
    files = len(list(folder.iterdir()))
    began = time.monotonic()
    for _ in range(2):
        with child(location, folder) as running:
            running.wait_for(files // 5)
            crashing.kill()
            time.sleep(1)
            crashing.start()
            running.wait_for(files // 4)  # and is killed itself
    with child(location, folder) as running:
        report = running.finish(SECONDS)
    print(f"{crashing.name}: {time.monotonic() - began:.0f} s")
    assert (report["added"] + report["unchanged"], report["updated"], report["failed"]) == (files, 0, 0)

    engine = open_engine(location)
    engine.open(None, create=False)
    try:
        engine.compact()
        assert engine.count() == expected.count()
        assert lengths(engine) == lengths(expected)
        ids = random.Random(SEED).sample(sorted(lengths(expected)), SAMPLE)
        known = expected.get(ids, parts=True)
        for id, found in engine.get(ids, parts=True).items():
            assert found.document == known[id].document
            assert [part[:5] for part in found.parts] == [part[:5] for part in known[id].parts]
            vectors = ([part.vector for part in entry.parts if part.vector is not None] for entry in (found, known[id]))
            np.testing.assert_allclose(*map(np.stack, vectors), atol=1e-6)
    finally:
        engine.close()

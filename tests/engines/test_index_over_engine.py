"""An index in an engine does what an index in a folder does: the same hits, answers, documents and reports."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines.lanes import Lane
from toy import WordEncoder

import semsearch
from semsearch.embedded import EmbeddedEngine
from semsearch.engineindex import EngineIndex
from semsearch.engines import open_engine
from semsearch.engines.protocol import Engine
from semsearch.errors import (
    ClosedIndexError,
    EngineUnavailableError,
    FilterError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    InputError,
    ReadOnlyIndexError,
    StorageError,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot search by keyword:UserWarning")

TEXTS = {
    "fees": "# Fees\n\nLate fees are twenty cents a day. Nobody pays more than five dollars.",
    "hours": "The library opens at nine in the morning. It closes at eight.",
    "rooms": "Meeting rooms can be booked for two hours. Rooms are free of charge.",
    "cards": "A lost card costs three dollars. Cards are valid for a year.",
    "empty": "",
    "late": "Who comes late finds the doors closed. Late visitors wait until the next day.",
}
ITEMS = [
    {
        "id": id,
        "text": text,
        "title": id.title(),
        "metadata": {"year": 2018 + place, "kind": "rule" if place % 2 else "note"},
    }
    for place, (id, text) in enumerate(TEXTS.items())
]
QUERIES = ("late fees", "opens in the morning", "rooms free of charge", "dollars")
FILTERS = (
    None,
    {"year": {"$gte": 2020}},
    {"kind": "rule"},
    {"$or": [{"id": "fees"}, {"kind": {"$ne": "rule"}}]},
    {"missing": None},
    {"missing": "x"},
)


def engine_at(location: str) -> Engine:
    return open_engine(location) if "://" in location else EmbeddedEngine(Path(location))


def over(location: str, **options: Any) -> semsearch.Index:
    """The index at the location of a lane; by the public way where there is one."""
    options.setdefault("encoder", WordEncoder())
    if "://" in location:
        return semsearch.Index(location, **options)
    return EngineIndex._over(EmbeddedEngine(Path(location)), **options)


class Wrapped:
    """An engine with something in between: subclasses define methods of their own."""

    def __init__(self, engine: Engine) -> None:
        self._inner = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Faulty(Wrapped):
    """Is away from the n-th call on; with `done`, that call is done before its answer is lost."""

    def __init__(self, engine: Engine, n: int, *, done: bool = False) -> None:
        super().__init__(engine)
        self._left = n
        self._done = done
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value) or name == "close":
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._done:
                value(*arguments, **options)
            if self._left <= 0:
                self.failed = True
                raise EngineUnavailableError("away")
            return value(*arguments, **options)

        return call


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[semsearch.Index]:
    with semsearch.Index(tmp_path / "plain", encoder=WordEncoder()) as index:
        yield index


@pytest.fixture
def far(location: str) -> Iterator[semsearch.Index]:
    with over(location) as index:
        yield index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for id, text in TEXTS.items():
        (folder / f"{id}.md").write_text(text)
    (folder / "sub" / "rooms.txt").write_text("Meeting rooms can be booked.\n")
    (folder / "broken.docx").write_text("no document")
    settle()
    return folder


def settle() -> None:
    time.sleep(0.03)  # older than the time within which a file is looked at twice


def counts(report: semsearch.index.AddReport) -> tuple[int, ...]:
    return report.added, report.updated, report.removed, report.unchanged, report.failed


def capabilities(index: semsearch.Index) -> Any:
    assert isinstance(index, EngineIndex)
    return index._store.engine.capabilities


def places(hits: semsearch.retrieval.Hits) -> list[tuple[Any, ...]]:
    """What a hit is, but for the passage's number, and for the order of equal scores."""
    found = [
        (-round(hit.score, 4), hit.passage.document_id, hit.passage.start, hit.passage.end, hit.passage.text)
        for hit in hits
    ]
    assert found == sorted(found, key=lambda each: each[0])
    return sorted(found)


def assert_same(plain: semsearch.Index, far: semsearch.Index) -> None:
    assert {each.id: each for each in plain.documents()} == {each.id: each for each in far.documents()}
    assert len(plain) == len(far)
    modes = [mode for mode in ("dense", "lexical") if mode == "dense" or far.ranks_keywords]
    for mode, query, where in itertools.product(modes, QUERIES, FILTERS):
        expected, found = (places(index.search(query, 50, where=where, mode=mode)) for index in (plain, far))
        if mode == "dense" or capabilities(far).scores:
            assert found == expected, (mode, query, where)
        else:
            assert sorted(each[1:] for each in found) == sorted(each[1:] for each in expected), (mode, query, where)


# -- documents ---------------------------------------------------------------------------------------------------------


def test_documents_come_and_go(plain: semsearch.Index, far: semsearch.Index) -> None:
    assert len(far) == 0
    assert far.search("late") == []
    assert far.get("fees") is None
    assert list(far.documents()) == []
    assert far.info()["encoder"] is None
    assert far.remove("fees") == 0
    for index in (plain, far):
        report = index.add(ITEMS)
        assert counts(report) == (6, 0, 0, 0, 0)
        assert counts(index.add(ITEMS)) == (0, 0, 0, 6, 0)
    assert_same(plain, far)
    changed = [{**ITEMS[0], "text": "Late fees are a dollar."}, {**ITEMS[1], "metadata": {"year": 2050}}]
    for index in (plain, far):
        assert counts(index.add(changed)) == (0, 2, 0, 0, 0)
        assert index.remove(["rooms", "never there", "rooms"]) == 1
    assert_same(plain, far)
    assert far.get("hours") == plain.get("hours")
    assert [each.id for each in far.documents({"year": 2050})] == ["hours"]
    assert far.remove(plain_ids := [each.id for each in plain.documents()]) == len(plain_ids)
    assert len(far) == 0
    assert far.search("late") == []


def test_hybrid_search_is_the_same_where_the_scores_are(plain: semsearch.Index, far: semsearch.Index) -> None:
    for index in (plain, far):
        index.add(ITEMS)
    fusion = None if capabilities(far).scores else semsearch.fusion.rrf
    if not far.ranks_keywords:
        pytest.skip("no keyword search")
    for query in QUERIES:
        expected, found = (semsearch.Retriever(index, fusion=fusion).search(query, 50) for index in (plain, far))
        if capabilities(far).scores:
            assert places(found) == places(expected)
        assert {hit.passage.document_id for hit in found} == {hit.passage.document_id for hit in expected}
    assert far.search("late fees")[0].passage.document_id == "fees"
    together = far.search(list(QUERIES))
    assert [places(each) for each in together] == [places(far.search(query)) for query in QUERIES]


def test_nothing_is_encoded_twice(location: str) -> None:
    encoder = WordEncoder()
    with over(location, encoder=encoder) as index:
        index.add(ITEMS)
        encoder.encoded.clear()
        index.add([{**ITEMS[0], "id": "again"}, {**ITEMS[1], "metadata": {}}])
        assert encoder.encoded == []
        assert len(index) == 6


def test_any_string_and_any_json_comes_back(far: semsearch.Index) -> None:
    documents = [
        semsearch.Document(
            "\ud800 'quoted' \"twice\" \\ \0",
            "Lone \udfff, NUL \0, emoji 🦉, العربية.",
            "\ud800",
            "\0",
            {"\ud800": "\udfff"},
        ),
        semsearch.Document("nested", "a", metadata={"a": {"b": [1, 2.5, None, True, {"c": "'"}]}, "": 0, "$x": 2**70}),
    ]
    far.add(documents)
    assert {each.id: each for each in far.documents()} == {each.id: each for each in documents}
    (hit,) = far.search("emoji", 1, mode="dense", where={"\ud800": "\udfff"})
    assert hit.passage.text == documents[0].text
    assert [each.id for each in far.documents({"a.b.c": "'"})] == ["nested"]
    assert far.remove(documents[0].id) == 1
    assert [each.id for each in far.documents()] == ["nested"]


def test_a_filter_that_is_wrong_is_told(far: semsearch.Index) -> None:
    far.add(ITEMS)
    for where in ({"$no": 1}, {"year": {"$gt": None}}, ["year"]):
        with pytest.raises(FilterError):
            far.search("late", where=where)  # type: ignore[arg-type]


# -- without a question ------------------------------------------------------------------------------------------------


def test_exploring_finds_the_same(plain: semsearch.Index, far: semsearch.Index) -> None:
    extra = [{**ITEMS[0], "id": "copy"}, ("words", "cents twenty are fees late")]
    for index in (plain, far):
        index.add([*ITEMS, *extra])  # type: ignore[list-item]

    def looked(index: semsearch.Index) -> list[Any]:
        return [
            places(index.similar("fees", 3)),
            places(index.similar("fees", 3, where={"kind": "rule"})),
            sorted((round(each.score, 4), round(each.overlap, 4)) for each in index.duplicates(0.3)),
            sorted((round(each.score, 4)) for each in index.duplicates(0.3, of="documents", where={"kind": "note"})),
            {name: round(share, 4) for name, share in index.classify("late fees", "kind", 3).probabilities.items()},
            sorted(each.text for each in index.summarize(sentences=3)),
            index.plot(query="late fees").get_title(),
        ]

    assert looked(far) == looked(plain)
    with pytest.raises(InputError, match="no document"):
        far.similar("never there")


def test_a_hit_tells_why(plain: semsearch.Index, far: semsearch.Index) -> None:
    for index in (plain, far):
        index.add(ITEMS)
    expected, found = (index.search("late fees, late fees", 1, mode="dense")[0].why().terms for index in (plain, far))
    if not far.ranks_keywords:
        assert found == {}
    elif capabilities(far).scores:
        assert found == pytest.approx(expected)
    else:
        assert set(found) == set(expected)


def test_reranking_sees_the_neighbours(plain: semsearch.Index, far: semsearch.Index) -> None:
    paragraphs = "\n\n".join(
        f"Paragraph {number} tells of {word} at length. " * 12 for number, word in enumerate(TEXTS)
    )
    for index in (plain, far):
        index.add([*ITEMS, ("long", paragraphs)])  # type: ignore[list-item]
    rows = []
    for index in (plain, far):
        with index.snapshot() as snapshot:
            hits = sorted(
                index.search("paragraph", 20, mode="dense"),
                key=lambda hit: (hit.passage.document_id, hit.passage.start),
            )
            rows.append(snapshot.surroundings([hit.passage.id for hit in hits], 1024))
    assert len(rows[0][0]) > 6
    np.testing.assert_allclose(rows[0][0], rows[1][0], atol=1e-6)
    np.testing.assert_allclose(rows[0][1], rows[1][1], atol=1e-6)
    assert semsearch.Retriever(far, mode="dense", reranker="feedback").search("late fees", 3)


def test_a_question_is_answered(far: semsearch.Index) -> None:
    far.add(ITEMS)
    answer = far.ask("How much is a lost card?")
    assert answer.document_id == "cards"
    assert answer.found
    assert TEXTS["cards"][answer.start : answer.end] == answer.text


# -- syncing -----------------------------------------------------------------------------------------------------------


def mutated(folder: Path) -> Iterator[str]:
    """Change the folder in one way after the other."""
    yield "new"
    (folder / "fees.md").write_text("# Fees\n\nLate fees are thirty cents a day.")
    yield "changed"
    os.utime(folder / "cards.md", ns=(1, 10**18))
    yield "touched"
    (folder / "hours.md").rename(folder / "sub" / "times.md")
    yield "renamed"
    (folder / "rooms.md").unlink()
    yield "removed"
    (folder / "late.md").unlink()
    (folder / "late.md").symlink_to("fees.md")
    yield "not followed"
    (folder / "broken.docx").write_text("no document, still")
    (folder / "cards.md").write_bytes(b"\0" * 100)
    yield "unreadable"
    (folder / "cards.md").write_text(TEXTS["cards"])
    (folder / "broken.docx").rename(folder / "whole.txt")
    yield "readable again"
    (folder / "broken.docx").write_text("no document")
    yield "unreadable anew"
    (folder / "broken.docx").unlink()
    yield "gone at last"


def test_a_folder_is_followed(plain: semsearch.Index, far: semsearch.Index, folder: Path) -> None:
    for what in mutated(folder):
        settle()
        expected, found = plain.sync(folder), far.sync(folder)
        assert found == expected, what
        assert_same(plain, far)
        again = plain.sync(folder), far.sync(folder)
        assert again[0] == again[1], what
        assert counts(again[1])[:3] == (0, 0, 0), what
    assert far.check().ok


def test_roots_keep_apart(plain: semsearch.Index, far: semsearch.Index, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "folder"
    other.mkdir(parents=True)
    (other / "fees.md").write_text("Other fees.")
    settle()
    for index in (plain, far):
        assert index.sync(folder).added == 7
        assert index.sync(other).added == 1
        assert index.sync(folder / "sub").unchanged == 1
        assert index.sync(other.parent).unchanged == 1
    assert_same(plain, far)
    assert far.get("folder/fees.md") is not None
    (folder / "sub" / "rooms.txt").unlink()
    for index in (plain, far):
        assert index.sync(other).removed == 0
        assert index.sync(folder / "sub").removed == 1
        index.add([("folder/taken.md", "Not of a file."), ("folder/fees.md", "No longer of a file.")])
    (other / "taken.md").write_text("Of a file.")
    (other / "fees.md").write_text("New fees.")
    settle()
    expected, found = plain.sync(other), far.sync(other)
    assert found == expected
    assert found.failed == 2
    assert_same(plain, far)


def test_paths_may_have_any_name(far: semsearch.Index, folder: Path) -> None:
    name = os.fsdecode(b"odd \xff' \" \\ name.txt")
    (folder / name).write_text("An odd name.")
    (folder / f"broken {name[:-4]}.docx").write_text("no document")
    settle()
    report = far.sync(folder)
    assert counts(report) == (8, 0, 0, 0, 2)
    assert far.get(name) is not None
    assert counts(far.sync(folder)) == (0, 0, 0, 8, 2)


def until_cut_off(faulty: Faulty, work: Callable[[semsearch.Index], object]) -> None:
    try:
        index = EngineIndex._over(faulty, encoder=WordEncoder())
        try:
            work(index)
        finally:
            index.close()
    except EngineUnavailableError:
        assert faulty.failed
    finally:
        faulty.close()


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_sync_goes_on_wherever_it_was_cut_off(
    plain: semsearch.Index, location: str, folder: Path, done: bool
) -> None:
    """The engine goes away at the n-th call, for every n; each time the folder has changed in many ways."""
    plain.sync(folder)
    with over(location) as index:
        index.sync(folder)
    for n in itertools.count(1):
        word = f"v{n}"
        (folder / "fees.md").write_text(f"Late fees, {word}.")
        (folder / f"new {word}.md").write_text(f"New in {word}. Late rooms.")
        os.utime(folder / "hours.md", ns=(1, 10**18 + n))
        moving = next(folder.glob("moved*"), folder / "sub" / "rooms.txt")
        moving.rename(folder / f"moved {word}.txt")
        if n > 1:
            (folder / f"new v{n - 1}.md").unlink()
        (folder / "cards.md").write_bytes(b"\0" * n if n % 2 else TEXTS["cards"].encode())
        (folder / "broken.docx").write_text(f"no document {word}")
        settle()
        faulty = Faulty(engine_at(location), n, done=done)
        until_cut_off(faulty, lambda index: index.sync(folder))
        plain.sync(folder)
        with over(location) as index:
            halfway = {each.id: each.text for each in index.documents()}
            assert set(halfway.values()) <= {each.text for each in plain.documents()} | set(before(word)), n
            index.sync(folder)
            settled = index.sync(folder)
            assert settled == plain.sync(folder)
            assert counts(settled)[:3] == (0, 0, 0)
            assert {each.id: each for each in plain.documents()} == {each.id: each for each in index.documents()}
            assert len(plain) == len(index)
        if not faulty.failed:
            break
    assert n > 10
    with over(location) as index:
        assert_same(plain, index)
        assert index.check().problems == ()


def before(word: str) -> Iterator[str]:
    last = f"v{int(word[1:]) - 1}"
    yield f"Late fees, {last}."
    yield f"New in {last}. Late rooms."
    yield from TEXTS.values()
    yield "Meeting rooms can be booked.\n"


@pytest.mark.slow
def test_a_creation_goes_on_wherever_it_was_cut_off(plain: semsearch.Index, tmp_path: Path, folder: Path) -> None:
    plain.sync(folder)
    for n in itertools.count(1):
        place = tmp_path / f"engine-{n}"
        faulty = Faulty(EmbeddedEngine(place), n)
        until_cut_off(faulty, lambda index: index.sync(folder))
        with over(str(place)) as index:
            index.sync(folder)
            assert index.sync(folder) == plain.sync(folder)
            assert_same(plain, index)
            assert index.check().ok
        if not faulty.failed:
            break
    assert n > 10


def test_two_may_write_at_once(plain: semsearch.Index, lane: Lane, location: str, folder: Path) -> None:
    if lane.name == "file":
        pytest.skip("a file is opened once")
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"Number {number} of many. Late rooms.")
    settle()
    with over(location) as index:  # the collection is there before the two begin
        index.sync(folder / "sub")
    failures: list[BaseException] = []

    def sync() -> None:
        try:
            with over(location) as index:
                index.sync(folder)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sync) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    plain.sync(folder / "sub")
    plain.sync(folder)
    with over(location) as index:
        assert index.sync(folder) == plain.sync(folder)
        assert_same(plain, index)


def test_two_new_roots_never_share_a_prefix(lane: Lane, location: str, folder: Path) -> None:
    if lane.name == "embedded":
        pytest.skip("a folder has one writer")

    class Racing(Wrapped):
        """Another process takes the prefix at the same moment."""

        raced = False

        def write_state(self, values: Any) -> None:
            for name, value in values.items():
                if name.startswith("root/") and not self.raced:
                    self.raced = True
                    self._inner.write_state({"root/7": {"path": "/elsewhere", "prefix": value["prefix"]}})
            self._inner.write_state(values)

    with EngineIndex._over(Racing(engine_at(location)), encoder=WordEncoder()) as index:
        assert index.sync(folder).added == 7
        (prefix,) = {each.id.partition("/")[0] for each in index.documents()}
        assert prefix.startswith("folder-")
    with over(location) as index:
        assert counts(index.sync(folder)) == (0, 0, 0, 7, 1)


# -- language ----------------------------------------------------------------------------------------------------------

GERMAN = [
    f"Die Gebühren für die {word} werden am Ende des Jahres von der Verwaltung der Bibliothek und nicht von den Lesern "
    "bezahlt, weil es so in der Ordnung steht, die für alle gilt. "
    for word in ("Bücher", "Räume", "Karten", "Filme", "Noten", "Spiele", "Bilder", "Zeitungen")
]


def test_the_language_is_told_from_the_texts(location: str) -> None:
    with over(location) as index:
        index.add([("first", "Gebühren")])
        assert index.info()["language"] == "english"
        index.add([(f"text {number}", text) for number, text in enumerate(GERMAN)])
        assert index.info()["language"] == "german"
        if index.ranks_keywords:  # the first document's keywords were made anew
            assert {hit.passage.document_id for hit in index.search("Gebühr", mode="lexical")} >= {"first", "text 0"}
    with over(location) as index:
        assert index.analyzer.language == "german"
        index.add([("english", "The fees of the library are paid by the readers and not by the state. " * 5)])
        assert index.info()["language"] == "german"


def test_a_search_while_the_language_is_told_leaves_it_as_told(tmp_path: Path) -> None:
    asked: list[str] = []

    class Asking(EmbeddedEngine):
        def upsert(self, entries: Sequence[Any]) -> None:
            super().upsert(entries)
            if asked:  # as another thread would, while what is there gets its keywords anew
                asked.append(index.search("short", mode="lexical")[0].passage.document_id)

    with EngineIndex._over(Asking(tmp_path / "index"), encoder=WordEncoder()) as index:
        index.add([("short", "short w1 w2")])
        asked.append("from now on")
        index.add([(f"text {number}", text) for number, text in enumerate(GERMAN)])
        assert asked[1] == "short"
        assert len(index.search("Gebühr", mode="lexical")) == 8
        assert (index.info()["language"], index.analyzer.language) == ("german", "german")


@pytest.mark.slow
def test_a_choice_of_language_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    items = [(f"text {number}", text) for number, text in enumerate(GERMAN)]
    for n in itertools.count(1):
        place = str(tmp_path / f"engine-{n}")
        with over(place) as index:
            index.add([("first", "Gebühren")])
        faulty = Faulty(EmbeddedEngine(Path(place)), n)
        until_cut_off(faulty, lambda index: index.add(items))
        with over(place) as index:
            index.add(items)
            assert index.info()["language"] == "german"
            assert len(index.search("Gebühr", 20, mode="lexical")) == 9
        if not faulty.failed:
            break
    assert n > 5


# -- life --------------------------------------------------------------------------------------------------------------


def test_an_index_is_bound_to_its_models(location: str) -> None:
    with pytest.raises(IndexNotFoundError):
        over(location, create=False)
    with over(location) as index:
        index.add(ITEMS)
        assert index.info()["encoder"] == {"name": "toy-words", "dimension": 1024}
    other = WordEncoder()
    other.name = "another"  # type: ignore[misc]
    with pytest.raises(IndexMismatchError, match=r"toy-words.*another"):
        over(location, encoder=other)
    with pytest.raises(IndexMismatchError, match=r"english.*german"):
        over(location, analyzer="german")
    with over(location, encoder=None) as index:
        with pytest.raises(IndexMismatchError, match="of the user's own"):
            index.search("late")
        if index.ranks_keywords:
            assert index.search("late", mode="lexical")


def test_what_cannot_be_done_is_told(location: str) -> None:
    with over(location, timeout=0.1) as index:
        index.add(ITEMS)
        with pytest.raises(InputError, match="semsearch copy"):
            index.backup("somewhere")
        assert isinstance(index, EngineIndex)
        with index._store.lock(), pytest.raises(IndexLockedError):
            index.add([("x", "x")])
        assert "6 documents" in repr(index)
    assert "closed" in repr(index)
    for use in (lambda: len(index), lambda: index.search("late"), lambda: index.add(ITEMS), lambda: index.get("fees")):
        with pytest.raises(ClosedIndexError):
            use()
    index.close()
    with over(location, read_only=True) as index:
        assert index.search("late", mode="dense")
        for write in (lambda: index.add(ITEMS), lambda: index.remove("fees"), index.optimize):
            with pytest.raises(ReadOnlyIndexError):
                write()


def test_what_was_learned_is_kept(location: str) -> None:
    with over(location) as index:
        index.add(ITEMS)
        assert index.info()["fusion"]["learned"] is False
        index.learn(semsearch.tuning.Choice("min_max", 0.8))
    with over(location) as index:
        fusion = index.info()["fusion"]
        assert (fusion["fusion"], fusion["dense"], fusion["learned"]) == ("min_max", 0.8, True)
        if index.ranks_keywords:
            expected = semsearch.Retriever(index, fusion=semsearch.tuning.Choice("min_max", 0.8).function())
            assert places(index.search("late fees")) == places(expected.search("late fees"))


def test_the_generation_rises_with_every_commit(far: semsearch.Index) -> None:
    seen = [far.info()["generation"]]
    for change in (lambda: far.add(ITEMS), lambda: far.add([("x", "y")]), lambda: far.remove("x")):
        change()
        seen.append(far.info()["generation"])
    assert seen == sorted(set(seen))


def test_a_check_tells_what_is_wrong(location: str) -> None:
    with over(location) as index:
        assert index.check().ok
        index.add(ITEMS)
        report = index.check()
        assert (report.ok, report.documents, report.passages) == (True, 6, 5)
        assert isinstance(index, EngineIndex)
        engine = index._store.engine
        entry = engine.get(["fees"], parts=True)["fees"]
        other = engine.get(["hours"], parts=True)["hours"].parts[0]
        engine.upsert([entry._replace(parts=[other._replace(start=0, end=4), other._replace(start=70, end=700)])])
        problems = index.check().problems
        assert len(problems) == 2
        assert "embedded from another text" in problems[0]
        assert "outside" in problems[1]
        index.optimize()
        index.add([{**ITEMS[0], "title": "New"}])
        assert index.check(repair=True).ok


def test_without_keywords_meaning_alone_is_searched(location: str) -> None:
    class Wordless(Wrapped):
        @property
        def capabilities(self) -> Any:
            return replace(self._inner.capabilities, text=False)

    with EngineIndex._over(Wordless(engine_at(location)), encoder=WordEncoder()) as index:
        index.add(ITEMS)
        retriever = semsearch.Retriever(index)
        with pytest.warns(UserWarning, match="cannot search by keyword") as told:
            hits, again = [retriever.search("late fees", 3) for _ in range(2)]
        assert len(told) == 1
        assert places(again) == places(hits)
        assert places(hits) == places(index.search("late fees", 3, mode="dense"))
        with pytest.raises(InputError, match="cannot search by keyword"):
            index.search("late fees", mode="lexical")
        with pytest.raises(InputError, match="no fusion to tune"):
            retriever.tune([("late", "late")] * 5)
        assert hits[0].why().terms == {}


def test_what_is_gone_when_it_is_read_is_searched_again(location: str) -> None:
    class Losing(Wrapped):
        losses = 1

        def passages(self, ids: Any) -> Any:
            found = self._inner.passages(ids)
            if self.losses and found:
                self.losses -= 1
                del found[next(iter(found))]
            return found

    with EngineIndex._over(Losing(engine_at(location)), encoder=WordEncoder()) as index:
        index.add(ITEMS)
        assert len(index.search("late fees", 3, mode="dense")) == 3
        Losing.losses = 100
        index._store.engine.losses = 100  # type: ignore[attr-defined]
        assert len(index.search("late fees", 3, mode="dense")) == 2  # told as it is, and no error


def test_a_forked_child_has_its_own_connection_or_is_told(location: str) -> None:
    with over(location) as index:
        index.add(ITEMS)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                found = index.search("late fees", 1, mode="dense")
                code = 0 if found[0].passage.document_id == "fees" else 2
            except StorageError as error:
                code = 0 if "://" not in location and "forked" in str(error) else 3
            finally:
                os._exit(code)
        until = time.monotonic() + 15
        while (state := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
            time.sleep(0.05)
        assert os.waitstatus_to_exitcode(state[1]) == 0
        assert state[0] == child, "it hangs"
        assert index.search("late fees", 1, mode="dense")


# -- who serves it -----------------------------------------------------------------------------------------------------


def test_the_server_serves_it(location: str, folder: Path) -> None:
    from semsearch.gate import Limits
    from semsearch.service import Service

    with over(location) as index:
        index.sync(folder)
        service = Service(index, [folder], None, Limits())
        found = service.search("late fees", 3, "dense", None)
        assert found["hits"][0]["document_id"] == "fees.md"
        assert found["generation"] == index.info()["generation"]
        passage = int(found["hits"][0]["passage_id"])
        assert service.document_of(passage, 500, "")["id"] == "fees.md"
        assert ("fee" in service.explain("late fees", passage)["terms"]) == index.ranks_keywords
        info = service.info()
        assert (info["documents"], info["name"]) == (7, index.label)
        assert service.message(StorageError(f"{index.location} is away")) == f"{index.label} is away"
        job = service.start_sync("folder")
        while service.get_sync(job["id"])["state"] == "running":
            time.sleep(0.05)
        assert service.get_sync(job["id"])["report"]["unchanged"] == 7
        service.close()


def test_the_command_line_takes_a_location(location: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from semsearch.cli import main

    if "://" not in location:
        pytest.skip("a folder")
    where = ["--index", location]
    assert main(["index", str(folder), *where]) == 0
    assert "added 7" in capsys.readouterr().out
    assert main(["search", "late fees", *where]) == 0
    assert "fees.md" in capsys.readouterr().out
    assert main(["ask", "How much is a lost card?", *where]) == 0
    assert "three dollars" in capsys.readouterr().out
    for command in (["info"], ["check"], ["similar", "fees.md"]):
        assert main([*command, *where]) == 0
        assert capsys.readouterr().out
    assert main(["backup", "somewhere", *where]) == 2
    assert "semsearch copy" in capsys.readouterr().err


def test_what_only_a_folder_has_is_refused() -> None:
    for option in ({"lexical": "okapi"}, {"storage": "int8"}, {"recall": 1.0}, {"timeout": -1}):
        with pytest.raises(InputError):
            semsearch.Index("milvus://localhost:1/x", **option)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="milvus://host"):
        semsearch.Index(Path("milvus://localhost/x"))
    with pytest.raises(InputError, match="milvus://host"):
        semsearch.Index("other://localhost/x")


def test_an_index_in_a_folder_loads_nothing_of_engines(tmp_path: Path) -> None:
    code = f"""
import sys, semsearch
with semsearch.Index({str(tmp_path / "index")!r}) as index:
    index.add([("a", "Late fees are twenty cents a day.")])
    assert index.search("late fees")
assert not [name for name in sys.modules if name.startswith("semsearch.engine") or "milvus" in name or name == "grpc"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

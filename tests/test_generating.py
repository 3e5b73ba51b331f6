"""The figures of examples/benchmarks/generating.py, of answers that are counted by hand; and what it does again."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from semsearch.datasets import Question
from semsearch.records import Answer, Citation, Sentence

FOLDER = Path(__file__).parents[1] / "examples" / "benchmarks"
TALE = "The king had three sons. The youngest son was called Boots. Boots found a golden bridle."


@pytest.fixture
def generating(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield __import__("generating")
    for name in ("generating", "common"):
        sys.modules.pop(name, None)


class Tells:
    """A generative reader that repeats its first passage's last sentence, and counts how often it is asked."""

    name = "tells"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stream(self, question: str, passages: Any) -> Iterator[str]:
        self.asked.append(question)
        yield from ("Boots found", " a golden bridle.")


def row(found: bool, f1: float, recall: float, sentences: int, supported: int, **more: Any) -> dict[str, Any]:
    other = {"found": True, "f1": 0.5, "written_one": False}
    given = {"found": found, "f1": f1, "recall": recall, "sentences": sentences, "supported": supported}
    times = {"tokens": 11, "first": 2.0, "writing": 4.0, "checking": 0.1}
    return {**given, **times, "text": "text", "span": other, "auto": other, **more}


def test_shares_are_of_what_they_say(generating: ModuleType) -> None:
    told = [
        row(True, 0.6, 1.0, 2, 2),
        row(True, 0.1, 0.0, 1, 1),  # wrong, not caught
        row(True, 0.1, 0.2, 2, 1),  # wrong, one sentence is marked
        row(False, 0.0, 0.0, 1, 0),  # wrong, caught
        row(False, 0.1, 0.5, 1, 0),  # half of the reference is there: not wrong
        row(False, 0.0, 0.0, 0, 0, text="", tokens=0, writing=0.0),  # nothing was written
    ]
    figures = generating.summary(told, told[:2])
    assert figures["answered"] == 50.0
    assert (figures["sentences"], figures["supported sentences"]) == (7, 57.1)
    assert figures["F1 of the written texts"] == 15.0
    assert figures["F1 of the answers that are found"] == 26.7
    assert (figures["wrong"], figures["wrong and not found"]) == (3, 33.3)
    assert figures["wrong and at least one sentence marked"] == 66.7
    assert figures["others that are found"] == 50.0
    assert figures["tokens a second"] == 2.5  # the first token of each is not counted: 5 * 10 / 20 s
    assert figures["not seen by the reader"] == 2
    assert figures["extracted spans"] == {"answered": 100.0, "F1": 50.0}


def test_an_answer_is_compared_with_its_best_reference(generating: ModuleType) -> None:
    citation = Citation("d", 0, 5, None, 1.0)
    sentences = (Sentence("A golden bridle.", 0, 16, (citation,)), Sentence("Or not.", 17, 24, ()))
    found = Answer("A golden bridle. Or not.", 0.5, citations=(citation,), sentences=sentences)
    question = Question("1", "What?", answers=("the bridle", "silver"))
    told = generating.judged(found, question)
    assert (told["found"], told["written_one"], told["sentences"], told["supported"]) == (True, True, 2, 1)
    assert (told["f1"], told["recall"]) == (0.4, 1.0)  # one of four words and of one; an article is none
    refused = generating.judged(Answer("", 0.0, alternatives=(found,)), question)
    assert (refused["found"], refused["text"]) == (False, found.text)


def test_what_was_written_is_not_written_again(
    generating: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, name = tmp_path / "data", "tales"
    (data / name).mkdir(parents=True)
    questions = [{"id": str(i), "text": f"What did Boots find {i}?", "answers": ["a golden bridle"]} for i in range(6)]
    for file, lines in (("corpus", [{"id": "t", "title": "tale", "text": TALE}]), ("queries", questions)):
        with gzip.open(data / name / f"{file}.jsonl.gz", "wt") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)
    (data / name / "qrels.tsv").write_text("".join(f"{i}\tt\t1\n" for i in range(6)))
    monkeypatch.setattr(generating, "SETS", (name,))
    reader = Tells()
    monkeypatch.setattr(generating, "loaded", lambda name, arguments: reader)
    arguments = argparse.Namespace(reader="tells", k=5, length=9, context=99, work=tmp_path, data=data, questions=4)
    first = generating.answers(arguments)["tales"]
    assert (first["questions"], first["answered"], first["supported sentences"]) == (2, 100.0, 100.0)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text(file.read_text()[:-20])  # as if it had been stopped while it wrote
    arguments.questions = 8
    assert generating.answers(arguments)["tales"]["questions"] == 4
    assert len(reader.asked) == 5
    assert len(set(reader.asked)) == 4
    assert [line["set"] for line in generating.rows(file)] == [name] * 4

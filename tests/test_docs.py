"""The pages under docs/ are true: their blocks print what they say, and the page of errors is that of the source."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


run_blocks, make_errors = module("run_blocks"), module("make_errors")


@pytest.mark.parametrize("page", run_blocks.pages(), ids=lambda page: page.stem)
def test_the_blocks_of_a_page_print_what_it_says(page: Path) -> None:
    # A process of its own: pages change the working directory and the environment.
    command = [sys.executable, str(DOCS / "run_blocks.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\nIf it should: python docs/run_blocks.py --store {page.name}"
    )


def test_the_page_of_errors_is_that_of_the_source() -> None:
    written = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert written == make_errors.page(), "run python docs/make_errors.py"


def test_every_class_of_errors_has_its_cause_and_cure() -> None:
    assert set(make_errors.classes()) == set(make_errors.ABOUT)


def test_the_page_on_how_it_works_names_every_module() -> None:
    package = ROOT / "semsearch"
    modules = {path.stem for path in [*package.glob("*.py"), *package.glob("engines/*.py")]} - {"__init__"}
    named = set(re.findall(r"`(\w+)`", (DOCS / "how-it-works.md").read_text(encoding="utf-8")))
    assert {name for name in modules - named if not name.startswith("milvus_")} == set()


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *DOCS.glob("*.md")]), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert missing == []

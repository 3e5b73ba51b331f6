"""The page of the command line is true: its commands print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from semsearch.cli import parser

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "command-line.md").read_text(encoding="utf-8")


def masked(text: str) -> str:
    """Without what differs by processor, release of SQLite or day: scores, their bars, bytes."""
    text = re.sub(r"\d\.\d{3,}", "#", text)
    text = re.sub("[█▉▊▋▌▍▎▏]+", "█", text)
    return re.sub(r"[\d,]+ bytes", "# bytes", text)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse words its help in another way from Python 3.13 on")
def test_the_commands_of_the_page_print_what_it_says() -> None:
    code = "import run_commands; print(run_commands.run(run_commands.PAGE), end='')"
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DOCS, env=env, capture_output=True, encoding="utf-8", timeout=900, check=True
    )
    assert masked(done.stdout) == masked(PAGE), "If it should: python docs/run_commands.py --store"


def test_the_page_has_every_command() -> None:
    (commands,) = (action for action in parser()._actions if action.dest == "command")
    assert re.findall(r"^## semsearch (\w+)$", PAGE, re.MULTILINE) == list(commands.choices or ())

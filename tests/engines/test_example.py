"""The example says the same wherever the index lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "past_one_machine.py"
OUTPUT = """\
sync: added 24, updated 0, removed 0, unchanged 0, failed 0
132 passages of 25 documents
1. 0.498 services/interlibrary-loan.rst
2. 0.363 services/late-fees.md
3. 0.341 services/interlibrary-loan.rst
with a filter: The ferry to the island leaves at ten past six.
answer: 60p (services/late-fees.md, characters 487 to 490)
removed 1 document; None is left of it
"""


def run(location: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), location], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_same_program_runs_wherever_the_index_lives(location: str) -> None:
    assert run(location) == OUTPUT
    again = run(location)
    assert again == OUTPUT.replace("added 24", "added 0").replace("unchanged 0", "unchanged 24")

"""Run the commands of a page as a reader would, and compare what they print with what the page says.

    python docs/run_commands.py                 # says whether docs/command-line.md is right
    python docs/run_commands.py --store         # puts what was printed into it

A page's `console` blocks run one after another in a folder with `handbook`, the documents of the examples: a line after
"$ " is a command, what follows is what it prints, its errors too. Blocks marked `sh` do not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from run_blocks import DOCS, home

PAGE = DOCS / "command-line.md"
BLOCK = re.compile(r"^```console\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
PRELUDE = 'semsearch() { "$SEMSEARCH_PYTHON" -m semsearch.cli "$@"; }\n'


def printed(command: str, folder: Path) -> str:
    """What a command prints in bash."""
    env = {**os.environ, "SEMSEARCH_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    shell = ["bash", "-c", PRELUDE + command]
    done = subprocess.run(shell, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = done.stdout.replace(str(folder), "/home/ada")
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def run(page: Path) -> str:
    """The page with what its commands print today."""
    with home() as folder:

        def replaced(match: re.Match[str]) -> str:
            commands = [line[2:] for line in match[1].splitlines() if line.startswith("$ ")]
            return "```console\n" + "".join(f"$ {each}\n{printed(each, folder)}" for each in commands) + "```\n"

        return BLOCK.sub(replaced, page.read_text(encoding="utf-8"))


def main() -> int:
    text = run(PAGE)
    if text == PAGE.read_text(encoding="utf-8"):
        print(f"{PAGE.name}: as printed")
        return 0
    if "--store" in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        print(f"{PAGE.name}: stored")
        return 0
    print(f"{PAGE.name}: differs")
    return 1


if __name__ == "__main__":
    sys.exit(main())

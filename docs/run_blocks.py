"""Run the Python blocks of the pages as a reader would, and compare what they print with what the pages say.

    python docs/run_blocks.py                 # says where a page is wrong
    python docs/run_blocks.py --store         # puts what was printed into the pages

A page's `python` blocks run one after another in a folder with `handbook`, the documents of the examples; a `text` one
behind it is what it prints. Blocks marked `py` are code of other libraries and do not run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DOCUMENTS = DOCS.parent / "examples" / "documents"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """The pages with blocks that run."""
    return [path for path in sorted(DOCS.glob("*.md")) if BLOCK.search(path.read_text(encoding="utf-8"))]


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A folder with a handbook in it, which is the home folder and the working directory meanwhile."""
    before, variables = Path.cwd(), dict(os.environ)
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(DOCUMENTS, Path(name) / "handbook")
        os.environ |= {"HOME": name, "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "NO_COLOR": "1"}
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(variables)


def run(page: Path) -> str:
    """The page with what its blocks print today."""
    names: dict[str, object] = {"__name__": "__main__"}

    def replaced(match: re.Match[str]) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(match["code"], str(page), "exec"), names)
        printed = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
        shown = f"\n```text\n{printed}\n```\n" if printed else ""
        return f"```python\n{match['code']}```\n{shown}"

    with home():
        return BLOCK.sub(replaced, page.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the Python blocks of the pages.")
    parser.add_argument("pages", nargs="*", type=Path, help="all of them by default")
    parser.add_argument("--store", action="store_true", help="put what was printed into the pages")
    arguments = parser.parse_args()
    wrong = 0
    for page in arguments.pages or pages():
        text = run(page.resolve())
        same = text == page.read_text(encoding="utf-8")
        print(f"{page.name}: {'as printed' if same else 'stored' if arguments.store else 'differs'}")
        wrong += not same and not arguments.store
        if not same and arguments.store:
            page.write_text(text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

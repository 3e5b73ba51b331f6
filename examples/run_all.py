"""Run every example as a newcomer would, and the notebooks from the first cell to the last.

    python examples/run_all.py            # stops at the first that fails
    python examples/run_all.py --store    # also stores the notebooks' outputs

All run in a temporary folder, with the examples' documents beside them, so that nothing is left behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
SCRIPTS = [
    ["index_folder.py", "examples/documents"],
    ["index_folder.py", "examples/documents"],  # again: nothing changed
    ["ask.py", "What does a DVD cost a day when it is late?"],
    ["handbook_questions.py"],
    ["integrations.py"],
    ["past_one_machine.py"],
    ["generate_text.py", "--length", "12"],
    ["generated_answers.py"],
    ["pictures.py"],
]


def run_script(command: list[str], place: Path) -> None:
    print(f"\n==> python examples/{' '.join(command)}", flush=True)
    subprocess.run([sys.executable, f"examples/{command[0]}", *command[1:]], cwd=place, check=True)


def run_notebook(path: Path, place: Path, *, store: bool) -> None:
    import nbformat
    from nbclient import NotebookClient

    print(f"\n==> {path.name}", flush=True)
    shutil.rmtree(place / "indexes", ignore_errors=True)  # each starts without an index, as its reader does
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(place / "examples")}}
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day: another diff at every run
    print(f"{sum(cell.cell_type == 'code' for cell in notebook.cells)} cells ran")
    if store:
        text = nbformat.writes(notebook)  # links into the temporary folder become links beside the notebook
        for link in (f"file://{place}/examples/", f"{place}/examples/", f"{place}/"):
            text = text.replace(link, "")
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every example.")
    parser.add_argument("--store", action="store_true", help="store the outputs of the notebooks")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(EXAMPLES, place / "examples", ignore=shutil.ignore_patterns("benchmarks", "__pycache__"))
        for path in sorted(EXAMPLES.glob("*.ipynb")):
            run_notebook(path, place, store=arguments.store)
        for command in SCRIPTS:
            run_script(command, place)


if __name__ == "__main__":
    main()

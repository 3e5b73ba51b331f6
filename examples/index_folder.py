"""Make a folder searchable, or bring its index up to date.

    python examples/index_folder.py examples/documents
    python examples/index_folder.py ~/papers --index indexes/papers

Run it again after files have changed: only those that changed are read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import semsearch


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a folder searchable, or bring its index up to date.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, help="where the index is kept (default: indexes/<name of the folder>)")
    arguments = parser.parse_args()

    location = arguments.index or Path("indexes") / arguments.folder.resolve().name

    with semsearch.Index(location) as index:  # created if it is not there
        report = index.sync(arguments.folder)
        print(f"added {report.added}, updated {report.updated}, removed {report.removed}, unchanged {report.unchanged}")
        print(f"{report.failed} could not be read")
        for path, reason in report.failures:
            print(f"  {path}: {reason}")
        print(f"{len(index)} passages in {location}")


if __name__ == "__main__":
    main()

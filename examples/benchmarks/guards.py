"""What it costs to parse files in a worker process: syncing a folder with it and without it.

    python examples/benchmarks/guards.py                             # files of ../shared/data/folders/mixed.tar.gz
    python examples/benchmarks/guards.py --folder ~/handbook --files 100 --repeat 5

Both ways take turns on new indexes. With the words of a text for its vector, which costs next to nothing, the parsers
are most of the work: that is the worst case. Then the encoder that ships, on fewer files. Prints medians, and the
median ratio of neighbouring runs; processor time tells more where others use the machine. The worker's own imports are
counted, those of this process are not: they were made in a run before.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import statistics
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import semsearch
from semsearch.encoding import get_encoder
from semsearch.loading import load_file

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "folders" / "mixed.tar.gz"
KINDS = (".html", ".docx", ".pdf", ".md", ".rst", ".ipynb", ".txt", ".toml", ".py")


class Words:
    """Counts words: an encoder that costs next to nothing."""

    name, dimension = "words", 256

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        """(n, 256) float32, not normalised."""
        rows = np.ones((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.split():
                row[zlib.crc32(word.encode("utf-8", "surrogatepass")) % self.dimension] += 1
        return rows


class Unguarded:
    """What `sync` uses in place of a `Parser`: the same, in this process."""

    load = staticmethod(load_file)

    def expect(self, path: Path) -> None:
        """Nothing is done ahead."""

    def __enter__(self) -> Unguarded:
        return self

    def __exit__(self, *_: object) -> None:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the worker process costs.")
    parser.add_argument("--folder", type=Path, help="a folder of your own (default: the mixed folder)")
    parser.add_argument("--files", type=int, default=300, help="how many files of it are taken")
    parser.add_argument("--encoded", type=int, default=40, help="how many of them with the encoder that ships; 0: none")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        source = options.folder or unpacked(Path(work, "source"))
        sample = list(chosen(source, options.files))
        copy(source, sample, Path(work, "words"))
        report("words", Path(work, "words"), Words(), options.repeat)
        if options.encoded:
            copy(source, sample[: options.encoded], Path(work, "encoded"))
            encoder = get_encoder(None)
            encoder.encode(["loads the model"])
            report(encoder.name, Path(work, "encoded"), encoder, max(1, options.repeat // 2))


def unpacked(target: Path) -> Path:
    if not ARCHIVE.exists():
        raise SystemExit(f"There is no {ARCHIVE}. Pass a folder with --folder.")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(target, filter="data")
    return target


def chosen(folder: Path, count: int) -> Iterator[Path]:
    """Files of up to 500 kB, of the kinds in turn, the same ones each time."""
    order = random.Random(7)
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 500_000)
    groups = [[path for path in found if path.suffix.lower() == kind] for kind in KINDS]
    for group in groups:
        order.shuffle(group)
    while count > 0 and any(groups):
        for group in filter(None, groups):
            if count > 0:
                yield group.pop()
                count -= 1


def copy(source: Path, paths: Sequence[Path], target: Path) -> None:
    for path in paths:
        destination = target / path.relative_to(source)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, destination)
    time.sleep(0.05)


def report(name: str, folder: Path, encoder: Any, repeat: int) -> None:
    """Print the medians of both ways, by the clock and in processor time."""
    times: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    measured("without", folder, encoder)  # warms the disk's cache and the imports
    for _ in range(repeat):
        for way, taken in times.items():
            taken.append(measured(way, folder, encoder))
    print(f"{name}: {sum(path.is_file() for path in folder.rglob('*'))} files, {repeat} runs each way")
    for measure, pairs in enumerate(("by the clock", "processor time")):
        without, guarded = ([run[measure] for run in taken] for taken in times.values())
        ratios = sorted(one / other for one, other in zip(guarded, without, strict=True))
        print(
            f"  {pairs}: without the worker {statistics.median(without):.2f} s, with it "
            f"{statistics.median(guarded):.2f} s; ratio {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


def measured(way: str, folder: Path, encoder: Any) -> tuple[float, float]:
    """How long the first sync of a new index takes: by the clock, and processor time of all processes."""
    parser = mock.patch("semsearch.sync.Parser", Unguarded) if way == "without" else nullcontext()
    with tempfile.TemporaryDirectory() as place, semsearch.Index(place, encoder=encoder) as index, parser:
        clock, processor = time.perf_counter(), processor_time()
        index.sync(folder, progress=False)
        return time.perf_counter() - clock, processor_time() - processor


def processor_time() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()

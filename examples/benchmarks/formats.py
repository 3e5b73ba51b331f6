"""What comes out of real files of many formats, beside what is published of them.

    python examples/benchmarks/formats.py                # ../shared/data/folders/formats.tar.gz
    python examples/benchmarks/formats.py --data DIR     # DIR/folders/formats.tar.gz

Three things are measured, all through the worker process that `sync` uses:

- Every file is loaded: how many give text, how many a reason, which takes longest, and how much memory the worker and
  this process took at most.
- Text beside the Markdown that docling publishes for its test documents, per format: the F1 of their words. Both sides
  are treated alike: comments such as `<!-- image -->`, targets of links, HTML entities and backslashes are taken out;
  words are the runs of letters and digits, in lower case, counted as often as they occur. F1 is twice the number of
  words in common by the number of words on both sides; precision and recall are the same number by the words of one
  side. A file that gives a reason counts as one without words. Averages are over files.
- Files in known encodings (chardet's test files, the encoding is the name of their folder): the share of which at least
  995 of 1,000 characters are right and in place, with our decoder and with charset-normalizer alone.

Rows of sheets repeat the names of their columns, which docling's tables do not: their precision says that, and their
recall that nothing is missing. Results go to results/formats.json with the machine, the versions and the commit.
"""

from __future__ import annotations

import argparse
import codecs
import html
import re
import resource
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from semsearch.decoding import decode
from semsearch.errors import LoadError
from semsearch.formats import UnreadableError
from semsearch.parsing import Parser

ROOT = Path(__file__).resolve().parents[2]
KINDS = {  # the format: its folder in docling's test data
    ".pdf": "pdf",
    ".docx": "docx",
    ".html": "html",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".odt": "odf",
    ".epub": "epub",
    ".md": "md",
}
SPECIAL = {"EUC-TW": "", "MacCyrillic": "mac_cyrillic", "MacRoman": "mac_roman", "IBM855": "cp855", "IBM866": "cp866"}


class Score(NamedTuple):
    """How words agree; each between 0 and 1."""

    f1: float
    precision: float
    recall: float


def words(text: str) -> Counter[str]:
    """The words of Markdown, without what is not text to a reader."""
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(r"(?<=\])\([^)\s]*\)", " ", text)
    text = html.unescape(text).replace("\\", "")
    return Counter(re.findall(r"[^\W_]+", text.lower()))


def agreement(found: str, wanted: str) -> Score:
    """How the words of a text agree with those that it should have.

    >>> agreement("# Fees", "fees and <!-- image -->").recall
    0.5
    """
    ours, theirs = words(found), words(wanted)
    if not ours and not theirs:
        return Score(1.0, 1.0, 1.0)
    common, total = (ours & theirs).total(), ours.total() + theirs.total()
    return Score(2 * common / total, common / max(1, ours.total()), common / max(1, theirs.total()))


def truths(docling: Path, suffix: str) -> Iterator[tuple[Path, str]]:
    """The documents of a format, each with the text that is published for it."""
    folder = docling / KINDS[suffix]
    for path in sorted((folder / "sources").glob(f"*{suffix}")):
        for name in (f"{path.name}.md", f"{path.stem}.md"):
            if (truth := folder / "groundtruth" / name).is_file():
                yield path, truth.read_text(encoding="utf-8")
                break


def encoded_files(folder: Path) -> Iterator[tuple[bytes, str]]:
    """The files of folders that are named after an encoding Python knows, and their text."""
    for each in sorted(filter(Path.is_dir, folder.iterdir())):
        # iso-8859-2-czech: the language is no part of the name of the encoding
        named = re.match(r"(?:iso-8859|windows)-\d+", each.name)
        if codec := SPECIAL.get(each.name, named[0] if named else each.name):
            assert codecs.lookup(codec)
            for path in sorted(each.iterdir()):
                data = path.read_bytes()
                yield data, data.decode(codec, errors="replace").removeprefix("\ufeff")


def same_text(found: str, wanted: str) -> bool:
    same = sum(a == b for a, b in zip(wanted, found, strict=False))
    return same >= 0.995 * max(len(wanted), len(found))


def by_charset_normalizer(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return "" if best is None else str(best).removeprefix("\ufeff")


def by_us(data: bytes) -> str:
    try:
        return decode(data)[0]
    except UnreadableError:
        return ""


def load_all(folder: Path, parser: Parser) -> dict[str, Any]:
    """Load every file; anything but a text or a LoadError would end the run."""
    texts, characters = 0, 0
    reasons: Counter[str] = Counter()
    slowest = (0.0, "")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    start = time.perf_counter()
    for path in paths:
        begun = time.perf_counter()
        try:
            characters += len(parser.load(path).text)
            texts += 1
        except LoadError as error:
            reasons[re.split(r"[;:(]", error.reason)[0].strip()] += 1
        slowest = max(slowest, (time.perf_counter() - begun, path.relative_to(folder).as_posix()))
    return {
        "files": len(paths),
        "text": texts,
        "reason": len(paths) - texts,
        "reasons": dict(reasons.most_common()),
        "characters": characters,
        "seconds": round(time.perf_counter() - start, 1),
        "slowest_seconds": round(slowest[0], 2),
        "slowest_file": slowest[1],
    }


def compare_texts(docling: Path, parser: Parser) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for suffix in KINDS:
        scores = {}
        for path, truth in truths(docling, suffix):
            try:
                text = parser.load(path).text
            except LoadError:
                text = ""
            scores[path.name] = agreement(text, truth)
        if scores:
            means = [sum(column) / len(scores) for column in zip(*scores.values(), strict=True)]
            worst = min(scores, key=lambda name: scores[name].f1)
            rows[suffix] = {"files": len(scores)} | {
                **dict(zip(Score._fields, (round(mean, 4) for mean in means), strict=True)),
                "lowest_f1": round(scores[worst].f1, 4),
                "lowest_file": worst,
            }
    return rows


def compare_encodings(folder: Path) -> dict[str, int]:
    ours = theirs = total = 0
    for data, wanted in encoded_files(folder):
        total += 1
        ours += same_text(by_us(data), wanted)
        theirs += same_text(by_charset_normalizer(data), wanted)
    return {"files": total, "semsearch": ours, "charset_normalizer": theirs}


def peak_mebibytes() -> dict[str, int]:
    """The most memory that this process, and the largest of the workers, had at any time."""
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = {"this_process": resource.RUSAGE_SELF, "worker": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(kind).ru_maxrss * unit >> 20 for name, kind in kinds.items()}


def run(folder: Path) -> dict[str, Any]:
    with Parser() as parser:
        loaded = load_all(folder, parser)
        texts = compare_texts(folder / "docling/tests/data", parser)
    loaded["peak_mebibytes"] = peak_mebibytes()
    return {"loaded": loaded, "docling": texts, "encodings": compare_encodings(folder / "encodings/tests")}


def show(result: dict[str, Any]) -> None:
    loaded, encodings = result["loaded"], result["encodings"]
    print(f"{loaded['files']} files in {loaded['seconds']} s: {loaded['text']} give text, {loaded['reason']} a reason")
    for reason, count in loaded["reasons"].items():
        print(f"{count:7}  {reason}")
    print(f"slowest: {loaded['slowest_seconds']} s, {loaded['slowest_file']}")
    print("at most " + ", ".join(f"{size} MiB in {name}" for name, size in loaded["peak_mebibytes"].items()))
    print(f"\n{'words, docling':16}{'files':>6}{'F1':>8}{'precision':>11}{'recall':>8}{'lowest F1':>11}")
    for suffix, row in result["docling"].items():
        values = f"{row['f1']:8.3f}{row['precision']:11.3f}{row['recall']:8.3f}{row['lowest_f1']:11.3f}"
        print(f"{suffix:16}{row['files']:6}{values}  {row['lowest_file']}")
    total = encodings["files"]
    print(f"\nencodings, of {total} files right")
    for name in ("semsearch", "charset_normalizer"):
        print(f"{name:20}{encodings[name]:5}{encodings[name] / total:8.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="where folders/ is")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    options = parser.parse_args()
    archive = options.data / "folders" / "formats.tar.gz"
    if not archive.is_file():
        raise SystemExit(f"There is no {archive}. Name the folder in which folders/formats.tar.gz lies: --data DIR.")
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(archive) as packed:
            packed.extractall(temporary, filter="data")
        result = run(Path(temporary) / "formats")
    show(result)
    from common import machine, write  # beside this file

    write(options.results / "formats.json", result | {"machine": machine()})


if __name__ == "__main__":
    main()

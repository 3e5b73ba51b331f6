"""The command line: `semsearch index FOLDER`, `search`, `ask`, `eval`, `check`, `backup`; `--json` on each.

Exit codes: 0 done, 1 nothing found (no hit, no answer, an index that is not in order), 2 an error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import semsearch
from semsearch.errors import CorruptIndexError, InputError, SemsearchError

__all__ = ["main"]

DEFAULT_HOME = Path("indexes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SemsearchError as error:
        print(f"semsearch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("semsearch: interrupted; what was committed is kept, run the same command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="semsearch", description="Semantic search and answers over your own documents."
    )
    parser.add_argument("--version", action="version", version=f"semsearch {semsearch.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    index = _command(commands, "index", _index, "bring an index up to the state of a folder")
    index.add_argument("folder", help="the folder with the documents")
    index.add_argument(
        "--pattern", action="append", metavar="GLOB", help="only these files, as '*.md'; may be repeated"
    )
    index.add_argument("--encoder", help="a name or path of a sentence encoder, for a new index")
    index.add_argument("--analyzer", help="the language of the keywords, for a new index")

    search = _command(commands, "search", _search, "find passages")
    search.add_argument("query")
    search.add_argument("-k", type=int, default=10, help="how many hits (default: 10)")
    search.add_argument("--mode", default="hybrid", choices=["hybrid", "dense", "lexical"])

    ask = _command(commands, "ask", _ask, "answer a question, with its source")
    ask.add_argument("question")
    ask.add_argument("-k", type=int, default=20, help="how many passages to read (default: 20)")
    ask.add_argument(
        "--reader", help="a name or path of a reader model; the one that ships with the package by default"
    )

    for each in (search, ask):
        each.add_argument("--where", type=_mapping, metavar="JSON", help="""a filter, as '{"suffix": ".md"}'""")

    evaluation = _command(commands, "eval", _evaluate, "measure retrieval on a judged data set")
    evaluation.add_argument("dataset", help="a folder in BEIR's layout, or a SQuAD file")
    evaluation.add_argument("-k", type=int, default=10, help="the cut-off of the metrics (default: 10)")
    evaluation.add_argument("--mode", default="hybrid", choices=["hybrid", "dense", "lexical"])
    evaluation.add_argument("--answers", action="store_true", help="measure answers instead of hits")

    check = _command(commands, "check", _check, "verify an index")
    check.add_argument("--repair", action="store_true", help="make again what is derived from the documents")

    backup = _command(commands, "backup", _backup, "copy an index while it is in use")
    backup.add_argument("target", help="a new folder for the copy, which is an index like any other")
    return parser


def _command(commands: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help.capitalize() + ".")
    parser.add_argument("--index", metavar="DIR", help="the index (default: indexes/NAME, NAME being the folder's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"not a JSON object: {text}")
    return value


def _existing(given: str | None) -> semsearch.Index:
    """The index to read: the one that was named, or the only one under indexes/."""
    if given is not None:
        return semsearch.Index(given, create=False)
    found = sorted(path.parent for path in DEFAULT_HOME.glob("*/index.db"))
    if not found:
        raise InputError(
            "There is no index under indexes/. Make one: semsearch index FOLDER, or name one with --index."
        )
    if len(found) > 1:
        raise InputError(f"There are several indexes: {', '.join(map(str, found))}. Name one with --index.")
    return semsearch.Index(found[0], create=False)


def _print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def _index(options: argparse.Namespace) -> int:
    folder = Path(options.folder).expanduser()
    location = options.index or DEFAULT_HOME / (folder.resolve().name or "root")
    if not folder.is_dir():  # before an index is created for nothing
        raise InputError(f"There is no folder {options.folder!r}.")
    with semsearch.Index(location, encoder=options.encoder, analyzer=options.analyzer) as index:
        report = index.sync(folder, pattern=options.pattern)
        if options.json:
            _print_json({**asdict(report), "index": str(location), "passages": len(index)})
        else:
            print(report)
            print(f"{location}: {len(index):,} passages")
    return 0


def _search(options: argparse.Namespace) -> int:
    with _existing(options.index) as index:
        hits = index.search(options.query, k=options.k, where=options.where, mode=options.mode)
        if options.json:
            _print_json(hits.to_dicts())
        else:
            print(hits)
    return 0 if hits else 1


def _ask(options: argparse.Namespace) -> int:
    with _existing(options.index) as index:
        answerer = semsearch.Answerer(semsearch.Retriever(index), reader=options.reader)
        answer = answerer.answer(options.question, k=options.k, where=options.where)
        if options.json:
            from semsearch.display import answer_row

            _print_json(answer_row(answer))
        else:
            print(answer)
    return 0 if answer.found else 1


def _evaluate(options: argparse.Namespace) -> int:
    with _existing(options.index) as index:
        retriever = semsearch.Retriever(index, mode=options.mode)
        system = semsearch.Answerer(retriever) if options.answers else retriever
        result = semsearch.evaluate(system, options.dataset, k=options.k)
        if options.json:
            _print_json(result.to_dict())
        else:
            print(result)
    return 0


def _check(options: argparse.Namespace) -> int:
    try:
        with _existing(options.index) as index:
            report = index.check(repair=options.repair)
    except CorruptIndexError as error:  # too damaged to be opened at all
        from semsearch.health import CheckReport

        report = CheckReport(0, 0, (str(error),))
    if options.json:
        _print_json({**asdict(report), "ok": report.ok})
    else:
        print(report)
    return 0 if report.ok else 1


def _backup(options: argparse.Namespace) -> int:
    with _existing(options.index) as index:
        report = index.backup(options.target)
        if options.json:
            _print_json(asdict(report))
        else:
            print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

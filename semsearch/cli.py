"""The command line: what can be typed. What is done is in `semsearch.commands`, which is loaded when something is.

Exit codes: 0 done, 1 nothing found (no hit, no answer, an index that is not in order), 2 an error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import semsearch
from semsearch.errors import SemsearchError

__all__ = ["main", "parser"]

MODES = ("hybrid", "dense", "lexical")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal's encoding lacks becomes "?", not an error
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        from semsearch import commands

        code = commands.run(options)
        sys.stdout.flush()  # at the end of the interpreter an error would have no line and no code of ours
        return code
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        _drop_output()
        return 0
    except (SemsearchError, OSError) as error:  # an OSError: no room for the output, no right to write a file
        _tell(error, options.color)
        return 2
    except KeyboardInterrupt:
        print("semsearch: interrupted; what was committed is kept, run the same command to go on", file=sys.stderr)
        return 130


def _tell(error: Exception, color: str) -> None:
    from semsearch.display import clean
    from semsearch.terminal import Paint, wants_colour

    paint = Paint(wants_colour(color, sys.stderr))
    print(f"{paint('semsearch:', 'red')} {clean(str(error))}", file=sys.stderr)
    if not isinstance(error, SemsearchError):
        _drop_output()


def _drop_output() -> None:
    """Let go what could not be written, so that the end of the interpreter does not try it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # one that has no file
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def parser() -> argparse.ArgumentParser:
    """What can be typed; `semsearch.completion` reads it too, and knows the metavars of paths."""
    top = argparse.ArgumentParser(
        prog="semsearch",
        description="Semantic search and answers over your own documents.",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=14),
    )
    top.add_argument("--version", action="version", version=f"semsearch {semsearch.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    _add_index(_command(commands, "index", "bring an index up to the state of a folder"))
    _add_search(_command(commands, "search", "find passages"))
    _add_ask(_command(commands, "ask", "answer a question, with its source"))
    _add_similar(_command(commands, "similar", "find documents that are like one of the index"))
    _add_shell(_command(commands, "shell", "ask and search one after another, with the models loaded"))
    _command(commands, "info", "tell what an index holds and what it was made with")
    _add_evaluation(_command(commands, "eval", "measure retrieval on a judged data set"))
    check = _command(commands, "check", "verify an index")
    check.add_argument("--repair", action="store_true", help="make again what is derived from the documents")
    backup = _command(commands, "backup", "copy an index while it is in use")
    backup.add_argument("target", metavar="FOLDER", help="a new folder for the copy, which is an index like any other")
    _add_copy(_command(commands, "copy", "copy an index to another place, past this machine or back", index=False))
    _add_serve(_command(commands, "serve", "serve an index over HTTP, with a page to search and read"))
    _add_mcp(_command(commands, "mcp", "serve an index to an assistant or editor by the Model Context Protocol"))
    completion = _command(commands, "completion", "print the script that completes these words in a shell", index=False)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    return top


def _command(commands: Any, name: str, help: str, *, index: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    if index:
        where = "the index: a folder, or milvus://HOST/NAME (default: indexes/NAME, NAME being the folder's)"
        parser.add_argument("--index", metavar="DIR", help=where)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="colours (auto: where a person watches)"
    )
    return parser


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the folder with the documents")
    parser.add_argument(
        "--pattern", action="append", metavar="GLOB", help="only these files, as '*.md'; may be repeated"
    )
    parser.add_argument("--encoder", metavar="NAME", help="a name or path of a sentence encoder, for a new index")
    parser.add_argument("--analyzer", metavar="NAME", help="the language of the keywords, for a new index")
    parser.add_argument("--watch", action="store_true", help="stay, and follow the folder's changes until Ctrl-C")
    parser.add_argument(
        "--every", type=_seconds, default=2.0, metavar="SECONDS", help="how often to look with --watch (default: 2)"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="encode on a Ray cluster: auto, or HOST:PORT")


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many hits (default: 10)")
    parser.add_argument("--mode", default="hybrid", choices=MODES, help="by meaning (dense), by keyword, or both")
    _add_where(parser)


def _add_ask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", metavar="QUESTION", help="a question")
    parser.add_argument("-k", type=int, default=20, metavar="N", help="how many passages to read (default: 20)")
    _add_answering(parser)
    parser.add_argument("--stream", action="store_true", help="print the answer as it is written")
    _add_where(parser)


def _add_similar(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the id of a document: a synced file's path below its folder")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many documents (default: 10)")
    _add_where(parser)


def _add_shell(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many hits of a search (default: 10)")
    _add_answering(parser)
    _add_where(parser)


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a folder in BEIR's layout, or a SQuAD file")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="the cut-off of the metrics (default: 10)")
    parser.add_argument("--mode", default="hybrid", choices=MODES, help="how to search")
    parser.add_argument("--answers", action="store_true", help="measure answers instead of hits")


def _add_copy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FROM", help="the index to copy: a folder, or milvus://HOST/NAME")
    parser.add_argument("target", metavar="TO", help="the copy: a new one, or one to bring up to date")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="the address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8017, metavar="PORT", help="the port (default: 8017)")
    parser.add_argument(
        "--root", action="append", metavar="FOLDER", help="a folder that a client may have synced; may be repeated"
    )
    parser.add_argument(
        "--allow-host", action="append", metavar="NAME", help="a name that the server goes by; may be repeated"
    )
    _add_token(parser)
    _add_reader(parser)


def _add_mcp(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--http", type=int, metavar="PORT", help="over HTTP at this port instead of stdin and stdout")
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="its address (default: 127.0.0.1)")
    _add_token(parser)
    _add_reader(parser)


def _add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--token-file", metavar="FILE", help="a file with the token that clients must send (or set SEMSEARCH_TOKEN)"
    )


def _add_reader(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reader", metavar="NAME", help="a name or path of a reader (default: the one that ships)")


def _add_answering(parser: argparse.ArgumentParser) -> None:
    _add_reader(parser)
    parser.add_argument("--mode", choices=("auto",), help="auto: a reader that writes does so where a span will not do")
    parser.add_argument("--strict", action="store_true", help="leave out written sentences that nothing supports")


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--where", type=_mapping, metavar="JSON", help="""a filter, as '{"suffix": ".md"}'""")


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"not a JSON object: {text}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"not a number of seconds of at least 0.05: {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())

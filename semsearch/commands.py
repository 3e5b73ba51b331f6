"""What each command of the command line does: options in, exit code out. Text or JSON goes to standard output."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import semsearch
from semsearch.display import clean
from semsearch.errors import CorruptIndexError, InputError, SemsearchError
from semsearch.items import expanded, label
from semsearch.terminal import Paint, inline, print_json, progress_for, wants_colour

if TYPE_CHECKING:
    from semsearch.sync import SyncReport

__all__ = ["run"]

HOME = Path("indexes")


def run(options: Namespace) -> int:
    """Do what was asked for; returns the exit code."""
    return _COMMANDS[options.command](options, Paint(wants_colour(options.color, sys.stdout)))


def existing(given: str | None) -> str | Path:
    """The location of the index to read: the one that was named, or the only folder under indexes/."""
    if given is not None:
        return given
    found = sorted(path.parent for path in HOME.glob("*/index.db"))
    if not found:
        raise InputError(
            "There is no index under indexes/. Make one: semsearch index FOLDER, or name one with --index."
        )
    if len(found) > 1:
        raise InputError(f"There are several indexes: {', '.join(map(str, found))}. Name one with --index.")
    return found[0]


def _open(options: Namespace) -> semsearch.Index:
    return semsearch.Index(existing(options.index), create=False)


# ------------------------------------------------------------------------------------------------------------- indexing


def _index(options: Namespace, paint: Paint) -> int:
    folder = expanded(options.folder)
    location = options.index or HOME / (folder.resolve().name or "root")
    if not folder.is_dir():  # before an index is created for nothing
        raise InputError(f"There is no folder {options.folder!r}.")
    with ExitStack() as held:
        index = held.enter_context(semsearch.Index(location, encoder=options.encoder, analyzer=options.analyzer))
        if options.ray is not None:
            from semsearch.engines.ray import RayEncoder

            index.encoder = held.enter_context(RayEncoder(index.encoder, options.ray))
        if options.watch:
            return _watch(index, folder, options, paint)
        report = index.sync(folder, pattern=options.pattern, progress=progress_for(sys.stderr))
        shown = index.location if "://" in str(location) else str(location)  # without a password
        if options.json:
            print_json({**asdict(report), "index": shown, "passages": len(index)})
        else:
            print(paint.report(str(report)))
            print(f"{shown}: {len(index):,} passages")
    return 0


def _watch(index: semsearch.Index, folder: Path, options: Namespace, paint: Paint) -> int:
    from semsearch.watching import watch

    def sync() -> SyncReport:
        return index.sync(folder, pattern=options.pattern, progress=progress_for(sys.stderr))

    def synced(report: SyncReport) -> None:
        if options.json:
            print_json({**asdict(report), "index": index.location, "passages": len(index)}, lines=True)
        else:
            print(f"{_now(paint)}{paint.report(str(report))}; {len(index):,} passages", flush=True)

    def failed(error: SemsearchError) -> None:
        if options.json:
            print_json({"error": type(error).__name__, "message": str(error)}, lines=True)
        else:
            print(f"{_now(paint)}{clean(str(error))} Trying again.", file=sys.stderr, flush=True)

    if not options.json:
        print(f"watching {options.folder}; Ctrl-C ends", file=sys.stderr, flush=True)
    watch(folder, options.pattern, sync, synced, failed, every=options.every)
    return 0


def _now(paint: Paint) -> str:
    return paint(time.strftime("%H:%M:%S"), "dim") + " "


# ------------------------------------------------------------------------------------------------------------ questions


def _search(options: Namespace, paint: Paint) -> int:
    with _open(options) as index:
        hits = index.search(options.query, k=options.k, where=options.where, mode=options.mode)
        if options.json:
            print_json(hits.to_dicts())
        else:
            print(paint.hits(str(hits), options.query))
    return 0 if hits else 1


def _similar(options: Namespace, paint: Paint) -> int:
    with _open(options) as index:
        hits = index.similar(options.id, k=options.k, where=options.where)
        if options.json:
            print_json(hits.to_dicts())
        else:
            print(paint.hits(str(hits), ""))
    return 0 if hits else 1


def _ask(options: Namespace, paint: Paint) -> int:
    from semsearch.display import answer_row

    with _open(options) as index:
        answerer = _answerer(index, options)
        if options.stream:
            answer = _streamed(answerer.stream(options.question, k=options.k, where=options.where), options, paint)
        else:
            answer = answerer.answer(options.question, k=options.k, where=options.where)
            if options.json:
                print_json(answer_row(answer))
            else:
                print(paint.answer(str(answer), answer.found))
    return 0 if answer.found else 1


def _streamed(stream: Any, options: Namespace, paint: Paint) -> semsearch.Answer:
    """Print the pieces as they come, then what is known of the whole; as JSON, a line each."""
    from semsearch.display import answer_row

    written = False
    for piece in stream:
        written = True
        if options.json:
            print_json({"piece": piece}, lines=True)
        else:
            print(paint(inline(piece), "bold"), end="", flush=True)
    answer: semsearch.Answer = stream.answer
    if options.json:
        print_json(answer_row(answer), lines=True)
        return answer
    text = paint.answer(str(answer), answer.found)
    if written and answer.found and not answer.sentences:  # the first line was printed already
        text = "\n".join([paint(f"  ({100 * answer.score:.0f} %)", "cyan"), *text.split("\n")[1:]])
    elif written:
        text = f"\n\n{text}"
    print(text)
    return answer


def _shell(options: Namespace, paint: Paint) -> int:
    from semsearch.shell import Shell

    with _open(options) as index:
        answerer = _answerer(index, options)
        retriever = semsearch.Retriever(index)
        return Shell(retriever, answerer, paint, k=options.k, where=options.where, as_json=options.json).run()


def _answerer(index: semsearch.Index, options: Namespace) -> semsearch.Answerer:
    retriever = semsearch.Retriever(index)
    return semsearch.Answerer(retriever, reader=options.reader, mode=options.mode, strict=options.strict)


# ------------------------------------------------------------------------------------------------------------- an index


def _info(options: Namespace, paint: Paint) -> int:
    with _open(options) as index:
        info = index.info()
        if options.json:
            print_json(info)
        else:
            for name, value in info.items():
                print(f"{paint(f'{name:<11}', 'dim')} {_told(value)}")
    return 0


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(each)}" for name, each in value.items() if each != "")
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else clean(str(value))


def _evaluate(options: Namespace, paint: Paint) -> int:
    with _open(options) as index:
        retriever = semsearch.Retriever(index, mode=options.mode)
        system = semsearch.Answerer(retriever) if options.answers else retriever
        result = semsearch.evaluate(system, options.dataset, k=options.k)
        if options.json:
            print_json(result.to_dict())
        else:
            print(result)
    return 0


def _check(options: Namespace, paint: Paint) -> int:
    try:
        with _open(options) as index:
            report = index.check(repair=options.repair)
    except CorruptIndexError as error:  # too damaged to be opened at all
        from semsearch.health import CheckReport

        report = CheckReport(0, 0, (str(error),))
    if options.json:
        print_json({**asdict(report), "ok": report.ok})
    else:
        print(paint.report(str(report)))
    return 0 if report.ok else 1


def _backup(options: Namespace, paint: Paint) -> int:
    with _open(options) as index:
        report = index.backup(options.target, progress=progress_for(sys.stderr))
        if options.json:
            print_json(asdict(report))
        else:
            print(report)
    return 0


def _copy(options: Namespace, paint: Paint) -> int:
    from semsearch.copying import copy

    report = copy(options.source, options.target, progress=progress_for(sys.stderr))
    if options.json:
        print_json(asdict(report))
    else:
        print(paint.report(str(report)))
    return 0


# -------------------------------------------------------------------------------------------------------------- serving


def _serve(options: Namespace, paint: Paint) -> int:
    from semsearch.server import main

    options.index = str(existing(options.index))
    return main(options)


def _mcp(options: Namespace, paint: Paint) -> int:
    from semsearch.mcp_server import serve
    from semsearch.server import given_token

    location = existing(options.index)
    if options.http is None and sys.stdin.isatty():
        print("Speaking the Model Context Protocol on stdin and stdout; Ctrl-C ends.", file=sys.stderr)

    def started(address: str) -> None:
        if options.json:
            print_json({"address": address}, lines=True)
        else:
            print(f"Serving {label(location)} on {address} (Ctrl-C stops it)", file=sys.stderr, flush=True)

    serve(
        location,
        port=options.http,
        host=options.host,
        token=None if options.http is None else given_token(options.token_file),
        reader=options.reader,
        started=started,
    )
    return 0


def _completion(options: Namespace, paint: Paint) -> int:
    from semsearch.cli import parser
    from semsearch.completion import completion

    script = completion(parser(), options.shell)
    if options.json:
        print_json({"shell": options.shell, "script": script})
    else:
        print(script, end="")
    return 0


_COMMANDS: dict[str, Callable[[Namespace, Paint], int]] = {
    "index": _index,
    "search": _search,
    "ask": _ask,
    "similar": _similar,
    "shell": _shell,
    "info": _info,
    "eval": _evaluate,
    "check": _check,
    "backup": _backup,
    "copy": _copy,
    "serve": _serve,
    "mcp": _mcp,
    "completion": _completion,
}

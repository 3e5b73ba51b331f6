"""Questions one after another: `semsearch shell`. The models stay loaded, so that each answer comes at once.

A line is a question, or a command that starts with a colon. Lines come from a person, with a history that is kept, or
from a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsearch.display import answer_row, clean, place
from semsearch.errors import InputError, SemsearchError
from semsearch.records import Hit
from semsearch.terminal import Paint, inert, print_json

if TYPE_CHECKING:
    from semsearch.reading import Answerer
    from semsearch.retrieval import Retriever

__all__ = ["Shell", "history_file"]

HISTORY = 1000  # lines that are kept
CONTEXT = 600  # characters of the document before and after a passage that is read

HELP = """\
A line is a question (or a search, after :search on a line of its own). Commands may be shortened: :s late fees
  :ask QUESTION    answer; alone: from now on each line is a question
  :search QUERY    find passages; alone: from now on each line is a search
  :why N           why hit N was found
  :read N          hit N where it stands in its document
  :info            what the index holds
  :help            this
  :quit            leave; also Ctrl-D"""


class Shell:
    """Answers lines. `hits` are those of the last line, each with the span of the answer; `:why N` counts from 1."""

    def __init__(
        self,
        retriever: Retriever,
        answerer: Answerer,
        paint: Paint,
        *,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        as_json: bool = False,
    ) -> None:
        self.retriever = retriever
        self.answerer = answerer
        self.paint = paint
        self.k = k
        self.where = where
        self.as_json = as_json
        self.hits: Sequence[tuple[Hit, tuple[int, int]]] = ()
        self.plain: Callable[[str], int] = self.ask  # what a line without a command does
        self._commands: dict[str, Callable[[str], int]] = {
            ":ask": self._ask_or_switch,
            ":search": self._search_or_switch,
            ":why": self.why,
            ":read": self.read,
            ":info": self.info,
            ":help": self.help,
        }

    def run(self) -> int:
        """Answer the lines of standard input until its end; the exit code.

        That is 0 with a person, and for a pipe the greatest of its lines: 0, 1 (nothing found), 2 (an error).
        """
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")
        if sys.stdin.isatty():
            for line in _typed(lambda: "ask> " if self.plain == self.ask else "search> ", [*self._commands, ":quit"]):
                try:
                    if self.line(line) is None:
                        break
                except KeyboardInterrupt:
                    print("interrupted", file=sys.stderr)
            return 0
        worst = 0
        for line in sys.stdin:
            if (code := self.line(line)) is None:
                break
            worst = max(worst, code)
        return worst

    def line(self, line: str) -> int | None:
        """Do what a line says; 0, 1 if nothing was found, 2 after an error, which is printed, None to leave."""
        line = line.strip()
        if not line:
            return 0
        try:
            if not line.startswith(":"):
                return self.plain(line)
            word, _, rest = line.partition(" ")
            run = self._command(word)
            return None if run is None else run(rest.strip())
        except SemsearchError as error:
            if self.as_json:
                print_json({"error": type(error).__name__, "message": str(error)}, lines=True)
            else:
                print(self.paint(clean(str(error)), "red"), file=sys.stderr, flush=True)
            return 2

    def _command(self, word: str) -> Callable[[str], int] | None:
        """The command that a word begins; None for `:quit`."""
        names = [name for name in (*self._commands, ":quit") if name.startswith(word) and word != ":"]
        if len(names) != 1:
            raise InputError(f"{clean(word)} is no command. Type :help for those there are.")
        return self._commands.get(names[0])

    # -- questions ---------------------------------------------------------------------------------------------------

    def ask(self, question: str) -> int:
        """Print the answer to a question; the hits are where it and its alternatives were read."""
        answer = self.answerer.answer(question, where=self.where)
        self.hits = [
            (each.hit, (each.start or 0, each.end or 0))
            for each in (answer, *answer.alternatives)
            if each.hit is not None
        ]
        if self.as_json:
            print_json(answer_row(answer), lines=True)
        else:
            print(self.paint.answer(str(answer), answer.found), flush=True)
        return 0 if answer.found else 1

    def search(self, query: str) -> int:
        """Print the hits for a query."""
        hits = self.retriever.search(query, k=self.k, where=self.where)
        self.hits = [(hit, (0, 0)) for hit in hits]
        if self.as_json:
            print_json(hits.to_dicts(), lines=True)
        else:
            print(self.paint.hits(str(hits), query), flush=True)
        return 0 if hits else 1

    def _ask_or_switch(self, question: str) -> int:
        return self.ask(question) if question else self._switch(self.ask)

    def _search_or_switch(self, query: str) -> int:
        return self.search(query) if query else self._switch(self.search)

    def _switch(self, plain: Callable[[str], int]) -> int:
        self.plain = plain
        return 0

    # -- hits --------------------------------------------------------------------------------------------------------

    def why(self, number: str) -> int:
        """Print why a hit was found."""
        why = self._hit(number)[0].why()
        if self.as_json:
            tokens = [{"text": t, "start": start, "end": end, "similarity": s} for t, start, end, s in why.tokens]
            print_json({"terms": dict(why.terms), "tokens": tokens}, lines=True)
        else:
            print(self.paint.explanation(str(why)), flush=True)
        return 0

    def read(self, number: str) -> int:
        """Print a passage where it stands in its document."""
        hit, span = self._hit(number)
        passage = hit.passage
        document = self.retriever.index.get(passage.document_id)
        if document is None or document.text[passage.start : passage.end] != passage.text:
            raise InputError(f"{passage.document_id!r} has changed since. Ask again.")
        start, end = max(0, passage.start - CONTEXT), min(len(document.text), passage.end + CONTEXT)
        before, after = document.text[start : passage.start], document.text[passage.end : end]
        if self.as_json:
            row = {"document_id": document.id, "page": passage.page, "start": start, "end": end}
            print_json({**row, "before": before, "text": passage.text, "after": after}, lines=True)
            return 0
        first, last = (each - passage.start for each in span)
        text = passage.text
        if first < last:
            text = f"{text[:first]}«{text[first:last]}»{text[last:]}"
        print(self.paint(place(hit), "cyan"))
        self._print_context("…" * (start > 0) + before)
        for line in inert(text).split("\n"):
            print(f"{self.paint('│', 'cyan')} {self.paint.span(line)}".rstrip())
        self._print_context(after.removeprefix("\n") + "…" * (end < len(document.text)))
        return 0

    def _print_context(self, text: str) -> None:
        for line in inert(text).split("\n") if text.strip() else []:
            print(f"  {self.paint(line, 'dim')}".rstrip(), flush=True)

    def _hit(self, number: str) -> tuple[Hit, tuple[int, int]]:
        if not self.hits:
            raise InputError("There are no hits yet. Ask or search first.")
        if number not in map(str, range(1, len(self.hits) + 1)):
            raise InputError(f"{clean(number) or 'Nothing'} is no hit: the last ones are 1 to {len(self.hits)}.")
        return self.hits[int(number) - 1]

    # -- the rest ----------------------------------------------------------------------------------------------------

    def info(self, _: str) -> int:
        """Print what the index holds."""
        info = self.retriever.index.info()
        if self.as_json:
            print_json(info, lines=True)
        else:
            print(f"{info['path']}: {info['documents']:,} documents, {info['passages']:,} passages", flush=True)
        return 0

    def help(self, _: str) -> int:
        """Print the commands."""
        print(HELP, flush=True)
        return 0


# --------------------------------------------------------------------------------------------------------------- typing


def history_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the lines that were typed are kept: the user's state directory (XDG)."""
    home = environment.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "semsearch" / "history"


def _typed(prompt: Callable[[], str], commands: Sequence[str]) -> Iterator[str]:
    """The lines that a person types. Ctrl-C drops the line, Ctrl-D ends."""
    remember = _readline(history_file(), commands)
    print("Ask a question, or type :help.")
    while True:
        try:
            line = input(prompt())
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        remember()
        yield line


def _readline(path: Path, commands: Sequence[str]) -> Callable[[], None]:
    """Set up editing, history and the completion of commands; returns what keeps the last line in the history."""
    try:
        import readline
    except ImportError:
        return lambda: None

    def complete(text: str, state: int) -> str | None:
        found = [name for name in commands if text.startswith(":") and name.startswith(text)]
        return found[state] + " " if state < len(found) else None

    kept = 0

    def remember() -> None:
        nonlocal kept
        length = readline.get_current_history_length()
        with suppress(OSError):
            readline.append_history_file(length - kept, path)
        kept = length

    readline.set_completer_delims(" ")
    readline.set_completer(complete)
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    readline.set_history_length(HISTORY)
    with suppress(OSError):  # a home that cannot be written keeps no history
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.read_history_file(path)
        readline.write_history_file(path)  # no longer than HISTORY
        kept = readline.get_current_history_length()
        return remember
    return lambda: None

"""What a person sees: colours only where one watches, a bar for long work, and documents that can do nothing."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest
from pseudo_terminal import COLOUR, SEMSEARCH, PseudoTerminal, environment
from toy import WordEncoder

import semsearch
from semsearch.terminal import Paint, inert, inline, print_json, progress_for, wants_colour

LATE = "# Fees\n\nThe late fee for a book is 25 cents a day.\n"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("choice", "stream", "variables", "wanted"),
    [
        ("auto", Screen(), {}, True),
        ("auto", io.StringIO(), {}, False),
        ("auto", Screen(), {"NO_COLOR": "1"}, False),
        ("auto", Screen(), {"NO_COLOR": ""}, True),  # no-color.org: it must not be empty
        ("auto", Screen(), {"TERM": "dumb"}, False),
        ("always", io.StringIO(), {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ("never", Screen(), {}, False),
    ],
)
def test_colours_are_for_a_person_who_wants_them(
    choice: str, stream: io.StringIO, variables: dict[str, str], wanted: bool
) -> None:
    assert wants_colour(choice, stream, variables) is wanted


def test_a_bar_needs_a_terminal_that_moves_its_cursor() -> None:
    assert progress_for(Screen(), {"TERM": "xterm"}) is None
    assert progress_for(Screen(), {"TERM": "dumb"}) is False
    assert progress_for(io.StringIO(), {"TERM": "xterm"}) is False


def test_colours_add_nothing_but_colours(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "fees [1:2].md").write_text(LATE)
    (tmp_path / "documents" / "picture.png").write_bytes(b"\x89PNG")
    paint = Paint(True)
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        report = index.sync(tmp_path / "documents")
        hits = index.search("the late fee")
        answers = index.ask(["What is the late fee for a book?", "Who was the first king of Norway?"])
        painted = {
            str(report): paint.report(str(report)),
            str(hits): paint.hits(str(hits), "the late fee"),
            str(hits[0].why()): paint.explanation(str(hits[0].why())),
            str(index.check()): paint.report(str(index.check())),
            **{str(answer): paint.answer(str(answer), answer.found) for answer in answers},
        }
    assert [answer.found for answer in answers] == [True, False]
    for plain, coloured in painted.items():
        assert COLOUR.sub("", coloured) == plain
        assert coloured != plain
    assert "\x1b[1;33mlate\x1b[0m" in painted[str(hits)]
    off = Paint(False)
    assert off.hits(str(hits), "the late fee") == str(hits)
    assert off.report(str(report)) == str(report)


def test_text_keeps_its_lines_and_loses_its_powers() -> None:
    assert inert("if a:\n\tb()\r\n\x1b[31mc\u202e\x00") == "if a:\n    b()\n␛[31mc␀"
    assert inline(" a\nb\x07 ") == " a b␇ "
    assert inline("") == ""
    for code in (*range(32), *range(0x7F, 0xA0), 0x202E, 0x2028, 0xD800):
        assert set(inert(f"a{chr(code)}b")) <= set("ab \n\ufffd␡") | set(map(chr, range(0x2400, 0x2420)))


def test_json_is_the_same_value_in_harmless_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"\x9b31m": ["é \\\x9b2J \u202egnp.exe \x7f\u2028 東京"]}
    out = io.StringIO()  # without an encoding, as where a program takes what is printed
    monkeypatch.setattr("sys.stdout", out)
    print_json(value, lines=True)
    assert json.loads(out.getvalue()) == value
    assert not set(out.getvalue()) & set("\x9b\u202e\x7f\u2028")
    assert "東京" in out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("terminal")
    (place / "hostile").mkdir()
    (place / "hostile" / "fees.md").write_text(LATE)
    (place / "hostile" / "evil \x1b]0;name\x07.md").write_text("The late fee \x1b[2J is waived.\n" * 2)
    (place / "hostile" / "binary \x1b[31m.md").write_bytes(b"\x00\x1b[2J" * 100)
    done = subprocess.run(
        [*SEMSEARCH, "index", "hostile"], cwd=place, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "added 2" in done.stdout
    evil = "The late fee \x1b[2J\x1b]0;owned\x07 is \u202egnp.exe \x9b31m\x08\x08\x00 waived.\n"
    with semsearch.Index(place / "indexes" / "hostile") as index:
        index.add({"id": "more\x1b[2J\u202e", "text": evil, "title": "\x1b[31mred"})
    return place


def screen_of(place: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    with PseudoTerminal([*SEMSEARCH, *arguments], place, environment(**variables)) as terminal:
        code = terminal.wait()
        return code, terminal.screen


def test_a_person_sees_colours_and_can_say_no(place: Path) -> None:
    code, screen = screen_of(place, "search", "late fee")
    assert (code, "\x1b[1;33mlate\x1b[0m" in screen) == (0, True)
    for arguments, variables in (((), {"NO_COLOR": "1"}), ((), {"TERM": "dumb"}), (("--color=never",), {})):
        code, screen = screen_of(place, "search", "late fee", *arguments, **variables)
        assert (code, "fees.md" in screen, "\x1b" in screen) == (0, True, False)
    done = subprocess.run(
        [*SEMSEARCH, "search", "late fee", "--color", "always"], cwd=place, env=environment(), capture_output=True
    )
    assert b"\x1b[1;33mlate\x1b[0m" in done.stdout


def test_an_error_is_red_on_a_terminal_only(place: Path) -> None:
    code, screen = screen_of(place, "search", "x", "--index", "nowhere")
    assert code == 2
    assert screen.startswith("\x1b[31msemsearch:\x1b[0m There is no index")


def test_documents_are_inert_on_a_terminal(place: Path) -> None:
    keys = ":search late fee waived\n:read 1\n:read 2\n:why 1\nIs the late fee waived?\n"
    with PseudoTerminal([*SEMSEARCH, "shell"], place, environment(XDG_STATE_HOME=str(place / "state"))) as terminal:
        terminal.expect("ask> ")
        for line in keys.splitlines():
            terminal.type(line + "\n")
            terminal.expect("ask> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    _, search = screen_of(place, "search", "late fee waived")
    _, ask = screen_of(place, "ask", "Is the late fee waived?", "--stream")
    _, check = screen_of(place, "index", "hostile")
    for screen in (terminal.screen, search, ask, check):
        # Our colours, and what readline switches on for pasting; then nothing that a terminal obeys is left.
        rest = COLOUR.sub("", screen).replace("\x1b[?2004h", "").replace("\x1b[?2004l", "").replace("\r", "")
        assert not [c for c in rest if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"], rest
    assert "␛[2J" in search
    assert "evil ␛]0;name␇.md" in search


def test_indexing_shows_a_bar_to_a_person(place: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(30):
        (tmp_path / "many" / f"{number}.txt").write_text(f"This is text number {number}.")
    code, screen = screen_of(tmp_path, "index", "many", "--index", "first")
    assert (code, "100%" in screen, "30/30" in screen) == (0, True, True)
    code, screen = screen_of(tmp_path, "index", "many", "--index", "second", TERM="dumb")
    assert (code, "30/30" in screen, "\x1b" in screen, "added 30" in screen) == (0, False, False, True)

"""`semsearch shell`: questions one after another, from a person at a terminal or from a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from pseudo_terminal import COLOUR, SEMSEARCH, PseudoTerminal, environment

from semsearch.shell import history_file

FEES = "# Fees\n\nThe late fee for a book is 25 cents a day. The late fee for a laptop is 5 dollars an hour.\n"
HOURS = "# Hours\n\nThe library opens at nine in the morning and closes at eight in the evening.\n"
LONG = "".join(f"Paragraph {number} tells of the garden, its ponds and its birds.\n\n" for number in range(60))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shell")
    (place / "handbook").mkdir()
    for name, text in (("fees.md", FEES), ("hours.md", HOURS), ("garden.txt", f"{LONG}The heron is called Otto.\n")):
        (place / "handbook" / name).write_text(text)
    done = subprocess.run(
        [*SEMSEARCH, "index", "handbook"], cwd=place, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return place


def piped(place: Path, lines: str | bytes, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*SEMSEARCH, "shell", *options]
    data = lines if isinstance(lines, bytes) else lines.encode()
    done = subprocess.run(command, cwd=place, env=environment(COLUMNS="100"), input=data, capture_output=True)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def rows(done: subprocess.CompletedProcess[str]) -> list[object]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_pipe_gives_one_json_line_for_each_line(place: Path) -> None:
    lines = "When does the library open?\n\n:search late fee\n:why 1\n:read 1\n:info\n:help me\n:quit\nnever read\n"
    done = piped(place, lines, "--json", "-k", "1")
    assert done.returncode == 0, done.stderr
    *answers, _help = done.stdout.split("A line is a question")
    answer, hits, why, read, info = map(json.loads, answers[0].splitlines())
    assert (answer["document_id"], HOURS[answer["start"] : answer["end"]]) == ("hours.md", answer["text"])
    assert [hit["document_id"] for hit in hits] == ["fees.md"]
    assert set(why["terms"]) == {"late", "fee"}
    text = hits[0]["text"]
    assert all(text[token["start"] : token["end"]] == token["text"] for token in why["tokens"])
    assert read["before"] + read["text"] + read["after"] == FEES[read["start"] : read["end"]]
    assert info["documents"] == 3


def test_a_switch_holds_until_the_next_and_commands_may_be_short(place: Path) -> None:
    done = piped(
        place, ":s\nopening hours\n:a When does the library open?\nlate fee\n:ask\nWhen does it open?\n", "--json"
    )
    assert [type(row) for row in rows(done)] == [list, dict, list, dict]


def test_what_a_line_could_not_do_is_told_and_the_next_is_read(place: Path) -> None:
    lines = ":read 1\n:nonsense\n:\n:s late fee\n:read 0\n:why two\n:r 99\n:r " + "9" * 5000 + "\n:s late fee\n"
    done = piped(place, lines)
    assert done.returncode == 2
    assert done.stdout.count("hits for “late fee”") == 2
    told = [
        "There are no hits yet.",
        ":nonsense is no command.",
        ": is no command.",
        "0 is no hit:",
        "two is no hit:",
        "99 is no hit:",
        "9" * 5000 + " is no hit:",
    ]
    assert [line[: len(start)] for line, start in zip(done.stderr.splitlines(), told, strict=True)] == told
    errors = rows(piped(place, ":why 1\n:s\n \n", "--json"))
    assert errors == [{"error": "InputError", "message": "There are no hits yet. Ask or search first."}]


@pytest.mark.parametrize(
    ("lines", "options", "code"),
    [
        ("", (), 0),
        ("When does the library open?", (), 0),
        (":s zebra\n:s late fee\n", ("--where", '{"suffix": ".md"}'), 0),
        ("Who was the first king of Norway?\n", (), 1),
        (":s late fee\n", ("--where", '{"suffix": ".pdf"}'), 1),
        (":s late fee\n", ("--where", '{"suffix": {"$near": 1}}'), 2),
        (b"\xff\xfe late fee\n", (), 0),
    ],
)
def test_the_exit_code_is_the_worst_of_the_lines(
    place: Path, lines: str | bytes, options: tuple[str, ...], code: int
) -> None:
    if isinstance(lines, bytes):
        lines = b":s " + lines
    assert piped(place, lines, *options).returncode == code


def test_reading_shows_the_answer_in_its_document(place: Path) -> None:
    done = piped(place, "What is the heron called?\n:read 1\n")
    assert done.returncode == 0, done.stderr
    answer, *rest = done.stdout.split("\n")
    assert answer.startswith("Otto")
    page = rest[2:]
    assert page[0].startswith("garden.txt [")
    assert page[1].startswith("  …")
    assert any(line.startswith("│ ") and "The heron is called «Otto»." in line for line in page)
    assert sum(len(line) for line in page) < 4000
    assert [line for line in page if line.startswith("  ") and "the garden, its ponds" in line]


def test_a_person_asks_reads_and_leaves(place: Path, tmp_path: Path) -> None:
    variables = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with PseudoTerminal([*SEMSEARCH, "shell"], place, environment(**variables)) as terminal:
        terminal.expect("ask> ")
        terminal.type("When does the library open?\n")
        answer = terminal.expect("ask> ")
        assert "\x1b[" in answer
        assert "hours.md" in COLOUR.sub("", answer)
        terminal.type(":sea\t")  # the key completes commands
        terminal.expect(":search ")
        terminal.type("late fee\n")
        assert "fees.md" in terminal.expect("ask> ")
        terminal.type("half a line")
        terminal.expect("half a line")
        # Ctrl-C drops it. One that comes while readline looks at a key is noticed with the next key only.
        for _ in range(10):
            terminal.type("\x03")
            with contextlib.suppress(AssertionError):
                terminal.expect("ask> ", timeout=5)
                break
        terminal.type(":s\n")
        terminal.expect("search> ")
        terminal.type("\x1b[A\x1b[A\n")  # the line before the last one, from the history
        terminal.expect("late fee")
        assert "hits for" in terminal.expect("search> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.screen
    history = tmp_path / "state" / "semsearch" / "history"
    assert history.read_text().splitlines() == [
        "When does the library open?",
        ":search late fee",
        ":s",
        ":search late fee",
    ]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with PseudoTerminal([*SEMSEARCH, "shell"], place, environment(**variables)) as terminal:
        terminal.expect("ask> ")
        terminal.type("\x1b[A")  # the last line of the time before
        terminal.expect(":search late fee")
        terminal.type("\n")
        terminal.expect("ask> ")
        terminal.type(":q\n")
        assert terminal.wait() == 0


def test_keys_that_are_no_text_are_a_question_like_another(place: Path, tmp_path: Path) -> None:
    strict = environment(XDG_STATE_HOME=str(tmp_path), PYTHONIOENCODING="utf-8:strict")  # as in most locales
    with PseudoTerminal([*SEMSEARCH, "shell"], place, strict) as terminal:
        terminal.expect("ask> ")
        os.write(terminal.master, b":s late fee \xff\xfe\n")
        terminal.expect("fees.md")
        terminal.expect("ask> ")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_a_home_that_cannot_be_written_only_keeps_no_history(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with PseudoTerminal([*SEMSEARCH, "shell"], place, environment(XDG_STATE_HOME=str(tmp_path / "file"))) as terminal:
        terminal.expect("ask> ")
        terminal.type(":info\n")
        terminal.expect("3 documents")
        terminal.type(":quit\n")
        assert terminal.wait() == 0


def test_where_the_history_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert history_file({}) == Path("/home/ada/.local/state/semsearch/history")
    assert history_file({"XDG_STATE_HOME": "relative"}) == Path("/home/ada/.local/state/semsearch/history")
    assert history_file({"XDG_STATE_HOME": "/state"}) == Path("/state/semsearch/history")
    assert os.environ["HOME"] == "/home/ada"

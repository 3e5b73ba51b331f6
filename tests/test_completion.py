"""Completion of what can be typed, asked of the shells themselves."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pseudo_terminal import SEMSEARCH, PseudoTerminal, environment

from semsearch.cli import parser
from semsearch.completion import completion


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("completion")
    (place / "hand book").mkdir()
    (place / "handed.txt").write_text("")
    for shell in ("bash", "zsh", "fish"):
        (place / f"semsearch.{shell}").write_text(completion(parser(), shell))
    (place / "bin").mkdir()
    (place / "bin" / "semsearch").write_text("#!/bin/sh\nexit 0\n")
    (place / "bin" / "semsearch").chmod(0o755)
    return place


def completed(place: Path, *words: str) -> set[str]:
    """What bash would offer for the last of the words."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    script = """
        source ./semsearch.bash
        function_name=$(complete -p semsearch | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        "$function_name"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "--norc", "-c", script, "bash", "semsearch", *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return set(done.stdout.splitlines()) - {""}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["se"], {"search", "serve"}),
        (["search", "--mo"], {"--mode"}),
        (["search", "--mode", ""], {"hybrid", "dense", "lexical"}),
        (["search", "late", "--mode", "d"], {"dense"}),
        (["search", "--color", "=", "a"], {"auto", "always"}),
        (["search", "--color", "="], {"auto", "always", "never"}),
        (["search", "-k", ""], set()),
        (["search", ""], set()),
        (["index", "hand"], {"hand book"}),
        (["eval", "hand"], {"hand book", "handed.txt"}),
        (["check", "--index", "hand"], {"hand book"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["nothing", ""], set()),
    ],
)
def test_bash_offers_what_fits(place: Path, words: list[str], offered: set[str]) -> None:
    assert completed(place, *words) == offered


def test_bash_offers_every_command_and_every_option(place: Path) -> None:
    known = commands()
    assert completed(place, "") == {*known, "-h", "--help", "--version"}
    for name, each in known.items():
        assert completed(place, name, "-") == {option for action in each._actions for option in action.option_strings}


STARTS = {
    "bash": (["--norc", "--noprofile", "-i"], "source ./semsearch.bash"),
    "zsh": (["-f", "-i"], "autoload -Uz compinit && compinit -u -d ./dump && source ./semsearch.zsh"),
    "fish": (["--interactive"], "source ./semsearch.fish"),
}


@pytest.mark.parametrize("shell", STARTS)
def test_the_key_completes_in_a_real_shell(place: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} on this machine")
    arguments, loading = STARTS[shell]
    env = environment(PS1="> ", HOME=str(place), PATH=f"{place / 'bin'}:{environment()['PATH']}", INPUTRC="/dev/null")
    with PseudoTerminal([program, *arguments], place, env) as terminal:
        terminal.type(f"{loading} && echo load''ed\n")
        terminal.expect("loaded")
        for typed, whole in (("semsearch simi", "similar "), ("semsearch search x --mode le", "lexical ")):
            terminal.type(typed)
            terminal.expect(typed.split()[-1])
            terminal.type("\t")
            terminal.expect(whole[len(typed.split()[-1]) : -1])
            terminal.type("\x15")
        terminal.type("exit\n")
        terminal.wait()


def test_scripts_are_right_by_the_shells_own_check(place: Path) -> None:
    found = {shell: shutil.which(shell) for shell in STARTS}
    for shell, program in found.items():
        if program is not None:
            done = subprocess.run([program, "-n", f"semsearch.{shell}"], cwd=place, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
    if not any(found.values()):
        pytest.skip("there is no shell to ask")


@pytest.mark.parametrize("shell", STARTS)
def test_the_command_prints_the_script(shell: str, tmp_path: Path) -> None:
    done = subprocess.run([*SEMSEARCH, "completion", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == completion(parser(), shell)


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["completion", "bash"], ["--version"]])
def test_help_and_completion_load_nothing_that_takes_time(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom semsearch.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "argparse" in loaded
    assert not loaded & {"numpy", "sqlite3", "onnxruntime", "tokenizers", "faiss", "torch", "asyncio", "tqdm"}

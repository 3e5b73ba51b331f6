"""`semsearch index FOLDER --watch`: the index follows the folder, whatever goes wrong on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pseudo_terminal import SEMSEARCH, PseudoTerminal, environment
from toy import WordEncoder

import semsearch
from semsearch.errors import IndexMismatchError, InputError, ReadOnlyIndexError, SemsearchError
from semsearch.watching import RESTLESS, look, watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    return folder


def followed(
    folder: Path,
    steps: list[Callable[[], object]],
    sync: Callable[[], None] = lambda: None,
    pattern: str | None = None,
) -> tuple[list[int], list[str]]:
    """After which look each sync came, with a step taken between looks, and which errors were told."""
    looks: Iterator[int] = iter(range(1, len(steps) + 1))
    now = [0]
    synced: list[int] = []
    told: list[str] = []

    def pause(seconds: float) -> None:
        assert seconds >= 2.0
        number = next(looks, None)
        if number is None:
            raise KeyboardInterrupt
        now[0] = number
        steps[number - 1]()

    watch(folder, pattern, sync, lambda _: synced.append(now[0]), lambda error: told.append(str(error)), pause=pause)
    return synced, told


def nothing() -> None:
    pass


def test_a_change_is_taken_up_when_the_folder_came_to_rest(folder: Path) -> None:
    def grow() -> None:
        with (folder / "a.txt").open("a") as file:
            file.write("more")

    # At once; then the file grows three times, and the look after the last of them is the first to see the same again.
    assert followed(folder, [nothing, grow, grow, grow, nothing, nothing, nothing]) == ([0, 5], [])


def test_a_folder_without_rest_is_taken_up_after_a_while(folder: Path) -> None:
    def grow() -> None:
        with (folder / "a.txt").open("a") as file:
            file.write("more")

    synced, _ = followed(folder, [grow] * (2 * RESTLESS + 3))
    assert synced == [0, RESTLESS + 1, 2 * RESTLESS + 2]


def test_only_what_the_pattern_lets_through_counts(folder: Path) -> None:
    steps = [nothing, lambda: (folder / "b.md").write_text("b"), nothing, nothing]
    assert followed(folder, steps, pattern="*.txt")[0] == [0]
    (folder / "b.md").unlink()
    assert followed(folder, steps)[0] == [0, 3]


def test_an_error_is_told_once_and_the_work_tried_again(folder: Path) -> None:
    tries: list[int] = []

    def sync() -> None:
        tries.append(1)
        if len(tries) < 4:
            raise SemsearchError("busy")

    synced, told = followed(folder, [nothing] * 6, sync)
    assert (len(tries), synced, told) == (4, [3], ["busy"])


@pytest.mark.parametrize("error", [InputError, IndexMismatchError, ReadOnlyIndexError])
def test_what_no_later_try_can_change_is_raised(folder: Path, error: type[SemsearchError]) -> None:
    outcomes = iter([SemsearchError("busy"), error("never")])

    def sync() -> None:
        raise next(outcomes)

    with pytest.raises(error, match="never"):
        followed(folder, [nothing] * 3, sync)
    with pytest.raises(InputError, match="pattern"):
        followed(folder, [nothing] * 3, pattern="")


def test_such_an_error_after_the_first_sync_is_told(folder: Path) -> None:
    outcomes = iter([None, ReadOnlyIndexError("for now"), None])

    def sync() -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome

    steps = [lambda: (folder / "b.txt").write_text("b"), nothing, nothing, nothing]
    synced, told = followed(folder, steps, sync)
    assert (len(synced), told) == (2, ["for now"])


@pytest.mark.parametrize("arguments", [["folder", "--pattern", ""], ["index"]])
def test_the_command_ends_where_it_cannot_go_on(folder: Path, arguments: list[str]) -> None:
    with semsearch.Index(folder.parent / "index", encoder=WordEncoder()) as index:
        index.add("a text")
    command = [*SEMSEARCH, "index", *arguments, "--watch", "--index", "other"]
    done = subprocess.run(command, cwd=folder.parent, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Trying again" not in done.stderr


def test_folders_may_be_nested_deeper_than_calls(folder: Path) -> None:
    depth = sys.getrecursionlimit() + 100
    deep = folder
    for _ in range(depth):
        deep /= "d"
        deep.mkdir()
    (deep / "b.txt").write_text("late fees")
    try:
        assert {name for name, *_ in look(folder)} == {"a.txt", "d/" * depth + "b.txt"}
        with semsearch.Index(folder.parent / "index", encoder=WordEncoder()) as index:
            report = index.sync(folder)
            assert (report.added, report.failed) == (2, 0)
    finally:
        subprocess.run(["rm", "-r", str(folder / "d")], check=True)  # shutil.rmtree may be a recursion, too


def test_a_folder_that_is_gone_for_a_while_loses_nothing(folder: Path) -> None:
    away = folder.with_name("away")
    steps = [nothing, lambda: folder.rename(away), nothing, lambda: away.rename(folder), nothing, nothing]
    synced, told = followed(folder, steps)
    assert synced == [0]
    assert len(told) == 1
    assert str(folder) in told[0]


def test_an_interrupt_ends_a_pause_and_breaks_a_sync(folder: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert followed(folder, []) == ([0], [])
    with pytest.raises(KeyboardInterrupt):
        followed(folder, [], interrupt)


@pytest.mark.parametrize("pattern", [None, "*.npy"])
def test_an_index_in_the_folder_is_no_change_of_it(folder: Path, pattern: str | None) -> None:
    with semsearch.Index(folder / "deep" / "index", encoder=WordEncoder()) as index:
        before = look(folder, pattern)
        index.add(["one", "two"])
        index.optimize()
        assert list((folder / "deep" / "index" / "cache").glob("*.npy"))
        assert look(folder, pattern) == before
    assert {name for name, *_ in look(folder)} == {"a.txt"}


def test_the_command_follows_a_folder_until_ctrl_c(folder: Path) -> None:
    command = [*SEMSEARCH, "index", str(folder), "--watch", "--every", "0.1", "--json", "--index", "index"]
    process = subprocess.Popen(command, cwd=folder.parent, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first = json.loads(process.stdout.readline())
        assert (first["added"], first["passages"]) == (1, 1)
        (folder / "b.txt").write_text("b")
        assert json.loads(process.stdout.readline())["added"] == 1
        away = folder.rename(folder.with_name("away"))
        error = json.loads(process.stdout.readline())
        assert str(folder) in error["message"]
        away.rename(folder)
        (folder / "a.txt").unlink()
        assert json.loads(process.stdout.readline())["removed"] == 1
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert (process.returncode, rest) == (0, "")
    finally:
        process.kill()
        process.wait()
    with semsearch.Index(folder.parent / "index", read_only=True) as index:
        assert [document.id for document in index.documents()] == ["b.txt"]


def test_the_command_on_a_terminal(folder: Path) -> None:
    command = [*SEMSEARCH, "index", str(folder), "--watch", "--every", "0.1", "--index", "index"]
    with PseudoTerminal(command, folder.parent) as terminal:
        terminal.expect("Ctrl-C ends")
        terminal.expect("1 passages")
        (folder / "b.txt").write_text("b")
        terminal.expect("2 passages")
        terminal.type("\x03")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.screen


@pytest.mark.parametrize("every", ["0", "-1", "soon", "nan", "inf"])
def test_a_pause_is_a_number_of_seconds(folder: Path, every: str) -> None:
    command = [*SEMSEARCH, "index", str(folder), "--watch", f"--every={every}"]
    done = subprocess.run(command, cwd=folder.parent, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, "not a number of seconds" in done.stderr) == (2, True)
    assert not (folder.parent / "indexes").exists()

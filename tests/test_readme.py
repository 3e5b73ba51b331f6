"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import semsearch
from semsearch import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a handbook in it, which is also the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples" / "documents", tmp_path / "handbook")
    return tmp_path


def test_the_python_blocks_run_one_after_another(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    names["index"].close()  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    assert "added 24, updated 0" in printed
    answer = names["answer"]
    assert isinstance(answer, semsearch.Answer)
    hits = names["hits"]
    assert isinstance(hits, list)
    assert hits[0].passage.document_id


def test_the_commands_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []
    for line in "".join(blocks("console")).splitlines():
        command = shlex.split(line.removeprefix("$ "), comments=True)
        if command[:1] != ["semsearch"] or command[1] == "eval":
            continue
        arguments = [str(home / a[2:]) if a.startswith("~/") else a for a in command[1:]]
        assert cli.main(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
        ran.append(command[1])
    assert {"index", "search", "ask", "check"} <= set(ran)

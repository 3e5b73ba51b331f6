"""The command line, as a person uses it: in a process of its own, in a folder of its own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pseudo_terminal import SEMSEARCH, PseudoTerminal, environment

from semsearch.cli import parser

FEES = "# Fees\n\nThe late fee for a book is 25 cents a day. The late fee for a laptop is 5 dollars an hour.\n"
HOURS = "# Hours\n\nThe library opens at nine in the morning and closes at eight in the evening.\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli")
    (place / "handbook").mkdir()
    (place / "handbook" / "fees.md").write_text(FEES)
    (place / "handbook" / "hours.md").write_text(HOURS)
    (place / "handbook" / "picture.png").write_bytes(b"\x89PNG")
    return place


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    command = [sys.executable, "-m", "semsearch.cli", *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="module")
def indexed(place: Path) -> Path:
    done = run(place, "index", "handbook")
    assert done.returncode == 0, done.stderr
    assert (place / "indexes" / "handbook" / "index.db").exists()
    assert "added 2" in done.stdout
    assert "picture.png" in done.stdout
    assert "\r" not in done.stderr  # no progress bar where nobody watches
    return place


def test_search(indexed: Path) -> None:
    done = run(indexed, "search", "late fee for a laptop", "-k", "1")
    assert done.returncode == 0, done.stderr
    assert "fees.md" in done.stdout
    hits = json.loads(run(indexed, "search", "late fee for a laptop", "-k", "1", "--json").stdout)
    assert len(hits) == 1
    assert hits[0]["document_id"] == "fees.md"
    assert FEES[hits[0]["start"] : hits[0]["end"]] == hits[0]["text"]


def test_search_with_a_filter_and_without_a_hit(indexed: Path) -> None:
    done = run(indexed, "search", "zebra", "--mode", "lexical", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    done = run(indexed, "search", "late fee", "--where", '{"suffix": ".pdf"}', "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])


def test_ask(indexed: Path) -> None:
    done = run(indexed, "ask", "When does the library open?", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["found"] is True
    assert answer["document_id"] == "hours.md"
    assert HOURS[answer["start"] : answer["end"]] == answer["text"]
    assert "nine" in answer["text"]
    assert "hours.md" in run(indexed, "ask", "When does the library open?").stdout


def test_ask_as_it_is_written(indexed: Path) -> None:
    whole = run(indexed, "ask", "When does the library open?")
    streamed = run(indexed, "ask", "When does the library open?", "--stream")
    assert (streamed.returncode, streamed.stdout) == (0, whole.stdout)
    lines = run(indexed, "ask", "When does the library open?", "--stream", "--json").stdout.splitlines()
    *pieces, answer = map(json.loads, lines)
    assert "".join(piece["piece"] for piece in pieces) == answer["text"]
    assert answer == json.loads(run(indexed, "ask", "When does the library open?", "--json").stdout)
    nothing = run(indexed, "ask", "Who was the first king of Norway?", "--stream")
    assert (nothing.returncode, nothing.stdout.splitlines()[0]) == (1, "No answer in the documents.")


def test_similar(indexed: Path) -> None:
    hits = json.loads(run(indexed, "similar", "fees.md", "--json").stdout)
    assert [hit["document_id"] for hit in hits] == ["hours.md"]
    done = run(indexed, "similar", "hours.md", "-k", "1")
    assert (done.returncode, "fees.md" in done.stdout) == (0, True)
    assert run(indexed, "similar", "hours.md", "--where", '{"suffix": ".pdf"}').returncode == 1
    done = run(indexed, "similar", "nowhere.md")
    assert (done.returncode, "nowhere.md" in done.stderr) == (2, True)


def test_info(indexed: Path) -> None:
    info = json.loads(run(indexed, "info", "--json").stdout)
    assert (info["documents"], info["passages"], info["encoder"]["name"]) == (2, 2, "all-MiniLM-L6-v2")
    lines = dict(line.split(maxsplit=1) for line in run(indexed, "info").stdout.splitlines())
    assert (lines["documents"], lines["language"]) == ("2", info["language"])
    assert "name all-MiniLM-L6-v2" in lines["encoder"]


def test_every_command_takes_json_and_colour() -> None:
    (action,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    assert len(action.choices) == 13
    for name, each in action.choices.items():
        options = {option for action in each._actions for option in action.option_strings}
        assert {"--json", "--color"} <= options, name


def test_an_interrupted_sync_says_so_and_goes_on_the_next_time(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(400):
        (tmp_path / "many" / f"{number}.txt").write_text(f"This is text number {number}. " * 40)
    with PseudoTerminal([*SEMSEARCH, "index", "many"], tmp_path) as terminal:
        terminal.expect("0%|")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert "what was committed is kept" in terminal.screen
        assert "Traceback" not in terminal.screen
    done = run(tmp_path, "index", "many", "--json", "--pattern", "1*.txt")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0


def ready(address: str) -> dict[str, Any]:
    """What a server says of itself once its models are loaded."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=60) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except urllib.error.HTTPError as error:
            error.close()  # 503: not yet
            time.sleep(0.1)
    raise AssertionError("The server did not get ready.")


def test_serve(indexed: Path) -> None:
    command = [*SEMSEARCH, "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=indexed, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        assert "http://127.0.0.1:" in told
        address = told[told.index("http") :].split()[0]
        assert ready(f"{address}/health")["passages"] == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_check(indexed: Path) -> None:
    done = run(indexed, "check", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)


def test_check_prints_what_it_found_and_repairs_what_is_derived(indexed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(indexed / "indexes" / "handbook", copy)
    (dense,) = (copy / "cache").glob("*-dense.vectors.npy")
    dense.write_bytes(b"no array")
    done = run(indexed, "check", "--index", str(copy))
    assert (done.returncode, done.stdout.splitlines()[:2]) == (
        1,
        ["not ok: 2 documents, 2 passages", f"  to repair: {dense.name} is damaged or missing"],
    )
    done = run(indexed, "check", "--repair", "--json", "--index", str(copy))
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["cache"]) == (0, True, [])
    assert report["repaired"] == [f"{dense.name} is damaged or missing"]
    (copy / "index.db").write_bytes(b"no database" * 1000)
    done = run(indexed, "check", "--json", "--index", str(copy))
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)
    assert "is damaged" in run(indexed, "check", "--index", str(copy)).stdout


def test_backup(indexed: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "copy"
    done = run(indexed, "backup", str(target), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == {
        "path": str(target),
        "size": (target / "index.db").stat().st_size,
        "documents": 2,
        "passages": 2,
    }
    assert run(indexed, "check", "--index", str(target)).returncode == 0
    query = ("search", "late fee for a laptop", "--json")
    assert json.loads(run(indexed, *query, "--index", str(target)).stdout) == json.loads(run(indexed, *query).stdout)
    again = run(indexed, "backup", str(target))
    assert (again.returncode, "holds an index already" in again.stderr) == (2, True)


def test_index_as_json(indexed: Path) -> None:
    report = json.loads(run(indexed, "index", "handbook", "--json").stdout)
    assert (report["unchanged"], report["added"], report["passages"]) == (2, 0, 2)
    ((path, reason),) = report["failures"]
    assert path.endswith("picture.png")
    assert ".png" in reason


def test_eval(indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "fees.md", "text": ""}\n{"id": "hours.md", "text": ""}\n')
    (tmp_path / "queries.jsonl").write_text('{"id": "q", "text": "late fee for a laptop"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tfees.md\t1\n")
    done = run(indexed, "eval", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["ndcg@10"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "nowhere"], "There is no folder 'nowhere'"),
        (["search", "x", "--index", "nowhere"], "There is no index at"),
        (["search", ""], "is empty"),
        (["search", "x", "-k", "0"], "k=0"),
        (["ask", " "], "is empty"),
        (["search", "x", "--where", "{"], "not JSON"),
        (["search", "x", "--where", '{"a": {"$near": 1}}'], "$near"),
        (["ask", "x", "--reader", "no/such-model"], "no/such-model"),
        (["ask", "x", "--mode", "auto"], "needs a reader that writes"),
        (["serve", "--host", "0.0.0.0"], "needs a token"),
        (["serve", "--token-file", "nowhere"], "nowhere"),
        (["serve", "--token-file", "~nobody-of-that-name/token"], "nobody-of-that-name"),
        (["index", "~nobody-of-that-name/handbook"], "nobody-of-that-name"),
        (["index", "handbook", "--encoder", "no/such-model", "--index", "other"], "no/such-model"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(indexed: Path, arguments: list[str], message: str) -> None:
    done = run(indexed, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("usage:") or len(done.stderr.splitlines()) == 1


def test_an_error_stays_one_line_and_inert_whatever_it_names(indexed: Path) -> None:
    done = run(indexed, "search", "x", "--index", "no\x1b[31m\nwhere")
    assert done.returncode == 2
    assert (len(done.stderr.splitlines()), "\x1b" in done.stderr) == (1, False)


@pytest.mark.parametrize(("output", "code"), [("closed", 0), ("/dev/full", 2)])
def test_output_that_cannot_be_written_ends_in_order(tmp_path: Path, output: str, code: int) -> None:
    """Nobody reads a short output any more, as after `| head -0`, or there is no room for it."""
    reading, writing = os.pipe()
    os.close(reading)
    place = writing if output == "closed" else os.open(output, os.O_WRONLY)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [*SEMSEARCH, "completion", "bash"]
    done = subprocess.run(command, cwd=tmp_path, stdout=place, stderr=subprocess.PIPE, text=True, env=buffered)
    for each in {writing, place}:
        os.close(each)
    assert done.returncode == code
    assert "Exception" not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (code == 2)


def test_several_indexes_must_be_named(indexed: Path, tmp_path: Path) -> None:
    assert "There is no index under indexes/" in run(tmp_path, "search", "x").stderr
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert run(tmp_path, "index", name).returncode == 0
    assert "Name one with --index" in run(tmp_path, "search", "x").stderr


def test_no_arguments_and_version() -> None:
    assert run(Path.cwd()).returncode == 2
    assert run(Path.cwd(), "--version").stdout.startswith("semsearch 0.")


def seconds(place: Path, command: list[str]) -> float:
    """The least processor time of three runs."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        env = {key: value for key, value in environment().items() if key != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run(command, cwd=place, env=env, capture_output=True, check=True, timeout=300)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


@pytest.mark.slow
def test_a_search_takes_a_fifth_of_importing_sentence_transformers(indexed: Path) -> None:
    search = seconds(indexed, [*SEMSEARCH, "search", "late fee"])
    imported = seconds(indexed, [sys.executable, "-c", "import sentence_transformers"])
    print(f"search {search:.2f} s, import sentence_transformers {imported:.2f} s")
    assert search < imported / 5

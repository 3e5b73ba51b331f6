"""Parsers in a worker process: what a hostile file may cost, and that a good one comes back to the letter."""

from __future__ import annotations

import contextlib
import gzip
import inspect
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docx
import hostile
import pytest
from toy import WordEncoder

import semsearch
from semsearch import formats, loading, parsing
from semsearch.errors import LoadError
from semsearch.loading import LOADERS, load_file
from semsearch.parsing import Parser, ParserUnavailableError

TESTS = Path(__file__).parent
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
enforced = pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce limits on memory")


@pytest.fixture(autouse=True)
def hostile_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function of `hostile` reads the files of its name."""
    for name, loader in vars(hostile).items():
        if callable(loader) and getattr(loader, "__module__", "") == "hostile":
            monkeypatch.setitem(LOADERS, f".{name}", loader)


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parser]:
    monkeypatch.setattr(parsing, "PATIENCE", 20.0)  # other tests may keep the processors busy
    with Parser(seconds=1.0, memory=512 << 20) as parser:
        yield parser


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, content: str = "") -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write


Write = Callable[..., Path]


def reason(parser: Parser, path: Path) -> str:
    with pytest.raises(LoadError) as caught:
        parser.load(path)
    assert caught.value.path == str(path)
    return caught.value.reason


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# -- what a good file gives --------------------------------------------------------------------------------------------


def test_the_same_document_as_in_this_process(parser: Parser, write: Write, tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("Fees", 1)
    document.save(tmp_path / "a.docx")
    paths = [
        tmp_path / "a.docx",
        write("b.html", "<title>T</title><p>Grüße 🎉"),
        write("c.csv", "name,fee\nbook,0.10\n"),
        write("d.md", "# D"),
        write("e.txt", "plain\r\n"),
        tmp_path / "f.txt.gz",
    ]
    paths[-1].write_bytes(gzip.compress(b"packed"))
    for path in paths:
        parser.expect(path)
    for path in paths:
        assert parser.load(path) == load_file(path)
        assert parser.load(path, id="x/y") == load_file(path, id="x/y")


@pytest.mark.parametrize("relative", ["a.html", "../a.html"])
def test_paths_are_absolute(parser: Parser, write: Write, tmp_path: Path, relative: str) -> None:
    write("a.html", "<p>here")
    (tmp_path / "sub").mkdir()
    here = Path.cwd()
    os.chdir(tmp_path / "sub" if relative.startswith("..") else tmp_path)
    try:
        document = parser.load(relative)
        assert (document.text, document.source) == ("here", str(Path(relative).absolute()))
        assert document == load_file(relative)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("name", ["\udcff\udcfe.html", "new\nline.html", "日本.html", "-c.html", "x" * 250 + ".html"])
def test_any_file_name(parser: Parser, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    try:
        path.write_text("<p>text")
    except OSError:
        pytest.skip("a name that this file system does not take")
    assert parser.load(path) == load_file(path)


ODD = [
    "",
    "\\0",
    "\\x00\\x01\\r\\n\\r\\x0c\\u2028",
    "\\ud800",
    "\\ud83d\\ude00",  # two lone surrogates, not the one character that JSON and UTF-16 would make of them
    "\\ude00\\ud83d",
    "\\U0001f600",
    '"\\\\"\\t</script>',
    "\\ufeff\\ufffe\\uffff",
    "\\u05e9\\u05dc\\u202e",
]


@pytest.mark.parametrize("escapes", ODD)
def test_any_text_title_and_metadata(parser: Parser, write: Write, escapes: str) -> None:
    """P14: through the pipe to the letter."""
    path = write("a.odd", escapes)
    document, text = parser.load(path), escapes.encode().decode("unicode_escape")
    assert [hex(ord(char)) for char in document.text] == [hex(ord(char)) for char in text]
    assert document == load_file(path)


def test_ten_megabytes(parser: Parser, write: Write) -> None:
    paths = [write("a.long", "häß🎉\n"), write("b.long", "\0\r🎉 ")]
    for path in paths:
        parser.expect(path)  # more than the pipe holds: the worker waits until the answer is wanted
    assert parser.load(paths[0]).text == "häß🎉\n" * 1_000_000
    assert parser.load(paths[1]).text == "\0\r🎉 " * 1_000_000


def test_the_reasons_of_load_file(parser: Parser, write: Write, tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(write("a.html"))
    os.mkfifo(tmp_path / "fifo.html")
    (tmp_path / "folder.html").mkdir()
    for path in (
        write("damaged.pdf", "%PDF-1.7"),
        write("binary.html", "\0\1\2" * 999),
        write("a.png"),
        tmp_path / "gone.html",
        tmp_path / "link.html",
        tmp_path / "fifo.html",
        tmp_path / "folder.html",
    ):
        with pytest.raises(LoadError) as expected:
            load_file(path)
        assert reason(parser, path) == expected.value.reason
    said = reason(parser, write("a.unserialisable"))
    assert said == "damaged: TypeError: Object of type bytes is not JSON serializable"
    assert parser.load(write("b.html", "<p>still here")).text == "still here"


# -- what a bad file costs ---------------------------------------------------------------------------------------------


def test_a_loop_is_ended_and_the_worker_replaced(parser: Parser, write: Write) -> None:
    """P17"""
    before = parser.load(write("a.who")).text
    began = time.monotonic()
    assert reason(parser, write("a.loop", "x")) == "took longer than 1 s of processor time"
    assert time.monotonic() - began < 20
    after = parser.load(write("a.who")).text
    assert before != after
    assert until(lambda: not is_alive(int(before)))


def test_time_is_counted_for_each_file(parser: Parser, write: Write) -> None:
    """More than two seconds of work by one worker, 0.4 a file: none is over its second."""
    path = write("a.burn")
    assert len({parser.load(path).text for _ in range(6)}) == 1


def test_a_large_file_may_take_longer(parser: Parser, write: Write) -> None:
    path = write("a.loop", "x" * 2_000_000)
    assert reason(parser, path) == "took longer than 3 s of processor time"


def test_a_parser_that_waits_for_ever(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """P17: no processor time, and yet an end."""
    monkeypatch.setattr(parsing, "PATIENCE", 2.0)
    with Parser(seconds=0.5) as parser:
        began = time.monotonic()
        assert reason(parser, write("a.sleep")) == "took longer than 1 s"
        assert time.monotonic() - began < 10


@enforced
def test_memory_is_refused_and_the_next_file_loads(parser: Parser, write: Write) -> None:
    """P17"""
    assert parser.load(write("a.memory", "300")).text == "300"
    assert reason(parser, write("b.memory", "100000")) == "needed more than 0.5 GiB of memory"
    assert parser.load(write("a.memory", "300")).text == "300"


@enforced
def test_what_earlier_files_left_in_memory_does_not_count(parser: Parser, write: Write) -> None:
    """The third leak would be over the limit, but not in a process of its own."""
    seen = [parser.load(write(f"{number}.leak", "200")).text for number in range(4)]
    assert [text.split()[0] for text in seen] == ["1", "2", "1", "2"]


@enforced
@needs_proc
def test_a_worker_that_has_grown_is_replaced(parser: Parser, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with Parser(memory=2 << 30) as parser:
        seen = [parser.load(write(f"{number}.leak", "300")).text for number in range(4)]
    assert [text.split()[0] for text in seen] == ["1", "2", "1", "2"]  # 600 MiB > 512


def test_a_worker_retires(parser: Parser, write: Write) -> None:
    path = write("a.who")
    pids = [parser.load(path).text for _ in range(2 * parsing.MAX_FILES + 1)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [parsing.MAX_FILES, parsing.MAX_FILES, 1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.segfault", "", "damaged or hostile: the parser crashed (SIGSEGV)"),
        ("a.die", str(-signal.SIGABRT), "damaged or hostile: the parser crashed (SIGABRT)"),
        ("a.die", "3", "damaged or hostile: the parser crashed (exit code 3)"),
        ("a.die", "0", "damaged or hostile: the parser crashed (exit code 0)"),
        ("a.leave", "goodbye", "damaged or hostile: the parser crashed (exit code 1)"),
    ],
)
def test_a_crash_is_a_reason(parser: Parser, write: Write, name: str, content: str, said: str) -> None:
    """P17"""
    assert parser.load(write("a.html", "<p>before")).text == "before"
    assert reason(parser, write(name, content)) == said
    assert parser.load(write("a.html", "<p>after")).text == "after"


def test_a_crash_that_earlier_files_prepared_is_no_verdict(parser: Parser, write: Write) -> None:
    for number in range(3):
        assert parser.load(write(f"{number}.segfault_when_used", str(number))).text == str(number)


def test_a_worker_that_is_killed_is_not_the_files_fault(parser: Parser, write: Write) -> None:
    pid = int(parser.load(write("a.who")).text)
    os.kill(pid, signal.SIGKILL)
    assert parser.load(write("b.html", "<p>text")).text == "text"  # by another worker
    with pytest.raises(ParserUnavailableError, match=r"killed \(SIGKILL\)"):
        parser.load(write("a.die", str(-signal.SIGKILL)))


def test_noise_does_not_reach_the_answers(write: Write, tmp_path: Path) -> None:
    path = write("a.noise", "the text")
    script = f"""
        import hostile
        from semsearch.loading import LOADERS
        from semsearch.parsing import Parser
        LOADERS[".noise"] = hostile.noise
        with Parser() as parser:
            for _ in range(3):
                print(parser.load({str(path)!r}).text)
    """
    done = run(script)
    assert (done.stdout, done.stderr) == ("the text\n" * 3, "")


def test_the_limits_of_the_worker(parser: Parser, write: Write) -> None:
    names = "RLIMIT_AS RLIMIT_CORE RLIMIT_FSIZE RLIMIT_NOFILE"
    space, core, written, files = map(int, parser.load(write("a.limits", names)).text.split())
    assert 512 << 20 < space < 768 << 20
    assert (core, written, files) == (0, 16 << 20, 64)
    pid = int(parser.load(write("a.who")).text)
    assert os.getpgid(pid) == pid  # the terminal's Ctrl-C is not for it


def test_the_worker_imports_little(parser: Parser, write: Write) -> None:
    loaded = set(parser.load(write("a.modules")).text.split())
    assert not loaded & {"numpy", "torch", "onnxruntime", "tokenizers", "faiss", "semsearch.index", "sqlite3"}
    assert not loaded & {"multiprocessing", "pickle", "asyncio"}


def test_real_bombs(write: Write, tmp_path: Path) -> None:
    """P17: a DOCX that is small enough to be unpacked, and then makes a tree of gigabytes."""
    document = docx.Document()
    document.save(tmp_path / "small.docx")
    with (
        zipfile.ZipFile(tmp_path / "small.docx") as source,
        zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for part in source.infolist():
            content = source.read(part)
            if part.filename == "word/document.xml":
                content = content.replace(b"<w:body>", b"<w:body>" + b"<w:p><w:r/></w:p>" * 5_000_000)
            target.writestr(part.filename, content)
    assert (tmp_path / "bomb.docx").stat().st_size < 1_000_000
    with Parser(memory=512 << 20) as parser:
        said = reason(parser, tmp_path / "bomb.docx")
        assert "memory" in said.lower()
        assert len(said) < 200
        assert parser.load(tmp_path / "small.docx").text == ""


# -- asking ahead ------------------------------------------------------------------------------------------------------


def test_what_was_expected_and_not_wanted_is_passed_over(parser: Parser, write: Write) -> None:
    paths = [write(f"{number}.html", f"<p>{number}") for number in range(6)]
    for path in paths:
        parser.expect(path)
        parser.expect(path)
    assert [parser.load(paths[number]).text for number in (2, 1, 5, 0, 0)] == ["2", "1", "5", "0", "0"]


def test_an_expected_bomb_fails_its_own_load_only(parser: Parser, write: Write) -> None:
    paths = [write("a.html", "<p>a"), write("b.segfault"), write("c.html", "<p>c"), write("d.html", "<p>d")]
    for path in paths:
        parser.expect(path)
    assert parser.load(paths[0]).text == "a"
    assert parser.load(paths[2]).text == "c"  # the crash between them is nobody's concern
    parser.expect(paths[1])
    parser.expect(paths[3])
    assert "SIGSEGV" in reason(parser, paths[1])
    assert parser.load(paths[3]).text == "d"


def test_requests_fit_into_the_pipe(parser: Parser, tmp_path: Path) -> None:
    """Longest names in the costliest characters, while the worker is busy writing: nobody waits for the other."""
    deep = tmp_path
    while len(os.fsencode(deep)) < 3600:
        deep = deep / ("\udcff" * 200)
    deep.mkdir(parents=True)
    paths = [deep / f"{number}.long" for number in range(40)]
    for path in paths:
        path.write_text(f"text {path.stem}")
    for path in paths:
        parser.expect(path)
    for path in paths[:4]:
        assert parser.load(path).text == f"text {path.stem}" * 1_000_000


# -- life and death ----------------------------------------------------------------------------------------------------


def run(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_only_what_is_decoded_and_no_more_is_read_in_this_process() -> None:
    here = {suffix for suffix in LOADERS if loading.is_plain(suffix)}
    assert {"", ".txt", ".log", ".py", ".xml", ".toml"} <= here
    assert not here & {".md", ".rst", ".adoc", ".html", ".pdf", ".docx", ".ipynb", ".csv", ".json", ".txt.gz", ".eml"}
    assert {formats.plain, loading._unnamed} >= {
        inspect.getclosurevars(LOADERS[suffix]).nonlocals.get("read", LOADERS[suffix]) for suffix in here
    }


def test_nothing_is_started_for_plain_text(
    parser: Parser, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refused)
    for name in ("a.txt", "b.py", "c.toml", "LICENSE"):
        parser.expect(write(name, "text"))
        assert parser.load(write(name, "text")).text == "text"
    assert "no loader for .png" in reason(parser, write("a.png"))
    assert reason(parser, tmp_path / "gone.pdf") == "No such file or directory"


@pytest.mark.parametrize("guard", ["", "if __name__ == '__main__':\n"])
def test_a_script_needs_no_main_guard(write: Write, tmp_path: Path, guard: str) -> None:
    page = write("a.html", "<p>from a script")
    body = f"import semsearch\nprint([each.text for each in semsearch.load({str(page)!r})])\n"
    script = write("script.py", guard + textwrap.indent(body, "    " if guard else ""))
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("['from a script']\n", "")
    piped = subprocess.run(
        [sys.executable, "-"], input=body, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (piped.stdout, piped.stderr) == ("['from a script']\n", "")


@needs_proc
@pytest.mark.parametrize("busy", [True, False])
def test_the_worker_dies_with_its_parent(write: Write, busy: bool) -> None:
    looping, who = write("a.loop", "x"), write("a.who")
    script = f"""
        import time, hostile
        from semsearch.loading import LOADERS
        from semsearch.parsing import Parser
        LOADERS[".loop"], LOADERS[".who"] = hostile.loop, hostile.who
        parser = Parser()
        print(parser.load({str(who)!r}).text, flush=True)
        parser.load({str(looping)!r}) if {busy} else time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    time.sleep(0.2)
    parent.kill()
    parent.communicate()
    assert until(lambda: not is_alive(pid), 5.0)


@needs_proc
def test_ctrl_c(write: Write) -> None:
    """The parent gets its KeyboardInterrupt, at once; the worker, ended by it, says nothing; the next one works."""
    looping, who = write("a.loop", "x"), write("a.who")
    script = f"""
        import hostile
        from semsearch.loading import LOADERS
        from semsearch.parsing import Parser
        LOADERS[".loop"], LOADERS[".who"] = hostile.loop, hostile.who
        with Parser() as parser:
            print(parser.load({str(who)!r}).text, flush=True)
            try:
                parser.load({str(looping)!r})
            except KeyboardInterrupt:
                print("interrupted")
            print(parser.load({str(who)!r}).text, flush=True)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
    out, err = parent.communicate(timeout=20)
    said, other = out.split()
    assert (said, err, parent.returncode) == ("interrupted", "", 0)
    assert int(other) != pid
    assert not is_alive(pid)


def test_a_forked_child_has_a_worker_of_its_own(parser: Parser, write: Write) -> None:
    """P5"""
    path, looping = write("a.who"), write("b.html", "<p>late")
    mine = parser.load(path).text
    parser.expect(looping)
    receiver, sender = os.pipe()
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with parser._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()  # while another thread holds the lock
    if child == 0:
        try:
            signal.alarm(20)
            os.write(sender, parser.load(path).text.encode())
            parser.close()
        finally:
            os._exit(0)
    release.set()
    thread.join()
    _, status = os.waitpid(child, 0)
    os.close(sender)
    with os.fdopen(receiver) as pipe:
        theirs = pipe.read()
    assert status == 0
    assert theirs.isdigit()
    assert theirs != mine
    assert parser.load(looping).text == "late"
    assert parser.load(path).text == mine


def pipes(pid: int | str) -> set[str]:
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one of this very listing
            found.add(str(each.readlink()))
    return {each for each in found if each.startswith("pipe:")}


@needs_proc
def test_a_forked_child_does_not_keep_the_worker_alive(parser: Parser, write: Write) -> None:
    pid = int(parser.load(write("a.who")).text)
    assert pipes("self") & pipes(pid)
    child = os.fork()
    if child == 0:
        try:
            os._exit(len(pipes("self") & pipes(pid)))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_many_threads(parser: Parser, write: Write) -> None:
    paths = [write(f"{number}.html", f"<p>{number}") for number in range(20)]
    seen: list[str] = []

    def read(offset: int) -> None:
        for number in range(20):
            path = paths[(number + offset) % 20]
            parser.expect(paths[(number + offset + 1) % 20])
            assert parser.load(path).text == path.stem
            seen.append(path.stem)

    threads = [threading.Thread(target=read, args=(5 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def children() -> set[str]:
    """The child processes that this one has, zombies among them."""
    lists = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return {pid for pids in lists for pid in pids}


def test_nothing_is_left_open(write: Write, tmp_path: Path) -> None:
    """No file descriptor, no child, whatever the worker came to."""
    paths = [write("a.html", "<p>a"), write("b.segfault"), write("c.memory", "9999"), write("d.die", "0")]
    count, before = open_files(), children()
    for _ in range(3):
        with Parser(memory=256 << 20) as parser:
            for path in paths:
                parser.expect(path)
                try:
                    parser.load(path)
                except LoadError:
                    continue
    assert open_files() == count
    assert children() <= before


# -- where there is no worker to be had --------------------------------------------------------------------------------


@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi", "/opt/Application"])
def test_an_application_with_python_inside_is_not_started_again(
    parser: Parser, write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, executable: str
) -> None:
    monkeypatch.setattr(parsing, "_warned", set())
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(subprocess, "Popen", None)
    for _ in range(3):
        assert parser.load(write("a.html", "<p>here")).text == "here"
    assert len(caplog.records) == 1
    assert "without limits on time and memory: there is no Python interpreter" in caplog.text


def test_a_worker_that_cannot_be_started(parser: Parser, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.html", "<p>here")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python3")
        parser.expect(path)
        with pytest.raises(ParserUnavailableError, match="could not be started: No such file or directory"):
            parser.load(path)
    with monkeypatch.context() as patch:
        patch.setattr(parsing, "_BOOT", "raise SystemExit(7)")
        with pytest.raises(ParserUnavailableError, match=r"could not be started: .* ended at once \(exit code 7\)"):
            parser.load(path)
    assert parser.load(path).text == "here"


def test_a_loader_that_no_worker_can_import(
    parser: Parser, write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parsing, "_warned", set())
    monkeypatch.setitem(LOADERS, ".mine", lambda data: formats.Extracted(data.decode().upper()))
    assert parser.load(write("a.mine", "text")).text == "TEXT"
    module = type(sys)("made_up")
    module.loader = loader = lambda data: formats.Extracted(data.decode().title())  # type: ignore[attr-defined]
    loader.__module__, loader.__qualname__ = "made_up", "loader"
    monkeypatch.setitem(sys.modules, "made_up", module)
    monkeypatch.setitem(LOADERS, ".theirs", loader)
    assert parser.load(write("a.theirs", "text")).text == "Text"
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "ModuleNotFoundError: No module named 'made_up'" in caplog.text


def test_a_shipped_loader_under_another_suffix(parser: Parser, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.page", "<h1>A</h1>")
    monkeypatch.setitem(LOADERS, ".page", LOADERS[".html"])
    monkeypatch.setattr(parsing, "load_file", None)  # not in this process
    assert parser.load(path).text == "# A"
    monkeypatch.setitem(LOADERS, ".page", hostile.odd)  # the same worker, told otherwise
    assert parser.load(path).text == "<h1>A</h1>"


# -- load and sync -----------------------------------------------------------------------------------------------------


def test_load_of_a_folder(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """P17"""
    write("a.html", "<p>a"), write("b.segfault"), write("c.txt", "c"), write("d.html", "<p>d")
    assert [(document.id, document.text) for document in loading.load(tmp_path)] == [
        ("a.html", "a"),
        ("c.txt", "c"),
        ("d.html", "d"),
    ]
    assert "b.segfault: damaged or hostile: the parser crashed (SIGSEGV)" in caplog.text
    with pytest.raises(LoadError, match="SIGSEGV"):
        list(loading.load(tmp_path / "b.segfault"))


@pytest.fixture
def folder(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(parsing, "SECONDS", 1.0)
    monkeypatch.setattr(parsing, "PATIENCE", 10.0)  # other tests may keep the processors busy
    monkeypatch.setattr(parsing, "MEMORY", 512 << 20)
    (tmp_path / "folder").mkdir()
    for number in range(4):
        write(f"folder/{number}.html", f"<p>Page number n{number}.")
    return tmp_path / "folder"


def test_sync_of_a_folder_with_bombs(write: Write, tmp_path: Path, folder: Path) -> None:
    """P17: each has its reason, the others are indexed, and nothing is tried again until it changes."""
    write("folder/0.loop", "x"), write("folder/1.memory", "9999"), write("folder/1.segfault")
    write("folder/4.txt", "Plain text n4.")
    time.sleep(0.03)
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        report = index.sync(folder)
        reasons = {Path(path).name: each for path, each in report.failures}
        assert reasons == {
            "0.loop": "took longer than 1 s of processor time",
            "1.memory": "needed more than 0.5 GiB of memory",
            "1.segfault": "damaged or hostile: the parser crashed (SIGSEGV)",
        }
        assert report.added == 5
        assert sorted(each.id for each in index.documents()) == ["0.html", "1.html", "2.html", "3.html", "4.txt"]
        began = time.monotonic()
        again = index.sync(folder)
        assert (again.unchanged, again.failures) == (5, report.failures)
        assert time.monotonic() - began < 1
        LOADERS[".loop"] = LOADERS[".txt"]
        write("folder/0.loop", "Harmless now.")
        assert index.sync(folder).added == 1


def test_trouble_with_the_machine_is_not_remembered(
    write: Write, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(0.03)
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python3")
            report = index.sync(folder)
            assert (report.added, report.failed) == (0, 4)
            assert "could not be started" in report.failures[0][1]
        assert index.sync(folder).added == 4


def test_a_file_that_changes_between_its_digest_and_its_turn(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text may be newer than the digest, and is then read again; it must never be older, for that would stay."""
    time.sleep(0.03)
    original = Parser.load

    def changing(self: Parser, path: Path, *, id: str | None = None) -> semsearch.Document:
        document = original(self, path, id=id)
        if path.name == "1.html":
            time.sleep(0.5)  # the worker has read the next one by now
            (folder / "2.html").write_text("<p>Page number n7.")  # of the same size
        return document

    monkeypatch.setattr(Parser, "load", changing)
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.sync(folder)
        monkeypatch.undo()
        index.sync(folder)
        document = index.get("2.html")
        assert document is not None
        assert document.text == "Page number n7."
        assert index.sync(folder).unchanged == 4


def test_an_interrupted_sync_leaves_no_worker(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    time.sleep(0.03)
    before = children()
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        with monkeypatch.context() as patch:
            patch.setattr("semsearch.ingest.Batch.put", interrupted)
            with pytest.raises(KeyboardInterrupt):
                index.sync(folder)
        assert children() <= before
        assert index.sync(folder).added == 4

"""Encoding by Ray: two workers on this machine, one of them killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import toy
from contents import contents
from toy import WordEncoder

import semsearch
from semsearch import cli
from semsearch.encoding import get_encoder
from semsearch.engines.ray import RayEncoder, encode
from semsearch.errors import EngineUnavailableError, InputError, ModelError
from semsearch.shards import fill, write

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'semsearch[ray]'")

pytestmark = pytest.mark.filterwarnings("default")  # what Ray itself warns of
DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two CPUs and so two workers: the number at which pipelines that need readers hang."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    for module in (sys.modules[__name__], toy):  # the workers do not have the tests
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("corpus") / "shards"
    write(semsearch.load(DOCUMENTS), folder, size=3)
    return folder


@pytest.fixture(scope="module")
def alone(shards: Path) -> Path:
    """What one process makes of the shards."""
    encode(shards, shards.parent / "alone", workers=0)
    return shards.parent / "alone"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def workers() -> list[int]:
    """The processes of ours that run a Worker."""
    parents: dict[int, int] = {}
    named: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(path.name)] = int(status[1])
        if command.startswith(b"ray::Worker"):
            named.append(int(path.name))
    return [pid for pid in named if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found = []
    while (pid := parents.get(pid, 0)) > 1:
        found.append(pid)
    return found


def test_two_workers_with_one_killed_make_what_one_process_makes(shards: Path, alone: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        seen.append(done)
        assert total == 8
        if done == 2:
            running = workers()
            assert len(running) == 2
            killed.append(running[0])
            os.kill(running[0], signal.SIGKILL)

    report = encode(shards, tmp_path / "encoded", workers=2, progress=kill)
    assert len(killed) == 1
    assert seen == list(range(9))
    assert (report.shards, report.skipped, report.failed, report.documents, report.lost) == (8, 0, 0, 24, 1)
    assert files(tmp_path / "encoded") == files(alone)  # no draft is left, and the same to the last bit
    again = encode(shards, tmp_path / "encoded", workers=2)
    assert (again.skipped, again.documents, again.passages, again.lost) == (8, 24, report.passages, 0)
    fill(tmp_path / "encoded", tmp_path / "filled")
    with semsearch.Index(tmp_path / "added") as index:
        index.add(semsearch.load(DOCUMENTS))
    filled = {name: value for name, value in contents(tmp_path / "filled").items() if "state shard/" not in name}
    assert filled == contents(tmp_path / "added")


def test_more_workers_than_there_is_room_for_are_not_waited_for(shards: Path, alone: Path, tmp_path: Path) -> None:
    report = encode(shards, tmp_path / "encoded", workers=5)
    assert (report.shards, report.failed, report.lost) == (8, 0, 0)
    assert files(tmp_path / "encoded") == files(alone)


def test_a_cluster_without_room_is_told_in_time(shards: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(EngineUnavailableError, match=r"gave no worker of 3 CPUs and 0 GPUs within 2 s"):
        encode(shards, tmp_path / "encoded", cpus=3, timeout=2)
    assert time.monotonic() - started < 20
    with pytest.raises(InputError, match="cpus is a number"):
        encode(shards, tmp_path / "encoded", cpus="many")  # type: ignore[arg-type]


class Deadly(WordEncoder):
    """An encoder that takes its process with it at one text, as a lack of memory does."""

    name = "deadly"

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        if any("poison" in text for text in texts):
            os._exit(1)
        return super().encode(texts, kind=kind)


def test_a_shard_that_kills_its_workers_costs_only_itself(tmp_path: Path) -> None:
    write(
        [(f"d{number}", "poison" if number == 3 else f"text{number}") for number in range(6)], tmp_path / "in", size=1
    )
    report = encode(tmp_path / "in", tmp_path / "out", encoder=Deadly(), workers=2)
    assert (report.shards, report.failed, report.documents, report.lost) == (6, 1, 5, 3)
    ((name, reason),) = report.failures
    assert name == "000003.parquet"
    assert reason.startswith("3 workers were lost with it, the last one so: ")
    assert len(files(tmp_path / "out")) == 5


def test_an_error_in_a_worker_is_the_callers(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'no/such-model' cannot be loaded"):
        encode(shards, tmp_path / "encoded", encoder="no/such-model")
    assert files(tmp_path / "encoded") == {}


def test_a_sync_with_workers_is_the_same_index(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "alone") as index:
        index.sync(DOCUMENTS)
    with semsearch.Index(tmp_path / "index") as index, RayEncoder(index.encoder, workers=2) as encoder:
        index.encoder = encoder
        assert index.sync(DOCUMENTS).added == 24
        assert index.sync(DOCUMENTS).unchanged == 24
        assert index.search("late fees", k=1)[0].why() is not None
    assert contents(tmp_path / "index") == contents(tmp_path / "alone")
    with semsearch.Index(tmp_path / "index") as index:  # no trace of Ray is left in it
        assert len(index.search("late fees")) == 10


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index", str(DOCUMENTS), "--index", str(tmp_path / "index"), "--ray", "auto"]) == 0
    assert capsys.readouterr().out.startswith("added 24, updated 0, removed 0, unchanged 0, failed 0\n")


def test_the_encoder_goes_on_when_a_worker_is_killed() -> None:
    texts = [f"text number {number}" for number in range(400)]
    with RayEncoder(workers=2) as encoder:
        rows = encoder.encode(texts)
        os.kill(workers()[0], signal.SIGKILL)
        again = encoder.encode(texts)
        assert encoder.max_tokens == 256
        assert not hasattr(encoder, "nothing")
    assert np.array_equal(rows, get_encoder(None).encode(texts))
    assert np.array_equal(again, rows)


def test_what_is_lost_in_one_call_does_not_come_in_the_next() -> None:
    with RayEncoder(Deadly(), workers=2) as encoder:
        with pytest.raises(EngineUnavailableError, match="3 workers were lost with it"):
            encoder.encode([*(f"text{number}" for number in range(40)), "poison"])
        texts = [f"other{number}" for number in range(100)]
        assert np.array_equal(encoder.encode(texts), WordEncoder().encode(texts))


def test_where_there_is_no_cluster_it_is_told() -> None:
    script = (
        "from semsearch.engines.ray import RayEncoder\n"
        "from semsearch.errors import EngineUnavailableError\n"
        "for address in ('127.0.0.1:1', 'ray://127.0.0.1:1'):\n"
        "    try: RayEncoder(address=address)\n"
        "    except EngineUnavailableError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        "There is no Ray cluster at 127.0.0.1:1",
        "There is no Ray cluster at ray://127.0.0.1:1",
    ]

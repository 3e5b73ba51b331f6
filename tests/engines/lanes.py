"""The engines that the tests run on, each a lane: how it is installed, started on a free port of 127.0.0.1, and ended.

    embedded    a folder, no server
    file        the emulator of Milvus (milvus-lite 3.2.2) as a file, in the same process
    emulator    the same as a server
    core        the C++ core of Milvus in a single process (milvus-lite 2.5.1), as a server
    server      a real server (milvus 2.3.5, Linux on x86_64), see real_server.py
    cluster     what runs already at SEMSEARCH_CLUSTER, as milvus://host:19530?shards=4&replicas=2, if that is set

SEMSEARCH_LANES chooses: names with commas between, or `all`; without it `embedded` alone. The others need pymilvus and
milvus-lite in the environment that runs the tests (`make engines`). The two other packages lie beside it: they are
installed without what they depend on, since only the programs in them are run.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

from semsearch.engines.location import Location

HERE = Path(__file__).resolve().parent
INSTALL_SECONDS = 600
START_SECONDS = 120


class LaneError(Exception):
    """Why a lane cannot run."""


class Lane:
    """A folder or a Milvus Lite file: nothing runs beside the tests."""

    name: ClassVar[str]
    serves = False  # there is a server, which can be killed and started again

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self) -> None:
        """Make it ready, with what an earlier start has stored. Raises LaneError."""

    def kill(self) -> None:
        """End the server as a crash would; what it has stored stays."""

    def location(self, name: str) -> str:
        """Where an index of this name lives."""
        raise NotImplementedError

    def forget(self, name: str) -> None:
        """Remove what was stored under this name."""


class Embedded(Lane):
    name = "embedded"

    def location(self, name: str) -> str:
        return str(self.folder / name)

    def forget(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)


class File(Lane):
    name = "file"

    def start(self) -> None:
        _need("pymilvus", "milvus_lite")

    def location(self, name: str) -> str:
        return f"milvus://{self.folder / name}.db"

    def forget(self, name: str) -> None:
        from milvus_lite.server_manager import server_manager_instance

        path = self.folder / f"{name}.db"
        server_manager_instance.release_server(str(path))
        shutil.rmtree(path, ignore_errors=True)


class _Server(Lane):
    serves = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What to run: it listens at `self.port` and stores below `self.folder`. Raises LaneError."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def location(self, name: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it and wait until it answers; by the thread that lives as long as the server is needed."""
        _need("pymilvus")
        command = self.command()
        if setpriv := shutil.which("setpriv"):  # whoever kills the tests ends the server too
            command = [setpriv, "--pdeathsig", "KILL", *command]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self.kill)
        try:
            self._wait(self._process)
        except LaneError as error:
            self.kill()
            raise LaneError(f"{error}: {self._last_words()}") from None

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if process.poll() is not None:
                raise LaneError(f"its server ended with {process.returncode}")
            if time.monotonic() > until:
                raise LaneError(f"its server was not ready after {START_SECONDS} s")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            self._collections()
        except Exception:  # of pymilvus or of grpc: it is not ready
            return False
        return True

    def _collections(self, drop: str = "") -> list[str]:
        """The names of the collections, asked by a client of its own; of those of an index, after dropping them."""
        from pymilvus import MilvusClient

        client = MilvusClient(self.uri, timeout=5, dedicated=True)
        try:
            names: list[str] = client.list_collections(timeout=5)
            for name in names:
                if drop and (name == drop or name.startswith(f"{drop}_")):
                    client.drop_collection(name, timeout=60)
            return names
        finally:
            client.close()

    def forget(self, name: str) -> None:
        self._collections(drop=name)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            atexit.unregister(self.kill)
            self.end(process)
            process.wait()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()

    def _last_words(self) -> str:
        return _last_line((self.folder / "output.log").read_text("utf-8", "replace"))


class Emulator(_Server):
    name = "emulator"

    def command(self) -> list[str]:
        _need("milvus_lite")
        data = str(self.folder / "data.db")
        return [sys.executable, "-m", "milvus_lite", "server", "--data-dir", data, "--host", "127.0.0.1",
                "--port", str(self.port)]  # fmt: skip


class Core(_Server):
    name = "core"

    def command(self) -> list[str]:
        programs = _installed("milvus-lite==2.5.1") / "milvus_lite" / "lib"
        return [str(programs / "milvus"), str(self.folder / "data.db"), f"127.0.0.1:{self.port}", "ERROR"]

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(_installed("milvus-lite==2.5.1") / "milvus_lite" / "lib")}


class Server(_Server):
    name = "server"

    def command(self) -> list[str]:
        package = _installed("milvus==2.3.5", then="import milvus; milvus._initialize_data_files('.')")
        return [sys.executable, str(HERE / "real_server.py"), str(package), str(self.folder), str(self.port)]

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the server itself; the process that guards it ends with it."""
        try:
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            process.kill()


class Cluster(_Server):
    """What runs already, at the location in SEMSEARCH_CLUSTER, options and all; it is neither started nor killed."""

    name = "cluster"
    serves = False

    def start(self) -> None:
        _need("pymilvus")
        if not self._answers():
            raise LaneError(f"nobody answers at {self.uri}")

    def kill(self) -> None:
        """It is not ours."""

    @property
    def uri(self) -> str:
        return Location.parse(self.location("any")).uri

    def location(self, name: str) -> str:
        parts = urlsplit(os.environ["SEMSEARCH_CLUSTER"])
        return urlunsplit(parts._replace(path=f"/semsearch_{name}"))

    def forget(self, name: str) -> None:
        self._collections(drop=f"semsearch_{name}")


LANES: dict[str, type[Lane]] = {each.name: each for each in (Embedded, File, Emulator, Core, Server)}
if "SEMSEARCH_CLUSTER" in os.environ:
    LANES[Cluster.name] = Cluster


def chosen() -> list[str]:
    """The lanes that SEMSEARCH_LANES names."""
    names = os.environ.get("SEMSEARCH_LANES", Embedded.name)
    found = list(LANES) if names == "all" else [name for name in names.split(",") if name]
    if unknown := sorted(set(found) - set(LANES)):
        raise LaneError(f"SEMSEARCH_LANES names {', '.join(unknown)}; there are {', '.join(LANES)}, and all.")
    return found


def _need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise LaneError(f"{module.replace('_', '-')} is not installed here; make engines installs it")


def _installed(requirement: str, then: str = "") -> Path:
    """Where the files of a package are that only has programs to run; installed there the first time, and set up by a
    line of Python.
    """
    place = Path(sys.prefix) / "programs" / requirement.replace("==", "-")
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=place.parent))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps"]
    try:
        subprocess.run(
            [*pip, "--target", str(part), requirement],
            check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS,
        )  # fmt: skip
        subprocess.run([sys.executable, "-c", then], cwd=part, check=True, capture_output=True, text=True)
        part.rename(place)
    except subprocess.CalledProcessError as error:
        raise LaneError(f"{requirement} could not be installed: {_last_line(str(error.stderr))}") from None
    except subprocess.TimeoutExpired:
        raise LaneError(f"{requirement} was not installed after {INSTALL_SECONDS} s") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place


def _last_line(text: str) -> str:
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port: int = any_port.getsockname()[1]
        return port

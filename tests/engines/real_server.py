"""Run a real Milvus server (the package milvus 2.3.5, a single process) so that nothing outside can reach it.

    python real_server.py PACKAGE DATA PORT

PACKAGE is where `pip install --target PACKAGE milvus==2.3.5` put it, with its programs unpacked. DATA keeps the
collections; PORT on 127.0.0.1 is the one place where the server is reached. It opens nine ports on all addresses
and no setting changes that, so it gets a network namespace of its own, in which this process stays too: the one socket
that listens outside was opened before. Needs Linux on x86_64, and either root or unprivileged user namespaces.

Writes the server's process id to DATA/pid, and listens when the server is ready. Ends when the server ends, which is
killed where this process is.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

INNER_PORT = 19530  # all ports are the default ones inside
HEALTH = "http://127.0.0.1:9091/healthz"
ROLES = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexCoord", "indexNode", "dataCoord", "dataNode")
# What one machine need not wait for: only a second server would. How fresh a reading is stays as it is.
SETTINGS = {"queryCoord.checkInterval": 100, "queryCoord.distPullInterval": 100, "common.session.ttl": 15}
# The store of its settings, in the same process: on a busy disk it waits for seconds, and then the server ends itself.
# Without waiting for the disk it survives every crash but the machine's.
ETCD = """\
listen-client-urls: http://127.0.0.1:2379
advertise-client-urls: http://127.0.0.1:2379
listen-peer-urls: http://127.0.0.1:2380
unsafe-no-fsync: true
"""
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PR_SET_PDEATHSIG, SIGKILL = 1, 9

_libc = ctypes.CDLL(None, use_errno=True)


def configure(package: Path, data: Path) -> None:
    """Write the settings for a server in `data`."""
    sys.path.insert(0, str(package))
    import milvus

    settings = milvus.MilvusServerConfig(data_dir=str(data))
    for role in ROLES:
        settings.set(f"{role}.ip", "127.0.0.1")
    for name, value in SETTINGS.items():
        settings.set(name, value)
    settings.resolve()
    file = data / "configs" / "milvus.yaml"
    etcd = file.with_name("etcd.yaml")
    etcd.write_text(ETCD)
    file.write_text(file.read_text().replace("\netcd:\n", f"\netcd:\n  config:\n    path: {etcd}\n", 1))


def enter_namespace() -> None:
    """A network with nothing in it but the loopback device, for this process and what it starts."""
    if os.geteuid() == 0:
        _unshare(CLONE_NEWNET)
    else:
        user, group = os.geteuid(), os.getegid()
        _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        sys.exit(f"no network namespace of its own for the server: {os.strerror(ctypes.get_errno())}")


def start(package: Path, data: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "DEPLOY_MODE": "STANDALONE",
        "MILVUS_RUN_DIR": str(data / "run"),
        "LD_LIBRARY_PATH": str(package / "bin"),
    }
    with (data / "server.log").open("ab") as log:
        return subprocess.Popen(
            [package / "bin" / "milvus", "run", "standalone"],
            cwd=data,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, SIGKILL),
        )


def wait_until_ready(server: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        with suppress(OSError), opener.open(HEALTH, timeout=5) as answer:
            if b"OK" in answer.read():
                return
        time.sleep(0.1)
    sys.exit(f"the server ended with {server.returncode}")


def forward(listener: socket.socket) -> None:
    """Join each connection from outside to one inside, until this process ends."""
    while True:
        outside, _ = listener.accept()
        try:
            inside = socket.create_connection(("127.0.0.1", INNER_PORT))
        except OSError:
            outside.close()
            continue
        for source, target in ((outside, inside), (inside, outside)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 18):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, target):
            _shut(each)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def main(package: Path, data: Path, port: int) -> int:
    _libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
    data.mkdir(parents=True, exist_ok=True)
    (data / "pid").unlink(missing_ok=True)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    enter_namespace()
    configure(package, data)
    server = start(package, data)
    (data / "pid").write_text(str(server.pid))
    wait_until_ready(server)
    listener.listen()
    threading.Thread(target=forward, args=(listener,), daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), int(sys.argv[3])))

"""The lanes themselves."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from engines.lanes import LANES, Lane, LaneError, chosen

from semsearch.engines.protocol import Engine
from semsearch.errors import IndexNotFoundError


def test_an_engine_has_nothing_before_it_is_made(engine: Engine) -> None:
    with pytest.raises(IndexNotFoundError):
        engine.open(None, create=False)


def test_a_server_is_started_killed_and_started_again(crashing: Lane) -> None:
    for _ in range(2):
        assert answers(crashing)
        crashing.kill()
        assert not answers(crashing)
        crashing.start()
    assert answers(crashing)


def test_a_server_is_reached_from_this_machine_alone(crashing: Lane) -> None:
    assert listens("127.0.0.1", crashing.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address of ours would
        except OSError:
            return  # this machine has no address but loopback
        assert not listens(probe.getsockname()[0], crashing.port)
    if crashing.name == "server":  # it opens more ports, on all addresses that it knows
        server = Path("/proc", (crashing.folder / "pid").read_text(), "ns", "net")
        assert server.readlink() != Path("/proc/self/ns/net").readlink()


def answers(lane: Lane) -> bool:
    from pymilvus import MilvusClient, MilvusException

    try:
        client = MilvusClient(f"http://127.0.0.1:{lane.port}", timeout=2, dedicated=True)
        client.list_collections(timeout=5)
    except MilvusException:
        return False
    client.close()
    return True


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_lanes_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEMSEARCH_LANES", raising=False)
    assert chosen() == ["embedded"]
    monkeypatch.setenv("SEMSEARCH_LANES", "core,server")
    assert chosen() == ["core", "server"]
    monkeypatch.setenv("SEMSEARCH_LANES", "all")
    assert chosen() == list(LANES)
    monkeypatch.setenv("SEMSEARCH_LANES", "milvus")
    with pytest.raises(LaneError, match="names milvus; there are embedded, file, emulator, core, server, and all"):
        chosen()


def test_a_lane_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(LANES["emulator"]):  # type: ignore[misc]
        def command(self) -> list[str]:
            return ["/bin/sh", "-c", "echo no room on this machine >&2; exit 3"]

    pytest.importorskip("pymilvus")
    with pytest.raises(LaneError, match="its server ended with 3: no room on this machine"):
        Broken(tmp_path).start()

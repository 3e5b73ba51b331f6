"""The lanes that the tests of this folder run on, and a line for each of them at the end.

`lane` is one that has been started, for the whole session; `location` is a place in it that nothing was stored in, for
one test; `engine` is the engine of that place, not yet opened. `crashing` is a server for one test, which may kill it.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.lanes import LANES, Lane, LaneError, chosen

from semsearch.embedded import EmbeddedEngine
from semsearch.engines import open_engine
from semsearch.engines.protocol import Engine

_numbers = itertools.count(1)
_outcomes: dict[str, Counter[str]] = defaultdict(Counter)
_reasons: dict[str, str] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lane" in metafunc.fixturenames:
        metafunc.parametrize("lane", chosen(), indirect=True, scope="session")
    if "crashing" in metafunc.fixturenames:
        metafunc.parametrize("crashing", [name for name in chosen() if LANES[name].serves], indirect=True)


@pytest.fixture(scope="session")
def lane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    yield from _started(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def crashing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lane]:
    yield from _started(request.param, tmp_path / request.param)


def _started(name: str, folder: Path) -> Iterator[Lane]:
    lane = LANES[name](folder)
    try:
        if name not in _reasons:
            lane.start()
    except LaneError as error:
        _reasons[name] = str(error)
    if name in _reasons:
        pytest.skip(f"the lane {name} cannot run: {_reasons[name]}")
    yield lane
    lane.kill()


@pytest.fixture
def location(lane: Lane) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield lane.location(name)
    lane.forget(name)


@pytest.fixture
def engine(location: str) -> Iterator[Engine]:
    engine = open_engine(location) if "://" in location else EmbeddedEngine(Path(location))
    yield engine
    engine.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    callspec = getattr(item, "callspec", None)
    name = callspec and (callspec.params.get("lane") or callspec.params.get("crashing"))
    if name and (report.when == "call" or report.outcome != "passed"):
        _outcomes[name][report.outcome] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _outcomes:
        return
    terminalreporter.section("lanes")
    for name in chosen():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(_outcomes[name].items()))
        why = f", NOT RUN: {_reasons[name]}" if name in _reasons else ""
        terminalreporter.write_line(f"{name:10} {counts or 'no test'}{why}")

"""The contract tests of other projects against our adapters. Where a package is missing, its tests are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import WordEncoder

import semsearch

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["LANGSMITH_TRACING"] = "false"

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"


def pytest_configure(config: pytest.Config) -> None:
    """Run coroutine tests as they are: LangChain's tests do not mark theirs."""
    if config.pluginmanager.hasplugin("asyncio"):
        config.option.asyncio_mode = "auto"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[semsearch.Index]:
    """Three documents with vectors that can be computed by hand; one has a heading, a source and a year each."""
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add(
            [
                {"id": "hours.md", "text": "The library closes at nine.", "metadata": {"year": 2022}},
                {
                    "id": "fees.md",
                    "text": "# Fees\n\nLate fees are twenty cents a day.",
                    "source": "/handbook/fees.md",
                    "metadata": {"year": 2024},
                },
                {"id": "ink.md", "text": "Ink is sold at the desk.", "metadata": {"year": 2023}},
            ],
            progress=False,
        )
        yield index


@pytest.fixture(scope="session")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[semsearch.Index]:
    """The documents of the examples with the encoder that ships."""
    with semsearch.Index(tmp_path_factory.mktemp("handbook") / "index") as index:
        index.sync(DOCUMENTS, progress=False)
        yield index

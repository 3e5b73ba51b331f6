"""A part of each class of faults in every run of the suite; `make torture` injects the rest."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from faults.classes import CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_faults(name: str, tmp_path: Path) -> None:
    module = import_module(f"faults.{name}")
    if reason := getattr(module, "unavailable", lambda: None)():
        pytest.skip(reason)
    outcome = module.run(module.CI, 1, tmp_path)
    print(f"\n{name}: {outcome}")
    assert outcome.failures == []
    assert outcome.done >= module.CI

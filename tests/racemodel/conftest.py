"""What every race needs: the function's environment, and a folder for mutants of its code."""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.racemodel.actors import SameThread
from tests.racemodel.world import ARCHIVE


@pytest.fixture(autouse=True)
def function_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_BUCKET", ARCHIVE)
    monkeypatch.setenv("TWOBUCKETS_PROCESS", "tests.racemodel.user:process")
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", SameThread)


@pytest.fixture
def mutants(tmp_path: Path) -> Iterator[Path]:
    """A folder that mutants are imported from."""
    yield tmp_path
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))

"""What every test of the chat may count on: the home of whoever runs it is left alone."""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# With import-mode importlib, a folder of tests is not a place for modules unless it is said so.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep settings and data of whoever runs the tests out of them."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield home


@pytest.fixture(autouse=True)
def seeds_nobody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the seeds of turns without one from a fixed row: a model may say anything else."""
    monkeypatch.setattr(secrets, "randbelow", random.Random(0).randrange)

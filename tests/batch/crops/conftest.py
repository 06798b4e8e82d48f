"""Fixtures: results of a model of two labels, and a folder of snips, without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.batch.crops.bench import SnipBench, make


@pytest.fixture
def bench(tmp_path: Path) -> SnipBench:
    return make(tmp_path)


@pytest.fixture
def three(bench: SnipBench) -> dict[str, str]:
    return bench.three()


@pytest.fixture
def without_ray(bench: SnipBench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return bench.without_ray(monkeypatch)

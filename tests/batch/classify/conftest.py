"""Fixtures: published detections, and a classifier of colours, without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.batch.classify.bench import ClassifyBench, make


@pytest.fixture
def bench(tmp_path: Path) -> ClassifyBench:
    return make(tmp_path)


@pytest.fixture
def three(bench: ClassifyBench) -> dict[str, str]:
    bench.publish(person=0.7)
    return bench.three()


@pytest.fixture
def without_ray(bench: ClassifyBench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return bench.without_ray(monkeypatch)

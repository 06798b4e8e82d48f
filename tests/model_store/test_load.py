"""Measure the batch size that pays, on a device with a simulated clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import model_store.load
from model_store.load import measured_batch


class Device:
    """Device that takes `cost(size)` seconds per call, and 10 s more for the first call of each size."""

    def __init__(self, cost: Callable[[int], float]) -> None:
        self.cost, self.now_s, self.sizes = cost, 0.0, list[int]()

    def run(self, size: int) -> None:
        self.now_s += self.cost(size) + (0 if size in self.sizes else 10)
        self.sizes.append(size)


@pytest.mark.parametrize(
    ("cost", "most", "best"),
    [
        (lambda n: 0.024 * n, 8, 1),  # linear: batching does not pay
        (lambda n: 0.026 * n if n > 1 else 0.024, 8, 1),  # an SSDLite on a CPU core
        (lambda n: 0.010 + 0.001 * n, 12, 12),  # a GPU: the call costs more than the images
        (lambda n: 0.010 * max(1, n / 4), 32, 4),  # full at four
        (lambda n: 0.0, 8, 8),  # too fast for the clock
    ],
)
def test_sizes_are_doubled_for_as_long_as_that_pays(
    monkeypatch: pytest.MonkeyPatch, cost: Callable[[int], float], most: int, best: int
) -> None:
    device = Device(cost)
    monkeypatch.setattr(model_store.load.time, "perf_counter", lambda: device.now_s)
    assert measured_batch(device.run, most) == best
    assert max(device.sizes) <= most

"""How many images a session call should take: measured on the device that serves, at load.

On a CPU one image a call is often fastest (an SSDLite here: 24.1 ms alone, 26.4 ms each in eights);
on a GPU it hardly ever is. So sizes are doubled for as long as that pays.
"""

from __future__ import annotations

import time
from collections.abc import Callable

ROUNDS = 3
WORTH = 0.95
"""A batch twice as large must take at most this share of the time per image: larger batches also
make the first of their images wait for the last."""


def measured_batch(run: Callable[[int], object], most: int) -> int:
    """The batch size, at most `most`, that `run(size)` should be called with from now on."""
    size, seconds = 1, _seconds_per_image(run, 1)
    while size < most:
        larger = min(2 * size, most)
        candidate = _seconds_per_image(run, larger)
        if candidate > WORTH * seconds:
            return size
        size, seconds = larger, candidate
    return size


def _seconds_per_image(run: Callable[[int], object], size: int) -> float:
    """Best of a few, since other work of the machine can only slow a call down; one call warms up."""
    best = float("inf")
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        run(size)
        best = min(best, time.perf_counter() - started)
    return best / size

"""An image of a request, decoded once, by whoever comes first to it: a thread of the decoders, or the worker that
then infers it.

`read` is a model's own way from encoded bytes to the network's input.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from model_store.images import ImageFacts
from model_store.preprocess import Prepared


class Picture:
    """One thread at a time may use it."""

    def __init__(self, read: Callable[[], tuple[ImageFacts, Prepared]], encoded_bytes: int) -> None:
        self._read, self._encoded_bytes = read, encoded_bytes
        self._done: tuple[ImageFacts, Prepared] | None = None
        self.preprocess_ms = 0.0

    @property
    def nbytes(self) -> int:
        """What it holds on to while it waits: the encoded bytes, and the pixels where they are there."""
        return self._encoded_bytes + (self._done[1].pixels.nbytes if self._done else 0)

    @property
    def facts(self) -> ImageFacts:
        """Raises what `read` raises."""
        return self._decoded()[0]

    def prepared(self) -> Prepared:
        """Raises what `read` raises."""
        return self._decoded()[1]

    def _decoded(self) -> tuple[ImageFacts, Prepared]:
        if self._done is None:
            started = time.perf_counter()
            self._done = self._read()
            self.preprocess_ms = (time.perf_counter() - started) * 1e3
        return self._done

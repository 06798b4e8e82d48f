"""An image of a request, decoded once, by whoever comes first to it: a decoder's thread, or the worker that infers it.

`read` is a model's own way from encoded bytes to the network's input.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from model_store.errors import DeadlinePassed
from model_store.images import ImageFacts
from model_store.preprocess import Prepared


class Picture:
    """One thread at a time may use it. `deadline_s` on time.perf_counter's clock."""

    def __init__(
        self,
        read: Callable[[], tuple[ImageFacts, Prepared]],
        encoded_bytes: int,
        deadline_s: float | None = None,
    ) -> None:
        self._read, self._encoded_bytes, self.deadline_s = read, encoded_bytes, deadline_s
        self._done: tuple[ImageFacts, Prepared] | None = None
        self.preprocess_ms = 0.0
        self.waited_first = False
        """Whether it waited in a lane before it was decoded."""

    @property
    def nbytes(self) -> int:
        """What it holds on to while it waits: the encoded bytes, and the pixels where they are there."""
        return self._encoded_bytes + (self._done[1].pixels.nbytes if self._done else 0)

    @property
    def facts(self) -> ImageFacts:
        """Of one that is decoded."""
        assert self._done is not None
        return self._done[0]

    def prepared(self) -> Prepared:
        """Raises what `read` raises, and DeadlinePassed, also where decoding took too long to infer it still."""
        if self._done is None:
            started = self._in_time("before the image was decoded")
            self._done = self._read()
            self.preprocess_ms = (time.perf_counter() - started) * 1e3
        self._in_time("before the image was inferred")
        return self._done[1]

    def _in_time(self, when: str) -> float:
        now_s = time.perf_counter()
        if self.deadline_s is not None and now_s > self.deadline_s:
            raise DeadlinePassed(f"the deadline passed {when}")
        return now_s

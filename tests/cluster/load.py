"""A few clients that ask all the time, for what must hold meanwhile."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx2

MOST = 20_000


class Load:
    """`answers`: when each was asked, when it came, and it; `errors`: what came of the others.

    Each client waits `pause_s` after an answer, so that the machine has time for what is tested.
    """

    def __init__(self, url: str, body: bytes, model: str, clients: int = 3, pause_s: float = 0.0, **query: Any) -> None:
        self.answers: list[tuple[float, float, httpx2.Response]] = []
        self.errors: list[Exception] = []
        self.token = ""
        self._url, self._body, self._query = url, body, {"model": model, **query}
        self._pause_s, self._stop = pause_s, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def statuses(self) -> list[int]:
        """In the order of the answers. An assertion where some were not answered at all."""
        assert self.errors == []
        return [answer.status_code for _, _, answer in list(self.answers)]

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=60) as http:
            while not self._stop.is_set() and len(self.answers) + len(self.errors) < MOST:
                headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
                asked_s = time.monotonic()
                try:
                    answer = http.post("/v1/detect", content=self._body, params=self._query, headers=headers)
                except httpx2.HTTPError as error:
                    self.errors.append(error)
                else:
                    self.answers.append((asked_s, time.monotonic(), answer))
                self._stop.wait(self._pause_s)

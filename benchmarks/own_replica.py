"""Start a replica without Ray for one benchmark: the HTTP API over an engine, in a separate process.

with replica(models, log) as r: r.url, r.rss_mib(), r.peak_mib, r.slowest_ms, r.died

While it runs, its memory is sampled every 20 ms, as is the response time of /healthz, which shows how long its event
loop is blocked. A replica over `most_mib` is killed before the machine runs out of memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import httpx2
import psutil
import uvicorn

from model_store.machine import usable_cores
from serve.api.app import build_http_api
from serve.cluster.ports import preferred_or_free
from serve.inference.engine import Engine
from serve.log_config import configure_logs
from serve.settings import DetectArgs

LOOK_S = 0.02
START_S = 60.0


class Replica:
    """A running replica and its measurements."""

    def __init__(self, url: str, process: SpawnProcess, most_mib: int) -> None:
        self.url, self._process, self._most_mib = url, process, most_mib
        self._seen = psutil.Process(process.pid)
        self._stopped = threading.Event()
        self.peak_mib = self.highest_mib = 0
        self.slowest_ms = 0.0
        self.failed_looks = 0
        self.died = ""
        self._threads = [threading.Thread(target=t) for t in (self._memory, self._health)]

    def rss_mib(self) -> int:
        """Return the current resident memory in MiB; 0 if the replica is dead."""
        try:
            return self._seen.memory_info().rss >> 20
        except psutil.Error:
            return 0

    def peak_since(self) -> int:
        """Return the peak memory since the previous call."""
        peak, self.peak_mib = self.peak_mib, 0
        return peak

    def watch(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._look()
        self._process.terminate()
        self._process.join(30)
        if self._process.is_alive():
            self.died = self.died or "does not stop when asked to"
            self._process.kill()

    def _look(self) -> None:
        code = self._process.exitcode
        if code is not None and not self.died:
            self.died = f"ended by signal {-code}" if code < 0 else f"ended with {code}"

    def _memory(self) -> None:
        while not self._stopped.wait(LOOK_S):
            rss = self.rss_mib()
            self.peak_mib = max(self.peak_mib, rss)
            self.highest_mib = max(self.highest_mib, rss)
            if rss > self._most_mib and not self.died:
                self.died = f"took {rss} MiB, the bound is {self._most_mib}"
                self._process.kill()
            self._look()

    def _health(self) -> None:
        with httpx2.Client(base_url=self.url, timeout=60) as http:
            while not self._stopped.wait(10 * LOOK_S) and not self.died:
                started = time.perf_counter()
                try:
                    good = http.get("/healthz").status_code == 200
                except httpx2.HTTPError:
                    good = False
                self.failed_looks += not good and not self.died
                self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - started) * 1e3)


@contextlib.contextmanager
def replica(models: Path, log: Path, most_mib: int) -> Iterator[Replica]:
    """Run a replica during the block; its output is in `log`."""
    port = preferred_or_free(0)
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve, args=(str(models), port, str(log)), daemon=True)
    process.start()
    up = Replica(f"http://127.0.0.1:{port}", process, most_mib)
    try:
        _wait_for(up.url, process)
        up.watch()
        yield up
    finally:
        up.stop()


def _wait_for(url: str, process: SpawnProcess) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.is_alive():
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    process.kill()
    raise RuntimeError("the replica did not come up; see its log")


def _serve(models: str, port: int, log: str) -> None:
    """Serve in the process of the replica."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    faulthandler.enable()
    configure_logs()

    async def run() -> None:
        engine = Engine(DetectArgs(models=models, workers=usable_cores()))
        await engine.start()
        api = build_http_api(engine)
        config = uvicorn.Config(api, "127.0.0.1", port, log_level="warning")
        await uvicorn.Server(config).serve()
        engine.stop()

    asyncio.run(run())

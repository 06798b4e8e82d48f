"""A replica to be measured: the engine of the product in a process of its own, without Ray and without HTTP.

Replica(version, args, photos, log) -> .ready() -> .ask(Closed | Open) -> .answer() -> Seen
It loads the version as a replica does (verified, probed, warm), and takes over batch, wait and jpeg_shrink of a
point as replicas take over deployment.json: live. Its log goes to a file, as that of a replica does.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from model_store.config import Batch
from model_store.detector import LoadedDetector
from model_store.errors import ModelNotReady, ResightError
from model_store.names import VersionId
from serve.engine import Engine
from serve.logs import configure_logs
from serve.settings import DetectArgs
from serve.tune.load import PATIENCE_S, Seen, closed_loop, open_loop
from serve.tune.point import Point

SETTLE_S = 0.05
"""Between two loads: what a cancelled client had under way ends meanwhile."""
SLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class Ready:
    """What it has loaded: the batch that a replica would use now, and on which device."""

    batch: Batch
    device: str


@dataclass(frozen=True, slots=True)
class Closed:
    point: Point
    clients: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    point: Point
    rate: float
    seconds: float
    seed: int


class Replica:
    """A running one; stop() it. Raises ModelNotReady where none can be started."""

    def __init__(
        self, version: VersionId, args: DetectArgs, photos: Sequence[bytes], log: Path
    ) -> None:
        self._version, self._log, self._load_s = version, log, args.load_timeout_s
        self._asked_s = 0.0
        context = multiprocessing.get_context("spawn")
        try:
            log.touch()  # it may end before it has opened it
            self._pipe, theirs = context.Pipe()
            work = (theirs, version, args, tuple(photos), str(log))
            self._process = context.Process(target=_work, args=work, daemon=True)
            with theirs:
                self._process.start()
        except OSError as error:
            raise ModelNotReady(
                f"no process to measure {version} could be started: {error}"
            ) from error

    def ready(self) -> Ready:
        """Raises what loading raises, and ModelNotReady."""
        return self._received(self._load_s)

    def ask(self, load: Closed | Open) -> None:
        self._asked_s = load.seconds
        with contextlib.suppress(OSError):  # it has ended: its answer says so
            self._pipe.send(load)

    def answer(self) -> Seen:
        """Raises what the engine has raised, and ModelNotReady where the process has ended."""
        return self._received(self._asked_s + PATIENCE_S + SLACK_S)

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(10)
        self._pipe.close()

    def _received(self, timeout_s: float) -> Any:
        try:
            if not self._pipe.poll(timeout_s):
                raise ModelNotReady(f"{self._version} did not answer in {timeout_s:.0f} s")
            found = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(10)
            said = self._log.read_text(errors="replace")[-600:].strip()
            raise ModelNotReady(
                f"the process that measured {self._version} ended ({self._process.exitcode}): {said}"
            ) from error
        if isinstance(found, BaseException):
            raise found
        return found


def _work(
    pipe: Connection, version: VersionId, args: DetectArgs, photos: Sequence[bytes], log: str
) -> None:
    """In the process of the replica."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    faulthandler.enable()
    configure_logs()
    try:
        asyncio.run(_serve(pipe, version, args, photos))
    except EOFError:
        return  # whoever asked is gone


async def _serve(
    pipe: Connection, version: VersionId, args: DetectArgs, photos: Sequence[bytes]
) -> None:
    engine = Engine(args)
    try:
        try:
            loaded = (await engine.residents.get(str(version))).detector
        except ResightError as error:
            pipe.send(error)
            return
        pipe.send(Ready(loaded.batch, loaded.session.device))
        gc.freeze()  # as a replica does
        while True:
            load: Closed | Open = await asyncio.to_thread(pipe.recv)
            engine.residents.versions.exchange(version, as_at(loaded, load.point))
            try:
                pipe.send(await _loaded(engine, str(version), photos, load))
            except ResightError as error:
                pipe.send(error)
    finally:
        engine.stop()


async def _loaded(engine: Engine, ref: str, photos: Sequence[bytes], load: Closed | Open) -> Seen:
    async def ask(body: bytes) -> object:
        with engine.slot():
            return await engine.detect(body, ref)

    await asyncio.sleep(SETTLE_S)
    if isinstance(load, Closed):
        return await closed_loop(ask, photos, load.clients, load.seconds)
    return await open_loop(ask, photos, load.rate, load.seconds, load.seed)


def as_at(loaded: LoadedDetector, point: Point) -> LoadedDetector:
    """The same model, run as the point says."""
    preprocess = loaded.config.preprocess.model_copy(update={"jpeg_shrink": point.jpeg_shrink})
    config = loaded.config.model_copy(update={"preprocess": preprocess})
    return replace(loaded, config=config, batch=point.filling)

"""`resight serve` as a process: signals, the lock of its home, and runs of filters without a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

import serve.embedded.server
from archive.delta.tables import Tables
from model_store.errors import ClusterError
from serve.api.base import ENDING
from serve.cluster.deploy import detect_args
from serve.cluster.head import ClusterState, start
from serve.cluster.ports import Ports, preferred_or_free
from serve.embedded.home_lock import home_lock, served_at
from serve.embedded.host import EmbeddedHost
from serve.embedded.server import reload_when, sole_host
from serve.embedded.server import serve as serve_until_signal
from serve.models.loaded_models import Loader
from serve.rollout.sandbox import Proof
from serve.settings import Settings
from serve.uploads.recorder import OwnTables
from tests.fixtures_local import ROOT, jpeg, motion_store, rows_of

STATE = ClusterState(1, "127.0.0.1", 8000, "127.0.0.1:6379", "http://127.0.0.1:8265", "nowhere")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    motion_store(tmp_path / "home" / "models", "1")
    return Settings()


class Server:
    """A process of `resight serve`."""

    def __init__(self, wait: bool = True) -> None:
        self.port = preferred_or_free(0)
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "resight", "serve", "--port", str(self.port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if wait:
            self.wait_until(self.answers)

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def end(self, with_: signal.Signals) -> int:
        self.process.send_signal(with_)
        return self.process.wait(60)


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    server = Server()
    yield server
    server.process.kill()
    server.process.communicate()


def test_runs_are_beside_it_its_home_is_taken_and_sigterm_ends_it_with_every_upload_recorded(
    server: Server, settings: Settings
) -> None:
    kinds = httpx2.get(f"{server.url}/runs/filters", timeout=60).json()
    assert "small-size" in {kind["kind"] for kind in kinds}
    assert httpx2.get(f"{server.url}/runs/unknown", timeout=60).status_code == 404
    words = [sys.executable, "-m", "resight", "serve", "--port", str(server.port)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 8
    assert f"serves {settings.home_path} already, at {server.url}" in done.stderr  # before its port is mentioned
    for shade in (40, 80):
        kept = httpx2.post(
            f"{server.url}/v1/images",
            params={"model": "blobs", "camera": "north"},
            content=jpeg(shade=shade),
            timeout=60,
        )
        assert kept.is_success, kept.text
    assert server.end(signal.SIGTERM) == 0
    assert len(rows_of(Tables(settings.tables_url), "results")) == 2
    assert served_at(settings) == ""


def test_sighup_does_not_end_it_no_other_host_starts_and_after_kill_9_one_does(settings: Settings) -> None:
    server = Server(wait=False)
    try:
        server.wait_until(lambda: served_at(settings))  # the proof of its model takes longer
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(server.answers)
        server.process.send_signal(signal.SIGHUP)
        assert served_at(settings) == server.url
        with pytest.raises(ClusterError, match=f"already, at {server.url}"), home_lock(settings, "mine"):
            pass
        with pytest.raises(ClusterError, match=f"at {server.url}: stop it with Ctrl-C"):
            start(settings, Ports(server.port, 0, 0), "127.0.0.1", 128)
        assert server.answers()
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        with home_lock(settings, "mine"):
            assert served_at(settings) == "mine"
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_load_ends_it_and_is_no_fault_of_the_model(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, received: signal.Signals
) -> None:
    ended, holders, hung = threading.Event(), list[list[str]](), list[bool]()
    start, close = EmbeddedHost.start, OwnTables.close

    def note() -> None:
        (file,) = (settings.home_path / "proofs").glob("*.json")
        holders.append(json.loads(file.read_text())["loading"])

    def load(*_: object) -> None:
        note()
        os.kill(os.getpid(), received)
        ended.wait(20)

    async def start_while_the_store_hangs(host: EmbeddedHost) -> None:
        asyncio.get_running_loop().run_in_executor(None, lambda: hung.append(ended.wait(20)))
        await start(host)

    async def note_and_close(tables: OwnTables) -> None:
        note()
        await close(tables)

    monkeypatch.setattr(Loader, "load", load)
    monkeypatch.setattr(EmbeddedHost, "start", start_while_the_store_hangs)
    monkeypatch.setattr(OwnTables, "close", note_and_close)
    monkeypatch.setattr(EmbeddedHost, "prove", lambda self, *about: Proof(1, 0.1, about[-1]))
    address = ("127.0.0.1", preferred_or_free(0))
    before = signal.signal(received, signal.SIG_IGN)
    try:
        asyncio.run(serve_until_signal(settings, detect_args(settings), address, {}, lambda _: pytest.fail("serves")))
        assert hung == []
    finally:
        ended.set()
        signal.signal(received, before)
    assert [len(loading) for loading in holders] == [1, 0]
    assert served_at(settings) == ""


async def test_each_request_to_reload_is_followed_also_after_one_that_fails() -> None:
    class Host:
        reloads = 0

        async def reload(self) -> None:
            self.reloads += 1
            if self.reloads == 1:
                raise RuntimeError("unknown")

    host, wanted = Host(), asyncio.Event()
    reloading = asyncio.create_task(reload_when(wanted, host))  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        for count in (1, 2):
            wanted.set()
            while host.reloads < count:
                await asyncio.sleep(0)
    reloading.cancel()


def test_detections_do_not_wait_for_the_applications_beside_them_which_see_its_end(settings: Settings) -> None:
    port, answered, seen = preferred_or_free(0), threading.Event(), list[str]()
    endings = list[asyncio.Future[None]]()

    def make() -> Any:
        assert answered.wait(60)
        return page

    async def page(scope: Any, receive: Any, send: Any) -> None:
        endings.append(scope[ENDING])
        seen.append(f"ends: {scope[ENDING].done()}")
        await PlainTextResponse("the page")(scope, receive, send)

    def look() -> None:
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx2.Client(transport=httpx2.HTTPTransport(retries=5), timeout=60) as client:
                seen.append(client.get(f"{url}/healthz").text)
                answered.set()
                seen.append(client.get(f"{url}/ui/").text)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    looking = threading.Thread(target=look)
    asyncio.run(
        serve_until_signal(
            settings, detect_args(settings), ("127.0.0.1", port), {"/ui": make}, lambda _: looking.start()
        )
    )
    looking.join(60)
    assert seen[1:] == ["ends: False", "the page"]
    assert endings[0].done(), "streams end with it"


def test_an_application_that_cannot_be_made_ends_the_process_with_its_error(settings: Settings) -> None:
    def make() -> Any:
        raise ClusterError("no jobs here")

    port, endpoints = preferred_or_free(0), list[str]()
    with pytest.raises(ClusterError, match="no jobs here"):
        asyncio.run(
            serve_until_signal(
                settings,
                detect_args(settings),
                ("0.0.0.0", port),
                {"/ui": make},
                lambda _: endpoints.append(served_at(settings)),
            )
        )
    assert endpoints == [f"http://127.0.0.1:{port}"], "0.0.0.0 is not an address that a browser can open"


def test_beside_a_cluster_it_does_not_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve.embedded.server, "read_state", lambda _: STATE)
    with pytest.raises(ClusterError, match="resight down"), sole_host(settings, "mine"):
        pass
    assert served_at(settings) == ""


@pytest.mark.parametrize("cluster", [True, False])
def test_a_taken_port_is_named_unless_a_cluster_of_the_home_has_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, cluster: bool
) -> None:
    monkeypatch.setattr(serve.embedded.server, "read_state", lambda _: STATE if cluster else None)
    words = "stop it with 'resight down'" if cluster else "choose another port with 'resight serve --port'"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ClusterError, match=words):
        asyncio.run(serve_until_signal(settings, detect_args(settings), taken.getsockname()[:2], {}, lambda _: None))
    assert served_at(settings) == ""

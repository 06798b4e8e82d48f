"""One process as host: its aliases, its uploads and its end, without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from archive.delta.tables import Tables
from model_store.store import ModelStore
from serve.embedded.host import EmbeddedHost
from serve.rollout import operator
from serve.rollout.operations import Accepted, Operation, events, open_operations
from serve.rollout.sandbox import Proof
from serve.rollout.state import read_state
from serve.settings import DetectArgs, Settings
from tests.fixtures_local import add_hanging, jpeg, motion_store, rows_of
from tests.serve.rollout.test_sandbox import wait_for_child


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    return motion_store(tmp_path / "home" / "models", "1", "2")


@pytest.fixture
async def host(store: ModelStore) -> AsyncIterator[EmbeddedHost]:
    host = EmbeddedHost(Settings(), arguments(store))
    await host.start()
    yield host
    await host.close()


def arguments(store: ModelStore) -> DetectArgs:
    return DetectArgs(models=store.url, workers=1, poll_s=0.05, require_token=False)


def client(host: EmbeddedHost) -> httpx2.AsyncClient:
    (Settings().ray_token_path).touch()  # otherwise a token is needed: the home was never used
    transport = httpx2.ASGITransport(host.application())
    return httpx2.AsyncClient(transport=transport, base_url="http://resight", timeout=60)


async def version_of(api: httpx2.AsyncClient) -> str:
    answer = await api.post("/v1/detect", params={"model": "blobs"}, content=jpeg())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["version"])


async def test_a_promotion_is_proved_apart_and_switches_the_next_request(host: EmbeddedHost, store: ModelStore) -> None:
    store.folder.write("blobs/deployment.json", b"{")
    async with client(host) as api:
        assert await version_of(api) == "1"
        moved = await api.post("/v1/models/blobs/promote", json={"version": "2"})
        assert moved.json()["state"] == "done", moved.text
        assert await version_of(api) == "2"
        other = await api.post("/v1/models/blobs/rollback", json={"version": "3"})
        assert (other.status_code, "from 2 to 1 now, and not to 3" in other.text) == (409, True)
    assert store.aliases("blobs") == {"production": "2"}
    proofs = (Path(Settings().home_path) / "proofs").glob("*.json")
    assert len(list(proofs)) == 2, "each version was proved before it was loaded"


async def test_an_operation_is_done_although_its_client_disconnects_while_it_is_accepted(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate, save = threading.Event(), threading.Event(), operator.save_operation

    def save_at_the_gate(*arguments: Any) -> Accepted:
        entered.set()
        assert gate.wait(60)
        return save(*arguments)

    monkeypatch.setattr(operator, "save_operation", save_at_the_gate)
    monkeypatch.setattr(EmbeddedHost, "prove", lambda *words: Proof(1, 0.0, words[-1]))
    host = EmbeddedHost(Settings(), arguments(store))
    request = asyncio.create_task(host.rollouts.apply(Operation(kind="pin", name="blobs"), wait_s=60.0))
    await asyncio.to_thread(entered.wait, 60)
    request.cancel()
    await asyncio.wait([request])
    gate.set()
    async with asyncio.timeout(60):
        while not events(store, "blobs"):
            await asyncio.sleep(0.01)
    await host.close()
    assert read_state(store, "blobs").aliases["production"].pinned


async def test_uploads_that_wait_at_the_end_are_in_the_tables_once(store: ModelStore) -> None:
    host = EmbeddedHost(Settings(), arguments(store))
    await host.start()
    async with client(host) as api:
        for shade in (40, 80, 80):
            kept = await api.post("/v1/images", params={"model": "blobs", "camera": "north"}, content=jpeg(shade=shade))
            assert kept.status_code in (200, 201, 202), kept.text
    await host.close()
    tables = Tables(Settings().tables_url)
    for name in ("media", "results"):
        counted = Counter(row["media_sha256"] for row in rows_of(tables, name))
        assert len(counted) == 2
        assert set(counted.values()) == {1}


async def test_it_ends_while_a_version_hangs_in_its_proof(store: ModelStore) -> None:
    host = EmbeddedHost(Settings(), arguments(store))
    await host.start()
    version = add_hanging(store)
    promote = Operation(kind="promote", name=version.name, version=version.version)
    pending = await host.rollouts.apply(promote, wait_s=0.0)
    child = await asyncio.to_thread(wait_for_child, host._sandbox)
    try:
        async with asyncio.timeout(60):  # the proof has 300 s
            await host.close()
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    (left,) = open_operations(store, version.name)
    assert left.outcome.id == pending.id, "the next process completes it"

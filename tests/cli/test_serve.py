"""What `resight serve` prints; the server itself is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model_store.store import ModelStore
from serve.cluster.ports import network_url
from serve.models.pools import NO_MODEL, PENDING
from serve.rollout.state import AliasState, update_state
from tests.cli.conftest import Resight
from tests.fixtures_local import ROOT, motion_store, write_files

POOL = "ARROW_DEFAULT_MEMORY_POOL"


@pytest.fixture(autouse=True)
def failures(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    failures = {"a": NO_MODEL}

    async def serve(settings: Any, args: Any, address: Any, others: Any, ready: Any) -> None:
        serving = SimpleNamespace(loaded=[], failures=failures)
        ready(SimpleNamespace(engine=SimpleNamespace(serving=lambda: serving, store=ModelStore(str(home / "models")))))

    monkeypatch.setattr("cli.serve.serve_until_signal", serve)
    return failures


def test_a_damaged_model_is_rolled_back_if_it_can_be(resight: Resight, home: Path, failures: dict[str, str]) -> None:
    assert "next: resight models pull" in resight("serve").err
    store = motion_store(home / "models", "1", "2", alias="2")
    failures["blobs:production"] = "blobs@2: config.json has another sha256"
    assert "next: " not in resight("serve").err, "not another model"
    update_state(store, "blobs", lambda old: old.with_alias("production", AliasState(active="2", previous=("1",))))
    assert resight("serve").err.endswith("next: resight models rollback blobs\n")
    failures["blobs:production"] = f"blobs@2: {PENDING}"
    assert "rollback" not in resight("serve").err, "it is no error"


def test_an_invalid_policy_is_reported_and_does_not_stop_it(resight: Resight, home: Path) -> None:
    write_files(home, {"policy.toml": b"[privacy]\nmode = 'mask'"})
    done = resight("serve")
    done.ok()
    assert f"\ninvalid policy; correct {home / 'policy.toml'}: privacy.mode: " in done.err


@pytest.mark.parametrize(("host", "local"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_on_every_interface_it_prints_addresses_that_a_browser_can_open(
    resight: Resight, monkeypatch: pytest.MonkeyPatch, host: str, local: str
) -> None:
    monkeypatch.setenv("RESIGHT_TOKEN", "secret")
    lines = resight("serve", "--host", host).err.splitlines()
    assert lines[:2] == [f"serving no model yet at http://{local}:8000", f"page    http://{local}:8000/ui/"]
    assert lines[2] == f"network {network_url(host, 8000)}/ui/"


def test_on_one_address_it_prints_that(resight: Resight) -> None:
    lines = resight("serve", "--host", "localhost", "--port", "8100").err.splitlines()
    assert lines[1] == "page    http://127.0.0.1:8100/ui/"
    assert not any(line.startswith("network") for line in lines)


POOL_OF_SERVE = """
import os, sys
import cli.serve

async def server(*_):
    import pyarrow
    print(pyarrow.default_memory_pool().backend_name, "ARROW_DEFAULT_MEMORY_POOL" in os.environ)

cli.serve.serve_until_signal = server
from cli.main import app
app(["serve"])
"""


@pytest.mark.parametrize(("chosen", "printed"), [({}, "system False"), ({POOL: "mimalloc"}, "mimalloc True")])
def test_arrow_has_the_allocator_that_does_not_keep_the_memory_of_its_threads(
    home: Path, chosen: dict[str, str], printed: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != POOL} | {"RESIGHT_HOME": str(home)}
    words = [sys.executable, "-c", POOL_OF_SERVE]
    done = subprocess.run(words, cwd=ROOT, env=environment | chosen, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == printed, done.stderr

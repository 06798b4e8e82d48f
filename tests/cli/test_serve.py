"""What `resight serve` prints; the server itself is replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model_store.store import ModelStore
from serve.models.pools import NO_MODEL
from tests.cli.conftest import Resight
from tests.fixtures_local import write_files


@pytest.fixture(autouse=True)
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(settings: Any, args: Any, address: Any, others: Any, ready: Any) -> None:
        serving = SimpleNamespace(loaded=[], failures={"a": NO_MODEL})
        ready(SimpleNamespace(engine=SimpleNamespace(serving=lambda: serving, store=ModelStore(str(home / "models")))))

    monkeypatch.setattr("cli.serve.serve_until_signal", serve)


def test_an_invalid_policy_is_reported_and_does_not_stop_it(resight: Resight, home: Path) -> None:
    write_files(home, {"policy.toml": b"[privacy]\nmode = 'mask'"})
    done = resight("serve")
    done.ok()
    assert f"\ninvalid policy; correct {home / 'policy.toml'}: privacy.mode: " in done.err

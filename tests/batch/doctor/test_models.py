"""Models with lost or changed files, and aliases of versions that do not exist."""

from __future__ import annotations

import shutil

from batch.doctor.finding import Finding
from batch.doctor.models import check_models
from serve.rollout.state import Share, update_state
from tests.batch.doctor.conftest import Home
from tests.fixtures_local import publish_blobs


def found(home: Home, digests: bool = False) -> dict[str, str]:
    findings: list[Finding] = list(check_models(home.store, digests))
    assert {finding.check for finding in findings} <= {"models"}
    return {finding.subject: finding.problem for finding in findings}


def test_a_canary_of_a_lost_version_is_found_and_a_lost_earlier_version_is_not(home: Home) -> None:
    shutil.rmtree(home.files("models/blobs/2")[0])  # `models remove` permits that
    assert found(home) == {}
    canary = Share(version="2", percent=5)
    update_state(
        home.store,
        "blobs",
        lambda now: now.with_alias("production", now.aliases["production"].model_copy(update={"canary": canary})),
    )
    assert found(home) == {"blobs:production": "blobs@2 does not exist"}


def test_an_alias_of_a_lost_version_is_found(home: Home) -> None:
    home.store.set_alias("blobs", "winter", "2")
    shutil.rmtree(home.files("models/blobs/2")[0])
    assert found(home) == {"blobs:winter": "blobs@2 does not exist"}


def test_an_unfinished_version_is_found(home: Home) -> None:
    home.files("models/blobs/2/READY")[0].unlink()
    assert "being added" in found(home)["blobs@2"]


def test_damaged_files_are_found(home: Home) -> None:
    probe = home.files("models/blobs/1/probe/*.png")[0]
    data = probe.read_bytes()
    probe.unlink()
    assert found(home) == {"blobs@1": f"probe/{probe.name} is missing"}
    probe.write_bytes(data[:-1])
    assert found(home) == {}
    assert "READY lists" in found(home, digests=True)["blobs@1"]
    home.files("models/blobs/1/config.json")[0].write_bytes(b"{}")
    assert "config.json has sha256" in found(home)["blobs@1"]


def test_files_that_were_replaced_after_the_rollout_are_found(home: Home) -> None:
    shutil.rmtree(home.files("models/blobs/1")[0])
    publish_blobs(home.store, "1")  # with another config
    assert "were replaced after it was rolled out" in found(home)["blobs@1"]


def test_damaged_settings_and_aliases_are_found(home: Home) -> None:
    place = home.files("models/blobs")[0]
    for name in ("aliases.json", ".rollout/state.json", "deployment.json"):
        file = place / name
        before = file.read_bytes() if file.exists() else b"{}"
        file.write_bytes(b"[")
        assert name in found(home)["blobs"]
        file.write_bytes(before)
    assert found(home) == {}

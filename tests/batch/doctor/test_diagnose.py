"""All checks together: a healthy home, a check that fails, and a home that is not mounted."""

from __future__ import annotations

import shutil

import pytest

import batch.doctor.diagnose
from batch.doctor.diagnose import diagnose, repair_error
from batch.doctor.finding import Finding
from model_store.errors import StorageFull
from tests.batch.doctor.conftest import Home


def test_a_healthy_home_has_no_findings(home: Home) -> None:
    assert home.findings == []
    assert diagnose(home.settings, digests=True) == []


def test_nothing_is_written(home: Home) -> None:
    def state() -> set[tuple[str, int]]:
        return {(str(path), path.stat().st_mtime_ns) for path in home.files("**/*")}

    before = state()
    (home.place / "home" / "policy.toml").write_text("x")
    before |= {(str(path), path.stat().st_mtime_ns) for path in home.files("policy.toml")}
    assert home.findings
    assert state() == before


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(batch.doctor.diagnose, "check_tables", fails)
    home.files("tokens.json")[0].unlink()
    assert [finding.check for finding in home.findings] == ["settings", "tables"]
    assert "Input/output error" in home.findings[1].problem


def test_an_empty_place_is_not_healthy(home: Home) -> None:
    for name in ("tables", "models"):
        shutil.rmtree(home.place / "home" / name)
        found = [finding for finding in home.findings if finding.check == name]
        assert "is it mounted?" in found[0].problem
        shutil.copytree(home.place / "backup" / name, home.place / "home" / name)


def test_a_repair_that_fails_states_why() -> None:
    def fails() -> None:
        raise StorageFull("no space")

    assert repair_error(Finding("a", "b", "c", "d", fails)) == "no space"
    assert repair_error(Finding("a", "b", "c", "d", lambda: None)) is None
    assert repair_error(Finding("a", "b", "c", "d")) == "it needs a person"

"""Dead runs, and views that show what does not exist."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from archive.views.views import Views
from batch.doctor.finding import Finding
from tests.batch.doctor.conftest import Home
from tests.fixtures_local import put_rows, rows_of


def event(home: Home, minutes: float, **more: object) -> None:
    row = {"run_id": "r2", "event": 0, "state": "running", "event_at": datetime.now(UTC) - timedelta(minutes=minutes)}
    put_rows(home.tables, "runs", row | {"inference_key": home.key, "model_name": "blobs", "spec": "{}", **more})


def problem(home: Home, check: str = "views") -> str:
    (found,) = home.findings
    assert found.check == check
    return found.problem


def test_a_run_that_died_is_found_and_cancelled(home: Home) -> None:
    event(home, minutes=4)
    assert home.findings == []
    event(home, minutes=6, run_id="r3")
    (found,) = home.findings
    assert (found.check, found.subject) == ("runs", "r3")
    assert found.repair
    found.repair()
    assert home.findings == []
    assert [row["state"] for row in rows_of(home.tables, "runs") if row["run_id"] == "r2"] == ["running"]


def test_a_lost_publication_is_found(home: Home) -> None:
    views = Views(home.tables.url)
    current = views.current()
    assert current
    views.publish(current, after=1)
    first = home.files("tables/views/production/00000001.json")[0]
    first.unlink()
    assert "numbers [2]" in problem(home)
    first.write_bytes(b"{")
    assert "cannot read" in problem(home)


def republish(home: Home, **fields: object) -> list[Finding]:
    views = Views(home.tables.url)
    current = views.current()
    assert current
    views.publish(current.model_copy(update=fields), after=current.serial)
    return home.findings


def test_a_view_of_what_does_not_exist_is_found(home: Home) -> None:
    key = home.key
    (found,) = republish(home, run_id="r9")
    assert "run r9 is unknown" in found.problem
    (found,) = republish(home, run_id="r1", layers=("m" * 64,))
    assert "layer mmm" in found.problem
    for run_id in ("r1", None):
        (found,) = republish(home, layers=("l" * 64,), inference_key="other", run_id=run_id)
        assert "no results of its inference key other" in found.problem
    event(home, minutes=1)
    (found,) = republish(home, layers=(), inference_key=key, run_id="r2")
    assert "run r2 is running, not sealed" in found.problem


def test_a_sealed_run_that_was_started_again_is_no_finding(home: Home) -> None:
    event(home, minutes=1, run_id="r1", event=9)
    assert home.findings == []

"""Pages of models: versions, what served when, and the forms of the rollout."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from starlette.testclient import TestClient

from pages.context import Context
from pages.http_app import build_pages_app
from pages.routes.models import live_times
from serve.auth.guard import Access
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile
from serve.rollout import events
from serve.rollout.events import Event
from serve.rollout.operations import Operation, new_outcome
from serve.rollout.state import AliasState
from tests.fixtures_local import SMALL, publish_blobs

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def event(
    hours: int, kind: str, before: str | None, after: str, alias: str = "production"
) -> Event:
    operation = Operation.model_validate(
        {"kind": kind, "name": "m", "alias": alias, "version": after}
    )
    states = [
        None if version is None else AliasState(active=version) for version in (before, after)
    ]
    at = NOON + timedelta(hours=hours)
    return Event(at=at, outcome=new_outcome(operation), before=states[0], after=states[1])


def test_what_served_when_is_read_from_the_events() -> None:
    past = [
        event(4, "rollback", "2", "1"),
        event(3, "canary", "2", "2"),
        event(2, "promote", "7", "8", alias="trial"),
        event(1, "promote", "1", "2"),
        event(0, "follow", None, "1"),
    ]
    times = [
        (live.version, live.since.hour, live.until and live.until.hour, live.by)
        for live in live_times(past, "production")
    ]
    assert times == [("1", 16, None, "rollback"), ("2", 13, 16, "promote"), ("1", 12, 13, "follow")]
    assert live_times(past, "none") == []


def test_a_model_has_its_versions_history_and_forms(client: TestClient, context: Context) -> None:
    for version in ("1", "2"):
        publish_blobs(context.store, version, **SMALL)
    context.store.set_alias("blobs", "production", "1")
    operation = Operation(kind="promote", name="blobs", version="2")
    events.record(
        context.store, new_outcome(operation), AliasState(active="1"), AliasState(active="2")
    )
    assert 'href="/ui/models/blobs"' in client.get("/ui/models").text
    text = client.get("/ui/models/blobs").text
    assert "What served when" in text
    for kind in ("promote", "rollback", "canary", "shadow", "pin"):
        assert f'data-post="//v1/models/blobs/{kind}"' in text
    assert "no run of it has ended" in text
    assert "There is no earlier version." in text
    assert client.get("/ui/models/none").status_code == 404


def test_without_the_scope_admin_there_are_no_forms(context: Context) -> None:
    publish_blobs(context.store, "1", **SMALL)
    context.store.set_alias("blobs", "production", "1")
    file = TokenFile.of(context.settings)
    headers = {"Authorization": f"Bearer {file.add('anna', [TokenScope.detect])}"}
    client = TestClient(build_pages_app(context, Access("", file)), root_path="/ui")
    assert client.get("/ui/models/blobs").status_code != 200
    for path in ("/ui/models/blobs", "/ui/runs"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, "data-post" in answer.text) == (200, False)

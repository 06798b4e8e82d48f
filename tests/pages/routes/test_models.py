"""Pages of models: versions, what served when, and the forms of the rollout."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
from starlette.testclient import TestClient

from archive.schemas import MEDIA
from pages.context import Context
from pages.http_app import build_pages_app
from pages.routes.models import live_times
from serve.auth.guard import Access
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile
from serve.rollout import operations
from serve.rollout.operations import Operation, RolloutEvent, new_outcome
from serve.rollout.state import AliasState, Share, update_state
from tests.cli.ran import ran
from tests.fixtures_local import SMALL, added_files, publish_blobs
from tests.model_store.classifiers import PLAIN
from tests.model_store.embedders import LOOKS, looks
from tests.pages.routes.test_cameras import rows_of_page

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def event(hours: int, kind: str, before: str | None, after: str, alias: str = "production") -> RolloutEvent:
    operation = Operation.model_validate({"kind": kind, "name": "m", "alias": alias, "version": after})
    states = [None if version is None else AliasState(active=version) for version in (before, after)]
    at = NOON + timedelta(hours=hours)
    return RolloutEvent(at=at, outcome=new_outcome(operation), before=states[0], after=states[1])


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
    operations.record(context.store, new_outcome(operation), AliasState(active="1"), AliasState(active="2"))
    operation = Operation(kind="shadow", name="blobs", version="2", percent=12.5)
    operations.record(context.store, new_outcome(operation), AliasState(active="2"), AliasState(active="2"))
    assert 'href="/ui/models/blobs"' in client.get("/ui/models").text
    text = client.get("/ui/models/blobs").text
    assert "What served when" in text
    assert [row[5] for row in rows_of_page(text) if row[3:4] == ["done"]] == ["12.5 %", "1 → 2"]
    assert "<td>12,5 %</td>" in client.get("/ui/models/blobs", headers={"accept-language": "de"}).text
    for kind in ("shadow", "pin"):
        assert f'data-post="//v1/models/blobs/{kind}"' in text
    for kind in ("promote", "canary"):
        assert f'name="do" value="{kind}"' in text
    assert "no run of it has ended" in text
    assert "There is no earlier version." in text
    assert client.get("/ui/models/none").status_code == 404
    assert "<h1>blobs</h1>" in client.get("/ui/models/blobs@1").text
    context.store.publish(LOOKS, added_files(looks(), PLAIN))
    assert "<td>embedder</td>" in client.get("/ui/models/looks").text


def test_the_impact_is_shown_before_an_alias_moves(client: TestClient, context: Context) -> None:
    tables, store = context.tables, context.store
    for version, side_px in (("1", 64), ("2", 96)):
        preprocess = {"resize": "stretch", "side_px": side_px}
        publish_blobs(store, version, preprocess=preprocess, thresholds={"default": 0.5})
    media = [{"media_sha256": sha, "source_root": "/r", "path": f"{sha}.jpg"} for sha in "ab"]
    tables.append("media", pa.Table.from_pylist(media, schema=MEDIA), "w", lambda _, rows: rows)
    ran(tables, store, "old", "1", "running", "sealed")
    store.set_alias("blobs", "production", "1")
    unknown = client.get("/ui/models/blobs/change?do=promote&version=2").text
    assert "What would change is unknown" in unknown
    assert 'href="/ui/runs?model=blobs%402"' in unknown
    form = client.get("/ui/runs?model=blobs%402").text
    assert '<option value="blobs@2" selected>blobs@2</option>' in form
    ran(tables, store, "new", "2", "running", "sealed", scores=())
    text = client.get("/ui/models/blobs/change?do=promote&version=2").text
    assert "Let version 2 answer in place of 1" in text
    assert "over all 2 images that have results" in text
    assert "detections 2 → 0" in text
    assert "/ui/v1/images/a/crop?" in text
    assert 'data-post="//v1/models/blobs/promote"' in text
    assert 'data-then="/models/blobs?changed=production"' in text
    assert 'name="version" value="2"' in text
    canary = client.get("/ui/models/blobs/change?do=canary&version=2&percent=12.5").text
    assert 'data-post="//v1/models/blobs/canary"' in canary
    assert 'name="percent" value="12.5" data-kind="number"' in canary
    for query, status in (
        ("do=rollback", 400),
        ("do=promote&version=3", 404),
        ("do=promote&version=2&alias=none", 404),
        ("do=delete&version=2", 400),
    ):
        assert client.get(f"/ui/models/blobs/change?{query}").status_code == status, query


def test_the_way_back_is_next_to_what_was_changed(client: TestClient, context: Context) -> None:
    for version in ("1", "2"):
        publish_blobs(context.store, version, **SMALL)
    context.store.set_alias("blobs", "production", "2")
    now = AliasState(active="2", previous=("1",), canary=Share(version="1", percent=5))
    update_state(context.store, "blobs", lambda state: state.with_alias("production", now))
    text = client.get("/ui/models/blobs?changed=production").text
    assert "Done: version 2 answers now." in text
    assert "Go back to version 1 …" in text
    assert "End the canary" in text
    assert 'name="percent" value="0" data-kind="number"' in text
    back = client.get("/ui/models/blobs/change?do=rollback").text
    assert "Let version 1 answer in place of 2" in back
    assert 'data-post="//v1/models/blobs/rollback"' in back
    assert 'name="version" value="1"' in back


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

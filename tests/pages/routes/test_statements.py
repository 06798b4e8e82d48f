"""POST and GET /ui/v1/assertions: statements and selections, undo and redo, history."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

import pages.routes.images
import pages.routes.statements
from archive.annotations.assertions import human_assertions
from archive.annotations.batches import decided_by_others
from archive.delta.tables import Tables
from archive.views.image_index import ImageIndex
from archive.views.publications import view_named
from archive.views.views import Views
from pages.context import Context
from pages.http_app import build_pages_app
from serve.auth.guard import Access
from tests.archive.annotations.two_images import EMPTY, KEY, A, B, key_of, named, put_images, record
from tests.fixtures_local import rows_of

PATH = "/ui/v1/assertions"
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _images(index_on_demand: None, tables: Tables) -> None:
    put_images(tables)


def post(client: TestClient, body: Json, path: str = "") -> Json:
    answer = client.post(PATH + path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refused(client: TestClient, body: Json, path: str = "") -> tuple[int, str]:
    answer = client.post(PATH + path, json=body)
    return answer.status_code, str(answer.json()["detail"])


def statement(**more: Any) -> Json:
    return {"action": "keep", "media_sha256": A, "inference_key": KEY, "rank": 0} | more


def selection(number: int, chosen: Json, **more: Any) -> Json:
    return {"batch_id": key_of(number), "selection": chosen} | more


def stand(tables: Tables) -> list[tuple[str, str | None]]:
    rows = human_assertions(tables).to_pylist()
    return sorted((row["media_sha256"][0], row["label"]) for row in rows)


def test_a_statement_is_recorded_undone_and_repeated(client: TestClient, tables: Tables) -> None:
    body = {"batch_id": key_of(1), "statements": [statement(), statement(rank=1)]}
    answer = {"batch_id": key_of(1), "added": 2, "changed_meanwhile": [], "kept": 0, "left": 0}
    answer |= {"by": []}
    assert post(client, body) == post(client, body) == answer
    assert {row["actor"] for row in rows_of(tables, "assertions")} == {"local"}
    assert stand(tables) == [("a", "boar"), ("a", "fox")]
    assert post(client, {"batch_id": key_of(2), "of": key_of(1)}, "/undo")["added"] == 2
    assert stand(tables) == []
    assert post(client, {"batch_id": key_of(3), "of": key_of(1)}, "/redo")["added"] == 2
    assert stand(tables) == [("a", "boar"), ("a", "fox")]
    history = client.get(PATH, params={"media": A}).json()
    assert [batch["batch_id"] for batch in history["batches"]] == [key_of(n) for n in (3, 2, 1)]
    assert history["batches"][1]["of_batch"] == key_of(1)
    first = client.get(PATH, params={"actor": "local", "limit": 1}).json()
    rest = client.get(PATH, params={"actor": "local", "before": first["before"]}).json()
    assert [batch["batch_id"] for batch in rest["batches"]] == [key_of(2), key_of(1)]


def test_an_invalid_batch_is_refused_with_its_reason(client: TestClient, tables: Tables) -> None:
    for body, message in (
        ({"statements": [statement()]}, "batch_id"),
        ({"batch_id": "x", "statements": [statement()]}, "batch_id"),
        ({"batch_id": key_of(1)}, "either statements or a selection"),
        ({"batch_id": key_of(1), "statements": [statement()], "dry_run": True}, "dry_run needs"),
        ({"batch_id": key_of(1), "statements": [statement(rank=5)]}, "statement 1: the image has"),
        ({"batch_id": key_of(1), "statements": [statement(actor="x")]}, "actor"),
        (selection(1, {"filter": {}, "action": "keep", "count": 3}), "with a condition"),
        (selection(1, {"filter": {"view": "v"}, "action": "keep", "count": 3}), "with a condition"),
        (selection(1, {"action": "keep", "count": 3}), "either a filter or digests"),
        (selection(1, {"digests": [A], "action": "keep"}), "needs `count`"),
        (selection(1, {"digests": [A], "action": "relabel", "count": 1}), "relabel needs a label"),
        (selection(1, {"digests": ["x"], "action": "keep", "count": 1}), "should match pattern"),
    ):
        status, detail = refused(client, body)
        assert status == 400
        assert message in detail
    assert not rows_of(tables, "assertions")


def test_an_unknown_batch_cannot_be_undone(client: TestClient) -> None:
    body = {"batch_id": key_of(1), "of": key_of(2)}
    for path in ("/undo", "/redo"):
        assert refused(client, body, path) == (400, f"unknown batch {key_of(2)}: it was never recorded")
    assert client.get(PATH, params={"before": "x"}).status_code == 400
    assert client.get(PATH, params={"after": "x"}).status_code == 400


def test_a_selection_is_counted_confirmed_and_recorded_once(client: TestClient, tables: Tables) -> None:
    chosen = {"filter": {"status": "ok"}, "action": "relabel", "label": "dog"}
    counted = post(client, selection(1, chosen, dry_run=True))
    assert (counted["count"], counted["decided"], counted["by"]) == (2, 0, [])
    assert counted["index_version"]
    del counted["decided"], counted["by"]
    status, detail = refused(client, selection(1, chosen | {"count": 3}))
    assert (status, detail.split(",")[0]) == (409, "2 images match now")
    assert not rows_of(tables, "assertions")
    body = selection(1, chosen | counted)
    assert post(client, body)["added"] == 4
    assert stand(tables) == [("a", "dog"), ("a", "dog"), ("b", "dog"), ("b", "dog")]
    again = selection(1, chosen | counted | {"filter": {"status": "missing"}})
    assert post(client, again)["added"] == 4, "known, although other images match now"
    only_b = {"filter": {"status": "ok"}, "excluded": [A], "action": "suppress", "count": 1}
    assert post(client, selection(2, only_b))["added"] == 1
    post(client, {"batch_id": key_of(3), "of": key_of(1)}, "/undo")
    assert stand(tables) == [("b", None)]


@pytest.mark.parametrize("images", [{"filter": {"status": "ok"}}, {"digests": [A, B]}])
def test_a_selection_of_what_an_earlier_publication_showed_is_refused(
    client: TestClient, tables: Tables, monkeypatch: pytest.MonkeyPatch, images: Json
) -> None:
    """Also while the index, from which the person chose, has not followed the publication."""
    counted = client.get("/ui/v1/images/count", params={"status": "ok"}).json()
    chosen = images | {"action": "keep", "count": 2, "index_version": counted["index_version"]}
    monkeypatch.setattr(ImageIndex, "refresh", lambda *_: False)
    first = view_named(tables, "production")
    Views(tables.url).publish(first.model_copy(update={"threshold": 0.5}), after=first.serial)
    status, detail = refused(client, selection(1, chosen))
    assert (status, detail.split(":")[0]) == (409, "other results were published since")
    assert not rows_of(tables, "assertions")


def test_a_selection_by_digests_is_counted_like_a_filter(client: TestClient, tables: Tables) -> None:
    chosen = {"digests": [A, B, B, EMPTY], "excluded": [A], "action": "keep", "count": 2}
    assert post(client, selection(1, chosen))["added"] == 3
    assert stand(tables) == [("b", "boar"), ("b", "fox"), ("e", None)]


def test_a_selection_leaves_what_others_have_decided(client: TestClient, tables: Tables) -> None:
    record(tables, key_of(8), [named("relabel", rank=1, label="wolf")], "lee")
    post(client, {"batch_id": key_of(7), "statements": [statement(media_sha256=B)]})
    burst = {"digests": [A, B], "action": "suppress", "count": 2}
    counted = post(client, selection(1, burst, dry_run=True))
    assert (counted["count"], counted["decided"], counted["by"]) == (2, 1, ["lee"])
    answer = post(client, selection(1, burst))
    assert (answer["added"], answer["left"], answer["by"]) == (1, 1, ["lee"])
    assert stand(tables) == [("a", "wolf"), ("b", None)], "their own statement is replaced"
    record(tables, key_of(9), [named("keep", image=B)], "lee")
    assert post(client, selection(1, burst)) == answer, "sent again, after lee disagreed"
    assert post(client, selection(2, burst | {"replaces": True}))["added"] == 2
    assert stand(tables) == [("a", None), ("b", None)]


def test_a_selection_of_what_nobody_reviewed_leaves_what_the_sender_just_decided(
    client: TestClient, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = pa.table({"media_sha256": [A, B]})
    monkeypatch.setattr(ImageIndex, "select", lambda *_: late)
    chosen = {"filter": {"reviewed": False, "status": "ok"}, "action": "suppress", "count": 2}
    record(tables, key_of(9), [named("relabel", label="wolf")], "local")
    assert post(client, selection(1, chosen, dry_run=True))["by"] == ["local"]
    answer = post(client, selection(1, chosen))
    assert (answer["added"], answer["left"], answer["by"]) == (1, 1, ["local"])
    assert post(client, selection(1, chosen)) == answer
    assert stand(tables) == [("a", "wolf"), ("b", None)]


@pytest.mark.parametrize(
    ("images", "person"), [({"digests": [A, B, EMPTY]}, "ana"), ({"filter": {"reviewed": False}}, "local")]
)
def test_what_is_decided_while_a_selection_is_read_is_left_too(
    client: TestClient, tables: Tables, monkeypatch: pytest.MonkeyPatch, images: dict[str, Any], person: str
) -> None:
    """In a selection of images that nobody reviewed, this includes decisions of the sender."""

    def decided(*arguments: Any) -> dict[str, set[str]]:
        before = decided_by_others(*arguments)
        record(tables, key_of(9), [named("relabel", image=B, label="wolf")], person)
        return before

    record(tables, key_of(8), [named()], "lee")
    monkeypatch.setattr(pages.routes.statements, "decided_by_others", decided)
    monkeypatch.setattr(ImageIndex, "select", lambda *_: pa.table({"media_sha256": [A, B, EMPTY]}))
    body = selection(1, images | {"action": "keep", "count": 3})
    answer = post(client, body)
    assert (answer["added"], answer["left"], answer["by"]) == (1, 2, sorted([person, "lee"]))
    assert post(client, body) == answer
    assert stand(tables) == [("a", "fox"), ("b", "wolf"), ("e", None)]


def test_what_another_person_decided_is_not_recorded_under_this_name(client: TestClient, tables: Tables) -> None:
    body = {"batch_id": key_of(1), "sender": "ana", "statements": [statement()]}
    status, detail = refused(client, body)
    assert (status, detail) == (403, "ana decided this, and you are local: sign in as ana")
    assert not rows_of(tables, "assertions")
    assert post(client, body | {"sender": "local"})["added"] == 1
    undo = {"batch_id": key_of(2), "sender": "ana", "of": key_of(1)}
    for path in ("/undo", "/redo"):
        assert refused(client, undo, path)[0] == 403
    assert stand(tables) == [("a", "fox")]


async def test_a_statement_is_acknowledged_while_details_hang(
    context: Context, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def hangs(*_: Any) -> dict[str, Any]:
        assert go_on.wait(60)
        return {}

    monkeypatch.setattr(pages.routes.images, "_details", hangs)
    transport = httpx2.ASGITransport(build_pages_app(context, Access()), root_path="/ui")
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        paths = (f"/ui/v1/images/{A}", f"/ui/v1/images/{A}?view=v", f"/ui/images/{A}")
        reads = [asyncio.create_task(client.get(paths[n % 3])) for n in range(40)]
        await asyncio.sleep(0)
        body = {"batch_id": key_of(1), "statements": [statement()]}
        answer = await asyncio.wait_for(client.post(PATH, json=body), 60)
        whole = selection(2, {"digests": [B], "action": "keep", "count": 1})
        selected = await asyncio.wait_for(client.post(PATH, json=whole), 60)
        assert not any(read.done() for read in reads)
        go_on.set()
        assert {(await read).status_code for read in reads} == {404}
    assert (answer.json()["added"], selected.json()["added"]) == (1, 2)


def test_a_large_selection_needs_its_number_typed(
    client: TestClient, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.routes.statements, "MAX_UNCONFIRMED", 1)
    chosen = {"digests": [A, B], "action": "suppress", "count": 2}
    status, detail = refused(client, selection(1, chosen))
    assert (status, "`confirmed_count`" in detail) == (400, True)
    assert post(client, selection(1, chosen | {"confirmed_count": 2}))["added"] == 2


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post(PATH, content=b'{"batch_id": "' + b"0" * 3 * 1024 * 1024)
    assert answer.status_code == 413
    assert "over the limit of 2048 KiB" in answer.json()["detail"]

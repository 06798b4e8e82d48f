"""The index of a view without a file: built in the background, while requests are answered with 503."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from archive.delta.tables import Tables
from archive.views import image_index
from archive.views.image_filter import ImageFilter
from model_store.errors import BadRequest, StorageFull
from pages.context import Context
from tests.pages.routes.test_cameras import put_images


@pytest.fixture
def reached() -> threading.Event:
    return threading.Event()


@pytest.fixture
def gate(tables: Tables, reached: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The third step of each build sets `reached` and waits for this event."""
    put_images(tables, ("north", "2026-05-01T00:00:00"))
    gate, updated = threading.Event(), cast(Callable[..., Any], image_index.updated)

    def slow(*arguments: Any) -> Any:
        *others, on_step = arguments

        def at_step(step: int, of_all: int) -> None:
            on_step(step, of_all)
            if step == 3:
                reached.set()
                assert gate.wait(60)

        return updated(*others, at_step)

    monkeypatch.setattr(image_index, "updated", slow)
    yield gate
    gate.set()


def test_requests_are_told_to_come_again_until_the_index_is_built(
    client: TestClient,
    context: Context,
    gate: threading.Event,
    reached: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pages.context.WAIT_S", 0.0)
        answer = client.get("/ui/v1/images")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "urn:resight:index-not-ready"
        page = client.get("/ui/images")
        assert (page.status_code, page.headers["retry-after"]) == (503, "1")
        assert "waits.js" in page.text
        assert "The index of the images is being built" in page.text
    assert reached.wait(60)
    step, of_all = context.follower.building() or (0, 0)
    assert step == 3 < of_all
    gate.set()
    context.follower._builds["production"].result(60)
    assert context.follower.building() is None, "also if nobody requests the view again"
    assert client.get("/ui/v1/images").json()["columns"]["camera_id"] == ["north"]
    assert context.follower.building() is None


def test_errors_of_the_build_reach_the_request(
    context: Context, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_images(tables, ("north", "2026-05-01T00:00:00"))
    with pytest.raises(BadRequest, match="unknown view 'x'|'x'"):
        context.index.count(ImageFilter(view="x"))
    with monkeypatch.context() as patch:

        def full(*_: Any) -> None:
            raise StorageFull("no space")

        patch.setattr(image_index, "updated", full)
        with pytest.raises(StorageFull):
            context.index.count(ImageFilter())
    assert context.index.count(ImageFilter()) == 1, "the next request builds it again"


def test_a_view_is_followed_while_its_rows_are_read(client: TestClient, context: Context, tables: Tables) -> None:
    put_images(tables, ("north", "2026-05-01T00:00:00"))
    assert context.index.on_read == context.follower.used
    for path in ("", "/count", "/histogram", "/uncertain"):
        context.index.on_read = (read := list[str]()).append
        assert client.get(f"/ui/v1/images{path}").status_code == 200
        assert set(read) == {"production"}, path

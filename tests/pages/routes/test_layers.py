"""Layers and filters: forms of every kind, previews and switches, as pages and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

import pages.routes.layers
from archive.annotations.layers import read_layers
from archive.delta.tables import Tables
from archive.views.views import Views
from batch.filters.prepare import prepare
from batch.filters.registry import FILTERS
from batch.filters.run import execute, here
from pages.context import Context
from pages.http_app import build_pages_app
from tests.batch.filters.scene import box, publish, put, sha, shown
from tests.pages.conftest import lasting_page
from tests.support.html_form import Page
from tests.support.left_clients import answer_after_one_has_left

HOSTILE = '"><script>alert(1)</script>'
INVALID = {
    "duplicates": ("iou", "2"),
    "small-size": ("min_side_px", "-1"),
    "score-threshold": ("almost", "much"),
    "repeat-detections": ("accepted", "slot-1"),
    "class-mask": ("emit", "some"),
    "rank-rollup": ("lineage", "none"),
    "events": ("gap_s", ""),
    "smoothing": ("max_rare", "0"),
    "tracking": ("max_cost", "9"),
    "fixed-slots": ("min_sightings", "1.5"),
}


def fill(tables: Tables) -> Tables:
    """Add the camera north with a large and a small box; another camera and a label are hostile."""
    tables.snapshot("media")
    large, small = box(0, 10, 10, 200.0, HOSTILE), box(1, 500, 500, 20.0, "fox", 0.5)
    put(tables, {1: ("north", 0.0, [large, small]), 2: (HOSTILE, 5.0, [box(0, 1, 1, 20.0)])})
    publish(tables)
    return tables


@pytest.fixture
def archive(tables: Tables) -> Tables:
    return fill(tables)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Tables]]:
    """A page over such an archive, for tests that change nothing."""
    with lasting_page(tmp_path_factory.mktemp("layers")) as (context, client):
        yield client, fill(context.tables)


def test_every_field_of_every_filter_has_a_control_with_its_help(lasting: tuple[TestClient, Tables]) -> None:
    """tests/browser/test_forms.py sends them."""
    client, _ = lasting
    for kind, entry in FILTERS.items():
        page = Page(client.get(f"/ui/filters/{kind}").text)
        for name in entry.config.model_fields.keys() - {"kind"}:
            assert page.named(f"config.{name}"), (kind, name)
            assert page.with_id(f"f-{name}-help")[2], (kind, name)


def test_an_invalid_field_of_a_filter_has_its_error(lasting: tuple[TestClient, Tables]) -> None:
    client, _ = lasting
    for kind, (field, text) in INVALID.items():
        answer = client.post(f"/ui/v1/filters/{kind}/preview", json={"config": {field: text}})
        assert answer.status_code == 400
        (name,) = answer.json()["errors"]
        assert name.startswith(f"config.{field}")
    for kind in FILTERS:
        unknown = client.post(f"/ui/v1/filters/{kind}/preview", json={"config": {"colour": "red"}})
        assert list(unknown.json()["errors"]) == ["config.colour"]


def test_a_preview_shows_what_the_run_would_change(lasting: tuple[TestClient, Tables]) -> None:
    client, _ = lasting
    answer = client.post("/ui/v1/filters/small-size/preview", json={}).json()
    assert (answer["report"]["images"], answer["report"]["tally"]["added"]) == (2, 2)
    assert [example["media_sha256"] for example in answer["examples"]] == [sha(1), sha(2)]
    first = answer["examples"][0]
    assert (first["label"], first["score"], first["action"]) == ("fox", 0.5, "suppress")
    assert first["box_px"] == [500.0, 500.0, 520.0, 520.0]
    events = client.post("/ui/v1/filters/events/preview", json={}).json()
    assert events["examples"][0]["box_px"] is None, "of a whole image"


def test_a_preview_is_of_the_layer_of_its_run_and_writes_nothing(lasting: tuple[TestClient, Tables]) -> None:
    client, archive = lasting
    body = {"config": {"min_area_frac": "0.01"}}
    answer = client.post("/ui/v1/filters/small-size/preview", json=body).json()
    spec = prepare(archive, "small-size", body["config"])
    assert answer["layer_id"] == spec.layer().layer_id
    assert read_layers(archive) == {}


@pytest.mark.usefixtures("archive")
async def test_more_previews_than_places_are_refused_also_if_a_client_has_left(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.routes.layers, "MAX_PREVIEWS", 1)
    work, request = (pages.routes.layers, "preview"), ("POST", "/ui/v1/filters/events/preview")
    answer = await answer_after_one_has_left(monkeypatch, work, build_pages_app(context), "/ui", *request, json={})
    assert answer.status_code == 429


@pytest.mark.usefixtures("index_on_demand")
def test_layers_are_switched_on_and_off(client: TestClient, archive: Tables) -> None:
    spec = prepare(archive, "small-size", {})
    execute(spec, archive, here)
    (layer,) = read_layers(archive)
    (row,) = client.get("/ui/v1/layers").json()["layers"]
    assert row == {"layer_id": layer, "kind": "small-size", "position": None, "assertions": 2, "settings": {}}
    (field,) = Page(client.get("/ui/layers").text).named("is_on")
    assert field["value"] == "True"
    assert len(shown(archive)) == 3
    path = f"/ui/v1/layers/{layer}"
    answer = client.put(path, json={"is_on": "True", "reason": "small"})
    assert answer.json()["layers"][0]["position"] == 1
    assert len(shown(archive)) == 1
    assert "Switch off" in client.get("/ui/layers").text
    assert client.put(path, json={"is_on": False}).status_code == 200
    view = Views(archive.url).current()
    assert (view and view.layers, len(shown(archive))) == ((), 3)
    again = client.put(path, json={"is_on": False})
    assert again.status_code == 400
    assert "does not show small-size" in again.json()["detail"]
    refilled = Page(client.get(f"/ui/filters/small-size?layer={layer}").text)
    assert ("config.min_area_frac", "0.0008") in refilled.sent


def test_an_unknown_layer_or_kind_is_an_error(lasting: tuple[TestClient, Tables]) -> None:
    client, _ = lasting
    assert client.get(f"/ui/filters/small-size?layer={'a' * 64}").status_code == 404
    assert client.put("/ui/v1/layers/a", json={"is_on": "up"}).status_code == 400
    assert client.get("/ui/filters/no-such-kind").status_code == 400
    assert client.post("/ui/v1/filters/no-such-kind/preview", json={}).status_code == 400


def test_hostile_names_are_text(lasting: tuple[TestClient, Tables]) -> None:
    client, _ = lasting
    for path in ("/ui/layers", "/ui/filters/smoothing"):
        assert "<script>alert" not in client.get(path).text
    labels = [each.get("value") for each in Page(client.get("/ui/filters/smoothing").text).named("config.other_labels")]
    assert HOSTILE in labels

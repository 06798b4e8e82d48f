"""Layers and filters on the page: forms of every kind, previews, runs, and switches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from archive.annotations.layers import layer_id, read_layers
from archive.delta.tables import Tables
from archive.views.views import Views
from batch.filters.registry import FILTERS
from batch.filters.run import execute, here
from batch.filters.spec import FilterSpec
from batch.filters.submitted import read_spec
from pages.context import Context
from pages.forms import submitted
from tests.batch.filters.scene import box, publish, put, sha, shown
from tests.support.html_form import Page
from tests.support.jobs import FakeJobs

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


@pytest.fixture
def started() -> list[FilterSpec]:
    return []


@pytest.fixture
def context(context: Context, started: list[FilterSpec]) -> Context:
    """Runs end before the request that starts them."""
    tables = context.tables

    class Jobs(FakeJobs):
        def submit(self, module: str, run_id: str, words: Sequence[str], followed: bool) -> str:
            started.append(read_spec(tables.url, run_id))
            execute(started[-1], tables, here)
            return super().submit(module, run_id, words, followed)

    return replace(context, jobs=Jobs)


@pytest.fixture
def archive(tables: Tables) -> Tables:
    """Camera north has a large and a small box; another camera and a label are hostile."""
    tables.snapshot("media")
    large, small = box(0, 10, 10, 200.0, HOSTILE), box(1, 500, 500, 20.0, "fox", 0.5)
    put(tables, {1: ("north", 0.0, [large, small]), 2: (HOSTILE, 5.0, [box(0, 1, 1, 20.0)])})
    publish(tables)
    return tables


def post(client: TestClient, path: str, pairs: Sequence[tuple[str, str]]) -> Any:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return client.post(path, content=urlencode(pairs), headers=headers, follow_redirects=False)


@pytest.mark.parametrize("kind", FILTERS)
def test_the_defaults_of_every_filter_come_back_as_one_layer(client: TestClient, kind: str) -> None:
    page = Page(client.get(f"/ui/filters/{kind}").text)
    config = FILTERS[kind].config
    sent = submitted(config, [pair for pair in page.sent if not pair[0].startswith("_")])
    assert sent.errors == {}
    assert config.model_validate(sent.values) == config()
    for name in config.model_fields:
        if name != "kind":
            assert page.with_id(f"f-{name}-help")[2], name


@pytest.mark.parametrize("kind", FILTERS)
def test_an_invalid_field_of_every_filter_has_its_error(client: TestClient, kind: str) -> None:
    field, text = INVALID[kind]
    form = [pair for pair in Page(client.get(f"/ui/filters/{kind}").text).sent if pair[0] != field]
    answer = post(client, f"/ui/filters/{kind}", [*form, (field, text)])
    assert answer.status_code == 400
    page = Page(answer.text)
    error = f"f-{field}-error"
    assert page.with_id(error)[2]
    wrong = [attributes for _, attributes, _ in page.elements if "aria-invalid" in attributes]
    assert {tuple(attributes["aria-describedby"].split()) for attributes in wrong} == {
        (f"f-{field}-help", error)
    }


def form_of(client: TestClient, kind: str = "small-size", **changed: str) -> list[tuple[str, str]]:
    sent = Page(client.get(f"/ui/filters/{kind}").text).sent
    return [(name, changed.pop(name, text)) for name, text in sent]


def test_a_run_starts_only_from_a_preview_of_the_same_settings(
    client: TestClient, started: list[FilterSpec], archive: Tables
) -> None:
    form = [*form_of(client), ("_run", "1")]
    first = post(client, "/ui/filters/small-size", form)
    assert (first.status_code, started) == (200, []), "the form has no preview yet"
    assert read_layers(archive) == {}
    page = Page(first.text)
    changed = [(name, "0.01" if name == "min_area_frac" else text) for name, text in page.sent]
    other = post(client, "/ui/filters/small-size", [*changed, ("_run", "1")])
    assert (other.status_code, started) == (200, []), "other settings than those of the preview"
    done = post(client, "/ui/filters/small-size", [*page.sent, ("_run", "1")])
    assert done.status_code == 303
    (spec,) = started
    assert f"run={spec.run_id}" in done.headers["location"]
    assert spec.run_id in client.get(done.headers["location"]).text
    defaults = FILTERS["small-size"].config().model_dump(mode="json")
    assert spec.layer().layer_id == layer_id(
        "small-size", FILTERS["small-size"].version, defaults, ()
    )


@pytest.mark.usefixtures("archive")
def test_a_preview_shows_what_the_run_would_change(client: TestClient) -> None:
    text = post(client, "/ui/filters/small-size", form_of(client)).text
    page = Page(text)
    numbers = [
        texts for tag, attributes, texts in page.elements if attributes.get("class") == "number"
    ]
    assert ["".join(texts) for texts in numbers] == ["2", "3", "2", "2", "0", "0", "2", "0"]
    sources = [
        attributes["src"]
        for tag, attributes, _ in page.elements
        if "/crop?" in attributes.get("src", "")
    ]
    assert sources == [
        f"/ui/v1/images/{sha(1)}/crop?x1=500.0&y1=500.0&x2=520.0&y2=520.0&w=224",
        f"/ui/v1/images/{sha(2)}/crop?x1=1.0&y1=1.0&x2=21.0&y2=21.0&w=224",
    ]
    assert "fox 0.50 → hidden" in " ".join(text.split())
    assert "<script>alert" not in text
    events = post(client, "/ui/filters/events", form_of(client, "events")).text
    assert f'src="/ui/v1/images/{sha(1)}/thumbnail?w=320"' in events, "of a whole image"


@pytest.mark.usefixtures("archive")
def test_a_camera_narrows_a_preview_and_an_unknown_one_is_an_error(client: TestClient) -> None:
    north = post(client, "/ui/filters/small-size", form_of(client, _camera="north"))
    assert f"/images/{sha(1)}" in north.text
    assert f"/images/{sha(2)}" not in north.text
    unknown = post(client, "/ui/filters/small-size", form_of(client, _camera="nort"))
    assert unknown.status_code == 400
    assert "did you mean &#39;north&#39;?" in unknown.text


def test_layers_are_switched_on_and_off(client: TestClient, archive: Tables) -> None:
    page = Page(post(client, "/ui/filters/small-size", form_of(client)).text)
    post(client, "/ui/filters/small-size", [*page.sent, ("_run", "1")])
    (layer,) = read_layers(archive)
    assert "Switch on" in client.get("/ui/layers").text
    assert len(shown(archive)) == 3
    assert post(client, "/ui/layers", [("layer", layer), ("to", "on")]).status_code == 303
    assert len(shown(archive)) == 1
    assert "Switch off" in client.get("/ui/layers").text
    assert post(client, "/ui/layers", [("layer", layer), ("to", "off")]).status_code == 303
    view = Views(archive.url).current()
    assert (view and view.layers, len(shown(archive))) == ((), 3)
    again = post(client, "/ui/layers", [("layer", layer), ("to", "off")])
    assert again.status_code == 400
    assert "does not show small-size" in again.text
    refilled = Page(client.get(f"/ui/filters/small-size?layer={layer}").text)
    assert ("min_area_frac", "0.0008") in refilled.sent


def test_an_unknown_layer_or_button_is_an_error(client: TestClient) -> None:
    assert client.get(f"/ui/filters/small-size?layer={'a' * 64}").status_code == 404
    assert post(client, "/ui/layers", [("layer", "a"), ("to", "up")]).status_code == 400
    assert client.get("/ui/filters/no-such-kind").status_code == 400
    assert client.post("/ui/layers", json={"layer": "a"}).status_code == 400


@pytest.mark.usefixtures("archive")
def test_hostile_names_are_text(client: TestClient) -> None:
    for path in ("/ui/layers", "/ui/filters/smoothing"):
        assert "<script>alert" not in client.get(path).text
    labels = [
        each["value"]
        for each in Page(client.get("/ui/filters/smoothing").text).named("other_labels")
    ]
    assert HOSTILE in labels

"""Pages of cameras and the map: tables, forms, and hidden coordinates."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import date, timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from archive.catalogue.deployments import Deployment, Location, record
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from pages.context import Context
from pages.http_app import build_pages_app
from serve.auth.guard import Access
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile
from tests.fixtures_local import put_results, result_rows

HOSTILE = ("<script>alert(1)</script>", """it's "quoted" & so""", "Füchse/Nord #1 ?x=&y", "{{ 7 * 7 }}", "ü" * 300)


def put_images(tables: Tables, *images: tuple[str | None, str | None], first: int = 0, **more: Any) -> None:
    rows = [
        {
            "media_sha256": f"{camera}{n}",
            "source_root": "/a",
            "path": f"{n}.jpg",
            "camera_id": camera,
            "captured_at_local": taken,
        }
        for n, (camera, taken) in enumerate(images, first)
    ]
    table = pa.Table.from_pylist([row | more for row in rows], schema=MEDIA)
    tables.append("media", table, "test", lambda _, wanted: wanted)


def put(tables: Tables, *facts: Any) -> list[str]:
    return record(tables, {str(n): fact for n, fact in enumerate(facts)}, "ana")[0]


def deployed(camera: str = "north", **more: Any) -> Deployment:
    values = {"camera_id": camera, "location": "Oak hill", "from_local": "2026-05-01", "until_local": "2026-05-05"}
    return Deployment.model_validate(values | more)


def rows_of_page(text: str) -> list[list[str]]:
    """Return the texts of the cells of each row of tables."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_pages_of_an_empty_archive_are_empty(client: TestClient) -> None:
    assert "No images yet" in client.get("/ui/cameras").text
    assert "No location has coordinates yet" in client.get("/ui/map").text
    assert client.get("/ui/cameras/north").status_code == 404


def test_the_table_counts_what_each_camera_took(client: TestClient, tables: Tables) -> None:
    taken = ("2026-05-01T09:30:00", "2026-05-01T10:00:00", "2026-05-05T01:00:00", None)
    put_images(tables, *(("north", time) for time in taken), (None, None))
    put(tables, deployed("new"))
    text = client.get("/ui/cameras").text
    assert rows_of_page(text)[1:] == [
        ["new", "0", "", "", "0", "", ""],
        ["north", "4", "2026-05-01", "2026-05-05 01:00", "3", "", ""],
    ]
    assert "Images without a camera: 1" in text
    assert 'href="/ui/images?camera=north"' in text


@pytest.mark.parametrize("zone", ["EAST-14", "WEST12"])
def test_today_is_the_day_of_this_machine_as_in_reports(
    client: TestClient, tables: Tables, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        today = date.today()
        put_images(tables, ("north", f"{today - timedelta(days=9)}T09:30:00"))
        first = str(today - timedelta(days=10))
        for end, nights in ((today, 11), (today + timedelta(days=1), 2)):
            put(tables, deployed(from_local=first, until_local=f"{end}T00:01:00"))
            assert f"{nights} days deployed" in client.get("/ui/cameras/north").text
            assert f'<span class="number">{nights}</span><br>trap nights' in client.get("/ui/").text
    time.tzset()


def test_hostile_names_are_text(client: TestClient, tables: Tables) -> None:
    put_images(tables, *((name, "2026-05-02T09:30:00") for name in HOSTILE))
    put(tables, *(deployed(name, location=name, notes=name, latitude=1.0, longitude=2.0) for name in HOSTILE))
    cameras, *others = (client.get(path) for path in ("/ui/cameras", "/ui/map"))
    for name in HOSTILE:
        for answer in (cameras, *others, client.get(f"/ui/cameras/{quote(name, safe='')}")):
            assert answer.status_code == 200, answer.url
            assert name in unescape(answer.text)
            assert "<script>alert" not in answer.text
    links = re.findall(r'<th scope="row"><a href="([^"]*)"', cameras.text)
    assert {client.get(unescape(link)).status_code for link in links} == {200}
    assert len(links) == len(HOSTILE)


def test_forms_send_their_fields_to_the_routes_of_deployments(client: TestClient, tables: Tables) -> None:
    """test_deployments.py tests their requests and answers."""
    put_images(tables, ("north", "2026-05-02T09:30:00"))
    (name,) = put(tables, deployed(notes="<keep> me", clock_offset_s=60))
    put(tables, deployed(notes="other"))
    text = client.get("/ui/cameras/north").text
    assert "1 images" in text
    assert "clock corrected by 60 s" not in text
    assert 'value="other"' in text
    forms = re.findall(r'<form[^>]* data-post="([^"]*)"(?: data-method="(\w+)")?', text)
    assert forms == [
        (f"/v1/deployments/{name}", "PUT"),
        ("/v1/deployments", ""),
        ("/v1/deployment_changes/1/revert", "POST"),
        ("/v1/cameras/north", "PUT"),
    ]
    for sent in re.findall(r'<form class="fields".*?</form>', text, re.DOTALL)[:2]:
        names = set(re.findall(r' name="(\w+)"', sent))
        assert names == set(Deployment.model_fields) - {"deployment_id"}
    assert 'data-first="2026-05-02T09:30:00"' in text


def test_the_calendar_has_pictures_none_and_days_without_a_camera(client: TestClient, tables: Tables) -> None:
    put_images(tables, *[("north", "2026-05-02T09:30:00")] * 3, ("north", "2026-05-07T00:00:00"))
    put(tables, deployed())
    text = client.get("/ui/cameras/north").text
    (month,) = [row for row in rows_of_page(text) if row[0] == "2026-05"]
    assert month[1:9] == ["0", "3", "0", "0", "·", "·", "1", "·"]
    assert "4 days deployed, 3 without pictures" in text
    assert 'href="/ui/images?camera=north&amp;since=2026-05-02&amp;until=2026-05-02"' in text


@pytest.fixture
def reader(context: Context) -> Iterator[TestClient]:
    """A client with the scope detect only."""
    file = TokenFile.of(context.settings)
    file.add("boss", [TokenScope.admin])
    token = file.add("reader", [TokenScope.detect])
    app = build_pages_app(context, Access.of(context.settings))
    headers = {"authorization": f"Bearer {token}"}
    with TestClient(app, base_url="http://127.0.0.1:8000", root_path="/ui", headers=headers) as client:
        yield client


def test_exact_coordinates_and_changes_need_a_scope(reader: TestClient, tables: Tables) -> None:
    put(tables, Location(location="Oak hill", latitude=52.5168, longitude=-13.4449), deployed())
    put(tables, deployed("south", location="Mill", latitude=52.1234, longitude=13.5678))
    for path in ("map", "cameras/north", "cameras/south", "v1/locations", "v1/deployments", "v1/deployment_changes"):
        text = reader.get(f"/ui/{path}").text
        assert not re.search(r"(?<!\d:)(52\.51|13\.44|52\.12|13\.56)", text), path  # not the seconds of a time
    assert "52.5" in reader.get("/ui/map").text
    assert "exact ones require the scope review" in reader.get("/ui/map").text
    assert reader.put("/ui/v1/cameras/north", json={"camera_id": "north"}).status_code == 403
    assert "<form" not in reader.get("/ui/cameras/north").text


def test_the_map_is_beside_a_table(client: TestClient, tables: Tables) -> None:
    put_images(tables, ("north", "2026-05-02T09:30:00"))
    put(tables, deployed(latitude=52.5168, longitude=13.4449), deployed("south", location="Mill"))
    text = client.get("/ui/map").text
    assert rows_of_page(text)[1:] == [
        ["1. Mill", "", "", "0", "south"],
        ["2. Oak hill", "52.5168", "13.4449", "1", "north"],
    ]
    assert text.count("<circle") == 1
    assert 'aria-label="Oak hill: 1 images"' in text
    assert re.search(r"\d k?m</text>", text)


def test_shares_are_of_the_published_view(client: TestClient, tables: Tables) -> None:
    from archive.views.views import View, Views

    put_images(tables, *[("north", "2026-05-02T09:30:00")] * 4)
    put_results(tables, result_rows(["north0", "north1"]))
    put_results(tables, result_rows(["north2"], status="failed"))
    view = View(inference_key="k", model_name="m", model_version="1", weights_sha256="w")
    Views(tables.url).publish(view, after=0)
    assert rows_of_page(client.get("/ui/cameras").text)[1][-2:] == ["66.7%", "33.3%"]

"""Lists, counts, neighbours and details of images as JSON, and their pages, over a small archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import pages.routes.images
from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.views.image_detail import image_details
from archive.views.views import View, Views
from model_store.errors import StorageFull
from pages.context import Context
from tests.cli.ran import ran
from tests.fixtures_local import jpeg, publish_blobs, put_results, put_rows, result_rows, rows_of, write_files
from tests.pages.conftest import lasting_page

TAKEN = 0x9003
VIEW = View(inference_key="k", model_name="m", model_version="1", weights_sha256="w")
HOSTILE = "<script>alert(1)</script>"


def fill(tables: Tables, place: Path) -> list[str]:
    """Add five images and return their digests, newest first: of two cameras, the last without a time."""
    files = {
        f"{camera}/{n}.jpg": jpeg(detail={TAKEN: f"2026:05:0{n} 09:30:00"} if n else {}, shade=n)
        for n, camera in enumerate(("north", "north", HOSTILE.replace("/", "_"), "south", "north"))
    }
    ingest(tables, str(write_files(place / "archive", files)))
    media = sorted(rows_of(tables, "media"), key=lambda row: row["path"][-5], reverse=True)
    digests = [row["media_sha256"] for row in media]
    box = {"rank": 0, "label": HOSTILE, "class_id": 0, "score": 0.9}
    box |= {"x1_px": 4.0, "y1_px": 8.0, "x2_px": 24.0, "y2_px": 24.0}
    seen = result_rows(digests[:2], width_px=48, height_px=32, n_detections=1, detections=[box])
    put_results(tables, seen)
    put_results(tables, result_rows(digests[2:4], width_px=48, height_px=32))
    Views(tables.url).publish(VIEW, 0)
    return digests


@pytest.fixture
def archive(tables: Tables, tmp_path: Path) -> list[str]:
    return fill(tables, tmp_path)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, list[str]]]:
    """A page over such an archive, for tests that change nothing."""
    place = tmp_path_factory.mktemp("images")
    with lasting_page(place) as (context, client):
        yield client, fill(context.tables, place)


def test_pages_walk_the_list_in_both_directions(lasting: tuple[TestClient, list[str]]) -> None:
    client, archive = lasting
    first = client.get("/ui/v1/images?limit=2").json()
    assert first["columns"]["media_sha256"] == archive[:2]
    (box,) = first["columns"]["boxes"][0]
    assert (box.pop("label"), box.pop("is_human")) == (HOSTILE, False)
    assert box == pytest.approx({"x1": 4 / 48, "y1": 0.25, "x2": 0.5, "y2": 0.75})
    second = client.get(f"/ui/v1/images?limit=2&after={first['next']}").json()
    assert second["columns"]["media_sha256"] == archive[2:4]
    back = client.get(f"/ui/v1/images?limit=2&before={second['previous']}").json()
    assert back["columns"]["media_sha256"] == archive[:2]
    assert back["previous"] == ""
    day = client.get("/ui/v1/images?limit=1&at=2026-05-02").json()
    assert day["columns"]["captured_at_local"] == ["2026-05-02T09:30:00"]


def test_counts_bars_and_neighbours_agree_with_the_list(lasting: tuple[TestClient, list[str]]) -> None:
    client, archive = lasting
    counted = client.get("/ui/v1/images/count?status=ok").json()
    assert (counted["count"], counted["behind_s"]) == (2, 0.0)
    assert client.get("/ui/v1/images?limit=1").json()["index_version"] == counted["index_version"]
    bars = client.get("/ui/v1/images/histogram?by=status").json()
    assert {bar["value"]: bar["images"] for bar in bars} == {"ok": 2, "empty": 2, "missing": 1}
    assert client.get("/ui/v1/images/uncertain?camera=north&limit=1").json() == archive[:1]
    beside = client.get(f"/ui/v1/images/{archive[1]}/neighbours?camera=north").json()
    assert beside == {"previous": archive[0], "next": archive[3]}


def test_details_have_boxes_and_files(lasting: tuple[TestClient, list[str]]) -> None:
    client, archive = lasting
    detail = client.get(f"/ui/v1/images/{archive[0]}").json()
    assert [box["label"] for box in detail["boxes"]] == [HOSTILE]
    assert (detail["status"], detail["inference_key"]) == ("ok", "k")
    assert client.get(f"/ui/v1/images/{archive[0]}?view=none").status_code == 400
    assert client.get(f"/ui/v1/images/{archive[0]}?run=none").status_code == 400
    assert client.get("/ui/v1/images/" + "0" * 64).status_code == 404


def test_boxes_of_a_run_are_shown_from_the_thresholds_of_its_version(client: TestClient, context: Context) -> None:
    publish_blobs(context.store, "1", thresholds={"default": 0.5})
    put_rows(context.tables, "media", {"media_sha256": "a", "source_root": "/r", "path": "a.jpg"})
    ran(context.tables, context.store, "old", "1", "running", "sealed", scores=(0.4,))
    assert [box["is_shown"] for box in client.get("/ui/v1/images/a?run=old").json()["boxes"]] == [False]


def test_details_of_an_index_that_is_behind_or_cannot_be_written_are_those_of_the_tables(
    client: TestClient, archive: list[str], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/ui/v1/images/{archive[0]}"
    before = client.get(path).json()
    read = list[list[str]]()

    def reads(tables: Tables, digests: list[str], view: View | None) -> object:
        read.append(list(digests))
        return image_details(tables, digests, view)

    monkeypatch.setattr(pages.routes.images, "image_details", reads)
    assert client.get(path).json() == before
    assert read == [], "the index has it"
    flag = {"action": "flag", "media_sha256": archive[0]}
    body = {"batch_id": "0" * 32, "statements": [flag]}
    monkeypatch.setattr(context.follower, "used", lambda *_, **__: None)
    monkeypatch.setattr(context.index, "on_read", None)
    assert client.post("/ui/v1/assertions", json=body).status_code == 200
    assert client.get(path).json()["flagged"]
    assert client.get(f"/ui/v1/images/{archive[1]}").json()["status"] == "ok"
    assert read == [[archive[0]]]

    def full(*_: object) -> None:
        raise StorageFull("no room")

    monkeypatch.setattr(context.index, "details", full)
    assert client.get(f"/ui/v1/images/{archive[1]}").json()["status"] == "ok"


def test_an_unknown_event_is_not_found(lasting: tuple[TestClient, list[str]]) -> None:
    client, _ = lasting
    assert client.get("/ui/v1/events").json() == {"events": [], "next": ""}
    for path in ("/ui/v1/events/none", "/ui/events/none"):
        assert client.get(path).status_code == 404


def test_wrong_parameters_are_problems(lasting: tuple[TestClient, list[str]]) -> None:
    client, _ = lasting
    for query in ("colour=red", "limit=0", "limit=501", "since=noon", "after=x&before=y", "view=NO"):
        answer = client.get(f"/ui/v1/images?{query}")
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"


def test_pages_take_the_empty_fields_of_forms_and_show_hostile_names_as_text(
    client: TestClient, archive: list[str]
) -> None:
    for path in (
        "/ui/",
        "/ui/images?camera=&status=ok&min_score=&reviewed=",
        "/ui/images?until=0001-01-01T00:00",
        f"/ui/images/{archive[0]}?status=ok&shown=&run=",
        "/ui/review?order=disagreement",
    ):
        page = client.get(path)
        assert page.status_code == 200, page.text
        assert HOSTILE not in page.text
        assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in client.get("/ui/images").text
    text = client.get("/ui/images?camera=nowhere&label=dodo").text
    assert "unknown camera &#39;nowhere&#39;; available: " in text
    for name in ("nowhere", "dodo"):
        assert f'<option value="{name}" selected>{name} (0)</option>' in text
    text = client.get("/ui/images?flagged=false&min_score=0.33&since=2026-05-01T08:00&until=2026-05-02").text
    assert 'name="since" type="datetime-local" step="any" value="2026-05-01T08:00:00"' in text
    assert 'name="until" type="date" step="any" value="2026-05-02"' in text
    assert '<option value="false" selected>no</option>' in text
    assert 'step="any" value="0.33"' in text
    reviewed = client.get("/ui/review").text.partition('name="reviewed"')[2].partition("</select>")[0]
    assert ">all</option>" not in reviewed, "a review has the images without a decision"
    client.post("/ui/v1/cameras", json={"camera_id": "nowhere"})
    assert "unknown camera" not in client.get("/ui/images?camera=nowhere").text
    wrong = client.get("/ui/images?since=noon", headers={"accept": "text/html"})
    assert wrong.status_code == 400

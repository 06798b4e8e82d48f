"""Facts about cameras as JSON: create, read, update, delete, restore; scripts can do what the page does."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from archive.catalogue.deployments import current
from archive.delta.tables import Tables
from tests.pages.routes.test_cameras import put_images

NORTH: dict[str, Any] = {"camera_id": "north", "location": "Oak hill", "from_local": "2026-05-01"}


def test_a_script_creates_reads_corrects_deletes_and_restores(client: TestClient) -> None:
    made = client.post("/ui/v1/deployments", json=NORTH).json()
    name = made["id"]
    assert made == {"id": name, "changed": True}
    assert client.post("/ui/v1/deployments", json=NORTH).json() == {"id": name, "changed": False}
    client.put(f"/ui/v1/deployments/{name}", json=NORTH | {"clock_offset_s": 60, "clock_reason": "GPS"})
    (row,) = client.get("/ui/v1/deployments").json()["deployments"]
    assert row == NORTH | {
        **dict.fromkeys(("latitude", "longitude", "until_local", "time_zone", "notes")),
        "id": name,
        "from_local": "2026-05-01T00:00:00",
        "clock_offset_s": 60,
        "clock_reason": "GPS",
        "clock_stated_by": "local",
        "actor": "local",
        "images": 0,
        "first_at": None,
        "last_at": None,
    }
    assert client.delete(f"/ui/v1/deployments/{name}").json() == {"id": name, "changed": True}
    assert client.delete(f"/ui/v1/deployments/{name}").status_code == 404
    changes = client.get("/ui/v1/deployment_changes").json()["changes"]
    assert [(row["clock_offset_s"], row["deleted"]) for row in changes] == [(None, False), (60, False), (60, True)]
    assert client.post("/ui/v1/deployment_changes/1/revert").json() == {"id": name}
    assert client.get("/ui/v1/deployments").json()["deployments"][0]["clock_offset_s"] is None


def test_lists_have_pages_by_id(client: TestClient, tables: Tables) -> None:
    put_images(tables, ("b", None), ("a", None), ("c", None), ("ä/<", None))
    first = client.get("/ui/v1/cameras", params={"limit": 2}).json()
    assert ([row["id"] for row in first["cameras"]], first["next"]) == (["a", "b"], "b")
    rest = client.get("/ui/v1/cameras", params={"after": "b"}).json()
    assert ([row["id"] for row in rest["cameras"]], rest["next"]) == (["c", "ä/<"], "")
    client.put("/ui/v1/cameras/z", json={"camera_id": "z"})
    client.put("/ui/v1/cameras/y", json={"camera_id": "y"})
    page = client.get("/ui/v1/deployment_changes", params={"limit": 1}).json()
    assert (len(page["changes"]), page["next"]) == (1, "1")
    assert client.get("/ui/v1/deployment_changes", params={"after": 1}).json()["next"] == ""


def test_what_is_used_is_not_deleted(client: TestClient, tables: Tables) -> None:
    put_images(tables, ("north", None))
    client.post("/ui/v1/deployments", json=NORTH)
    client.put("/ui/v1/locations/Oak hill", json={"location": "Oak hill"})
    for path, words in (("cameras/north", "1 deployments and 1 images"), ("locations/Oak hill", "1 deployments")):
        answer = client.delete(f"/ui/v1/{path}")
        assert (answer.status_code, words in answer.json()["detail"]) == (409, True)
    (place,) = client.get("/ui/v1/locations").json()["locations"]
    assert (place["cameras"], place["images"]) == (["north"], 0)


def test_wrong_requests_are_problems(client: TestClient, tables: Tables) -> None:
    client.post("/ui/v1/deployments", json=NORTH)
    for method, path, body, status, words in (
        ("POST", "deployments", NORTH | {"from_local": "2026-05-03"}, 409, "overlaps"),
        ("POST", "deployments", NORTH | {"time_zone": "Mars"}, 400, "time_zone"),
        ("POST", "deployments", {}, 400, "camera_id"),
        ("POST", "cameras", {"camera_id": "a\nb"}, 400, "printable"),
        ("PUT", "cameras/a", {"camera_id": "b"}, 400, "the path has the id 'a' and the body 'b'"),
        ("PUT", "deployments/x", NORTH | {"deployment_id": "y"}, 400, "the body 'y'"),
        ("PUT", "locations/a", {"location": "a", "latitude": 1}, 400, "together"),
        ("DELETE", "locations/nowhere", None, 404, "unknown location"),
        ("POST", "deployment_changes/99/revert", None, 404, "unknown change"),
        ("GET", "cameras?limit=0", None, 400, "limit"),
        ("GET", "cameras?camera=x", None, 400, "unknown query parameter"),
    ):
        answer = client.request(method, f"/ui/v1/{path}", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert words in answer.json()["detail"]
    assert len(current(tables)) == 1


def test_a_problem_names_the_field_that_is_wrong(client: TestClient) -> None:
    """Numbers may be text, as the forms of the page send them."""
    client.post("/ui/v1/deployments", json=NORTH | {"until_local": "2026-05-09"})
    for field, value, message in (
        ("location", None, "Field required"),
        ("from_local", "noon", "invalid time 'noon'"),
        ("until_local", "2026-04-01T00:00", "is not after"),
        ("latitude", "91", "less than or equal to 90"),
        ("longitude", "13.4", "must be given together"),
        ("time_zone", "Berlin", "unknown time zone"),
        ("clock_offset_s", "1h", "valid integer"),
        ("from_local", "2026-05-03", "overlaps deployment"),
    ):
        body = NORTH | {"from_local": "2026-07-01", "latitude": None, field: value}
        sent = {name: text for name, text in body.items() if text is not None}
        answer = client.post("/ui/v1/deployments", json=sent)
        assert answer.status_code in (400, 409)
        assert list(answer.json()["errors"]) == [field]
        assert message in answer.json()["errors"][field]


def test_the_schema_describes_the_bodies(client: TestClient) -> None:
    paths = client.get("/ui/openapi.json").json()["paths"]
    body = paths["/v1/deployments"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("Deployment")
    assert {"get", "post"} <= paths["/v1/cameras"].keys()

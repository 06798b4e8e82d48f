"""The page on both hosts: the list, a picture, a decision that is in the table at once, and its undo."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import httpx2
import pytest

from examples.sample_archive import Summary
from tests.cluster.hosts import Host, wait_for
from tests.fixtures_local import rows_of

pytestmark = pytest.mark.cluster
Archive = tuple[Path, Summary]


def get(host: Host, path: str, **query: Any) -> Any:
    answer = httpx2.get(f"{host.url}/ui{path}", params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(host: Host, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx2.post(f"{host.url}/ui{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_picture_is_found_shown_decided_and_taken_back(host: Host, archive: Archive) -> None:
    host.finished(archive[0])
    wait_for(lambda: httpx2.get(f"{host.url}/ui/", timeout=120).status_code == 200)
    page = httpx2.get(f"{host.url}/ui/", timeout=120)
    assert "ssdlite-coco@1" in page.text
    wait_for(lambda: get(host, "/v1/images/count", status="ok")["behind_s"] == 0)
    found = get(host, "/v1/images", status="ok", limit=500)["columns"]["media_sha256"]
    in_table = {row["media_sha256"] for row in rows_of(host.tables, "results") if row["status"] == "ok"}
    assert len(found) == get(host, "/v1/images/count", status="ok")["count"]
    assert set(found) <= in_table

    picture = httpx2.get(f"{host.url}/ui/v1/images/{found[0]}/thumbnail?w=320", timeout=60)
    assert picture.content[:3] == b"\xff\xd8\xff"
    detail = get(host, f"/v1/images/{found[0]}")
    box = next(box for box in detail["boxes"] if box["is_shown"])
    statement = {"action": "relabel", "media_sha256": found[0], "label": "wolf"}
    statement |= {name: box[name] for name in ("inference_key", "rank")}
    batch = secrets.token_hex(16)
    said = {"batch_id": batch, "statements": [statement]}
    first = post(host, "/v1/assertions", said)
    assert post(host, "/v1/assertions", said) == first, "a retry adds nothing"
    labels = [box["label"] for box in get(host, f"/v1/images/{found[0]}")["boxes"]]
    assert "wolf" in labels
    post(host, "/v1/assertions/undo", {"batch_id": secrets.token_hex(16), "of": batch})
    after = get(host, f"/v1/images/{found[0]}")
    assert after["boxes"] == detail["boxes"]
    assert [one["stands"] for one in after["statements"]] == [False] * len(after["statements"])

"""Individuals over HTTP: a script can state, undo, ask for suggestions and read the reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from archive.annotations.individuals import statements_of
from archive.delta.tables import Tables
from pages.context import Context
from tests.archive.named_animals import named_animals

PATH = "/ui/v1/individuals"


@pytest.fixture
def archive(context: Context) -> Tables:
    """Six crops; crop n has an angle of n / 16 turns to the first."""
    turns = np.arange(6) * 2 * np.pi / 16
    vectors = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
    return named_animals(context.tables.url, vectors, ["north"] * 6)


def crop(n: int) -> str:
    return f"{n:064x}-0"


def state(client: TestClient, batch: int, *statements: dict[str, Any]) -> Any:
    return client.post(PATH, json={"batch_id": f"{batch:032x}", "statements": list(statements)})


def test_a_script_names_confirms_rejects_and_undoes(client: TestClient, archive: Tables) -> None:
    mia = {"action": "profile", "individual_id": "mia", "name": "Mia"}
    answer = state(client, 1, mia, {"action": "identify", "individual_id": "mia", "detection": crop(0)})
    assert answer.json() == {"batch_id": f"{1:032x}", "added": 2}
    page = client.get(f"{PATH}/suggestions", params={"detection": crop(1)}).json()
    (one,) = page["detections"]
    assert (page["threshold"], page["model"], one["is_new"]) == (0.9, "looks@1", False)
    assert one["candidates"] == [
        {"individual_id": "mia", "name": "Mia", "similarity": pytest.approx(0.9239, abs=1e-3), "example": crop(0)}
    ]
    reject = {"action": "reject", "individual_id": "mia", "detection": crop(1)}
    assert state(client, 2, reject).status_code == 200
    assert client.get(f"{PATH}/suggestions", params={"detection": crop(1)}).json()["detections"][0]["is_new"]
    assert client.post(f"{PATH}/undo", json={"batch_id": f"{3:032x}", "of": f"{2:032x}"}).json()["added"] == 1
    assert not client.get(f"{PATH}/suggestions", params={"detection": crop(1)}).json()["detections"][0]["is_new"]
    (found,) = client.get(PATH).json()
    assert (found["name"], found["crops"], found["examples"]) == ("Mia", 1, [crop(0)])
    assert [row["action"] for row in client.get(f"{PATH}/mia/statements").json()] == [
        *("profile", "identify", "reject", "withdraw")
    ]
    assert {row["actor"] for row in statements_of(archive)} == {"local"}


def test_reports_and_the_threshold(client: TestClient, archive: Tables) -> None:
    for n, name in enumerate("ab"):
        profile = {"action": "profile", "individual_id": name}
        state(client, n, profile, {"action": "identify", "individual_id": name, "detection": crop(n)})
    (first, _) = client.get(f"{PATH}/reports/sightings").json()
    assert (first["individual_id"], first["camera_id"], first["sightings"]) == ("a", "north", 1)
    (pair,) = client.get(f"{PATH}/reports/together").json()
    assert (pair["individual_id"], pair["other_id"], pair["association"]) == ("a", "b", 1.0)
    assert client.get(f"{PATH}/reports/together", params={"gap_min": 9}).json() == []
    assert client.get(f"{PATH}/readiness").json()["assignment_rate"] == pytest.approx(2 / 6)
    assert client.put(f"{PATH}/threshold", json={"threshold": 0.5}).json()["identity_threshold"] == 0.5
    assert client.get(f"{PATH}/suggestions").json()["threshold"] == 0.5


def test_bad_requests_are_named(client: TestClient, archive: Tables) -> None:
    answer = state(client, 1, {"action": "identify", "individual_id": "x", "detection": crop(0)})
    assert (answer.status_code, "unknown individual 'x'" in answer.json()["detail"]) == (400, True)
    assert state(client, 1, {"action": "identify", "individual_id": "x"}).status_code == 400
    assert client.get(f"{PATH}/x/statements").status_code == 404
    assert client.get(f"{PATH}/reports/x").status_code == 400
    assert client.put(f"{PATH}/threshold", json={"threshold": 2}).status_code == 400

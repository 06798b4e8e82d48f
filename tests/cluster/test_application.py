"""Another application on a real cluster: a second pool, replicas that come with the load, tokens.

It is deployed over the usual one and stays, so these tests are the last ones (conftest.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from archive.delta.tables import Tables
from archive.views.query import query
from model_store.store import ModelStore
from serve.settings import Settings
from tests.cluster.hosts import Cluster, Host, OneProcess, places_of, wait_for
from tests.cluster.load import Load
from tests.fixtures_local import PHOTOS, ROOT, copy_of_models
from tests.support.own_server import OwnServer

pytestmark = pytest.mark.cluster
NAME = "pooled"


@pytest.fixture(scope="module")
def pooled(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """With a pool `small`, in which `pooled` (the shipped weights) lives, and up to two replicas in `default`."""
    config = yaml.safe_load((ROOT / "serve" / "app.yaml").read_text())
    (detect,) = [one for one in config["applications"] if one["name"] == "detect"]
    detect["args"] |= {"pools": {"small": {"workers": 1, "num_cpus": 0.3}}, "max_replicas": 2, "target_ongoing": 0.2}
    app = tmp_path_factory.mktemp("app") / "app.yaml"
    app.write_text(yaml.safe_dump(config))
    models = Path(cluster.settings.models_url)
    for version in ("1", "2"):
        shutil.copytree(models / "ssdlite-coco" / "1", models / NAME / version)
    (models / NAME / "deployment.json").write_text(json.dumps({"*": {"pool": "small"}}))
    cat = (PHOTOS / "cat.jpg").read_bytes()
    with Load(cluster.url, cat, "ssdlite-coco", clients=2, pause_s=0.2) as load:
        cluster.done("up", "--port", str(cluster.state.http_port), RESIGHT_APP=str(app))
    assert set(load.statuses) == {200}, "replicas drain before they go, and wait until they can answer"
    cluster.done("models", "promote", f"{NAME}@1")
    return cluster


def answered(cluster: Cluster, photo: Any) -> Any:
    answer = cluster.detect(photo("cat"), NAME)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_model_of_another_pool_is_promoted_and_answered_there(pooled: Cluster, photo: Any) -> None:
    found = answered(pooled, photo)
    assert found["detections"] == pooled.detect(photo("cat")).json()["detections"]
    assert found["model"]["version"] == "1"
    assert pooled.resight("models", "promote", f"{NAME}@2").returncode == 0
    assert answered(pooled, photo)["model"]["version"] == "2"
    assert pooled.resight("models", "rollback", NAME).returncode == 0
    assert answered(pooled, photo)["model"]["version"] == "1"


def test_only_the_replicas_of_its_pool_hold_it(pooled: Cluster, photo: Any) -> None:
    answered(pooled, photo)
    there = replicas(pooled, NAME)
    assert len(there) == 1
    assert not there & replicas(pooled, "ssdlite-coco")
    ready = httpx2.get(f"{pooled.url}/readyz", timeout=30).json()
    assert {f"{NAME}@1", "ssdlite-coco@1"} <= set(ready["loaded"])


def test_a_run_from_another_home_streams_through_the_pool(pooled: Cluster, catalogued: str, tmp_path: Path) -> None:
    """The address of the cluster is enough there, and a run id is one run: the newest image of each camera."""
    tables, elsewhere = Tables(catalogued), pooled.from_home(tmp_path) | {"RESIGHT_TABLES": catalogued}
    words = ("reprocess", "--model", f"{NAME}@1", "--format", "json")
    newest = (*words, "--latest-per-camera")
    plan = json.loads(pooled.resight(*newest, "--dry-run", **elsewhere).stdout)
    (cameras,) = query(tables, "select count(distinct coalesce(camera_id, '')) as n from media").to_pylist()
    assert plan["to_infer"] == plan["requested"] == cameras["n"]
    named = ("--run-id", "from-afar")
    done = pooled.resight(*newest, *named, **elsewhere)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["run_id"] == "from-afar"
    assert report["counts"]["requested"] == plan["requested"]
    assert report["counts"]["ok"] + report["counts"]["empty"] > 0
    states = query(tables, "select state from runs_table where run_id = 'from-afar' order by event").to_pylist()
    assert [row["state"] for row in states][-2:] == ["running", "sealed"]
    text = httpx2.get(f"{pooled.url}/metrics", timeout=30).text
    counted = [line for line in text.splitlines() if line.startswith("resight_bulk_images_total{")]
    assert any(f'model="{NAME}"' in line for line in counted), counted

    again = pooled.resight(*newest, *named, **elsewhere)
    assert json.loads(again.stdout)["accounting"] == report["accounting"], "nothing is submitted"
    other = pooled.resight(*words, *named, **elsewhere)
    assert other.returncode == 2
    assert "scope.latest_per_camera was True, now None" in other.stderr


def test_a_pool_that_there_is_not_refuses_promotions_with_its_name(pooled: Cluster, photo: Any) -> None:
    store = ModelStore(pooled.settings.models_url)
    place = f"{NAME}/deployment.json"
    before = store.folder.read(place)
    store.folder.write(place, b'{"*": {"pool": "tpu"}}')
    try:
        done = pooled.resight("models", "promote", f"{NAME}@2")
        assert done.returncode != 0
        assert "requires the pool 'tpu'" in done.stderr
    finally:
        store.folder.write(place, before)
    wait_for(lambda: bool(pooled.detect(photo("cat"), NAME).status_code == 200))


def replicas(cluster: Cluster, model: str) -> set[str]:
    text = httpx2.get(f"{cluster.url}/metrics", timeout=30).text
    held = [line for line in text.splitlines() if line.startswith("resight_loaded_versions{")]
    mine = [line for line in held if f'model="{model}"' in line]
    return {line.partition('replica="')[2].partition('"')[0] for line in mine}


def test_replicas_come_with_the_load_and_no_request_is_lost(pooled: Cluster, photo: Any) -> None:
    with Load(pooled.url, photo("cat"), "ssdlite-coco", clients=3, pause_s=0.1) as load:
        wait_for(lambda: len(replicas(pooled, "ssdlite-coco")) == 2, 180)
        enough = len(load.statuses) + 50
        wait_for(lambda: len(load.statuses) > enough, 60)
    assert set(load.statuses) == {200}


def test_a_form_is_answered_in_order_by_both_pools(pooled: Cluster, photo: Any) -> None:
    files = [("image", ("a.jpg", photo("cat"))), ("image", ("b.txt", b"no image"))]
    for model in ("ssdlite-coco", NAME):
        query = {"model": model}
        answer = httpx2.post(f"{pooled.url}/v1/detect", params=query, files=files, timeout=60)
        found = [(one["name"], one["status"]) for one in answer.json()["results"]]
        assert found == [("a.jpg", 200), ("b.txt", 415)]


@pytest.fixture(params=["one_process", "pooled"])
def closing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that may require tokens from now on: a process of its own, or the cluster after all other tests."""
    if request.param == "pooled":
        yield request.getfixturevalue("pooled")
        return
    home = tmp_path_factory.mktemp("closing")
    models = str(copy_of_models(home))
    settings = Settings(home=str(home), models=models, tables=str(home / "tables"))
    with OwnServer(home / "serve.log", places_of(settings)) as server:
        yield OneProcess(settings, server)


def test_tokens_come_and_go_under_load(closing: Host, photo: Any) -> None:
    with Load(closing.url, photo("cat"), "motion", clients=2, pause_s=0.2) as load:
        wait_for(lambda: len(load.statuses) > 5)
        added = closing.done("tokens", "add", "camera", "--scope", "detect", "--format", "json")
        wait_for(lambda: load.statuses[-5:] == [401] * 5)
        assert set(load.statuses) == {200, 401}
        load.token = json.loads(added)["token"]
        wait_for(lambda: load.statuses[-5:] == [200] * 5)

        def reload() -> int:
            headers = {"authorization": f"Bearer {load.token}"}
            url = f"{closing.url}/v1/models/reload"
            return httpx2.post(url, headers=headers, timeout=30).status_code

        wait_for(lambda: reload() == 403)  # each replica reads the file for itself
        closing.done("tokens", "revoke", "camera")
        wait_for(lambda: load.statuses[-5:] == [401] * 5)
        assert set(load.statuses) == {200, 401}

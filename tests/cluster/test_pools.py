"""A second pool of replicas on a real cluster: forwarded requests, rollouts and runs where the model lives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from model_store.store import ModelStore

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
NAME = "pooled"


@pytest.fixture(scope="module")
def pooled(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The application with a pool `small`, in which `pooled` (the shipped weights) lives."""
    config = yaml.safe_load((ROOT / "serve" / "app.yaml").read_text())
    (application,) = config["applications"]
    application["args"]["pools"] = {"small": {"workers": 1, "num_cpus": 0.3}}
    app = tmp_path_factory.mktemp("app") / "app.yaml"
    app.write_text(yaml.safe_dump(config))
    models = Path(cluster.settings.models_url)
    for version in ("1", "2"):
        shutil.copytree(models / "ssdlite-coco" / "1", models / NAME / version)
    (models / NAME / "deployment.json").write_text(json.dumps({"*": {"pool": "small"}}))
    port = str(cluster.state.http_port)
    done = cluster.resight("up", "--port", port, RESIGHT_APP=str(app))
    assert done.returncode == 0, done.stderr
    yield cluster
    done = cluster.resight("up", "--port", port)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(models / NAME)


def answered(cluster: Any, photo: Any) -> Any:
    answer = cluster.detect(photo("cat"), NAME)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_model_of_another_pool_is_promoted_and_answered_there(pooled: Any, photo: Any) -> None:
    done = pooled.resight("models", "promote", f"{NAME}@1")
    assert done.returncode == 0, done.stderr
    found = answered(pooled, photo)
    assert found["detections"] == pooled.detect(photo("cat")).json()["detections"]
    assert found["model"]["version"] == "1"
    assert pooled.resight("models", "promote", f"{NAME}@2").returncode == 0
    assert answered(pooled, photo)["model"]["version"] == "2"
    assert pooled.resight("models", "rollback", NAME).returncode == 0
    assert answered(pooled, photo)["model"]["version"] == "1"


def test_only_the_replicas_of_its_pool_hold_it(pooled: Any, photo: Any) -> None:
    answered(pooled, photo)
    text = httpx.get(f"{pooled.url}/metrics", timeout=30).text
    held = [line for line in text.splitlines() if line.startswith("resight_loaded_versions{")]
    replicas = {
        model: {
            line.partition('replica="')[2].partition('"')[0]
            for line in held
            if f'model="{model}"' in line
        }
        for model in (NAME, "ssdlite-coco")
    }
    assert len(replicas[NAME]) == len(replicas["ssdlite-coco"]) == 1
    assert replicas[NAME] != replicas["ssdlite-coco"]
    ready = httpx.get(f"{pooled.url}/readyz", timeout=30).json()
    assert {f"{NAME}@1", "ssdlite-coco@1"} <= set(ready["loaded"])


def test_a_run_streams_through_the_pool(pooled: Any, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(ROOT / "examples" / "photos", archive)
    tables = str(tmp_path / "tables")
    done = pooled.resight("ingest", str(archive), tables=tables)
    assert done.returncode == 0, done.stderr
    report = pooled.reprocess("--model", f"{NAME}@1", tables=tables)
    counts = report["counts"]
    assert counts["ok"] + counts["empty"] == counts["requested"] > 0
    text = httpx.get(f"{pooled.url}/metrics", timeout=30).text
    counted = [line for line in text.splitlines() if line.startswith("resight_bulk_images_total{")]
    assert any(f'model="{NAME}"' in line for line in counted), counted


def test_a_pool_that_there_is_not_refuses_promotions_with_its_name(pooled: Any) -> None:
    store = ModelStore(pooled.settings.models_url)
    place = f"{NAME}/deployment.json"
    before = store.folder.read(place)
    store.folder.write(place, b'{"*": {"pool": "tpu"}}')
    try:
        done = pooled.resight("models", "promote", f"{NAME}@2")
        assert done.returncode != 0
        assert "wants the pool 'tpu'" in done.stderr
    finally:
        store.folder.write(place, before)

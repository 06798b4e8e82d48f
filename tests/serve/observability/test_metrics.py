"""What is measured, and one text of all replicas that Prometheus' own parser reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_store.errors import ImageUnsupported
from model_store.names import VersionId
from serve.api.app import build_http_api
from serve.inference.engine import Engine
from serve.observability.metrics import merged
from serve.settings import DetectArgs
from tests.fixtures_local import MODELS, ROOT, photo

SSDLITE = {"model": "ssdlite-coco", "version": "1"}


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(DetectArgs(models=str(MODELS), workers=1))
    yield engine
    engine.stop()


def value(text: str, name: str, **labels: str) -> float:
    """Of the one sample with at least these labels."""
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


async def test_every_image_is_counted_by_version_and_outcome(engine: Engine) -> None:
    for name in ("cat", "cat", "person"):
        answer = await engine.detect(photo(name), "ssdlite-coco@1")
    with pytest.raises(ImageUnsupported):
        await engine.detect(b"<html>", "ssdlite-coco@1")
    text = engine.exposition()
    assert value(text, "resight_requests_total", **SSDLITE, outcome="ok") == 3
    assert value(text, "resight_requests_total", outcome="ImageUnsupported") == 1
    for stage in ("queue", "preprocess", "inference", "postprocess"):
        assert value(text, "resight_stage_seconds_count", **SSDLITE, stage=stage) == 3
    assert 0.001 < value(text, "resight_stage_seconds_sum", stage="inference", **SSDLITE) < 30
    assert value(text, "resight_batch_size_count", **SSDLITE) == 3
    assert value(text, "resight_detections_total", **SSDLITE, label="cat") == 2
    assert value(text, "resight_detection_score_count", **SSDLITE) > len(answer.detections)
    assert value(text, "resight_lane_depth", lane="online") == 0
    assert value(text, "resight_loaded_versions", **SSDLITE) == 1


def test_every_metric_of_a_replica_is_documented(engine: Engine) -> None:
    exposed = re.findall(r"^# TYPE (\w+(?<!_created)) ", merged({"r": engine.exposition()}, {}), re.MULTILINE)
    page = (ROOT / "docs/reference" / "metrics.md").read_text().partition("## Runs")[0]
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == set(exposed)


async def test_a_shadow_s_agreement_is_measured(engine: Engine) -> None:
    answer = await engine.detect(photo("cat"), "ssdlite-coco@1")
    detector = answer.detector
    engine.shadows.start(photo("cat"), detector, answer.detections, detector)
    while engine.shadows._waiting:
        await next(iter(engine.shadows._waiting))
    text = engine.exposition()
    who = {"model": "ssdlite-coco", "version": "1", "shadow": "1"}
    assert value(text, "resight_shadow_images_total", **who, outcome="compared") == 1
    assert value(text, "resight_shadow_boxes_total", **who, kind="matched") == 1
    assert value(text, "resight_shadow_boxes_total", **who, kind="label_flips") == 0
    assert value(text, "resight_shadow_score_shift_total", **who) == 0


async def test_replicas_are_told_apart_in_one_text(engine: Engine) -> None:
    await engine.detect(photo("cat"), "ssdlite-coco@1")
    one = engine.exposition()
    await engine.detect(photo("cat"), "ssdlite-coco@1")
    two = engine.exposition()
    text = merged({"a": one, "b": two}, {("promote", "done"): 4, ("promote", "refused"): 1})
    for replica, count in (("a", 1), ("b", 2)):
        name = "resight_requests_total"
        assert value(text, name, **SSDLITE, outcome="ok", replica=replica) == count
        count_of = "resight_stage_seconds_bucket"
        assert value(text, count_of, stage="queue", le="+Inf", replica=replica) == count
    assert value(text, "resight_rollouts_total", kind="promote", outcome="refused") == 1
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


async def test_the_route_gathers_all_replicas(engine: Engine) -> None:
    async def gather() -> dict[str, str]:
        return {"here": engine.exposition(), "there": engine.exposition()}

    for given, names in ((gather, {"here", "there"}), (None, {""})):
        api = build_http_api(engine, gather=given)
        transport = httpx2.ASGITransport(api)
        async with httpx2.AsyncClient(transport=transport, base_url="http://replica") as client:
            answer = await client.get("/metrics")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        replicas = {
            sample.labels["replica"]
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == "resight_lane_depth"
        }
        assert replicas == names


async def test_a_line_of_log_for_each_image(engine: Engine, capsys: Any) -> None:
    await engine.detect(photo("cat"), "ssdlite-coco@1", request_id="abc")
    with pytest.raises(ImageUnsupported):
        await engine.detect(b"<html>", "ssdlite-coco@1", request_id="def")
    lines = capsys.readouterr().out
    digest = engine.models.model(VersionId("ssdlite-coco", "1")).info.weights_sha256
    good = next(line for line in lines.splitlines() if "abc" in line)
    assert "detected" in good
    assert "ssdlite-coco@1" in good
    assert digest[:12] in good
    bad = next(line for line in lines.splitlines() if "def" in line)
    assert "ImageUnsupported" in bad

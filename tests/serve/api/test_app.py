"""The HTTP API over a real engine, in this process: no Ray, no socket."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_store.names import VersionId, get_first_model
from serve.inference.engine import Engine
from tests.fixtures_local import encoded, write_files, write_json
from tests.serve.http_client import CAT, CAT_PIXELS, MakeEngine, client, post, problem_of
from tests.support.disks import deny


async def test_a_cat_is_a_cat_and_the_answer_says_who_says_so(engine: Engine) -> None:
    answer = await post(engine, CAT)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    best = body["detections"][0]
    assert best["label"] == "cat"
    assert best["score"] > 0.5
    x1, y1, x2, y2 = best["box_xyxy_px"]
    assert 0 <= x1 < x2 <= 451
    assert 0 <= y1 < y2 <= 300
    info = engine.store.describe(VersionId("ssdlite-coco", "1")).info
    assert body["model"] == {
        "name": "ssdlite-coco",
        "version": "1",
        "alias": "production",
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
    }
    assert body["image"] == {"width_px": 451, "height_px": 300, "media_type": "image/jpeg", "decode_note": None}
    assert set(body["timings_ms"]) == {"queue", "preprocess", "inference", "postprocess"}
    assert body["timings_ms"]["inference"] > 0
    assert body["saturated"] is False


@pytest.mark.parametrize(("ref", "alias"), [("motion:production", "production"), ("motion@1", None)])
async def test_the_alias_asked_for_is_in_the_answer(engine: Engine, ref: str, alias: str | None) -> None:
    assert (await post(engine, CAT, ref)).json()["model"]["alias"] == alias


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})]
)
async def test_the_same_pixels_in_another_format_give_the_same_answer(
    engine: Engine, kind: str, options: dict[str, Any]
) -> None:
    want = (await post(engine, CAT, min_score=0.1)).json()
    answer = (await post(engine, encoded(CAT_PIXELS, kind, **options), min_score=0.1)).json()
    assert answer["detections"] == want["detections"]
    assert answer["image"]["media_type"] == f"image/{kind.lower()}"


@pytest.mark.parametrize(("kind", "orientation", "turns"), [("PNG", 8, 3), ("JPEG", 6, 1)])
async def test_boxes_are_in_the_upright_image_whatever_exif_says(
    engine: Engine, kind: str, orientation: int, turns: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(np.rot90(CAT_PIXELS, turns))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    answer = (await post(engine, encoded(stored, kind, exif=exif.tobytes(), **options))).json()
    want = (await post(engine, CAT)).json()
    assert (answer["image"]["width_px"], answer["image"]["height_px"]) == (451, 300)
    assert [one["label"] for one in answer["detections"]] == ["cat"]
    np.testing.assert_allclose(answer["detections"][0]["box_xyxy_px"], want["detections"][0]["box_xyxy_px"], atol=4)


async def test_min_score_overrides_the_models_own_threshold(engine: Engine) -> None:
    scores = {
        least: [d["score"] for d in (await post(engine, CAT, **query)).json()["detections"]]
        for least, query in ((None, {}), (0.05, {"min_score": 0.05}), (1.0, {"min_score": 1.0}))
    }
    assert scores[1.0] == []
    assert len(scores[0.05]) > len(scores[None]) > 0
    assert scores[0.05] == sorted(scores[0.05], reverse=True)
    assert min(scores[None]) >= 0.4  # its config
    assert min(scores[0.05]) < 0.4


async def test_an_alias_whose_version_does_not_load_is_503_and_names_the_reason(
    blobs: MakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "blobs" / "2" / "config.json").write_text("{}")
    write_json(tmp_path / "blobs" / "aliases.json", {"production": "1", "canary": "2"})
    engine = await blobs()
    assert "READY lists" in problem_of(await post(engine, CAT, "blobs:canary"), 503)
    assert (await post(engine, CAT, "blobs")).status_code == 200
    async with client(engine) as api:
        ready = await api.get("/readyz")
        assert (ready.status_code, list(ready.json()["failures"])) == (200, ["blobs:canary"])
        canary = await api.get("/v2/models/blobs:canary/ready")
        assert (canary.status_code, "READY lists" in canary.text) == (503, True)
        assert (await api.get("/v2/models/blobs/ready")).status_code == 200


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("aliases.json", b"[" * 100_000),
        ("aliases.json", b'{"production": "\xff"}'),
        (".rollout/state.json", b'{"generation": 1, "aliases": {"production": 1}}'),
    ],
    ids=["nested", "no UTF-8", "state"],
)
async def test_damaged_files_of_a_model_make_that_model_alone_unready(
    blobs: MakeEngine, tmp_path: Path, file: str, data: bytes
) -> None:
    shutil.copytree(tmp_path / "blobs", tmp_path / "deer")
    engine = await blobs()
    write_files(tmp_path / "blobs", {file: data})
    if file == "aliases.json":  # also at a start
        engine = await blobs()
    await engine.aliases.refresh()
    async with client(engine) as api:
        ready = await api.get("/readyz")
        assert (ready.status_code, list(ready.json()["failures"])) == (200, ["blobs"])
        assert (await api.get("/v2/health/ready")).status_code == 200
        assert (await api.get("/v2/models/deer/ready")).status_code == 200
        damaged = await api.get("/v2/models/blobs/ready")
        assert damaged.status_code == 503
        assert Path(file).name in damaged.json()["error"]
        models = {one["name"]: one for one in (await api.get("/v1/models")).json()["models"]}
    assert (await post(engine, CAT, "deer")).status_code == 200
    assert Path(file).name in models["blobs"]["failures"]["blobs"]
    assert models["deer"]["failures"] == {}


async def test_without_any_model_that_answers_the_damaged_one_is_the_reason(blobs: MakeEngine, tmp_path: Path) -> None:
    (tmp_path / "blobs" / "aliases.json").write_text("{")
    async with client(await blobs()) as api:
        assert "aliases.json is not JSON" in problem_of(await api.get("/readyz"), 503)


async def test_an_empty_store_is_alive_but_not_ready_and_says_what_to_do(blobs: MakeEngine, tmp_path: Path) -> None:
    engine = await blobs(models=tmp_path / "nothing")
    async with client(engine) as api:
        assert get_first_model() in problem_of(await api.get("/readyz"), 503)
        assert (await api.get("/healthz")).status_code == 200
        assert (await api.get("/v1/models")).json()["models"] == []
    assert "available: none" in problem_of(await post(engine, CAT, "blobs"), 404)


async def test_models_lists_versions_aliases_and_what_is_resident(blobs: MakeEngine) -> None:
    engine = await blobs()
    async with client(engine) as api:
        body = (await api.get("/v1/models")).json()
    (model,) = body["models"]
    assert body["store"] == engine.store.url
    assert [(v["version"], v["aliases"], v["resident"]) for v in model["versions"]] == [
        ("1", ["production"], True),
        ("2", [], False),
    ]
    assert model["failures"] == {}


@pytest.mark.parametrize(
    ("damaged", "versions", "failure"), [("2/READY", ["1"], "blobs@2"), ("aliases.json", ["1", "2"], "blobs")]
)
async def test_models_lists_damage_as_a_failure(
    blobs: MakeEngine, tmp_path: Path, damaged: str, versions: list[str], failure: str
) -> None:
    engine = await blobs()
    (tmp_path / "blobs" / damaged).write_text("{")
    async with client(engine) as api:
        (model,) = (await api.get("/v1/models")).json()["models"]
    assert [v["version"] for v in model["versions"]] == versions
    assert list(model["failures"]) == [failure]


async def test_a_model_that_cannot_be_read_is_a_failure_of_its_own(
    blobs: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await blobs()
    shutil.copytree(tmp_path / "blobs", tmp_path / "bees")
    deny(monkeypatch, "bees")
    async with client(engine) as api:
        bees, blobs_ = (await api.get("/v1/models")).json()["models"]
        index = (await api.post("/v2/repository/index")).json()
    assert (bees["versions"], list(bees["failures"])) == ([], ["bees"])
    assert [version["version"] for version in blobs_["versions"]] == ["1", "2"]
    assert {entry["name"] for entry in index} == {"blobs"}


async def test_reload_follows_the_alias_files_now(blobs: MakeEngine, tmp_path: Path) -> None:
    engine = await blobs()
    write_json(tmp_path / "blobs" / "aliases.json", {"production": "2"})
    assert (await post(engine, CAT, "blobs")).json()["model"]["version"] == "1"
    async with client(engine) as api:
        (model,) = (await api.post("/v1/models/reload")).json()["models"]
    assert [v["aliases"] for v in model["versions"]] == [[], ["production"]]
    assert (await post(engine, CAT, "blobs")).json()["model"]["version"] == "2"

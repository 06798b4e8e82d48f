"""What a sweep starts from: pool, pictures, machine; and what it refuses before it measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from model_store.config import ModelConfig
from model_store.errors import BadRequest, ClusterError, ModelNotFound, ModelNotReady
from model_store.names import version_id
from model_store.store import ModelStore
from serve.settings import Settings
from serve.tune.place import MOST_PHOTOS, machine, paying_shrink, photos_of, pool_of
from serve.tune.point import Wanted
from serve.tune.tune import GPU_BATCHES, prepare
from tests.fixtures_local import MODELS, encoded, jpeg, motion_store, photo, write_files
from tests.model_store.classifiers import colour_store

SSDLITE = version_id("ssdlite-coco", "1")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESIGHT_APP", "RESIGHT_HOME", "RESIGHT_MODELS"):
        monkeypatch.delenv(name, raising=False)


def settings_with(tmp_path: Path, args: object) -> Settings:
    app = tmp_path / "app.yaml"
    applications = [{"name": "detect", "args": args}]
    app.write_text(yaml.safe_dump({"http_options": {}, "applications": applications}))
    return Settings(app=str(app), models=str(tmp_path / "models"), home=str(tmp_path))


def test_the_model_s_own_pool_is_measured(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "models", "1")
    settings = settings_with(
        tmp_path, {"threads": 1, "workers": 3, "pools": {"small": {"threads": 2, "workers": 1}}}
    )
    assert (pool_of(settings, store, "blobs").pool, pool_of(settings, store, "blobs").workers) == (
        "default",
        3,
    )
    store.folder.write("blobs/deployment.json", json.dumps({"*": {"pool": "small"}}).encode())
    small = pool_of(settings, store, "blobs")
    assert (small.pool, small.threads, small.workers) == ("small", 2, 1)
    store.folder.write("blobs/deployment.json", json.dumps({"*": {"pool": "gone"}}).encode())
    with pytest.raises(ModelNotReady, match="'gone'"):
        pool_of(settings, store, "blobs")


def test_an_application_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "models", "1")
    with pytest.raises(ClusterError, match="threads"):
        pool_of(settings_with(tmp_path, {"threads": 0}), store, "blobs")
    settings = settings_with(tmp_path, {})
    text = (tmp_path / "app.yaml").read_text().replace("name: detect", "name: other")
    (tmp_path / "app.yaml").write_text(text)
    with pytest.raises(ClusterError, match="no application 'detect'"):
        pool_of(settings, store, "blobs")


def test_without_a_folder_the_golden_probe_is_sent() -> None:
    store = ModelStore(str(MODELS))
    facts, found = photos_of(store, store.describe(SSDLITE), None)
    assert set(found) == {"probe/cat.jpg", "probe/panda.jpg"}
    assert found["probe/cat.jpg"] == (MODELS / "ssdlite-coco/1/probe/cat.jpg").read_bytes()
    assert facts.source == "the golden probe of ssdlite-coco@1"
    assert facts.images == 2


def test_pictures_are_spread_over_a_folder(tmp_path: Path) -> None:
    many = {f"{i:03}.jpg": jpeg(shade=i) for i in range(4 * MOST_PHOTOS)}
    folder = write_files(tmp_path / "many", {**many, "notes.txt": b"x", "below/z.png": jpeg()})
    store = ModelStore(str(MODELS))
    facts, found = photos_of(store, store.describe(SSDLITE), folder)
    assert facts.images == len(found) == MOST_PHOTOS
    assert {"000.jpg", "003.jpg"} & set(found)
    assert max(found) > "120.jpg"
    assert (facts.source, facts.mean_megapixels) == ("many", 0.0)


def test_pictures_that_cannot_be_sent_are_named(tmp_path: Path) -> None:
    store = ModelStore(str(MODELS))
    described = store.describe(SSDLITE)
    with pytest.raises(BadRequest, match="is no folder"):
        photos_of(store, described, tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="no pictures"):
        photos_of(store, described, tmp_path)
    write_files(tmp_path, {"a.jpg": jpeg(), "b.jpg": b"not a picture"})
    with pytest.raises(BadRequest, match=r"b.jpg is no picture"):
        photos_of(store, described, tmp_path)


def config(**preprocess: object) -> ModelConfig:
    known = ModelStore(str(MODELS)).describe(SSDLITE).detector_config
    fields = known.model_dump(mode="json")
    fields["preprocess"] = fields["preprocess"] | preprocess
    return ModelConfig.model_validate(fields)


@pytest.mark.parametrize(
    ("preprocess", "found"),
    [
        ({"side_px": 300}, 2),
        ({"side_px": 160}, 4),
        ({"side_px": 64}, 8),
        ({"side_px": 640}, None),
        ({"side_px": 300, "jpeg_shrink": 2}, None),
        ({"side_px": 160, "jpeg_shrink": 2}, 4),
        ({"side_px": 64, "tiling": {"tile_px": 64}}, None),
    ],
)
def test_scaled_decoding_is_measured_where_it_would_decode_smaller(
    preprocess: dict[str, object], found: int | None
) -> None:
    photos = {"moose.jpg": photo("moose")}  # 1024 x 683
    assert paying_shrink(config(**preprocess), photos) == found


def test_other_formats_are_never_shrunk() -> None:
    picture = encoded(np.zeros((683, 1024, 3), np.uint8), "PNG")
    assert paying_shrink(config(side_px=64), {"a.png": picture}) is None


def test_the_machine_says_what_it_is() -> None:
    found = machine()
    assert found.cores >= 1
    assert found.cpu
    assert 0 <= found.others_frac <= 1
    assert "numpy" in found.versions


def test_unknown_versions_and_classifiers_are_refused_in_words(tmp_path: Path) -> None:
    settings = Settings(models=str(tmp_path / "models"), home=str(tmp_path))
    motion_store(tmp_path / "models", "1")
    colour_store(tmp_path / "models")
    with pytest.raises(ModelNotFound, match="blobs@9"):
        prepare(settings, "blobs@9", None, Wanted(), 1)
    with pytest.raises(BadRequest, match="is a classifier"):
        prepare(settings, "colours@1", None, Wanted(), 1)


def test_a_pool_with_gpus_is_swept_with_larger_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.tune.place.LOOK_S", 0.01)
    motion_store(tmp_path / "models", "1")
    prepared = prepare(settings_with(tmp_path, {"num_gpus": 1}), "blobs@1", None, Wanted(), 1)
    assert prepared.wanted.batches == GPU_BATCHES
    asked = prepare(
        settings_with(tmp_path, {"num_gpus": 1}), "blobs", None, Wanted(batches=(3,)), 1
    )
    assert asked.wanted.batches == (3,)
    assert asked.about_s < prepared.about_s

"""What a sweep starts from: pool, pictures, machine; and what it refuses before it measures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from archive.listing import Found
from model_store.config import ModelConfig
from model_store.errors import BadRequest, ClusterError, ModelNotFound, ModelNotReady
from model_store.names import version_id
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.settings import Settings
from serve.tune.place import (
    MOST_PHOTOS,
    chosen,
    machine,
    others_frac,
    paying_shrink,
    photos_of,
    pool_of,
)
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
    folder = write_files(tmp_path / "many", {**many, "notes.txt": b"x", "below/z.txt": jpeg()})
    store = ModelStore(str(MODELS))
    facts, found = photos_of(store, store.describe(SSDLITE), folder)
    assert facts.images == len(found) == MOST_PHOTOS
    assert all(data == many[name] for name, data in found.items())
    for quarter in range(4):
        part = {f"{i:03}.jpg" for i in range(quarter * MOST_PHOTOS, (quarter + 1) * MOST_PHOTOS)}
        assert part & set(found), "not the first ones alone"
    assert (facts.source, facts.mean_megapixels) == ("many", 0.0)


def test_a_small_folder_is_taken_whole_with_what_is_below(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": jpeg(), "below/deep/z.PNG": jpeg(), "notes.txt": b"x"})
    store = ModelStore(str(MODELS))
    _, found = photos_of(store, store.describe(SSDLITE), tmp_path)
    assert set(found) == {"a.jpg", "below/deep/z.PNG"}


@given(st.sets(st.text("ab1/é", min_size=1), max_size=200), st.data())
def test_the_same_pictures_are_chosen_in_whatever_parts_and_order_they_are_listed(
    names: set[str], data: st.DataObject
) -> None:
    """The oracle sorts all of them, which the product must not."""
    order = data.draw(st.permutations(sorted(names)))
    size = data.draw(st.integers(1, 50))
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    listed = [Found(pa.table({"path": pa.array(part, pa.string())}), 0, ()) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.tune.place.list_files", lambda folder: iter(listed))
        found = chosen(Folder("unused"))
    drawn = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert found == sorted(drawn[:MOST_PHOTOS])


@pytest.mark.parametrize("cut", ["below/cut.png", "below/cut.webp"])
def test_a_picture_that_cannot_be_decoded_is_named_before_the_sweep(
    tmp_path: Path, cut: str
) -> None:
    """Its header alone is as good as any."""
    whole = encoded(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8), cut[10:])
    write_files(tmp_path, {"a.jpg": jpeg(), cut: whole[: len(whole) // 2]})
    store = ModelStore(str(MODELS))
    with pytest.raises(BadRequest, match=f"{cut} is no picture that can be sent"):
        photos_of(store, store.describe(SSDLITE), tmp_path)


def test_a_picture_of_more_pixels_than_the_application_takes_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"large.jpg": photo("moose")})
    store = ModelStore(str(MODELS))
    with pytest.raises(BadRequest, match=r"large.jpg is no picture.*1024x683"):
        photos_of(store, store.describe(SSDLITE), tmp_path, 1024 * 683 - 1)
    photos_of(store, store.describe(SSDLITE), tmp_path, 1024 * 683)


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


@pytest.mark.parametrize(
    ("usable", "found"),
    [({1, 3}, 0.5), ({0}, 0.0), ({0, 1, 2, 3}, 0.25), ({2, 17}, 0.0), ({99}, 0.25)],
)
def test_others_count_only_on_the_cores_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch, usable: set[int], found: float
) -> None:
    """Cores that the system does not list are not counted; where it lists none of them, all are."""
    each = [0.0, 80.0, 0.0, 20.0]
    monkeypatch.setattr("psutil.cpu_percent", lambda interval, percpu: each)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: usable, raising=False)
    assert others_frac() == pytest.approx(found)
    monkeypatch.delattr("os.sched_getaffinity")
    assert others_frac() == pytest.approx(0.25)


def test_the_machine_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.tune.place.LOOK_S", 0.01)
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


def test_what_is_run_now_is_kept_with_what_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.tune.place.LOOK_S", 0.01)
    store, mine = motion_store(tmp_path / "models", "1"), {"batch": {"max": 5}}
    write_files(tmp_path / "photos", {"a.jpg": jpeg()})
    settings = settings_with(tmp_path, {"threads": 1, "workers": 2, "replicas": 3})
    prepared = prepare(settings, "blobs@1", tmp_path / "photos", Wanted(batches=(1,)), 1)
    assert (prepared.entry, prepared.args.replicas) == (None, 3)
    store.folder.write("blobs/deployment.json", json.dumps({"1": mine, "*": {}}).encode())
    prepared = prepare(settings, "blobs@1", tmp_path / "photos", Wanted(batches=(1,)), 1)
    assert prepared.entry == mine


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

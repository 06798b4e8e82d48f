"""The preparation of a sweep: points, pool, pictures, machine, and errors before anything is measured."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from model_store.config import Preprocess
from model_store.errors import BadRequest, ModelNotReady
from model_store.store import ModelStore
from serve.settings import Settings
from serve.tune.plan import (
    GPU_BATCHES,
    MAX_PHOTOS,
    SearchSpace,
    first_points,
    machine,
    pool_of,
    prepare,
    read_photos,
    useful_shrink,
)
from serve.tune.results import Point
from tests.fixtures_local import MODELS, encoded, jpeg, motion_store, photo, write_files
from tests.serve.tune.performance import NOW, at, shipped


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESIGHT_APP", "RESIGHT_HOME", "RESIGHT_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("serve.tune.plan.LOOK_S", 0.01)


def settings_with(tmp_path: Path, args: object) -> Settings:
    app = tmp_path / "app.yaml"
    applications = [{"name": "detect", "args": args}]
    app.write_text(yaml.safe_dump({"http_options": {}, "applications": applications}))
    return Settings(app=str(app), models=str(tmp_path / "models"), home=str(tmp_path))


def pairs(points: list[Point]) -> set[tuple[int, int]]:
    return {(point.threads, point.workers) for point in points}


@pytest.mark.parametrize(
    ("cores", "expected"), [(1, {(1, 1)}), (8, {(1, 4), (1, 8), (2, 2), (2, 4), (4, 1), (4, 2), (8, 1)})]
)
def test_by_default_all_or_half_of_the_cores_work(cores: int, expected: set[tuple[int, int]]) -> None:
    assert pairs(first_points(NOW, cores, SearchSpace(batches=(1,)))) == expected | {(1, 2)}


@pytest.mark.parametrize(
    ("cores", "space", "expected"),
    [
        (2, {"threads": (1, 4), "workers": (3, 1)}, {(1, 1), (1, 3), (4, 1), (4, 3)}),
        (8, {"threads": (2,)}, {(2, 2), (2, 4)}),
    ],
)
def test_the_given_values_are_combined(
    cores: int, space: dict[str, tuple[int, ...]], expected: set[tuple[int, int]]
) -> None:
    points = first_points(NOW, cores, SearchSpace(batches=(1,), **space))
    assert pairs(points) == expected | {(1, 2)}


def test_the_current_settings_come_first_and_others_by_hardware() -> None:
    current = at(batch=3, wait_ms=5.0)
    points = first_points(current, 2, SearchSpace(batches=(4, 1, 2)))
    assert points[0] == current
    assert len(points) == len(set(points)) == 1 + 3 * 3
    changes = sum(a.hardware != b.hardware for a, b in itertools.pairwise(points))
    assert changes == 2
    assert {p.wait_ms for p in points if p.batch == 1} == {0.0}, "a batch of one never waits"
    assert {p.wait_ms for p in points if p.batch > 1} == {5.0}


def test_the_model_s_own_pool_is_measured(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "models", "1")
    pools = {"small": {"threads": 2, "workers": 1}}
    settings = settings_with(tmp_path, {"threads": 1, "workers": 3, "pools": pools})
    default = pool_of(settings, store, "blobs")
    assert (default.pool, default.workers) == ("default", 3)
    store.folder.write("blobs/deployment.json", json.dumps({"*": {"pool": "small"}}).encode())
    small = pool_of(settings, store, "blobs")
    assert (small.pool, small.threads, small.workers) == ("small", 2, 1)
    store.folder.write("blobs/deployment.json", json.dumps({"*": {"pool": "gone"}}).encode())
    with pytest.raises(ModelNotReady, match="'gone'"):
        pool_of(settings, store, "blobs")


def test_without_a_folder_the_golden_probe_is_sent() -> None:
    facts, photos = read_photos(ModelStore(str(MODELS)), shipped(), None)
    assert set(photos) == {"probe/cat.jpg", "probe/panda.jpg"}
    assert photos["probe/cat.jpg"] == (MODELS / "ssdlite-coco/1/probe/cat.jpg").read_bytes()
    assert facts.source == "the golden probe of ssdlite-coco@1"
    assert facts.images == 2


def test_pictures_are_spread_over_a_folder(tmp_path: Path) -> None:
    many = {f"{i:03}.jpg": jpeg(shade=i) for i in range(4 * MAX_PHOTOS)}
    folder = write_files(tmp_path / "many", {**many, "notes.txt": b"x", "below/z.txt": jpeg()})
    facts, photos = read_photos(ModelStore(str(MODELS)), shipped(), folder)
    assert facts.images == len(photos) == MAX_PHOTOS
    assert all(data == many[name] for name, data in photos.items())
    for quarter in range(4):
        part = {f"{i:03}.jpg" for i in range(quarter * MAX_PHOTOS, (quarter + 1) * MAX_PHOTOS)}
        assert part & set(photos), "not only the first ones"
    assert (facts.source, facts.mean_megapixels) == ("many", 0.0)


def test_a_damaged_picture_with_a_good_header_is_rejected(tmp_path: Path) -> None:
    cut = "below/cut.webp"
    whole = encoded(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8), "webp")
    write_files(tmp_path, {"a.jpg": jpeg(), cut: whole[: len(whole) // 2]})
    with pytest.raises(BadRequest, match=f"invalid picture {cut}"):
        read_photos(ModelStore(str(MODELS)), shipped(), tmp_path)


def test_a_picture_of_more_pixels_than_the_limit_is_rejected(tmp_path: Path) -> None:
    write_files(tmp_path, {"large.jpg": photo("moose")})
    store = ModelStore(str(MODELS))
    with pytest.raises(BadRequest, match=r"invalid picture large.jpg.*1024x683"):
        read_photos(store, shipped(), tmp_path, 1024 * 683 - 1)
    read_photos(store, shipped(), tmp_path, 1024 * 683)


def test_a_folder_without_usable_pictures_is_rejected(tmp_path: Path) -> None:
    store = ModelStore(str(MODELS))
    with pytest.raises(BadRequest, match="is not a folder"):
        read_photos(store, shipped(), tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="no pictures"):
        read_photos(store, shipped(), tmp_path)
    write_files(tmp_path, {"a.jpg": jpeg(), "b.jpg": b"not a picture"})
    with pytest.raises(BadRequest, match=r"invalid picture b.jpg"):
        read_photos(store, shipped(), tmp_path)


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        ({"side_px": 160}, 4),
        ({"side_px": 640}, None),
        ({"side_px": 300, "jpeg_shrink": 2}, None),
        ({"side_px": 160, "jpeg_shrink": 2}, 4),
        ({"side_px": 64, "tiling": {"tile_px": 64}}, None),
    ],
)
def test_scaled_decoding_is_measured_if_pictures_would_be_decoded_smaller(
    preprocess: dict[str, object], expected: int | None
) -> None:
    own = shipped().config.preprocess.model_dump(mode="json")
    spec = Preprocess.model_validate(own | preprocess)
    assert useful_shrink(spec, [photo("moose")]) == expected, "1024 x 683"
    assert useful_shrink(spec, [encoded(np.zeros((683, 1024, 3), np.uint8), "PNG")]) is None


@pytest.mark.parametrize(("usable", "expected"), [({1, 3}, 0.5), ({2, 17}, 0.0), ({99}, 0.25)])
def test_other_programs_count_on_the_usable_cores_only(
    monkeypatch: pytest.MonkeyPatch, usable: set[int], expected: float
) -> None:
    """Cores that the system does not list do not count; without a listed one, all do."""
    percents = [0.0, 80.0, 0.0, 20.0]
    monkeypatch.setattr("psutil.cpu_percent", lambda interval, percpu: percents)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: usable, raising=False)
    monkeypatch.setattr("serve.tune.plan.usable_cores", lambda: 2)
    assert machine().others_frac == pytest.approx(expected)
    monkeypatch.delattr("os.sched_getaffinity")
    assert machine().others_frac == pytest.approx(0.25)


def test_the_plan_has_the_current_entry_and_pool(tmp_path: Path) -> None:
    store, mine = motion_store(tmp_path / "models", "1"), {"batch": {"max": 5}}
    write_files(tmp_path / "photos", {"a.jpg": jpeg()})
    settings = settings_with(tmp_path, {"threads": 1, "workers": 2, "replicas": 3})
    space = SearchSpace(batches=(1,))
    prepared = prepare(settings, "blobs@1", tmp_path / "photos", space, 100)
    assert prepared.setup.entry is None
    assert prepared.current(4, 2.0) == at(batch=4, wait_ms=2.0, replicas=3)
    store.folder.write("blobs/deployment.json", json.dumps({"1": mine, "*": {}}).encode())
    prepared = prepare(settings, "blobs@1", tmp_path / "photos", space, 100)
    assert (prepared.setup.entry, prepared.setup.model) == (mine, "blobs@1")


def test_a_pool_with_gpus_tries_larger_batches(tmp_path: Path) -> None:
    motion_store(tmp_path / "models", "1")
    settings = settings_with(tmp_path, {"num_gpus": 1})
    write_files(tmp_path / "photos", {"a.jpg": jpeg()})
    folder, given = tmp_path / "photos", SearchSpace(batches=(3,))
    assert prepare(settings, "blobs@1", folder, SearchSpace(), 100).space.batches == GPU_BATCHES
    assert prepare(settings, "blobs", folder, given, 100).space.batches == (3,)

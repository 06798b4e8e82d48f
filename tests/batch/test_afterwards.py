"""What a sample says of the whole: its cost and, beside something published, what would change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.schemas import MEDIA
from archive.tables import Tables
from batch.afterwards import extrapolated
from batch.plan import Plan, make_plan
from batch.scope import Scope
from model_store.add import add_version
from model_store.names import version_id
from model_store.store import ModelStore
from tests.batch.test_facts import publish
from tests.fixtures_local import MOTION, motion_store, put_results, result_rows

IMAGES = [f"{i:02}" for i in range(40)]
BLOB = {"rank": 0, "label": "blob", "class_id": 0, "score": 0.99}
BLOB |= {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 9.0, "y2_px": 9.0}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    found = motion_store(tmp_path / "models", "1")
    other = {**MOTION, "preprocess": {"resize": "stretch", "side_px": 32}}
    add_version(found, version_id("blobs", "2"), None, other, {})
    return found


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    found = Tables(str(tmp_path / "tables"))
    rows = [{"media_sha256": i, "source_root": "/a", "path": i, "size_bytes": 1} for i in IMAGES]
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    found.append("media", media, "test", lambda _, wanted: wanted)
    return found


def sampled(tables: Tables, store: ModelStore, version: str = "1") -> Plan:
    model = store.describe(version_id("blobs", version))
    return make_plan(tables, model, Scope(sample=10))


def see(tables: Tables, store: ModelStore, version: str, images: list[str], **more: Any) -> None:
    key = store.describe(version_id("blobs", version)).info.inference_key
    put_results(tables, result_rows(images, key, width_px=9, height_px=9, **more))


def test_the_rest_costs_what_the_sample_s_rate_says(tables: Tables, store: ModelStore) -> None:
    see(tables, store, "1", IMAGES[:8])
    told = extrapolated(sampled(tables, store), tables, store, images_per_s=4.0)
    assert told == {"sampled": 10, "population": 40, "seconds": (40 - 8) / 4.0}


def test_a_sample_with_nothing_to_do_tells_no_rate(tables: Tables, store: ModelStore) -> None:
    see(tables, store, "1", IMAGES)
    told = extrapolated(sampled(tables, store), tables, store, images_per_s=0.0)
    assert told == {"sampled": 10, "population": 40, "seconds": None}


def test_beside_another_model_it_says_what_would_change(tables: Tables, store: ModelStore) -> None:
    """One has seen nothing, the other a blob in every image."""
    publish(tables, store.verify(version_id("blobs", "1")))
    see(tables, store, "1", IMAGES)
    see(tables, store, "2", IMAGES, n_detections=1, detections=[BLOB])
    told = extrapolated(sampled(tables, store, "2"), tables, store, images_per_s=0.0)
    assert (told["sampled"], told["population"]) == (10, 40)
    for figure in ("changed_images", "filled_images", "new"):
        assert (told[figure]["found"], told[figure]["expected"]) == (10, 40)
    assert told["emptied_images"]["found"] == told["lost"]["found"] == 0


def test_one_camera_with_nearly_all_images_is_nearly_all_that_is_expected(
    tmp_path: Path, store: ModelStore
) -> None:
    """The new version is blind on the camera that has 901 of 1,000 images; 99 cameras have one image each."""
    tables = Tables(str(tmp_path / "tables"))
    names = {f"{i:03}": "busy" if i < 901 else f"quiet-{i}" for i in range(1000)}
    rows = [
        {"media_sha256": name, "source_root": "/a", "path": name, "camera_id": camera}
        for name, camera in names.items()
    ]
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", media, "test", lambda _, wanted: wanted)
    publish(tables, store.verify(version_id("blobs", "1")))
    blind = [name for name, camera in names.items() if camera == "busy"]
    others = sorted(names.keys() - set(blind))
    see(tables, store, "1", list(names), n_detections=1, detections=[BLOB])
    see(tables, store, "2", blind)
    see(tables, store, "2", others, n_detections=1, detections=[BLOB])
    plan = make_plan(tables, store.describe(version_id("blobs", "2")), Scope(sample=100))
    told = extrapolated(plan, tables, store, images_per_s=0.0)
    assert (told["sampled"], told["population"]) == (100, 1000)
    emptied = told["emptied_images"]
    assert emptied["low"] <= 901 <= emptied["high"]
    assert abs(emptied["expected"] - 901) < 10


def test_images_that_cannot_be_compared_are_not_taken_for_unchanged(
    tables: Tables, store: ModelStore
) -> None:
    """A half was never seen by the published version, and a quarter fails now: a quarter can be compared."""
    publish(tables, store.verify(version_id("blobs", "1")))
    see(tables, store, "1", IMAGES[::2])
    see(
        tables,
        store,
        "2",
        [i for n, i in enumerate(IMAGES) if n % 4 != 2],
        n_detections=1,
        detections=[BLOB],
    )
    see(tables, store, "2", IMAGES[2::4], status="failed", error_code="decode")
    plan = make_plan(tables, store.describe(version_id("blobs", "2")), Scope(sample=40))
    told = extrapolated(plan, tables, store, images_per_s=0.0)
    assert (told["sampled"], told["population"]) == (40, 40)
    for figure in ("compared_images", "changed_images", "filled_images"):
        assert told[figure] == {"found": 10, "expected": 10, "low": 10, "high": 10}

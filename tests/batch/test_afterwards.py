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
    see(tables, store, "1", IMAGES, status="empty")
    see(tables, store, "2", IMAGES, n_detections=1, detections=[BLOB])
    told = extrapolated(sampled(tables, store, "2"), tables, store, images_per_s=0.0)
    assert (told["sampled"], told["population"]) == (10, 40)
    for figure in ("changed_images", "filled_images", "new"):
        assert (told[figure]["found"], told[figure]["expected"]) == (10, 40)
    assert told["emptied_images"]["found"] == told["lost"]["found"] == 0

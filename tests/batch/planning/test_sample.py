"""Test samples that represent the archive: shares of strata, and the images that are drawn."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.planning.passes import DetectPass
from batch.planning.plan import plan_pass
from batch.planning.sample import allocate
from batch.runs.scope import Scope
from model_store.store import ModelVersion
from tests.fixtures_local import put_results, result_rows

SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 3000), st.floats(0, 1, exclude_max=True))
def test_quotas_are_exact_shares_rounded_and_add_up(sizes: list[int], images: int, start: float) -> None:
    quotas = allocate(sizes, images, start).tolist()
    images = min(images, sum(sizes))
    assert sum(quotas) == images
    for quota, size in zip(quotas, sizes, strict=True):
        assert 0 <= quota <= size
        assert abs(quota - images * size / sum(sizes)) < 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 40))
def test_every_image_has_the_same_chance_whatever_its_stratum(sizes: list[int], images: int) -> None:
    """Over all distinct starts, each stratum has its exact share on average."""
    population = sum(sizes)
    starts = [(i + 0.5) / population for i in range(population)]
    quotas = sum(allocate(sizes, images, start) for start in starts)
    assert quotas.tolist() == [min(images, population) * size for size in sizes]  # type: ignore[union-attr]


def catalogue(place: Path, rows: list[dict[str, Any]]) -> Tables:
    tables = Tables(str(place))
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", media, "test", lambda _, wanted: wanted)
    return tables


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """80 images of north by day, 15 of it by night, 4 of south by day, 1 without a time."""
    strata = [("north", "T06:00:00", 80), ("north", "T18:00:00", 15), ("south", "T17:59:59", 4)]
    rows: list[dict[str, Any]] = [
        {"camera_id": camera, "captured_at_local": f"2026-05-14{hour}", "path": f"{camera}{hour}{i}"}
        for camera, hour, n in strata
        for i in range(n)
    ]
    rows.append({"camera_id": "north", "captured_at_local": None, "path": "undated"})
    for row in rows:
        row |= {"media_sha256": hashlib.sha256(str(row["path"]).encode()).hexdigest(), "source_root": "/a"}
    return catalogue(tmp_path, rows)


def drawn(tables: Tables, motion: ModelVersion, images: int) -> list[str]:
    plan = plan_pass(tables, DetectPass(motion), Scope(sample=images))
    assert plan.population == 100
    assert plan.requested == plan.todo == min(images, 100)
    return sorted(row["path"] for window in plan.windows(7) for row in window.to_pylist())


def test_a_copy_under_another_camera_is_in_no_stratum(tmp_path: Path, motion: ModelVersion) -> None:
    """Two cameras with 50 images each, all of them copied later into one more folder."""
    rows = [
        {
            "media_sha256": hashlib.sha256(f"{camera}{i}".encode()).hexdigest(),
            "source_root": "/a",
            "path": f"{place}/{camera}{i}",
            "camera_id": place,
            "catalogued_at": datetime(2026, 5, day, tzinfo=UTC),
        }
        for camera in ("north", "south")
        for i in range(50)
        for day, place in enumerate((camera, "copies"), 1)
    ]
    plan = plan_pass(catalogue(tmp_path, rows), DetectPass(motion), Scope(sample=20))
    names = [row["path"].split("/")[1] for window in plan.windows(20) for row in window.to_pylist()]
    assert Counter(name[:5] for name in names) == {"north": 10, "south": 10}


@pytest.mark.parametrize("images", [1, 20, 500])
def test_a_sample_is_by_camera_and_by_day_and_night(tables: Tables, motion: ModelVersion, images: int) -> None:
    strata = Counter(path if path == "undated" else path[:14] for path in drawn(tables, motion, images))
    for name, size in (("northT06:00:00", 80), ("northT18:00:00", 15), ("southT17:59:59", 4)):
        assert abs(strata[name] - size * min(1, images / 100)) < 1


@pytest.mark.parametrize("images", [100])
def test_samples_do_not_fall_into_step_with_day_and_night_or_with_the_names_of_cameras(
    tmp_path: Path, motion: ModelVersion, images: int
) -> None:
    """100 cameras, two per site, with 5 images each by day and by night: 1,000 images."""
    rows = [
        {
            "camera_id": f"site{camera // 2:02}-{'ab'[camera % 2]}",
            "captured_at_local": f"2026-05-14T{hour}:00:00",
            "media_sha256": hashlib.sha256(f"{camera} {hour} {i}".encode()).hexdigest(),
            "source_root": "/a",
            "path": f"{'ab'[camera % 2]}{hour}{camera}-{i}",
        }
        for camera in range(100)
        for hour in ("12", "23")
        for i in range(5)
    ]
    tables = catalogue(tmp_path, rows)
    plan = plan_pass(tables, DetectPass(motion), Scope(sample=images))
    chosen = [row["path"] for window in plan.windows(999) for row in window.to_pylist()]
    counts = Counter(path[:3] for path in chosen)
    by_day = counts["a12"] + counts["b12"]
    assert by_day == images // 2
    for side, hour in itertools.product("ab", ("12", "23")):
        assert images // 8 < counts[side + hour] < 3 * images // 8


def test_a_sample_of_what_lacks_results_is_drawn_from_that(tables: Tables, motion: ModelVersion) -> None:
    rows = [row for w in plan_pass(tables, DetectPass(motion), Scope()).windows(99) for row in w.to_pylist()]
    done = sorted(row["media_sha256"] for row in rows)[:90]
    put_results(tables, result_rows(done, key=motion.info.inference_key))
    plan = plan_pass(tables, DetectPass(motion), Scope(status="missing", sample=5))
    assert (plan.requested, plan.todo, plan.population, plan.population_todo) == (5, 5, 10, 10)
    assert not set(done) & set(plan.requested_ids().to_pylist())
    plan = plan_pass(tables, DetectPass(motion), Scope(sample=5))
    assert (plan.requested, plan.population, plan.population_todo) == (5, 100, 10)

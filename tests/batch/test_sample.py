"""Samples that look like the archive: shares of strata, and which images are drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.schemas import MEDIA
from archive.tables import Tables
from batch.plan import make_plan
from batch.sample import shares
from batch.scope import Scope
from model_store.store import ModelVersion
from tests.fixtures_local import put_results, result_rows

SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=12).map(
    lambda sizes: sorted(sizes, reverse=True)
)


@given(SIZES, st.integers(1, 3000))
def test_shares_add_up_and_every_stratum_has_one_while_that_goes(
    sizes: list[int], images: int
) -> None:
    quotas = shares(sizes, images)
    assert sum(quotas) == min(images, sum(sizes))
    assert all(0 <= quota <= size for quota, size in zip(quotas, sizes, strict=True))
    assert min(quotas) >= (1 if images >= len(sizes) else 0)


@given(SIZES, st.integers(1, 3000))
def test_shares_are_in_proportion(sizes: list[int], images: int) -> None:
    """After the one that each has, within one of the exact share."""
    quotas = shares(sizes, images)
    left, rest = min(images, sum(sizes)) - len(sizes), sum(sizes) - len(sizes)
    if left >= 0 and rest:
        for quota, size in zip(quotas, sizes, strict=True):
            assert abs(quota - 1 - left * (size - 1) / rest) < 1


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """80 images of north by day, 15 of it by night, 4 of south by day, 1 without a time."""
    strata = [("north", "T06:00:00", 80), ("north", "T18:00:00", 15), ("south", "T17:59:59", 4)]
    rows = [
        {
            "camera_id": camera,
            "captured_at_local": f"2026-05-14{hour}",
            "path": f"{camera}{hour}{i}",
        }
        for camera, hour, n in strata
        for i in range(n)
    ]
    rows.append({"camera_id": "north", "captured_at_local": None, "path": "undated"})
    for row in rows:
        row |= {
            "media_sha256": hashlib.sha256(str(row["path"]).encode()).hexdigest(),
            "source_root": "/a",
        }
    tables = Tables(str(tmp_path))
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", media, "test", lambda _, wanted: wanted)
    return tables


def drawn(tables: Tables, motion: ModelVersion, images: int) -> list[str]:
    plan = make_plan(tables, motion, Scope(sample=images))
    assert plan.population == 100
    assert plan.requested == plan.todo == min(images, 100)
    return sorted(row["path"] for window in plan.windows(7) for row in window.to_pylist())


@pytest.mark.parametrize(
    ("images", "want"),
    [
        (4, {"northT06:00:00": 1, "northT18:00:00": 1, "southT17:59:59": 1, "undated": 1}),
        (20, {"northT06:00:00": 14, "northT18:00:00": 3, "southT17:59:59": 2, "undated": 1}),
        (2, {"northT06:00:00": 1, "northT18:00:00": 1}),
        (500, {"northT06:00:00": 80, "northT18:00:00": 15, "southT17:59:59": 4, "undated": 1}),
    ],
)
def test_a_sample_is_by_camera_and_by_day_and_night(
    tables: Tables, motion: ModelVersion, images: int, want: dict[str, int]
) -> None:
    strata = Counter(
        path if path == "undated" else path[:14] for path in drawn(tables, motion, images)
    )
    assert strata == want


def test_a_sample_is_the_same_each_time_and_a_larger_one_has_it(
    tables: Tables, motion: ModelVersion
) -> None:
    small, again, large = (drawn(tables, motion, n) for n in (20, 20, 40))
    assert small == again
    assert set(small) < set(large)


def test_a_sample_of_what_lacks_results_is_drawn_from_that(
    tables: Tables, motion: ModelVersion
) -> None:
    rows = [row for w in make_plan(tables, motion, Scope()).windows(99) for row in w.to_pylist()]
    done = sorted(row["media_sha256"] for row in rows)[:90]
    put_results(tables, result_rows(done, key=motion.info.inference_key))
    plan = make_plan(tables, motion, Scope(kind="status", status="missing", sample=5))
    assert (plan.requested, plan.todo, plan.population, plan.population_todo) == (5, 5, 10, 10)
    assert not set(done) & set(plan.requested_ids().to_pylist())
    plan = make_plan(tables, motion, Scope(sample=5))
    assert (plan.requested, plan.population, plan.population_todo) == (5, 100, 10)

"""What a run may be asked for, and the words when it may not."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from batch.scope import Scope
from batch.spec import RunSpec, images_per_chunk, new_run_id
from model_store.config import Preprocess, Tiling

NOON = datetime(2026, 5, 14, 12)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "all"},
        {"kind": "latest-per-camera"},
        {"kind": "camera", "camera": "north"},
        {"kind": "status", "status": "failed"},
        {"kind": "status", "status": "missing"},
        {"kind": "time", "start": NOON},
        {"kind": "time", "start": NOON, "end": NOON.replace(hour=13)},
        {"kind": "path", "path": "*"},
        {"kind": "label", "max_score": 0.4},
        {"kind": "ids", "ids": "a" * 64, "sample": 3},
    ],
)
def test_these_scopes_are_understood(fields: dict[str, Any]) -> None:
    scope = Scope(**fields)
    assert scope.kind == fields.get("kind", "all")
    assert scope.retries_failed == (fields.get("status") == "failed")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": ""}, "Input should be 'all', 'latest-per-camera', 'camera', 'time', 'path'"),
        ({"kind": "newest"}, "Input should be 'all'"),
        ({"kind": "camera"}, "scope 'camera' needs camera"),
        ({"kind": "status"}, "scope 'status' needs status"),
        ({"kind": "time"}, "scope 'time' needs start or end"),
        ({"kind": "label"}, "scope 'label' needs label or min_score or max_score"),
        ({"camera": "north"}, "camera belongs to scope 'camera', not to 'all'"),
        ({"kind": "latest-per-camera", "camera": "n"}, "camera belongs to scope 'camera'"),
        ({"kind": "camera", "camera": "n", "status": "failed"}, "status belongs to scope 'status'"),
        ({"kind": "time", "start": NOON, "end": NOON}, "is not before end"),
        ({"kind": "time", "start": NOON.replace(tzinfo=UTC)}, "leave out the time zone"),
        ({"kind": "label", "min_score": 1.5}, "less than or equal to 1"),
        ({"sample": 0}, "greater than or equal to 1"),
        ({"kind": "time", "start": NOON.replace(tzinfo=UTC), "end": NOON}, "leave out the time"),
        ({"kind": "label", "min_score": 0.9, "max_score": 0.1}, "min_score 0.9 is not below"),
        ({"kind": "status", "status": "ok"}, "Input should be 'failed' or 'missing'"),
        ({"places": "all"}, "Extra inputs are not permitted"),
    ],
)
def test_a_scope_that_makes_no_sense_says_why(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        Scope(**fields)


@pytest.mark.parametrize(
    ("pace", "field"),
    [
        ({"chunk": -1}, "chunk"),
        ({"chunk": 1025}, "chunk"),
        ({"actors": 0}, "actors"),
        ({"threads": -1}, "threads"),
        ({"commit_s": 0}, "commit_s"),
        ({"commit_s": float("inf")}, "commit_s"),
        ({"run_id": "../x"}, "run_id"),
        ({"run_id": ""}, "run_id"),
        ({"megapixels": 0}, "megapixels"),
    ],
)
def test_a_pace_out_of_bounds_names_its_field(pace: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        RunSpec(**{"run_id": "r", "model": "m"} | pace)


def test_a_spec_survives_as_json() -> None:
    spec = RunSpec(run_id="r", model="m@1", scope=Scope(kind="camera", camera="ü'\"\n"), chunk=7)
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_run_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_run_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{6}", one) for one in ids)
    assert [one[:15] for one in ids] == sorted(one[:15] for one in ids)


@pytest.mark.parametrize(
    ("chunk", "side_px", "images"),
    [(0, 300, 64), (0, 640, 27), (0, 1280, 6), (0, 8192, 1), (5, 300, 5), (500, 1280, 500)],
)
def test_a_chunk_is_as_large_as_told_or_as_its_images_allow(
    chunk: int, side_px: int, images: int
) -> None:
    assert images_per_chunk(chunk, Preprocess(side_px=side_px)) == images
    tiled = Preprocess(side_px=side_px, tiling=Tiling(tile_px=640))
    assert images_per_chunk(chunk, tiled) <= images

"""Test valid specs of a run, and the errors of invalid ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from batch.runs.scope import Scope
from batch.runs.spec import RunSpec, images_per_chunk, new_run_id
from model_store.config import Preprocess, Tiling

NOON = datetime(2026, 5, 14, 12)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "all"),
        ({"camera": ["north"]}, "camera north"),
        (
            {"sample": 3, "camera": ["a b", "c"], "since": "2026-05-01", "until": "2026-06-01T07:30"},
            "camera a b or c, since 2026-05-01, until 2026-06-01T07:30:00, sample 3",
        ),
        ({"since": "2026-05-31", "until": "2026-05-31"}, "since 2026-05-31, until 2026-05-31"),
        ({"label": "fox", "min_score": 0, "max_score": 1}, "label fox, min score 0.0, max score 1.0"),
        ({"latest_per_camera": True, "status": "failed"}, "latest per camera, status failed"),
        ({"path": "*", "ids": "ab" * 32}, "path *, ids abababababab"),
    ],
)
def test_fields_of_a_scope_combine_and_only_those_given_are_stored_and_said(fields: dict[str, Any], words: str) -> None:
    scope = Scope.model_validate(fields)
    assert scope.words() == words
    assert set(scope.model_dump()) == set(fields)
    assert Scope.model_validate_json(scope.model_dump_json()) == scope


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"since": NOON, "until": NOON}, "is not before until"),
        ({"since": "noon"}, "invalid time 'noon': use 2026-05-01 or 2026-05-01T12:00"),
        ({"since": 20260501}, "invalid time '20260501': use"),
        ({"until": NOON.replace(tzinfo=UTC)}, "leave out the time zone"),
        ({"until": "2026-05-01T12:00Z"}, "'2026-05-01T12:00Z': leave out the time zone"),
        ({"min_score": 1.5}, "less than or equal to 1"),
        ({"min_score": 0.9, "max_score": 0.1}, "min_score 0.9 is not below max_score 0.1"),
        ({"sample": 0}, "greater than or equal to 1"),
        ({"status": "ok"}, "Input should be 'failed' or 'missing'"),
        ({"camera": [""]}, "at least 1 character"),
        ({"camera": "north"}, "Input should be a valid tuple"),
        ({"run": "published"}, "Extra inputs are not permitted"),
    ],
)
def test_a_scope_that_makes_no_sense_says_why(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        Scope.model_validate(fields)


@pytest.mark.parametrize(
    ("pace", "field"),
    [
        ({"chunk": -1}, "chunk"),
        ({"chunk": 1025}, "chunk"),
        ({"commit_s": 0}, "commit_s"),
        ({"commit_s": float("inf")}, "commit_s"),
        ({"run_id": "../x"}, "run_id"),
    ],
)
def test_a_pace_out_of_bounds_names_its_field(pace: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        RunSpec(**{"run_id": "r", "model": "m"} | pace)


def test_run_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_run_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{6}", one) for one in ids)
    assert [one[:15] for one in ids] == sorted(one[:15] for one in ids)


@pytest.mark.parametrize(
    ("chunk", "side_px", "images"),
    [(0, 300, 64), (0, 640, 27), (0, 1280, 6), (0, 8192, 1), (5, 300, 5), (500, 1280, 500)],
)
def test_a_chunk_is_as_large_as_told_or_as_its_images_allow(chunk: int, side_px: int, images: int) -> None:
    assert images_per_chunk(chunk, Preprocess(side_px=side_px)) == images
    tiled = Preprocess(side_px=side_px, tiling=Tiling(tile_px=640))
    assert images_per_chunk(chunk, tiled) <= images

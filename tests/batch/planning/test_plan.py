"""Test plans of every scope, against rows of `media` that are counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, pinned, plan_pass
from batch.runs.scope import Scope
from model_store.errors import BadRequest, ModelNotFound
from model_store.store import ModelStore, ModelVersion
from tests.batch.conftest import Catalogue
from tests.fixtures_local import MODELS, put_results, result_rows

ALL = Scope()
FAILED = Scope(status="failed")
MISSING = Scope(status="missing")


def rows(plan: Plan) -> list[dict[str, Any]]:
    """Return all that is to be done, by digest."""
    found = [row for window in plan.windows(1000) for row in window.to_pylist()]
    assert len(found) == plan.todo
    return sorted(found, key=lambda row: str(row["media_sha256"]))


def todo(plan: Plan) -> list[str]:
    return [row["media_sha256"] for row in rows(plan)]


def requested(plan: Plan) -> list[str]:
    found: list[str] = plan.requested_ids().to_pylist()
    assert len(found) == plan.requested
    return found


def put_media(tables: Tables, *rows: dict[str, Any]) -> None:
    """Add rows with defaults: name, digest and place from `path`."""
    common = {"source_root": "/a", "size_bytes": 10, "camera_id": "c", "missing_since": None}
    full = [{**common, "media_sha256": row["path"], **row} for row in rows]
    table = pa.Table.from_pylist(full, schema=MEDIA)
    tables.append("media", table, "test", lambda _, wanted: wanted)


@pytest.mark.parametrize("scope", [ALL, Scope(camera=("c",))])
def test_an_empty_catalogue_is_no_run_with_nothing_to_do(tmp_path: Path, motion: ModelVersion, scope: Scope) -> None:
    with pytest.raises(BadRequest, match="no image is catalogued in .*run 'resight ingest URL'"):
        plan_pass(Tables(str(tmp_path)), DetectPass(motion), scope, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_content_at_several_places_is_asked_for_once_with_all_of_them(
    tmp_path: Path, motion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them are listed at once."""
    monkeypatch.setattr("archive.delta.scratch_db.MOST_LISTED", 1)
    tables = Tables(str(tmp_path))
    of = {"b/1": "twice", "a/1": "twice", "c/1": "once", "e/1": "thrice", "f/1": "thrice", "d/1": "thrice"}
    put_media(tables, *({"path": path, "media_sha256": sha} for path, sha in of.items()))
    once, thrice, twice = found = rows(plan_pass(tables, DetectPass(motion), ALL))
    assert (twice["source_root"], twice["path"], thrice["path"]) == ("/a", "a/1", "d/1")
    assert twice["elsewhere"] == [{"source_root": "/a", "path": "b/1"}]
    assert [place["path"] for place in thrice["elsewhere"]] == ["e/1", "f/1"]
    assert once["elsewhere"] == []
    put_results(tables, result_rows(["twice"], key=motion.info.inference_key))
    assert rows(plan_pass(tables, DetectPass(motion), ALL)) == found[:2]


@pytest.mark.parametrize(("code", "again"), [("access", True), ("model", True), ("decode", False)])
def test_failures_that_are_not_the_images_own_are_due_again(
    tmp_path: Path, motion: ModelVersion, code: str | None, again: bool
) -> None:
    tables = Tables(str(tmp_path))
    put_media(tables, {"path": "f"}, {"path": "n"})
    key = motion.info.inference_key
    put_results(tables, result_rows(["f"], key=key, status="failed", error_code=code))
    plan = plan_pass(tables, DetectPass(motion), ALL)
    assert todo(plan) == (["f", "n"] if again else ["n"])
    assert [r["media_sha256"] for r in rows(plan) if r["replaces"]] == (["f"] if again else [])
    assert plan.reused == (0 if again else 1)
    assert todo(plan_pass(tables, DetectPass(motion), MISSING)) == ["n"]


def test_all_is_every_content_once(catalogue: Catalogue, motion: ModelVersion) -> None:
    plan = plan_pass(catalogue.tables, DetectPass(motion), ALL)
    summary = catalogue.summary
    assert requested(plan) == todo(plan) == sorted(catalogue.images)
    assert (plan.requested, plan.files) == (summary.unique_files, summary.files)
    sizes = {row["media_sha256"]: row["size_bytes"] for row in catalogue.media}
    assert plan.todo_bytes == sum(sizes.values())


def test_after_a_result_for_every_image_nothing_is_left_to_do(catalogue: Catalogue, motion: ModelVersion) -> None:
    first = plan_pass(catalogue.tables, DetectPass(motion), ALL)
    put_results(catalogue.tables, result_rows(todo(first), key=motion.info.inference_key))
    second = plan_pass(catalogue.tables, DetectPass(motion), ALL)
    assert (todo(second), second.reused) == ([], first.requested)
    assert requested(second) == requested(first)


def test_latest_per_camera_is_the_newest_by_local_time(tmp_path: Path, motion: ModelVersion) -> None:
    tables = Tables(str(tmp_path))
    put_media(
        tables,
        {"path": "n/1", "camera_id": "north", "captured_at_local": "2026-05-14T07:00:00"},
        {"path": "n/2", "camera_id": "north", "captured_at_local": "2026-05-14T07:00:00.5"},
        {"path": "n/3", "camera_id": "north", "captured_at_local": None},
        {"path": "s/1", "camera_id": "south", "captured_at_local": None},
        {"path": "s/2", "camera_id": "south", "captured_at_local": None},
        {"path": "x/1", "camera_id": None, "captured_at_local": "2026-01-01T00:00:00"},
        {"path": "x/2", "camera_id": None, "captured_at_local": "2025-01-01T00:00:00"},
        {
            "path": "n/4",
            "camera_id": "north",
            "captured_at_local": "2027-01-01T00:00:00",
            "missing_since": datetime.now(UTC),
        },
    )
    plan = plan_pass(tables, DetectPass(motion), Scope(latest_per_camera=True))
    assert todo(plan) == ["n/2", "s/2", "x/1"]


def test_latest_per_camera_ignores_broken_clocks_unless_a_camera_has_no_other(
    tmp_path: Path, motion: ModelVersion
) -> None:
    tables = Tables(str(tmp_path))
    now, later, never = "2026-05-14T07:00:00", "2036-01-01T00:00:00", "1970-01-01T00:00:00"
    after, reset = {"timestamp_flags": ["after_now"]}, {"timestamp_flags": ["before_2001"]}
    put_media(
        tables,
        {"path": "n/1", "camera_id": "north", "captured_at_local": now, "timestamp_flags": []},
        {"path": "n/2", "camera_id": "north", "captured_at_local": later} | after,
        {"path": "o/1", "camera_id": "old", "captured_at_local": now},
        {"path": "o/2", "camera_id": "old", "captured_at_local": later} | after,
        {"path": "s/1", "camera_id": "south", "captured_at_local": never} | reset,
        {"path": "s/2", "camera_id": "south", "captured_at_local": later} | after,
        {"path": "u/1", "camera_id": "undated", "captured_at_local": None},
        {"path": "u/2", "camera_id": "undated", "captured_at_local": later} | after,
    )
    plan = plan_pass(tables, DetectPass(motion), Scope(latest_per_camera=True))
    assert todo(plan) == ["n/1", "o/1", "s/2", "u/1"]


@pytest.mark.parametrize(
    ("scope", "left"), [(ALL, ["d"]), (FAILED, ["b"]), (MISSING, ["d"])], ids=["all", "failed", "missing"]
)
def test_status_scopes_ask_for_failed_or_missing_images_only(
    tmp_path: Path, motion: ModelVersion, scope: Scope, left: list[str]
) -> None:
    tables = Tables(str(tmp_path))
    put_media(tables, *({"path": name} for name in "abcd"))
    key = motion.info.inference_key
    for sha, status in (("a", "ok"), ("b", "failed"), ("c", "ok")):
        put_results(tables, result_rows([sha], key=key, status=status))
    plan = plan_pass(tables, DetectPass(motion), scope)
    assert todo(plan) == left
    assert requested(plan) == (["a", "b", "c", "d"] if scope == ALL else left)


def test_files_that_are_gone_are_not_asked_for_unless_a_copy_is_there(tmp_path: Path, motion: ModelVersion) -> None:
    tables, gone = Tables(str(tmp_path)), datetime.now(UTC)
    put_media(
        tables,
        {"path": "a", "missing_since": gone},
        {"path": "b", "media_sha256": "same", "missing_since": gone},
        {"path": "c", "media_sha256": "same"},
    )
    (row,) = rows(plan_pass(tables, DetectPass(motion), ALL))
    assert (row["media_sha256"], row["path"]) == ("same", "c")


def test_read_only_plans_the_same(catalogue: Catalogue, motion: ModelVersion) -> None:
    before = catalogue.tables.snapshot("media").version()
    dry, real = (plan_pass(catalogue.tables, DetectPass(motion), ALL, read_only=b) for b in (True, False))
    assert rows(dry) == rows(real)
    assert catalogue.tables.snapshot("media").version() == before


@pytest.mark.parametrize(("ref", "version"), [("motion", "motion@1"), ("motion@1", "motion@1")])
def test_a_reference_is_pinned_to_an_exact_version(ref: str, version: str) -> None:
    assert str(pinned(ModelStore(str(MODELS)), ref).id) == version


@pytest.mark.parametrize(("ref", "error"), [("", BadRequest), ("motion@9", ModelNotFound)])
def test_a_reference_to_nothing_is_an_error(ref: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        pinned(ModelStore(str(MODELS)), ref)

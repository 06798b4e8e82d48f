"""Test that a killed run, resumed by its id, covers the images that it began with, and ends the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pyarrow as pa
import pytest

import archive.delta.snapshot
import batch.planning.plan
import batch.runs.run
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.past import PastTables, moment_of
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, plan_pass
from batch.runs.accounting import Counts
from batch.runs.resume import tables_of_unsealed
from batch.runs.run import report_of_nothing
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.errors import NothingWorked, ResightError, StorageFull, StorageUnreachable
from model_store.store import ModelStore, ModelVersion
from serve.settings import Settings
from tests.archive.media_rows import media_rows, put_media, replace_with
from tests.batch.pipeline.test_patience import MODELS, Pipeline
from tests.batch.pipeline.test_patience import tables as tables
from tests.batch.schedule.test_archive_state import publish
from tests.fixtures_local import put_results, result_rows, rows_of
from tests.support.disks import disk_with
from tests.support.hosts import HOST

STORE = ModelStore(str(MODELS))
MISSING, FAILED = (Scope(status=status) for status in ("missing", "failed"))


class Killed(BaseException):
    """Stand-in for kill -9: nothing is recorded."""


class Killer(Pipeline):
    """Yield chunks of one image with the status of its name, until the run is killed."""

    def __init__(self, statuses: str, images: int | None = None) -> None:
        super().__init__(statuses)
        self._of = dict(zip("abcdefgh", statuses, strict=True))
        self._images = images

    def __call__(self, spec: RunSpec, plan: Plan) -> Iterator[pa.Table]:
        todo = [row["media_sha256"] for window in plan.windows(99) for row in window.to_pylist()]
        self._statuses = "".join(self._of[image] for image in todo)
        self.left.set()
        for number, rows in enumerate(super().__call__(spec, plan)):
            if number == self._images:
                raise Killed
            yield rows
        if self._images is not None:
            raise Killed


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = batch.runs.run.recorded

    def unless_killed(*words: Any) -> BaseException:
        return words[2] if isinstance(words[2], Killed) else recorded(*words)

    monkeypatch.setattr(batch.runs.run, "recorded", unless_killed)


def run(tables: Tables, monkeypatch: pytest.MonkeyPatch, scope: Scope, statuses: str, images: int | None = None) -> str:
    """Return the accounting of the run, or its error; it is killed after `images`."""
    monkeypatch.setattr(HOST, "rows", Killer(statuses, images))
    spec = RunSpec(run_id="r", model="motion@1", scope=scope, commit_s=3600)
    try:
        return batch.runs.run.execute(spec, tables, STORE, HOST).counts.line()
    except (ResightError, Killed) as error:
        return type(error).__name__


def add_image(tables: Tables, name: str, place: str | None = None) -> None:
    root = Path(tables.url).parent / "archive"
    rows = [{"media_sha256": name, "source_root": str(root), "path": place or name, "size_bytes": 1}]
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", media, "test", lambda _, wanted: wanted)


@pytest.mark.parametrize(
    ("scope", "statuses", "images"),
    [
        (MISSING, "ffffffff", 3),
        (MISSING, "oeofoeof", 3),
        (FAILED, "oeofoeof", 8),
        (MISSING.model_copy(update={"sample": 5}), "oeofoeof", 3),
        (Scope(), "oeofoeof", 3),
    ],
)
def test_it_ends_as_an_undisturbed_run(
    tables: Tables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    motion: ModelVersion,
    scope: Scope,
    statuses: str,
    images: int,
) -> None:
    """Before the resume, an image is added, and another run tries an image that was never in the scope."""
    if scope == FAILED:
        rows = result_rows(list("abcdefgh"), motion.info.inference_key, "failed", "r0")
        put_results(tables, rows)
    moved = Tables(str(shutil.copytree(tables.url, tmp_path / "undisturbed" / "tables")))
    undisturbed = run(moved, monkeypatch, scope, statuses)
    assert run(tables, monkeypatch, scope, statuses, images) == "Killed"
    add_image(tables, "new")
    put_results(tables, result_rows(["new"], motion.info.inference_key, "failed", "r1"))
    assert run(tables, monkeypatch, scope, statuses) == undisturbed
    assert "requested 0" not in undisturbed


def test_a_disk_that_fills_ends_a_run_before_it_is_full(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished results are kept, also those that had arrived without a commit; the next run makes the others."""
    disk_with(monkeypatch, 2048)

    def filling(spec: RunSpec, plan: Plan) -> Iterator[pa.Table]:
        for number, rows in enumerate(Killer("oooooooo", 8)(spec, plan)):
            if number == 2:
                disk_with(monkeypatch, 1023)
            yield rows

    monkeypatch.setattr(HOST, "rows", filling)
    spec = RunSpec(run_id="r", model="motion@1", commit_s=1e-9)
    with pytest.raises(StorageFull, match="has 1023 MiB .* lower --free-mib; finished results are kept"):
        batch.runs.run.execute(spec, tables, STORE, HOST)
    assert 1 <= len(rows_of(tables, "results")) <= 4
    assert max(rows_of(tables, "runs"), key=lambda row: row["event"])["state"] == "failed"
    with pytest.raises(StorageFull):  # at once
        batch.runs.run.execute(spec.model_copy(update={"run_id": "again"}), tables, STORE, HOST)
    disk_with(monkeypatch, 1024)
    assert run(tables, monkeypatch, Scope(), "oooooooo") == "requested 8 = ok 8 + empty 0 + failed 0 + reused 0"


def test_the_command_line_ends_it_as_the_run_would_have(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows were there when it was killed, and all had failed: the command reports it without a cluster."""
    assert run(tables, monkeypatch, MISSING, "ffffffff", 8) == "Killed"
    spec = RunSpec(run_id="r", model="motion@1", scope=MISSING)
    settings = Settings(home=str(Path(tables.url).parent))  # type: ignore[call-arg]
    with pytest.raises(NothingWorked, match="all 8 images"):
        report_of_nothing(spec, settings, tables, STORE)
    last = max(rows_of(tables, "runs"), key=lambda row: row["event"])
    assert last["state"] == "failed"
    assert "all 8 images" in last["message"]


def test_a_run_that_is_sealed_and_started_again_is_about_the_images_of_now(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tables, monkeypatch, Scope(), "oeoeoeoe") == Counts(8, 4, 4).line()
    assert tables_of_unsealed(tables, "r") is None


def test_images_are_read_where_they_are_now_and_those_that_are_gone_where_they_were(
    tables: Tables, motion: ModelVersion
) -> None:
    past = PastTables(tables.url, moment_of(tables))
    tables.snapshot("media").delete("path in ('a', 'b')")
    add_image(tables, "b", "moved")
    add_image(tables, "c", "another name of c")
    plan = plan_pass(tables, DetectPass(motion), Scope(), past=past)
    rows = [row for window in plan.windows(99) for row in window.to_pylist()]
    places = {row["media_sha256"]: {row["path"], *(place["path"] for place in row["elsewhere"])} for row in rows}
    assert places == {name: {name} for name in "adefgh"} | {"b": {"moved"}, "c": {"c", "another name of c"}}
    assert plan.requested == len(rows) == 8


def test_labels_are_those_of_the_view_that_was_published_then(tables: Tables, motion: ModelVersion) -> None:
    key = motion.info.inference_key
    box = {"rank": 0, "label": "motion", "class_id": 0, "score": 0.99}
    box |= {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 9.0, "y2_px": 9.0}
    seen = result_rows(["a", "b"], key, n_detections=1, detections=[box], width_px=9, height_px=9)
    put_results(tables, seen)
    publish(tables, motion)
    past = PastTables(tables.url, moment_of(tables))
    more = result_rows(["c"], key, n_detections=1, detections=[box], width_px=9, height_px=9)
    put_results(tables, more)
    publish(tables, motion)
    scope = Scope(label="motion")
    assert plan_pass(tables, DetectPass(motion), scope).requested == 3
    assert plan_pass(tables, DetectPass(motion), scope, past=past).requested == 2


def test_a_past_whose_files_were_removed_is_an_error_with_a_way_out(tables: Tables, motion: ModelVersion) -> None:
    """A new run meets it as well if a file is lost or the storage is away, so it is no more than a possible cause."""
    past = PastTables(tables.url, moment_of(tables))
    tables.snapshot("media").delete("path = 'a'")
    old = set(past.existing("media").file_uris())  # type: ignore[union-attr]
    for file in old - set(tables.snapshot("media").file_uris()):
        Path(file.removeprefix("file://")).unlink()
    with pytest.raises(StorageUnreachable, match="began: .* if old files are no longer kept, leave out --run-id"):
        plan_pass(tables, DetectPass(motion), Scope(), past=past)


@pytest.mark.parametrize("scope", [Scope(), Scope(sample=2)])
def test_a_past_whose_files_were_removed_on_s3_is_the_same_error(
    s3_endpoint: str, motion: ModelVersion, scope: Scope
) -> None:
    bucket = f"past-{uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    tables = Tables(f"s3://{bucket}/tables")
    put_media(tables, media_rows(dict.fromkeys("abc", "old"), camera_id="north"))
    past = PastTables(tables.url, moment_of(tables))
    replace_with(tables, media_rows(dict.fromkeys("abc", "new"), camera_id="north"))
    media = tables.snapshot("media")
    media.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(StorageUnreachable, match="began: .* if old files are no longer kept, leave out --run-id"):
        plan_pass(tables, DetectPass(motion), scope, past=past)


def test_a_run_of_a_whole_archive_reads_the_results_once(
    tables: Tables, motion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are most of what planning a large archive reads."""
    put_results(tables, result_rows(["a"], motion.info.inference_key))
    scanned: list[str] = []

    def scan(sql: Any, name: str, *more: Any) -> None:
        scanned.append(name)
        archive.delta.snapshot.scan(sql, name, *more)

    monkeypatch.setattr(batch.planning.plan, "scan", scan)
    past = PastTables(tables.url, moment_of(tables))
    assert plan_pass(tables, DetectPass(motion), Scope(), past=past).reused == 1
    assert scanned == ["media", "results"]

"""Runs over frames of clips: rows as for images, exactly once; the clip's bytes are checked as an image's are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest

from archive.catalogue.clips import Sampling
from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.schemas import RESULTS
from batch.pipeline.detect_stage import DetectStage
from batch.pipeline.here import OwnProcesses
from batch.pipeline.read_image import image_bytes, prepare_image
from batch.planning.passes import DetectPass
from batch.planning.plan import plan_pass
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.errors import BadRequest
from model_store.images.decode import decode
from model_store.load import load_detector
from model_store.storage import Folder
from model_store.store import ModelStore, ModelVersion
from tests.fixtures_local import MODELS, jpeg, put_results, rows_of, write_files
from tests.support.clips import clip, noise, passing, sequential


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    root = tmp_path / "archive"
    clip(root / "north" / "a.mp4", passing("cat", 30))
    clip(root / "north" / "b.avi", passing("moose", 20), codec="mjpeg")
    write_files(root, {"north/c.jpg": jpeg(), "north/cut.mp4": (root / "north" / "a.mp4").read_bytes()[:999]})
    tables = Tables(str(tmp_path / "tables"))
    ingest(tables, str(root), sampling=Sampling(2.0))
    return tables


def run(tables: Tables, model: ModelVersion) -> list[dict[str, Any]]:
    plan = plan_pass(tables, DetectPass(model), Scope())
    host = OwnProcesses(ModelStore(str(MODELS)))
    spec = RunSpec(run_id="r", model=str(model.id), chunk=4, threads=2)
    return [row for table in host.rows(spec, plan) if table is not None for row in table.to_pylist()]


def test_each_frame_has_the_result_of_its_pixels_once(tables: Tables, tmp_path: Path, motion: ModelVersion) -> None:
    media = {row["media_sha256"]: row for row in rows_of(tables, "media")}
    found = {row["media_sha256"]: row for row in run(tables, motion)}
    assert len(found) == 6 + 4 + 1, "frames of both clips, and the image; no clip"
    detector = load_detector(ModelStore(str(MODELS)), motion.id)
    for name in ("north/a.mp4", "north/b.avi"):
        expected = sequential((tmp_path / "archive" / name).read_bytes())
        of_clip = {m["frame_index"]: found[s] for s, m in media.items() if m["path"].startswith(f"{name}#")}
        for index, row in of_clip.items():
            assert row["status"] == "ok"
            (detections,) = detector.detect([expected[index]])
            assert [d["score"] for d in row["detections"]] == detections.scores.tolist()
            assert [d["x1_px"] for d in row["detections"]] == detections.boxes_xyxy[:, 0].tolist()
    assert any(row["detections"] for row in found.values())


def test_both_hosts_read_with_one_function() -> None:
    """Actors of Ray Data and processes of this machine run the same stage."""
    assert DetectStage.read is prepare_image


def test_frames_of_a_clip_on_s3_are_read_alike(s3_endpoint: str, tmp_path: Path) -> None:
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="clips")
    data = clip(tmp_path / "a.mp4", noise(20))
    Folder("s3://clips/archive").write("north/a.mp4", data)
    tables = Tables(str(tmp_path / "tables"))
    assert ingest(tables, "s3://clips/archive", sampling=Sampling(1.0)).new_frames == 2
    found = image_bytes(row_of(tables, "north/a.mp4#00001000"))
    assert isinstance(found, bytes)
    assert np.array_equal(decode(found).pixels, sequential(data)[10])


def row_of(tables: Tables, path: str) -> dict[str, Any]:
    return next(row for row in rows_of(tables, "media") if row["path"] == path)


def test_a_changed_or_absent_clip_is_an_error_of_each_frame(tables: Tables, tmp_path: Path) -> None:
    place = tmp_path / "archive" / "north" / "b.avi"
    row, other = (row_of(tables, f"north/b.avi#0000{ms:04d}") for ms in (500, 1000))
    data = place.read_bytes()
    place.write_bytes(data[:-1])
    changed = image_bytes(row)
    assert not isinstance(changed, bytes)
    assert changed.error_code == "changed"
    place.unlink()
    absent = image_bytes(row)
    assert not isinstance(absent, bytes)
    assert absent.error_code == "access"
    place.write_bytes(data)
    back = image_bytes(other)
    assert isinstance(back, bytes)
    assert np.array_equal(decode(back).pixels, sequential(data)[10])
    place.unlink()
    kept = image_bytes(row)
    assert isinstance(kept, bytes), "the clip with the digest of the row is still open"


def test_a_frame_that_cannot_be_decoded_is_a_failed_image(tables: Tables) -> None:
    outcome = image_bytes(row_of(tables, "north/a.mp4#00001000") | {"path": "north/a.mp4#00001001"})
    assert not isinstance(outcome, bytes)
    assert (outcome.error_code, outcome.error_detail) == ("decode", "the clip has no frame at 1001 ms")


def test_a_scope_of_a_clip_is_its_frames(tables: Tables, motion: ModelVersion) -> None:
    plan = plan_pass(tables, DetectPass(motion), Scope(path="north/a.mp4#*"))
    assert plan.requested == 6
    paths = [row["path"] for window in plan.windows(100) for row in window.to_pylist()]
    assert paths == sorted(paths), "frames of a clip follow each other"
    with pytest.raises(BadRequest, match="no image matches"):
        plan_pass(tables, DetectPass(motion), Scope(path="north/cut.mp4"))


def test_a_run_again_has_nothing_to_do_and_another_rate_only_the_new_frames(
    tables: Tables, tmp_path: Path, motion: ModelVersion
) -> None:
    put_results(tables, pa.Table.from_pylist(run(tables, motion), schema=RESULTS))
    assert plan_pass(tables, DetectPass(motion), Scope()).todo == 0
    ingest(tables, str(tmp_path / "archive"), sampling=Sampling(5.0))
    plan = plan_pass(tables, DetectPass(motion), Scope())
    times = {"north/a.mp4": [*range(0, 3000, 200)], "north/b.avi": [*range(0, 2000, 200)]}
    new = sum(at_ms % 500 != 0 for of_clip in times.values() for at_ms in of_clip)
    assert (plan.todo, plan.reused) == (new, 11)

"""`resight reprocess --snips` plans here: a job is only started when something is to be made."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

import cli.follow
from archive.delta.tables import Tables
from archive.schemas import SNIPS
from batch.crops.write import cut_of
from batch.schedule.policy import Snips
from model_store.store import ModelStore, ModelVersion
from tests.batch.schedule.test_archive_state import publish
from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, copy_of_models, photo, put_results, result_rows, rows_of, write_files
from tests.support.jobs import FakeJobs

RUN = ("reprocess", "--model", "motion", "--latest-per-camera")


@pytest.fixture
def seen(resight: Resight, home: Path, tmp_path: Path) -> Tables:
    """Three pictures of two cameras, and of each the motion model has seen one blob."""
    copy_of_models(home)
    files = {"north/1.jpg": "cat", "north/2.jpg": "panda", "south/1.jpg": "moose"}
    archive = write_files(tmp_path / "archive", {p: photo(name) for p, name in files.items()})
    resight("ingest", archive).ok()
    tables = Tables(str(home / "tables"))
    media = tables.snapshot("media").to_pyarrow_table().to_pylist()
    box = {"rank": 0, "label": "blob", "class_id": 0, "score": 0.9}
    box |= {"x1_px": 10.0, "y1_px": 20.0, "x2_px": 110.0, "y2_px": 70.0}
    for row in media:
        size = {"width_px": row["width_px"], "height_px": row["height_px"]}
        key = version().info.inference_key
        put_results(tables, result_rows([row["media_sha256"]], key, detections=[box], **size))
    return tables


def version() -> ModelVersion:
    store = ModelStore(str(MODELS))
    return store.describe(store.versions("motion")[0])


def done(tables: Tables) -> None:
    """All snips have been made."""
    model = version()
    row = {"inference_key": model.info.inference_key, "status": "ok", "run_id": "r0"}
    row |= {"settings_key": cut_of(Snips(), model.config).key, "names": ["x.jpg"], "bytes": 9}
    media = tables.snapshot("media").to_pyarrow_table()["media_sha256"].to_pylist()
    rows = pa.Table.from_pylist([row | {"media_sha256": sha} for sha in media], schema=SNIPS)
    tables.append("snips", rows, "test", lambda _, wanted: wanted)


def test_the_dry_run_counts_and_writes_nothing(resight: Resight, seen: Tables, home: Path) -> None:
    facts = json.loads(resight(*RUN, "--snips", "--dry-run", "--format", "json").ok())
    assert (facts["requested"], facts["to_infer"]) == (2, 0)
    assert (facts["snip_images_to_do"], facts["snips_to_write"]) == (2, 2)
    assert facts["snips_bytes_estimate"] > 1000
    assert not (home / "snips").exists()
    assert seen.existing("snips") is None


def test_without_a_model_it_is_the_published_one_s(resight: Resight, seen: Tables, home: Path) -> None:
    words = ("reprocess", "--latest-per-camera", "--snips", "--dry-run")
    assert "name a model with --model" in resight(*words).refused(2)
    publish(seen, version())
    done = resight(*words, "--format", "json")
    facts = json.loads(done.ok())
    assert (facts["requested"], facts["to_infer"], facts["snips_to_write"]) == (2, 0, 2)
    assert "model: motion@1" in done.err


def test_with_all_of_them_there_no_job_is_started(
    resight: Resight, seen: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = FakeJobs()
    monkeypatch.setattr(cli.follow, "jobs_of", lambda *_: jobs)
    resight(*RUN, "--snips", "--no-follow").ok()
    assert len(jobs.submitted) == 1, "snips to make are something to do"
    jobs.submitted.clear()
    done(seen)
    before = rows_of(seen, "snips")
    facts = json.loads(resight(*RUN, "--snips", "--format", "json").ok())
    nothing = {"done": 0, "failed": 0, "files": 0, "bytes": 0}
    assert facts["snips"] == {"wanted": 2, "reused": 2} | nothing
    assert rows_of(seen, "snips") == before
    assert not jobs.submitted
    resight(*RUN, "--snips", "--snip-quality", "50", "--no-follow").ok()
    assert len(jobs.submitted) == 1


def test_a_setting_without_snips_is_refused(resight: Resight, seen: Tables) -> None:
    assert "--snip-quality needs --snips" in resight(*RUN, "--snip-quality", "50").refused(2)

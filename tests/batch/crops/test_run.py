"""The pass over snips in the driver: files, rows and accounts, without a cluster."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import batch.crops.write
import batch.pipeline.read_image
import batch.runs.run
from archive.schemas import MEDIA
from batch.runs.accounting import Counts
from batch.runs.resume import require_same_run
from batch.runs.run import execute, report_of_nothing
from batch.runs.scope import Scope
from batch.schedule.policy import Snips
from model_store.errors import Conflict, NothingWorked, StorageUnreachable
from model_store.store import ModelStore, ModelVersion
from serve.settings import Settings
from tests.batch.box_bench import BOX, picture
from tests.batch.crops.bench import SnipBench, spec_of
from tests.fixtures_local import MODELS, encoded, rows_of
from tests.support.hosts import HOST

STORE = ModelStore(str(MODELS))
pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in (batch.pipeline.read_image._read.retry, batch.crops.write._retrying):
        monkeypatch.setattr(asked, "sleep", lambda _: None)


def states(bench: SnipBench) -> dict[str, tuple[str, str | None, str]]:
    return {row["media_sha256"]: (row["status"], row["error_code"], row["run_id"]) for row in bench.rows}


def test_every_detection_that_is_shown_has_a_file_and_a_row_names_it(
    bench: SnipBench, three: Mapping[str, str]
) -> None:
    counts = bench.counts()
    sizes = [len(data) for data in bench.files.values()]
    assert counts == Counts(requested=2, ok=2, detections=3, bytes=sum(sizes))
    assert {row["media_sha256"] for row in bench.rows} == {three["both"], three["one"]}
    named = [name for row in bench.rows for name in row["names"]]
    assert sorted(named) == sorted(bench.files)
    one = next(data for name, data in bench.files.items() if f"{three['one']}-1.jpg" in name)
    wanted = picture(1)[8:22, 8:32].astype(int)  # a margin of a tenth of 20 px
    snip = np.asarray(Image.open(io.BytesIO(one))).astype(int)
    assert snip.shape == wanted.shape
    assert np.abs(snip - wanted).mean() < 8


def test_files_whose_rows_were_lost_are_taken_as_they_are(bench: SnipBench, three: Mapping[str, str]) -> None:
    first = bench.counts()
    stamps = {path: path.stat().st_mtime_ns for path in Path(bench.url).rglob("*.jpg")}
    shutil.rmtree(f"{bench.tables.url}/snips")
    assert bench.counts("r2") == first
    assert {path: path.stat().st_mtime_ns for path in Path(bench.url).rglob("*.jpg")} == stamps


def test_a_folder_that_cannot_be_is_an_error_and_no_failed_image(bench: SnipBench, three: Mapping[str, str]) -> None:
    Path(bench.url).write_bytes(b"a file")
    with pytest.raises(StorageUnreachable, match="cannot write"):
        bench.counts()
    assert bench.rows == []


@pytest.fixture
def seen(bench: SnipBench, motion: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> SnipBench:
    """Everything was seen by a model of the shipped store: a run has nothing but snips to make."""
    bench.model = motion
    for seed in (1, 2):
        bench.add(f"{seed}/a.png", encoded(picture(seed), "PNG"), [(0.9, "cat", BOX)])
    monkeypatch.setenv("RESIGHT_SNIPS", bench.url)
    return bench


def test_a_run_with_nothing_to_see_makes_snips_and_says_so_in_its_record(seen: SnipBench) -> None:
    spec = spec_of(model="motion", snips=Snips(), scope=Scope(camera=("1",)))
    report = execute(spec, seen.tables, STORE, HOST)
    snips = {"wanted": 1, "done": 1, "failed": 0, "reused": 0, "files": 1}
    assert snips.items() <= report.more["snips"].items()
    assert (report.counts.reused, report.counts.inferred) == (1, 0)
    last = max(rows_of(seen.tables, "runs"), key=lambda row: row["event"])
    assert last["state"] == "sealed"
    seen_line, snips_line = last["message"].split("; ")[:2]
    assert seen_line == "requested 1 = ok 0 + empty 0 + failed 0 + reused 1"
    assert snips_line.startswith("snips of 1 images = done 1 + failed 0 + reused 0: 1 files, ")
    assert json.loads(last["stages"])["snips"] == report.more["snips"]
    assert json.loads(last["metrics"])["population"] == 1, "for estimates, where it is a sample"
    assert len(seen.files) == 1


def test_a_run_has_nothing_to_do_once_its_snips_are_there(seen: SnipBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snips are not planned where images wait anyway."""
    spec, where = spec_of(model="motion", snips=Snips()), (Settings(), seen.tables, STORE)
    assert report_of_nothing(spec, *where) is None
    execute(spec, seen.tables, STORE, HOST)
    report = report_of_nothing(spec, *where)
    assert report is not None
    assert {"wanted": 2, "done": 2, "files": 2}.items() <= report["snips"].items()
    monkeypatch.setattr(batch.runs.run, "plan_snips", None)
    add_media(seen)
    assert report_of_nothing(spec_of(run_id="r2", model="motion", snips=Snips()), *where) is None


def add_media(bench: SnipBench) -> None:
    """Catalogue an image without a result."""
    rows = [{"media_sha256": "new", "source_root": str(bench.root), "path": "new.png", "size_bytes": 1}]
    table = pa.Table.from_pylist(rows, schema=MEDIA)
    bench.tables.append("media", table, "test", lambda _, wanted: wanted)


def test_a_pass_that_fails_is_a_run_that_has_failed(seen: SnipBench) -> None:
    for seed in (1, 2):
        (seen.root / f"{seed}/a.png").unlink()
    with pytest.raises(NothingWorked):
        execute(spec_of(model="motion", snips=Snips()), seen.tables, STORE, HOST)
    last = max(rows_of(seen.tables, "runs"), key=lambda row: row["event"])
    assert last["state"] == "failed"
    assert last["message"].startswith("all 2 images this run has tried failed")


def test_a_run_is_not_resumed_with_other_snips(seen: SnipBench) -> None:
    spec = spec_of(model="motion", snips=Snips())
    execute(spec, seen.tables, STORE, HOST)
    require_same_run(seen.tables, spec, seen.model, STORE)
    other = spec_of(model="motion", snips=Snips(quality=80))
    with pytest.raises(Conflict, match="snips.quality was 90, now 80"):
        require_same_run(seen.tables, other, seen.model, STORE)
    with pytest.raises(Conflict, match="snips was .*now None"):
        require_same_run(seen.tables, spec_of(model="motion"), seen.model, STORE)

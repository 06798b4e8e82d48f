"""Test estimates from a sample: the cost of the whole and the changes of the published view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, plan_pass
from batch.runs import post_run
from batch.runs.accounting import Counts
from batch.runs.post_run import afterwards, extrapolated
from batch.runs.record import RunLog, State
from batch.runs.run import report_of_nothing
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.names import version_id
from model_store.store import ModelStore
from serve.settings import Settings
from tests.batch.schedule.test_archive_state import publish
from tests.fixtures_local import motion_store, publish_blobs, put_results, result_rows, rows_of

SPEC = RunSpec(run_id="r", model="blobs@1")
IMAGES = [f"{i:02}" for i in range(40)]
BLOB = {"rank": 0, "label": "blob", "class_id": 0, "score": 0.99}
BLOB |= {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 9.0, "y2_px": 9.0}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    found = motion_store(tmp_path / "models", "1")
    publish_blobs(found, "2", preprocess={"resize": "stretch", "side_px": 32})
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
    return plan_pass(tables, DetectPass(model), Scope(sample=10))


def estimate(plan: Plan, tables: Tables, store: ModelStore, images_per_s: float) -> Any:
    return extrapolated(plan, tables, store, images_per_s)["extrapolated"]


def see(tables: Tables, store: ModelStore, version: str, images: list[str], **more: Any) -> None:
    key = store.describe(version_id("blobs", version)).info.inference_key
    put_results(tables, result_rows(images, key, width_px=9, height_px=9, **more))


def test_the_rest_costs_what_the_sample_s_rate_says(tables: Tables, store: ModelStore) -> None:
    see(tables, store, "1", IMAGES[:8])
    told = estimate(sampled(tables, store), tables, store, images_per_s=4.0)
    assert told == {"sampled": 10, "population": 40, "seconds": (40 - 8) / 4.0}


def test_a_sample_with_nothing_to_do_tells_no_rate(tables: Tables, store: ModelStore) -> None:
    see(tables, store, "1", IMAGES)
    told = estimate(sampled(tables, store), tables, store, images_per_s=0.0)
    assert told == {"sampled": 10, "population": 40, "seconds": None}


def test_beside_another_model_it_says_what_would_change(tables: Tables, store: ModelStore) -> None:
    """One version has no detections, the other a blob in every image."""
    publish(tables, store.verify(version_id("blobs", "1")))
    see(tables, store, "1", IMAGES)
    see(tables, store, "2", IMAGES, n_detections=1, detections=[BLOB])
    report = extrapolated(sampled(tables, store, "2"), tables, store, images_per_s=0.0)
    told = report["extrapolated"]
    assert report["next"] == "resight runs diff published blobs@2"
    assert (told["sampled"], told["population"]) == (10, 40)
    for figure in ("changed_images", "filled_images", "new"):
        assert (told[figure]["found"], told[figure]["expected"]) == (10, 40)
    assert told["emptied_images"]["found"] == told["lost"]["found"] == 0


def test_one_camera_with_nearly_all_images_is_nearly_all_that_is_expected(tmp_path: Path, store: ModelStore) -> None:
    """The new version is blind on the camera that has 901 of 1,000 images; 99 cameras have one image each."""
    tables = Tables(str(tmp_path / "tables"))
    names = {f"{i:03}": "busy" if i < 901 else f"quiet-{i}" for i in range(1000)}
    rows = [
        {"media_sha256": name, "source_root": "/a", "path": name, "camera_id": camera} for name, camera in names.items()
    ]
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", media, "test", lambda _, wanted: wanted)
    publish(tables, store.verify(version_id("blobs", "1")))
    blind = [name for name, camera in names.items() if camera == "busy"]
    others = sorted(names.keys() - set(blind))
    see(tables, store, "1", list(names), n_detections=1, detections=[BLOB])
    see(tables, store, "2", blind)
    see(tables, store, "2", others, n_detections=1, detections=[BLOB])
    plan = plan_pass(tables, DetectPass(store.describe(version_id("blobs", "2"))), Scope(sample=100))
    told = estimate(plan, tables, store, images_per_s=0.0)
    assert (told["sampled"], told["population"]) == (100, 1000)
    emptied = told["emptied_images"]
    assert emptied["low"] <= 901 <= emptied["high"]
    assert abs(emptied["expected"] - 901) < 10


def test_images_that_cannot_be_compared_are_not_taken_for_unchanged(tables: Tables, store: ModelStore) -> None:
    """Half have no result of the published version, and a quarter fails now: a quarter can be compared."""
    publish(tables, store.verify(version_id("blobs", "1")))
    see(tables, store, "1", IMAGES[::2])
    see(tables, store, "2", [i for n, i in enumerate(IMAGES) if n % 4 != 2], n_detections=1, detections=[BLOB])
    see(tables, store, "2", IMAGES[2::4], status="failed", error_code="decode")
    plan = plan_pass(tables, DetectPass(store.describe(version_id("blobs", "2"))), Scope(sample=40))
    told = estimate(plan, tables, store, images_per_s=0.0)
    assert (told["sampled"], told["population"]) == (40, 40)
    for figure in ("compared_images", "changed_images", "filled_images"):
        assert told[figure] == {"found": 10, "expected": 10, "low": 10, "high": 10}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close a gate for every publication."""
    monkeypatch.setattr(post_run, "failed_gates", lambda *_: ["too many lost"])


@pytest.mark.usefixtures("closed")
def test_a_step_that_fails_keeps_no_other_from_being_tried(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate is closed, and the small files of `snips` cannot be merged; those of the other tables are merged."""
    plan = complete(tables, store, monkeypatch)
    merge = post_run.compact

    def compact(tables: Tables, name: str, *more: Any) -> Any:
        if name == "snips":
            raise RuntimeError("half a file")
        return merge(tables, name, *more)

    monkeypatch.setattr(post_run, "compact", compact)
    facts = afterwards(SPEC, plan, tables, store, 1.0)
    assert facts.keys() == {"left_undone"}
    refused, broken = facts["left_undone"].split("; RuntimeError: ")
    assert "too many lost" in refused
    assert broken == "half a file"
    for name in ("results", "runs"):
        assert len(tables.snapshot(name).file_uris()) == 1, name


@pytest.mark.usefixtures("closed")
def test_a_gate_does_not_fail_a_run_that_is_sealed_without_a_cluster(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(tables, store, monkeypatch, "running")
    report = report_of_nothing(SPEC, Settings(), tables, store)
    assert report is not None
    assert (report["run_id"], report["accounting"][:12]) == (SPEC.run_id, "requested 40")
    assert "too many lost" in report["left_undone"]


@pytest.mark.parametrize("published", ["1", "2"])
def test_a_run_of_another_model_than_the_published_one_names_the_comparison(
    tables: Tables, store: ModelStore, published: str
) -> None:
    publish(tables, store.verify(version_id("blobs", published)))
    see(tables, store, "1", IMAGES)
    report = report_of_nothing(SPEC, Settings(), tables, store)
    assert report is not None
    compare = {"1": None, "2": f"not published; compare: resight runs diff published {SPEC.run_id}"}
    assert report.get("next") == compare[published]


def test_results_without_a_run_are_recorded_and_published_and_nothing_is_compacted(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads made the results. A request waits for the report, and nothing was measured."""
    monkeypatch.setattr(post_run, "COMPACTED_FROM", 2)
    see(tables, store, "1", IMAGES[:20])
    see(tables, store, "1", IMAGES[20:])
    report = report_of_nothing(SPEC, Settings(), tables, store)
    assert report is not None
    assert report["run_id"] == SPEC.run_id
    assert report["published"].startswith("production 1")
    assert len(tables.snapshot("results").file_uris()) == 2
    sealed = max(rows_of(tables, "runs"), key=lambda row: row["event"])
    assert (sealed["state"], json.loads(sealed["metrics"]).keys() & {"images_per_s"}) == ("sealed", set())
    again = report_of_nothing(SPEC.model_copy(update={"run_id": "r2"}), Settings(), tables, store)
    assert again is not None
    assert again["run_id"] is None


def test_a_sample_with_nothing_to_do_is_extrapolated_and_not_recorded(tables: Tables, store: ModelStore) -> None:
    see(tables, store, "1", IMAGES)
    sample = RunSpec(run_id="r", model="blobs@1", scope=Scope(sample=10))
    report = report_of_nothing(sample, Settings(), tables, store)
    assert report is not None
    assert (report["run_id"], report["extrapolated"]["population"]) == (None, 40)
    assert tables.existing("runs") is None


def complete(tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch, state: State = "sealed") -> Plan:
    """Return the plan of a run with nothing to do. `results` and `runs` have enough small files for a compaction."""
    monkeypatch.setattr(post_run, "COMPACTED_FROM", 2)
    model = store.describe(version_id("blobs", "1"))
    run_log = RunLog(tables, SPEC, model.info)
    run_log.write("running", Counts())
    run_log.write(state, Counts())
    see(tables, store, "1", IMAGES[:20])
    see(tables, store, "1", IMAGES[20:])
    return plan_pass(tables, DetectPass(model), Scope(), read_only=True)

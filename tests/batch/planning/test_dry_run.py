"""Test the report of a plan: nothing is written, and the numbers are those of the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive.delta.tables import Tables
from batch.planning.dry_run import dry_run_report
from batch.planning.passes import DetectPass
from batch.planning.plan import plan_pass
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from batch.schedule.policy import Snips
from model_store.errors import BadRequest
from model_store.store import ModelStore, ModelVersion
from tests.batch.conftest import Catalogue
from tests.fixtures_local import MODELS, put_results, result_rows

STORE = ModelStore(str(MODELS))
SPEC = RunSpec(run_id="r", model="motion")


def test_without_tables_it_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no image is catalogued"):
        dry_run_report(SPEC, Tables(str(tmp_path / "tables")), STORE)
    assert not (tmp_path / "tables").exists()


def test_the_report_is_the_plan_with_an_estimate(master: Catalogue, motion: ModelVersion) -> None:
    plan = plan_pass(master.tables, DetectPass(motion), Scope(), read_only=True)
    report = dry_run_report(SPEC, master.tables, STORE)
    assert report.pop("estimate_s") >= 12
    assert report.pop("estimate_from") == "a few of its images, measured here, and 12 s for the start"
    assert report == {
        "model": "motion@1",
        "inference_key": motion.info.inference_key,
        "scope": "all",
        "files": 24,
        "requested": 22,
        "reused": 0,
        "to_infer": 22,
        "bytes": plan.todo_bytes,
    }


def test_what_is_done_is_reused_and_needs_no_time(catalogue: Catalogue, motion: ModelVersion) -> None:
    put_results(catalogue.tables, result_rows(list(catalogue.images), key=motion.info.inference_key))
    report = dry_run_report(SPEC.model_copy(update={"snips": Snips()}), catalogue.tables, STORE)
    assert (report["reused"], report["to_infer"], report["estimate_s"]) == (22, 0, 0.0)
    assert report["estimate_from"] == "nothing to detect; without the time of snips"

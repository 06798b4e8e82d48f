"""kill -9 of the job's driver at about half, run again: the table is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from archive.query import query
from archive.tables import Tables
from examples.sample_archive import build

pytestmark = pytest.mark.cluster
WHAT_WAS_SEEN = """
    select media_sha256, inference_key, status, error_code, error_detail, decode_note, width_px,
        height_px, n_detections, max_score, saturated, detections, model_name, model_version,
        weights_sha256
    from results order by media_sha256
"""


def test_a_killed_run_resumes_to_the_rows_of_an_undisturbed_one(
    cluster: Any, tmp_path: Path
) -> None:
    archive = tmp_path / "cameras"
    build(archive, 200, seed=7)
    disturbed, undisturbed = str(tmp_path / "disturbed"), str(tmp_path / "undisturbed")
    for tables in (disturbed, undisturbed):
        assert cluster.resight("ingest", str(archive), tables=tables).returncode == 0
    pace = ("--model", "ssdlite-coco", "--chunk", "4", "--threads", "1", "--commit-s", "0.1")
    started = cluster.resight(
        "reprocess", *pace, "--run-id", "victim", "--no-follow", tables=disturbed
    )
    assert started.returncode == 0, started.stderr

    committed = _kill_driver_at(90, "victim", disturbed)
    assert 0 < committed < 190, "the run was to die in its middle"
    resumed = cluster.reprocess(*pace, tables=disturbed)
    assert resumed["counts"]["reused"] >= committed
    assert resumed["counts"]["reused"] < resumed["counts"]["requested"]
    cluster.reprocess(*pace, tables=undisturbed)

    after_crash, reference = (_seen(tables) for tables in (disturbed, undisturbed))
    assert len(after_crash) == len({row["media_sha256"] for row in after_crash})
    assert after_crash == reference


def _kill_driver_at(images: int, run_id: str, tables: str) -> int:
    """SIGKILL the process of the job once so many rows are committed; the rows it left."""
    deadline = time.monotonic() + 120
    drivers: list[psutil.Process] = []
    while time.monotonic() < deadline:
        drivers = drivers or _processes_of(run_id)
        results = Tables(tables).existing("results")
        if drivers and results and results.to_pyarrow_dataset().count_rows() >= images:
            for process in drivers:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(1)
            return len(_seen(tables))
    raise AssertionError("the run did not get that far")


def _processes_of(run_id: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"batch.reprocess", run_id} <= set(process.info["cmdline"] or [])
    ]


def _seen(tables: str) -> list[dict[str, Any]]:
    return query(Tables(tables), WHAT_WAS_SEEN).to_pylist()

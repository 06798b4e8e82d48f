"""The main job on the sample archive: every file accounted for, and the same boxes as over HTTP, on both hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.views.query import query
from examples.sample_archive import Summary
from tests.cluster.hosts import Cluster, Finished, Host, results_of

pytestmark = pytest.mark.cluster
KEY = "select distinct inference_key from all_results where model_name = 'ssdlite-coco'"
Archive = tuple[Path, Summary]


@pytest.fixture(scope="module")
def run(host: Host, archive: Archive) -> dict[str, Any]:
    return host.finished(archive[0]).report


def rows(host: Host, sql: str) -> list[dict[str, Any]]:
    found: pa.Table = query(host.tables, sql)
    return found.to_pylist()


def test_the_accounts_close(run: dict[str, Any], archive: Archive) -> None:
    counts, summary = run["counts"], archive[1]
    assert counts["requested"] == summary.unique_files
    assert counts["requested"] == counts["ok"] + counts["empty"] + counts["failed"] + counts["reused"]
    assert counts["failed"] == len(summary.expected_failures)


def test_every_file_has_one_media_row_and_through_its_digest_one_result(
    run: dict[str, Any], host: Host, archive: Archive
) -> None:
    root, _ = archive
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    media = rows(host, f"select path, media_sha256 from media where source_root = '{root}'")
    assert sorted(row["path"] for row in media) == files
    per_media = rows(
        host,
        f"""select m.path, count(r.status) as results from media m left join all_results r
        on m.media_sha256 = r.media_sha256 and r.inference_key in ({KEY})
        where m.source_root = '{root}' group by m.path""",
    )
    assert {row["results"] for row in per_media} == {1}


def test_unreadable_files_are_failed_rows_with_a_reason_and_cut_ones_have_a_note(
    run: dict[str, Any], host: Host, archive: Archive
) -> None:
    root, summary = archive
    found = {
        row["path"]: row
        for row in rows(
            host,
            f"""select path, status, error_code, error_detail, decode_note from all_results
            join media using (media_sha256) where source_root = '{root}'""",
        )
    }
    for path in summary.expected_failures:
        assert found[path]["status"] == "failed"
        assert found[path]["error_code"] in ("unsupported", "decode")
        assert found[path]["error_detail"]
    for path in summary.truncated:
        assert found[path]["status"] == "ok"
        assert "damaged_tolerated" in found[path]["decode_note"]
    assert run["partly_decoded"] == len(summary.truncated)
    for path in summary.cmyk:
        assert "cmyk_converted" in found[path]["decode_note"]
    failed = {path for path, row in found.items() if row["status"] == "failed"}
    assert failed == set(summary.expected_failures)


def test_both_hosts_write_the_same_rows(cluster: Cluster, undisturbed: Finished, archive: Archive) -> None:
    assert results_of(cluster.finished(archive[0]).tables) == results_of(undisturbed.tables)


def test_archive_rows_equal_http_answers_bit_for_bit(run: dict[str, Any], host: Host, archive: Archive) -> None:
    root, _ = archive
    stored = rows(
        host,
        f"""select any_value(path) as path, any_value(detections) as detections,
            any_value(r.width_px) as width_px from all_results r join media m using (media_sha256)
        where source_root = '{root}' and status != 'failed' group by media_sha256 order by path""",
    )
    assert len(stored) > 40
    compared = 0
    for row in stored:
        answer = host.detect((root / row["path"]).read_bytes(), min_score=0).json()
        online = [(d["label"], d["score"], tuple(d["box_xyxy_px"])) for d in answer["detections"]]
        archived = [
            (d["label"], d["score"], (d["x1_px"], d["y1_px"], d["x2_px"], d["y2_px"])) for d in row["detections"]
        ]
        assert archived == online, row["path"]
        assert row["width_px"] == answer["image"]["width_px"]
        compared += len(online)
    assert compared > 100


def test_a_second_run_infers_nothing(run: dict[str, Any], host: Host) -> None:
    again = host.reprocess("--model", "ssdlite-coco")
    counts = again["counts"]
    assert (counts["ok"], counts["empty"], counts["failed"]) == (0, 0, 0)
    assert counts["reused"] == counts["requested"] >= run["counts"]["requested"]


def test_retrying_failed_images_replaces_their_rows_and_says_that_none_worked(run: dict[str, Any], host: Host) -> None:
    count = "select count(*) as n, count(distinct media_sha256) as images from all_results"
    (before,) = rows(host, count)
    retried = host.resight("reprocess", "--model", "ssdlite-coco", "--status", "failed")
    assert retried.returncode == 4, retried.stderr
    assert "failed" in retried.stderr
    (after,) = rows(host, count)
    assert after == before
    states = rows(host, "select state from runs order by event_at desc limit 1")
    assert states == [{"state": "failed"}]


def test_an_unknown_model_ends_the_run_before_it_starts(run: dict[str, Any], host: Host) -> None:
    done = host.resight("reprocess", "--model", "no-such-model")
    assert done.returncode == 6
    assert "ssdlite-coco" in done.stderr


def test_from_another_home_an_address_is_enough(cluster: Cluster, tmp_path: Path) -> None:
    """A run from there: test_application."""
    status = cluster.resight("status", "--format", "json", **cluster.from_home(tmp_path))
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["app_detect"] == "RUNNING"

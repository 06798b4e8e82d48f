"""Test accounting that closes, and every way in which it does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.annotations.assertions import append
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA
from archive.views.query import connect, query
from archive.views.search import ImageSearch, find
from archive.views.views import View, Views
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, plan_pass
from batch.runs.accounting import SHOWN, Counts, PassTally, failures, read_back
from batch.runs.record import RunLog
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.errors import AccountingOpen, NothingWorked
from model_store.images.decode import decode
from model_store.store import ModelVersion
from tests.fixtures_local import ROOT, put_results, result_rows

RUN = "this-run"


def found(*scores: float) -> dict[str, Any]:
    """Return a row with blobs of these scores, the best first."""
    boxes = [{"rank": n, "label": "blob", "class_id": 0, "score": s} for n, s in enumerate(scores)]
    return {"n_detections": len(scores), "max_score": max(scores), "detections": boxes}


OUTCOMES: dict[str, dict[str, Any]] = {
    "ok": found(0.9, 0.1),
    "empty": found(0.04, 0.02),
    "nothing": {},
    "failed": {"status": "failed"},
}
"""The model shows blobs from 0.1 up."""


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def plan_of(tables: Tables, motion: ModelVersion, images: str, scope: Scope | None = None) -> Plan:
    """Return a plan for images named by one letter, 10 bytes each."""
    rows = [{"media_sha256": name, "source_root": "/a", "path": name, "size_bytes": 10} for name in images]
    table = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", table, "test", lambda _, wanted: wanted)
    return plan_pass(tables, DetectPass(motion), scope or Scope())


def done(
    tables: Tables,
    plan: Plan,
    images: str,
    status: str = "ok",
    run_id: str = RUN,
    error_code: str | None = None,
    decode_note: str | None = None,
) -> None:
    key = plan.model.info.inference_key
    more = {"run_id": run_id, "error_code": error_code, "decode_note": decode_note}
    more |= OUTCOMES[status]
    put_results(tables, result_rows(list(images), key=key, **more))


def test_the_accounts_close_over_all_four_kinds(tables: Tables, motion: ModelVersion) -> None:
    plan = plan_of(tables, motion, "abcdef")
    done(tables, plan, "a", run_id="earlier")
    done(tables, plan, "b", "failed", run_id="earlier")
    plan = plan_pass(tables, DetectPass(motion), Scope())
    done(tables, plan, "c")
    done(tables, plan, "d", "empty")
    done(tables, plan, "e", "nothing")
    done(tables, plan, "f", "failed")
    counts = read_back(tables, plan, RUN)
    assert counts == Counts(requested=6, ok=1, empty=2, failed=1, reused=2, detections=4, bytes=40, failed_before=1)
    assert counts.closed
    assert counts.inferred == 4
    assert counts.line() == "requested 6 = ok 1 + empty 2 + failed 1 + reused 2"


def test_rows_of_other_images_and_models_are_not_counted(tables: Tables, motion: ModelVersion) -> None:
    plan = plan_of(tables, motion, "ab")
    done(tables, plan, "abxy")
    put_results(tables, result_rows(["a", "b"], key="another", run_id=RUN))
    assert read_back(tables, plan, RUN).ok == 2


@pytest.mark.parametrize(("there", "lacking"), [("a", 2)])
def test_a_missing_row_leaves_the_accounts_open(tables: Tables, motion: ModelVersion, there: str, lacking: int) -> None:
    plan = plan_of(tables, motion, "abc")
    done(tables, plan, there)
    with pytest.raises(AccountingOpen, match=f"requested 3 != .*: {lacking} images have no row"):
        read_back(tables, plan, RUN)


@pytest.mark.parametrize("twice", ["aaab"])
def test_a_doubled_row_leaves_the_accounts_open(tables: Tables, motion: ModelVersion, twice: str) -> None:
    plan = plan_of(tables, motion, "abc")
    done(tables, plan, "abc")
    done(tables, plan, twice)
    with pytest.raises(AccountingOpen, match=f"^{len(set(twice))} images have more than one row"):
        read_back(tables, plan, RUN)


@pytest.mark.parametrize(
    ("before", "now", "worked"),
    [
        ("", "ff", "all 2 images of this scope have failed; see: resight sql"),
        ("ff", "", "all 2 images of this scope have failed"),
        ("oo", "a", "all 1 images this run has tried failed"),
        ("oo", "ad", "all 2 images this run has tried failed"),
        ("oo", "dd", ""),  # caused by the images
        ("", "of", ""),
    ],
)
def test_a_run_in_which_every_image_failed_has_not_worked(
    tables: Tables, motion: ModelVersion, before: str, now: str, worked: str
) -> None:
    """Statuses by first letter: results of earlier runs, and of this run."""
    names = {"o": "ok", "e": "empty"}
    codes = {"a": "access", "d": "decode"}
    images = "abcd"[: len(before + now)]
    plan = plan_of(tables, motion, images)
    for image, letter in zip(images, before, strict=False):
        done(tables, plan, image, names.get(letter, "failed"), "earlier")
    plan = plan_pass(tables, DetectPass(motion), Scope())
    for image, letter in zip(images[len(before) :], now, strict=True):
        done(tables, plan, image, names.get(letter, "failed"), error_code=codes.get(letter))
    if worked:
        with pytest.raises(NothingWorked, match=worked):
            read_back(tables, plan, RUN)
    else:
        assert read_back(tables, plan, RUN).closed


@pytest.mark.parametrize(("code", "worked"), [("decode", True), ("access", False)])
def test_the_only_new_image_may_be_a_damaged_one(tables: Tables, motion: ModelVersion, code: str, worked: bool) -> None:
    done(tables, plan_of(tables, motion, "a"), "a", run_id="earlier")
    plan = plan_of(tables, motion, "b", Scope(status="missing"))
    assert plan.requested == 1
    done(tables, plan, "b", "failed", error_code=code)
    if worked:
        assert read_back(tables, plan, RUN) == Counts(requested=1, failed=1, bytes=10)
    else:
        with pytest.raises(NothingWorked):
            read_back(tables, plan, RUN)


@pytest.mark.parametrize(("statuses", "want"), [(["empty", "failed", "ok", "nothing", "ok"], Counts(9, 2, 2, 1, 1, 6))])
def test_progress_adds_the_rows_of_a_chunk(motion: ModelVersion, statuses: list[str], want: Counts) -> None:
    tally = PassTally(DetectPass(motion), Counts(requested=9, reused=1))
    tables = [result_rows(["x"], **OUTCOMES[status]) for status in statuses]
    rows = pa.concat_tables(tables) if tables else result_rows([])
    counts = tally.add(rows)
    assert counts == want
    assert not counts.closed


def test_images_with_damaged_data_are_counted_within_the_accounts(tables: Tables, motion: ModelVersion) -> None:
    """The note is that of the decoder, for a JPEG cut to 4 % of its bytes."""
    whole = (ROOT / "examples/photos/moose.jpg").read_bytes()
    note = decode(whole[: len(whole) // 25]).note
    plan = plan_of(tables, motion, "abc")
    rows = [result_rows(["a"], decode_note=note), result_rows(["b"], decode_note="alpha_dropped")]
    assert PassTally(DetectPass(motion), Counts(3)).add(pa.concat_tables(rows)).partly_decoded == 1
    done(tables, plan, "a", decode_note=note)
    done(tables, plan, "b", "empty", decode_note=f"{note}; cmyk_converted")
    done(tables, plan, "c", decode_note="alpha_dropped")
    counts = read_back(tables, plan, RUN)
    assert (counts.ok, counts.empty, counts.partly_decoded) == (2, 1, 2)


def test_the_first_files_that_failed_are_named(tables: Tables, motion: ModelVersion) -> None:
    plan = plan_of(tables, motion, "abcdefgh")
    done(tables, plan, "a", "failed", run_id="earlier", error_code="decode")
    done(tables, plan, "bcdefgh", "failed", error_code="decode")
    log = RunLog(tables, RunSpec(run_id=RUN, model="motion"), motion.info)
    log.write("failed", Counts(failed=7))
    failed = failures(tables, RUN)
    first = {"file": "b", "error_code": "decode", "error_detail": None}
    assert (failed.files[0], len(failed.files)) == (first, SHOWN)
    assert failed.lines()[0].startswith("failed: b: decode")
    assert len(query(tables, failed.statement)) == 7
    assert failures(tables, "unknown").lines() == []


def test_an_image_is_empty_in_the_report_in_sql_and_over_http_alike(tables: Tables, motion: ModelVersion) -> None:
    """An image is empty if nothing of it is shown, even if detections are stored, and never if it failed."""
    plan = plan_of(tables, motion, "abcdef")
    for image, outcome in zip("abcde", ("ok", "ok", "empty", "nothing", "failed"), strict=True):
        done(tables, plan, image, outcome)
    done(tables, plan, "f", "ok", run_id="earlier")
    counts = read_back(tables, plan_pass(tables, DetectPass(motion), Scope()), RUN)
    assert (counts.ok, counts.empty, counts.failed, counts.reused) == (2, 2, 1, 1)
    key, least = motion.info.inference_key, motion.detector_config.thresholds.default
    model = {"model_name": "motion", "model_version": "1", "weights_sha256": "w"}
    view = View.model_validate({"inference_key": key, "threshold": least, **model})
    Views(tables.url).publish(view, after=0)

    def told() -> dict[str, str]:
        """Count images by status, on which SQL and the API must agree."""
        sql = "select status, string_agg(media_sha256, '' order by media_sha256) from results group by all"
        with connect(tables) as relations:
            by_status = dict(relations.sql(sql).fetchall())
        for status, images in by_status.items():
            found = find(tables, ImageSearch.model_validate({"status": status}), 60).images
            assert sorted(one["media_sha256"] for one in found) == sorted(images)
            assert {one["status"] for one in found} == {status}
        return by_status

    assert told() == {"ok": "abf", "empty": "cd", "failed": "e"}
    moment = {"layer_id": "human", "method": "human", "asserted_at": datetime.now(UTC)}
    box = dict.fromkeys(("x1_px", "y1_px"), 1.0) | dict.fromkeys(("x2_px", "y2_px"), 9.0)
    said = [{"media_sha256": "a", "action": "suppress"}, {"media_sha256": "c", "action": "add", "label": "fox", **box}]
    append(tables, pa.Table.from_pylist([moment | one for one in said], schema=ASSERTIONS))
    assert told() == {"ok": "bcf", "empty": "ad", "failed": "e"}
    (fox,) = find(tables, ImageSearch(label="fox"), 60).images
    assert fox["media_sha256"] == "c"

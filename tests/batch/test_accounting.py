"""Accounts that close, and every way in which they do not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from archive.schemas import MEDIA
from archive.tables import Tables
from batch.accounting import Counts, read_back
from batch.plan import Plan, make_plan
from batch.scope import Scope
from model_store.errors import AccountingOpen, NothingWorked
from model_store.store import ModelVersion
from tests.fixtures_local import put_results, result_rows

RUN = "this-run"


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def plan_of(tables: Tables, motion: ModelVersion, images: str, scope: Scope | None = None) -> Plan:
    """A plan for images named by one letter, 10 bytes each."""
    rows = [
        {"media_sha256": name, "source_root": "/a", "path": name, "size_bytes": 10}
        for name in images
    ]
    table = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", table, "test", lambda _, wanted: wanted)
    return make_plan(tables, motion, scope or Scope())


def done(
    tables: Tables,
    plan: Plan,
    images: str,
    status: str = "ok",
    run_id: str = RUN,
    error_code: str | None = None,
) -> None:
    key, n = plan.model.info.inference_key, 2 if status == "ok" else 0
    more = {"run_id": run_id, "n_detections": n, "error_code": error_code}
    put_results(tables, result_rows(list(images), key=key, status=status, **more))


def test_a_run_for_nothing_closes(tables: Tables, motion: ModelVersion) -> None:
    plan = plan_of(tables, motion, "a", Scope(kind="status", status="failed"))
    assert read_back(tables, plan, RUN) == Counts()


def test_the_accounts_close_over_all_four_kinds(tables: Tables, motion: ModelVersion) -> None:
    plan = plan_of(tables, motion, "abcdef")
    done(tables, plan, "ab", run_id="earlier")
    plan = make_plan(tables, motion, Scope())
    done(tables, plan, "c")
    done(tables, plan, "de", "empty")
    done(tables, plan, "f", "failed")
    counts = read_back(tables, plan, RUN)
    assert counts == Counts(requested=6, ok=1, empty=2, failed=1, reused=2, detections=2, bytes=40)
    assert counts.closed
    assert counts.inferred == 4
    assert counts.line() == "requested 6 = ok 1 + empty 2 + failed 1 + reused 2"


def test_rows_of_other_images_and_models_are_not_counted(
    tables: Tables, motion: ModelVersion
) -> None:
    plan = plan_of(tables, motion, "ab")
    done(tables, plan, "abxy")
    put_results(tables, result_rows(["a", "b"], key="another", run_id=RUN))
    assert read_back(tables, plan, RUN).ok == 2


@pytest.mark.parametrize(("there", "lacking"), [("", 3), ("a", 2), ("ab", 1)])
def test_a_missing_row_leaves_the_accounts_open(
    tables: Tables, motion: ModelVersion, there: str, lacking: int
) -> None:
    plan = plan_of(tables, motion, "abc")
    done(tables, plan, there)
    with pytest.raises(AccountingOpen, match=f"requested 3 != .*: {lacking} images have no row"):
        read_back(tables, plan, RUN)


@pytest.mark.parametrize("twice", ["a", "ab"])
def test_a_doubled_row_leaves_the_accounts_open(
    tables: Tables, motion: ModelVersion, twice: str
) -> None:
    plan = plan_of(tables, motion, "abc")
    done(tables, plan, "abc")
    done(tables, plan, twice)
    with pytest.raises(AccountingOpen, match=f"{len(twice)} images have more than one row"):
        read_back(tables, plan, RUN)


def test_a_doubled_row_does_not_make_up_for_a_missing_one(
    tables: Tables, motion: ModelVersion
) -> None:
    plan = plan_of(tables, motion, "ab")
    done(tables, plan, "aa")
    with pytest.raises(AccountingOpen):
        read_back(tables, plan, RUN)


@pytest.mark.parametrize(
    ("before", "now", "worked"),
    [
        ("", "ff", "every one of 2 images of this scope has failed; see: resight sql"),
        ("ff", "", "every one of 2 images of this scope has failed"),
        ("f", "f", "every one of 2 images of this scope has failed"),
        ("oo", "f", "every one of 1 images this run has tried failed"),
        ("oo", "a", "every one of 1 images this run has tried failed"),
        ("oo", "ad", "every one of 2 images this run has tried failed"),
        ("oo", "dd", ""),  # the images' own fault
        ("", "dd", "every one of 2 images of this scope has failed"),
        ("", "of", ""),
        ("", "fe", ""),
        ("f", "o", ""),
        ("of", "", ""),
    ],
)
def test_a_run_in_which_every_image_failed_has_not_worked(
    tables: Tables, motion: ModelVersion, before: str, now: str, worked: str
) -> None:
    """Statuses by first letter: what earlier runs had found, and what this run finds."""
    names = {"o": "ok", "e": "empty"}
    codes = {"a": "access", "d": "decode"}
    images = "abcd"[: len(before + now)]
    plan = plan_of(tables, motion, images)
    for image, letter in zip(images, before, strict=False):
        done(tables, plan, image, names.get(letter, "failed"), "earlier")
    plan = make_plan(tables, motion, Scope())
    for image, letter in zip(images[len(before) :], now, strict=True):
        done(tables, plan, image, names.get(letter, "failed"), error_code=codes.get(letter))
    if worked:
        with pytest.raises(NothingWorked, match=worked):
            read_back(tables, plan, RUN)
    else:
        assert read_back(tables, plan, RUN).closed


@pytest.mark.parametrize(("code", "worked"), [("decode", True), ("access", False)])
def test_the_only_new_image_may_be_a_damaged_one(
    tables: Tables, motion: ModelVersion, code: str, worked: bool
) -> None:
    done(tables, plan_of(tables, motion, "a"), "a", run_id="earlier")
    plan = plan_of(tables, motion, "b", Scope(kind="status", status="missing"))
    assert plan.requested == 1
    done(tables, plan, "b", "failed", error_code=code)
    if worked:
        assert read_back(tables, plan, RUN) == Counts(requested=1, failed=1, bytes=10)
    else:
        with pytest.raises(NothingWorked):
            read_back(tables, plan, RUN)


@pytest.mark.parametrize(
    ("statuses", "want"),
    [
        ([], Counts(requested=9, reused=1)),
        (["ok"], Counts(requested=9, ok=1, reused=1, detections=2)),
        (["empty", "failed", "ok", "ok"], Counts(9, 2, 1, 1, 1, 4)),
    ],
)
def test_progress_adds_the_rows_of_a_chunk(statuses: list[str], want: Counts) -> None:
    counts = Counts(requested=9, reused=1)
    tables = [
        result_rows(["x"], status=status, **({"n_detections": 2} if status == "ok" else {}))
        for status in statuses
    ]
    counts = counts.plus(pa.concat_tables(tables) if tables else result_rows([]))
    assert counts == want
    assert not counts.closed

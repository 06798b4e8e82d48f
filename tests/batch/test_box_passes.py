"""Test the passes over boxes alike, without a cluster: what is due, rows stored once, accounts closed, resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import archive.delta.tables
import batch.crops.write
import batch.pipeline.read_image
import batch.runs.run
from batch.runs.scope import Scope
from batch.schedule.policy import Stop
from model_store.errors import AccountingOpen, NothingWorked, StorageUnreachable, TooManyFailed
from tests.batch.box_bench import BOX, BoxBench, png
from tests.batch.classify import bench as classify
from tests.batch.crops import bench as crops
from tests.batch.embed import bench as embed
from tests.fixtures_local import put_results, result_rows, rows_of
from tests.support.hosts import HOST

Turn = Callable[[], None]


@pytest.fixture(params=[classify, embed, crops], ids=["classify", "embed", "snips"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> BoxBench:
    made: BoxBench = request.param.make(tmp_path)
    if isinstance(made, classify.ClassifyBench):
        made.publish(person=0.7)
    return made


@pytest.fixture
def three(bench: BoxBench) -> dict[str, str]:
    return bench.three()


@pytest.fixture(autouse=True)
def turn(bench: BoxBench, monkeypatch: pytest.MonkeyPatch) -> Turn:
    """Run without a cluster, and without waiting; the returned function reverses the order of images."""
    for retried in (batch.pipeline.read_image._read.retry, batch.crops.write._retrying):
        monkeypatch.setattr(retried, "sleep", lambda _: None)
    return bench.without_ray(monkeypatch)


def wanted(bench: BoxBench, images: int, boxes: int) -> int:
    """Return the units of so many images with so many shown boxes."""
    return boxes if bench.units == "detections" else images


def first(bench: BoxBench) -> str:
    return bench.labels[0]


def ran(bench: BoxBench, run_id: str = "r1", **fields: Any) -> tuple[int, int, int, int]:
    counts = bench.counts(run_id, **fields)
    assert counts.closed
    return counts.requested, counts.ok, counts.failed, counts.reused


def same_rows(bench: BoxBench) -> list[dict[str, Any]]:
    """Return the rows without what differs from run to run."""
    varies = {"run_id", "finished_at"}
    rows = [{k: v for k, v in row.items() if k not in varies} for row in bench.stored]
    return sorted(rows, key=lambda row: (row["media_sha256"], row.get("rank", 0)))


# what is due


def test_what_is_shown_is_due(bench: BoxBench, three: dict[str, str]) -> None:
    plan, units = bench.plan(), wanted(bench, 2, 3)
    assert bench.due(plan) == {three["both"]: [0, 1], three["one"]: [1]}
    assert (plan.requested, plan.todo, plan.images, plan.rows, plan.reused) == (units, units, 2, 3, 0)  # fmt: skip
    assert plan.roots() == [str(bench.root)]


def test_images_without_a_result_of_the_key_or_with_a_failed_one_have_nothing(bench: BoxBench) -> None:
    bench.catalogue("unseen.png", png(1))
    failed = bench.catalogue("failed.png", png(2))
    put_results(bench.tables, result_rows([failed], bench.key, "failed", error_code="decode"))
    other = bench.catalogue("other.png", png(3))
    put_results(bench.tables, result_rows([other], "another key", "ok"))
    plan = bench.plan()
    assert (plan.requested, plan.todo, plan.images, plan.rows) == (0, 0, 0, 0)
    assert plan.some(8).num_rows == 0


def test_copies_are_one_image_at_all_of_its_places(bench: BoxBench) -> None:
    sha = bench.add("b/1.png", png(1), [(0.9, first(bench), BOX)])
    bench.catalogue("a/1.png", png(1))
    plan = bench.plan()
    (row,) = bench.todo(plan)
    assert (row["media_sha256"], row["path"], plan.requested) == (sha, "a/1.png", 1)
    assert [place["path"] for place in row["elsewhere"]] == ["b/1.png"]


@pytest.mark.parametrize(("code", "again"), [("access", True), ("decode", False)])
def test_failures_that_are_not_the_images_own_are_due_again(
    bench: BoxBench, three: dict[str, str], code: str, again: bool
) -> None:
    bench.put([(three["both"], 0), (three["both"], 1)])
    bench.put([(three["one"], 1)], "failed", error_code=code)
    plan = bench.plan()
    assert bench.due(plan) == ({three["one"]: [1]} if again else {})
    rows = bench.todo(plan)
    assert [row["replaces"] for row in rows] == ([True] if again else [])
    assert [box["replaces"] for row in rows for box in row["boxes"]] == ([True] if again else [])


def test_too_large_is_due_again_once_the_limit_lets_it_through(bench: BoxBench) -> None:
    sha = bench.add("a.png", png(1), [(0.9, first(bench), BOX)], size_px=(2000, 1000))
    bench.put([(sha, 0)], "failed", error_code="too_large")
    assert bench.plan(megapixels=1).todo == 0
    assert bench.plan(megapixels=2).todo == 1


# the run


def test_a_second_run_reads_and_writes_nothing(bench: BoxBench, three: dict[str, str]) -> None:
    units = wanted(bench, 2, 3)
    assert ran(bench) == (units, units, 0, 0)
    rows, files = bench.stored, bench.tables.snapshot(bench.table).file_uris()
    for file in bench.root.rglob("*.png"):
        file.unlink()
    assert ran(bench, "r2") == (units, 0, 0, units)
    assert bench.stored == rows
    assert bench.tables.snapshot(bench.table).file_uris() == files


def test_another_order_and_other_commits_give_the_same_rows(bench: BoxBench, three: dict[str, str], turn: Turn) -> None:
    bench.counts()
    rows = same_rows(bench)
    shutil.rmtree(f"{bench.tables.url}/{bench.table}")
    turn()
    bench.counts("r2", commit_s=1e-9)
    assert same_rows(bench) == rows
    assert bench.tables.snapshot(bench.table).version() == 2, "a commit for each of two images"


def test_a_failure_is_rows_which_a_later_run_replaces(bench: BoxBench, three: dict[str, str]) -> None:
    def states() -> set[tuple[str, str, str | None, str]]:
        names = {sha: name for name, sha in three.items()}
        fields = ("status", "error_code", "run_id")
        return {(names[row["media_sha256"]], *(row[f] for f in fields)) for row in bench.stored}  # type: ignore[misc]

    file, bad = bench.root / "both" / "a.png", wanted(bench, 1, 2)
    data = file.read_bytes()
    file.unlink()
    assert ran(bench) == (bad + 1, 1, bad, 0)
    one = ("one", "ok", None, "r1")
    assert states() == {("both", "failed", "access", "r1"), one}
    file.write_bytes(b"another picture")
    with pytest.raises(NothingWorked, match=f"all {bad} {bench.units} this run has tried failed.*from {bench.table}"):
        bench.counts("r2")
    assert states() == {("both", "failed", "changed", "r2"), one}
    file.write_bytes(data)
    assert ran(bench, "r3") == (bad + 1, bad, 0, 1)
    assert states() == {("both", "ok", None, "r3"), one}
    assert len(bench.stored) == bad + 1


def test_replacing_a_failure_leaves_the_rows_of_other_settings(bench: BoxBench, three: dict[str, str]) -> None:
    file = bench.root / "one" / "a.png"
    data = file.read_bytes()
    file.unlink()
    bench.counts("r1")
    bench.counts("r2", **bench.another)
    file.write_bytes(data)
    bench.counts("r3")
    assert len(bench.stored) == 2 * wanted(bench, 2, 3)
    assert [row["run_id"] for row in bench.stored if row["status"] == "failed"] == ["r2"]


def test_two_runs_at_once_leave_one_row_a_unit(
    bench: BoxBench, three: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, units = HOST.rows, wanted(bench, 2, 3)
    turns: list[tuple[int, int, int, int]] = []

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(HOST, "rows", inner)
        turns.append(ran(bench, "r2"))
        yield from inner(*args)

    monkeypatch.setattr(HOST, "rows", overtaken)
    assert ran(bench) == (units, 0, 0, units)
    assert turns == [(units, units, 0, 0)]
    assert [row["run_id"] for row in bench.stored] == ["r2"] * units


def kill(bench: BoxBench, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Execute a run that is stopped after its first image."""
    inner = HOST.rows

    def killed(*args: Any) -> Any:
        yield next(inner(*args))
        raise SystemExit(143)

    monkeypatch.setattr(HOST, "rows", killed)
    with pytest.raises(SystemExit):
        bench.counts(**fields)
    monkeypatch.setattr(HOST, "rows", inner)


@pytest.mark.parametrize("bench", [classify, embed], ids=["classify", "embed"], indirect=True)
@pytest.mark.parametrize("status", ["missing", "failed"])
def test_a_killed_run_of_a_status_ends_as_an_undisturbed_one(
    bench: BoxBench, three: dict[str, str], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Rows written before the kill are in its scope, and therefore in its accounts."""
    if status == "failed":
        both, one = three["both"], three["one"]
        which = [(both, 0), (both, 1), (one, 1)]
        bench.put(which, "failed", error_code="decode")
    scope = Scope(status=status)  # type: ignore[arg-type]
    kill(bench, monkeypatch, scope=scope)
    assert ran(bench, scope=scope) == (3, 3, 0, 0)


@pytest.mark.parametrize("bench", [embed], ids=["embed"], indirect=True)
def test_a_killed_run_keeps_its_view(
    bench: embed.EmbedBench, three: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch)
    bench.add("new/a.png", png(7), [(0.9, first(bench), BOX)], key="another")
    bench.publish("another")
    assert ran(bench) == (3, 3, 0, 0)
    assert ran(bench, "r2") == (1, 1, 0, 0)


def test_a_lost_answer_is_not_written_twice(
    bench: BoxBench, three: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, units = archive.delta.tables._commit, wanted(bench, 2, 3)

    def commit_and_lose_the_answer(*args: Any) -> None:
        commit(*args)
        if bench.table in str(args[0].table_uri):
            raise OSError("reset by peer")

    bench.tables.snapshot(bench.table)
    monkeypatch.setattr("archive.delta.tables._commit", commit_and_lose_the_answer)
    monkeypatch.setattr("archive.delta.tables.time.sleep", lambda _: None)
    assert ran(bench) == (units, units, 0, 0)
    assert len(bench.stored) == units


def test_a_missing_or_doubled_row_leaves_the_accounts_open(
    bench: BoxBench, three: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit with three rows counts once, as one that has more than one row."""
    inner, units = HOST.rows, wanted(bench, 2, 3)
    monkeypatch.setattr(HOST, "rows", lambda *a: (r.slice(0, 1) for r in list(inner(*a))[:1]))
    lacking = f"{units - 1} {bench.units} have no row in {bench.table}"
    with pytest.raises(AccountingOpen, match=rf"{units} .*!= .* 1 \+ failed 0 .*: {lacking}"):
        bench.counts("r1")
    if isinstance(bench, classify.ClassifyBench):  # snips are part of a detection run
        assert max(rows_of(bench.tables, "runs"), key=lambda row: row["event"])["state"] == "failed"
    monkeypatch.setattr(HOST, "rows", inner)
    rows = bench.tables.snapshot(bench.table).to_pyarrow_table()
    for _ in range(2):
        bench.tables.append(bench.table, rows, "test", lambda _, wanted: wanted)
        words = f"^1 {bench.units} have more than one row in {bench.table}"
        with pytest.raises(AccountingOpen, match=words):
            bench.counts("r2")


def test_too_many_failures_stop_it_and_keep_what_was_done(bench: BoxBench) -> None:
    for seed in range(6):
        bench.add(f"{seed}.png", png(seed), [(0.9, first(bench), BOX)])
        if seed:
            (bench.root / f"{seed}.png").unlink()
    with pytest.raises(TooManyFailed, match=f"error_code in {bench.table}"):
        bench.counts(stop=Stop(failed_frac=0.5, failed_after=4))
    assert 4 <= len(bench.stored) < 6


def test_an_unavailable_archive_is_an_error_before_any_row(bench: BoxBench, three: dict[str, str]) -> None:
    bench.root.rename(bench.root.parent / "unmounted")
    with pytest.raises(StorageUnreachable, match="is it mounted"):
        bench.counts()
    assert bench.stored == []

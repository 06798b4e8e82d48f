"""Test that rows are committed exactly once, despite other writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import archive.delta.tables
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.pipeline.commit import Committer
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, plan_pass
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.store import ModelVersion
from tests.fixtures_local import put_results, result_rows, rows_of

FAILED = Scope(status="failed")


class Bench:
    """Six images, named by a letter, and a committer for a scope of them."""

    def __init__(self, place: Path, motion: ModelVersion) -> None:
        self.tables, self.motion = Tables(str(place)), motion
        self.key = motion.info.inference_key
        rows = [{"media_sha256": n, "source_root": "/a", "path": n, "size_bytes": 1} for n in "abcdef"]
        media = pa.Table.from_pylist(rows, schema=MEDIA)
        self.tables.append("media", media, "test", lambda _, wanted: wanted)

    def plan(self, scope: Scope) -> Plan:
        return plan_pass(self.tables, DetectPass(self.motion), scope)

    def committer(self, run_id: str = "r1", scope: Scope | None = None, commit_s: float = 3600) -> Committer:
        scope = scope or Scope()
        spec = RunSpec(run_id=run_id, model="motion@1", scope=scope, commit_s=commit_s)
        return Committer(self.tables, spec, self.plan(scope))

    def rows(self, images: str, status: str = "ok", run_id: str = "r1", replaces: bool = False) -> pa.Table:
        rows = result_rows(list(images), key=self.key, status=status, run_id=run_id)
        return rows.append_column("replaces", pa.array([replaces] * len(rows), pa.bool_()))

    def put(self, images: str, status: str, run_id: str = "r0", **more: Any) -> None:
        rows = result_rows(list(images), key=self.key, status=status, run_id=run_id, **more)
        put_results(self.tables, rows)

    @property
    def there(self) -> list[tuple[str, str, str]]:
        return sorted((row["media_sha256"], row["status"], row["run_id"]) for row in rows_of(self.tables, "results"))


@pytest.fixture
def bench(tmp_path: Path, motion: ModelVersion) -> Bench:
    return Bench(tmp_path, motion)


def test_the_first_rows_are_committed_at_once_and_others_wait_for_the_next_commit(bench: Bench) -> None:
    committer = bench.committer()
    committer.add(bench.rows("a"))
    assert [sha for sha, _, _ in bench.there] == ["a"]
    committer.add(bench.rows("b"))
    committer.add(bench.rows("c"))
    assert [sha for sha, _, _ in bench.there] == ["a"]
    committer.flush()
    committer.flush()
    assert [sha for sha, _, _ in bench.there] == ["a", "b", "c"]
    assert committer.commits == bench.tables.snapshot("results").version() == 2


def test_once_the_time_has_passed_every_chunk_is_committed(bench: Bench) -> None:
    committer = bench.committer(commit_s=1e-9)
    committer.add(bench.rows("ab"))
    committer.add(bench.rows("c"))
    assert committer.commits == 2
    assert [sha for sha, _, _ in bench.there] == ["a", "b", "c"]


@pytest.mark.parametrize("other", ["b"])
def test_rows_another_run_has_committed_first_are_dropped(bench: Bench, other: str) -> None:
    mine, theirs = bench.committer("r1"), bench.committer("r2")
    theirs.add(bench.rows(other, run_id="r2"))
    theirs.flush()
    mine.add(bench.rows("abc"))
    mine.flush()
    assert bench.there == [(n, "ok", "r2" if n in other else "r1") for n in "abc"]


def test_two_runs_that_commit_in_turns_double_nothing(bench: Bench) -> None:
    one, two = bench.committer("r1"), bench.committer("r2")
    for images in ("ab", "cd", "ef"):
        one.add(bench.rows(images[0], run_id="r1"))
        two.add(bench.rows(images, run_id="r2"))
        one.flush()
        two.flush()
    assert [sha for sha, _, _ in bench.there] == list("abcdef")


def test_two_retries_at_once_leave_one_row_an_image(bench: Bench) -> None:
    bench.put("ab", "failed")
    one, two = bench.committer("r1", FAILED), bench.committer("r2", FAILED)
    one.add(bench.rows("a", "ok", "r1", replaces=True))
    one.flush()
    two.add(bench.rows("ab", "ok", "r2", replaces=True))
    two.flush()
    assert bench.there == [("a", "ok", "r1"), ("b", "ok", "r2")]


def test_a_run_replaces_what_could_not_be_read_and_appends_the_rest(bench: Bench) -> None:
    bench.put("a", "failed", error_code="access")
    bench.put("b", "failed")
    committer = bench.committer("r1")
    committer.add(bench.rows("a", replaces=True))
    committer.add(bench.rows("cd"))
    committer.flush()
    assert bench.there == [(n, "failed" if n == "b" else "ok", "r0" if n == "b" else "r1") for n in "abcd"]


def test_a_lost_answer_to_a_retry_is_not_written_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("ab", "failed")
    retry = bench.committer("r1", FAILED)
    retry.add(bench.rows("ab", "failed", replaces=True))
    commit = archive.delta.tables._commit

    def commit_and_lose_the_answer(*args: object) -> None:
        commit(*args)
        raise OSError("reset by peer")

    monkeypatch.setattr("archive.delta.tables._commit", commit_and_lose_the_answer)
    monkeypatch.setattr("archive.delta.tables.time.sleep", lambda _: None)
    retry.flush()
    assert bench.there == [("a", "failed", "r1"), ("b", "failed", "r1")]
    assert bench.tables.snapshot("results").version() == 2

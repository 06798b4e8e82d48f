"""kill -9 of the recorder of uploads, at each point of a commit: every upload has one row, and so in both tables."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from archive.delta.tables import Tables
from batch.planning.plan import pinned
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.store import ModelStore
from tests.batch.crash import driver, places
from tests.batch.crash.faults import Act, Fault, Point
from tests.batch.crash.matrix import ALL, KILLED, MODEL, PROCESSES, Place, finish, seed
from tests.batch.crash.recording import Task, record_all
from tests.fixtures_local import MODELS, rows_of

IMAGES = ALL[:24]
TABLES = ("media", "results")
BY_KERNEL = ("data", "log", "ack")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return places.local(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str) -> Iterator[Place]:
    with places.s3(tmp_path_factory.mktemp("recorder"), s3_endpoint) as place:
        yield place


class Desk:
    """Tables of their own in a place, and recorders that write to them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.scratch / uuid4().hex
        self.folder.mkdir()
        (self.folder / "recorded").touch()
        self.tables = Tables(f"{place.url}/{self.folder.name}")
        self.key = pinned(ModelStore(str(MODELS)), MODEL).info.inference_key

    def task(self, fault: Fault | None = None, meet: object = None) -> Task:
        return Task(
            self.tables.url,
            str(self.folder / "uploads"),
            IMAGES,
            self.key,
            str(self.folder / "recorded"),
            str(self.place.orders),
            fault,
            meet,
            self.place.environment,
        )

    def record(self, *faults: Fault | None) -> list[int | None]:
        """Recorders at once; how they ended."""
        meet = PROCESSES.Barrier(len(faults)) if len(faults) > 1 else None
        return finish([PROCESSES.Process(target=record_all, args=(self.task(f, meet),)) for f in faults])

    def require_all_once(self) -> None:
        for name in TABLES:
            found = Counter(row["media_sha256"] for row in rows_of(self.tables, name))
            assert found == Counter(IMAGES), name


@dataclass(frozen=True)
class Twice:
    """A driver of a run meets others once: when it has planned. This one lets them do their first round then."""

    barrier: Any

    def wait(self, timeout_s: float) -> None:
        for _ in range(2):
            self.barrier.wait(timeout_s)


def require_gone_on_with(place: Place, point: Point, table: str) -> None:
    desk = Desk(place)
    assert desk.record(Fault(point, table=table)) == [KILLED]
    acknowledged = (desk.folder / "recorded").read_text().split()
    there = {row["media_sha256"] for row in rows_of(desk.tables, "results")}
    assert len(acknowledged) == 8, "the second commit of three was to be its last"
    assert set(acknowledged) <= there, "it acknowledged what it had not written"
    assert desk.record(None) == [0]
    desk.require_all_once()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("point", ["log", "ack"])
def test_killed_on_a_local_folder(local: Place, point: Point, table: str) -> None:
    if sys.platform != "linux" and point in BY_KERNEL:
        pytest.skip("needs the file notifications of Linux")
    require_gone_on_with(local, point, table)


def test_killed_on_s3(s3: Place) -> None:
    require_gone_on_with(s3, "ack", "media")
    assert not s3.orders.exists(), "the fault never happened"


@pytest.mark.parametrize(("act", "table"), [("lose", "media"), ("busy", "results")])
def test_a_lost_answer_on_s3(s3: Place, act: Act, table: str) -> None:
    desk = Desk(s3)
    assert desk.record(Fault("ack", act, table=table)) == [0]
    assert not s3.orders.exists(), "the fault never happened"
    desk.require_all_once()


def test_two_recorders_at_once(local: Place) -> None:
    desk = Desk(local)
    assert desk.record(None, None) == [0, 0]
    desk.require_all_once()


def test_a_recorder_beside_a_run_of_the_same_images(local: Place) -> None:
    """Both have every image; each image has one row, and the run accounts for all of them."""
    desk = Desk(local)
    (desk.folder / "archive").mkdir()
    (desk.folder / "archive" / "an image").touch()
    assert seed(desk.tables, desk.folder / "archive", "new") == 60
    meet = PROCESSES.Barrier(2)
    run = driver.Task(
        tables=desk.tables.url,
        spec=RunSpec(run_id="r1", model=MODEL, scope=Scope(), commit_s=1),
        inferred=str(desk.folder / "inferred"),
        said=str(desk.folder / "said"),
        orders=str(local.orders),
        meet=Twice(meet),
    )
    Path(run.inferred).touch()
    ends = finish(
        [
            PROCESSES.Process(target=driver.drive, args=(run,)),
            PROCESSES.Process(target=record_all, args=(desk.task(meet=meet),)),
        ]
    )
    assert ends == [0, 0], Path(run.said).read_text()
    rows = rows_of(desk.tables, "results")
    assert Counter(row["media_sha256"] for row in rows) == Counter(ALL[:60])
    assert {row["run_id"] for row in rows} == {"r1", "upload"}
    counts = max(rows_of(desk.tables, "runs"), key=lambda row: row["event"])["counts"]
    done = counts["ok"] + counts["empty"] + counts["failed"] + counts["reused"]
    assert counts["requested"] == done == 60

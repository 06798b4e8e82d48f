"""Every way in which a run is disturbed. See `matrix.py` for what a case is."""

from __future__ import annotations

from collections.abc import Iterator

from tests.batch.crash.driver import CHUNK_IMAGES, INTERVAL_IMAGES
from tests.batch.crash.faults import Fault, Point
from tests.batch.crash.matrix import KILLED, STOPPED, UNSAFE, Case, Driver, Work

POINTS: dict[Point, str] = {
    "before": "before a commit",
    "data": "while data files are written",
    "log": "data files written, no log entry",
    "ack": "log entry, no answer yet",
    "after": "after a commit",
}
DONE: dict[Point, int] = {"ack": 0, "after": 0}
"""Images redone where the commit had been made; else the whole interval, which was lost with the driver."""
ON_S3 = {("new", "data"), ("new", "log"), ("new", "ack")}
"""The others die there as they do here, and a case on S3 takes a few seconds."""
AGAIN = (Driver("r2"),)
BROKEN_OFF = [("r1", "running"), ("r2", "running"), ("r2", "sealed")]
SEALED = [("r1", "running"), ("r1", "sealed")]
BOTH_SEALED = [("r1", "running"), ("r1", "sealed"), ("r2", "running"), ("r2", "sealed")]


def _killed(work: Work, *points: Point) -> Iterator[Case]:
    for point in points or POINTS:
        driver = Driver("r1", Fault(point, replace=work != "new"), KILLED)
        yield Case(
            f"{work}: kill -9 {POINTS[point]}",
            [[driver], AGAIN],
            BROKEN_OFF,
            work,
            DONE.get(point, INTERVAL_IMAGES),
            None if (work, point) in ON_S3 else "local",
        )


def _other_kills() -> Iterator[Case]:
    first = Fault("log", nth=1)
    yield Case(
        "new: kill -9 in the first commit",
        [[Driver("r1", first, KILLED)], AGAIN],
        BROKEN_OFF,
        redone=CHUNK_IMAGES,  # the first rows are committed at once
        only="local",
    )
    yield Case(
        "new: kill -9 of a run and of its resumption",
        [[Driver("r1", Fault("log"), KILLED)], [Driver("r1", Fault("ack"), KILLED)], [Driver("r1")]],
        [("r1", "running"), ("r1", "running"), *SEALED],
        only="local",
    )
    seal = Fault("before", table="runs", nth=2)
    yield Case(
        "new: kill -9 before the run is sealed",
        [[Driver("r1", seal, KILLED)], AGAIN],
        BROKEN_OFF,
        redone=0,
        only="local",
    )
    sealed = Fault("ack", table="runs", nth=2)
    yield Case(
        "new: kill -9 once it is sealed, unacknowledged",
        [[Driver("r1", sealed, KILLED)], AGAIN],
        BOTH_SEALED,
        redone=0,
        only="local",
    )


def _stopped() -> Iterator[Case]:
    works: dict[Work, tuple[Point, ...]] = {"new": ("before", "log"), "mixed": ("log", "after")}
    for work, points in works.items():
        for point in points:
            driver = Driver("r1", Fault(point, "term", replace=work != "new"), STOPPED)
            yield Case(
                f"{work}: SIGTERM {POINTS[point]}",
                [[driver], AGAIN],
                [("r1", "running"), ("r1", "cancelled"), ("r2", "running"), ("r2", "sealed")],
                work,
                redone=0,
                only=None if (work, point) == ("new", "log") else "local",
            )


def _lost_answers() -> Iterator[Case]:
    for work in ("new", "retry"):
        fault = Fault("ack", "lose", replace=work == "retry")
        yield Case(f"{work}: the answer to a commit is lost", [[Driver("r1", fault)]], SEALED, work, 0)
    seal = Fault("ack", "lose", table="runs")
    yield Case("new: the answer to the seal is lost", [[Driver("r1", seal)]], SEALED, redone=0)


def _busy() -> Iterator[Case]:
    points: dict[Point, str] = {
        "data": "for data files",
        "log": "for the log entry",
        "ack": "for a log entry that is there",
    }
    for point, words in points.items():
        fault = Fault(point, "busy", times=1 if point == "ack" else 3)
        yield Case(f"new: 503 {words}", [[Driver("r1", fault)]], SEALED, "new", 0, "s3")


def _at_once() -> Iterator[Case]:
    for work in ("new", "retry", "mixed"):
        yield Case(
            f"{work}: two runs of one key at once",
            [[Driver("r1"), Driver("r2")]],
            BOTH_SEALED,
            work,
            None,
            None if work == "new" else "local",
        )
    yield Case(
        "new: two drivers of one run at once",
        [[Driver("r1"), Driver("r1")]],
        [("r1", "running"), ("r1", "running"), ("r1", "sealed"), ("r1", "sealed")],
        redone=None,
        only="local",
    )
    killed = Driver("r1", Fault("log", nth=1), KILLED)  # a second commit there may never be
    yield Case("new: two runs at once, kill -9 of one", [[killed, Driver("r2")]], BROKEN_OFF, redone=None, only="local")


def _unsafe() -> Iterator[Case]:
    yield Case(
        "new: a server that ignores conditional PUT",
        [[Driver("r1", ends=UNSAFE)], AGAIN],
        [("r2", "running"), ("r2", "sealed")],
        redone=0,
        only="s3",
    )


CASES = [
    Case("new: undisturbed", [[Driver("r1")]], SEALED, redone=0, only="local"),
    *_killed("new"),
    *_killed("retry", "log", "ack"),
    *_killed("mixed", "log"),
    *_other_kills(),
    *_stopped(),
    *_lost_answers(),
    *_busy(),
    *_at_once(),
    *_unsafe(),
]


def cases(store: str) -> list[Case]:
    return [case for case in CASES if case.only in (None, store)]

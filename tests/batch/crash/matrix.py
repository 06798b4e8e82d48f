"""The crash matrix: what goes wrong, and what is in the tables after the run was asked for again.

CASES x a local folder and S3 -> play(case, place) -> Outcome
Every case starts from 60 catalogued images, ends with a run that is sealed, and is held against the rows that
an undisturbed run leaves.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.planning.plan import pinned
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.store import ModelStore
from tests.batch.crash.driver import COMMIT_CHUNKS, INTERVAL_IMAGES, Task, drive, rows_seen, seen
from tests.batch.crash.faults import Fault
from tests.fixtures_local import MODELS, put_results, result_rows, rows_of
from tests.support.processes import PROCESSES

ALL = [hashlib.sha256(b"image %d" % i).hexdigest() for i in range(100)]
DRIVER_S = 90
MODEL = "motion@1"
KILLED, STOPPED, UNSAFE = -9, 143, 7
Work = Literal["new", "retry", "mixed"]


@dataclass(frozen=True)
class Driver:
    """`run_id`, and what befalls it; drivers of one step run at once."""

    run_id: str = "r1"
    fault: Fault | None = None
    ends: int = 0


@dataclass(frozen=True)
class Case:
    """`work`: images without results; failed ones in a retry (scope status=failed); or both in one run.

    `redone`: images inferred more than once, at most; None where drivers do the same work at once. `states`:
    events of all runs, in the order of their runs.
    """

    name: str
    steps: Sequence[Sequence[Driver]]
    states: Sequence[tuple[str, str]]
    work: Work = "new"
    redone: int | None = INTERVAL_IMAGES
    only: Literal["local", "s3", None] = None


@dataclass(frozen=True)
class Outcome:
    case: str
    store: str
    rows: int
    duplicates: int
    lost: int
    wrong: int
    redone: int
    seconds: float
    exits: list[int] = field(default_factory=list)
    states: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    said: str = ""


@dataclass(frozen=True)
class Place:
    """Where the tables of cases go, and what their drivers need in their environment."""

    store: Literal["local", "s3"]
    scratch: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)
    careless: dict[str, str] = field(default_factory=dict)

    @property
    def orders(self) -> Path:
        return self.scratch / "orders.json"


def expected_exits(case: Case) -> list[int]:
    return [driver.ends for step in case.steps for driver in step]


def play(case: Case, place: Place) -> Outcome:
    """Seed tables, run the drivers of each step at once, look at what is there."""
    folder = place.scratch / uuid4().hex
    (folder / "archive").mkdir(parents=True)
    (folder / "archive" / "an image").touch()
    tables = Tables(f"{place.url}/{folder.name}")
    todo = seed(tables, folder / "archive", case.work)
    (folder / "inferred").touch()
    started_s = time.monotonic()
    exits = [code for step in case.steps for code in _step(step, case, place, folder, tables)]
    seconds = time.monotonic() - started_s
    rows = rows_of(tables, "results")
    found = Counter(row["media_sha256"] for row in rows)
    events = sorted(rows_of(tables, "runs"), key=lambda row: (row["run_id"], row["event"]))
    return Outcome(
        case.name,
        place.store,
        rows=len(rows),
        duplicates=len(rows) - len(found),
        lost=len(set(images_of(case.work)) - set(found)),
        wrong=sum(not _as_seen(row) for row in rows),
        redone=len((folder / "inferred").read_text().split()) - todo,
        seconds=seconds,
        exits=exits,
        states=[(row["run_id"], row["state"]) for row in events],
        counts=max(events, key=lambda row: row["event_at"])["counts"],
        said=(folder / "said").read_text(),
    )


def _step(drivers: Sequence[Driver], case: Case, place: Place, folder: Path, tables: Tables) -> list[int | None]:
    scope = Scope(status="failed") if case.work == "retry" else Scope()
    meet = PROCESSES.Barrier(len(drivers)) if len(drivers) > 1 else None
    careless = any(driver.ends == UNSAFE for driver in drivers)
    processes = []
    for driver in drivers:
        spec = RunSpec(run_id=driver.run_id, model=MODEL, scope=scope, commit_s=COMMIT_CHUNKS)
        task = Task(
            tables=tables.url,
            spec=spec,
            inferred=str(folder / "inferred"),
            said=str(folder / "said"),
            orders=str(place.orders),
            fault=driver.fault,
            meet=meet,
            environment=place.careless if careless else place.environment,
        )
        processes.append(PROCESSES.Process(target=drive, args=(task,)))
    return finish(processes)


def finish(processes: Sequence[Any]) -> list[int | None]:
    """Started at once; how each of them ended."""
    for process in processes:
        process.start()
    for process in processes:
        process.join(DRIVER_S)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def images_of(work: Work) -> list[str]:
    """Digests. A retry has no damaged image: it would fail again in every run, and be tried in the next."""
    return [one for one in ALL if work != "retry" or seen(one)["status"] != "failed"][:60]


def seed(tables: Tables, archive: Path, work: Work) -> int:
    """Catalogue the images, and put what an earlier run has left: failed rows of sound images, which are tried
    again, and in a retry the rows of all others. The number of images that are left to do.
    """
    images, key = images_of(work), pinned(ModelStore(str(MODELS)), MODEL).info.inference_key
    media = [{"media_sha256": one, "source_root": str(archive), "path": one, "size_bytes": 1} for one in images]
    table = pa.Table.from_pylist(media, schema=MEDIA)
    tables.append("media", table, "test", lambda _, wanted: wanted)
    if work == "new":
        return len(images)
    failed = [one for one in images if seen(one)["status"] != "failed"][::2]
    code = "decode" if work == "retry" else "access"
    put_results(tables, result_rows(failed, key, "failed", "before", error_code=code))
    if work == "mixed":
        return len(images)
    put_results(tables, rows_seen(sorted(set(images) - set(failed)), key, "before"))
    return len(failed)


def _as_seen(row: dict[str, Any]) -> bool:
    """Whether a row says what the image shows."""
    (wanted,) = rows_seen([row["media_sha256"]], row["inference_key"], row["run_id"]).to_pylist()
    return {**row, "finished_at": None} == {**wanted, "finished_at": None}

"""Report the plan of a run with an estimate of its time; nothing is written, and no cluster is needed.

seconds = start + images x seconds per image. The start is the median of earlier runs, or START_S. The time per image is
that of the model's newest run at its steady rate. Without one, a few images of the plan are measured in this process
for all cores, if the cluster is on this machine. Otherwise the time is unknown.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archive.delta.tables import Tables
from archive.views.publications import connect_runs
from archive.views.run_kinds import DETECTS
from batch.crops.plan import snips_report
from batch.planning.pass_of import pass_of
from batch.planning.plan import Plan, plan_pass
from batch.runs.resume import tables_of_unsealed
from batch.runs.spec import PassSpec, RunSpec
from model_store.decoders.layout import OutputNonsense
from model_store.errors import ImageError, StorageError
from model_store.load import load_detector
from model_store.machine import usable_cores
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.cluster.head import read_state
from serve.settings import Settings

SAMPLE = 8
START_S = 12.0
"""Start of a run on two idle cores: Ray starts the job and the reading processes; the replica loads the model."""
LAUNCH_S = 5.0
"""Part of it before the run's first event, for runs without their time of submission in the id."""
EARLIER = 5
"""Number of runs for the median, the newest only: hardware changes."""
_SEALED = f"""
    select run_id, inference_key, started_at, event_at, metrics, counts.ok + counts.empty + counts.failed as images
    from runs where state = 'sealed' and {DETECTS} and images > 0 and metrics is not null order by event_at desc
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` is None if unknown; `basis` describes where the estimate comes from."""

    seconds: float | None
    basis: str


def estimate(tables: Tables, plan: Plan, store: ModelStore, measure: bool) -> Estimate:
    """Estimate the run of a plan. `measure`: allow a measurement here if the model has no recorded run."""
    if not plan.todo:
        return Estimate(0.0, "nothing to do")
    runs = _earlier(tables)
    own = [run for run in runs if run.inference_key == plan.model.info.inference_key]
    image_s = next((run.image_s for run in own if run.image_s), None)
    basis = "earlier runs of the model"
    if image_s is None and measure:
        image_s, basis = _measured(plan, store), "a few of its images, measured here"
    if image_s is None:
        return Estimate(None, "no earlier run of the model to compare with")
    starts = [run.start_s(run.image_s or image_s) for run in runs if run.image_s or run in own]
    if not starts:
        basis += f", and {START_S:.0f} s for the start"
    start_s = statistics.median(starts[:EARLIER]) if starts else START_S
    return Estimate(start_s + image_s * plan.todo, basis)


@dataclass(frozen=True, slots=True)
class _Run:
    """A sealed run; `launch_s` from its submission to its first event, `seconds` from there to its report."""

    inference_key: str
    images: int
    launch_s: float
    seconds: float
    image_s: float | None

    def start_s(self, image_s: float) -> float:
        return self.launch_s + max(0.0, self.seconds - self.images * image_s)


def _earlier(tables: Tables) -> list[_Run]:
    """Return sealed runs, newest first, except resumed ones: their images belong to several attempts."""
    with connect_runs(tables) as sql:
        rows = sql.sql(_SEALED).to_arrow_table().to_pylist()
    return [run for row in rows if (run := _run(*row.values()))]


def _run(run_id: str, key: str, began: datetime, ended: datetime, metrics: str, images: int) -> _Run | None:
    timing: Mapping[str, Any] = json.loads(metrics)
    seconds, steady = timing.get("seconds"), timing.get("steady_images_per_s")
    if not seconds or (ended - began).total_seconds() > 2 * seconds + LAUNCH_S:
        return None
    return _Run(key, images, _launch_s(run_id, began), seconds, 1 / steady if steady else None)


def _launch_s(run_id: str, began: datetime) -> float:
    try:
        submitted = datetime.strptime(run_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return LAUNCH_S
    launch_s = (began - submitted).total_seconds()
    return launch_s if 0 <= launch_s < 60 else LAUNCH_S


def _measured(plan: Plan, store: ModelStore) -> float | None:
    """Return seconds per image on all of this machine's cores; None if no image can be read."""
    detector = load_detector(store, plan.model.id)
    seconds: list[float] = []
    for row in plan.some(SAMPLE).to_pylist():
        started = time.perf_counter()
        try:
            detector.detect_encoded(Folder(row["source_root"]).read(row["path"]))
        except (ImageError, OSError, StorageError, OutputNonsense):
            continue
        seconds.append(time.perf_counter() - started)
    return statistics.mean(seconds) / usable_cores() if seconds else None


def dry_run_report(spec: PassSpec, tables: Tables, store: ModelStore) -> dict[str, Any]:
    """Return counts and bytes; of a detection run also an estimate of the time (None if unknown).

    Raises ModelError, StorageError, or BadRequest.
    """
    work, past = pass_of(spec, tables, store), tables_of_unsealed(tables, spec.run_id)
    plan = plan_pass(tables, work, spec.scope, read_only=True, past=past)
    report = {"model": str(work.model.id), **work.facts(plan)}
    if not isinstance(spec, RunSpec):
        return report
    settings = Settings()
    is_here = read_state(settings) is not None or not settings.address
    expected = estimate(tables, plan, store, measure=is_here)
    report["estimate_s"] = expected.seconds and round(expected.seconds, 1)
    report["estimate_from"] = expected.basis
    return report | (snips_report(spec, plan, tables) if spec.snips else {})

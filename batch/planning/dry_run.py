"""Report the plan of a run with an estimate of its time; nothing is written, and no cluster is needed.

seconds = start + images x seconds per image. The start is the median of earlier runs, or START_S. The time per image is
that of the model's newest run at its steady rate. Without one, a few images of the plan are measured in this process
for all cores, if the cluster is on this machine. Otherwise the time is unknown.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from archive.delta.tables import Tables
from archive.views.publications import connect_runs
from archive.views.run_kinds import DETECTS
from batch.crops.plan import snips_report
from batch.pipeline.read_image import image_bytes
from batch.planning.plan import Plan, following, pass_of, plan_ahead
from batch.runs.spec import PassSpec, RunSpec
from model_store.decoders.layout import OutputNonsense
from model_store.errors import ImageError, StorageError
from model_store.load import load_detector
from model_store.machine import usable_cores
from model_store.store import ModelStore
from serve.cluster.head import read_state
from serve.settings import Settings

SAMPLE = 8
START_S = 12.0
"""Start of a run on two idle cores: Ray starts the job and the reading processes; the replica loads the model."""
LAUNCH_S = 5.0
"""Part of it before the run's first event, for runs without their time of submission in the id."""
NEWEST = 5
"""Number of runs for the median, the newest only: hardware changes."""
_EARLIER = f"""
    with sealed as (
        select *, counts.ok + counts.empty + counts.failed as images, (metrics->>'seconds')::double as seconds,
            coalesce((stages->>'wall_s')::double, seconds) as detect_s,
            (metrics->>'steady_images_per_s')::double as steady,
            epoch(started_at) - epoch(try_strptime(run_id[:15], '%Y%m%dT%H%M%S')) as launch_s
        from runs where state = 'sealed' and {DETECTS} and metrics is not null)
    select inference_key = $key, images, if(launch_s >= 0 and launch_s < 60, launch_s, {LAUNCH_S})::double, detect_s,
        1 / nullif(steady, 0)
    from sealed
    where images > 0 and seconds > 0 and epoch(event_at) - epoch(started_at) <= 2 * seconds + {LAUNCH_S}
    order by event_at desc
"""
"""Sealed runs, newest first, except resumed ones: their images belong to several attempts. Whether they are of a key,
images, seconds from the submission to the first event and then to the last detection, and seconds per image."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` is None if unknown; `basis` describes where the estimate comes from."""

    seconds: float | None
    basis: str


def estimate(tables: Tables, plan: Plan, store: ModelStore, measure: bool) -> Estimate:
    """Estimate the run of a plan. `measure`: allow a measurement here if the model has no recorded run."""
    if not plan.todo:
        return Estimate(0.0, "nothing to detect")
    with connect_runs(tables) as sql:
        runs = sql.execute(_EARLIER, {"key": plan.model.info.inference_key}).fetchall()
    image_s = next((image_s for is_own, _, _, _, image_s in runs if is_own and image_s), None)
    basis = "earlier runs of the model"
    if image_s is None and measure:
        image_s, basis = _measured(plan, store), "a few of its images, measured here"
    if image_s is None:
        return Estimate(None, "no earlier run of the model to compare with")
    starts = [
        launch_s + max(0.0, seconds - images * (own_image_s or image_s))
        for is_own, images, launch_s, seconds, own_image_s in runs
        if is_own or own_image_s
    ]
    if not starts:
        basis += f", and {START_S:.0f} s for the start"
    start_s = statistics.median(starts[:NEWEST]) if starts else START_S
    return Estimate(start_s + image_s * plan.todo, basis)


def _measured(plan: Plan, store: ModelStore) -> float | None:
    """Return seconds per image on all of this machine's cores; None if no image can be read."""
    detector = load_detector(store, plan.model.id)
    seconds: list[float] = []
    for row in plan.some(SAMPLE).to_pylist():
        started = time.perf_counter()
        try:
            data = image_bytes(row)
            if not isinstance(data, bytes):
                continue
            detector.detect_encoded(data)
        except (ImageError, StorageError, OutputNonsense):
            continue
        seconds.append(time.perf_counter() - started)
    return statistics.mean(seconds) / usable_cores() if seconds else None


def dry_run_report(spec: PassSpec, tables: Tables, store: ModelStore) -> dict[str, Any]:
    """Return counts, and of a detection run the time, or None. Raises ModelError, StorageError, or BadRequest."""
    work = pass_of(spec, tables, store)
    plan = plan_ahead(spec, work, tables)
    report = {"model": str(work.model.id), **work.facts(plan)}
    if not isinstance(spec, RunSpec):
        return report
    settings = Settings()
    is_here = read_state(settings) is not None or not settings.address
    expected = estimate(tables, plan, store, measure=is_here)
    report["estimate_s"] = expected.seconds and round(expected.seconds, 1)
    apart = " and ".join(name for name in ("snips" if spec.snips else "", spec.then) if name)
    report["estimate_from"] = expected.basis + (f"; without the time of {apart}" if apart else "")
    if next_spec := following(spec, tables, store):
        report["then"] = dry_run_report(next_spec, tables, store)  # of the detections that exist
    return report | (snips_report(spec, plan, tables) if spec.snips else {})

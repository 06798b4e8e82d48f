"""Compute Prometheus metrics of runs, archive and stores from the tables, without a cluster.

(tables, models, view, now) -> Collected(registry, what could not be read); cli/metrics.py prints it or writes it.
docs/reference/metrics.md explains each name. Times are timestamps, not ages: an age in a file would not grow when
the file is no longer written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
from deltalake import DeltaTable
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from archive.defaults import MAX_CAMERAS
from archive.delta.tables import Tables
from archive.schemas import TABLES
from archive.views.health import CameraHealth, Health, health
from archive.views.publications import connect_runs
from archive.views.run_kinds import DETECTS
from archive.views.views import PRODUCTION, View, Views
from batch.schedule.archive_state import SILENT
from model_store.errors import ResightError, StorageUnreachable
from model_store.store import ModelStore

STATES = ("running", "interrupted", "sealed", "failed", "cancelled")
OUTCOMES = ("ok", "empty", "failed", "reused")
RESULTS = ("ok", "failed", "none")
NAMES = {
    "resight_store_up": "1 for a store that can be read and is not empty",
    "resight_table_version": "Delta version of a table",
    "resight_table_files": "Parquet files of a table's newest version",
    "resight_run_state": "1 for the state of the model's newest run",
    "resight_run_stalled": "1 if the model's newest run is recorded as running, but silent",
    "resight_run_requested_images": "Images in the scope of the newest run",
    "resight_run_images": "Images of the newest run by outcome",
    "resight_run_partly_decoded_images": "Images of the newest run of which only a part could be decoded",
    "resight_run_failed_ratio": "Share of failed images among those that the newest run tried",
    "resight_run_last_event_timestamp_seconds": "Last event of the newest run",
    "resight_run_last_sealed_timestamp_seconds": "When a run of the model was last sealed",
    "resight_view_published_timestamp_seconds": "When what the view shows was published",
    "resight_view_images": "Images in the archive by their result in the view",
    "resight_archive_files": "Files in the archive",
    "resight_archive_images": "Images in the archive, by content",
    "resight_archive_ingested_timestamp_seconds": "When the newest file was ingested",
    "resight_cameras_left_out": "Cameras that are reported together, as (others)",
    "resight_camera_newest_image_timestamp_seconds": "Newest image, by the camera's clock or by ingest",
    "resight_camera_images": "Images of the last 7 days and of the 28 before, by the camera's clock",
    "resight_camera_seen_images": "Images of resight_camera_images with a result in the view",
    "resight_camera_blank_ratio": "Share of resight_camera_seen_images without a detection at the view's thresholds",
    "resight_camera_undated_files": "Files without a time",
    "resight_camera_clock_fault_files": "Files of a clock that was not set, excluded from all periods",
    "resight_metrics_duration_seconds": "Time that it took to compute the metrics",
}
_LAST_RUNS = f"""
    with detection_runs as (
        select *, max(event_at) filter (state = 'sealed') over (partition by model_name) as sealed_at
        from runs where {DETECTS})
    select model_name as model, model_version as version,
        if(state = 'running' and event_at < $silent_since, 'interrupted', state) as state,
        epoch(event_at) as event_s, epoch(sealed_at) as sealed_s,
        {{{", ".join(f"'{name}': coalesce(counts.{name}, 0)" for name in ("requested", *OUTCOMES))}}} as counts,
        (metrics->>'partly_decoded')::bigint as partly_decoded
    from detection_runs qualify row_number() over (partition by model order by started_at desc, run_id desc) = 1
    order by model
"""


Sample = tuple[str, float, dict[str, str]]
"""Name, value and labels."""


@dataclass(frozen=True)
class Collected:
    """Metrics, and one error in `problems` for each store that could not be read: its `resight_store_up` is 0."""

    registry: CollectorRegistry
    problems: list[ResightError] = field(default_factory=list)


def collect(
    tables: Tables, models: ModelStore, now: datetime, view_name: str = PRODUCTION, max_cameras: int = MAX_CAMERAS
) -> Collected:
    """Return the metrics; never raises if a store is unavailable. `now` has a time zone (archive/views/health.py)."""
    began_s = time.monotonic()
    problems: list[ResightError] = []
    samples: list[Sample] = []
    with _store("tables", samples, problems):
        view = Views(tables.url).current(view_name)
        found = [*_tables(tables), *_health(health(tables, view, now, max_cameras), view)]
        runs = [sample for run in last_runs(tables, now) for sample in _run(**run)]
        samples += found + runs  # all of it, or nothing
    with _store("models", samples, problems):
        if not any(models.versions(name) for name in models.names()):
            raise StorageUnreachable(f"no model is in {models.url}; is it mounted?")
    samples.append(("resight_metrics_duration_seconds", time.monotonic() - began_s, {}))
    registry = CollectorRegistry()
    registry.register(_Gauges(samples))
    return Collected(registry, problems)


class _Gauges(Collector):
    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[GaugeMetricFamily]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, value, labels in self._samples:
            family = families.setdefault(name, GaugeMetricFamily(name, NAMES[name]))
            family.add_sample(name, labels, value)
        return families.values()


@contextmanager
def _store(what: str, samples: list[Sample], problems: list[ResightError]) -> Iterator[None]:
    try:
        yield
        up = 1
    except ResightError as error:
        problems.append(error)
        up = 0
    samples.append(("resight_store_up", up, {"what": what}))


def last_runs(tables: Tables, now: datetime) -> list[dict[str, Any]]:
    """Return the newest detection run of each model that has one, as arguments of `_run`. Older runs do not matter:
    a run that failed yesterday and succeeded today is not a problem. Raises StorageUnreachable.
    """
    try:
        with connect_runs(tables) as sql:
            return sql.sql(_LAST_RUNS, params={"silent_since": now - SILENT}).to_arrow_table().to_pylist()
    except (duckdb.Error, OSError) as error:
        raise StorageUnreachable(f"cannot read the runs in {tables.url}: {error}") from error


def _run(
    model: str,
    version: str,
    state: str,
    event_s: float,
    sealed_s: float | None,
    counts: Mapping[str, int],
    partly_decoded: int | None,
) -> Iterator[Sample]:
    """Yield the samples of a run; `sealed_s` is when any run of the model was last sealed."""
    labels = {"model": model, "version": version}
    for each in dict.fromkeys((*STATES, state)):
        yield "resight_run_state", each == state, {**labels, "state": each}
    yield "resight_run_stalled", state == "interrupted", labels
    yield "resight_run_requested_images", counts["requested"], labels
    for outcome in OUTCOMES:
        yield "resight_run_images", counts[outcome], {**labels, "outcome": outcome}
    if partly_decoded is not None:
        yield "resight_run_partly_decoded_images", partly_decoded, labels
    seen = counts["failed"] + counts["ok"] + counts["empty"]
    if seen:
        yield "resight_run_failed_ratio", counts["failed"] / seen, labels
    yield "resight_run_last_event_timestamp_seconds", event_s, labels
    if sealed_s is not None:
        yield "resight_run_last_sealed_timestamp_seconds", sealed_s, {"model": model}


def _tables(tables: Tables) -> Iterator[Sample]:
    for name in TABLES:
        table: DeltaTable | None = tables.existing(name)
        if table is not None:
            yield "resight_table_version", table.version(), {"table": name}
            yield "resight_table_files", len(table.file_uris()), {"table": name}


def _health(healthy: Health, view: View | None) -> Iterator[Sample]:
    yield "resight_archive_files", healthy.files, {}
    yield "resight_archive_images", healthy.images, {}
    if healthy.cameras:
        newest = max(camera.newest_ingested_at for camera in healthy.cameras)
        yield "resight_archive_ingested_timestamp_seconds", newest.timestamp(), {}
    yield "resight_cameras_left_out", healthy.left_out, {}
    if view is not None:
        labels = {"view": view.name, "model": view.model_name, "version": view.model_version}
        if view.published_at:
            yield "resight_view_published_timestamp_seconds", view.published_at.timestamp(), labels
        for result in RESULTS:
            yield "resight_view_images", healthy.results.get(result, 0), {**labels, "result": result}
    for camera in healthy.cameras:
        yield from _camera(camera, view)


def _camera(camera: CameraHealth, view: View | None) -> Iterator[Sample]:
    labels = {"camera": camera.name}
    newest = {"clock": camera.newest_taken_at, "ingest": camera.newest_ingested_at}
    for by, moment in newest.items():
        if moment:
            yield "resight_camera_newest_image_timestamp_seconds", moment.timestamp(), {**labels, "by": by}
    for period, counted in (("last_7d", camera.recent), ("28d_before", camera.before)):
        yield "resight_camera_images", counted.images, {**labels, "period": period}
        if view is None:
            continue
        of_view = {**labels, "view": view.name, "period": period}
        yield "resight_camera_seen_images", counted.seen, of_view
        if counted.seen:
            yield "resight_camera_blank_ratio", counted.blank / counted.seen, of_view
    yield "resight_camera_undated_files", camera.undated_files, labels
    yield "resight_camera_clock_fault_files", camera.clock_fault_files, labels

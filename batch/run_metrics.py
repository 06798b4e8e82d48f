"""Runs, archive and stores as Prometheus metrics, computed from the tables: no cluster is asked.

(tables, models, view, now) -> Collected(registry, what could not be read); cli/metrics.py prints it or writes it.
docs/metrics.md explains each name. Moments are told as such, and not as ages: an age in a file would stand still
when the file is no longer written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from deltalake import DeltaTable
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from archive.defaults import MAX_CAMERAS
from archive.health import Camera, Health, health
from archive.schemas import TABLES
from archive.tables import Tables
from archive.views import PRODUCTION, View, Views
from batch.last_runs import LastRun, last_runs
from model_store.errors import ResightError, StorageUnreachable
from model_store.store import ModelStore

STATES = ("running", "interrupted", "sealed", "failed", "cancelled")
OUTCOMES = ("ok", "empty", "failed", "reused")
RESULTS = ("ok", "failed", "none")
WHO = ("model", "version")
NAMES = {
    "resight_store_up": "1 for a store that answers and holds something",
    "resight_table_version": "Delta version of a table",
    "resight_table_files": "Parquet files of a table's newest version",
    "resight_run_state": "1 for the state of the model's newest run",
    "resight_run_stalled": "1 for a newest run that is running by its record, but silent",
    "resight_run_requested_images": "Images in the scope of the newest run",
    "resight_run_images": "Images of the newest run by outcome",
    "resight_run_failed_ratio": "Failed images of the newest run among those it has seen",
    "resight_run_last_event_timestamp_seconds": "Last sign of the newest run",
    "resight_run_last_sealed_timestamp_seconds": "When a run of the model was last sealed",
    "resight_view_published_timestamp_seconds": "When what the view shows was published",
    "resight_view_images": "Images in the archive by what the view has of them",
    "resight_archive_files": "Files in the archive",
    "resight_archive_images": "Images in the archive, by content",
    "resight_archive_ingested_timestamp_seconds": "When the newest file was ingested",
    "resight_cameras_left_out": "Cameras that are told together, as (others)",
    "resight_camera_newest_image_timestamp_seconds": "Newest image, by the camera's clock or by ingest",
    "resight_camera_images": "Images of the last 7 days and of the 28 before, by the camera's clock",
    "resight_camera_seen_images": "Those of them that the view has a result of",
    "resight_camera_blank_ratio": "Those without a detection at the view's thresholds among the seen",
    "resight_camera_undated_files": "Files that do not say when they were taken",
    "resight_camera_clock_fault_files": "Files of a clock that was not set, left out of all periods",
    "resight_metrics_duration_seconds": "How long it took to compute this",
}


@dataclass(frozen=True)
class Collected:
    """`problems` has one error for each store that could not be read; its `resight_store_up` is 0."""

    registry: CollectorRegistry
    problems: list[ResightError] = field(default_factory=list)


def collect(
    tables: Tables,
    models: ModelStore,
    now: datetime,
    view_name: str = PRODUCTION,
    max_cameras: int = MAX_CAMERAS,
) -> Collected:
    """Never raises for a store that is away. `now` has a time zone (archive/health.py)."""
    began_s = time.monotonic()
    problems: list[ResightError] = []
    found = _Families()
    with _store("tables", found, problems):
        samples = _Families()
        view = Views(tables.url).current(view_name)
        _tell_tables(samples, tables)
        _tell_health(samples, health(tables, view, now, max_cameras), view)
        for run in last_runs(tables, now):
            _tell_run(samples, run)
        found.take(samples)  # all of it, or nothing
    with _store("models", found, problems):
        if not any(models.versions(name) for name in models.names()):
            raise StorageUnreachable(f"no model is in {models.url}; is it mounted?")
    found.add("resight_metrics_duration_seconds", time.monotonic() - began_s)
    registry = CollectorRegistry()
    registry.register(found)
    return Collected(registry, problems)


class _Families(Collector):
    """Gauges by name, with their samples."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        self._samples.setdefault(name, []).append((labels, value))

    def take(self, others: _Families) -> None:
        self._samples.update(others._samples)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, samples in self._samples.items():
            family = GaugeMetricFamily(name, NAMES[name])
            for labels, value in samples:
                family.add_sample(name, labels, value)
            yield family


@contextmanager
def _store(what: str, found: _Families, problems: list[ResightError]) -> Iterator[None]:
    try:
        yield
        up = 1
    except ResightError as error:
        problems.append(error)
        up = 0
    found.add("resight_store_up", up, what=what)


def _tell_run(found: _Families, run: LastRun) -> None:
    who = {"model": run.model, "version": run.version}
    for state in dict.fromkeys((*STATES, run.state)):
        found.add("resight_run_state", state == run.state, **who, state=state)
    found.add("resight_run_stalled", run.stalled, **who)
    found.add("resight_run_requested_images", run.counts.get("requested", 0), **who)
    for outcome in OUTCOMES:
        found.add("resight_run_images", run.counts.get(outcome, 0), **who, outcome=outcome)
    failed = run.counts.get("failed", 0)
    seen = failed + run.counts.get("ok", 0) + run.counts.get("empty", 0)
    if seen:
        found.add("resight_run_failed_ratio", failed / seen, **who)
    found.add("resight_run_last_event_timestamp_seconds", run.event_at.timestamp(), **who)
    if run.sealed_at:
        name = "resight_run_last_sealed_timestamp_seconds"
        found.add(name, run.sealed_at.timestamp(), model=run.model)


def _tell_tables(found: _Families, tables: Tables) -> None:
    for name in TABLES:
        table: DeltaTable | None = tables.existing(name)
        if table is not None:
            found.add("resight_table_version", table.version(), table=name)
            found.add("resight_table_files", len(table.file_uris()), table=name)


def _tell_health(found: _Families, healthy: Health, view: View | None) -> None:
    found.add("resight_archive_files", healthy.files)
    found.add("resight_archive_images", healthy.images)
    if healthy.cameras:
        newest = max(camera.newest_ingested_at for camera in healthy.cameras)
        found.add("resight_archive_ingested_timestamp_seconds", newest.timestamp())
    found.add("resight_cameras_left_out", healthy.left_out)
    if view is not None:
        who = {"view": view.name, "model": view.model_name, "version": view.model_version}
        if view.published_at:
            name = "resight_view_published_timestamp_seconds"
            found.add(name, view.published_at.timestamp(), **who)
        for result in RESULTS:
            found.add("resight_view_images", healthy.results.get(result, 0), **who, result=result)
    for camera in healthy.cameras:
        _tell_camera(found, camera, view)


def _tell_camera(found: _Families, camera: Camera, view: View | None) -> None:
    who = {"camera": camera.name}
    newest = {"clock": camera.newest_taken_at, "ingest": camera.newest_ingested_at}
    for by, moment in newest.items():
        if moment:
            name = "resight_camera_newest_image_timestamp_seconds"
            found.add(name, moment.timestamp(), **who, by=by)
    for period, counted in (("last_7d", camera.recent), ("28d_before", camera.before)):
        found.add("resight_camera_images", counted.images, **who, period=period)
        if view is None:
            continue
        of_view = {**who, "view": view.name, "period": period}
        found.add("resight_camera_seen_images", counted.seen, **of_view)
        if counted.seen:
            found.add("resight_camera_blank_ratio", counted.blank / counted.seen, **of_view)
    found.add("resight_camera_undated_files", camera.undated_files, **who)
    found.add("resight_camera_clock_fault_files", camera.clock_fault_files, **who)

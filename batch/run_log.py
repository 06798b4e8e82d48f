"""The record of a run in `runs`: append-only events, the last one is its state.

planned facts + state running | sealed | failed | cancelled + counts -> one row an event
All kinds of runs keep their record here (`archive/run_kinds.py`): whatever has an id and can be written as JSON.
A run that was killed stays `running`; after five minutes without an event the view `runs` says so.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.prune import hold
from archive.run_kinds import RunKind
from archive.schemas import BY_KEY, RUNS
from archive.tables import Tables
from batch.accounting import Counts
from model_store.libraries import library_versions, resight_version
from model_store.store import ModelInfo

State = Literal["running", "sealed", "failed", "cancelled"]


def report_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the job of a sealed run reported, from its last row in `runs`."""
    metrics, stages = (json.loads(run[name] or "{}") for name in ("metrics", "stages"))
    report = {"run_id": run["run_id"], "accounting": run["message"], **metrics}
    report |= {"bottleneck": stages.get("bottleneck")} if stages else {}
    return report | {"counts": run["counts"], "stages": stages}


class RecordedSpec(Protocol):
    """What a run was asked to do, as far as its record needs it: a frozen pydantic model with an id."""

    @property
    def run_id(self) -> str: ...

    def model_dump_json(self) -> str: ...


class RunLog:
    """Events of one run, written by any of its threads. `model` is the one that it ran; of a filter run, the one whose
    detections it was about.
    """

    def __init__(
        self, tables: Tables, spec: RecordedSpec, model: ModelInfo, kind: RunKind = "detect"
    ) -> None:
        self._tables, self._spec, self._model, self._kind = tables, spec, model, kind
        written = tables.snapshot("runs").transaction_version(f"run:{spec.run_id}")
        self._events = written or 0  # a run that is resumed goes on counting
        self._lock = threading.Lock()

    def begin(self, counts: Counts, metrics: Mapping[str, Any] | None = None) -> None:
        """Append the first event; from then on no prune takes rows of the model's key. Plan the run afterwards.

        A prune that looked before the event is refused; one that is done already is seen by the plan.
        Raises StorageUnreachable, TableConflict.
        """
        self.write("running", counts, metrics=metrics)
        for name in BY_KEY:
            if self._tables.existing(name) is not None:
                hold(self._tables, name)

    def write(
        self,
        state: State,
        counts: Counts,
        message: str = "",
        stages: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one event. `metrics`: what a run of this kind counts besides, JSON in the table."""
        with self._lock:
            self._write(state, counts, message, stages, metrics)

    def _write(
        self,
        state: State,
        counts: Counts,
        message: str,
        stages: Mapping[str, Any] | None,
        metrics: Mapping[str, Any] | None,
    ) -> None:
        row = {
            "run_id": self._spec.run_id,
            "event": self._events,
            "state": state,
            "event_at": datetime.now(UTC),
            "inference_key": self._model.inference_key,
            "model_name": self._model.name,
            "model_version": self._model.version,
            "weights_sha256": self._model.weights_sha256,
            "spec": self._spec.model_dump_json(),
            "counts": asdict(counts),
            "message": message[:2000],
            "stages": json.dumps(stages) if stages is not None else None,
            "resight_version": resight_version(),
            "library_versions": json.dumps(library_versions()),
            "kind": self._kind,
            "metrics": json.dumps(metrics) if metrics is not None else None,
        }
        rows = pa.Table.from_pylist([row], schema=RUNS)
        self._tables.append("runs", rows, f"run:{self._spec.run_id}", self._not_yet_there)
        self._events += 1

    def _not_yet_there(self, snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
        """None where its own commit was acknowledged too late; else the event, numbered after those that another
        driver of this run has written meanwhile.
        """
        mine = (pc.field("run_id") == self._spec.run_id) & (
            pc.field("event_at") == rows["event_at"][0]
        )
        if snapshot.to_pyarrow_dataset().count_rows(filter=mine):
            return rows.slice(0, 0)
        self._events = snapshot.transaction_version(f"run:{self._spec.run_id}") or 0
        column = rows.schema.get_field_index("event")
        return rows.set_column(column, "event", pa.array([self._events], pa.int32()))

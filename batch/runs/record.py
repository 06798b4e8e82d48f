"""Record a run in `runs`: append-only events; the last one is the state of the run.

planned facts + state running | sealed | failed | cancelled + counts -> one row per event.
All kinds of runs are recorded here (`archive/views/run_kinds.py`): anything with an id that can be written as JSON.
A killed run stays `running`; after five minutes without an event the view `runs` reports it as interrupted.
An error is found inside the wrappings of Ray, which is not imported.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.retention import block_concurrent_prune
from archive.schemas import BY_KEY, RUNS
from archive.views.publications import last_event
from archive.views.run_kinds import RunKind
from batch.runs.accounting import Counts
from model_store.errors import ResightError, StorageError
from model_store.libraries import library_versions, resight_version
from model_store.store import ModelInfo


def recorded(
    run_log: RunLog,
    counts: Counts,
    error: BaseException,
    stages: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> BaseException:
    """Write an error and what had happened until then to the record of the run; return the error to raise.

    That is the deliberate error inside `error`, if there is one. A sealed run stays sealed: a stop may arrive, or an
    acknowledgement be lost, after that event was committed.
    """
    cause = ours(error) or error
    state = "cancelled" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    with contextlib.suppress(StorageError):  # the first error is the one to raise
        if not run_log.is_sealed():
            run_log.write(state, counts, in_words(cause), stages, metrics)
    return cause


def ours(error: BaseException | None) -> ResightError | None:
    """Return the deliberate error inside the wrappings of Ray and Ray Data, or None.

    Ray's wrapper of an error is an instance of that error's class too, but its message is a whole traceback.
    """
    while error is not None:
        cause: BaseException | None = getattr(error, "cause", None)
        if cause is None and isinstance(error, ResightError):
            return error
        error = cause or error.__cause__
    return None


def in_words(error: BaseException) -> str:
    """Return the message of a deliberate error, the cause of a stop, or the class and message of any other error."""
    if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
        return "stopped by 'resight runs cancel' or SIGTERM"
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    return str(error) if isinstance(error, ResightError) else f"{type(error).__name__}: {error}"


State = Literal["running", "sealed", "failed", "cancelled"]


def report_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the job of a sealed run reported, from its last row in `runs`."""
    metrics, stages = (json.loads(run[name] or "{}") for name in ("metrics", "stages"))
    report = {"run_id": run["run_id"], "accounting": run["message"], **metrics}
    report |= {"bottleneck": stages.get("bottleneck")} if stages else {}
    return report | {"counts": run["counts"], "stages": stages}


class RecordedSpec(Protocol):
    """Spec of a run, as far as its record requires it: a frozen pydantic model with an id."""

    @property
    def run_id(self) -> str: ...

    def model_dump_json(self) -> str: ...


class RunLog:
    """Events of one run, written by any of its threads. `model` made the detections, or classified them."""

    def __init__(self, tables: Tables, spec: RecordedSpec, model: ModelInfo, kind: RunKind = "detect") -> None:
        self._tables, self._spec, self._model, self._kind = tables, spec, model, kind
        self._lock = threading.Lock()

    def begin(self, counts: Counts, metrics: Mapping[str, Any] | None = None) -> None:
        """Append the first event; from then on no prune removes rows of the model's key, or of the one that
        `metrics` has as `inference_key`. Plan the run afterwards.

        A prune that checked before the event is rejected; one that has ended is visible to the plan.
        Raises StorageUnreachable or TableConflict.
        """
        self.write("running", counts, metrics=metrics)
        for name in BY_KEY:
            if self._tables.existing(name) is not None:
                block_concurrent_prune(self._tables, name)

    def is_sealed(self) -> bool:
        """Return whether the last event of the run is `sealed`. Raises StorageError."""
        event = last_event(self._tables, self._spec.run_id)
        return event is not None and event["state"] == "sealed"

    def write(
        self,
        state: State,
        counts: Counts,
        message: str = "",
        stages: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one event. `metrics`: further numbers of this kind of run, JSON in the table."""
        row = {
            "run_id": self._spec.run_id,
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
        with self._lock:
            rows = pa.Table.from_pylist([row], schema=RUNS)
            Writer(self._tables, "runs", self._spec.run_id).append(rows, self._not_yet_there)

    def _not_yet_there(self, snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
        """Return the event with the next number of this run, of any of its drivers; no row if it was committed, but the
        acknowledgement was late.
        """
        own = (pc.field("run_id") == self._spec.run_id) & (pc.field("event_at") == rows["event_at"][0])
        if snapshot.to_pyarrow_dataset().count_rows(filter=own):
            return rows.slice(0, 0)
        number = snapshot.transaction_version(f"run:{self._spec.run_id}") or 0
        column = rows.schema.get_field_index("event")
        return rows.set_column(column, "event", pa.array([number], pa.int32()))

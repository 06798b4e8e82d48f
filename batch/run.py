"""One run, from plan to closed accounts; everything it does is in this order.

pin the model -> plan -> record -> make sure a replica can answer -> stream and commit -> read back
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import structlog
from ray import serve as ray_serve

from archive.tables import Tables
from batch.accounting import Counts, read_back
from batch.commit import ResultCommitter
from batch.pipeline import result_tables
from batch.plan import Plan, make_plan, pinned
from batch.progress import Progress
from batch.read import require_present
from batch.run_log import RunLog
from batch.spec import RunSpec
from model_store.errors import ModelNotReady, ResightError
from model_store.storage import Folder
from model_store.store import ModelStore, ModelVersion
from serve.app_names import APP, DEPLOYMENT

HEARTBEAT_S = 30
LOAD_TIMEOUT_S = 300
log = structlog.get_logger("resight.run")


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a finished run says of itself."""

    counts: Counts
    seconds: float
    images_per_s: float
    steady_images_per_s: float | None


def execute(spec: RunSpec, tables: Tables, store: ModelStore) -> RunReport:
    """Do the run. Raises ResightError (recorded in `runs`) when it does not end well."""
    model = pinned(store, spec.model)
    plan = make_plan(tables, model, spec.scope)
    counts = Counts(len(plan.requested), reused=plan.reused, bytes=plan.todo_bytes)
    run_log = RunLog(tables, spec, model.info)
    log.info(
        "planned", run_id=spec.run_id, model=str(model.id), todo=len(plan.todo), **_plan_facts(plan)
    )
    run_log.write("running", counts)
    progress = Progress(spec.run_id, counts, spec.commit_s)
    try:
        if len(plan.todo):
            for root in plan.todo["source_root"].unique().to_pylist():
                require_present(Folder(root))
            _require_model(model)
            _stream(spec, plan, tables, run_log, progress)
        final = read_back(tables, plan, spec.run_id)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        known = ours(error)
        run_log.write(
            "cancelled" if stopped else "failed", progress.counts, _reason(known or error)
        )
        raise known or error from None
    run_log.write("sealed", final, final.line())
    rate = progress.rate()
    return RunReport(final, progress.elapsed_s(), rate, progress.steady_rate())


def _stream(spec: RunSpec, plan: Plan, tables: Tables, run_log: RunLog, progress: Progress) -> None:
    committer = ResultCommitter(tables, spec, plan)
    beat_s = time.monotonic()
    try:
        for rows in result_tables(spec, plan):
            committer.add(rows)
            progress.arrived(progress.counts.plus(rows))
            if time.monotonic() - beat_s > HEARTBEAT_S:
                run_log.write("running", progress.counts)
                beat_s = time.monotonic()
    finally:  # what has been paid for is kept, also when the run is stopped
        committer.flush()
    progress.say()


def _require_model(model: ModelVersion) -> None:
    """Load and probe in a replica before the first image is read."""
    handle: Any = ray_serve.get_deployment_handle(DEPLOYMENT, APP)
    try:
        handle.ensure.remote(str(model.id)).result(timeout_s=LOAD_TIMEOUT_S)
    except TimeoutError:
        raise ModelNotReady(
            f"no replica has loaded {model.id} in {LOAD_TIMEOUT_S} s; see 'resight status'"
        ) from None


def _plan_facts(plan: Plan) -> dict[str, Any]:
    return {
        "requested": len(plan.requested),
        "reused": plan.reused,
        "files": plan.files,
        "todo_bytes": plan.todo_bytes,
        "inference_key": plan.model.info.inference_key,
    }


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, ResightError) else f"{type(error).__name__}: {error}"


def ours(error: BaseException | None) -> ResightError | None:
    """The deliberate error inside the wrappings of Ray and Ray Data, or None.

    Ray's wrapping of an error is an instance of that error's class too, but says a whole traceback.
    """
    while error is not None:
        cause: BaseException | None = getattr(error, "cause", None)
        if cause is None and isinstance(error, ResightError):
            return error
        error = cause or error.__cause__
    return None

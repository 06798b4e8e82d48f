"""Start and end a job, for every kind of run, on a cluster or on this machine.

python -m batch.… --run_job--> JSON lines and an exit code; begin(settings, here) -> a driver of low priority.
Only a driver on a cluster imports Ray.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import structlog
import typer

from archive.delta.tables import Tables
from batch.jobs.exit_codes import error_of_library, exit_code
from batch.pipeline.stage import RunHost
from batch.runs.options import require_model
from batch.runs.spec import PassSpec
from model_store.errors import ResightError
from model_store.lazy_imports import lazy_imports
from model_store.process_exit import final_exit
from model_store.store import ModelStore
from serve.cluster.head import join
from serve.inference.os_priority import lower_process_priority
from serve.log_config import configure_logs
from serve.settings import Settings

with lazy_imports():
    from batch.planning.dry_run import dry_run_report
    from batch.planning.plan import following

LOGGER = "resight.run"
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the plan and write nothing")]
Here = Annotated[bool, typer.Option("--here", help="run in processes of this machine, without a cluster")]
SIGHUP_EXIT, SIGTERM_EXIT = 129, 143
"""128 + the signal, as in a shell; before the exit, results are committed and the run is recorded."""


def begin(settings: Settings, here: bool) -> None:
    """Connect to Ray unless the run is `here`, exit on SIGTERM, lower the priority. Raises ClusterError."""
    if not here:
        _connect(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))  # after Ray has set its own
    if here and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(SIGHUP_EXIT))
    lower_process_priority()


def host_of(store: ModelStore, here: bool) -> RunHost:
    if here:
        from batch.pipeline.here import OwnProcesses

        return OwnProcesses(store)
    from batch.pipeline.on_cluster import ClusterHost

    return ClusterHost(store)


def carry_out(spec: PassSpec, dry_run: bool, here: bool) -> None:
    """Execute the run of a spec, and the one that follows, and log their reports; with `dry_run`, print the plan.

    Raises ResightError, and then does not begin the next run.
    """
    require_model(spec)
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    if dry_run:
        print(json.dumps(dry_run_report(spec, tables, store)), flush=True)
        return
    next_spec = following(spec, tables, store)  # an unknown classifier must not fail after hours of detection
    begin(settings, here)
    from batch.runs.run import execute

    log: Any = structlog.get_logger(LOGGER)
    report = execute(spec, tables, store, host_of(store, here))
    log.info("report", **report.as_dict())
    if next_spec:
        next_spec = next_spec.model_copy(update={"view": str(report.plan.model.id)})  # the alias may have moved
        log.info("report", **execute(next_spec, tables, store, host_of(store, here)).as_dict())


def run_job(main: Callable[..., None], logger: str) -> None:
    """Run the command line of a job; never returns. After an error, the log ends with `run_failed` of `logger`.

    Raises errors that are neither deliberate nor of a library about storage or memory.
    """
    configure_logs()
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    with final_exit():
        try:
            app()
        except Exception as error:
            known = error if isinstance(error, ResightError) else error_of_library(error)
            if known is None:
                raise
            log_failure(known, logger, error if known is not error else None)
            sys.exit(exit_code(known))


def log_failure(error: Exception, logger: str = LOGGER, cause: Exception | None = None) -> None:
    """Log `run_failed`, the last line of a job that fails, with the traceback of its cause in a library."""
    log: Any = structlog.get_logger(logger)
    log.error("run_failed", kind=type(error).__name__, error=str(error), exc_info=cause)


def _connect(settings: Settings) -> None:
    """Connect to the cluster of this Ray job or, from a shell, to the cluster of this home."""
    if "RAY_ADDRESS" not in os.environ:
        join(settings)  # before Ray is imported: it reads its authentication mode then
    import ray

    # Ray reports dead processes on standard output, within our lines; the log of a Ray job holds both streams
    sys.stdout = open(sys.stderr.fileno(), "w", buffering=1, closefd=False)  # noqa: SIM115
    address = os.environ.get("RAY_ADDRESS", "auto")
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)

"""Start, follow and stop the jobs of runs; a job is a process that executes one run, or several filter runs in order.

jobs_of(settings) -> ClusterJobs, jobs of a Ray cluster, or OwnJobs, processes of this machine
run id --[its job stopped]--> `cancelled` in `runs`, written by the run itself or by `close`
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import RUNS
from batch.jobs.job_log import LogPart
from batch.planning.plan import pinned
from batch.runs.listing import find, page
from batch.runs.options import arguments
from batch.runs.spec import PassSpec, RunSpec
from batch.schedule.archive_state import SILENT, running_run
from model_store.errors import BadRequest, ClusterError, Conflict, ModelError, StorageError
from model_store.process_exit import STOPS
from model_store.store import ModelStore
from serve.cluster.head import has_cluster, join, read_state
from serve.settings import Settings

if TYPE_CHECKING:
    from batch.filters.spec import FilterSpec

OPEN = ("running", "interrupted")
MAX_RUNNING = 1000
"""Maximum number of runs that are recorded as running: they have an event within SILENT."""
STOP_S = 60
"""Time for a stopped job to commit its results and to end."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    status: str  # Ray's: SUCCEEDED, FAILED, STOPPED
    exit_code: int | None
    message: str

    @property
    def killed_by(self) -> str | None:
        """Return the signal that killed the job, such as "SIGKILL"; None if it ended by itself or was stopped."""
        code = self.exit_code or 0
        number = -code if code < 0 else code - 128  # of Python, or of a shell
        names = {each.value: each.name for each in signal.Signals if each not in STOPS}
        return names.get(number)

    @property
    def never_began(self) -> bool:
        """Return whether the job failed before any of our code ran, so that it can be submitted again.

        Ray deletes a code package with the last job that used it, even if the next job has already found it there.
        """
        return self.status == "FAILED" and self.message.startswith("runtime_env setup failed")


class Jobs(Protocol):
    """The jobs of a host."""

    where: str
    """Words on where the jobs run, and why there."""

    def submit(self, module: str, run_id: str, words: Sequence[str], followed: bool) -> str:
        """Start `python -m MODULE WORDS` as the job of a run, and return its id.

        `followed`: a command follows the job. Raises BadRequest if the run is running already.
        """
        ...

    def tail(self, job: str, on_line: Callable[[str], None], enough: Callable[[], bool]) -> JobOutcome:
        """Call `on_line` with each line of the job's log, and return how the job ended.

        Once `enough()` is true, the job may count as succeeded before its processes have ended.
        """
        ...

    def stop(self, run_id: str) -> str | None:
        """Stop the job of a run and wait for its end; return its id, or None without one."""
        ...

    def job_of(self, run_id: str = "") -> tuple[str, str] | None:
        """Return a run and its newest job: of `run_id`, else of the newest running run. None if there is none."""
        ...

    def log(self, run_id: str, after: int | None, max_bytes: int) -> LogPart | None:
        """Return a part of the log of a run's newest job (`job_log.read_part`); None if there is none."""
        ...

    def running(self) -> set[str]:
        """Return the runs of the jobs that have not ended."""
        ...

    def interrupted(self, run_ids: Sequence[str]) -> str:
        """Return a note on these runs, which have ended or continue after Ctrl-C in the command that started them."""
        ...


def jobs_of(settings: Settings, here: bool = False) -> Jobs:
    """Return the jobs of the cluster; of this machine if no cluster is up, or with `here`. Raises ClusterError."""
    if has_cluster(settings) and not here:
        from batch.jobs.cluster_jobs import ClusterJobs

        join(settings)
        return ClusterJobs(settings)
    from batch.jobs.own_jobs import OwnJobs

    why = "--here" if here else "no cluster is up ('resight up' starts one)"
    return OwnJobs(settings, f"runs on this machine: {why}")


def all_jobs(settings: Settings) -> list[Jobs]:
    """Return the jobs of this machine and, if there is one, of the cluster. Raises ClusterError."""
    own = jobs_of(settings, here=True)
    return [own, jobs_of(settings)] if has_cluster(settings) else [own]


def submit(spec: PassSpec, jobs: Jobs, settings: Settings, followed: bool) -> str:
    """Submit a run over images; return the id of its job. Raises what `Jobs.submit` raises."""
    snips = isinstance(spec, RunSpec) and spec.snips
    if snips and settings.address and read_state(settings) is None and not settings.snips:
        raise BadRequest(
            "--snips on the cluster of RESIGHT_ADDRESS: set RESIGHT_SNIPS to a place that its nodes can reach"
        )
    return jobs.submit(spec.job, spec.run_id, arguments(spec), followed)


def submit_filters(specs: Sequence[FilterSpec], jobs: Jobs, settings: Settings, followed: bool = False) -> str:
    """Submit filter runs as one job, in their order; return its id. Raises what `Jobs.submit` raises, StorageError.

    Their specs are files of the tables' folder, because lists in them can be long.
    """
    from batch.filters.spec import MODULE, keep_specs

    keep_specs(settings.tables_url, specs)
    words = [word for spec in specs for word in ("--run-id", spec.run_id)]
    return jobs.submit(MODULE, specs[0].run_id, words, followed)


def submitted_runs(settings: Settings, tables: Tables) -> dict[str, str]:
    """Return the jobs, by their runs, that have not ended and have recorded nothing yet. Raises StorageError.

    Those of a cluster that does not answer are missing.
    """
    found: dict[str, str] = {}
    with contextlib.suppress(ClusterError):
        for jobs in all_jobs(settings):
            new = [run for run in jobs.running() if find(tables, run) is None]
            found |= {run: job[1] for run in new if (job := jobs.job_of(run))}
    return found


def ended_here(settings: Settings, tables: Tables) -> set[str]:
    """Return the runs of this machine that were killed within SILENT: recorded as running, with processes that have
    ended, and without a job of the cluster. Empty if the cluster does not answer.
    """
    from batch.jobs.own_jobs import OwnJobs

    ended = OwnJobs(settings, "").ended(time.time() - SILENT.total_seconds())
    if ended:
        ended &= {run["run_id"] for run in page(tables, MAX_RUNNING, state="running")}
    if ended and has_cluster(settings):
        try:
            return ended - jobs_of(settings).running()
        except ClusterError:
            return set()
    return ended


def running_elsewhere(jobs: Jobs, settings: Settings) -> set[str]:
    """Return the runs that are running as jobs of the other host; none if it does not answer."""
    found: set[str] = set()
    with contextlib.suppress(ClusterError):
        for others in all_jobs(settings):
            found |= others.running() if type(others) is not type(jobs) else set()
    return found


def require_startable(
    spec: PassSpec, jobs: Jobs, elsewhere: Collection[str], tables: Tables, store: ModelStore, alone: bool
) -> None:
    """Raise BadRequest if the run is one of those running `elsewhere`. With `alone`, raise Conflict if another run of
    the same model version is running.

    A run that was killed has no such job, and does not keep another from its images. Without access to the tables or
    the model, which only the cluster's nodes may have, nothing is checked.
    """
    if spec.run_id in elsewhere:
        raise BadRequest(is_running_words(spec.run_id))
    run = None
    if alone:
        others = {*elsewhere, *jobs.running()} - {spec.run_id}
        with contextlib.suppress(ModelError, StorageError):
            key = pinned(store, spec.model).info.inference_key
            run = running_run(tables, key, datetime.now(UTC), others)
    if run:
        raise Conflict(
            f"run {run} of the same model is running, and images of both runs would be processed twice: follow it with "
            f"'resight runs attach {run}', or start this one too with --allow-concurrent"
        )


def is_running_words(run_id: str) -> str:
    """Return the text of the error for a run that is started while it is running."""
    return (
        f"run {run_id} is running; follow it with 'resight runs attach {run_id}', stop it with "
        f"'resight runs cancel {run_id}', or leave out --run-id to start another"
    )


def continuing_words(run_ids: Sequence[str]) -> str:
    """Return a text on how to follow and how to stop runs that continue."""
    many, run = len(run_ids) > 1, run_ids[0]
    them = "them" if many else "it"
    return (
        f"{'runs' if many else 'run'} {', '.join(run_ids)} {'continue' if many else 'continues'}; follow {them} with: "
        f"resight runs attach {run}; stop {them} with: resight runs cancel {run}"
    )


def close(tables: Tables, run_id: str, job: str | None, ended: Collection[str] = ()) -> str:
    """Record that a run is cancelled, unless it did so itself; return its state. `job`: the job that was stopped.

    Raises BadRequest if the run is unknown or has ended. Raises Conflict if it is running, but not as a job of this
    machine or its cluster, and not one of those that `ended_here`.
    """
    state = _state(tables, run_id)
    if state is None and job is None:
        raise BadRequest(f"unknown run '{run_id}': see resight runs list")
    if state is None:
        return "cancelled before it began"
    if state not in OPEN and job is None:
        raise BadRequest(f"run {run_id} has ended: it is {state}")
    if state == "running" and job is None and run_id not in ended:
        raise Conflict(
            f"run {run_id} is running, but no job of this machine or its cluster belongs to it: stop it where it was "
            "started; five minutes after its last event it counts as interrupted and can be cancelled"
        )
    if state in OPEN:
        rows = pa.Table.from_pylist([{"run_id": run_id}], schema=RUNS)
        Writer(tables, "runs", run_id).append(rows, _cancelled)
    return str(_state(tables, run_id))


def is_interrupted(tables: Tables, run_id: str) -> bool:
    """Return whether the run is recorded as running, but has written no event for five minutes."""
    return _state(tables, run_id) == "interrupted"


def _state(tables: Tables, run_id: str) -> str | None:
    run = find(tables, run_id)
    return run["state_now"] if run else None


def _cancelled(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """Return the event to append, with the fields of the last one; no row if the run has ended by itself."""
    run_id = rows["run_id"][0].as_py()
    events: list[dict[str, Any]] = dataset(snapshot, RUNS).to_table(filter=ds.field("run_id") == run_id).to_pylist()
    last = max(events, key=lambda event: event["event"])
    if last["state"] != "running":
        return rows.slice(0, 0)
    event = last | {
        "event": last["event"] + 1,
        "state": "cancelled",
        "event_at": datetime.now(UTC),
        "message": "cancelled by resight runs cancel",
    }
    return pa.Table.from_pylist([event], schema=RUNS)

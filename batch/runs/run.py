"""Execute one run, from plan to closed accounting; its steps are in this order.

pin the inputs -> same run as before? -> record -> plan -> PassRun: make sure a replica can answer, stream and commit,
read back -> a PassRun for snips, with --snips -> seal -> publish, if nothing is published yet
`report_of_nothing` ends a run without anything to do in the process of the command.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import structlog

from archive.delta.tables import Tables
from archive.retention import remember_store
from archive.views.publications import last_event, last_sealed
from batch.pipeline.commit import Committer
from batch.pipeline.drain import into_table
from batch.pipeline.here import OwnProcesses
from batch.pipeline.stage import RunHost
from batch.planning.id_list import keep_ids
from batch.planning.passes import Pass
from batch.planning.plan import Plan, following, pass_of, plan_ahead, plan_pass
from batch.runs.accounting import Counts, PassTally, planned_counts, read_back
from batch.runs.heartbeat import heartbeat
from batch.runs.post_run import afterwards, extrapolated, try_steps
from batch.runs.progress import Progress, TimeByStage
from batch.runs.record import RunLog, recorded
from batch.runs.resume import require_same_run, tables_of_run
from batch.runs.spec import PassSpec, RunSpec
from model_store.errors import ResightError
from model_store.lazy_imports import lazy_imports
from model_store.process_exit import lasting_stops
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.cluster.head import read_state
from serve.settings import Settings

with lazy_imports():
    from batch.crops.plan import plan_snips

log = structlog.get_logger("resight.run")


@dataclass(frozen=True, slots=True)
class RunReport:
    """Report of a finished run of a plan, which its job logs last; `run_id` is None if nothing had to be run.

    `stages` and `rates` are as in `batch/runs/progress.py`, `more` has fields that only some runs have.
    """

    run_id: str | None
    plan: Plan
    counts: Counts
    seconds: float
    rates: Mapping[str, float | None]
    stages: Mapping[str, Any]
    more: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; the counts have the names of the pass."""
        work = self.plan.work
        return {
            "run_id": self.run_id,
            "accounting": self.counts.line(work.line),
            "counts": work.counts(self.counts, self.plan),
            **work.noted(self.counts),
            "seconds": round(self.seconds, 2),
            **_rounded(self.rates),
            "bottleneck": self.stages.get("bottleneck"),
            "stages": self.stages,
            **work.reported(self.plan),
            **self.more,
        }


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value and round(value, 2) for name, value in figures.items()}


def execute(spec: PassSpec, tables: Tables, store: ModelStore, host: RunHost, compacting: bool = True) -> RunReport:
    """Execute the run on a host, `compacting` as in `afterwards`. Raises ResightError (recorded in `runs`)."""
    work = pass_of(spec, tables, store)
    require_same_run(tables, spec, work.model, store)
    keep_ids(tables.url, spec.scope.ids)
    run_log = RunLog(tables, spec, work.model.info, spec.run_kind)
    run = PassRun(spec, work, tables, host)
    past = tables_of_run(tables, spec.run_id)
    try:
        with lasting_stops():
            began = {"began_on": past.moment, "inference_key": work.key["inference_key"], **work.inputs()}
            run_log.begin(run.progress.counts, began)
            remember_store(tables.url, store.url)
            with heartbeat(lambda: run_log.write("running", run.progress.counts)):
                plan = plan_pass(tables, work, spec.scope, past=past)
                if plan.todo:
                    log.info("planned", run_id=spec.run_id, model=str(work.model.id), **work.facts(plan))
                final = run.carry_out(plan)
                stages, lines, more = run.spent(), [final.line(work.line)], dict[str, Any]()
                if isinstance(spec, RunSpec) and spec.snips:
                    snips = plan_snips(tables, plan, spec)
                    if snips.todo:
                        log.info("snips_planned", run_id=spec.run_id, wanted=snips.requested, todo=snips.todo)
                    made = PassRun(spec, snips.work, tables, host).carry_out(snips)
                    more["snips"] = snips.work.counts(made)
                    lines.append(made.line(snips.work.line))
            seconds, rates = run.progress.elapsed_s(), run.progress.rates()
            measured = {"seconds": seconds, **(rates if plan.todo else {})}
            metrics = work.metrics(plan) | _rounded(measured) | work.noted(final)
            run_log.write("sealed", final, "; ".join(lines), stages | more, metrics)
    except BaseException as error:
        stages = run.spent() if run.stages.ms else None
        cause = recorded(run_log, run.progress.counts, error, stages)
        raise cause from cause.__cause__  # without the traceback of Ray's wrapper
    rate = run.progress.steady_rate() or run.progress.rate()
    more |= afterwards(spec, plan, tables, store, rate, compacting)
    return RunReport(spec.run_id, plan, final, seconds, rates, stages, more)


def report_of_nothing(spec: PassSpec, settings: Settings, tables: Tables, store: ModelStore) -> dict[str, Any] | None:
    """Return what the job of this run would report; None if there is something to do. Raises ResightError.

    The report of the run that follows, if any, is its field `then`.

    Nothing is recorded, unless this run has begun and is not sealed, or no run of the key is: results without a sealed
    run cannot be published. Nothing is compacted, because a command or request waits for this.
    """
    try:
        work = pass_of(spec, tables, store)
        require_same_run(tables, spec, work.model, store)
        next_spec = following(spec, tables, store)
        plan = plan_ahead(spec, work, tables)
    except ResightError:
        if read_state(settings) is not None or not settings.address:
            raise
        return None  # only the cluster's nodes can read the tables or models
    if plan.todo:
        return None
    snips = plan_snips(tables, plan, spec, read_only=True) if isinstance(spec, RunSpec) and spec.snips else None
    if snips and snips.todo:
        return None
    then: dict[str, Any] = {}
    if next_spec:
        then["then"] = report_of_nothing(next_spec, settings, tables, store)
        if then["then"] is None:
            return None
    event, detects, sample = last_event(tables, spec.run_id), spec.run_kind == "detect", spec.scope.sample
    is_first = detects and not (event or sample or last_sealed(tables, work.key["inference_key"]))
    if is_first or (event and event["state"] != "sealed"):
        return execute(spec, tables, store, OwnProcesses(store), compacting=False).as_dict() | then
    counts = read_back(tables, plan, spec.run_id)
    more: dict[str, Any] = {"snips": snips.work.counts(read_back(tables, snips, spec.run_id))} if snips else {}
    if detects and sample and plan.requested:
        more |= try_steps(spec.run_id, partial(extrapolated, plan, tables, store, 0.0))
    report = RunReport(None, plan, counts, 0.0, Progress("", counts, 0.0, work).rates(), {}, more)
    return report.as_dict() | then


class PassRun:
    """Carry out the plan of one pass of a run: stream its rows into the table, and count them there."""

    def __init__(self, spec: PassSpec, work: Pass, tables: Tables, host: RunHost) -> None:
        self.progress = Progress(spec.run_id, Counts(), spec.commit_s, work)
        self._spec, self._work, self._tables, self._host = spec, work, tables, host
        self.stages = TimeByStage()
        self._committer: Committer | None = None

    def carry_out(self, plan: Plan) -> Counts:
        """Return the final counts. Raises ResightError; rows committed before it are kept."""
        self.progress.counts = planned_counts(plan)
        if plan.todo:
            for root in plan.roots():
                Folder(root).require_present()
            self._work.prepare(self._tables)
            self._committer = Committer(self._tables, self._spec, plan)
            self._committer.require_space()
            with contextlib.ExitStack() as lease:
                if self._work.needs_replica:
                    lease.enter_context(self._host.leased(self._work.model, self._spec.run_id))
                self._stream(plan, self._committer)
        return read_back(self._tables, plan, self._spec.run_id)

    def spent(self) -> dict[str, Any]:
        """Return the times by stage."""
        commit_s = self._committer.seconds if self._committer else 0.0
        threads = self._host.threads(self._spec)
        return self.stages.report(self.progress.elapsed_s(), commit_s, threads, self._work.by_node)

    def _stream(self, plan: Plan, committer: Committer) -> None:
        tally = PassTally(self._work, self.progress.counts)

        def arrived(rows: pa.Table) -> Counts:
            if self._work.needs_replica:
                self.stages.add(rows)
            self.progress.arrived(tally.add(rows))
            return tally.counts

        self.progress.begin()
        rows = self._host.rows(self._spec, plan)
        into_table(rows, self._tables, committer, self._spec.stop, tally.counts, arrived)
        self.progress.log_progress()

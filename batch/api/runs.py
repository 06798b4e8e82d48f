"""Routes of runs and publications: what the commands `reprocess` and `runs` do, with the same checks and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from archive.delta.tables import Tables
from archive.views.run_kinds import RunKind
from archive.views.views import PRODUCTION, View, Views
from batch.api.filters import caller
from batch.jobs.control import Jobs, close, ended_here, require_startable, submit
from batch.jobs.job_log import LogPart
from batch.planning.dry_run import dry_run_report
from batch.publishing.impact.report import impact_report
from batch.publishing.publish import publish_by_policy, rollback, rollback_words
from batch.runs.listing import RunRow, RunState, ShownState, page, require_run, rows_of, state_of
from batch.runs.run import report_of_nothing
from batch.runs.spec import RUN_ID, RunSpec, new_run_id
from batch.schedule.archive_state import wanted_version
from batch.schedule.policy import Policy, policy_of
from model_store.errors import ModelNotFound
from model_store.frozen import Frozen
from model_store.store import ModelStore
from serve.api.bodies import SmallBodyRoute
from serve.inference.admission import Threads
from serve.settings import Settings

MAX_PLANS = 2
"""Maximum concurrent plans and comparisons: each reads all results of a model."""
LOG_BYTES = 64 * 1024


class RunRequest(RunSpec):
    """Request for a detection run: a spec. Limits and settings of snips that are missing are those of the policy."""

    model: str = Field(
        default="", description="name, name@version or name:alias; default: the published model, or the only one"
    )
    run_id: str = Field(
        default_factory=new_run_id, pattern=RUN_ID, description="new, or of the run to resume; default: from the time"
    )
    allow_concurrent: bool = Field(default=False, description="start also while another run of the model is running")
    dry_run: bool = Field(default=False, description="return the plan and start nothing")

    def spec(self, model: str, policy: Policy, started_by: str | None) -> RunSpec:
        given = self.model_dump(exclude={"allow_concurrent", "dry_run"}, exclude_unset=True)
        fields = {"run_id": self.run_id, "model": model, "started_by": started_by}
        fields["stop"] = policy.stop.model_dump() | given.get("stop", {})
        if self.snips:
            fields["snips"] = policy.snips.model_dump() | given["snips"]
        return RunSpec.model_validate(given | fields)


class Started(BaseModel):
    """A run that was started. `job` is null if nothing had to be done, or after a dry run."""

    run_id: str
    model: str
    scope: str
    job: str | None = None
    plan: dict[str, Any] | None = Field(default=None, description="of a dry run")
    report: dict[str, Any] | None = Field(default=None, description="if nothing had to be done")


class RunPage(BaseModel):
    runs: list[RunRow]
    next: str | None = Field(description="`before` of the next page; null on the last one")


class Cancelled(BaseModel):
    run_id: str
    state: str
    job: str | None


class ViewChange(Frozen):
    """Fields of both changes of a view."""

    view: str = PRODUCTION
    reason: str = Field(default="", max_length=2000, description="stored with the publication")


class RollBack(ViewChange):
    """Request for a roll-back."""

    after: int | None = Field(
        default=None, description="serial of the current publication; if another one is current, nothing is changed"
    )


class Publication(ViewChange):
    """Request for a publication."""

    override: str | None = Field(
        default=None, max_length=2000, description="publish although gates fail, for this reason"
    )


class Published(BaseModel):
    """The current publication of a view; `notes` describe what a roll-back undid, and what the next one would undo."""

    view: View
    changed: bool = True
    notes: list[str] = []


def router(settings: Settings, tables: Tables, hosts: Sequence[Jobs]) -> APIRouter:
    """Return the routes of runs. New runs are jobs of the first host; those of the others are shown and cancelled."""
    routes = APIRouter(tags=["runs"], route_class=SmallBodyRoute)
    store, plans = ModelStore(settings.models_url), Threads(MAX_PLANS, "plans are being made", MAX_PLANS)

    @routes.get("/")
    def runs(
        before: Annotated[str | None, Query(description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        state: ShownState | None = None,
        kind: RunKind | None = None,
    ) -> RunPage:
        """Return runs, newest first."""
        found = page(tables, limit + 1, before, state, kind, ended_here(settings, tables))
        shown = rows_of(tables, found[:limit])
        return RunPage(runs=shown, next=shown[-1].run_id if len(found) > limit else None)

    @routes.post("/", status_code=202)
    async def start(request: RunRequest, http: Request) -> Started:
        """Start a run of a model on the images without results, or return its plan."""
        return await plans.run(_start, settings, tables, store, hosts, request, caller(http))

    @routes.get("/diff")
    async def diff(old: str, new: str, samples: Annotated[int, Query(ge=0, le=50)] = 6) -> dict[str, Any]:
        """Return what would change if the results of NEW were published in place of those of OLD."""
        report = await plans.run(impact_report, settings, tables, store, old, new, samples)
        return report.as_json()

    @routes.post("/rollback")
    def roll_back(change: RollBack) -> Published:
        """Undo the newest change of a view."""
        view = rollback(tables, change.view, change.reason, change.after)
        return Published(view=view, notes=rollback_words(tables, view))

    @routes.get("/{run_id}")
    def run(run_id: str) -> RunState:
        """Return the state of a run of any kind, with its counts and its pace."""
        return state_of(tables, require_run(tables, run_id, ended_here(settings, tables)))

    @routes.get("/{run_id}/log")
    def log(run_id: str, after: Annotated[int | None, Query(ge=0)] = None) -> LogPart:
        """Return whole lines of the log of the run's newest job from byte `after`, by default the last ones."""
        for jobs in sorted(hosts, key=lambda jobs: run_id not in jobs.running()):  # it may have begun on another one
            if part := jobs.log(run_id, after, LOG_BYTES):
                return part
        raise ModelNotFound(f"no log of run '{run_id}' on this host: see resight logs --run {run_id}")

    @routes.post("/{run_id}/cancel")
    def cancel(run_id: str) -> Cancelled:
        """Stop a run and keep its committed results."""
        job = next((job for jobs in hosts if (job := jobs.stop(run_id))), None)
        if job is None:
            require_run(tables, run_id)
        return Cancelled(run_id=run_id, state=close(tables, run_id, job, ended_here(settings, tables)), job=job)

    @routes.post("/{run_id}/publish")
    async def publish(run_id: str, change: Publication) -> Published:
        """Make the results of a sealed run, or of the newest one of name@version, those that a view shows."""
        return await plans.run(_publish, settings, tables, store, run_id, change)

    return routes


def _start(
    settings: Settings,
    tables: Tables,
    store: ModelStore,
    hosts: Sequence[Jobs],
    request: RunRequest,
    started_by: str | None,
) -> Started:
    """Start the requested run unless there is nothing to do; with `dry_run`, only plan it."""
    model = request.model or str(wanted_version(store, Views(tables.url).current()).id)
    spec = request.spec(model, policy_of(settings), started_by)
    started = Started(run_id=spec.run_id, model=spec.model, scope=spec.scope.words())
    if request.dry_run:
        return started.model_copy(update={"plan": dry_run_report(spec, tables, store)})
    if report := report_of_nothing(spec, settings, tables, store):
        return started.model_copy(update={"report": report})
    jobs, *others = hosts
    elsewhere = {run for other in others for run in other.running()}
    require_startable(spec, jobs, elsewhere, tables, store, alone=not request.allow_concurrent)
    return started.model_copy(update={"job": submit(spec, jobs, settings, followed=False)})


def _publish(settings: Settings, tables: Tables, store: ModelStore, run_id: str, change: Publication) -> Published:
    before = Views(tables.url).current(change.view)
    view = publish_by_policy(settings, tables, store, run_id, change.view, change.reason, change.override)
    return Published(view=view, changed=view != before)

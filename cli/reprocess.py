"""The commands `plan, reprocess, classify, embed`: run a detector on images without results, others on detections."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from batch.runs.options import require_model, scope_arguments, takes_scope, takes_spec
from batch.runs.spec import ClassifySpec, EmbedSpec, RunSpec
from cli.archive import catalogue, explained
from cli.follow import prepare_here, run_to_end
from cli.layers import note_never_run
from cli.models import MODEL
from cli.output import Format, FormatOption, HereOption, console, in_words, note, print_facts
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.catalogue.roots import contains
    from archive.delta.tables import Tables
    from archive.views.query import archives
    from archive.views.views import Views
    from batch.jobs.control import ended_here
    from batch.planning.dry_run import dry_run_report
    from batch.publishing.impact.verdict import failed_gates
    from batch.publishing.publish import publish
    from batch.runs.scope import Scope
    from batch.schedule.archive_state import wanted_version
    from batch.schedule.decision_log import keep_decision
    from batch.schedule.policy import policy_of
    from batch.schedule.report import PlanReport, plan_report
    from batch.schedule.run_if_due import Needed, if_needed, recorded_publication, rolled_back_since
    from model_store.storage import absolute
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="print the plan and write nothing")]
FollowOption = Annotated[bool, typer.Option(help="wait until the run ends")]
_NOT_FACTS = ("changes", "reasons", "decision", "until")
CLASSES = "select label, count(*), avg(score) from classifications where status = 'ok' group by label order by 2 desc"
WIDEST = 44
"""Maximum characters of a value in a line of a plan; digests and lists of labels are longer."""


@app.command()
@takes_scope()
def plan(
    scope: Scope,
    model: Annotated[str, typer.Option("--model", help=MODEL)] = "",
    keep: Annotated[bool, typer.Option("--keep", help="record the decision in the table 'decisions'")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Show what a reprocess would change and cost, and whether it is due under the policy. Needs no cluster.

    Compares the model with the published one field by field, and counts the images without a result.
    Example: resight plan --model ssdlite-coco --camera north --since 2026-05-01
    """
    settings = Settings()
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    policy = policy_of(settings)
    version = wanted_version(store, Views(tables.url).current(), model)
    report = plan_report(tables, store, policy, version, scope, ended_here(settings, tables))
    if keep:
        keep_decision(tables, report.facts, report.decision, datetime.now(UTC), acted=False)
    if fmt is Format.table:
        _print_plan(report)
    else:
        print_facts(report.as_dict(), fmt)


@app.command()
@takes_spec(RunSpec)
def reprocess(
    spec: RunSpec,
    archive: Annotated[
        str,
        typer.Argument(
            metavar="[FOLDER]",
            help="folder or s3://bucket/prefix: catalogue it first as 'resight ingest', then run on its images only",
        ),
    ] = "",
    dry_run: DryRunOption = False,
    needed: Annotated[
        bool, typer.Option("--if-needed", help="run only what is due under the policy; safe in cron")
    ] = False,
    publishes: Annotated[
        bool, typer.Option("--publish", help="with --if-needed: publish the results if all gates pass")
    ] = False,
    concurrent: Annotated[
        bool,
        typer.Option(
            "--allow-concurrent",
            help="start also while another run of the model is running; images of both are processed twice",
        ),
    ] = False,
    here: HereOption = False,
    follow: FollowOption = True,
    fmt: FormatOption = Format.table,
) -> None:
    """Run one model version on all images of the scope. To resume, run it again.

    With FOLDER, its archive is catalogued first, unless with --dry-run; exit code 1 if files of it could not be read.
    Default of --model: the published model, or the only one in the store. If the plan is empty, the command ends
    there. Otherwise it starts `python -m batch.reprocess`
    as a job of the cluster; on this machine if no cluster is up. It ends with the exit code of that job.
    Example: resight reprocess --model ssdlite-coco --camera north --since 2026-05-01 --dry-run
    """
    settings = Settings()
    if archive:
        spec = _within(spec, archive)
    if follow and not (needed or dry_run):
        prepare_here(spec, settings, here)
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    if needed:
        _require_alone(spec, dry_run, publishes, follow)
        _if_needed(spec, settings, tables, store, publishes, follow, fmt, here)
        return
    if publishes:
        raise BadRequest("--publish needs --if-needed; to publish a run: resight runs publish RUN")
    if not spec.model:
        model = wanted_version(store, Views(tables.url).current())
        note(f"model: {model.id}")
        spec = spec.model_copy(update={"model": str(model.id)})
    if dry_run:
        report = dry_run_report(spec, tables, store)
        if fmt is Format.table:
            unknown = "unknown" if report["estimate_s"] is None else report["estimate_s"]
            report |= {"estimate_s": unknown}
        print_facts(report, fmt)
        if archive:
            note(f"a dry run catalogues nothing: to count new files too, run 'resight ingest {archive}' first")
        return
    complete = not archive or _catalogued(settings, tables, archive)
    alone = not concurrent
    print_facts(run_to_end(spec, settings, tables, store, follow, fmt, here, alone), fmt)
    if not complete:
        raise typer.Exit(1)


@app.command()
@takes_spec(ClassifySpec)
def classify(
    spec: ClassifySpec,
    dry_run: DryRunOption = False,
    here: HereOption = False,
    follow: FollowOption = True,
    fmt: FormatOption = Format.table,
) -> None:
    """Run a classifier on crops of the detections that the published view shows. To resume, run it again.

    If the plan is empty, the command ends there. Otherwise it starts `python -m batch.classify`
    as a job of the cluster; on this machine if no cluster is up. It ends with the exit code of that job.

    Example: resight classify --model efficientnet-lite0@1 --labels animal --dry-run
    """
    _run_on_crops(spec, dry_run, here, follow, fmt)
    if follow and not dry_run:
        note(f'to see the classes: resight sql "{CLASSES}"; for more: docs/reference/classify.md#reading')


@app.command()
@takes_spec(EmbedSpec)
def embed(
    spec: EmbedSpec,
    dry_run: DryRunOption = False,
    here: HereOption = False,
    follow: FollowOption = True,
    fmt: FormatOption = Format.table,
) -> None:
    """Run an embedder on crops of the detections that the published view shows. To resume, run it again.

    The vectors are rows of the table `embeddings`. If the plan is empty, the command ends there. Otherwise it starts
    `python -m batch.embed` as `resight classify` does.

    Example: resight embed --model lite0-vectors@1 --labels animal --dry-run
    """
    _run_on_crops(spec, dry_run, here, follow, fmt)


def _run_on_crops(spec: ClassifySpec | EmbedSpec, dry_run: bool, here: bool, follow: bool, fmt: Format) -> None:
    require_model(spec)
    settings = Settings()
    if follow and not dry_run:
        prepare_here(spec, settings, here)
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    if dry_run:
        print_facts(dry_run_report(spec, tables, store), fmt)
        return
    print_facts(run_to_end(spec, settings, tables, store, follow, fmt, here), fmt)


def _print_plan(report: PlanReport) -> None:
    facts = report.as_dict()
    print_facts({name: facts[name] for name in facts if name not in _NOT_FACTS}, Format.table)
    until = f", until {report.decision.until:%Y-%m-%d %H:%M}" if report.decision.until else ""
    width = max((len(change.needs) for change in report.changes), default=0)
    lines = ["differs:"] if report.changes else []
    for change in report.changes:
        old, new = _short(change.old), _short(change.new)
        lines.append(f"  {change.needs.ljust(width)}  {change.field}: {old} -> {new} ({change.why})")
    lines += [f"policy decision: {report.decision.action}{until}"]
    lines += [f"  {reason}" for reason in report.decision.reasons]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _short(value: object) -> str:
    text = in_words(value) or "none"
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _within(spec: RunSpec, folder: str) -> RunSpec:
    """Return the spec with FOLDER in its scope."""
    if spec.scope.folder:
        raise BadRequest("FOLDER and --folder: give one of them")
    scope = Scope.model_validate(spec.scope.model_dump() | {"folder": folder})
    return spec.model_copy(update={"scope": scope})


def _catalogued(settings: Settings, tables: Tables, folder: str) -> bool:
    """Ingest the archive of a folder; return whether all of its files were read. Exits with 1 if files are missing."""
    place = absolute(folder)
    catalogued = (root for root, files in archives(tables).items() if files)  # not those that were retired
    root = next((root for root in catalogued if contains(root, place)), place)
    report = catalogue(settings, tables, root)
    note(f"catalogued {root}: images {report.files}, new {report.new}, changed {report.changed}")
    complete = explained(report)
    if report.withheld:
        raise typer.Exit(1)
    return complete


def _if_needed(
    spec: RunSpec,
    settings: Settings,
    tables: Tables,
    store: ModelStore,
    publishes: bool,
    follow: bool,
    fmt: Format,
    here: bool,
) -> None:
    policy = policy_of(settings)
    due = if_needed(tables, store, policy, spec.model, publishes, ended=ended_here(settings, tables))
    facts = _decision(due)
    for reason in due.decision.reasons:
        note(f"{due.decision.action}: {reason}")
    if due.scope is not None and due.run_id is not None:
        model = str(due.model.id)
        changed = {"model": model, "scope": due.scope, "run_id": due.run_id}
        spec = spec.model_copy(update=changed)
        if follow:
            prepare_here(spec, settings, here)
        facts |= run_to_end(spec, settings, tables, store, follow, fmt, here)
    if due.publish:
        with recorded_publication(tables, due):
            view = publish(
                tables,
                store,
                str(due.model.id),
                reason=f"--if-needed, decision {due.decision_id}",
                complete=due.scope is None,
                check=lambda old, new: [*rolled_back_since(tables, new), *failed_gates(tables, old, new, policy.gates)],
            )
        facts["published"] = f"{view.name} {view.serial}"
        facts.pop("next", None)
        note_never_run(tables, view)
    print_facts(facts, fmt)


def _decision(due: Needed) -> dict[str, Any]:
    return {
        "decision": due.decision.action,
        "decision_id": due.decision_id,
        "model": str(due.model.id),
        "reasons": list(due.decision.reasons),
    }


def _require_alone(spec: RunSpec, dry_run: bool, publishes: bool, follow: bool) -> None:
    """Raise BadRequest for options that contradict --if-needed, which chooses the scope itself."""
    if dry_run:
        raise BadRequest("--if-needed excludes --dry-run; use: resight plan")
    if spec.scope != Scope():
        raise BadRequest(f"--if-needed chooses the images itself: leave out {' '.join(scope_arguments(spec.scope))}")
    if publishes and not follow:
        raise BadRequest("--publish waits for the end of the run: leave out --no-follow")

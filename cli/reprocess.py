"""reprocess: submit a run to the cluster and follow it to its end."""

from __future__ import annotations

from typing import Annotated

import typer

from archive.tables import Tables
from batch.dry_run import dry_run_report
from batch.options import (
    Actors,
    Camera,
    Chunk,
    CommitSeconds,
    Megapixels,
    Model,
    RunId,
    ScopeKind,
    Status,
    Threads,
    run_spec,
)
from cli.output import Format, FormatOption, note, print_facts
from model_store.store import ModelStore
from serve.cluster import join
from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(reprocess)


def reprocess(
    model: Model,
    scope: ScopeKind = "all",
    camera: Camera = None,
    status: Status = None,
    run_id: RunId = "",
    chunk: Chunk = 0,
    actors: Actors = 1,
    threads: Threads = 0,
    commit_s: CommitSeconds = 5.0,
    megapixels: Megapixels = 100,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan, write nothing")
    ] = False,
    follow: Annotated[bool, typer.Option(help="wait for the end of the run")] = True,
    fmt: FormatOption = Format.table,
) -> None:
    """See every image of the scope with one model version. To resume, run it again.

    Submits `python -m batch.reprocess` to the cluster; exit codes are that job's.
    Example: resight reprocess --model ssdlite-coco --scope latest-per-camera --dry-run
    """
    settings = Settings()
    spec = run_spec(
        model,
        scope,
        camera,
        status,
        run_id,
        chunk=chunk,
        actors=actors,
        threads=threads,
        commit_s=commit_s,
        megapixels=megapixels,
    )
    if dry_run:
        tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
        print_facts(dry_run_report(spec, tables, store), fmt)
        return
    join(settings)
    from batch.submit import submit
    from cli.follow import follow as follow_run

    submission_id = submit(spec, settings)
    if not follow:
        print_facts({"run_id": spec.run_id, "job": submission_id}, fmt)
        return
    outcome, last = follow_run(submission_id, quiet=fmt is not Format.table)
    if outcome.status == "SUCCEEDED" and not last:
        note(
            f"the run has succeeded, but its report did not come through: ray job logs {submission_id}"
        )
        print_facts({"run_id": spec.run_id}, fmt)
        return
    if outcome.status == "SUCCEEDED":
        facts = {"run_id": spec.run_id, "accounting": last["accounting"]}
        facts |= {k: last[k] for k in ("seconds", "images_per_s", "steady_images_per_s")}
        facts |= {"counts": last["counts"]} if fmt is Format.json else {}
        print_facts(facts, fmt)
        return
    note(f"the run ended {outcome.status}: {last.get('error') or outcome.message}")
    raise typer.Exit(outcome.exit_code or 5)

"""The command `classify`: run a classifier on crops of the detections that the published view shows."""

from __future__ import annotations

from typing import Annotated

import typer

from batch.classify.spec import ClassifySpec
from batch.runs.options import require_model, takes_spec
from cli.follow import prepare_here, run_to_end
from cli.output import Format, FormatOption, HereOption, print_facts
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.planning.dry_run import dry_run_report
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()


@app.command()
@takes_spec(ClassifySpec)
def classify(
    spec: ClassifySpec,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and write nothing")] = False,
    here: HereOption = False,
    follow: Annotated[bool, typer.Option(help="wait until the run ends")] = True,
    fmt: FormatOption = Format.table,
) -> None:
    """Run a classifier on crops of the detections that the published view shows. To resume, run it again.

    If the plan is empty, the command ends there. Otherwise it starts `python -m batch.classify`
    as a job of the cluster; on this machine if no cluster is up. It ends with the exit code of that job.

    Example: resight classify --model efficientnet-lite0@1 --labels animal --dry-run
    """
    require_model(spec)
    settings = Settings()
    if follow and not dry_run:
        prepare_here(spec, settings, here)
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    if dry_run:
        print_facts(dry_run_report(spec, tables, store), fmt)
        return
    print_facts(run_to_end(spec, settings, tables, store, follow, fmt, here), fmt)

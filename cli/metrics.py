"""metrics: how runs, archive and cameras are, for Prometheus; no cluster needed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from archive.defaults import MAX_CAMERAS, PRODUCTION
from cli.output import note
from model_store.errors import BadRequest, StorageUnreachable
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile

    from archive.tables import Tables
    from batch.run_metrics import collect
    from model_store.store import ModelStore
    from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(metrics)


def metrics(
    out: Annotated[
        Path | None,
        typer.Option(help="write this file in one step, for node_exporter; its name ends in .prom"),
    ] = None,
    view: Annotated[
        str, typer.Option(help="the published view whose backlog and blank images are told")
    ] = PRODUCTION,
    cameras: Annotated[
        int, typer.Option(min=1, help="told one by one, at most; the others together")
    ] = MAX_CAMERAS,
) -> None:
    """How runs, archive and cameras are, in Prometheus' text format; from the tables, without a cluster.

    Where a store is away the rest is told all the same, with resight_store_up 0; then the exit code is 7.
    Example: resight metrics --out /var/lib/prometheus/node-exporter/resight.prom
    """
    settings = Settings()
    now = datetime.now().astimezone()
    tables, models = Tables(settings.tables_url), ModelStore(settings.models_url)
    collected = collect(tables, models, now, view, cameras)
    if out is None:
        typer.echo(generate_latest(collected.registry), nl=False)
    else:
        _write(out, collected.registry)
    for problem in collected.problems[1:]:
        note(str(problem))
    if collected.problems:
        raise collected.problems[0]


def _write(out: Path, registry: CollectorRegistry) -> None:
    """Raises BadRequest for a name that node_exporter would pass over, StorageUnreachable."""
    if out.suffix != ".prom":
        raise BadRequest(f"{out} does not end in .prom: node_exporter reads no other files")
    try:
        write_to_textfile(str(out), registry)
    except OSError as error:
        raise StorageUnreachable(f"cannot write {out}: {error}") from error

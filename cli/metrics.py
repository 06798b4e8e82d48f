"""The command `metrics`: metrics of runs, archive and cameras for Prometheus. Needs no cluster."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from archive.defaults import MAX_CAMERAS, PRODUCTION
from cli.output import note, require_own
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from prometheus_client import generate_latest, write_to_textfile

    from archive.delta.tables import Tables
    from batch.runs.metrics import collect
    from model_store.storage_errors import storage_error
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()


@app.command()
def metrics(
    out: Annotated[
        Path | None, typer.Option(help="file for node_exporter, written atomically; its name must end in .prom")
    ] = None,
    view: Annotated[str, typer.Option(help="published view for the metrics of backlog and blank images")] = PRODUCTION,
    cameras: Annotated[
        int, typer.Option(min=1, help="maximum number of cameras with separate metrics; the others are combined")
    ] = MAX_CAMERAS,
) -> None:
    """Print metrics of runs, archive and cameras in Prometheus' text format, computed from the tables.

    If a store is unavailable, the other metrics are still printed, with resight_store_up 0, and the exit code is 7.
    Example: resight metrics --out /var/lib/prometheus/node-exporter/resight.prom
    """
    settings = Settings()
    now = datetime.now().astimezone()
    tables, models = Tables(settings.tables_url), ModelStore(settings.models_url)
    collected = collect(tables, models, now, view, cameras)
    if out is None:
        typer.echo(generate_latest(collected.registry), nl=False)
    else:
        if out.suffix != ".prom":
            raise BadRequest(f"{out} does not end in .prom; node_exporter reads no other files")
        require_own(out, b"# HELP resight_")
        try:
            write_to_textfile(str(out), collected.registry)
        except OSError as error:
            way_out = "" if out.parent.is_dir() else f"create the folder {out.parent}"
            plain = OSError(error.errno, error.strerror)  # without the name of a temporary file
            raise storage_error(f"write {out}", plain, way_out) from error
    for problem in collected.problems[1:]:
        note(str(problem))
    if collected.problems:
        raise collected.problems[0]

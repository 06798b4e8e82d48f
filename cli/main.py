"""`resight`: assemble the commands; turn errors of ours into a line and an exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer
from rich.markup import escape

from batch.exit_codes import exit_code
from cli import (
    archive,
    assertions,
    classify,
    cluster,
    detect,
    filters,
    layers,
    metrics,
    models,
    plan,
    reprocess,
    runs,
    tokens,
    tune,
)
from cli.output import errors
from model_store.errors import ResightError, StorageUnreachable
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    import duckdb

    from archive.query import is_of_storage, out_of_memory

app = typer.Typer(
    help="Detect in field-camera images: over HTTP now, over the whole archive again at any time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
cluster.register(app)
app.add_typer(models.app, name="models")
app.add_typer(runs.app, name="runs")
app.add_typer(tokens.app, name="tokens")
app.add_typer(assertions.app, name="assertions")
app.add_typer(filters.app, name="filters")
app.add_typer(layers.app, name="layers")
archive.register(app)
plan.register(app)
reprocess.register(app)
classify.register(app)
detect.register(app)
metrics.register(app)
tune.register(app)


def main() -> None:
    """Entry point. Exit codes: batch/exit_codes.py, docs/operating.md.

    What DuckDB, Delta or Arrow say of a file that is missing or damaged counts as StorageUnreachable.
    """
    try:
        app()
    except ResightError as error:
        _end(error)
    except Exception as error:
        if isinstance(error, duckdb.OutOfMemoryException):
            _end(out_of_memory(error))
        if not is_of_storage(error):
            raise
        _end(StorageUnreachable(" ".join(str(error).split())))


def _end(error: ResightError) -> NoReturn:
    errors.print(f"[red]error[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
    sys.exit(exit_code(error))

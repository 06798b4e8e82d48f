"""Assemble the commands of `resight`; turn errors of Resight into one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from batch.jobs.exit_codes import error_of_library, exit_code
from cli import (
    antenna,
    archive,
    assertions,
    cluster,
    deployments,
    detect,
    doctor,
    export,
    filters,
    individuals,
    layers,
    logs,
    metrics,
    models,
    report,
    reprocess,
    runs,
    selection,
    serve,
    tokens,
    tune,
)
from cli.output import errors
from model_store.errors import Forbidden, ResightError, Unauthorized
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from model_store.libraries import installed_version, resight_version

LIBRARIES = ("ray", "onnxruntime", "onnxruntime-gpu", "torch")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
for module in (cluster, serve, logs, archive, selection, export, reprocess, detect, metrics, tune, doctor):
    app.add_typer(module.app)
for module in (models, runs, tokens, assertions, filters, layers, deployments, report, individuals, antenna):
    app.add_typer(module.app, name=module.__name__.removeprefix("cli."))


def print_versions(wanted: bool) -> None:
    """Print the version of Resight, then the versions of its largest installed libraries."""
    if wanted:
        typer.echo(f"resight {resight_version()}")
        for name in LIBRARIES:
            if version := installed_version(name):
                typer.echo(f"{name} {version}")
        raise typer.Exit


@app.callback()
def resight(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_versions, help="Show versions and exit.")
    ] = False,
) -> None:
    """Detect animals in field-camera images: single images over HTTP, whole archives in runs."""


def main() -> None:
    """Run the command line. Exit codes are in batch/jobs/exit_codes.py and docs/reference/exit-codes.md.

    Errors of libraries about full disks, and about missing or damaged files, are reported as StorageError.
    """
    try:
        app(prog_name="resight")  # also for `python -m resight`: shell completion needs this name
    except ResightError as error:
        _end(error)
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":  # by DuckDB, at Ctrl-C
            raise KeyboardInterrupt from None
        if known := error_of_library(error):
            _end(known)
        raise


def _end(error: ResightError) -> NoReturn:
    text = escape(str(error))
    if isinstance(error, Unauthorized | Forbidden):
        text += ". Commands send the token in RESIGHT_TOKEN; export a token with the scopes admin and detect"
    errors.print(f"[red]error[/red] {text}", highlight=False, soft_wrap=True)
    sys.exit(exit_code(error))

"""`resight`: assemble the commands; turn errors of ours into a line and an exit code."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from batch.exit_codes import exit_code
from cli import archive, assertions, cluster, detect, metrics, models, plan, reprocess, runs, tokens
from cli.output import errors
from model_store.errors import ResightError

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
archive.register(app)
plan.register(app)
reprocess.register(app)
detect.register(app)
metrics.register(app)


def main() -> None:
    """Entry point. Exit codes: batch/exit_codes.py, docs/operating.md."""
    try:
        app()
    except ResightError as error:
        errors.print(f"[red]error[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(exit_code(error))

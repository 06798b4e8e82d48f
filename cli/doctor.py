"""The command `doctor`: check everything that is stored. Needs no cluster, and may run next to one."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import Format, FormatOption, console, note, print_rows
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from batch.doctor.diagnose import diagnose, repair_error
    from serve.settings import Settings

app = typer.Typer()
COLUMNS = ("check", "subject", "problem", "action", "repaired")


@app.command()
def doctor(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="also repair what loses nothing: catalogue uploads without a row, cancel interrupted runs, remove old "
            "temporary files, and protect secrets",
        ),
    ] = False,
    digests: Annotated[
        bool,
        typer.Option("--digests", help="also read every file of the tables and models; of models, compare digests"),
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Check tables, views, runs, models and uploads against one another. Writes nothing without --repair.

    Exit code 1 if something was found and not repaired. Example: resight doctor --repair
    """
    findings, rows = diagnose(Settings(), digests), []
    for finding in findings:
        error = repair_error(finding) if repair else "not requested"
        rows.append({name: getattr(finding, name) for name in COLUMNS[:-1]} | {"repaired": error is None})
        if repair and finding.repair and error:
            note(f"{finding.subject}: not repaired: {error}")
    if fmt is Format.table:  # one row of a table would be too wide
        for row in rows:
            ending = "repaired" if row["repaired"] else row["action"]
            words = dict.fromkeys((row["check"], row["subject"], row["problem"]))
            console.print(f"{': '.join(words)}\n  {ending}", highlight=False, markup=False, soft_wrap=True)
    else:
        print_rows(rows, fmt, COLUMNS)
    left, repairable = sum(not row["repaired"] for row in rows), sum(finding.repair is not None for finding in findings)
    count = f"{len(rows)} finding{'s' if len(rows) > 1 else ''}"
    note(f"{count}, {left} not repaired" if rows else "nothing was found")
    if repairable and not repair:
        note(f"'resight doctor --repair' repairs {repairable} of them")
    if left:
        raise typer.Exit(1)

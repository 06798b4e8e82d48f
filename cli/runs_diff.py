"""The command `runs diff`: compare two sets of results in numbers, pictures and gates. Needs no cluster."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import GateClosed
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.publishing.impact.facts import Impact
    from batch.publishing.impact.report import as_json, judged, require_empty, write_report
    from batch.publishing.impact.verdict import Verdict, failed, model_of
    from model_store.storage import absolute
    from model_store.store import ModelStore
    from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("diff")(diff)


def diff(
    old: Annotated[str, typer.Argument(help="run id, name@version, or a view such as published")],
    new: Annotated[str, typer.Argument(help="run id, name@version or view that would replace OLD")],
    out: Annotated[str | None, typer.Option(help="new folder for a report with pictures")] = None,
    samples: Annotated[int, typer.Option(min=0, max=200, help="number of pictures for each kind of change")] = 6,
    gate: Annotated[bool, typer.Option("--gate", help="exit with code 5 if a gate of the policy fails")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Show what would change if NEW were published in place of OLD. Writes only the report.

    Example: resight runs diff published 20260514T031500-9f2c1a --out impact/
    """
    settings = Settings()
    tables, models = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    if out is not None:
        require_empty(out)
    with judged(settings, tables, models, old, new) as (comparison, found):
        shown = write_report(comparison, found, out, samples) if out is not None else []
        _print(comparison.impact, found, fmt)
        if out is not None:
            note(f"report, with {len(shown)} images to look at: {absolute(out)}/index.html")
    if gate and not found.passed:
        raise GateClosed("; ".join(failed(found.gates)))


def _print(impact: Impact, found: Verdict, fmt: Format) -> None:
    if fmt is Format.json:
        print_facts(as_json(impact, found), fmt)
        return
    print_facts(_facts(impact, found), fmt)
    if fmt is Format.table:
        rows: list[dict[str, Any]] = [
            {
                "label": label.label,
                **label.model_dump(exclude={"label", "shift"}),
                "mean_shift": None if label.shift is None else label.shift.mean,
            }
            for label in impact.labels
        ]
        if rows:
            print_rows(rows, fmt)


def _facts(impact: Impact, found: Verdict) -> dict[str, Any]:
    images, verified = impact.images, impact.verified
    return {
        "verdict": found.headline,
        "compared": found.compared,
        "change": found.changes,
        **({"estimate": found.estimate} if found.estimate else {}),
        **{gate.name: f"{'pass' if gate.passed else 'FAIL'}: {gate.words}" for gate in found.gates},
        "next": f"{found.next} {found.command}".strip(),
        "old": f"{model_of(impact.old)} {impact.old.inference_key[:12]}",
        "new": f"{model_of(impact.new)} {impact.new.inference_key[:12]}",
        **{f"images_{name}": value for name, value in images.model_dump().items()},
        **{f"boxes_{name}": value for name, value in impact.boxes.model_dump().items()},
        **{f"verified_{name}": value for name, value in verified.model_dump().items()},
    }

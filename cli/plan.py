"""The command `plan`: compare a model with the published one, count what a run would do, apply the policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from batch.runs.options import takes_scope
from cli.models import MODEL
from cli.output import Format, FormatOption, console, in_words, print_facts
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from archive.views.views import Views
    from batch.runs.scope import Scope
    from batch.schedule.archive_state import wanted_version
    from batch.schedule.decision_log import keep_decision
    from batch.schedule.policy import policy_of
    from batch.schedule.report import PlanReport, plan_report
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()
_NOT_FACTS = ("changes", "reasons", "decision", "until")
WIDEST = 44
"""Maximum characters of a value in a line; digests and lists of labels are longer."""


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
    report = plan_report(tables, store, policy, version, scope)
    if keep:
        keep_decision(tables, report.facts, report.decision, datetime.now(UTC), acted=False)
    if fmt is Format.table:
        _print(report)
    else:
        print_facts(report.as_dict(), fmt)


def _print(report: PlanReport) -> None:
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

"""runs diff: what people would see change, in numbers, pictures and gates; no cluster needed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import GateClosed
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.tables import Tables
    from batch.impact.compare import compared
    from batch.impact.facts import Impact
    from batch.impact.gates import failed, judge
    from batch.impact.report import as_json, require_empty, write_report
    from batch.impact.sides import side
    from batch.impact.verdict import Verdict, model_of, verdict
    from batch.policy import read_policy
    from model_store.storage import absolute
    from model_store.store import ModelStore
    from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("diff")(diff)


def diff(
    old: Annotated[str, typer.Argument(help="a run id, name@version, or a view such as published")],
    new: Annotated[str, typer.Argument(help="likewise; what would take its place")],
    out: Annotated[
        str | None, typer.Option(help="write a report with pictures into this new folder")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, max=200, help="pictures of each kind of change")
    ] = 6,
    gate: Annotated[
        bool, typer.Option("--gate", help="end with 5 when a gate of the policy fails")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """What would change if NEW were published in place of OLD. Writes nothing but the report.

    Example: resight runs diff published 20260514T031500-9f2c1a --out impact/
    """
    settings = Settings()
    tables, models = Tables(settings.tables_url), ModelStore(settings.models_url)
    gates = read_policy(settings.policy_path, required=bool(settings.policy)).gates
    old_side, new_side = side(tables, models, old), side(tables, models, new)
    if out is not None:
        require_empty(out)
    with compared(tables, old_side, new_side) as comparison:
        judged = judge(comparison.impact, gates)
        found = verdict(tables, comparison, judged)
        shown = write_report(comparison, found, out, samples) if out is not None else []
        _print(comparison.impact, found, fmt)
        if out is not None:
            note(f"report, with {len(shown)} images to look at: {absolute(out)}/index.html")
    if gate and failed(judged):
        raise GateClosed("; ".join(failed(judged)))


def _print(impact: Impact, found: Verdict, fmt: Format) -> None:
    if fmt is Format.json:
        print_facts(as_json(impact, found), fmt)
        return
    print_facts(_facts(impact, found), fmt)
    if fmt is Format.table:
        rows: list[dict[str, Any]] = [
            {
                "label": one.label,
                **one.model_dump(exclude={"label", "shift"}),
                "mean_shift": None if one.shift is None else one.shift.mean,
            }
            for one in impact.labels
        ]
        if rows:
            print_rows(rows, fmt)


def _facts(impact: Impact, found: Verdict) -> dict[str, Any]:
    images, said = impact.images, impact.verified
    return {
        "verdict": found.headline,
        "compared": found.compared,
        "change": found.changes,
        **({"estimate": found.estimate} if found.estimate else {}),
        **{one.name: f"{'pass' if one.passed else 'FAIL'}: {one.words}" for one in found.gates},
        "next": f"{found.next} {found.command}".strip(),
        "old": f"{model_of(impact.old)} {impact.old.inference_key[:12]}",
        "new": f"{model_of(impact.new)} {impact.new.inference_key[:12]}",
        **{f"images_{name}": value for name, value in images.model_dump().items()},
        **{f"boxes_{name}": value for name, value in impact.boxes.model_dump().items()},
        **{f"verified_{name}": value for name, value in said.model_dump().items()},
    }

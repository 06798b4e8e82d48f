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
    from batch.impact.gates import Gate, closed, judge
    from batch.impact.report import as_json, require_empty, write_report
    from batch.impact.sides import side
    from batch.policy import read_policy
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
        bool, typer.Option("--gate", help="end with 5 when a gate of the policy is closed")
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
        _print(comparison.impact, judged, fmt)
        if out is not None:
            shown = write_report(comparison, judged, out, samples)
            note(f"{out}: index.html, impact.json, {len(shown)} images to look at")
    if gate and closed(judged):
        raise GateClosed("; ".join(closed(judged)))


def _print(impact: Impact, gates: list[Gate], fmt: Format) -> None:
    if fmt is Format.json:
        print_facts(as_json(impact, gates), fmt)
        return
    print_facts(_facts(impact, gates), fmt)
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


def _facts(impact: Impact, gates: list[Gate]) -> dict[str, Any]:
    images, said = impact.images, impact.verified
    return {
        "old": f"{impact.old.model_name}@{impact.old.model_version} {impact.old.inference_key[:12]}",
        "new": f"{impact.new.model_name}@{impact.new.model_version} {impact.new.inference_key[:12]}",
        **{f"images_{name}": value for name, value in images.model_dump().items()},
        **{f"boxes_{name}": value for name, value in impact.boxes.model_dump().items()},
        **{f"verified_{name}": value for name, value in said.model_dump().items()},
        **{gate.name: f"{'open' if gate.open else 'CLOSED'}: {gate.words}" for gate in gates},
    }

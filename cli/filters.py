"""filters list, show, run, rerun, review: what is corrected, in layers that a view shows or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from archive.defaults import PRODUCTION
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.layers import layer_named, layers_of, read_layers
    from archive.publications import view_named, view_of_run
    from archive.tables import Tables
    from archive.views import Views
    from batch.filters import registry
    from batch.filters.layers import switch
    from batch.filters.prepare import prepare, prepare_again
    from batch.filters.registry import filter_of
    from batch.filters.scope import FilterScope
    from batch.filters.spec import FilterSpec
    from batch.scope_options import takes_scope
    from serve.cluster import join
    from serve.settings import Settings

app = typer.Typer(
    help="Correct what a view shows of detections, in layers; the detections stay.",
    no_args_is_help=True,
)
Kind = Annotated[str, typer.Argument(help="of filter, see 'resight filters list'")]
ViewName = Annotated[str, typer.Option("--view", help="name of the view")]
FIGURES = ("checked", "flagged", "grouped", "changed", "skipped_human", "skipped_invalid")
FIGURES += ("added", "withdrawn")


@app.command("list")
def list_filters(fmt: FormatOption = Format.table) -> None:
    """Every kind of filter, in the order of their layers. Example: resight filters list"""
    rows = [
        {
            "kind": one.kind,
            "order": one.order,
            "judges": {"image": "images", "camera": "whole cameras"}[one.context],
            "groups": one.groups or "",
            "what": one.what,
        }
        for one in sorted(registry.FILTERS.values(), key=lambda one: one.order)
    ]
    print_rows(rows, fmt)


@app.command()
def show(kind: Kind, fmt: FormatOption = Format.table) -> None:
    """A filter's fields with their defaults and units; as JSON, its schema besides.

    Example: resight filters show small-size
    """
    one = filter_of(kind)
    if fmt is Format.json:
        schema = one.config.model_json_schema()
        print_facts({"kind": kind, "fields": _fields(kind), "schema": schema}, fmt)
        return
    note(one.what)
    print_rows(_fields(kind), fmt)


@app.command()
@takes_scope(FilterScope)
def run(
    kind: Kind,
    scope: FilterScope,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value; field=@FILE: a line each, or JSON"),
    ] = None,
    view: ViewName = PRODUCTION,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="the same figures; nothing is written")
    ] = False,
    show_it: Annotated[
        bool, typer.Option("--show", help="then show the layer in the view")
    ] = False,
    follow: Annotated[bool, typer.Option(help="wait for the end of the run")] = True,
    fmt: FormatOption = Format.table,
) -> None:
    """Run a filter over detections, by default over all that are published; what it says is a layer.

    Example: resight filters run small-size --set min_area_frac=0.001 --camera deer-north --dry-run
    """
    settings = Settings()
    tables = Tables(settings.tables_url)
    fields = dict(_value(kind, text) for text in values or ())
    if show_it and (dry_run or not follow):
        raise BadRequest("--show waits for the end of the run: leave out --dry-run and --no-follow")
    spec = prepare(tables, kind, fields, scope, view)
    rows = _run([spec], settings, tables, dry_run, follow)
    if show_it:
        shown = switch(tables, view, on=[spec.layer().layer_id])
        note(f"{view} {shown.serial} shows it")
    print_rows(rows, fmt)


@app.command()
@takes_scope(FilterScope)
def rerun(
    scope: FilterScope,
    view: ViewName = PRODUCTION,
    show_it: Annotated[
        bool, typer.Option("--show", help="then show the layers that became others in the view")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Run every layer of a view again, from the lowest up: for new images, or another model's run.

    What holds already is not said again. A layer that was made over others than those below it now becomes
    another layer, and so do those above it. Example: resight filters rerun --run 20260514T031500-9f2c1a
    """
    settings = Settings()
    tables = Tables(settings.tables_url)
    shown = [one.layer_id for one in layers_of(tables, Views(tables.url).current(view))]
    specs = prepare_again(tables, scope, view)
    rows = _run(specs, settings, tables, False, True)
    made = [spec.layer().layer_id for spec in specs]
    others = [one for one in made if one not in shown]
    if others and show_it:
        now = switch(tables, view, on=others)
        note(f"{view} {now.serial} shows them")
    elif others:
        words = " ".join(one[:12] for one in others)
        note(f"{len(others)} are other layers now; to show them: resight layers on {words}")
    print_rows(rows, fmt)


@app.command()
def review(
    layer: Annotated[
        str, typer.Argument(help="a repeat-detections layer: id, first digits, or kind")
    ],
    out: Annotated[str, typer.Option(help="a new or empty folder, s3:// included")],
    view: ViewName = PRODUCTION,
    run_id: Annotated[
        str, typer.Option("--run", help="of this run's results; else the view's")
    ] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Pictures of the slots that come back for days, and a review.json in which to accept them.

    Then: resight filters run repeat-detections --set accepted=@review/review.json --show
    Example: resight filters review repeat-detections --out review
    """
    from batch.filters.candidates import candidates
    from batch.filters.review import write_review

    tables = Tables(Settings().tables_url)
    shown = view_of_run(tables, run_id) if run_id else view_named(tables, view)
    known = read_layers(tables)
    one = layer_named(known, layer, shown.layers or known)
    found = candidates(tables, one, shown.inference_key)
    done = write_review(one.layer_id, found, out, one.config.get("accepted", ()))
    note(f"{out}/index.html shows {len(found)} slots; accept in {out}/review.json")
    print_rows(
        [slot.model_dump() for slot in done.slots],
        fmt,
        ("id", "camera", "label", "images", "days", "accepted"),
    )


def _run(
    specs: list[FilterSpec], settings: Settings, tables: Tables, dry_run: bool, follow: bool
) -> list[dict[str, Any]]:
    if dry_run:
        from batch.filters import run as runs
        from batch.filters.here import here

        return [_row(spec, runs.dry_run(spec, tables, here).metrics()) for spec in specs]
    join(settings)
    from batch.filters.submit import submit_filters
    from cli.follow import submitted, to_end

    def start() -> str:
        return submit_filters(specs, settings)

    run_ids = [spec.run_id for spec in specs]
    if not follow:
        job = submitted(start, run_ids)
        return [{"run_id": run_id, "job": job} for run_id in run_ids]
    reports = to_end(start, run_ids)
    return [_row(spec, reports[spec.run_id]) for spec in specs if spec.run_id in reports]


def _row(spec: FilterSpec, metrics: dict[str, Any]) -> dict[str, Any]:
    told = {"run_id": spec.run_id, "filter": spec.kind, "scope": spec.scope.words()}
    told |= {"layer": metrics["layer_id"][:12], "images": metrics["images"]}
    return told | {name: metrics[name] for name in FIGURES}


def _fields(kind: str) -> list[dict[str, Any]]:
    return [
        {
            "field": name,
            "default": "" if info.is_required() else info.get_default(call_default_factory=True),
            "meaning": info.description or "",
        }
        for name, info in filter_of(kind).config.model_fields.items()
        if name != "kind"
    ]


def _value(kind: str, text: str) -> tuple[str, Any]:
    """`min_area_frac=0.001`; JSON where it is JSON, else the words themselves; @FILE reads them from a file."""
    name, equals, value = text.partition("=")
    if not equals:
        raise BadRequest(
            f"--set: '{text}' has no '='; write field=value, see: resight filters show {kind}"
        )
    if value.startswith("@"):
        return name, _read(Path(value[1:]))
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _read(file: Path) -> Any:
    """A JSON file's value, a review's accepted slots, or the lines of a text file."""
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix.lower() != ".json":
            return [line.strip() for line in text.split("\n") if line.strip()]
        value = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadRequest(f"cannot read {file}: {error}") from error
    if isinstance(value, dict) and "slots" in value:
        from batch.filters.review import read_accepted

        return list(read_accepted(file))
    return value

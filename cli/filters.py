"""The commands `filters list, show, run, rerun, review`: correct detections in layers."""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Any

import typer

from archive.defaults import PRODUCTION
from cli.follow import submitted, to_end
from cli.output import Format, FormatOption, HereOption, ViewName, note, print_facts, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.annotations.layers import layer_named, layers_of, read_layers
    from archive.delta.tables import Tables
    from archive.views.publications import view_named, view_of_run
    from archive.views.query import query
    from archive.views.views import View, Views
    from batch.filters import registry
    from batch.filters import run as filter_runs
    from batch.filters.layers import switch
    from batch.filters.prepare import prepare, prepare_again
    from batch.filters.registry import filter_of
    from batch.filters.review import accepted_in, candidates, read_text, write_review
    from batch.filters.spec import FilterSpec
    from batch.jobs.control import jobs_of, submit_filters
    from batch.runs.options import takes_scope
    from batch.runs.scope import FilterScope
    from serve.settings import Settings

app = typer.Typer(
    help="Correct the detections that a view shows, in layers; the stored detections do not change.",
    no_args_is_help=True,
)
Kind = Annotated[str, typer.Argument(help="kind of filter, see 'resight filters list'")]
FIGURES = ("checked", "flagged", "grouped", "changed", "skipped_human", "skipped_invalid")
FIGURES += ("added", "withdrawn")


@app.command("list")
def list_filters(fmt: FormatOption = Format.table) -> None:
    """List the kinds of filters in the order of their layers. Example: resight filters list"""
    rows = [
        {
            "kind": entry.kind,
            "order": entry.order,
            "judges": {"image": "images", "camera": "whole cameras"}[entry.context],
            "groups": entry.groups or "",
            "what": entry.what,
        }
        for entry in sorted(registry.FILTERS.values(), key=lambda entry: entry.order)
    ]
    print_rows(rows, fmt)


@app.command()
def show(kind: Kind, fmt: FormatOption = Format.table) -> None:
    """Show the fields of a filter with defaults and units; as JSON, also its schema.

    Example: resight filters show small-size
    """
    entry = filter_of(kind)
    if fmt is Format.json:
        schema = entry.config.model_json_schema()
        print_facts({"kind": kind, "fields": _fields(kind), "schema": schema}, fmt)
        return
    note(entry.what)
    print_rows(_fields(kind), fmt)


@app.command()
@takes_scope(FilterScope)
def run(
    kind: Kind,
    scope: FilterScope,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value (repeatable); field=@FILE reads JSON, or one value per line"),
    ] = None,
    view: ViewName = PRODUCTION,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the same figures and write nothing")] = False,
    show_it: Annotated[bool, typer.Option("--show", help="show the layer in the view afterwards")] = False,
    here: HereOption = False,
    follow: Annotated[bool, typer.Option(help="wait until the run ends")] = True,
    fmt: FormatOption = Format.table,
) -> None:
    """Run a filter on detections, by default on all published ones; its output is a layer.

    Example: resight filters run small-size --set min_area_frac=0.001 --camera deer-north --dry-run
    """
    settings = Settings()
    tables = Tables(settings.mounted_tables_url)
    fields = dict(_value(kind, text) for text in values or ())
    if show_it and (dry_run or not follow):
        raise BadRequest("--show waits for the end of the run: leave out --dry-run and --no-follow")
    spec = prepare(tables, kind, fields, scope, view)
    before = _count_shown(tables, view_named(tables, view)) if show_it else 0
    rows = _run([spec], settings, tables, dry_run, follow, here)
    if show_it:
        shown = switch(tables, view, on=[spec.layer().layer_id])
        note(f"{view} {shown.serial} shows the layer; detections: {before} before, {_count_shown(tables, shown)} now")
    elif follow and not dry_run and spec.layer() not in layers_of(tables, Views(tables.url).current(view)):
        note(f"the layer is off; show it with: resight layers on {spec.layer().layer_id[:12]}")
    print_rows(rows, fmt)


@app.command()
@takes_scope(FilterScope)
def rerun(
    scope: FilterScope,
    view: ViewName = PRODUCTION,
    show_it: Annotated[bool, typer.Option("--show", help="show the new layers in the view afterwards")] = False,
    here: HereOption = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Run all layers of a view again, the lowest first: for new images, or for the run of another model.

    Assertions that still hold are not written again. If other layers are below a layer now, it becomes a new layer,
    and so do the layers above it. Example: resight filters rerun --run 20260514T031500-9f2c1a
    """
    settings = Settings()
    tables = Tables(settings.mounted_tables_url)
    shown = [layer.layer_id for layer in layers_of(tables, Views(tables.url).current(view))]
    specs = prepare_again(tables, scope, view)
    rows = _run(specs, settings, tables, False, True, here)
    made = [spec.layer().layer_id for spec in specs]
    new = [layer_id for layer_id in made if layer_id not in shown]
    if new and show_it:
        current = switch(tables, view, on=new)
        note(f"{view} {current.serial} shows the new layers")
    elif new:
        ids = " ".join(layer_id[:12] for layer_id in new)
        note(f"{len(new)} layers are new; show them with: resight layers on {ids}")
    print_rows(rows, fmt)


@app.command()
def review(
    layer: Annotated[str, typer.Argument(help="repeat-detections layer: its id, the first digits of it, or its kind")],
    out: Annotated[str, typer.Option(help="new or empty folder, also s3://")],
    view: ViewName = PRODUCTION,
    run_id: Annotated[
        str, typer.Option("--run", help="review the results of this run; default: those of the view")
    ] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Write pictures of slots that recur for days, and a review.json in which to accept them.

    Then: resight filters run repeat-detections --set accepted=@review/review.json --show
    Example: resight filters review repeat-detections --out review
    """
    tables = Tables(Settings().mounted_tables_url)
    shown = view_of_run(tables, run_id) if run_id else view_named(tables, view)
    layers = read_layers(tables)
    chosen = layer_named(layers, layer, shown.layers or layers)
    slots = candidates(tables, chosen, shown.inference_key)
    written = write_review(chosen.layer_id, slots, out)
    config = filter_of(chosen.kind).config.model_validate(chosen.config)
    fields = config.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "accepted"})
    sets = [f"{name}={json.dumps(value)}" for name, value in fields.items()] + [f"accepted=@{out}/review.json"]
    note(f"{out}/index.html shows {len(slots)} slots; accept them in {out}/review.json, then:")
    note(f"resight filters run {chosen.kind} {' '.join(f'--set {shlex.quote(text)}' for text in sets)} --show")
    print_rows(
        [slot.model_dump() for slot in written.slots], fmt, ("id", "camera", "label", "images", "days", "accepted")
    )


def _run(
    specs: list[FilterSpec], settings: Settings, tables: Tables, dry_run: bool, follow: bool, on_this_machine: bool
) -> list[dict[str, Any]]:
    if dry_run:
        return [_row(spec, filter_runs.dry_run(spec, tables, filter_runs.here).metrics()) for spec in specs]
    jobs = jobs_of(settings, on_this_machine)
    note(jobs.where)

    def start() -> str:
        return submit_filters(specs, jobs, settings, followed=follow)

    run_ids = [spec.run_id for spec in specs]
    if not follow:
        job = submitted(jobs, start, run_ids)
        return [{"run_id": run_id, "job": job} for run_id in run_ids]
    reports = to_end(jobs, start, run_ids)
    return [_row(spec, reports[spec.run_id]) for spec in specs if spec.run_id in reports]


def _count_shown(tables: Tables, view: View) -> int:
    return int(query(tables, "select count(*) as n from detections", view)["n"][0].as_py())


def _row(spec: FilterSpec, metrics: dict[str, Any]) -> dict[str, Any]:
    row = {"run_id": spec.run_id, "filter": spec.kind, "scope": spec.scope.words()}
    row |= {"layer": metrics["layer_id"][:12], "images": metrics["images"]}
    return row | {name: metrics[name] for name in FIGURES}


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
    """Parse `field=value`. The value is JSON or else plain text; `@FILE` reads it from a file.

    A field that takes text gets the value 123 as text.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise BadRequest(f"invalid --set '{text}': use field=value; list the fields with: resight filters show {kind}")
    if value.startswith("@"):
        return name, _read(value[1:])
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    field = filter_of(kind).config.model_fields.get(name)
    is_text = field is not None and field.annotation is str and not isinstance(parsed, str)
    return name, value if is_text else parsed


def _read(file: str) -> Any:
    """Return the value of a JSON file, the accepted slots of a review, or the lines of a text file."""
    text = read_text(file)
    if not file.lower().endswith(".json"):
        return [line.strip() for line in text.split("\n") if line.strip()]
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"cannot read {file}: {error}") from error
    if isinstance(value, dict) and "slots" in value:
        return list(accepted_in(file, text))
    return value

"""The commands `report activity, occupancy`: tables for the analysis of a view. They need no cluster."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from archive.defaults import PRODUCTION
from batch.runs.options import takes_scope
from batch.runs.scope import MediaScope
from cli.output import Format, FormatOption, ViewName, console, note, print_rows
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.catalogue.known_names import require_known
    from archive.delta.tables import Tables
    from archive.views import activity as activities
    from archive.views import occupancy as occupancies
    from archive.views.publications import view_named
    from archive.views.query import query
    from archive.views.views import View
    from batch.planning.plan import scope_files
    from batch.publishing.publish import labels_of
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer(help="Reports for analysis: activity by hour, and detection histories.", no_args_is_help=True)
DAY = ["%Y-%m-%d"]
MAX_SHOWN = 20
"""Occasions that fit a terminal."""


@app.command()
@takes_scope(MediaScope)
def activity(
    scope: MediaScope,
    counted: Annotated[
        str | None, typer.Argument(metavar="LABEL", help="label of detections; default: all labels")
    ] = None,
    solar: Annotated[
        bool, typer.Option("--solar", help="hours by the sun (highest at 12), for images with coordinates and UTC")
    ] = False,
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """Report records by hour of the day and by light, with a density curve (von Mises kernel).

    A record is an event, or an image without a layer of events. The options of a scope choose the images.
    Example: resight report activity deer --camera north --since 2026-05-01 --until 2026-05-31
    """
    tables = Tables(Settings().mounted_tables_url)
    shown = view_named(tables, view)
    images = scope_files(tables, scope, shown) if scope != MediaScope() else None
    rows = activities.activity(tables, counted, solar, shown, images)
    if counted and not rows:
        _require_label(tables, counted, shown)
    print_rows(rows, fmt, activities.COLUMNS)
    total, by_sun = (sum(row[name] for row in rows) for name in ("records", "by_sun"))
    note(f"{total} records; light by the sun for {by_sun}, by fixed hours (day from 6 to 18) for {total - by_sun}")


@app.command()
def occupancy(
    label: Annotated[str, typer.Argument(help="label of detections")],
    days: Annotated[int, typer.Option(help="length of an occasion in days")] = 7,
    since: Annotated[
        datetime | None, typer.Option(formats=DAY, help="first day of the first occasion; default: first day of effort")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=DAY, help="last day; default: last day of effort")] = None,
    effort: Annotated[bool, typer.Option("--effort", help="days of effort, also 0, in place of 1, 0 and NA")] = False,
    camera: Annotated[list[str] | None, typer.Option(help="only this camera; repeat it for several")] = None,
    deployment: Annotated[
        list[str] | None, typer.Option(help="only this deployment, by its id; repeat it for several")
    ] = None,
    location: Annotated[
        list[str] | None, typer.Option(help="only deployments at this location; repeat it for several")
    ] = None,
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """Report the detection history of a label: camera by occasion, 1 detected, 0 not detected, NA without effort.

    An occasion is named by its first day. A terminal shows more than 20 occasions as totals for each camera.
    Example: resight report occupancy deer --days 7 --format csv > deer.csv
    """
    tables = Tables(Settings().mounted_tables_url)
    first, last = since and since.date(), until and until.date()
    shown = view_named(tables, view)
    only = {"camera_id": camera, "deployment_id": deployment, "location": location}
    given = {column: names for column, names in only.items() if names}
    rows = occupancies.histories(tables, label, days, first, last, effort, shown, given)
    cells = {row["camera_id"]: [cell for name, cell in row.items() if name != "camera_id"] for row in rows}
    occasions = len(rows[0]) - 1 if rows else 0
    detected = sum(bool(cell) for of in cells.values() for cell in of)
    if not detected:
        _require_label(tables, label, shown)
    if fmt is Format.table and console.is_terminal and occasions > MAX_SHOWN:
        note(f"the table of {occasions} occasions is for programs: add --format csv > FILE")
        found = "effort_days" if effort else "detected"
        rows = [
            {
                "camera_id": camera,
                "with_effort": len(of) - of.count(0 if effort else None),
                found: sum(filter(None, of)),
            }
            for camera, of in cells.items()
        ]
    elif fmt is not Format.json:
        rows = [{name: "NA" if value is None else value for name, value in row.items()} for row in rows]
    print_rows(rows, fmt, ("camera_id",))
    what = "with effort" if effort else f"with '{label}'"
    note(f"{len(rows)} cameras, {occasions} occasions of {days} days, {detected} cells {what}")


def _require_label(tables: Tables, label: str, view: View) -> None:
    """Raise BadRequest for a label that neither the model nor a detection of the view has."""
    used = query(tables, "select distinct label from detections order by 1", view).to_pylist()
    names = [row["label"] for row in used]
    require_known("label", label, list(dict.fromkeys([*names, *labels_of(ModelStore(Settings().models_url), view)])))

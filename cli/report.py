"""The commands `report activity, occupancy`: tables for the analysis of a view. They need no cluster."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from archive.defaults import PRODUCTION
from cli.output import Format, FormatOption, ViewName, note, print_rows
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from archive.views import activity as activities
    from archive.views import occupancy as occupancies
    from archive.views.publications import view_named
    from serve.settings import Settings

app = typer.Typer(help="Reports for analysis: activity by hour, and detection histories.", no_args_is_help=True)
DAY = ["%Y-%m-%d"]


@app.command()
def activity(
    label: Annotated[str | None, typer.Argument(help="label of detections; default: all labels")] = None,
    solar: Annotated[
        bool, typer.Option("--solar", help="hours by the sun (highest at 12), for images with coordinates and UTC")
    ] = False,
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """Report records by hour of the day and by light, with a density curve (von Mises kernel).

    A record is an event, or an image without a layer of events. Example: resight report activity deer --format csv
    """
    tables = Tables(Settings().mounted_tables_url)
    rows = activities.activity(tables, label, solar, view_named(tables, view))
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
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """Report the detection history of a label: camera by occasion, 1 detected, 0 not detected, NA without effort.

    Example: resight report occupancy deer --days 7 --format csv > deer.csv
    """
    tables = Tables(Settings().mounted_tables_url)
    first, last = since and since.date(), until and until.date()
    rows = occupancies.histories(tables, label, days, first, last, effort, view_named(tables, view))
    detected = sum(row[name] not in (None, 0) for row in rows for name in row if name != "camera_id")
    if fmt is not Format.json:
        rows = [{name: "NA" if value is None else value for name, value in row.items()} for row in rows]
    print_rows(rows, fmt, ("camera_id",))
    what = "with effort" if effort else f"with '{label}'"
    note(f"{len(rows)} cameras, {len(rows[0]) - 1 if rows else 0} occasions of {days} days, {detected} cells {what}")

"""The commands `individuals list, show, create, update, assign, reject, undo, suggest, threshold, report`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from archive.defaults import GAP_MIN, PRODUCTION
from cli.output import EmbedderName, Format, FormatOption, ViewName, note, print_facts, print_rows
from model_store.errors import BadRequest, ModelNotFound
from model_store.frozen import wrong_fields
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.annotations.individuals import Batch, IndividualStatement, record, statements_of
    from archive.annotations.individuals import undo as withdraw
    from archive.delta.tables import Tables
    from archive.views.publications import view_named
    from archive.views.query import query
    from archive.views.sightings import readiness, sightings, together
    from archive.views.suggestions import SuggestionSearch, set_threshold
    from serve.settings import Settings

app = typer.Typer(
    help="Individuals: profiles of animals, which detection shows which, suggestions and reports. Append-only.",
    no_args_is_help=True,
)
By = Annotated[str, typer.Option(help="name of the person who states this")]
Id = Annotated[str, typer.Argument(help="id of an individual")]
Detections = Annotated[list[str], typer.Argument(help="<media_sha256>-<rank> of the relation 'detections'")]
Name = Annotated[str | None, typer.Option(help='its name; "" clears it, as for the other fields')]
Species = Annotated[str | None, typer.Option(help="its species")]
Sex = Annotated[str | None, typer.Option(help="its sex")]
Notes = Annotated[str | None, typer.Option(help="free text")]
COLUMNS = ("individual_id", "name", "species", "sex", "retired", "merged_into", "crops", "cameras")
COLUMNS += ("first_seen_local", "last_seen_local", "examples")


class Report(StrEnum):
    sightings = "sightings"
    together = "together"
    readiness = "readiness"


@app.command("list")
def list_individuals(
    every: Annotated[bool, typer.Option("--all", help="also retired and merged ones")] = False,
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """List the individuals, with their crops in the view. Example: resight individuals list --format csv"""
    rows = [row for row in _individuals(view) if every or not (row["retired"] or row["merged_into"])]
    print_rows([{name: row[name] for name in COLUMNS} for row in rows], fmt, COLUMNS)


@app.command()
def show(individual: Id, view: ViewName = PRODUCTION, fmt: FormatOption = Format.table) -> None:
    """Show one individual, and every statement about it with its batch. Example: resight individuals show mia"""
    rows = [row for row in _individuals(view) if row["individual_id"] == individual]
    history = statements_of(_tables(), individual)
    if not history:
        raise ModelNotFound(f"unknown individual '{individual[:64]}': see resight individuals list --all")
    told = [{name: value for name, value in row.items() if value is not None} for row in history]
    facts = (rows[0] if rows else {"individual_id": individual}) | {"statements": told}
    if fmt is not Format.table:
        print_facts(facts, fmt)
        return
    print_facts({name: facts[name] for name in facts if name != "statements"}, fmt)
    names = ("stated_at", "actor", "action", "media_sha256", "rank", "batch_id", "withdraws")
    print_rows([{name: row[name] for name in names} for row in history], fmt, names)


@app.command()
def create(
    individual: Annotated[str | None, typer.Argument(help="its id; default: 12 random digits")] = None,
    name: Name = None,
    species: Species = None,
    sex: Sex = None,
    notes: Notes = None,
    detection: Annotated[
        list[str] | None,
        typer.Option(help="detection that shows it, <media_sha256>-<rank> of the relation 'detections' (repeatable)"),
    ] = None,
    by: By = "",
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """Create an individual; its detections leave the individuals that they had, which splits these.

    Example: resight individuals create mia --name Mia --species "red deer" --detection 32aca5d6f0c9…-0 --by "Ana"
    """
    new = individual or uuid.uuid4().hex[:12]
    profile = {"name": name or "", "species": species, "sex": sex, "notes": notes}
    if any(row["individual_id"] == new for row in statements_of(_tables(), new)):
        raise BadRequest(f"individual '{new}' exists already: use resight individuals update")
    _state(by, view, fmt, [_statement("profile", new, **profile), *_of(new, "identify", detection or [])])


@app.command()
def update(
    individual: Id,
    name: Name = None,
    species: Species = None,
    sex: Sex = None,
    notes: Notes = None,
    retire: Annotated[bool | None, typer.Option("--retire/--restore", help="whether it is no longer suggested")] = None,
    merge_into: Annotated[str | None, typer.Option(help='individual that it is; "" separates it again')] = None,
    by: By = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Change the given fields of a profile; retire an individual, or merge it into another.

    Example: resight individuals update 3f0c2a91d07b --merge-into mia --by "Ana"
    """
    fields = {"name": name, "species": species, "sex": sex, "notes": notes, "retired": retire}
    _state(by, PRODUCTION, fmt, [_statement("profile", individual, **fields, merged_into=merge_into)])


@app.command()
def assign(
    individual: Id, detection: Detections, by: By, view: ViewName = PRODUCTION, fmt: FormatOption = Format.table
) -> None:
    """State that detections show an individual. Example: resight individuals assign mia 32aca5d6f0c9…-0 --by "Ana" """
    _state(by, view, fmt, _of(individual, "identify", detection))


@app.command()
def reject(
    individual: Id, detection: Detections, by: By, view: ViewName = PRODUCTION, fmt: FormatOption = Format.table
) -> None:
    """State that detections do not show an individual: it is not suggested for them again.

    Example: resight individuals reject mia 32aca5d6f0c9…-0 --by "Ana"
    """
    _state(by, view, fmt, _of(individual, "reject", detection))


@app.command()
def undo(
    batch: Annotated[str, typer.Argument(help="batch_id, as the commands print it and 'show' lists it")],
    by: By,
    fmt: FormatOption = Format.table,
) -> None:
    """Withdraw the statements of one command; undoing an undo restores them.

    Example: resight individuals undo 0f4e8a7c5b1d4c3e9a2b6d8f7e5c4a3b --by "Ana"
    """
    print_facts(withdraw(_tables(), uuid.uuid4().hex, by, batch).model_dump(), fmt)


@app.command()
def suggest(
    detection: Annotated[str | None, typer.Argument(help="default: the newest without an individual")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="minimum similarity; default: that of the view")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="number of detections")] = 20,
    embedder: EmbedderName = "",
    view: ViewName = PRODUCTION,
    within_s: Annotated[float, typer.Option(min=1, help="time limit, s")] = 600.0,
    fmt: FormatOption = Format.table,
) -> None:
    """Suggest individuals for detections, by the vectors of `resight embed`. It stores nothing.

    Example: resight individuals suggest --threshold 0.7
    """
    fields = {"threshold": threshold, "limit": limit, "embedder": embedder, "view": view, "detection": detection}
    found = SuggestionSearch(**fields).answer(_tables(), within_s)  # type: ignore[arg-type]
    if fmt is Format.json:
        print_facts(found.model_dump(mode="json"), fmt)
        return
    rows = [
        {"suggestion": f"{c.name or c.individual_id} {c.similarity:.3f}" if c else "new" if one.is_new else "no other"}
        | {"individual_id": c and c.individual_id, "camera_id": one.camera_id, "path": one.path}
        | {"captured_at": one.captured_at_corrected, "detection_id": one.detection_id}
        for one in found.detections
        for c in one.candidates or (None,)
    ]
    print_rows(rows, fmt, ("suggestion", "individual_id", "camera_id", "path", "captured_at", "detection_id"))
    note(f"suggestions of {found.model} from a similarity of {found.threshold:g}")


@app.command()
def threshold(
    similarity: Annotated[float, typer.Argument(help="minimum similarity of suggestions, a cosine from -1 to 1")],
    reason: Annotated[str, typer.Option(help="reason that is recorded with the publication")] = "",
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """Set the minimum similarity of a view's suggestions. Nothing is computed again; 'runs rollback' undoes it.

    Example: resight individuals threshold 0.75 --reason "as many right as wrong below"
    """
    now = set_threshold(_tables(), view, similarity, reason)
    print_facts({"view": now.name, "number": now.serial, "identity_threshold": now.identity_threshold}, fmt)


@app.command()
def report(
    what: Annotated[Report, typer.Argument(help="which report")],
    gap_min: Annotated[
        float, typer.Option(min=0, help="minutes without the animal at a camera, after which it is sighted again")
    ] = GAP_MIN,
    embedder: EmbedderName = "",
    view: ViewName = PRODUCTION,
    fmt: FormatOption = Format.table,
) -> None:
    """Report sightings by individual, camera and week; who is seen together; or how far naming has come.

    Example: resight individuals report sightings --gap-min 60 --format csv
    """
    tables = _tables()
    if what is Report.readiness:
        print_facts(readiness(tables, view, embedder).model_dump(), fmt)
        return
    rows = (sightings if what is Report.sightings else together)(tables, view, gap_min)
    print_rows(rows.to_pylist(), fmt, rows.column_names)


def _tables() -> Tables:
    return Tables(Settings().mounted_tables_url)


def _individuals(view: str) -> list[dict[str, Any]]:
    chosen = None if view == PRODUCTION else view_named(_tables(), view)
    return query(_tables(), "from individuals order by name nulls last, individual_id", chosen).to_pylist()


def _statement(action: str, individual: str, **fields: Any) -> IndividualStatement:
    try:
        return IndividualStatement.model_validate({"action": action, "individual_id": individual} | fields)
    except ValidationError as error:
        raise BadRequest(wrong_fields(error, IndividualStatement)) from error


def _of(individual: str, action: str, detections: Sequence[str]) -> list[IndividualStatement]:
    return [_statement(action, individual, detection=detection) for detection in dict.fromkeys(detections)]


def _state(by: str, view: str, fmt: Format, statements: Sequence[IndividualStatement]) -> None:
    """Record the statements as one batch, and print what undoes it."""
    try:
        batch = Batch(batch_id=uuid.uuid4().hex, actor=by, statements=tuple(statements), view=view)
    except ValidationError as error:
        raise BadRequest(wrong_fields(error, Batch)) from error
    print_facts({"individual_id": statements[0].individual_id} | record(_tables(), batch).model_dump(), fmt)

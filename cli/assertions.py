"""The commands `assertions add, undo, list`: human corrections of detections. Needs no cluster."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import BadRequest, ResightError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.annotations.assertions import append, human_assertions
    from archive.annotations.batches import StatementBatch, record_all
    from archive.annotations.foreign_work import read_work
    from archive.annotations.import_file import read_assertions, recorded_batches, remarks, superseded
    from archive.annotations.work_files import read as read_tool
    from archive.annotations.work_files import work_file
    from archive.delta.tables import Tables
    from serve.settings import Settings

app = typer.Typer(
    help="Human assertions on detections: correct, relabelled, false or missed. Append-only.", no_args_is_help=True
)
ACTIONS = ("keep", "relabel", "suppress", "add", "withdraw", "flag")


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="output of 'resight export detections' with corrected labels (.csv, .parquet), or assertions "
            "(.csv, .json, .jsonl), or with --from a file of another tool; see docs/reference/assertions.md"
        ),
    ],
    tool: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="the file has boxes and labels that people made in another tool: camtrap-dp (its folder), coco, cvat, "
            "label-studio or timelapse",
        ),
    ] = None,
    root: Annotated[str | None, typer.Option(help="with --from: archive of the images; default: all")] = None,
    column: Annotated[
        str | None, typer.Option(help="with --from timelapse: column with the labels; default: Species")
    ] = None,
    by: Annotated[str | None, typer.Option(help="author of the corrections, or of assertions without an actor")] = None,
    at: Annotated[
        str | None, typer.Option(help="time of rows without one, such as 2026-05-14T09:30:00+02:00; default: now")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check and count the rows and add nothing")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Add corrected labels or assertions from a file: all of them, or none if a row is invalid.

    In a table of detections, a changed label is a relabel; an empty label or - marks a false detection. Adding a
    file again adds nothing. Example: resight assertions add checked.csv --by "Ana" --dry-run
    """
    tables = Tables(Settings().mounted_tables_url)
    if tool:
        file = work_file(tool, file)
        read = read_work(tables, file, read_tool(tool, file, column), root, by, at)
        for line in read.lines:
            note(line)
    elif root or column:
        raise BadRequest("--root and --column apply to files of other tools: name the tool with --from")
    else:
        read = read_assertions(tables, file, by, at)
    for remark in remarks(tables, read.rows):
        note(remark)
    actions = Counter(read.rows["action"].to_pylist())
    for image in read.idle:
        note(f"nothing to withdraw: no earlier statement stands about that box or image: {image}")
    counts = {"unchanged": read.unchanged, "repeated": read.repeated}
    counts |= {"left_out": len(read.left_out)} if tool else {}
    counts |= {action: actions[action] for action in ACTIONS}
    new = {actor: uuid.uuid4().hex for actor in set(read.rows["actor"].to_pylist())}
    added = 0 if dry_run else append(tables, read.rows, new)
    batches = recorded_batches(tables, new) if added else {}
    facts = {"file": str(file), **counts, "added": added} | ({"batches": batches} if fmt is Format.json else {})
    print_facts(facts, fmt)
    for actor, batch in batches.items():
        note(f"to undo what {actor} states in it: resight assertions undo {batch} --by NAME")
    if dry_run:
        note("nothing was added: leave out --dry-run")
    elif read.repeated or added < len(read.rows):
        past, withdrawn_by = superseded(tables, file, read.rows)
        if past:
            note(f"statements of this file that do not stand, because later ones replaced or withdrew them: {past}")
        for batch in withdrawn_by:
            note(f"to restore what was withdrawn: resight assertions undo {batch} --by NAME")


@app.command()
def undo(
    batch: Annotated[str, typer.Argument(help="batch_id, as 'add' prints it and 'list --history' lists it")],
    by: Annotated[str, typer.Option(help="author of the undo")],
    fmt: FormatOption = Format.table,
) -> None:
    """Withdraw the statements of a file, or of one decision in the page; undoing an undo states them again.

    What stood before stands again, and what others stated later stays (`kept`, `by`). Statements that are restored are
    the newest, so they replace what others stated since.
    Example: resight assertions undo 0f4e8a7c5b1d4c3e9a2b6d8f7e5c4a3b --by "Ana"
    """
    if not by.strip():
        raise BadRequest('no author: name the person with --by "Ana"')
    wanted = StatementBatch(uuid.uuid4().hex, by, of_batch=batch)
    (answer,) = record_all(Tables(Settings().mounted_tables_url), [wanted])
    if isinstance(answer, ResightError):
        raise answer
    print_facts(answer.model_dump(exclude={"changed_meanwhile", "left"}), fmt)
    if answer.changed_meanwhile:
        people = ", ".join(answer.by)
        note(f"later statements of {people} were replaced in images: {len(answer.changed_meanwhile)}")
    if answer.added:
        note(f"to take this back: resight assertions undo {answer.batch_id} --by NAME")
    else:
        note("nothing to withdraw: each statement of that batch was withdrawn before")


@app.command("list")
def list_assertions(
    media: Annotated[str | None, typer.Option(help="sha256 of an image, or its first digits")] = None,
    label: Annotated[str | None, typer.Option(help="only assertions with this label")] = None,
    history: Annotated[bool, typer.Option("--history", help="also assertions that a later one replaced")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """List human assertions, oldest first.

    Example: resight assertions list --label deer --format csv
    """
    found = human_assertions(Tables(Settings().mounted_tables_url), media, label, history)
    print_rows(found.to_pylist(), fmt, found.column_names)

"""The commands `select, evaluate`: the images to look at next, and models against people. They need no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from archive.defaults import PRODUCTION
from batch.runs.options import takes_scope
from batch.runs.scope import MediaScope
from cli.archive import MemoryOption
from cli.output import EmbedderName, Format, FormatOption, ViewName, note, print_facts, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.publishing.evaluation import Evaluation, Fraction, evaluate
    from batch.publishing.impact.result_sets import side
    from batch.publishing.impact.verdict import model_of
    from batch.publishing.selection import Selection, reasons, select
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()
COLUMNS = ("reason", "value", "camera_id", "path", "media_sha256")
Seed = Annotated[int, typer.Option(help="another seed gives another random order of the images")]


@app.command("select")
@takes_scope(MediaScope)
def select_command(
    scope: MediaScope,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="number of images")] = 100,
    by: Annotated[
        str, typer.Option(help="reasons in their order: uncertain, rare, disagree, diverse, random")
    ] = "uncertain,rare",
    against: Annotated[
        str, typer.Option(help="of disagree: results to compare with, a run id, name@version or view")
    ] = "",
    embedder: EmbedderName = "",
    seed: Seed = 0,
    view: ViewName = PRODUCTION,
    out: Annotated[Path | None, typer.Option(help="also write the ids to this new file, for --ids of a scope")] = None,
    memory_mib: MemoryOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """List the images that a person should look at next, with the reason of each.

    Images with a person's statement are left out. Example: resight select --count 50 --out next.txt
    """
    if out and out.exists():
        raise BadRequest(f"{out} exists: choose another name")
    settings = Settings()
    wanted = Selection(view=view, count=count, by=reasons(by), seed=seed, against=against, embedder=embedder)
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    rows = select(tables, store, scope, wanted, memory_mib).to_pylist()
    print_rows([{name: row[name] for name in COLUMNS} for row in rows], fmt, COLUMNS)
    if not rows:
        note(f"nothing to label: no image without a person's statement has such a reason: {', '.join(wanted.by)}")
    elif out:
        out.write_text("".join(f"{row['media_sha256']}\n" for row in rows))
        note(f"to label: resight export label-studio review --ids {out}")
    if drawn := max((int(row["value"]) for row in rows if row["reason"] == "random"), default=0):
        of = f"--random {drawn} --seed {seed}" + (f" --view {view}" if view != PRODUCTION else "")
        note(f"after labelling, with the same options of a scope: resight evaluate {of}")


@app.command("evaluate")
@takes_scope(MediaScope)
def evaluate_command(
    scope: MediaScope,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]", help="run id, name@version or view; default: published")
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, help="only this many images, drawn as by 'select --by random'")
    ] = None,
    seed: Seed = 0,
    view: ViewName = PRODUCTION,
    memory_mib: MemoryOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Measure models by the statements of people: precision, recall and calibration, with 95 % intervals.

    The options of a scope and --random choose the images; only reviewed ones count. CSV has the fractions only.
    Example: resight evaluate published deer@4 --random 100
    """
    settings = Settings()
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    sides = [side(tables, store, name) for name in models or ["published"]]
    found = [evaluate(tables, model, scope, random, seed, view, memory_mib) for model in sides]
    if fmt is Format.json:
        print_rows([one.model_dump(mode="json") for one in found], fmt)
        return
    if fmt is Format.table and not found[0].sample.reviewed:
        select = f"resight select --by random --count {random or 100} --seed {seed}"
        note(f"nothing is reviewed yet, of {found[0].sample.drawn} images: choose some with {select}, and review them")
        return
    for one in found if fmt is Format.table else []:
        error = one.calibration_error
        facts = {"model": model_of(one.model), "sample": one.sample.words}
        print_facts(facts | {"calibration_error": None if error is None else f"{error:.3f}"}, fmt)
    print_rows([row for one in found for row in _group_rows(one)], fmt)
    if fmt is Format.table:
        print_rows([row for one in found for row in _bin_rows(one)], fmt, ("model", "score"))
        if undecided := max((one.groups[0].undecided for one in found), default=0):
            note(f"up to {undecided} detections of these images have no statement: neither right nor wrong")


def _group_rows(one: Evaluation) -> list[dict[str, Any]]:
    counts = ("by", "name", "stated", "found", "recall", "correct", "wrong", "undecided", "precision")
    rows = [{name: getattr(group, name) for name in counts} for group in one.groups]
    fractions = [{name: _in_words(row[name]) for name in ("recall", "precision")} for row in rows]
    return [{"model": model_of(one.model)} | row | words for row, words in zip(rows, fractions, strict=True)]


def _bin_rows(one: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "model": model_of(one.model),
            "score": f"{place.from_score:g} to {place.to_score:g}",
            "detections": place.detections,
            "mean_score": f"{place.mean_score:.2f}",
            "correct": _in_words(place.correct),
        }
        for place in one.bins
    ]


def _in_words(part: Fraction) -> str:
    return "" if part.value is None else f"{part.value:.2f} ({part.low:.2f} to {part.high:.2f})"

"""tune: which batch, wait, threads, workers and replicas suit a model on this machine; no cluster needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cli.output import Format, FormatOption, errors, note, print_facts, print_rows
from model_store.errors import BadRequest, ObjectiveMissed
from model_store.lazy_imports import lazy_imports
from model_store.names import parse_ref, parse_version

with lazy_imports():
    from rich.progress import Progress

    from model_store.storage import absolute
    from model_store.store import ModelStore
    from serve.settings import Settings
    from serve.tune import point
    from serve.tune import tune as measuring
    from serve.tune.apply import apply_best, undo
    from serve.tune.facts import Measured, Tuned
    from serve.tune.place import pool_of
    from serve.tune.report import (
        default_out,
        read_report,
        require_empty,
        reserved,
        what_to_do,
        write_report,
    )
    from serve.tune.words import busy, doubts, missed, rows, summary, to_apply, verdict

N = TypeVar("N", int, float)
MOST = 4096
LOAD_SHARE = 0.7
OF_MEASURING = (
    "photos",
    "seconds",
    "load",
    "batch",
    "wait",
    "threads",
    "workers",
    "replicas",
    "out",
)


def register(app: typer.Typer) -> None:
    app.command("tune")(tune)


def tune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="name, name@version or name:alias of a detector")],
    objective_p99: Annotated[
        float | None,
        typer.Option(min=1, help="ms within which 99 of 100 images must be answered"),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="a folder of pictures as they will come; default: its probe")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="of a measurement")] = 6.0,
    load: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="share of its throughput p99 is measured at")
    ] = LOAD_SHARE,
    batch: Annotated[str, typer.Option(help="images a call; default 1,2,4; on a GPU to 32")] = "",
    wait: Annotated[str, typer.Option(help="ms that an unfilled batch waits")] = "0,2",
    threads: Annotated[str, typer.Option(help="inside a call; default: by the cores")] = "",
    workers: Annotated[str, typer.Option(help="calls at a time; default: by cores")] = "",
    replicas: Annotated[str, typer.Option(help="processes")] = "1,2",
    out: Annotated[
        str | None, typer.Option(help="a new folder for the report; default below HOME/tune")
    ] = None,
    earlier: Annotated[
        str | None, typer.Option("--from", help="the folder of a report: nothing is measured")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="write the best batch and wait to deployment.json")
    ] = False,
    take_back: Annotated[
        bool, typer.Option("--undo", help="with --from: what was applied from it is taken back")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Measure which settings suit a model on this machine, and within an objective. Writes no setting without --apply.

    Exit code 5 when no setting meets the objective.

    Example: resight tune ssdlite-coco@1 --objective-p99 150 --photos /data/deer/2026
    """
    settings = Settings()
    store = ModelStore(settings.models_url)
    if earlier is not None:
        _require_nothing_to_measure(context)
    if take_back:
        _undo(store, model, earlier, apply, fmt)
        return
    if earlier is not None:
        folder = absolute(earlier)
        tuned = _earlier(store, model, folder, objective_p99)
        todo = what_to_do(tuned, store.describe(parse_version(tuned.model)), store.url, folder)
        _print(tuned, fmt)
    else:
        if objective_p99 is None:
            raise BadRequest(
                "name the objective: --objective-p99 150 is 150 ms for 99 of 100 images"
            )
        if out is not None:
            require_empty(out)
        wanted = point.Wanted(
            batches=_numbers("--batch", batch, int, 1, point.MOST_BATCH),
            waits_ms=_numbers("--wait", wait, float, 0, point.MOST_WAIT_MS) or (0.0,),
            threads=_numbers("--threads", threads, int, 1),
            workers=_numbers("--workers", workers, int, 1),
            replicas=_numbers("--replicas", replicas, int, 1) or (1,),
        )
        prepared = measuring.prepare(settings, model, photos, wanted, seconds)
        folder = absolute(out or default_out(settings, str(prepared.version.id), prepared.at))
        with reserved(folder) as place:
            _before(prepared)
            tuned = _measured(prepared, objective_p99, load)
            _print(tuned, fmt)  # first: a report that cannot be written takes nothing of it
            todo = write_report(tuned, prepared.version, settings.models_url, place)
    for one in doubts(tuned):
        note(f"doubt: {one}")
    note(f"report: {folder}/index.html")
    if tuned.best is None:
        raise ObjectiveMissed(missed(tuned))
    note(verdict(tuned))
    done = to_apply(tuned, folder) if apply else []
    for one in todo:
        if one not in done:
            note(one)
    if apply:
        _apply(settings, store, tuned, folder)


def _require_nothing_to_measure(context: typer.Context) -> None:
    """Raises BadRequest that names the options."""
    sources = {name: context.get_parameter_source(name) for name in OF_MEASURING}
    given = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        raise BadRequest(
            f"--from tells of what was measured: {', '.join(f'--{name}' for name in given)} cannot go with it"
        )


def _undo(
    store: ModelStore, model: str, earlier: str | None, also_apply: bool, fmt: Format
) -> None:
    if earlier is None or also_apply:
        raise BadRequest("--undo goes with --from FOLDER, the report that was applied, alone")
    version = store.resolve(parse_ref(model))
    taken = undo(store, str(version), earlier)
    print_facts({"model": taken.model, "deployment": taken.before, "was": taken.after}, fmt)
    note(f"{version} is run as before; replicas follow at their next look at the store")


def _earlier(store: ModelStore, model: str, folder: str, objective: float | None) -> Tuned:
    """Raises BadRequest for a report of another version, or for another objective than its own."""
    tuned = read_report(folder)
    version = store.resolve(parse_ref(model))
    if tuned.model != str(version):
        raise BadRequest(f"{folder} is of {tuned.model}, not of {version}")
    if objective is not None and objective != tuned.objective_p99_ms:
        raise BadRequest(
            f"{folder} was measured for p99 {tuned.objective_p99_ms:g} ms: tune again for {objective:g}"
        )
    return tuned


def _before(prepared: measuring.Prepared) -> None:
    if prepared.machine.others_frac > measuring.BUSY:
        note(f"warning: {busy(prepared.machine.others_frac)}")
    if prepared.args.resources:
        note(
            f"the pool '{prepared.args.pool}' is of nodes with {prepared.args.resources}: is this one?"
        )
    note(
        f"about {_duration(prepared.about_s)}, for {prepared.version.id} with {prepared.facts.images} pictures"
    )


def _measured(prepared: measuring.Prepared, objective: float, load: float) -> Tuned:
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("starting", total=prepared.most_rounds)

        def say(one: Measured) -> None:
            bar.update(task, advance=1, description=f"{one.point.words}: {one.images_per_s:.1f}/s")

        return measuring.run(prepared, objective, load, say)


def _print(tuned: Tuned, fmt: Format) -> None:
    if fmt is Format.json:
        print_facts(summary(tuned), fmt)
    else:
        print_rows(rows(tuned), fmt)


def _apply(settings: Settings, store: ModelStore, tuned: Tuned, folder: str) -> None:
    pool = pool_of(settings, store, parse_version(tuned.model).name)
    applied = apply_best(store, tuned, pool, folder)
    if applied is None:
        note(f"nothing was written: {tuned.model} is run so already")
        return
    note(
        f"{tuned.model} now has {applied.after} in {store.url}/{tuned.model.partition('@')[0]}/deployment.json; "
        f"before it had {applied.before or 'no entry of its own'}. Back:\n"
        f"  resight tune {tuned.model} --from {folder} --undo"
    )


def _numbers(
    option: str, text: str, kind: Callable[[str], N], least: int, most: float = MOST
) -> tuple[N, ...]:
    """`1,2,4`; nothing for an empty text. Raises BadRequest."""
    try:
        found = tuple(kind(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        found = (kind(str(least - 1)),)
    if any(not least <= value <= most for value in found):
        raise BadRequest(
            f"{option} {text}: a list such as 1,2,4 from {least} to {most:g} is needed"
        )
    return found


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

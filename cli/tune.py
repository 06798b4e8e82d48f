"""tune: measure which batch, wait, threads, workers and replicas suit a model on this machine; no cluster needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote
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
    from serve.report_folder import reserved
    from serve.settings import Settings
    from serve.tune import plan as limits
    from serve.tune.bench import run
    from serve.tune.plan import SearchSpace, TuningPlan, pool_of, prepare
    from serve.tune.report import advice, apply_best, busy, doubts, read_report, rows, undo, verdict, write_report
    from serve.tune.results import MeasuredPoint, TuningResult

app = typer.Typer()
N = TypeVar("N", int, float)
MAX_NUMBER = 4096
LOAD_SHARE = 0.7
MEASURING_OPTIONS = ("photos", "seconds", "load", "batch", "wait", "threads", "workers", "replicas", "out")


@app.command()
def tune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="name, name@version or name:alias of a detector")],
    objective_p99: Annotated[
        float | None, typer.Option(min=1, help="ms within which 99 of 100 images must be answered")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="folder of typical pictures; default: the golden probe of the version")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="duration of one measurement in s")] = 6.0,
    load: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="share of a point's throughput at which its p99 is measured")
    ] = LOAD_SHARE,
    batch: Annotated[str, typer.Option(help="images per call; default 1,2,4, with GPUs 1,2,4,8,16,32")] = "",
    wait: Annotated[str, typer.Option(help="ms that a batch waits to be filled")] = "0,2",
    threads: Annotated[str, typer.Option(help="threads within a call; default: to suit the cores")] = "",
    workers: Annotated[str, typer.Option(help="calls at the same time; default: to suit the cores")] = "",
    replicas: Annotated[str, typer.Option(help="processes that share the workers")] = "1,2",
    out: Annotated[
        str | None, typer.Option(help="new or empty folder for the report; default: below HOME/tune")
    ] = None,
    earlier: Annotated[str | None, typer.Option("--from", help="folder of an earlier report: measure nothing")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="write the best batch and wait to deployment.json")] = False,
    take_back: Annotated[bool, typer.Option("--undo", help="with --from: restore what --apply has replaced")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Measure which settings suit a model on this machine within an objective. Settings change only with --apply.

    Exit code 5 if no setting meets the objective.

    Example: resight tune ssdlite-coco@1 --objective-p99 150 --photos /data/deer/2026
    """
    settings = Settings()
    store = ModelStore(settings.models_url)
    if earlier is not None:
        _require_no_measuring_options(context)
    if take_back and (earlier is None or apply):
        raise BadRequest("--undo goes with --from FOLDER, the applied report, and not with --apply")
    if earlier is not None:
        folder = absolute(earlier)
        result = _earlier(store, model, folder, objective_p99)
        if take_back:
            undo(store, result)
            print_facts({"model": result.model, "deployment": result.entry}, fmt)
            note(f"{result.model} has its former settings again; replicas follow at their next poll")
            return
        todo = advice(result, store.describe(parse_version(result.model)), store.url, folder)
        _print(result, fmt)
    else:
        if objective_p99 is None:
            raise BadRequest("no objective: use --objective-p99 150 for 99 of 100 images within 150 ms")
        space = SearchSpace(
            batches=_numbers("--batch", batch, int, 1, limits.MAX_BATCH),
            waits_ms=_numbers("--wait", wait, float, 0, limits.MAX_WAIT_MS) or (0.0,),
            threads=_numbers("--threads", threads, int, 1),
            workers=_numbers("--workers", workers, int, 1),
            replicas=_numbers("--replicas", replicas, int, 1) or (1,),
        )
        plan = prepare(settings, model, photos, space, objective_p99, load, seconds)
        stamp = plan.setup.at.replace("-", "").replace(":", "").replace("+0000", "Z")  # such as 20261122T073000Z
        folder = absolute(out or str(settings.home_path / "tune" / f"{plan.setup.model}-{stamp}"))
        with reserved(folder) as report:
            result = _measured(plan)
            _print(result, fmt)  # before the report, which may fail to be written
            todo = advice(result, plan.version, store.url, folder)
            write_report(result, plan.version, todo.values(), report)
    for doubt in doubts(result):
        note(f"doubt: {doubt}")
    note(f"report: {folder}/index.html")
    if result.best:
        note(verdict(result))
    for name, words in todo.items():
        if not (apply and name == "apply"):
            note(words)
    if result.best is None:
        raise ObjectiveMissed(verdict(result))
    if apply:
        _apply(settings, store, result, folder)


def _require_no_measuring_options(context: typer.Context) -> None:
    """Raises BadRequest that names the options."""
    sources = {name: context.get_parameter_source(name) for name in MEASURING_OPTIONS}
    given = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        raise BadRequest(f"--from measures nothing: {', '.join(f'--{name}' for name in given)} cannot go with it")


def _earlier(store: ModelStore, model: str, folder: str, objective: float | None) -> TuningResult:
    """Raises BadRequest for a report of another version or another objective."""
    result = read_report(folder)
    version = store.resolve(parse_ref(model))
    if result.model != str(version):
        raise BadRequest(f"{folder} is a report of {result.model}, not of {version}")
    if objective is not None and objective != result.objective_p99_ms:
        raise BadRequest(f"{folder} was measured for p99 {result.objective_p99_ms:g} ms: tune again for {objective:g}")
    return result


def _measured(plan: TuningPlan) -> TuningResult:
    setup, (rounds, duration_s) = plan.setup, plan.estimate()
    for warning in busy(setup):
        note(f"warning: {warning}")
    if plan.args.resources:
        note(f"the pool '{setup.pool}' uses nodes with {plan.args.resources}: is this one of them?")
    about = f"{duration_s:.0f} s" if duration_s < 90 else f"{duration_s / 60:.0f} min"
    note(f"about {about}, for {setup.model} with {setup.photos.images} pictures")
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("starting", total=rounds)

        def report(measured: MeasuredPoint) -> None:
            words = f"{measured.point}: {measured.images_per_s:.1f}/s"
            bar.update(task, advance=1, description=words)

        return run(plan, report)


def _print(result: TuningResult, fmt: Format) -> None:
    if fmt is Format.json:  # without the raw samples, which are in tune.json
        facts = result.model_dump(exclude={"points"})
        print_facts(facts | {"points": rows(result), "verdict": verdict(result)}, fmt)
    else:
        print_rows(rows(result), fmt)


def _apply(settings: Settings, store: ModelStore, result: TuningResult, folder: str) -> None:
    version = parse_version(result.model)
    applied = apply_best(store, result, pool_of(settings, store, version.name))
    if applied is None:
        note(f"nothing was written: {version} already has these settings")
        return
    note(
        f"{version} now has {applied} in {store.url}/{version.name}/deployment.json; before, it had "
        f"{result.entry or 'no entry'}. To undo:\n  resight tune {version} --from {quote(folder)} --undo"
    )


def _numbers(
    option: str, text: str, kind: Callable[[str], N], minimum: int, maximum: float = MAX_NUMBER
) -> tuple[N, ...]:
    """Parse a list such as `1,2,4`; an empty text is an empty list. Raises BadRequest."""
    wrong = BadRequest(f"invalid {option} {text}: use a list of {minimum} to {maximum:g}, as 1,2,4")
    try:
        numbers = tuple(kind(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise wrong from None
    if not all(minimum <= number <= maximum for number in numbers):
        raise wrong
    return numbers

"""The report of a sweep: rows and sentences, the page with its plot, and the folder that keeps them.

with reserved_folder(out) as folder, before the sweep: write_report(result, …); later read_report(out) -> TuningResult
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import ValidationError

from archive.catalogue.listing import EXTENSIONS
from model_store.errors import BadRequest
from model_store.frozen import wrong_fields
from model_store.storage import Folder, absolute, is_local
from model_store.store import ModelVersion
from serve.pages import render
from serve.tune.results import Point, TuningResult, TuningSetup, frontier

FACTS, SHRUNK_CONFIG, RESERVED = "tune.json", "config-jpeg_shrink-{}.json", ".measuring"
MAX_BUSY, MAX_UNSTEADY, MIN_REQUESTS = 0.1, 0.1, 100
"""Limits beyond which figures are doubtful; p99 of fewer requests is nearly the slowest of them."""


def rows(result: TuningResult) -> list[dict[str, Any]]:
    """Return a row per point, in the order of measuring."""
    own = [measured for measured in result.points if measured.point.same_key(result.current)]
    best = frontier(own)
    table: list[dict[str, Any]] = []
    for measured in result.points:
        point = measured.point
        marks = {
            "current": point == result.current,
            "best": point == result.best,
            "applies": point == result.applies,
            "frontier": point in best,
            "another key": measured not in own,
            "failed": bool(measured.failed),
        }
        figures = {
            "images_per_s": round(measured.images_per_s, 1),
            "p50_ms": _finite(measured.latency_ms(50)),
            "p99_ms": _finite(measured.p99_ms),
            "cpu_ms": round(measured.cpu_ms, 1),
            "requests": measured.requests,
            "meets": measured.p99_ms <= result.objective_p99_ms,
            "what": ", ".join(name for name, holds in marks.items() if holds),
        }
        table.append(point.model_dump() | figures)
    return table


def _finite(ms: float) -> float | None:
    return round(ms, 1) if ms < math.inf else None


def verdict(result: TuningResult) -> str:
    """Return the best point and its gain, or the nearest to the objective of those measured more than once."""
    now, model = result.of(result.current), result.model
    if result.best == result.current:
        return f"the current settings are the best, or equal within {result.margin:.0%}: {now}"
    if result.best:
        return f"best: {_gain(result, result.best)}"
    sure = [m for m in result.points if len(m.rounds) > 1 and m.point.same_key(result.current)]
    near = min(sure or [now], key=lambda measured: measured.p99_ms)
    return (
        f"no setting of {model} here meets p99 {result.objective_p99_ms:g} ms at {result.load_share:.0%} of its "
        f"throughput; nearest is {near.point}: {near}. Use a faster model, more cores or a longer objective"
    )


def advice(result: TuningResult, version: ModelVersion, store: str, out: str) -> dict[str, str]:
    """Return what to do with its command or the lines to write: by --apply, in the `pool`, by a new `version`."""
    lines: dict[str, str] = {}
    pool, current, best = result.pool, result.current, result.best
    if result.applies and result.applies != current:
        gain, command = _gain(result, result.applies), f"resight tune {result.model} --from {out}"
        lines["apply"] = f"with the pool as it is: {gain}\n  {command} --apply"
    if best and best.hardware != current.hardware:
        new, old = best.hardware._asdict(), current.hardware._asdict()
        changes = ", ".join(f"{name}: {new[name]}" for name in new if new[name] != old[name])
        place = "args" if pool == "default" else f"args, pools, {pool}"
        todo = f"in serve/app.yaml, under {place}: {changes}; then tune again"
        lines["pool"] = f"with other settings of the pool '{pool}': {_gain(result, best)}\n  {todo}"
    if shrunk := result.shrunk:
        factor = shrunk.point.jpeg_shrink
        whole = result.of(shrunk.point.replace(jpeg_shrink=current.jpeg_shrink))
        lines["version"] = f"jpeg_shrink {factor} could not be measured: {shrunk.failed}"
        if shrunk.rounds:
            gain = shrunk.images_per_s / whole.images_per_s - 1
            lines["version"] = (
                f"with jpeg_shrink {factor}: {gain:+.0%} images/s, {shrunk.cpu_ms:.1f} ms of CPU per image instead of "
                f"{whole.cpu_ms:.1f}. It changes pixels and so the inference key, and is never applied; a new version "
                f"of it, from local files:\n  {_add_command(version, store, f'{out}/{SHRUNK_CONFIG.format(factor)}')}"
            )
    return lines


def _add_command(version: ModelVersion, store: str, config: str) -> str:
    folder = f"{store}/{version.id.name}/{version.id.version}"
    weights = getattr(version.config.runtime, "weights", None)
    probes = [name for name in sorted(version.digests) if name.lower().endswith(EXTENSIONS)]
    words = ["resight models add", *([quote(f"{folder}/{weights}")] if weights else [])]
    words += [f"--name {quote(version.id.name)} --config {quote(config)}"]
    return " ".join(words + [f"--probe {quote(f'{folder}/{name}')}" for name in probes])


def _gain(result: TuningResult, point: Point) -> str:
    now, then = result.of(result.current), result.of(point)
    gain = then.images_per_s / now.images_per_s - 1
    return f"{point}: {then} ({gain:+.0%} images/s; now {now})"


def doubts(result: TuningResult) -> list[str]:
    """Return the reasons why the figures may mislead."""
    lines = [*busy(result)]
    if result.unsteady > MAX_UNSTEADY:
        rates = [r.images_per_s for r in result.of(result.current).rounds]
        lines.append(
            f"the current settings alone measured from {min(rates):.1f} to {max(rates):.1f} images/s: this machine "
            f"was not steady, and throughputs within {result.margin:.0%} count as equal"
        )
    fewest = min((m.requests for m in result.points if m.rounds), default=0)
    if fewest < MIN_REQUESTS:
        lines.append(f"p99 of some points is of {fewest} requests only: use longer --seconds")
    return lines + [f"{m.point}: {m.failed}" for m in result.points if m.failed]


def busy(setup: TuningSetup) -> list[str]:
    others = setup.machine.others_frac
    words = f"other programs use {others:.0%} of this machine: figures mean little until they stop"
    return [words] if others > MAX_BUSY else []


def page(result: TuningResult, advice: Iterable[str]) -> str:
    """Return the report as HTML."""
    table = rows(result)
    setup = result.model_dump(include={*TuningSetup.model_fields, "device"})
    return render(
        "serve/tune/report.html",
        title=f"Tuning of {result.model}",
        verdict=verdict(result),
        doubts=doubts(result),
        plot=plot(table, result.objective_p99_ms),
        advice=list(advice),
        points=table,
        setup=json.dumps(setup, indent=1),
    )


def plot(table: Sequence[Mapping[str, Any]], objective_ms: float) -> str:
    """Return throughput over p99 as an <svg>, with the frontier and the objective; both axes begin at 0."""
    drawn = sorted((row for row in table if row["p99_ms"]), key=lambda row: row["p99_ms"])
    slowest = max((row["p99_ms"] for row in drawn), default=objective_ms)
    right = _round_up(max(slowest, min(objective_ms, 2 * slowest)))
    top = _round_up(max((row["images_per_s"] for row in drawn), default=1.0))
    return render(
        "serve/tune/plot.svg",
        ticks=[(right * i / 5, top * i / 5) for i in range(6)],
        points=drawn,
        objective_ms=objective_ms,
        right=right,
        x=lambda ms: round(60 + 660 * ms / right, 1),
        y=lambda images_per_s: round(380 - 350 * images_per_s / top, 1),
    )


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value or 1.0))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value)


@contextlib.contextmanager
def reserved_folder(out: str) -> Generator[Folder]:
    """Reserve a new or empty folder for one sweep. Without a report, it is afterwards as it was.

    Raises BadRequest if it is not empty, StorageUnreachable or StorageUnsafe if it cannot be written.
    """
    folder = Folder(absolute(out))
    existed = folder.exists()
    if folder.names() or (existed and not folder.fs.isdir(folder.root)):
        raise BadRequest(f"{out} is not empty: name a new folder for the report")
    try:
        folder.create(RESERVED, b"")
    except FileExistsError:
        raise BadRequest(f"{out} is used by another sweep: name a new folder") from None
    try:
        yield folder
    finally:
        with contextlib.suppress(Exception):  # must not hide the error of a sweep
            folder.remove(RESERVED)
            if is_local(folder.url) and not existed:
                Path(folder.root).rmdir()  # fails if there is a report


def write_report(result: TuningResult, version: ModelVersion, advice: Iterable[str], folder: Folder) -> None:
    """Write the files of the report, index.html last. Raises StorageUnreachable."""
    if shrunk := result.shrunk:
        factor, config = shrunk.point.jpeg_shrink, version.config.model_dump(mode="json")
        config["preprocess"]["jpeg_shrink"] = factor
        folder.create(SHRUNK_CONFIG.format(factor), json.dumps(config, indent=1).encode())
    folder.create(FACTS, result.model_dump_json().encode())
    folder.create("index.html", page(result, advice).encode("utf-8", "backslashreplace"))


def read_report(out: str) -> TuningResult:
    """Return the result of an earlier sweep. Raises BadRequest for a folder without a valid report."""
    try:
        return TuningResult.model_validate_json(Folder(absolute(out)).read(FACTS))
    except FileNotFoundError:
        raise BadRequest(f"{out} has no {FACTS}: name the folder of a tuning report") from None
    except ValidationError as error:
        wrong = wrong_fields(error, TuningResult)
        raise BadRequest(f"{out}/{FACTS} is not a valid report: {wrong}") from error

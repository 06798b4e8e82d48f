"""The report of a sweep: rows and sentences, the page with its plot, the folder that keeps them, and what it applies.

with reserved(out) as folder, before the sweep: write_report(result, …); later read_report(out) -> TuningResult

apply_best and undo write the version's own entry of deployment.json. A report has the entry from before and the
settings to write, so nothing else is recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import Any

from pydantic import ValidationError

from archive.catalogue.listing import EXTENSIONS
from model_store.deployment import own_entry, write_entry
from model_store.errors import BadRequest, Conflict, ObjectiveMissed
from model_store.frozen import wrong_fields
from model_store.names import parse_version
from model_store.storage import Folder, absolute
from model_store.store import ModelStore, ModelVersion
from serve.pages import render
from serve.settings import DetectArgs
from serve.tune.results import Hardware, Point, TuningResult, TuningSetup, frontier

FACTS, SHRUNK_CONFIG = "tune.json", "config-jpeg_shrink-{}.json"
MAX_BUSY, MAX_UNSTEADY, MIN_REQUESTS = 0.1, 0.1, 100
"""Limits beyond which figures are doubtful; p99 of fewer requests is nearly the slowest of them."""
LABEL_PX, CHARACTER_PX = 14, 8
"""Height of a label of the plot, and the maximum width of its characters on average."""
MAX_CHANCE = 0.3
"""Variation of the current settings beyond which the best point may be chance."""


def rows(result: TuningResult) -> list[dict[str, Any]]:
    """Return a row per point, in the order of measuring."""
    own = [measured for measured in result.points if measured.point.same_key(result.current)]
    best, table = frontier(own), list[dict[str, Any]]()
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
            "p50_ms": round(p50, 1) if (p50 := measured.latency_ms(50)) < math.inf else None,
            "p99_ms": round(p99, 1) if (p99 := measured.p99_ms) < math.inf else None,
            "cpu_ms": round(measured.cpu_ms, 1),
            "requests": measured.requests,
            "meets": p99 <= result.objective_p99_ms,
            "what": ", ".join(name for name, holds in marks.items() if holds),
        }
        table.append(point.model_dump() | figures)
    return table


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
        command = f"resight tune {result.model} --from {quote(out)} --apply"
        lines["apply"] = f"with the pool as it is: {_gain(result, result.applies)}\n  {command}"
    if best and best.hardware != current.hardware:
        new, old = best.hardware._asdict(), current.hardware._asdict()
        changes = ", ".join(f"{name}: {new[name]}" for name in new if new[name] != old[name])
        place = "args" if pool == "default" else f"args, pools, {pool}"
        todo = f"in serve/app.yaml, under {place}: {changes}; then tune again"
        lines["pool"] = f"with other settings of the pool '{pool}': {_gain(result, best)}\n  {todo}"
    if shrunk := result.shrunk:
        factor = shrunk.point.jpeg_shrink
        whole = result.of(shrunk.point.replace(jpeg_shrink=current.jpeg_shrink))
        lines["version"] = f"jpeg_shrink {factor} could not be compared: {shrunk.failed or whole.failed}"
        if shrunk.rounds and whole.rounds:
            gain = shrunk.images_per_s / whole.images_per_s - 1
            figures = f"{gain:+.0%} images/s, {shrunk.cpu_ms:.1f} ms of CPU per image instead of {whole.cpu_ms:.1f}"
            lines["version"] = f"jpeg_shrink {factor} is not better here: {figures}"
            if gain > result.margin:
                lines["version"] = (
                    f"with jpeg_shrink {factor}: {figures}. It changes pixels and so the inference key, and is never "
                    "applied; a new version of it, from local files:\n  "
                    + _add_command(version, store, f"{out}/{SHRUNK_CONFIG.format(factor)}")
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
    missed = f", over the objective of {result.objective_p99_ms:g} ms" if now.p99_ms > result.objective_p99_ms else ""
    return f"{point}: {then} ({gain:+.0%} images/s; now {now}{missed})"


def doubts(result: TuningResult) -> list[str]:
    """Return the reasons why the figures may mislead."""
    lines = [*busy(result)]
    if result.unsteady > MAX_UNSTEADY:
        rates = [r.images_per_s for r in result.of(result.current).rounds]
        lines.append(
            f"the current settings alone measured from {min(rates):.1f} to {max(rates):.1f} images/s: this machine "
            f"was not steady, and throughputs within {result.margin:.0%} count as equal"
        )
    fewest = min((max(r.requests for r in m.rounds) for m in result.points if m.rounds), default=0)
    if fewest < MIN_REQUESTS:
        few = "1 request" if fewest == 1 else f"{fewest} requests"
        words = f"p99 of some points is of only {few}" if fewest else "no request of some points has ended"
        lines.append(f"{words}: use longer --seconds")
    return lines + [f"{m.point}: {m.failed}" for m in result.points if m.failed]


def busy(setup: TuningSetup) -> list[str]:
    others = setup.machine.others_frac
    words = f"other programs use {others:.0%} of this machine: figures mean little until they stop"
    return [words] if others > MAX_BUSY else []


def page(result: TuningResult, advice: Iterable[str]) -> str:
    table = rows(result)
    return render(
        "serve/tune/report.html",
        title=f"Tuning of {result.model}",
        verdict=verdict(result),
        doubts=doubts(result),
        plot=plot(table, result.objective_p99_ms),
        advice=list(advice),
        points=table,
        setup=result.model_dump_json(include={*TuningSetup.model_fields, "device"}, indent=1),
    )


def plot(table: Sequence[Mapping[str, Any]], objective_ms: float) -> str:
    """Return throughput over p99 as an <svg>, with the frontier and the objective; both axes begin at 0."""
    drawn = sorted((row for row in table if row["p99_ms"]), key=lambda row: row["p99_ms"])
    slowest = max((row["p99_ms"] for row in drawn), default=objective_ms)
    right = _round_up(max(slowest, min(objective_ms, 2 * slowest)))
    top = _round_up(max((row["images_per_s"] for row in drawn), default=1.0))

    def x(ms: float) -> float:
        return round(60 + 660 * ms / right, 1)

    def y(images_per_s: float) -> float:
        return round(380 - 350 * images_per_s / top, 1)

    labels: list[tuple[float, float, str]] = []
    for row in drawn:
        at_x, at_y = x(row["p99_ms"]) + 8, y(row["images_per_s"]) - 6
        while any(abs(at_y - y2) < LABEL_PX and at_x < x2 + CHARACTER_PX * len(text) for x2, y2, text in labels):
            at_y += LABEL_PX
        if row["what"]:
            labels.append((at_x, at_y, row["what"].replace(",", "")))
    return render(
        "serve/tune/plot.svg",
        ticks=[(right * i / 5, top * i / 5) for i in range(6)],
        points=drawn,
        objective_ms=objective_ms,
        right=right,
        labels=labels,
        x=x,
        y=y,
    )


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value or 1.0))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value)


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


def apply_best(store: ModelStore, result: TuningResult, pool: DetectArgs) -> dict[str, Any] | None:
    """Write the best applicable settings; return the new entry, or None if the current ones are the best.

    `pool` is the model's. Raises ObjectiveMissed if no batch meets the objective with the pool as it is, BadRequest if
    the version is not the measured one, Conflict if the machine was unsteady, or pool or entry have changed.
    """
    version = parse_version(result.model)
    if result.applies is None:
        raise ObjectiveMissed(f"nothing was written: no batch is fast enough in this pool; {verdict(result)}")
    if store.describe(version).info.inference_key != result.inference_key:
        raise BadRequest(f"{version} of {store.url} is not the measured version: tune again")
    was = {"pool": result.pool, **result.current.hardware._asdict(), "own entry": result.entry}
    entry = own_entry(store, version)
    now = {"pool": pool.pool, **Hardware.of(pool)._asdict(), "own entry": entry}
    changes = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    if changes and entry == _applied(result) != result.entry:
        raise Conflict(f"{version} has these settings already: undo them first, or tune again")
    if changes:
        raise Conflict(
            f"nothing was written: {version} was measured with other settings ({'; '.join(changes)}): tune again"
        )
    if result.applies == result.current:
        return None
    if result.unsteady > MAX_CHANCE:
        varied = f"throughput of the current settings varied by {result.unsteady:.0%}"
        raise Conflict(f"nothing was written: {varied}, so the best may be chance: use a quiet machine")
    write_entry(store, version, _applied(result), expected=result.entry)
    return _applied(result)


def undo(store: ModelStore, result: TuningResult) -> None:
    """Restore the entry from before --apply. Raises BadRequest if it is there, Conflict if another one is."""
    version = parse_version(result.model)
    entry = own_entry(store, version)
    if entry == result.entry:
        raise BadRequest(f"{version} has the settings it was measured with: there is nothing to undo")
    if result.applies is None or entry != _applied(result):
        raise Conflict(
            f"{version} has other settings now ({entry}): edit its deployment.json by hand; it had {result.entry}"
        )
    write_entry(store, version, result.entry, expected=entry)


def _applied(result: TuningResult) -> dict[str, Any]:
    best = result.applies or result.current
    return (result.entry or {}) | {"batch": {"max": best.batch, "wait_ms": best.wait_ms}}

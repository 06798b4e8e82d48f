"""One sweep of one version, from the store to its facts; nothing is written.

prepare(settings, version, …) -> Prepared, with how long it will take; run(Prepared) -> Tuned
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_store.deployment import own_entry, read_deployment
from model_store.machine import usable_cores
from model_store.names import parse_ref
from model_store.store import ModelStore, ModelVersion
from serve.settings import DetectArgs, Settings
from serve.tune.bench import Bench
from serve.tune.facts import Machine, Measured, Photos, Tuned
from serve.tune.place import machine, paying_shrink, photos_of, pool_of
from serve.tune.point import Hardware, Point, Wanted, about_s, first_points, most_points
from serve.tune.sweep import Sweep

BUSY = 0.1
"""Share of the machine that others may use before figures mean little."""
BATCHES, GPU_BATCHES = (1, 2, 4), (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Prepared:
    """All that is known before anything is measured, `at` that time. `entry`: the version's own of
    deployment.json; `shrink`: the jpeg_shrink to measure, if one pays.
    """

    at: str
    version: ModelVersion
    entry: dict[str, Any] | None
    args: DetectArgs
    facts: Photos
    photos: dict[str, bytes]
    shrink: int | None
    machine: Machine
    wanted: Wanted
    seconds: float
    most_rounds: int
    about_s: float


def prepare(
    settings: Settings, model: str, folder: Path | None, wanted: Wanted, seconds: float
) -> Prepared:
    """Without batches, those that are usual for the pool's hardware.

    Raises ModelNotFound, BadRequest for a classifier, for lists that are too long and for what are no
    pictures, ModelNotReady, ClusterError.
    """
    store = ModelStore(settings.models_url)
    described = store.describe(store.resolve(parse_ref(model)))
    config = described.detector_config
    args = pool_of(settings, store, described.id.name)
    read_deployment(store, described.id)  # refused now rather than when it would be written
    entry = own_entry(store, described.id)
    facts, photos = photos_of(store, described, folder, args.limits.megapixels * 1_000_000)
    shrink = paying_shrink(config, photos)
    guess = _current(args, 1, 0.0, config.preprocess.jpeg_shrink)
    if not wanted.batches:
        batches = GPU_BATCHES if args.num_gpus else BATCHES
        wanted = wanted.model_copy(update={"batches": batches})
    first = first_points(guess, usable_cores(), wanted)
    return Prepared(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=described,
        entry=entry,
        args=args.model_copy(update={"models": settings.models_url}),
        facts=facts,
        photos=photos,
        shrink=shrink,
        machine=machine(),
        wanted=wanted,
        seconds=seconds,
        most_rounds=most_points(first, wanted, shrink is not None),
        about_s=about_s(first, wanted, shrink is not None, seconds),
    )


def run(
    prepared: Prepared,
    objective_p99_ms: float,
    load_share: float,
    say: Callable[[Measured], None] = lambda measured: None,
) -> Tuned:
    """Raises ModelError where the version does not load or cannot be measured as it is run now."""
    described, args, photos = prepared.version, prepared.args, list(prepared.photos.values())
    with Bench(described.id, args, photos, prepared.seconds, load_share) as bench:
        batch, device = bench.current()
        own = described.detector_config.preprocess.jpeg_shrink
        current = _current(args, batch.max, batch.wait_ms, own)
        sweep = Sweep(
            bench.measure,
            current,
            prepared.machine.cores,
            prepared.wanted,
            objective_p99_ms,
            prepared.shrink,
            say,
        )
        swept = sweep.run()
    return Tuned(
        model=str(described.id),
        inference_key=described.info.inference_key,
        pool=args.pool,
        device=device,
        at=prepared.at,
        objective_p99_ms=objective_p99_ms,
        load_share=load_share,
        seconds=prepared.seconds,
        machine=prepared.machine,
        photos=prepared.facts,
        entry=prepared.entry,
        current=current,
        points=swept.points,
        margin=round(swept.margin, 4),
        unsteady=round(swept.unsteady, 4),
        best=swept.best,
        applies=swept.applies,
    )


def _current(args: DetectArgs, batch: int, wait_ms: float, jpeg_shrink: int) -> Point:
    hardware = Hardware.of(args)._asdict()
    return Point(batch=batch, wait_ms=wait_ms, jpeg_shrink=jpeg_shrink, **hardware)

"""Prepare a sweep: the pool and version to measure, the points, the pictures and the machine. Nothing is written."""

from __future__ import annotations

import hashlib
import heapq
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, product
from pathlib import Path
from statistics import fmean

import psutil

from archive.catalogue.listing import EXTENSIONS, list_files
from model_store.config import Preprocess
from model_store.deployment import DEFAULT_POOL, own_entry, read_pool
from model_store.errors import BadRequest, ImageError
from model_store.frozen import Frozen
from model_store.images.decode import MAX_PIXELS
from model_store.images.header import read_header
from model_store.libraries import library_versions
from model_store.machine import cpu_name, usable_cores
from model_store.names import parse_ref
from model_store.storage import Folder, absolute
from model_store.store import ModelStore, ModelVersion
from model_store.transform.preprocess import read_image, shrink_factor
from serve.cluster.deploy import detect_args
from serve.models.pools import require_pool
from serve.settings import DetectArgs, Settings
from serve.tune.results import Hardware, Machine, Photos, Point, TuningSetup

BATCHES, GPU_BATCHES = (1, 2, 4), (1, 2, 4, 8, 16, 32)
MAX_BATCH, MAX_WAIT_MS = 1024, 1000.0  # as in model_store.config.Batch.
MAX_PHOTOS = 32
CONFIRM_ROUNDS = 2  # of the best points, in addition to their first.
LOOK_S = 1.0  # for the load by other programs.
START_S = 4.0  # about, for a replica process to start and load a small model.


class SearchSpace(Frozen):
    """Values to try. Empty lists are replaced by what suits the pool and the cores."""

    batches: tuple[int, ...] = ()
    waits_ms: tuple[float, ...] = (0.0, 2.0)
    threads: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()
    replicas: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class TuningPlan:
    """A sweep before it is measured. `shrink` is the jpeg_shrink to measure, if one saves time."""

    setup: TuningSetup
    version: ModelVersion
    args: DetectArgs
    photos: tuple[bytes, ...]
    space: SearchSpace
    shrink: int | None

    def current(self, batch: int = 1, wait_ms: float = 0.0) -> Point:
        """Return the point of the pool and the version with this batch and wait."""
        shrink = self.version.detector_config.preprocess.jpeg_shrink
        return Point(batch=batch, wait_ms=wait_ms, jpeg_shrink=shrink, **Hardware.of(self.args)._asdict())

    def estimate(self) -> tuple[int, float]:
        """Return about the number of rounds, and their duration in s if the model loads fast."""
        first = first_points(self.current(), self.setup.machine.cores, self.space)
        kinds = len({point.hardware for point in first}) + len(self.space.replicas)
        rounds = len(first) + 2 * len(self.space.waits_ms) + 2 * kinds + 4 * CONFIRM_ROUNDS
        return rounds, rounds * self.setup.seconds + kinds * self.args.replicas * START_S


def first_points(current: Point, cores: int, space: SearchSpace) -> list[Point]:
    """Return the current settings, then batches x threads x workers, grouped by hardware.

    The processes share the cores; half of the cores are also tried, which leaves the rest for decoding.
    """
    own = max(1, cores // current.replicas)
    threads = space.threads or [2**i for i in range(own.bit_length())]
    fitting = {(t, max(1, own // (share * t))) for t in threads for share in (1, 2)}
    pairs = sorted(set(product(threads, space.workers)) or fitting)
    hardware = [current.hardware, *(Hardware(t, w, current.replicas) for t, w in pairs)]
    points = [current]
    for shape, batch in product(hardware, sorted(space.batches)):
        points.append(current.replace(batch=batch, wait_ms=current.wait_ms if batch > 1 else 0.0, **shape._asdict()))
    return list(dict.fromkeys(points))


def prepare(
    settings: Settings,
    model: str,
    folder: Path | None,
    space: SearchSpace,
    objective_p99_ms: float,
    load_share: float = 0.7,
    seconds: float = 6.0,
) -> TuningPlan:
    """Check all that can be checked before a sweep, and describe the sweep.

    Raises ModelNotFound, ModelNotReady, ClusterError, and BadRequest for a classifier or an invalid picture.
    """
    store = ModelStore(settings.models_url)
    version = store.describe(store.resolve(parse_ref(model)))
    preprocess = version.detector_config.preprocess
    args = pool_of(settings, store, version.id.name)
    entry = own_entry(store, version.id)  # an invalid file is rejected now, not after the sweep
    facts, photos = read_photos(store, version, folder, args.limits.megapixels * 1_000_000)
    if not space.batches:
        space = space.model_copy(update={"batches": GPU_BATCHES if args.num_gpus else BATCHES})
    setup = TuningSetup(
        model=str(version.id),
        inference_key=version.info.inference_key,
        pool=args.pool,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        objective_p99_ms=objective_p99_ms,
        load_share=load_share,
        seconds=seconds,
        machine=machine(),
        photos=facts,
        entry=entry,
    )
    pictures = tuple(photos.values())
    return TuningPlan(setup, version, args, pictures, space, useful_shrink(preprocess, pictures))


def pool_of(settings: Settings, store: ModelStore, name: str) -> DetectArgs:
    """Return the arguments of the model's pool in the file of applications. Raises ModelNotReady, ClusterError."""
    args = detect_args(settings)
    pool = read_pool(store, name)
    require_pool(name, pool, {DEFAULT_POOL, *args.pools})
    return args if pool == DEFAULT_POOL else args.of_pool(pool)


def read_photos(
    store: ModelStore, version: ModelVersion, folder: Path | None, max_pixels: int = MAX_PIXELS
) -> tuple[Photos, dict[str, bytes]]:
    """Return the pictures of a folder, or of the version's golden probe. Each is decoded once, as an upload is.

    Raises BadRequest for an empty folder and for a picture that is unreadable, invalid or too large.
    """
    if folder is None:
        source = f"the golden probe of {version.id}"
        names = [n for n in version.digests if n.startswith("probe/") and n.lower().endswith(EXTENSIONS)]
        photos = {name: store.read_file(version, name) for name in names}
    else:
        source = folder.name or str(folder)
        try:
            photos = {name: (folder / name).read_bytes() for name in choose_photos(folder)}
        except OSError as error:
            raise BadRequest(f"cannot read {error.filename}: {error.strerror}") from error
    pixels = 0
    for name, data in photos.items():
        try:
            image, _ = read_image(data, version.detector_config.preprocess, max_pixels)
        except ImageError as error:
            raise BadRequest(f"invalid picture {name}: {error}") from error
        pixels += image.width_px * image.height_px
    if not photos:
        raise BadRequest(f"no pictures in {folder or source}: name a folder with --photos")
    facts = Photos(
        source=source,
        images=len(photos),
        mean_bytes=sum(map(len, photos.values())) // len(photos),
        mean_megapixels=round(pixels / len(photos) / 1e6, 2),
    )
    return facts, photos


def choose_photos(folder: Path) -> list[str]:
    """Return up to MAX_PHOTOS paths, chosen by a hash of their names: at random, but the same in each sweep."""
    if not folder.is_dir():
        raise BadRequest(f"--photos {folder} is not a folder")
    paths = chain.from_iterable(part.files["path"].to_pylist() for part in list_files(Folder(absolute(str(folder)))))
    return sorted(heapq.nsmallest(MAX_PHOTOS, paths, key=lambda p: hashlib.sha256(p.encode()).digest()))


def useful_shrink(spec: Preprocess, photos: Iterable[bytes]) -> int | None:
    """Return the largest jpeg_shrink that a picture would be decoded with, None if the version's own is as large."""
    largest = spec.model_copy(update={"jpeg_shrink": 1 if spec.tiling else 8})
    headers = [read_header(data) for data in photos]
    sizes = [(h.width_px, h.height_px) for h in headers if h.media_type == "image/jpeg"]
    factor = max((shrink_factor(*size, largest) for size in sizes), default=1)
    return factor if factor > spec.jpeg_shrink else None


def machine() -> Machine:
    """Describe this machine, and measure for LOOK_S what other programs use of the cores available here."""
    percents = psutil.cpu_percent(interval=LOOK_S, percpu=True)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    busy = [percents[core] for core in usable if core < len(percents)]
    return Machine(
        cores=usable_cores(),
        cpu=cpu_name(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        others_frac=round(fmean(busy or percents or [0.0]) / 100, 3),
        versions=library_versions(),
    )

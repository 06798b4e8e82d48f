"""What a sweep starts from: the pool that a model lives in, the pictures that are sent, the machine."""

from __future__ import annotations

import hashlib
import heapq
import os
import platform
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from statistics import fmean

import psutil
from pydantic import ValidationError

from archive.listing import EXTENSIONS, list_files
from model_store.config import ModelConfig, Preprocess
from model_store.deployment import DEFAULT_POOL, read_pool
from model_store.errors import BadRequest, ClusterError, ImageError
from model_store.image_header import read_header
from model_store.images import MAX_PIXELS
from model_store.libraries import library_versions
from model_store.machine import cpu_name, usable_cores
from model_store.preprocess import read_image, shrink_factor
from model_store.storage import Folder, absolute
from model_store.store import ModelStore, ModelVersion
from serve.app_names import APP
from serve.deploy import serve_config
from serve.placement import require_pool
from serve.settings import DetectArgs, Settings
from serve.tune.facts import Machine, Photos

MOST_PHOTOS = 32
"""Of a folder, spread over it: they are kept in memory, and sent in turn."""
LOOK_S = 1.0
"""Of what others do, before anything of ours runs."""


def pool_of(settings: Settings, store: ModelStore, name: str) -> DetectArgs:
    """The arguments of the application (serve/app.yaml, or RESIGHT_APP) for the pool that the model lives in.

    Raises ModelNotReady for a pool that there is not, ClusterError for an application that cannot be read.
    """
    config = serve_config(settings, "127.0.0.1", 8000)
    found = [one["args"] for one in config["applications"] if one.get("name") == APP]
    if not found:
        raise ClusterError(f"the application file has no application '{APP}': see serve/app.yaml")
    try:
        args = DetectArgs.model_validate(found[0])
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"]))
        raise ClusterError(f"application '{APP}', args: {field}: {wrong['msg']}") from error
    pool = read_pool(store, name)
    require_pool(name, pool, {DEFAULT_POOL, *args.pools})
    return args if pool == DEFAULT_POOL else args.of_pool(pool)


def photos_of(
    store: ModelStore, described: ModelVersion, folder: Path | None, most_pixels: int = MAX_PIXELS
) -> tuple[Photos, dict[str, bytes]]:
    """Of a folder, or else of the version's golden probe; by name. Each is decoded once, as an upload is.

    Raises BadRequest where there is none, and for one that cannot be decoded or has more pixels, with its name;
    StorageUnreachable for a folder that cannot be listed.
    """
    if folder is None:
        names = [name for name in described.digests if name.lower().endswith(EXTENSIONS)]
        found = {n: store.read_file(described, n) for n in names if n.startswith("probe/")}
        source = f"the golden probe of {described.id}"
    else:
        found, source = _files(folder), folder.name or str(folder)
    preprocess = described.detector_config.preprocess
    sizes = [_size_px(name, data, preprocess, most_pixels) for name, data in found.items()]
    if not sizes:
        raise BadRequest(
            f"there are no pictures in {folder or source}: name a folder with --photos"
        )
    pixels = sum(across * down for across, down in sizes)
    facts = Photos(
        source=source,
        images=len(found),
        mean_bytes=sum(map(len, found.values())) // len(found),
        mean_megapixels=round(pixels / len(found) / 1e6, 2),
    )
    return facts, found


def paying_shrink(config: ModelConfig, photos: Mapping[str, bytes]) -> int | None:
    """The largest jpeg_shrink that one of these pictures would be decoded with, where it is more than the
    version's own.
    """
    spec: Preprocess = config.preprocess
    if spec.tiling is not None:
        return None
    most = spec.model_copy(update={"jpeg_shrink": 8})
    headers = [read_header(data) for data in photos.values()]
    sizes = [(h.width_px, h.height_px) for h in headers if h.media_type == "image/jpeg"]
    found = max((shrink_factor(across, down, most) for across, down in sizes), default=1)
    return found if found > spec.jpeg_shrink else None


def machine() -> Machine:
    """Call it before anything of ours runs: it looks for LOOK_S at what others do."""
    others = others_frac()
    return Machine(
        cores=usable_cores(),
        cpu=cpu_name(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        others_frac=round(others, 3),
        versions=library_versions(),
    )


def others_frac() -> float:
    """Of the cores that this process may use, as far as the system tells them apart."""
    each = psutil.cpu_percent(interval=LOOK_S, percpu=True)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    busy = [each[core] for core in usable if core < len(each)]
    return fmean(busy or each or [0.0]) / 100


def _files(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise BadRequest(f"--photos {folder} is no folder")
    try:
        return {
            path: (folder / path).read_bytes() for path in chosen(Folder(absolute(str(folder))))
        }
    except OSError as error:
        raise BadRequest(f"cannot read {error.filename}: {error.strerror}") from error


def chosen(folder: Folder) -> list[str]:
    """At most MOST_PHOTOS paths, by a hash of their names: like a draw, but the same in each sweep and on each
    machine. Raises StorageUnreachable.
    """
    found: list[str] = []
    for part in list_files(folder):
        listed = part.files["path"].to_pylist()
        found = heapq.nsmallest(MOST_PHOTOS, chain(found, listed), key=_drawn)
    return sorted(found)


def _drawn(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


def _size_px(name: str, data: bytes, spec: Preprocess, most_pixels: int) -> tuple[int, int]:
    """Width and height."""
    try:
        facts, _ = read_image(data, spec, most_pixels)
    except ImageError as error:
        raise BadRequest(f"{name} is no picture that can be sent: {error}") from error
    return facts.width_px, facts.height_px

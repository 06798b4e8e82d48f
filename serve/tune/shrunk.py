"""Scaled decoding, as information: what it gains, and the command that makes a version of it. Pure.

It changes pixels, so it is part of the inference key: another version, which the archive is due for.
"""

from __future__ import annotations

import json
from shlex import quote

from archive.listing import EXTENSIONS
from model_store.storage import is_local
from model_store.store import ModelVersion
from serve.tune.facts import Tuned


def config_name(tuned: Tuned) -> str | None:
    """Of the file with the new version's config, in the report's folder; None where nothing was measured."""
    factor = _factor(tuned)
    return None if factor is None else f"config-jpeg_shrink-{factor}.json"


def config_of(tuned: Tuned, version: ModelVersion) -> bytes:
    """The version's config but for jpeg_shrink; every field, since what is left out would be recognised anew."""
    config = version.config.model_dump(mode="json")
    config["preprocess"]["jpeg_shrink"] = _factor(tuned)
    return json.dumps(config, indent=1).encode()


def words(tuned: Tuned, version: ModelVersion, store: str, out: str) -> str | None:
    """What it gains beside the same settings without it, and how to get it."""
    factor = _factor(tuned)
    if factor is None:
        return None
    shrunk = next(one for one in tuned.points if one.point.jpeg_shrink == factor)
    whole = tuned.of(shrunk.point.model_copy(update={"jpeg_shrink": tuned.current.jpeg_shrink}))
    if not shrunk.rounds or not whole.images_per_s:
        return f"jpeg_shrink {factor} could not be measured: {shrunk.failed}"
    gain = shrunk.images_per_s / whole.images_per_s - 1
    name, folder = version.id.name, f"{store}/{version.id.name}/{version.id.version}"
    weights = getattr(version.config.runtime, "weights", None)
    probes = [one for one in version.digests if one.lower().endswith(EXTENSIONS)]
    parts = ["resight models add"]
    parts += [quote(f"{folder}/{weights}")] if weights else []
    parts += [f"--name {quote(name)}", f"--config {quote(f'{out}/{config_name(tuned)}')}"]
    parts += [f"--probe {quote(f'{folder}/{one}')}" for one in sorted(probes)]
    local = "" if is_local(store) else " (with copies of these files: it reads local ones)"
    return (
        f"jpeg_shrink {factor} of these pictures: {gain:+.0%} images/s, {shrunk.cpu_ms:.1f} ms of CPU an image "
        f"instead of {whole.cpu_ms:.1f}. It changes pixels and so the inference key, and is never applied; "
        f"a new version of it{local}:\n  {' '.join(parts)}"
    )


def _factor(tuned: Tuned) -> int | None:
    found = [one.point.jpeg_shrink for one in tuned.points]
    return next((factor for factor in found if factor != tuned.current.jpeg_shrink), None)

"""Proof of a version before any replica touches it: verified, loaded, probed and warmed up elsewhere.

prove(store URL, version) -> Proof. It runs in a process of its own (`actor.py`): a model that crashes
or eats its process hurts nobody.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import psutil

from model_store.loaded import Loaded, load_model
from model_store.names import VersionId
from model_store.preprocess import to_tensor
from model_store.store import ModelStore


@dataclass(frozen=True, slots=True)
class Proof:
    """Memory in bytes and seconds that the version took, and the digest of its files (`ModelVersion.digest`)."""

    rss_bytes: int
    seconds: float
    digest: str = ""


def prove(url: str, version: VersionId, threads: int, digest: str = "") -> Proof:
    """Bring up the version in this process, from files of this digest if one is given.

    Raises ModelError, and whatever the model makes its runtime raise.
    """
    started = time.perf_counter()
    process = psutil.Process()
    before = process.memory_info().rss
    model = load_model(ModelStore(url), version, threads, digest)
    warm_up(model)
    after = process.memory_info().rss
    return Proof(max(0, after - before), time.perf_counter() - started, digest)


def warm_up(model: Loaded) -> None:
    """A batch of blank pictures, so that memory is taken and kernels are chosen."""
    across, down = model.config.preprocess.input_px
    pixels = np.zeros((1, down, across, 3), np.uint8)
    size = min(model.batch.max, 8)
    model.session.run(to_tensor(np.repeat(pixels, size, 0), model.config.preprocess))

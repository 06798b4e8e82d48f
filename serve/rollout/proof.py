"""Prove a version before any replica loads it: verify, load, probe and warm it up in another process.

prove(store URL, version) -> Proof. It runs in a separate process (`sandbox.py`, or a Ray task of `RolloutActor`), so
that a model that crashes or exhausts memory harms nothing else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from model_store.load import load_model, warm_up
from model_store.names import VersionId
from model_store.store import ModelStore


@dataclass(frozen=True, slots=True)
class Proof:
    """Memory and time that a version took to load, and the digest of its files (`ModelVersion.digest`)."""

    rss_bytes: int
    seconds: float
    digest: str = ""


def prove(url: str, version: VersionId, threads: int, digest: str = "") -> Proof:
    """Load and warm up a version in this process, from files of this digest if one is given.

    Raises ModelError, and any error of the runtime.
    """
    started = time.perf_counter()
    process = psutil.Process()
    before = process.memory_info().rss
    model = load_model(ModelStore(url), version, threads, digest)
    warm_up(model)
    after = process.memory_info().rss
    return Proof(max(0, after - before), time.perf_counter() - started, digest)

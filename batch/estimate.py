"""How long a plan may take: measured now on a few of its own images, in this process.

time = images x seconds per image on one core / cores. A bound from below: the cluster adds its start.
"""

from __future__ import annotations

import time

from batch.plan import Plan
from model_store.decoders.layout import OutputNonsense
from model_store.errors import ImageError, StorageError
from model_store.loaded import load_detector
from model_store.machine import usable_cores
from model_store.storage import Folder
from model_store.store import ModelStore

SAMPLE = 8


def estimate_s(plan: Plan, store: ModelStore) -> float | None:
    """Seconds on this machine's cores; None when nothing is to do or no sample can be read."""
    sample = plan.some(SAMPLE).to_pylist()
    detector = load_detector(store, plan.model.id) if sample else None
    seconds: list[float] = []
    for row in sample:
        started = time.perf_counter()
        try:
            data = Folder(row["source_root"]).read(row["path"])
            assert detector is not None
            detector.detect_encoded(data)
        except (ImageError, OSError, StorageError, OutputNonsense):
            continue
        seconds.append(time.perf_counter() - started)
    if not seconds:
        return None
    return sum(seconds) / len(seconds) * plan.todo / usable_cores()

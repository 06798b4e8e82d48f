"""Memory comes back after versions are loaded and released; a control that leaks is caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WARM_UP, CYCLES = 4, 8
MOST_GROWTH = 0.02
SCRIPT = """
import asyncio, sys
import psutil
from model_store.detector import load_detector
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.resident_versions import ResidentVersions
from serve.rollout.prove import warm_up

store, version, kept = ModelStore("examples/models"), VersionId("ssdlite-coco", "1"), []

def load(which):
    detector = load_detector(store, which)
    warm_up(detector)
    if sys.argv[1] == "leaking":
        kept.append(detector)
    return detector

async def main():
    versions = ResidentVersions(load, idle_versions=2, retain_s=600)
    sizes = []
    for _ in range(int(sys.argv[2])):
        await versions.ensure(version)
        await versions.release(version)
        sizes.append(psutil.Process().memory_info().rss)
    print(*sizes)

asyncio.run(main())
"""


@pytest.mark.parametrize(("kind", "comes_back"), [("sound", True), ("leaking", False)])
def test_memory_after_many_loads_is_what_it_was_after_a_few(kind: str, comes_back: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(WARM_UP + CYCLES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    sizes = [int(word) for word in done.stdout.split()[-(WARM_UP + CYCLES) :]]
    growth = min(sizes[-3:]) / sizes[WARM_UP - 1] - 1
    assert (growth < MOST_GROWTH) is comes_back, [size >> 20 for size in sizes]

"""Memory comes back after versions are loaded and released; a control that leaks is caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WARM_UP, CYCLES = 4, 8
MOST_OF_A_LEAK = 0.1
"""What a load may keep, as a share of what the control keeps: single sizes vary by 20 %, with no trend."""
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


def kept_by_a_load(kind: str) -> float:
    """Bytes that one more load and release keep: the least of the late sizes less the least of the early ones."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(WARM_UP + CYCLES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    sizes = [int(word) for word in done.stdout.split()[-CYCLES:]]
    half = CYCLES // 2
    return (min(sizes[half:]) - min(sizes[:half])) / half


def test_loads_that_are_released_give_their_memory_back_and_a_leak_is_seen() -> None:
    leaking = kept_by_a_load("leaking")
    assert leaking > 10_000_000, "the control keeps every detector: this test would not see a leak"
    assert kept_by_a_load("sound") < MOST_OF_A_LEAK * leaking

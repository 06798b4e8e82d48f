"""Memory comes back after versions have answered and were released; a control that leaks is caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WARM_UP, CYCLES = 2, 4
MOST_OF_A_LEAK = 0.1
"""What a load may keep, as a share of what the control keeps: single sizes vary by 20 %, with no trend."""
SCRIPT = """
import asyncio, shutil, sys, tempfile
from pathlib import Path
import psutil
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from model_store.names import VersionId

warm_up, cycles, kept = int(sys.argv[1]), int(sys.argv[2]), []
photo = Path("examples/photos/cat.jpg").read_bytes()

async def main(store):
    for cycle in range(warm_up + 2 * cycles):
        shutil.copytree("examples/models/ssdlite-coco/1", store / "model" / str(cycle))
    engine = Engine(DetectArgs(models=str(store), workers=2))
    sizes = []
    for cycle in range(warm_up + 2 * cycles):
        version = VersionId("model", str(cycle))
        answer = await engine.detect(photo, str(version))
        assert answer.model.version == str(cycle)
        if cycle >= warm_up + cycles:  # the control
            kept.append(engine.models.model(version))
        await engine.aliases.release(version)
        sizes.append(psutil.Process().memory_info().rss)
    engine.stop()
    print(*sizes)

with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder)))
"""


def kept_by_a_load(sizes: list[int]) -> float:
    """Bytes that one more load and release keep: the least of the late sizes less the least of the early ones."""
    half = len(sizes) // 2
    return (min(sizes[half:]) - min(sizes[:half])) / half


def test_loads_that_are_released_give_their_memory_back_and_a_leak_is_seen() -> None:
    words = [sys.executable, "-c", SCRIPT, str(WARM_UP), str(CYCLES)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    sizes = [int(word) for word in done.stdout.split()[-2 * CYCLES :]]
    leaking = kept_by_a_load(sizes[CYCLES:])
    assert leaking > 10_000_000, "the control keeps every detector: this test would not see a leak"
    assert kept_by_a_load(sizes[:CYCLES]) < MOST_OF_A_LEAK * leaking

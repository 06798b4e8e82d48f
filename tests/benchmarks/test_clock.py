"""The library that shifts the wall clock of processes, and neither their monotonic clock nor their sleeps."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "endurance" / "clock.c"
CLOCKS = """
import datetime, json, time
time.sleep(0.01)
print(json.dumps([time.time(), datetime.datetime.now().timestamp(), time.monotonic()]))
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
@pytest.mark.parametrize("shift_s", [0, 86_400, -3_600])
def test_only_the_wall_clock_is_shifted(tmp_path: Path, shift_s: int) -> None:
    library, clock = tmp_path / "clock.so", tmp_path / "clock"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE], check=True)
    clock.write_bytes(shift_s.to_bytes(8, "little", signed=True))
    environment = os.environ | {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(clock)}
    before = [time.time(), time.time(), time.monotonic()]
    shown = json.loads(subprocess.check_output([sys.executable, "-c", CLOCKS], env=environment))
    after = [time.time(), time.time(), time.monotonic()]
    for clock_s, start_s, end_s, shifted_s in zip(shown, before, after, (shift_s, shift_s, 0), strict=True):
        assert start_s + shifted_s <= clock_s <= end_s + shifted_s

"""Compare the throughput of a run with the limits of its device and of decoding on the cores.

python benchmarks/gpu.py [--model NAME --store DIR] [--gpus 1] [--images 5000] [--size 1920x1080] [--rounds 3]

device    the graph called with the libraries alone, inputs on the device (`device_loop.py`): the limit of the device
session   the same graph as a replica calls it, with copies to and from the device: the cost of the copies
decode    all cores read, decode and resize without inference (`bare_loop.py`): the limit of the cores
run       `resight reprocess`, in steady state and end to end, in a pool of replicas with --gpus GPUs each

The run is compared with the lower of device and decode. Limits and runs alternate: limits, run, limits, run … During
a run, nvidia-smi reports the utilisation of the GPU. Without a GPU (--gpus 0) everything runs on the processors, where
decoding and the graph share the cores: this only tests the script. The negative control is a run over one folder that
requests one image at a time from one thread: it must be slower.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from harness import ROOT, arguments_of, facts, keep, need, picture, table, verdicts

from benchmarks import device_loop, sized_archive
from benchmarks.archive_run import one_run, rate_of
from benchmarks.bare_loop import BareLoop
from benchmarks.own_cluster import cluster
from benchmarks.subject import Subject, add_options
from model_store.machine import usable_cores
from model_store.names import parse_ref
from model_store.runtimes import open_session
from model_store.store import ModelStore

BATCHES = (1, 8, 32)
LEAST = 0.90
SEED_PER_S = 59_000 / (37 * 60)
"""Throughput of an earlier system: 59,000 images in 37 minutes."""


def main() -> None:
    arguments = arguments_of(__doc__, add_options, gpus=1.0, images=5000, size="1920x1080", rounds=3, seconds=5.0)
    need("matplotlib")
    if arguments.quick:
        arguments.images, arguments.rounds, arguments.seconds = 1000, 1, 1.0
    subject = Subject.of(arguments)
    asked = {name: value for name, value in vars(arguments).items() if name != "store"}
    result = facts("gpu", asked)
    with tempfile.TemporaryDirectory(prefix="resight-gpu-") as folder:
        archive = Path(folder) / "archive"
        width, height = map(int, arguments.size.split("x"))
        sized_archive.build(archive, arguments.images, (width, height))
        os.environ["RESIGHT_APP"] = str(application(Path(folder), arguments.gpus))
        result |= measure(arguments, subject, archive)
    report(result)


def application(folder: Path, gpus: float) -> Path:
    """Return serve/app.yaml with `gpus` GPUs per replica; one batch is prepared while another is computed."""
    config = yaml.safe_load((ROOT / "serve" / "app.yaml").read_text())
    detect = next(one for one in config["applications"] if one["name"] == "detect")
    if gpus:
        detect["args"] |= {"num_gpus": gpus, "workers": 2}
    file = folder / "app.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def measure(arguments: Any, subject: Subject, archive: Path) -> dict[str, Any]:
    files = sorted(archive.rglob("*.jpg"))
    loop = BareLoop("", subject.side_px, usable_cores(), infers=False)
    limits: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for _ in range(arguments.rounds):
        limits.append(alone(subject, loop, files, arguments.seconds))
        with cluster(subject) as up, utilisation() as busy:
            run = one_run(up, archive, subject.name, "tables", ())
        whole = run["counts"]["requested"] / run["end_to_end_s"]
        parts = {"bottleneck": run["bottleneck"], "gpu_percent": busy, "cpu_s": run["cpu_s"]}
        runs.append({"steady_per_s": rate_of(run), "whole_per_s": whole} | parts)
    limits.append(alone(subject, loop, files, arguments.seconds))
    part = sorted(p for p in archive.iterdir() if p.is_dir())[0]
    with cluster(subject) as up:
        control = one_run(up, part, subject.name, "control", ("--chunk", "1", "--threads", "1"))
    return {"limits": limits, "runs": runs, "control_per_s": rate_of(control)}


def alone(subject: Subject, decode: BareLoop, files: list[Path], seconds: float) -> dict[str, Any]:
    device, rates = device_loop.rates(subject.weights, subject.side_px, BATCHES, seconds)
    return {
        "device": device,
        "device_per_s": rates,
        "session_per_s": sessions(subject, tuple(rates), seconds),
        "decode_per_s": decode.run(files[:500]),
    }


def sessions(subject: Subject, batches: tuple[int, ...], seconds: float) -> dict[int, float]:
    """Return images per second of the graph as a replica calls it, from the files in the store."""
    store = ModelStore(str(subject.store))
    version = store.describe(store.resolve(parse_ref(subject.name)))
    names = [name for name in version.digests if name == subject.weights.name]
    session = open_session(version.config, {name: store.read_file(version, name) for name in names}, 1)
    found: dict[int, float] = {}
    for batch in batches:
        tensor = np.zeros((batch, 3, subject.side_px, subject.side_px), np.float32)
        for _ in range(device_loop.WARM):
            session.run(tensor)
        calls, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            session.run(tensor)
            calls += 1
        found[batch] = calls * batch / (time.perf_counter() - began)
    return found


@contextlib.contextmanager
def utilisation() -> Iterator[list[float]]:
    """Return the utilisation of the first GPU in per cent, once per second; empty without nvidia-smi."""
    seen: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None:
        yield seen
        return
    query = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-l", "1", "-i", "0")
    process = subprocess.Popen([program, *query], stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                seen.append(float(line))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        process.terminate()
        thread.join(5)


def report(result: dict[str, Any]) -> None:
    limits, runs = result["limits"], result["runs"]
    batches = list(limits[0]["device_per_s"])
    best: dict[int, float] = {
        batch: statistics.median(one["device_per_s"][batch] for one in limits) for batch in batches
    }
    copies = {b: statistics.median(one["session_per_s"][b] for one in limits) for b in batches}
    table([{"batch": b, "device a second": best[b], "session a second": copies[b]} for b in batches])
    device, fastest = limits[0]["device"], max(best.values())
    decode = statistics.median(one["decode_per_s"] for one in limits)
    limit = min(fastest, decode)
    steady, whole = (statistics.median(run[n] for run in runs) for n in ("steady_per_s", "whole_per_s"))
    bounds = "device" if fastest < decode else "decode"
    print(f"{device}; the lower limit is that of the {bounds}: {limit:.1f} images a second")
    for run in runs:
        busy = run["gpu_percent"]
        said = f"{statistics.median(busy):.0f} %" if busy else "not told"
        print(f"run {run['steady_per_s']:.1f} a second, bottleneck {run['bottleneck']}, GPU {said}")
    session = max(copies.values())
    control = result["control_per_s"]
    rows = [
        (f"run, steady state / {bounds} alone", steady / limit, f"≥ {LEAST}", steady / limit >= LEAST),
        ("run, start to end / the same", whole / limit, "-", True),
        ("session / device alone", session / fastest, f"≥ {LEAST}", session / fastest >= LEAST),
        ("run, images a second", steady, f"≥ {SEED_PER_S:.1f}", steady >= SEED_PER_S),
        ("control: one image at a time", control / limit, f"< {steady / limit:.2f}", control < steady),
    ]
    verdicts(result, rows)
    with picture(result, 1) as (axes,):
        names = [f"device {b}" for b in batches] + [f"session {b}" for b in batches]
        values = [*best.values(), *copies.values(), decode, steady, whole]
        axes.bar([*names, "decode", "run", "start to end"], values)
        axes.tick_params(axis="x", rotation=60)
        axes.set_ylabel("images a second")
    keep(result)


if __name__ == "__main__":
    main()

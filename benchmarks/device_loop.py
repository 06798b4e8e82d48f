"""Measure the limit of a device for a graph: inputs are already on the device, and results stay there.

rates(weights, side_px, batches, seconds) -> {batch: images per second}; uses only the libraries
ONNX Runtime runs ONNX with inputs and outputs bound to the device, PyTorch runs `.pt2`. Uses CUDA if available.
"""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportAttributeAccessIssue=false
# (torch is an extra, and libraries here have no complete types)

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WARM = 3


def rates(weights: Path, side_px: int, batches: Sequence[int], seconds: float) -> tuple[str, dict[int, float]]:
    """Return the device and the images per second of each batch size that the graph accepts."""
    make = _torch if weights.suffix == ".pt2" else _onnx
    found: dict[int, float] = {}
    device, refused, waiting = "cpu", None, list(batches)
    while waiting:
        batch = waiting.pop(0)
        try:
            device, once = make(weights, batch, side_px)
            for _ in range(WARM):
                once()
        except _OtherBatch as other:
            waiting += [n for n in other.args if n not in (*batches, *waiting)]
            continue
        except Exception as error:  # for example a batch larger than the graph accepts
            refused = error
            continue
        calls, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            once()
            calls += 1
        found[batch] = calls * batch / (time.perf_counter() - began)
    if not found:
        raise SystemExit(f"{weights.name} accepts none of the batch sizes {batches}: {refused}")
    return device, found


class _OtherBatch(Exception):
    """The graph has a fixed batch size, this one."""


def _onnx(weights: Path, batch: int, side_px: int) -> tuple[str, Callable[[], None]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    there = ort.get_available_providers()
    if "CUDAExecutionProvider" in there:
        ort.preload_dlls()  # the libraries installed from PyPI
    wanted = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in there]
    session = ort.InferenceSession(str(weights), options, providers=wanted)
    device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"
    image = next(one for one in session.get_inputs() if len(one.shape) == 4)
    if isinstance(image.shape[0], int) and image.shape[0] != batch:
        raise _OtherBatch(image.shape[0])
    last = image.shape[3] == 3
    shape = (batch, side_px, side_px, 3) if last else (batch, 3, side_px, side_px)
    kinds = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    tensor = np.zeros(shape, kinds.get(image.type, np.float32))
    bound = session.io_binding()
    bound.bind_ortvalue_input(image.name, ort.OrtValue.ortvalue_from_numpy(tensor, device, 0))
    for other in session.get_inputs():
        if other.name != image.name:  # the image sizes that RT-DETR's exports need
            bound.bind_cpu_input(other.name, np.full((batch, 2), side_px, np.int64))
    for output in session.get_outputs():
        bound.bind_output(output.name, device)

    def once() -> None:
        session.run_with_iobinding(bound)
        bound.synchronize_outputs()

    return device, once


def _torch(weights: Path, batch: int, side_px: int) -> tuple[str, Callable[[], None]]:
    import torch

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    program: Any = torch.export.load(str(weights))
    if device == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module()
    placeholder = next(n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
    example = placeholder.meta["val"]
    if isinstance(example.shape[0], int) and example.shape[0] != batch:
        raise _OtherBatch(example.shape[0])
    tensor = torch.zeros((batch, 3, side_px, side_px), dtype=example.dtype, device=device)

    def once() -> None:
        with torch.inference_mode():
            module(tensor)
        if device == "cuda":
            torch.cuda.synchronize()

    return device, once

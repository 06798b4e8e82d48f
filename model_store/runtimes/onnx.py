"""ONNX Runtime: CUDA where the provider is installed and works, else CPU.

tensor (n, 3, side, side) float32 -> the graph's outputs. Threads are set, never guessed, and spinning
is off: a replica shares its cores with decoding (measured in docs/decisions/0004).
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import ModelRefused

try:
    import onnxruntime as ort
except ModuleNotFoundError as missing:
    raise ModelRefused(
        "ONNX Runtime is not installed: pip install 'resight[cpu]', or 'resight[gpu]' for NVIDIA GPUs"
    ) from missing


class OnnxSession:
    """One graph with one image input."""

    def __init__(self, weights: bytes, side_px: int, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = ort.get_available_providers()
        wanted = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        try:
            self._session: Any = ort.InferenceSession(weights, options, providers=wanted)
        except Exception as error:  # onnxruntime raises a dozen unrelated kinds
            raise ModelRefused(f"ONNX Runtime cannot load the weights: {error}"[:500]) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs)
            raise ModelRefused(
                f"the graph wants {len(inputs)} inputs ({names}); one image is given"
            )
        self._input = inputs[0].name
        self._fixed_batch = _fixed(inputs[0].shape, side_px)
        self.device = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()

    def run(self, tensor: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """A graph exported for a fixed batch is fed that many rows at a time."""
        step = self._fixed_batch
        if step is None or step == len(tensor):
            return self._session.run(None, {self._input: tensor})
        parts = [self._run_padded(tensor[i : i + step], step) for i in range(0, len(tensor), step)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _run_padded(self, tensor: NDArray[np.float32], step: int) -> list[NDArray[np.float32]]:
        missing = step - len(tensor)
        padded = np.pad(tensor, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing else tensor
        return [out[: len(tensor)] for out in self._session.run(None, {self._input: padded})]


def _fixed(shape: Sequence[int | str | None], side_px: int) -> int | None:
    """The batch size the graph insists on, or None; refuses a shape the config cannot feed."""
    sides = [side for side in shape[2:] if isinstance(side, int)]
    channels = shape[1] if len(shape) == 4 else None
    if len(shape) != 4 or (channels not in (3, None) and isinstance(channels, int)):
        raise ModelRefused(f"the graph's input is {list(shape)}; (n, 3, side, side) is needed")
    if any(side != side_px for side in sides):
        raise ModelRefused(
            f"the graph's input is {list(shape)}, config.json says side_px {side_px}: set it right"
        )
    return shape[0] if isinstance(shape[0], int) else None

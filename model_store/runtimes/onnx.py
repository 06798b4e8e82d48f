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


SIZE_INPUT = "orig_target_sizes"
"""Second input of RT-DETR exports: the size that boxes are scaled to. The network's square, here."""
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class OnnxSession:
    """One graph with one image input, (n, 3, side, side) or (n, side, side, 3)."""

    def __init__(self, weights: bytes, side_px: int, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = ort.get_available_providers()
        wanted = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        self._session = open_graph(weights, options, wanted)
        image, self._sized = image_input(self._session)
        self._input, self._side_px = image.name, side_px
        self._dtype = DTYPES[image.type]
        self._channels_last = channels_last(image.shape)
        self._fixed_batch = _fixed(image.shape, side_px, self._channels_last)
        self._names = [output.name for output in self._session.get_outputs()]
        self.device = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """A graph exported for a fixed batch is fed that many rows at a time."""
        step = self._fixed_batch or len(tensor)
        parts = [self._run_padded(tensor[i : i + step], step) for i in range(0, len(tensor), step)]
        joined = parts[0] if len(parts) == 1 else [_joined(c) for c in zip(*parts, strict=True)]
        return dict(zip(self._names, joined, strict=True))

    def _run_padded(self, tensor: NDArray[np.float32], step: int) -> list[NDArray[np.float32]]:
        missing = step - len(tensor)
        padded = np.pad(tensor, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing else tensor
        images = padded.transpose(0, 2, 3, 1) if self._channels_last else padded
        feed: dict[str, Any] = {self._input: np.ascontiguousarray(images, self._dtype)}
        if self._sized:
            feed[SIZE_INPUT] = np.full((step, 2), self._side_px, np.int64)
        outputs: list[NDArray[Any]] = self._session.run(None, feed)
        if self._fixed_batch == 1 and all(len(out.shape) < 3 for out in outputs):
            outputs = [out[np.newaxis] for out in outputs]  # torchvision: no batch dimension
        return [out[: len(tensor)] for out in outputs]


def open_graph(weights: bytes, options: Any, providers: list[str]) -> Any:
    """Raises ModelRefused with ONNX Runtime's words when the weights do not load."""
    try:
        return ort.InferenceSession(weights, options, providers=providers)
    except Exception as error:  # onnxruntime raises a dozen unrelated kinds
        raise ModelRefused(f"ONNX Runtime cannot load the weights: {error}"[:500]) from error


def image_input(session: Any) -> tuple[Any, bool]:
    """The image input, and whether the graph also asks for `orig_target_sizes`.

    Raises ModelRefused for other inputs, ranks and types.
    """
    inputs = session.get_inputs()
    images = [i for i in inputs if i.name != SIZE_INPUT]
    if len(images) != 1:
        names = ", ".join(i.name for i in inputs)
        raise ModelRefused(f"the graph wants {len(inputs)} inputs ({names}); one image is given")
    (image,) = images
    if len(image.shape or ()) != 4 or image.type not in DTYPES:
        raise ModelRefused(
            f"the graph's input {image.name} is {image.type} {image.shape}; an image of rank 4 "
            f"and type {', '.join(DTYPES)} is needed"
        )
    return image, len(images) < len(inputs)


def channels_last(shape: Sequence[int | str | None]) -> bool:
    """Whether an image input is (n, h, w, 3), as TensorFlow's are."""
    return shape[3] == 3 and shape[1] != 3


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Along the batch; rows of zeros fill up where images gave different numbers of detections."""
    longest = max(part.shape[1] for part in parts) if parts[0].ndim > 1 else 0
    if parts[0].ndim > 1:
        fill = [(0, 0)] * (parts[0].ndim - 2)
        parts = [np.pad(p, [(0, 0), (0, longest - p.shape[1]), *fill]) for p in parts]
    return np.concatenate(parts)


def _fixed(shape: Sequence[int | str | None], side_px: int, channels_last: bool) -> int | None:
    """The batch size the graph insists on, or None; refuses a shape the config cannot feed."""
    height, width, channels = shape[1:] if channels_last else (shape[2], shape[3], shape[1])
    if isinstance(channels, int) and channels != 3:
        raise ModelRefused(f"the graph's input is {list(shape)}; (n, 3, side, side) is needed")
    if any(isinstance(side, int) and side not in (side_px, -1) for side in (height, width)):
        raise ModelRefused(
            f"the graph's input is {list(shape)}, config.json says side_px {side_px}: set it right"
        )
    return shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None

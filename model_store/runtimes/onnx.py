"""Run ONNX graphs by ONNX Runtime, on CUDA where the provider is installed and works, else on the CPU.

tensor (n, 3, h, w) float32 -> the graph's outputs. The number of threads is always set, and spinning is off: a replica
shares its cores with image decoding (measured in docs/decisions/0004).
"""

# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import ModelRefused, error_text
from model_store.runtimes.inputs import ImageInput, run_in_steps
from model_store.runtimes.onnx_division import guard_division
from model_store.runtimes.weights_file import no_onnx, require_whole

try:
    import onnxruntime as ort
except ModuleNotFoundError as missing:
    raise ModelRefused(
        "ONNX Runtime is not installed: pip install 'resight[cpu]', or 'resight[gpu]' for NVIDIA GPUs"
    ) from missing


SIZE_INPUT = "orig_target_sizes"
"""Second input of RT-DETR exports: the width and height that boxes are scaled to, here those of the input."""
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}

_UNREADABLE = re.compile("protobuf parsing failed|No graph was found in the protobuf")


class OnnxSession:
    """One graph with one image input."""

    def __init__(self, weights: bytes, threads: int) -> None:
        require_whole(weights)
        graph = guard_division(weights)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = ort.get_available_providers()
        if "CUDAExecutionProvider" in available and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # the extra `gpu` installs CUDA and cuDNN outside the search path
        wanted = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        try:
            self._session = ort.InferenceSession(graph, options, providers=wanted)
        except Exception as error:  # onnxruntime raises a dozen unrelated kinds
            if _UNREADABLE.search(str(error)):
                raise ModelRefused(no_onnx(weights)) from error
            raise ModelRefused(f"ONNX Runtime cannot load the weights: {_words(error)}") from error
        self.input = _image_input(self._session)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        outputs = self._session.get_outputs()
        _require_numbers(outputs)
        self._names = [output.name for output in outputs]
        self.fixed_rows = frozenset(output.name for output in outputs if _is_fixed(output.shape))
        """Outputs for which the graph declares the number of rows per image."""
        self.device = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        down, across = tensor.shape[2:]

        def once(images: NDArray[Any]) -> list[NDArray[Any]]:
            feed = {self.input.name: images}
            if self.input.sized:
                feed[SIZE_INPUT] = np.tile(np.array([across, down], np.int64), (len(images), 1))
            return list(self._session.run(None, feed))  # type: ignore[arg-type]

        return dict(zip(self._names, run_in_steps(self.input, tensor, once), strict=True))


def _image_input(session: Any) -> ImageInput:
    """Return the image input of a graph. Raises ModelRefused for other inputs, ranks and types."""
    inputs = session.get_inputs()
    images = [i for i in inputs if i.name != SIZE_INPUT]
    if len(images) != 1:
        names = ", ".join(i.name for i in inputs)
        raise ModelRefused(f"the graph has {len(inputs)} inputs ({names}); one image is needed")
    (image,) = images
    if len(image.shape or ()) != 4 or image.type not in DTYPES:
        raise ModelRefused(
            f"the graph's input {image.name} is {image.type} {image.shape}; an image of rank 4 "
            f"and type {', '.join(DTYPES)} is needed"
        )
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in image.shape)
    return ImageInput(image.name, shape, DTYPES[image.type], sized=len(images) < len(inputs))


def _require_numbers(outputs: Any) -> None:
    """Raise ModelRefused for outputs that are lists, maps or strings."""
    for output in outputs:
        if not output.type.startswith("tensor(") or output.type == "tensor(string)":
            raise ModelRefused(f"the graph's output {output.name} is {output.type}; tensors of numbers are needed")


def _is_fixed(shape: Any) -> bool:
    return len(shape or ()) > 1 and isinstance(shape[1], int) and shape[1] > 0


def _words(error: Exception) -> str:
    """Return ONNX Runtime's message, or what to do about a version that is too new."""
    text = str(error)
    newest = re.search(r"official support for domain \S+ is till opset (\d+)", text)
    if newest:
        return (
            f"their operator set is too new: export them again with opset {newest[1]} or older, or upgrade onnxruntime"
        )
    newest = re.search(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", text)
    if newest:
        return (
            f"their IR version {newest[1]} is too new: save them again with IR version {newest[2]} or "
            "older, or upgrade onnxruntime"
        )
    return error_text(error)

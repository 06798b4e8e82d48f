"""PyTorch running a program of torch.export (`.pt2`): CUDA where there is a GPU, else CPU.

tensor (n, 3, h, w) float32 -> the program's outputs: by their keys where it returns a dict, else
output0, output1, … Nothing of the file is unpickled or executed (`torch_archive.py`).
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# (libraries here have no complete types, and torch is an extra)

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import ModelRefused
from model_store.runtimes.inputs import ImageInput, run_in_steps
from model_store.runtimes.torch_archive import clean_archive

try:
    import torch
    from torch.export.passes import move_to_device_pass
    from torch.utils import _pytree as pytree
except ModuleNotFoundError as missing:
    raise ModelRefused(
        "PyTorch is not installed, and this model is a .pt2 file: pip install 'resight[torch]'"
    ) from missing

DTYPES = {torch.float32: np.float32, torch.float16: np.float16, torch.uint8: np.uint8}


class TorchSession:
    """One exported program with one image input."""

    def __init__(self, weights: bytes, threads: int) -> None:
        torch.set_num_threads(threads)
        archive = clean_archive(weights)
        self.metadata = archive.metadata
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            program = torch.export.load(io.BytesIO(archive.data))
            if self.device == "cuda":
                program = move_to_device_pass(program, self.device)
            self.input = _image_input(program)
            self._names = _output_names(program)
            self._run = program.module()
        except ModelRefused:
            raise
        except Exception as error:  # whatever a damaged graph makes torch raise
            raise ModelRefused(f"PyTorch cannot load the weights: {error}"[:500]) from error

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(self._names, run_in_steps(self.input, tensor, self._once), strict=True))

    def _once(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            result = self._run(torch.from_numpy(images).to(self.device))
            leaves = pytree.tree_leaves(result)
            return [(x.float() if x.is_floating_point() else x).cpu().numpy() for x in leaves]


def _image_input(program: Any) -> ImageInput:
    """Raises ModelRefused for other inputs, ranks and types."""
    wanted = program.graph_signature.user_inputs
    inputs = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    if len(wanted) != 1 or not isinstance(inputs.get(wanted[0]), torch.Tensor):
        raise ModelRefused(f"the program wants the inputs {wanted}; one image is given")
    image = inputs[wanted[0]]
    if image.ndim != 4 or image.dtype not in DTYPES:
        raise ModelRefused(
            f"the program's input is {image.dtype} {list(image.shape)}; an image of rank 4 and "
            f"type {', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)} is needed"
        )
    shape = tuple(n if isinstance(n, int) else None for n in image.shape)
    return ImageInput(wanted[0], shape, DTYPES[image.dtype], most=_largest_batch(program, image))


def _largest_batch(program: Any, image: Any) -> int | None:
    """What the export bounds a free batch by."""
    if isinstance(image.shape[0], int):
        return None
    bounds = program.range_constraints.get(image.shape[0].node.expr)
    upper = getattr(bounds, "upper", None)
    return int(upper) if upper is not None and upper.is_Integer and upper < 1 << 20 else None


def _output_names(program: Any) -> list[str]:
    """Raises ModelRefused for outputs inside outputs."""
    spec = program.call_spec.out_spec
    numbered = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    if isinstance(numbered, int):
        return ["output0"]
    if isinstance(numbered, dict) and all(isinstance(i, int) for i in numbered.values()):
        return [str(name) for name in sorted(numbered, key=numbered.__getitem__)]
    if isinstance(numbered, list | tuple) and all(isinstance(i, int) for i in numbered):
        return [f"output{i}" for i in numbered]
    raise ModelRefused(f"the program returns {numbered}; a tensor, a list or a dict is needed")

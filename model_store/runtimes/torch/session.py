"""Run a program of torch.export (`.pt2`) by PyTorch, on CUDA where there is a GPU, else on the CPU.

tensor (n, 3, h, w) float32 -> the program's outputs: by their keys if it returns a dict, else output0, output1, …

An untrusted file can only make this process compute: it is read as plain data (`archive.py`), and its graph may
only call a list of tensor operators (`operators.py`). It can still require excessive time or memory, or exploit
a defect of one of these operators.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingImports=false, reportUnknownParameterType=false

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import ModelRefused, error_text
from model_store.runtimes.inputs import run_in_steps
from model_store.runtimes.torch.archive import read_archive

try:
    import torch

    from model_store.runtimes.torch.graph import read_program
except ModuleNotFoundError as missing:
    raise ModelRefused(
        "PyTorch is not installed, and this model is a .pt2 file: pip install 'resight[torch]'"
    ) from missing


class TorchSession:
    """One exported program with one image input.

    `threads` applies to all of PyTorch in this process: the last opened session sets it.
    """

    def __init__(self, weights: bytes, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            archive = read_archive(weights)
            self.input, self._names, self._program = read_program(archive, self.device)
        except ModelRefused:
            raise
        except Exception as error:  # any error of the reader or torch on a damaged graph
            raise ModelRefused(
                f"PyTorch cannot load the weights: {type(error).__name__}: {error_text(error)}"
            ) from error
        self.metadata = archive.metadata

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(self._names, run_in_steps(self.input, tensor, self._once), strict=True))

    def _once(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            outputs = self._program.run(torch.from_numpy(images).to(self.device))
            return [(x.float() if x.is_floating_point() else x).cpu().numpy() for x in outputs]

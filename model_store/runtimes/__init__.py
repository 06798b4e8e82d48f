"""What runs the numbers: tensors in, raw arrays out. A session never sees a box.

`open_session` chooses by the type of `config.runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.config import ModelConfig, MotionRuntime


class Session(Protocol):
    """One loaded graph. `run` is safe to call from several threads at once."""

    device: str

    def run(self, tensor: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """(n, 3, side, side) float32 to the network's outputs by name, each with n rows."""
        ...


def open_session(config: ModelConfig, files: Mapping[str, bytes], threads: int) -> Session:
    """Raises ModelRefused when the runtime cannot load the weights."""
    if isinstance(config.runtime, MotionRuntime):
        from model_store.runtimes.motion import MotionSession

        return MotionSession(config.runtime)
    from model_store.runtimes.onnx import OnnxSession

    return OnnxSession(files[config.runtime.weights], config.preprocess.side_px, threads)

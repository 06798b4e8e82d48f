"""What runs the numbers: tensors in, raw arrays out. A session never sees a box.

`open_session` chooses by the type of `config.runtime`, `open_weights` by the name of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.config import AnyConfig, MotionRuntime
from model_store.runtimes.inputs import ImageInput


class Session(Protocol):
    """One loaded graph. `run` is safe to call from several threads at once."""

    device: str

    def run(self, tensor: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """(n, 3, h, w) float32 to the network's outputs by name, each with n rows."""
        ...


class WeightsSession(Session, Protocol):
    """A session of a weights file, which says something about itself."""

    input: ImageInput
    metadata: dict[str, str]


def open_session(config: AnyConfig, files: Mapping[str, bytes], threads: int) -> Session:
    """Raises ModelRefused when the runtime cannot load the weights."""
    if isinstance(config.runtime, MotionRuntime):
        from model_store.runtimes.motion import MotionSession

        return MotionSession(config.runtime)
    session = open_weights(config.runtime.kind, files[config.runtime.weights], threads)
    session.input.require(config.preprocess)
    return session


def open_weights(runtime: str, weights: bytes, threads: int) -> WeightsSession:
    """Runtimes are imported when they are needed: PyTorch is an extra, and slow to import.

    Raises ModelRefused.
    """
    if runtime == "torch":
        from model_store.runtimes.torch import TorchSession

        return TorchSession(weights, threads)
    from model_store.runtimes.onnx import OnnxSession

    return OnnxSession(weights, threads)

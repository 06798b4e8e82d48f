"""Run networks: tensors in, raw arrays out. A session never handles boxes.

`open_session` selects the runtime by the type of `config.runtime`, `open_weights` by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.config import AnyConfig, ExternalRuntime, MotionRuntime
from model_store.errors import ModelRefused
from model_store.runtimes.inputs import ImageInput


class Session(Protocol):
    """One loaded graph. `run` is safe to call from several threads at once."""

    device: str

    def run(self, tensor: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Return the network's outputs by name, each with n rows, for (n, 3, h, w) float32."""
        ...


class WeightsSession(Session, Protocol):
    """A session of a weights file, with its input and metadata."""

    input: ImageInput
    metadata: dict[str, str]


def open_session(config: AnyConfig, files: Mapping[str, bytes], threads: int) -> Session:
    """Open a session of the config's runtime. Raises ModelRefused if it cannot load the weights, or has none."""
    if isinstance(config.runtime, ExternalRuntime):
        raise ModelRefused(
            f"results of {config.runtime.detector} were imported from a file of {config.runtime.tool}; without "
            "weights they can be neither run nor served: add them with 'resight models add'"
        )
    if isinstance(config.runtime, MotionRuntime):
        from model_store.runtimes.motion import MotionSession

        return MotionSession(config.runtime)
    session = open_weights(config.runtime.kind, files[config.runtime.weights], threads)
    session.input.require(config.preprocess)
    return session


def open_weights(runtime: str, weights: bytes, threads: int) -> WeightsSession:
    """Open a session of weights. Raises ModelRefused.

    Runtimes are imported on demand: PyTorch is an extra, and slow to import.
    """
    if runtime == "torch":
        from model_store.runtimes.torch.session import TorchSession

        return TorchSession(weights, threads)
    from model_store.runtimes.onnx import OnnxSession

    return OnnxSession(weights, threads)

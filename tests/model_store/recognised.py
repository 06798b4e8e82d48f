"""The config that a weights file is added with."""

from typing import Any

from model_store.config import ModelConfig
from model_store.recognise import recognise
from model_store.runtimes import open_weights


def recognised(weights: bytes, overrides: dict[str, Any], runtime: str = "onnx") -> ModelConfig:
    return recognise(runtime, open_weights(runtime, weights, threads=1), overrides)

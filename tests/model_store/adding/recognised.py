"""Return the config that a weights file is added with, and the reason for each choice."""

from typing import Any

from model_store.adding.recognise import recognise
from model_store.config import ModelConfig


def reasons(weights: bytes, overrides: dict[str, Any] | None = None) -> dict[str, tuple[str, str]]:
    """Return value and reason of each choice, by its name."""
    found = recognise("onnx", weights, overrides or {}).reasons
    return {reason.what: (reason.found, reason.why) for reason in found}


def recognised(weights: bytes, overrides: dict[str, Any], runtime: str = "onnx") -> ModelConfig:
    return recognise(runtime, weights, overrides).config

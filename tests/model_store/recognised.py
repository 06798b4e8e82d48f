"""The config that a weights file is added with, and what is said of each choice."""

from typing import Any

from model_store.config import ModelConfig
from model_store.recognise import recognise


def reasons(weights: bytes, overrides: dict[str, Any] | None = None) -> dict[str, tuple[str, str]]:
    """What was found and why, by what it is about."""
    found = recognise("onnx", weights, overrides or {}).reasons
    return {reason.what: (reason.found, reason.why) for reason in found}


def recognised(weights: bytes, overrides: dict[str, Any], runtime: str = "onnx") -> ModelConfig:
    return recognise(runtime, weights, overrides).config

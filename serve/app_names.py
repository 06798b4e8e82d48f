"""Names of the application and its deployments, for handles to the detectors."""

from __future__ import annotations

from model_store.deployment import DEFAULT_POOL

APP = "detect"
DEPLOYMENT = "Detector"


def deployment_of(pool: str) -> str:
    return DEPLOYMENT if pool == DEFAULT_POOL else f"{DEPLOYMENT}-{pool}"

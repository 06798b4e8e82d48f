"""The detector replicas of the running cluster, all at once, by Ray's deployment handle.

The process must have joined the cluster (`serve.cluster.join`) before.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
from ray import serve as ray_serve
from ray.exceptions import RayTaskError

from model_store.errors import ModelNotReady, ResightError
from serve.app_names import APP, DEPLOYMENT

LOAD_TIMEOUT_S = 300


class RayReplicas:
    """`serve.promotion.Replicas` on a real cluster."""

    def __init__(self) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        address = os.environ.get("RAY_ADDRESS", "auto")
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
        )
        self._handle: Any = ray_serve.get_deployment_handle(DEPLOYMENT, APP)

    def ensure(self, model: str) -> None:
        self._broadcast("ensure", model)

    def reload(self) -> list[dict[str, Any]]:
        return self._broadcast("reload")

    def _broadcast(self, method: str, *arguments: str) -> list[Any]:
        try:
            return list(
                self._handle.broadcast(method, *arguments).results(timeout_s=LOAD_TIMEOUT_S)
            )
        except Exception as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, ResightError):
                raise cause from None
            words = " ".join((method, *arguments))
            raise ModelNotReady(f"a replica could not {words}: {cause!r}"[:1000]) from error

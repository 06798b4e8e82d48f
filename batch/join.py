"""Become a driver of the cluster: what every job does before its first word to Ray."""

from __future__ import annotations

import logging
import os

from serve.cluster import join
from serve.settings import Settings


def connect(settings: Settings) -> None:
    """Inside a Ray job everything is set; from a shell, join the cluster of this home. Raises ClusterError."""
    if "RAY_ADDRESS" not in os.environ:
        join(settings)  # before Ray is imported: it reads its authentication mode then
    import ray

    address = os.environ.get("RAY_ADDRESS", "auto")
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)

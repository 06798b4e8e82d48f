"""The `runs` application: what the command line asks of runs, over HTTP. A small replica that submits jobs.

POST /runs/filters/{kind} {config, scope} -> 202 and its run, or an error and no run
GET  /runs/filters, /runs/filters/{kind}, /runs/{run_id}
`serve/app.yaml` names it as `batch.app:build`; who may ask is decided as at the detectors (serve/access.py).
"""

# no `from __future__ import annotations` here: Ray reads the type of `args` at run time
import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve as ray_serve
from ray.serve import Application

from serve.access import Access
from serve.logs import configure_logs
from serve.settings import Settings

CPUS = 0.1  # logical
MAX_ONGOING = 1000
"""More than the application answers at a time, so that it refuses the others itself, at once; Ray would keep them."""


class RunsArgs(BaseModel):
    """Arguments of the application (`args:` in serve/app.yaml)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: str = ""
    require_token: bool = Field(
        default=True,
        description="even while no token exists; 'resight up' says true beyond loopback",
    )
    cors_origins: list[str] = []


class RunsReplica:
    """All logic is in `batch/filters/http_api.py`."""

    def __init__(self, args: RunsArgs) -> None:
        configure_logs()
        self._args = args

    def __serve_build_asgi_app__(self) -> FastAPI:
        from batch.filters.http_api import build_runs_api

        os.environ["RAY_API_SERVER_ADDRESS"] = _dashboard_url()
        access = Access.of(Settings(), self._args.require_token)
        return build_runs_api(Settings(), access, self._args.cors_origins)


def build(args: RunsArgs) -> Application:
    """One replica, at /runs."""
    made: Any = ray_serve.deployment(
        name="Runs",
        num_replicas=1,
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": CPUS},
    )(ray_serve.ingress()(RunsReplica))
    return made.bind(args)


def _dashboard_url() -> str:
    """Of this cluster, wherever the replica is: jobs are submitted there."""
    import ray
    from ray.dashboard.utils import ray_address_to_api_server_url

    return str(ray_address_to_api_server_url(ray.get_runtime_context().gcs_address))

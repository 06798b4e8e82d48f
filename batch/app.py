"""The `runs` application: start, watch, compare and publish runs over HTTP. A small replica that submits jobs.

`serve/app.yaml` refers to it as `batch.app:build`; access is controlled as for the detectors (serve/auth/guard.py).
"""

# no `from __future__ import annotations` here: Ray reads the type of `args` at run time
import os
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve as ray_serve
from ray.serve import Application

from model_store.frozen import Frozen
from serve.auth.guard import Access
from serve.log_config import configure_logs
from serve.settings import Limits, Settings

ON_HEAD = {"num_cpus": 0.1, "resources": {"node:__internal_head__": 0.001}}
"""Options of a replica that uses RESIGHT_HOME, a folder of the head node: Ray gives only that node this resource."""
MAX_ONGOING = 1000
"""More requests than the application answers concurrently: it rejects the excess at once, Ray would queue it."""


class RunsArgs(Frozen):
    """Arguments of the application (`args:` in serve/app.yaml)."""

    models: str = ""
    require_token: bool = Field(
        default=True, description="require a token even if none exists; 'resight up' sets it beyond loopback"
    )
    cors_origins: list[str] = []
    limits: Limits = Field(
        default=Limits(), description="answer_s and answers_mib bound the answers of this application"
    )


class RunsReplica:
    """Serve `batch/api/app.py`, which has all the logic."""

    def __init__(self, args: RunsArgs) -> None:
        configure_logs()
        self._args = args

    def __serve_build_asgi_app__(self) -> FastAPI:
        from batch.api.app import build_runs_api
        from batch.jobs.cluster_jobs import ClusterJobs
        from batch.jobs.own_jobs import OwnJobs

        use_dashboard()
        settings = Settings()
        access = Access.of(settings, self._args.require_token)
        own = OwnJobs(settings, "this machine")
        jobs = ClusterJobs(settings)
        return build_runs_api(settings, jobs, access, self._args.cors_origins, [own], self._args.limits)


def build(args: RunsArgs) -> Application:
    """Return the application: one replica, at /runs."""
    deployment: Any = ray_serve.deployment(
        name="Runs", num_replicas=1, max_ongoing_requests=MAX_ONGOING, ray_actor_options=ON_HEAD
    )(ray_serve.ingress()(RunsReplica))
    return deployment.bind(args)


def use_dashboard() -> None:
    """Let this process submit jobs at the dashboard of its cluster."""
    import ray
    from ray.dashboard.utils import ray_address_to_api_server_url

    address = ray.get_runtime_context().gcs_address
    os.environ["RAY_API_SERVER_ADDRESS"] = str(ray_address_to_api_server_url(address))

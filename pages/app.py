"""The `pages` application of Ray Serve, at /ui. Its own replica, as thumbnails must not take the places of detections.

It runs on the head node: its index, thumbnails and sessions are in RESIGHT_HOME, a folder of that node.

`serve/app.yaml` refers to it as `pages.app:build`; access is controlled as for the detectors (serve/auth/guard.py).
"""

# no `from __future__ import annotations` here: Ray reads the type of `args` at run time
from typing import Any

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve import Application

from batch.app import MAX_ONGOING, ON_HEAD, RunsArgs, use_dashboard
from serve.auth.guard import Access
from serve.log_config import configure_logs
from serve.settings import Settings


class PagesReplica:
    """Serve `pages/http_app.py`, which has all the logic."""

    def __init__(self, args: RunsArgs) -> None:
        configure_logs()
        self._args = args

    def __serve_build_asgi_app__(self) -> FastAPI:
        from batch.jobs.cluster_jobs import ClusterJobs
        from batch.jobs.own_jobs import OwnJobs
        from pages.context import Context
        from pages.http_app import build_pages_app

        use_dashboard()
        settings = Settings()
        own = OwnJobs(settings, "this machine")
        context = Context.of(settings, lambda: ClusterJobs(settings), [own])
        context.follower.used()  # builds the index of a new node before the first request
        access = Access.of(settings, self._args.require_token)
        return build_pages_app(context, access, self._args.cors_origins, self._args.limits)


def build(args: RunsArgs) -> Application:
    """Return the application: one replica, at /ui."""
    deployment: Any = ray_serve.deployment(
        name="Pages", num_replicas=1, max_ongoing_requests=MAX_ONGOING, ray_actor_options=ON_HEAD
    )(ray_serve.ingress()(PagesReplica))
    return deployment.bind(args)

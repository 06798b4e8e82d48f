"""Build the `detect` application: one deployment of the detector replica for each pool.

`serve/app.yaml` refers to it as `serve.app:build`; its `args` are DetectArgs.
"""

# no `from __future__ import annotations` here: Ray reads the type of `args` at run time
from typing import Any

from ray import serve as ray_serve
from ray.serve import Application

from serve.inference.admission import max_requests
from serve.replica import DetectorReplica
from serve.settings import DetectArgs, deployment_of


def build(args: DetectArgs) -> Application:
    """Return the application: replicas of the default pool, which are the HTTP ingress at /, and of the other pools."""
    others = {
        pool: _deployment(DetectorReplica, args.of_pool(pool)).bind(args.of_pool(pool)) for pool in sorted(args.pools)
    }
    return _deployment(ray_serve.ingress()(DetectorReplica), args).bind(args, others)


def _deployment(replica: type, args: DetectArgs) -> Any:
    limits = args.limits
    fixed = args.max_replicas <= args.replicas
    scaling = {
        "min_replicas": args.replicas,
        "max_replicas": args.max_replicas,
        "target_ongoing_requests": args.target_ongoing,
    }
    hardware = {"num_cpus": args.num_cpus, "num_gpus": args.num_gpus, "resources": args.resources}
    return ray_serve.deployment(
        name=deployment_of(args.pool),
        num_replicas=args.replicas if fixed else "auto",
        autoscaling_config=None if fixed else scaling,
        # Resight's own bounds answer 429 with a reason, so they must be reached before Ray's
        max_ongoing_requests=max_requests(limits) + limits.bulk_queue,
        graceful_shutdown_timeout_s=60,
        ray_actor_options=hardware,
    )(replica)

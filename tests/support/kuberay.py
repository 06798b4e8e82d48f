"""The manifests of deploy/kuberay, and what KubeRay's operator makes of a group of its RayService.

resources() --start_command(service, group)--> the `ray start` that the operator writes to KUBERAY_GEN_RAY_START_CMD
The rules are those of KubeRay 1.7.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
PLACE = Path(__file__).resolve().parents[2] / "deploy" / "kuberay"
GPU = "#gpu# "
SWITCHES = ("log-color", "include-dashboard", "include-log-monitor")
"""Options of which the operator keeps the value `false`. Others it leaves out; with `true` they have no value."""
SIZES = {"Mi": 2**20, "Gi": 2**30}
HEAD = "resight-head-svc:6379"


def read(name: str, gpu: bool = False) -> list[Resource]:
    """Return the documents of a file; with `gpu`, including the lines of the GPU pool."""
    text = (PLACE / name).read_text()
    return list(yaml.safe_load_all(text.replace(GPU, "") if gpu else text))


def resources(gpu: bool = False) -> list[Resource]:
    """Return all resources that `kubectl apply -k` makes, before kustomize changes them, and the run."""
    (kustomization,) = read("kustomization.yaml")
    return [one for name in (*kustomization["resources"], "run.yaml") for one in read(name, gpu)]


def named(kind: str, name: str = "", gpu: bool = False) -> Resource:
    """Return the one resource of a kind, or of a kind and a name."""
    (found,) = (one for one in resources(gpu) if one["kind"] == kind and name in ("", one["metadata"].get("name")))
    return found


def cluster(service: Resource) -> Resource:
    return dict(service["spec"]["rayClusterConfig"])


def groups(service: Resource) -> list[Resource]:
    """Return the group of the head and those of the workers."""
    config = cluster(service)
    return [config["headGroupSpec"], *config["workerGroupSpecs"]]


def templates(gpu: bool = False) -> dict[str, Resource]:
    """Return the pod templates of all resources by a name of their own."""
    service = named("RayService", gpu=gpu)
    return {
        **{f"ray {group.get('groupName', 'head')}": group["template"] for group in groups(service)},
        "redis": named("StatefulSet")["spec"]["template"],
        "schedule": named("CronJob")["spec"]["jobTemplate"]["spec"]["template"],
    }


def containers(template: Resource) -> list[Resource]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def values(node: Any, key: str) -> Iterator[Any]:
    """Yield all values of a key, at any depth."""
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in below:
        if name == key:
            yield value
        yield from values(value, key)


def start_command(service: Resource, group: Resource) -> str:
    """Return the operator's `ray start` of a group."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    memory = int(limits["memory"][:-2]) * SIZES[limits["memory"][-2:]]
    given = {"dashboard-agent-listen-port": "52365", "metrics-export-port": "8080", "memory": str(memory)}
    if gpus := limits.get("nvidia.com/gpu"):
        given["num-gpus"] = str(gpus)
    head = "groupName" not in group
    if head:
        given |= {"dashboard-host": "0.0.0.0", "no-monitor": "true", "redis-password": "$REDIS_PASSWORD"}
    else:
        given["address"] = HEAD
    words = ["ray start --head" if head else "ray start"]
    for name, value in sorted((given | group["rayStartParams"] | {"block": "true"}).items()):
        if value not in ("true", "false") or name in SWITCHES:
            words.append(f"--{name}={value}")
        elif value == "true":
            words.append(f"--{name}")
    return "  ".join(words)

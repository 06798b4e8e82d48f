"""The manifests of deploy/kuberay start what `resight up` starts, and all that they refer to exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import typer.main
import yaml
from ray.scripts.scripts import start as ray_start
from ray.serve.schema import ServeDeploySchema

from batch.reprocess import main as reprocess
from batch.schedule.policy import Policy, read_policy
from serve.cluster import head
from serve.cluster.ports import InnerPorts, Ports
from serve.node_environment import node_environment
from serve.settings import DetectArgs, Settings
from tests.support.kuberay import (
    HEAD,
    Resource,
    cluster,
    containers,
    groups,
    named,
    read,
    resources,
    start_command,
    templates,
    values,
)

ROOT = Path(__file__).resolve().parent.parent
IMAGE = (ROOT / "Dockerfile").read_text()
PAGE = (ROOT / "docs" / "operate" / "kubernetes.md").read_text()
[UID] = re.findall(r"^USER (\d+)$", IMAGE, re.MULTILINE)
INNER, PORTS = InnerPorts(20_000), Ports()
PORTS_OF_A_POD = {"--port", "--dashboard-port", "--ray-client-server-port"}
"""Flags that `resight up` needs because several clusters may share a machine; a pod has its own ports."""
SERVICE = named("RayService")
GROUPS = {group.get("groupName", "head"): group for group in groups(named("RayService", gpu=True))}
CONFIG = {one["metadata"]["name"]: one["data"] for one in resources() if one["kind"] == "ConfigMap"}


def serve_config(gpu: bool = False) -> Resource:
    return dict(yaml.safe_load(named("RayService", gpu=gpu)["spec"]["serveConfigV2"]))


def offered(group: Resource) -> Resource:
    """Return Ray's custom resources of a group, which are JSON in quotes for the shell."""
    return dict(json.loads(group["rayStartParams"].get("resources", "'{}'").strip("'")))


def detect_args(gpu: bool = False) -> DetectArgs:
    (detect,) = (one for one in serve_config(gpu)["applications"] if one["name"] == "detect")
    return DetectArgs.model_validate(detect["args"])


def script(group: Resource) -> str:
    (container,) = group["template"]["spec"]["containers"]
    assert container["command"] == ["bash", "-ec"]
    (text,) = container["args"]
    return str(text)


def started(group: Resource, command: str, folder: Path) -> list[str]:
    """Run the script of a pod with a command in place of the operator's; return its output, split at null bytes."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "python").unlink(missing_ok=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    path = f"{folder / 'bin'}{os.pathsep}{os.defpath}"
    variables = {"PATH": path, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        ["bash", "-ec", script(group)],
        env=variables | {"KUBERAY_GEN_RAY_START_CMD": command, "REDIS_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\0")


def test_applications_are_those_of_the_installed_file() -> None:
    installed = yaml.safe_load((ROOT / "serve" / "app.yaml").read_text())
    for gpu in (False, True):
        config = serve_config(gpu)
        ServeDeploySchema.model_validate(config)
        named_by_both = [
            [{key: one[key] for key in ("name", "route_prefix", "import_path")} for one in applications]
            for applications in (config.pop("applications"), installed["applications"])
        ]
        assert named_by_both[0] == named_by_both[1]
        assert config.pop("http_options") == installed["http_options"] | {"host": "0.0.0.0"}
        assert config.items() == {k: v for k, v in installed.items() if k in config}.items()
        assert config.keys() == installed.keys() - {"applications", "http_options"}
        assert detect_args(gpu).require_token


def test_replicas_fit_the_pods_one_each() -> None:
    args = detect_args(gpu=True)
    for pool, group in ((args, GROUPS["cpu"]), (args.of_pool("gpu"), GROUPS["gpu"])):
        (resource,) = pool.resources
        offering = [name for name, one in GROUPS.items() if resource in offered(one)]
        assert offering == [group["groupName"]]
        assert max(pool.replicas, pool.max_replicas) <= group["maxReplicas"]
    logical = int(GROUPS["cpu"]["rayStartParams"]["num-cpus"])
    assert logical / 2 < args.num_cpus <= logical - 3
    assert args.replicas <= GROUPS["cpu"]["minReplicas"]
    assert (
        args.pools["gpu"].num_gpus
        == GROUPS["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    )


@pytest.mark.parametrize("name", GROUPS)
def test_a_node_has_the_variables_of_resight_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(one.split("=", 1) for one in started(GROUPS[name], "env -0", tmp_path / "tmp") if one)
    private = tmp_path / "tmp" / f"resight-{os.geteuid()}"
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})
    settings = Settings(home=str(tmp_path / "home"), tokens="tokens.json")
    wanted = head.head_environment(settings, INNER, private)
    places = {variable for variable in wanted if variable.startswith("RESIGHT_")}
    assert places - {"RESIGHT_HOME"} <= CONFIG["resight"].keys()
    assert "RESIGHT_HOME=/data" in IMAGE
    authentication = head.authentication(settings)
    assert cluster(SERVICE)["authOptions"]["mode"] == authentication["RAY_AUTH_MODE"]
    elsewhere = {"PATH", *places, *authentication, *INNER.serve_environment()}
    node = {variable: value for variable, value in wanted.items() if variable not in elsewhere}
    assert node == node_environment(private)
    assert node.items() <= found.items()


@pytest.mark.parametrize("name", GROUPS)
def test_the_command_of_a_pod_starts_ray_with_the_flags_of_resight_up(name: str, tmp_path: Path) -> None:
    group = GROUPS[name]
    command = start_command(SERVICE, group)
    words = started(group, command.replace("ray start", r"printf '%s\0'"), tmp_path / "tmp")[:-1]
    context = ray_start.make_context("start", [*words])  # Ray knows each flag
    assert context.params["block"]
    assert context.params["num_cpus"] >= head.LOGICAL_CPUS
    assert context.params["temp_dir"] == f"/tmp/resight-{UID}/{head.RAY_FOLDER}"
    if name == "head":
        assert context.params["redis_password"] == "secret"
    else:
        assert context.params["address"] == HEAD
        assert json.loads(context.params["resources"]) == offered(group)
    flags = {word.split("=")[0]: word for word in words}
    ours = head.head_command(PORTS.ray, PORTS.dashboard, INNER, tmp_path, 1024)[4:]
    for flag in ours:
        option, _, value = flag.partition("=")
        if option not in PORTS_OF_A_POD and not (option in ("--head", "--dashboard-host") and name != "head"):
            assert option in flags
        if option in ("--include-log-monitor", "--object-store-memory"):
            assert flags[option] == f"{option}={value}"


def test_the_ports_of_ray_are_the_defaults_of_resight() -> None:
    ports = {
        port["name"]: port["containerPort"] for port in GROUPS["head"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports == {"gcs-server": PORTS.ray, "dashboard": PORTS.dashboard, "serve": PORTS.http}
    assert serve_config()["http_options"]["port"] == ports["serve"]
    for name in ("cpu", "gpu"):
        (container,) = GROUPS[name]["template"]["spec"]["containers"]
        assert container["ports"] == [{"name": "serve", "containerPort": PORTS.http}]
        assert container["readinessProbe"]["httpGet"]["port"] == "serve"


def test_places_are_settings_and_addresses_those_of_the_operators_services() -> None:
    known = {f"RESIGHT_{name.upper()}" for name in Settings.model_fields}
    given = CONFIG["resight"]
    assert {name for name in given if name.startswith("RESIGHT_")} <= known
    assert all(
        given[name].startswith("s3://")
        for name in known & given.keys()
        if name[8:] in "MODELS TABLES UPLOADS SNIPS TOKENS"
    )
    service = SERVICE["metadata"]["name"]
    assert given["RESIGHT_ADDRESS"] == f"http://{service}-head-svc:{PORTS.dashboard}"
    assert given["RESIGHT_ENDPOINT"] == f"http://{service}-serve-svc:{PORTS.http}"
    assert HEAD.startswith(f"{service}-head-svc:")


def test_the_policy_of_the_manifests_is_the_default_one(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(CONFIG["resight-policy"]["policy.toml"])
    assert read_policy(tmp_path / "policy.toml") == Policy()
    mounts = next(values(GROUPS["head"]["template"], "volumeMounts"))
    (place,) = (mount["mountPath"] for mount in mounts if mount["name"] == "policy")
    assert CONFIG["resight"]["RESIGHT_POLICY"] == f"{place}/policy.toml"


def made_secrets() -> dict[str, set[str]]:
    """Return the keys of each secret that the commands of the page make."""
    text = PAGE.replace("\\\n", " ")
    made = re.findall(r"create secret generic (\S+)(.+)", text)
    return {name: set(re.findall(r"--from-literal=(\w+)=", rest)) for name, rest in made}


def wanted_secrets() -> Iterator[tuple[str, str]]:
    for one in resources():
        yield from ((ref["name"], ref["key"]) for ref in values(one, "secretKeyRef"))
    yield cluster(SERVICE)["authOptions"]["secretName"], "auth_token"  # the operator's name of the key
    yield from (("resight-s3", key) for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    yield "resight", "RESIGHT_TOKEN"


def test_secrets_are_those_that_the_page_makes() -> None:
    wanted: dict[str, set[str]] = {}
    for name, key in wanted_secrets():
        wanted.setdefault(name, set()).add(key)
    assert made_secrets() == wanted
    assert {ref["name"] for one in resources() for ref in values(one, "secretRef")} <= wanted.keys()
    schedule = [ref["name"] for ref in values(named("CronJob"), "secretRef")]
    assert set(schedule) == {"resight-s3"}, "no token of the HTTP API"


@pytest.mark.parametrize(("code", "report", "ends_with"), [(0, "{}", 0), (1, "{}", 0), (1, "", 1), (7, "", 7)])
def test_files_that_cannot_be_read_do_not_end_the_schedule(
    tmp_path: Path, code: int, report: str, ends_with: int
) -> None:
    """A crash ends with 1 too, but has no report."""
    spec = templates()["schedule"]["spec"]
    (tmp_path / "resight").write_text(f"#!/bin/sh\nprintf '{report}'\nexit {code}\n")
    (tmp_path / "resight").chmod(0o755)
    [ingest], [reprocess] = spec["initContainers"], spec["containers"]
    words = [*ingest["command"], *(word.replace("/tmp/", f"{tmp_path}/") for word in ingest["args"])]
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (ends_with, report)
    assert reprocess["command"] == json.loads(re.findall(r"^ENTRYPOINT (.+)$", IMAGE, re.MULTILINE)[0])


@pytest.mark.parametrize("name", templates(gpu=True))
def test_pods_are_locked_and_mount_what_exists(name: str) -> None:
    template = templates(gpu=True)[name]
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert name == "redis" or str(spec["securityContext"]["runAsUser"]) == UID
    locks = [container["securityContext"] for container in containers(template)]
    locks.append(cluster(SERVICE)["autoscalerOptions"]["securityContext"])
    wanted = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert all(lock == wanted for lock in locks)
    claims = named("StatefulSet")["spec"]["volumeClaimTemplates"] if name == "redis" else []
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])} | {
        claim["metadata"]["name"]: claim for claim in claims
    }
    for container in containers(template):
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    assert {ref["name"] for ref in [*values(spec, "configMapRef"), *values(spec, "configMap")]} <= CONFIG.keys()
    if name != "redis":
        # the private folder needs the sticky bit of a file system in memory (serve/cluster/private_folder.py)
        assert volumes["tmp"]["emptyDir"]["medium"] == "Memory"


def test_images_are_named_by_the_kustomization() -> None:
    (kustomization,) = read("kustomization.yaml")
    images = {container["image"] for template in templates().values() for container in containers(template)}
    assert {image for image in images if ":" not in image} == {one["name"] for one in kustomization["images"]}
    files = {path.name for path in (ROOT / "deploy" / "kuberay").iterdir()}
    assert {*kustomization["resources"], "kustomization.yaml", "run.yaml"} == files


def selected(selector: Resource) -> dict[str, Resource]:
    """Return the pod templates with the labels of a selector; the operator adds ray.io/node-type."""
    found = {}
    for name, template in templates(gpu=True).items():
        group = {"ray.io/node-type": "head" if name == "ray head" else "worker"} if name.startswith("ray ") else {}
        if selector["matchLabels"].items() <= (template["metadata"]["labels"] | group).items():
            found[name] = template
    return found


def ports(template: Resource) -> set[int]:
    return {port["containerPort"] for found in values(template, "ports") for port in found}


def test_only_the_http_port_is_open_to_everybody() -> None:
    policies = [one["spec"] for one in resources() if one["kind"] == "NetworkPolicy"]
    covered = [name for policy in policies for name in selected(policy["podSelector"])]
    assert sorted(covered) == sorted(templates(gpu=True))
    for policy in policies:
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy.get("ingress", []):
            numbers = {port["port"] for port in rule.get("ports", [])}
            reachable = set().union(*map(ports, selected(policy["podSelector"]).values()))
            assert numbers <= reachable
            if "from" not in rule:
                assert numbers == {PORTS.http}
            for peer in rule.get("from", []):
                if "namespaceSelector" in peer:
                    assert numbers == {PORTS.dashboard}
                else:
                    assert selected(peer["podSelector"])
                    assert numbers or peer["podSelector"] == policy["podSelector"]


def test_redis_is_where_the_head_looks_for_it() -> None:
    service = next(one for one in resources() if one["kind"] == "Service")
    (port,) = service["spec"]["ports"]
    address = cluster(SERVICE)["gcsFaultToleranceOptions"]["redisAddress"]
    assert address == f"{service['metadata']['name']}:{port['port']}"
    (redis,) = selected({"matchLabels": service["spec"]["selector"]}).values()
    assert ports(redis) == {port["port"]}
    assert named("StatefulSet")["spec"]["serviceName"] == service["metadata"]["name"]


def test_a_drain_can_evict_one_worker_at_a_time() -> None:
    spec = named("PodDisruptionBudget")["spec"]
    assert set(selected(spec["selector"])) == {"ray cpu", "ray gpu"}
    assert 1 <= spec["minAvailable"] < GROUPS["cpu"]["minReplicas"]


def test_a_run_is_a_job_of_the_cluster_that_serves() -> None:
    run = named("RayJob")
    assert run["spec"]["clusterSelector"].keys() == {"ray.io/cluster"}
    assert "rayClusterSpec" not in run["spec"]
    program, *options, module, model, name, actors, number = shlex.split(run["spec"]["entrypoint"])
    assert (program, options, module) == ("python", ["-P", "-m"], "batch.reprocess")
    app = typer.Typer()
    app.command()(reprocess)
    context = typer.main.get_command(app).make_context("reprocess", [model, name, actors, number])
    assert context.params["model"] == name

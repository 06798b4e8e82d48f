"""Three Ray nodes in network namespaces, with S3 and Redis on their bridge: for `three_nodes.py`.

with Nodes(folder) as nodes: nodes.start("head"); nodes.start("north"); nodes.kill("north", unplug=False)
Each node has its own addresses, processes and folders, and starts as in `cluster.yaml`. Needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from harness import ROOT

NET, BRIDGE, HOST = "10.78.0", "rs3", "10.78.0.1"
NODES = {"head": f"{NET}.2", "north": f"{NET}.3", "south": f"{NET}.4"}
DASHBOARD = f"http://{NODES['head']}:8265"
TOKEN, RAY_TOKEN, PASSWORD = "t" * 32, "a" * 64, "p" * 32
STORE = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": f"http://{HOST}:9000",
}
PLACES = {f"RESIGHT_{name.upper()}": f"s3://resight/{name}" for name in ("models", "tables", "uploads")}
COMMON = STORE | PLACES | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": RAY_TOKEN, "RESIGHT_TOKEN": TOKEN}
BIN = str(Path(sys.executable).parent)
MOST_S = 90
"""Seconds for a node to start, and for the cluster to be whole again."""
START = """
mount --bind "$OWN" "$TMPDIR"
if [ "$RELEASE" ]; then
    for part in archive batch cli model_store pages serve; do mount --bind "$RELEASE/$part" "$part"; done
    mount --bind "$RELEASE/METADATA" "$INSTALLED"
fi
ulimit -n 65536 || ulimit -n "$(ulimit -Hn)"
node=$(python -m serve.node_environment) && eval "$node"
exec ray start --block --disable-usage-stats --num-cpus=8 --object-store-memory=200000000 \
    --temp-dir="$RAY_TMPDIR/ray" --node-ip-address="$ADDRESS" --resources="$RESOURCES" """
RESOURCES = {
    "head": {"detector": 1},
    "north": {"detector": 1, "lab": 1},
    "south": {"detector": 1, "lab": 1, "decoding": 1},
}


class Nodes:
    """The namespaces, the services on the bridge, and the processes of the nodes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.temporary = place / "t"
        """Path of another folder on each node: the proxies of all nodes use the path of the head.

        The name is short: the path of a socket has 97 bytes at most.
        """
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.release = ""
        """Folder of another release, which the next node has in place of this checkout's."""

    def __enter__(self) -> Nodes:
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _prepare(self) -> None:
        self.temporary.mkdir()
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{HOST}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for name, address in NODES.items():
            ip("netns", "add", f"{BRIDGE}-{name}")
            ip("link", "add", f"{BRIDGE}{name}", "type", "veth", "peer", "name", "eth0", "netns", f"{BRIDGE}-{name}")
            ip("link", "set", f"{BRIDGE}{name}", "master", BRIDGE, "up")
            for words in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
                ip("-n", f"{BRIDGE}-{name}", *words.split())
        self._service("s3", [sys.executable, "-m", "tests.support.s3_server", "9000", HOST], MOTO_PORT="9000")
        redis = [
            "redis-server",
            "--bind",
            HOST,
            "--requirepass",
            PASSWORD,
            "--appendonly",
            "yes",
            "--dir",
            str(self.place),
        ]
        self._service("redis", redis)
        until(lambda: httpx2.get(STORE["AWS_ENDPOINT_URL"], timeout=2).status_code < 500)

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
        for name in NODES:
            subprocess.run(["ip", "link", "del", f"{BRIDGE}{name}"], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "netns", "del", f"{BRIDGE}-{name}"], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, stderr=subprocess.DEVNULL)

    def start(self, name: str) -> None:
        """Start the node with empty temporary folders, as on a new machine."""
        home, own = self.place / name, self.place / f"{name}-{time.monotonic():.0f}"
        own.mkdir()
        variables = COMMON | {
            "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "RELEASE": self.release,
            "INSTALLED": str(next(Path(BIN).parent.glob("lib/*/site-packages/resight-*.dist-info/METADATA"))),
            "LANG": "C.UTF-8",
            "ADDRESS": NODES[name],
            "RESOURCES": json.dumps(RESOURCES[name]),
            "HOME": str(home),
            "TMPDIR": str(self.temporary),
            "OWN": str(own),
            "RESIGHT_HOME": str(home),
        }
        more = f"--address={NODES['head']}:6379"
        if name == "head":
            more = f"--head --port=6379 --dashboard-host={NODES['head']} --redis-password={PASSWORD}"
            variables |= {"RAY_REDIS_ADDRESS": f"{HOST}:6379", "RAY_external_storage_namespace": "resight"}
        else:
            variables |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
        ip("link", "set", f"{BRIDGE}{name}", "up")
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-ec", START + more]
        self._run(name, ["ip", "netns", "exec", f"{BRIDGE}-{name}", *own], variables)

    def kill(self, name: str, unplug: bool) -> None:
        """End all processes of the node by SIGKILL: its first process is that of its process namespace."""
        if unplug:
            ip("link", "set", f"{BRIDGE}{name}", "down")
        self.running[name].kill()
        self.running[name].wait()

    def inside(self, name: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the namespaces of the node."""
        first = Path(f"/proc/{self.running[name].pid}/task/{self.running[name].pid}/children").read_text().split()[0]
        there = ["nsenter", "-t", first, "-m", "-n", "-p", *words]
        variables = os.environ | {"TMPDIR": str(self.temporary)}
        return subprocess.run(there, env=variables, cwd=ROOT, capture_output=True, check=False)

    def _service(self, name: str, words: list[str], **more: str) -> None:
        self._run(name, words, os.environ | more)

    def _run(self, name: str, words: list[str], variables: dict[str, str]) -> None:
        with (self.place / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(words, env=variables, cwd=ROOT, stdout=log, stderr=log)


def ray_nodes() -> list[dict[str, Any]]:
    found = dashboard("/api/v0/nodes?limit=100")["data"]["result"]["result"]
    return [node for node in found if node["state"] == "ALIVE"]


def dashboard(path: str) -> dict[str, Any]:
    answer = httpx2.get(f"{DASHBOARD}{path}", headers={"authorization": f"Bearer {RAY_TOKEN}"}, timeout=10)
    answer.raise_for_status()
    return dict(answer.json())


def deployments() -> list[dict[str, Any]]:
    applications = dashboard("/api/serve/applications/")["applications"]
    return [one for application in applications.values() for one in application["deployments"].values()]


def until(true: Callable[[], bool]) -> None:
    """Wait for it; errors of HTTP mean not yet."""
    deadline, problem = time.monotonic() + MOST_S, ""
    while time.monotonic() < deadline:
        try:
            if true():
                return
            problem = "it is not so"
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            problem = repr(error)
        time.sleep(0.5)
    raise TimeoutError(f"{true} did not come true in {MOST_S} s: {problem}")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)

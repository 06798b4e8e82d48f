"""The machine file and the application file are what Ray expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.serve.schema import ServeDeploySchema

from batch.app import RunsArgs
from serve.auth.tokens import TokenFile
from serve.settings import DetectArgs, Settings

ROOT = Path(__file__).resolve().parent.parent
MARK = "#onprem# "


def cluster_file(variant: str) -> dict[str, Any]:
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    if variant == "onprem":
        lines = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
    found: dict[str, Any] = yaml.safe_load("\n".join(lines))
    return found


@pytest.mark.parametrize("variant", ["aws", "onprem"])
def test_cluster_yaml_fits_the_schema_ray_ships(variant: str) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster_file(variant), schema)


@pytest.mark.parametrize("variant", ["aws", "onprem"])
def test_every_node_keeps_its_sockets_in_a_private_folder(variant: str) -> None:
    machines = cluster_file(variant)
    for kind in ("head", "worker"):
        command = machines[f"{kind}_start_ray_commands"][-1]
        prepared, _, started = command.partition("ray start ")
        assert 'node=$(python -m serve.node_environment) && eval "$node" &&' in prepared
        assert '--temp-dir="$RAY_TMPDIR/ray"' in started


@pytest.mark.parametrize("variant", ["aws", "onprem"])
def test_every_node_has_the_same_places(variant: str) -> None:
    """Sessions of the page are signed by a key next to the tokens, so nodes share that folder too."""
    (command,) = (text for text in cluster_file(variant)["setup_commands"] if "printf" in text)
    given = dict(word.split("=", 1) for word in command.split() if word.startswith("RESIGHT_"))
    names = ("models", "tables", "uploads", "snips", "tokens")
    assert given.keys() == {f"RESIGHT_{name.upper()}" for name in names}
    assert all(place.startswith("s3://") for place in given.values())
    TokenFile.of(Settings(**{name: given[f"RESIGHT_{name.upper()}"] for name in names}))


def test_the_aws_cluster_has_a_head_cpu_workers_and_gpu_workers() -> None:
    machines = cluster_file("aws")
    types = machines["available_node_types"]
    assert machines["head_node_type"] in types
    assert len(types) >= 3
    assert any("gpu" in name for name in types)


def test_app_yaml_is_a_serve_config_with_valid_arguments() -> None:
    config = yaml.safe_load((ROOT / "serve" / "app.yaml").read_text())
    ServeDeploySchema.model_validate(config)
    known = {"detect": DetectArgs, "runs": RunsArgs, "pages": RunsArgs}
    for application in config["applications"]:
        known[application["name"]].model_validate(application.get("args", {}))
    assert config["http_options"]["host"] == "127.0.0.1"

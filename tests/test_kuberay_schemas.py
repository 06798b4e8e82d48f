"""The manifests of deploy/kuberay are valid: Kubernetes' own schemas, and those of KubeRay's resources.

kubernetes-validate has the schemas of Kubernetes. KubeRay's CRDs are read from ../shared; without them, their fields
that the manifests use are those of `TYPES`, and pod templates are still checked as Kubernetes' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.shared_data import shared
from tests.support.kuberay import Resource, named, resources, templates

VERSIONS = ("1.30", "1.37")
"""Versions of Kubernetes: the first one with the preStop action `sleep`, and the newest one."""
PLURALS = {"RayService": "rayservices", "RayJob": "rayjobs"}
ANY: Resource = {}
TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def fields(**properties: Resource) -> Resource:
    return {"type": "object", "properties": properties, "additionalProperties": False}


START = {"type": "object", "additionalProperties": TEXT}
HEAD = {"rayStartParams": START, "template": ANY}
WORKERS = fields(groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE, maxReplicas=WHOLE, **HEAD)
CLUSTER = fields(
    rayVersion=TEXT,
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    gcsFaultToleranceOptions=fields(redisAddress=TEXT, redisPassword=fields(valueFrom=ANY)),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=fields(idleTimeoutSeconds=WHOLE, securityContext=ANY, volumeMounts=ANY),
    headGroupSpec=fields(**HEAD),
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
TYPES = {
    "RayService": fields(serveConfigV2=TEXT, rayClusterConfig=CLUSTER),
    "RayJob": fields(clusterSelector=START, submissionMode={"enum": ["HTTPMode"]}, entrypoint=TEXT),
}
"""`spec` of KubeRay's resources, by the Go types of KubeRay 1.7.0, as far as the manifests use it."""


def strict(schema: Any) -> Any:
    """Return a structural schema that rejects unknown fields, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(below) for name, below in schema.items()}
    open_object = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_object:
        found["additionalProperties"] = False
    return found


@cache
def crd_schema(kind: str) -> Resource:
    """Return the OpenAPI schema of a CRD of KubeRay; its test is skipped without ../shared."""
    file = shared(f"kuberay/ray.io_{PLURALS[kind]}.yaml", "test_resources_of_kuberay_have_fields_of_its_types")
    document: Any = yaml.load(file.read_text(), yaml.CSafeLoader)  # a second instead of ten
    (version,) = (one for one in document["spec"]["versions"] if one["name"] == "v1")
    return dict(version["schema"]["openAPIV3Schema"])


def check_core(resource: Resource, version: str = VERSIONS[-1]) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def as_template(template: Resource) -> Resource:
    return {"apiVersion": "v1", "kind": "PodTemplate", "template": template}


def all_core() -> Iterator[tuple[str, Resource]]:
    for one in resources():
        if one["kind"] not in PLURALS:
            yield f"{one['kind']} {one['metadata']['name']}", one
    for gpu in (False, True):
        for name, template in templates(gpu).items():
            yield f"template {name}{' gpu' * gpu}", as_template(template)


CORE = dict(all_core())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CORE)
def test_core_resources_match_the_schemas_of_kubernetes(name: str, version: str) -> None:
    check_core(CORE[name], version)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", PLURALS)
def test_resources_of_kuberay_have_fields_of_its_types(kind: str, gpu: bool) -> None:
    resource = named(kind, gpu=gpu)
    assert resource["apiVersion"] == "ray.io/v1"
    jsonschema.validate(resource["spec"], TYPES[kind])


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", PLURALS)
def test_resources_of_kuberay_match_its_crds(kind: str, gpu: bool) -> None:
    schema = strict(crd_schema(kind)) | {"additionalProperties": True}
    jsonschema.validate(named(kind, gpu=gpu), schema)


@pytest.mark.parametrize("kind", PLURALS)
def test_the_types_without_shared_files_are_those_of_the_crds(kind: str) -> None:
    def compare(ours: Resource, theirs: Resource) -> None:
        assert ours.get("type", theirs.get("type")) == theirs.get("type")
        assert set(ours.get("enum", [])) <= set(theirs.get("enum", ours.get("enum", [])))
        for name, below in ours.get("properties", {}).items():
            compare(below, theirs["properties"][name])
        if "items" in ours:
            compare(ours["items"], theirs["items"])

    compare(TYPES[kind], crd_schema(kind)["properties"]["spec"])


def misspell(*path: str | int) -> Callable[[Resource], None]:
    def change(resource: Resource) -> None:
        *above, last = path
        node: Any = resource
        for step in above:
            node = node[step]
        node[f"{last}s"] = node.pop(last)

    return change


CONTAINER = ("template", "spec", "containers", 0)
WRONG = [
    ("NetworkPolicy resight-ray", misspell("spec", "podSelector")),
    ("PodDisruptionBudget resight-workers", misspell("spec", "minAvailable")),
    ("template ray cpu", misspell(*CONTAINER, "securityContext", "readOnlyRootFilesystem")),
    ("template ray head", misspell(*CONTAINER, "lifecycle", "preStop", "sleep")),
    ("template schedule", misspell("template", "spec", "initContainers", 0, "args")),
]


@pytest.mark.parametrize(("name", "change"), WRONG, ids=[name for name, _ in WRONG])
def test_a_misspelt_field_of_kubernetes_is_found(name: str, change: Callable[[Resource], None]) -> None:
    resource = deepcopy(CORE[name])
    change(resource)
    with pytest.raises(kubernetes_validate.ValidationError):
        check_core(resource)


MISSPELT = [
    misspell("spec", "serveConfigV2"),
    misspell("spec", "rayClusterConfig", "gcsFaultToleranceOptions", "redisAddress"),
    misspell("spec", "rayClusterConfig", "workerGroupSpecs", 0, "minReplicas"),
]


@pytest.mark.parametrize("change", MISSPELT)
def test_a_misspelt_field_of_kuberay_is_found(change: Callable[[Resource], None]) -> None:
    service = deepcopy(named("RayService"))
    change(service)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(service["spec"], TYPES["RayService"])


@pytest.mark.parametrize("change", MISSPELT)
def test_a_misspelt_field_of_a_crd_is_found(change: Callable[[Resource], None]) -> None:
    service = deepcopy(named("RayService"))
    change(service)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(service["spec"], strict(crd_schema("RayService"))["properties"]["spec"])

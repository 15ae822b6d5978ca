"""deploy/kubernetes/rayservice.yaml: its pods, what Ray Serve reads of it, and our own settings."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import yaml

from tests.kubernetes import FOLDER, VERSIONS, Document, documents, validate

#: Fields of KubeRay's RayService that the file uses (ray.io/v1), by where they stand.
SPEC = {"serveConfigV2", "rayClusterConfig"}
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
HEAD = {"rayStartParams", "template"}
WORKERS = {*HEAD, "groupName", "replicas", "minReplicas", "maxReplicas"}


@pytest.fixture
def service() -> Document:
    (found,) = documents(FOLDER / "rayservice.yaml")
    return found


def groups(service: Document) -> list[Document]:
    cluster = service["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_it_has_the_structure_of_a_ray_service(service: Document):
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert set(service["spec"]) == SPEC
    cluster = service["spec"]["rayClusterConfig"]
    assert set(cluster) == CLUSTER
    head, *workers = groups(service)
    assert set(head) == HEAD
    for each in workers:
        assert set(each) == WORKERS
        assert each["minReplicas"] <= each["replicas"] <= each["maxReplicas"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_its_pods(service: Document, version: str):
    for group in groups(service):
        template = copy.deepcopy(group["template"])
        template["metadata"] = {"labels": {"app": "x"}}
        document = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "x"},
            "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template},
        }
        validate(document, version)


def test_ray_serve_and_the_application_take_its_config(service: Document):
    schema = pytest.importorskip("ray.serve.schema", reason="the extra scale is not installed")
    config: Any = yaml.safe_load(service["spec"]["serveConfigV2"])
    read = schema.ServeDeploySchema.model_validate(config)
    (application,) = read.applications
    module, name = application.import_path.split(":")
    built = importlib.import_module(module)
    assert callable(getattr(built, name))
    settings = built.ServingSettings(**application.args)
    _, workers = groups(service)
    (container,) = workers["template"]["spec"]["containers"]
    assert settings.threads == int(container["resources"]["limits"]["cpu"])
    assert settings.max_replicas == workers["maxReplicas"]
    assert settings.min_replicas == workers["minReplicas"]
    assert read.http_options.port in {port["containerPort"] for port in container["ports"]}
    with pytest.raises(ValueError, match="replicas_max"):
        built.ServingSettings(**application.args, replicas_max=1)


def test_nobody_gives_the_cluster_work_without_the_token(service: Document):
    for group in groups(service):
        (container,) = group["template"]["spec"]["containers"]
        variables = {each["name"]: each for each in container["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        assert "secretKeyRef" in variables["RAY_AUTH_TOKEN"]["valueFrom"]

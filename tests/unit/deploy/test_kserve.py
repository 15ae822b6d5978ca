"""The InferenceServices of deploy/kubernetes/kserve, held against the types of KServe's package.

That package wants older versions of protobuf and psutil than ours, so it cannot be in our
environment. Its types need nothing else, though, so it lies alone in `build/kserve`; `.ci/run` has
the command. What KServe passes on to Kubernetes is held against Kubernetes' schemas.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.settings import Settings
from tests import ROOT
from tests.kubernetes import FOLDER, VERSIONS, Document, container, documents, resource, validate

PACKAGE = ROOT / "build" / "kserve" / "kserve"
FILES = sorted((FOLDER / "kserve").glob("*.yaml"))
#: Fields of a predictor that KServe reads itself; all others are those of a pod.
OWN_FIELDS = {"minReplicas", "timeout", "deploymentStrategy", "storageUris"}


@pytest.fixture
def models() -> Iterator[types.ModuleType]:
    """The module `kserve.models`, without the model server that `import kserve` starts to load."""
    if not PACKAGE.is_dir():
        pytest.skip("KServe's types are not in build/kserve; .ci/run has the command")
    before = set(sys.modules)
    package = types.ModuleType("kserve")
    package.__path__ = [str(PACKAGE)]
    sys.modules["kserve"] = package
    yield importlib.import_module("kserve.models")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "kserve":
            del sys.modules[name]


def build(models: types.ModuleType, kind: str, value: Any, where: str) -> Any:
    """An object of one of KServe's types; its constructor checks that required fields are there.

    Types that start with V1 are Kubernetes' own and are not looked into.
    """
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        assert isinstance(value, list), where
        return [build(models, inner[1], each, where) for each in value]
    if kind in ("str", "int", "bool"):
        assert type(value).__name__ == kind, f"{where} is {value!r}, not a {kind}"
        return value
    if not hasattr(models, kind):
        assert kind.startswith(("V1", "K8sIo")), f"{where}: {kind}"
        return value
    of = getattr(models, kind)
    names = {json: name for name, json in of.attribute_map.items()}
    unknown = set(value) - set(names)
    assert not unknown, f"{where} has no {', '.join(unknown)}"
    given = {
        names[key]: build(models, of.openapi_types[names[key]], each, f"{where}.{key}")
        for key, each in value.items()
    }
    return of(**given)


def deployment(service: Document) -> Document:
    """The Deployment that KServe makes of an InferenceService."""
    predictor = service["spec"]["predictor"]
    labels = {"app": "isvc"}
    spec = {key: value for key, value in predictor.items() if key not in OWN_FIELDS}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": service["metadata"],
        "spec": {
            "selector": {"matchLabels": labels},
            "strategy": predictor["deploymentStrategy"],
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def containers(service: Document) -> dict[str, Document]:
    predictor = service["spec"]["predictor"]
    found = [*predictor.get("initContainers", []), *predictor["containers"]]
    return {each["args"][0]: each for each in found}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kserve_takes_it(file: Any, models: types.ModuleType):
    (service,) = documents(file)
    built = build(models, "V1beta1InferenceService", service, file.name)
    assert built.spec.predictor.min_replicas == 2


def test_a_misspelt_field_of_kserve_is_found(models: types.ModuleType):
    (service,) = documents(FILES[0])
    service["spec"]["predictor"]["minReplica"] = 2
    with pytest.raises(AssertionError, match="has no minReplica"):
        build(models, "V1beta1InferenceService", service, FILES[0].name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kubernetes_takes_what_kserve_makes_of_it(file: Any, version: str):
    (service,) = documents(file)
    validate(deployment(service), version)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_servers_are_started_as_in_the_deployment(file: Any):
    (service,) = documents(file)
    for name, each in containers(service).items():
        own = container(name)
        for field in ("args", "env", "resources", "startupProbe", "livenessProbe", "volumeMounts"):
            expected, found = own.get(field), each.get(field)
            if field.endswith("Probe") and "httpGet" in own[field]:  # ports have other names there
                expected = expected | {"httpGet": expected["httpGet"] | {"port": 8000}}
            assert found == expected, f"{name}: {field}"
    spec = resource("Deployment")["spec"]["template"]["spec"]
    predictor = service["spec"]["predictor"]
    for field in ("volumes", "securityContext", "terminationGracePeriodSeconds"):
        assert predictor[field] == spec[field], field
    assert predictor["timeout"] > Settings().deadline_seconds


def test_kserve_asks_the_gateway_and_not_torchserve():
    """KServe asks `transformer-container` where there is one, and `kserve-container` otherwise."""
    for file in FILES:
        (service,) = documents(file)
        names = {each["name"]: each for each in service["spec"]["predictor"]["containers"]}
        asked = names.get("transformer-container") or names["kserve-container"]
        assert asked["args"] == ["gateway"]
        assert [each["containerPort"] for each in asked["ports"]] == [Settings().port]
        assert all("ports" not in each for each in names.values() if each is not asked)
        # Without one KServe adds a probe over TCP, which does not reach loopback.
        assert all("readinessProbe" in each for each in names.values())


def test_the_archive_of_a_bucket_is_mounted_in_torchserves_container():
    (service,) = documents(FOLDER / "kserve" / "from-storage.yaml")
    # KServe mounts it in the containers of these two names, and in no init container.
    assert containers(service)["torchserve"]["name"] == "kserve-container"
    assert "initContainers" not in service["spec"]["predictor"]
    assert [e["mountPath"] for e in service["spec"]["predictor"]["storageUris"]] == ["/models"]


def test_torchserve_outlives_the_gateway():
    (image,), (storage,) = (documents(FOLDER / "kserve" / f"from-{each}.yaml")
                            for each in ("image", "storage"))  # fmt: skip
    assert [e["restartPolicy"] for e in image["spec"]["predictor"]["initContainers"]] == ["Always"]
    sleeps = {name: each["lifecycle"]["preStop"]["sleep"]["seconds"]
              for name, each in containers(storage).items()}  # fmt: skip
    graceful = Settings().deadline_seconds + 5  # as gateway/__main__.py tells uvicorn
    assert sleeps["torchserve"] >= sleeps["gateway"] + graceful
    assert storage["spec"]["predictor"]["terminationGracePeriodSeconds"] > sleeps["torchserve"]

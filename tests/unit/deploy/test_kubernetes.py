"""The files of deploy/kubernetes: built by Kustomize, valid for Kubernetes, right for our servers.

The build needs kubectl or kustomize, the schemas the packages of the group `cloud`; the tests that
need them are skipped without them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.torchserve import TorchServe
from gateway.measures import Measures
from gateway.settings import Settings
from tests import ROOT
from tests.kubernetes import FOLDER, VERSIONS, built, container, documents, resource, validate

KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))


# --- Kustomize ---------------------------------------------------------------------------------


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=lambda file: file.parent.name)
def test_every_file_of_a_kustomization_is_used_and_every_used_file_exists(file: Path):
    kustomization = documents(file)[0]
    used = [*kustomization.get("resources", []), *kustomization.get("components", [])]
    used += [each["path"] for each in kustomization.get("patches", []) if "path" in each]
    assert all((file.parent / each).exists() for each in used)
    beside = {each.name for each in file.parent.glob("*.yaml")} - {"kustomization.yaml"}
    # Parts of other programs' settings, which docs/kubernetes.md hands to these.
    beside -= {"adapter-values.yaml", "prometheus-scrape.yaml"}
    assert beside == {each for each in used if "/" not in each}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_what_is_built_is_what_kubernetes_takes(folder: str, version: str):
    resources = built(FOLDER / folder)
    assert "Deployment" in {each["kind"] for each in resources}
    for each in resources:
        validate(each, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_is_found(version: str):
    deployment = resource("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(Exception, match="readynessProbe"):
        validate(deployment, version)


def test_the_overlay_names_the_image_of_both_containers():
    deployment = next(
        e for e in built(FOLDER / "overlays" / "production") if e["kind"] == "Deployment"
    )
    spec = deployment["spec"]["template"]["spec"]
    images = {each["image"] for each in spec["initContainers"] + spec["containers"]}
    assert images == {"registry.example.org/clipcap:1.0.0"}


def test_the_autoscaler_alone_sets_the_number_of_pods():
    assert "replicas" in resource("Deployment")["spec"]
    deployment = next(
        e for e in built(FOLDER / "overlays" / "production") if e["kind"] == "Deployment"
    )
    assert "replicas" not in deployment["spec"]


# --- The two containers ------------------------------------------------------------------------


def test_torchserve_is_a_sidecar_that_outlives_the_gateway():
    spec = resource("Deployment")["spec"]["template"]["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["torchserve"]
    assert spec["initContainers"][0]["restartPolicy"] == "Always"
    assert [each["name"] for each in spec["containers"]] == ["gateway"]


def test_a_pod_ends_only_after_the_gateway_had_its_deadline():
    sleep = container("gateway")["lifecycle"]["preStop"]["sleep"]["seconds"]
    graceful = settings().deadline_seconds + 5  # as gateway/__main__.py tells uvicorn
    assert (
        resource("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        >= sleep + graceful + 10
    )


def settings() -> Settings:
    """The gateway's settings, as the gateway reads them from what the Deployment sets."""
    environment = {each["name"]: each["value"] for each in container("gateway")["env"]}
    return Settings.from_environment(environment)


def test_the_gateway_is_started_with_keys_on_the_port_that_the_service_sends_to():
    gateway = container("gateway")
    assert settings().keys is not None
    assert not settings().is_loopback
    ports = {each["name"]: each["containerPort"] for each in gateway["ports"]}
    assert ports == {"http": settings().port}
    assert [each["targetPort"] for each in resource("Service")["spec"]["ports"]] == ["http"]
    mount = next(each for each in gateway["volumeMounts"] if each["name"] == "keys")
    assert Path(mount["mountPath"]) in settings().keys.parents
    assert mount["readOnly"]


def test_the_gateway_asks_where_torchserve_listens():
    server = TorchServe(Path(), Path(), ROOT / "config.properties")
    assert settings().inference == server.rest
    assert settings().management == server.management
    assert settings().metrics == server.metrics


def test_every_container_has_probes_that_reach_it():
    gateway, torchserve = container("gateway"), container("torchserve")
    paths = {name: gateway[f"{name}Probe"]["httpGet"]["path"]
             for name in ("startup", "readiness", "liveness")}  # fmt: skip
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    # It listens on loopback, where only a program of the pod reaches it.
    for name in ("startup", "liveness"):
        command = torchserve[f"{name}Probe"]["exec"]["command"]
        assert command == ["python", "-m", "deploy.container.health", "torchserve"]


def test_torchserve_may_take_as_long_to_load_as_its_own_limit():
    startup = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())["startupTimeout"]
    for name in ("startup", "liveness"):
        probe = container("torchserve")[f"{name}Probe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] > startup
    assert resource("Deployment")["spec"]["progressDeadlineSeconds"] > startup


def test_java_and_the_decoding_of_pictures_fit_into_the_memory():
    heap = re.findall(r"-Xmx(\d+)g", (ROOT / "config.properties").read_text())
    limit = container("torchserve")["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Gi")) >= int(heap[0]) + 2


# --- Autoscaling -------------------------------------------------------------------------------


def test_the_autoscaler_goes_by_a_metric_of_the_gateway_to_one_batch_a_pod():
    metric = resource("HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]
    name = metric["metric"]["name"]
    (described,) = Measures().in_flight.describe()
    assert (described.name, described.type) == (name, "gauge")
    batch = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())["batchSize"]
    assert metric["target"] == {"type": "AverageValue", "averageValue": str(batch)}
    adapter = documents(FOLDER / "components" / "autoscaling" / "adapter-values.yaml")[0]
    assert adapter["rules"]["custom"][0]["name"] == {"matches": name, "as": name}
    assert adapter["rules"]["custom"][0]["seriesQuery"].startswith(f"{name}{{")


def test_pods_are_added_faster_than_they_are_taken_away():
    behavior = resource("HorizontalPodAutoscaler")["spec"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert up["stabilizationWindowSeconds"] < down["stabilizationWindowSeconds"]
    assert max(p["value"] for p in down["policies"]) < max(p["value"] for p in up["policies"])


def test_prometheus_takes_the_scrape_configuration(tmp_path: Path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    (config,) = documents(FOLDER / "components" / "autoscaling" / "prometheus-scrape.yaml")
    # Debian's Prometheus is built without the discovery of Kubernetes' pods.
    assert config["scrape_configs"][0].pop("kubernetes_sd_configs") == [{"role": "pod"}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [promtool, "check", "config", "--syntax-only", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr

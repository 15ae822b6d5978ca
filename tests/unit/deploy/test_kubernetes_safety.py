"""The pods of deploy/kubernetes have no rights, write to /tmp only, and are reached on one port."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from gateway.settings import Settings
from tests.kubernetes import FOLDER, VERSIONS, Document, built, documents, resource, validate


@pytest.fixture
def with_url_fetching(tmp_path: Path) -> list[Document]:
    """The base with the component that fetches pictures, as an overlay would have it."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "fetching"
    overlay.mkdir()
    lines = ["resources: [../../base]", "components: [../../components/url-fetching]"]
    (overlay / "kustomization.yaml").write_text("\n".join(lines))
    return built(overlay)


def specs() -> dict[str, Document]:
    """Every pod of the folder: that of the Deployment and those of KServe."""
    found = {"deployment": resource("Deployment")["spec"]["template"]["spec"]}
    for file in sorted((FOLDER / "kserve").glob("*.yaml")):
        found[file.stem] = documents(file)[0]["spec"]["predictor"]
    return found


@pytest.mark.parametrize("name", specs())
def test_a_pod_meets_the_restricted_standard_and_writes_only_to_tmp(name: str):
    spec = specs()[name]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in [*spec.get("initContainers", []), *spec["containers"]]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= each["resources"]["limits"].keys()
        assert {"cpu", "memory"} <= each["resources"]["requests"].keys()
        writable = [m["mountPath"] for m in each["volumeMounts"] if not m.get("readOnly")]
        assert writable == ["/tmp"]


def test_every_selector_finds_the_pods_and_no_others():
    labels = resource("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels
    assert resource("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert resource("Service")["spec"]["selector"] == labels
    assert resource("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert resource("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    for each in resource("Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        assert each["labelSelector"]["matchLabels"] == labels


def test_only_the_gateway_is_reached_and_nothing_is_reached_from_a_pod():
    policy = resource("NetworkPolicy")["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert policy["egress"] == []


def test_fetching_opens_dns_and_public_web_servers_only(with_url_fetching: list[Document]):
    for each in with_url_fetching:
        validate(each, VERSIONS[0])
    deployment = next(e for e in with_url_fetching if e["kind"] == "Deployment")
    gateway = deployment["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "GATEWAY_FETCH_URLS", "value": "true"} in gateway["env"]
    policy = next(e for e in with_url_fetching if e["kind"] == "NetworkPolicy")
    names, web = policy["spec"]["egress"]
    assert [each["port"] for each in names["ports"]] == [53, 53]
    assert [each["port"] for each in web["ports"]] == [80, 443]
    private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"}
    assert private <= set(web["to"][0]["ipBlock"]["except"])


def test_the_gateway_knows_the_setting_that_switches_fetching_on():
    text = (FOLDER / "components" / "url-fetching" / "kustomization.yaml").read_text()
    (name,) = re.findall(r"name: (GATEWAY_\w+)", text)
    assert Settings.from_environment({name: "true"}) != Settings()


def test_no_file_holds_a_secret():
    for file in FOLDER.rglob("*.yaml"):
        assert not [e for e in documents(file) if isinstance(e, dict) and e.get("kind") == "Secret"]

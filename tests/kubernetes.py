"""The files of deploy/kubernetes, read, built and held against Kubernetes' own schemas."""

from __future__ import annotations

import copy
import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
#: The oldest Kubernetes that docs/kubernetes.md names, and one of the newest.
VERSIONS = ("1.30", "1.37")
Document = dict[str, Any]


def documents(file: Path) -> list[Document]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(file.read_text()))


@functools.cache
def _resources() -> dict[str, Document]:
    files = [file for file in FOLDER.rglob("*.yaml") if "kserve" not in file.parts]
    found = [each for file in files for each in documents(file) if "kind" in each]
    found = [each for each in found if "kustomize.config.k8s.io" not in each["apiVersion"]]
    assert len(found) == len({each["kind"] for each in found})
    return {each["kind"]: each for each in found}


def resource(kind: str) -> Document:
    """The one resource of a kind, as its file has it; a copy."""
    return copy.deepcopy(_resources()[kind])


def container(name: str) -> Document:
    """A container of the Deployment, the sidecar too."""
    spec = resource("Deployment")["spec"]["template"]["spec"]
    return {each["name"]: each for each in (*spec["initContainers"], *spec["containers"])}[name]


def built(folder: Path) -> list[Document]:
    """What `kubectl apply -k` would send; skips the test without kubectl and kustomize."""
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize"]
    elif kustomize := shutil.which("kustomize"):
        command = [kustomize, "build"]
    else:
        pytest.skip("neither kubectl nor kustomize is installed")
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def validate(document: Document, version: str) -> None:
    """Fail on what that version of Kubernetes would refuse; skips the test without schemas."""
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="not installed: pip install -e '.[cloud]'"
    )
    kubernetes_validate.validate(document, version, strict=True)

"""Packages: what a group installs is enough for its commands, and every package is pinned."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS: dict[str, list[str]] = PROJECT["optional-dependencies"]
#: Modules that `make serve` and `make swap` run, in their own processes or in others; commands
#: import some of them only after their settings are read.
SERVING = ("client", "deploy.serve", "deploy.swap", "gateway.__main__",
           "model.pretrained.published", "model.pretrained.completion", "model.pretrained.hub",
           "training.archive", "training.export", "training.exporting.export",
           "training.try_artifact")  # fmt: skip
#: Modules that run in the image: both servers, and what a worker runs.
RUNNING = ("deploy.container.start", "deploy.container.health", "gateway.__main__", "ts.context",
           "ts.model_service_worker", "handler.caption_handler")  # fmt: skip
ROOMS = ("client", "deploy", "feedback", "gateway", "handler", "model", "training")
INSTALL = re.compile(r"^\t.*pip install.*$", re.MULTILINE)


def closure(requirements: Sequence[str]) -> set[str]:
    """Names of the packages that requirements install, and those that these require."""
    found: set[str] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of a group that is not installed here
        if name not in found or requirement.extras:
            found.add(name)
            for each in ("", *requirement.extras):
                more = [Requirement(text) for text in required]
                waiting += [(r, each) for r in more if canonicalize_name(r.name) not in found]
    return found


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parts = (line.partition("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in parts}


def test_serving_imports_only_what_its_group_installs():
    code = (
        f"import importlib, sys\nfor name in {SERVING!r}: importlib.import_module(name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    distributions = importlib.metadata.packages_distributions()
    installed = closure([*PROJECT["dependencies"], *GROUPS["serve"]])
    # Several packages may share one name for import, such as those of OpenTelemetry.
    of_modules = [
        {canonicalize_name(package) for package in distributions.get(module, [])}
        for module in done.stdout.split()
    ]
    loaded = {name for own in of_modules for name in (own & installed or own)}
    assert {"torch", "transformers", "hydra-core"} <= loaded & installed
    # Only what the other groups name: some packages import others where these happen to be there.
    groups = ("train", "dev")
    others = {Requirement(each).name for group in groups for each in GROUPS[group]}
    assert not {canonicalize_name(name) for name in others} & loaded - installed


def test_the_image_has_what_runs_in_it():
    installed = closure([*PROJECT["dependencies"], *GROUPS["runtime"]])
    absent = [
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if module not in ROOMS and not {canonicalize_name(each) for each in packages} & installed
    ]
    assert {"transformers", "numpy", "hydra"} <= set(absent)
    code = (
        f"import importlib, sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
        f"for name in {RUNNING!r}: importlib.import_module(name)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(GROUPS["runtime"]) <= set(GROUPS["serve"])  # with the same bounds


def test_every_package_of_every_group_is_pinned():
    pinned = pins()
    wanted = [each for group in ("serve", "train", "dev") for each in GROUPS[group]]
    assert closure([*PROJECT["dependencies"], *wanted]) <= set(pinned)


def test_a_pin_is_a_name_and_a_version():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==(\d+!)?[\w.]+", line), line


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_the_pins_are_allowed(group: str):
    pinned = pins()
    for text in GROUPS[group] if group else PROJECT["dependencies"]:
        requirement = Requirement(text)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{text} and {version}"


def test_pip_always_installs_the_pins():
    lines = INSTALL.findall((ROOT / "Makefile").read_text())
    assert lines
    assert all(" -c constraints.txt " in line for line in lines)


def test_the_supported_pythons_are_the_same_everywhere():
    lowest, end = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    minors = [str(minor) for minor in range(int(lowest), int(end))]
    makefile = (ROOT / "Makefile").read_text()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"3\.(\d+)", re.findall(r"^PYTHONS := (.*)", makefile, re.M)[0]) == minors
    assert f"(3, {minors[0]}) <= sys.version_info[:2] <= (3, {minors[-1]})" in makefile
    assert re.findall(r"3\.(\d+)", re.findall(r"python: \[(.*)\]", workflow)[0]) == minors

"""The image and its containers, as far as no container is needed for it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from deploy.container import health
from deploy.container.archive import check_archive, choose_archive
from deploy.container_check import __main__ as container_check
from deploy.container_check.pip_settings import paths, read_settings
from deploy.errors import ServeError
from tests import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
OURS = ("network", "torchserve", "gateway")


def command(name: str) -> Path:
    """A command that a package of the group dev installs."""
    found = Path(sys.executable).with_name(name)
    assert found.is_file(), f"{found} is missing: make install"
    return found


def test_the_dockerfile_has_no_fault_that_hadolint_finds():
    done = subprocess.run(
        [command("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_has_the_form_of_its_schema():
    done = subprocess.run(
        [command("check-jsonschema"), "--builtin-schema", "vendor.compose-spec",
         ROOT / "deploy" / "compose.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_last_stage_serves_and_is_not_root():
    stages = re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE)
    assert stages[-1] == "serve"
    assert "train" in stages
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)", last, re.MULTILINE) == ["10001"]
    assert "deploy.container.health" in last
    torch = re.findall(r"torch==[\d.]+", DOCKERFILE)
    assert set(torch) == set(
        re.findall(r"^torch==.*", (ROOT / "constraints.txt").read_text(), re.M)
    )


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_is_confined(name: str):
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert {"mem_limit", "pids_limit", "healthcheck"} <= service.keys()
    assert all("${GATEWAY_BIND:-127.0.0.1}:" in port or port.startswith("127.0.0.1:")
               for port in service.get("ports", []))  # fmt: skip
    if name not in OURS:
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_only_the_gateway_can_be_reached_from_outside():
    services = COMPOSE["services"]
    assert [port.rpartition(":")[2] for port in services["network"]["ports"]] == ["8000"]
    for name in ("torchserve", "gateway"):
        assert services[name]["network_mode"] == "service:network"
        assert "ports" not in services[name]
    assert services["gateway"]["depends_on"]["torchserve"] == {"condition": "service_healthy"}
    assert "GATEWAY_KEYS" in services["gateway"]["environment"]
    assert "GATEWAY_OPEN" not in services["gateway"]["environment"]


def test_the_check_has_the_limits_of_compose():
    for name, megabytes in container_check.SERVERS.items():
        limit = COMPOSE["services"][name]["mem_limit"]
        assert int(limit.removesuffix("g")) * 1024 == megabytes


def test_prometheus_asks_the_gateway():
    settings = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    jobs = settings["scrape_configs"]
    targets = {
        target for job in jobs for each in job["static_configs"] for target in each["targets"]
    }
    aliases = COMPOSE["services"]["network"]["networks"]["default"]["aliases"]
    assert f"{aliases[0]}:8000" in targets


def test_what_is_mounted_for_monitoring_exists_and_is_read_from_there():
    services = COMPOSE["services"]
    mounted: dict[str, dict[str, Path]] = {}
    for name in ("prometheus", "alertmanager", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        for volume in services[name]["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                mounted.setdefault(name, {})[target] = (ROOT / "deploy" / source).resolve(True)
            else:
                assert source in COMPOSE["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    # Where Prometheus and Alertmanager look for their files by default, or are told to.
    assert (mounted["prometheus"]["/etc/prometheus"] / "prometheus.yml").is_file()
    assert (mounted["alertmanager"]["/etc/alertmanager"] / "alertmanager.yml").is_file()
    assert "--config.file=/etc/alertmanager/alertmanager.yml" in services["alertmanager"]["command"]
    settings = yaml.safe_load(
        (mounted["prometheus"]["/etc/prometheus"] / "prometheus.yml").read_text()
    )
    for pattern in settings["rule_files"]:
        assert list(mounted["prometheus"]["/etc/prometheus"].glob(pattern))
    (target,) = settings["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target == "alertmanager:9093"
    key = settings["scrape_configs"][0]["authorization"]["credentials_file"]
    assert key.removeprefix("/run/secrets/") in services["prometheus"]["secrets"]
    # Grafana's provisioning: the source, and the provider, which names the folder of dashboards.
    grafana = mounted["grafana"]
    (source,) = yaml.safe_load(
        (grafana["/etc/grafana/provisioning/datasources"] / "prometheus.yaml").read_text()
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load(
        (grafana["/etc/grafana/provisioning/dashboards"] / "files.yaml").read_text()
    )["providers"]
    assert list(grafana[provider["options"]["path"]].glob("*.json"))
    assert services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_a_container_logs_what_a_server_of_this_machine_logs():
    def levels(file: str) -> dict[str | None, str | None]:
        loggers = ElementTree.parse(ROOT / file).iter("Logger")
        return {each.get("name"): each.get("level") for each in loggers}

    assert levels("deploy/container/log4j2.xml") == levels("handler/log4j2.xml")


def test_the_mounted_archive_is_served_in_place_of_the_built_in_one(tmp_path: Path):
    mounted, built_in = tmp_path / "models", tmp_path / "clipcap.mar"
    assert choose_archive(mounted, built_in) == built_in
    mounted.mkdir()
    (mounted / ".keep").touch()
    (mounted / "lost+found").mkdir()
    assert choose_archive(mounted, built_in) == built_in
    (mounted / "mine.mar").touch()
    (mounted / "README.md").touch()
    assert choose_archive(mounted, built_in) == mounted / "mine.mar"


@pytest.mark.parametrize("files", [["a.mar", "b.mar"], ["captioner.pt"]])
def test_a_mounted_folder_that_leaves_a_doubt_is_refused(tmp_path: Path, files: list[str]):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ServeError, match=rf"holds \d archives \(.mar\) among {files[0]}") as error:
        choose_archive(tmp_path)
    assert "\n" not in str(error.value)


def test_an_archive_of_a_captioner_is_accepted(tiny_archive: Path):
    check_archive(tiny_archive)


def changed(archive: Path, out: Path, changes: dict[str, bytes | None]) -> Path:
    """A copy of an archive with other contents of some files; None leaves a file out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = changes.get(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return out


def refusal(file: Path) -> str:
    with pytest.raises(ServeError) as error:
        check_archive(file)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)
    return str(error.value)


def test_what_is_no_archive_of_a_captioner_is_refused(tiny_archive: Path, tmp_path: Path):
    assert "cannot be read" in refusal(tmp_path / "none.mar")
    text = tmp_path / "text.mar"
    text.write_text("not a zip file")
    assert "not a whole zip file" in refusal(text)
    whole = tiny_archive.read_bytes()
    half = tmp_path / "half.mar"
    half.write_bytes(whole[: len(whole) // 2])
    assert "not a whole zip file" in refusal(half)
    damaged = tmp_path / "damaged.mar"
    with zipfile.ZipFile(tiny_archive) as archive:  # stored without compression
        content = archive.read("captioner.pt")
    at = whole.index(content) + len(content) // 2
    damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "captioner.pt has a wrong checksum" in refusal(damaged)
    out = tmp_path / "changed.mar"
    assert "it has no captioner.pt" in refusal(changed(tiny_archive, out, {"captioner.pt": None}))
    manifest = "MAR-INF/MANIFEST.json"
    assert "cannot be read" in refusal(changed(tiny_archive, out, {manifest: b"{}"}))
    assert "cannot be read" in refusal(changed(tiny_archive, out, {"captioner.json": b"{"}))
    handler = "caption_handler.py"
    assert f"it has no {handler}" in refusal(changed(tiny_archive, out, {handler: None}))


def test_an_archive_of_another_torch_is_refused(tiny_archive: Path, tmp_path: Path):
    with zipfile.ZipFile(tiny_archive) as archive:
        info = json.loads(archive.read("captioner.json"))
    info["versions"]["torch"] = "2.1.0+cu118"
    out = changed(tiny_archive, tmp_path / "old.mar", {"captioner.json": json.dumps(info).encode()})
    assert "was exported with torch 2.1.0+cu118" in refusal(out)


def test_the_health_check_knows_which_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    init = tmp_path / "cmdline"
    init.write_bytes(b"tini\0-e\x00143\0--\0python\0-m\0deploy.container.start\0gateway\0")
    assert health.started_server(init) == "gateway"
    monkeypatch.setattr(health, "started_server", lambda: "sleep")
    monkeypatch.setattr(sys, "argv", ["health"])
    assert health.main() == 1
    assert "this container runs 'sleep'" in capsys.readouterr().err


def test_pip_in_a_build_gets_the_settings_of_this_machine(tmp_path: Path):
    wheels, index = tmp_path / "wheels", tmp_path / "pypi" / "simple"
    wheels.mkdir()
    index.mkdir(parents=True)
    settings = read_settings(
        f":env:.find-links='{wheels}'\n"
        f"global.extra-index-url='https://example.org/simple file://{index}'\n"
        "global.find-links='/elsewhere'\nuser.find-links='/else'\nglobal.timeout='5'\n"
    )
    assert settings["find-links"] == str(wheels)
    assert settings["timeout"] == "5"
    assert paths(settings) == [index.parent, wheels]
    assert paths({"cert": "/no/such/file", "index-url": "https://example.org/simple"}) == []


def test_the_check_says_why_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["container_check"])
    monkeypatch.setattr(container_check.os, "geteuid", lambda: 1000)
    assert container_check.main() == 0
    assert capsys.readouterr().out.startswith("skipped: ")
    monkeypatch.setattr(container_check.os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "buildah" else name)
    assert container_check.main() == 0
    assert capsys.readouterr().out == (
        "skipped: the container is not checked, since there is no buildah\n"
    )

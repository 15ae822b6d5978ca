"""The files of deploy/cloud, held against the types of Google's own client libraries.

Those are packages of the group `cloud`; the tests that need them are skipped without them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cloud import render as command
from deploy.cloud.render import render
from deploy.errors import ServeError
from gateway.settings import Settings
from tests import ROOT

FOLDER = ROOT / "deploy" / "cloud"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
#: What docs/cloud.md sets before its commands.
NAMES = {
    "PROJECT": "my-project",
    "REGION": "europe-west4",
    "BUCKET": "my-bucket",
    "SERVICE": "clipcap",
    "IMAGE": "europe-west4-docker.pkg.dev/my-project/clipcap/clipcap:v1.0.0",
    "TRAIN_IMAGE": "europe-west4-docker.pkg.dev/my-project/clipcap/clipcap-train:v1.0.0",
    "EXPERIMENT": "scenes",
    "CONNECTION": "github",
    "REPOSITORY": "clipcap",
    "CHANNEL": "projects/my-project/notificationChannels/1",
}
#: File -> the module and the type of Google's library that it must be.
TYPES = {
    "alert_errors": ("google.cloud.monitoring_v3", "AlertPolicy"),
    "alert_latency": ("google.cloud.monitoring_v3", "AlertPolicy"),
    "cloud_run": ("google.cloud.run_v2", "Service"),
    "dashboard": ("google.cloud.monitoring_dashboard_v1", "Dashboard"),
    "training_job": ("google.cloud.aiplatform_v1.types", "CustomJobSpec"),
    "trigger": ("google.cloud.devtools.cloudbuild_v1", "BuildTrigger"),
}


def rendered(name: str) -> dict[str, Any]:
    document: dict[str, Any] = render(FOLDER / f"{name}.yaml", NAMES)
    return document


def parse(document: dict[str, Any], module: str, kind: str) -> Any:
    """The document as an object of a library, which refuses what it does not know."""
    of = getattr(
        pytest.importorskip(module, reason="not installed: pip install -e '.[cloud]'"), kind
    )
    return of.from_json(json.dumps(document), ignore_unknown_fields=False)


def test_every_file_is_held_against_a_type():
    files = {file.stem for file in FOLDER.glob("*.yaml")} - {"cloudbuild"}
    assert files == TYPES.keys()


@pytest.mark.parametrize("name", TYPES)
def test_google_takes_it(name: str):
    assert parse(rendered(name), *TYPES[name])


@pytest.mark.parametrize("name", TYPES)
def test_a_misspelt_field_is_found(name: str):
    with pytest.raises(Exception, match='no field named "displayNam"'):
        parse(rendered(name) | {"displayNam": "x"}, *TYPES[name])


def test_a_misspelt_value_is_found():
    policy = rendered("alert_errors") | {"combiner": "ORR"}
    with pytest.raises(Exception, match="combiner"):
        parse(policy, *TYPES["alert_errors"])


def check_schema(schema: str, *files: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="not installed: pip install -e '.[cloud]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


def test_the_build_is_one_of_cloud_build():
    check_schema("vendor.cloudbuild", FOLDER / "cloudbuild.yaml")
    build = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text())
    parse(build, "google.cloud.devtools.cloudbuild_v1", "Build")
    pushed = set(build["images"])
    built = {step["args"][step["args"].index("--tag") + 1] for step in build["steps"]
             if step["args"][0] == "build"}  # fmt: skip
    assert pushed == built
    tried = [step["args"] for step in build["steps"] if step["id"] == "try"]
    assert [(ROOT / args[0]).is_file() for args in tried] == [True]


def test_the_trigger_runs_the_build_for_version_tags_only():
    trigger = rendered("trigger")
    assert (ROOT / trigger["filename"]).is_file()
    assert trigger["repositoryEventConfig"]["push"] == {"tag": r"^v[0-9]+\.[0-9]+\.[0-9]+$"}
    build = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text())
    assert trigger["substitutions"].keys() <= build["substitutions"].keys()


@pytest.mark.parametrize(
    "schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"]
)
def test_the_workflows_are_of_github_and_every_job_has_a_limit(schema: str):
    check_schema(schema, *WORKFLOWS)


def test_images_are_built_on_the_events_of_the_course_and_pushed_on_no_pull_request():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "image.yml").read_text())
    events = workflow[True]  # `on`, which YAML 1.1 takes for a truth value
    assert events["push"] == {
        "branches": ["main"],
        "paths": ["dvc.lock"],
        "tags": ["v*", "clipcap@v*"],
    }
    assert "pull_request" in events
    for step in workflow["jobs"]["image"]["steps"]:
        if step.get("name") == "push" or "login" in step.get("uses", ""):
            assert step["if"] == "github.event_name == 'push'"
    for each in workflow["jobs"].values():
        assert each["permissions"]["contents"] == "read"


def test_the_service_runs_both_servers_with_settings_that_the_gateway_takes():
    template = rendered("cloud_run")["template"]
    gateway, torchserve = template["containers"]
    assert (gateway["args"], torchserve["args"]) == (["gateway"], ["torchserve"])
    settings = Settings.from_environment({each["name"]: each["value"] for each in gateway["env"]})
    assert [each["containerPort"] for each in gateway["ports"]] == [settings.port]
    assert "ports" not in torchserve  # only one container may have one
    assert settings.keys is not None
    assert gateway["volumeMounts"] == [{"name": "keys", "mountPath": str(settings.keys.parent)}]
    assert template["volumes"][0]["secret"]["items"][0]["path"] == settings.keys.name
    assert int(template["timeout"].removesuffix("s")) > settings.deadline_seconds
    probe = gateway["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= 240  # the most that is allowed


def test_the_training_job_copies_what_make_train_wrote(tmp_path: Path):
    container = rendered("training_job")["workerPoolSpecs"][0]["containerSpec"]
    script = container["args"][0].replace("/gcs/", f"{tmp_path}/gcs/")
    # In place of hours of training.
    make = tmp_path / "make"
    make.write_text(
        "#!/bin/sh\necho $@ > asked\nmkdir models reports model_store; touch dvc.lock\n"
    )
    make.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CLOUD_ML_JOB_ID": "17"}
    subprocess.run([*container["command"], script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "asked").read_text() == "train EXPERIMENT=scenes\n"
    out = tmp_path / "gcs" / "my-bucket" / "training" / "17"
    assert {each.name for each in out.iterdir()} == {"models", "reports", "model_store", "dvc.lock"}


def test_the_alerts_and_the_dashboard_are_about_the_service():
    for name in ("alert_errors", "alert_latency", "dashboard"):
        text = json.dumps(rendered(name))
        filters = text.count("metric.type=")
        assert filters == text.count('metric.type=\\"run.googleapis.com/')
        assert filters == text.count('resource.labels.service_name=\\"clipcap\\"')


# --- Filling in the names ----------------------------------------------------------------------


def test_places_are_filled_in_and_two_dollar_signs_are_one(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text("a: [{b: '${NAME}-x'}, 3, true]\nc: $$HOME\n")
    assert render(file, {"NAME": "it: 'is'"}) == {"a": [{"b": "it: 'is'-x"}, 3, True], "c": "$HOME"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: ${ONE}\nb: [$TWO]\n", "needs ONE, TWO; set them first: export ONE=... TWO=..."),
        ("a: 5$ a month\n", "lone dollar sign"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_that_cannot_be_filled_in_is_refused(tmp_path: Path, text: str, message: str):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ServeError, match=message):
        render(file, {"ONE": ""})


def test_the_command_prints_json_or_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["render", str(FOLDER / "trigger.yaml")])
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert command.main() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "needs CONNECTION, PROJECT, REGION, REPOSITORY" in error
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)
    assert command.main() == 0
    assert json.loads(capsys.readouterr().out) == rendered("trigger")

"""A trial in the file that the gateway reads, and in the log that it writes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from deploy import canary, gateway_backend, slots
from deploy.errors import ServeError
from deploy.gateway import Gateway
from deploy.gateway_backend import Trial
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from gateway.captioning.backends import Backends
from gateway.settings import Settings
from gateway.telemetry.log import JsonFormatter


@pytest.fixture
def servers(tmp_path: Path) -> tuple[TorchServe, TorchServe]:
    return tuple(
        TorchServe(
            tmp_path / name,
            tmp_path / "clipcap.mar",
            derived_config(tmp_path / name / "config.properties", on_free_ports()),
        )
        for name in ("stable", "candidate")
    )


@pytest.mark.parametrize("shadow", [True, False])
def test_the_gateway_reads_what_is_written(
    servers: tuple[TorchServe, TorchServe], tmp_path: Path, shadow: bool
):
    file, (stable, candidate) = tmp_path / "backend.toml", servers
    trial = Trial.of(candidate, 12.5, shadow)
    gateway_backend.write(file, stable, trial)
    assert gateway_backend.read(file) == stable.rest
    assert gateway_backend.read_trial(file) == trial
    backends = Backends(Settings.from_environment({}, file))
    assert backends.trial is not None
    assert str(backends.trial) == str(trial)  # the line of the log that is waited for
    assert backends.trial.backend.addresses[0] == candidate.rest
    gateway_backend.forget_trial(file)
    assert gateway_backend.read_trial(file) is None
    assert gateway_backend.read(file) == stable.rest


def test_without_a_file_there_is_no_trial(tmp_path: Path):
    assert gateway_backend.read_trial(tmp_path / "backend.toml") is None
    gateway_backend.forget_trial(tmp_path / "backend.toml")


def test_the_log_says_that_it_was_stopped(
    servers: tuple[TorchServe, TorchServe], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    log, file = tmp_path / "gateway.log", tmp_path / "backend.toml"
    trial = Trial.of(servers[1], 10, False)
    gateway_backend.write(file, servers[0], trial)
    backends = Backends(Settings.from_environment({}, file))
    assert backends.trial
    begun = f"2026 INFO candidate: {trial}\n"
    log.write_text(begun)
    assert gateway_backend.stopped(log, trial) == ""
    for _ in range(5):
        backends.trial.note(failed=True)
    log.write_text(f"{begun}2026 ERROR {caplog.messages[-1]}\n")
    said = "stopped after 5 failures in its last 5 pictures"
    assert gateway_backend.stopped(log, trial) == said
    log.write_text(f"{begun}2026 ERROR {caplog.messages[-1]}\n{begun}")  # and began again
    assert gateway_backend.stopped(log, trial) == ""


def test_a_log_of_json_is_read_too(servers: tuple[TorchServe, TorchServe], tmp_path: Path):
    log = tmp_path / "gateway.log"
    trial = Trial.of(servers[1], 10, False)
    record = logging.LogRecord("gateway", logging.INFO, "", 1, "candidate: %s", (trial,), None)
    stop = "candidate %s: stopped after 5 failures in its last 9 pictures; all"
    later = logging.LogRecord("gateway", logging.ERROR, "", 1, stop, (trial.inference,), None)
    text = "".join(f"{JsonFormatter().format(each)}\n" for each in (record, later))
    assert text.startswith("{")
    log.write_text(text)
    assert gateway_backend.stopped(log, trial) == "stopped after 5 failures in its last 9 pictures"
    with pytest.raises(ServeError, match="are still at"):
        gateway_backend.wait_left(log, trial.inference, 0.0)
    ended = {"level": "INFO", "message": f"backend {trial.inference}: its last request has ended"}
    log.write_text(text + json.dumps(ended) + "\n" + '{"half')
    gateway_backend.wait_left(log, trial.inference, 0.0)


def test_a_candidate_in_the_environment_is_refused(
    servers: tuple[TorchServe, TorchServe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GATEWAY_CANDIDATE_SHARE", "50")
    with pytest.raises(ServeError, match="GATEWAY_CANDIDATE_SHARE is set; unset it: make canary"):
        Gateway(servers[0], tmp_path / "gateway").check()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["start", "--share", "101"], "101 is no percentage from 0 to 100"),
        (["start", "--shadow", "yes"], "invalid choice: 'yes'"),
    ],
)
def test_words_that_cannot_be_used(
    words: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(slots, "STATE", tmp_path / "server")
    monkeypatch.setattr("sys.argv", ["canary", *words])
    with pytest.raises(SystemExit):
        canary.main()
    assert problem in capsys.readouterr().err

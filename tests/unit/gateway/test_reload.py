"""A gateway that is moved to another TorchServe: what goes where, what is said, what is refused."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest

from gateway.captioning.backends import Backends
from gateway.measures import Measures
from gateway.reload import Reload
from gateway.settings import Settings

OLD, NEW = Settings(), Settings(inference="http://127.0.0.1:8085", metrics="http://127.0.0.1:8087")
LEFT = f"backend {OLD.inference}: its last request has ended"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def shown(backends: Backends) -> list[str]:
    """The lines of the metrics about backends."""
    text = Measures().text(None, None, backends).decode()
    return [line for line in text.splitlines() if line.startswith("gateway_backend_")]


def test_a_request_ends_where_it_began(said: pytest.LogCaptureFixture):
    backends = Backends(OLD)
    with backends.using() as first:
        backends.move_to(NEW)
        assert first.addresses == (OLD.inference, OLD.management, OLD.metrics)
        with backends.using() as second:
            assert second.addresses == (NEW.inference, NEW.management, NEW.metrics)
            assert sorted(shown(backends)) == [
                f'gateway_backend_in_flight{{inference="{OLD.inference}"}} 1.0',
                f'gateway_backend_in_flight{{inference="{NEW.inference}"}} 1.0',
                f'gateway_backend_info{{inference="{NEW.inference}"}} 1.0',
            ]
        assert LEFT not in said.messages
    assert said.messages == [
        f"captions come from {OLD.inference}",
        f"captions come from {NEW.inference}",
        LEFT,
    ]
    assert sorted(shown(backends)) == [
        f'gateway_backend_in_flight{{inference="{NEW.inference}"}} 0.0',
        f'gateway_backend_info{{inference="{NEW.inference}"}} 1.0',
    ]


def test_what_is_known_of_a_captioner_is_not_said_of_another():
    backends = Backends(OLD)
    backends.current.description, backends.current.captioned = {"options": {}}, 1.0
    for settings in (NEW, OLD, OLD):  # also if it is moved to where it is
        backends.move_to(settings)
        assert (backends.current.description, backends.current.captioned) == (None, -math.inf)
        backends.current.description = {"options": {}}


def test_one_that_is_taken_again_keeps_its_requests(said: pytest.LogCaptureFixture):
    backends = Backends(OLD)
    with backends.using():
        backends.move_to(NEW)
        backends.move_to(OLD)
        assert (backends.current.in_flight, backends.former) == (1, [])
    assert LEFT not in said.messages
    assert backends.current.in_flight == 0


def reload_of(file: Path, backends: Backends, **environment: str) -> Reload:
    settings = Settings.from_environment(environment, file)
    return Reload(environment, file, settings, backends, renew=pytest.fail)


def test_it_takes_over_the_addresses_only(tmp_path: Path, said: pytest.LogCaptureFixture):
    file = tmp_path / "gateway.toml"
    file.write_text(f'inference = "{OLD.inference}"\n')
    backends = Backends(OLD)
    reload = reload_of(file, backends)
    file.write_text(
        f'inference = "{NEW.inference}/"\nmetrics = "{NEW.metrics}"\nport = 1\nmodel = "other"\n'
    )
    reload()
    assert backends.current.addresses == (NEW.inference, NEW.management, NEW.metrics)
    assert "reload: read at the next start only: port, model" in said.messages


@pytest.mark.parametrize("text", ["inference = 1", "inferense = 'x'", "inference ="])
def test_a_faulty_file_leaves_everything_as_it_is(
    tmp_path: Path, said: pytest.LogCaptureFixture, text: str
):
    file = tmp_path / "gateway.toml"
    file.write_text("")
    backends = Backends(OLD)
    before, backends.current.description = backends.current, {"options": {}}
    reload = reload_of(file, backends)
    said.clear()
    file.write_text(text)
    reload()
    assert backends.current is before
    assert backends.current.description
    assert len(said.messages) == 1
    assert said.messages[0].startswith(f"reload refused, everything stays as it is: {file}")


def test_a_variable_wins_over_the_file_here_too(tmp_path: Path):
    file = tmp_path / "gateway.toml"
    file.write_text("")
    backends = Backends(OLD)
    reload = reload_of(file, backends, GATEWAY_INFERENCE=OLD.inference)
    file.write_text(f'inference = "{NEW.inference}"')
    reload()
    assert backends.current.inference == OLD.inference

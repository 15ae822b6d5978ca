"""Settings from TOML files: read, refused with the file and the key, and won over by variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.toml"


def test_each_kind_of_value_is_read(file: Path):
    file.write_text(
        'host = "0.0.0.0"\nport = 9000\nkeys = "keys"\ndeadline_seconds = 2\nopen = true\n'
        'cors_origins = ["https://a.org", "http://b.org:81"]\n'
    )
    settings = Settings.from_environment({}, file)
    assert settings == Settings(
        host="0.0.0.0",
        port=9000,
        keys=Path("keys"),
        deadline_seconds=2.0,
        open=True,
        cors_origins=("https://a.org", "http://b.org:81"),
    )
    assert isinstance(settings.deadline_seconds, float)


def test_a_variable_wins_over_the_given_file_and_that_over_the_named_one(
    file: Path, tmp_path: Path
):
    named = tmp_path / "named.toml"
    named.write_text('port = 1\nmodel = "one"\nmax_in_flight = 1\n')
    file.write_text('port = 2\nmodel = "two"\n')
    environment = {"GATEWAY_SETTINGS": str(named), "GATEWAY_PORT": "3"}
    settings = Settings.from_environment(environment, file)
    assert (settings.port, settings.model, settings.max_in_flight) == (3, "two", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 0", "port is '0'; it must be a whole number from 1 to 65535"),
        ('port = "9000"', "port is '9000'; it must be a whole number, without quotes"),
        ("port = true", "port is 'True'; it must be a whole number, without quotes"),
        ("open = 1", "open is '1'; it must be true or false, without quotes"),
        ("deadline_seconds = nan", "deadline_seconds is 'nan'; it must be a number of seconds"),
        ("model = 1", "model is '1'; it must be a text in quotes"),
        ('cors_origins = "https://a.org"', "cors_origins is .*; it must be a list of texts"),
        ("cors_origins = [1]", "cors_origins is .*; it must be a list of texts"),
        ('inference = "127.0.0.1:8080"', "inference is '127.0.0.1:8080'; it must be an address"),
        ('host = "0.0.0.0"', "host is 0.0.0.0, which other machines can reach; give a file"),
        ("Port = 9000", "Port is not a setting; known: host, port, "),
        ("[gateway]\nport = 9000", "gateway is not a setting; known: host, port, "),
    ],
)
def test_a_wrong_setting_is_refused_with_file_and_key(file: Path, text: str, said: str):
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"^{file}: {said}") as raised:
        Settings.from_environment({"GATEWAY_SETTINGS": str(file)})
    assert "\n" not in str(raised.value)


def test_a_value_that_a_variable_replaces_is_not_what_is_refused(file: Path):
    file.write_text("port = 0")
    assert Settings.from_environment({"GATEWAY_PORT": "80"}, file).port == 80
    with pytest.raises(SettingsError, match="^GATEWAY_PORT is '0'"):
        Settings.from_environment({"GATEWAY_PORT": "0"}, file)


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2", b"port 1"])
def test_a_file_that_is_not_toml_is_refused_in_one_line(file: Path, content: bytes):
    file.write_bytes(content)
    with pytest.raises(
        SettingsError, match=f"^{file} is not TOML: .*(line|end of document)"
    ) as raised:
        Settings.from_environment({}, file)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_refused(file: Path):
    with pytest.raises(SettingsError, match=f"^{file} cannot be read: .*No such file"):
        Settings.from_environment({}, file)
    file.write_bytes(b'model = "\xff"')
    with pytest.raises(SettingsError, match=f"^{file} cannot be read: .*utf-8"):
        Settings.from_environment({}, file)

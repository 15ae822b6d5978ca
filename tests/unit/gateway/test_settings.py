"""Settings of the gateway: read from the environment, checked, documented."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError


def test_without_variables_it_serves_this_machine_only():
    settings = Settings.from_environment({"PATH": "/bin"})
    assert settings == Settings()
    assert settings.is_loopback


def test_each_kind_of_value_is_read():
    settings = Settings.from_environment(
        {
            "GATEWAY_HOST": "0.0.0.0",
            "GATEWAY_PORT": "9000",
            "GATEWAY_KEYS": "keys",
            "GATEWAY_DEADLINE_SECONDS": "1.5",
            "GATEWAY_OPEN": "True",
            "GATEWAY_CORS_ORIGINS": "https://a.org, http://b.org:81",
        }
    )
    assert settings.port == 9000
    assert settings.keys == Path("keys")
    assert settings.deadline_seconds == 1.5
    assert settings.open
    assert settings.cors_origins == ("https://a.org", "http://b.org:81")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "8000.5"),
        ("INFERENCE", "127.0.0.1:8080"),
        ("INFERENCE", "ftp://127.0.0.1"),
        ("METRICS", "http://127.0.0.1:8082/metrics"),
        ("MANAGEMENT", "http://[::1"),
        ("MODEL", ""),
        ("MODEL", "a/b"),
        ("OPEN", "yes"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://a.org/"),
        ("MAX_IN_FLIGHT", "0"),
        ("MAX_BODY_BYTES", "-1"),
        ("DEADLINE_SECONDS", "nan"),
        ("RESTART_SECONDS", "inf"),
        ("BODY_SECONDS", "0"),
        ("FETCH_URLS", "1"),
        ("FETCH_SECONDS", "0"),
        ("FETCH_REDIRECTS", "-1"),
        ("FETCH_REDIRECTS", "2.5"),
        ("FETCH_ALLOWED_NETWORKS", "10.1.0.0/33"),
        ("FETCH_ALLOWED_NETWORKS", "10.1.0.5/16"),
        ("FETCH_ALLOWED_NETWORKS", "10.1.0.0/16, example.org"),
        ("HEAD_SECONDS", "-1"),
        ("MAX_CONNECTIONS", "0"),
        ("FEEDBACK_HOURS", "0"),
        ("FEEDBACK_DAYS", "inf"),
        ("FEEDBACK_ANSWERS", "0"),
        ("FEEDBACK_TEXT", "0"),
        ("FEEDBACK_ROWS", "-1"),
        ("FEEDBACK_PICTURE_BYTES", "-1"),
        ("FEEDBACK_RATE", "-1"),
        ("FEEDBACK_BURST", "0.5"),
        ("MAX_BODIES_BYTES", "67108863"),  # one body less a byte
    ],
)
def test_a_wrong_value_is_refused_with_its_variable(name: str, value: str):
    with pytest.raises(SettingsError, match=f"^GATEWAY_{name} is .*; it must be ") as raised:
        Settings.from_environment({f"GATEWAY_{name}": value})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("localhost", "http://localhost:9000"),
        ("::1", "http://[::1]:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::", "http://[::1]:9000"),
        ("192.168.1.5", "http://192.168.1.5:9000"),
    ],
)
def test_the_address_is_one_that_this_machine_reaches(host: str, address: str):
    assert Settings(host=host, port=9000, open=True).address == address


def test_a_fetch_takes_less_than_the_deadline_where_pictures_are_fetched():
    slow = {"GATEWAY_FETCH_SECONDS": "5", "GATEWAY_DEADLINE_SECONDS": "5"}
    assert Settings.from_environment(slow).fetch_seconds == 5
    wanted = "^GATEWAY_FETCH_SECONDS is '5.0'; it must be below GATEWAY_DEADLINE_SECONDS"
    with pytest.raises(SettingsError, match=wanted):
        Settings.from_environment({**slow, "GATEWAY_FETCH_URLS": "true"})


def test_a_certificate_and_its_key_go_together():
    pair = {"GATEWAY_TLS_CERTIFICATE": "certificate.pem", "GATEWAY_TLS_KEY": "key.pem"}
    assert Settings.from_environment(pair).address == "https://127.0.0.1:8000"
    for given in pair:
        [missing] = set(pair) - {given}
        with pytest.raises(SettingsError, match=f"^{missing} is not given; a certificate and its"):
            Settings.from_environment({given: pair[given]})


@pytest.mark.parametrize("name", ["GATEWAY_", "GATEWAY_PROT", "GATEWAY_port"])
def test_an_unknown_variable_is_refused(name: str):
    with pytest.raises(SettingsError, match=f"^{name} is not a setting; known: GATEWAY_HOST"):
        Settings.from_environment({name: "1"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_of_a_network_needs_keys_or_a_word(host: str):
    with pytest.raises(SettingsError, match="give a file of keys"):
        Settings(host=host)
    assert not Settings(host=host, open=True).is_loopback
    assert not Settings(host=host, keys=Path("keys")).is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(host: str):
    assert Settings(host=host).is_loopback


def test_every_setting_is_documented():
    text = Settings.__doc__ or ""
    for field in dataclasses.fields(Settings):
        assert f"        {field.name}: " in f"    {text}", field.name

"""What the gateway cannot listen with ends its start: one line, and status 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.integration.gateways import free_port

GATEWAY = (sys.executable, "-m", "gateway")


def refusal(*words: str | Path, **settings: str | Path) -> str:
    """The one line with which `python -m gateway` ends."""
    settings = {"port": str(free_port()), **settings}
    variables = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
    done = subprocess.run(
        words or GATEWAY,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if " INFO " not in line]
    assert len(lines) == 1
    return lines[0]


def make_certificate(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1")
    files = ("-keyout", key, "-out", certificate)
    subprocess.run([*words, *files, "-subj", "/CN=a.example"], check=True, capture_output=True)
    return certificate, key


def test_a_certificate_that_cannot_be_read(tmp_path: Path):
    _, key = make_certificate(tmp_path / "one")
    line = refusal(tls_certificate="/no/one", tls_key=key)
    assert line.startswith("error: GATEWAY_TLS_CERTIFICATE: /no/one cannot be read: ")


def test_a_key_that_is_not_that_of_the_certificate(tmp_path: Path):
    certificate, _ = make_certificate(tmp_path / "one")
    _, other = make_certificate(tmp_path / "other")
    line = refusal(tls_certificate=certificate, tls_key=other)
    assert f"{certificate} and {other} are not a certificate in PEM and its key" in line
    assert "MISMATCH" in line


def test_a_key_with_a_passphrase_asks_nobody(tmp_path: Path):
    certificate, key = make_certificate(tmp_path / "one")
    locked = tmp_path / "locked.pem"
    words = ("openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", key, "-out", locked)
    subprocess.run(words, check=True, capture_output=True)
    assert "its key without a passphrase: " in refusal(tls_certificate=certificate, tls_key=locked)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal(port=str(port))
    assert line.startswith(f"error: nothing can listen on 127.0.0.1, port {port}: ")
    assert line.endswith("Address already in use")


def test_more_connections_than_the_process_may_have_files():
    line = refusal("sh", "-c", 'ulimit -n 1000 && exec "$0" -m gateway', sys.executable)
    assert line == (
        "error: GATEWAY_MAX_CONNECTIONS needs 1632 open files, but this process may have 1000; "
        "lower it, or raise the limit (ulimit -Hn)"
    )


@pytest.mark.parametrize("way", ["variable", "word"])
def test_a_faulty_file_of_settings_is_named_with_its_key(tmp_path: Path, way: str):
    file = tmp_path / "gateway.toml"
    file.write_text("prot = 1")
    line = refusal(settings=file) if way == "variable" else refusal(*GATEWAY, "--settings", file)
    assert line.startswith(f"error: {file}: prot is not a setting; known: host, port, ")

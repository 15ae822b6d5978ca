"""`make serve`, `make status` and `make stop` as a user meets them: export, TorchServe, gateway."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from deploy import captioner, serve, slots
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from tests.integration.gateways import free_port


def test_a_checkpoint_is_served_and_stopped(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(captioner, "TRAINED", tmp_path / "trained")
    monkeypatch.setattr(captioner, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(slots, "STATE", tmp_path / "server")
    monkeypatch.setattr(slots, "ARCHIVE", tmp_path / "served" / "clipcap.mar")
    monkeypatch.setattr(slots, "ARTIFACT", tmp_path / "artifact")
    sample = shutil.copyfile(serve.SAMPLE, tmp_path / "my photo.jpg")
    shutil.copytree(tiny_checkpoint, captioner.SHIPPED)
    config = derived_config(tmp_path / "config.properties", on_free_ports())
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("GATEWAY_PORT", address.rpartition(":")[2])

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["serve", *map(str, words), "--config", str(config)])
        status = serve.main()
        return status, *capfd.readouterr()

    try:
        status, out, err = run("start", "--sample", sample)
        assert status == 0, out + err
        assert "comes with the repository" in out
        assert out.count('"caption"') == 2 * 2  # REST and gRPC; the reply, and its list
        line = next(line for line in out.splitlines() if line.startswith("Try:"))
        assert "my photo.jpg' http://127.0.0.1:" in line
        slot, _ = slots.serving()
        pid = slot.server.process().pid

        # The gateway: the page, and the command that was shown.
        assert f"\nPage:  {address}\n" in out
        assert "<html" in httpx.get(address, trust_env=False).text
        line = next(line for line in out.splitlines() if line.endswith("/v1/captions"))
        done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["succeeded"] == 1, done.stdout
        assert httpx.get(f"{address}/readyz", trust_env=False).json() == {"status": "ready"}
        gateway = slots.gateway_of(slot).process()

        status, out, err = run("start")
        assert (status, err) == (0, "")
        assert f"(process {pid}) already; to end it: make stop" in out
        assert f"the gateway runs at {address} (process {gateway.pid})\n" in out
        status, out, err = run("status")
        assert (status, err) == (0, "")
        assert "workers ready: [" in out
        assert f"{address}: gateway, process {gateway.pid}, answers\n" in out
        assert run("idle")[0] == 1

        # Trained here in the meantime: another captioner than the one that is served.
        shutil.copytree(tiny_checkpoint, captioner.TRAINED)
        status, out, err = run("start")
        assert (status, out) == (1, "")
        assert str(captioner.SHIPPED) in err
        assert f"(process {pid}), not {captioner.TRAINED}; end it first: make stop" in err
        assert err.count("\n") == 1

        assert run("stop") == (0, "stopped\n", "")
        assert not gateway.is_running()
        status, out, err = run("start", "--sample", sample, "--no-gateway")
        assert status == 0, out + err
        assert "(trained here)" in out
        assert address not in out
        status, out, err = run("status")
        assert (status, err) == (0, "")
        assert out.endswith("\ngateway: not started\n")
        record = json.loads(slots.ARCHIVE.with_suffix(".json").read_text())
        assert slot.server.served().items() >= record.items()
        assert (slots.STATE / "logs.1" / "ts_log.log").is_file()
    finally:
        assert run("stop") == (0, "stopped\n", "")
    assert run("idle")[0] == 0

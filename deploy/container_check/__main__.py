"""Builds the image of the Dockerfile and checks a container of it; needs root, buildah and podman.

    python -m deploy.container_check [--base IMAGE] [--keep]

No registry is asked: the base is made by debootstrap. It is kept for the next time.
TorchServe and the gateway run as in `deploy/compose.yaml`: without root and capabilities, on a
read-only file system, with limits. They must become ready, caption a picture, and end by SIGTERM.
All that it makes is removed, but for the base.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from deploy.container_check.base import debian_base
from deploy.container_check.pip_settings import build_options
from deploy.errors import ServeError
from deploy.ports import on_free_ports
from deploy.properties import ROOT, derived_config, read_endpoints

PROGRAMS = ("buildah", "podman", "runc", "debootstrap")
IMAGE = "localhost/clipcap-check"
SAMPLE = ROOT / "docs" / "sample.jpg"
#: What the image must not have: a compiler, pip, and packages that only training or exporting need.
ABSENT_PROGRAMS = ("cc", "gcc", "c++", "make", "pip", "git")
ABSENT_PACKAGES = ("transformers", "pytorch_lightning", "hydra", "dvc", "peft", "pip")
#: The servers and their memory in MiB, as in deploy/compose.yaml.
SERVERS = {"torchserve": 5120, "gateway": 2048}
#: Another user than the image's own.
USER = 23456
READY_SECONDS = 300
STOP_SECONDS = 60
#: runc and limits of its own: podman's defaults do not run where the machine is a container itself.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
"""


def check(base: str | None, folder: Path, *, keep: bool) -> None:
    """Build, check and remove.

    Args:
        base: The base image; by default `debian_base`.
        folder: For temporary files.
        keep: Keep the image.

    Raises:
        ServeError: The image is not as it must be.
    """
    (folder / "containers.conf").write_text(_CONTAINERS_CONF)
    os.environ.setdefault("CONTAINERS_CONF", str(folder / "containers.conf"))
    with _step("base"):
        base = base or debian_base(folder)
    before = _untagged()
    try:
        with _step("build"):
            options = build_options(folder)
            _run("buildah", "bud", "--isolation=chroot", "--format=docker", "--layers=false",
                 f"--build-arg=BASE={base}", *options, f"--tag={IMAGE}", ROOT)  # fmt: skip
        size = int(_read("podman", "image", "inspect", "--format={{.Size}}", IMAGE))
        print(f"size of the image: {size / 1e6:.0f} MB")
        with _step("contents"):
            _check_contents()
        with _step("refusal of a bad archive"):
            _check_refusal(folder)
        _check_servers(folder)
    finally:
        stages = _untagged() - before  # what other stages begin with
        for each in [*([] if keep else [IMAGE]), *stages]:
            subprocess.run(["podman", "rmi", "--force", each], check=False, capture_output=True)


def _untagged() -> set[str]:
    """The images without a name."""
    return set(_read("podman", "images", "--quiet", "--no-trunc", "--filter=dangling=true").split())


def _check_contents() -> None:
    code = (
        "import importlib.util, os, shutil\n"
        f"found = [n for n in {ABSENT_PROGRAMS!r} if shutil.which(n)]\n"
        f"found += [n for n in {ABSENT_PACKAGES!r} if importlib.util.find_spec(n)]\n"
        "found += [n for n in ('/root/.cache', '/tmp/pip', '/.cache') if os.path.exists(n)]\n"
        "print(*found)"
    )
    found = _read("podman", "run", "--rm", "--network=none", "--user=0", "--no-healthcheck",
                  "--entrypoint=python", IMAGE, "-c", code)  # fmt: skip
    if found:
        raise ServeError(f"the image must not have {found}")


def _check_refusal(folder: Path) -> None:
    models = folder / "models"
    models.mkdir()
    (models / "broken.mar").write_bytes(b"not a zip file")
    done = subprocess.run(
        ["podman", "run", "--rm", *_limits("none", 512), f"--volume={models}:/models:ro", IMAGE,
         "torchserve"],
        capture_output=True, text=True, check=False, timeout=READY_SECONDS,
    )  # fmt: skip
    lines = done.stderr.strip().splitlines()
    if (
        done.returncode != 1
        or not lines
        or not lines[-1].startswith("error: /models/broken.mar is")
    ):
        raise ServeError(f"a bad archive gave status {done.returncode} and {lines[-3:]}")


def _check_servers(folder: Path) -> None:
    """Start both servers, caption the sample, and end them."""
    config = derived_config(folder / "config.properties", on_free_ports())
    config.chmod(0o644)
    folder.chmod(0o755)
    endpoints = read_endpoints(config)
    port = on_free_ports()["grpc_inference_port"]
    settings = {
        "GATEWAY_PORT": port,
        "GATEWAY_INFERENCE": endpoints["inference_address"],
        "GATEWAY_MANAGEMENT": endpoints["management_address"],
        "GATEWAY_METRICS": endpoints["metrics_address"],
    }
    names = {
        server: f"clipcap-check-{os.getpid()}-{server}" for server in ("torchserve", "gateway")
    }
    with contextlib.ExitStack() as started:
        for server, memory in SERVERS.items():
            started.callback(_remove, names[server])
            _run("podman", "run", "--detach", f"--name={names[server]}",
                 *_limits("host", memory),
                 f"--volume={config}:/app/config.properties:ro",
                 *(f"--env={name}={value}" for name, value in settings.items()),
                 IMAGE, server, quiet=True)  # fmt: skip
            with _step(f"{server}: ready"):
                _wait(names[server])
        with _step("a caption"):
            print(_caption(f"http://127.0.0.1:{port}/v1/captions"))
        for name in names.values():
            print(
                _read("podman", "stats", "--no-stream", "--format={{.Name}}: {{.MemUsage}}", name)
            )
        for server in ("gateway", "torchserve"):
            with _step(f"{server}: ended by SIGTERM"):
                _stop(names[server])


def _limits(network: str, memory: int) -> list[str]:
    """Options of `podman run`, as compose.yaml has them; memory in MiB."""
    return [f"--network={network}", "--read-only", f"--user={USER}", "--tmpfs=/tmp:mode=1777",
            "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=512",
            f"--memory={memory}m"]  # fmt: skip


def _wait(container: str) -> None:
    """Return once the image's own health check succeeds."""
    deadline = time.monotonic() + READY_SECONDS
    while subprocess.run(
        ["podman", "healthcheck", "run", container], capture_output=True, check=False
    ).returncode:
        running = _read("podman", "inspect", "--format={{.State.Running}}", container) == "true"
        if not running or time.monotonic() > deadline:
            state = "was not ready in time" if running else "ended by itself"
            subprocess.run(["podman", "logs", "--tail=30", container], check=False)
            raise ServeError(f"{container} {state}; its last lines stand above")
        time.sleep(0.5)


def _caption(address: str) -> str:
    request = urllib.request.Request(address, SAMPLE.read_bytes(), {"Content-Type": "image/jpeg"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=READY_SECONDS) as reply:
        return str(json.load(reply)["results"][0]["caption"])


def _stop(container: str) -> None:
    begin = time.monotonic()
    _run("podman", "stop", f"--time={STOP_SECONDS}", container, quiet=True)
    status = _read("podman", "inspect", "--format={{.State.ExitCode}}", container)
    if status != "0":
        spent = time.monotonic() - begin
        raise ServeError(f"{container} ended with status {status} {spent:.1f} s after SIGTERM")


def _remove(container: str) -> None:
    subprocess.run(["podman", "rm", "--force", container], check=False, capture_output=True)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - begin:.1f} s", flush=True)


def _run(*words: str | Path, quiet: bool = False) -> None:
    """Run a program; quietly: without its output unless it fails."""
    done = subprocess.run(words, check=False, capture_output=quiet, text=True)
    if done.returncode:
        raise ServeError(
            f"{words[0]} {words[1]} failed with status {done.returncode}: "
            f"{(done.stderr or 'see the lines above').strip()[-500:]}"
        )


def _read(*words: str) -> str:
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ServeError(f"{words[0]} {words[1]} failed with status {done.returncode}")
    return done.stdout.strip()


def main() -> int:
    """Check, or say why not.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.container_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--base", help="base image to build on, instead of Debian by debootstrap")
    parser.add_argument("--keep", action="store_true", help=f"keep the image {IMAGE}")
    given = parser.parse_args()
    if os.geteuid():
        print("skipped: the container is not checked, since this user is not root")
        return 0
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        print(f"skipped: the container is not checked, since there is no {', no '.join(missing)}")
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="clipcap-check-") as folder:
            check(given.base, Path(folder), keep=given.keep)
    except (ServeError, OSError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

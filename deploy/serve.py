"""`make serve`, `make status` and `make stop`: a captioner served on this machine.

python -m deploy.serve start [--checkpoint DIR | --model NAME] [--precision P] [--config FILE]
                             [--sample FILE]
python -m deploy.serve status
python -m deploy.serve stop
python -m deploy.serve idle       fails while a server runs or another command is at work
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from client import CaptionClient, CaptionError
from deploy.captioner import ARCHIVE, Captioner, build_archive
from deploy.errors import ServeError
from deploy.ports import check_ports
from deploy.properties import CONFIG, ROOT, read_properties
from deploy.torchserve import THREAD_ENVIRONMENT, TorchServe

STATE = ROOT / "build" / "server"
#: A drawn picture that no captioner was trained on.
SAMPLE = ROOT / "docs" / "sample.jpg"


def start(
    checkpoint: Path | None,
    config: Path,
    sample: Path | None,
    precision: str | None = None,
    model: str | None = None,
) -> None:
    """Make the archive if needed, start TorchServe, caption a sample over REST and gRPC.

    Args:
        checkpoint: The captioner to serve; by default the one trained here, or the shipped one.
        config: The `config.properties` to serve with.
        sample: The picture to caption.
        precision: What the captioner is exported in; by default `export.precision`.
        model: A published captioner to fetch and serve, such as `coco`.

    Raises:
        ServeError: Something is missing, a port is in use, or another captioner is served; the
            message says what to do.
        CaptionError: The server refused the sample.
        OSError: A file cannot be read or written.
    """
    if sample is not None and not sample.is_file():
        raise ServeError(f"{sample} does not exist; give another SAMPLE")
    if model is not None and checkpoint is not None:
        raise ServeError(f"give MODEL={model} or CHECKPOINT={checkpoint}, not both")
    server = TorchServe(STATE, ARCHIVE, config)
    with _alone():
        running = server.process()
        if running is None:
            check_ports(config)  # before the export, which takes longer
        if model is not None:
            checkpoint = _fetched(model)
        captioner = Captioner.choose(checkpoint, precision)
        if running is not None:
            print(_already_served(server, running, captioner, config))
            return
        print(f"captioner: {captioner.name} ({captioner.origin})")
        served = build_archive(captioner, _run)
        begin = time.monotonic()
        print("starting TorchServe and waiting for its workers ...", flush=True)
        server.start(served=served)
    print(f"they are ready after {time.monotonic() - begin:.1f} s (logs: {server.logs})\n")
    _caption_sample(server, sample or SAMPLE)


def idle() -> None:
    """Return if nothing uses the folders of the server, so that they may be removed.

    Raises:
        ServeError: A server runs, or another command is at work.
    """
    with _alone():
        server = TorchServe(STATE, ARCHIVE)
        if running := server.process():
            raise ServeError(
                f"{_described(server)} is served at {server.as_started().rest} (process "
                f"{running.pid}); end it first: make stop"
            )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep every other command of this folder out.

    The lock is the system's and ends with the process. The server does not inherit it.

    Raises:
        ServeError: Another command holds it.
    """
    STATE.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(STATE.with_name(f"{STATE.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise ServeError(
            f"another make serve or make stop is at work in {STATE}; wait until it ends"
        ) from None


def _already_served(
    server: TorchServe, running: psutil.Process, captioner: Captioner, config: Path
) -> str:
    """The line for a captioner that is served already.

    Raises:
        ServeError: Another captioner or configuration is served.
    """
    started = server.as_started()
    where = f"is served at {started.rest} (process {running.pid})"
    served, wanted = server.served(), captioner.identity()
    if any(served.get(key) != wanted[key] for key in ("checkpoint", "precision")):
        difference = f"not {captioner.name}"
    elif served != wanted:
        difference = "as it was before its checkpoint or the code changed"
    elif read_properties(started.config) != read_properties(config):
        difference = f"with another configuration than {config}"
    else:
        return f"{captioner.name} {where} already; to end it: make stop"
    raise ServeError(f"{_described(server)} {where}, {difference}; end it first: make stop")


def _described(server: TorchServe) -> str:
    return server.served().get("name", "another captioner")


def _fetched(model: str) -> Path:
    """The checkpoint folder of a published captioner, fetched unless it is there already.

    Raises:
        ServeError: It cannot be fetched or converted.
    """
    out = ROOT / "models" / model
    _run(f"fetching {model}", "-m", "model.pretrained.published", model, "--out", out)
    return out


def _caption_sample(server: TorchServe, picture: Path) -> None:
    shown = os.path.relpath(picture)
    for protocol, address in (("REST", server.rest), ("gRPC", server.grpc)):
        begin = time.monotonic()
        with CaptionClient(address) as client:
            result = client.caption(picture)
        spent = time.monotonic() - begin
        print(f"{protocol} {address}, {shown}, {spent:.2f} s:\n  {json.dumps(result.to_dict())}")
    print(f"\nTry:   curl -T {shlex.quote(shown)} {server.rest}/predictions/{server.model}")
    print("Stop:  make stop")


def _run(what: str, *arguments: str | Path) -> None:
    """Run a Python module of the project; its output is shown as it comes.

    Raises:
        ServeError: The module failed.
    """
    print(f"{what} ...", flush=True)
    binaries = str(Path(sys.executable).parent)
    environment = {
        **THREAD_ENVIRONMENT,
        **os.environ,
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]),
    }
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise ServeError(f"{what} failed with status {done.returncode}; see the lines above")


def _status(config: Path) -> int:
    server = TorchServe(STATE, ARCHIVE, config)
    running = server.process()
    if running is None:
        print(f"{server.rest}: not running")
        return 1
    server = server.as_started()
    workers = server.workers()
    print(f"{server.rest}: {_described(server)}, process {running.pid}, workers ready: {workers}")
    return 0 if workers else 1


def _stop() -> None:
    with _alone():
        stopped = TorchServe(STATE, ARCHIVE).stop()
    print("stopped" if stopped else "no server of this folder is running")


def main() -> int:
    """Run one of the commands.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=("start", "status", "stop", "idle"))
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder of another captioner")
    parser.add_argument("--model", help="published captioner to fetch, such as coco")
    parser.add_argument("--precision", help="fp32, fp16, bf16, int8 or auto")
    parser.add_argument("--config", type=Path, default=CONFIG, help="another config.properties")
    parser.add_argument("--sample", type=Path, help="picture to caption once the server is up")
    given = parser.parse_args()
    try:
        if given.command == "start":
            start(given.checkpoint, given.config, given.sample, given.precision, given.model)
        elif given.command == "stop":
            _stop()
        elif given.command == "idle":
            idle()
        else:
            return _status(given.config)
    except (ServeError, CaptionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

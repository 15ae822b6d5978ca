"""`make serve`, `make status` and `make stop`: a captioner served on this machine.

TorchServe captions. The gateway stands in front of it, with a web page and the interfaces of other
programs; its settings are `GATEWAY_*` environment variables.

python -m deploy.serve start [--checkpoint DIR | --model NAME] [--precision P] [--config FILE]
                             [--sample FILE] [--no-gateway]
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
from deploy import logs
from deploy.captioner import ARCHIVE, Captioner, build_archive
from deploy.errors import ServeError
from deploy.gateway import Check, Gateway
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
    *,
    with_gateway: bool = True,
) -> None:
    """Make the archive if needed, start TorchServe and the gateway, caption a sample.

    The sample is captioned over TorchServe's REST and gRPC. If the captioner is served already,
    only a gateway that does not run is started.

    Args:
        checkpoint: The captioner to serve; by default the one trained here, or the shipped one.
        config: The `config.properties` to serve with.
        sample: The picture to caption.
        precision: What the captioner is exported in; by default `export.precision`.
        model: A published captioner to fetch and serve, such as `coco`.
        with_gateway: Start the gateway too.

    Raises:
        ServeError: Something is missing, a port is in use, a setting of the gateway cannot be used,
            or another captioner is served; the message says what to do.
        CaptionError: The server refused the sample.
        OSError: A file cannot be read or written.
    """
    if sample is not None and not sample.is_file():
        raise ServeError(f"{sample} does not exist; give another SAMPLE")
    if model is not None and checkpoint is not None:
        raise ServeError(f"give MODEL={model} or CHECKPOINT={checkpoint}, not both")
    server = TorchServe(STATE, ARCHIVE, config)
    gateway = Gateway(server)
    check = None
    with _alone():
        running = server.process()
        if running is None:
            gateway.stop()  # what is left of one whose TorchServe has ended holds its port
            check_ports(config)  # before the export, which takes longer
            if with_gateway:
                check = gateway.check()
        if model is not None:
            checkpoint = _fetched(model)
        captioner = Captioner.choose(checkpoint, precision)
        if running is not None:
            print(_already_served(server, running, captioner, config), flush=True)
            _keep_gateway(Gateway(server.as_started()), wanted=with_gateway)
            return
        print(f"captioner: {captioner.name} ({captioner.origin})")
        served = build_archive(captioner, _run)
        begin = time.monotonic()
        print("starting TorchServe and waiting for its workers ...", flush=True)
        server.start(served=served)
        print(f"they are ready after {time.monotonic() - begin:.1f} s (logs: {server.logs})")
        if check:
            try:
                _start_gateway(gateway, check)
            except BaseException:  # Ctrl-C too: half of what was asked for is not left running
                server.stop()
                raise
    print()
    _caption_sample(server, sample or SAMPLE, check)


def idle() -> None:
    """Return if nothing uses the folders of the server, so that they may be removed.

    Raises:
        ServeError: A server runs, or another command is at work.
    """
    with _alone():
        server = TorchServe(STATE, ARCHIVE)
        gateway = Gateway(server)
        if running := server.process():
            raise ServeError(
                f"{_described(server)} is served at {server.as_started().rest} (process "
                f"{running.pid}); end it first: make stop"
            )
        if running := gateway.process():
            raise ServeError(
                f"a gateway runs at {gateway.address} (process {running.pid}); end it first: make "
                "stop"
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


def _keep_gateway(gateway: Gateway, *, wanted: bool) -> None:
    """Start the gateway of a running TorchServe if it does not run, and print where it is.

    Raises:
        ServeError: It runs with other settings or is not wanted, or it cannot be started.
    """
    running = gateway.process()
    if running is None:
        if wanted:
            if gateway.was_started():
                ended = f"the gateway at {gateway.address} has ended by itself"
                print(f"{ended} (log: {_log(gateway)})")
            _start_gateway(gateway, gateway.check())
        return
    where = f"the gateway runs at {gateway.address} (process {running.pid})"
    if not wanted:
        raise ServeError(f"{where}; for TorchServe alone, end both first: make stop")
    if not gateway.has_settings():
        raise ServeError(f"{where}, with other GATEWAY_* settings; end it first: make stop")
    print(where)


def _start_gateway(gateway: Gateway, check: Check) -> None:
    print("starting the gateway ...", flush=True)
    process = gateway.start(check)
    print(f"it answers at {check.address} (process {process.pid}, log: {_log(gateway)})")


def _log(gateway: Gateway) -> Path:
    return gateway.server.logs / logs.GATEWAY


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


def _caption_sample(server: TorchServe, picture: Path, gateway: Check | None) -> None:
    """Print captions of a picture, and how to get more, at the gateway if there is one."""
    shown = os.path.relpath(picture)
    for protocol, address in (("REST", server.rest), ("gRPC", server.grpc)):
        begin = time.monotonic()
        with CaptionClient(address) as client:
            result = client.caption(picture)
        spent = time.monotonic() - begin
        print(f"{protocol} {address}, {shown}, {spent:.2f} s:\n  {json.dumps(result.to_dict())}")
    file = shlex.quote(shown)
    print(f"\nTry:   curl -T {file} {server.rest}/predictions/{server.model}")
    if gateway:
        more = "-H 'Authorization: Bearer KEY' " if gateway.needs_key else ""
        if gateway.address.startswith("https:"):  # the certificate is for the name that others use
            more += "--insecure "
        print(f"       curl -X POST {more}-T {file} {gateway.address}/v1/captions")
        print(f"Page:  {gateway.address}")
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
    ready = False
    if running is None:
        print(f"{server.rest}: not running")
    else:
        server = server.as_started()
        workers = server.workers()
        ready = bool(workers)
        print(
            f"{server.rest}: {_described(server)}, process {running.pid}, workers ready: {workers}"
        )
    return 0 if _gateway_status(Gateway(server)) and ready else 1


def _gateway_status(gateway: Gateway) -> bool:
    """Print the state of the gateway.

    Returns:
        Whether it is as it was left by `make serve`: answering, or not started.
    """
    running = gateway.process()
    if running is not None:
        answers = gateway.answers()
        state = "answers" if answers else "does not answer"
        print(f"{gateway.address}: gateway, process {running.pid}, {state}")
        return answers
    if gateway.was_started():
        print(f"{gateway.address}: the gateway has ended by itself; to start it: make serve")
        return False
    print("gateway: not started")
    return True


def _stop() -> None:
    with _alone():
        server = TorchServe(STATE, ARCHIVE)
        # The gateway first: it answers what it has accepted, and needs TorchServe for that.
        stopped = [Gateway(server).stop(), server.stop()]
    print("stopped" if any(stopped) else "no server of this folder is running")


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
    parser.add_argument("--no-gateway", action="store_true", help="start TorchServe alone")
    given = parser.parse_args()
    try:
        if given.command == "start":
            start(
                given.checkpoint,
                given.config,
                given.sample,
                given.precision,
                given.model,
                with_gateway=not given.no_gateway,
            )
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

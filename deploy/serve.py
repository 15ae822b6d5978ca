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
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from client import CaptionError
from deploy.captioner import Captioner, build_archive
from deploy.errors import ServeError
from deploy.gateway import Check, Gateway
from deploy.ports import check_ports
from deploy.properties import CONFIG, ROOT, sha256_of
from deploy.report import caption_sample, described, show_status
from deploy.slots import alone, gateway_of, serving, settle, slots
from deploy.torchserve import TorchServe

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
    check = None
    with alone():
        slot, _ = settle(config)
        server, gateway = slot.server, gateway_of(slot)
        running = server.process()
        if running is None:
            gateway.stop()  # what is left of one whose TorchServe has ended holds its port
            check_ports(config)  # before the export, which takes longer
            if with_gateway:
                check = gateway.check()
        captioner = Captioner.asked_for(checkpoint, model, precision)
        if running is not None:
            if difference := difference_to(server, captioner, config):
                raise ServeError(
                    f"{where(server)}, {difference}; end it first: make stop, or replace it "
                    "without a gap: make swap"
                )
            print(f"{where(server)} already; to end it: make stop", flush=True)
            _keep_gateway(gateway, wanted=with_gateway)
            return
        print(f"captioner: {captioner.name} ({captioner.origin})")
        identity = build_archive(captioner, slot.artifact, server.archive)
        print("starting TorchServe and waiting for its workers ...", flush=True)
        start_torchserve(server, identity, config)
        if check:
            try:
                _start_gateway(gateway, check)
            except BaseException:  # Ctrl-C too: half of what was asked for is not left running
                server.stop()
                raise
    print()
    caption_sample(server, sample or SAMPLE, check)


def start_torchserve(server: TorchServe, identity: Mapping[str, str], config: Path) -> None:
    """Start TorchServe, and say how long that took.

    Args:
        server: The one to start.
        identity: What its archive was made from.
        config: The configuration that was asked for; that of the server may have other ports.

    Raises:
        ServeError: See `TorchServe.start`.
    """
    begin = time.monotonic()
    server.start(served={**identity, "config": sha256_of(config)})
    print(f"they are ready after {time.monotonic() - begin:.1f} s (logs: {server.logs})")


def where(server: TorchServe) -> str:
    """What a running TorchServe serves, and where, for the user."""
    process = server.process()
    number = f" (process {process.pid})" if process else ""
    return f"{described(server)} is served at {server.rest}{number}"


def difference_to(server: TorchServe, captioner: Captioner, config: Path) -> str:
    """How what is served differs from what is asked for; empty if it does not.

    Args:
        server: A TorchServe that runs.
        captioner: The captioner that is asked for.
        config: The configuration that is asked for.

    Raises:
        OSError: The checkpoint or the configuration cannot be read.
    """
    served = server.served()
    wanted = {**captioner.identity(), "config": sha256_of(config)}
    differing = {key for key in wanted if served.get(key) != wanted[key]}
    if differing & {"checkpoint", "precision"}:
        return f"not {captioner.name}"
    if differing - {"config", "name"}:
        return "as it was before its checkpoint or the code changed"
    return f"with another configuration than {config}" if "config" in differing else ""


def idle() -> None:
    """Return if nothing uses the folders of the server, so that they may be removed.

    Raises:
        ServeError: A server runs, or another command is at work.
    """
    with alone():
        for slot in slots():
            if slot.server.process():
                raise ServeError(f"{where(slot.server)}; end it first: make stop")
        gateway = gateway_of(slots()[0])
        if running := gateway.process():
            raise ServeError(
                f"a gateway runs at {gateway.address} (process {running.pid}); end it first: make "
                "stop"
            )


def stop() -> None:
    """End the gateway and every TorchServe of this folder.

    Raises:
        ServeError: A process belongs to another user, or another command is at work.
    """
    with alone():
        # The gateway first: it answers what it has accepted, and needs TorchServe for that.
        slot, other = serving()
        gateway = gateway_of(slot)
        stopped = [gateway.stop(), slot.server.stop(), other.server.stop()]
        gateway.forget_trial()
    print("stopped" if any(stopped) else "no server of this folder is running")


def _keep_gateway(gateway: Gateway, *, wanted: bool) -> None:
    """Start the gateway of a running TorchServe if it does not run, and print where it is.

    Raises:
        ServeError: It runs with other settings or is not wanted, or it cannot be started.
    """
    running = gateway.process()
    if running is None:
        if wanted:
            if gateway.was_started():
                print(f"the gateway at {gateway.address} has ended by itself (log: {gateway.log})")
            _start_gateway(gateway, gateway.check())
        return
    at = f"the gateway runs at {gateway.address} (process {running.pid})"
    if not wanted:
        raise ServeError(f"{at}; for TorchServe alone, end both first: make stop")
    if not gateway.has_settings():
        raise ServeError(f"{at}, with other GATEWAY_* settings; end it first: make stop")
    print(at)


def _start_gateway(gateway: Gateway, check: Check) -> None:
    print("starting the gateway ...", flush=True)
    process = gateway.start(check)
    print(f"it answers at {check.address} (process {process.pid}, log: {gateway.log})")


def add_captioner_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a captioner, as `make serve` and `make swap` take them."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="another captioner: a checkpoint folder, or OWNER/NAME on the hub",
    )
    parser.add_argument("--model", help="published captioner to fetch, such as coco")
    parser.add_argument("--precision", help="fp32, fp16, bf16, int8 or auto")
    parser.add_argument("--config", type=Path, default=CONFIG, help="another config.properties")


def main() -> int:
    """Run one of the commands.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=("start", "status", "stop", "idle"))
    add_captioner_arguments(parser)
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
            stop()
        elif given.command == "idle":
            idle()
        else:
            return show_status(given.config)
    except (ServeError, CaptionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make swap`: another captioner in the place of the one that is served, without a lost request.

    python -m deploy.swap [--checkpoint DIR | --model NAME] [--precision P] [--config FILE]

A second TorchServe is started beside the one that serves, with an archive and ports of its own.
When it captions the golden pictures as it must, the gateway is moved to it. The first one is ended
when the gateway has had its last answer from it. On any fault before the move the second one is
ended, and the first one serves as before.

Both need memory at the same time. A cluster does the same with a rolling update; this command is
for one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from deploy import golden
from deploy.captioner import Captioner, build_archive
from deploy.errors import ServeError
from deploy.gateway import Gateway
from deploy.ports import beside
from deploy.properties import derived_config
from deploy.report import described
from deploy.serve import add_captioner_arguments, difference_to, start_torchserve, where
from deploy.slots import LEAVE_SECONDS, Slot, alone, gateway_of, on_trial, settle
from deploy.torchserve import TorchServe


def swap(checkpoint: Path | None, config: Path, precision: str | None, model: str | None) -> None:
    """Serve another captioner behind the gateway that runs.

    Args:
        checkpoint: The captioner; by default the one trained here, or the shipped one.
        config: The `config.properties` to serve with. Ports of it that are taken are replaced.
        precision: What the captioner is exported in; by default `export.precision`.
        model: A published captioner to fetch, such as `coco`.

    Raises:
        ServeError: No gateway or no TorchServe runs, or the new captioner cannot be served as it
            should be. The old one serves as before.
        OSError: A file cannot be read or written.
    """
    with alone():
        old, new = settle(config)
        gateway = gateway_of(old)
        check_running(gateway, old.server, "to swap")
        if trial := on_trial(old, new):
            raise ServeError(
                f"{described(new.server)} at {trial.inference} is tried out; take it or end it "
                "first: make promote or make rollback"
            )
        captioner = Captioner.asked_for(checkpoint, model, precision)
        if not difference_to(old.server, captioner, config):
            print(f"{where(old.server)} already; nothing is swapped")
            return
        print(f"captioner: {captioner.name} ({captioner.origin})")
        try:
            server = start_beside(new, captioner, config, gateway.move_to)
        except ServeError as error:
            raise ServeError(f"{error}; {where(old.server)} as before") from None
        print(f"the gateway at {gateway.address} asks it now", flush=True)
        end(old.server, gateway)
    print(f"{where(server)}; gRPC: {server.grpc}\nStop:  make stop")


def check_running(gateway: Gateway, server: TorchServe, purpose: str) -> None:
    """Refuse if the gateway or its TorchServe does not run.

    Args:
        gateway: The gateway.
        server: The TorchServe that serves.
        purpose: What there is nothing of then, for the message.

    Raises:
        ServeError: One of them does not run.
    """
    for name, process in (("gateway", gateway.process()), ("TorchServe", server.process())):
        if process is None:
            raise ServeError(f"no {name} runs, so there is nothing {purpose}; start: make serve")


def start_beside(
    slot: Slot, captioner: Captioner, config: Path, move: Callable[[TorchServe], None]
) -> TorchServe:
    """Start a TorchServe in a slot, check it, and move the gateway to it.

    Args:
        slot: The free one.
        captioner: What is to be served.
        config: The configuration that was asked for.
        move: Lets the gateway use the TorchServe.

    Returns:
        The TorchServe. If this fails it runs no more, and the gateway is where it was.

    Raises:
        ServeError: It cannot be started, captions a golden picture otherwise than it must, or the
            gateway does not move.
    """
    identity = build_archive(captioner, slot.artifact, slot.server.archive)
    # Before the start: the two need memory one after the other.
    expected = golden.reference(slot.artifact)
    own = derived_config(slot.server.folder / "config.properties", beside(config), config)
    server = dataclasses.replace(slot.server, config=own)
    print("starting a second TorchServe and waiting for its workers ...", flush=True)
    start_torchserve(server, identity, config)
    try:
        golden.compare(server, expected)
        print(f"it captions the {len(expected)} golden pictures as it must", flush=True)
        move(server)
    except BaseException:  # Ctrl-C too
        server.stop()
        raise
    return server


def end(old: TorchServe, gateway: Gateway) -> None:
    """End a TorchServe that the gateway has left, after its last answer."""
    print(f"waiting for the last answer of {old.rest} ...", flush=True)
    try:
        gateway.wait_left(old.rest, LEAVE_SECONDS)
    except ServeError as error:
        print(f"note: {error}; it is ended, and the gateway sends them to the other one")
    old.stop()


def main() -> int:
    """Swap.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.swap", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_captioner_arguments(parser)
    given = parser.parse_args()
    try:
        swap(given.checkpoint, given.config, given.precision, given.model)
    except (ServeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

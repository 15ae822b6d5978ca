"""What `make serve` and `make status` print about the servers that run."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path

from client import CaptionClient
from deploy.gateway import Check, Gateway
from deploy.slots import gateway_of, is_at_work, on_trial, serving
from deploy.torchserve import TorchServe


def described(server: TorchServe) -> str:
    """The name of the captioner that a running TorchServe serves."""
    return server.served().get("name", "another captioner")


def caption_sample(server: TorchServe, picture: Path, gateway: Check | None) -> None:
    """Print captions of a picture, and how to get more.

    Args:
        server: A TorchServe that is ready.
        picture: The picture file.
        gateway: Where the gateway is reached; None if there is none.

    Raises:
        CaptionError: The server refused the picture.
    """
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


def show_status(config: Path) -> int:
    """Print what runs.

    Args:
        config: The `config.properties` whose address is named if nothing runs.

    Returns:
        The exit status: 0 if all is as `make serve` or `make swap` leave it.
    """
    slot, other = serving(config)
    server, ready = slot.server, False
    if running := server.process():
        workers = server.workers()
        ready = bool(workers)
        about = f"{described(server)}, process {running.pid}, workers ready: {workers}"
        print(f"{server.rest}: {about}")
    else:
        print(f"{server.rest}: not running")
    gateway = gateway_of(slot)
    as_left = _show_gateway(gateway)
    if trial := on_trial(slot, other):
        stopped = gateway.trial_stopped(trial)
        state = f"{stopped}: gets nothing more" if stopped else str(trial).partition(" ")[2]
        about = f"{described(other.server)}, workers ready: {other.server.workers()}"
        print(f"{trial.inference}: candidate {about}, {state}")
        print("compare: .venv/bin/python -m monitoring.compare; end: make promote, make rollback")
        as_left = as_left and not stopped and bool(other.server.workers())
    elif left := other.server.process():
        at_work = is_at_work()
        state = (
            "of a make swap that is at work"
            if at_work
            else "left by a make swap that was cut off; the next make swap, serve or stop ends it"
        )
        print(f"{other.server.rest}: {described(other.server)}, process {left.pid}, {state}")
        as_left = as_left and at_work
    return 0 if ready and as_left else 1


def _show_gateway(gateway: Gateway) -> bool:
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

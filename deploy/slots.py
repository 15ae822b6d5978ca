"""The two slots for a TorchServe on this machine, and which of them the gateway asks.

`make serve` starts TorchServe in the first slot. `make swap` starts the next one in the slot that
is free, moves the gateway to it, and ends the other one. `make canary` starts one there too, and
both run until `make promote` or `make rollback` ends one of them. So nothing of a TorchServe that
runs is written over, and a command that finds two running, of which the gateway knows one, knows
that another command was cut off.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from deploy.errors import ServeError
from deploy.gateway import Gateway
from deploy.gateway_backend import Trial
from deploy.properties import CONFIG, ROOT
from deploy.torchserve import TorchServe

#: Folder of the first TorchServe; those of the second one and of the gateway are in it.
STATE = ROOT / "build" / "server"
#: The archive of the first slot, with the record of what it was made from beside it.
ARCHIVE = ROOT / "model_store" / "served" / "clipcap.mar"
#: The artifact on the way to it.
ARTIFACT = ROOT / "build" / "served"
#: Where the gateway stores feedback, in the folder of the repository. `make clean` leaves it.
FEEDBACK = "sqlite:///data/feedback.db"

#: Seconds that the gateway's requests may take to leave a TorchServe; each ends at its deadline.
LEAVE_SECONDS = 130.0


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place for one TorchServe, and for what it serves.

    Attributes:
        server: The TorchServe; if it runs, with the configuration that it was started with.
        artifact: Folder of the artifact that its archive is made from.
    """

    server: TorchServe
    artifact: Path


def slots(config: Path = CONFIG) -> tuple[Slot, Slot]:
    """Both slots.

    Args:
        config: The `config.properties` of a TorchServe that does not run.
    """
    archive = ARCHIVE.parent / "second" / ARCHIVE.name
    first = Slot(TorchServe(STATE, ARCHIVE, config), ARTIFACT)
    second = Slot(
        TorchServe(STATE / "second", archive, config),
        ARTIFACT.with_name(f"{ARTIFACT.name}-second"),
    )
    return _as_it_runs(first), _as_it_runs(second)


def _as_it_runs(slot: Slot) -> Slot:
    if slot.server.process() is None:
        return slot
    return dataclasses.replace(slot, server=slot.server.as_started())


def serving(config: Path = CONFIG) -> tuple[Slot, Slot]:
    """The slot whose TorchServe serves, and the other one.

    The TorchServe of the second slot serves if the gateway asks it: without a gateway there is no
    swap, so the first slot is the only one that is used.

    Args:
        config: See `slots`.
    """
    first, second = slots(config)
    if second.server.process() and gateway_of(first).asks() == second.server.rest:
        return second, first
    return first, second


def gateway_of(slot: Slot) -> Gateway:
    """The gateway, in front of the TorchServe of a slot.

    Args:
        slot: As `serving` returned it.
    """
    return Gateway(slot.server, STATE / "gateway", FEEDBACK)


def on_trial(slot: Slot, other: Slot) -> Trial | None:
    """What the captioner of the other slot gets while it is tried out; None if it is not.

    Args:
        slot: The first one that `serving` returned.
        other: The second one.
    """
    trial = gateway_of(slot).trial()
    both_run = slot.server.process() is not None and other.server.process() is not None
    return trial if trial and both_run and trial.inference == other.server.rest else None


def settle(config: Path = CONFIG) -> tuple[Slot, Slot]:
    """End the TorchServe that a command which was cut off has left.

    Args:
        config: See `slots`.

    Returns:
        As `serving` does; the TorchServe of the second one runs only if it is `on_trial`.

    Raises:
        ServeError: The gateway does not follow, or the process belongs to another user.
    """
    slot, other = serving(config)
    gateway = gateway_of(slot)
    if on_trial(slot, other):
        return slot, other
    if trial := gateway.trial():
        print(f"the trial of the captioner at {trial.inference} is over: a TorchServe has ended")
        if gateway.process() and slot.server.process():
            gateway.move_to(slot.server)
        else:
            gateway.forget_trial()
    if left := other.server.process():
        print(
            f"a make swap was cut off; TorchServe at {other.server.rest} (process {left.pid}), "
            "which it left, is ended",
            flush=True,
        )
        if gateway.process() and slot.server.process():
            gateway.move_to(slot.server)  # it may not have been told yet
            gateway.wait_left(other.server.rest, LEAVE_SECONDS)
    other.server.stop()  # of one that ended by itself, what it unpacked
    return serving(config)


def is_at_work() -> bool:
    """Whether a command of this folder is starting, replacing or stopping servers."""
    try:
        with alone():
            return False
    except ServeError:
        return True


@contextlib.contextmanager
def alone() -> Iterator[None]:
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
            f"another make serve, make swap or make stop is at work in {STATE}; wait until it ends"
        ) from None

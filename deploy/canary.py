"""`make canary`, `make promote`, `make rollback`: another captioner beside the served one.

    python -m deploy.canary start [--checkpoint DIR | --model NAME] [--precision P] [--config FILE]
                                  [--share PERCENT] [--shadow 1]
    python -m deploy.canary promote
    python -m deploy.canary rollback

`start` serves the other captioner, the candidate, by a second TorchServe, checks it as `make swap`
does, and lets the gateway send it a share of the requests; with `--shadow 1` a copy of them, whose
replies no user gets. Once more, it changes the share. `promote` lets the candidate answer all
requests and ends the other TorchServe; `rollback` ends the candidate's. No request is lost.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.captioner import Captioner
from deploy.errors import ServeError
from deploy.gateway_backend import Trial
from deploy.report import described
from deploy.serve import add_captioner_arguments, difference_to, where
from deploy.slots import Slot, alone, gateway_of, on_trial, settle
from deploy.swap import check_running, end, start_beside

#: Percent of the requests that a candidate gets unless another share is given.
SHARE = 10.0
_NEXT = "compare: .venv/bin/python -m monitoring.compare\nend:     make promote, make rollback"


def start(
    captioner: Captioner, config: Path, share: float | None, shadow: bool | None, named: bool
) -> None:
    """Try a captioner out, or change what the one that is tried out gets.

    Args:
        captioner: The candidate.
        config: The `config.properties` to serve with. Ports of it that are taken are replaced.
        share: Percent of the requests; None for `SHARE`, or for what it gets already.
        shadow: Whether it gets copies; None for no, or for what it gets already.
        named: Whether the user has named the captioner, so that it must be the one tried out.

    Raises:
        ServeError: No gateway or no TorchServe runs, another captioner is tried out, or the
            candidate cannot be served as it should be. Everything is as before then.
        OSError: A file cannot be read or written.
    """
    with alone():
        stable, other = settle(config)
        gateway = gateway_of(stable)
        check_running(gateway, stable.server, "to try a captioner out beside")

        def tried(trial: Trial | None) -> tuple[float, bool]:
            wanted = trial.share if trial else SHARE, trial.shadow if trial else False
            return (
                wanted[0] if share is None else share,
                wanted[1] if shadow is None else shadow,
            )

        if before := on_trial(stable, other):
            if named and difference_to(other.server, captioner, config):
                raise ServeError(
                    f"{described(other.server)} is tried out already; take it or end it first: "
                    "make promote or make rollback"
                )
            trial = Trial.of(other.server, *tried(before))
            gateway.move_to(stable.server, trial)
            print(f"{described(other.server)} at {trial}\n{_NEXT}")
            return
        if not difference_to(stable.server, captioner, config):
            raise ServeError(
                f"{where(stable.server)} already; name another one: make canary CHECKPOINT=DIR"
            )
        print(f"captioner: {captioner.name} ({captioner.origin})")
        try:
            server = start_beside(
                other,
                captioner,
                config,
                lambda server: gateway.move_to(stable.server, Trial.of(server, *tried(None))),
            )
        except ServeError as error:
            raise ServeError(f"{error}; {where(stable.server)} as before") from None
        print(f"{captioner.name} at {Trial.of(server, *tried(None))}")
        print(f"{where(stable.server)} to the others\n{_NEXT}")


def promote() -> None:
    """Let the candidate answer all requests.

    Raises:
        ServeError: No captioner is tried out, the gateway has stopped it, or it has no worker.
    """
    with alone():
        stable, other, trial = _both()
        gateway = gateway_of(stable)
        if stopped := gateway.trial_stopped(trial):
            raise ServeError(
                f"the gateway has {stopped}, so it is not taken; end it: make rollback (log: "
                f"{gateway.log})"
            )
        if not other.server.workers():
            raise ServeError(f"{trial.inference} has no worker that is ready; see make status")
        gateway.move_to(other.server)
        print(f"the gateway at {gateway.address} asks {trial.inference} only", flush=True)
        end(stable.server, gateway)
    print(where(other.server))


def rollback() -> None:
    """End the trial.

    Raises:
        ServeError: No captioner is tried out.
    """
    with alone():
        stable, other, trial = _both()
        gateway = gateway_of(stable)
        gateway.move_to(stable.server)
        print(f"the gateway at {gateway.address} asks {stable.server.rest} only", flush=True)
        end(other.server, gateway)
    print(where(stable.server))


def _both() -> tuple[Slot, Slot, Trial]:
    """The slot that serves, that of the candidate, and what the candidate gets."""
    stable, other = settle()
    trial = on_trial(stable, other)
    if trial is None:
        raise ServeError("no captioner is tried out; begin: make canary CHECKPOINT=DIR")
    check_running(gateway_of(stable), stable.server, "to promote or to roll back")
    return stable, other, trial


def main() -> int:
    """Run one of the commands.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.canary", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=("start", "promote", "rollback"))
    add_captioner_arguments(parser)
    parser.add_argument("--share", type=_percent, help=f"percent of the requests ({SHARE:g})")
    parser.add_argument("--shadow", choices=("0", "1"), help="1: copies of them; 0: themselves (0)")
    given = parser.parse_args()
    try:
        if given.command == "promote":
            promote()
        elif given.command == "rollback":
            rollback()
        else:
            captioner = Captioner.asked_for(given.checkpoint, given.model, given.precision)
            shadow = None if given.shadow is None else given.shadow == "1"
            named = any((given.checkpoint, given.model, given.precision))
            start(captioner, given.config, given.share, shadow, named)
    except (ServeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _percent(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no percentage from 0 to 100")
    return value


if __name__ == "__main__":
    sys.exit(main())

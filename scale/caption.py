"""Captions many pictures, on this machine or on a Ray cluster, into Parquet.

    python -m scale.caption photos --out captions
    python -m scale.caption photos --out captions --sample 50
    python -m scale.caption 's3://bucket/shards/*.tar' --out s3://bucket/captions --num-beams 3
    python -m scale.caption list.txt --out /shared/captions --address 10.0.0.1:6379

Run it again to go on where it was interrupted. Each picture ends as one row, with a caption or an
error. The exit status is 0 when all rows are written, whatever they hold; 1 for an error of the
job, 2 for a wrong command line, and 130 or 143 after Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from model.refusal import Refusal
from scale.command_line import parse_arguments


class Interrupted(KeyboardInterrupt):
    """A signal ends the run; `args` has its number."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        words: Those of the command line; None for those of this process.

    Returns:
        The exit status.
    """
    given = parse_arguments(__doc__, words)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        if given.sample:
            from scale.sample import write_sample

            write_sample(given)
        else:
            from scale.run import run

            run(given)
    except Interrupted as interrupted:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 128 + int(interrupted.args[0])
    except Exception as error:
        if given.debug:
            raise
        print(f"error: {_readable(error)}", file=sys.stderr)
        return 1
    return 0


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _readable(error: BaseException) -> str:
    """One line: the refusal that is its cause, here or in another process, or else its kind."""
    causes: list[BaseException | None] = [error]
    for each in causes:
        if isinstance(each, Refusal | OSError):
            return " ".join(str(each).split())
        if each is not None and len(causes) < 20:  # Ray has the error of another process in `cause`
            found = getattr(each, "cause", None)
            causes += [found if isinstance(found, BaseException) else None, each.__cause__]
    last = [line for line in str(error).splitlines() if line.strip()][-1:] or [""]
    return f"{type(error).__name__}: {last[0].strip()[:500]} (--debug shows the traceback)"


if __name__ == "__main__":
    sys.exit(main())

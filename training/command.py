"""How every command of this room starts and how it fails: one readable line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from model.refusal import Refusal

#: Failures that are about what the user gave or the machine has, not about our code.
READABLE = (Refusal, OSError)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what all commands share: settings as `key=value`, and `--debug`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="a setting of training/conf/config.yaml"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def command(main: Callable[[], None]) -> None:
    """Run a command; a refusal becomes one line on stderr and exit status 1."""
    try:
        main()
    except READABLE as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

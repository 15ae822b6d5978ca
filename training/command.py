"""What all commands of the pipeline share: the command line, and an error as one line.

A command reads and checks its settings first, and imports torch and what needs it only then, inside
its `main`. So a wrong setting is reported at once and not after seconds of imports.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from model.refusal import Refusal

#: Errors of the user's input or of the machine, whose messages are complete without a traceback.
READABLE = (Refusal, OSError)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments of every command: settings as `key=value`, and `--debug`.

    Args:
        description: The text of `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="a setting of training/conf/config.yaml"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def given_options(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the named options that the command line gives, by name."""
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def command(main: Callable[[], None]) -> None:
    """Run a command; an error in `READABLE` becomes one line on stderr and exit status 1.

    Args:
        main: The command; it parses `sys.argv` itself.
    """
    try:
        main()
    except READABLE as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

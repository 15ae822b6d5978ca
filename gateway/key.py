"""Makes an API key: `python -m gateway.key NAME --file FILE --rate PICTURES_A_SECOND`.

The key is printed once; the file gets its hash. The gateway reads the file at its start.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.access.keys import add_key
from gateway.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a new key.

    Args:
        arguments: The words of the command line; by default those of this process.

    Returns:
        The exit status: 0, or 1 if the key was not made.
    """
    parser = argparse.ArgumentParser(prog="python -m gateway.key", description="Makes an API key.")
    parser.add_argument("name", metavar="NAME", help="of the person or program it is for")
    parser.add_argument(
        "--file", type=Path, default=Path("gateway-keys"), help="of hashes (gateway-keys)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        help="pictures a second that it may send, 0 for no limit (GATEWAY_RATE)",
    )
    given = parser.parse_args(arguments)
    try:
        key = add_key(given.file, given.name, given.rate)
    except (SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(key)
    print(
        f"Its hash is in {given.file}. The key is not kept: store it now. "
        f"The gateway reads the file at its start: GATEWAY_KEYS={given.file}",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

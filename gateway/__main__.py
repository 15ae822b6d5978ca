"""Starts the gateway: `python -m gateway`, with settings from `GATEWAY_*` variables.

SIGTERM and Ctrl-C end it: it accepts no more connections, answers what it has accepted, and stops.
`python -m gateway --address` checks the settings, prints where it would be reached, and ends.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys

import uvicorn

from gateway.app import create_app
from gateway.settings import Settings, SettingsError


def main() -> int:
    """Serve until a signal ends it.

    Returns:
        The exit status: 0, or 2 if a setting cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--address", action="store_true", help="check the settings, print the address, and end"
    )
    given = parser.parse_args()
    try:
        settings = Settings.from_environment(os.environ)
        app = create_app(settings)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.address:
        print(settings.address)
        return 0
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each picture otherwise
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # the gateway's own log has an id and no query
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.deadline_seconds) + 5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

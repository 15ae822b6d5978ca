"""Starts the gateway: `python -m gateway`, with settings from `GATEWAY_*` variables and TOML files.

SIGTERM and Ctrl-C end it: it accepts no more connections, answers what it has accepted, and stops.
SIGHUP makes it read its files again and go on with the TorchServe that they name.
`python -m gateway --address` checks the settings, prints where it would be reached, and ends.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from gateway.app import create_app
from gateway.reload import Reload
from gateway.server import Server
from gateway.settings import Settings, SettingsError, settings_files
from gateway.torchserve import TorchServeClient


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
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="TOML file; variables win over it"
    )
    given = parser.parse_args()
    if not given.address:
        logging.basicConfig(
            level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s"
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each picture otherwise
    try:
        settings = Settings.from_environment(os.environ, given.settings)
        torchserve = TorchServeClient(settings)
        app = create_app(settings, torchserve)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.address:
        print(settings.address)
        return 0
    reload = None
    if settings_files(os.environ, given.settings):
        reload = Reload(os.environ, given.settings, settings, torchserve.backends)
    server = Server(app, settings, reload)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Starts the gateway: `python -m gateway`, with settings from `GATEWAY_*` variables and TOML files.

SIGTERM and Ctrl-C end it: it accepts no more connections, answers what it has accepted, and stops.
SIGHUP makes it read its files again and go on with the TorchServe and the certificate that they
name.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from gateway.access.keys import read_keys
from gateway.app import create_app
from gateway.captioning.torchserve import TorchServeClient
from gateway.listening.listener import bind
from gateway.listening.server import Server
from gateway.listening.tls import read_certificate
from gateway.measures import Measures
from gateway.reload import Reload
from gateway.settings import Settings, SettingsError, settings_files
from gateway.telemetry import log, tracing


def main() -> int:
    """Serve until a signal ends it.

    Returns:
        The exit status: 0, or 2 if a setting cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="TOML file; variables win over it"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check the settings, print what make serve needs to know, and end",
    )
    given = parser.parse_args()
    try:
        settings = Settings.from_environment(os.environ, given.settings)
        tls = read_certificate(settings)
        traces = tracing.from_environment()
        if given.check:
            if settings.keys:
                read_keys(settings.keys)
            check = {
                "address": settings.address,
                "stop_seconds": settings.drain_seconds,
                "needs_key": settings.keys is not None,
            }
            print(json.dumps(check))
            return 0
        log.start(as_json=settings.json_log)
        measures = Measures()
        torchserve = TorchServeClient(settings)
        app = create_app(settings, torchserve, measures, traces)
        server = Server(app, settings, measures, bind(settings), tls)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if tls or settings_files(os.environ, given.settings):
        reload = Reload(
            os.environ, given.settings, settings, torchserve.backends, server.renew_certificate
        )
        server.on_hangup(reload)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The check of a container: exit status 0 while its server is ready to caption.

    python -m deploy.container.health [torchserve | gateway]

Without an argument it checks the server that the container was started with.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import urllib.request
from pathlib import Path

from deploy.container.archive import BUILT_IN
from deploy.properties import CONFIG
from deploy.torchserve import TorchServe

SERVERS = ("torchserve", "gateway")
#: Seconds that the gateway may take: it captions a sample if it has captioned nothing for a minute.
_GATEWAY_SECONDS = 8.0
#: Opens addresses of this machine without the proxy that the environment may name.
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def torchserve_is_ready(config: Path = CONFIG) -> bool:
    """Whether a worker of the TorchServe of this container is ready.

    Args:
        config: The `config.properties` that it serves with.
    """
    return bool(TorchServe(Path(), BUILT_IN, config).workers())


def gateway_is_ready() -> bool:
    """Whether `/readyz` of the gateway of this container is 200."""
    # 0.0.0.0, which the gateway may listen on, also leads to this machine.
    host = os.environ.get("GATEWAY_HOST", "127.0.0.1")
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{os.environ.get('GATEWAY_PORT', '8000')}/readyz"
    try:
        with _NO_PROXY.open(address, timeout=_GATEWAY_SECONDS):
            return True
    except (OSError, http.client.HTTPException):
        return False


def started_server(init: Path = Path("/proc/1/cmdline")) -> str:
    """The last word of the container's command.

    Args:
        init: The command line of its first process, with a zero byte after each word.
    """
    return init.read_text().rstrip("\0").rpartition("\0")[2]


def main() -> int:
    """Check a server.

    Returns:
        The exit status: 0 if it is ready, 1 if not.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.container.health", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("server", choices=SERVERS, nargs="?")
    server = parser.parse_args().server or started_server()
    if server not in SERVERS:
        print(f"error: this container runs {server!r}; name a server", file=sys.stderr)
        return 1
    ready = torchserve_is_ready() if server == "torchserve" else gateway_is_ready()
    print(f"{server} is {'ready' if ready else 'not ready'}")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())

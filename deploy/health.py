"""Whether a gateway of this machine answers, and whether it is the process that was started."""

from __future__ import annotations

import http.client
import ssl
import urllib.parse
import urllib.request

import psutil


def _opener() -> urllib.request.OpenerDirector:
    """Opens addresses of this machine without the proxy that the environment may name.

    A certificate is for the name under which others reach the gateway, so it is not checked.
    `listens` tells whether another program answers.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )


_OPENER = _opener()


def answers(address: str) -> bool:
    """Whether `/healthz` is answered there.

    Args:
        address: Such as `http://127.0.0.1:8000`.
    """
    try:
        with _OPENER.open(f"{address}/healthz", timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def listens(process: psutil.Process, address: str) -> bool:
    """Whether a process listens on the port of an address.

    Args:
        process: Of this user.
        address: Such as `http://127.0.0.1:8000`.
    """
    port = urllib.parse.urlsplit(address).port
    try:
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr.port == port
            for each in process.net_connections("tcp")
        )
    except psutil.Error:
        return False

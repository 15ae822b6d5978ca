"""Asks a server to describe its model: the options it takes, its limits and formats."""

from __future__ import annotations

from typing import Any

import httpx

from client.access import Access
from client.errors import ServerTimeout, ServerUnreachable
from client.rest import tls_context
from client.results import bad_reply, server_error


def describe(
    management: str, model: str, timeout: float, access: Access | None = None
) -> dict[str, Any]:
    """The captioner's own part of TorchServe's description of a model.

    Args:
        management: Address of the management API, such as `http://127.0.0.1:8081`.
        model: Name of the model on the server.
        timeout: Seconds to wait for an answer.
        access: Headers to send and certificates to trust.

    Returns:
        `options`: name -> `type`, `from`, `to`, `default` and `help`; beside it `formats`,
        `max_pixels`, `max_pictures` and more.

    Raises:
        CaptionError: The server has no such model, is no captioner, or does not answer.
    """
    address = management.rstrip("/")
    access = access or Access()
    try:
        # As in `client.rest`: no proxy of the environment.
        reply = httpx.get(
            f"{address}/models/{model}",
            params={"customized": "true"},
            timeout=timeout,
            trust_env=False,
            verify=tls_context(access),
            headers=dict(access.headers),
        )
    except httpx.TimeoutException:
        raise ServerTimeout(address, timeout) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachable(address, str(error)) from None
    try:
        found = reply.json()
    except ValueError:
        raise bad_reply(reply.status_code, reply.content) from None
    if isinstance(found, dict) and "message" in found:
        raise server_error(reply.status_code, str(found.get("type", "")), str(found["message"]))
    description = found[0].get("customizedMetadata") if _is_list_of_one(found) else None
    if not isinstance(description, dict) or not isinstance(description.get("options"), dict):
        raise bad_reply(reply.status_code, reply.content)
    return description


def _is_list_of_one(found: object) -> bool:
    return isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict)
